/**
 * The service: a Python module as a scoped layer, its functions as typed effects.
 *
 * {@link layer} makes the module's environment, starts its workers and waits until they are ready; {@link call} sends a
 * value to a Python function and decodes its answer with a schema, {@link stream} does so with a generator. Closing the
 * layer's scope leaves nothing behind.
 *
 * @since 0.1.0
 */
import { availableParallelism } from "node:os"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as Path from "effect/Path"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import type * as Redacted from "effect/Redacted"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type * as Connection from "./Connection.ts"
import * as Controller from "./Controller.ts"
import type * as HostFunctions from "./HostFunctions.ts"
import { makeAllocate } from "./internal/allocate.ts"
import { type Calls, makeCall } from "./internal/call.ts"
import * as Commons from "./internal/commons.ts"
import { Host } from "./internal/environmentHost.ts"
import { makeEvaluate, rememberPlace } from "./internal/evaluate.ts"
import * as InputStreams from "./internal/inputStreams.ts"
import type { Limits as InternalLimits } from "./internal/limits.ts"
import * as Logs from "./internal/logs.ts"
import { maxWorkers, validateOptions, validateWorkers } from "./internal/options.ts"
import * as Origin from "./internal/origin.ts"
import { type Progress as InternalProgress, makeProgress } from "./internal/progress.ts"
import { withProtocol } from "./internal/protocols.ts"
import * as Remote from "./internal/remote.ts"
import type * as Serving from "./internal/serving.ts"
import { makeStream } from "./internal/streaming.ts"
import * as Watching from "./internal/watching.ts"
import { makeStartWorker, sharedMemoryOf } from "./internal/worker.ts"
import type * as NdArray from "./NdArray.ts"
import type * as PythonEnvironment from "./PythonEnvironment.ts"
import * as RemoteObject from "./RemoteObject.ts"
import type { SynapseError } from "./SynapseError.ts"
import * as WorkerPool from "./WorkerPool.ts"

/**
 * One record of what a worker printed or logged.
 *
 * @category models
 * @since 0.1.0
 */
export type LogRecord = Logs.LogRecord

/**
 * How a Python module is run. Only `directory` is required.
 *
 * @category models
 * @since 0.1.0
 */
export interface SynapseOptions<R = never> {
  /** The module's directory, relative to the current one. */
  readonly directory: string
  /** The module to serve: `"main"`, `"main.py"`, `"package.module"`. Default: `"main"`. */
  readonly entrypoint?: string | undefined
  /**
   * The protocol of a script that was written for another system, and is run as it is in place of a module: its calls have no
   * `method`, or one of its own, and it takes one at a time. Default: none, a module that imports `synapse`.
   */
  readonly protocol?: Protocol | undefined
  /**
   * The interpreter (a path or a command), or a range of versions such as `">=3.10"`. Default: `SYNAPSE_PYTHON`, else the
   * search that the page on environments describes.
   */
  readonly python?: string | undefined
  /** Where the module's dependencies come from. Default: `"venv"`, a virtual environment made and kept for it. */
  readonly environment?: PythonEnvironment.EnvironmentOptions["environment"]
  /**
   * Variables added to the worker's environment. Of this process's own only those are passed on that programs need to
   * run (`PATH`, `HOME`, the locale, proxies, ...), never all of them. A `Redacted` value reaches Python's `os.environ`, but not
   * what the system shows of the process.
   */
  readonly env?: Readonly<Record<string, string | Redacted.Redacted<string>>> | undefined
  /** How long a worker may take to load its module and be warmed up, once the environment is there. Default: 30 seconds. */
  readonly startTimeout?: Duration.Input | undefined
  /** How long open calls may go on when the scope closes, before the worker is stopped by force. Default: 500 ms. */
  readonly disposeTimeout?: Duration.Input | undefined
  /**
   * The number of workers: processes that share the calls, 1 to 256. `"cpus"`: as many as the machine runs at once. With
   * `min` and `max`, as many as are needed. Default: 1.
   */
  readonly workers?: Workers | undefined
  /**
   * How many synchronous handlers one worker runs at once, in threads where it is more than one, up to 256. Default: 1,
   * on the main thread. Further calls wait for a worker; only while handlers answer within milliseconds, a worker is given some of
   * them ahead. Asynchronous handlers always run side by side.
   */
  readonly concurrency?: number | undefined
  /** How calls wait while every worker has its fill. */
  readonly queue?: WorkerPool.QueueOptions | undefined
  /** When a worker that ended is started again. */
  readonly restart?: WorkerPool.RestartOptions | undefined
  /**
   * A worker that stays silent for `interval` is asked whether it is there; when it does not answer `misses` times, it is
   * ended and its calls fail with `Unresponsive`. Handlers do not keep it from answering, unless C code holds on to the
   * interpreter. Default: every 30 seconds, twice. `false`: never.
   */
  readonly heartbeat?: HeartbeatOptions | false | undefined
  /** When a worker has served long enough and is replaced, which no caller notices. `"auto"`: when it leaks. Default: never. */
  readonly recycle?: WorkerPool.RecycleOptions | "auto" | undefined
  /** What each worker may use. */
  readonly limits?: Limits | undefined
  /**
   * Whether every call runs in a process of its own, which is started before and ended after it: for code that leaks, or
   * must not find what other calls left. It is no sandbox. `workers` is how many run at once; a stream that is still read,
   * or an object that is held, has one beyond that. Default: `false`.
   */
  readonly oneShot?: boolean | undefined
  /**
   * The contract that the module has to keep: its handlers are compared with these functions whenever a worker starts, before
   * it is given any call. A parameter, a result, a stream or an error that does not fit fails the start with `StartFailed`,
   * whose message names each. Default: none, and nothing is compared.
   */
  readonly group?: RpcGroup.Any | undefined
  /**
   * What becomes of a module that does not keep the contract of `group`. `"check"`, the default: it does not start. `"warn"`: it
   * starts, and a warning is logged. `"off"`: nothing is compared.
   */
  readonly contract?: "check" | "warn" | "off" | undefined
  /** A handler that is called on each new worker before it takes calls; if it fails, the start does. Default: none. */
  readonly warmUp?: WarmUp | undefined
  /**
   * Whether the workers are replaced when the module's files change, for development. A change that does not import is logged,
   * and the old ones go on; but when the layer is built, the module has to import. Default: `false`.
   */
  readonly watch?: boolean | WatchOptions | undefined
  /** The `timeout` of calls that name none. Default: none. */
  readonly callTimeout?: Duration.Input | undefined
  /**
   * How long a handler that may not go on for ever may do so once its call was given up, before its worker is replaced:
   * one declared with `cancel="replace"`, or called with `onCancel: "replace"`. Default: 2 seconds.
   */
  readonly cancelGrace?: Duration.Input | undefined
  /** Functions that Python may call. Default: none. */
  readonly host?: HostFunctions.HostFunctions<R> | undefined
  /** Whether {@link evaluate} may run pieces of Python. Default: `false`. */
  readonly evaluate?: boolean | undefined
  /**
   * How long a worker that has answered its last call looks for the next one before it goes to sleep, at most 1 ms. This process
   * looks twice as long for the answer of its only call. Calls that follow each other take a third of the time, at the cost of
   * processor time. Either side does so only while that pays. `false`: never. Default: 50 µs, and on a
   * machine with one processor never.
   */
  readonly polling?: Duration.Input | false | undefined
  /** Bytes of the largest message in either direction, at least 4096. Default: 16 MiB. */
  readonly maxFrameSize?: number | undefined
  /**
   * How large byte strings, arrays and tables travel: through memory that this process shares with a worker, in files
   * without a name. `false`: in messages, as everything else. Default: `{}`.
   */
  readonly sharedMemory?: SharedMemoryOptions | false | undefined
  /**
   * What becomes of everything the module prints and logs. Default: `"effect"`, Effect log records with the annotations
   * `logger`, `pid`, `file`, `line` and `call`. `"ignore"`: nothing. A function receives each {@link LogRecord} instead.
   */
  readonly logs?: Logs.LogsOption | undefined
}

