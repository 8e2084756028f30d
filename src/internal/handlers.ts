/** Plain functions as the handlers of fake workers, and what a handler knows of the call that it answers. */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Stream from "effect/Stream"
import { isSynapseError, type SynapseError } from "../SynapseError.ts"
import type { Asks } from "./asking.ts"
import type { HandlerCall, Module } from "./fakeWorker.ts"
import * as InputStreams from "./inputStreams.ts"
import { failed, Refused, type RequestEnd, succeeded, unsupported } from "./requestEnd.ts"

/** The call that a handler of a fake worker answers. */
export interface HandlerContext {
  readonly report: (progress: unknown) => void
  readonly ask: Asks
}

export const CurrentHandler = Context.Reference<HandlerContext | undefined>(
  "effect-synapse/internal/handlers/CurrentHandler",
  { defaultValue: () => undefined }
)

export type Handler = (payload: never, headers: Readonly<Record<string, string>>) => unknown

/** Functions as a module. What they give is seen when they are called: a value, an effect or a stream. */
export const moduleOf = <R>(handlers: Readonly<Record<string, Handler>>): Effect.Effect<Module, never, R> =>
  Effect.map(Effect.context<R>(), (context) => ({
    functions: new Map(Object.keys(handlers).map((name) => [name, undefined])),
    context: context as Context.Context<never>,
    connect: Effect.succeed({ run: (call) => run(handlers[call.method]!, call) })
  }))

const run = (handler: Handler, call: HandlerCall): Effect.Effect<RequestEnd> =>
  Effect.suspend(() => {
    const given = handler((call.payload ?? {}) as never, call.headers)
    if (Stream.isStream(given)) return call.isStream ? sendAll(given, call) : Effect.succeed(wantsStream(call.method))
    if (!Effect.isEffect(given)) return Effect.succeed(call.isStream ? wantsCall(call.method) : succeeded(given))
    return Effect.matchCauseEffect(given as Effect.Effect<unknown, unknown>, {
      onSuccess: (value) => {
        if (Stream.isStream(value))
          return call.isStream ? sendAll(value, call) : Effect.succeed(wantsStream(call.method))
        return Effect.succeed(call.isStream ? wantsCall(call.method) : succeeded(value))
      },
      onFailure: endOfCause
    })
  })

const sendAll = (stream: Stream.Stream<unknown, unknown, unknown>, call: HandlerCall): Effect.Effect<RequestEnd> =>
  Effect.matchCauseEffect(Stream.runForEachArray(stream as Stream.Stream<unknown, unknown>, call.send), {
    onSuccess: () => Effect.succeed(succeeded(null)),
    onFailure: endOfCause
  })

const endOfCause = (cause: Cause.Cause<unknown>): Effect.Effect<RequestEnd> => {
  const found = Cause.findErrorOption(cause)
  if (Option.isNone(found)) return Effect.failCause(cause as Cause.Cause<never>)
  const error = found.value
  if (error instanceof Refused) return Effect.succeed(error)
  if (isSynapseError(error)) return Effect.succeed(endOfSynapseError(error))
  // What a class of Python would declare has a tag; anything else is raised.
  return Predicate.hasProperty(error, "_tag")
    ? Effect.map(InputStreams.encodeFailure(error), failed)
    : Effect.die(error)
}

/** What Python would have answered for the caller to get this error. */
const endOfSynapseError = ({ message, reason }: SynapseError): RequestEnd => {
  switch (reason._tag) {
    case "PythonException":
      return { _tag: "Exception", exception: reason.exception }
    case "HandlerFailed":
      return failed(reason.error)
    default:
      return { _tag: "Exception", exception: { type: reason._tag, module: "synapse", message, frames: [] } }
  }
}

export const wantsStream = (method: string): Refused =>
  unsupported(`\`${method}\` streams its values: call it with \`Synapse.stream\``)

export const wantsCall = (method: string): Refused =>
  unsupported(`\`${method}\` returns one value and does not stream: call it with \`Synapse.call\``)
