/** What commands write: results to stdout, everything else to stderr. */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import type { PlatformError } from "effect/PlatformError"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"

/** Nobody reads stdout any more, as in `effect-synapse call ... | head -1`. */
export class OutputClosed {
  readonly _tag = "OutputClosed"
}

/** What was to be read there is not: the disk is full, for example. */
export class OutputLost extends Error {
  readonly _tag = "OutputLost"
}

/** Writes to stdout, and waits until it takes more. */
export const write = (output: string | Uint8Array): Effect.Effect<void, OutputClosed | OutputLost, Stdio.Stdio> =>
  Stdio.Stdio.use((stdio) => Stream.run(Stream.make(output), stdio.stdout())).pipe(Effect.mapError(whyLost))

const whyLost = ({ cause, message }: PlatformError): OutputClosed | OutputLost => {
  const { code, message: why = message } = (cause ?? {}) as Partial<NodeJS.ErrnoException>
  return code === "EPIPE" || code === "ERR_STREAM_DESTROYED"
    ? new OutputClosed()
    : new OutputLost(`The output cannot be written: ${why}`)
}

const prefixes: Readonly<Record<string, string>> = {
  Fatal: "error: ",
  Error: "error: ",
  Warn: "warning: ",
  Debug: "debug: ",
  Trace: "trace: "
}

const messageOf = (message: unknown): string =>
  (Array.isArray(message) ? message : [message])
    .map((part) => (typeof part === "string" ? part : String(part)))
    .join(" ")

/** Log records as lines on stderr, which leaves stdout to results. */
export const logger: Logger.Logger<unknown, void> = Logger.withConsoleError(
  Logger.make(({ logLevel, message }) => `${prefixes[logLevel] ?? ""}${messageOf(message)}`)
)

/** A line on stderr. */
export const note = (text: string): Effect.Effect<void> => Console.error(text)