/**
 * How a script of another system is spoken with.
 *
 * **Details**
 *
 * `"stdio-v1"`: MessagePack behind four bytes with its length, the least of them first, on standard input and
 * `sys.stdout.buffer`. A reply that is a map with an `error` fails its call with `HandlerFailed`, and so does a text on stderr
 * that begins with `[ERROR`. A call that is given up cannot be stopped in the script: its reply is waited for, and its worker
 * is replaced where it has not come after `cancelGrace`.
 *
 * `"json-lines"`: an object of JSON a line. A call is `{"method": ..., "params": ...}` on standard input; on standard output
 * `__STREAM__` and a value is progress, or a message of a controller, and `{"result": ...}` or `{"error": ...}` the end, the
 * latter as `HandlerFailed`. Every other line is a record of the log. Any name is a method; {@link controller} opens the whole
 * script, one for each process. What is given up is as above.
 *
 * With a protocol no memory is shared, and `maxFrameSize` is 128 MiB unless it is set.
 *
 * @category models
 * @since 0.1.0
 */
export type Protocol = "stdio-v1" | "json-lines"

/**
 * How memory is shared with workers.
 *
 * **Details**
 *
 * A value that finds no room travels in the message, where `maxFrameSize` bounds it.
 *
 * @category models
 * @since 0.1.0
 */
export interface SharedMemoryOptions {
  /** Bytes from which on a byte string or an array travels so. Default: 128 KiB. */
  readonly threshold?: number | undefined
  /** MiB that such values may take, for each worker and direction. Memory is given back when it is idle. Default: 1024. */
  readonly capacityMiB?: number | undefined
  /**
   * Whether {@link allocate} gives arrays that this process and Python have in the same memory. It needs the package `koffi`
   * and Linux. Default: `false`.
   */
  readonly inPlace?: boolean | undefined
}

/**
 * How many workers there are.
 *
 * @category models
 * @since 0.1.0
 */
export type Workers =
  | number
  | "cpus"
  | {
      /**
       * So many are always there, if `max` allows that many. 0: the first call starts the first worker, and the layer fails for
       * no import. Default: `max`.
       */
      readonly min?: number | undefined
      /** So many there are at most: another one is started when a call has to wait. */
      readonly max: number | "cpus"
      /** After how long without a call one beyond `min` leaves. Default: 1 minute. */
      readonly idleTimeToLive?: Duration.Input | undefined
    }

/**
 * How a silent worker is asked whether it is there.
 *
 * @category models
 * @since 0.1.0
 */
export interface HeartbeatOptions {
  /** How long a worker may be silent before it is asked. Default: 30 seconds. */
  readonly interval?: Duration.Input | undefined
  /** How many times in a row it may fail to answer, at least 1. Default: 2. */
  readonly misses?: number | undefined
}

/**
 * A call that makes a worker ready.
 *
 * @category models
 * @since 0.1.0
 */
export interface WarmUp {
  readonly method: string
  /** Plain values, as MessagePack carries them. */
  readonly input: unknown
}

/**
 * Which files are watched.
 *
 * @category models
 * @since 0.1.0
 */
export interface WatchOptions {
  /** Files and directories beside the Python sources and lists of dependencies, relative to the module's directory. */
  readonly paths?: ReadonlyArray<string> | undefined
  /** How long it has to be quiet after a change. Default: 200 ms. */
  readonly debounce?: Duration.Input | undefined
}

/**
 * What each worker may use. Nothing is limited that is not named, but `openCalls`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Limits extends InternalLimits {}

/**
 * The certificates of a client.
 *
 * @category models
 * @since 0.2.0
 */
