/**
 * One call channel over any `Socket.Socket`.
 *
 * A connection owns the table of open calls: a call is registered, its request queued, and whatever ends it (a value, a
 * failure, an interruption, the end of the socket) ends it exactly once. One fiber writes, all that is queued in one
 * write; one fiber reads and matches answers to calls. Each stream is delivered by a lane of its own, and what the worker
 * asks is answered by whoever serves it. It knows nothing of pools and schemas, and of processes only that the error which
 * ends a socket may tell how one exited.
 *
 * @since 0.1.0
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as Envelope from "./Envelope.ts"
import { turnedAway } from "./internal/answer.ts"
import { CallTable } from "./internal/callTable.ts"
import {
  closed,
  endOf,
  messageOf,
  protocolError,
  startFailed,
  unresponsive,
  withDelivery
} from "./internal/connectionEnd.ts"
import {
  decodeCredit,
  decodeGoAway,
  decodeHello,
  decodeLog,
  encodeFailure,
  handleOf,
  metaOf
} from "./internal/connectionFrames.ts"
import * as Heartbeat from "./internal/heartbeat.ts"
import type { InputStream } from "./internal/inputStreams.ts"
import { Lane } from "./internal/lane.ts"
import { Looking } from "./internal/looking.ts"
import { maxDelayMillis, nativeSleep } from "./internal/nativeSleep.ts"
import * as Outbox from "./internal/outbox.ts"
import { Pipeline } from "./internal/pipeline.ts"
import type { Post } from "./internal/requestEnd.ts"
import type { Serving } from "./internal/serving.ts"
import type { SharedMemory } from "./internal/sharedMemory.ts"
import { Stall } from "./internal/stall.ts"
import type { Vitals } from "./PythonProcess.ts"
import { StartFailed, SynapseError } from "./SynapseError.ts"

/**
 * One call to make.
 *
 * @category models
 * @since 0.1.0
 */
export interface Request {
  /** The name of the handler; of the method or attribute where there is a `target`. */
  readonly method: string
  /** The input, already in its MessagePack form. */
  readonly payload: unknown
  /** Streams that the payload refers to. */
  readonly inputs?: ReadonlyArray<InputStream> | undefined
  /** How many milliseconds are left until the call is given up, asked when the request is sent; it is not when none are. */
  readonly timeLeft?: (() => number | undefined) | undefined
  /** Milliseconds within which progress may extend that, asked when the request is sent. */
  readonly ceiling?: (() => number | undefined) | undefined
  /** A W3C `traceparent`. */
  readonly trace?: string | undefined
  /** What the caller sends along, by name. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** The call on this connection inside whose host function this one is made. */
  readonly parent?: number | undefined
  /** The handle of the object whose method is called. */
  readonly target?: number | undefined
  /** `method` is an attribute of the target, to be read. */
  readonly get?: boolean | undefined
  /** Whether the worker is replaced when it still runs the call `cancelGrace` after it was given up. */
  readonly replace?: boolean | undefined
  /** Called when the request is handed to the socket. */
  readonly onSent?: (() => void) | undefined
  /** Called with the payload of each `Progress`. */
  readonly onProgress?: ((payload: Uint8Array) => void) | undefined
  /** Called with the handle that the call answers, before its caller hears of it. */
  readonly onHandle?: ((handle: number) => void) | undefined
}

/**
 * The receiving end of a stream.
 *
 * @category models
 * @since 0.1.0
 */
