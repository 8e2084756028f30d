import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import { Deadlines, type Timed } from "../src/internal/deadlines.ts"

const timed = (expire: () => void = () => {}): Timed => ({ expire, deadline: Number.POSITIVE_INFINITY, place: -1 })

/** Calls that say which of them has expired. */
const setup = Effect.gen(function* () {
  const deadlines = Deadlines.of(yield* Clock.Clock)
  const expired: Array<number> = []
  const add = (deadline: number): Timed => {
    const one = timed(() => expired.push(deadline))
    deadlines.set(one, deadline)
    return one
  }
  return { deadlines, expired, add }
})

describe("deadlines", () => {
  it.effect("expire in order, each once, when their time has come", () =>
    Effect.gen(function* () {
      const { add, expired } = yield* setup
      const times = Array.from({ length: 200 }, (_, i) => ((i * 7919) % 200) + 1)
      for (const time of times) add(time)
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(
        expired,
        Array.from({ length: 100 }, (_, i) => i + 1)
      )
      yield* TestClock.adjust(1000)
      assert.deepStrictEqual(
        expired,
        Array.from({ length: 200 }, (_, i) => i + 1)
      )
    })
  )

  it.effect("that are cleared do not, wherever they stand", () =>
    Effect.gen(function* () {
      const { add, deadlines, expired } = yield* setup
      const all = Array.from({ length: 100 }, (_, i) => add(((i * 37) % 100) + 1))
      const kept = all.filter((one, i) => {
        if (i % 3 !== 0) deadlines.clear(one)
        return i % 3 === 0
      })
      yield* TestClock.adjust(1000)
      assert.deepStrictEqual(
        expired,
        kept.map(({ deadline }) => deadline).sort((a, b) => a - b)
      )
    })
  )

  it.effect("that are put off or brought forward expire then", () =>
    Effect.gen(function* () {
      const { add, deadlines, expired } = yield* setup
      const late = add(100)
      const early = add(10)
      deadlines.set(early, 200)
      deadlines.set(late, 5)
      yield* TestClock.adjust(50)
      assert.deepStrictEqual(expired, [100])
      deadlines.set(early, Number.POSITIVE_INFINITY)
      yield* TestClock.adjust(1000)
      assert.deepStrictEqual(expired, [100])
    })
  )

  it.effect("may set and clear others as they expire", () =>
    Effect.gen(function* () {
      const { add, deadlines, expired } = yield* setup
      const other = add(20)
      const first = timed(() => {
        expired.push(1)
        deadlines.clear(other)
        add(30)
        add(10)
      })
      deadlines.set(first, 10)
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(expired, [1, 10])
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(expired, [1, 10, 30])
    })
  )

  it.live("keep Node alive only while there are some", () =>
    Effect.gen(function* () {
      const deadlines = Deadlines.of(yield* Clock.Clock)
      const timers = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length
      const before = timers()
      const one = timed()
      deadlines.set(one, Date.now() + 60_000)
      assert.strictEqual(timers(), before + 1)
      deadlines.clear(one)
      assert.strictEqual(timers(), before)
      deadlines.set(one, Date.now() + 90_000)
      assert.strictEqual(timers(), before + 1)
      deadlines.clear(one)
      assert.strictEqual(timers(), before)
    })
  )

  it.live("of the clock of the system expire too", () =>
    Effect.gen(function* () {
      const deadlines = Deadlines.of(yield* Clock.Clock)
      yield* Effect.callback<void>((resume) => {
        deadlines.set(
          timed(() => resume(Effect.void)),
          Date.now() + 5
        )
      })
    })
  )
})
