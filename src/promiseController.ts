/**
 * Controllers for programs that do not use Effect: a class of Python in a process of its own, with promises.
 *
 * `effect-synapse/promise` exports it too.
 *
 * @since 0.1.0
 */
import { existsSync } from "node:fs"
import { dirname, join } from "node:path"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Controls, Dynamic, Message, PropertiesOf, Value } from "./Controller.ts"
import { isMethod } from "./internal/controllerNames.ts"
import { rejectionOf } from "./internal/rejection.ts"
import type { SynapseOptions } from "./promise.ts"
import * as Synapse from "./Synapse.ts"
import { SynapseError } from "./SynapseError.ts"

/**
 * Where the class is, and how its process is run. Nothing is required.
 *
 * @category models
 * @since 0.1.0
 */
export interface ControllerOptions
  extends Pick<
    SynapseOptions,
    | "python"
    | "environment"
    | "env"
    | "startTimeout"
    | "callTimeout"
    | "disposeTimeout"
    | "cancelGrace"
    | "maxFrameSize"
  > {
  /** The module's directory. Default: `"python"` in the current directory, or else beside the program. */
  readonly directory?: string | undefined
  /** The file in it, with or without `.py`. Default: `"main"`; of a {@link ChatModel} `"index"`. */
  readonly entrypoint?: string | undefined
  /** The class, by the name that it has in Python. Default: `"Controller"`. */
  readonly name?: string | undefined
  /**
   * `"native"`: a module with a class that derives from `synapse.Controller`. `"json-lines"`: a script that reads calls from
   * standard input and prints replies, a line each. Default: `"native"`; of a {@link ChatModel} `"json-lines"`.
   */
  readonly protocol?: "native" | "json-lines" | undefined
  /** How many calls of a native controller run at once. Default: 1. */
  readonly concurrency?: number | "unbounded" | undefined
  /** What is done with each line that Python prints or logs. Default: `console.error`. */
  readonly onLog?: ((line: string) => void) | undefined
}

/**
 * The methods of a class with promises.
 *
 * @category models
 * @since 0.1.0
 */
export type PromiseMethods<Shape> = string extends keyof Shape
  ? { readonly [method: string]: Value }
  : {
      readonly [Name in keyof Shape as Shape[Name] extends (...input: never) => unknown
        ? Name
        : never]: Shape[Name] extends (...input: infer Input) => infer Output
        ? (...input: Input) => Promise<Awaited<Output>>
        : never
    }

/**
 * What every controller has beside the methods of its class.
 *
 * **Details**
 *
 * A method of one of these names is called with `callMethod`. A call fails with a `SynapseError`; one that a script answers
 * with an `error`, with an `Error` that has its text.
 *
 * @category models
 * @since 0.1.0
 */
export interface PromiseControls<Properties = Record<string, Value>> extends AsyncDisposable {
  /** Calls a method by its name. Without an argument, `{}` is sent; several are sent as a list. */
  readonly callMethod: (name: string, ...input: ReadonlyArray<unknown>) => Promise<Value>
  /** Sets a property. */
  readonly setProperty: <Name extends keyof Properties & string>(name: Name, value: Properties[Name]) => Promise<void>
  /** Reads a property. */
  readonly getProperty: <Name extends keyof Properties & string>(name: Name) => Promise<Properties[Name]>
  /** Calls a method, for what it sends before its result: all of it, in order. Leaving the loop gives the call up. */
  readonly messages: (name: string, ...input: ReadonlyArray<unknown>) => AsyncIterable<Value>
  /**
   * Listens to what the methods send, in order, before the result of their call. The function that is returned ends that. What a
   * listener throws is thrown in the program, as it is by one of an event.
   */
  readonly onMessage: (listener: (data: Value, message: Message) => void) => () => void
  /** Ends the process when the calls that have been made are done. Those that come later fail. */
  readonly end: () => Promise<void>
}

/**
 * An open controller.
 *
 * @category models
 * @since 0.1.0
 */
export type PromiseController<Shape = Dynamic> = PromiseControls<PropertiesOf<Shape>> & PromiseMethods<Shape>

