/**
 * The messages of the protocol and how they lie in the byte stream.
 *
 * A frame stands apart from the values in it: the reader routes on its header alone, and whoever wanted the value
 * decodes it. `docs/protocol.md` is the specification.
 *
 * @since 0.1.0
 */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { CodecError } from "./internal/msgpack.ts"
import { Decoder } from "./internal/msgpackDecoder.ts"
import { Encoder } from "./internal/msgpackEncoder.ts"
import { type Lent, type Places, type Reference, referenceSize } from "./internal/sharedMemory.ts"
import { ExceptionInfo } from "./SynapseError.ts"

/**
 * The kinds of frames.
 *
 * @category models
 * @since 0.1.0
 */
export const Kind = {
  Request: 1,
  Success: 2,
  Fail: 3,
  Die: 4,
  Interrupted: 5,
  Chunk: 6,
  Credit: 7,
  Cancel: 8,
  Hello: 9,
  Welcome: 10,
  Log: 11,
  Ping: 12,
  Pong: 13,
  GoAway: 14,
  Shutdown: 15,
  Progress: 16,
  Release: 17,
  Recall: 18,
  Setup: 19,
  Free: 20
} as const

/**
 * The version that both sides must speak.
 *
 * @category models
 * @since 0.1.0
 */
export const protocolVersion = 1

/**
 * The largest length of a frame, in bytes, where nothing else was agreed.
 *
 * @category models
 * @since 0.1.0
 */
export const defaultMaxFrameSize = 16 * 1024 * 1024

/**
 * How many items an asker grants for a stream to begin with.
 *
 * @category models
 * @since 0.1.0
 */
export const streamItems = 64

/**
 * How many items it grants at most.
 *
 * @category models
 * @since 0.1.0
 */
export const maxStreamItems = 1024

/**
 * How many bytes of items may be on their way in a stream, that is sent and not credited; one item always may.
 *
 * @category models
 * @since 0.1.0
 */
export const streamBytes = 1024 * 1024

/**
 * The handler that runs a piece of Python: a name that no other handler can have.
 *
 * @category models
 * @since 0.1.0
 */
export const evaluateMethod = "$evaluate"

/**
 * One frame as it came. `meta` and `payload` are views of the received bytes, encoded still.
 *
 * @category models
 * @since 0.1.0
 */
export interface Frame {
  readonly kind: number
  readonly id: number
  readonly meta: Uint8Array
  readonly payload: Uint8Array
  /** The shared memory that the payload refers to, where it does. */
  readonly lent: Lent | undefined
}

/**
 * What a `Request` says beside its input.
 *
 * @category models
 * @since 0.1.0
 */
export interface RequestMeta {
  /** The name of the handler; of the method or attribute where there is a `target`. */
  readonly method: string
  /** Milliseconds left when the frame was sent. */
  readonly deadline?: number | undefined
  /** Milliseconds within which every `Progress` starts the deadline anew. */
  readonly ceiling?: number | undefined
  /** A W3C `traceparent`. */
  readonly trace?: string | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** How many stream items may come before more are granted. Absent: one value is wanted. */
  readonly stream?: number | undefined
  /** The asker listens to `Progress`. */
  readonly progress?: true | undefined
  /** The call inside whose host function this one is made. */
  readonly parent?: number | undefined
  /** A handle of the value is wanted, and not the value. */
  readonly hold?: true | undefined
  /** The handle of the object whose method is called. */
  readonly target?: number | undefined
  /** `method` is an attribute of the target, to be read. */
  readonly get?: true | undefined
}

/**
 * What a `Die` says beside its payload. With a `reason`, the payload holds the details of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface DieMeta {
  readonly reason?: string
  readonly delivery?: string
}

/**
 * The byte stream is not one of frames; nothing after it can be read.
 *
 * @category errors
 * @since 0.1.0
 */
export class FramingError extends Error {
  /** The frames that came whole in the same chunk, before the fault, where nobody has been given them yet. */
  readonly frames: ReadonlyArray<Frame>

  constructor(message: string, frames: ReadonlyArray<Frame>) {
    super(message)
    this.name = "FramingError"
    this.frames = frames
  }
}

/**
 * A frame was not written because it is larger than `maxFrameSize`. Sizes are in bytes.
 *
 * @category errors
 * @since 0.1.0
 */
export class FrameTooLarge extends Error {
  readonly size: number
  readonly limit: number

