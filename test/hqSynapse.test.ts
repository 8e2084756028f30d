/**
 * Modules on the template of hq-synapse, run unmodified with `protocol: "stdio-v1"`. What each line of its checklist promises, and
 * the test that shows it, here and in promise.test.ts:
 *
 * | line | promise | test |
 * | --- | --- | --- |
 * | 1 to 8 | provision and spawn | promise.test.ts |
 * | 9 | echo, sequential and concurrent calls | here |
 * | 10, 12 | not spawned; forced JSON | promise.test.ts |
 * | 11 | an `error` in a reply | here |
 * | 13, 14, 15 | pieces of replies, values, unframed replies | here |
 * | 16, 18, 19, 22 | logs, dispose, the to-dos | promise.test.ts |
 * | 17 | `[ERROR` on stderr | here |
 * | 20, 21 | the end in a call, `print` | here |
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Latch, Layer, Schema } from "effect"
import { Synapse } from "effect-synapse"
import type { LogRecord } from "../src/internal/logs.ts"
import { reasonOf } from "./fixtures/dialogue.ts"
import * as modules from "./fixtures/modules.ts"
import { eventually } from "./fixtures/processes.ts"

const call = (input: unknown, options?: Synapse.CallOptions) => Synapse.call(Schema.Unknown, input, options)
const pid = Synapse.call(Schema.Int, { do: "pid" })
const scenes = { ...modules.hqSynapse, entrypoint: "scenes" } satisfies Synapse.SynapseOptions
const live = { timeout: "2 minutes", excludeTestServices: true } as const

layer(Synapse.layer(modules.hqSynapse), live)("the template itself", (it) => {
  it.effect("hq-synapse 9: answers calls as its document says", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* call({ foo: "bar" }), {
        data: "Processing result from py of payload: {'foo': 'bar'}"
      })
    })
  )
})

layer(Synapse.layer(scenes), live)("a module on the template", (it) => {
  it.effect("hq-synapse 9: sequential and concurrent calls keep order and pairing", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* call({ foo: "bar" }), { foo: "bar" })
      for (const n of [1, 2, 3]) assert.strictEqual(yield* call(n), n)
      const ended: Array<number> = []
      const echo = (n: number) => Effect.tap(call(n), () => Effect.sync(() => ended.push(n)))
      const numbers = Array.from({ length: 50 }, (_, n) => n)
      const answers = yield* Effect.forEach(numbers, echo, { concurrency: "unbounded" })
      assert.deepStrictEqual(answers, numbers)
      assert.deepStrictEqual(ended, numbers)
    })
  )

  it.effect("hq-synapse 11: a reply with an error rejects with exactly that value, and later calls work", () =>
    Effect.gen(function* () {
      for (const error of ["test_error", { code: 3, text: "no" }, [], 7]) {
        const reason = yield* reasonOf(call({ error, other: 1 }), "HandlerFailed")
        assert.deepStrictEqual(reason.error, error)
        assert.strictEqual(yield* call("after"), "after")
      }
      for (const error of [null, false, 0, ""]) assert.deepStrictEqual(yield* call({ error }), { error })
    })
  )

  it.effect("hq-synapse 13: a reply in many pieces, or with another one behind it, is delivered once", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* call({ do: "pieces", value: { a: [1, 2, 3] } }), { a: [1, 2, 3] })
      const answers = yield* Effect.forEach([1, 2, 3], (value) => call({ do: "twice", value }), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(answers, [1, 2, 3])
      assert.strictEqual(yield* call("after"), "after")
    })
  )

  it.effect("hq-synapse 14: every value comes back as it went, null and 64-bit integers too", () =>
    Effect.gen(function* () {
      const bytes = new Uint8Array(300_000).fill(7)
      const values = [null, true, -1, 1.5, "", "é🧬", [], {}, [1, [null, { a: "b" }]], 2n ** 63n - 1n, bytes]
      for (const value of values) assert.deepStrictEqual(yield* call(value), value)
      assert.strictEqual(yield* call(undefined), null)
      const at = new Date(1_700_000_000_123)
      assert.deepStrictEqual(
        yield* Synapse.call(Schema.String, { do: "type", value: new Uint8Array(200_000) }),
        "bytes"
      )
      assert.deepStrictEqual(yield* Synapse.call(Schema.String, { do: "type", value: at }), "Timestamp")
    })
  )

  it.effect("hq-synapse 14: a string of 20 MB comes back", () =>
    Effect.gen(function* () {
      const text = "x".repeat(20_000_000)
      assert.isTrue((yield* call(text)) === text)
    })
  )

  it.effect("hq-synapse 15: nothing is sent as an empty frame", () =>
    Effect.gen(function* () {
      for (const value of [undefined, null, "", new Uint8Array()]) yield* call(value)
      assert.isNumber(yield* pid)
    })
  )

  it.effect("hq-synapse 15: a reply that is not framed is a protocol error, and another process goes on", () =>
    Effect.gen(function* () {
      const before = yield* pid
      const reason = yield* reasonOf(call({ do: "unframed" }), "ProtocolError")
      assert.include(reason.message, "empty payload received")
      assert.notStrictEqual(yield* pid, before)
    })
  )

  it.effect("hq-synapse 17: [ERROR on stderr rejects the call that runs, not the last that waits", () =>
    Effect.gen(function* () {
      const inputs = ["a", { do: "log error", value: "bad input" }, "c", "d"]
      const exits = yield* Effect.forEach(inputs, (input) => Effect.exit(call(input)), { concurrency: "unbounded" })
      assert.deepStrictEqual([exits[0], exits[2], exits[3]], ["a", "c", "d"].map(Exit.succeed))
      const reason = yield* reasonOf(exits[1]!, "HandlerFailed")
      assert.strictEqual(reason.error, "[ERROR] bad input")
    })
  )

  for (const [how, code] of [
    ["raise", 1],
    ["exit", 3],
    ["hard exit", 4]
  ] as const) {
    it.effect(`hq-synapse 20: ${how} in a call fails it at once, and another process takes the next`, () =>
      Effect.gen(function* () {
        const before = yield* pid
        const reason = yield* reasonOf(call({ do: how }), "WorkerExited")
        assert.deepStrictEqual([reason.kind, reason.exitCode, reason.pid], ["exit", code, before])
        if (how === "raise") assert.include(reason.stderr, "ValueError: broken")
        assert.notStrictEqual(yield* pid, before)
      })
    )
  }

  it.effect("has one handler, main", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(call(1, { method: "other" }), "MethodNotFound")
      assert.deepStrictEqual(reason.nearest, ["main"])
    })
  )
})

describe("its output", () => {
  it.live("hq-synapse 21: print, and what C and descriptor 1 get, goes to the logs and is no reply", () =>
    Effect.gen(function* () {
      const records: Array<LogRecord> = []
      const logs = (record: LogRecord) => Effect.sync(() => void records.push(record))
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* call({ do: "print", value: 5 }), 5)
        assert.strictEqual(yield* call("after"), "after")
      }).pipe(Effect.provide(Synapse.layer({ ...scenes, logs })))
      for (const message of ["hello", "no end", "written", "from C", "to stderr", "script running"]) {
        assert.include(
          records.map((record) => record.message),
          message
        )
      }
      const hello = records.find(({ message }) => message === "hello")
      assert.deepStrictEqual([hello?.logger, hello?.file, hello?.call], ["stdout", "scenes.py", 1])
    })
  )
})

describe("a call that is given up", () => {
  it.live("holds its place until its reply has come, which nobody else gets", () =>
    Effect.gen(function* () {
      const before = yield* pid
      yield* reasonOf(call({ do: "sleep", value: 0.3 }, { timeout: "50 millis" }), "CallTimeout")
      assert.strictEqual(yield* call("next"), "next")
      assert.strictEqual(yield* pid, before)
    }).pipe(Effect.provide(Synapse.layer(scenes)))
  )

  it.live("that goes on has its process replaced after cancelGrace", () =>
    Effect.gen(function* () {
      const sleeping = yield* Latch.make()
      const logs = ({ message }: LogRecord) => (message === "sleeping" ? sleeping.open : Effect.void)
      yield* Effect.gen(function* () {
        const before = yield* pid
        const fiber = yield* Effect.forkChild(call({ do: "sleep", value: 60 }))
        yield* sleeping.await
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* call("next"), "next")
        assert.notStrictEqual(yield* pid, before)
      }).pipe(Effect.provide(Synapse.layer({ ...scenes, logs, cancelGrace: "100 millis" })))
    })
  )
})

describe("a script", () => {
  const started = (options: Synapse.SynapseOptions) => Effect.scoped(Layer.build(Synapse.layer(options)))

  it.live("that ends before it reads fails the layer with its exception", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(started({ ...scenes, entrypoint: "broken-import.py" }), "StartFailed")
      assert.strictEqual(reason.exception?.type, "ModuleNotFoundError")
      assert.deepStrictEqual(
        reason.exception!.frames.map(({ file }) => file.split("/").at(-1)),
        ["broken-import.py"]
      )
      const ended = yield* reasonOf(started({ ...scenes, entrypoint: "ends" }), "StartFailed")
      assert.include(ended.message, "ends.py has ended without reading its standard input")
    })
  )

  it.live("that is not there, or not in the directory, is an error", () =>
    Effect.gen(function* () {
      const missing = yield* reasonOf(started({ ...scenes, entrypoint: "nowhere" }), "ModuleNotFound")
      assert.include(missing.message, "nowhere.py")
      yield* reasonOf(started({ ...scenes, entrypoint: "../python/main" }), "ModuleNotFound")
    })
  )

  it.live("does not go with options that it cannot keep", () =>
    Effect.gen(function* () {
      for (const wrong of [{ concurrency: 2 }, { evaluate: true }, { protocol: "stdio-v2" as "stdio-v1" }]) {
        const reason = yield* reasonOf(started({ ...scenes, ...wrong }), "StartFailed")
        assert.deepStrictEqual(
          [reason.kind, /`(concurrency|evaluate|protocol)`/.test(reason.detail)],
          ["options", true]
        )
      }
    })
  )

  it.live("has workers, restarts and one-shot processes as every module", () =>
    Effect.gen(function* () {
      const pids = yield* Effect.all([pid, pid, pid])
      assert.strictEqual(new Set(pids).size, 3)
    }).pipe(Effect.provide(Synapse.layer({ ...scenes, oneShot: true, workers: 2 })))
  )

  it.live("that ignores signals and the end of its input is gone with the layer", () =>
    Effect.gen(function* () {
      const alive = yield* Effect.gen(function* () {
        const alive = yield* pid
        assert.strictEqual(yield* call({ do: "ignore" }), "ignoring")
        return alive
      }).pipe(Effect.provide(Synapse.layer({ ...scenes, disposeTimeout: "100 millis" })))
      yield* eventually(() => {
        try {
          return !process.kill(alive, 0)
        } catch {
          return true
        }
      })
    })
  )
})
