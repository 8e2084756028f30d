/**
 * Tests without Python: a runtime whose handlers are TypeScript, with the calls, streams, errors, queues and restarts of a real
 * one, and faults on demand; recordings of real sessions, and runtimes that answer from them.
 *
 * The workers are fakes on in-memory sockets, and everything in front of them is what runs in production. All that waits does so
 * on the `Clock`, so that a `TestClock` drives it.
 *
 * @since 0.1.0
 */
import { readFileSync } from "node:fs"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Rpc from "effect/rpc/Rpc"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as HostFunctions from "./HostFunctions.ts"
import type * as Asking from "./internal/asking.ts"
import * as FakeWorker from "./internal/fakeWorker.ts"
import * as FaultPlan from "./internal/faults.ts"
import * as Functions from "./internal/handlers.ts"
import type { Origin } from "./internal/origin.ts"
import { quietSleep } from "./internal/quietSleep.ts"
import * as Recorder from "./internal/recorder.ts"
import * as Recording from "./internal/recording.ts"
import * as Replayer from "./internal/replayer.ts"
import type * as PythonEnvironment from "./PythonEnvironment.ts"
import * as Synapse from "./Synapse.ts"
import { type ExceptionInfo, type ExitKind, StartFailed, SynapseError } from "./SynapseError.ts"

/**
 * How a runtime without Python is run. Options that are not described here are those of `Synapse.layer`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<R = never, Self = Synapse.Synapse>
  extends Pick<
    Synapse.SynapseOptions<R>,
    | "callTimeout"
    | "cancelGrace"
    | "concurrency"
    | "disposeTimeout"
    | "heartbeat"
    | "host"
    | "logs"
    | "maxFrameSize"
    | "oneShot"
    | "queue"
    | "recycle"
    | "restart"
    | "startTimeout"
    | "warmUp"
    | "workers"
  > {
  /** How many calls a worker may have open at once. Default: 1024. */
  readonly limits?: Pick<Synapse.Limits, "openCalls"> | undefined
  /**
   * The handlers that stand for synchronous functions of Python, `def` and not `async def`: a worker runs `concurrency` of them
   * at once, and their other calls wait. `true`: all that give one value. Default: `false`, all run side by side.
   */
  readonly synchronous?: boolean | ReadonlyArray<string> | undefined
  /**
   * What is to go wrong, planned before the layer is built; and where a test has two runtimes, what tells their faults apart. Made by
   * {@link makeFaults}. Default: nothing, until {@link Faults} is told.
   */
  readonly faults?: Faults["Service"] | undefined
  /** The key of the runtime, where it is one of `Synapse.Service`. Default: `Synapse.Synapse`. */
  readonly service?: Context.Key<Self, Synapse.Runtime> | undefined
}

/**
 * For which calls a fault is planned.
 *
 * @category models
 * @since 0.1.0
 */
export interface FaultOptions {
  /** For how many calls. Default: 1, the next one. */
  readonly calls?: number | "all" | undefined
}

/**
 * How a worker's process ends.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExitOptions {
  /** Its exit code, where no signal ends it. */
  readonly exitCode?: number | undefined
  /** The signal that ends it. Default: `"SIGSEGV"`, unless there is an `exitCode`. */
  readonly signal?: string | undefined
  /** What errors say of it. Default: what the signal means; `"outOfMemory"` has to be asked for. */
  readonly kind?: ExitKind | undefined
  /** The last lines that it wrote to stderr. Default: none. */
  readonly stderr?: string | undefined
  /** The Python frames of its threads. Default: none. */
  readonly crashDump?: string | undefined
}

/**
 * How a worker ends because of a call.
 *
 * @category models
 * @since 0.1.0
 */
export interface CrashOptions extends FaultOptions, ExitOptions {
  /**
   * When. `"request"`: in place of the handler, the default; `"answer"`: when the handler is done, before anything of its answer
   * is sent; `"frame"`: in the middle of the answer's bytes.
   */
  readonly at?: "request" | "answer" | "frame" | undefined
  /** How long the call is with the worker before anything else happens. Default: no time. */
  readonly after?: Duration.Input | undefined
  /** Of a stream: after how many items, in place of `at`. */
  readonly afterItems?: number | undefined
}

/**
 * What a worker sends in place of an answer.
 *
 * @category models
 * @since 0.1.0
 */
