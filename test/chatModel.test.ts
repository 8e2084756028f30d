/**
 * Scripts of Bindings and ChatModel over python-shell, unmodified, and the class that takes the place of theirs.
 *
 * | line | test |
 * | --- | --- |
 * | 1 to 12 | `ChatModel 1:` and so on, below; the protocol itself in `python/tests/test_json_lines.py` |
 * | 8 | is the base class of the script itself, which nothing here touches |
 */
import { readFileSync } from "node:fs"
import { mkdtemp } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import { Synapse } from "effect-synapse"
import type { LogRecord } from "../src/internal/logs.ts"
import { ChatModel, Controller, type PromiseController, Synapse as PromiseSynapse } from "../src/promise.ts"
import { SynapseError } from "../src/SynapseError.ts"
import { live, reasonOf, upTo } from "./fixtures/dialogue.ts"
import * as modules from "./fixtures/modules.ts"
import { isAlive } from "./fixtures/processes.ts"

const { directory } = modules.chatModel
const unsaid = { onLog: () => {} }

const scripts: Record<string, (properties?: Record<string, unknown>) => PromiseController> = {
  "an unmodified script": (properties) => new ChatModel(properties, { directory, ...unsaid }),
  "a native controller": (properties) =>
    new Controller(properties, { directory: modules.controller.directory, ...unsaid })
}

for (const [kind, open] of Object.entries(scripts)) {
  describe(`the class in place of theirs, with ${kind}`, () => {
    it("ChatModel 1: has a process, with its initial properties", async () => {
      await using chat = open({ model: "something" })
      assert.deepStrictEqual(await chat.getModelPath(), { model: "something" })
      assert.strictEqual(await chat.pid(), await chat.pid())
    })

    it("ChatModel 2 to 4: sets properties, calls methods, by their names too", async () => {
      await using chat = open({ model: "something" })
      await chat.setProperty("tokenizer", 123)
      assert.deepStrictEqual(await chat.getTokenizer(), { tokenizer: 123 })
      assert.strictEqual(await chat.getProperty("tokenizer"), 123)
      assert.deepStrictEqual(await chat.increment({ by: 5 }), { counter: 5 })
      const called = chat.callMethod("increment", { by: 5 })
      assert.instanceOf(called, Promise)
      assert.deepStrictEqual(await called, { counter: 10 })
      assert.deepStrictEqual(await chat.callMethod("echo", 1, [2]), [1, [2]])
      assert.deepStrictEqual(await chat.reset(), { counter: 0 })
    })

    it("ChatModel 5: runs calls one after the other, from the first on", async () => {
      await using chat = open()
      const names = upTo(5).map((n) => `${n}`)
      assert.deepStrictEqual(await Promise.all(names.map((name) => chat.note({ name }))), names)
      assert.deepStrictEqual(
        await chat.noted(),
        names.flatMap((name) => [`begin ${name}`, `end ${name}`])
      )
    })

    it("ChatModel 6: listens, in order, before the result", async () => {
      await using chat = open()
      const seen: Array<unknown> = []
      const stop = chat.onMessage((data, { method }) => seen.push([method, data]))
      seen.push(await chat.testStream({ parts: 500 }))
      assert.deepStrictEqual(seen, [...upTo(500).map((part) => ["testStream", { part }]), { parts: 500 }])
      stop()
      const parts: Array<unknown> = []
      for await (const part of chat.messages("testStream", { parts: 2 })) parts.push(part)
      assert.deepStrictEqual(parts, [{ part: 0 }, { part: 1 }])
      assert.strictEqual(seen.length, 501)
    })

    it("ChatModel 7 and 9: rejects a call that fails, and goes on", async () => {
      await using chat = open()
      const pid = await chat.pid()
      for (const name of ["nothing", "fail", "unfit"]) {
        const error = await chat[name]().then(
          () => undefined,
          (error: unknown) => error
        )
        assert.instanceOf(error, Error, name)
        assert.strictEqual(await chat.pid(), pid)
      }
      assert.deepStrictEqual(await chat.increment(), { counter: 1 })
    })

    it("ChatModel 10: ends when what was asked is done", async () => {
      const chat = open()
      const seen: Array<unknown> = []
      chat.onMessage((data) => seen.push(data))
      const pid = chat.pid()
      const last = chat.testStream({ parts: 2 })
      const ended = chat.end()
      assert.strictEqual(chat.end(), ended)
      await ended
      assert.deepStrictEqual(await last, { parts: 2 })
      assert.deepStrictEqual(seen, [{ part: 0 }, { part: 1 }])
      assert.isFalse(isAlive(await pid))
      const error = await chat.increment().catch((error: unknown) => error)
      assert.strictEqual((error as SynapseError).reason._tag, "Closed")
    })

    it("ChatModel 12: a print breaks nothing", async () => {
      await using chat = open()
      assert.deepStrictEqual(await chat.testPrint(), { printed: true })
      assert.deepStrictEqual(await chat.increment(), { counter: 1 })
    })

    it("ChatModel 12: is no promise, and has no private methods", async () => {
      await using chat = await Promise.resolve(open())
      const any = chat as unknown as Record<string, unknown>
      for (const name of ["then", "toJSON", "_private", "__class__"]) assert.isUndefined(any[name], name)
      assert.isString(JSON.stringify(chat))
      const error = await chat.callMethod("_private").catch((error: unknown) => error)
      assert.strictEqual((error as SynapseError).reason._tag, "MethodNotFound")
    })

    it("ChatModel 12: the death of the process settles every call", async () => {
      await using chat = open()
      const calls = [chat.crash(), chat.increment()].map((call) => call.catch((error: unknown) => error))
      for (const error of await Promise.all(calls)) assert.strictEqual(error.reason._tag, "WorkerExited")
    })
  })
}

