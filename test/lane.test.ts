import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scheduler } from "effect"
import * as Envelope from "../src/Envelope.ts"
import { closed } from "../src/internal/connectionEnd.ts"
import { Lane } from "../src/internal/lane.ts"

const frame = (kind: number): Envelope.Frame => ({
  kind,
  id: 1,
  meta: new Uint8Array(),
  payload: new Uint8Array(),
  lent: undefined
})
const chunk = frame(Envelope.Kind.Chunk)
const success = frame(Envelope.Kind.Success)

const setup = (window = 8) => {
  const credits: Array<number> = []
  return { credits, lane: new Lane(window, window, (items) => credits.push(items)) }
}

describe("a lane", () => {
  it.effect("gives what came in order, then the end", () =>
    Effect.gen(function* () {
      const { lane } = setup()
      const chunks = [frame(Envelope.Kind.Chunk), frame(Envelope.Kind.Chunk)]
      for (const each of chunks) assert.isTrue(lane.offer(each, 2))
      lane.end(Exit.succeed(success))
      assert.strictEqual(yield* lane.take, chunks[0])
      assert.strictEqual(yield* lane.take, chunks[1])
      assert.strictEqual(yield* lane.take, success)
    })
  )

  it.effect("wakes who waits", () =>
    Effect.gen(function* () {
      const { lane } = setup()
      const waiting = yield* Effect.forkChild(lane.take, { startImmediately: true })
      lane.offer(chunk, 1)
      assert.strictEqual(yield* Fiber.join(waiting), chunk)
    })
  )

  it.effect("fails after what came before the failure", () =>
    Effect.gen(function* () {
      const { lane } = setup()
      lane.offer(chunk, 1)
      lane.end(Exit.fail(closed))
      assert.strictEqual(yield* lane.take, chunk)
      assert.strictEqual(yield* Effect.flip(lane.take), closed)
    })
  )

  it.effect("grants what was consumed, not what arrived", () =>
    Effect.gen(function* () {
      const { credits, lane } = setup(8)
      lane.offer(chunk, 4)
      lane.offer(chunk, 4)
      assert.isFalse(lane.offer(chunk, 1))
      yield* lane.take
      assert.deepStrictEqual(credits, [])
      // Taking the second says that the first is consumed.
      yield* lane.take
      assert.deepStrictEqual(credits, [4])
    })
  )

  it.effect("owes a sender nothing when all is consumed", () =>
    Effect.gen(function* () {
      const { credits, lane } = setup(64)
      lane.offer(chunk, 1)
      yield* lane.take
      const waiting = yield* Effect.forkChild(lane.take, { startImmediately: true })
      assert.deepStrictEqual(credits, [1])
      yield* Fiber.interrupt(waiting)
    })
  )

  it.effect("never has more than its window on the way, and never starves the sender", () =>
    Effect.gen(function* () {
      const window = 10
      const unconsumed: Array<number> = []
      let granted = window
      let sent = 0
      let consumed = 0
      const lane = new Lane(window, window, (items) => {
        granted += items
      })
      for (let step = 0; step < 1000; step++) {
        const items = Math.min(1 + ((step * 7) % 5), granted - sent)
        if (items > 0) {
          assert.isTrue(lane.offer(chunk, items))
          unconsumed.push(items)
          sent += items
        }
        assert.isAtMost(sent - consumed, window)
        if (step % 3 !== 0) continue
        while (unconsumed.length > 0) {
          yield* lane.take
          consumed += unconsumed.shift()!
        }
        const waiting = yield* Effect.forkChild(lane.take, { startImmediately: true })
        assert.strictEqual(granted, sent + window)
        yield* Fiber.interrupt(waiting)
      }
      assert.isAbove(sent, 1000)
    })
  )

  it.effect("grants more at a time to a sender that it has to wait for, up to a limit", () =>
    Effect.gen(function* () {
      let granted = 8
      const lane = new Lane(8, 32, (items) => {
        granted += items
      })
      const windows: Array<number> = []
      for (let turn = 0; turn < 4; turn++) {
        assert.isTrue(lane.offer(chunk, granted))
        granted = 0
        yield* lane.take
        yield* Fiber.interrupt(yield* Effect.forkChild(lane.take, { startImmediately: true }))
        windows.push(granted)
      }
      assert.deepStrictEqual(windows, [16, 32, 32, 32])
    })
  )

  it.effect("grants no more to one that is slow", () =>
    Effect.gen(function* () {
      const credits: Array<number> = []
      const lane = new Lane(8, 32, (items) => credits.push(items))
      for (let turn = 0; turn < 10; turn++) {
        lane.offer(chunk, 1)
        yield* lane.take
        yield* Fiber.interrupt(yield* Effect.forkChild(lane.take, { startImmediately: true }))
      }
      assert.deepStrictEqual(credits, new Array(10).fill(1))
    })
  )

  it.effect("wakes who was about to wait, wherever it made way for others", () =>
    Effect.gen(function* () {
      for (let operations = 3; operations <= 10; operations++) {
        for (let turns = 0; turns <= 6; turns++) {
          const { lane } = setup()
          const waiting = yield* Effect.forkChild(
            Effect.provideService(lane.take, Scheduler.MaxOpsBeforeYield, operations)
          )
          for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
          lane.end(Exit.succeed(success))
          yield* Effect.repeat(Effect.yieldNow, { times: 20 })
          assert.isDefined(waiting.pollUnsafe(), `${operations} operations, ${turns} turns`)
        }
      }
    })
  )
})
