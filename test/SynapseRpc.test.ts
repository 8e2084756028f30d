/** RPCs of a real worker, through the typed client. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Latch, Layer, Logger, Queue, Stream, Tracer } from "effect"
import { Rpc, RpcClient, RpcGroup, RpcMiddleware } from "effect/rpc"
import { TestClock } from "effect/testing"
import { Synapse, SynapseError, SynapseRpc } from "effect-synapse"
import { live, upTo } from "./fixtures/dialogue.ts"
import * as modules from "./fixtures/modules.ts"
import {
  AuthClient,
  GivenContext,
  GivenStreamContext,
  Guarded,
  ModelBusy,
  Models,
  PromptTooLong,
  Token,
  Unauthorized,
  Vector
} from "./fixtures/rpc.ts"

class Python extends Context.Service<Python, SynapseRpc.Client<typeof Models>>()("test/Python") {
  static readonly layer = Layer.effect(Python, SynapseRpc.client(Models))
}

const Live = Python.layer.pipe(Layer.provideMerge(Synapse.layer(modules.rpc)))

const seenEventually = (event: string) =>
  Effect.repeat(
    Python.use((python) => python.seen()),
    { until: (events) => events.includes(event) }
  )

const nothingOpen = Effect.repeat(Synapse.stats, { until: ({ calls, streams }) => calls === 0 && streams === 0 })

const reasonOf = <A, E, R, Tag extends SynapseError.SynapseErrorReason["_tag"]>(
  self: Effect.Effect<A, E, R>,
  tag: Tag
) =>
  Effect.map(Effect.flip(self), (error) => {
    assert.instanceOf(error, SynapseError.SynapseError)
    assert.strictEqual(error.reason._tag, tag, error.message)
    return error.reason as Extract<SynapseError.SynapseErrorReason, { readonly _tag: Tag }>
  })

layer(Live, live)("a client", (it) => {
  it.effect("gives what its schemas say", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const vector = yield* python.embed({ text: "hey" })
      assert.instanceOf(vector, Vector)
      assert.deepStrictEqual({ ...vector }, { text: "hey", values: [3], blob: new TextEncoder().encode("hey") })
      assert.isUndefined(yield* python.nothing())
    })
  )

  it.effect("fails with the errors that an RPC declares, as their classes", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const long = yield* Effect.flip(python.embed({ text: "hey", fail: "long" }))
      assert.instanceOf(long, PromptTooLong)
      assert.strictEqual(long.limit, 3)
      const busy = yield* python
        .embed({ text: "hey", fail: "busy" })
        .pipe(Effect.catchTag("ModelBusy", (error) => Effect.succeed(error)))
      assert.instanceOf(busy, ModelBusy)
      assert.deepStrictEqual([busy.model, busy.message], ["large", "Try later."])
    })
  )

  it.effect("fails with a SynapseError, and no defect, for everything else", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const { error } = yield* reasonOf(python.embed({ text: "hey", fail: "unknown" }), "HandlerFailed")
      assert.deepInclude(error as object, { _tag: "Unknown" })
      const { exception } = yield* reasonOf(python.embed({ text: "hey", fail: "exception" }), "PythonException")
      assert.deepStrictEqual([exception.type, exception.message], ["ValueError", "no such text"])
      const wrong = yield* reasonOf(python.wrong(), "DecodeFailed")
      assert.deepStrictEqual([wrong.what, wrong.method, wrong.path], ["reply", "wrong", "$"])
      yield* reasonOf(python.missing(), "MethodNotFound")
    })
  )

  it.effect("says where a declared error does not fit", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const reason = yield* reasonOf(python.embed({ text: "hey", fail: "misfit" }), "DecodeFailed")
      assert.deepStrictEqual([reason.side, reason.what, reason.path], ["typescript", "error", "$.limit"])
      assert.include(reason.message, "The error of `embed` does not fit its schema")
      assert.include(reason.issue, `"many"`)
    })
  )

  it.effect("does not send a payload that does not fit", () =>
    Effect.gen(function* () {
      const python = yield* Python
      for (const call of [python.embed({ text: 1 as never }), Stream.runDrain(python.numbers({ to: 1.5 }))]) {
        const reason = yield* reasonOf<unknown, unknown, never, "EncodeFailed">(call, "EncodeFailed")
        assert.deepStrictEqual([reason.side, reason.delivery], ["typescript", "notSent"])
        assert.match(reason.path, /^\$\.(text|to)$/)
        assert.match(reason.issue, /got 1/)
      }
    })
  )

  it.effect("streams in both directions", () =>
    Effect.gen(function* () {
      const python = yield* Python
      assert.deepStrictEqual(yield* Stream.runCollect(python.words({ prompt: "a b c" })), ["a", "b", "c"])
      assert.deepStrictEqual(yield* Stream.runCollect(python.numbers({ to: 3000 })), upTo(3000))
      assert.strictEqual(yield* python.total({ factor: 2, numbers: Stream.make(1, 2, 3) }), 12)
    })
  )

  it.effect("whose stream is not read to its end closes the generator", () =>
    Effect.gen(function* () {
      const python = yield* Python
      yield* python.forget()
      assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(python.numbers({ to: 1_000_000 }), 2)), [0, 1])
      const closed = yield* Effect.repeat(python.seen(), { until: (events) => events.length > 0 })
      // Not more than it was granted.
      assert.isAtMost(Number(/\d+/.exec(closed[0]!)![0]), 64)
      yield* nothingOpen
    })
  )

  it.effect("whose stream fails gives the items before the error first", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const items: Array<string> = []
      const run = (fail: string) =>
        Stream.runForEach(python.words({ prompt: "a b", fail }), (item) => Effect.sync(() => items.push(item)))
      const long = yield* Effect.flip(run("long"))
      assert.instanceOf(long, PromptTooLong)
      assert.strictEqual(long.limit, 2)
      yield* reasonOf(run("exception"), "PythonException")
      assert.deepStrictEqual(items, ["a", "b", "a", "b"])
    })
  )

  it.effect("gives a stream as a queue", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const queue = yield* python.words({ prompt: "a b", fail: "long" }, { asQueue: true, streamBufferSize: 1 })
      assert.deepStrictEqual([yield* Queue.take(queue), yield* Queue.take(queue)], ["a", "b"])
      assert.instanceOf(yield* Effect.flip(Queue.take(queue)), PromptTooLong)
      const words = yield* python.words({ prompt: "a" }, { asQueue: true })
      assert.strictEqual(yield* Queue.take(words), "a")
      assert.isTrue(Cause.isDone(yield* Effect.flip(Queue.take(words))))
    }).pipe(Effect.scoped)
  )

  it.effect("tells Python when a call is interrupted", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const fiber = yield* Effect.forkChild(python.wait({ name: "interrupted" }))
      yield* seenEventually("interrupted began")
      yield* Fiber.interrupt(fiber)
      yield* seenEventually("interrupted cancelled")
      yield* nothingOpen
    })
  )

  it.effect("is held up by no stream that is read slowly", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const begun = yield* Deferred.make<void>()
      const gate = yield* Latch.make(false)
      const slow = yield* Effect.forkChild(
        Stream.runForEach(python.numbers({ to: 3000 }), () =>
          Effect.andThen(Deferred.succeed(begun, undefined), gate.await)
        )
      )
      yield* Deferred.await(begun)
      for (const text of ["a", "b", "c"]) assert.strictEqual((yield* python.embed({ text })).text, text)
      assert.lengthOf(yield* Stream.runCollect(python.numbers({ to: 500 })), 500)
      assert.isUndefined(slow.pollUnsafe())
      yield* gate.open
      yield* Fiber.join(slow)
    })
  )

  it.effect("sends headers along", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const { headers } = yield* python
        .context(undefined, { headers: { "X-Tenant": "acme", b: "2" } })
        .pipe(RpcClient.withHeaders({ a: "1", b: "1" }))
      assert.deepStrictEqual(headers, { a: "1", b: "2", "x-tenant": "acme" })
      const [item] = yield* Stream.runCollect(python.stream_context(undefined, { headers: { a: "1" } }))
      assert.deepStrictEqual(item?.headers, { a: "1" })
      assert.deepStrictEqual((yield* python.context()).headers, {})
    })
  )

  it.effect("that has headers without end says so", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const { issue } = yield* reasonOf(
        python.context(undefined, { headers: { long: "x".repeat(70_000) } }),
        "EncodeFailed"
      )
      assert.include(issue, "headers")
    })
  )

  it.effect("makes a span for a call and a stream, which Python belongs to", () =>
    Effect.gen(function* () {
      const python = yield* SynapseRpc.client(Models, { spanPrefix: "Models", spanAttributes: { tenant: "acme" } })
      const spans: Array<Tracer.Span> = []
      const native = yield* Tracer.Tracer
      const tracer = Tracer.make({
        span: (options) => {
          const span = native.span(options)
          spans.push(span)
          return span
        }
      })
      const parts = (trace: string | null | undefined) => (trace ?? "").split("-").slice(1, 3)
      const both = Effect.all([python.context(), Stream.runHead(python.stream_context())])
      const [one, many] = yield* both.pipe(Effect.withSpan("parent"), Effect.withTracer(tracer))
      const [parent, ...calls] = spans
      assert.deepStrictEqual(
        calls.map(({ kind, name }) => [name, kind]),
        [
          ["Models.context", "client"],
          ["Models.stream_context", "client"]
        ]
      )
      assert.deepStrictEqual(parts(one.trace), [parent!.traceId, calls[0]!.spanId])
      assert.deepStrictEqual(parts(many._tag === "Some" ? many.value.trace : undefined), [
        parent!.traceId,
        calls[1]!.spanId
      ])
      assert.deepInclude(Object.fromEntries(calls[0]!.attributes), {
        "rpc.system.name": "synapse",
        "rpc.method": "context",
        tenant: "acme"
      })
      const untraced = yield* SynapseRpc.client(Models, { disableTracing: true })
      const { trace } = yield* untraced.context().pipe(Effect.withSpan("parent"), Effect.withTracer(tracer))
      assert.deepStrictEqual(parts(trace)[1], spans.at(-1)!.spanId)
      assert.strictEqual(spans.at(-1)!.name, "parent")
    }).pipe(Effect.scoped)
  )

  it.effect("lets a call have options: of the client, over them of the RPC, over them of who calls", () =>
    Effect.gen(function* () {
      const annotated = GivenStreamContext.annotate(SynapseRpc.Options, { timeout: "20 seconds" })
      const group = RpcGroup.make(GivenContext, annotated)
      const python = yield* SynapseRpc.client(group, { options: { timeout: "10 seconds" } })
      const about = (remaining: number | null, seconds: number) => {
        assert(remaining !== null)
        assert.isTrue(remaining <= seconds && remaining > seconds - 5, String(remaining))
      }
      about((yield* python.context()).remaining, 10)
      about((yield* python.context().pipe(SynapseRpc.withOptions({ timeout: "30 seconds" }))).remaining, 30)
      const items = python.stream_context()
      about((yield* Stream.runCollect(items))[0]!.remaining, 20)
      about((yield* Stream.runCollect(items.pipe(SynapseRpc.withOptions({ timeout: "30 seconds" }))))[0]!.remaining, 30)
    }).pipe(Effect.scoped)
  )

  it.effect("fails when a time-out passes, and tells Python", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const call = python.wait({ name: "late" }).pipe(SynapseRpc.withOptions({ timeout: "1 minute" }))
      const fiber = yield* Effect.forkChild(call)
      yield* seenEventually("late began")
      yield* TestClock.adjust("1 minute")
      const { option, running } = yield* reasonOf(Fiber.join(fiber), "CallTimeout")
      assert.deepStrictEqual([option, running], ["timeout", true])
      yield* seenEventually("late cancelled")
    })
  )

  it.effect("can be one function", () =>
    Effect.gen(function* () {
      const python = yield* SynapseRpc.client(Models, { flatten: true })
      assert.strictEqual((yield* python("embed", { text: "a" })).text, "a")
      assert.deepStrictEqual(yield* Stream.runCollect(python("numbers", { to: 2 })), [0, 1])
    }).pipe(Effect.scoped)
  )

  it.effect("runs the client half of middleware, whose error is one of the call", () =>
    Effect.gen(function* () {
      const python = yield* SynapseRpc.client(Guarded)
      const refused: Unauthorized | SynapseError.SynapseError = yield* Effect.flip(python.guarded())
      assert.instanceOf(refused, Unauthorized)
      assert.instanceOf(yield* Effect.flip(Stream.runDrain(python.guarded_items())), Unauthorized)
      const allowed = Effect.provideService(Token, "ok")
      assert.strictEqual(yield* allowed(python.guarded()), "welcome")
      assert.deepStrictEqual(yield* allowed(Stream.runCollect(python.guarded_items())), ["welcome"])
      yield* allowed(python.guarded(undefined, { discard: true }))
    }).pipe(Effect.scoped, Effect.provide(AuthClient))
  )

  it.effect("runs middleware in order, around the call", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const wrap = (name: string) =>
        Effect.fnUntraced(function* ({
          next,
          request
        }: Parameters<RpcMiddleware.RpcMiddlewareClient<never, never, never>>[0]) {
          order.push(name)
          const done = yield* next(request)
          order.push(`${name} done`)
          return done
        })
      class First extends RpcMiddleware.Service<First>()("test/First", { requiredForClient: true }) {}
      class Second extends RpcMiddleware.Service<Second>()("test/Second", { requiredForClient: true }) {}
      const group = RpcGroup.make(Rpc.make("nothing")).middleware(First).middleware(Second)
      const python = yield* SynapseRpc.client(group).pipe(
        Effect.provide([
          RpcMiddleware.layerClient(First, wrap("first")),
          RpcMiddleware.layerClient(Second, wrap("second"))
        ])
      )
      yield* python.nothing()
      assert.deepStrictEqual(order, ["second", "first", "first done", "second done"])
    }).pipe(Effect.scoped)
  )

  it.effect("does not wait for a call that it discards", () =>
    Effect.gen(function* () {
      const python = yield* Python
      yield* python.wait({ name: "discarded" }, { discard: true })
      yield* seenEventually("discarded began")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const short = yield* SynapseRpc.client(Models)
          yield* short.wait({ name: "short" }, { discard: true })
          yield* seenEventually("short began")
        })
      )
      yield* seenEventually("short cancelled")
      assert.notInclude(yield* python.seen(), "discarded cancelled")
    })
  )

  it.effect("that discards a call still fails where it was not sent, and logs what it never came to", () =>
    Effect.gen(function* () {
      const python = yield* Python
      yield* reasonOf(python.embed({ text: 1 as never }, { discard: true }), "EncodeFailed")
      yield* python.embed({ text: "hey", fail: "long" }, { discard: true })
      const logged = yield* Deferred.make<string>()
      const logger = Logger.make(({ message }) => {
        Deferred.doneUnsafe(logged, Exit.succeed(String(message)))
      })
      yield* python.missing(undefined, { discard: true }).pipe(Effect.provide(Logger.layer([logger])))
      const message = yield* Deferred.await(logged)
      assert.include(message, "`missing` was called with `discard`")
      assert.include(message, "MethodNotFound")
    })
  )
})

describe("a client of another runtime", () => {
  class Embedder extends Synapse.Service<Embedder>()("test/Embedder") {}

  it.effect("finds it under its key, or is given it", () =>
    Effect.gen(function* () {
      const python = yield* SynapseRpc.client(Models, { runtime: Embedder })
      assert.strictEqual((yield* python.embed({ text: "a" })).text, "a")
      const runtime = yield* Embedder
      const other = yield* SynapseRpc.client(Models, { runtime: Effect.succeed(runtime) })
      assert.strictEqual((yield* other.embed({ text: "b" })).text, "b")
    }).pipe(Effect.scoped, Effect.provide(Embedder.layer(modules.rpc)))
  )
})

describe("a call whose worker dies", () => {
  // A worker is started anew after a while of the clock.
  it.live("fails, and the next one does not", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const { exitCode } = yield* reasonOf(python.leave(), "WorkerExited")
      assert.strictEqual(exitCode, 3)
      assert.strictEqual((yield* python.embed({ text: "a" })).text, "a")
    }).pipe(Effect.provide(Live))
  )
})
