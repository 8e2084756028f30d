import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { tableFromArrays } from "apache-arrow"
import { Cause, Context, DateTime, Deferred, Effect, Exit, Fiber, Layer, Option, Schema, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import { HostFunctions, NdArray, Synapse, type SynapseError, SynapseRpc } from "effect-synapse"
import * as Arrow from "effect-synapse/Arrow"
import * as Testing from "effect-synapse/testing"

class TooLong extends Schema.TaggedError<TooLong>()("TooLong", { limit: Schema.Int }) {}

const Python = RpcGroup.make(
  Rpc.make("embed", {
    payload: { text: Schema.String, at: Schema.optionalKey(Schema.Date) },
    success: Schema.Array(Schema.Finite),
    error: TooLong
  }),
  Rpc.make("chat", { payload: { prompt: Schema.String }, success: Schema.String, error: TooLong, stream: true }),
  Rpc.make("big", { payload: { n: Schema.BigInt }, success: Schema.BigInt }),
  Rpc.make("broken", { success: Schema.Int }),
  Rpc.make("wrong", { success: Schema.Int })
)

const handlers = Python.of({
  embed: ({ text }) => (text.length > 5 ? Effect.fail(new TooLong({ limit: 5 })) : Effect.succeed([text.length, 0.5])),
  chat: ({ prompt }) =>
    prompt === "fail"
      ? Stream.concat(Stream.make("a", "b"), Stream.fail(new TooLong({ limit: 1 })))
      : Stream.fromIterable(prompt.split("")),
  big: ({ n }) => Effect.succeed(n + 1n),
  broken: () => Effect.die(new RangeError("no such luck")),
  wrong: () => Effect.succeed("one" as never)
})

const Numbers = Schema.Array(Schema.Finite)
const embed = (text: string, options?: Synapse.CallOptions) =>
  Synapse.call(Numbers, { text }, { method: "embed", ...options })

const reason = <A, R>(effect: Effect.Effect<A, SynapseError.SynapseError, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

const settle = Effect.repeat(Effect.yieldNow, { times: 20 })

/** Runs with a runtime of the group. */
const withGroup =
  (options?: Testing.Options) =>
  <A, E>(effect: Effect.Effect<A, E, Synapse.Synapse | Testing.Faults>) =>
    Effect.provide(effect, Testing.layer(Python, handlers, { logs: "ignore", ...options }))

describe("layer", () => {
  it.effect("answers calls from the handlers of a group", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* embed("hi"), [2, 0.5])
      assert.strictEqual(yield* Synapse.call(Schema.BigInt, { n: 2n ** 60n }, { method: "big" }), 2n ** 60n + 1n)
      const payload = Schema.Struct({ text: Schema.String, at: Schema.Date })
      assert.deepStrictEqual(
        yield* Synapse.call(Numbers, { text: "x", at: new Date(0) }, { method: "embed", payload }),
        [1, 0.5]
      )
    }).pipe(withGroup())
  )

  it.effect("gives streams item by item", () =>
    Effect.gen(function* () {
      const chat = (prompt: string) => Synapse.stream(Schema.String, { prompt }, { method: "chat" })
      assert.deepStrictEqual(yield* Stream.runCollect(chat("abc")), ["a", "b", "c"])
      const items: Array<string> = []
      const failure = yield* reason(Stream.runForEach(chat("fail"), (item) => Effect.sync(() => items.push(item))))
      assert.deepStrictEqual(items, ["a", "b"])
      assert.deepInclude(failure, { _tag: "HandlerFailed" })
      assert.strictEqual((yield* Stream.runCollect(Stream.take(chat("x".repeat(5000)), 3))).length, 3)
      assert.strictEqual((yield* Stream.runCollect(chat("x".repeat(5000)))).length, 5000)
    }).pipe(withGroup())
  )

  it.effect("fails as a real runtime does", () =>
    Effect.gen(function* () {
      const declared = yield* reason(embed("far too long"))
      assert.strictEqual(declared._tag, "HandlerFailed")
      assert.deepStrictEqual(declared._tag === "HandlerFailed" && declared.error, { _tag: "TooLong", limit: 5 })
      const raised = yield* reason(Synapse.call(Schema.Int, null, { method: "broken" }))
      assert.deepInclude(raised._tag === "PythonException" && raised.exception, {
        type: "RangeError",
        message: "no such luck"
      })
      const missing = yield* reason(Synapse.call(Schema.Int, null, { method: "embedd" }))
      assert.deepInclude(missing, { _tag: "MethodNotFound", method: "embedd", nearest: ["embed"] })
      const arguments_ = yield* reason(Synapse.call(Numbers, { text: 1 }, { method: "embed" }))
      assert.deepInclude(arguments_, { _tag: "DecodeFailed", side: "python", path: "$.text", delivery: "rejected" })
      const value = yield* reason(Synapse.call(Schema.Int, null, { method: "wrong" }))
      assert.deepInclude(value, { _tag: "EncodeFailed", side: "python" })
      const reply = yield* reason(Synapse.call(Schema.String, { text: "a" }, { method: "embed" }))
      assert.deepInclude(reply, { _tag: "DecodeFailed", side: "typescript", what: "reply" })
      const input = yield* reason(Synapse.call(Numbers, { text: new Error("no") }, { method: "embed" }))
      assert.deepInclude(input, { _tag: "EncodeFailed", side: "typescript", delivery: "notSent", path: "$.text" })
      const stream = yield* reason(Synapse.call(Schema.String, { prompt: "" }, { method: "chat" }))
      assert.deepInclude(stream, { _tag: "Unsupported", delivery: "rejected" })
      const call = yield* reason(Stream.runDrain(Synapse.stream(Numbers, { text: "" }, { method: "embed" })))
      assert.deepInclude(call, { _tag: "Unsupported", delivery: "rejected" })
      const evaluated = yield* reason(Synapse.evaluate(Schema.Int)`1 + 1`)
      assert.strictEqual(evaluated._tag, "Unsupported")
    }).pipe(withGroup())
  )

  it.effect("refuses what is larger than maxFrameSize, on its way there and back", () =>
    Effect.gen(function* () {
      const there = yield* reason(embed("x".repeat(5000)))
      assert.deepInclude(there, { _tag: "FrameTooLarge", side: "typescript" })
      const back = yield* reason(Synapse.call(Schema.Unknown, null, { method: "large" }))
      assert.deepInclude(back, { _tag: "FrameTooLarge", side: "python" })
    }).pipe(
      Effect.provide(
        Testing.layerHandlers({ embed: () => [], large: () => new Uint8Array(5000) }, { maxFrameSize: 4096 })
      )
    )
  )

  it.effect("takes the services of handlers and those of a second runtime's key", () => {
    class Prefix extends Context.Service<Prefix, string>()("test/Prefix") {}
    class Other extends Synapse.Service<Other>()("test/Other") {}
    const OtherTest: Layer.Layer<Other | Testing.Faults, SynapseError.SynapseError, Prefix> = Testing.layerHandlers(
      { greet: ({ name }: { readonly name: string }) => Effect.map(Prefix, (prefix) => `${prefix} ${name}`) },
      { service: Other }
    )
    return Effect.gen(function* () {
      assert.strictEqual(yield* Other.call(Schema.String, { name: "Ada" }, { method: "greet" }), "Hello Ada")
    }).pipe(Effect.provide(OtherTest), Effect.provideService(Prefix, "Hello"))
  })

  it.effect("builds handlers from an effect", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* embed("abc"), [7])
    }).pipe(
      Effect.provide(
        Testing.layer(Python, Effect.succeed(Python.of({ ...handlers, embed: () => Effect.succeed([7]) })))
      )
    )
  )
})