export interface GarbageOptions extends FaultOptions {
  /** Default: text, as of something that prints to the channel. */
  readonly bytes?: Uint8Array | undefined
  /**
   * `"channel"`: in place of a frame, which breaks the connection, the default. `"payload"`: as the value of an answer, which fails
   * its call and no other.
   */
  readonly within?: "channel" | "payload" | undefined
}

/**
 * For which starts of a worker a fault is planned.
 *
 * @category models
 * @since 0.1.0
 */
export interface StartOptions {
  /** For how many starts. Default: 1, the next one. */
  readonly starts?: number | "all" | undefined
}

/**
 * How a worker fails to start: its module raises, or its process ends.
 *
 * @category models
 * @since 0.1.0
 */
export interface FailStartOptions extends StartOptions, ExitOptions {
  /** What the module raises while it is imported. Default, where no end of the process is given: a `ModuleNotFoundError`. */
  readonly exception?: Partial<ExceptionInfo> | undefined
}

/**
 * A call that reached a worker.
 *
 * @category models
 * @since 0.1.0
 */
export type Received = FaultPlan.Received

/**
 * What goes wrong in the workers of a runtime without Python, and what they have been asked.
 *
 * **Details**
 *
 * A fault is for the next call of a method, or as many as `calls` says; `"*"`, which is the default, is any method. Each call
 * takes one: the first that was planned for it and not taken yet. Calls that a worker refuses take none.
 *
 * @category services
 * @since 0.1.0
 */
export class Faults extends Context.Service<
  Faults,
  {
    /** @see {@link crash} */
    readonly crash: (method?: string, options?: CrashOptions) => Effect.Effect<void>
    /** @see {@link hang} */
    readonly hang: (method?: string, options?: FaultOptions) => Effect.Effect<void>
    /** @see {@link delay} */
    readonly delay: (method: string, duration: Duration.Input, options?: FaultOptions) => Effect.Effect<void>
    /** @see {@link garbage} */
    readonly garbage: (method?: string, options?: GarbageOptions) => Effect.Effect<void>
    /** @see {@link slowStart} */
    readonly slowStart: (duration: Duration.Input, options?: StartOptions) => Effect.Effect<void>
    /** @see {@link failStart} */
    readonly failStart: (options?: FailStartOptions) => Effect.Effect<void>
    /** @see {@link kill} */
    readonly kill: (options?: ExitOptions) => Effect.Effect<void>
    /** @see {@link leave} */
    readonly leave: (reason?: string) => Effect.Effect<void>
    /** @see {@link dropHeartbeat} */
    readonly dropHeartbeat: Effect.Effect<void>
    /** @see {@link clear} */
    readonly clear: Effect.Effect<void>
    /** @see {@link received} */
    readonly received: Effect.Effect<ReadonlyArray<Received>>
    /** @see {@link arrived} */
    readonly arrived: (method?: string, count?: number) => Effect.Effect<void>
  }
>()("effect-synapse/testing/Faults") {}

const plans = new WeakMap<Faults["Service"], FaultPlan.Faults>()

const countOf = (count: number | "all" | undefined): number =>
  count === "all" ? Number.POSITIVE_INFINITY : (count ?? 1)

const kinds: Readonly<Record<string, ExitKind>> = {
  SIGSEGV: "segfault",
  SIGABRT: "crash",
  SIGBUS: "crash",
  SIGFPE: "crash",
  SIGILL: "crash",
  SIGXCPU: "resourceLimit",
  SIGXFSZ: "resourceLimit"
}

const exitOf = ({ crashDump = "", exitCode, kind, signal, stderr = "" }: ExitOptions = {}): FaultPlan.Exit => {
  const by = signal ?? (exitCode === undefined ? "SIGSEGV" : null)
  return {
    signal: by,
    exitCode: by === null ? (exitCode ?? 1) : null,
    kind: kind ?? (by === null ? "exit" : (kinds[by] ?? "killed")),
    stderr,
    crashDump
  }
}

const printed = new TextEncoder().encode("Downloading model.bin: 100%\n")

const importError: ExceptionInfo = {
  type: "ModuleNotFoundError",
  module: "builtins",
  message: "No module named 'torch'",
  frames: []
}

const startFaultOf = (options: FailStartOptions = {}): FaultPlan.StartFault => {
  const { exception, exitCode, signal } = options
  return exception === undefined && (exitCode !== undefined || signal !== undefined)
    ? { _tag: "Exit", exit: exitOf(options) }
    : { _tag: "Import", exception: { ...importError, ...exception } }
}

