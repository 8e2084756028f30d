/**
 * Classes of Python opened by name.
 *
 * What Bindings and ChatModel over python-shell do, by the lines of their list. `test/chatModel.test.ts` has the same of
 * unmodified scripts, and of the class that takes the place of theirs.
 *
 * | line | test |
 * | --- | --- |
 * | 1 to 9, 11, 12 | `ChatModel 1:` and so on, below and in `python/tests/test_controller.py` |
 * | 10 | `ChatModel 10:`, here for a controller, in `test/chatModel.test.ts` for the process |
 */
import { readFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Schema, Scope, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import type { Controller } from "effect-synapse"
import { Synapse } from "effect-synapse"
import { live, reasonOf, upTo } from "./fixtures/dialogue.ts"
import * as modules from "./fixtures/modules.ts"
import { eventually, isAlive } from "./fixtures/processes.ts"

type Loose = Record<
  | "add"
  | "crash"
  | "endless"
  | "fail"
  | "full"
  | "getModelPath"
  | "getTokenizer"
  | "incremen"
  | "increment"
  | "interleave"
  | "note"
  | "note_later"
  | "noted"
  | "pid"
  | "reset"
  | "testPrint"
  | "testStream"
  | "unfit",
  (input?: unknown) => Controller.Value
> & { model: unknown; tokenizer: unknown; made: unknown; counter: unknown; modl: unknown; _log: unknown }

/** Of the names that tests use nothing is known; with unchecked indexed access, it would not take a type to say so. */
const opened = (options?: Controller.Options) => Synapse.controller<Loose>(options as never)

layer(Synapse.layer(modules.controller), live)("a controller", (it) => {
  it.effect("ChatModel 1: has its initial properties before later calls", () =>
    Effect.gen(function* () {
      const chat = yield* opened({ properties: { model: "something" } })
      assert.deepStrictEqual(yield* chat.getModelPath(), { model: "something" })
      const before = yield* chat.pid()
      assert.strictEqual(yield* chat.pid(), before)
    })
  )

  it.effect("ChatModel 2: sets properties and reads them", () =>
    Effect.gen(function* () {
      const chat = yield* opened({ properties: { model: "something" } })
      yield* chat.setProperty("tokenizer", 123)
      assert.deepStrictEqual(yield* chat.getTokenizer(), { tokenizer: 123 })
      assert.strictEqual(yield* chat.getProperty("tokenizer"), 123)
      yield* chat.setProperty("made", { a: [1] })
      assert.deepStrictEqual(yield* chat.getProperty("made"), { a: [1] })
    })
  )

  it.effect("ChatModel 3: any other name is a method, and state persists", () =>
    Effect.gen(function* () {
      const chat = yield* opened()
      assert.deepStrictEqual(yield* chat.increment({ by: 5 }), { counter: 5 })
      assert.deepStrictEqual(yield* chat.increment(), { counter: 6 })
      assert.deepStrictEqual(yield* chat.reset(), { counter: 0 })
    })
  )

  it.effect("ChatModel 4: callMethod is the same call by name", () =>
    Effect.gen(function* () {
      const chat = yield* opened()
      assert.deepStrictEqual(yield* chat.callMethod("increment", { by: 2 }), { counter: 2 })
      assert.strictEqual(yield* chat.callMethod("add", { a: 1, b: 2 }), 3)
      assert.deepStrictEqual(yield* chat.callMethod("echo", 1, [2]), [1, [2]])
      assert.strictEqual(yield* chat.callMethod("then"), "a method called then")
    })
  )

  it.effect("ChatModel 5: calls made together run one after the other, each with its own result", () =>
    Effect.gen(function* () {
      const chat = yield* opened()
      const names = upTo(8).map((n) => `${n}`)
      const results = yield* Effect.forEach(
        names,
        (name, index) => (index % 2 === 0 ? chat.note_later({ name }) : chat.note({ name })),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(results, names)
      assert.deepStrictEqual(
        yield* chat.noted(),
        names.flatMap((name) => [`begin ${name}`, `end ${name}`])
      )
    })
  )

  it.effect("ChatModel 6: what a method sends comes in order, all of it, before its result", () =>
    Effect.gen(function* () {
      const chat = yield* opened()
      const seen: Array<unknown> = []
      yield* chat.onMessage((data) => Effect.sync(() => seen.push(data)))
      seen.push(yield* chat.testStream({ parts: 3000 }))
      assert.deepStrictEqual(seen, [...upTo(3000).map((part) => ({ part })), { parts: 3000 }])
    })
  )

  it.effect("ChatModel 7: an unknown method and one that raises are errors, and the next call works", () =>
    Effect.gen(function* () {
      const chat = yield* opened()
      const { nearest, type } = yield* reasonOf(chat.incremen(), "MethodNotFound")
      assert.include(nearest, "increment")
      assert.strictEqual(type, "main.Controller")
      assert.strictEqual((yield* reasonOf(chat.fail(), "PythonException")).exception.message, "no")
      assert.deepInclude((yield* reasonOf(chat.full(), "HandlerFailed")).error, { _tag: "Full", limit: 3 })
      assert.deepStrictEqual(yield* chat.increment(), { counter: 1 })
    })
  )

  it.effect("ChatModel 9: a result that cannot be carried is an error", () =>
    Effect.gen(function* () {
      const chat = yield* opened()
      assert.strictEqual((yield* reasonOf(chat.unfit(), "EncodeFailed")).side, "python")
      assert.deepStrictEqual(yield* chat.increment(), { counter: 1 })
    })
  )

  it.effect("ChatModel 10: end waits for the calls that were made, and takes no more", () =>
    Effect.gen(function* () {
      const chat = yield* opened()
      const seen: Array<unknown> = []
      yield* chat.onMessage((data) => Effect.sync(() => seen.push(data)))
      const one = yield* Effect.forkChild(chat.note({ name: "one" }), { startImmediately: true })
      const two = yield* Effect.forkChild(chat.testStream({ parts: 2 }), { startImmediately: true })
      yield* chat.end
      assert.strictEqual(one.pollUnsafe()?._tag, "Success")
      assert.deepStrictEqual(two.pollUnsafe(), Exit.succeed({ parts: 2 }))
      assert.deepStrictEqual(seen, [{ part: 0 }, { part: 1 }])
      yield* reasonOf(chat.increment(), "Closed")
      yield* reasonOf(Stream.runDrain(chat.messages("testStream")), "Closed")
      yield* chat.end
      yield* Effect.repeat(Synapse.stats, { until: ({ handles }) => handles === 0 })
    }).pipe(Effect.scoped)
  )

  it.effect("ChatModel 12: a print in a method breaks nothing", () =>
    Effect.gen(function* () {
      const chat = yield* opened()
      assert.deepStrictEqual(yield* chat.testPrint(), { printed: true })
    })
  )

  it.effect("ChatModel 12: streams belong to their call", () =>
    Effect.gen(function* () {
      const chat = yield* opened({ concurrency: 2 })
      const heard: Array<Controller.Message> = []
      yield* chat.onMessage((_, message) => Effect.sync(() => heard.push(message)))
      const [one, two] = yield* Effect.all(
        ["one", "two"].map((name) => Stream.runCollect(chat.messages("interleave", { name, parts: 50 }))),
        { concurrency: 2 }
      )
      assert.deepStrictEqual(
        one,
        upTo(50).map((part) => ["one", part])
      )
      assert.deepStrictEqual(
        two,
        upTo(50).map((part) => ["two", part])
      )
      const calls = new Set(heard.map(({ call, data, method }) => `${method} ${call} ${data[0]}`))
      assert.deepStrictEqual(Array.from(calls).sort(), ["interleave 1 one", "interleave 2 two"])
      // They were under way at once.
      assert.isBelow(
        heard.findIndex(({ call }) => call === 2),
        heard.findLastIndex(({ call }) => call === 1)
      )
    })
  )

  it.effect("ChatModel 12: is no promise, no private names are methods, nothing else is taken for one", () =>
    Effect.gen(function* () {
      const chat = (yield* Synapse.controller()) as unknown as Record<string | symbol, unknown>
      for (const name of ["then", "toJSON", "_private", "__class__", "$$typeof", "@@iterator", "0", "~effect/Effect"]) {
        assert.isUndefined(chat[name], name)
      }
      assert.isUndefined(chat[Symbol.iterator])
      assert.isUndefined(chat[Symbol.toPrimitive])
      assert.strictEqual(yield* Effect.promise(async () => (await chat) === chat), true)
      assert.isString(JSON.stringify(chat))
      assert.strictEqual(chat.increment, chat.increment)
      const { callMethod } = chat as unknown as Controller.Controller
      yield* reasonOf(callMethod("_private"), "MethodNotFound")
      const private_ = (chat as unknown as Controller.Controller).setProperty("_log", 1)
      assert.include((yield* reasonOf(private_, "PythonException")).exception.message, "private")
    })
  )

  it.effect("is independent of the others", () =>
    Effect.gen(function* () {
      const one = yield* opened({ properties: { model: "one" } })
      const two = yield* opened({ properties: { model: "two" } })
      yield* one.increment({ by: 5 })
      assert.deepStrictEqual(yield* two.increment(), { counter: 1 })
      assert.deepStrictEqual(yield* one.getModelPath(), { model: "one" })
      yield* one.end
      assert.deepStrictEqual(yield* two.getModelPath(), { model: "two" })
    })
  )

  it.effect("is let go of with its scope", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const chat = yield* Scope.provide(opened(), scope)
      yield* chat.increment()
      yield* Scope.close(scope, Exit.void)
      yield* reasonOf(chat.increment(), "Unsupported")
      yield* chat.end
    })
  )

  it.effect("refuses a property of another type, and a name that is none", () =>
    Effect.gen(function* () {
      const open = opened({ properties: { model: 1 } })
      assert.strictEqual((yield* reasonOf(open, "DecodeFailed")).path, "$.model")
      const chat = yield* opened()
      assert.strictEqual((yield* reasonOf(chat.setProperty("counter", "x"), "DecodeFailed")).path, "$.counter")
      assert.include((yield* reasonOf(chat.getProperty("modl"), "PythonException")).message, "did you mean `model`?")
      yield* reasonOf(opened({ name: "Contrller" }), "MethodNotFound")
      yield* reasonOf(opened({ name: "echo" }), "Unsupported")
    })
  )

  it.effect("streams what a generator yields", () =>
    Effect.gen(function* () {
      const chat = yield* opened()
      assert.deepStrictEqual(yield* Stream.runCollect(chat.messages("words")), ["a", "b", "c"])
      yield* reasonOf(Stream.runDrain(chat.messages("fail")), "PythonException")
      yield* reasonOf(Stream.runDrain(chat.messages("nothing")), "MethodNotFound")
    })
  )

  it.effect("tells Python when nobody wants the messages any more, and goes on", () =>
    Effect.gen(function* () {
      const chat = yield* opened()
      const path = join(tmpdir(), `controller-${process.pid}`)
      const three = Stream.runCollect(Stream.take(chat.messages("endless", { path }), 3))
      assert.deepStrictEqual(yield* three, [0, 1, 2])
      assert.deepStrictEqual(yield* chat.increment(), { counter: 1 })
      assert.strictEqual(readFileSync(path, "utf8"), "stopped")
    })
  )

  it.effect("stops listening with the scope of the listener", () =>
    Effect.gen(function* () {
      const chat = yield* opened()
      const seen: Array<unknown> = []
      yield* Effect.scoped(
        Effect.andThen(
          chat.onMessage((data) => Effect.sync(() => seen.push(data))),
          chat.testStream({ parts: 1 })
        )
      )
      yield* chat.testStream({ parts: 1 })
      assert.deepStrictEqual(seen, [{ part: 0 }])
    })
  )

  it.effect("forgets a call that is given up while it waits for its turn", () =>
    Effect.gen(function* () {
      const chat = yield* opened()
      const first = yield* Effect.forkChild(chat.note({ name: "first" }), { startImmediately: true })
      const second = yield* Effect.forkChild(chat.note({ name: "second" }), { startImmediately: true })
      yield* Fiber.interrupt(second)
      yield* Fiber.join(first)
      assert.deepStrictEqual(yield* chat.noted(), ["begin first", "end first"])
    })
  )
})

