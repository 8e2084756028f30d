import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Logger, Scheduler, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Closed, StartFailed, SynapseError } from "../src/SynapseError.ts"
import * as WorkerPool from "../src/WorkerPool.ts"
import { callOn, fixed, harness, reasonOf, request, settle } from "./fixtures/pool.ts"

describe("dispatch", () => {
  it.effect("goes to the least loaded worker", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(3), acquire })
      const calls = yield* Effect.forEach(Array.from({ length: 6 }), () => Effect.forkChild(callOn(pool)))
      yield* settle
      assert.deepStrictEqual(
        stubs.map((stub) => stub.open),
        [2, 2, 2]
      )
      yield* Fiber.interruptAll(calls)
    })
  )

  it.effect("waits in order when every worker has its fill, and never overfills one", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 2 })
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
      const order: Array<number> = []
      yield* Effect.forEach(Array.from({ length: 6 }), (_, n) =>
        Effect.forkChild(
          Effect.andThen(
            callOn(pool),
            Effect.sync(() => order.push(n))
          )
        )
      )
      for (let n = 0; n < 6; n++) {
        yield* settle
        assert.isAtMost(stubs[0]!.open, 2)
        stubs[0]!.finish()
      }
      yield* settle
      assert.deepStrictEqual(order, [0, 1, 2, 3, 4, 5])
    })
  )

  it.effect("gives the place of an interrupted waiter to the next", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
      yield* Effect.forkChild(callOn(pool))
      yield* settle
      const second = yield* Effect.forkChild(callOn(pool))
      const third = yield* Effect.forkChild(callOn(pool))
      yield* settle
      stubs[0]!.finish()
      yield* Fiber.interrupt(second)
      yield* settle
      assert.strictEqual(stubs[0]!.open, 1)
      stubs[0]!.finish()
      yield* Fiber.join(third)
      assert.strictEqual(stubs[0]!.open, 0)
    })
  )

  it.effect("refuses what is beyond the queue when asked to", () =>
    Effect.gen(function* () {
      const { acquire } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({
        size: fixed(1),
        acquire,
        queue: { capacity: 1, whenFull: "reject" }
      })
      yield* Effect.forkChild(callOn(pool))
      yield* Effect.forkChild(callOn(pool))
      yield* settle
      const { delivery, reason } = yield* Effect.flip(callOn(pool))
      assert(reason._tag === "Overloaded")
      assert.deepStrictEqual([reason.where, reason.capacity, delivery], ["queue", 1, "notSent"])
    })
  )

  for (let operations = 2; operations <= 24; operations++) {
    it.effect(`loses no place when a waiter is interrupted after ${operations} operations`, () =>
      Effect.gen(function* () {
        const { acquire, stubs } = harness({ room: 1 })
        const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
        const eager = Effect.provideService(callOn(pool), Scheduler.MaxOpsBeforeYield, operations)
        yield* Effect.forkChild(callOn(pool))
        yield* settle
        const second = yield* Effect.forkChild(eager)
        const third = yield* Effect.forkChild(callOn(pool))
        yield* settle
        stubs[0]!.finish()
        const exit = yield* Effect.exit(Effect.andThen(Fiber.interrupt(second), Fiber.await(second)))
        assert(Exit.isSuccess(exit) && Exit.isFailure(exit.value))
        assert.isTrue(Cause.hasInterruptsOnly(exit.value.cause))
        yield* settle
        stubs[0]!.finish()
        yield* Fiber.join(third)
      })
    )
  }
})

