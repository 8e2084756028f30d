/**
 * Any `RpcGroup` of `effect/rpc`, served by Python.
 *
 * An RPC is a handler of the module: its tag is the handler's name, its payload the arguments, its success what the handler
 * returns or, of a stream, yields, and its errors the declared `synapse.Error`s of the same tag. {@link client} is the
 * typed client of a group. {@link layerProtocol} carries clients that `RpcClient.make` makes, and all that is built on
 * them; {@link handlers} puts Python behind an RPC server, an entity or `RpcTest`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Headers from "effect/http/Headers"
import * as Layer from "effect/Layer"
import type * as Rpc from "effect/rpc/Rpc"
import * as RpcClient from "effect/rpc/RpcClient"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import * as RpcMessage from "effect/rpc/RpcMessage"
import type * as RpcMiddleware from "effect/rpc/RpcMiddleware"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import { discard } from "./internal/rpcDiscard.ts"
import { type Method, methodOf } from "./internal/rpcMethod.ts"
import * as RpcOptions from "./internal/rpcOptions.ts"
import * as RpcProtocol from "./internal/rpcProtocol.ts"
import * as Synapse from "./Synapse.ts"
import { isSynapseError, type SynapseError } from "./SynapseError.ts"

/**
 * The client of a group. Beside the errors that an RPC declares, its calls fail with a {@link SynapseError}.
 *
 * @category models
 * @since 0.1.0
 */
export type Client<Group> = RpcClient.FromGroup<Group, SynapseError>

/**
 * Handlers for a group, as `RpcGroup.toLayer` takes them.
 *
 * @category models
 * @since 0.1.0
 */
export type Handlers<Rpcs extends Rpc.Any> = {
  readonly [Current in Rpcs as Current["_tag"]]: Rpc.ToHandlerFn<Current, Rpc.ServicesClient<Current>>
}

/**
 * How the calls of an RPC are made: what `Synapse.call` takes, without the method, the payload and the headers, which are the
 * RPC's.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends RpcOptions.Options {}

/**
 * How calls are made: as an annotation of an RPC all of its calls, as a service those of the fiber.
 *
 * **Details**
 *
 * {@link withOptions} goes before an annotation, and an annotation before the `options` of a client. {@link layerProtocol}
 * knows nothing of annotations.
 *
 * **Example** (An RPC that may take long)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Rpc, RpcGroup } from "effect/rpc"
 * import { SynapseRpc } from "effect-synapse"
 *
 * const Models = RpcGroup.make(
 *   Rpc.make("train", { payload: { epochs: Schema.Int }, success: Schema.String }).annotate(SynapseRpc.Options, {
 *     timeout: "10 minutes",
 *     idempotent: true
 *   })
 * )
 * ```
 *
 * @category references
 * @since 0.1.0
 */
export const Options: Context.Reference<Options> = RpcOptions.Options

/**
 * Makes the calls of an effect or a stream with these options, over those that are set already.
 *
 * **Example** (Calls that belong together)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Rpc, RpcGroup } from "effect/rpc"
 * import { SynapseRpc } from "effect-synapse"
 *
 * const Greetings = RpcGroup.make(Rpc.make("greet", { payload: { name: Schema.String }, success: Schema.String }))
 *
 * const program = Effect.gen(function*() {
 *   const python = yield* SynapseRpc.client(Greetings)
 *   return yield* python.greet({ name: "Ada" })
 * }).pipe(Effect.scoped, SynapseRpc.withOptions({ timeout: "5 seconds", affinity: "ada" }))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const withOptions =
  (options: Options) =>
  <Calls extends Effect.Effect<unknown, unknown, unknown> | Stream.Stream<unknown, unknown, unknown>>(
    self: Calls
  ): Calls => {
    const update = (current: Options): Options => ({ ...current, ...options })
    return (
      Stream.isStream(self)
        ? Stream.updateService(self, Options, update)
        : Effect.updateService(self as Effect.Effect<unknown, unknown, unknown>, Options, update)
    ) as Calls
  }

/**
 * Which runtime serves, and how calls are made.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServedBy<R> {
  /**
   * The runtime: the key of one (`Synapse.Service`), or an effect that gives one, such as `Effect.succeed(runtime)`. Default:
   * `Synapse.Synapse`.
   */
  readonly runtime?: Effect.Effect<Synapse.Runtime, never, R> | undefined
  /** How all calls are made that do not say otherwise. Default: as the runtime makes them. */
  readonly options?: Options | undefined
}