describe("the class in place of theirs", () => {
  it("gives the text of an error of the script", async () => {
    await using chat = new ChatModel({}, { directory, ...unsaid })
    const error: Error = await chat.fail().catch((error: unknown) => error)
    assert.strictEqual(error.message, "no")
    assert.strictEqual((error.cause as SynapseError).reason._tag, "HandlerFailed")
    const unknown: Error = await chat.nothing().catch((error: unknown) => error)
    assert.strictEqual(unknown.message, "Unknown method: nothing")
  })

  it("is told from scripts of the other protocol", async () => {
    await using synapse = new PromiseSynapse({ environment: "system" })
    await synapse.spawn(directory, "index")
    assert.deepStrictEqual(await synapse.call({ by: 5 }, { method: "increment" }), { counter: 5 })
  })

  it("opens, or says why it does not", async () => {
    await using chat = await ChatModel.open<{ increment(): { counter: number } }>({}, { directory, ...unsaid })
    const { counter } = await chat.increment()
    assert.strictEqual(counter, 1)
    const missing = { directory: join(directory, "nowhere"), ...unsaid }
    const error = await ChatModel.open({}, missing).catch((error: unknown) => error)
    assert.instanceOf(error, SynapseError)
    // One that does not start rejects its calls, and ends.
    const none = new ChatModel({}, missing)
    const caller = async (): Promise<unknown> => await none.increment()
    const refused = await caller().catch((error: unknown) => error)
    assert.instanceOf(refused, SynapseError)
    assert.match(String(refused.stack), /at (async )?caller .*chatModel\.test\.ts/)
    await none.end()
  })

  it("gives a call up whose messages are not wanted any more", async () => {
    await using chat = new Controller({}, { directory: modules.controller.directory, ...unsaid })
    const path = join(await mkdtemp(join(tmpdir(), "chat-model-")), "stopped")
    for await (const part of chat.messages("endless", { path })) if (part === 2) break
    assert.deepStrictEqual(await chat.increment(), { counter: 1 })
    assert.strictEqual(readFileSync(path, "utf8"), "stopped")
  })

  it("throws in the program what a listener throws, and goes on", async () => {
    await using chat = new Controller({}, { directory: modules.controller.directory, ...unsaid })
    chat.onMessage(() => {
      throw new Error("thrown by a listener")
    })
    const others = process.listeners("uncaughtException")
    process.removeAllListeners("uncaughtException")
    const thrown = new Promise((resolve) => process.once("uncaughtException", resolve))
    try {
      assert.deepStrictEqual(await chat.testStream({ parts: 1 }), { parts: 1 })
      assert.include(String(await thrown), "thrown by a listener")
    } finally {
      for (const other of others) process.on("uncaughtException", other)
    }
  })

  it("hands on what is printed", async () => {
    const lines: Array<string> = []
    const chat = new ChatModel({}, { directory, onLog: (line) => lines.push(line) })
    await chat.testPrint()
    await chat.end()
    assert.include(lines, "a line that is no answer")
  })

  it("runs each instance in a process of its own", async () => {
    await using one = new ChatModel({ model: "one" }, { directory, ...unsaid })
    await using two = new ChatModel({ model: "two" }, { directory, ...unsaid })
    await one.increment({ by: 5 })
    assert.deepStrictEqual(await two.increment(), { counter: 1 })
    assert.notStrictEqual(await one.pid(), await two.pid())
    const mixed = await Promise.all([one, two].map((chat) => toArray(chat.messages("testStream", { parts: 20 }))))
    assert.deepStrictEqual(mixed, [upTo(20).map((part) => ({ part })), upTo(20).map((part) => ({ part }))])
  })
})

