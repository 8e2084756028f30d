import { assert, describe, it } from "@effect/vitest"
import {
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Queue,
  Schema,
  SchemaGetter,
  Scope,
  Stream
} from "effect"
import { Rpc, RpcGroup, RpcMiddleware } from "effect/rpc"
import { TestClock } from "effect/testing"
import * as HostFunctions from "../src/HostFunctions.ts"
import { CurrentRequest } from "../src/internal/serving.ts"
import * as Asker from "./fixtures/Asker.ts"

const { died, fail, interrupted, refused, rejected, success } = Asker

class NoSuchUser extends Schema.TaggedError<NoSuchUser>()("NoSuchUser", { id: Schema.Int, since: Schema.Date }) {}

/** Functions whose schemas matter to no test. */
const one = <A, R>(handler: (payload: unknown) => Effect.Effect<A, never, R>) =>
  HostFunctions.make(RpcGroup.make(Rpc.make("one", { payload: Schema.Any, success: Schema.Any })), { one: handler })

const many = <A, R>(handler: (payload: unknown) => Stream.Stream<A, never, R>) =>
  HostFunctions.make(RpcGroup.make(Rpc.make("many", { payload: Schema.Any, success: Schema.Any, stream: true })), {
    many: handler
  })

describe("a host function", () => {
  it.effect("takes and gives what its schemas say", () =>
    Effect.gen(function* () {
      const group = RpcGroup.make(
        Rpc.make("shift", {
          payload: { at: Schema.Date, by: Schema.BigInt, data: Schema.Uint8Array },
          success: Schema.Struct({
            at: Schema.DateFromMillis,
            by: Schema.Option(Schema.BigInt),
            data: Schema.Uint8Array
          })
        })
      )
      const host = HostFunctions.make(group, {
        shift: ({ at, by, data }) => {
          assert.instanceOf(at, Date)
          assert.strictEqual(by, 3n)
          return Effect.succeed({ at: new Date(at.getTime() + 5), by: Option.some(by), data })
        }
      })
      const { call } = yield* Asker.make({ host })
      const answer = yield* call("shift", { at: new Date(10), by: 3, data: Uint8Array.of(1, 2) })
      assert.deepStrictEqual(answer, success(1, { at: 15, by: { _tag: "Some", value: 3 }, data: Uint8Array.of(1, 2) }))
    })
  )

  it.effect("without a payload takes an empty map, nil and nothing", () =>
    Effect.gen(function* () {
      const group = RpcGroup.make(
        Rpc.make("now", { success: Schema.Int }),
        Rpc.make("list", { payload: { limit: Schema.optionalKey(Schema.Int) }, success: Schema.Int }),
        Rpc.make("forget")
      )
      const host = HostFunctions.make(group, {
        now: () => Effect.succeed(1),
        list: ({ limit }) => Effect.succeed(limit ?? 10),
        forget: () => Effect.void
      })
      const { call } = yield* Asker.make({ host })
      for (const payload of [{}, null, undefined]) {
        assert.strictEqual((yield* call("now", payload)).payload, 1)
        assert.strictEqual((yield* call("list", payload)).payload, 10)
        const { kind, payload: nothing } = yield* call("forget", payload)
        assert.deepStrictEqual([kind, nothing], [2, null])
      }
    })
  )

  it.effect("takes one value that is no map", () =>
    Effect.gen(function* () {
      const group = RpcGroup.make(Rpc.make("double", { payload: Schema.Int, success: Schema.Int }))
      const { call } = yield* Asker.make({ host: HostFunctions.make(group, { double: (n) => Effect.succeed(n * 2) }) })
      assert.deepStrictEqual(yield* call("double", 21), success(1, 42))
    })
  )

  it.effect("that does not exist is answered with the names that come closest", () =>
    Effect.gen(function* () {
      const names = ["fetchUser", "fetchUsers", "deleteUser", "log"]
      const group = RpcGroup.make(...names.map((name) => Rpc.make(name)))
      const host = HostFunctions.make(group, Object.fromEntries(names.map((name) => [name, () => Effect.void])))
      const { call } = yield* Asker.make({ host })
      assert.deepStrictEqual(
        yield* call("fetchUsr"),
        rejected(1, "MethodNotFound", { method: "fetchUsr", nearest: ["fetchUser", "fetchUsers"] })
      )
      assert.deepStrictEqual(
        yield* call("__proto__"),
        rejected(2, "MethodNotFound", { method: "__proto__", nearest: names.toSorted() })
      )
    })
  )

  it.effect("is found by nobody where there are none", () =>
    Effect.gen(function* () {
      const { call } = yield* Asker.make()
      assert.deepStrictEqual(yield* call("f"), rejected(1, "MethodNotFound", { method: "f", nearest: [] }))
    })
  )

  it.effect("is not entered with arguments that do not fit", () =>
    Effect.gen(function* () {
      const group = RpcGroup.make(
        Rpc.make("f", { payload: { users: Schema.Array(Schema.Struct({ id: Schema.Int })) } })
      )
      const { call } = yield* Asker.make({ host: HostFunctions.make(group, { f: () => Effect.die("entered") }) })
      assert.deepStrictEqual(
        yield* call("f", { users: [{ id: 1 }, { id: "2" }] }),
        rejected(1, "DecodeFailed", { path: "$.users[1].id", issue: 'Expected number, got "2"' })
      )
    })
  )

  it.effect("fails with its error as the schema encodes it", () =>
    Effect.gen(function* () {
      const group = RpcGroup.make(Rpc.make("f", { error: NoSuchUser }))
      const since = new Date(7)
      const host = HostFunctions.make(group, { f: () => Effect.fail(new NoSuchUser({ id: 3, since })) })
      const { call } = yield* Asker.make({ host })
      assert.deepStrictEqual(yield* call("f"), fail(1, { _tag: "NoSuchUser", id: 3, since }))
    })
  )

  it.effect("that dies ends its own request and no other", () =>
    Effect.gen(function* () {
      const host = one((payload) =>
        payload === "throw"
          ? Effect.sync(() => {
              throw new RangeError("out of reach")
            })
          : payload === "die"
            ? Effect.die({ strange: true })
            : payload === "construct"
              ? (() => {
                  throw new TypeError("at once")
                })()
              : Effect.succeed(payload)
      )
      const { ask, call, end } = yield* Asker.make({ host })
      assert.deepStrictEqual(yield* call("one", "throw"), died(1, "RangeError", "out of reach"))
      assert.deepStrictEqual(yield* call("one", "die"), died(2, "Error", "{ strange: true }"))
      assert.deepStrictEqual(yield* call("one", "construct"), died(3, "TypeError", "at once"))
      assert.deepStrictEqual(yield* end(ask({ method: "one" }, "fine")), success(4, "fine"))
    })
  )

  it.effect("says in what can be carried why it died", () =>
    Effect.gen(function* () {
      const { call } = yield* Asker.make({ host: one(() => Effect.die(new Error(`\ud800${"x".repeat(1e6)}`))) })
      const { message } = (yield* call("one")).payload as { readonly message: string }
      assert.isTrue(message.startsWith("\ufffdxxx"))
      assert.isAtMost(message.length, 20_000)
    })
  )

  it.effect("whose result cannot be carried says where it cannot", () =>
    Effect.gen(function* () {
      const group = RpcGroup.make(
        Rpc.make("typed", { success: Schema.Struct({ n: Schema.Int }) }),
        Rpc.make("any", { success: Schema.Any }),
        Rpc.make("error", { error: Schema.Struct({ _tag: Schema.tag("E"), what: Schema.Any }) })
      )
      const host = HostFunctions.make(group, {
        typed: () => Effect.succeed({ n: 1.5 }),
        any: () => Effect.succeed({ a: [Symbol("s")] }),
        error: () => Effect.fail({ _tag: "E" as const, what: () => {} })
      })
      const { call } = yield* Asker.make({ host })
      const typed = yield* call("typed")
      assert.deepStrictEqual(typed.meta, { reason: "EncodeFailed" })
      assert.strictEqual((typed.payload as { readonly path: string }).path, "$.n")
      const any = { path: "$.a[0]", issue: "a symbol: pass its description" }
      assert.deepStrictEqual(yield* call("any"), refused(2, "EncodeFailed", any))
      const error = { path: "$.what", issue: "a function: pass what it returns" }
      assert.deepStrictEqual(yield* call("error"), refused(3, "EncodeFailed", error))
    })
  )

  it.effect("whose result is too large says how large it is", () =>
    Effect.gen(function* () {
      const { call } = yield* Asker.make({ host: one(() => Effect.succeed(new Uint8Array(5000))), maxFrameSize: 4096 })
      assert.deepStrictEqual(yield* call("one"), refused(1, "FrameTooLarge", { size: 8 + 3 + 5000, limit: 4096 }))
    })
  )

  it.effect("has the services that it needs where it is served", () =>
    Effect.gen(function* () {
      class Users extends Context.Service<Users, { readonly count: number }>()("test/Users") {}
      class Names extends Context.Service<Names, ReadonlyArray<string>>()("test/Names") {}
      const Doubled = Schema.Int.pipe(
        Schema.decode({
          decode: SchemaGetter.transformEffect((n: number) => Effect.map(Users, ({ count }) => n * count)),
          encode: SchemaGetter.passthrough()
        })
      )
      const group = RpcGroup.make(Rpc.make("count", { payload: Doubled, success: Schema.String }))
      const host = HostFunctions.make(
        group,
        Effect.gen(function* () {
          const names = yield* Names
          return group.of({ count: (n) => Effect.map(Users, ({ count }) => `${names[0]} ${n} ${count}`) })
        })
      )
      const typed: HostFunctions.HostFunctions<Users | Names> = host
      const asker = Asker.make({ host: typed })
      const { call } = yield* asker.pipe(
        Effect.provideService(Users, { count: 7 }),
        Effect.provideService(Names, ["n"])
      )
      assert.deepStrictEqual(yield* call("count", 2), success(1, "n 14 7"))
    })
  )

  it.effect("has a scope that closes when it has answered", () =>
    Effect.gen(function* () {
      const released: Array<string> = []
      const host = one(() =>
        Effect.as(
          Effect.addFinalizer(() => Effect.sync(() => released.push("released"))),
          1
        )
      )
      const { call } = yield* Asker.make({ host })
      assert.deepStrictEqual(yield* call("one"), success(1, 1))
      assert.deepStrictEqual(released, ["released"])
    })
  )

  it.effect("may answer later with a Deferred", () =>
    Effect.gen(function* () {
      const group = RpcGroup.make(Rpc.make("later", { success: Schema.Int }))
      const deferred = yield* Deferred.make<number>()
      const { ask, end, ends } = yield* Asker.make({
        host: HostFunctions.make(group, { later: () => Effect.succeed(deferred) })
      })
      const id = ask({ method: "later" })
      assert.deepStrictEqual(ends(id), [])
      yield* Deferred.succeed(deferred, 5)
      assert.deepStrictEqual(yield* end(id), success(1, 5))
    })
  )

  it.effect("asked for the wrong thing says which is right", () =>
    Effect.gen(function* () {
      const group = RpcGroup.make(Rpc.make("value"), Rpc.make("items", { success: Schema.Int, stream: true }))
      const host = HostFunctions.make(group, { value: () => Effect.void, items: () => Stream.make(1) })
      const { call } = yield* Asker.make({ host })
      assert.deepStrictEqual(
        yield* call("value", {}, { stream: 64 }),
        rejected(1, "Unsupported", { detail: "`value` gives one value: use host.call" })
      )
      assert.deepStrictEqual(
        yield* call("items", {}),
        rejected(2, "Unsupported", { detail: "`items` gives a stream: use host.stream" })
      )
    })
  )
})

