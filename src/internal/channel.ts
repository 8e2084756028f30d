/** The stream to and from a worker as a `Socket`: all that the worker said is read, then how it ended. */
import * as Fs from "node:fs"
import type { Duplex } from "node:stream"
import * as Effect from "effect/Effect"
import * as Socket from "effect/socket/Socket"
import { Closed, SynapseError } from "../SynapseError.ts"

/** Unread bytes beyond which the stream is paused. */
const highWaterMark = 1 << 20
/** How much is read at most of what a worker left behind: more than a socket holds. */
const restSteps = 128
const restStepBytes = 64 * 1024

export interface Channel {
  readonly socket: Socket.Socket
  /** What its reader fails with once everything that came has been read. Only the first one counts. */
  readonly end: (error: SynapseError) => void
}

export const make = (stream: Duplex): Channel => {
  const reader = makeReader(stream)
  return { socket: makeSocket(stream, reader), end: reader.end }
}

interface ChannelReader {
  readonly pull: Socket.Reader["pull"]
  readonly end: Channel["end"]
}

// The only place a pull is resumed: what was received first, then the end.
const makeReader = (stream: Duplex): ChannelReader => {
  let chunks: Array<Uint8Array> = []
  let bytes = 0
  let endedWith: SynapseError | undefined
  let waiting: ((effect: Effect.Effect<[Uint8Array, ...Array<Uint8Array>], Socket.SocketError>) => void) | undefined

  const next = (): Effect.Effect<[Uint8Array, ...Array<Uint8Array>], Socket.SocketError> | undefined => {
    if (chunks.length > 0) {
      const batch = chunks as [Uint8Array, ...Array<Uint8Array>]
      chunks = []
      bytes = 0
      if (stream.isPaused()) stream.resume()
      return Effect.succeed(batch)
    }
    return endedWith === undefined
      ? undefined
      : Effect.fail(new Socket.SocketError({ reason: new Socket.SocketReadError({ cause: endedWith }) }))
  }
  const wake = (): void => {
    if (waiting === undefined) return
    const result = next()
    if (result === undefined) return
    const resume = waiting
    waiting = undefined
    resume(result)
  }

  stream.on("data", (chunk: Buffer) => {
    chunks.push(chunk)
    bytes += chunk.length
    if (waiting !== undefined) wake()
    else if (bytes > highWaterMark) stream.pause()
  })
  // A reset or a broken pipe says less than the exit that follows it.
  stream.on("error", () => {})
  readRestAtFailure(stream)

  return {
    pull: Effect.suspend(
      () =>
        next() ??
        Effect.callback((resume) => {
          // The fiber may have made way for others since it looked.
          const come = next()
          if (come !== undefined) return resume(come)
          waiting = resume
          return Effect.sync(() => {
            waiting = undefined
          })
        })
    ),
    end: (error) => {
      endedWith ??= error
      wake()
    }
  }
}

/**
 * A write that finds the worker gone destroys the stream, and with it what the worker said last and nobody has read yet:
 * that is read before.
 */
const readRestAtFailure = (stream: Duplex): void => {
  const { destroy } = stream
  stream.destroy = (error) => {
    if (error !== undefined && error !== null && !stream.destroyed) readRest(stream)
    return destroy.call(stream, error)
  }
}

const readRest = (stream: Duplex): void => {
  // What a paused stream holds reaches the listener as it is read.
  while (stream.read() !== null);
  const { fd } = (stream as Duplex & { readonly _handle: { readonly fd?: number } | null })._handle ?? {}
  if (fd === undefined || fd < 0) return
  try {
    // It does not wait, and no more arrives from one that is gone: the limit is for one that is not.
    for (let steps = 0; steps < restSteps; steps++) {
      const chunk = Buffer.alloc(restStepBytes)
      const length = Fs.readSync(fd, chunk)
      if (length === 0) return
      stream.emit("data", chunk.subarray(0, length))
    }
  } catch {
    // There is no more, or the channel broke.
  }
}

const makeSocket = (stream: Duplex, { end, pull }: ChannelReader): Socket.Socket => {
  const write = (chunk: Uint8Array | string | Socket.CloseEvent): Effect.Effect<void, Socket.SocketError> =>
    Effect.suspend(() => {
      if (Socket.isCloseEvent(chunk)) return Effect.void
      if (stream.destroyed || stream.writableEnded) return Effect.fail(writeError(new Error("the channel is closed")))
      return stream.write(chunk) ? Effect.void : drained(stream)
    })
  return Socket.make({
    reader: Effect.acquireRelease(
      Effect.succeed<Socket.Reader>({
        pull,
        upgrade: () =>
          Effect.fail(
            new Socket.SocketError({
              reason: new Socket.SocketUpgradeError({ cause: new Error("a local worker's channel has no TLS") })
            })
          )
      }),
      () => Effect.sync(() => end(new SynapseError({ reason: new Closed({ delivery: "unknown" }) })))
    ),
    writer: Effect.succeed({
      write,
      writeAll: (chunks) => {
        stream.cork()
        return Effect.ensuring(
          Effect.forEach(chunks, write, { discard: true }),
          Effect.sync(() => stream.uncork())
        )
      }
    })
  })
}

const writeError = (cause: unknown): Socket.SocketError =>
  new Socket.SocketError({ reason: new Socket.SocketWriteError({ cause }) })

const closedDuringWrite = Effect.fail(writeError(new Error("the channel closed during a write")))

const drained = (stream: Duplex): Effect.Effect<void, Socket.SocketError> =>
  Effect.callback((resume) => {
    // The fiber may have made way for others since it wrote.
    if (stream.destroyed) return resume(closedDuringWrite)
    if (!stream.writableNeedDrain) return resume(Effect.void)
    const onDrain = () => {
      cleanup()
      resume(Effect.void)
    }
    const onClose = () => {
      cleanup()
      resume(closedDuringWrite)
    }
    const cleanup = () => {
      stream.off("drain", onDrain)
      stream.off("close", onClose)
    }
    stream.on("drain", onDrain)
    stream.on("close", onClose)
    return Effect.sync(cleanup)
  })
