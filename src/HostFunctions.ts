/**
 * Functions of TypeScript that Python calls.
 *
 * They are an ordinary `RpcGroup` with its handlers: schemas of payloads, results and typed errors, streams, middleware
 * and tracing are those of `effect/rpc`. A runtime serves them to its module, where `synapse.host` calls them.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Headers from "effect/http/Headers"
import * as Option from "effect/Option"
import type * as Rpc from "effect/rpc/Rpc"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import * as RpcMessage from "effect/rpc/RpcMessage"
import * as RpcSchema from "effect/rpc/RpcSchema"
import * as RpcServer from "effect/rpc/RpcServer"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import type * as SchemaIssue from "effect/SchemaIssue"
import type * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import {
  endOfExit,
  failed,
  notDecoded,
  notFitting,
  type Refused,
  type RequestEnd,
  succeeded
} from "./internal/requestEnd.ts"
import type { Host, HostCall, HostConnection } from "./internal/serving.ts"
import { encodeItems } from "./internal/streamItems.ts"
import * as SchemaMsgpack from "./SchemaMsgpack.ts"

const TypeId = "~effect-synapse/HostFunctions"

/**
 * Host functions with their handlers. `R` are the services that they need; a runtime takes them from where its layer is
 * built.
 *
 * @category models
 * @since 0.1.0
 */
export interface HostFunctions<out R = never> {
  readonly [TypeId]: typeof TypeId
  /** Builds the handlers, once for a runtime. */
  readonly serve: Effect.Effect<Host, never, R | Scope.Scope>
}

/**
 * Joins an `RpcGroup` and its handlers, for the option `host` of a runtime.
 *
 * **Details**
 *
 * Handlers are what `RpcGroup.toLayer` takes: a record of functions, or an effect that builds one. Keyword arguments of
 * Python are the payload's fields. A typed error arrives as a `synapse.HostError`; a defect ends its own request and
 * nothing else. Inside a handler, `Synapse.call` may call back into the module that waits for it.
 *
 * **Gotchas**
 *
 * An effect that builds the handlers cannot fail: a runtime that cannot build them has no use for its module. Use
 * `Effect.orDie`, or build what may fail in a layer of its own.
 *
 * **Example** (A function and a stream)
 *
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { Rpc, RpcGroup } from "effect/rpc"
 * import { HostFunctions } from "effect-synapse"
 *
 * class NoSuchUser extends Schema.TaggedError<NoSuchUser>()("NoSuchUser", { id: Schema.Int }) {}
 *
 * const Users = RpcGroup.make(
 *   Rpc.make("nameOf", { payload: { id: Schema.Int }, success: Schema.String, error: NoSuchUser }),
 *   Rpc.make("ids", { success: Schema.Int, stream: true })
 * )
 *
 * const host = HostFunctions.make(Users, {
 *   nameOf: ({ id }) => (id === 1 ? Effect.succeed("Ada") : Effect.fail(new NoSuchUser({ id }))),
 *   ids: () => Stream.make(1, 2, 3)
 * })
 * ```
 *
 * In Python, `await synapse.host.call("nameOf", id=1)` gives `"Ada"`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <Rpcs extends Rpc.Any, Handlers extends RpcGroup.HandlersFrom<Rpcs>, RX = never>(
  group: RpcGroup.RpcGroup<Rpcs>,
  handlers: Handlers | Effect.Effect<Handlers, never, RX>
): HostFunctions<
  Exclude<RX, Scope.Scope> | RpcGroup.HandlersServices<Rpcs, Handlers> | Rpc.Middleware<Rpcs> | Rpc.ServicesServer<Rpcs>
> => ({
  [TypeId]: TypeId,
  // What is known of the types was used above; below, each value meets its own schema.
  serve: serve(group as unknown as RpcGroup.RpcGroup<Rpc.Any>, handlers as never)
})

const serve = Effect.fnUntraced(function* (
  group: RpcGroup.RpcGroup<Rpc.Any>,
  build: RpcGroup.HandlersFrom<Rpc.Any>
): Effect.fn.Return<Host> {
  // A request belongs to a span of Python's, and not to the one in which the runtime was started.
  const context = Context.omit(Tracer.ParentSpan)(yield* Effect.context<never>())
  const toHandlers = group.toHandlers(build) as Effect.Effect<Context.Context<Rpc.ToHandler<Rpc.Any>>>
  const handlers = yield* Effect.updateContext(toHandlers, (_: Context.Context<never>) => context)
  const functions = new Map<string, Codecs>()
  for (const [name, rpc] of group.requests) functions.set(name, codecsOf(rpc as Rpc.Any as Rpc.AnyWithProps))
  const host: Host = {
    functions: new Map(Array.from(functions, ([name, { isStream }]) => [name, isStream])),
    context,
    connect: connect(group, Context.merge(context, handlers), functions)
  }
  return host
})

/** The schemas of an RPC, prepared. */
interface Codecs {
  readonly isStream: boolean
  readonly decodePayload: (payload: unknown) => Effect.Effect<unknown, SchemaIssue.Issue>
  /** Of the result, or of each item. */
  readonly encode: (value: unknown) => Effect.Effect<unknown, SchemaIssue.Issue>
  readonly encodeError: (error: unknown) => Effect.Effect<unknown, SchemaIssue.Issue>
}

