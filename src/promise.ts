/**
 * Python modules for programs that do not use Effect: a class with promises over the same service.
 *
 * **Example** (A module, called and let go of)
 *
 * ```ts
 * import { Synapse } from "effect-synapse/promise"
 *
 * const synapse = new Synapse()
 * await synapse.spawn("./python", "main")
 * console.log(await synapse.call({ name: "Ada" }, { method: "greet" }))
 * await synapse.dispose()
 * ```
 *
 * @since 0.1.0
 */
import { existsSync } from "node:fs"
import { join } from "node:path"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { detectProtocol } from "./internal/detectProtocol.ts"
import { LogLines } from "./internal/logLines.ts"
import { rejectionOf } from "./internal/rejection.ts"
import type { EnvironmentMode, EnvironmentSettings } from "./PythonEnvironment.ts"
import * as Core from "./Synapse.ts"
import { DecodeFailed, SynapseError } from "./SynapseError.ts"

export {
  Bindings,
  ChatModel,
  Controller,
  type ControllerOptions,
  type PromiseController,
  type PromiseControllerClass,
  type PromiseControls,
  type PromiseMethods
} from "./promiseController.ts"

/**
 * How long something takes: milliseconds, or a text such as `"5 seconds"`.
 *
 * @category models
 * @since 0.1.0
 */
export type Duration = number | `${number} ${"milli" | "second" | "minute" | "hour"}${"" | "s"}`

/**
 * How the modules of an instance are run. Nothing is required.
 *
 * @category models
 * @since 0.1.0
 */
export interface SynapseOptions {
  /**
   * What the module speaks. `"native"`: it imports `synapse`, and its handlers are called by `method`. `"stdio-v1"`: it is a script
   * that reads calls from standard input and writes replies to `sys.stdout.buffer`, a length and MessagePack each;
   * `"json-lines"`: one that reads and prints a line of JSON each. `"auto"`, the default: an entrypoint that imports `synapse`
   * is native, one that mentions `stdin` is a script, of lines where it mentions `__STREAM__`; where it does neither, the files
   * beside it decide. Nothing is run to find out.
   */
  readonly protocol?: "auto" | "native" | Core.Protocol | undefined
  /** The interpreter (a path or a command), or a range of versions such as `">=3.10"`. Default: the first that is found. */
  readonly python?: string | undefined
  /** Where the dependencies come from. Default: `"venv"`, a virtual environment made and kept for the module. */
  readonly environment?: EnvironmentMode | EnvironmentSettings | undefined
  /** Variables added to the environment of Python. Of this process's own only those are passed on that programs need to run. */
  readonly env?: Readonly<Record<string, string>> | undefined
  /** The number of processes that share the calls; `"cpus"`: as many as the machine runs at once. Default: 1. */
  readonly workers?: number | "cpus" | undefined
  /** How many synchronous handlers of a native module one process runs at once. Default: 1. */
  readonly concurrency?: number | undefined
  /** How long a process may take to load the module. Default: 30 seconds. */
  readonly startTimeout?: Duration | undefined
  /** The `timeout` of calls that name none. Default: none. */
  readonly callTimeout?: Duration | undefined
  /** How long open calls may go on once the instance is disposed of. Default: 500 ms. */
  readonly disposeTimeout?: Duration | undefined
  /** How long a script may go on with a call that was given up before its process is replaced. Default: 2 seconds. */
  readonly cancelGrace?: Duration | undefined
  /** How often within `window` a process that ended by itself is started again. */
  readonly restart?: { readonly max?: number | undefined; readonly window?: Duration | undefined } | undefined
  /** Bytes of the largest message in either direction. Default: 16 MiB; for scripts 128 MiB. */
  readonly maxFrameSize?: number | undefined
}

/**
 * How one call is made.
 *
 * @category models
 * @since 0.1.0
 */
export interface CallOptions {
  /** The handler of a native module. Default: `"main"`. */
  readonly method?: string | undefined
  /** Decodes the answer: a schema of Effect, or any Standard Schema. Without it the answer is returned as it came. */
  readonly schema?: AnySchema | undefined
  /** How long the call may run, from when it is given to Python. Default: `callTimeout` of the instance. */
  readonly timeout?: Duration | undefined
  /** How long all of it may take: waiting for a process and running. Default: no limit. */
  readonly totalTimeout?: Duration | undefined
  /** Gives the call up. The promise is rejected with the reason of the signal. */
  readonly signal?: AbortSignal | undefined
  /** Whether the call may be sent again when its process ends while it runs. Default: `false`. */
  readonly idempotent?: boolean | undefined
  /** Whether an answer that is a string is parsed as JSON before it is decoded. Default: `false`. */
  readonly parseJson?: boolean | undefined
}