/**
 * What {@link client} can be told.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions<R, Flatten extends boolean = false> extends ServedBy<R> {
  /** Whether the client is one function that takes the tag of an RPC first, instead of a record of them. Default: `false`. */
  readonly flatten?: Flatten | undefined
  /** Stands before the tag in the names of spans, with a dot between them. Default: nothing does. */
  readonly spanPrefix?: string | undefined
  /** Attributes of spans beside `rpc.system.name` (`"synapse"`) and `rpc.method`. */
  readonly spanAttributes?: Readonly<Record<string, unknown>> | undefined
  /** Whether a call has no span of its own. Python then knows the span that it was made in. Default: `false`. */
  readonly disableTracing?: boolean | undefined
}

/**
 * The typed client of a group whose RPCs are handlers in Python.
 *
 * **Details**
 *
 * It has the shape that `RpcClient.make` gives it: a call is an `Effect`, one of an RPC with `stream: true` a `Stream`. It
 * fails with the errors that the RPC declares, as their own classes, and with a {@link SynapseError} for everything else: an
 * exception that was not declared, a payload that does not fit its schema, a time-out, a worker that died. Nothing of it is a
 * defect.
 *
 * - Headers (the option of a call, `RpcClient.withHeaders`) are in `synapse.context().headers`, the span of the call in
 *   `synapse.context().trace`.
 * - With `discard: true` a call is done when a worker has it. It ends with the scope at the latest; a failure that is not
 *   declared is logged.
 * - The client half of middleware runs around the whole call: its `next` fails and succeeds as the call does. Of a stream it
 *   ends before the first item.
 * - Python makes as many items of a stream as are wanted; `streamBufferSize` is the room of the queue of `asQueue`.
 *
 * **Example** (A group that Python serves)
 *
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { Rpc, RpcGroup } from "effect/rpc"
 * import { SynapseRpc } from "effect-synapse"
 *
 * const Assistant = RpcGroup.make(
 *   Rpc.make("greet", { payload: { name: Schema.String }, success: Schema.String }),
 *   Rpc.make("chat", { payload: { prompt: Schema.String }, success: Schema.String, stream: true })
 * )
 *
 * const program = Effect.gen(function*() {
 *   const python = yield* SynapseRpc.client(Assistant)
 *   const greeting = yield* python.greet({ name: "Ada" })
 *   const words = yield* python.chat({ prompt: "hi" }).pipe(Stream.runCollect)
 *   return [greeting, ...words]
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const client = <Rpcs extends Rpc.Any, const Flatten extends boolean = false, R = Synapse.Synapse>(
  group: RpcGroup.RpcGroup<Rpcs>,
  options?: ClientOptions<R, Flatten> | undefined
): Effect.Effect<
  Flatten extends true ? RpcClient.RpcClient.Flat<Rpcs, SynapseError> : RpcClient.RpcClient<Rpcs, SynapseError>,
  never,
  R | Rpc.MiddlewareClient<Rpcs> | Scope.Scope
> =>
  // What is known of the types is used above; below, each value meets its own schema.
  Effect.gen(function* () {
    const client: ClientParts = {
      runtime: yield* runtimeOf(options),
      services: yield* Effect.context<Scope.Scope>(),
      settings: options ?? {}
    }
    const functions: Record<string, Caller> = Object.create(null)
    for (const [tag, rpc] of group.requests) functions[tag] = callerOf(client, rpc as Rpc.Any as Rpc.AnyWithProps)
    if (options?.flatten !== true) return functions
    return (tag: string, input: unknown, own?: OwnOptions | undefined) => functions[tag]!(input, own)
  }) as never

interface ClientParts {
  readonly runtime: Synapse.Runtime
  readonly services: Context.Context<Scope.Scope>
  readonly settings: Omit<ClientOptions<never, boolean>, "runtime">
}

/** What one call may be told: see `RpcClient`. */
interface OwnOptions {
  readonly headers?: Headers.Input | undefined
  readonly discard?: boolean | undefined
  readonly asQueue?: boolean | undefined
  readonly streamBufferSize?: number | undefined
}