describe("layerHandlers", () => {
  it.effect("gives values, effects and streams", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* Synapse.call(Schema.Int, { values: [1, 2] }), 2)
      const vector = yield* Synapse.call(NdArray.Float32Array, { text: "abc" }, { method: "embed" })
      assert.deepStrictEqual(vector, Float32Array.of(3))
      assert.deepStrictEqual(yield* Stream.runCollect(Synapse.stream(Schema.String, null, { method: "chat" })), [
        "Hello",
        "world"
      ])
      const declared = yield* reason(Synapse.call(Schema.Int, null, { method: "declared" }))
      assert.deepStrictEqual(declared._tag === "HandlerFailed" && declared.error, { _tag: "NoSuchUser", id: 3 })
      const typed = yield* reason(Synapse.call(Schema.Int, null, { method: "typed" }))
      assert.deepInclude(typed._tag === "HandlerFailed" && typed.error, { _tag: "TooLong", limit: 5 })
      const raised = yield* reason(Synapse.call(Schema.Int, null, { method: "raised" }))
      assert.deepInclude(raised._tag === "PythonException" && raised.exception, { type: "TypeError", message: "no" })
      const thrown = yield* reason(Synapse.call(Schema.Int, null, { method: "thrown" }))
      assert.deepInclude(thrown._tag === "PythonException" && thrown.exception, { message: "thrown" })
      const uncarried = yield* reason(Synapse.call(Schema.Unknown, null, { method: "uncarried" }))
      assert.deepInclude(uncarried, { _tag: "EncodeFailed", side: "python" })
      const stream = yield* reason(Synapse.call(Schema.Unknown, null, { method: "chat" }))
      assert.strictEqual(stream._tag, "Unsupported")
    }).pipe(
      Effect.provide(
        Testing.layerHandlers({
          main: ({ values }: { readonly values: ReadonlyArray<number> }) => values.length,
          embed: ({ text }) => Effect.succeed(Float32Array.of(text.length)),
          chat: () => Stream.make("Hello", "world"),
          declared: () => Effect.fail({ _tag: "NoSuchUser", id: 3 }),
          typed: () => Effect.fail(new TooLong({ limit: 5 })),
          raised: () => Effect.fail(new TypeError("no")),
          thrown: () => {
            throw new Error("thrown")
          },
          uncarried: () => Symbol("no")
        })
      )
    )
  )

  it.effect("tells handlers' progress to whoever listens", () =>
    Effect.gen(function* () {
      const heard: Array<number> = []
      const progress = Synapse.onProgress(Schema.Finite, (value) => Effect.sync(() => heard.push(value)))
      assert.strictEqual(yield* Synapse.call(Schema.String, null, { method: "train", progress }), "done")
      assert.deepStrictEqual(heard, [0.5, 1])
    }).pipe(
      Effect.provide(
        Testing.layerHandlers({
          train: () => Effect.as(Effect.andThen(Testing.progress(0.5), Testing.progress(1)), "done")
        })
      )
    )
  )

  it.effect("lets handlers call host functions and read input streams", () => {
    const Host = RpcGroup.make(
      Rpc.make("nameOf", { payload: { id: Schema.Int }, success: Schema.String, error: TooLong }),
      Rpc.make("ids", { success: Schema.Int, stream: true })
    )
    const host = HostFunctions.make(Host, {
      nameOf: ({ id }) => (id === 1 ? Effect.succeed("Ada") : Effect.fail(new TooLong({ limit: id }))),
      ids: () => Stream.range(1, 500)
    })
    return Effect.gen(function* () {
      assert.strictEqual(yield* Synapse.call(Schema.String, { id: 1 }, { method: "greet" }), "Hello, Ada")
      assert.deepStrictEqual(yield* Synapse.call(Schema.Unknown, { id: 2 }, { method: "greet" }), [
        "Failed",
        { _tag: "TooLong", limit: 2 }
      ])
      assert.strictEqual(yield* Synapse.call(Schema.Int, null, { method: "sum" }), 125_250)
      const rows = Stream.range(1, 1000)
      assert.strictEqual(yield* Synapse.call(Schema.Int, { rows }, { method: "count" }), 1000)
    }).pipe(
      Effect.provide(
        Testing.layerHandlers(
          {
            greet: ({ id }) =>
              Testing.callHost("nameOf", { id }).pipe(
                Effect.map((name) => `Hello, ${name}`),
                Effect.catchTag("HostFailure", ({ error, reason }) => Effect.succeed([reason, error]))
              ),
            sum: () =>
              Stream.runFold(
                Testing.streamHost("ids"),
                () => 0,
                (sum, id) => sum + Number(id)
              ),
            count: ({ rows }: { readonly rows: Stream.Stream<number> }) => Stream.runCount(rows)
          },
          { host }
        )
      )
    )
  })
})