export interface Tls extends Remote.Tls {}

/**
 * Which server {@link connect} connects to, and how. Options that are not described here are those of {@link layer}.
 *
 * @category models
 * @since 0.2.0
 */
export interface ConnectOptions<R = never>
  extends Remote.Target,
    Pick<
      SynapseOptions<R>,
      "callTimeout" | "disposeTimeout" | "heartbeat" | "logs" | "maxFrameSize" | "queue" | "restart"
    > {
  /** Functions that the handlers of a call may call: the `host` of {@link SynapseOptions}. Default: none. */
  readonly hostFunctions?: HostFunctions.HostFunctions<R> | undefined
  /** How many connections share the calls, 1 to 256. Default: 1. */
  readonly connections?: number | undefined
  /** How many calls one connection may have open at once. Default: 1024, as servers have it. */
  readonly limits?: Pick<Limits, "openCalls"> | undefined
}

/**
 * A runtime at a moment.
 *
 * @category models
 * @since 0.1.0
 */
export type Status = WorkerPool.Status

/**
 * How one call is made.
 *
 * **Details**
 *
 * Waiting for a worker and running on it have time-outs of their own, so that a queue does not eat the time of a call.
 *
 * @category models
 * @since 0.1.0
 */
export interface CallOptions<I = unknown, R = never> {
  /** The handler's name. Default: `"main"`. */
  readonly method?: string | undefined
  /**
   * How long the call may run, from when it is given to a worker. Python is told. For a stream: until its last item.
   * Default: `callTimeout` of the runtime.
   */
  readonly timeout?: Duration.Input | undefined
  /** How long the call may wait for a worker. Default: no limit. */
  readonly queueTimeout?: Duration.Input | undefined
  /** How long all of it may take: waiting, running, being sent again. Default: no limit. */
  readonly totalTimeout?: Duration.Input | undefined
  /** With it, every progress that Python reports starts `timeout` anew, until the call has run for this long. */
  readonly maxTimeout?: Duration.Input | undefined
  /**
   * Calls with the same key go to the same worker, as long as it takes calls: for what Python keeps from one to the next. A
   * call waits for its worker also while others are free. Default: any worker.
   */
  readonly affinity?: string | undefined
  /** Whether the call may be sent again, twice at most, when its worker ends while it runs. Default: `false`. */
  readonly idempotent?: boolean | undefined
  /**
   * What becomes of a handler that goes on after its call was given up. `"wait"`, the default: its worker has one place
   * less for as long. `"replace"`: after `cancelGrace` its worker is replaced; calls that run beside it there fail.
   */
  readonly onCancel?: "wait" | "replace" | undefined
  /**
   * Texts that Python finds by name in `synapse.context().headers`, such as who calls on whose behalf. With the trace they take
   * 64 KiB at most.
   */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** Encodes the input. Without it the input has to be what MessagePack carries: plain values, bytes, dates, maps. */
  readonly payload?: Schema.Codec<I, unknown> | undefined
  /** Listens to what the handler reports with `synapse.context().progress`. Made by {@link onProgress}. */
  readonly progress?: Progress<R> | undefined
  /**
   * Whether an answer that is a string is parsed as JSON before it is decoded; one that is not JSON is decoded as it is.
   * For a stream: each item. Default: `false`.
   */
  readonly parseJson?: boolean | undefined
  /**
   * Called when the call has been given to a worker, each time that it is.
   *
   * @internal
   */
  readonly onSent?: (() => void) | undefined
}

/**
 * Listens to the progress of a call.
 *
 * @category models
 * @since 0.1.0
 */
export interface Progress<in out R> extends InternalProgress<R> {}

/**
 * The services that the streams of an input need.
 *
 * @category models
 * @since 0.1.0
 */
export type InputServices<In> = unknown extends In
  ? never
  : In extends Stream.Stream<infer _A, infer _E, infer R>
    ? R
    : In extends ReadonlyArray<unknown>
      ? never
      : In extends object
        ? { [K in keyof In]-?: FieldServices<In[K]> }[keyof In]
        : never

/** A field can be a stream or something else, or nothing. */
type FieldServices<Field> = unknown extends Field
  ? never
  : Field extends Stream.Stream<infer _A, infer _E, infer R>
    ? R
    : never

/**
 * Calls a Python function and decodes its answer.
 *
 * @see {@link call} for what it does
 * @category models
 * @since 0.1.0
 */
export type Call<S = never> = <A, In extends I, RD = never, I = unknown, R = never>(
  schema: Schema.Decoder<A, RD>,
  input: In,
  options?: CallOptions<I, R> | undefined
) => Effect.Effect<A, SynapseError, S | RD | NoInfer<R> | InputServices<In>>

/**
 * Calls a Python generator and decodes its items.
 *
 * @see {@link stream} for what it does
 * @category models
 * @since 0.1.0
 */
export type StreamCall<S = never> = <A, In extends I, RD = never, I = unknown, R = never>(
  schema: Schema.Decoder<A, RD>,
  input: In,
  options?: CallOptions<I, R> | undefined
) => Stream.Stream<A, SynapseError, S | RD | NoInfer<R> | InputServices<In>>

/**
 * Calls a Python function that returns a `synapse.Handle`, and holds the object.
 *
 * @see {@link acquire} for what it does
 * @category models
 * @since 0.1.0
 */
export type Acquire<S = never> = <In extends I, I = unknown, R = never>(
  input: In,
  options?: CallOptions<I, R> | undefined
) => Effect.Effect<RemoteObject.RemoteObject, SynapseError, S | NoInfer<R> | Scope.Scope | InputServices<In>>

/**
 * How a piece of Python is run.
 *
 * @category models
 * @since 0.1.0
 */
export type EvaluateOptions<R = never> = Omit<CallOptions<unknown, R>, "method" | "payload">