type Calls = Effect.Effect<unknown, unknown, unknown> | Stream.Stream<unknown, unknown, unknown>
type Caller = (input: unknown, own: OwnOptions | undefined) => Calls

type Sent = Pick<RpcMessage.Request<Rpc.Any>, "headers"> & { readonly payload: unknown }
type Send = (sent: Sent) => Effect.Effect<unknown, unknown, unknown>

const runtimeOf = <R>(options: ServedBy<R> | undefined): Effect.Effect<Synapse.Runtime, never, R> =>
  // Without one, `R` is the key of the default.
  options?.runtime ??
  (Synapse.Synapse as Effect.Effect<Synapse.Runtime, never, Synapse.Synapse | R> as Effect.Effect<
    Synapse.Runtime,
    never,
    R
  >)

const preparedOf = (rpc: Rpc.AnyWithProps, options: Options | undefined): Synapse.CallOptions => ({
  ...options,
  ...Context.get(rpc.annotations, Options),
  method: rpc._tag
})

const callerOf = (client: ClientParts, rpc: Rpc.AnyWithProps): Caller => {
  const method = methodOf(rpc)
  return method.isStream ? streamCaller(client, rpc, method) : effectCaller(client, rpc, method)
}

const effectCaller = (client: ClientParts, rpc: Rpc.AnyWithProps, method: Method): Caller => {
  const { runtime, services, settings } = client
  const prepared = preparedOf(rpc, settings.options)
  const scope = Context.get(services, Scope.Scope)
  const span = spanOf(rpc, settings)

  const send: Send = ({ headers, payload }) =>
    Effect.withFiber((fiber) => method.call(runtime, payload, RpcOptions.optionsOf(fiber, prepared, headers)))
  const sendAway: Send = ({ headers, payload }) =>
    Effect.withFiber((fiber) =>
      discard(method.name, scope, (onSent) =>
        method.call(runtime, payload, RpcOptions.optionsOf(fiber, prepared, headers, onSent))
      )
    )
  const through = throughMiddleware(rpc, services)
  const [sent, sentAway] = [through(send), through(sendAway)]

  return (input, own) => {
    const call = requested(method, input, own, own?.discard === true ? sentAway : sent)
    return span === undefined ? call : Effect.withSpan(call, span.name, span.options)
  }
}

const streamCaller = (client: ClientParts, rpc: Rpc.AnyWithProps, method: Method): Caller => {
  const { runtime, services, settings } = client
  const prepared = preparedOf(rpc, settings.options)
  const span = spanOf(rpc, settings)

  // It is opened when the middleware has let it through, in the context that it was let through in.
  const open: Send = ({ headers, payload }) =>
    Effect.withFiber((fiber) => {
      const stream = method.stream(runtime, payload, RpcOptions.optionsOf(fiber, prepared, headers))
      return Effect.succeed(Stream.provideContext(stream, fiber.context))
    })
  const opened = throughMiddleware(rpc, services)(open)

  return (input, own) => {
    const stream = Stream.unwrap(requested(method, input, own, opened) as Effect.Effect<Stream.Stream<unknown>>)
    const spanned = span === undefined ? stream : Stream.withSpan(stream, span.name, span.options)
    return own?.asQueue === true ? Stream.toQueue(spanned, { capacity: own.streamBufferSize ?? 16 }) : spanned
  }
}

