/** What a real worker does beside answering: progress, hooks and state, code and objects. */
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Fiber, Latch, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Synapse } from "effect-synapse"
import type { LogRecord } from "../src/internal/logs.ts"
import { forget, live, nothingOpen, reasonOf, seen, upTo } from "./fixtures/dialogue.ts"
import * as modules from "./fixtures/modules.ts"
import { eventually } from "./fixtures/processes.ts"

const Step = Schema.Struct({ done: Schema.Int, of: Schema.Int })

for (const concurrency of [1, 2]) {
  layer(Synapse.layer({ ...modules.dialogue, concurrency }), live)(
    `progress, with concurrency ${concurrency},`,
    (it) => {
      for (const method of ["work", "work_async"]) {
        it.effect(`comes in order, all of it before the result: ${method}`, () =>
          Effect.gen(function* () {
            const steps: Array<number> = []
            const result = yield* Synapse.call(
              Schema.String,
              { steps: 50 },
              { method, progress: Synapse.onProgress(Step, ({ done }) => Effect.sync(() => steps.push(done))) }
            )
            assert.strictEqual(result, "done")
            assert.deepStrictEqual(
              steps,
              upTo(50).map((n) => n + 1)
            )
          })
        )
      }

      it.effect("that does not fit its schema fails the call", () =>
        Effect.gen(function* () {
          const progress = Synapse.onProgress(Schema.String, () => Effect.void)
          const call = Synapse.call(Schema.Unknown, 1, { method: "report", progress })
          const { message, side } = yield* reasonOf(call, "DecodeFailed")
          assert.strictEqual(side, "typescript")
          assert.include(message, "progress of `report`")
        })
      )

      it.effect("that nobody listens to costs nothing", () =>
        Effect.gen(function* () {
          assert.strictEqual(yield* Synapse.call(Schema.String, { steps: 5 }, { method: "work" }), "done")
        })
      )

      it.effect("reaches a slow listener in the end, and waits for nobody", () =>
        Effect.gen(function* () {
          const gate = yield* Latch.make(false)
          const heard: Array<number> = []
          const progress = Synapse.onProgress(Step, ({ done }) =>
            Effect.andThen(
              gate.await,
              Effect.sync(() => heard.push(done))
            )
          )
          const call = yield* Effect.forkChild(Synapse.call(Schema.String, { steps: 10 }, { method: "work", progress }))
          assert.strictEqual(yield* Synapse.call(Schema.Int, 1, { method: "echo" }), 1)
          yield* gate.open
          assert.strictEqual(yield* Fiber.join(call), "done")
          assert.deepStrictEqual(heard.at(-1), 10)
        })
      )

      it.effect("starts the time to run anew, up to a ceiling", () =>
        Effect.gen(function* () {
          const steps = yield* Latch.make(false)
          const run = (maxTimeout: "5 seconds" | undefined) =>
            Synapse.call(
              Schema.String,
              { steps: 100_000, seconds: 0.005 },
              {
                method: "work",
                timeout: "2 seconds",
                maxTimeout,
                progress: Synapse.onProgress(Step, () => steps.open)
              }
            )
          // Some of those that it hears may have come before the clock was moved.
          const next = Effect.repeat(Effect.andThen(steps.close, steps.await), { times: 10 })
          const extended = yield* Effect.forkChild(run("5 seconds"))
          for (const _ of upTo(4)) {
            yield* next
            yield* TestClock.adjust("1 second")
          }
          yield* next
          assert.isUndefined(extended.pollUnsafe())
          yield* TestClock.adjust("1 second")
          assert.strictEqual((yield* reasonOf(Fiber.join(extended), "CallTimeout")).option, "maxTimeout")
        })
      )
    }
  )
}

layer(Synapse.layer(modules.dialogue), live)("a module", (it) => {
  it.effect("has run its hook before it takes calls", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* seen)[0], "started")
    })
  )

  it.effect("has functions that run in the background, whatever becomes of one run", () =>
    Effect.repeat(Synapse.call(Schema.Int, {}, { method: "ticked" }), { until: (ticks) => ticks > 3 })
  )

  it.effect("has services whose instance lives with the worker", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* Synapse.call(Schema.Int, {}, { method: "increase" }), 1)
      assert.strictEqual(yield* Synapse.call(Schema.Int, { by: 4 }, { method: "increase" }), 5)
    })
  )
})