/**
 * What opens controllers.
 *
 * @category models
 * @since 0.1.0
 */
export interface PromiseControllerClass {
  /** Starts the process; calls wait until it is ready, and fail with what keeps it from starting. */
  new <Shape extends object = Dynamic>(
    properties?: Partial<PropertiesOf<Shape>> | undefined,
    options?: ControllerOptions | undefined
  ): PromiseController<Shape>
  /** Starts the process and waits until it is ready. */
  readonly open: <Shape extends object = Dynamic>(
    properties?: Partial<PropertiesOf<Shape>> | undefined,
    options?: ControllerOptions | undefined
  ) => Promise<PromiseController<Shape>>
}

interface Opened {
  readonly controls: Controls
  readonly isScript: boolean
}

type Listener = (data: unknown, message: Message) => void

/** The process, and what is asked of it in the order in which it is. */
class Process {
  readonly #scope = Scope.makeUnsafe()
  readonly #listeners = new Set<Listener>()
  readonly #opened: Promise<Opened>
  readonly controls: PromiseControls
  #ending: Promise<void> | undefined

  constructor(properties: Record<string, unknown>, options: ControllerOptions) {
    this.#opened = this.#open(properties, options)
    // It is for those who call to say.
    this.#opened.catch(() => {})
    const end = (): Promise<void> => {
      this.#ending ??= this.#end()
      return this.#ending
    }
    this.controls = {
      callMethod: (name, ...input) => this.#run((controls) => controls.callMethod(name, ...input)),
      setProperty: (name, value) => this.#run((controls) => controls.setProperty(name, value)),
      getProperty: (name) => this.#run((controls) => controls.getProperty(name)),
      messages: (name, ...input) => this.#messages(name, input),
      onMessage: (listener) => this.#listen(listener),
      end,
      [Symbol.asyncDispose]: end
    }
  }