describe("time", () => {
  it.effect("a call times out when the clock says so, and its handler is interrupted", () =>
    Effect.gen(function* () {
      const interrupted = yield* Deferred.make<void>()
      const handler = () => Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
      yield* Effect.gen(function* () {
        const call = yield* Effect.forkChild(reason(Synapse.call(Schema.Int, null, { timeout: "5 seconds" })))
        yield* Testing.arrived()
        yield* TestClock.adjust("4999 millis")
        assert.isUndefined(call.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.deepInclude(yield* Fiber.join(call), { _tag: "CallTimeout", delivery: "unknown" })
        yield* Deferred.await(interrupted)
      }).pipe(Effect.provide(Testing.layerHandlers({ main: handler })))
    })
  )

  it.effect("interrupting a call interrupts its handler", () =>
    Effect.gen(function* () {
      const interrupted = yield* Deferred.make<void>()
      const handler = () => Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
      yield* Effect.gen(function* () {
        const call = yield* Effect.forkChild(Synapse.call(Schema.Int, null))
        yield* Testing.arrived()
        yield* Fiber.interrupt(call)
        yield* Deferred.await(interrupted)
        yield* settle
        assert.strictEqual((yield* Synapse.stats).calls, 0)
      }).pipe(Effect.provide(Testing.layerHandlers({ main: handler })))
    })
  )

  it.effect("handlers sleep on the clock", () =>
    Effect.gen(function* () {
      const call = yield* Effect.forkChild(Synapse.call(Schema.Int, null))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* Fiber.join(call), 7)
    }).pipe(Effect.provide(Testing.layerHandlers({ main: () => Effect.delay(Effect.succeed(7), "1 hour") })))
  )

  it.effect("synchronous handlers take turns, others do not", () =>
    Effect.gen(function* () {
      let running = 0
      let most = 0
      const handler = Effect.gen(function* () {
        most = Math.max(most, ++running)
        yield* Effect.sleep("1 second")
        running--
        return null
      })
      const measure = (options: Testing.Options) =>
        Effect.gen(function* () {
          most = 0
          const calls = yield* Effect.forkChild(
            Effect.all(
              Array.from({ length: 4 }, () => Synapse.call(Schema.Null, null)),
              { concurrency: "unbounded" }
            )
          )
          for (let i = 0; i < 4; i++) yield* TestClock.adjust("1 second")
          yield* Fiber.join(calls)
          return most
        }).pipe(Effect.provide(Testing.layerHandlers({ main: () => handler }, options)))
      assert.strictEqual(yield* measure({}), 4)
      assert.strictEqual(yield* measure({ synchronous: true }), 1)
      assert.strictEqual(yield* measure({ synchronous: ["main"], concurrency: 2 }), 2)
      assert.strictEqual(yield* measure({ synchronous: ["other"] }), 4)
      assert.strictEqual(yield* measure({ synchronous: true, workers: 3 }), 3)
    })
  )

  it.effect("calls wait in a queue that can be full", () =>
    Effect.gen(function* () {
      yield* Testing.hang("*", { calls: 2 })
      const first = yield* Effect.forkChild(Synapse.call(Schema.Null, null))
      yield* Testing.arrived()
      const second = yield* Effect.forkChild(Synapse.call(Schema.Null, null))
      yield* Effect.yieldNow
      assert.deepInclude(yield* reason(Synapse.call(Schema.Null, null)), {
        _tag: "Overloaded",
        where: "queue",
        capacity: 1
      })
      assert.strictEqual((yield* Synapse.status).waiting, 1)
      yield* Fiber.interruptAll([first, second])
    }).pipe(
      Effect.provide(
        Testing.layerHandlers(
          { main: () => null },
          { synchronous: true, queue: { capacity: 1, whenFull: "reject" }, disposeTimeout: 0 }
        )
      )
    )
  )
})

