/**
 * The records of the server, one JSON object a line on stderr behind a record separator. Other lines there are output.
 *
 * @internal
 */

/** @internal */
export interface Log {
  readonly level: "debug" | "info" | "warn" | "error"
  /** `server`, `stdout`, `stderr`, `uncaught`, or the method of the console, as `console.log`. */
  readonly source: string
  readonly message: string
  /** Which thread it is from. */
  readonly thread?: number
}

/** @internal */
export const log = (record: Log): void => {
  process.stderr.write(`\u001e${JSON.stringify({ time: new Date().toISOString(), ...record })}\n`)
}
