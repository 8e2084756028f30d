/** `effect-synapse call`: one call of a handler, its value on stdout. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Synapse from "../../Synapse.ts"
import type { SynapseError } from "../../SynapseError.ts"
import { ArrowStream } from "../arrowStream.ts"
import { listHandlers } from "./handlers.ts"
import { toJson } from "./json.ts"
import { type ModuleFlags, runtimeOptions } from "./module.ts"
import { isPayload, readPayload } from "./payload.ts"
import { write } from "./terminal.ts"

/** @internal */
export interface CallFlags extends ModuleFlags {
  readonly method: string | undefined
  readonly payload: ReadonlyArray<string>
  readonly file: string | undefined
  readonly timeout: Duration.Duration | undefined
  readonly raw: boolean
  readonly list: boolean
}

/** @internal */
export const run = (flags: CallFlags) => Effect.scoped(flags.list ? listHandlers(flags) : callHandler(flags))

const callHandler = Effect.fnUntraced(function* (flags: CallFlags) {
  // `call ./python '{"x": 1}'`: the payload of the default handler.
  const isDefault = flags.method === undefined || isPayload(flags.method)
  const method = isDefault ? "main" : flags.method!
  const words = isDefault && flags.method !== undefined ? [flags.method, ...flags.payload] : flags.payload
  // Before Python is started, which may take long.
  const input = yield* readPayload({ words, file: flags.file })
  const print = flags.raw ? printRaw : printJson(yield* isTerminal)
  const runtime = yield* Synapse.make(runtimeOptions(flags))
  const options = { method, timeout: flags.timeout }
  yield* runtime.call(Schema.Unknown, input, options).pipe(
    Effect.flatMap(print),
    // It is refused before it runs: the handler gives items.
    Effect.catchIf(isRefusedForm, (refused) =>
      runtime.stream(Schema.Unknown, input, options).pipe(
        Stream.runForEach(flags.raw ? printRaw : printJson(false)),
        Effect.mapError((error) => (isRefusedForm(error) ? refused : error))
      )
    )
  )
})

const isTerminal = Effect.flatMap(Stdio.Stdio, ({ stdoutIsTerminal }) => stdoutIsTerminal)

const isRefusedForm = (error: { readonly _tag: string }): error is SynapseError => {
  if (error._tag !== "SynapseError") return false
  const { reason } = error as SynapseError
  return reason._tag === "Unsupported" && reason.delivery === "rejected"
}

const printJson = (isTerminal: boolean) => (value: unknown) => write(`${toJson(value, isTerminal ? 2 : undefined)}\n`)

/** Text and bytes as they are, for files and pipes. */
const printRaw = (value: unknown) => {
  if (typeof value === "string") return write(`${value}\n`)
  if (value instanceof Uint8Array) return write(value)
  if (value instanceof ArrowStream) return Effect.forEach(value.pieces, (piece) => write(piece), { discard: true })
  return printJson(false)(value)
}