/**
 * Runs the Python of a template literal.
 *
 * @see {@link evaluate} for what it does
 * @category models
 * @since 0.1.0
 */
export type Evaluate<S = never> = <A, RD = never, R = never>(
  schema: Schema.Decoder<A, RD>,
  bindings?: Readonly<Record<string, unknown>> | undefined,
  options?: EvaluateOptions<R> | undefined
) => (
  literal: TemplateStringsArray,
  ...values: ReadonlyArray<unknown>
) => Effect.Effect<A, SynapseError, S | RD | NoInfer<R>>

/**
 * Gives an array in memory that Python has too.
 *
 * @see {@link allocate} for what it does
 * @category models
 * @since 0.1.0
 */
export type Allocate<S = never> = <D extends NdArray.DType>(
  dtype: D,
  shape: number | ReadonlyArray<number>
) => Effect.Effect<NdArray.NdArray<D>, SynapseError, S | Scope.Scope>

/**
 * What is open in a runtime.
 *
 * @category models
 * @since 0.1.0
 */
export type Stats = Connection.Stats

/**
 * A running Python module.
 *
 * @category models
 * @since 0.1.0
 */
export interface Runtime {
  /** @see {@link call} for the form that takes the runtime from the context */
  readonly call: Call
  /** @see {@link stream} for the form that takes the runtime from the context */
  readonly stream: StreamCall
  /** @see {@link acquire} for the form that takes the runtime from the context */
  readonly acquire: Acquire
  /** @see {@link evaluate} for the form that takes the runtime from the context */
  readonly evaluate: Evaluate
  /** @see {@link allocate} for the form that takes the runtime from the context */
  readonly allocate: Allocate
  /** Calls, streams, host calls and Python objects that are open now. */
  readonly stats: Effect.Effect<Stats>
  /** @see {@link status} for the form that takes the runtime from the context */
  readonly status: Effect.Effect<Status>
  /** @see {@link statusChanges} for the form that takes the runtime from the context */
  readonly statusChanges: Stream.Stream<Status>
  /** @see {@link reload} for the form that takes the runtime from the context */
  readonly reload: Effect.Effect<void, SynapseError>
  /** @see {@link resize} for the form that takes the runtime from the context */
  readonly resize: (workers: Workers) => Effect.Effect<void, SynapseError>
  /** The environment that the module runs in: after a reload, the one that the new workers have. */
  readonly environment: PythonEnvironment.PythonEnvironment
}

/**
 * Starts a runtime in the current scope.
 *
 * **When to use**
 *
 * Use {@link layer}; this is for a runtime without a service, such as one of several in a `LayerMap`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <R = never>(
  options: SynapseOptions<R>
): Effect.Effect<
  Runtime,
  SynapseError,
  ChildProcessSpawner.ChildProcessSpawner | FileSystem.FileSystem | Path.Path | Scope.Scope | R
> => makeFor(options, undefined)

/**
 * With a key, host functions find the runtime itself under it.
 *
 * @internal
 */
export const makeFor = Effect.fnUntraced(function* <R, Self>(
  given: SynapseOptions<R>,
  key: Context.Service<Self, Runtime> | undefined,
  origin: Origin.Origin = Origin.python
): Effect.fn.Return<
  Runtime,
  SynapseError,
  ChildProcessSpawner.ChildProcessSpawner | FileSystem.FileSystem | Path.Path | Scope.Scope | R
> {
  yield* origin.check
  yield* validateOptions(given)
  const options = withProtocol(given)
  // Before an environment is made, which may take long.
  const commons = yield* commonsOf(options.sharedMemory)
  const services = yield* Effect.context<ChildProcessSpawner.ChildProcessSpawner | FileSystem.FileSystem | Path.Path>()
  // Before the files are read: what changes from here on is a change.
  const changes = yield* watch(options)
  const findModule = origin.find(options)
  let module = yield* findModule
  const logs = yield* Logs.make(
    options.logs ?? "effect",
    module.environment.directory,
    options.limits?.logRecordsPerSecond
  )
  const started = yield* Deferred.make<Runtime>()
  const host = yield* serveHost(
    options.host,
    key,
    whenStarted(started, () => module.environment)
  )

  const startWorker = makeStartWorker(options, { host, logs, commons, origin })

  const pool = yield* WorkerPool.make({
    size: sizeOf(options.workers),
    restart: options.restart,
    queue: options.queue,
    recycle: options.recycle,
    oneShot: options.oneShot,
    acquire: (onChange) => startWorker(module, onChange)
  })
  // One after the other: what was found last is what is served.
  const reloading = yield* Semaphore.make(1)
  const reload = Effect.gen(function* () {
    // In lines: a bar would be drawn over what the running program prints.
    const changed = yield* findModule.pipe(
      Effect.updateService(Host, (host) => ({ ...host, terminal: undefined })),
      Effect.provideContext(services)
    )
    yield* pool.reload((onChange) => startWorker(changed, onChange))
    module = changed
  }).pipe(reloading.withPermit)
  const calls: Calls = { use: pool.use, enter: pool.enter, callTimeout: options.callTimeout }
  const runtime: Runtime = {
    call: makeCall(calls),
    stream: makeStream(calls),
    acquire: RemoteObject.makeAcquire(calls) as Acquire,
    evaluate: makeEvaluate(calls, options.evaluate ?? false),
    allocate: makeAllocate(commons),
    stats: Effect.sync(pool.stats),
    status: pool.status,
    statusChanges: pool.statusChanges,
    reload,
    resize: (workers) => Effect.andThen(validateWorkers(workers, options.queue), pool.resize(sizeOf(workers))),
    get environment() {
      return module.environment
    }
  }
  Deferred.doneUnsafe(started, Exit.succeed(runtime))
  if (changes !== undefined) {
    yield* Effect.forkScoped(Effect.interruptible(Stream.runForEach(changes, reloadChanged(reload))))
  }
  return runtime
})