describe("faults", () => {
  it.effect("a crash fails the calls of its worker, which is started again by the clock", () =>
    Effect.gen(function* () {
      const beside = yield* Effect.forkChild(reason(Synapse.call(Schema.Int, null, { method: "never" })))
      yield* Testing.arrived("never")
      yield* Testing.crash("embed", { stderr: "last words" })
      const crashed = yield* reason(embed("hi"))
      assert.deepInclude(crashed, {
        _tag: "WorkerExited",
        kind: "segfault",
        signal: "SIGSEGV",
        exitCode: null,
        stderr: "last words",
        delivery: "unknown"
      })
      assert.deepInclude(yield* Fiber.join(beside), { _tag: "WorkerExited", delivery: "unknown" })
      const next = yield* Effect.forkChild(embed("hi"))
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(yield* Fiber.join(next), [1])
      assert.strictEqual((yield* Synapse.status).restarts, 1)
    }).pipe(Effect.provide(Testing.layerHandlers({ embed: () => [1], never: () => Effect.never }, { logs: "ignore" })))
  )

  it.effect("an idempotent call is sent again to the next worker", () =>
    Effect.gen(function* () {
      yield* Testing.crash("embed", { exitCode: 3, at: "answer" })
      const call = yield* Effect.forkChild(embed("hi", { idempotent: true }))
      yield* Testing.arrived("embed")
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(yield* Fiber.join(call), [2, 0.5])
      assert.strictEqual((yield* Testing.received).length, 2)
    }).pipe(withGroup())
  )

  it.effect("a crash can come in the middle of a frame, after the handler, after a time, or between items", () =>
    Effect.gen(function* () {
      let runs = 0
      yield* Effect.gen(function* () {
        const again = TestClock.adjust("10 seconds")
        yield* Testing.crash("main", { at: "request", exitCode: 9 })
        assert.deepInclude(yield* reason(Synapse.call(Schema.Int, null)), {
          _tag: "WorkerExited",
          kind: "exit",
          exitCode: 9,
          signal: null
        })
        assert.strictEqual(runs, 0)
        yield* again
        yield* Testing.crash("main", { at: "answer" })
        assert.strictEqual((yield* reason(Synapse.call(Schema.Int, null)))._tag, "WorkerExited")
        assert.strictEqual(runs, 1)
        yield* again
        yield* Testing.crash("main", { at: "frame", signal: "SIGKILL" })
        assert.deepInclude(yield* reason(Synapse.call(Schema.Int, null)), { _tag: "WorkerExited", kind: "killed" })
        assert.strictEqual(runs, 2)
        yield* again
        yield* Testing.crash("main", { after: "1 second" })
        const later = yield* Effect.forkChild(reason(Synapse.call(Schema.Int, null)))
        yield* Testing.arrived("main", 4)
        yield* TestClock.adjust("999 millis")
        assert.isUndefined(later.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual((yield* Fiber.join(later))._tag, "WorkerExited")
        yield* again
        yield* Testing.crash("items", { afterItems: 2 })
        const items: Array<number> = []
        const stream = Synapse.stream(Schema.Int, null, { method: "items" })
        const cut = yield* reason(Stream.runForEach(stream, (item) => Effect.sync(() => items.push(item))))
        assert.deepInclude(cut, { _tag: "WorkerExited" })
        assert.deepStrictEqual(items, [1, 2])
      }).pipe(
        Effect.provide(
          Testing.layerHandlers(
            { main: () => ++runs, items: () => Stream.make(1, 2, 3) },
            { logs: "ignore", restart: { max: 20 } }
          )
        )
      )
    })
  )

  it.effect("workers that keep ending use up the budget", () =>
    Effect.gen(function* () {
      yield* Testing.crash("main", { calls: "all" })
      for (let i = 0; i < 3; i++) {
        const call = yield* Effect.forkChild(reason(Synapse.call(Schema.Int, null)))
        yield* TestClock.adjust("6 seconds")
        assert.strictEqual((yield* Fiber.join(call))._tag, "WorkerExited")
      }
      assert.strictEqual((yield* reason(Synapse.call(Schema.Int, null)))._tag, "RestartLimit")
      yield* Testing.clear
      yield* Synapse.reload
      assert.strictEqual(yield* Synapse.call(Schema.Int, null), 1)
    }).pipe(
      Effect.provide(
        Testing.layerHandlers({ main: () => 1 }, { logs: "ignore", restart: { max: 2, window: "1 minute" } })
      )
    )
  )

  it.effect("a call that hangs is given up by its time-out, and keeps its place", () =>
    Effect.gen(function* () {
      yield* Testing.hang("embed")
      const call = yield* Effect.forkChild(reason(embed("hi", { timeout: "3 seconds" })))
      yield* Testing.arrived("embed")
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual((yield* Fiber.join(call))._tag, "CallTimeout")
      assert.strictEqual((yield* Synapse.stats).calls, 1)
      assert.deepStrictEqual(yield* embed("hi"), [2, 0.5])
    }).pipe(withGroup())
  )

  it.effect("a delayed call is answered when its time has come", () =>
    Effect.gen(function* () {
      yield* Testing.delay("embed", "5 seconds")
      const call = yield* Effect.forkChild(embed("hi"))
      yield* TestClock.adjust("4 seconds")
      assert.isUndefined(call.pollUnsafe())
      assert.deepStrictEqual(yield* embed("a"), [1, 0.5])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(call), [2, 0.5])
    }).pipe(withGroup())
  )

  it.effect("garbage breaks the connection, or one call", () =>
    Effect.gen(function* () {
      yield* Testing.garbage("embed", { within: "payload" })
      assert.deepInclude(yield* reason(embed("hi")), { _tag: "DecodeFailed", side: "typescript" })
      assert.deepStrictEqual(yield* embed("hi"), [2, 0.5])
      yield* Testing.garbage("chat", { within: "payload" })
      const items = yield* reason(Stream.runDrain(Synapse.stream(Schema.String, { prompt: "hi" }, { method: "chat" })))
      assert.deepInclude(items, { _tag: "DecodeFailed", side: "typescript" })
      yield* Testing.garbage("embed")
      const broken = yield* reason(embed("hi"))
      assert.strictEqual(broken._tag, "ProtocolError")
      assert.include(broken.message, "Downloading")
      const next = yield* Effect.forkChild(embed("hi"))
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(yield* Fiber.join(next), [2, 0.5])
    }).pipe(withGroup())
  )

  it.effect("each call takes one fault, in the order in which they were planned", () =>
    Effect.gen(function* () {
      yield* Testing.garbage("embed", { within: "payload", calls: 2 })
      yield* Testing.delay("*", "1 second")
      assert.deepStrictEqual(
        yield* Synapse.call(Schema.BigInt, { n: 1n }, { method: "big" }).pipe(
          Effect.forkChild,
          Effect.tap(() => TestClock.adjust("1 second")),
          Effect.flatMap(Fiber.join)
        ),
        2n
      )
      for (let i = 0; i < 2; i++) assert.strictEqual((yield* reason(embed("hi")))._tag, "DecodeFailed")
      assert.deepStrictEqual(yield* embed("hi"), [2, 0.5])
    }).pipe(withGroup())
  )

  it.effect("a slow start is waited for, up to startTimeout", () =>
    Effect.gen(function* () {
      const faults = Testing.makeFaults()
      yield* faults.slowStart("40 seconds")
      const slow = yield* Effect.forkChild(
        reason(Effect.scoped(Layer.build(Testing.layer(Python, handlers, { faults }))))
      )
      yield* TestClock.adjust("30 seconds")
      assert.deepInclude(yield* Fiber.join(slow), { _tag: "StartFailed", kind: "timeout" })
      yield* faults.slowStart("20 seconds")
      const started = yield* Effect.forkChild(withGroup({ faults })(embed("hi")))
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(yield* Fiber.join(started), [2, 0.5])
    })
  )

  it.effect("a start fails as it is told to", () =>
    Effect.gen(function* () {
      const faults = Testing.makeFaults()
      const start = reason(Effect.scoped(Layer.build(Testing.layer(Python, handlers, { faults }))))
      yield* faults.failStart()
      assert.include((yield* start).message, "ModuleNotFoundError: No module named 'torch'")
      yield* faults.failStart({ exception: { type: "ValueError", message: "no such model" } })
      const raised = yield* start
      assert.deepInclude(raised, { _tag: "StartFailed", kind: "import" })
      assert.include(raised.message, "no such model")
      yield* faults.failStart({ exitCode: 4, stderr: "out of luck" })
      assert.deepInclude(yield* start, { _tag: "StartFailed", kind: "exit", exitCode: 4, stderr: "out of luck" })
    })
  )

  it.effect("killed workers are replaced", () =>
    Effect.gen(function* () {
      const before = yield* Synapse.status
      yield* Testing.kill({ kind: "outOfMemory" })
      const call = yield* Effect.forkChild(embed("hi"))
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(yield* Fiber.join(call), [2, 0.5])
      const after = yield* Synapse.status
      assert.notStrictEqual(after.workers[0]?.pid, before.workers[0]?.pid)
      assert.deepInclude(after.lastExit?.error.reason, { _tag: "WorkerExited", kind: "outOfMemory", signal: "SIGKILL" })
    }).pipe(withGroup())
  )

  it.effect("a worker that leaves finishes what it has, and nobody notices", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust("2 seconds")
      yield* Testing.delay("embed", "1 second")
      const call = yield* Effect.forkChild(embed("hi"))
      yield* Testing.arrived("embed")
      yield* Testing.leave("the GPU is lost")
      assert.deepStrictEqual(yield* embed("abc"), [3, 0.5])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(call), [2, 0.5])
      assert.strictEqual(new Set((yield* Testing.received).map(({ pid }) => pid)).size, 2)
    }).pipe(withGroup())
  )

  it.effect("a worker that leaves waits for a call that hangs, for as long as its caller does", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust("2 seconds")
      yield* Testing.hang("embed")
      const call = yield* Effect.forkChild(embed("hi"))
      yield* Testing.arrived("embed")
      yield* Testing.leave()
      assert.deepStrictEqual(yield* embed("abc"), [3, 0.5])
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(call.pollUnsafe())
      yield* Fiber.interrupt(call)
      yield* TestClock.adjust("10 seconds")
      yield* settle
      assert.strictEqual((yield* Synapse.status).workers.length, 1)
    }).pipe(withGroup())
  )

  it.effect("a worker that misses its heartbeats is given up by the clock", () =>
    Effect.gen(function* () {
      yield* Testing.dropHeartbeat
      yield* Testing.hang("embed")
      const call = yield* Effect.forkChild(reason(embed("hi")))
      yield* Testing.arrived("embed")
      for (let i = 0; i < 3; i++) yield* TestClock.adjust("10 seconds")
      assert.deepInclude(yield* Fiber.join(call), { _tag: "Unresponsive", state: "blocked", delivery: "unknown" })
      const next = yield* Effect.forkChild(embed("hi"))
      for (let i = 0; i < 20; i++) yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Fiber.join(next), [2, 0.5])
      assert.deepStrictEqual(yield* embed("hi"), [2, 0.5])
      assert.strictEqual((yield* Synapse.status).restarts, 1)
    }).pipe(withGroup({ heartbeat: { interval: "10 seconds", misses: 2 } }))
  )

  it.effect("the last worker's calls end when the scope closes, at once where they hang", () =>
    Effect.gen(function* () {
      const call = yield* Effect.gen(function* () {
        yield* Testing.hang("embed")
        const call = yield* Effect.forkDetach(Effect.exit(embed("hi")))
        yield* Testing.arrived("embed")
        return call
      }).pipe(withGroup({ disposeTimeout: "1 hour" }))
      const error = Option.getOrThrow(Exit.findErrorOption(yield* Fiber.join(call)))
      assert.deepInclude(error.reason, { _tag: "Closed", delivery: "unknown" })
    })
  )

  it.effect("tells what reached the workers", () =>
    Effect.gen(function* () {
      yield* embed("hi")
      yield* Stream.runDrain(Synapse.stream(Schema.String, { prompt: "x" }, { method: "chat" }))
      const received = yield* Testing.received
      assert.deepStrictEqual(
        received.map(({ method, payload, stream }) => ({ method, payload, stream })),
        [
          { method: "embed", payload: { text: "hi" }, stream: false },
          { method: "chat", payload: { prompt: "x" }, stream: true }
        ]
      )
    }).pipe(withGroup())
  )

  it.effect("refuses a controller that is not one", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(
        Effect.scoped(Layer.build(Testing.layer(Python, handlers, { faults: {} as never })))
      )
      assert.include(Exit.isFailure(exit) && Cause.pretty(exit.cause), "makeFaults")
    })
  )
})

