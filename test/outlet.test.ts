import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Scheduler } from "effect"
import * as Envelope from "../src/Envelope.ts"
import { Encoder } from "../src/internal/msgpackEncoder.ts"
import { Outlet } from "../src/internal/outlet.ts"
import type { Outgoing, Refused } from "../src/internal/requestEnd.ts"

const setup = (granted: number, maxFrameSize = Envelope.defaultMaxFrameSize) => {
  const posted: Array<Outgoing> = []
  const outlet = new Outlet({
    id: 7,
    granted,
    post: (frame) => posted.push(frame),
    encoder: new Encoder(),
    maxFrameSize
  })
  const chunks = (): ReadonlyArray<ReadonlyArray<unknown>> =>
    posted.map((frame) => {
      assert.strictEqual(frame.kind, Envelope.Kind.Chunk)
      assert.strictEqual(frame.id, 7)
      assert.isAtMost(8 + frame.payloadBytes!.length, maxFrameSize)
      return Envelope.decodePayload(frame.payloadBytes!) as ReadonlyArray<unknown>
    })
  return { outlet, posted, chunks, items: () => chunks().flat() }
}

const isWaiting = (fiber: Fiber.Fiber<unknown, unknown>) => fiber.pollUnsafe() === undefined

const reasonOf = (effect: Effect.Effect<void, Refused>) => Effect.map(Effect.flip(effect), ({ reason }) => reason)

const bytes = (size: number) => new Uint8Array(size)