describe("interruption", () => {
  it.effect("by Cancel stops the handler, and is answered when it has stopped", () =>
    Effect.gen(function* () {
      const stopping = yield* Deferred.make<void>()
      const stopped = yield* Deferred.make<void>()
      const host = one(() =>
        Effect.onInterrupt(Effect.never, () =>
          Effect.andThen(Deferred.succeed(stopping, undefined), Deferred.await(stopped))
        )
      )
      const { ask, end, ends, serving } = yield* Asker.make({ host })
      const id = ask({ method: "one" })
      serving.cancel(id)
      serving.cancel(id)
      yield* Deferred.await(stopping)
      assert.deepStrictEqual(ends(id), [])
      assert.strictEqual(serving.open(), 1)
      yield* Deferred.succeed(stopped, undefined)
      assert.deepStrictEqual(yield* end(id), interrupted(id))
      assert.strictEqual(serving.open(), 0)
      serving.cancel(id)
      assert.strictEqual(ends(id).length, 1)
    })
  )

  it.effect("comes when the deadline passes", () =>
    Effect.gen(function* () {
      const stopped = yield* Deferred.make<void>()
      const host = one(() => Effect.onInterrupt(Effect.never, () => Deferred.succeed(stopped, undefined)))
      const { ask, end, ends } = yield* Asker.make({ host })
      const id = ask({ method: "one", deadline: 250.5 })
      yield* TestClock.adjust(250)
      assert.deepStrictEqual(ends(id), [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* end(id), interrupted(id))
      yield* Deferred.await(stopped)
    })
  )

  it.effect("comes at once when the deadline passed on the way", () =>
    Effect.gen(function* () {
      const { ask, ends } = yield* Asker.make({ host: one(() => Effect.die("entered")) })
      for (const deadline of [0, -5, Number.NEGATIVE_INFINITY]) {
        const id = ask({ method: "one", deadline })
        assert.deepStrictEqual(ends(id), [interrupted(id)])
      }
    })
  )

  it.effect("does not come to what answers in time, and never without an end to wait for", () =>
    Effect.gen(function* () {
      const host = one((millis) => Effect.as(Effect.sleep(millis as number), "done"))
      const { ask, end } = yield* Asker.make({ host })
      const ids = [50, 1e12, Number.POSITIVE_INFINITY].map((deadline) => ask({ method: "one", deadline }, 40))
      yield* TestClock.adjust(40)
      for (const id of ids) assert.deepStrictEqual(yield* end(id), success(id, "done"))
    })
  )

  it.effect("comes when the handler interrupts itself", () =>
    Effect.gen(function* () {
      const { call } = yield* Asker.make({ host: one(() => Effect.interrupt) })
      assert.deepStrictEqual(yield* call("one"), interrupted(1))
    })
  )

  it.effect("comes to all that runs when the connection closes, which waits for it", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      let stopped = 0
      const host = one(() =>
        Effect.onInterrupt(Effect.never, () =>
          Effect.andThen(
            Effect.yieldNow,
            Effect.sync(() => void stopped++)
          )
        )
      )
      const { ask, ends, serving } = yield* Asker.make({ host }).pipe(Scope.provide(scope))
      const ids = [ask({ method: "one" }), ask({ method: "one" }), ask({ method: "one" })]
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(stopped, 3)
      assert.strictEqual(serving.open(), 0)
      for (const id of ids) assert.deepStrictEqual(ends(id), [interrupted(id)])
      const late = ask({ method: "one" })
      assert.deepStrictEqual(ends(late), [rejected(late, "Closed", null)])
    })
  )

  it.effect("while arguments are decoded is answered too", () =>
    Effect.gen(function* () {
      const Slow = Schema.Int.pipe(
        Schema.decode({
          decode: SchemaGetter.transformEffect((n: number) => Effect.as(Effect.never, n)),
          encode: SchemaGetter.passthrough()
        })
      )
      const group = RpcGroup.make(Rpc.make("f", { payload: Slow }))
      const { ask, end, serving } = yield* Asker.make({ host: HostFunctions.make(group, { f: () => Effect.void }) })
      const id = ask({ method: "f" }, 1)
      serving.cancel(id)
      assert.deepStrictEqual(yield* end(id), interrupted(id))
    })
  )
})

