/**
 * A worker without a process: TypeScript handlers on an in-memory socket, which speaks the protocol as a Python worker does.
 *
 * It owns the calls that it was given and the turns that those of synchronous handlers take. What is to go wrong with them is
 * planned elsewhere, and done here.
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as Envelope from "../Envelope.ts"
import type * as PythonProcess from "../PythonProcess.ts"
import { SynapseError, WorkerExited } from "../SynapseError.ts"
import { Asking } from "./asking.ts"
import type { Fault, Faults, Exit as HowToExit } from "./faults.ts"
import { CurrentHandler, wantsCall, wantsStream } from "./handlers.ts"
import { CodecError } from "./msgpack.ts"
import { Decoder } from "./msgpackDecoder.ts"
import { Encoder } from "./msgpackEncoder.ts"
import { nearest } from "./nearest.ts"
import { Outlet } from "./outlet.ts"
import {
  closed,
  endOfExit,
  interrupted,
  notDecoded,
  overloaded,
  type Post,
  postEnd,
  Refused,
  type RequestEnd,
  succeeded,
  unsupported
} from "./requestEnd.ts"
import * as Serving from "./serving.ts"

/** A call as a handler gets it. */
export interface HandlerCall extends Serving.HostCall {
  /** Whether a stream is wanted. */
  readonly isStream: boolean
}

/** The handlers that fake workers have. */
export interface Module {
  /** By name, whether each gives a stream; nothing where that is seen when it is called. */
  readonly functions: ReadonlyMap<string, boolean | undefined>
  /** What they run in. */
  readonly context: Context.Context<never>
  readonly connect: Effect.Effect<
    { readonly run: (call: HandlerCall) => Effect.Effect<RequestEnd> },
    never,
    Scope.Scope
  >
}

export interface Options {
  readonly pid: number
  readonly module: Module
  readonly faults: Faults
  /** Whether calls of a method take turns, `concurrency` at a time. */
  readonly isSynchronous: (method: string) => boolean
}

interface Call {
  readonly id: number
  readonly method: string
  readonly takesTurns: boolean
  /** Taken when it starts: a call that is asked back before leaves it to another. */
  fault: Fault | undefined
  readonly outlet: Outlet | undefined
  readonly run: (call: Call) => Effect.Effect<RequestEnd>
  fiber: Fiber.Fiber<RequestEnd> | undefined
  /** Items of a stream that were sent. */
  items: number
  /** It is not answered, whatever happens. */
  hangs: boolean
}

const { Kind } = Envelope
const maxFrame = 0xffff_ffff
/** What an array of one item begins with. */
const arrayOfOne = 0x91

