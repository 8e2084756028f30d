/**
 * A node with a protocol of its own, as a `Socket` that speaks frames.
 *
 * Each call has a connection of its own to the node, as its clients have always had. What the protocol looks like is known to
 * its codec, the `Wire`.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Socket from "effect/socket/Socket"
import * as Envelope from "../Envelope.ts"
import { Closed, SynapseError } from "../SynapseError.ts"
import { messageOf } from "./connectionEnd.ts"
import { socketErrorOf } from "./handshake.ts"
import { CodecError } from "./msgpack.ts"
import * as RequestEnd from "./requestEnd.ts"

/** The codec of a protocol that has one call and one answer for a connection. */
export interface Wire {
  readonly name: string
  /** The bytes of a call, or what refuses it. Throws a `CodecError`. */
  readonly request: (id: number, method: string, input: unknown) => Uint8Array | RequestEnd.Refused
  /** How many bytes the answer has, where its first four tell; nothing where it ends with the connection. */
  readonly sizeOf: (head: Uint8Array) => number | undefined
  /** The end of the call; `received` is what came of that. Throws a `CodecError`. */
  readonly answer: (id: number, method: string, received: Uint8Array) => RequestEnd.RequestEnd
}

/** What an endpoint raised, as far as its node tells. */
export const raised = (type: string, message: string): RequestEnd.RequestEnd => ({
  _tag: "Exception",
  exception: { type, module: "synapse_p2p", message, frames: [] }
})

export const unknownEndpoint = (method: string): RequestEnd.Refused =>
  new RequestEnd.Refused("MethodNotFound", { method, nearest: [] }, true)

const { Kind } = Envelope

/** `dial` makes a socket for each call. Acquiring the reader finds out whether the node is there. */
export const make = (wire: Wire, address: string, dial: Effect.Effect<Socket.Socket>): Socket.Socket => {
  const toHost = Effect.runSync(Queue.unbounded<Uint8Array, Socket.SocketError>())
  const frames = Envelope.makeWriter({ maxFrameSize: maxFrame })
  const parser = Envelope.makeReader({ maxFrameSize: maxFrame })
  const fibers = new Map<number, Fiber.Fiber<RequestEnd.RequestEnd>>()
  let run: ((effect: Effect.Effect<RequestEnd.RequestEnd>) => Fiber.Fiber<RequestEnd.RequestEnd>) | undefined
  let isLeaving = false

  const post: RequestEnd.Post = ({ id, kind, meta, onError, payload }) => {
    try {
      frames.frame(kind, id, payload, meta)
    } catch (error) {
      if (onError === undefined) throw error
      return onError(error)
    }
    Queue.offerUnsafe(toHost, frames.take())
  }
  const end = (error: Socket.SocketError): void => void Queue.failCauseUnsafe(toHost, Cause.fail(error))
  const leaveWhenDone = (): void => {
    if (!isLeaving || fibers.size > 0) return
    end(socketErrorOf(new SynapseError({ reason: new Closed({ delivery: "unknown" }) })))
  }

  const exchange = (id: number, method: string, bytes: Uint8Array): Effect.Effect<RequestEnd.RequestEnd> =>
    Effect.gen(function* () {
      const socket = yield* dial
      // A node that is not there any more is the end of the connection to it.
      const pull = yield* Effect.tapError(Socket.readerBytes(socket), (error) => Effect.sync(() => end(error)))
      const writer = yield* socket.writer
      yield* writer.write(bytes)
      const pieces: Array<Uint8Array> = []
      let received = 0
      let size: number | undefined
      while (size === undefined || received < size) {
        const batch = yield* Effect.catch(pull, (error) => (isEnd(error) ? Effect.succeed([]) : Effect.fail(error)))
        if (batch.length === 0) break
        for (const piece of batch) received += piece.length
        pieces.push(...batch)
        size ??= received < headSize ? undefined : wire.sizeOf(Buffer.concat(pieces.slice(0, headSize)))
        if (received > maxAnswer) return RequestEnd.tooLarge({ size: received, limit: maxAnswer })
      }
      const all = Buffer.concat(pieces)
      return yield* Effect.try({ try: () => wire.answer(id, method, all), catch: (error) => error as Error })
    }).pipe(
      Effect.scoped,
      Effect.catch((error) =>
        Effect.succeed(
          error instanceof CodecError
            ? RequestEnd.notCarried(error)
            : raised("ConnectionError", `${address}: ${messageOf(error)}`)
        )
      )
    )

  const request = (frame: Envelope.Frame): void => {
    const { id } = frame
    const meta = Envelope.decodeMeta(frame.meta)
    const method = String(meta.method)
    const refused = refusalOf(meta, wire)
    if (refused !== undefined) return RequestEnd.postEnd(post, id, refused)
    let bytes: Uint8Array | RequestEnd.Refused
    try {
      bytes = wire.request(id, method, Envelope.decodeFrame(frame) ?? null)
    } catch (error) {
      bytes = error instanceof CodecError ? RequestEnd.notDecoded(error) : RequestEnd.notCarried(error)
    }
    if (!(bytes instanceof Uint8Array)) return RequestEnd.postEnd(post, id, bytes)
    const fiber = run!(exchange(id, method, bytes))
    fibers.set(id, fiber)
    fiber.addObserver((exit) => {
      fibers.delete(id)
      RequestEnd.postEnd(post, id, RequestEnd.endOfExit(exit))
      leaveWhenDone()
    })
  }

  const onFrame = (frame: Envelope.Frame): void => {
    switch (frame.kind) {
      case Kind.Request:
        return request(frame)
      case Kind.Cancel:
        return fibers.get(frame.id)?.interruptUnsafe()
      case Kind.Ping:
        return post({ kind: Kind.Pong, id: frame.id })
      case Kind.Shutdown:
        isLeaving = true
        return leaveWhenDone()
    }
  }

  const write: Socket.Writer["write"] = (chunk) =>
    Effect.sync(() => {
      if (chunk instanceof Uint8Array) parser.read(chunk, onFrame)
    })

  return Socket.make({
    reader: Effect.gen(function* () {
      yield* Effect.scoped(Effect.flatMap(dial, (socket) => socket.reader))
      run = Effect.runForkWith(yield* Effect.context<never>())
      yield* Effect.addFinalizer(() => Fiber.interruptAll(Array.from(fibers.values())))
      post({ kind: Kind.Hello, id: 0, payload: helloOf(wire) })
      return { pull: Queue.takeAll(toHost), upgrade: () => Effect.void }
    }),
    writer: Effect.succeed({ write, writeAll: (chunks) => Effect.forEach(chunks, write, { discard: true }) })
  })
}

const maxFrame = 0xffff_ffff
const headSize = 4
/** Of an answer that tells nowhere how long it is. */
const maxAnswer = 64 * 1024 * 1024

const isEnd = ({ reason }: Socket.SocketError): boolean => reason._tag === "SocketCloseError" && reason.code === 1000

const refusalOf = (meta: Readonly<Record<string, unknown>>, { name }: Wire): RequestEnd.Refused | undefined => {
  if (meta.stream !== undefined) return RequestEnd.unsupported(`the protocol ${name} has no streams`)
  if (meta.hold !== undefined || meta.target !== undefined) {
    return RequestEnd.unsupported(`the protocol ${name} has no objects`)
  }
  return undefined
}

const helloOf = ({ name }: Wire): Envelope.Hello => ({
  protocol: Envelope.protocolVersion,
  runtime: name,
  python: "",
  implementation: "synapse-p2p",
  pid: 0,
  codec: "msgpack",
  // Which endpoints there are, only a call finds out.
  methods: [],
  contract: null
})