describe("a stream", () => {
  it.effect("sends its items through their schema, and ends", () =>
    Effect.gen(function* () {
      const group = RpcGroup.make(
        Rpc.make("range", { payload: { to: Schema.Int }, success: Schema.BigIntFromString, stream: true })
      )
      const host = HostFunctions.make(group, {
        range: ({ to }) => Stream.map(Stream.range(1, to), BigInt)
      })
      const { ask, chunks, end } = yield* Asker.make({ host })
      const id = ask({ method: "range", stream: 64 }, { to: 3 })
      assert.deepStrictEqual(yield* end(id), success(id, null))
      assert.deepStrictEqual(chunks(id), [["1", "2", "3"]])
    })
  )

  it.effect("may be empty", () =>
    Effect.gen(function* () {
      const { call } = yield* Asker.make({ host: many(() => Stream.empty) })
      assert.deepStrictEqual(yield* call("many", {}, { stream: 1 }), success(1, null))
    })
  )

  it.effect("may be a queue", () =>
    Effect.gen(function* () {
      const group = RpcGroup.make(Rpc.make("queue", { success: Schema.Int, stream: true }))
      const host = HostFunctions.make(group, {
        queue: () =>
          Effect.gen(function* () {
            const queue = yield* Queue.make<number>()
            yield* Queue.offerAll(queue, [1, 2, 3])
            yield* Queue.end(queue as never)
            return queue as never
          })
      })
      const { ask, end, items } = yield* Asker.make({ host })
      const id = ask({ method: "queue", stream: 64 })
      assert.deepStrictEqual(yield* end(id), success(id, null))
      assert.deepStrictEqual(items(id), [1, 2, 3])
    })
  )

  it.effect("is pulled only while the worker has room", () =>
    Effect.gen(function* () {
      let pulled = 0
      const host = many(() => Stream.fromEffectRepeat(Effect.sync(() => ++pulled)).pipe(Stream.take(10)))
      const { ask, end, items, serving } = yield* Asker.make({ host })
      const id = ask({ method: "many", stream: 2 })
      yield* Effect.yieldNow
      assert.deepStrictEqual([items(id), pulled], [[1, 2], 2])
      serving.credit(id, 3)
      yield* Effect.yieldNow
      assert.deepStrictEqual([items(id), pulled], [[1, 2, 3, 4, 5], 5])
      serving.credit(id, 100)
      assert.deepStrictEqual(yield* end(id), success(id, null))
      assert.deepStrictEqual([items(id).length, pulled], [10, 10])
    })
  )

  it.effect("fails after the items before the failure", () =>
    Effect.gen(function* () {
      const group = RpcGroup.make(Rpc.make("f", { success: Schema.Int, error: NoSuchUser, stream: true }))
      const since = new Date(0)
      const host = HostFunctions.make(group, {
        f: () => Stream.concat(Stream.make(1, 2), Stream.fail(new NoSuchUser({ id: 1, since })))
      })
      const { ask, end, items } = yield* Asker.make({ host })
      const id = ask({ method: "f", stream: 64 })
      assert.deepStrictEqual(yield* end(id), fail(id, { _tag: "NoSuchUser", id: 1, since }))
      assert.deepStrictEqual(items(id), [1, 2])
    })
  )

  it.effect("dies after the items before the defect", () =>
    Effect.gen(function* () {
      const { ask, end, items } = yield* Asker.make({
        host: many(() => Stream.concat(Stream.make(1, 2), Stream.die(new Error("boom"))))
      })
      const id = ask({ method: "many", stream: 64 })
      assert.deepStrictEqual(yield* end(id), died(id, "Error", "boom"))
      assert.deepStrictEqual(items(id), [1, 2])
    })
  )

  it.effect("ends with an item that does not fit its schema, after those before it, and is stopped", () =>
    Effect.gen(function* () {
      const group = RpcGroup.make(Rpc.make("f", { success: Schema.Struct({ n: Schema.Int }), stream: true }))
      const stopped = yield* Deferred.make<void>()
      const host = HostFunctions.make(group, {
        f: () =>
          Stream.concat(Stream.make({ n: 1 }), Stream.make({ n: 2 }, { n: 2.5 }, { n: 3 })).pipe(
            Stream.concat(Stream.never),
            Stream.ensuring(Deferred.succeed(stopped, undefined))
          )
      })
      const { ask, end, items } = yield* Asker.make({ host })
      const id = ask({ method: "f", stream: 64 })
      const { meta, payload } = yield* end(id)
      assert.deepStrictEqual(meta, { reason: "EncodeFailed" })
      assert.strictEqual((payload as { readonly path: string }).path, "$[2].n")
      assert.deepStrictEqual(items(id), [{ n: 1 }, { n: 2 }])
      yield* Deferred.await(stopped)
    })
  )

  it.effect("ends with an item that is too large", () =>
    Effect.gen(function* () {
      const { ask, end, items } = yield* Asker.make({
        host: many(() => Stream.make(1, new Uint8Array(5000))),
        maxFrameSize: 4096
      })
      const id = ask({ method: "many", stream: 64 })
      assert.deepStrictEqual((yield* end(id)).meta, { reason: "FrameTooLarge" })
      assert.deepStrictEqual(items(id), [1])
    })
  )

  it.effect("is closed by Cancel, even while it waits for room", () =>
    Effect.gen(function* () {
      let closed = 0
      const host = many(() =>
        Stream.ensuring(
          Stream.range(1, 100),
          Effect.sync(() => void closed++)
        )
      )
      const { ask, end, items, serving } = yield* Asker.make({ host })
      const id = ask({ method: "many", stream: 3 })
      assert.deepStrictEqual(items(id), [1, 2, 3])
      serving.cancel(id)
      assert.deepStrictEqual(yield* end(id), interrupted(id))
      assert.strictEqual(closed, 1)
      serving.credit(id, 5)
      assert.strictEqual(items(id).length, 3)
    })
  )

  it.effect("does not hold up another", () =>
    Effect.gen(function* () {
      const { ask, end, ends, items } = yield* Asker.make({ host: many(() => Stream.range(1, 5)) })
      const slow = ask({ method: "many", stream: 1 })
      const quick = ask({ method: "many", stream: 64 })
      assert.deepStrictEqual(yield* end(quick), success(quick, null))
      assert.deepStrictEqual([items(slow), ends(slow)], [[1], []])
    })
  )

  it.effect("whose items a schema throws on has an end", () =>
    Effect.gen(function* () {
      const Throwing = Schema.String.pipe(
        Schema.decodeTo(Schema.String, {
          decode: SchemaGetter.passthrough(),
          encode: SchemaGetter.transform((): string => {
            throw new Error("not this one")
          })
        })
      )
      const host = HostFunctions.make(RpcGroup.make(Rpc.make("many", { success: Throwing, stream: true })), {
        many: () => Stream.make("a")
      })
      const { call, serving } = yield* Asker.make({ host })
      assert.deepStrictEqual(yield* call("many", undefined, { stream: 4 }), died(1, "Error", "not this one"))
      assert.strictEqual(serving.open(), 0)
    })
  )
})