/**
 * Makes what plans faults, for those that a runtime is to meet while its layer is built: the value of the option `faults`.
 *
 * **Example** (A module that takes too long to import)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import * as Testing from "effect-synapse/testing"
 *
 * const test = Effect.gen(function*() {
 *   const faults = Testing.makeFaults()
 *   yield* faults.slowStart("40 seconds")
 *   // Fails with `StartFailed` once the clock was adjusted by the 30 seconds of `startTimeout`.
 *   return yield* Layer.build(Testing.layerHandlers({ main: () => 1 }, { faults }))
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeFaults = (): Faults["Service"] => {
  const plan = new FaultPlan.Faults()
  const each = (act: (worker: FaultPlan.Running) => void): Effect.Effect<void> =>
    Effect.sync(() => Array.from(plan.running).forEach(act))
  const faults = Faults.of({
    crash: (method = FaultPlan.anyMethod, options = {}) =>
      Effect.sync(() => {
        const { after = 0, afterItems, at = "request", calls } = options
        const fault = {
          _tag: "Crash",
          at,
          afterItems,
          exit: exitOf(options),
          after: Duration.fromInputUnsafe(after)
        } as const
        plan.plan(method, fault, countOf(calls))
      }),
    hang: (method = FaultPlan.anyMethod, options) =>
      Effect.sync(() => plan.plan(method, { _tag: "Hang" }, countOf(options?.calls))),
    delay: (method, duration, options) =>
      Effect.sync(() => {
        const fault = { _tag: "Delay", duration: Duration.fromInputUnsafe(duration) } as const
        plan.plan(method, fault, countOf(options?.calls))
      }),
    garbage: (method = FaultPlan.anyMethod, options = {}) =>
      Effect.sync(() => {
        const { calls, within = "channel" } = options
        // A byte that begins no value of MessagePack.
        const { bytes = within === "channel" ? printed : Uint8Array.of(0xc1) } = options
        plan.plan(method, { _tag: "Garbage", bytes, within }, countOf(calls))
      }),
    slowStart: (duration, options) =>
      Effect.sync(() =>
        plan.planStart({ _tag: "Slow", duration: Duration.fromInputUnsafe(duration) }, countOf(options?.starts))
      ),
    failStart: (options) => Effect.sync(() => plan.planStart(startFaultOf(options), countOf(options?.starts))),
    kill: (options) => each((worker) => worker.exit(exitOf({ signal: "SIGKILL", ...options }))),
    leave: (reason) => each((worker) => worker.leave(reason)),
    dropHeartbeat: each((worker) => worker.dropHeartbeat()),
    clear: Effect.sync(() => plan.clear()),
    received: Effect.sync(() => Array.from(plan.received)),
    arrived: (method = FaultPlan.anyMethod, count = 1) =>
      Effect.callback((resume) => {
        const forget = plan.onReceived(method, count, () => resume(Effect.void))
        return Effect.sync(forget)
      })
  })
  plans.set(faults, plan)
  return faults
}

/**
 * The worker's process ends when it gets the next call of a method, which fails with `WorkerExited`, as all others that it has.
 * Another worker is started after the pause of `restart.backoff`.
 *
 * **Example** (A crash in the middle of a call)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Synapse } from "effect-synapse"
 * import * as Testing from "effect-synapse/testing"
 *
 * const test = Effect.gen(function*() {
 *   yield* Testing.crash("embed", { signal: "SIGKILL", kind: "outOfMemory" })
 *   return yield* Effect.flip(Synapse.call(Schema.Finite, {}, { method: "embed" }))
 * }).pipe(Effect.provide(Testing.layerHandlers({ embed: () => 1 })))
 * ```
 *
 * @category faults
 * @since 0.1.0
 */
export const crash = (method?: string, options?: CrashOptions): Effect.Effect<void, never, Faults> =>
  Faults.use((faults) => faults.crash(method, options))

/**
 * The next call of a method is never answered: as a handler that does not come back and does not notice that nobody waits for
 * it any more. Its place in the worker stays taken.
 *
 * @category faults
 * @since 0.1.0
 */
export const hang = (method?: string, options?: FaultOptions): Effect.Effect<void, never, Faults> =>
  Faults.use((faults) => faults.hang(method, options))