describe("a caller that makes way for others as it begins to wait", () => {
  const eachMoment = (what: string, then: (pool: Scope.Closeable, finish: () => void) => Effect.Effect<void>) =>
    it.effect(what, () =>
      Effect.gen(function* () {
        for (let operations = 3; operations <= 16; operations++) {
          for (let turns = 0; turns <= 6; turns++) {
            const { acquire, stubs } = harness({ room: 1 })
            const scope = yield* Scope.make()
            const pool = yield* Scope.provide(WorkerPool.make({ size: fixed(1), acquire }), scope)
            yield* Effect.forkChild(callOn(pool))
            yield* settle
            const second = yield* Effect.forkChild(
              Effect.provideService(callOn(pool), Scheduler.MaxOpsBeforeYield, operations)
            )
            for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
            yield* then(scope, stubs[0]!.finish)
            yield* settle
            assert.isTrue(
              stubs[0]!.open === 1 || second.pollUnsafe() !== undefined,
              `${operations} operations, ${turns} turns`
            )
            yield* Fiber.interrupt(second)
            yield* Scope.close(scope, Exit.void)
          }
        }
      })
    )

  eachMoment("is told of room that there was meanwhile", (_, finish) => Effect.sync(finish))

  eachMoment("is told of the end that came meanwhile", (scope, finish) =>
    Effect.andThen(Scope.close(scope, Exit.void), Effect.sync(finish))
  )
})

describe("calls of asynchronous handlers", () => {
  it.effect("do not wait behind synchronous ones", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 0 })
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
      yield* Effect.forkChild(callOn(pool))
      yield* settle
      assert.strictEqual(stubs[0]!.open, 0)
      yield* Effect.forkChild(pool.use("async", (connection, resume) => connection.begin(request, resume)))
      yield* settle
      assert.strictEqual(stubs[0]!.open, 1)
    })
  )

  it.effect("do not take the place of synchronous ones, at whichever moment", () =>
    Effect.gen(function* () {
      for (let operations = 3; operations <= 16; operations++) {
        for (let turns = 0; turns <= 8; turns++) {
          const { acquire, stubs } = harness()
          const scope = yield* Scope.make()
          const pool = yield* WorkerPool.make({
            size: { min: 0, max: 1 },
            // Its one synchronous place is free, whatever else it has.
            acquire: (onChange) =>
              Effect.map(acquire(onChange), (connection) => ({
                ...connection,
                room: (synchronous) => (synchronous ? 1 : 9)
              }))
          }).pipe(Scope.provide(scope))
          const asynchronous = pool.use("async", (connection, resume) => connection.begin(request, resume))
          yield* Effect.forkChild(Effect.provideService(asynchronous, Scheduler.MaxOpsBeforeYield, operations))
          for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
          yield* Effect.forkChild(callOn(pool))
          yield* settle
          assert.strictEqual(stubs[0]!.open, 2, `${operations} operations, ${turns} turns`)
          yield* Scope.close(scope, Exit.void)
        }
      }
    })
  )
})

describe("a call inside a host function", () => {
  it.effect("goes to the worker that waits for it, full or not, and waits its turn when nobody does", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({ size: fixed(2), acquire })
      yield* Effect.forkChild(callOn(pool))
      yield* settle
      const parent = { owner: stubs[0]!.connection.owner, call: 7 }
      const nested = pool.use("main", (connection, resume) => connection.begin(request, resume), { parent })
      stubs[0]!.waitsIn = 7
      yield* Effect.forkChild(nested)
      // An asynchronous one too: what it makes Python call may be synchronous again.
      yield* Effect.forkChild(pool.use("async", (connection, resume) => connection.begin(request, resume), { parent }))
      yield* settle
      assert.deepStrictEqual(
        stubs.map(({ open }) => open),
        [3, 0]
      )
      stubs[0]!.waitsIn = undefined
      yield* Effect.forkChild(nested)
      yield* settle
      assert.deepStrictEqual(
        stubs.map(({ open }) => open),
        [3, 1]
      )
    })
  )
})

describe("a call inside a host function of a worker for one call", () => {
  it.effect("can be given up", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), oneShot: true, acquire })
      yield* Effect.forkChild(callOn(pool))
      yield* settle
      stubs[0]!.waitsIn = 7
      const parent = { owner: stubs[0]!.connection.owner, call: 7 }
      const nested = yield* Effect.forkChild(callOn(pool, { parent }))
      yield* settle
      assert.strictEqual(stubs[0]!.open, 2)
      nested.interruptUnsafe()
      yield* settle
      const left = stubs[0]!.open
      if (left === 2) stubs[0]!.finish()
      assert.strictEqual(left, 1)
    })
  )
})