describe("middleware", () => {
  class User extends Context.Service<User, { readonly name: string }>()("test/User") {}
  class Unauthorized extends Schema.TaggedError<Unauthorized>()("Unauthorized", { who: Schema.String }) {}
  class Auth extends RpcMiddleware.Service<Auth, { provides: User }>()("test/Auth", { error: Unauthorized }) {}

  const group = RpcGroup.make(
    Rpc.make("whoami", { success: Schema.String }),
    Rpc.make("items", { success: Schema.String, stream: true })
  ).middleware(Auth)

  const host = HostFunctions.make(group, {
    whoami: () => Effect.map(User, ({ name }) => name),
    items: () => Stream.fromEffect(Effect.map(User, ({ name }) => name))
  })

  const AuthLive = Layer.succeed(Auth, (effect, { headers, rpc }) => {
    if (headers.user === "throw") throw new Error("middleware")
    return headers.user === undefined
      ? Effect.fail(new Unauthorized({ who: rpc._tag }))
      : Effect.provideService(effect, User, { name: headers.user })
  })

  const asker = Effect.provide(Asker.make({ host: host satisfies HostFunctions.HostFunctions<Auth> }), AuthLive)

  it.effect("provides services to handlers and streams, from the headers", () =>
    Effect.gen(function* () {
      const { call, items } = yield* asker
      const headers = { user: "ada" }
      assert.deepStrictEqual(yield* call("whoami", {}, { headers }), success(1, "ada"))
      assert.deepStrictEqual(yield* call("items", {}, { headers, stream: 64 }), success(2, null))
      assert.deepStrictEqual(items(2), ["ada"])
    })
  )

  it.effect("fails with its own error", () =>
    Effect.gen(function* () {
      const { call } = yield* asker
      assert.deepStrictEqual(yield* call("whoami"), fail(1, { _tag: "Unauthorized", who: "whoami" }))
      assert.deepStrictEqual(yield* call("items", {}, { stream: 64 }), fail(2, { _tag: "Unauthorized", who: "items" }))
    })
  )

  it.effect("that throws ends its own request", () =>
    Effect.gen(function* () {
      const { call } = yield* asker
      assert.deepStrictEqual(yield* call("whoami", {}, { headers: { user: "throw" } }), died(1, "Error", "middleware"))
      assert.deepStrictEqual(yield* call("whoami", {}, { headers: { user: "ada" } }), success(2, "ada"))
    })
  )
})