// The services that schemas need are in the context that requests run in.
type AnyCodec = Schema.Codec<unknown, unknown>

const codecsOf = (rpc: Rpc.AnyWithProps): Codecs => {
  const stream = RpcSchema.isStreamSchema(rpc.successSchema) ? rpc.successSchema : undefined
  const errors = new Set<Schema.Top>([rpc.errorSchema])
  if (stream !== undefined) errors.add(stream.error)
  for (const middleware of rpc.middlewares) errors.add(middleware.error)
  const decodePayload = SchemaMsgpack.decode(rpc.payloadSchema as AnyCodec)
  const isRecord = SchemaAST.isObjects(SchemaAST.toEncoded(SchemaMsgpack.toCodecMsgpack(rpc.payloadSchema).ast))
  return {
    isStream: stream !== undefined,
    // No arguments at all are those of a record without required fields too.
    decodePayload: (payload) => decodePayload(isRecord ? (payload ?? {}) : (payload ?? null)),
    encode: SchemaMsgpack.encode((stream?.success ?? rpc.successSchema) as AnyCodec),
    encodeError: SchemaMsgpack.encode(Schema.Union(Array.from(errors)) as Schema.Top as AnyCodec)
  }
}

/** A request that the RPC server runs. */
interface Running {
  readonly codecs: Codecs
  readonly send: HostCall["send"]
  readonly ended: Deferred.Deferred<Refused | Exit.Exit<unknown, unknown>>
  /** Items sent. */
  count: number
}

let lastClient = 0