describe("workers", () => {
  it.effect("a handler that goes on after it was given up has its worker replaced where that is asked", () =>
    Effect.gen(function* () {
      yield* Testing.hang("main")
      const call = yield* Effect.forkChild(Synapse.call(Schema.Int, null, { onCancel: "replace" }))
      yield* Testing.arrived("main")
      yield* Fiber.interrupt(call)
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* Synapse.call(Schema.Int, null), 1)
      assert.deepStrictEqual(
        (yield* Testing.received).map(({ pid }) => pid),
        [1001, 1002]
      )
    }).pipe(Effect.provide(Testing.layerHandlers({ main: () => 1 }, { logs: "ignore", synchronous: true })))
  )

  it.effect("are recycled, warmed up, started when needed, and used for one call only", () =>
    Effect.gen(function* () {
      const pids = (options: Testing.Options) =>
        Effect.gen(function* () {
          for (let i = 0; i < 4; i++) {
            yield* Synapse.call(Schema.Int, null)
            yield* settle
          }
          return (yield* Testing.received).map(({ method, pid }) => `${method} ${pid}`)
        }).pipe(Effect.provide(Testing.layerHandlers({ main: () => 1, warm: () => null }, options)))
      assert.strictEqual(new Set(yield* pids({ recycle: { afterCalls: 2 } })).size, 2)
      assert.deepStrictEqual((yield* pids({ warmUp: { method: "warm", input: null } }))[0], "warm 1001")
      assert.deepStrictEqual((yield* pids({ workers: { min: 0, max: 2 } }))[0], "main 1001")
      assert.strictEqual(new Set(yield* pids({ oneShot: true })).size, 4)
    })
  )

  it.effect("calls that wait behind one that hangs are asked back and go to another worker", () =>
    Effect.gen(function* () {
      const quick = Synapse.call(Schema.Int, null)
      // Quick answers let workers have more calls than they run.
      for (let i = 0; i < 20; i++)
        yield* Effect.all(
          Array.from({ length: 4 }, () => quick),
          { concurrency: 4 }
        )
      // Two faults, of which calls that are asked back take none.
      yield* Testing.hang("main")
      yield* Testing.garbage("main", { within: "payload" })
      const hung = yield* Effect.forkChild(quick)
      yield* Testing.arrived("main", 81)
      const calls = Array.from({ length: 12 }, () => Effect.exit(quick))
      const exits = yield* Effect.all(calls, { concurrency: 12 })
      assert.strictEqual(exits.filter(Exit.isFailure).length, 1)
      assert.isUndefined(hung.pollUnsafe())
      yield* Fiber.interrupt(hung)
    }).pipe(
      Effect.provide(
        Testing.layerHandlers({ main: () => 1 }, { synchronous: true, workers: 2, disposeTimeout: 0, logs: "ignore" })
      )
    )
  )

  it.effect("the handlers of a layer are interrupted with it, and their finalizers have run", () =>
    Effect.gen(function* () {
      const ended: Array<string> = []
      const never = (name: string) => Effect.onInterrupt(Effect.never, () => Effect.sync(() => ended.push(name)))
      yield* Effect.gen(function* () {
        yield* Effect.forkDetach(Effect.exit(Synapse.call(Schema.Int, null, { method: "a" })))
        yield* Effect.forkDetach(Effect.exit(Synapse.call(Schema.Int, null, { method: "b" })))
        yield* Testing.arrived("*", 2)
      }).pipe(
        Effect.provide(Testing.layerHandlers({ a: () => never("a"), b: () => never("b") }, { disposeTimeout: 0 }))
      )
      assert.deepStrictEqual(ended.toSorted(), ["a", "b"])
    })
  )
})