/** A server may take a while to come back. */
const connectRestart: WorkerPool.RestartOptions = { max: 30, window: "1 minute", resetAfter: "1 minute" }

const connectFor = <R, Self>(
  { connections, host, hostFunctions, protocol, ...options }: ConnectOptions<R>,
  key: Context.Service<Self, Runtime> | undefined
): Effect.Effect<Runtime, SynapseError, Scope.Scope | R> =>
  makeFor(
    {
      ...options,
      host: hostFunctions,
      restart: { ...connectRestart, ...options.restart },
      workers: connections,
      directory: Remote.describe({ ...options, host, protocol }),
      polling: false,
      sharedMemory: false
    },
    key,
    Remote.origin({ ...options, host, protocol })
    // The services of Node are for what an origin may find and start, and this one does neither.
  ) as Effect.Effect<Runtime, SynapseError, Scope.Scope | R>

const sizeOf = (workers: Workers = 1): WorkerPool.Size => {
  const { idleTimeToLive, max, min } = typeof workers === "object" ? workers : { max: workers }
  const most = max === "cpus" ? Math.min(availableParallelism(), maxWorkers) : max
  // Not every machine has as many processors as are always wanted.
  return { min: Math.min(min ?? most, most), max: most, idleTimeToLive }
}

const commonsOf = (
  option: SynapseOptions["sharedMemory"]
): Effect.Effect<Commons.Commons | undefined, SynapseError, Scope.Scope> => {
  const settings = sharedMemoryOf(option)
  const isWanted = option !== undefined && option !== false && option.inPlace === true
  return settings !== undefined && isWanted ? Commons.make(settings.capacity) : Effect.succeed(undefined)
}

const watch = ({
  directory,
  environment,
  watch
}: SynapseOptions<unknown>): Effect.Effect<Stream.Stream<ReadonlyArray<string>> | undefined> => {
  if (watch === undefined || watch === false) return Effect.succeed(undefined)
  const { debounce, paths = [] } = watch === true ? {} : watch
  const requirements = typeof environment === "object" ? (environment.requirements ?? []) : []
  return Watching.changes({ directory, debounce, paths: [...paths, ...[requirements].flat()] })
}

const reloadChanged =
  (reload: Effect.Effect<void, SynapseError>) =>
  (files: ReadonlyArray<string>): Effect.Effect<void> =>
    Effect.matchEffect(reload, {
      onFailure: (error) =>
        Effect.logError(
          `${some(files)} changed, but the module cannot be reloaded, and everything stays as it was: ${error.message}`
        ),
      onSuccess: () => Effect.logInfo(`${some(files)} changed, and the workers have been replaced`)
    }).pipe(Effect.ignoreCause)

const some = (files: ReadonlyArray<string>): string =>
  files.length > 3 ? `${files.slice(0, 2).join(", ")} and ${files.length - 2} more files` : files.join(", ")

/** Builds the host functions, which may use the runtime that they are for. */
const serveHost = <R, Self>(
  host: HostFunctions.HostFunctions<R> | undefined,
  key: Context.Service<Self, Runtime> | undefined,
  runtime: Runtime
): Effect.Effect<Serving.Host | undefined, never, R | Scope.Scope> => {
  if (host === undefined) return Effect.succeed(undefined)
  return key === undefined ? host.serve : Effect.provideService(host.serve, key, runtime as never)
}

/** A runtime that waits until it has been started: Python may call while it is. */
const whenStarted = (
  started: Deferred.Deferred<Runtime>,
  environment: () => PythonEnvironment.PythonEnvironment
): Runtime => {
  const runtime = Deferred.await(started)
  return {
    call: (schema, input, options) => Effect.flatMap(runtime, ({ call }) => call(schema, input, options)),
    stream: (schema, input, options) =>
      Stream.unwrap(Effect.map(runtime, ({ stream }) => stream(schema, input, options))),
    acquire: (input, options) => Effect.flatMap(runtime, ({ acquire }) => acquire(input, options)),
    evaluate: (schema, bindings, options) =>
      function evaluate(literal, ...values) {
        rememberPlace(literal, evaluate)
        return Effect.flatMap(runtime, ({ evaluate }) => evaluate(schema, bindings, options)(literal, ...values))
      },
    allocate: (dtype, shape) => Effect.flatMap(runtime, ({ allocate }) => allocate(dtype, shape)),
    stats: Effect.flatMap(runtime, ({ stats }) => stats),
    status: Effect.flatMap(runtime, ({ status }) => status),
    statusChanges: Stream.unwrap(Effect.map(runtime, ({ statusChanges }) => statusChanges)),
    reload: Effect.flatMap(runtime, ({ reload }) => reload),
    resize: (workers) => Effect.flatMap(runtime, ({ resize }) => resize(workers)),
    get environment() {
      return environment()
    }
  }
}

