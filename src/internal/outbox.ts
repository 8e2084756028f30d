/**
 * What waits to be written: requests, and frames of every other kind, which go before them.
 *
 * All that is queued in one turn of the event loop leaves in one write at its end. While the socket takes no more, it waits.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
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

export interface Options<Call> {
  /** How many requests that were withdrawn may be kept before those that are not wanted any more are dropped. */
  readonly capacity: number
  readonly frames: Envelope.FrameWriter
  /** Encodes a request into `frames`, if it is still wanted. Does not throw. */
  readonly encode: (call: Call) => void
  /** Whether a request is still wanted. */
  readonly isWanted: (call: Call) => boolean
  /** The worker does not read what it asked for. */
  readonly onFlood: () => void
}

export interface Outbox<Call> {
  /** Queues a request. */
  readonly request: (call: Call) => void
  /** Says that one of the requests that were not written is not wanted any more. */
  readonly withdraw: () => void
  /** Queues any other frame. */
  readonly post: Post
  /** Takes nothing more. */
  readonly stop: () => void
  /** Writes what is queued until it fails. */
  readonly write: (writer: Socket.Writer) => Effect.Effect<never, Socket.SocketError>
}

export const make = <Call>({ capacity, encode, frames, isWanted, onFlood }: Options<Call>): Outbox<Call> => {
  let requests: Array<Call> = []
  let posted: Array<Outgoing> = []
  /** What is being encoded: what was queued when all that came before had been. */
  let roundRequests: Array<Call | undefined> = []
  let roundPosted: Array<Outgoing | undefined> = []
  /** How much of them has been. */
  let encoded = 0
  let encodedPosted = 0
  let withdrawn = 0
  /** Frames that the worker asked for, and that wait. */
  let owed = 0
  let owedFrees = 0
  let stopped = false
  /** Writes bytes; nothing before there is a writer. */
  let send: ((bytes: Uint8Array) => Fiber.Fiber<void, Socket.SocketError>) | undefined
  let onFailure: (exit: Exit.Failure<never, Socket.SocketError>) => void = () => {}
  /** The write that the socket has not taken yet. */
  let writing: Fiber.Fiber<void, Socket.SocketError> | undefined
  /** Whether a flush is about to come, or under way. */
  let isDue = false

  const schedule = (): void => {
    if (isDue || writing !== undefined || send === undefined) return
    isDue = true
    // What else asks in the same turn shares the write.
    queueMicrotask(flush)
  }

  const flush = (): void => {
    isDue = true
    flushRound()
    isDue = false
    if (writing !== undefined || send === undefined || stopped) return
    if (posted.length === 0 && requests.length === 0) return
    // Of a call that cannot be encoded the caller hears at once, and may make the next one: others have their turn first.
    isDue = true
    setImmediate(flush)
  }

  const flushRound = (): void => {
    if (isRoundOver()) beginRound()
    try {
      while (send !== undefined && !stopped && !isRoundOver()) {
        encodeBatch()
        if (frames.size === 0) continue
        const fiber = send(frames.take())
        const exit = fiber.pollUnsafe()
        if (exit === undefined) {
          writing = fiber
          fiber.addObserver(written)
          return
        }
        if (Exit.isFailure(exit)) return onFailure(exit as Exit.Failure<never, Socket.SocketError>)
      }
    } catch (error) {
      // Nobody else would hear of a frame that cannot be encoded.
      onFailure(Exit.die(error) as Exit.Failure<never, Socket.SocketError>)
    }
  }

  const written = (exit: Exit.Exit<void, Socket.SocketError>): void => {
    writing = undefined
    if (Exit.isSuccess(exit)) flush()
    else onFailure(exit as Exit.Failure<never, Socket.SocketError>)
  }

  const isRoundOver = (): boolean => encodedPosted === roundPosted.length && encoded === roundRequests.length

  /** Begins another round, in which what came first goes first. */
  const beginRound = (): void => {
    const done = [roundPosted, roundRequests] as const
    roundPosted = posted
    roundRequests = requests
    posted = done[0] as Array<Outgoing>
    requests = done[1] as Array<Call>
    posted.length = requests.length = encoded = encodedPosted = withdrawn = 0
  }

  /** Encodes a batch of the round. Nothing holds on to what has been encoded. */
  const encodeBatch = (): void => {
    // A welcome goes before any request, and a cancel is for a request sent before.
    while (encodedPosted < roundPosted.length) {
      const frame = roundPosted[encodedPosted]!
      roundPosted[encodedPosted++] = undefined
      if (owedKinds.has(frame.kind)) owed--
      else if (frame.kind === Envelope.Kind.Free) owedFrees--
      encodePosted(frame)
      if (frames.size >= batchBytes) return
    }
    while (encoded < roundRequests.length) {
      const call = roundRequests[encoded]!
      roundRequests[encoded++] = undefined
      encode(call)
      if (frames.size >= batchBytes) return
    }
  }

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
      if (stopped) return
      requests.push(call)
      schedule()
    },
    withdraw: () => {
      if (++withdrawn <= capacity) return
      requests = requests.filter(isWanted)
      withdrawn = 0
    },
    post: (frame) => {
      if (stopped) return
      if (owedKinds.has(frame.kind) && ++owed > maxOwedFrames) return onFlood()
      if (frame.kind === Envelope.Kind.Free && ++owedFrees > maxOwedFrees) return onFlood()
      posted.push(frame)
      schedule()
    },
    stop: () => {
      stopped = true
      for (const queue of [requests, posted, roundRequests, roundPosted]) queue.length = 0
      encoded = encodedPosted = 0
    },
    write: (writer) =>
      Effect.flatMap(Effect.context<never>(), (context) =>
        Effect.callback<never, Socket.SocketError>((resume) => {
          const run = Effect.runForkWith(context)
          onFailure = (exit) => {
            send = undefined
            resume(exit)
          }
          send = (bytes) => run(writer.write(bytes))
          schedule()
          return Effect.sync(() => {
            send = undefined
            writing?.interruptUnsafe()
          })
        })
      )
  }
}
