import { setImmediate, setTimeout } from "node:timers/promises"
import { assert, describe, it } from "@effect/vitest"
import { Looking } from "../src/internal/looking.ts"

const setup = (windowMillis: number) => {
  const seen = { looks: 0, waiting: true }
  const looking = new Looking(windowMillis, () => {
    seen.looks++
    return seen.waiting
  })
  return { looking, seen }
}

describe("looking for an answer", () => {
  it("ends with the answer", async () => {
    const { looking, seen } = setup(60_000)
    looking.begin()
    for (let turn = 0; turn < 10; turn++) await setImmediate()
    assert.isAtLeast(seen.looks, 5)
    seen.waiting = false
    await setImmediate()
    const { looks } = seen
    for (let turn = 0; turn < 10; turn++) await setImmediate()
    assert.isAtMost(seen.looks, looks + 1)
  })

  it("ends by itself, and is given up when it was in vain again and again", async () => {
    const { looking, seen } = setup(1)
    for (let call = 0; call < 10; call++) {
      looking.begin()
      await setTimeout(5)
    }
    const { looks } = seen
    looking.begin()
    await setTimeout(5)
    assert.strictEqual(seen.looks, looks)
  })

  it("is taken up again when an answer came as soon", async () => {
    const { looking, seen } = setup(1)
    for (let call = 0; call < 10; call++) {
      looking.begin()
      await setTimeout(5)
    }
    looking.answered(2)
    looking.begin()
    await setTimeout(5)
    const { looks } = seen
    looking.answered(0.5)
    looking.begin()
    await setTimeout(5)
    assert.isAbove(seen.looks, looks)
  })

  it("does not begin where nobody wants it", async () => {
    const { looking, seen } = setup(0)
    looking.begin()
    await setTimeout(5)
    assert.strictEqual(seen.looks, 0)
  })
})
