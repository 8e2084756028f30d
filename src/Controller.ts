/**
 * An instance of a Python class, opened by name: its methods are functions, its properties are set and read, and what a
 * method sends before its result are messages.
 *
 * A class that derives from `synapse.Controller` is opened with `Synapse.controller`. Without a contract, any name is a
 * method. With a type of TypeScript the names have types, and with an `RpcGroup` the values are encoded and checked too.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import type * as Rpc from "effect/rpc/Rpc"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { isMethod } from "./internal/controllerNames.ts"
import { makeMessages } from "./internal/progress.ts"
import { type Callee, type Method, methodOf } from "./internal/rpcMethod.ts"
import type { RemoteObject } from "./RemoteObject.ts"
import type { Acquire, CallOptions } from "./Synapse.ts"
import { Closed, SynapseError } from "./SynapseError.ts"

/**
 * What Python gives or takes where nothing says what that is.
 *
 * @category models
 * @since 0.1.0
 */
// biome-ignore lint/suspicious/noExplicitAny: a class that nothing describes is used as in Python
export type Value = any

/**
 * How a controller is opened and called.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<Properties = Record<string, unknown>> {
  /** The class, by the name that it has in Python. Default: `"Controller"`. */
  readonly name?: string | undefined
  /** Set before anything is called. Default: none. */
  readonly properties?: Partial<Properties> | undefined
  /**
   * How many of its calls run at once. With 1, each is sent when the one before it has ended, in the order in which they
   * were made. Default: 1.
   */
  readonly concurrency?: number | "unbounded" | undefined
  /** How it is opened and how its calls are made. `timeout` does not count waiting for the calls before. */
  readonly options?: Pick<CallOptions, "timeout" | "maxTimeout" | "queueTimeout" | "affinity" | "headers" | "onCancel">
}

/**
 * A partial result that a method has sent.
 *
 * @category models
 * @since 0.1.0
 */
export interface Message {
  readonly data: Value
  /** The method that sent it. */
  readonly method: string
  /** Tells the calls of one controller apart: the first is 1. */
  readonly call: number
}

/**
 * A class of which nothing is known: any name is a method, which takes and gives anything.
 *
 * @category models
 * @since 0.1.0
 */
export interface Dynamic {
  readonly [method: string]: (...input: ReadonlyArray<Value>) => Value
}

/**
 * The properties of a class: the members of its type that are no functions.
 *
 * @category models
 * @since 0.1.0
 */
export type PropertiesOf<Shape> = string extends keyof Shape
  ? Record<string, Value>
  : { [Name in keyof Shape as Shape[Name] extends (...input: never) => unknown ? never : Name]: Shape[Name] }

/**
 * The methods of a class as effects.
 *
 * @category models
 * @since 0.1.0
 */
export type MethodsOf<Shape> = {
  readonly [Name in keyof Shape as Shape[Name] extends (...input: never) => unknown
    ? Name
    : never]: Shape[Name] extends (...input: infer Input) => infer Output
    ? (...input: Input) => Effect.Effect<Awaited<Output>, SynapseError>
    : never
}

/**
 * The methods of a class that an `RpcGroup` describes: as effects and, where an RPC has `stream: true`, as streams.
 *
 * @category models
 * @since 0.1.0
 */
export type MethodsOfGroup<Rpcs extends Rpc.Any> = {
  readonly [Current in Rpcs as Current["_tag"]]: (
    ...input: InputOf<Rpc.PayloadConstructor<Current>>
  ) => Rpc.Success<Current> extends Stream.Stream<infer Item, infer E, infer R>
    ? Stream.Stream<Item, E | Rpc.Error<Current> | SynapseError, R | Rpc.ServicesClient<Current>>
    : Effect.Effect<Rpc.Success<Current>, Rpc.Error<Current> | SynapseError, Rpc.ServicesClient<Current>>
}

type InputOf<Input> = [Input] extends [void] ? [] : {} extends Input ? [input?: Input] : [input: Input]