export interface Incoming {
  /**
   * Waits for the next frame: a `Chunk`, or the one that ends the stream. Taking one says that the chunk before it is
   * consumed. Fails with what ended the connection, after the chunks that came before.
   */
  readonly take: Effect.Effect<Envelope.Frame, SynapseError>
  /** Gives the stream up where it has not ended. */
  readonly close: () => void
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
  /** How long a call that was given up may go on where it may not go on for ever. */
  readonly cancelGraceMillis: number
  /** Whether the worker may run pieces of Python. */
  readonly evaluate: boolean
  /** For how many microseconds the worker looks for the next call before it goes to sleep. Default: 0. */
  readonly pollingMicros?: number | undefined
  /** The memory that this side shares with the worker. Default: none. */
  readonly memory?: SharedMemory | undefined
  /** What the worker is told before it imports its module. Default: nothing. */
  readonly setup?: object | undefined
  /** How often a silent worker is asked whether it is there, and how often it may fail to answer. Default: never. */
  readonly heartbeat?: Pick<Heartbeat.Options, "intervalMillis" | "misses" | "sleep"> | undefined
  /** A look at the worker's process, where there is one to look at. */
  readonly inspect?: Effect.Effect<Vitals | undefined> | undefined
  /** Answers what the worker asks; the scope is that of the connection. */
  readonly serve: (post: Post, owner: object) => Effect.Effect<Serving, never, Scope.Scope>
  /** Called with each log record of the worker. Must not block or throw. */
  readonly onLog: (log: Envelope.Log) => void
  /** Called when a call has ended or an object was let go of, and when the worker says that it is leaving. */
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
  /** Makes a call, of whose end its caller hears; nothing where that was at once. */
  readonly open: (request: Request, caller: Caller) => Opened | undefined
  /** The same, for an effect that waits. */
  readonly begin: (
    request: Request,
    resume: (end: Effect.Effect<Envelope.Frame, SynapseError>) => void
  ) => (() => void) | undefined
  /** Opens a stream, which is open until it has ended or is closed. */
  readonly stream: (request: Request) => Incoming
  /** Lets go of an object that the worker holds for this side. */
  readonly release: (handle: number) => void
  /** What requests served for this worker know of it: see `CurrentRequest`. */
  readonly owner: object
  /** What is open now. */
  readonly stats: () => Stats
  /** Whether the worker still has a call: one that is open, or that was given up and is not answered. */
  readonly has: (call: number) => boolean
  /** How many calls it has had that are over. */
  readonly served: () => number
  /** Whether nobody waits for anything of it, or holds anything. */
  readonly isIdle: () => boolean
  /** A look at the worker's process; nothing where that cannot be had. */
  readonly inspect: Effect.Effect<Vitals | undefined>
  /** Calls sent or waiting to be sent, and calls given up that the worker still has to answer. */
  readonly load: () => number
  /** Whether the worker takes calls: it is there and has not said that it leaves. */
  readonly isOpen: () => boolean
  /**
   * How many more calls the worker should be given now. Calls of synchronous handlers wait for their turn, and as few of
   * them as possible should wait in the worker.
   */
  readonly room: (synchronous: boolean) => number
  /** Waits until the worker leaves: it takes no more calls, and ends when it has finished those it has. */
  readonly leaving: Effect.Effect<Leaving>
  /** Waits for the end of the connection, and fails with what ended it. */
  readonly ended: Effect.Effect<never, SynapseError>
}

/**
 * Who makes a call.
 *
 * @category models
 * @since 0.1.0
 */
export interface Caller {
  /** Takes the end of the call. `first` is what is to be waited for before anybody hears of it. */
  ended(exit: Exit.Exit<Envelope.Frame, SynapseError>, first: Effect.Effect<void> | undefined): void
}

/**
 * A call that was made.
 *
 * @category models
 * @since 0.1.0
 */
export interface Opened {
  /** Nobody waits for it any more. */
  giveUp(): void
}

/**
 * Why a worker leaves.
 *
 * @category models
 * @since 0.1.0
 */
export interface Leaving {
  /** Whether it asked to; otherwise it still runs what was given up, and is made to. */
  readonly byItself: boolean
  /** Whether it has done what it was for, however short that was. */
  readonly isDone: boolean
  /** The reason, where it tells one. */
  readonly why: string | undefined
}

/**
 * What is open on a connection, or on all those of a runtime.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Calls and streams that are not answered, those included that were given up. */
  readonly calls: number
  /** Those of them that are streams somebody reads. */
  readonly streams: number
  /** Requests of Python that are not answered: host functions, and input streams that are being read. */
  readonly hostCalls: number
  /** Python objects that are held. */
  readonly handles: number
}

/** A class, for the garbage collector: V8 keeps literals of a busy place until a full collection, with all they refer to. */
class OpenCall implements Opened {
  readonly id: number
  readonly request: Request
  readonly caller: Caller
  readonly #abandon: (call: OpenCall) => void
  /** Where the items go of a call that asks for a stream. */
  readonly lane: Lane | undefined
  readonly synchronous: boolean
  /** When it was made, in milliseconds of `performance.now`. */
  readonly since = performance.now()
  sent = false
  /** Given up by its caller, and not answered yet. */
  abandoned = false
  recalled = false

