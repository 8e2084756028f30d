/** A real worker that calls back: host functions, from every place in Python that may call them. */
import { assert, describe, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Ref, Schema, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import { HostFunctions, Synapse } from "effect-synapse"
import { nativeSleep } from "../src/internal/nativeSleep.ts"
import { live, nothingOpen, reasonOf, seenEventually, upTo } from "./fixtures/dialogue.ts"
import * as modules from "./fixtures/modules.ts"

class NoSuchUser extends Schema.TaggedError<NoSuchUser>()("NoSuchUser", { id: Schema.Int }) {}

const Users = RpcGroup.make(
  Rpc.make("nameOf", { payload: { id: Schema.Int }, success: Schema.String, error: NoSuchUser }),
  Rpc.make("wait", { success: Schema.Void }),
  Rpc.make("die"),
  Rpc.make("back", { payload: { method: Schema.String, depth: Schema.Int }, success: Schema.Int }),
  Rpc.make("backInTurns", { payload: { depth: Schema.Int }, success: Schema.Int }),
  Rpc.make("ids", { success: Schema.Int, stream: true }),
  Rpc.make("brokenIds", { success: Schema.Int, error: NoSuchUser, stream: true })
)

class Names extends Context.Service<Names, ReadonlyMap<number, string>>()("test/Names") {}

/** What the host function `wait` does. */
class Waiting extends Context.Service<
  Waiting,
  { readonly began: Deferred.Deferred<void>; readonly ended: Deferred.Deferred<void> }
>()("test/Waiting") {
  static readonly fresh = Effect.gen(function* () {
    return { began: yield* Deferred.make<void>(), ended: yield* Deferred.make<void>() }
  })
}

let waiting: Waiting["Service"]

const host = HostFunctions.make(
  Users,
  Effect.gen(function* () {
    const names = yield* Names
    return Users.of({
      nameOf: ({ id }) => {
        const name = names.get(id)
        return name === undefined ? Effect.fail(new NoSuchUser({ id })) : Effect.succeed(name)
      },
      wait: () =>
        Effect.suspend(() => {
          const { began, ended } = waiting
          return Deferred.succeed(began, undefined).pipe(
            Effect.andThen(Effect.never),
            Effect.ensuring(Deferred.succeed(ended, undefined))
          )
        }),
      die: () => Effect.die(new RangeError("boom")),
      // Host to Python to host to Python; in turns, to async and to sync handlers.
      backInTurns: ({ depth }) =>
        depth === 0
          ? Effect.succeed(0)
          : Effect.andThen(
              // The chains mix.
              nativeSleep(10 * Math.random()),
              Synapse.call(
                Schema.Unknown,
                { method: "backInTurns", payload: { depth: depth - 1 } },
                { method: depth % 2 === 0 ? "ask_sync" : "ask" }
              )
            ).pipe(Effect.as(depth), Effect.orDie),
      back: ({ depth, method }) =>
        depth === 0
          ? Effect.succeed(0)
          : Synapse.call(Schema.Int, { method: "back", payload: { method, depth: depth - 1 } }, { method }).pipe(
              Effect.map((n) => n + 1),
              Effect.orDie
            ),
      ids: () => Stream.range(0, 999),
      brokenIds: () => Stream.concat(Stream.make(1, 2), Stream.fail(new NoSuchUser({ id: 3 })))
    })
  })
)

const names = new Map([[1, "Ada"], [2, "Alan"], ...upTo(100).map((n) => [n + 10, `user ${n + 10}`] as const)])

const HostLive = Layer.succeed(Names, names)

const nameOf = (id: number, method: string) => Synapse.call(Schema.String, { id }, { method })

for (const concurrency of [1, 3]) {
  layer(Synapse.layer({ ...modules.dialogue, concurrency, host }).pipe(Layer.provide(HostLive)), live)(
    `with concurrency ${concurrency}, a host function`,
    (it) => {
      for (const method of ["name_of", "name_of_sync"]) {
        describe(`called from ${method}`, () => {
          it.effect("returns its value", () =>
            Effect.gen(function* () {
              for (const _ of upTo(50)) assert.strictEqual(yield* nameOf(1, method), "Ada")
              yield* nothingOpen
            })
          )

          it.effect("raises its typed failure, which crosses back unchanged", () =>
            Effect.gen(function* () {
              const { error } = yield* reasonOf(nameOf(7, method), "HandlerFailed")
              assert.deepStrictEqual(error, { _tag: "NoSuchUser", id: 7 })
            })
          )

          it.effect("answers many at once", () =>
            Effect.gen(function* () {
              const ids = upTo(100).map((n) => n + 10)
              const found = yield* Effect.forEach(ids, (id) => nameOf(id, method), { concurrency: "unbounded" })
              assert.deepStrictEqual(
                found,
                ids.map((id) => names.get(id)!)
              )
            })
          )
        })
      }

      it.effect("is an exception of the class that Python declares for it", () =>
        Effect.gen(function* () {
          const caught = yield* Synapse.call(Schema.Unknown, { id: 7 }, { method: "name_or_tag" })
          assert.deepStrictEqual(caught, ["NoSuchUser", 7])
        })
      )

      it.effect("is called from many tasks and many threads at once", () =>
        Effect.gen(function* () {
          const ids = upTo(40).map((n) => n + 10)
          const expected = ids.map((id) => names.get(id)!)
          for (const method of ["names_of", "names_of_threads"]) {
            const found = yield* Synapse.call(Schema.Array(Schema.String), { ids }, { method })
            assert.deepStrictEqual(found, expected)
          }
        })
      )

      it.effect("that is not there, does not fit or dies fails alone, and says why", () =>
        Effect.gen(function* () {
          const Failure = Schema.Struct({ reason: Schema.String, message: Schema.String })
          const ask = (method: string, payload: object) => Synapse.call(Failure, { method, payload }, { method: "ask" })
          const missing = yield* ask("nameof", {})
          assert.strictEqual(missing.reason, "MethodNotFound")
          assert.include(missing.message, "nameOf")
          const wrong = yield* ask("nameOf", { id: "one" })
          assert.strictEqual(wrong.reason, "DecodeFailed")
          assert.include(wrong.message, "id")
          const dead = yield* ask("die", {})
          assert.strictEqual(dead.reason, "Exception")
          assert.include(dead.message, "boom")
          const stream = yield* ask("ids", {})
          assert.strictEqual(stream.reason, "Unsupported")
          assert.strictEqual(yield* nameOf(1, "name_of"), "Ada")
        })
      )

      for (const method of ["host_items", "host_items_sync"]) {
        it.effect(`that streams is read to its end or not: ${method}`, () =>
          Effect.gen(function* () {
            const items = (name: string, take: number) =>
              Synapse.call(Schema.Array(Schema.Int), { method: name, take }, { method })
            assert.deepStrictEqual(yield* items("ids", -1), upTo(1000))
            assert.deepStrictEqual(yield* items("ids", 3), [0, 1, 2])
            const { error } = yield* reasonOf(items("brokenIds", -1), "HandlerFailed")
            assert.deepStrictEqual(error, { _tag: "NoSuchUser", id: 3 })
            yield* nothingOpen
          })
        )
      }

      for (const method of ["ask", "ask_sync"]) {
        it.effect(`is interrupted with the call inside which it was made: ${method}`, () =>
          Effect.gen(function* () {
            waiting = yield* Waiting.fresh
            const call = yield* Effect.forkChild(
              Synapse.call(Schema.Unknown, { method: "wait", payload: {} }, { method })
            )
            yield* Deferred.await(waiting.began)
            yield* Fiber.interrupt(call)
            yield* Deferred.await(waiting.ended)
            yield* nothingOpen
          })
        )

        it.effect(`has the deadline of that call: ${method}`, () =>
          Effect.gen(function* () {
            waiting = yield* Waiting.fresh
            const call = yield* Effect.forkChild(
              Synapse.call(Schema.Unknown, { method: "wait", payload: {} }, { method, timeout: "1 minute" })
            )
            yield* Deferred.await(waiting.began)
            yield* TestClock.adjust("1 minute")
            yield* Deferred.await(waiting.ended)
            yield* reasonOf(Fiber.join(call), "CallTimeout")
            yield* nothingOpen
          })
        )
      }

      it.effect("may call the module that waits for it, which may call it again", () =>
        Effect.gen(function* () {
          const back = (depth: number) =>
            Synapse.call(Schema.Int, { method: "back", payload: { method: "ask_sync", depth } }, { method: "ask_sync" })
          assert.strictEqual(yield* back(0), 0)
          assert.strictEqual(yield* back(5), 5)
          // All of them beyond the places that the worker has.
          assert.deepStrictEqual(
            yield* Effect.forEach(upTo(10), () => back(3), { concurrency: "unbounded" }),
            upTo(10).map(() => 3)
          )
          yield* nothingOpen
        })
      )

      it.effect("is called from the background", () => seenEventually("host says Ada"))
    }
  )
}

layer(Synapse.layer(modules.dialogue), live)("without host functions", (it) => {
  it.effect("a call of one says so", () =>
    Effect.gen(function* () {
      const { reason } = yield* Synapse.call(
        Schema.Struct({ reason: Schema.String }),
        { method: "nameOf", payload: {} },
        { method: "ask" }
      )
      assert.strictEqual(reason, "MethodNotFound")
    })
  )
})

layer(Synapse.layer({ ...modules.dialogue, workers: 2, host }).pipe(Layer.provide(HostLive)), live)(
  "with two workers",
  (it) => {
    it.effect("chains that call back and forth never wait for each other", () =>
      Effect.gen(function* () {
        const done = yield* Ref.make(0)
        const back = Synapse.call(
          Schema.Int,
          { method: "back", payload: { method: "ask_sync", depth: 4 } },
          { method: "ask_sync" }
        )
        yield* Effect.forEach(
          upTo(20),
          () =>
            Effect.andThen(
              back,
              Ref.update(done, (n) => n + 1)
            ),
          {
            concurrency: "unbounded"
          }
        )
        assert.strictEqual(yield* Ref.get(done), 20)
      })
    )

    it.effect("chains through async handlers do not either", () =>
      Effect.gen(function* () {
        const turns = Synapse.call(Schema.Int, { method: "backInTurns", payload: { depth: 3 } }, { method: "ask_sync" })
        assert.deepStrictEqual(
          yield* Effect.forEach(upTo(50), () => turns, { concurrency: "unbounded" }),
          upTo(50).map(() => 3)
        )
      })
    )
  }
)