describe("the context of a handler", () => {
  const spanOf = one(() =>
    Effect.map(Effect.currentSpan, (span) => ({
      name: span.name,
      kind: span.kind,
      traceId: span.traceId,
      parent: Option.getOrNull(Option.map(span.parent, ({ spanId }) => spanId))
    })).pipe(Effect.orDie)
  )

  it.effect("has a span whose parent is Python's", () =>
    Effect.gen(function* () {
      const { call } = yield* Asker.make({ host: spanOf })
      const traceId = "0af7651916cd43dd8448eb211c80319c"
      const answer = yield* call("one", {}, { trace: `00-${traceId}-b7ad6b7169203331-01` })
      assert.deepStrictEqual(answer.payload, { name: "one", kind: "server", traceId, parent: "b7ad6b7169203331" })
    })
  )

  it.effect("has no part in the span in which the runtime was started", () =>
    Effect.gen(function* () {
      const scope = yield* Effect.scope
      const { call } = yield* Effect.withSpan(Asker.make({ host: spanOf }).pipe(Scope.provide(scope)), "layer")
      for (const trace of [undefined, "nonsense", `00-${"0".repeat(32)}-b7ad6b7169203331-01`]) {
        const { payload } = yield* call("one", {}, { trace })
        assert.strictEqual((payload as { readonly parent: unknown }).parent, null)
      }
    })
  )

  it.effect("takes over whether Python's span is recorded", () =>
    Effect.gen(function* () {
      const host = one(() => Effect.map(Effect.orDie(Effect.currentSpan), ({ sampled }) => sampled))
      const { call } = yield* Asker.make({ host })
      const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
      assert.strictEqual((yield* call("one", {}, { trace: `${trace}00` })).payload, false)
      assert.strictEqual((yield* call("one", {}, { trace: `${trace}01` })).payload, true)
    })
  )

  it.effect("says which call of which connection it serves, to its child fibers too", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const see = Effect.map(CurrentRequest, (request) => seen.push(request))
      const host = one(() => Effect.andThen(see, Effect.flatMap(Effect.forkChild(see), Fiber.join)))
      const { call, owner } = yield* Asker.make({ host })
      yield* call("one", {}, { call: 9 })
      assert.strictEqual(seen.length, 2)
      for (const request of seen) {
        assert.deepStrictEqual(request, { owner, call: 9 })
        assert.strictEqual((request as { readonly owner: object }).owner, owner)
      }
      yield* call("one", {})
      assert.deepStrictEqual(seen.slice(2), [undefined, undefined])
    })
  )

  it.effect("is not that of the fiber that started a worker", () =>
    Effect.gen(function* () {
      const host = one(() => CurrentRequest)
      const { call } = yield* Effect.provideService(Asker.make({ host }), CurrentRequest, { owner: {}, call: 1 })
      assert.deepStrictEqual(yield* call("one"), success(1, null))
    })
  )
})