describe("types", () => {
  class Config extends Context.Service<Config, string>()("test/Config") {}

  it("handlers have to fit the group, and what they need is needed by the layer", () => {
    const needy: Layer.Layer<Synapse.Synapse | Testing.Faults, SynapseError.SynapseError, Config> = Testing.layer(
      Python,
      { ...handlers, embed: () => Effect.map(Config, (text) => [text.length]) }
    )
    const streams: Layer.Layer<Synapse.Synapse | Testing.Faults, SynapseError.SynapseError, Config> =
      Testing.layerHandlers({
        chat: () => Stream.fromEffect(Config),
        any: (payload) => payload
      })
    const plain: Layer.Layer<Synapse.Synapse | Testing.Faults, SynapseError.SynapseError> = Testing.layerHandlers({
      main: () => Promise.resolve(1)
    })
    // @ts-expect-error: a number is no vector
    Testing.layer(Python, { ...handlers, embed: () => Effect.succeed(1) })
    // @ts-expect-error: `big` is missing
    Testing.layer(Python, {
      embed: handlers.embed,
      chat: handlers.chat,
      broken: handlers.broken,
      wrong: handlers.wrong
    })
    // @ts-expect-error: a test without Python has no directory
    Testing.layer(Python, handlers, { directory: "./python" })
    for (const layer of [needy, streams, plain]) assert.isTrue(Layer.isLayer(layer))
  })
})