/** Starts a fake worker; closing the scope interrupts its handlers. */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<PythonProcess.PythonProcess, never, Scope.Scope> {
  const { faults, isSynchronous, module, pid } = options
  const startFault = faults.takeStart()
  const toHost = yield* Queue.unbounded<Uint8Array, Socket.SocketError>()
  const handlers = yield* module.connect
  const runFork = Effect.runForkWith(module.context)
  const parser = Envelope.makeReader({ maxFrameSize: maxFrame })
  const encoder = new Encoder()
  const decoder = new Decoder((id) => asking.inputStream(id))
  const calls = new Map<number, Call>()
  const fibers = new Set<Fiber.Fiber<unknown>>()
  /** Calls that wait for their turn. */
  let waiting: ReadonlyArray<Call> = []
  let frames = Envelope.makeWriter()
  let welcome: Envelope.Welcome | undefined
  let stderr = ""
  let isOver = false
  let isLeaving = false
  let isShutDown = false
  let dropsHeartbeat = false

  const send = (bytes: Uint8Array): void => {
    if (!isOver) Queue.offerUnsafe(toHost, bytes)
  }
  const post: Post = ({ id, kind, meta, onError, payload, payloadBytes }) => {
    if (isOver) return
    try {
      if (payloadBytes !== undefined) frames.encoded(kind, id, payloadBytes)
      else frames.frame(kind, id, payload, meta)
    } catch (error) {
      if (onError === undefined) throw error
      return onError(error)
    }
    send(frames.take())
  }
  const asking = new Asking(post)

  const run = <A>(effect: Effect.Effect<A>, onEnd?: (exit: Exit.Exit<A>) => void): Fiber.Fiber<A> => {
    const fiber = runFork(effect)
    fibers.add(fiber)
    fiber.addObserver((exit) => {
      fibers.delete(fiber)
      onEnd?.(exit)
    })
    return fiber
  }

  const exit = (how: HowToExit): void => {
    if (isOver) return
    stderr = [stderr, how.stderr].filter((text) => text !== "").join("\n")
    const error = new SynapseError({
      reason: new WorkerExited({ ...how, pid, stderr, delivery: "unknown" })
    })
    isOver = true
    faults.running.delete(running)
    Queue.failCauseUnsafe(
      toHost,
      Cause.fail(new Socket.SocketError({ reason: new Socket.SocketReadError({ cause: error }) }))
    )
    calls.clear()
    waiting = []
    asking.end()
    for (const fiber of fibers) fiber.interruptUnsafe()
  }

  const leaveWhenDone = (): void => {
    if (!isLeaving || isOver) return
    // Whoever shuts it down does not have to wait for what will never end.
    for (const { hangs } of calls.values()) if (!hangs || !isShutDown) return
    exit(left)
  }

  const running = {
    exit,
    dropHeartbeat: () => {
      dropsHeartbeat = true
    },
    leave: (reason: string | undefined) => {
      post({ kind: Kind.GoAway, id: 0, payload: { reason } })
      isLeaving = true
      leaveWhenDone()
    }
  }

  /** What is asked for and what the handler gives, where they do not fit. */
  const refusalOf = (method: string, meta: Readonly<Record<string, unknown>>): Refused | undefined => {
    if (isLeaving) return closed
    if (welcome !== undefined && calls.size >= welcome.maxOpenCalls && meta.parent === undefined) {
      return overloaded(welcome.maxOpenCalls)
    }
    if (method === Envelope.evaluateMethod) return unsupported("a test without Python cannot run it")
    if (meta.hold !== undefined || meta.target !== undefined) {
      return unsupported("objects of Python are not there in a test without Python")
    }
    if (!module.functions.has(method)) {
      const names = nearest(method, Array.from(module.functions.keys()))
      return new Refused("MethodNotFound", { method, nearest: names }, true)
    }
    const isStream = module.functions.get(method)
    if (isStream === true && meta.stream === undefined) return wantsStream(method)
    if (isStream === false && meta.stream !== undefined) return wantsCall(method)
    return undefined
  }

  const onRequest = (frame: Envelope.Frame): void => {
    const { deadline, headers, method = "", stream, trace } = Serving.metaOf(frame)
    const meta = Envelope.decodeMeta(frame.meta)
    const { id } = frame
    const payload = payloadOf(decoder, frame.payload)
    const refusal = payload instanceof Refused ? payload : refusalOf(method, meta)
    const isStream = stream !== undefined
    // Whoever waits for it goes on at once: the call has begun before.
    const arrive = (): void => {
      if (!(payload instanceof Refused))
        faults.receive({ method, payload: payload.value, stream: isStream, headers, pid })
    }
    if (refusal !== undefined) {
      postEnd(post, id, refusal)
      return refusal === closed ? undefined : arrive()
    }
    const outlet = isStream
      ? new Outlet({ id, granted: stream, post, encoder, maxFrameSize: maxOf(welcome) })
      : undefined
    const report = (value: unknown): void => {
      if (meta.progress === true && calls.has(id)) post({ kind: Kind.Progress, id, payload: value, onError: () => {} })
    }
    const handle = Effect.suspend(() =>
      handlers.run({
        method,
        payload: (payload as { readonly value: unknown }).value,
        trace,
        headers,
        isStream,
        send: sendOf(call)
      })
    ).pipe(Effect.provideService(CurrentHandler, { report, ask: asking.of(id) }))
    const call: Call = {
      id,
      method,
      takesTurns: !isStream && isSynchronous(method),
      fault: undefined,
      outlet,
      // Where progress extends the deadline, the host keeps it.
      run: (call) => withFault(call, within(meta.ceiling === undefined ? deadline : undefined, handle)),
      fiber: undefined,
      items: 0,
      hangs: false
    }
    calls.set(id, call)
    if (call.takesTurns && meta.parent === undefined && !hasTurn()) waiting = [...waiting, call]
    else start(call)
    arrive()
  }

  const hasTurn = (): boolean => {
    let taken = 0
    for (const { fiber, takesTurns } of calls.values()) if (takesTurns && fiber !== undefined) taken++
    return taken < (welcome?.concurrency ?? 1)
  }

  const start = (call: Call): void => {
    call.fault = faults.take(call.method)
    call.fiber = run(call.run(call), (exit) => {
      if (calls.get(call.id) !== call) return
      calls.delete(call.id)
      answer(call, endOfExit(exit))
      next()
    })
  }

  const next = (): void => {
    const [first, ...others] = waiting
    if (first !== undefined && hasTurn()) {
      waiting = others
      start(first)
    }
    leaveWhenDone()
  }

  const answer = (call: Call, end: RequestEnd): void => {
    const { fault } = call
    if (fault?._tag === "Crash" && fault.at === "answer" && fault.afterItems === undefined) return exit(fault.exit)
    if (fault?._tag === "Crash" && fault.at === "frame") {
      const bytes = encodedEnd(call.id, end)
      send(bytes.subarray(0, bytes.length >> 1))
      return exit(fault.exit)
    }
    if (fault?._tag === "Garbage") {
      if (fault.within === "channel") return send(fault.bytes)
      if (call.outlet === undefined) return post({ kind: Kind.Success, id: call.id, payloadBytes: fault.bytes })
      post({ kind: Kind.Chunk, id: call.id, payloadBytes: Uint8Array.of(arrayOfOne, ...fault.bytes) })
      return postEnd(post, call.id, succeeded(null))
    }
    postEnd(post, call.id, end)
  }

  const encodedEnd = (id: number, end: RequestEnd): Uint8Array => {
    const own = Envelope.makeWriter()
    postEnd(
      ({ id, kind, meta, onError, payload }) => {
        try {
          own.frame(kind, id, payload, meta)
        } catch (error) {
          onError?.(error)
        }
      },
      id,
      end
    )
    return own.take()
  }

  /** Sends items of a stream, up to the one before which the worker ends. */
  const sendOf =
    (call: Call): HandlerCall["send"] =>
    (items) => {
      const { fault, outlet } = call
      if (outlet === undefined) return Effect.void
      if (fault?._tag !== "Crash" || fault.afterItems === undefined) return outlet.send(items)
      const room = fault.afterItems - call.items
      call.items += items.length
      if (items.length < room) return outlet.send(items)
      return Effect.andThen(outlet.send(items.slice(0, room)), crash(fault.exit))
    }

  const crash = (how: HowToExit): Effect.Effect<never> =>
    Effect.andThen(
      Effect.sync(() => exit(how)),
      Effect.never
    )

  const withFault = (call: Call, handle: Effect.Effect<RequestEnd>): Effect.Effect<RequestEnd> => {
    const { fault } = call
    switch (fault?._tag) {
      case undefined:
        return handle
      case "Hang":
        call.hangs = true
        return Effect.never
      case "Delay":
        return Effect.andThen(Effect.sleep(fault.duration), handle)
      case "Garbage":
        return Effect.succeed(interrupted)
      case "Crash":
        if (fault.afterItems !== undefined) return handle
        return Effect.andThen(Effect.sleep(fault.after), fault.at === "request" ? crash(fault.exit) : handle)
    }
  }

  const cancel = (id: number): void => {
    const call = calls.get(id)
    if (call === undefined || call.hangs) return
    if (call.fiber !== undefined) return call.fiber.interruptUnsafe()
    takeBack(call, interrupted)
  }

  /** Answers calls that wait for their turn, and do not any more. */
  const takeBack = (call: Call, end: RequestEnd): void => {
    waiting = waiting.filter((other) => other !== call)
    calls.delete(call.id)
    postEnd(post, call.id, end)
    leaveWhenDone()
  }

  const onFrame = (frame: Envelope.Frame): void => {
    if (isOver) return
    switch (frame.kind) {
      case Kind.Welcome:
        welcome = Envelope.decodePayload(frame.payload) as Envelope.Welcome
        frames = Envelope.makeWriter({ maxFrameSize: welcome.maxFrameSize })
        return
      case Kind.Request:
        return onRequest(frame)
      case Kind.Cancel:
        return cancel(frame.id)
      case Kind.Credit:
        return calls.get(frame.id)?.outlet?.credit(Envelope.decodePayload(frame.payload) as number)
      case Kind.Recall: {
        const call = waiting.find(({ id }) => id === frame.id)
        if (call !== undefined) takeBack(call, recalled)
        return
      }
      case Kind.Ping:
        if (!dropsHeartbeat) post({ kind: Kind.Pong, id: frame.id })
        return
      case Kind.Shutdown:
        isLeaving = isShutDown = true
        return leaveWhenDone()
      default:
        asking.answered(frame)
    }
  }

  const write = (chunk: Uint8Array | string | Socket.CloseEvent): Effect.Effect<void, Socket.SocketError> =>
    Effect.suspend(() => {
      if (isOver) return writeFailed
      if (chunk instanceof Uint8Array) parser.read(chunk, onFrame)
      return Effect.void
    })

  const greet = (failure?: object): void =>
    post({ kind: Kind.Hello, id: 0, payload: { ...helloOf(module, isSynchronous), pid, ...failure } })

  const begin = (): void => {
    switch (startFault?._tag) {
      case undefined:
        return greet()
      case "Slow":
        run(
          Effect.andThen(
            Effect.sleep(startFault.duration),
            Effect.sync(() => greet())
          )
        )
        return
      case "Import":
        greet({ failure: startFault.exception })
        return exit(left)
      case "Exit":
        return exit(startFault.exit)
    }
  }

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      exit(left)
      return Fiber.interruptAll(fibers)
    })
  )
  faults.running.add(running)
  begin()
  return {
    pid,
    socket: Socket.make({
      reader: Effect.succeed({ pull: Queue.takeAll(toHost), upgrade: () => Effect.void }),
      writer: Effect.succeed({ write, writeAll: (chunks) => Effect.forEach(chunks, write, { discard: true }) })
    }),
    setup: undefined,
    inspect: Effect.sync(() => (isOver ? undefined : vitals)),
    noteStderr: () => {},
    stderr: () => stderr,
    setKeepAlive: () => {}
  }
})