  async #open(properties: Record<string, unknown>, options: ControllerOptions): Promise<Opened> {
    const { concurrency, name, onLog = console.error } = options
    const settings = settingsOf(options)
    const layer = Layer.provideMerge(
      Synapse.layer({ ...settings, logs: ({ message }) => Effect.sync(() => onLog(message)) }),
      Logger.layer([Logger.make(({ message }) => onLog([message].flat().join(" ")))])
    )
    const controller = Effect.gen({ self: this }, function* () {
      const context = yield* Layer.buildWithScope(layer, this.#scope)
      const controls = yield* Effect.provideContext(Synapse.controller({ name, properties, concurrency }), context)
      yield* controls.onMessage((data, message) => Effect.sync(() => this.#hear(data, message)))
      return controls
    })
    const exit = await Effect.runPromiseExit(Scope.provide(controller, this.#scope))
    if (Exit.isSuccess(exit)) return { controls: exit.value, isScript: settings.protocol !== undefined }
    await Effect.runPromise(Scope.close(this.#scope, exit))
    throw Cause.squash(exit.cause)
  }

  #hear(data: unknown, message: Message): void {
    for (const listener of Array.from(this.#listeners)) {
      try {
        listener(data, message)
      } catch (error) {
        queueMicrotask(() => {
          throw error
        })
      }
    }
  }

  /** What keeps it from opening is told to everyone who asks. */
  async ready(): Promise<Opened> {
    try {
      return await this.#opened
    } catch (error) {
      throw rejectionOf(error)
    }
  }

  async #run(use: (controls: Controls) => Effect.Effect<Value, SynapseError>): Promise<Value> {
    const { controls, isScript } = await this.ready()
    const exit = await Effect.runPromiseExit(use(controls))
    if (Exit.isSuccess(exit)) return exit.value
    throw thrown(Cause.squash(exit.cause), isScript)
  }

  async *#messages(name: string, input: ReadonlyArray<unknown>): AsyncGenerator<Value> {
    const { controls, isScript } = await this.ready()
    try {
      yield* Stream.toAsyncIterable(controls.messages(name, ...input))
    } catch (error) {
      throw thrown(error, isScript)
    }
  }

  #listen(listener: Listener): () => void {
    // One of its own, for a function that listens twice.
    const own: Listener = (data, message) => listener(data, message)
    this.#listeners.add(own)
    return () => {
      this.#listeners.delete(own)
    }
  }

  async #end(): Promise<void> {
    const opened = await this.#opened.catch(() => undefined)
    if (opened !== undefined) await Effect.runPromise(opened.controls.end)
    await Effect.runPromise(Scope.close(this.#scope, Exit.void))
  }
}

/** A script says a text, and programs that run one catch an error with it. */
const thrown = (error: unknown, isScript: boolean): unknown => {
  const reason = error instanceof SynapseError ? error.reason : undefined
  if (!isScript || reason?._tag !== "HandlerFailed" || typeof reason.error !== "string") return rejectionOf(error)
  return new Error(reason.error, { cause: error })
}

const settingsOf = (options: ControllerOptions): Synapse.SynapseOptions => {
  const { concurrency: _, entrypoint = "main", name, onLog, protocol = "native", ...rest } = options
  const directory = options.directory ?? directoryOf(entrypoint)
  if (protocol === "native") return { ...rest, directory, entrypoint }
  // A script of its own means had what is installed on the machine.
  const lists = ["requirements.txt", "pyproject.toml"].some((list) => existsSync(join(directory, list)))
  return { environment: lists ? "venv" : "system", ...rest, directory, entrypoint, protocol }
}

const directoryOf = (entrypoint: string): string => {
  const file = join("python", `${entrypoint.replace(/\.py$/, "")}.py`)
  const beside = dirname(process.argv[1] ?? ".")
  return existsSync(file) || !existsSync(join(beside, file)) ? "python" : join(beside, "python")
}

/** Any other name is a method. */
const proxied = ({ controls }: Process): object =>
  new Proxy(controls, {
    get: (target, name) => {
      if (Object.hasOwn(target, name) || !isMethod(name)) return Reflect.get(target, name, target)
      return (...input: ReadonlyArray<unknown>) => target.callMethod(name, ...input)
    }
  })

const classOf = (defaults: ControllerOptions): PromiseControllerClass => {
  const start = (properties: object | undefined, options: ControllerOptions | undefined): Process =>
    new Process({ ...properties }, { ...defaults, ...options })
  function Controller(properties?: object, options?: ControllerOptions): object {
    return proxied(start(properties, options))
  }
  return Object.assign(Controller, {
    open: async (properties?: object, options?: ControllerOptions) => {
      const process = start(properties, options)
      await process.ready()
      return proxied(process)
    }
  }) as never
}

/**
 * A class that derives from `synapse.Controller`, in a process of its own.
 *
 * **When to use**
 *
 * Use in programs without Effect. With Effect, use `Synapse.controller`, of which this is a face.
 *
 * **Details**
 *
 * Every instance has a process. Any name is a method, but for `then`, `toJSON`, the names of `Object.prototype` and of
 * {@link PromiseControls}, and those that begin with an underscore. The calls of an instance run one after the other.
 *
 * **Example** (A counter that stays in Python)
 *
 * ```ts
 * import { Controller } from "effect-synapse/promise"
 *
 * const chat = new Controller({ model: "something" })
 * chat.onMessage((data) => console.log(data))
 * await chat.testStream()
 * console.log((await chat.increment({ by: 5 })).counter)
 * await chat.end()
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export const Controller: PromiseControllerClass = classOf({})

/**
 * A script that was written for JSON lines over `python-shell`, run as it is: `python/index.py`, unless it is told otherwise.
 *
 * **When to use**
 *
 * Use in place of the class of that name in `python_bindings.js`.
 *
 * **Details**
 *
 * It is a {@link Controller} with `protocol: "json-lines"` and `entrypoint: "index"`. Without a list of dependencies beside the
 * script, the environment is `"system"`: what is installed for the interpreter.
 *
 * @category models
 * @since 0.1.0
 */
export const ChatModel: PromiseControllerClass = classOf({ protocol: "json-lines", entrypoint: "index" })

/**
 * The same as {@link ChatModel}, by its other name.
 *
 * @category models
 * @since 0.1.0
 */
export const Bindings: PromiseControllerClass = ChatModel