/**
 * A service key for a runtime, with its layers and functions as statics.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServiceClass<Self, Id extends string> extends Context.ServiceClass<Self, Id, Runtime> {
  /** @see {@link layer} */
  readonly layer: <R = never>(options: SynapseOptions<R>) => Layer.Layer<Self, SynapseError, Exclude<R, Self>>
  /** @see {@link layerNoPlatform} */
  readonly layerNoPlatform: <R = never>(
    options: SynapseOptions<R>
  ) => Layer.Layer<
    Self,
    SynapseError,
    Exclude<R, Self> | ChildProcessSpawner.ChildProcessSpawner | FileSystem.FileSystem | Path.Path
  >
  /** @see {@link layerConfig} */
  readonly layerConfig: (
    config?: Config.Wrap<SynapseOptions> | undefined
  ) => Layer.Layer<Self, SynapseError | Config.ConfigError>
  /** @see {@link connect} */
  readonly connect: <R = never>(options?: ConnectOptions<R>) => Layer.Layer<Self, SynapseError, Exclude<R, Self>>
  /** @see {@link call} */
  readonly call: Call<Self>
  /** @see {@link stream} */
  readonly stream: StreamCall<Self>
  /** @see {@link acquire} */
  readonly acquire: Acquire<Self>
  /** @see {@link controller} */
  readonly controller: Controller.Open<Self>
  /** @see {@link evaluate} */
  readonly evaluate: Evaluate<Self>
  /** @see {@link allocate} */
  readonly allocate: Allocate<Self>
  /** @see {@link stats} */
  readonly stats: Effect.Effect<Stats, never, Self>
  /** @see {@link status} */
  readonly status: Effect.Effect<Status, never, Self>
  /** @see {@link statusChanges} */
  readonly statusChanges: Stream.Stream<Status, never, Self>
  /** @see {@link reload} */
  readonly reload: Effect.Effect<void, SynapseError, Self>
  /** @see {@link resize} */
  readonly resize: (workers: Workers) => Effect.Effect<void, SynapseError, Self>
}

/**
 * Makes the service key of a further runtime.
 *
 * **When to use**
 *
 * Use when an app runs more than one Python module: each gets a key of its own.
 *
 * **Example** (A second runtime)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * class Embedder extends Synapse.Service<Embedder>()("app/Embedder") {}
 *
 * const EmbedderLive = Embedder.layer({ directory: "./embedder" })
 *
 * const program = Embedder.call(Schema.Array(Schema.Finite), { text: "hi" }, { method: "embed" }).pipe(
 *   Effect.provide(EmbedderLive)
 * )
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export const Service =
  <Self>() =>
  <const Id extends string>(id: Id): ServiceClass<Self, Id> => {
    const key = Context.Service<Self, Runtime>()(id)
    const layerNoPlatform: ServiceClass<Self, Id>["layerNoPlatform"] = (options) =>
      Layer.effect(key, makeFor(options, key)) as never
    const layer: ServiceClass<Self, Id>["layer"] = (options) =>
      Layer.provide(layerNoPlatform(options), NodeServices.layer)
    const functions: Pick<ServiceClass<Self, Id>, (keyof Runtime & keyof ServiceClass<Self, Id>) | "controller"> = {
      call: (schema, input, options) => key.use((runtime) => runtime.call(schema, input, options)),
      stream: (schema, input, options) =>
        Stream.unwrap(key.useSync((runtime) => runtime.stream(schema, input, options))),
      acquire: (input, options) => key.use((runtime) => runtime.acquire(input, options)),
      controller: Controller.makeOpen(key.useSync(({ acquire }) => acquire)),
      evaluate: (schema, bindings, options) =>
        function evaluate(literal, ...values) {
          // Here, where the stack still tells.
          rememberPlace(literal, evaluate)
          return key.use((runtime) => runtime.evaluate(schema, bindings, options)(literal, ...values))
        },
      allocate: (dtype, shape) => key.use((runtime) => runtime.allocate(dtype, shape)),
      stats: key.use((runtime) => runtime.stats),
      status: key.use((runtime) => runtime.status),
      statusChanges: Stream.unwrap(key.useSync((runtime) => runtime.statusChanges)),
      reload: key.use((runtime) => runtime.reload),
      resize: (workers) => key.use((runtime) => runtime.resize(workers))
    }
    return Object.assign(key, functions, {
      layer,
      layerNoPlatform,
      connect: ((options = {}) => Layer.effect(key, connectFor(options, key))) as ServiceClass<Self, Id>["connect"],
      layerConfig: (config: Config.Wrap<SynapseOptions> = environmentConfig) =>
        Layer.unwrap(Effect.map(Config.unwrap(config), layer))
    })
  }

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(config, undefined)

/** What is no number is left to the check of the options, which says what it may be. */
const workersOf = (text: string): number | "cpus" =>
  /^\d+$/.test(text.trim()) ? Number(text) : (text.trim() as "cpus")

/** The options as environment variables: SYNAPSE_DIRECTORY and its siblings. */
const environmentConfig: Config.Config<SynapseOptions> = Config.all({
  directory: Config.withDefault(Config.String("DIRECTORY"), "python"),
  entrypoint: optional(Config.String("ENTRYPOINT")),
  python: optional(Config.String("PYTHON")),
  environment: optional(Config.Literals(["venv", "existing", "system"], "ENVIRONMENT")),
  startTimeout: optional(Config.Duration("START_TIMEOUT")),
  disposeTimeout: optional(Config.Duration("DISPOSE_TIMEOUT")),
  workers: optional(Config.map(Config.String("WORKERS"), workersOf)),
  concurrency: optional(Config.Int("CONCURRENCY")),
  callTimeout: optional(Config.Duration("CALL_TIMEOUT")),
  maxFrameSize: optional(Config.Int("MAX_FRAME_SIZE")),
  watch: optional(Config.Boolean("WATCH"))
}).pipe(Config.nested("SYNAPSE"))

/**
 * The service key of the app's Python runtime.
 *
 * @category services
 * @since 0.1.0
 */
export class Synapse extends Service<Synapse>()("effect-synapse/Synapse") {}