  constructor(
    id: number,
    request: Request,
    caller: Caller,
    lane: Lane | undefined,
    synchronous: boolean,
    abandon: (call: OpenCall) => void
  ) {
    this.id = id
    this.request = request
    this.caller = caller
    this.lane = lane
    this.synchronous = synchronous
    this.#abandon = abandon
  }

  giveUp(): void {
    this.#abandon(this)
  }
}

/** How long a worker that is replaced may take to answer what it can. */
const retiringMillis = 250
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
  const calls = new CallTable<OpenCall>()
  // Those given up by their caller after they were sent: their numbers are taken until the worker has answered.
  let abandoned = 0
  const pipeline = new Pipeline(options.concurrency, options.maxOpenCalls)
  /** Open and abandoned calls of synchronous handlers. */
  let synchronousLoad = 0
  const { maxFrameSize, memory } = options
  const frames = Envelope.makeWriter({ maxFrameSize, places: memory })
  const outbox = Outbox.make<OpenCall>({
    capacity: options.maxOpenCalls,
    frames,
    encode: (call) => encode(call),
    isWanted: (call) => openCall(call.id) === call,
    onFlood: () => end(protocolError("it asks and does not read the answers"))
  })
  const parser = Envelope.makeReader({ maxFrameSize, claim: memory && ((table) => memory.claim(table)) })
  const handles = new Set<number>()
  const owner = {}
  const runInBackground = yield* FiberSet.makeRuntime<never, void, never>()
  const greeting = yield* Deferred.make<Envelope.Hello, SynapseError>()
  const over = yield* Deferred.make<never, SynapseError>()
  const left = yield* Deferred.make<Leaving>()
  let endedWith: SynapseError | undefined
  let closing = false
  /** What ends a call that the worker stops because this side ends it. */
  let stopping: SynapseError | undefined
  let isLeaving = false
  let greeted = false
  let heard = 0
  /** When the bytes came that are being dealt with, in milliseconds of `performance.now`. */
  let arrivedAt = 0
  let served = 0
  const inspect = options.inspect ?? Effect.succeed(undefined)

  const settle = (call: OpenCall, exit: Exit.Exit<Envelope.Frame, SynapseError>): void => {
    if (call.abandoned || !calls.delete(call)) return
    if (call.synchronous) synchronousLoad--
    const inputsEnd = call.request.inputs === undefined ? undefined : serving.callEnded(call.id)
    // Resuming may run the caller at once: the books are in order before.
    released()
    try {
      call.caller.ended(exit, inputsEnd)
    } catch (error) {
      // Of whoever observes the caller: neither the worker nor other calls have anything to do with it.
      queueMicrotask(() => {
        throw error
      })
    }
  }
  const released = (): void => {
    served++
    if (calls.size === abandoned) options.onBusy(false)
    options.onChange()
  }

  // Nothing survives the end of the socket: what was not sent can be sent elsewhere, of the rest nobody knows.
  const end = (error: SynapseError): void => {
    if (endedWith !== undefined) return
    endedWith = stopping ?? error
    outbox.stop()
    stall.stop()
    for (const call of calls.values()) {
      if (!call.abandoned) settle(call, Exit.fail(withDelivery(endedWith, call.sent ? "unknown" : "notSent")))
      else if (calls.delete(call)) abandoned--
    }
    handles.clear()
    synchronousLoad = 0
    Deferred.doneUnsafe(greeting, Exit.fail(endedWith))
    Deferred.doneUnsafe(over, Exit.fail(endedWith))
  }

  const sendControl = (kind: number, id: number, payload?: unknown): void => outbox.post({ kind, id, payload })
  if (memory !== undefined) memory.onFree = (region) => sendControl(Envelope.Kind.Free, region)
  const serving = yield* options.serve(outbox.post, owner)
  const looking = new Looking((2 * (options.pollingMicros ?? 0)) / 1000, () => calls.size > 0)

  const encode = (call: OpenCall): void => {
    // A call given up before it was sent is not in the table any more.
    if (call.abandoned || calls.get(call.id) !== call) return
    const { request } = call
    try {
      const meta = metaOf(request, call.lane !== undefined)
      // Whose time has passed while it waited is not sent; its caller is about to hear of it.
      if (meta.deadline !== undefined && meta.deadline <= 0) return
      if (request.inputs !== undefined) serving.register(call.id, request.inputs)
      frames.request(call.id, meta, request.payload)
      call.sent = true
      request.onSent?.()
      if (calls.size === 1) looking.begin()
      else if (call.synchronous && hasWaiting()) stall.watch()
    } catch (error) {
      settle(call, Exit.fail(encodeFailure(error, request.method)))
    }
  }

  const dispatch = (frame: Envelope.Frame): void => {
    if (!greeted) return onHello(frame)
    switch (frame.kind) {
      case Envelope.Kind.Success:
      case Envelope.Kind.Fail:
      case Envelope.Kind.Die:
      case Envelope.Kind.Interrupted: {
        const call = calls.get(frame.id)
        if (call === undefined) return Envelope.discard(frame)
        if (!call.abandoned) {
          const refused = turnedAway(frame)
          if (refused === "Recalled" && !call.recalled) throw new Error("a call came back that was not asked for")
          // What did not run tells nothing of how long calls run.
          if (refused === undefined) answered(call)
          if (call.request.onHandle !== undefined) hold(call.request.onHandle, frame)
          settle(call, answer(frame))
        } else freed(call, frame)
        return
      }
      case Envelope.Kind.Chunk:
        return deliver(frame)
      case Envelope.Kind.Progress:
        openCall(frame.id)?.request.onProgress?.(frame.payload)
        break
      case Envelope.Kind.Log:
        options.onLog(decodeLog(frame))
        break
      case Envelope.Kind.Ping:
        sendControl(Envelope.Kind.Pong, frame.id)
        break
      case Envelope.Kind.GoAway: {
        const { done = false, reason } = decodeGoAway(frame)
        leave({ byItself: true, isDone: done, why: reason })
        break
      }
      case Envelope.Kind.Request:
        serving.request(frame)
        break
      case Envelope.Kind.Credit:
        serving.credit(frame.id, decodeCredit(frame))
        break
      case Envelope.Kind.Cancel:
        serving.cancel(frame.id)
        break
      case Envelope.Kind.Free:
        memory?.freed(frame.id)
        break
    }
    // Nobody has it any more. Who has those of calls and streams decodes them.
    Envelope.discard(frame)
  }

  const openCall = (id: number): OpenCall | undefined => {
    const call = calls.get(id)
    return call === undefined || call.abandoned ? undefined : call
  }

  const answered = (call: OpenCall): void => {
    const millis = arrivedAt - call.since
    looking.answered(millis)
    if (call.synchronous) pipeline.answered(millis)
  }

  // Calls that wait in the worker behind a slow handler are asked back: another worker may take them, and their time to run
  // has not begun. Only those that did not start come back.
  // What else is open may occupy the same thread: a generator, or a method of an object.
  const hasWaiting = (): boolean => synchronousLoad > 0 && calls.size > options.concurrency
  const stall = new Stall(hasWaiting, () => {
    pipeline.stalled()
    for (const call of calls.values()) {
      // A nested call has its place in this worker and in no other.
      if (!call.synchronous || !call.sent || call.abandoned || call.recalled || call.request.parent !== undefined)
        continue
      call.recalled = true
      sendControl(Envelope.Kind.Recall, call.id)
    }
  })

  const deliver = (frame: Envelope.Frame): void => {
    const call = openCall(frame.id)
    if (call === undefined) return Envelope.discard(frame)
    const items = Envelope.arrayLength(frame.payload)
    if (items === undefined || items === 0) throw new Error("a Chunk that is not an array of items")
    if (call.lane === undefined) throw new Error(`a Chunk for \`${call.request.method}\`, of which one value was asked`)
    if (!call.lane.offer(frame, items)) {
      throw new Error(`\`${call.request.method}\` sent more items than it was granted`)
    }
  }

  const hold = (onHandle: (handle: number) => void, frame: Envelope.Frame): void => {
    if (frame.kind !== Envelope.Kind.Success) return
    const handle = handleOf(frame)
    // Its caller sees what is wrong with the answer.
    if (handle === undefined) return
    handles.add(handle)
    onHandle(handle)
  }

  const freed = (call: OpenCall, frame: Envelope.Frame): void => {
    calls.delete(call)
    abandoned--
    if (call.synchronous) synchronousLoad--
    // Nobody will: its caller is gone.
    if (call.request.onHandle !== undefined) hold(release, frame)
    Envelope.discard(frame)
    options.onChange()
  }

  const release = (handle: number): void => {
    if (!handles.delete(handle)) return
    sendControl(Envelope.Kind.Release, handle)
    options.onChange()
  }

  const leave = (leaving: Leaving): void => {
    isLeaving = true
    Deferred.doneUnsafe(left, Exit.succeed(leaving))
    options.onChange()
  }

  // What runs is stopped at the end of the grace.
  const answer = (frame: Envelope.Frame): Exit.Exit<Envelope.Frame, SynapseError> =>
    stopping !== undefined && frame.kind === Envelope.Kind.Interrupted ? Exit.fail(stopping) : Exit.succeed(frame)

  const onHello = (frame: Envelope.Frame): void => {
    if (frame.kind !== Envelope.Kind.Hello) {
      throw new Error(`the first frame is of kind ${frame.kind} and not Hello`)
    }
    const hello = decodeHello(frame)
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
            detail: "The Python module failed to start",
            exception: hello.failure
          })
        })
      )
    }
    greeted = true
    const { concurrency, evaluate, maxOpenCalls } = options
    sendControl(Envelope.Kind.Welcome, 0, {
      protocol: Envelope.protocolVersion,
      maxFrameSize,
      concurrency,
      maxOpenCalls,
      evaluate,
      sharedMemory: memory?.settings,
      polling: options.pollingMicros
    })
    Deferred.doneUnsafe(greeting, Exit.succeed(hello))
  }

  const pull = yield* Effect.mapError(Socket.readerBytes(socket), (error) => endOf(error, false))
  const read = Effect.gen(function* () {
    while (true) {
      for (const chunk of yield* pull) {
        heard++
        arrivedAt = performance.now()
        const load = synchronousLoad
        try {
          parser.read(chunk, dispatch)
          const { depth } = pipeline
          if (pipeline.settled(load)) stall.answered(arrivedAt)
          if (pipeline.depth > depth) options.onChange()
        } catch (error) {
          return end(protocolError(`${messageOf(error)}. Something in Python may be writing to file descriptor 3`))
        }
      }
    }
  })

  yield* Effect.forkScoped(
    Effect.catch(read, (error) => Effect.sync(() => end(endOf(error, greeted)))).pipe(Effect.interruptible)
  )
  const writer = yield* socket.writer
  if (options.setup !== undefined) {
    // The first frame. The limit is for what comes later, and a write that fails for the reader to tell of.
    const setup = Envelope.makeWriter()
    setup.frame(Envelope.Kind.Setup, 0, options.setup)
    yield* Effect.ignore(writer.write(setup.take()))
  }
  // A failed write says less than the end of the reader that follows it; where none does, it has to do.
  yield* Effect.forkScoped(
    Effect.exit(outbox.write(writer)).pipe(
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
      stopping = closed
      if (endedWith !== undefined || !greeted) return Effect.void
      sendControl(Envelope.Kind.Shutdown, 0, Math.min(options.graceMillis, maxDelayMillis))
      return Effect.asVoid(Effect.raceFirst(isOver, nativeSleep(options.graceMillis)))
    }).pipe(Effect.andThen(Effect.sync(() => end(closed))))
  )

  const hello = yield* Deferred.await(greeting)
  if (options.heartbeat !== undefined) {
    const { intervalMillis, misses, sleep } = options.heartbeat
    yield* Heartbeat.watch({
      sleep,
      intervalMillis,
      misses,
      heard: () => heard,
      ping: () => sendControl(Envelope.Kind.Ping, 0),
      inspect
    }).pipe(
      Effect.flatMap((activity) => Effect.sync(() => end(unresponsive(hello.pid, activity, intervalMillis * misses)))),
      Effect.interruptible,
      Effect.forkScoped
    )
  }
  const synchronous = synchronousMethods(hello)
  const replaceable = methodsWhere(hello, ({ cancel }) => cancel === "replace")

  const add = (request: Request, caller: Caller, lane?: Lane): OpenCall => {
    // The methods of an object are not known here.
    const takesTurns = request.target === undefined && synchronous.has(request.method)
    const call = new OpenCall(calls.nextId(), request, caller, lane, takesTurns, abandon)
    calls.add(call)
    if (call.synchronous) synchronousLoad++
    if (calls.size - abandoned === 1) options.onBusy(true)
    outbox.request(call)
    return call
  }

  const abandon = (call: OpenCall): void => {
    if (openCall(call.id) !== call) return
    if (call.request.inputs !== undefined) serving.callEnded(call.id)
    if (call.sent) {
      call.abandoned = true
      abandoned++
      sendControl(Envelope.Kind.Cancel, call.id)
      if (mayBeReplaced(call.request)) runInBackground(replaceAfterGrace(call))
    } else {
      calls.delete(call)
      if (call.synchronous) synchronousLoad--
      outbox.withdraw()
    }
    released()
  }

  // Handlers are known by their names; the methods of an object have names of their own.
  const mayBeReplaced = ({ method, replace, target }: Request): boolean =>
    replace === true || (target === undefined && replaceable.has(method))

  const replaceAfterGrace = (call: OpenCall): Effect.Effect<void> =>
    Effect.andThen(
      Effect.sleep(options.cancelGraceMillis),
      Effect.suspend(() => (calls.get(call.id) === call ? retire : Effect.void))
    )

  // The worker takes no more calls, is replaced as one that leaves, and does not get to finish what it has.
  const retire = Effect.flatMap(inspect, (vitals) => {
    const error = unresponsive(hello.pid, Heartbeat.activityOf(vitals), options.cancelGraceMillis)
    stopping ??= error
    leave({ byItself: false, isDone: false, why: undefined })
    sendControl(Envelope.Kind.Shutdown, 0, 0)
    return Effect.andThen(
      nativeSleep(retiringMillis),
      Effect.sync(() => end(error))
    )
  })

  const refusal = (): SynapseError | undefined => endedWith ?? (closing ? closed : undefined)
  const isOpen = (): boolean => refusal() === undefined && !isLeaving

  const open: Connection["open"] = (request, caller) => {
    const refused = refusal()
    if (refused === undefined) return add(request, caller)
    caller.ended(Exit.fail(withDelivery(refused, "notSent")), undefined)
    return undefined
  }

  const begin: Connection["begin"] = (request, resume) => {
    const opened = open(request, {
      // Its input streams end before it does.
      ended: (exit, first) => resume(first === undefined ? exit : Effect.andThen(first, exit))
    })
    return opened && (() => opened.giveUp())
  }

  return {
    hello,
    owner,
    release,
    open,
    begin,
    call: (request) =>
      Effect.callback((resume) => {
        const giveUp = begin(request, resume)
        return giveUp && Effect.sync(giveUp)
      }),
    stream: (request) => {
      const lane = new Lane(Envelope.streamItems, Envelope.maxStreamItems, (items) =>
        sendControl(Envelope.Kind.Credit, call.id, items)
      )
      const refused = refusal()
      if (refused !== undefined) {
        lane.end(Exit.fail(withDelivery(refused, "notSent")))
        return { take: lane.take, close: () => {} }
      }
      const call = add(request, { ended: (exit) => lane.end(exit) }, lane)
      const close = (): void => {
        abandon(call)
        lane.close()
      }
      return { take: lane.take, close }
    },
    stats: () => {
      let streams = 0
      for (const { abandoned, lane } of calls.values()) if (lane !== undefined && !abandoned) streams++
      return { calls: calls.size, streams, hostCalls: serving.open(), handles: handles.size }
    },
    has: (id) => calls.get(id) !== undefined,
    served: () => served,
    isIdle: () => calls.size === abandoned && handles.size === 0,
    inspect,
    load: () => calls.size,
    isOpen,
    room: (synchronous) => {
      if (!isOpen()) return 0
      const room = options.maxOpenCalls - calls.size
      return synchronous ? Math.min(room, pipeline.depth - synchronousLoad) : room
    },
    leaving: Deferred.await(left),
    ended: Deferred.await(over)
  }
})

/**
 * The names of the handlers that take turns: no more than `concurrency` of them run at once.
 *
 * @category accessors
 * @since 0.1.0
 */
export const synchronousMethods = (hello: Envelope.Hello): Methods => {
  const methods = methodsWhere(hello, ({ async, stream }) => !async && !stream)
  return { has: (name) => name === Envelope.evaluateMethod || methods.has(name) }
}

/**
 * Some of the methods of a worker.
 *
 * @category models
 * @since 0.1.0
 */
export type Methods = Pick<ReadonlySet<string>, "has">

/** A script that does not tell its methods has one of this name, for all of them. */
const anyMethod = "$any"

const methodsWhere = (hello: Envelope.Hello, is: (method: Envelope.Hello["methods"][number]) => boolean): Methods => {
  const names = new Set(hello.methods.filter(is).map(({ name }) => name))
  return names.has(anyMethod) ? { has: () => true } : names
}