/** As TypeScript sees the class. */
interface Chat {
  model: string
  tokenizer: number | null
  increment(params?: { by: number }): { counter: number }
  add(params: { a: number; b?: number }): Promise<number>
}

class Full extends Schema.TaggedError<Full>()("Full", { limit: Schema.Int }) {}

const Part = Schema.Struct({ part: Schema.Int })

const Described = RpcGroup.make(
  Rpc.make("increment", { payload: { by: Schema.Int }, success: Schema.Struct({ counter: Schema.Int }) }),
  Rpc.make("full", { error: Full }),
  Rpc.make("words", { success: Schema.String, stream: true }),
  Rpc.make("testStream", { payload: { parts: Schema.Int }, success: Part, stream: true }),
  Rpc.make("fail", { success: Part, stream: true }),
  Rpc.make("pid", { success: Schema.String })
)

layer(Synapse.layer(modules.controller), live)("a controller that is described", (it) => {
  it.effect("by a type has its methods and properties", () =>
    Effect.gen(function* () {
      const chat = yield* Synapse.controller<Chat>({ properties: { model: "m" } })
      const { counter } = yield* chat.increment({ by: 2 })
      assert.strictEqual(counter + (yield* chat.add({ a: 1 })), 3)
      yield* chat.setProperty("tokenizer", 4)
      const model: string = yield* chat.getProperty("model")
      assert.strictEqual(model, "m")
      const wrong = () => [
        // @ts-expect-error: no such property
        chat.setProperty("modell", "m"),
        // @ts-expect-error: of another type
        chat.setProperty("model", 1),
        // @ts-expect-error: no such method
        chat.reset(),
        // @ts-expect-error: what it takes is missing
        chat.add(),
        // @ts-expect-error: no such property
        Synapse.controller<Chat>({ properties: { modell: "m" } })
      ]
      assert.isFunction(wrong)
    })
  )

  it.effect("by a group has its schemas, its errors and its streams", () =>
    Effect.gen(function* () {
      const chat = yield* Synapse.controller(Described, { properties: { model: "m" } })
      assert.strictEqual((yield* chat.increment({ by: 2 })).counter, 2)
      assert.deepStrictEqual(yield* Effect.flip(chat.full()), new Full({ limit: 3 }))
      assert.deepStrictEqual(yield* Stream.runCollect(chat.words()), ["a", "b", "c"])
      assert.deepStrictEqual(yield* Stream.runCollect(chat.testStream({ parts: 2 })), [{ part: 0 }, { part: 1 }])
      const error = yield* Effect.flip(Stream.runDrain(chat.fail()))
      assert.strictEqual(error.reason._tag, "PythonException")
      const wrong = yield* Effect.flip(chat.pid())
      assert.strictEqual(wrong.reason._tag, "DecodeFailed")
      assert.strictEqual(yield* chat.getProperty("model"), "m")
      assert.isFalse("reset" in chat)
      // @ts-expect-error: the payload is checked
      const refused = yield* Effect.flip(chat.increment({ by: "2" }))
      assert.strictEqual((refused as { reason?: { _tag: string } }).reason?._tag, "EncodeFailed")
    })
  )
})