/** The payload is made, and sent with the headers of the fiber and of the call. */
const requested = (method: Method, input: unknown, own: OwnOptions | undefined, send: Send) =>
  Effect.withFiber<unknown, unknown, unknown>((fiber) =>
    Effect.flatMap(method.make(input), (payload) =>
      send({ payload, headers: RpcOptions.headersOf(fiber, own?.headers) })
    )
  )

interface SpanParts {
  readonly name: string
  readonly options: Tracer.SpanOptions
}

const spanOf = (
  { _tag }: Rpc.AnyWithProps,
  { disableTracing, spanAttributes, spanPrefix }: ClientParts["settings"]
): SpanParts | undefined => {
  if (disableTracing === true) return undefined
  const attributes = { "rpc.system.name": "synapse", "rpc.method": _tag, ...spanAttributes }
  const name = spanPrefix === undefined ? _tag : `${spanPrefix}.${_tag}`
  return { name, options: { kind: "client", attributes, captureStackTrace: false } }
}

type ClientMiddleware = RpcMiddleware.RpcMiddlewareClient<unknown, unknown, unknown>

let lastRequest = 0

/** The client half of each middleware, the last of them outermost. Those without one are the server's alone. */
const throughMiddleware = (rpc: Rpc.AnyWithProps, services: Context.Context<never>): ((send: Send) => Send) => {
  const found = Array.from(rpc.middlewares, ({ key }) =>
    Context.getOrUndefined(services, Context.Service<never, ClientMiddleware>(`${key}/Client`))
  ).filter((middleware) => middleware !== undefined)
  if (found.length === 0) return (send) => send
  return (send) => {
    const sent = found.reduce<ClientMiddleware | Send>(
      (next, middleware) => ((request: never) => middleware({ rpc, request, next: next as never })) as Send,
      send
    ) as (request: RpcMessage.Request<Rpc.Any>) => Effect.Effect<unknown, unknown, unknown>
    return ({ headers, payload }) => Effect.withFiber((fiber) => sent(requestOf(rpc, headers, payload, fiber)))
  }
}

const requestOf = (
  rpc: Rpc.AnyWithProps,
  headers: Headers.Headers,
  payload: unknown,
  { cache }: Fiber.Fiber<unknown, unknown>
): RpcMessage.Request<Rpc.Any> => ({
  _tag: "Request",
  id: RpcMessage.RequestId(++lastRequest),
  tag: rpc._tag as never,
  payload: payload as never,
  headers,
  ...(cache.span && { traceId: cache.span.traceId, spanId: cache.span.spanId, sampled: cache.span.sampled })
})