/**
 * What every controller has beside the methods of its class.
 *
 * **Details**
 *
 * A method of one of these names is called with `callMethod`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Controls<Properties = Record<string, Value>> {
  /**
   * Calls a method by its name. Without an argument, `{}` is sent; several are sent as a list.
   *
   * It fails with `MethodNotFound` where the class has no such method, and as `Synapse.call` does otherwise; with `Closed` once
   * the controller has been ended.
   */
  readonly callMethod: (name: string, ...input: ReadonlyArray<unknown>) => Effect.Effect<Value, SynapseError>
  /** Sets a property. One that the class annotates takes values of that type only: `DecodeFailed`. */
  readonly setProperty: <Name extends keyof Properties & string>(
    name: Name,
    value: Properties[Name]
  ) => Effect.Effect<void, SynapseError>
  /** Reads a property. It fails with a `PythonException`, an `AttributeError`, where there is none. */
  readonly getProperty: <Name extends keyof Properties & string>(
    name: Name
  ) => Effect.Effect<Properties[Name], SynapseError>
  /**
   * Calls a method, for what it sends before its result, or yields where it is a generator: in order, all of it. The
   * stream ends with the call, and the call with the stream.
   */
  readonly messages: (name: string, ...input: ReadonlyArray<unknown>) => Stream.Stream<Value, SynapseError>
  /**
   * Listens to what all of the methods send, until the scope closes: in order, one at a time. A call ends when its messages
   * have been listened to.
   */
  readonly onMessage: <R>(
    listener: (data: Value, message: Message) => Effect.Effect<unknown, never, R>
  ) => Effect.Effect<void, never, R | Scope.Scope>
  /**
   * Lets go of the instance when the calls that have been made are done; those that come later fail with `Closed`. Closing
   * the scope does so at once.
   */
  readonly end: Effect.Effect<void>
}

/**
 * An open controller.
 *
 * @category models
 * @since 0.1.0
 */
export type Controller<Shape = Dynamic> = Controls<PropertiesOf<Shape>> & MethodsOf<Shape>

/**
 * An open controller whose class an `RpcGroup` describes.
 *
 * @category models
 * @since 0.1.0
 */
export type ControllerOf<Rpcs extends Rpc.Any> = Controls & MethodsOfGroup<Rpcs>

/**
 * Opens a controller.
 *
 * @see `Synapse.controller` for what it does
 * @category models
 * @since 0.1.0
 */
export interface Open<S = never> {
  <Rpcs extends Rpc.Any>(
    contract: RpcGroup.RpcGroup<Rpcs>,
    options?: Options | undefined
  ): Effect.Effect<ControllerOf<Rpcs>, SynapseError, S | Scope.Scope>
  <Shape extends object = Dynamic>(
    options?: Options<PropertiesOf<Shape>> | undefined
  ): Effect.Effect<Controller<Shape>, SynapseError, S | Scope.Scope>
}

/**
 * Makes the `controller` of a runtime.
 *
 * @internal
 */
export const makeOpen = <S>(acquire: Effect.Effect<Acquire, never, S>): Open<S> =>
  // What is known of the types is used above; below, any name may be a method.
  ((first: RpcGroup.RpcGroup<Rpc.Any> | Options | undefined, second: Options | undefined) =>
    first !== undefined && "requests" in first
      ? open(acquire, second ?? {}, first)
      : open(acquire, first ?? {})) as never

const open = Effect.fnUntraced(function* <S>(
  acquire: Effect.Effect<Acquire, never, S>,
  settings: Options,
  contract?: RpcGroup.RpcGroup<Rpc.Any> | undefined
): Effect.fn.Return<object, SynapseError, S | Scope.Scope> {
  const { name = "Controller", options, properties = {} } = settings
  const scope = yield* Scope.fork(yield* Effect.scope)
  const object = yield* Scope.provide((yield* acquire)(properties, { ...options, method: name }), scope)
  const session = new Session(object, scope, settings)
  return contract === undefined ? named(session) : described(session, contract)
})

type Listener = (data: unknown, message: Message) => Effect.Effect<unknown>

/** The instance, its calls in their order, and who listens to them. */
class Session implements Callee {
  readonly #object: RemoteObject
  readonly #scope: Scope.Closeable
  readonly #options: Options["options"]
  readonly #size: number
  readonly #permits: Semaphore.Semaphore
  readonly #listeners = new Set<Listener>()
  readonly controls: Controls
  #calls = 0
  #ended = false

  constructor(object: RemoteObject, scope: Scope.Closeable, { concurrency = 1, options }: Options) {
    this.#object = object
    this.#scope = scope
    this.#options = options
    this.#size = concurrency === "unbounded" ? Number.MAX_SAFE_INTEGER : Math.max(1, concurrency)
    this.#permits = Semaphore.makeUnsafe(this.#size)
    const callMethod: Controls["callMethod"] = (method, ...input) => this.call(Schema.Any, inputOf(input), { method })
    this.controls = {
      callMethod,
      setProperty: (name, value) => Effect.asVoid(callMethod("setProperty", { name, value })),
      getProperty: (name) => callMethod("getProperty", { name }),
      messages: (method, ...input) => this.stream(Schema.Any, inputOf(input), { method }),
      onMessage: (listener) => this.#listen(listener),
      end: this.#end
    }
  }