/**
 * Calls a Python function and decodes its answer with a schema.
 *
 * **Details**
 *
 * The handler `main` is called unless `method` names another. An object binds to the handler's parameters by name. The
 * call fails with a {@link SynapseError}, whatever happens to the worker; it never hangs. Interrupting it tells Python
 * and does not wait for it.
 *
 * A `Stream` as the input, or as a field of it, is an iterator in Python, which reads it while the call runs. A failure of
 * the stream is raised there.
 *
 * **Example** (A typed call)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * const Summary = Schema.Struct({ mean: Schema.Finite, count: Schema.Int })
 *
 * const program = Effect.gen(function*() {
 *   const summary = yield* Synapse.call(Summary, { values: [1, 2, 3] })
 *   return summary.mean
 * })
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const call: Call<Synapse> = Synapse.call

/**
 * The items of a Python generator, decoded with a schema.
 *
 * **Details**
 *
 * Python produces as the consumer takes: 64 items ahead, up to 1024 for a consumer that has to wait for them, and at most
 * about 1 MiB. A stream that ends early or is interrupted
 * closes the generator, whose `finally` runs. One that fails gives the items before the failure first.
 *
 * **Example** (Words as they come)
 *
 * ```ts
 * import { Console, Schema, Stream } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * const program = Synapse.stream(Schema.String, { prompt: "hi" }, { method: "chat" }).pipe(
 *   Stream.take(10),
 *   Stream.runForEach((word) => Console.log(word))
 * )
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const stream: StreamCall<Synapse> = Synapse.stream

/**
 * The schema of a stream in an input, each item of which is encoded with `item`: for the `payload` of a call.
 *
 * **Example** (Rows with dates)
 *
 * ```ts
 * import { Schema, Stream } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * const Row = Schema.Struct({ id: Schema.Int, at: Schema.DateTimeUtcFromMillis })
 * const payload = Schema.Struct({ table: Schema.String, rows: Synapse.StreamOf(Row) })
 *
 * const insert = (rows: Stream.Stream<typeof Row.Type>) =>
 *   Synapse.call(Schema.Int, { table: "visits", rows }, { method: "insert", payload })
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const StreamOf: <A, E>(item: Schema.Codec<A, E>) => Schema.Codec<Stream.Stream<A, unknown>> =
  InputStreams.StreamOf

/**
 * What is done with the progress of a call: the value of the option `progress`.
 *
 * **Details**
 *
 * The values come in order, one at a time; when they come faster than they are dealt with, the oldest of more than 256 are
 * dropped. The call's result comes after them.
 *
 * **Example** (A call that reports)
 *
 * ```ts
 * import { Console, Schema } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * const program = Synapse.call(Schema.String, { epochs: 3 }, {
 *   method: "train",
 *   progress: Synapse.onProgress(Schema.Finite, (done) => Console.log(`${Math.round(100 * done)} %`)),
 *   timeout: "5 seconds",
 *   maxTimeout: "10 minutes"
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const onProgress: <P, RD, R>(
  schema: Schema.Decoder<P, RD>,
  onProgress: (value: P) => Effect.Effect<unknown, never, R>
) => Progress<RD | R> = makeProgress

/**
 * Calls a Python function that returns a `synapse.Handle`, and holds the object until the scope closes.
 *
 * **Example** (A session that stays in Python)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * const program = Effect.gen(function*() {
 *   const session = yield* Synapse.acquire({ name: "Ada" }, { method: "open_session" })
 *   yield* session.call(Schema.Void, { text: "hi" }, { method: "say" })
 *   return yield* session.get(Schema.Int, "length")
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const acquire: Acquire<Synapse> = Synapse.acquire

/**
 * Opens a class in Python that derives from `synapse.Controller`, and holds its instance until it is ended or the scope closes.
 *
 * **Details**
 *
 * Each opening is an instance of its own, in one worker, which keeps its state. Any name is a method: an effect that is called
 * with the one value that it takes, and gives what Python returns. With a type of TypeScript the methods and properties have
 * types, which nobody checks; with an `RpcGroup` they have schemas, declared errors and streams. The calls of one controller run
 * in the order in which they are made, one at a time.
 *
 * When its worker ends, the instance is gone: calls fail with what ended the worker, and it has to be opened anew.
 *
 * **Gotchas**
 *
 * `then`, `toJSON`, the names of `Object.prototype`, those of {@link Controller.Controls} and names that begin with an
 * underscore are no methods; `callMethod` calls those of them that Python has. Names with an underscore are private there too.
 *
 * **Example** (A counter that stays in Python)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * interface Chat {
 *   model: string
 *   increment(params: { by: number }): { counter: number }
 *   testStream(): void
 * }
 *
 * const program = Effect.gen(function*() {
 *   const chat = yield* Synapse.controller<Chat>({ properties: { model: "something" } })
 *   yield* chat.onMessage((data) => Console.log(data))
 *   yield* chat.testStream()
 *   return yield* chat.increment({ by: 5 })
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const controller: Controller.Open<Synapse> = Synapse.controller

/**
 * Runs a piece of Python, the text of a template literal, and decodes its value: that of its last expression.
 *
 * **Details**
 *
 * The names of the module are there, and the bindings beside them; what the code assigns is gone afterwards. A value put
 * into the literal with `${}` is bound, never spliced into the source. Tracebacks name the TypeScript file and line. It fails
 * with `Unsupported` unless the layer has the option `evaluate: true`.
 *
 * **Example** (Two lines of Python)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * const program = Synapse.evaluate(Schema.Finite, { values: [1, 2, 3] })`
 *   import statistics
 *   statistics.stdev(values)
 * `
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const evaluate: Evaluate<Synapse> = Synapse.evaluate

/**
 * An array of zeros in memory that Python has too, until the scope closes.
 *
 * **When to use**
 *
 * Use for arrays that go to Python often, or that Python is to fill: nothing of them is copied, neither on the way there nor
 * back. Needs `sharedMemory: { inPlace: true }`.
 *
 * **Details**
 *
 * Passed to a call, it is a numpy array that lies in the same memory: what either side writes, the other sees. A call that
 * returns it, or a contiguous part of it, gives an array of the same memory. Its own buffer has no elements any more when
 * the scope is closed. It fails with `Unsupported` where memory is not shared in place, or there is no room.
 *
 * **Gotchas**
 *
 * What a call writes after it was given up is written: keep such an array from other uses until then.
 *
 * **Example** (Python fills an array)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * const program = Effect.gen(function*() {
 *   const image = yield* Synapse.allocate("float32", [1080, 1920])
 *   yield* Synapse.call(Schema.Void, { out: image, at: 3.5 }, { method: "render" })
 *   return image.data[0]
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const allocate: Allocate<Synapse> = Synapse.allocate

/**
 * Calls, streams, host calls and Python objects that are open now.
 *
 * @category accessors
 * @since 0.1.0
 */