/**
 * The handler of the next call of a method is run after so long.
 *
 * @category faults
 * @since 0.1.0
 */
export const delay = (
  method: string,
  duration: Duration.Input,
  options?: FaultOptions
): Effect.Effect<void, never, Faults> => Faults.use((faults) => faults.delay(method, duration, options))

/**
 * The worker answers the next call of a method with bytes that mean nothing. The call fails with `ProtocolError` and the worker
 * is replaced, or with `DecodeFailed` where they are `within: "payload"`.
 *
 * @category faults
 * @since 0.1.0
 */
export const garbage = (method?: string, options?: GarbageOptions): Effect.Effect<void, never, Faults> =>
  Faults.use((faults) => faults.garbage(method, options))

/**
 * The next worker that is started takes so long to load its module.
 *
 * @category faults
 * @since 0.1.0
 */
export const slowStart = (duration: Duration.Input, options?: StartOptions): Effect.Effect<void, never, Faults> =>
  Faults.use((faults) => faults.slowStart(duration, options))

/**
 * The next worker that is started does not come up.
 *
 * @category faults
 * @since 0.1.0
 */
export const failStart = (options?: FailStartOptions): Effect.Effect<void, never, Faults> =>
  Faults.use((faults) => faults.failStart(options))

/**
 * Ends all workers that run now, whatever they are doing; with `SIGKILL`, unless told otherwise.
 *
 * @category faults
 * @since 0.1.0
 */
export const kill = (options?: ExitOptions): Effect.Effect<void, never, Faults> =>
  Faults.use((faults) => faults.kill(options))

/**
 * All workers that run now ask to be replaced, as with `synapse.replace_me(reason)`: they finish what they have.
 *
 * **Gotchas**
 *
 * One that leaves within a second of its start counts as one that ended, and its replacement waits for `restart.backoff`: under
 * `TestClock`, adjust the clock by two seconds before.
 *
 * @category faults
 * @since 0.1.0
 */
export const leave = (reason?: string): Effect.Effect<void, never, Faults> =>
  Faults.use((faults) => faults.leave(reason))

/**
 * The workers that run now do not answer any more when they are asked whether they are there. Calls go on; a worker that is
 * silent for as long as `heartbeat` says fails them with `Unresponsive`.
 *
 * @category faults
 * @since 0.1.0
 */
export const dropHeartbeat: Effect.Effect<void, never, Faults> = Faults.use((faults) => faults.dropHeartbeat)

/**
 * Forgets what was planned and has not happened.
 *
 * @category faults
 * @since 0.1.0
 */
export const clear: Effect.Effect<void, never, Faults> = Faults.use((faults) => faults.clear)

/**
 * The calls that reached a worker, in order; one that was sent again is there twice.
 *
 * @category accessors
 * @since 0.1.0
 */
export const received: Effect.Effect<ReadonlyArray<Received>, never, Faults> = Faults.use((faults) => faults.received)

