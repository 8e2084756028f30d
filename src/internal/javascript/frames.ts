/**
 * The frames between a Python client and the server that runs its JavaScript. They have the layout of Synapse's frames:
 * `u32 length of what follows | u8 kind | u8 0 | u16 meta length | u32 id | meta | payload`, little-endian; the meta, where
 * there is one, is a JSON object, and payloads are UTF-8.
 *
 * @internal
 */

/** @internal */
export const Kind = {
  /** To the server: a payload of `u32 length of the source | source | parameter as JSON`, and a `RunMeta`. */
  Run: 1,
  /** From the server: the value of the command, as JSON. */
  Ok: 2,
  /** From the server: what the command threw, or why it was stopped, as the JSON of an `ExceptionInfo`. */
  Exception: 3,
  /** From the server: a message of the running command, as JSON, and a `MessageMeta`. */
  Message: 4,
  /** To the server: the answer to a message, as JSON, with its `MessageMeta`. */
  Answer: 5,
  /** To the server: the handler of messages failed. */
  AnswerFailed: 6,
  /** To the server: nobody wants the command any more. It is stopped, and answered with an `Exception`. */
  Cancel: 7,
  /** To the server, the first frame of a connection: the token that the client gave to the server. */
  Hello: 8,
  /** To the server: answered with the figures of the thread. */
  Stats: 9,
  /** To the server: the thread gets a new runtime; answered with `null`. */
  Reset: 10,
  /** To the server: whether it is there; answered at once with a `Pong`. */
  Ping: 11,
  Pong: 12
} as const

/** @internal */
export interface RunMeta {
  /** How the parameter, the value and the messages are written: plain JSON, or with what JSON has no words for. */
  readonly format: "json" | "values"
  /** Milliseconds that JavaScript may run; 0 for no limit. Waiting for the answer to a message is not running. */
  readonly limit: number
  /** Milliseconds that the answer to a message may take; 0 for no limit. */
  readonly messageLimit: number
}

/** @internal */
export interface MessageMeta {
  /** Which message of its command it is. */
  readonly number: number
}

/** @internal */
export interface Frame {
  readonly kind: number
  readonly id: number
  readonly meta: Readonly<Record<string, unknown>>
  readonly payload: Buffer
}

const headerSize = 12
const lengthSize = 4
const fixedSize = headerSize - lengthSize

/** @internal */
export const makeFrame = (kind: number, id: number, payload: string, meta?: object): Buffer => {
  const metaText = meta === undefined ? "" : JSON.stringify(meta)
  const metaLength = Buffer.byteLength(metaText)
  const frame = Buffer.allocUnsafe(headerSize + metaLength + Buffer.byteLength(payload))
  frame.writeUInt32LE(frame.length - lengthSize, 0)
  frame.writeUInt16LE(kind, 4)
  frame.writeUInt16LE(metaLength, 6)
  frame.writeUInt32LE(id, 8)
  frame.write(metaText, headerSize)
  frame.write(payload, headerSize + metaLength)
  return frame
}

/** @internal */
export class FrameError extends Error {}

/**
 * Turns what arrives into frames; throws a `FrameError` when it is no sequence of frames of at most `maxFrameSize` bytes.
 *
 * @internal
 */
export const makeReader = (maxFrameSize: number): ((chunk: Buffer) => ReadonlyArray<Frame>) => {
  let chunks: Array<Buffer> = []
  let size = 0
  let wanted = headerSize

  return (chunk) => {
    chunks.push(chunk)
    size += chunk.length
    if (size < wanted) return []
    let rest = chunks.length === 1 ? chunk : Buffer.concat(chunks, size)
    const frames: Array<Frame> = []
    wanted = headerSize
    while (rest.length >= headerSize) {
      const length = rest.readUInt32LE(0)
      const metaLength = rest.readUInt16LE(6)
      if (length < fixedSize + metaLength || length > maxFrameSize) {
        throw new FrameError(`a frame of ${length} bytes, where at most ${maxFrameSize} are taken`)
      }
      const end = lengthSize + length
      if (rest.length < end) {
        wanted = end
        break
      }
      frames.push(toFrame(rest.subarray(0, end), headerSize + metaLength))
      rest = rest.subarray(end)
    }
    chunks = rest.length === 0 ? [] : [rest]
    size = rest.length
    return frames
  }
}

const toFrame = (bytes: Buffer, payloadStart: number): Frame => ({
  kind: bytes.readUInt8(4),
  id: bytes.readUInt32LE(8),
  meta: payloadStart === headerSize ? {} : parseMeta(bytes.toString("utf8", headerSize, payloadStart)),
  payload: bytes.subarray(payloadStart)
})

const parseMeta = (text: string): Readonly<Record<string, unknown>> => {
  try {
    return JSON.parse(text)
  } catch {
    throw new FrameError(`a meta that is not JSON: ${text.slice(0, 80)}`)
  }
}

/**
 * The source and the parameter of a `Run`.
 *
 * @internal
 */
export const splitRun = (payload: Buffer): { readonly source: string; readonly param: string } => {
  const end = lengthSize + (payload.length < lengthSize ? 0 : payload.readUInt32LE(0))
  if (end > payload.length) throw new FrameError("a command whose source is beyond its frame")
  return { source: payload.toString("utf8", lengthSize, end), param: payload.toString("utf8", end) }
}