  readonly call: Callee["call"] = (schema, input, options) =>
    this.#inTurn((call) => {
      const { method = "" } = options ?? {}
      const progress = makeMessages(Schema.Any, (data) => this.#hear({ data, method, call }))
      return this.#object.call(schema, input, { ...this.#options, ...options, method, progress } as never)
    }) as never

  /** What a generator yields, or any other method sends. */
  readonly stream: Callee["stream"] = (schema, input, options) =>
    Stream.scoped(
      Stream.unwrap(
        Effect.map(this.#takeTurn, (call) => {
          const { method = "" } = options ?? {}
          const asked = { ...this.#options, ...options, method }
          const sent = Stream.callback<unknown, SynapseError, unknown>((queue) => {
            const progress = makeMessages(schema, (data) =>
              Effect.andThen(this.#hear({ data, method, call }), Queue.offer(queue, data))
            )
            const done = this.#object.call(Schema.Any, input, { ...asked, progress } as never)
            return Effect.andThen(done, Queue.end(queue))
          })
          return Stream.catchIf(this.#object.stream(schema, input, asked as never), isNoStream, () => sent)
        })
      )
    ) as never

  #inTurn<A, R>(use: (call: number) => Effect.Effect<A, SynapseError, R>): Effect.Effect<A, SynapseError, R> {
    return Effect.suspend(() => {
      if (this.#ended) return Effect.fail(closed())
      const call = ++this.#calls
      return this.#permits.withPermit(Effect.suspend(() => use(call)))
    })
  }

  readonly #takeTurn: Effect.Effect<number, SynapseError, Scope.Scope> = Effect.suspend(() => {
    if (this.#ended) return Effect.fail(closed())
    const call = ++this.#calls
    return Effect.as(this.#permits.takeScoped(1), call)
  })

  #hear(message: Message): Effect.Effect<void> {
    return Effect.forEach(Array.from(this.#listeners), (listener) => listener(message.data, message), { discard: true })
  }

  #listen<R>(
    listener: (data: Value, message: Message) => Effect.Effect<unknown, never, R>
  ): Effect.Effect<void, never, R | Scope.Scope> {
    return Effect.contextWith((context: Context.Context<R | Scope.Scope>) => {
      const own: Listener = (data, message) => Effect.provideContext(listener(data, message), context)
      this.#listeners.add(own)
      return Effect.addFinalizer(() => Effect.sync(() => this.#listeners.delete(own)))
    })
  }

  readonly #end: Effect.Effect<void> = Effect.suspend(() => {
    this.#ended = true
    const { state } = this.#scope
    if (state._tag === "Closed") return Effect.void
    // All turns are taken when nobody else has one, or waits for one.
    return this.#permits.withPermits(this.#size)(Scope.close(this.#scope, Exit.void))
  })
}

const closed = () => new SynapseError({ reason: new Closed({ delivery: "notSent" }) })

const isNoStream = ({ reason }: SynapseError): boolean =>
  reason._tag === "Unsupported" && reason.delivery === "rejected"

const inputOf = (input: ReadonlyArray<unknown>): unknown => {
  if (input.length > 1) return input
  return input[0] === undefined ? {} : input[0]
}

/** Every name that can be one is a method. */
const named = ({ controls }: Session): object => {
  const methods = new Map<string, (...input: ReadonlyArray<unknown>) => unknown>()
  return new Proxy(controls, {
    get: (target, name, receiver) => {
      if (Object.hasOwn(target, name) || !isMethod(name)) return Reflect.get(target, name, receiver)
      let method = methods.get(name)
      if (method === undefined) {
        method = (...input) => target.callMethod(name, ...input)
        methods.set(name, method)
      }
      return method
    }
  })
}

/** The RPCs of a group are its methods. */
const described = (session: Session, contract: RpcGroup.RpcGroup<Rpc.Any>): object => {
  const methods: Record<string, unknown> = Object.create(null)
  for (const rpc of contract.requests.values()) {
    const method = methodOf(rpc as Rpc.Any as Rpc.AnyWithProps)
    methods[method.name] = (input?: unknown) => calling(session, method, input)
  }
  return { ...methods, ...session.controls }
}

const calling = (session: Session, method: Method, input: unknown) => {
  const options = { method: method.name }
  const payload = method.make(input)
  return method.isStream
    ? Stream.unwrap(Effect.map(payload, (payload) => method.stream(session, payload, options)))
    : Effect.flatMap(payload, (payload) => method.call(session, payload, options))
}