  constructor(size: number, limit: number) {
    super(`a frame of ${size} bytes, more than the ${limit} of maxFrameSize`)
    this.name = "FrameTooLarge"
    this.size = size
    this.limit = limit
  }
}

const headerSize = 12
/** The part of a frame that its length does not count: the length itself. */
const lengthSize = 4
/** The flag of a frame that ends with references to shared memory. */
const hasReferences = 1
const countSize = 2
const maxMetaSize = 0xffff
const maxCachedMetas = 256
const empty = new Uint8Array(0)

/** Not a literal: V8 would put those of a busy connection where only a full collection finds them. */
class ReceivedFrame implements Frame {
  readonly kind: number
  readonly id: number
  readonly meta: Uint8Array
  readonly payload: Uint8Array
  readonly lent: Lent | undefined

  constructor(kind: number, id: number, meta: Uint8Array, payload: Uint8Array, lent: Lent | undefined) {
    this.kind = kind
    this.id = id
    this.meta = meta
    this.payload = payload
    this.lent = lent
  }
}

class Encoded {
  readonly bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }
}

/**
 * Collects frames into batches.
 *
 * @category models
 * @since 0.1.0
 */
export interface FrameWriter {
  /** Bytes that wait to be taken. */
  readonly size: number
  /**
   * Appends a `Request`. Throws a `CodecError` for a value that cannot be carried, and {@link FrameTooLarge}; the batch
   * is then as it was before.
   */
  readonly request: (id: number, meta: RequestMeta, payload: unknown) => void
  /** Appends a frame of any kind, as `request` does. Without a payload the frame has none; `null` is a value. */
  readonly frame: (kind: number, id: number, payload?: unknown, meta?: object) => void
  /** Appends a frame whose payload is encoded already. Throws {@link FrameTooLarge}. */
  readonly encoded: (kind: number, id: number, payload: Uint8Array) => void
  /** The frames since the last time. The bytes belong to the caller: they are never written again. */
  readonly take: () => Uint8Array
}

/**
 * Makes a {@link FrameWriter}. `maxFrameSize` is the largest length of a frame, in bytes; `places` has shared memory for
 * large values, where there is any.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeWriter = (options?: {
  readonly maxFrameSize?: number
  readonly places?: Places | undefined
}): FrameWriter => {
  const places = options?.places
  const maxFrameSize = options?.maxFrameSize ?? defaultMaxFrameSize
  const encoder = new Encoder()
  const metas = new Map<string, Uint8Array>()

  const append = (kind: number, id: number, meta: object | undefined, payload: unknown): number => {
    encoder.begin(maxFrameSize + lengthSize, places)
    try {
      encoder.room(headerSize)
      encoder.position += headerSize
      if (meta instanceof Uint8Array) encoder.bytes(meta)
      else if (meta !== undefined) encoder.encode(meta)
      const metaSize = encoder.frameSize - headerSize
      if (metaSize > maxMetaSize) {
        throw new CodecError("InvalidMeta", `trace and headers take ${metaSize} bytes, more than ${maxMetaSize}`)
      }
      if (payload instanceof Encoded) encoder.bytes(payload.bytes)
      else if (payload !== undefined) encoder.encode(payload)
      const flags = encoder.references === undefined ? 0 : writeReferences(encoder.references)
      const size = encoder.frameSize - lengthSize
      if (size > maxFrameSize) throw new FrameTooLarge(size, maxFrameSize)
      writeHeader(size, kind | (flags << 8), metaSize, id)
      return metaSize
    } catch (error) {
      encoder.rollback()
      throw error
    }
  }

  const writeReferences = (references: ReadonlyArray<Reference>): number => {
    if (references.length > 0xffff) throw new CodecError("TooManyItems", `${references.length} values in shared memory`)
    encoder.room(references.length * referenceSize + countSize)
    const { view } = encoder
    for (const { length, offset, region, serial } of references) {
      const at = encoder.position
      view.setUint32(at, serial, true)
      view.setUint32(at + 4, region.number, true)
      view.setBigUint64(at + 8, BigInt(region.start), true)
      view.setBigUint64(at + 16, BigInt(offset), true)
      view.setBigUint64(at + 24, BigInt(length), true)
      encoder.position += referenceSize
    }
    view.setUint16(encoder.position, references.length, true)
    encoder.position += countSize
    return hasReferences
  }

  const writeHeader = (size: number, kindAndFlags: number, metaSize: number, id: number): void => {
    const start = encoder.frameStart
    encoder.view.setUint32(start, size, true)
    encoder.view.setUint16(start + 4, kindAndFlags, true)
    encoder.view.setUint16(start + 6, metaSize, true)
    encoder.view.setUint32(start + 8, id, true)
  }

  /** Most requests say their method and nothing else. */
  const requestByMethod = (id: number, method: string, payload: unknown): void => {
    const known = metas.get(method)
    const metaSize = append(Kind.Request, id, known ?? { method }, payload)
    if (known !== undefined) return
    const at = encoder.frameStart + headerSize
    const [oldest] = metas.keys()
    if (oldest !== undefined && metas.size >= maxCachedMetas) metas.delete(oldest)
    metas.set(method, new Uint8Array(encoder.buffer.subarray(at, at + metaSize)))
  }

  return {
    get size() {
      return encoder.size
    },
    request: (id, meta, payload) => {
      const value = payload === undefined ? null : payload
      for (const key in meta) {
        if (key === "method" || meta[key as keyof RequestMeta] === undefined) continue
        append(Kind.Request, id, meta, value)
        return
      }
      requestByMethod(id, meta.method, value)
    },
    frame: (kind, id, payload, meta) => {
      append(kind, id, meta, payload)
    },
    encoded: (kind, id, payload) => {
      append(kind, id, undefined, new Encoded(payload))
    },
    take: () => encoder.take()
  }
}