describe("recordings", () => {
  const directory = Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "synapse-recording-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true }))
  )
  const values = {
    text: "grün",
    nothing: null,
    flags: [true, false],
    float: 0.1,
    zero: -0,
    odd: [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
    big: [2n ** 63n, -(2n ** 60n)],
    bytes: Uint8Array.of(0, 255),
    at: new Date(1234),
    map: new Map<unknown, unknown>([
      [1, "one"],
      [true, Uint8Array.of(1)]
    ]),
    vector: Float32Array.of(0.1, Number.NaN),
    long: BigInt64Array.from({ length: 1000 }, (_, i) => BigInt(i)),
    matrix: NdArray.make(Int16Array.of(1, -2, 3, 4), [2, 2]),
    flagsArray: NdArray.make(Uint8Array.of(0, 1), [2], "bool"),
    dollars: { $bytes: "no", plain: 1 }
  }
  const python = Testing.layerHandlers(
    {
      echo: (payload) => payload,
      chat: ({ prompt }: { readonly prompt: string }) =>
        prompt === "fail"
          ? Stream.concat(Stream.make("a", "b"), Stream.fail(new TooLong({ limit: 1 })))
          : Stream.fromIterable(prompt.split("")),
      declared: () => Effect.fail({ _tag: "TooLong", limit: 3n ** 39n, bytes: Uint8Array.of(1) }),
      raised: () => Effect.die(new RangeError("no")),
      counter: () => Effect.sync(() => ++count),
      slow: () => Effect.never,
      train: () => Effect.as(Testing.progress(0.5), "done"),
      rows: ({ rows }: { readonly rows: Stream.Stream<number> }) => Stream.runCount(rows)
    },
    { logs: "ignore" }
  )
  let count = 0
  const call = <A>(method: string, schema: Schema.Decoder<A>, input: unknown = null) =>
    Synapse.call(schema, input, { method })

  /** Everything a caller can see, as values. */
  const session = Effect.gen(function* () {
    const chat = (prompt: string) => Synapse.stream(Schema.String, { prompt }, { method: "chat" })
    const items: Array<string> = []
    const heard: Array<number> = []
    const progress = Synapse.onProgress(Schema.Finite, (value) => Effect.sync(() => heard.push(value)))
    return {
      echo: yield* call("echo", Schema.Unknown, values),
      typed: yield* Synapse.call(
        Schema.Struct({ at: Schema.DateTimeUtc }),
        { at: new Date(5) },
        { method: "echo", payload: Schema.Struct({ at: Schema.Date }), timeout: "5 seconds" }
      ),
      json: yield* Synapse.call(Schema.Struct({ a: Schema.Int }), '{"a":1}', { method: "echo", parseJson: true }),
      counts: [yield* call("counter", Schema.Int), yield* call("counter", Schema.Int)],
      declared: yield* reason(call("declared", Schema.Int)),
      raised: yield* reason(call("raised", Schema.Int)),
      missing: yield* reason(call("mian", Schema.Int)),
      reply: yield* reason(call("echo", Schema.Int, "text")),
      uncarried: yield* reason(call("echo", Schema.Int, { a: Symbol() })),
      chat: yield* Stream.runCollect(chat("abc")),
      some: yield* Stream.runCollect(Stream.take(chat("abcdef"), 2)),
      empty: yield* Stream.runCollect(chat("")),
      failed: [
        yield* reason(Stream.runForEach(chat("fail"), (item) => Effect.sync(() => items.push(item)))),
        items
      ] as const,
      train: [yield* Synapse.call(Schema.String, null, { method: "train", progress }), heard] as const,
      rows: yield* call("rows", Schema.Int, { rows: Stream.range(1, 10) }),
      given: yield* Effect.timeoutOption(call("slow", Schema.Int), 0)
    }
  })

  const recordTo = (file: string) => {
    count = 0
    return <A, E>(effect: Effect.Effect<A, E, Synapse.Synapse | Testing.Faults>) =>
      Effect.provide(effect, Layer.provideMerge(Testing.record({ file }), python))
  }
  const linesOf = (file: string) =>
    readFileSync(file, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))

  it.effect("a recorded session is replayed without loss: values, streams, errors, progress", () =>
    Effect.gen(function* () {
      const file = join(yield* directory, "deep", "session.jsonl")
      const recorded = yield* recordTo(file)(session)
      assert.deepStrictEqual(recorded.echo, values)
      const replayed = yield* session.pipe(
        Effect.tap(() => Testing.assertReplayed),
        Effect.provide(Testing.replay(file))
      )
      assert.deepStrictEqual(replayed, recorded)
      assert.deepStrictEqual(recorded.counts, [1, 2])
      assert.deepStrictEqual(recorded.json, { a: 1 })
      assert.deepInclude(recorded.declared, { error: { _tag: "TooLong", limit: 3n ** 39n, bytes: Uint8Array.of(1) } })
    })
  )

  it.effect("tables of Arrow are recorded", () =>
    Effect.gen(function* () {
      const file = join(yield* directory, "session.jsonl")
      const table = tableFromArrays({ id: Int32Array.of(1, 2), name: ["a", "b"] })
      const echo = Synapse.call(Arrow.Table, table, { method: "echo", payload: Arrow.Table })
      yield* recordTo(file)(echo)
      const replayed = yield* Effect.provide(echo, Testing.replay(file))
      assert.deepStrictEqual(
        replayed.toArray().map((row) => row?.toJSON()),
        table.toArray().map((row) => row?.toJSON())
      )
    })
  )

  it.effect("pieces of Python are recorded with what they were bound to", () =>
    Effect.gen(function* () {
      const file = join(yield* directory, "session.jsonl")
      const lines = [
        { synapse: "recording", version: 1 },
        { call: 1, method: "$evaluate", payload: { source: "x + _value_1", bindings: { x: 1, _value_1: 2 } }, value: 3 }
      ]
      writeFileSync(file, lines.map((line) => JSON.stringify(line)).join("\n"))
      const evaluated = Synapse.evaluate(Schema.Int, { x: 1 })`x + ${2}`
      assert.strictEqual(yield* Effect.provide(evaluated, Testing.replay(file)), 3)
      const refused = yield* recordTo(join(yield* directory, "other.jsonl"))(reason(evaluated))
      assert.strictEqual(refused._tag, "Unsupported")
    })
  )

  it.effect("the file is readable: a line for each call, in the order in which they began", () =>
    Effect.gen(function* () {
      const file = join(yield* directory, "session.jsonl")
      yield* recordTo(file)(
        Effect.gen(function* () {
          yield* Testing.delay("echo", "1 second")
          const slow = yield* Effect.forkChild(call("echo", Schema.Unknown, { n: 1 }))
          yield* Testing.arrived("echo")
          yield* Synapse.call(Schema.Int, { n: 2 }, {
            method: "counter",
            timeout: "5 seconds",
            headers: { token: "x" }
          } as never)
          yield* TestClock.adjust("1 second")
          yield* Fiber.join(slow)
          yield* Stream.runDrain(Synapse.stream(Schema.String, { prompt: "ab" }, { method: "chat" }))
          yield* Testing.crash("counter", { stderr: "last words" })
          yield* Effect.flip(call("counter", Schema.Int))
        })
      )
      const [header, ...lines] = linesOf(file)
      assert.deepStrictEqual(header, { synapse: "recording", version: 1 })
      assert.deepStrictEqual(lines.slice(0, 3), [
        { call: 1, method: "echo", payload: { n: 1 }, value: { n: 1 } },
        { call: 2, method: "counter", payload: { n: 2 }, options: { timeout: 5000 }, value: 1 },
        { call: 3, method: "chat", payload: { prompt: "ab" }, items: ["a", "b"] }
      ])
      assert.deepInclude(lines[3].error, { _tag: "SynapseError" })
      const crashed = yield* call("counter", Schema.Int).pipe(reason, Effect.provide(Testing.replay(file)))
      assert.deepInclude(crashed, { _tag: "WorkerExited", kind: "segfault", stderr: "last words" })
    })
  )

  it.effect("a time-out that was recorded takes no time", () =>
    Effect.gen(function* () {
      const file = join(yield* directory, "session.jsonl")
      const slow = reason(Synapse.call(Schema.Int, null, { method: "slow", timeout: "1 hour" }))
      const recorded = yield* recordTo(file)(
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(slow)
          yield* Testing.arrived("slow")
          yield* TestClock.adjust("1 hour")
          return yield* Fiber.join(fiber)
        })
      )
      assert.strictEqual(recorded._tag, "CallTimeout")
      assert.deepStrictEqual(yield* Effect.provide(slow, Testing.replay(file)), recorded)
    })
  )

  it.effect("a call that was not recorded says what is near it", () =>
    Effect.gen(function* () {
      const file = join(yield* directory, "session.jsonl")
      yield* recordTo(file)(
        Effect.gen(function* () {
          yield* call("echo", Schema.Unknown, { text: "hi", tags: ["a"], n: 1 })
          yield* call("echo", Schema.Unknown, { text: "ho", tags: ["b"], n: 2 })
          yield* Stream.runDrain(Synapse.stream(Schema.String, { prompt: "ab" }, { method: "chat" }))
        })
      )
      yield* Effect.gen(function* () {
        const other = yield* reason(call("echo", Schema.Unknown, { text: "hi", tags: ["a"], n: 3 }))
        assert.deepInclude(other, { _tag: "Unsupported", method: "echo", delivery: "notSent" })
        assert.include(other.message, "The nearest is that of line 2, which differs at $.n: it has 1, and this call 3")
        const more = yield* reason(call("echo", Schema.Unknown, { text: "ho", tags: ["c", "d"], n: 2 }))
        assert.include(
          more.message,
          'line 3, which differs at $.tags[0]: it has "b", and this call "c", and in 1 more place'
        )
        assert.include(
          (yield* reason(call("ecko", Schema.Unknown))).message,
          "has no call of it; it has calls of `echo`"
        )
        assert.include(
          (yield* reason(call("chat", Schema.Unknown, { prompt: "ab" }))).message,
          "as streams only (line 4)"
        )
        assert.deepStrictEqual(yield* call("echo", Schema.Unknown, { n: 1, tags: ["a"], text: "hi" }), {
          n: 1,
          tags: ["a"],
          text: "hi"
        })
        const again = yield* reason(call("echo", Schema.Unknown, { text: "hi", tags: ["a"], n: 1 }))
        assert.include(again.message, "has this call once (line 2), and answered as often")
        assert.deepStrictEqual(
          (yield* Testing.leftovers).map(({ line, method }) => [line, method]),
          [
            [3, "echo"],
            [4, "chat"]
          ]
        )
        const exit = yield* Effect.exit(Testing.assertReplayed)
        assert.include(Exit.isFailure(exit) && Cause.pretty(exit.cause), "line 3: `echo`\nline 4: `chat`")
      }).pipe(Effect.provide(Testing.replay(file)))
    })
  )

  it.effect("files that cannot be used fail the layer with the reason", () =>
    Effect.gen(function* () {
      const path = yield* directory
      const build = <A>(layer: Layer.Layer<A, SynapseError.SynapseError>) =>
        Effect.map(reason(Effect.scoped(Layer.build(layer))), ({ message }) => message)
      const file = join(path, "session.jsonl")
      assert.include(yield* build(Testing.replay(file)), "no such file")
      const broken = (text: string) => {
        writeFileSync(file, text)
        return build(Testing.replay(file))
      }
      const head = '{"synapse":"recording","version":1}\n'
      assert.include(yield* broken("hello\n"), "line 1 is not JSON")
      assert.include(yield* broken("{}\n"), "its first line is not that of a recording")
      assert.include(yield* broken('{"synapse":"recording","version":9}\n'), "version 9")
      assert.include(yield* broken(`${head}{"a":1}\n`), "line 2 is not a call")
      assert.include(
        yield* broken(`${head}\n{"call":1,"method":"a","payload":{"$no":1}}\n`),
        "line 3: `$no` is not known"
      )
      assert.include(
        yield* build(Layer.provide(Testing.record({ file: join(file, "below") }), python)),
        "cannot be written"
      )
    })
  )

  it.effect("records and replays runtimes under keys of their own", () => {
    class Other extends Synapse.Service<Other>()("test/OtherRecorded") {}
    return Effect.gen(function* () {
      const file = join(yield* directory, "session.jsonl")
      const greet = Other.call(Schema.String, { name: "Ada" }, { method: "greet" })
      const other = Testing.layerHandlers({ greet: ({ name }) => `Hello, ${name}` }, { service: Other })
      const recorded: Layer.Layer<Other, SynapseError.SynapseError> = Layer.provide(
        Testing.record({ file, service: Other }),
        other
      )
      assert.strictEqual(yield* Effect.provide(greet, recorded), "Hello, Ada")
      const replay: Layer.Layer<Other | Testing.Replay, SynapseError.SynapseError> = Testing.replay(file, {
        service: Other
      })
      assert.strictEqual(yield* Effect.provide(greet, replay), "Hello, Ada")
    })
  })
})