/**
 * Waits until so many calls of a method have reached a worker, those included that are answered: before the clock is adjusted.
 *
 * **Example** (A time-out under `TestClock`)
 *
 * ```ts
 * import { Effect, Fiber, Schema } from "effect"
 * import { TestClock } from "effect/testing"
 * import { Synapse } from "effect-synapse"
 * import * as Testing from "effect-synapse/testing"
 *
 * const test = Effect.gen(function*() {
 *   yield* Testing.hang("embed")
 *   const call = yield* Effect.forkChild(
 *     Effect.flip(Synapse.call(Schema.Finite, {}, { method: "embed", timeout: "5 seconds" }))
 *   )
 *   yield* Testing.arrived("embed")
 *   yield* TestClock.adjust("5 seconds")
 *   return yield* Fiber.join(call)
 * }).pipe(Effect.provide(Testing.layerHandlers({ embed: () => 1 })))
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const arrived = (method?: string, count?: number): Effect.Effect<void, never, Faults> =>
  Faults.use((faults) => faults.arrived(method, count))

const environment: PythonEnvironment.PythonEnvironment = {
  python: "/testing/python",
  version: "3.12.0",
  directory: "/testing",
  kind: "system",
  path: undefined
}

const isSynchronous = (option: Options["synchronous"] = false): FakeWorker.Options["isSynchronous"] =>
  typeof option === "boolean" ? () => option : (method) => option.includes(method)

const layerOf = <RX, R, Self>(
  makeModule: Effect.Effect<FakeWorker.Module, never, RX>,
  options: Options<R, Self> = {}
): Layer.Layer<Self | Faults, SynapseError, Exclude<RX, Scope.Scope> | Exclude<R, Self>> => {
  const { faults: given, service = Synapse.Synapse, synchronous, ...others } = options
  const key = service as Context.Service<Self, Synapse.Runtime>
  return Layer.effectContext(
    Effect.gen(function* () {
      const faults = given ?? makeFaults()
      const plan = plans.get(faults)
      if (plan === undefined) return yield* Effect.die(new Error("The option `faults` is not what makeFaults returns"))
      const module = yield* makeModule
      let lastPid = 1000
      const origin: Origin = {
        check: Effect.void,
        find: () => Effect.succeed({ entrypoint: "testing", environment }),
        spawn: () =>
          FakeWorker.make({ pid: ++lastPid, module, faults: plan, isSynchronous: isSynchronous(synchronous) }),
        sleep: quietSleep
      }
      const runtime = yield* Synapse.makeFor(
        { ...others, directory: environment.directory, polling: false, sharedMemory: false },
        key,
        origin
      )
      return Context.add(Context.make(key, runtime), Faults, faults)
    })
    // The services of Node are for what an origin may find and start, and this one does neither.
  ) as Layer.Layer<Self | Faults, SynapseError, Exclude<RX, Scope.Scope> | Exclude<R, Self>>
}

/**
 * A runtime without Python, of an `RpcGroup` and its handlers in TypeScript.
 *
 * **Details**
 *
 * Handlers are what `RpcGroup.toLayer` takes: a record of functions, or an effect that builds one. Payloads, values and errors
 * pass through the schemas of the group and through MessagePack, so that what cannot travel fails here too. A typed error of a handler
 * is what a declared error of Python is, `HandlerFailed`; a defect is what an exception is, `PythonException`. Calls of methods
 * that the group does not have fail with `MethodNotFound`.
 *
 * Building it takes no time. There are no Python objects, `Synapse.evaluate` or shared memory: large arrays count for
 * `maxFrameSize`.
 *
 * **Example** (A test of an app that embeds)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Rpc, RpcGroup } from "effect/rpc"
 * import { Synapse } from "effect-synapse"
 * import * as Testing from "effect-synapse/testing"
 *
 * const Python = RpcGroup.make(
 *   Rpc.make("embed", { payload: { text: Schema.String }, success: Schema.Array(Schema.Finite) })
 * )
 *
 * const PythonTest = Testing.layer(Python, {
 *   embed: ({ text }) => Effect.succeed([text.length, 0])
 * })
 *
 * const test = Synapse.call(Schema.Array(Schema.Finite), { text: "hi" }, { method: "embed" }).pipe(
 *   Effect.provide(PythonTest)
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <
  Rpcs extends Rpc.Any,
  Handlers extends RpcGroup.HandlersFrom<Rpcs>,
  RX = never,
  R = never,
  Self = Synapse.Synapse
>(
  group: RpcGroup.RpcGroup<Rpcs>,
  handlers: Handlers | Effect.Effect<Handlers, never, RX>,
  options?: Options<R, Self>
): Layer.Layer<
  Self | Faults,
  SynapseError,
  | Exclude<
      RX | RpcGroup.HandlersServices<Rpcs, Handlers> | Rpc.Middleware<Rpcs> | Rpc.ServicesServer<Rpcs>,
      Scope.Scope
    >
  | Exclude<R, Self>
> => layerOf(HostFunctions.make(group, handlers).serve, options)

/**
 * A function that stands for a handler of Python.
 *
 * **Details**
 *
 * It gets the payload as it travelled, `{}` where there was none. It gives a value, or an `Effect` of one, or a `Stream`. An error
 * with a `_tag` is a declared error of Python, anything else that an effect fails with or a function throws is an exception; and a
 * `SynapseError` with the reason `PythonException` or `HandlerFailed` arrives as it is.
 *
 * @category models
 * @since 0.1.0
 */
// biome-ignore lint/suspicious/noExplicitAny: the payload is what the handler takes it for
export type Handler = (payload: any, headers: Readonly<Record<string, string>>) => unknown

/**
 * The services that functions need, of those that give effects and streams.
 *
 * @category models
 * @since 0.1.0
 */
