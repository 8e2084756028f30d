/** From the frame that answers a call to its value or its error; runs in the caller's fiber. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type * as SchemaIssue from "effect/SchemaIssue"
import * as Envelope from "../Envelope.ts"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import type { SynapseErrorReason } from "../SynapseError.ts"
import {
  Closed,
  DecodeFailed,
  EncodeFailed,
  ExceptionInfo,
  FrameTooLarge,
  HandlerFailed,
  MethodNotFound,
  Overloaded,
  ProtocolError,
  PythonException,
  SynapseError,
  Unsupported
} from "../SynapseError.ts"
import { CodecError } from "./msgpack.ts"

const fail = (reason: SynapseErrorReason): Effect.Effect<never, SynapseError> =>
  Effect.fail(new SynapseError({ reason }))

/** What a call expects for an answer. */
export interface Expected<A = unknown, RD = unknown> {
  readonly decode: (input: unknown) => Effect.Effect<A, SchemaIssue.Issue, RD>
  readonly method: string
  readonly parseJson: boolean
  /** The class of the object that has the method. */
  readonly type: string | undefined
}

/** How the answers of a method are turned into values of a schema. `type` is the class of the object that has it. */
export const answerOf = <A, RD>(
  schema: Schema.Decoder<A, RD>,
  method: string,
  parseJson: boolean,
  type?: string | undefined
): ((frame: Envelope.Frame) => Effect.Effect<A, SynapseError, RD>) => {
  const expected = { decode: SchemaMsgpack.decode(schema), method, parseJson, type }
  return (frame) => answerTo(expected, frame)
}

/** The value or the error in the frame that answers a call. */
export const answerTo = <A, RD>(
  expected: Expected<A, RD>,
  frame: Envelope.Frame
): Effect.Effect<A, SynapseError, RD> => {
  const fetch = frame.lent?.fetch
  if (fetch === undefined) return decoded(expected, frame)
  // What is fetched is taken at once, so that no interruption leaves it held.
  return Effect.uninterruptibleMask((restore) => Effect.flatMap(fetch, () => restore(decoded(expected, frame))))
}

const decoded = <A, RD>(expected: Expected<A, RD>, frame: Envelope.Frame): Effect.Effect<A, SynapseError, RD> => {
  const { decode, method, parseJson, type } = expected
  let payload: unknown
  try {
    payload = Envelope.decodeFrame(frame)
    if (frame.kind !== Envelope.Kind.Success) return fail(failureOf(frame, payload, method, type))
    const value = decode(parseJson ? parsed(payload) : payload)
    // Most are there at once.
    if (Exit.isExit(value) && Exit.isSuccess(value)) return value as Exit.Success<A, never>
    return Effect.mapError(value, (error) => {
      const { issue, path } = SchemaMsgpack.describeIssue(error)
      return new SynapseError({ reason: new DecodeFailed({ ...fromReply, method, path, issue }) })
    })
  } catch (error) {
    return fail(undecodable(error, method))
  }
}

/**
 * Why the worker did not start a call that another may take: it has no room, is leaving, or was asked to give it back.
 * Nothing for any other answer.
 */
export const turnedAway = (frame: Envelope.Frame): "Overloaded" | "Closed" | "Recalled" | undefined => {
  if (frame.kind !== Envelope.Kind.Die || frame.meta.length === 0) return undefined
  const { reason } = Envelope.decodeMeta(frame.meta)
  return reason === "Overloaded" || reason === "Closed" || reason === "Recalled" ? reason : undefined
}

/** Whether the handler was not entered. */
export const isRejected = (frame: Envelope.Frame): boolean =>
  frame.kind === Envelope.Kind.Die && frame.meta.length > 0 && Envelope.decodeMeta(frame.meta).delivery === "rejected"

/** The error in a frame that ends a stream without being its end. */
export const failureOfFrame = (
  frame: Envelope.Frame,
  method: string,
  type: string | undefined
): Effect.Effect<never, SynapseError> => {
  try {
    return fail(failureOf(frame, Envelope.decodeFrame(frame), method, type))
  } catch (error) {
    return fail(undecodable(error, method))
  }
}

/** A string that is not JSON is the answer itself. */
export const parsed = (value: unknown): unknown => {
  if (typeof value !== "string") return value
  try {
    return JSON.parse(value)
  } catch {
    return value
  }
}

const fromReply = { side: "typescript", what: "reply", delivery: "unknown" } as const

/** Why an answer cannot be had from its bytes. Workers leave the keys of maps to this side, which looks at them anyway. */
export const undecodable = (error: unknown, method: string): SynapseErrorReason => {
  if (!(error instanceof CodecError)) {
    const detail = `the answer of \`${method}\` is malformed: ${error instanceof Error ? error.message : String(error)}`
    return new ProtocolError({ detail, delivery: "unknown" })
  }
  const { issue, path } = error
  return error.reason === "InvalidKey"
    ? new EncodeFailed({ side: "python", method, path, issue, delivery: "unknown" })
    : new DecodeFailed({ ...fromReply, method, path, issue })
}

const decodeException = Schema.decodeUnknownSync(ExceptionInfo)
const decodeIssue = Schema.decodeUnknownSync(Schema.Struct({ path: Schema.String, issue: Schema.String }))
const decodeNearest = Schema.decodeUnknownSync(Schema.Struct({ nearest: Schema.Array(Schema.String) }))
const decodeSize = Schema.decodeUnknownSync(Schema.Struct({ size: Schema.Int, limit: Schema.Int }))
const decodeCapacity = Schema.decodeUnknownSync(Schema.Struct({ capacity: Schema.Int }))

const decodeDetail = Schema.decodeUnknownSync(Schema.Struct({ detail: Schema.String }))

const failureOf = (
  frame: Envelope.Frame,
  payload: unknown,
  method: string,
  type: string | undefined
): SynapseErrorReason => {
  if (frame.kind === Envelope.Kind.Fail) return new HandlerFailed({ method, error: payload })
  // The worker stops what runs when it leaves.
  if (frame.kind === Envelope.Kind.Interrupted) return new Closed({ delivery: "unknown" })
  const { delivery, reason } = Envelope.decodeMeta(frame.meta)
  switch (reason) {
    case undefined:
      return new PythonException({ method, exception: decodeException(payload) })
    case "MethodNotFound":
      return new MethodNotFound({ method, ...decodeNearest(payload), ...(type === undefined ? {} : { type }) })
    case "DecodeFailed":
      return new DecodeFailed({
        side: "python",
        what: "arguments",
        method,
        ...decodeIssue(payload),
        delivery: delivery === "rejected" ? "rejected" : "unknown"
      })
    case "EncodeFailed":
      return new EncodeFailed({
        side: "python",
        method,
        ...decodeIssue(payload),
        delivery: delivery === "rejected" ? "rejected" : "unknown"
      })
    case "FrameTooLarge":
      return new FrameTooLarge({ side: "python", method, ...decodeSize(payload) })
    case "Overloaded":
      return new Overloaded({ where: "worker", ...decodeCapacity(payload) })
    case "Unsupported":
      return new Unsupported({
        method,
        ...decodeDetail(payload),
        delivery: delivery === "rejected" ? "rejected" : "unknown"
      })
    case "ProtocolError":
      return new ProtocolError({ ...decodeDetail(payload), delivery: "unknown" })
    case "Closed":
    case "Recalled":
      return new Closed({ delivery: "rejected" })
    default:
      throw new Error(`unknown reason ${String(reason)}`)
  }
}