describe("a module that is stopped", () => {
  it.live("runs its last hook", () =>
    Effect.gen(function* () {
      const logs: Array<LogRecord> = []
      yield* Effect.scoped(
        Synapse.make({
          ...modules.dialogue,
          disposeTimeout: "20 seconds",
          logs: (record) => Effect.sync(() => void logs.push(record))
        })
      )
      yield* eventually(() => logs.some(({ message }) => message === "goodbye"))
    }).pipe(Effect.provide(NodeServices.layer))
  )
})

layer(Synapse.layer({ ...modules.dialogue, evaluate: true }), live)("code", (it) => {
  it.effect("gives the value of its last expression", () =>
    Effect.gen(function* () {
      const value = yield* Synapse.evaluate(Schema.Finite, { values: [1, 2, 3] })`
        import statistics
        spread = statistics.stdev(values)
        spread * 2
      `
      assert.strictEqual(value, 2)
      yield* Synapse.evaluate(Schema.Void)`x = 1`
    })
  )

  it.effect("sees the module, and leaves nothing in it", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* Synapse.evaluate(Schema.String)`greeting.upper()`, "HELLO FROM THE MODULE")
      yield* Synapse.evaluate(Schema.Void)`greeting = "changed"`
      assert.strictEqual(yield* Synapse.evaluate(Schema.String)`greeting`, "hello from the module")
    })
  )

  it.effect("has values bound to it, never spliced", () =>
    Effect.gen(function* () {
      const text = '"); raise SystemExit #'
      assert.strictEqual(yield* Synapse.evaluate(Schema.Int)`len(${text}) + ${1}`, text.length + 1)
    })
  )

  it.effect("that fails points to its line in the TypeScript file", () =>
    Effect.gen(function* () {
      const code = Synapse.evaluate(Schema.Unknown, { divisor: 0 })`
        first = 1
        first / divisor  # the line that fails
      `
      const { exception } = yield* reasonOf(code, "PythonException")
      const file = fileURLToPath(import.meta.url)
      const frame = exception.frames.at(-1)!
      const line = readFileSync(file, "utf8")
        .split("\n")
        .findIndex((text) => text.includes("# the line that fails"))
      assert.deepStrictEqual([exception.type, frame.file, frame.line], ["ZeroDivisionError", file, line + 1])
      assert.include(frame.code, "first / divisor")
    })
  )

  it.effect("that is none points to its line too", () =>
    Effect.gen(function* () {
      const { exception } = yield* reasonOf(Synapse.evaluate(Schema.Unknown)`1 +`, "PythonException")
      assert.strictEqual(exception.type, "SyntaxError")
      assert.strictEqual(exception.frames.at(-1)!.file, fileURLToPath(import.meta.url))
    })
  )

  it.effect("whose value does not fit its schema fails like a call", () =>
    Effect.gen(function* () {
      yield* reasonOf(Synapse.evaluate(Schema.Int)`"text"`, "DecodeFailed")
    })
  )

  it.effect("ends when its time is over", () =>
    Effect.gen(function* () {
      const code = Synapse.evaluate(Schema.Void, {}, { timeout: "1 second" })`
        import time
        while not synapse.context().cancelled:
            time.sleep(0.002)
      `
      const fiber = yield* Effect.forkChild(code)
      yield* Effect.repeat(Synapse.stats, { until: ({ calls }) => calls === 1 })
      yield* Synapse.call(Schema.Int, 1, { method: "echo_async" })
      yield* TestClock.adjust("1 second")
      yield* reasonOf(Fiber.join(fiber), "CallTimeout")
      yield* nothingOpen
    })
  )
})

layer(Synapse.layer(modules.dialogue), live)("a runtime that was not allowed to", (it) => {
  it.effect("runs no code", () =>
    Effect.gen(function* () {
      const { delivery, detail } = yield* reasonOf(Synapse.evaluate(Schema.Int)`1`, "Unsupported")
      assert.strictEqual(delivery, "notSent")
      assert.include(detail, "evaluate: true")
    })
  )
})

