/**
 * One call channel over any `Socket.Socket`.
 *
 * A connection owns the table of open calls: a call is registered, its request queued, and whatever ends it (a value, a
 * failure, an interruption, the end of the socket) ends it exactly once. One fiber writes, all that is queued in one
 * write; one fiber reads and matches answers to calls. It knows nothing of pools and schemas, and of processes only that
 * the error which ends a socket may tell how one exited.
 *
 * @since 0.1.0
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as Envelope from "./Envelope.ts"
import { closed, endOf, messageOf, protocolError, startFailed, withDelivery } from "./internal/connectionEnd.ts"
import * as Msgpack from "./internal/msgpack.ts"
import { maxDelayMillis, nativeSleep } from "./internal/nativeSleep.ts"
import { Pipeline } from "./internal/pipeline.ts"
import { EncodeFailed, FrameTooLarge, StartFailed, SynapseError } from "./SynapseError.ts"

/**
 * One call to make.
 *
 * @category models
 * @since 0.1.0
 */
export interface Request {
  /** The name of the handler. */
  readonly method: string
  /** The input, already in its MessagePack form. */
  readonly payload: unknown
  /** How many milliseconds are left until the call is given up, asked when the request is sent. */
  readonly timeLeft?: (() => number) | undefined
  /** A W3C `traceparent`. */
  readonly trace?: string | undefined
  /** Set when the request is handed to the socket. */
  readonly progress?: { sent: boolean } | undefined
}

/**
 * What {@link make} needs beside a socket.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Bytes of the largest frame, in both directions. */
  readonly maxFrameSize: number
  /** How many synchronous handlers the worker may run at once. */
  readonly concurrency: number
  /** How many calls may be open at once, those included that were given up and not answered yet. */
  readonly maxOpenCalls: number
  /** How long closing the scope lets open calls go on. */
  readonly graceMillis: number
  /** Called with each log record of the worker. Must not block or throw. */
  readonly onLog: (log: Envelope.Log) => void
  /** Called when a call has ended and there is room for another, and when the worker says that it is leaving. */
  readonly onChange: () => void
  /** Called when the first call opens and when the last one ends. */
  readonly onBusy: (busy: boolean) => void
}

/**
 * A connection to a worker that has said hello.
 *
 * @category models
 * @since 0.1.0
 */
export interface Connection {
  /** What the worker said of itself. */
  readonly hello: Envelope.Hello
  /**
   * Makes a call and waits for the frame that answers it. Fails when the request cannot be encoded, and with what ended
   * the connection. Interrupting it tells the worker and does not wait.
   */
  readonly call: (request: Request) => Effect.Effect<Envelope.Frame, SynapseError>
  /** Calls sent or waiting to be sent, and calls given up that the worker still has to answer. */
  readonly load: () => number
  /** Whether the worker takes calls: it is there and has not said that it leaves. */
  readonly isOpen: () => boolean
  /**
   * How many more calls the worker should be given now. Calls of synchronous handlers wait for their turn, and as few of
   * them as possible should wait in the worker.
   */
  readonly room: (synchronous: boolean) => number
  /** Waits until the worker says that it is leaving: it takes no more calls, and finishes those it has. */
  readonly leaving: Effect.Effect<void>
  /** Waits for the end of the connection, and fails with what ended it. */
  readonly ended: Effect.Effect<never, SynapseError>
}

interface OpenCall {
  readonly id: number
  readonly request: Request
  readonly resume: (exit: Exit.Exit<Envelope.Frame, SynapseError>) => void
  readonly synchronous: boolean
  /** When it was made, in milliseconds of `performance.now`. */
  readonly since: number
  sent: boolean
}

/** Bytes after which a batch is written rather than made longer. */
const batchBytes = 256 * 1024
/** Control frames that may wait to be written: a worker that asks for more and does not read is given up. */
const maxControlFrames = 16_384
/** How long the reader may take to say why a write failed. */
const writeFailedMillis = 1000

