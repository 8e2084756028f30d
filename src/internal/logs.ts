/** The way of a worker's output into Effect logs: a bounded queue that no reader waits on, and a fiber that logs. */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as LogLevel from "effect/LogLevel"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type * as Envelope from "../Envelope.ts"
import type { OutputLine } from "../PythonProcess.ts"
import { type ExceptionInfo, renderTraceback } from "../SynapseError.ts"
import { nativeSleep } from "./nativeSleep.ts"

/** One record of what a worker printed or logged. */
export interface LogRecord {
  readonly level: LogLevel.Severity
  /** The name of the Python logger; `"stdout"` and `"stderr"` for what was printed. */
  readonly logger: string
  readonly message: string
  /** The process id of the worker. */
  readonly pid: number
  /** The source file, relative to the module's directory if it lies there. */
  readonly file: string | undefined
  readonly line: number | undefined
  /** The number of the call that the record belongs to, counted per worker. */
  readonly call: number | undefined
  /** The traceback of the exception that was logged with it. */
  readonly exception: string | undefined
}

export type LogsOption = "effect" | "ignore" | ((record: LogRecord) => Effect.Effect<void>)

export interface Logs {
  readonly record: (pid: number, log: Envelope.Log) => void
  readonly line: (pid: number, line: OutputLine) => void
}

/** Records that wait to be logged, and the characters of their messages: what comes faster is dropped and counted. */
const maxRecords = 8192
const maxCharacters = 16 * 1024 * 1024
/** Characters of one message, beyond which it is cut. */
const maxMessage = 65_536
/** How long closing the scope waits for the last records to be logged. */
const flushMillis = 1000

interface Pending {
  readonly record: Omit<LogRecord, "exception">
  /** Rendered by the fiber that logs, not by the one that reads. */
  readonly exception: ExceptionInfo | undefined
}

/**
 * `directory` is the module's: files in it are named from there. Of one worker, no more records are taken in a second than
 * `recordsPerSecond`.
 */
export const make = Effect.fnUntraced(function* (
  option: LogsOption,
  directory: string,
  recordsPerSecond = Number.POSITIVE_INFINITY
): Effect.fn.Return<Logs, never, Scope.Scope> {
  if (option === "ignore") return { record: () => {}, line: () => {} }
  const prefix = `${directory}/`
  /** Nothing is in it only to wake the fiber that logs. */
  const queue = yield* Queue.dropping<Pending | undefined, Cause.Done>(maxRecords)
  const sink = option === "effect" ? toEffectLog : option
  let characters = 0
  let dropped = 0

  const pace = recordsPerSecond < Number.POSITIVE_INFINITY ? "limits.logRecordsPerSecond allows" : "they were logged"
  const rates = new Rates(recordsPerSecond, () => Queue.offerUnsafe(queue, undefined))

  const offer = (record: Pending["record"], exception?: ExceptionInfo): void => {
    if (!rates.admits(record.pid)) dropped++
    else if (characters < maxCharacters && Queue.offerUnsafe(queue, { record, exception })) {
      characters += record.message.length
    } else dropped++
  }
  const log = (pending: Pending | undefined): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (pending === undefined) return Effect.void
      const { exception, record } = pending
      characters -= record.message.length
      return sink({ ...record, exception: exception && renderTraceback(exception) })
    }).pipe(Effect.ignoreCause)
  const reportDropped = Effect.suspend(() => {
    if (dropped === 0) return Effect.void
    const count = dropped
    dropped = 0
    return Effect.logWarning(`${count} log records of Python were dropped: they came faster than ${pace}`)
  }).pipe(Effect.ignoreCause)

  const fiber = yield* Queue.takeAll(queue).pipe(
    Effect.flatMap((pending) => Effect.forEach(pending, log, { discard: true })),
    Effect.andThen(reportDropped),
    Effect.forever,
    Effect.ignore,
    Effect.andThen(reportDropped),
    Effect.forkDetach
  )
  // The last records are logged before the scope is closed, unless whoever takes them does not come to an end.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => rates.stop()).pipe(
      Effect.andThen(Queue.end(queue)),
      Effect.andThen(Effect.raceFirst(Fiber.await(fiber), nativeSleep(flushMillis))),
      Effect.andThen(Effect.sync(() => fiber.interruptUnsafe()))
    )
  )
  return {
    record: (pid, { dropped: lost, exception, file, id, level, line, logger, message }) => {
      dropped += lost ?? 0
      offer(
        {
          level: severity(level),
          logger,
          message: message.length > maxMessage ? `${message.slice(0, maxMessage)}…` : message,
          pid,
          file: file?.startsWith(prefix) ? file.slice(prefix.length) : (file ?? undefined),
          line: line ?? undefined,
          call: id ?? undefined
        },
        exception ?? undefined
      )
    },
    line: (pid, { source, text }) =>
      offer({
        level: source === "stdout" ? "Info" : "Warn",
        logger: source,
        message: text,
        pid,
        file: undefined,
        line: undefined,
        call: undefined
      })
  }
})

/** Counts the records of each worker, second by second. */
class Rates {
  readonly #limit: number
  readonly #onEnd: () => void
  readonly #taken = new Map<number, number>()
  #timer: NodeJS.Timeout | undefined
  #hasDropped = false

  /** `onEnd` is called at the end of each second in which records were refused. */
  constructor(limit: number, onEnd: () => void) {
    this.#limit = limit
    this.#onEnd = onEnd
  }

  admits(pid: number): boolean {
    if (this.#limit === Number.POSITIVE_INFINITY) return true
    // A second begins with the first record after the one before, of whichever worker.
    this.#timer ??= setTimeout(() => this.#end(), 1000).unref()
    const taken = this.#taken.get(pid) ?? 0
    if (taken >= this.#limit) {
      this.#hasDropped = true
      return false
    }
    this.#taken.set(pid, taken + 1)
    return true
  }

  #end(): void {
    const hasDropped = this.#hasDropped
    this.stop()
    if (hasDropped) this.#onEnd()
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#taken.clear()
    this.#hasDropped = false
  }
}

const severity = (level: number): LogLevel.Severity =>
  level >= 50
    ? "Fatal"
    : level >= 40
      ? "Error"
      : level >= 30
        ? "Warn"
        : level >= 20
          ? "Info"
          : level >= 10
            ? "Debug"
            : "Trace"

const toEffectLog = ({ exception, level, message, ...annotations }: LogRecord): Effect.Effect<void> =>
  Effect.logWithLevel(level)(exception === undefined ? message : `${message}\n${exception}`).pipe(
    Effect.annotateLogs(Object.fromEntries(Object.entries(annotations).filter(([, value]) => value !== undefined)))
  )