describe("an outlet", () => {
  it.effect("sends what is ready together in one chunk", () =>
    Effect.gen(function* () {
      const { chunks, outlet } = setup(64)
      yield* outlet.send([1, "two", { three: [3] }, null])
      assert.deepStrictEqual(chunks(), [[1, "two", { three: [3] }, null]])
    })
  )

  it.effect("sends no more items than were granted, and the rest as credits come", () =>
    Effect.gen(function* () {
      const { chunks, outlet } = setup(2)
      const sending = yield* Effect.forkChild(outlet.send([1, 2, 3, 4, 5, 6]), { startImmediately: true })
      assert.deepStrictEqual(chunks(), [[1, 2]])
      outlet.credit(1)
      assert.deepStrictEqual(chunks(), [[1, 2], [3]])
      outlet.credit(2)
      assert.deepStrictEqual(chunks(), [[1, 2], [3], [4, 5]])
      outlet.credit(10)
      assert.deepStrictEqual(chunks(), [[1, 2], [3], [4, 5], [6]])
      yield* Fiber.join(sending)
    })
  )

  it.effect("asks for the next items only when there is room for one", () =>
    Effect.gen(function* () {
      const { outlet } = setup(2)
      const sending = yield* Effect.forkChild(outlet.send([1, 2]), { startImmediately: true })
      assert.isTrue(isWaiting(sending))
      outlet.credit(1)
      yield* Fiber.join(sending)
    })
  )

  it.effect("has no more bytes on their way than the window", () =>
    Effect.gen(function* () {
      const { items, outlet } = setup(64)
      const size = 300_000
      const sending = yield* Effect.forkChild(outlet.send([1, 2, 3, 4, 5, 6].map(() => bytes(size))), {
        startImmediately: true
      })
      assert.strictEqual(items().length, 3)
      assert.isAtMost(3 * size, Envelope.streamBytes)
      outlet.credit(1)
      assert.strictEqual(items().length, 4)
      outlet.credit(2)
      assert.strictEqual(items().length, 6)
      yield* Fiber.join(sending)
    })
  )

  it.effect("lets one item be on its way, whatever its size", () =>
    Effect.gen(function* () {
      const { items, outlet } = setup(64)
      const large = bytes(3 * Envelope.streamBytes)
      const sending = yield* Effect.forkChild(outlet.send([1, large, large, 2]), { startImmediately: true })
      assert.strictEqual(items().length, 1)
      outlet.credit(1)
      assert.strictEqual(items().length, 2)
      outlet.credit(1)
      assert.strictEqual(items().length, 3)
      assert.isTrue(isWaiting(sending))
      outlet.credit(1)
      yield* Fiber.join(sending)
      assert.deepStrictEqual(items(), [1, large, large, 2])
    })
  )

  it.effect("acknowledges the oldest items first", () =>
    Effect.gen(function* () {
      const { items, outlet } = setup(64)
      const sending = yield* Effect.forkChild(
        outlet.send([bytes(1000), bytes(Envelope.streamBytes - 2000), bytes(Envelope.streamBytes)]),
        {
          startImmediately: true
        }
      )
      assert.strictEqual(items().length, 2)
      outlet.credit(1)
      assert.strictEqual(items().length, 2)
      outlet.credit(1)
      assert.strictEqual(items().length, 3)
      assert.isTrue(isWaiting(sending))
      yield* Fiber.interrupt(sending)
    })
  )

  it.effect("splits what does not fit into a frame", () =>
    Effect.gen(function* () {
      const { chunks, items, outlet } = setup(64, 4096)
      const all = Array.from({ length: 20 }, (_, i) => `${i}`.repeat(500))
      yield* outlet.send(all)
      assert.deepStrictEqual(items(), all)
      assert.isAbove(chunks().length, 3)
    })
  )

  it.effect("sends an item that just fits into a frame", () =>
    Effect.gen(function* () {
      const { items, outlet, posted } = setup(64, 4096)
      yield* outlet.send([bytes(4096 - 8 - 3 - 3), bytes(4096 - 8 - 3 - 3), 1])
      assert.strictEqual(items().length, 3)
      assert.strictEqual(posted[0]!.payloadBytes!.length, 4096 - 8)
    })
  )

  it.effect("ends with an item that is too large, after those before it", () =>
    Effect.gen(function* () {
      const { items, outlet } = setup(64, 4096)
      const refused = yield* Effect.flip(outlet.send([1, 2, bytes(5000), 3]))
      assert.strictEqual(refused.reason, "FrameTooLarge")
      assert.deepStrictEqual(refused.details, { size: 5000 + 3 + 3 + 8, limit: 4096 })
      assert.deepStrictEqual(items(), [1, 2])
    })
  )

  it.effect("ends with an item that cannot be carried and says which of all it is", () =>
    Effect.gen(function* () {
      const { items, outlet } = setup(64)
      yield* outlet.send([1, 2])
      const refused = yield* Effect.flip(outlet.send([3, { names: ["a", () => {}] }, 4]))
      assert.strictEqual(refused.reason, "EncodeFailed")
      assert.deepStrictEqual(refused.details, { path: "$[3].names[1]", issue: "a function: pass what it returns" })
      assert.deepStrictEqual(items(), [1, 2, 3])
    })
  )

  it.effect("ends with a first item that cannot be carried", () =>
    Effect.gen(function* () {
      const { items, outlet } = setup(64)
      assert.strictEqual(yield* reasonOf(outlet.send([Symbol("no")])), "EncodeFailed")
      assert.deepStrictEqual(items(), [])
    })
  )

  it.effect("stops waiting when it is interrupted, and takes credits that come late", () =>
    Effect.gen(function* () {
      const { items, outlet } = setup(1)
      const sending = yield* Effect.forkChild(outlet.send([1, 2]), { startImmediately: true })
      yield* Fiber.interrupt(sending)
      outlet.credit(5)
      assert.deepStrictEqual(items(), [1])
    })
  )

  it.effect("keeps every item and the rule, however credits come", () =>
    Effect.gen(function* () {
      for (let seed = 1; seed <= 20; seed++) {
        const random = seeded(seed)
        const { chunks, items, outlet } = setup(1 + Math.floor(random() * 5), 300_000)
        const all = Array.from({ length: 60 }, () => bytes(Math.floor(random() ** 3 * 299_000)))
        const sending = yield* Effect.forkChild(
          Effect.gen(function* () {
            for (let at = 0; at < all.length; ) {
              const next = at + 1 + Math.floor(random() * 12)
              yield* outlet.send(all.slice(at, next))
              at = next
            }
          }),
          { startImmediately: true }
        )
        let credited = 0
        let granted = 5
        while (isWaiting(sending)) {
          const sizes = items().map((item) => (item as Uint8Array).length + 5)
          const outstanding = sizes.slice(credited)
          assert.isAtMost(sizes.length, granted)
          assert.isAtMost(
            outstanding.length === 1 ? 0 : outstanding.reduce((sum, size) => sum + size, 0),
            Envelope.streamBytes + 5 * outstanding.length
          )
          const n = 1 + Math.floor(random() * outstanding.length)
          credited += n
          granted += n
          outlet.credit(n)
        }
        yield* Fiber.join(sending)
        assert.deepStrictEqual(
          items().map((item) => (item as Uint8Array).length),
          all.map((item) => item.length)
        )
        assert.isTrue(chunks().every((chunk) => chunk.length > 0))
      }
    })
  )

  it.effect("sees a credit that comes while its sender makes way for others", () =>
    Effect.gen(function* () {
      for (let operations = 3; operations <= 10; operations++) {
        for (let turns = 0; turns <= 6; turns++) {
          const { outlet } = setup(1)
          const sending = yield* Effect.forkChild(
            Effect.provideService(outlet.send([1]), Scheduler.MaxOpsBeforeYield, operations)
          )
          for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
          outlet.credit(1)
          yield* Effect.repeat(Effect.yieldNow, { times: 20 })
          assert.isFalse(isWaiting(sending), `${operations} operations, ${turns} turns`)
        }
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