describe("a worker that leaves", () => {
  it.effect("is replaced before it has finished what it has, and takes nothing new", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
      const old = yield* Effect.forkChild(callOn(pool))
      yield* TestClock.adjust("1 second")
      stubs[0]!.leave()
      const fresh = yield* Effect.forkChild(callOn(pool))
      yield* settle
      assert.deepStrictEqual(
        stubs.map((stub) => stub.open),
        [1, 1]
      )
      stubs[1]!.finish()
      yield* Fiber.join(fresh)
      assert.isFalse(stubs[0]!.released)
      stubs[0]!.finish()
      yield* Fiber.join(old)
      stubs[0]!.die()
      yield* settle
      assert.isTrue(stubs[0]!.released)
      assert.strictEqual(stubs.length, 2)
    })
  )

  it.effect("is ended when it stays although nobody waits for it", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
      const call = yield* Effect.forkChild(callOn(pool))
      yield* TestClock.adjust("1 second")
      stubs[0]!.leave()
      yield* TestClock.adjust("1 minute")
      assert.isFalse(stubs[0]!.released)
      stubs[0]!.finish()
      yield* Fiber.join(call)
      yield* TestClock.adjust("9 seconds")
      assert.isFalse(stubs[0]!.released)
      yield* TestClock.adjust("2 seconds")
      yield* settle
      assert.isTrue(stubs[0]!.released)
    })
  )

  it.effect("goes with the scope while it still drains", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const scope = yield* Scope.make()
      yield* Scope.provide(WorkerPool.make({ size: fixed(1), acquire }), scope)
      yield* TestClock.adjust("1 second")
      stubs[0]!.leave()
      yield* settle
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(
        stubs.map((stub) => stub.released),
        [true, true]
      )
    })
  )
})

describe("the start", () => {
  it.effect("fails with what a worker failed with, and leaves none behind", () =>
    Effect.gen(function* () {
      let starts = 0
      const error = new SynapseError({ reason: new StartFailed({ kind: "import", detail: "no such module" }) })
      const { acquire, stubs } = harness({
        startWith: () => (++starts === 2 ? Effect.fail(error) : Effect.void)
      })
      const failure = yield* Effect.flip(Effect.scoped(WorkerPool.make({ size: fixed(2), acquire })))
      assert.strictEqual(failure.reason._tag, "StartFailed")
      assert.deepStrictEqual(
        stubs.map((stub) => stub.released),
        [true]
      )
      assert.strictEqual(starts, 2)
    })
  )

  it.effect("fails with the restart limit where workers reach it meanwhile", () =>
    Effect.gen(function* () {
      let starts = 0
      const { acquire, stubs } = harness({ startWith: () => (++starts === 1 ? Effect.void : Effect.never) })
      const making = yield* Effect.forkChild(
        Effect.scoped(Effect.exit(WorkerPool.make({ size: fixed(2), acquire, restart: { max: 0 } })))
      )
      yield* settle
      stubs[0]!.die()
      assert.strictEqual(reasonOf(yield* Fiber.join(making))._tag, "RestartLimit")
    })
  )
})

