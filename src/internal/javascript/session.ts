/**
 * One connection of a client: frames on one side, the commands of its thread on the other.
 *
 * @internal
 */
import type { Socket } from "node:net"
import {
  type Frame,
  FrameError,
  Kind,
  type MessageMeta,
  makeFrame,
  makeReader,
  type RunMeta,
  splitRun
} from "./frames.ts"
import type { Log } from "./log.ts"
import { type ExceptionInfo, ownException } from "./stack.ts"
import type { Thread } from "./thread.ts"

/** @internal */
export interface SessionOptions {
  readonly maxFrameSize: number
  readonly log: (record: Log) => void
  /** Whether the token of a connection is right, and what it may use then; it ends when there is nothing. */
  readonly admit: (token: string) => Thread | undefined
}

/** Milliseconds within which a connection says who it is. */
const helloTimeout = 5000

/** Bytes that a connection may send before it has said who it is. */
const maxHello = 4096

/** @internal */
export const serve = (socket: Socket, options: SessionOptions): void => {
  const { maxFrameSize } = options
  const read = makeReader(maxFrameSize)
  let thread: Thread | undefined
  /** The command that is answered next. */
  let busy: number | undefined
  const waiting: Array<Frame> = []
  let received = 0
  const hello = setTimeout(() => socket.destroy(), helloTimeout)

  const send = (kind: number, id: number, text: string, meta?: object): void => {
    if (!socket.destroyed) socket.write(makeFrame(kind, id, text, meta))
  }
  const finish = (kind: number, id: number, text: string): void => {
    busy = undefined
    send(kind, id, text)
    const next = waiting.shift()
    if (next !== undefined) begin(thread!, next)
  }
  const fail = (id: number, info: ExceptionInfo): void => finish(Kind.Exception, id, JSON.stringify(info))
  const fits = (text: string): boolean =>
    3 * text.length < maxFrameSize || Buffer.byteLength(text) < maxFrameSize - 1024
  const tooLarge = (what: string): ExceptionInfo =>
    ownException("serialize", "RangeError", `${what} is larger than the ${maxFrameSize} bytes that a frame may have`)

  const begin = (at: Thread, frame: Frame): void => {
    const { id } = frame
    busy = id
    if (frame.kind === Kind.Stats) return at.stats((stats) => finish(Kind.Ok, id, JSON.stringify(stats)))
    if (frame.kind === Kind.Reset) {
      at.reset()
      return finish(Kind.Ok, id, "null")
    }
    at.run(
      { id, ...splitRun(frame.payload), ...(frame.meta as unknown as RunMeta) },
      {
        onMessage: (number, text) => {
          if (fits(text)) return send(Kind.Message, id, text, { number } satisfies MessageMeta)
          at.answer({ id, number, text: "", failure: tooLarge("the message").message })
        },
        onOk: (text) => (fits(text) ? finish(Kind.Ok, id, text) : fail(id, tooLarge("the value"))),
        onException: (info) => fail(id, info)
      }
    )
  }

  const cancel = (at: Thread, id: number): void => {
    const info = ownException("cancelled", "InternalError", "interrupted")
    if (busy === id) return at.stop(info)
    const index = waiting.findIndex((frame) => frame.id === id)
    if (index === -1) return
    waiting.splice(index, 1)
    send(Kind.Exception, id, JSON.stringify(info))
  }

  const take = (at: Thread, frame: Frame): void => {
    const { id, kind, meta, payload } = frame
    switch (kind) {
      case Kind.Run:
      case Kind.Stats:
      case Kind.Reset:
        if (busy === undefined) begin(at, frame)
        else waiting.push(frame)
        return
      case Kind.Answer:
      case Kind.AnswerFailed:
        return at.answer({
          id,
          number: (meta as unknown as MessageMeta).number,
          text: payload.toString(),
          failure: kind === Kind.Answer ? undefined : "Client indicated internal error in its message handler"
        })
      case Kind.Cancel:
        return cancel(at, id)
      case Kind.Ping:
        return send(Kind.Pong, id, "")
      default:
        throw new FrameError(`a frame of the unknown kind ${kind}`)
    }
  }

  const admit = (frame: Frame): Thread => {
    const admitted = frame.kind === Kind.Hello ? options.admit(frame.payload.toString()) : undefined
    if (admitted === undefined) throw new FrameError("a connection without the token of the server, or one too many")
    clearTimeout(hello)
    // Whoever started the server is gone, or wants it no more.
    socket.on("close", () => process.exit(0))
    return admitted
  }

  socket.setNoDelay(true)
  socket.on("error", () => socket.destroy())
  socket.on("close", () => clearTimeout(hello))
  socket.on("data", (chunk: Buffer) => {
    try {
      for (const frame of read(chunk)) {
        if (thread === undefined) thread = admit(frame)
        else take(thread, frame)
      }
      if (thread !== undefined) return
      received += chunk.length
      if (received > maxHello) throw new FrameError("a connection that sends more than the token of the server")
    } catch (error) {
      if (!(error instanceof FrameError)) throw error
      options.log({ level: "error", source: "server", message: error.message })
      socket.destroy()
    }
  })
}
