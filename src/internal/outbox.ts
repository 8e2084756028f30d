/** What waits to be written: requests, and frames of every other kind, which go before them. */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import * as Envelope from "../Envelope.ts"
import type { Outgoing, Post } from "./requestEnd.ts"

/** Bytes after which a batch is written rather than made longer. */
const batchBytes = 256 * 1024
/** Kinds of frames of which a worker can ask for any number. What else is sent, this side bounds itself. */
const owedKinds: ReadonlySet<number> = new Set([
  Envelope.Kind.Success,
  Envelope.Kind.Fail,
  Envelope.Kind.Die,
  Envelope.Kind.Interrupted,
  Envelope.Kind.Pong
])
/** How many of them may wait to be written: a worker that asks for more and does not read is given up. */
const maxOwedFrames = 16_384
/** The same of those that give memory back: one frame may refer to 65,535 values. */
const maxOwedFrees = 16 * maxOwedFrames

/** Wakes the writer for frames that are no requests. */
const wake = Symbol("wake")

export interface Options<Call> {
  /** How many requests may be queued. Others wait beside the queue. */
  readonly capacity: number
  readonly frames: Envelope.FrameWriter
  /** Encodes a request into `frames`, if it is still wanted. Does not throw. */
  readonly encode: (call: Call) => void
  /** The worker does not read what it asked for. */
  readonly onFlood: () => void
}

export interface Outbox<Call> {
  /** Queues a request. */
  readonly request: (call: Call) => void
  /** Forgets a request that was not written. */
  readonly withdraw: (call: Call) => void
  /** Queues any other frame. */
  readonly post: Post
  /** Takes nothing more. */
  readonly stop: () => void
  /** Writes what is queued, all of it in one write, until it fails. */
  readonly write: (writer: Socket.Writer) => Effect.Effect<never, Socket.SocketError>
}

export const make = Effect.fnUntraced(function* <Call>({
  capacity,
  encode,
  frames,
  onFlood
}: Options<Call>): Effect.fn.Return<Outbox<Call>, never, Scope.Scope> {
  const queue = yield* Queue.bounded<Call | typeof wake>(capacity)
  // What the queue has no room for, such as after many calls that were given up unsent. Their callers wait.
  const overflow = new Set<Call>()
  let posted: Array<Outgoing> = []
  /** Those of them that the worker asked for. */
  let owed = 0
  let owedFrees = 0
  let stopped = false

  const encodePosted = ({ id, kind, meta, onError, payload, payloadBytes }: Outgoing): void => {
    try {
      if (payloadBytes !== undefined) frames.encoded(kind, id, payloadBytes)
      else frames.frame(kind, id, payload, meta)
    } catch (error) {
      if (onError === undefined) throw error
      onError(error)
    }
  }

  return {
    request: (call) => {
      if (!Queue.offerUnsafe(queue, call)) overflow.add(call)
    },
    withdraw: (call) => overflow.delete(call),
    post: (frame) => {
      if (stopped) return
      if (owedKinds.has(frame.kind) && ++owed > maxOwedFrames) return onFlood()
      if (frame.kind === Envelope.Kind.Free && ++owedFrees > maxOwedFrees) return onFlood()
      posted.push(frame)
      // A full queue has the writer's attention already.
      Queue.offerUnsafe(queue, wake)
    },
    stop: () => {
      stopped = true
      overflow.clear()
      Queue.shutdownUnsafe(queue)
    },
    write: (writer) =>
      Effect.gen(function* () {
        while (true) {
          const batch: Array<Call | typeof wake> = yield* Queue.takeAll(queue)
          for (const call of overflow) batch.push(call)
          overflow.clear()
          const frameBatch = posted
          posted = []
          owed = owedFrees = 0
          // A welcome goes before any request, and a cancel is for a request sent before.
          for (const frame of frameBatch) {
            encodePosted(frame)
            if (frames.size >= batchBytes) yield* writer.write(frames.take())
          }
          for (const call of batch) {
            if (call !== wake) encode(call)
            if (frames.size >= batchBytes) yield* writer.write(frames.take())
          }
          // Until the next ones come, nothing should hold what these refer to.
          batch.length = frameBatch.length = 0
          if (frames.size > 0) yield* writer.write(frames.take())
        }
      })
  }
})