/** How a worker leaves that was asked to. */
const left: HowToExit = { exitCode: 0, signal: null, kind: "exit", stderr: "", crashDump: "" }

const vitals: PythonProcess.Vitals = { state: "sleeping", cpuMillis: 0, memoryBytes: 0 }

const recalled = new Refused("Recalled", null, true)

const writeFailed = Effect.fail(
  new Socket.SocketError({ reason: new Socket.SocketWriteError({ cause: new Error("the worker is gone") }) })
)

const maxOf = (welcome: Envelope.Welcome | undefined): number => welcome?.maxFrameSize ?? Envelope.defaultMaxFrameSize

const payloadOf = (decoder: Decoder, bytes: Uint8Array): { readonly value: unknown } | Refused => {
  try {
    return { value: bytes.length === 0 ? undefined : decoder.decode(bytes) }
  } catch (error) {
    if (error instanceof CodecError) return notDecoded(error)
    throw error
  }
}

const within = (millis: number | undefined, self: Effect.Effect<RequestEnd>): Effect.Effect<RequestEnd> =>
  millis === undefined
    ? self
    : Effect.timeoutOrElse(self, { duration: Math.max(0, millis), orElse: () => Effect.succeed(interrupted) })

const helloOf = ({ functions }: Module, isSynchronous: Options["isSynchronous"]): Omit<Envelope.Hello, "pid"> => ({
  protocol: Envelope.protocolVersion,
  runtime: "0.0.0",
  python: "3.12.0",
  implementation: "effect-synapse/testing",
  codec: "typescript",
  methods: Array.from(functions, ([name, stream]) => ({
    name,
    stream: stream ?? false,
    async: !isSynchronous(name)
  })),
  contract: null
})