/** Each connection is a client of an RPC server of its own. */
const connect = Effect.fnUntraced(function* (
  group: RpcGroup.RpcGroup<Rpc.Any>,
  context: Context.Context<Rpc.ToHandler<Rpc.Any>>,
  functions: ReadonlyMap<string, Codecs>
): Effect.fn.Return<HostConnection, never, Scope.Scope> {
  const clientId = ++lastClient
  const running = new Map<RpcMessage.RequestId, Running>()
  /** The requests that are being given to the server, by the fiber that does it. */
  const starting = new Map<number, RpcMessage.RequestId>()
  let lastRequest = 0

  const end = (id: RpcMessage.RequestId, outcome: Refused | Exit.Exit<unknown, unknown>): void => {
    const request = running.get(id)
    if (request === undefined) return
    running.delete(id)
    Deferred.doneUnsafe(request.ended, Exit.succeed(outcome))
  }

  const sendItems = (id: RpcMessage.RequestId, items: ReadonlyArray<unknown>): Effect.Effect<void> => {
    const request = running.get(id)
    if (request === undefined) return Effect.interrupt
    return Effect.flatMap(encodeItems(request.codecs.encode, items, request.count), ({ items, refused }) => {
      request.count += items.length
      const sent = request.send(items)
      return refused === undefined ? sent : Effect.andThen(sent, Effect.fail(refused))
    }).pipe(
      // The server takes a failure here for one that the client knows of already.
      Effect.catchCause((cause) => {
        if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause as Cause.Cause<never>)
        const refused = Cause.findErrorOption(cause)
        end(id, Option.isSome(refused) ? refused.value : Exit.failCause(cause))
        return Effect.die(Cause.squash(cause))
      })
    )
  }

  const server = yield* RpcServer.makeNoSerialization(group, {
    disableClientAcks: true,
    disableFatalDefects: true,
    spanAttributes: { "rpc.system.name": "synapse" },
    onFromServer: (response) => {
      switch (response._tag) {
        case "Chunk":
          return sendItems(response.requestId, response.values)
        case "Exit":
          return Effect.sync(() => end(response.requestId, response.exit))
        case "Defect":
          // Thrown on the way to the handler, such as by middleware: it belongs to the request that was on that way.
          return Effect.withFiber((fiber) => {
            const id = starting.get(fiber.id)
            if (id !== undefined) end(id, Exit.die(response.defect))
            return Effect.void
          })
        case "ClientEnd":
          return Effect.void
      }
    }
  }).pipe(Effect.provideContext(context))

  const start = (request: RpcMessage.Request<Rpc.Any>): Effect.Effect<void> =>
    Effect.withFiber((fiber) => {
      starting.set(fiber.id, request.id)
      return Effect.ensuring(
        server.write(clientId, request),
        Effect.sync(() => starting.delete(fiber.id))
      )
    })

  // The handler has a fiber of the server's. Interrupting waits for it: its finalizers may take their time.
  const runHandler = (call: HostCall, codecs: Codecs, payload: unknown) =>
    Effect.uninterruptibleMask((restore) => {
      const id = RpcMessage.RequestId(++lastRequest)
      const ended = Deferred.makeUnsafe<Refused | Exit.Exit<unknown, unknown>>()
      running.set(id, { codecs, send: call.send, ended, count: 0 })
      const request = {
        _tag: "Request",
        id,
        tag: call.method as never,
        payload: payload as never,
        headers: Headers.fromInput(call.headers),
        ...call.trace
      } as const
      const interrupt = Effect.andThen(
        server.write(clientId, { _tag: "Interrupt", requestId: id, interruptors: [] }),
        Deferred.await(ended)
      )
      return Effect.andThen(
        start(request),
        Effect.onInterrupt(restore(Deferred.await(ended)), () => interrupt)
      )
    })

  return {
    run: (call) => {
      const codecs = functions.get(call.method)!
      return Effect.matchEffect(codecs.decodePayload(call.payload), {
        onFailure: (issue) => Effect.succeed<RequestEnd>(notDecoded(SchemaMsgpack.describeIssue(issue))),
        onSuccess: (payload) => Effect.flatMap(runHandler(call, codecs, payload), (outcome) => endOf(codecs, outcome))
      })
    }
  }
})

const endOf = (codecs: Codecs, outcome: Refused | Exit.Exit<unknown, unknown>): Effect.Effect<RequestEnd> => {
  if (outcome._tag === "Refused") return Effect.succeed(outcome)
  if (outcome._tag === "Success") {
    return codecs.isStream
      ? Effect.succeed(succeeded(null))
      : Effect.match(codecs.encode(outcome.value), { onSuccess: succeeded, onFailure: notFitting })
  }
  const error = Cause.findErrorOption(outcome.cause)
  return Option.isNone(error)
    ? Effect.succeed(endOfExit(Exit.failCause(outcome.cause as Cause.Cause<never>)))
    : Effect.match(codecs.encodeError(error.value), { onSuccess: failed, onFailure: notFitting })
}