/**
 * Connects: acquires the socket, waits for the worker's hello and welcomes it.
 *
 * **Details**
 *
 * Fails with `StartFailed` when the worker's module does not import, when it leaves before it said hello, or when it
 * speaks another protocol. Closing the scope tells the worker to shut down, lets open calls go on for `graceMillis`, and
 * fails the rest with `Closed`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  socket: Socket.Socket,
  options: Options
): Effect.fn.Return<Connection, SynapseError, Scope.Scope> {
  const calls = new Map<number, OpenCall>()
  // Ids given up by their caller after they were sent: taken until the worker has answered.
  const abandoned = new Map<number, OpenCall>()
  const pipeline = new Pipeline(options.concurrency, options.maxOpenCalls)
  /** Open and abandoned calls of synchronous handlers. */
  let synchronousLoad = 0
  const outgoing = yield* Queue.bounded<OpenCall | typeof wake>(options.maxOpenCalls)
  // What the queue has no room for, such as after many calls that were given up unsent. Their callers wait.
  const overflow = new Set<OpenCall>()
  let control: Array<{ readonly kind: number; readonly id: number; readonly payload?: unknown }> = []
  const frames = Envelope.makeWriter({ maxFrameSize: options.maxFrameSize })
  const parser = Envelope.makeReader({ maxFrameSize: options.maxFrameSize })
  const greeting = yield* Deferred.make<Envelope.Hello, SynapseError>()
  const over = yield* Deferred.make<never, SynapseError>()
  const saidGoAway = yield* Deferred.make<void>()
  let endedWith: SynapseError | undefined
  let closing = false
  let isLeaving = false
  let greeted = false
  let lastId = 0

  const settle = (call: OpenCall, exit: Exit.Exit<Envelope.Frame, SynapseError>): void => {
    if (!calls.delete(call.id)) return
    if (call.synchronous) synchronousLoad--
    // Resuming may run the caller at once: the books are in order before.
    released()
    call.resume(exit)
  }
  const released = (): void => {
    if (calls.size === 0) options.onBusy(false)
    options.onChange()
  }

  // Nothing survives the end of the socket: what was not sent can be sent elsewhere, of the rest nobody knows.
  const end = (error: SynapseError): void => {
    if (endedWith !== undefined) return
    endedWith = closing ? closed : error
    overflow.clear()
    for (const call of Array.from(calls.values())) {
      settle(call, Exit.fail(withDelivery(endedWith, call.sent ? "unknown" : "notSent")))
    }
    abandoned.clear()
    synchronousLoad = 0
    Deferred.doneUnsafe(greeting, Exit.fail(endedWith))
    Deferred.doneUnsafe(over, Exit.fail(endedWith))
    Queue.shutdownUnsafe(outgoing)
  }

  const sendControl = (kind: number, id: number, payload?: unknown): void => {
    if (control.length >= maxControlFrames) return end(protocolError("it asks and does not read the answers"))
    control.push(payload === undefined ? { kind, id } : { kind, id, payload })
    // A full queue has the writer's attention already.
    Queue.offerUnsafe(outgoing, wake)
  }

  const encode = (call: OpenCall): void => {
    const { method, payload, progress, timeLeft, trace } = call.request
    try {
      const meta =
        timeLeft === undefined && trace === undefined ? { method } : { method, deadline: timeLeft?.(), trace }
      frames.request(call.id, meta, payload)
      call.sent = true
      if (progress !== undefined) progress.sent = true
    } catch (error) {
      settle(call, Exit.fail(encodeFailure(error, method)))
    }
  }
  const encodeControl = (): void => {
    if (control.length === 0) return
    const batch = control
    control = []
    for (const { id, kind, payload } of batch) frames.frame(kind, id, payload)
  }

  const writer = yield* socket.writer
  const write = Effect.gen(function* () {
    while (true) {
      const batch: Array<OpenCall | typeof wake> = yield* Queue.takeAll(outgoing)
      for (const call of overflow) batch.push(call)
      overflow.clear()
      // First the control frames: a welcome goes before any request, and a cancel is for a request sent before.
      encodeControl()
      for (const call of batch) {
        // A call given up before it was sent is not in the table any more.
        if (call !== wake && calls.has(call.id)) encode(call)
        if (frames.size >= batchBytes) yield* writer.write(frames.take())
      }
      if (frames.size > 0) yield* writer.write(frames.take())
    }
  })

  const dispatch = (frame: Envelope.Frame): void => {
    if (!greeted) return greet(frame)
    switch (frame.kind) {
      case Envelope.Kind.Success:
      case Envelope.Kind.Fail:
      case Envelope.Kind.Die:
      case Envelope.Kind.Interrupted: {
        const call = calls.get(frame.id)
        if (call !== undefined) {
          if (call.synchronous) pipeline.answered(performance.now() - call.since)
          settle(call, answer(frame))
        } else freed(frame.id)
        return
      }
      case Envelope.Kind.Log:
        return options.onLog(decodeLog(frame))
      case Envelope.Kind.Ping:
        return sendControl(Envelope.Kind.Pong, frame.id)
      case Envelope.Kind.GoAway:
        isLeaving = true
        Deferred.doneUnsafe(saidGoAway, Exit.void)
        return options.onChange()
      case Envelope.Kind.Request:
        return sendControl(Envelope.Kind.Interrupted, frame.id)
    }
  }

  const freed = (id: number): void => {
    const call = abandoned.get(id)
    if (call === undefined) return
    abandoned.delete(id)
    if (call.synchronous) synchronousLoad--
    options.onChange()
  }

  // What runs is stopped at the end of the grace.
  const answer = (frame: Envelope.Frame): Exit.Exit<Envelope.Frame, SynapseError> =>
    closing && frame.kind === Envelope.Kind.Interrupted ? Exit.fail(closed) : Exit.succeed(frame)

  const greet = (frame: Envelope.Frame): void => {
    if (frame.kind !== Envelope.Kind.Hello) {
      throw new Error(`the first frame is of kind ${frame.kind} and not Hello`)
    }
    const hello = decodeHello(frame.payload)
    if (hello.protocol !== Envelope.protocolVersion) {
      return end(
        startFailed(
          "protocol",
          `The worker speaks version ${hello.protocol} of the protocol and this package version ` +
            `${Envelope.protocolVersion}: update whichever is older`
        )
      )
    }
    if (hello.failure !== undefined) {
      return end(
        new SynapseError({
          reason: new StartFailed({
            kind: "import",
            detail: "The Python module does not import",
            exception: hello.failure
          })
        })
      )
    }
    greeted = true
    const { concurrency, maxFrameSize, maxOpenCalls } = options
    sendControl(Envelope.Kind.Welcome, 0, {
      protocol: Envelope.protocolVersion,
      maxFrameSize,
      concurrency,
      maxOpenCalls
    })
    Deferred.doneUnsafe(greeting, Exit.succeed(hello))
  }

  const pull = yield* Effect.mapError(Socket.readerBytes(socket), (error) => endOf(error, false))
  const read = Effect.gen(function* () {
    while (true) {
      for (const chunk of yield* pull) {
        try {
          for (const frame of framesOf(parser, chunk)) dispatch(frame)
        } catch (error) {
          return end(protocolError(`${messageOf(error)}. Something in Python may be writing to file descriptor 3`))
        }
      }
    }
  })

  yield* Effect.forkScoped(
    Effect.catch(read, (error) => Effect.sync(() => end(endOf(error, greeted)))).pipe(Effect.interruptible)
  )
  // A failed write says less than the end of the reader that follows it; where none does, it has to do.
  yield* Effect.forkScoped(
    Effect.exit(write).pipe(
      Effect.flatMap((exit) =>
        Effect.andThen(
          nativeSleep(writeFailedMillis),
          Effect.sync(() => end(protocolError(`it cannot be written to: ${messageOf(exit)}`)))
        )
      ),
      Effect.interruptible
    )
  )

  const isOver = Effect.exit(Deferred.await(over))
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      closing = true
      if (endedWith !== undefined || !greeted) return Effect.void
      sendControl(Envelope.Kind.Shutdown, 0, Math.min(options.graceMillis, maxDelayMillis))
      return Effect.asVoid(Effect.raceFirst(isOver, nativeSleep(options.graceMillis)))
    }).pipe(Effect.andThen(Effect.sync(() => end(closed))))
  )

  const hello = yield* Deferred.await(greeting)
  const synchronous = synchronousMethods(hello)

  const nextId = (): number => {
    do lastId = (lastId + 1) >>> 0
    while (lastId === 0 || calls.has(lastId) || abandoned.has(lastId))
    return lastId
  }

  const abandon = (call: OpenCall): void => {
    if (!calls.delete(call.id)) return
    overflow.delete(call)
    if (call.sent) {
      abandoned.set(call.id, call)
      sendControl(Envelope.Kind.Cancel, call.id)
    } else if (call.synchronous) synchronousLoad--
    released()
  }

  const isOpen = (): boolean => endedWith === undefined && !closing && !isLeaving

  return {
    hello,
    call: (request) =>
      Effect.callback((resume) => {
        if (endedWith !== undefined) return resume(Effect.fail(withDelivery(endedWith, "notSent")))
        if (closing) return resume(Effect.fail(withDelivery(closed, "notSent")))
        const call: OpenCall = {
          id: nextId(),
          request,
          resume,
          synchronous: synchronous.has(request.method),
          since: performance.now(),
          sent: false
        }
        calls.set(call.id, call)
        if (call.synchronous) synchronousLoad++
        if (calls.size === 1) options.onBusy(true)
        if (!Queue.offerUnsafe(outgoing, call)) overflow.add(call)
        return Effect.sync(() => abandon(call))
      }),
    load: () => calls.size + abandoned.size,
    isOpen,
    room: (synchronous) => {
      if (!isOpen()) return 0
      const room = options.maxOpenCalls - calls.size - abandoned.size
      return synchronous ? Math.min(room, pipeline.depth - synchronousLoad) : room
    },
    leaving: Deferred.await(saidGoAway),
    ended: Deferred.await(over)
  }
})