/**
 * Cuts the byte stream into frames.
 *
 * @category models
 * @since 0.1.0
 */
export interface FrameReader {
  /**
   * Takes the next bytes and gives the frames that are whole now. A frame that lies in one chunk is a view of it; of
   * others the bytes are kept until the rest arrives. Throws a {@link FramingError}, from then on at every call.
   */
  readonly push: (chunk: Uint8Array) => ReadonlyArray<Frame>
  /** The same, frame by frame. */
  readonly read: (chunk: Uint8Array, onFrame: (frame: Frame) => void) => void
}

/**
 * Makes a {@link FrameReader}. `maxFrameSize` is the largest length of a frame, in bytes; `claim` takes the references to
 * shared memory that a frame ends with, and without it there may be none.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeReader = (options?: {
  readonly maxFrameSize?: number
  readonly claim?: ((table: Uint8Array) => Lent) | undefined
}): FrameReader => {
  const claim = options?.claim
  const maxFrameSize = options?.maxFrameSize ?? defaultMaxFrameSize
  /** The first bytes of a frame that is not whole yet, and how many there are. */
  let partial = empty
  let received = 0
  /** Where the current frame begins in the stream. */
  let offset = 0
  let brokenBy: string | undefined

  /** The size of the frame that begins at `at`, or what is known of it: its length field is still to come. */
  const sizeAt = (bytes: Uint8Array, at: number, available: number): number => {
    if (available < lengthSize) return lengthSize
    const length = uint32(bytes, at)
    if (length < headerSize - lengthSize || length > maxFrameSize) {
      brokenBy =
        `the frame at byte ${offset} has length ${length}, not one from ${headerSize - lengthSize} to ${maxFrameSize}` +
        ` (maxFrameSize); it begins with ${preview(bytes.subarray(at, at + available))}`
    }
    return lengthSize + length
  }

  const frameAt = (bytes: Uint8Array, at: number, size: number): Frame | undefined => {
    const payloadAt = at + headerSize + (bytes[at + 6]! | (bytes[at + 7]! << 8))
    if (payloadAt > at + size) {
      brokenBy =
        `the frame at byte ${offset} has ${payloadAt - at - headerSize} bytes of meta but ends after ` +
        `${size - headerSize} bytes`
      return undefined
    }
    const end = (bytes[at + 5]! & hasReferences) === 0 ? at + size : referencesAt(bytes, payloadAt, at + size)
    if (end === undefined) return undefined
    offset += size
    return new ReceivedFrame(
      bytes[at + 4]!,
      uint32(bytes, at + 8),
      payloadAt === at + headerSize ? empty : bytes.subarray(at + headerSize, payloadAt),
      payloadAt === end ? empty : bytes.subarray(payloadAt, end),
      end === at + size ? undefined : claim!(bytes.subarray(end, at + size - countSize))
    )
  }

  /** Where the references begin that end a frame. */
  const referencesAt = (bytes: Uint8Array, payloadAt: number, frameEnd: number): number | undefined => {
    const countAt = frameEnd - countSize
    const count = countAt < payloadAt ? 0 : bytes[countAt]! | (bytes[countAt + 1]! << 8)
    const begin = countAt - count * referenceSize
    if (claim !== undefined && count > 0 && begin >= payloadAt) return begin
    brokenBy = `the frame at byte ${offset} ends with references to shared memory ${
      claim === undefined ? "where there is none" : "that are not whole"
    }`
    return undefined
  }

  /** Adds bytes of the chunk to the partial frame until it has `size`, and tells how many it took. */
  const fill = (chunk: Uint8Array, at: number, size: number): number => {
    const taken = Math.min(size - received, chunk.length - at)
    if (received + taken > partial.length) {
      // Memory follows what has arrived, not what the length claims.
      const larger = Buffer.allocUnsafeSlow(
        Math.min(size, Math.max(received + taken, reservedSize, partial.length * 2))
      )
      larger.set(partial.subarray(0, received))
      partial = larger
    }
    partial.set(chunk.subarray(at, at + taken), received)
    received += taken
    return taken
  }

  const push = (chunk: Uint8Array): ReadonlyArray<Frame> => {
    const frames: Array<Frame> = []
    try {
      read(chunk, (frame) => frames.push(frame))
    } catch (error) {
      throw error instanceof FramingError ? new FramingError(error.message, frames) : error
    }
    return frames
  }

  const read = (chunk: Uint8Array, onFrame: (frame: Frame) => void): void => {
    let at = 0
    while (brokenBy === undefined) {
      if (received > 0) {
        const size = sizeAt(partial, 0, received)
        if (brokenBy !== undefined) break
        at += fill(chunk, at, size)
        if (received < size) return
        if (size === lengthSize) continue
        const frame = frameAt(partial, 0, size)
        partial = empty
        received = 0
        if (frame !== undefined) onFrame(frame)
      } else {
        const available = chunk.length - at
        if (available === 0) return
        const size = sizeAt(chunk, at, available)
        if (brokenBy !== undefined) break
        if (available < size) {
          fill(chunk, at, size)
          return
        }
        const frame = frameAt(chunk, at, size)
        at += size
        if (frame !== undefined) onFrame(frame)
      }
    }
    throw new FramingError(brokenBy, [])
  }

  return { push, read }
}