/**
 * Handlers of a group that Python has: for everything that serves or is tested with a group.
 *
 * **When to use**
 *
 * Use to put Python behind an RPC server, over HTTP or a socket, or behind `RpcTest`; in an entity, use {@link client}.
 *
 * **Details**
 *
 * The server halves of middleware run on this side. Headers and the span of a request reach Python. A {@link SynapseError} is
 * a defect of the handler, unless the RPC declares it as its error.
 *
 * **Example** (A client of a server that is Python)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Rpc, RpcGroup, RpcTest } from "effect/rpc"
 * import { SynapseRpc } from "effect-synapse"
 *
 * const Greetings = RpcGroup.make(Rpc.make("greet", { payload: { name: Schema.String }, success: Schema.String }))
 *
 * const program = Effect.gen(function*() {
 *   const client = yield* RpcTest.makeClient(Greetings)
 *   return yield* client.greet({ name: "Ada" })
 * }).pipe(Effect.scoped, Effect.provide(Greetings.toLayer(SynapseRpc.handlers(Greetings))))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const handlers = <Rpcs extends Rpc.Any, R = Synapse.Synapse>(
  group: RpcGroup.RpcGroup<Rpcs>,
  options?: ServedBy<R> | undefined
): Effect.Effect<Handlers<Rpcs>, never, R> =>
  Effect.map(runtimeOf(options), (runtime) => {
    const functions: Record<string, Handler> = Object.create(null)
    for (const [tag, rpc] of group.requests) {
      functions[tag] = handlerOf(runtime, rpc as Rpc.Any as Rpc.AnyWithProps, options?.options)
    }
    return functions as never
  })

type Handler = (payload: unknown, request: { readonly headers: Headers.Headers }) => Calls

const handlerOf = (runtime: Synapse.Runtime, rpc: Rpc.AnyWithProps, options: Options | undefined): Handler => {
  const method = methodOf(rpc)
  const prepared = preparedOf(rpc, options)
  const isUndeclared = (error: unknown): error is SynapseError => isSynapseError(error) && !method.declares(error)
  const optionsOf = (fiber: Fiber.Fiber<unknown, unknown>, own: Headers.Headers) =>
    RpcOptions.optionsOf(fiber, prepared, RpcOptions.headersOf(fiber, own))
  if (!method.isStream) {
    return (payload, { headers }) =>
      Effect.catchIf(
        Effect.withFiber((fiber) => method.call(runtime, payload, optionsOf(fiber, headers))),
        isUndeclared,
        Effect.die
      )
  }
  return (payload, { headers }) =>
    Stream.catchIf(
      Stream.unwrap(
        Effect.withFiber((fiber) => Effect.succeed(method.stream(runtime, payload, optionsOf(fiber, headers))))
      ),
      isUndeclared,
      Stream.die
    )
}

/**
 * Makes the protocol that {@link layerProtocol} is a layer of.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeProtocol = <R = Synapse.Synapse>(
  options?: ServedBy<R> | undefined
): Effect.Effect<RpcClient.Protocol["Service"], never, R | Scope.Scope> =>
  Effect.flatMap(runtimeOf(options), (runtime) => RpcProtocol.makeProtocol(runtime, options?.options ?? {}))

/**
 * {@link layerProtocol} for another runtime, or with options for all calls.
 *
 * **Example** (A second runtime)
 *
 * ```ts
 * import { Synapse, SynapseRpc } from "effect-synapse"
 *
 * class Embedder extends Synapse.Service<Embedder>()("app/Embedder") {}
 *
 * const EmbedderProtocol = SynapseRpc.layerProtocolWith({ runtime: Embedder, options: { timeout: "1 minute" } })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerProtocolWith = <R = Synapse.Synapse>(
  options: ServedBy<R>
): Layer.Layer<RpcClient.Protocol, never, R> =>
  Layer.effect(RpcClient.Protocol, makeProtocol(options)) as Layer.Layer<RpcClient.Protocol, never, R>

/**
 * The protocol that carries RPC clients to Python.
 *
 * **When to use**
 *
 * Use for what makes its clients by itself, such as `RpcClient.make`. A {@link client} costs less, and says more when
 * a call fails.
 *
 * **Details**
 *
 * Declared errors are those of the RPC. An exception that was not declared is a defect with the exception's name and message.
 * Everything else is an `RpcClientError` whose `reason.cause` is the {@link SynapseError}; its reason is `WorkerSendError`
 * where the handler did not run, `WorkerReceiveError` where it may have, and `RpcClientDefect` where the two sides do not
 * fit.
 *
 * Each stream is delivered by a fiber of its own: one that is read slowly holds up nothing else.
 *
 * **Example** (A client of Effect's own)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Rpc, RpcClient, RpcGroup } from "effect/rpc"
 * import { SynapseRpc } from "effect-synapse"
 *
 * const Greetings = RpcGroup.make(Rpc.make("greet", { payload: { name: Schema.String }, success: Schema.String }))
 *
 * const program = Effect.gen(function*() {
 *   const client = yield* RpcClient.make(Greetings)
 *   return yield* client.greet({ name: "Ada" })
 * }).pipe(Effect.scoped, Effect.provide(SynapseRpc.layerProtocol))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerProtocol: Layer.Layer<RpcClient.Protocol, never, Synapse.Synapse> = layerProtocolWith({})