describe("supervision", () => {
  it.effect("starts a worker again after a pause, and waiting calls wait for it", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
      stubs[0]!.die()
      yield* settle
      assert.isTrue(stubs[0]!.released)
      const call = yield* Effect.forkChild(callOn(pool))
      yield* TestClock.adjust("39 millis")
      assert.strictEqual(stubs.length, 1)
      yield* TestClock.adjust("21 millis")
      yield* settle
      assert.strictEqual(stubs[1]!.open, 1)
      stubs[1]!.finish()
      yield* Fiber.join(call)
    })
  )

  it.effect("gives up when the budget is used up: waiting and new calls fail with the last exits", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire, restart: { max: 2 } })
      for (let n = 0; n < 2; n++) {
        stubs.at(-1)!.die()
        yield* TestClock.adjust("1 second")
      }
      assert.strictEqual(stubs.length, 3)
      stubs[2]!.die()
      const waiting = yield* Effect.forkChild(Effect.exit(callOn(pool)))
      yield* settle
      for (const reason of [reasonOf(yield* Fiber.join(waiting)), (yield* Effect.flip(callOn(pool))).reason]) {
        assert(reason._tag === "RestartLimit")
        assert.strictEqual(reason.exits.length, 3)
        assert.include(reason.message, "SIGKILL")
        assert.strictEqual(reason.delivery, "notSent")
      }
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(stubs.length, 3)
    })
  )

  it.effect("that gives up lets the other workers finish what they have", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(2), acquire, restart: { max: 0 } })
      yield* Effect.forkChild(Effect.exit(callOn(pool)))
      const other = yield* Effect.forkChild(callOn(pool))
      yield* settle
      stubs[0]!.die()
      yield* settle
      assert.strictEqual((yield* Effect.flip(callOn(pool))).reason._tag, "RestartLimit")
      assert.isFalse(stubs[1]!.released)
      stubs[1]!.finish()
      yield* Fiber.join(other)
      yield* settle
      assert.isTrue(stubs[1]!.released)
      assert.deepStrictEqual((yield* pool.status).workers, [])
    })
  )

  it.effect("gives up in the same way within an endless window", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const restart = { max: 0, window: Duration.infinity }
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire, restart })
      stubs[0]!.die()
      yield* settle
      assert.strictEqual((yield* Effect.flip(callOn(pool))).reason._tag, "RestartLimit")
    })
  )

  it.effect("goes on when the logger fails", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const broken = Logger.make(() => {
        throw new Error("the disk is full")
      })
      yield* Effect.provide(
        Effect.gen(function* () {
          yield* WorkerPool.make({ size: fixed(1), acquire })
          stubs[0]!.die()
          yield* TestClock.adjust("1 second")
          assert.strictEqual(stubs.length, 2)
        }),
        Logger.layer([broken])
      )
    })
  )

  it.effect("that fails itself fails the calls, so that none waits for ever", () =>
    Effect.gen(function* () {
      let starts = 0
      const { acquire, stubs } = harness({
        startWith: () => (++starts === 2 ? Effect.die(new Error("a bug")) : Effect.void)
      })
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
      stubs[0]!.die()
      const waiting = yield* Effect.forkChild(Effect.exit(callOn(pool)))
      yield* TestClock.adjust("1 second")
      const reason = reasonOf(yield* Fiber.join(waiting))
      assert.strictEqual(reason._tag, "StartFailed")
      assert.include(reason.message, "a bug")
    })
  )

  it.effect("forgives what lies outside of the window", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      yield* WorkerPool.make({ size: fixed(1), acquire, restart: { max: 1, window: "10 seconds" } })
      for (let n = 0; n < 6; n++) {
        stubs.at(-1)!.die()
        yield* TestClock.adjust("11 seconds")
      }
      assert.strictEqual(stubs.length, 7)
    })
  )
})

describe("closing", () => {
  it.effect("fails waiting calls with Closed and releases every worker", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 0 })
      const scope = yield* Scope.make()
      const pool = yield* Scope.provide(WorkerPool.make({ size: fixed(2), acquire }), scope)
      const waiting = yield* Effect.forkChild(Effect.exit(callOn(pool)))
      yield* settle
      yield* Scope.close(scope, Exit.void)
      const reason = reasonOf(yield* Fiber.join(waiting))
      assert.deepStrictEqual(reason, new Closed({ delivery: "notSent" }))
      assert.deepStrictEqual(
        stubs.map((stub) => stub.released),
        [true, true]
      )
      assert.strictEqual((yield* Effect.flip(callOn(pool))).reason._tag, "Closed")
    })
  )

  it.effect("during the pause before a restart starts nothing", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const scope = yield* Scope.make()
      yield* Scope.provide(WorkerPool.make({ size: fixed(1), acquire }), scope)
      stubs[0]!.die()
      yield* settle
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(stubs.length, 1)
    })
  )
})
