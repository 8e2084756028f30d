/** What is built on Effect's RPC, over a real worker. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Latch, Layer, Schema, Stream } from "effect"
import { Entity, TestRunner } from "effect/cluster"
import { Rpc, RpcClient, type RpcClientError, RpcGroup, RpcTest } from "effect/rpc"
import { TestClock } from "effect/testing"
import { Activity, Workflow, WorkflowEngine } from "effect/workflow"
import { Synapse, SynapseError, SynapseRpc } from "effect-synapse"
import { live, upTo } from "./fixtures/dialogue.ts"
import * as modules from "./fixtures/modules.ts"
import { AuthClient, Guarded, Models, PromptTooLong, Token, Unauthorized, Vector } from "./fixtures/rpc.ts"

class Python extends Context.Service<Python, RpcClient.FromGroup<typeof Models, RpcClientError.RpcClientError>>()(
  "test/Python"
) {
  static readonly layer = Layer.effect(Python, RpcClient.make(Models))
}

const Live = Python.layer.pipe(
  Layer.provideMerge(SynapseRpc.layerProtocol),
  Layer.provideMerge(Synapse.layer(modules.rpc))
)

const seenEventually = (event: string) =>
  Effect.repeat(
    Python.use((python) => python.seen()),
    { until: (events) => events.includes(event) }
  )

const nothingOpen = Effect.repeat(Synapse.stats, { until: ({ calls, streams }) => calls === 0 && streams === 0 })

const clientErrorOf = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(self), (error) => {
    assert.strictEqual((error as { _tag?: string })._tag, "RpcClientError", String(error))
    const { reason } = error as RpcClientError.RpcClientError
    assert.instanceOf(reason.cause, SynapseError.SynapseError)
    return [reason._tag, reason.cause.reason._tag, reason.message] as const
  })

layer(Live, live)("Effect's own client", (it) => {
  it.effect("gives what the schemas say", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const vector = yield* python.embed({ text: "hey" })
      assert.instanceOf(vector, Vector)
      assert.deepStrictEqual({ ...vector }, { text: "hey", values: [3], blob: new TextEncoder().encode("hey") })
      assert.isUndefined(yield* python.nothing())
      assert.strictEqual(yield* python.total({ factor: 2, numbers: Stream.make(1, 2, 3) }), 12)
    })
  )

  it.effect("fails with declared errors, and exceptions are defects", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const long = yield* Effect.flip(python.embed({ text: "hey", fail: "long" }))
      assert.instanceOf(long, PromptTooLong)
      assert.strictEqual(long.limit, 3)
      const exit = yield* Effect.exit(python.embed({ text: "hey", fail: "exception" }))
      assert(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      const defect = Cause.squash(exit.cause)
      assert.instanceOf(defect, Error)
      assert.deepStrictEqual([defect.name, defect.message], ["ValueError", "no such text"])
    })
  )

  it.effect("fails with an RpcClientError that has the SynapseError, and other calls go on", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const other = yield* Effect.forkChild(python.wait({ name: "other" }))
      yield* seenEventually("other began")
      const [reason, cause, message] = yield* clientErrorOf(python.missing())
      assert.deepStrictEqual([reason, cause], ["RpcClientDefect", "MethodNotFound"])
      assert.include(message, "The module has no handler `missing`")
      assert.isUndefined(other.pollUnsafe())
      yield* Fiber.interrupt(other)
      yield* seenEventually("other cancelled")
    })
  )

  it.effect("streams, and finds out by itself what is one", () =>
    Effect.gen(function* () {
      const python = yield* Python
      for (const n of [0, 1, 3000, 3000]) {
        assert.deepStrictEqual(yield* Stream.runCollect(python.numbers({ to: n })), upTo(n))
      }
      const items: Array<string> = []
      const run = (fail: string) =>
        Stream.runForEach(python.words({ prompt: "a b", fail }), (item) => Effect.sync(() => items.push(item)))
      assert.instanceOf(yield* Effect.flip(run("long")), PromptTooLong)
      assert.isTrue(Exit.hasDies(yield* Effect.exit(run("exception"))))
      assert.deepStrictEqual(items, ["a", "b", "a", "b"])
    })
  )

  it.effect("that stops to read a stream closes the generator", () =>
    Effect.gen(function* () {
      const python = yield* Python
      yield* python.forget()
      assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(python.numbers({ to: 1_000_000 }), 2)), [0, 1])
      const [closed] = yield* Effect.repeat(python.seen(), { until: (events) => events.length > 0 })
      assert.match(closed!, /^numbers closed after \d\d?\d?$/)
      yield* nothingOpen
    })
  )

  it.effect("that cannot decode an item closes the generator", () =>
    Effect.gen(function* () {
      const gate = yield* Latch.make(false)
      const python = yield* Python
      yield* python.forget()
      // Whether or not somebody takes the items before it.
      const items = python.mixed(undefined, { streamBufferSize: 1000 })
      const fiber = yield* Effect.forkChild(Stream.runForEach(items, () => gate.await))
      yield* seenEventually("mixed closed")
      yield* nothingOpen
      assert.isUndefined(fiber.pollUnsafe())
      yield* gate.open
      assert.isTrue(Exit.hasDies(yield* Fiber.await(fiber)))
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

  it.effect("interrupts calls in Python", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const fiber = yield* Effect.forkChild(Effect.timeout(python.wait({ name: "timed" }), "1 minute"))
      yield* seenEventually("timed began")
      yield* TestClock.adjust("1 minute")
      assert.isTrue(Cause.isTimeoutError(yield* Effect.flip(Fiber.join(fiber))))
      yield* seenEventually("timed cancelled")
      yield* nothingOpen
    })
  )

  it.effect("has time-outs of Synapse where it is told to", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const call = python.wait({ name: "late" }).pipe(SynapseRpc.withOptions({ timeout: "1 minute" }))
      const fiber = yield* Effect.forkChild(call)
      yield* seenEventually("late began")
      yield* TestClock.adjust("1 minute")
      const [reason, cause] = yield* clientErrorOf(Fiber.join(fiber))
      assert.deepStrictEqual([reason, cause], ["WorkerReceiveError", "CallTimeout"])
    })
  )

  it.effect("sends headers and its span along", () =>
    Effect.gen(function* () {
      const python = yield* Python
      const span = yield* Effect.makeSpan("parent")
      const { headers, trace } = yield* python
        .context(undefined, { headers: { "X-Tenant": "acme" } })
        .pipe(RpcClient.withHeaders({ a: "1" }), Effect.withParentSpan(span))
      assert.deepStrictEqual(headers, { a: "1", "x-tenant": "acme" })
      const [, traceId, spanId] = trace!.split("-")
      assert.strictEqual(traceId, span.traceId)
      // That of the call, which is a child.
      assert.notStrictEqual(spanId, span.spanId)
      const [item] = yield* Stream.runCollect(python.stream_context(undefined, { headers: { a: "1" } }))
      assert.deepStrictEqual(item?.headers, { a: "1" })
    })
  )

  it.effect("does not wait for a call that it discards", () =>
    Effect.gen(function* () {
      const python = yield* Python
      yield* python.wait({ name: "discarded" }, { discard: true })
      yield* seenEventually("discarded began")
    })
  )

  it.effect("runs middleware", () =>
    Effect.gen(function* () {
      const python = yield* RpcClient.make(Guarded)
      assert.instanceOf(yield* Effect.flip(python.guarded()), Unauthorized)
      assert.strictEqual(yield* Effect.provideService(python.guarded(), Token, "ok"), "welcome")
    }).pipe(Effect.scoped, Effect.provide(AuthClient))
  )
})

layer(Synapse.layer(modules.rpc), live)("handlers that Python has", (it) => {
  it.effect("are behind RpcTest, with typed errors, streams and defects", () =>
    Effect.gen(function* () {
      const client = yield* RpcTest.makeClient(Models, { disableFatalDefects: true })
      assert.instanceOf(yield* client.embed({ text: "hey" }), Vector)
      assert.instanceOf(yield* Effect.flip(client.embed({ text: "hey", fail: "long" })), PromptTooLong)
      const exit = yield* Effect.exit(client.embed({ text: "hey", fail: "exception" }))
      assert(Exit.isFailure(exit))
      assert.instanceOf(Cause.squash(exit.cause), SynapseError.SynapseError)
      assert.deepStrictEqual(yield* Stream.runCollect(client.numbers({ to: 300 })), upTo(300))
      assert.instanceOf(yield* Effect.flip(Stream.runDrain(client.words({ prompt: "", fail: "long" }))), PromptTooLong)
      const { headers } = yield* client.context(undefined, { headers: { a: "1" } })
      assert.deepStrictEqual(headers, { a: "1" })
    }).pipe(Effect.scoped, Effect.provide(Models.toLayer(SynapseRpc.handlers(Models))))
  )

  it.effect("fail with a SynapseError where the RPC declares it", () =>
    Effect.gen(function* () {
      const client = yield* RpcTest.makeClient(group)
      const { reason } = yield* Effect.flip(client.missing())
      assert.strictEqual(reason._tag, "MethodNotFound")
    }).pipe(Effect.scoped, Effect.provide(group.toLayer(SynapseRpc.handlers(group))))
  )
  const group = RpcGroup.make(Rpc.make("missing", { error: SynapseError.SynapseError }))

  it.effect("are steps of a workflow, once each", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* Embed.execute({ id: "a", text: "hey", fail: "" }), 3)
      assert.strictEqual(yield* Embed.execute({ id: "a", text: "hey", fail: "" }), 3)
      assert.instanceOf(yield* Effect.flip(Embed.execute({ id: "b", text: "hey", fail: "long" })), PromptTooLong)
      assert.strictEqual(steps, 2)
    }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(EmbedLive, WorkflowEngine.layerMemory)))
  )
  let steps = 0
  const Embed = Workflow.make("Embed", {
    payload: { id: Schema.String, text: Schema.String, fail: Schema.String },
    success: Schema.Int,
    error: PromptTooLong,
    idempotencyKey: ({ id }) => id
  })
  const EmbedLive = Embed.toLayer(({ fail, text }) =>
    Activity.make({
      name: "embed",
      success: Schema.Int,
      error: PromptTooLong,
      execute: Effect.gen(function* () {
        steps++
        const python = yield* SynapseRpc.client(Models)
        const { values } = yield* python
          .embed({ text, fail })
          .pipe(Effect.catchTag(["SynapseError", "ModelBusy"], (error) => Effect.die(error)))
        return values[0]!
      }).pipe(Effect.scoped)
    })
  )
})

describe("an entity", () => {
  // Shards are assigned as time goes by.
  it.live("is Python's handlers", () =>
    Effect.gen(function* () {
      const client = (yield* Model.client)("a")
      assert.instanceOf(yield* client.embed({ text: "hey" }), Vector)
      assert.instanceOf(yield* Effect.flip(client.embed({ text: "hey", fail: "long" })), PromptTooLong)
      assert.deepStrictEqual(yield* Stream.runCollect(client.numbers({ to: 100 })), upTo(100))
    }).pipe(
      Effect.scoped,
      Effect.provide(ModelLive.pipe(Layer.provideMerge(TestRunner.layer), Layer.provide(Synapse.layer(modules.rpc))))
    )
  )
  const Model = Entity.make("Model", [
    Rpc.make("embed", {
      payload: { text: Schema.String, fail: Schema.optionalKey(Schema.String) },
      success: Vector,
      error: PromptTooLong
    }),
    Rpc.make("numbers", { payload: { to: Schema.Int }, success: Schema.Int, stream: true })
  ])
  const ModelLive = Model.toLayer(
    Effect.gen(function* () {
      const python = yield* SynapseRpc.client(Model.protocol, { flatten: true })
      return Model.of({
        embed: ({ payload }) => Effect.catchTag(python("embed", payload), "SynapseError", Effect.die),
        numbers: ({ payload }) => Stream.catchTag(python("numbers", payload), "SynapseError", Stream.die)
      })
    })
  )
})