for (const concurrency of [1, 2]) {
  layer(Synapse.layer({ ...modules.dialogue, concurrency, workers: 2 }), live)(
    `an object, with concurrency ${concurrency},`,
    (it) => {
      const open = (name: string) => Synapse.acquire({ name }, { method: "open_session" })

      it.effect("lives as long as its scope", () =>
        Effect.gen(function* () {
          const session = yield* Effect.scoped(
            Effect.gen(function* () {
              const session = yield* open("Ada")
              assert.strictEqual(session.type, "main.Session")
              assert.strictEqual((yield* Synapse.stats).handles, 1)
              assert.strictEqual(yield* session.call(Schema.String, { text: "hi" }, { method: "say" }), "Ada: hi")
              assert.strictEqual(yield* session.call(Schema.String, { text: "ho" }, { method: "say_async" }), "Ada: ho")
              assert.strictEqual(yield* session.get(Schema.Int, "said"), 2)
              return session
            })
          )
          yield* nothingOpen
          const { delivery } = yield* reasonOf(session.get(Schema.Int, "said"), "Unsupported")
          assert.strictEqual(delivery, "notSent")
        })
      )

      it.effect("streams", () =>
        Effect.gen(function* () {
          const session = yield* open("Ada")
          const words = session.stream(Schema.String, { text: "one two three" }, { method: "words" })
          assert.deepStrictEqual(yield* Stream.runCollect(words), ["one", "two", "three"])
        })
      )

      it.effect("may give another", () =>
        Effect.gen(function* () {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const fork = yield* Effect.flatMap(open("Ada"), (session) => session.acquire({}, { method: "fork" }))
              assert.strictEqual(yield* fork.get(Schema.String, "name"), "Ada's fork")
              assert.strictEqual((yield* Synapse.stats).handles, 2)
            })
          )
          yield* nothingOpen
        })
      )

      it.effect("has no methods and attributes that begin with an underscore, and none that it lacks", () =>
        Effect.gen(function* () {
          const session = yield* open("Ada")
          yield* reasonOf(session.get(Schema.Unknown, "_secret"), "MethodNotFound")
          yield* reasonOf(session.call(Schema.Unknown, {}, { method: "__repr__" }), "MethodNotFound")
          const missing = yield* reasonOf(session.call(Schema.Unknown, {}, { method: "nope" }), "MethodNotFound")
          assert.include(missing.message, "`main.Session` has no method or attribute `nope`")
          const { exception } = yield* reasonOf(session.call(Schema.Unknown, {}, { method: "fail" }), "PythonException")
          assert.strictEqual(exception.type, "LookupError")
        })
      )

      it.effect("is asked of handlers that return one, and of no others", () =>
        Effect.gen(function* () {
          yield* reasonOf(Effect.scoped(Synapse.acquire(1, { method: "echo" })), "Unsupported")
          yield* reasonOf(Synapse.call(Schema.Unknown, { name: "Ada" }, { method: "open_session" }), "Unsupported")
          yield* nothingOpen
        })
      )

      it.effect("whose acquisition is interrupted at any moment is released", () =>
        Effect.gen(function* () {
          for (const n of upTo(100)) {
            const fiber = yield* Effect.forkChild(Effect.scoped(Effect.andThen(open("Ada"), Effect.never)))
            for (let turns = n % 10; turns > 0; turns--) yield* Effect.promise(() => new Promise(setImmediate))
            yield* Fiber.interrupt(fiber)
          }
          yield* nothingOpen
        })
      )
    }
  )
}

// The pause before the next start passes by itself.
layer(Synapse.layer(modules.dialogue), { ...live, excludeTestServices: true })("an object whose worker ends", (it) => {
  it.effect("fails with how that ended, and closing its scope is nothing", () =>
    Effect.gen(function* () {
      yield* forget
      yield* Effect.scoped(
        Effect.gen(function* () {
          const session = yield* Synapse.acquire({ name: "Ada" }, { method: "open_session" })
          process.kill(yield* Synapse.call(Schema.Int, {}, { method: "pid" }), "SIGKILL")
          const { reason } = yield* Effect.flip(Effect.forever(session.get(Schema.String, "name")))
          assert.strictEqual(reason._tag, "WorkerExited")
        })
      )
      assert.strictEqual(yield* Synapse.call(Schema.Int, 1, { method: "echo" }), 1)
      yield* nothingOpen
    })
  )
})
