/** Streams of a real worker, in both directions. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Latch, Option, Ref, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Synapse } from "effect-synapse"
import type { SynapseError } from "../src/SynapseError.ts"
import { forget, live, nothingOpen, reasonOf, seen, seenEventually, upTo } from "./fixtures/dialogue.ts"
import * as modules from "./fixtures/modules.ts"

const count = (to: number, method = "count") => Synapse.stream(Schema.Int, { to }, { method })
class Tenfold extends Context.Service<Tenfold, (n: number) => number>()("test/Tenfold") {}

for (const concurrency of [1, 3]) {
  layer(Synapse.layer({ ...modules.dialogue, concurrency }), live)(
    `with concurrency ${concurrency}, a stream`,
    (it) => {
      for (const method of ["count", "count_async"]) {
        describe(`of ${method}`, () => {
          it.effect("gives every item in order", () =>
            Effect.gen(function* () {
              for (const n of [0, 1, 63, 64, 65, 5000]) {
                assert.deepStrictEqual(yield* Stream.runCollect(count(n, method)), upTo(n))
              }
              yield* nothingOpen
            })
          )

          it.effect("that is not read to its end closes the generator", () =>
            Effect.gen(function* () {
              yield* forget
              const items = yield* Stream.runCollect(Stream.take(count(1_000_000, method), 2))
              assert.deepStrictEqual(items, [0, 1])
              yield* seenEventually(`${method} closed`)
              yield* nothingOpen
            })
          )

          it.effect("gives what came before a failure, then the failure", () =>
            Effect.gen(function* () {
              const items: Array<number> = []
              const stream = Synapse.stream(Schema.Int, { to: 1000, fail_at: 70 }, { method })
              const run = Stream.runForEach(stream, (item) => Effect.sync(() => items.push(item)))
              const { error } = yield* reasonOf(run, "HandlerFailed")
              assert.deepStrictEqual(items, upTo(70))
              assert.deepStrictEqual(error, { _tag: "TooFar", message: "There is an end to it.", at: 70 })
              yield* nothingOpen
            })
          )

          it.effect("ends with the fiber that reads it", () =>
            Effect.gen(function* () {
              yield* forget
              const begun = yield* Deferred.make<void>()
              const run = Stream.runForEach(count(1_000_000, method), () =>
                Effect.andThen(Deferred.succeed(begun, undefined), Effect.never)
              )
              const fiber = yield* Effect.forkChild(run)
              yield* Deferred.await(begun)
              yield* Fiber.interrupt(fiber)
              yield* seenEventually(`${method} closed`)
              yield* nothingOpen
            })
          )

          it.effect("that is blocked by its consumer holds up no other call and no other stream", () =>
            Effect.gen(function* () {
              const begun = yield* Deferred.make<void>()
              const gate = yield* Latch.make(false)
              const stalled = yield* Effect.forkChild(
                Stream.runCollect(
                  Stream.mapEffect(count(1000, method), (item) =>
                    Effect.as(Effect.andThen(Deferred.succeed(begun, undefined), gate.await), item)
                  )
                )
              )
              yield* Deferred.await(begun)
              for (const n of upTo(5)) {
                assert.strictEqual(yield* Synapse.call(Schema.Int, n, { method: "echo" }), n)
                assert.strictEqual(yield* Synapse.call(Schema.Int, n, { method: "echo_async" }), n)
              }
              assert.lengthOf(yield* Stream.runCollect(count(500, "count")), 500)
              assert.lengthOf(yield* Stream.runCollect(count(500, "count_async")), 500)
              assert.isUndefined(stalled.pollUnsafe())
              yield* gate.open
              assert.deepStrictEqual(yield* Fiber.join(stalled), upTo(1000))
            })
          )
        })
      }

      it.effect("fails in the middle with the exception of the generator", () =>
        Effect.gen(function* () {
          const stream = Synapse.stream(Schema.Int, { to: 9, fail_at: 3, how: "exception" }, { method: "count" })
          const { exception } = yield* reasonOf(Stream.runDrain(stream), "PythonException")
          assert.deepStrictEqual([exception.type, exception.message], ["ValueError", "no 3"])
        })
      )

      it.effect("fails at an item that cannot be carried, after those before it", () =>
        Effect.gen(function* () {
          const got = yield* Ref.make(0)
          const stream = Synapse.stream(Schema.Int, { to: 9, fail_at: 3, how: "item" }, { method: "count" })
          const { side } = yield* reasonOf(
            Stream.runForEach(stream, () => Ref.update(got, (n) => n + 1)),
            "EncodeFailed"
          )
          assert.deepStrictEqual([side, yield* Ref.get(got)], ["python", 3])
        })
      )

      it.effect("fails at an item that does not fit its schema, after those before it", () =>
        Effect.gen(function* () {
          yield* forget
          const items: Array<number> = []
          const Small = Schema.Int.check(Schema.isLessThan(3))
          const run = Stream.runForEach(Synapse.stream(Small, { to: 100 }, { method: "count" }), (item) =>
            Effect.sync(() => items.push(item))
          )
          const { path, side } = yield* reasonOf(run, "DecodeFailed")
          assert.deepStrictEqual([items, side, path], [[0, 1, 2], "typescript", "$[3]"])
          yield* seenEventually("count closed")
        })
      )

      it.effect("keeps Python from running ahead of its consumer", () =>
        Effect.gen(function* () {
          const made = Effect.map(seen, (events) => events.filter((event) => event.startsWith("made")).length)
          for (const [size, atMost] of [
            [10, 64],
            [300_000, 4]
          ] as const) {
            yield* forget
            const begun = yield* Deferred.make<void>()
            const stream = Synapse.stream(Schema.Uint8Array, { items: 2000, size }, { method: "produced" })
            const fiber = yield* Effect.forkChild(
              Stream.runForEach(stream, () => Effect.andThen(Deferred.succeed(begun, undefined), Effect.never))
            )
            yield* Deferred.await(begun)
            let before = -1
            let now = yield* made
            // Until it stands still.
            while (now !== before) {
              for (const _ of upTo(20)) yield* Synapse.call(Schema.Unknown, 1, { method: "echo" })
              before = now
              now = yield* made
            }
            assert.isAtMost(now, atMost + 1)
            yield* Fiber.interrupt(fiber)
          }
        })
      )

      it.effect("comes from a function that returns what can be iterated", () =>
        Effect.gen(function* () {
          const items = yield* Stream.runCollect(
            Synapse.stream(Schema.String, { items: ["a", "b"] }, { method: "returned" })
          )
          assert.deepStrictEqual(items, ["a", "b"])
        })
      )

      it.effect("cannot be had of a function, nor one value of a generator", () =>
        Effect.gen(function* () {
          const asStream = yield* reasonOf(
            Stream.runDrain(Synapse.stream(Schema.Unknown, 1, { method: "echo" })),
            "Unsupported"
          )
          assert.include(asStream.detail, "Synapse.call")
          const asCall = yield* reasonOf(Synapse.call(Schema.Unknown, { to: 1 }, { method: "count" }), "Unsupported")
          assert.include(asCall.detail, "Synapse.stream")
          assert.strictEqual(asCall.delivery, "rejected")
        })
      )

      it.effect("ends when its time to run is over", () =>
        Effect.gen(function* () {
          yield* forget
          const begun = yield* Deferred.make<void>()
          const stream = Synapse.stream(Schema.Int, {}, { method: "ticking", timeout: "1 minute" })
          const fiber = yield* Effect.forkChild(Stream.runForEach(stream, () => Deferred.succeed(begun, undefined)))
          yield* Deferred.await(begun)
          yield* TestClock.adjust("1 minute")
          const { running } = yield* reasonOf(Fiber.join(fiber), "CallTimeout")
          assert.isTrue(running)
          yield* seenEventually("ticking closed")
        })
      )

      it.effect("runs many at once", () =>
        Effect.gen(function* () {
          const sizes = yield* Effect.forEach(
            upTo(60),
            (n) => Stream.runCount(count(100 + n, n % 2 === 0 ? "count" : "count_async")),
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual(
            sizes,
            upTo(60).map((n) => 100 + n)
          )
          yield* nothingOpen
        })
      )
    }
  )

  layer(Synapse.layer({ ...modules.dialogue, concurrency }), live)(
    `with concurrency ${concurrency}, an input stream`,
    (it) => {
      for (const method of ["total", "total_async"]) {
        describe(`to ${method}`, () => {
          it.effect("is an iterator in Python", () =>
            Effect.gen(function* () {
              for (const n of [0, 1, 64, 5000]) {
                const numbers = Stream.range(1, n)
                assert.strictEqual(yield* Synapse.call(Schema.Int, { numbers }, { method }), (n * (n + 1)) / 2)
              }
              yield* nothingOpen
            })
          )

          it.effect("whose item does not fit its annotation fails the call", () =>
            Effect.gen(function* () {
              const numbers = Stream.make(1, 2, "three")
              const { path, side } = yield* reasonOf(Synapse.call(Schema.Int, { numbers }, { method }), "DecodeFailed")
              assert.strictEqual(side, "python")
              assert.include(path, "[2]")
            })
          )

          it.effect("whose item cannot be carried fails the call once", () =>
            Effect.gen(function* () {
              const numbers = Stream.make(1, Symbol("two"))
              const { reason } = yield* Effect.flip(Synapse.call(Schema.Int, { numbers }, { method }))
              assert.include(reason.message, "symbol")
              yield* nothingOpen
            })
          )

          it.effect("that fails is an exception there, and fails the call", () =>
            Effect.gen(function* () {
              const numbers = Stream.concat(Stream.make(1, 2), Stream.fail({ _tag: "Broken", at: 3 }))
              const { error } = yield* reasonOf(Synapse.call(Schema.Int, { numbers }, { method }), "HandlerFailed")
              assert.deepStrictEqual(error, { _tag: "Broken", at: 3 })
              yield* nothingOpen
            })
          )

          it.effect("is closed when the call is interrupted", () =>
            Effect.gen(function* () {
              const begun = yield* Deferred.make<void>()
              const closed = yield* Deferred.make<void>()
              const numbers = Stream.fromEffect(Deferred.succeed(begun, undefined)).pipe(
                Stream.as(1),
                Stream.concat(Stream.never),
                Stream.ensuring(Deferred.succeed(closed, undefined))
              )
              const fiber = yield* Effect.forkChild(Synapse.call(Schema.Int, { numbers }, { method }))
              yield* Deferred.await(begun)
              yield* Fiber.interrupt(fiber)
              yield* Deferred.await(closed)
              yield* nothingOpen
            })
          )
        })
      }

      it.effect("is pulled no further than Python reads", () =>
        Effect.gen(function* () {
          const pulled = yield* Ref.make(0)
          const closed = yield* Deferred.make<void>()
          const numbers = Stream.range(0, 1_000_000).pipe(
            Stream.rechunk(1),
            Stream.tap(() => Ref.update(pulled, (n) => n + 1)),
            Stream.ensuring(Deferred.succeed(closed, undefined))
          )
          const call = Synapse.call(Schema.Array(Schema.Int), { numbers, how_many: 3 }, { method: "first_of" })
          assert.deepStrictEqual(yield* call, [0, 1, 2])
          yield* Deferred.await(closed)
          assert.isAtMost(yield* Ref.get(pulled), 130)
          yield* nothingOpen
        })
      )

      it.effect("can be the whole input", () =>
        Effect.gen(function* () {
          const call = Synapse.call(Schema.Array(Schema.String), Stream.make("a", "b"), { method: "whole" })
          assert.deepStrictEqual(yield* call, ["a", "b"])
        })
      )

      it.effect("keeps what came before its failure, for a handler that catches it", () =>
        Effect.gen(function* () {
          const numbers = Stream.concat(Stream.make(1, 2), Stream.fail(new Error("gone")))
          const result = yield* Synapse.call(Schema.Unknown, { numbers }, { method: "caught" })
          assert.deepStrictEqual(result, { read: [1, 2], tag: "Error", error: { _tag: "Error", message: "gone" } })
        })
      )

      for (const method of ["doubled", "doubled_async"]) {
        it.effect(`becomes a stream again: ${method}`, () =>
          Effect.gen(function* () {
            const stream = Synapse.stream(Schema.Int, { numbers: Stream.range(0, 999) }, { method })
            assert.deepStrictEqual(
              yield* Stream.runCollect(stream),
              upTo(1000).map((n) => n * 2)
            )
            assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(stream, 3)), [0, 2, 4])
            yield* nothingOpen
          })
        )
      }

      it.effect("may call the module that reads it", () =>
        Effect.gen(function* () {
          const echoed = (n: number) => Synapse.call(Schema.Int, n, { method: "echo" })
          const numbers = Stream.mapEffect(Stream.range(1, 100), echoed)
          assert.strictEqual(yield* Synapse.call(Schema.Int, { numbers }, { method: "total" }), 5050)
          yield* nothingOpen
        })
      )

      it.effect("may be a stream of a stream of the module that reads it", () =>
        Effect.gen(function* () {
          const doubled = Synapse.stream(Schema.Int, { numbers: count(500) }, { method: "doubled" })
          const again = Synapse.stream(Schema.Int, { numbers: doubled }, { method: "doubled" })
          const items = yield* Stream.runCollect(again)
          assert.deepStrictEqual(
            items,
            upTo(500).map((n) => n * 4)
          )
          yield* nothingOpen
        })
      )

      it.effect("runs with the services of the caller", () =>
        Effect.gen(function* () {
          const tenfold = Stream.fromEffect(Effect.map(Effect.service(Tenfold), (f) => f(4)))
          const call = Synapse.call(Schema.Int, { numbers: tenfold }, { method: "total" })
          assert.strictEqual(yield* Effect.provideService(call, Tenfold, (n: number) => n * 10), 40)
        })
      )

      it.effect("is encoded item by item with the schema of the payload", () =>
        Effect.gen(function* () {
          const payload = Schema.Struct({ numbers: Synapse.StreamOf(Schema.NumberFromString) })
          const call = Synapse.call(Schema.Array(Schema.Unknown), Stream.make(1, 2), {
            method: "whole",
            payload: Synapse.StreamOf(Schema.NumberFromString)
          })
          assert.deepStrictEqual(yield* call, ["1", "2"])
          const wrong = Synapse.call(Schema.Int, { numbers: Stream.make(1.5) }, { method: "total", payload })
          yield* reasonOf(wrong, "DecodeFailed")
        })
      )
    }
  )
}

// The pause before the next start passes by itself.
layer(Synapse.layer(modules.dialogue), { ...live, excludeTestServices: true })("a stream whose worker dies", (it) => {
  it.effect("gives what came before, then how it died", () =>
    Effect.gen(function* () {
      const pid = yield* Synapse.call(Schema.Int, {}, { method: "pid" })
      const items: Array<number> = []
      const error = yield* Synapse.stream(Schema.Int, {}, { method: "ticking" }).pipe(
        Stream.runForEach((item) =>
          Effect.sync(() => {
            items.push(item)
            if (item === 3) process.kill(pid, "SIGKILL")
          })
        ),
        Effect.flip
      )
      assert.deepStrictEqual([error.reason._tag, error.delivery], ["WorkerExited", "unknown"])
      assert.deepStrictEqual(items.slice(0, 4), [0, 1, 2, 3])
      assert.deepStrictEqual(items, upTo(items.length))
      assert.notStrictEqual(yield* Synapse.call(Schema.Int, {}, { method: "pid" }), pid)
    })
  )
})

describe("a stream of a runtime that is closed", () => {
  it.effect("fails with Closed", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const ended = yield* Deferred.make<Option.Option<SynapseError>>()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const runtime = yield* Synapse.make(modules.dialogue)
          yield* runtime.stream(Schema.Int, {}, { method: "ticking" }).pipe(
            Stream.runForEach(() => Deferred.succeed(begun, undefined)),
            Effect.matchEffect({
              onFailure: (error) => Deferred.succeed(ended, Option.some(error)),
              onSuccess: () => Deferred.succeed(ended, Option.none())
            }),
            Effect.forkDetach
          )
          yield* Deferred.await(begun)
        })
      ).pipe(TestClock.withLive)
      assert.strictEqual(Option.getOrThrow(yield* Deferred.await(ended)).reason._tag, "Closed")
    }).pipe(Effect.provide(NodeServices.layer))
  )
})