export type HandlersServices<Handlers extends Readonly<Record<string, Handler>>> = {
  [Name in keyof Handlers]: Services<ReturnType<Handlers[Name]>>
}[keyof Handlers]

type Services<Given> = unknown extends Given
  ? never
  : Given extends Effect.Effect<infer A, infer _E, infer R>
    ? R | StreamServices<A>
    : StreamServices<Given>

type StreamServices<Given> = unknown extends Given
  ? never
  : Given extends Stream.Stream<infer _A, infer _E, infer R>
    ? R
    : never

/**
 * A runtime without Python, of functions by their names: {@link layer} for those who have no group.
 *
 * **Example** (Values, effects and streams)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import * as Testing from "effect-synapse/testing"
 *
 * const PythonTest = Testing.layerHandlers({
 *   main: ({ values }: { values: ReadonlyArray<number> }) => ({ count: values.length }),
 *   embed: ({ text }) => Effect.succeed(Float32Array.of(text.length)).pipe(Effect.delay("1 second")),
 *   chat: () => Stream.make("Hello", ", ", "world")
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerHandlers = <
  const Handlers extends Readonly<Record<string, Handler>>,
  R = never,
  Self = Synapse.Synapse
>(
  handlers: Handlers,
  options?: Options<R, Self>
): Layer.Layer<Self | Faults, SynapseError, HandlersServices<Handlers> | Exclude<R, Self>> =>
  layerOf(Functions.moduleOf<HandlersServices<Handlers>>(handlers), options) as never

const notInHandler = Effect.die(
  new Error("This is for the handlers of Testing.layer and Testing.layerHandlers, and works while they answer a call")
)

const inHandler = <A, E>(use: (context: Functions.HandlerContext) => Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.flatMap(Functions.CurrentHandler, (context) => (context === undefined ? notInHandler : use(context)))

/**
 * Inside a handler: reports progress, as `synapse.context().progress(value)` does in Python.
 *
 * @category handlers
 * @since 0.1.0
 */
export const progress = (value: unknown): Effect.Effect<void> =>
  inHandler(({ report }) => Effect.sync(() => report(value)))

/**
 * A host function did not give what a handler asked of it.
 *
 * @category errors
 * @since 0.1.0
 */
export type HostFailure = Asking.HostFailure

/**
 * Inside a handler: calls a function of the option `host`, as `synapse.host.call(method, ...)` does in Python. The payload and the
 * value are plain values, as MessagePack carries them.
 *
 * @category handlers
 * @since 0.1.0
 */
export const callHost = (method: string, payload?: unknown): Effect.Effect<unknown, HostFailure> =>
  inHandler(({ ask }) => ask.call(method, payload ?? null))

/**
 * Inside a handler: the items of a host function that gives a stream, as `synapse.host.stream(method, ...)` has them in Python.
 *
 * @category handlers
 * @since 0.1.0
 */
export const streamHost = (method: string, payload?: unknown): Stream.Stream<unknown, HostFailure> =>
  Stream.unwrap(inHandler(({ ask }) => Effect.succeed(ask.stream(method, payload ?? null))))

const cannot = (detail: string): SynapseError =>
  new SynapseError({ reason: new StartFailed({ kind: "options", detail }) })

const whyOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/**
 * How a session is recorded.
 *
 * @category models
 * @since 0.1.0
 */
export interface RecordOptions<Self = Synapse.Synapse> {
  /** The file, relative to the current directory. One that is there is written anew. */
  readonly file: string
  /** The key of the runtime, where it is one of `Synapse.Service`. Default: `Synapse.Synapse`. */
  readonly service?: Context.Key<Self, Synapse.Runtime> | undefined
}