const toArray = async (messages: AsyncIterable<unknown>): Promise<ReadonlyArray<unknown>> => {
  const all: Array<unknown> = []
  for await (const each of messages) all.push(each)
  return all
}

layer(Synapse.layer(modules.chatModel), live)("an unmodified script", (it) => {
  it.effect("ChatModel 3: has its methods called as handlers are", () =>
    Effect.gen(function* () {
      const Counter = Schema.Struct({ counter: Schema.Int })
      yield* Synapse.call(Schema.Unknown, {}, { method: "reset" })
      assert.deepStrictEqual(yield* Synapse.call(Counter, { by: 2 }, { method: "increment" }), { counter: 2 })
      const value = { text: "é\u2028\n", list: [null, true, 1.5, -3], map: {} }
      assert.deepStrictEqual(yield* Synapse.call(Schema.Unknown, value, { method: "echo" }), value)
    })
  )

  it.effect("ChatModel 6: its partial results are progress", () =>
    Effect.gen(function* () {
      const parts: Array<unknown> = []
      const progress = Synapse.onProgress(Schema.Unknown, (part) => Effect.sync(() => parts.push(part)))
      yield* Synapse.call(Schema.Unknown, { parts: 2 }, { method: "testStream", progress })
      assert.deepStrictEqual(parts, [{ part: 0 }, { part: 1 }])
    })
  )

  it.effect("ChatModel 7 and 12: fails as handlers do", () =>
    Effect.gen(function* () {
      const call = (method: string, input: unknown = {}) => Synapse.call(Schema.Unknown, input, { method })
      assert.strictEqual((yield* reasonOf(call("fail"), "HandlerFailed")).error, "no")
      assert.strictEqual((yield* reasonOf(call("nothing"), "HandlerFailed")).error, "Unknown method: nothing")
      yield* reasonOf(call("_private"), "MethodNotFound")
      assert.strictEqual((yield* reasonOf(call("echo", new Uint8Array(2)), "DecodeFailed")).side, "python")
    })
  )

  it.effect("belongs to one controller at a time", () =>
    Effect.gen(function* () {
      yield* Effect.scoped(
        Effect.gen(function* () {
          const chat = yield* Synapse.controller({ properties: { model: "m" } })
          assert.deepStrictEqual(yield* chat.callMethod("getModelPath"), { model: "m" })
          assert.deepStrictEqual(yield* Stream.runCollect(chat.messages("testStream", { parts: 1 })), [{ part: 0 }])
          const { detail } = yield* reasonOf(Synapse.controller(), "Unsupported")
          assert.include(detail, "oneShot")
        })
      )
    })
  )
})

