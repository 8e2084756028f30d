/**
 * An `RpcClient.Protocol` over a runtime.
 *
 * Sending a request is making the call: it is done, or fails, when the call is. The fiber that sends is therefore what a stream is
 * delivered by, so that none waits for another, and interrupting it gives the call up.
 */
import * as Effect from "effect/Effect"
import * as Headers from "effect/http/Headers"
import * as RpcClient from "effect/rpc/RpcClient"
import { RpcClientDefect, RpcClientError } from "effect/rpc/RpcClientError"
import type { RequestEncoded, ResponseExitEncoded } from "effect/rpc/RpcMessage"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { WorkerReceiveError, WorkerSendError } from "effect/workers/WorkerError"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import type { CallOptions, Runtime } from "../Synapse.ts"
import type { SynapseError } from "../SynapseError.ts"
import { discard } from "./rpcDiscard.ts"
import { type Options, optionsOf } from "./rpcOptions.ts"

type Exit = ResponseExitEncoded["exit"]

/** Makes a protocol. Calls that nobody waits for belong to the current scope. */
export const makeProtocol = (
  runtime: Runtime,
  options: Options
): Effect.Effect<RpcClient.Protocol["Service"], never, Scope.Scope> =>
  Effect.flatMap(Effect.scope, (scope) =>
    RpcClient.Protocol.make((write) => {
      const exchange = makeExchange(runtime)
      /** The requests that have not ended, of every client. */
      const open = new Set<string>()

      const request = (clientId: number, message: RequestEncoded): Effect.Effect<Exit, SynapseError> =>
        Effect.withFiber((fiber) => {
          const { id, payload, tag } = message
          const prepared = { ...options, method: tag }
          const headers = Headers.fromInput(message.headers)
          if (message.discard) {
            const call = (onSent: () => void) =>
              runtime.call(Schema.Unknown, payload, optionsOf(fiber, prepared, headers, onSent))
            return Effect.as(discard(tag, scope, call), succeeded(null))
          }
          const key = keyOf(clientId, id)
          open.add(key)
          const deliver = (values: ReadonlyArray<unknown>) =>
            Effect.flatMap(write(clientId, { _tag: "Chunk", requestId: id, values: values as [unknown] }), () =>
              open.has(key) ? Effect.void : Effect.interrupt
            )
          return Effect.ensuring(
            exchange(tag, payload, optionsOf(fiber, prepared, headers), deliver),
            Effect.sync(() => open.delete(key))
          )
        })

      return Effect.succeed({
        send: (clientId, message) => {
          if (message._tag === "Request") {
            const ended = Effect.catch(inSpanOf(message, request(clientId, message)), exitOf)
            return Effect.flatMap(ended, (exit) => write(clientId, { _tag: "Exit", requestId: message.id, exit }))
          }
          // The fiber that sends is interrupted already, except where an item of a stream does not decode.
          if (message._tag === "Interrupt") open.delete(keyOf(clientId, message.requestId))
          return Effect.void
        },
        supportsAck: false,
        supportsTransferables: false,
        codecFor: SchemaMsgpack.toCodecMsgpack
      })
    })
  )

const keyOf = (clientId: number, requestId: string | number): string => `${clientId}/${requestId}`

type Deliver = (values: ReadonlyArray<unknown>) => Effect.Effect<void>

/**
 * Whether a request is for a stream is known to its client and to Python, but a protocol is not told: a method is called for one
 * value until Python refuses that, which it does before anything has run.
 */
const makeExchange = (runtime: Runtime) => {
  const streams = new Set<string>()
  return (
    method: string,
    payload: unknown,
    options: CallOptions,
    deliver: Deliver
  ): Effect.Effect<Exit, SynapseError> => {
    const once = Effect.suspend(() => Effect.map(runtime.call(Schema.Unknown, payload, options), succeeded))
    const items = Effect.suspend(() =>
      Effect.as(Stream.runForEachArray(runtime.stream(Schema.Unknown, payload, options), deliver), succeeded(null))
    )
    const isStream = streams.has(method)
    return Effect.catchIf(isStream ? items : once, isOtherWay, () => {
      if (isStream) streams.delete(method)
      else streams.add(method)
      return isStream ? once : items
    })
  }
}

const isOtherWay = ({ reason }: SynapseError): boolean =>
  reason._tag === "Unsupported" && reason.delivery === "rejected"

/** The span of the request, which is mostly that of the fiber. */
const inSpanOf = <A, E>(
  { sampled, spanId, traceId }: RequestEncoded,
  self: Effect.Effect<A, E>
): Effect.Effect<A, E> => {
  if (traceId === undefined || spanId === undefined) return self
  return Effect.withFiber((fiber) =>
    fiber.cache.span?.spanId === spanId
      ? self
      : Effect.withParentSpan(self, Tracer.externalSpan({ traceId, spanId, sampled: sampled ?? true }))
  )
}

const succeeded = (value: unknown): Exit => ({ _tag: "Success", value })

/** What Python failed with is how the request ended; everything else kept it from ending. */
const exitOf = (error: SynapseError): Effect.Effect<Exit, RpcClientError> => {
  const { reason } = error
  switch (reason._tag) {
    case "HandlerFailed":
      return Effect.succeed({ _tag: "Failure", cause: [{ _tag: "Fail", error: reason.error }] })
    case "PythonException": {
      const { message, type: name } = reason.exception
      const defect = { name, message, stack: reason.traceback }
      return Effect.succeed({ _tag: "Failure", cause: [{ _tag: "Die", defect }] })
    }
    case "EncodeFailed":
    case "DecodeFailed":
    case "MethodNotFound":
    case "Unsupported":
    case "FrameTooLarge":
      return failed(RpcClientDefect, error)
    default:
      return failed(error.delivery === "unknown" ? WorkerReceiveError : WorkerSendError, error)
  }
}

type Reason = new (fields: { readonly message: string; readonly cause: unknown }) => RpcClientError["reason"]

const failed = (Reason: Reason, error: SynapseError): Effect.Effect<never, RpcClientError> =>
  Effect.fail(new RpcClientError({ reason: new Reason({ message: error.message, cause: error }) }))