/**
 * A runtime that does what another one does, and writes every call into a file: for {@link replay}.
 *
 * **Details**
 *
 * The file has a line of JSON for each call, in the order in which the calls began: its method, the payload as it travelled, its time-outs,
 * and its end: the value, the items of a stream, the progress that somebody listened to, and the `SynapseError` that it failed with.
 * What JSON lacks is kept: bytes, integers past 2^53, `NaN`, instants, arrays with their element types, maps with other keys.
 * Lines are written as calls end. Fails with `StartFailed` when the file cannot be written.
 *
 * **Gotchas**
 *
 * What is in payloads and values is in the file: record with data that may be seen. Headers are left out. Of Python objects
 * (`Synapse.acquire`), of what Python asks of the host, and of the items of input streams there is nothing in it.
 *
 * **Example** (Recording a session)
 *
 * ```ts
 * import { Layer } from "effect"
 * import { Synapse } from "effect-synapse"
 * import * as Testing from "effect-synapse/testing"
 *
 * const PythonRecorded = Testing.record({ file: "test/session.jsonl" }).pipe(
 *   Layer.provide(Synapse.layer({ directory: "./python" }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const record = <Self = Synapse.Synapse>({
  file,
  service = Synapse.Synapse as never
}: RecordOptions<Self>): Layer.Layer<Self, SynapseError, Self> => {
  const key = service as Context.Service<Self, Synapse.Runtime>
  return Layer.effect(
    key,
    Effect.flatMap(key, (runtime) =>
      Recorder.open(file).pipe(
        Effect.catchDefect((error) => Effect.fail(cannot(`The recording ${file} cannot be written: ${whyOf(error)}`))),
        Effect.map((session) => Recorder.recorded(runtime, session))
      )
    )
  )
}

/**
 * A call of a recording.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recorded {
  /** Its line in the file. */
  readonly line: number
  readonly method: string
  readonly payload: unknown
}

/**
 * What has become of a recording that a runtime answers from.
 *
 * @category services
 * @since 0.1.0
 */
export class Replay extends Context.Service<
  Replay,
  {
    readonly file: string
    /** The calls that nobody has made yet. */
    readonly leftovers: Effect.Effect<ReadonlyArray<Recorded>>
  }
>()("effect-synapse/testing/Replay") {}

/**
 * The calls of the recording that nobody has made yet.
 *
 * @category accessors
 * @since 0.1.0
 */
export const leftovers: Effect.Effect<ReadonlyArray<Recorded>, never, Replay> = Replay.use(({ leftovers }) => leftovers)

/**
 * Dies with an error that lists them when there are calls in the recording that nobody has made.
 *
 * @category accessors
 * @since 0.1.0
 */
export const assertReplayed: Effect.Effect<void, never, Replay> = Replay.use(({ file, leftovers }) =>
  Effect.flatMap(leftovers, (calls) => {
    if (calls.length === 0) return Effect.void
    const lines = calls.map(({ line, method }) => `line ${line}: \`${method}\``)
    return Effect.die(new Error(`${file} has calls that were not made:\n${lines.join("\n")}`))
  })
)

/**
 * A runtime that answers from a recording of {@link record}, without Python.
 *
 * **Details**
 *
 * A call is answered with what the same call was answered then: one of the same method with the same payload, whatever its other
 * options. Equal calls are answered in the order in which they were recorded, each once. What was recorded is decoded with the schema of the
 * call, and errors are those that came. Nothing takes time: a `CallTimeout` is there at once, and a call that was
 * interrupted waits to be.
 *
 * A call that is not in the recording fails with `Unsupported`, which names the recorded call that is nearest to it and where the two
 * differ. {@link assertReplayed} is for those that nobody made. Fails with `StartFailed` when the file is not a recording.
 *
 * **Example** (A test that answers from a file)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Synapse } from "effect-synapse"
 * import * as Testing from "effect-synapse/testing"
 *
 * const test = Effect.gen(function*() {
 *   const vector = yield* Synapse.call(Schema.Array(Schema.Finite), { text: "hi" }, { method: "embed" })
 *   yield* Testing.assertReplayed
 *   return vector
 * }).pipe(Effect.provide(Testing.replay("test/session.jsonl")))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const replay = <Self = Synapse.Synapse>(
  file: string,
  options?: Pick<RecordOptions<Self>, "service">
): Layer.Layer<Self | Replay, SynapseError> => {
  const key = (options?.service ?? Synapse.Synapse) as Context.Service<Self, Synapse.Runtime>
  return Layer.effectContext(
    Effect.try({
      try: () => new Replayer.Script(file, Recording.parse(readFileSync(file, "utf8"))),
      catch: (error) => cannot(`The recording ${file} cannot be read: ${whyOf(error)}`)
    }).pipe(
      Effect.map((script) => {
        const leftovers = Effect.sync(() =>
          script.leftovers.map(({ line, recorded }) => ({ line, method: recorded.method, payload: recorded.payload }))
        )
        return Context.make(key, Replayer.replayed(script, environment)).pipe(Context.add(Replay, { file, leftovers }))
      })
    )
  )
}
