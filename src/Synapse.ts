/**
 * The service: a Python module as a scoped layer, its functions as typed effects.
 *
 * {@link layer} makes the module's environment, starts its workers and waits until they are ready; {@link call} sends a
 * value to a Python function and decodes its answer with a schema. Closing the layer's scope leaves nothing behind.
 *
 * @since 0.1.0
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as Path from "effect/Path"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import type * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Connection from "./Connection.ts"
import * as Envelope from "./Envelope.ts"
import { makeCall } from "./internal/call.ts"
import { resolveEntrypoint } from "./internal/entrypoint.ts"
import { workerEnvironment } from "./internal/environmentVariables.ts"
import * as Logs from "./internal/logs.ts"
import { validateOptions } from "./internal/options.ts"
import * as PythonEnvironment from "./PythonEnvironment.ts"
import * as PythonProcess from "./PythonProcess.ts"
import { StartFailed, SynapseError } from "./SynapseError.ts"
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
export interface SynapseOptions {
  /** The module's directory, relative to the current one. */
  readonly directory: string
  /** The module to serve: `"main"`, `"main.py"`, `"package.module"`. Default: `"main"`. */
  readonly entrypoint?: string | undefined
  /**
   * The interpreter (a path or a command), or a range of versions such as `">=3.10"`. Default: `SYNAPSE_PYTHON`, else the
   * search that the page on environments describes.
   */
  readonly python?: string | undefined
  /** Where the module's dependencies come from. Default: `"venv"`, a virtual environment made and kept for it. */
  readonly environment?: PythonEnvironment.EnvironmentOptions["environment"]
  /**
   * Variables added to the worker's environment. Of this process's own only those are passed on that programs need to
   * run (`PATH`, `HOME`, the locale, proxies, ...), never all of them.
   */
  readonly env?: Readonly<Record<string, string | Redacted.Redacted<string>>> | undefined
  /** How long a worker may take to load its module, once the environment is there. Default: 30 seconds. */
  readonly startTimeout?: Duration.Input | undefined
  /** How long open calls may go on when the scope closes, before the worker is stopped by force. Default: 500 ms. */
  readonly disposeTimeout?: Duration.Input | undefined
  /** The number of workers: processes that share the calls, 1 to 256. Default: 1. */
  readonly workers?: number | undefined
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
  /** The time-out of calls that name none. Default: none. */
  readonly callTimeout?: Duration.Input | undefined
  /** Bytes of the largest message in either direction, at least 4096. Default: 16 MiB. */
  readonly maxFrameSize?: number | undefined
  /**
   * What becomes of everything the module prints and logs. Default: `"effect"`, Effect log records with the annotations
   * `logger`, `pid`, `file`, `line` and `call`. `"ignore"`: nothing. A function receives each {@link LogRecord} instead.
   */
  readonly logs?: Logs.LogsOption | undefined
}

/**
 * How one call is made.
 *
 * @category models
 * @since 0.1.0
 */
export interface CallOptions<I = unknown> {
  /** The handler's name. Default: `"main"`. */
  readonly method?: string | undefined
  /** How long the caller waits, for a worker and for the answer. Default: `callTimeout` of the runtime. */
  readonly timeout?: Duration.Input | undefined
  /** Whether the call may be sent again, twice at most, when its worker ends while it runs. Default: `false`. */
  readonly idempotent?: boolean | undefined
  /** Encodes the input. Without it the input has to be what MessagePack carries: plain values, bytes, dates, maps. */
  readonly payload?: Schema.Codec<I, unknown> | undefined
  /**
   * Whether an answer that is a string is parsed as JSON before it is decoded; one that is not JSON is decoded as it is.
   * Default: `false`.
   */
  readonly parseJson?: boolean | undefined
}

/**
 * A running Python module.
 *
 * @category models
 * @since 0.1.0
 */
export interface Runtime {
  /**
   * Calls a Python function and decodes its answer.
   *
   * @see {@link call} for the form that takes the runtime from the context
   */
  readonly call: <A, RD = never, I = unknown>(
    schema: Schema.Decoder<A, RD>,
    input: NoInfer<I>,
    options?: CallOptions<I> | undefined
  ) => Effect.Effect<A, SynapseError, RD>
  /** The environment that the module runs in. */
  readonly environment: PythonEnvironment.PythonEnvironment
}