describe("SynapseRpc", () => {
  const Rpcs = Python.merge(
    RpcGroup.make(
      Rpc.make("header", { success: Schema.String }),
      Rpc.make("total", { payload: { rows: Synapse.StreamOf(Schema.DateTimeUtc) }, success: Schema.Int })
    )
  )
  const seen: Array<string> = []
  const rpcHandlers = Rpcs.of({
    ...handlers,
    header: (_, { headers }) => {
      seen.push(headers.user ?? "nobody")
      return Effect.succeed(headers.user ?? "nobody")
    },
    total: ({ rows }) =>
      Stream.runFold(
        rows,
        () => 0,
        (sum, row) => sum + row.epochMilliseconds
      ).pipe(Effect.orDie)
  })
  const session = Effect.gen(function* () {
    const python = yield* SynapseRpc.client(Rpcs)
    const items: Array<string> = []
    return {
      vector: yield* python.embed({ text: "hi" }),
      declared: yield* Effect.flip(python.embed({ text: "far too long" })),
      big: yield* python.big({ n: 2n ** 60n }),
      raised: yield* Effect.flip(python.broken()),
      chat: yield* Stream.runCollect(python.chat({ prompt: "abc" })),
      failed: yield* Effect.flip(
        Stream.runForEach(python.chat({ prompt: "fail" }), (item) => Effect.sync(() => items.push(item)))
      ),
      items,
      header: yield* python.header(undefined, { headers: { user: "ada" } })
    }
  }).pipe(Effect.scoped)

  it.effect("the typed client of a group works over its handlers, and over a recording", () =>
    Effect.gen(function* () {
      const path = mkdtempSync(join(tmpdir(), "synapse-recording-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(path, { recursive: true })))
      const file = join(path, "session.jsonl")
      const recorded = yield* Effect.provide(
        session,
        Layer.provide(Testing.record({ file }), Testing.layer(Rpcs, rpcHandlers))
      )
      assert.deepStrictEqual(recorded.vector, [2, 0.5])
      assert.instanceOf(recorded.declared, TooLong)
      assert.deepInclude(recorded.declared, { limit: 5 })
      assert.strictEqual(recorded.raised._tag, "SynapseError")
      assert.deepStrictEqual(recorded.chat, ["a", "b", "c"])
      assert.instanceOf(recorded.failed, TooLong)
      assert.deepStrictEqual(recorded.items, ["a", "b"])
      assert.strictEqual(recorded.header, "ada")
      const replayed = yield* Effect.provide(session, Testing.replay(file))
      assert.deepStrictEqual(replayed, recorded)
    })
  )

  it.effect("meets the faults that were planned, and its time-outs", () =>
    Effect.gen(function* () {
      const python = yield* SynapseRpc.client(Rpcs)
      yield* Testing.crash("embed")
      const crashed = yield* Effect.flip(python.embed({ text: "hi" }))
      assert.deepInclude(crashed, { _tag: "SynapseError" })
      yield* Testing.hang("big")
      const call = yield* python
        .big({ n: 1n })
        .pipe(SynapseRpc.withOptions({ timeout: "5 seconds" }), Effect.flip, Effect.forkChild)
      yield* TestClock.adjust("1 second")
      yield* Testing.arrived("big")
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(call)).reason._tag, "CallTimeout")
    }).pipe(Effect.scoped, Effect.provide(Testing.layer(Rpcs, rpcHandlers, { logs: "ignore" })))
  )

  it.effect("a call that is discarded is done when a worker has it", () =>
    Effect.gen(function* () {
      const python = yield* SynapseRpc.client(Rpcs)
      seen.length = 0
      yield* python.header(undefined, { discard: true, headers: { user: "eve" } })
      yield* Testing.arrived("header")
      yield* settle
      assert.deepStrictEqual(seen, ["eve"])
    }).pipe(Effect.scoped, Effect.provide(Testing.layer(Rpcs, rpcHandlers)))
  )

  it.effect("handlers get the items of input streams as their schema has them", () =>
    Effect.gen(function* () {
      const python = yield* SynapseRpc.client(Rpcs)
      const rows = Stream.fromIterable([1, 2, 3]).pipe(Stream.map((millis) => DateTime.makeUnsafe(millis)))
      assert.strictEqual(yield* python.total({ rows }), 6)
    }).pipe(Effect.scoped, Effect.provide(Testing.layer(Rpcs, rpcHandlers)))
  )
})