describe("connections", () => {
  it.effect("share handlers, and nothing else", () =>
    Effect.gen(function* () {
      let built = 0
      const group = RpcGroup.make(Rpc.make("client", { success: Schema.Int }))
      const clients: Array<number> = []
      const host = HostFunctions.make(
        group,
        Effect.sync(() => {
          built++
          return group.of({ client: (_, { client }) => Effect.sync(() => clients.push(client.id)) })
        })
      )
      const served = yield* host.serve
      const shared = { ...host, serve: Effect.succeed(served) }
      const first = yield* Asker.make({ host: shared })
      const second = yield* Asker.make({ host: shared })
      yield* first.call("client")
      yield* second.call("client")
      yield* first.call("client")
      assert.strictEqual(built, 1)
      assert.strictEqual(clients[0], clients[2])
      assert.notStrictEqual(clients[0], clients[1])
    })
  )
})

describe("many requests", () => {
  it.effect("each have one end, whatever comes when", () =>
    Effect.gen(function* () {
      for (let seed = 1; seed <= 30; seed++) {
        const random = seeded(seed)
        const gates: Array<Deferred.Deferred<void>> = []
        const gate = Effect.suspend(() => {
          const deferred = Deferred.makeUnsafe<void>()
          gates.push(deferred)
          return Deferred.await(deferred)
        })
        const behave = (): Effect.Effect<unknown, string> => {
          const r = random()
          if (r < 0.2) return Effect.succeed(r)
          if (r < 0.3) return Effect.fail("no")
          if (r < 0.4) return Effect.die("boom")
          if (r < 0.5) return Effect.uninterruptible(Effect.as(gate, "kept on"))
          if (r < 0.6) return Effect.onInterrupt(Effect.never, () => gate)
          if (r < 0.7) return Effect.succeed(() => {})
          return Effect.as(gate, r)
        }
        const group = RpcGroup.make(
          Rpc.make("value", { success: Schema.Any, error: Schema.String }),
          Rpc.make("items", { success: Schema.Any, error: Schema.String, stream: true })
        )
        const host = HostFunctions.make(group, {
          value: behave,
          items: () => Stream.mapEffect(Stream.range(1, 6), behave)
        })
        const scope = yield* Scope.make()
        const { ask, ends, serving } = yield* Asker.make({ host, maxOpen: 40 }).pipe(Scope.provide(scope))
        const ids: Array<number> = []
        const some = () => ids[Math.floor(random() * ids.length)]!
        for (let step = 0; step < 300; step++) {
          const r = random()
          const deadline = random() < 0.3 ? Math.floor(random() * 50) : undefined
          if (r < 0.2) ids.push(ask({ method: "value", deadline }))
          else if (r < 0.35) ids.push(ask({ method: "items", deadline, stream: 1 + Math.floor(random() * 3) }))
          else if (r < 0.5) serving.cancel(some())
          else if (r < 0.65) serving.credit(some(), 1)
          else if (r < 0.75) yield* TestClock.adjust(Math.floor(random() * 20))
          else if (r < 0.85) yield* Effect.yieldNow
          else if (gates.length > 0) {
            yield* Deferred.succeed(gates.splice(Math.floor(random() * gates.length), 1)[0]!, undefined)
          }
        }
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        while (closing.pollUnsafe() === undefined) {
          for (const each of gates.splice(0)) yield* Deferred.succeed(each, undefined)
          yield* Effect.yieldNow
        }
        for (const id of ids) assert.strictEqual(ends(id).length, 1, `request ${id} of seed ${seed}`)
        assert.strictEqual(serving.open(), 0)
      }
    })
  )
})

const seeded = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}
