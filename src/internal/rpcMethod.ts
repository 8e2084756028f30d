/** An RPC as calls of a runtime: its schemas prepared, its failures told from those of Synapse. */
import * as Effect from "effect/Effect"
import type * as Rpc from "effect/rpc/Rpc"
import * as RpcSchema from "effect/rpc/RpcSchema"
import * as Schema from "effect/Schema"
import type * as SchemaIssue from "effect/SchemaIssue"
import * as Stream from "effect/Stream"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import type { CallOptions, Runtime } from "../Synapse.ts"
import { DecodeFailed, EncodeFailed, SynapseError } from "../SynapseError.ts"

// Each value meets its own schema; the types of the group are those of who uses this.
type AnyCodec = Schema.Codec<unknown, unknown, unknown, unknown>

/** What an RPC is called on: a runtime, or something that stands for one of its objects. */
export type Callee = Pick<Runtime, "call" | "stream">

export interface Method {
  readonly name: string
  readonly isStream: boolean
  /** From what the constructor of the payload takes to what is encoded. */
  readonly make: (input: unknown) => Effect.Effect<unknown, SynapseError>
  /** Sends a payload and gives the result, or the error that the RPC declares. */
  readonly call: (callee: Callee, payload: unknown, options: CallOptions) => Effect.Effect<unknown, unknown, unknown>
  readonly stream: (callee: Callee, payload: unknown, options: CallOptions) => Stream.Stream<unknown, unknown, unknown>
  /** Whether it is an error that the RPC declares. */
  readonly declares: (error: unknown) => boolean
}

export const methodOf = (rpc: Rpc.AnyWithProps): Method => {
  const name = rpc._tag
  const streams = RpcSchema.isStreamSchema(rpc.successSchema) ? rpc.successSchema : undefined
  const success = (streams?.success ?? rpc.successSchema) as Schema.Top as AnyCodec
  const encodePayload = SchemaMsgpack.encode(rpc.payloadSchema as AnyCodec)
  const errors = new Set<Schema.Top>([rpc.errorSchema])
  if (streams !== undefined) errors.add(streams.error as Schema.Top)
  for (const middleware of rpc.middlewares) errors.add(middleware.error)
  const error = Schema.Union(Array.from(errors)) as Schema.Top as AnyCodec
  const decodeError = SchemaMsgpack.decode(error)

  const encode = (payload: unknown) => Effect.mapError(encodePayload(payload), (issue) => notFitting(name, issue))
  const failure = (error: SynapseError): Effect.Effect<never, unknown, unknown> => {
    if (error.reason._tag !== "HandlerFailed") return Effect.fail(error)
    return Effect.matchEffect(decodeError(error.reason.error), {
      onSuccess: Effect.fail,
      onFailure: (issue) => Effect.fail(undeclared(error, name, issue))
    })
  }
  return {
    name,
    isStream: streams !== undefined,
    make: (input) =>
      Effect.mapError(rpc.payloadSchema.makeEffect(input, { parseOptions }), (issue) => notFitting(name, issue)),
    call: (callee, payload, options) =>
      Effect.catch(
        Effect.flatMap(encode(payload), (encoded) => callee.call(success, encoded, options)),
        failure
      ),
    stream: (callee, payload, options) =>
      Stream.catch(
        Stream.unwrap(Effect.map(encode(payload), (encoded) => callee.stream(success, encoded, options))),
        (error) => Stream.fromEffect(failure(error))
      ),
    declares: Schema.is(error)
  }
}

// What was found is part of the message.
const parseOptions = { reportInput: true }

const notFitting = (method: string, error: SchemaIssue.Issue): SynapseError => {
  const { issue, path } = SchemaMsgpack.describeIssue(error)
  return new SynapseError({
    reason: new EncodeFailed({ side: "typescript", method, path, issue, delivery: "notSent" })
  })
}

/** An error of another class is one that the RPC does not declare; one of a class that it declares has fields that do not fit. */
const undeclared = (error: SynapseError, method: string, why: SchemaIssue.Issue): SynapseError => {
  const { issue, path } = SchemaMsgpack.describeIssue(why)
  if (path === "$" || path === "$._tag") return error
  return new SynapseError({
    reason: new DecodeFailed({ side: "typescript", what: "error", method, path, issue, delivery: "unknown" })
  })
}