export const stats: Effect.Effect<Stats, never, Synapse> = Synapse.stats

/**
 * The workers and what they have: process ids, states, calls, memory, restarts, the last end.
 *
 * @category accessors
 * @since 0.1.0
 */
export const status: Effect.Effect<Status, never, Synapse> = Synapse.status

/**
 * The status whenever it is another one: at once when a worker comes or goes, and otherwise within a second.
 *
 * **Example** (Waiting until two workers are ready)
 *
 * ```ts
 * import { Stream } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * const ready = Synapse.statusChanges.pipe(
 *   Stream.filter(({ workers }) => workers.filter(({ state }) => state === "ready").length >= 2),
 *   Stream.take(1),
 *   Stream.runDrain
 * )
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const statusChanges: Stream.Stream<Status, never, Synapse> = Synapse.statusChanges

/**
 * Replaces the workers by new ones that read the module's files anew.
 *
 * **Details**
 *
 * Its requirements are looked at too, and installed where they have changed. When all of the new workers are ready they take
 * the calls, and the old ones finish what they have. Where one does not come up, it fails and the old ones go on. A runtime
 * that failed with `RestartLimit` starts over.
 *
 * @category accessors
 * @since 0.1.0
 */
export const reload: Effect.Effect<void, SynapseError, Synapse> = Synapse.reload

/**
 * Changes the number of workers. New ones are started in the background; those that are too many finish what they have.
 *
 * @category accessors
 * @since 0.1.0
 */
export const resize: (workers: Workers) => Effect.Effect<void, SynapseError, Synapse> = Synapse.resize

/**
 * The runtime of a Python module, with the Node services it needs.
 *
 * **Details**
 *
 * Building the layer makes the module's environment where it has none yet, starts the workers and waits until each has
 * loaded the module. A module that does not import fails the layer, not the first call. Closing the scope stops the
 * workers and everything they started.
 *
 * **Example** (Providing a module)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * const PythonLive = Synapse.layer({ directory: "./python", python: ">=3.10", callTimeout: "30 seconds" })
 *
 * const program = Synapse.call(Schema.String, { name: "Ada" }, { method: "greet" }).pipe(Effect.provide(PythonLive))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: <R = never>(options: SynapseOptions<R>) => Layer.Layer<Synapse, SynapseError, Exclude<R, Synapse>> =
  Synapse.layer

/**
 * The same as {@link layer}, for tests and platforms that bring the file system, paths and process spawner themselves.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNoPlatform: <R = never>(
  options: SynapseOptions<R>
) => Layer.Layer<
  Synapse,
  SynapseError,
  Exclude<R, Synapse> | ChildProcessSpawner.ChildProcessSpawner | FileSystem.FileSystem | Path.Path
> = Synapse.layerNoPlatform

/**
 * A runtime whose workers are connections to a server: a Python program with a `synapse.Server`, on this machine or another one.
 *
 * **Details**
 *
 * It is the service that {@link layer} makes, with the same calls, streams, host functions and errors. Building it fails with
 * `StartFailed` of the kind `"connect"` where there is no connection, and of the kind `"token"` where the token is not the right one.
 * A connection that is lost is made anew under the budget of `restart`, 30 failures a minute by default; calls that were
 * open there fail with `WorkerExited` of the kind `"disconnected"`, or are sent again where they are `idempotent`. Closing the scope
 * disconnects, and the server goes on.
 *
 * A server that does not answer for two intervals of `heartbeat` counts as lost. What is about processes is not there: memory is not
 * shared, `Synapse.evaluate` is not allowed, `reload` connects anew.
 *
 * **Example** (A server of a namespace)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * const ServerLive = Synapse.connect({ namespace: "example.weather", callTimeout: "10 seconds" })
 *
 * const forecast = Synapse.call(Schema.String, { city: "Oslo" }, { method: "forecast" }).pipe(Effect.provide(ServerLive))
 * ```
 *
 * @category layers
 * @since 0.2.0
 */
export const connect: <R = never>(
  options?: ConnectOptions<R>
) => Layer.Layer<Synapse, SynapseError, Exclude<R, Synapse>> = Synapse.connect

/**
 * The runtime with its options from the configuration.
 *
 * **Details**
 *
 * Without an argument they come from environment variables: `SYNAPSE_DIRECTORY` (default `python`),
 * `SYNAPSE_ENTRYPOINT`, `SYNAPSE_PYTHON`, `SYNAPSE_ENVIRONMENT`, `SYNAPSE_WORKERS` (a number or `cpus`),
 * `SYNAPSE_CONCURRENCY`, `SYNAPSE_CALL_TIMEOUT`, `SYNAPSE_START_TIMEOUT`, `SYNAPSE_DISPOSE_TIMEOUT` (durations such as
 * `"5 seconds"`), `SYNAPSE_MAX_FRAME_SIZE` (bytes) and `SYNAPSE_WATCH` (`true` or `false`).
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig: (
  config?: Config.Wrap<SynapseOptions> | undefined
) => Layer.Layer<Synapse, SynapseError | Config.ConfigError> = Synapse.layerConfig

/**
 * The runtime as the environment variables describe it: {@link layerConfig} without an argument.
 *
 * @category layers
 * @since 0.1.0
 */
export const SynapseLive: Layer.Layer<Synapse, SynapseError | Config.ConfigError> = layerConfig()
