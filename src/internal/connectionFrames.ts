/** What the frames of a connection hold, on their way out and in. */
import * as Schema from "effect/Schema"
import type { Request } from "../Connection.ts"
import * as Envelope from "../Envelope.ts"
import { EncodeFailed, FrameTooLarge, SynapseError } from "../SynapseError.ts"
import { messageOf } from "./connectionEnd.ts"
import * as Msgpack from "./msgpack.ts"

export const metaOf = (request: Request, stream: boolean): Envelope.RequestMeta => {
  const { ceiling, get, headers, method, onHandle, onProgress, parent, target, timeLeft, trace } = request
  // Most calls say no more than this.
  const isPlain = !(ceiling ?? onHandle ?? onProgress ?? parent ?? target ?? timeLeft ?? trace ?? headers ?? get)
  if (isPlain && !stream) return { method }
  return {
    method,
    deadline: timeLeft?.(),
    trace,
    headers,
    stream: stream ? Envelope.streamItems : undefined,
    progress: onProgress && true,
    ceiling: ceiling?.(),
    parent,
    hold: onHandle && true,
    target,
    get: get === true ? true : undefined
  }
}

const decodeControl = <A>(schema: Schema.Decoder<A>, name: string): ((frame: Envelope.Frame) => A) => {
  const decode = Schema.decodeUnknownSync(schema)
  return (frame) => {
    try {
      return decode(Envelope.decodeFrame(frame))
    } catch (error) {
      throw new Error(`${name} does not decode: ${messageOf(error)}`)
    }
  }
}
export const decodeCredit = decodeControl(Schema.Int.check(Schema.isGreaterThan(0)), "Credit")

/** Why the worker leaves, where it says so. */
export const decodeGoAway = (frame: Envelope.Frame): typeof GoAway.Type =>
  frame.payload.length === 0 ? {} : decodeReason(frame)
const GoAway = Schema.Struct({ reason: Schema.optionalKey(Schema.String), done: Schema.optionalKey(Schema.Boolean) })
const decodeReason = decodeControl(GoAway, "GoAway")

/** The handle that an answer gives; nothing where it gives none. */
export const handleOf = (frame: Envelope.Frame): number | undefined => {
  try {
    return decodeHeld(Envelope.decodeFrame(frame)).handle
  } catch {
    return undefined
  }
}
const decodeHeld = Schema.decodeUnknownSync(Envelope.Held)

export const decodeHello = decodeControl(Envelope.Hello, "Hello")
export const decodeLog = decodeControl(Envelope.Log, "Log")

export const encodeFailure = (error: unknown, method: string): SynapseError => {
  if (error instanceof Envelope.FrameTooLarge) {
    const { limit, size } = error
    return new SynapseError({ reason: new FrameTooLarge({ side: "typescript", method, size, limit }) })
  }
  const [path, issue] = error instanceof Msgpack.CodecError ? [error.path, error.issue] : ["$", messageOf(error)]
  return new SynapseError({
    reason: new EncodeFailed({ side: "typescript", method, path, issue, delivery: "notSent" })
  })
}