/** How many calls a worker may have open. */
const maxOpenCalls = 1024

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
export const make = Effect.fnUntraced(function* (
  options: SynapseOptions
): Effect.fn.Return<
  Runtime,
  SynapseError,
  ChildProcessSpawner.ChildProcessSpawner | FileSystem.FileSystem | Path.Path | Scope.Scope
> {
  yield* PythonProcess.checkPlatform
  yield* validateOptions(options)
  const entrypoint = yield* resolveEntrypoint(options.directory, options.entrypoint ?? "main")
  const environment = yield* PythonEnvironment.make(options)
  const logs = yield* Logs.make(options.logs ?? "effect", environment.directory)
  const maxFrameSize = options.maxFrameSize ?? Envelope.defaultMaxFrameSize
  const startTimeout = Duration.fromInputUnsafe(options.startTimeout ?? "30 seconds")
  const graceMillis = Duration.toMillis(options.disposeTimeout ?? "500 millis")
  const env = workerEnvironment(process.env, environment, options.env ?? {})

  const acquire = Effect.fnUntraced(function* (onChange: () => void) {
    const worker = yield* PythonProcess.make({
      python: environment.python,
      directory: environment.directory,
      entrypoint,
      env,
      onLine: (line) => logs.line(worker.pid, line)
    })
    const connection = yield* Connection.make(worker.socket, {
      maxFrameSize,
      concurrency: options.concurrency ?? 1,
      maxOpenCalls,
      graceMillis,
      onLog: (log) => {
        if (log.logger === "stderr") worker.noteStderr(log.message)
        logs.record(worker.pid, log)
      },
      onChange,
      onBusy: worker.setKeepAlive
    }).pipe(
      Effect.timeoutOrElse({
        duration: startTimeout,
        orElse: () => Effect.fail(startTimedOut(startTimeout, worker.stderr()))
      })
    )
    if (connection.load() === 0) worker.setKeepAlive(false)
    return connection
  })

  const pool = yield* WorkerPool.make({
    size: options.workers ?? 1,
    restart: options.restart,
    queue: options.queue,
    acquire
  })
  return { call: makeCall(pool.use, options.callTimeout), environment }
})

const startTimedOut = (timeout: Duration.Duration, stderr: string): SynapseError =>
  new SynapseError({
    reason: new StartFailed({
      kind: "timeout",
      detail:
        `The Python module was not loaded within ${Duration.format(timeout)}: ` +
        `raise startTimeout if it needs longer to import`,
      stderr
    })
  })

/**
 * A service key for a runtime, with its layers and `call` as statics.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServiceClass<Self, Id extends string> extends Context.ServiceClass<Self, Id, Runtime> {
  /** @see {@link layer} */
  readonly layer: (options: SynapseOptions) => Layer.Layer<Self, SynapseError>
  /** @see {@link layerNoPlatform} */
  readonly layerNoPlatform: (
    options: SynapseOptions
  ) => Layer.Layer<Self, SynapseError, ChildProcessSpawner.ChildProcessSpawner | FileSystem.FileSystem | Path.Path>
  /** @see {@link layerConfig} */
  readonly layerConfig: (
    config?: Config.Wrap<SynapseOptions> | undefined
  ) => Layer.Layer<Self, SynapseError | Config.ConfigError>
  /** @see {@link call} */
  readonly call: <A, RD = never, I = unknown>(
    schema: Schema.Decoder<A, RD>,
    input: NoInfer<I>,
    options?: CallOptions<I> | undefined
  ) => Effect.Effect<A, SynapseError, Self | RD>
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
    const layerNoPlatform = (options: SynapseOptions) => Layer.effect(key, make(options))
    const layer = (options: SynapseOptions) => Layer.provide(layerNoPlatform(options), NodeServices.layer)
    return Object.assign(key, {
      layer,
      layerNoPlatform,
      layerConfig: (config: Config.Wrap<SynapseOptions> = environmentConfig) =>
        Layer.unwrap(Effect.map(Config.unwrap(config), layer)),
      call: <A, RD = never, I = unknown>(
        schema: Schema.Decoder<A, RD>,
        input: NoInfer<I>,
        options?: CallOptions<I> | undefined
      ) => key.use((runtime) => runtime.call(schema, input, options))
    })
  }

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(config, undefined)

/** The options as environment variables: SYNAPSE_DIRECTORY and its siblings. */
const environmentConfig: Config.Config<SynapseOptions> = Config.all({
  directory: Config.withDefault(Config.String("DIRECTORY"), "python"),
  entrypoint: optional(Config.String("ENTRYPOINT")),
  python: optional(Config.String("PYTHON")),
  environment: optional(Config.Literals(["venv", "existing", "system"], "ENVIRONMENT")),
  startTimeout: optional(Config.Duration("START_TIMEOUT")),
  disposeTimeout: optional(Config.Duration("DISPOSE_TIMEOUT")),
  workers: optional(Config.Int("WORKERS")),
  concurrency: optional(Config.Int("CONCURRENCY")),
  callTimeout: optional(Config.Duration("CALL_TIMEOUT")),
  maxFrameSize: optional(Config.Int("MAX_FRAME_SIZE"))
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
export const call: ServiceClass<Synapse, "effect-synapse/Synapse">["call"] = Synapse.call

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
export const layer: (options: SynapseOptions) => Layer.Layer<Synapse, SynapseError> = Synapse.layer

/**
 * The same as {@link layer}, for tests and platforms that bring the file system, paths and process spawner themselves.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNoPlatform: (
  options: SynapseOptions
) => Layer.Layer<Synapse, SynapseError, ChildProcessSpawner.ChildProcessSpawner | FileSystem.FileSystem | Path.Path> =
  Synapse.layerNoPlatform

/**
 * The runtime with its options from the configuration.
 *
 * **Details**
 *
 * Without an argument they come from environment variables: `SYNAPSE_DIRECTORY` (default `python`),
 * `SYNAPSE_ENTRYPOINT`, `SYNAPSE_PYTHON`, `SYNAPSE_ENVIRONMENT`, `SYNAPSE_WORKERS`, `SYNAPSE_CONCURRENCY`,
 * `SYNAPSE_CALL_TIMEOUT`, `SYNAPSE_START_TIMEOUT`, `SYNAPSE_DISPOSE_TIMEOUT` (durations such as `"5 seconds"`) and
 * `SYNAPSE_MAX_FRAME_SIZE` (bytes).
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