/**
 * A schema of Effect that needs no services, by what its type shows.
 *
 * @category models
 * @since 0.1.0
 */
export interface EffectSchema<out A = unknown> {
  readonly ast: object
  readonly Type: A
  readonly DecodingServices: never
}

/**
 * A schema of any library that keeps to the Standard Schema specification: Zod, Valibot, ArkType and others.
 *
 * @category models
 * @since 0.1.0
 */
export interface StandardSchema<out A = unknown> {
  readonly "~standard": {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => StandardResult<A> | Promise<StandardResult<A>>
    readonly types?: { readonly input: unknown; readonly output: A } | undefined
  }
}

/**
 * What a Standard Schema says of a value.
 *
 * @category models
 * @since 0.1.0
 */
export type StandardResult<A> =
  | { readonly value: A; readonly issues?: undefined }
  | {
      readonly issues: ReadonlyArray<{
        readonly message: string
        readonly path?: ReadonlyArray<PropertyKey | { readonly key: PropertyKey }> | undefined
      }>
    }

/**
 * What {@link CallOptions.schema} may be.
 *
 * @category models
 * @since 0.1.0
 */
export type AnySchema<A = unknown> = EffectSchema<A> | StandardSchema<A>

/**
 * What a schema makes of an answer.
 *
 * @category models
 * @since 0.1.0
 */
export type Output<S extends AnySchema> =
  S extends EffectSchema<infer A> ? A : S extends StandardSchema<infer A> ? A : never

/**
 * Listens to lines.
 *
 * @category models
 * @since 0.1.0
 */
export interface Observer {
  readonly next?: ((line: string) => void) | undefined
  /** Never called: there is no end with an error. */
  readonly error?: ((error: unknown) => void) | undefined
  /** Never called: an instance that was disposed of can be spawned again, and its lines go on. */
  readonly complete?: (() => void) | undefined
}

/**
 * What ends a subscription: it can be called, has a method, and works with `using`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subscription extends Disposable {
  (): void
  readonly unsubscribe: () => void
  readonly closed: boolean
}

/**
 * The lines that an instance says: each ends with `"\n"`, and those that Python printed or logged begin with `"🐍 Python: "`.
 *
 * **Details**
 *
 * An iteration gets the lines from when it began until the instance is disposed of; when more than 10 000 wait for it, the
 * oldest are dropped.
 *
 * @category models
 * @since 0.1.0
 */
export interface InstanceLogs extends AsyncIterable<string> {
  readonly subscribe: (observer: Observer | ((line: string) => void)) => Subscription
}

interface Instance {
  readonly scope: Scope.Closeable
  readonly starting: AbortController
  readonly protocol: Core.Protocol | undefined
  /** The runtime, once it is there. */
  readonly context: Context.Context<Core.Synapse> | undefined
}

