import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Budget, type Durations } from "../src/internal/budget.ts"
import type { CallTimeout, SynapseError } from "../src/SynapseError.ts"

const setup = Effect.fnUntraced(function* (durations: Durations) {
  const budget = new Budget(yield* Clock.Clock, durations)
  const fiber = yield* Effect.forkChild(budget.limit(Effect.never, "main"), { startImmediately: true })
  return { budget, fiber }
})

const timeoutOf = (fiber: Fiber.Fiber<unknown, SynapseError>): Effect.Effect<CallTimeout> =>
  Effect.map(Effect.flip(Fiber.join(fiber)) as Effect.Effect<SynapseError>, ({ reason }) => {
    assert(reason._tag === "CallTimeout")
    return reason
  })

describe("a budget", () => {
  it.effect("does not count waiting as running", () =>
    Effect.gen(function* () {
      const { budget, fiber } = yield* setup({ timeout: "2 seconds" })
      yield* TestClock.adjust("5 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      budget.sent()
      assert.strictEqual(budget.timeLeft(), 2000)
      yield* TestClock.adjust("1999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const { durationMillis, option, running } = yield* timeoutOf(fiber)
      assert.deepStrictEqual([option, durationMillis, running], ["timeout", 2000, true])
    })
  )

  it.effect("bounds waiting where asked to", () =>
    Effect.gen(function* () {
      const { fiber } = yield* setup({ timeout: "2 seconds", queueTimeout: "3 seconds" })
      yield* TestClock.adjust("3 seconds")
      const { option, running } = yield* timeoutOf(fiber)
      assert.deepStrictEqual([option, running], ["queueTimeout", false])
    })
  )

  it.effect("bounds the whole where asked to", () =>
    Effect.gen(function* () {
      const { budget, fiber } = yield* setup({ timeout: "2 seconds", totalTimeout: "3 seconds" })
      yield* TestClock.adjust("2 seconds")
      budget.sent()
      assert.strictEqual(budget.timeLeft(), 1000)
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual((yield* timeoutOf(fiber)).option, "totalTimeout")
    })
  )

  it.effect("starts anew with progress, up to a ceiling", () =>
    Effect.gen(function* () {
      const { budget, fiber } = yield* setup({ timeout: "2 seconds", maxTimeout: "5 seconds" })
      budget.sent()
      assert.deepStrictEqual([budget.timeLeft(), budget.ceiling()], [2000, 5000])
      for (let n = 0; n < 4; n++) {
        yield* TestClock.adjust("1 seconds")
        budget.progressed()
      }
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual((yield* timeoutOf(fiber)).option, "maxTimeout")
    })
  )

  it.effect("does not start anew with progress where it may not", () =>
    Effect.gen(function* () {
      const { budget, fiber } = yield* setup({ timeout: "2 seconds" })
      budget.sent()
      yield* TestClock.adjust("1 seconds")
      budget.progressed()
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual((yield* timeoutOf(fiber)).option, "timeout")
    })
  )

  it.effect("counts waiting again for a call that is sent again", () =>
    Effect.gen(function* () {
      const { budget, fiber } = yield* setup({ timeout: "2 seconds", queueTimeout: "3 seconds" })
      budget.sent()
      yield* TestClock.adjust("1 seconds")
      budget.queued()
      yield* TestClock.adjust("2 seconds")
      budget.sent()
      yield* TestClock.adjust("1 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual((yield* timeoutOf(fiber)).option, "timeout")
    })
  )

  it.effect("is no hindrance to what is done in time", () =>
    Effect.gen(function* () {
      const done = yield* Deferred.make<number>()
      const budget = new Budget(yield* Clock.Clock, { timeout: "1 seconds" })
      const fiber = yield* Effect.forkChild(budget.limit(Deferred.await(done), "main"), { startImmediately: true })
      yield* Deferred.succeed(done, 7)
      assert.strictEqual(yield* Fiber.join(fiber), 7)
    })
  )

  it.effect("without an end needs no clock", () =>
    Effect.gen(function* () {
      const { budget } = yield* setup({ timeout: "Infinity" as never })
      assert.isUndefined(budget.timeLeft())
      assert.isUndefined(budget.ceiling())
    })
  )

  it.effect("bounds a call by its ceiling, also without or before its time to run", () =>
    Effect.gen(function* () {
      for (const durations of [
        { maxTimeout: "1 seconds" },
        { maxTimeout: "1 seconds", timeout: "9 seconds" }
      ] as const) {
        const { budget, fiber } = yield* setup(durations)
        assert.strictEqual(budget.timeLeft(), 1000)
        budget.sent()
        yield* TestClock.adjust("1 seconds")
        assert.strictEqual((yield* timeoutOf(fiber)).option, "maxTimeout")
      }
    })
  )

  it.effect("bounds waiting again when a call that ran for long comes back", () =>
    Effect.gen(function* () {
      const { budget, fiber } = yield* setup({ queueTimeout: "1 seconds" })
      budget.sent()
      yield* TestClock.adjust("90 seconds")
      budget.queued()
      yield* TestClock.adjust("1 seconds")
      const { option, running } = yield* timeoutOf(fiber)
      assert.deepStrictEqual([option, running], ["queueTimeout", false])
    })
  )

  it.effect("without any time to run ends a call that is never sent", () =>
    Effect.gen(function* () {
      for (const option of ["timeout", "maxTimeout"] as const) {
        const { budget, fiber } = yield* setup({ [option]: 0 })
        assert.strictEqual(budget.timeLeft(), 0)
        assert.isDefined(fiber.pollUnsafe())
        assert.strictEqual((yield* timeoutOf(fiber)).option, option)
      }
    })
  )
})