/** A frame up to this size is given its memory at once. */
const reservedSize = 1024 * 1024

const uint32 = (bytes: Uint8Array, at: number): number =>
  (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0

/** The first bytes as text where they are text: mostly it is something that was printed. */
const preview = (bytes: Uint8Array): string => {
  const first = Buffer.from(bytes.subarray(0, 32))
  return first.every((byte) => (byte >= 0x20 && byte < 0x7f) || byte === 0x0a || byte === 0x0d || byte === 0x09)
    ? JSON.stringify(first.toString("latin1"))
    : first.toString("hex")
}

// Decoding runs to its end before anything else can, and the decoder keeps nothing but a cache of keys.
const decoder = new Decoder()

/**
 * The value of a payload, `undefined` when the payload is empty. Throws a `CodecError`. The value holds no view of the
 * bytes.
 *
 * @category decoding
 * @since 0.1.0
 */
export const decodePayload = (bytes: Uint8Array): unknown => (bytes.length === 0 ? undefined : decoder.decode(bytes))

/**
 * The value of a frame's payload, as {@link decodePayload}; it can be had once, because the shared memory that the payload
 * refers to is given back.
 *
 * @category decoding
 * @since 0.1.0
 */
export const decodeFrame = ({ lent, payload }: Frame): unknown => {
  if (lent === undefined) return decodePayload(payload)
  try {
    return payload.length === 0 ? undefined : decoder.decode(payload, lent)
  } finally {
    lent.free()
  }
}

/**
 * Gives back the shared memory that a frame refers to, where nobody decodes it. A frame that was decoded has given it back
 * already.
 *
 * @category decoding
 * @since 0.1.0
 */
export const discard = ({ lent }: Frame): void => lent?.free()

/**
 * The entries of a frame's meta, none when it is empty. Throws a `CodecError`.
 *
 * @category decoding
 * @since 0.1.0
 */
export const decodeMeta = (bytes: Uint8Array): Readonly<Record<string, unknown>> => {
  const meta = bytes.length === 0 ? {} : decoder.decode(bytes)
  if (!isMeta(meta)) throw new CodecError("InvalidMeta", "meta is not a map with string keys")
  return meta
}

/**
 * The length of the array that a payload holds, `undefined` when it holds something else.
 *
 * @category decoding
 * @since 0.1.0
 */
export const arrayLength = (payload: Uint8Array): number | undefined => {
  const first = payload[0]
  if (first === undefined) return undefined
  if ((first & 0xf0) === 0x90) return first & 0x0f
  if (first === 0xdc && payload.length >= 3) return (payload[1]! << 8) | payload[2]!
  if (first === 0xdd && payload.length >= 5) {
    return ((payload[1]! << 24) | (payload[2]! << 16) | (payload[3]! << 8) | payload[4]!) >>> 0
  }
  return undefined
}

const isMeta = (u: unknown): u is Readonly<Record<string, unknown>> =>
  Predicate.isObject(u) && Object.getPrototypeOf(u) === Object.prototype

/**
 * A handler that a worker has.
 *
 * @category schemas
 * @since 0.1.0
 */
export const MethodInfo = Schema.Struct({
  name: Schema.String,
  /** It gives items rather than one value. */
  stream: Schema.Boolean,
  /** It runs on the worker's event loop. */
  async: Schema.Boolean,
  /**
   * What becomes of a call that was given up: `"cooperative"` (the default), the handler finds out; `"interrupt"`, an
   * exception is raised in it; `"replace"`, the worker is replaced when the handler goes on for too long.
   */
  cancel: Schema.optionalKey(Schema.Literals(["cooperative", "interrupt", "replace"]))
})

/**
 * The type of the schema {@link MethodInfo}.
 *
 * @category schemas
 * @since 0.1.0
 */
export type MethodInfo = typeof MethodInfo.Type

/**
 * The payload of `Hello`, the first frame of a worker.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Hello = Schema.Struct({
  protocol: Schema.Int,
  /** The version of the Python runtime. */
  runtime: Schema.String,
  /** The version of Python. */
  python: Schema.String,
  /** Such as `"cpython"`. */
  implementation: Schema.String,
  pid: Schema.Int,
  /** The MessagePack library that the worker uses. */
  codec: Schema.String,
  methods: Schema.Array(MethodInfo),
  /** What the handlers take and give, where the worker was asked to describe them: see `Contract.decode`. */
  contract: Schema.NullOr(Schema.Unknown),
  /** Why the module could not be imported. */
  failure: Schema.optionalKey(ExceptionInfo)
})