/**
 * The names of the handlers that take turns: no more than `concurrency` of them run at once.
 *
 * @category accessors
 * @since 0.1.0
 */
export const synchronousMethods = (hello: Envelope.Hello): ReadonlySet<string> =>
  new Set(hello.methods.filter((method) => !method.async && !method.stream).map(({ name }) => name))

/** The frames of a chunk; those before a fault in it count. */
function* framesOf(parser: Envelope.FrameReader, chunk: Uint8Array): Iterable<Envelope.Frame> {
  try {
    yield* parser.push(chunk)
  } catch (error) {
    if (error instanceof Envelope.FramingError) yield* error.frames
    throw error
  }
}

/** Wakes the writer for control frames. */
const wake = Symbol("wake")

const decodeHelloUnknown = Schema.decodeUnknownSync(Envelope.Hello)
const decodeHello = (payload: Uint8Array): Envelope.Hello => {
  try {
    return decodeHelloUnknown(Envelope.decodePayload(payload))
  } catch (error) {
    throw new Error(`Hello does not decode: ${messageOf(error)}`)
  }
}

const decodeLogUnknown = Schema.decodeUnknownSync(Envelope.Log)
const decodeLog = (frame: Envelope.Frame): Envelope.Log => {
  try {
    return decodeLogUnknown(Envelope.decodePayload(frame.payload))
  } catch (error) {
    throw new Error(`Log does not decode: ${messageOf(error)}`)
  }
}

const encodeFailure = (error: unknown, method: string): SynapseError => {
  if (error instanceof Envelope.FrameTooLarge) {
    const { limit, size } = error
    return new SynapseError({ reason: new FrameTooLarge({ side: "typescript", method, size, limit }) })
  }
  const [path, issue] = error instanceof Msgpack.CodecError ? [error.path, error.issue] : ["$", messageOf(error)]
  return new SynapseError({
    reason: new EncodeFailed({ side: "typescript", method, path, issue, delivery: "notSent" })
  })
}