/**
 * A Python module in a process of its own, called with promises.
 *
 * **When to use**
 *
 * Use in programs without Effect, and in place of `@himalaya-quant/synapse`, whose class this is: modules written for it run
 * unmodified. With Effect, use the layer of `effect-synapse`, of which this is a face.
 *
 * **Details**
 *
 * What a Python process does to fail is a `SynapseError` (of `effect-synapse/SynapseError`), whose `reason` says which; a reply
 * with an `error` of a script rejects its call with that very value.
 *
 * **Example** (Typed answers, time-outs and signals)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Synapse } from "effect-synapse/promise"
 *
 * const Summary = Schema.Struct({ mean: Schema.Finite, count: Schema.Int })
 *
 * const synapse = new Synapse({ callTimeout: "30 seconds" })
 * await synapse.spawn("./python", "main")
 * const { mean } = await synapse.call({ values: [1, 2, 3] }, { schema: Summary, signal: AbortSignal.timeout(10_000) })
 * console.log(mean)
 * await synapse.dispose()
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export class Synapse implements AsyncDisposable {
  readonly #options: SynapseOptions
  readonly #lines = new LogLines()
  #instance: Instance | undefined
  #spawning: Promise<void> | undefined
  #disposing: Promise<void> | undefined

  constructor(options: SynapseOptions = {}) {
    this.#options = options
  }

  /** What Python prints and logs, and what is done to make its environment. */
  get instanceLogs(): InstanceLogs {
    return this.#lines
  }

  /**
   * Makes the environment of the module where it has none yet, starts its process, and waits until it has loaded. An instance
   * that is spawned already stays as it is.
   *
   * @param directory The module's directory, relative to the current one.
   * @param entrypoint The file in it, with or without `.py`. Default: `"main"`.
   */
  spawn(directory: string, entrypoint = "main"): Promise<void> {
    if (this.#spawning === undefined) {
      if (this.#instance?.context !== undefined)
        return Effect.runPromise(Effect.provideContext(revive, this.#instance.context))
      const spawning = this.#spawn(directory, entrypoint).finally(() => {
        if (this.#spawning === spawning) this.#spawning = undefined
      })
      this.#spawning = spawning
    }
    return this.#spawning
  }

  async #spawn(directory: string, entrypoint: string): Promise<void> {
    const options = optionsOf(this.#options, directory, entrypoint)
    const scope = Scope.makeUnsafe()
    const starting = new AbortController()
    const instance: Instance = { scope, starting, protocol: options.protocol, context: undefined }
    this.#instance = instance
    // One process after the other: they may share what they listen on.
    await this.#disposing?.catch(() => {})
    const layer = Layer.provideMerge(
      Core.layer({ ...options, logs: (record) => Effect.sync(() => this.#lines.emit(lineOf(record))) }),
      Logger.layer([Logger.make(({ message }) => this.#lines.emit(`${[message].flat().join(" ")}\n`))])
    )
    const exit = await Effect.runPromiseExit(Layer.buildWithScope(layer, scope), { signal: starting.signal })
    if (starting.signal.aborted) throw new Error("The instance was disposed of before it was spawned.")
    if (Exit.isSuccess(exit)) {
      this.#instance = { ...instance, context: exit.value }
      return
    }
    this.#instance = undefined
    await Effect.runPromise(Scope.close(scope, exit))
    throw rejectionOf(Cause.squash(exit.cause))
  }

  /**
   * Sends a value to Python and gives its answer. Calls that a process has no room for wait for it, in order.
   *
   * Throws at once, without a promise, when the instance is not spawned.
   *
   * @param input What MessagePack carries: plain values, bytes, dates, maps.
   * @param forceJSONParse Whether an answer that is a string is parsed as JSON; one that is not JSON is returned as it is, and
   * logged. Default: `false`.
   */
  // biome-ignore lint/suspicious/noExplicitAny: what comes from Python without a schema is anything
  call(input: unknown, forceJSONParse?: boolean): Promise<any>
  /** The same, with options: the answer is what `schema` makes of it. */
  call<S extends AnySchema>(input: unknown, options: CallOptions & { readonly schema: S }): Promise<Output<S>>
  // biome-ignore lint/suspicious/noExplicitAny: the same
  call(input: unknown, options: CallOptions): Promise<any>
  call(input: unknown, options: CallOptions | boolean = {}): Promise<unknown> {
    const instance = this.#instance
    if (instance?.context === undefined) throw new Error("Cannot send inputs to instance before spawning it.")
    return typeof options === "boolean"
      ? call(instance, input, {}).then((answer) => (options ? this.#parse(answer) : answer))
      : call(instance, input, options)
  }

  #parse(answer: unknown): unknown {
    if (typeof answer !== "string") return answer
    try {
      return JSON.parse(answer)
    } catch (error) {
      this.#lines.emit(`[ERROR] forced parsing failed: ${error instanceof Error ? error.message : error}\n`)
      return answer
    }
  }

  /**
   * Lets the process go: what runs has `disposeTimeout` to end, then it is stopped by force. The instance can be spawned again.
   * Without a process it does nothing.
   */
  dispose(): Promise<void> {
    const instance = this.#instance
    if (instance !== undefined) {
      this.#instance = undefined
      // What is under way fails, and the next one begins anew.
      this.#spawning = undefined
      const disposing = this.#dispose(instance, this.#disposing).finally(() => {
        if (this.#disposing === disposing) this.#disposing = undefined
      })
      this.#disposing = disposing
    }
    return this.#disposing ?? Promise.resolve()
  }

  async #dispose({ context, scope, starting }: Instance, before: Promise<void> | undefined): Promise<void> {
    starting.abort()
    await before?.catch(() => {})
    const pids = context === undefined ? [] : await Effect.runPromise(Effect.provideContext(processIds, context))
    await Effect.runPromise(Scope.close(scope, Exit.void))
    this.#lines.end()
    const alive = pids.find(isAlive)
    if (alive !== undefined) throw new Error(`Cannot kill instance with PID: ${alive}`)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }
}

/** One whose processes ended too often is not alive. */
const revive = Effect.flatMap(Core.status, ({ state }) => (state === "failed" ? Core.reload : Effect.void))

const processIds = Effect.map(Core.status, ({ workers }) => workers.flatMap(({ pid }) => pid ?? []))

const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** The options of the service; throws what is missing, before anything is started. */
const optionsOf = (
  { protocol = "auto", ...options }: SynapseOptions,
  directory: string,
  entrypoint: string
): Core.SynapseOptions => {
  const name = entrypoint.replace(/\.py$/, "")
  if (!existsSync(directory)) throw new Error(`Directory "${directory}" does not exist.`)
  const file = filesOf(name).find((file) => existsSync(join(directory, file)))
  if (file === undefined) throw new Error(`Entrypoint "${name}.py" does not exist.`)
  const spoken = protocol === "auto" ? detectProtocol(directory, file) : protocol === "native" ? undefined : protocol
  if (spoken !== undefined && isInstalled(options.environment) && !existsSync(join(directory, "requirements.txt"))) {
    throw new Error('"requirements.txt" file is missing.')
  }
  return { ...options, directory, entrypoint, protocol: spoken }
}

/** The files that an entrypoint may be; `"package.module"` is one of a native module. */
const filesOf = (name: string): ReadonlyArray<string> => {
  const path = name.replaceAll(".", "/")
  return [`${name}.py`, `${path}.py`, join(path, "__init__.py")]
}

/** Whether the module's own list says what is installed. */
const isInstalled = (environment: SynapseOptions["environment"]): boolean => {
  const { mode = "venv", requirements } = typeof environment === "object" ? environment : { mode: environment }
  return mode === "venv" && requirements === undefined
}

const lineOf = ({ exception, message }: Core.LogRecord): string =>
  `🐍 Python: ${exception === undefined ? message : `${message}\n${exception}`}\n`

const call = async (instance: Instance, input: unknown, options: CallOptions): Promise<unknown> => {
  const { schema, signal, ...rest } = options
  const standard = schema !== undefined && "~standard" in schema && !Schema.isSchema(schema) ? schema : undefined
  const decoder = schema === undefined || standard !== undefined ? Schema.Unknown : (schema as Schema.Decoder<unknown>)
  const answer = Core.call(decoder, input, rest)
  const exit = await Effect.runPromiseExit(Effect.provideContext(answer, instance.context!), { signal })
  if (Exit.isSuccess(exit)) return standard === undefined ? exit.value : validate(standard, exit.value, rest.method)
  if (signal?.aborted === true && Cause.hasInterruptsOnly(exit.cause)) throw signal.reason
  const error = rejectionOf(Cause.squash(exit.cause))
  const reason = error instanceof SynapseError ? error.reason : undefined
  // What a script says is the error, and nothing around it.
  throw instance.protocol !== undefined && reason?._tag === "HandlerFailed" ? reason.error : error
}

const validate = async (schema: StandardSchema, value: unknown, method = "main"): Promise<unknown> => {
  const result = await schema["~standard"].validate(value)
  if (result.issues === undefined) return result.value
  const [first] = result.issues
  const path = (first?.path ?? []).map((each) => (typeof each === "object" ? each.key : each))
  throw new SynapseError({
    reason: new DecodeFailed({
      side: "typescript",
      what: "reply",
      method,
      path: path.reduce<string>((all, key) => all + (typeof key === "number" ? `[${key}]` : `.${String(key)}`), "$"),
      issue: first?.message ?? "it does not fit",
      delivery: "unknown"
    })
  })
}