/**
 * The type of the schema {@link Hello}.
 *
 * @category schemas
 * @since 0.1.0
 */
export type Hello = typeof Hello.Type

/**
 * The payload of `Welcome`, the host's answer to `Hello`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Welcome = Schema.Struct({
  protocol: Schema.Int,
  /** Bytes. */
  maxFrameSize: Schema.Int,
  /** How many synchronous handlers may run at once. */
  concurrency: Schema.Int,
  maxOpenCalls: Schema.Int,
  /** Whether pieces of Python may be run. */
  evaluate: Schema.Boolean,
  /** Where values may lie in shared memory: from how many bytes on, and how many bytes of memory the worker may use. */
  sharedMemory: Schema.optionalKey(Schema.Struct({ threshold: Schema.Int, capacity: Schema.Int })),
  /** For how many microseconds the worker looks for the next request before it goes to sleep. */
  polling: Schema.optionalKey(Schema.Int)
})

/**
 * The type of the schema {@link Welcome}.
 *
 * @category schemas
 * @since 0.1.0
 */
export type Welcome = typeof Welcome.Type

/**
 * The answer to a call that asks to `hold` an object.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Held = Schema.Struct({
  handle: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 0xffff_ffff })),
  /** The object's class, with its module. */
  type: Schema.String
})

/**
 * The type of the schema {@link Held}.
 *
 * @category schemas
 * @since 0.1.0
 */
export type Held = typeof Held.Type

/**
 * The payload of `Log`, one record of Python's `logging`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Log = Schema.Struct({
  /** Python's number: 10 debug, 20 info, 30 warning, 40 error, 50 critical. */
  level: Schema.Int,
  logger: Schema.String,
  message: Schema.String,
  /** Milliseconds since 1970. */
  time: Schema.Finite,
  /** The call that the record belongs to. */
  id: Schema.NullOr(Schema.Int),
  file: Schema.NullOr(Schema.String),
  line: Schema.NullOr(Schema.Int),
  exception: Schema.NullOr(ExceptionInfo),
  /** How many records were lost since the one before. */
  dropped: Schema.optionalKey(Schema.Int)
})

/**
 * The type of the schema {@link Log}.
 *
 * @category schemas
 * @since 0.1.0
 */
export type Log = typeof Log.Type