describe("the process of an unmodified script", () => {
  it.live("is replaced when its controller has ended: the next one finds the script as it begins", () =>
    Effect.gen(function* () {
      const once = Effect.scoped(
        Effect.gen(function* () {
          const chat = yield* Synapse.controller()
          yield* chat.callMethod("increment")
          return [yield* chat.callMethod("increment"), yield* chat.callMethod("pid")]
        })
      )
      const [one, first] = yield* once
      const [two, second] = yield* once
      assert.deepStrictEqual([one, two], [{ counter: 2 }, { counter: 2 }])
      assert.notStrictEqual(first, second)
    }).pipe(Effect.provide(Synapse.layer(modules.chatModel)))
  )

  it.live("is replaced as often as controllers are opened, however short they are", () =>
    Effect.gen(function* () {
      const once = Effect.scoped(Effect.flatMap(Synapse.controller(), (chat) => chat.callMethod("increment")))
      for (let round = 0; round < 4; round++) assert.deepStrictEqual(yield* once, { counter: 1 })
      assert.strictEqual((yield* Synapse.status).restarts, 0)
    }).pipe(Effect.provide(Synapse.layer({ ...modules.chatModel, restart: { max: 1 } })))
  )

  it.live("is replaced when a call that was given up does not end", () =>
    Effect.gen(function* () {
      const call = (method: string, timeout?: "100 millis") => Synapse.call(Schema.Any, {}, { method, timeout })
      const first = yield* call("pid")
      assert.strictEqual((yield* reasonOf(call("hang", "100 millis"), "CallTimeout")).method, "hang")
      assert.notStrictEqual(yield* call("pid"), first)
      const chat = yield* Synapse.controller({ options: { onCancel: "replace" } })
      yield* Effect.timeoutOption(chat.callMethod("hang"), "100 millis")
      // It went with its process.
      yield* reasonOf(chat.callMethod("increment"), "Closed")
    }).pipe(Effect.scoped, Effect.provide(Synapse.layer({ ...modules.chatModel, cancelGrace: "100 millis" })))
  )

  it.live("ChatModel 10: comes to its end, and leaves with 0", () =>
    Effect.gen(function* () {
      const path = yield* Effect.promise(() => mkdtemp(join(tmpdir(), "chat-model-")))
      const file = join(path, "ended")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const chat = yield* Synapse.controller({ properties: { end: file } })
          yield* chat.callMethod("atEnd", { path: file })
          yield* chat.end
        })
      ).pipe(Effect.provide(Synapse.layer(modules.chatModel)))
      assert.strictEqual(readFileSync(file, "utf8"), "ended")
    })
  )

  it.live("ChatModel 11: is one for each call, with one-shot workers", () =>
    Effect.gen(function* () {
      const once = (method: string, input: unknown) => Synapse.call(Schema.Any, input, { method })
      assert.deepStrictEqual(yield* once("increment", { by: 5 }), { counter: 5 })
      assert.deepStrictEqual(yield* once("increment", { by: 5 }), { counter: 5 })
      assert.notStrictEqual(yield* once("pid", {}), yield* once("pid", {}))
      const parts: Array<unknown> = []
      const progress = Synapse.onProgress(Schema.Unknown, (part) => Effect.sync(() => parts.push(part)))
      yield* Synapse.call(Schema.Unknown, { parts: 2 }, { method: "testStream", progress })
      assert.deepStrictEqual(parts, [{ part: 0 }, { part: 1 }])
      // And one for each controller.
      const one = yield* Synapse.controller()
      const two = yield* Synapse.controller()
      yield* one.callMethod("increment")
      assert.deepStrictEqual(yield* two.callMethod("increment"), { counter: 1 })
    }).pipe(Effect.scoped, Effect.provide(Synapse.layer({ ...modules.chatModel, oneShot: true })))
  )

  it.live("ChatModel 12: logs the lines that are no replies, with their call", () =>
    Effect.gen(function* () {
      const records: Array<LogRecord> = []
      const logs = (record: LogRecord) => Effect.sync(() => records.push(record))
      yield* Synapse.call(Schema.Unknown, {}, { method: "testPrint" }).pipe(
        Effect.provide(Synapse.layer({ ...modules.chatModel, logs }))
      )
      const messages = records.map(({ message }) => message)
      assert.include(messages, "a line that is no answer")
      assert.include(messages, 'loading... {"some": "json"}')
      assert.isTrue(records.every(({ logger }) => logger === "stdout"))
    })
  )
})