describe("the process of a controller", () => {
  it.live("is shared by those of the same key", () =>
    Effect.gen(function* () {
      const pid = (affinity: string) => Effect.flatMap(opened({ options: { affinity } }), (chat) => chat.pid())
      const key = yield* pid("key")
      assert.deepStrictEqual(yield* Effect.all([pid("key"), pid("key"), pid("key")]), [key, key, key])
    }).pipe(Effect.scoped, Effect.provide(Synapse.layer({ ...modules.controller, workers: 2 })))
  )

  it.live("ChatModel 11: is one for each call, with one-shot workers", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const once = (method: string, input: unknown) =>
        Effect.scoped(
          Effect.gen(function* () {
            const chat = yield* opened()
            yield* chat.onMessage((data) => Effect.sync(() => seen.push(data)))
            return [yield* chat.callMethod(method, input), yield* chat.pid()]
          })
        )
      const [one, first] = yield* once("increment", { by: 5 })
      const [two, second] = yield* once("increment", { by: 5 })
      assert.deepStrictEqual([one, two], [{ counter: 5 }, { counter: 5 }])
      assert.notStrictEqual(first, second)
      yield* once("testStream", { parts: 2 })
      assert.deepStrictEqual(seen, [{ part: 0 }, { part: 1 }])
      yield* eventually(() => !isAlive(first))
    }).pipe(Effect.scoped, Effect.provide(Synapse.layer({ ...modules.controller, oneShot: true })))
  )

  it.live("ChatModel 12: settles every call when it dies", () =>
    Effect.gen(function* () {
      const chat = yield* opened({ concurrency: 3 })
      const exits = yield* Effect.forEach(
        [
          chat.note_later({ name: "x" }),
          Stream.runDrain(chat.messages("interleave", { name: "x", parts: 1e6 })),
          chat.crash()
        ],
        (call) => reasonOf(call, "WorkerExited"),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        exits.map(({ exitCode }) => exitCode),
        [3, 3, 3]
      )
      yield* reasonOf(chat.increment(), "WorkerExited")
      yield* chat.end
      const next = yield* opened()
      assert.deepStrictEqual(yield* next.increment(), { counter: 1 })
    }).pipe(Effect.scoped, Effect.provide(Synapse.layer(modules.controller)))
  )
})
