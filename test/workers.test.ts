import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scheduler, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { StartFailed, SynapseError } from "../src/SynapseError.ts"
import * as WorkerPool from "../src/WorkerPool.ts"
import { callOn, fixed, harness, reasonOf, request, type Stub, settle } from "./fixtures/pool.ts"

const open = (stubs: ReadonlyArray<Stub>) => stubs.map((stub) => stub.open)
const released = (stubs: ReadonlyArray<Stub>) => stubs.map((stub) => stub.released)
const MiB = 1024 * 1024
const uses = (stub: Stub, mebibytes: number): void => {
  stub.vitals = { state: "sleeping", cpuMillis: 0, memoryBytes: mebibytes * MiB }
}
const broken = new SynapseError({ reason: new StartFailed({ kind: "import", detail: "a syntax error" }) })

/** Makes so many calls, one after the other. */
const call = (pool: WorkerPool.WorkerPool, stub: Stub, times: number) =>
  Effect.gen(function* () {
    for (let n = 0; n < times; n++) {
      const fiber = yield* Effect.forkChild(callOn(pool))
      yield* settle
      stub.finish()
      yield* Fiber.join(fiber)
    }
  })

describe("a pool of as many workers as are needed", () => {
  it.effect("starts the first one for the first call", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: { min: 0, max: 2 }, acquire })
      yield* settle
      assert.strictEqual(stubs.length, 0)
      yield* Effect.forkChild(callOn(pool))
      yield* settle
      assert.deepStrictEqual(open(stubs), [1])
    })
  )

  it.effect("has calls wait as what they are once that is known", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({
        size: { min: 0, max: 1 },
        acquire: (onChange) => Effect.delay(acquire(onChange), "1 second")
      })
      for (const method of ["main", "main", "async"]) {
        yield* Effect.forkChild(pool.use(method, (connection, resume) => connection.begin(request, resume)))
      }
      yield* TestClock.adjust("1 second")
      yield* settle
      // The asynchronous one does not wait behind those that take turns.
      assert.deepStrictEqual([open(stubs), (yield* pool.status).waiting], [[2], 1])
    })
  )

  it.effect("starts another one when a call has to wait, and not more than there may be", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({ size: { min: 1, max: 3 }, acquire })
      for (let n = 0; n < 5; n++) yield* Effect.forkChild(callOn(pool))
      yield* settle
      // It may be a matter of a moment.
      assert.deepStrictEqual(open(stubs), [1])
      yield* TestClock.adjust("50 millis")
      assert.deepStrictEqual(open(stubs), [1, 1, 1])
      assert.strictEqual((yield* pool.status).waiting, 2)
    })
  )

  it.effect("starts no more than there are calls to take", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1, startWith: () => Effect.sleep("1 second") })
      const pool = yield* WorkerPool.make({ size: { min: 0, max: 8 }, acquire })
      for (let n = 0; n < 2; n++) yield* Effect.forkChild(callOn(pool))
      yield* TestClock.adjust("100 millis")
      assert.strictEqual((yield* pool.status).workers.length, 2)
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.deepStrictEqual(open(stubs), [1, 1])
    })
  )

  it.effect("lets those go that have nothing to do, but for those that are always there", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({ size: { min: 1, max: 3, idleTimeToLive: "10 seconds" }, acquire })
      const calls: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let n = 0; n < 3; n++) calls.push(yield* Effect.forkChild(callOn(pool)))
      yield* TestClock.adjust("100 millis")
      stubs[0]!.finish()
      stubs[1]!.finish()
      yield* TestClock.adjust("9 seconds")
      assert.deepStrictEqual(released(stubs), [false, false, false])
      yield* TestClock.adjust("3 seconds")
      yield* settle
      // The third one has a call.
      assert.deepStrictEqual(released(stubs), [true, true, false])
      stubs[2]!.finish()
      yield* Fiber.joinAll(calls)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(released(stubs), [true, true, false])
    })
  )

  it.effect("keeps one that has a call, however short the time is to have none", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: { min: 0, max: 1, idleTimeToLive: 0 }, acquire })
      const fiber = yield* Effect.forkChild(callOn(pool))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* pool.status).workers[0]!.state, "ready")
      stubs[0]!.finish()
      yield* Fiber.join(fiber)
      yield* TestClock.adjust("2 seconds")
      yield* settle
      assert.deepStrictEqual(released(stubs), [true])
    })
  )

  it.effect("starts none for calls that wait for a certain one", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({ size: { min: 1, max: 5 }, acquire })
      for (let n = 0; n < 3; n++) {
        yield* Effect.forkChild(callOn(pool, { affinity: "a" }))
        yield* settle
      }
      yield* Effect.forkChild(callOn(pool))
      yield* TestClock.adjust("100 millis")
      yield* settle
      assert.deepStrictEqual(open(stubs), [1, 1])
    })
  )

  it.effect("starts one for a call that comes as the last one leaves, and its replacement with it", () =>
    Effect.gen(function* () {
      let starts = 0
      let stops = 0
      const { acquire, stubs } = harness({
        startWith: () => (++starts === 2 ? Effect.sleep("1 minute") : Effect.void),
        stopWith: () => (++stops === 1 ? Effect.sleep("1 second") : Effect.void)
      })
      const size = { min: 0, max: 1, idleTimeToLive: "2 seconds" } as const
      const pool = yield* WorkerPool.make({ size, recycle: { afterCalls: 1 }, acquire })
      const first = yield* Effect.forkChild(callOn(pool))
      yield* settle
      stubs[0]!.finish()
      yield* Fiber.join(first)
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual([starts, (yield* pool.status).workers[0]!.state], [2, "draining"])
      const last = yield* Effect.forkChild(callOn(pool))
      yield* TestClock.adjust("2 minutes")
      yield* settle
      stubs.find(({ open }) => open === 1)!.finish()
      yield* Fiber.join(last)
    })
  )

  it.effect("keeps one that holds an object", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: { min: 0, max: 1, idleTimeToLive: "10 seconds" }, acquire })
      const fiber = yield* Effect.forkChild(callOn(pool))
      yield* settle
      stubs[0]!.handles = 1
      stubs[0]!.finish()
      yield* Fiber.join(fiber)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(released(stubs), [false])
      stubs[0]!.handles = 0
      yield* TestClock.adjust("1 minute")
      yield* settle
      assert.deepStrictEqual(released(stubs), [true])
    })
  )

  it.effect("fails calls when none comes up, and starts over when asked to", () =>
    Effect.gen(function* () {
      let isBroken = true
      const { acquire, stubs } = harness({ startWith: () => (isBroken ? Effect.fail(broken) : Effect.void) })
      const pool = yield* WorkerPool.make({ size: { min: 0, max: 2 }, acquire, restart: { max: 3 } })
      const waiting = yield* Effect.forkChild(Effect.exit(callOn(pool)))
      yield* TestClock.adjust("1 second")
      const reason = reasonOf(yield* Fiber.join(waiting))
      assert(reason._tag === "RestartLimit")
      assert.include(reason.exits[0], "a syntax error")
      assert.strictEqual((yield* pool.status).state, "failed")
      isBroken = false
      yield* pool.reload(acquire)
      yield* call(pool, stubs[0]!, 1)
      assert.strictEqual((yield* pool.status).state, "running")
    })
  )
})

describe("the number of workers", () => {
  it.effect("is there when the pool is", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ startWith: () => Effect.yieldNow })
      const queue = { whenFull: "reject", capacity: 0 } as const
      const pool = yield* WorkerPool.make({ size: fixed(2), queue, acquire })
      const calls = yield* Effect.forEach([1, 2], () => Effect.forkChild(callOn(pool)))
      yield* settle
      for (const { finish } of stubs) finish()
      yield* Fiber.joinAll(calls)
    })
  )

  it.effect("can be changed: new ones take what waits, and those that are too many finish what they have", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
      for (let n = 0; n < 3; n++) yield* Effect.forkChild(callOn(pool))
      yield* settle
      assert.deepStrictEqual(open(stubs), [1])
      yield* pool.resize(fixed(3))
      yield* settle
      assert.deepStrictEqual(open(stubs), [1, 1, 1])
      yield* pool.resize(fixed(1))
      yield* settle
      assert.deepStrictEqual(released(stubs), [false, false, false])
      stubs[1]!.finish()
      stubs[2]!.finish()
      yield* settle
      assert.deepStrictEqual(released(stubs), [false, true, true])
      assert.deepStrictEqual(open(stubs), [1, 0, 0])
    })
  )

  it.effect("can be allowed to grow, and does for the calls that wait already", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
      const calls = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(callOn(pool)))
      yield* settle
      yield* pool.resize({ min: 1, max: 2, idleTimeToLive: "5 seconds" })
      yield* settle
      assert.deepStrictEqual(open(stubs), [1, 1])
      for (const stub of [...stubs, stubs[0]!]) {
        stub.finish()
        yield* settle
      }
      yield* Fiber.joinAll(calls)
      yield* TestClock.adjust("7 seconds")
      yield* settle
      assert.strictEqual(stubs.filter((stub) => stub.released).length, 1)
    })
  )

  it.effect("can be lowered while workers are starting", () =>
    Effect.gen(function* () {
      let starts = 0
      const { acquire } = harness({ startWith: () => (++starts > 1 ? Effect.never : Effect.void) })
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
      yield* pool.resize(fixed(4))
      yield* settle
      assert.strictEqual((yield* pool.status).workers.length, 4)
      yield* pool.resize(fixed(1))
      yield* settle
      assert.deepStrictEqual(
        (yield* pool.status).workers.map(({ state }) => state),
        ["ready"]
      )
    })
  )
})

describe("calls with a key", () => {
  it.effect("go to one worker, and wait for it while others are free", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({ size: fixed(3), acquire })
      const first = yield* Effect.forkChild(callOn(pool, { affinity: "a" }))
      yield* settle
      const second = yield* Effect.forkChild(callOn(pool, { affinity: "a" }))
      yield* settle
      assert.deepStrictEqual(open(stubs), [1, 0, 0])
      assert.strictEqual((yield* pool.status).waiting, 1)
      stubs[0]!.finish()
      yield* Fiber.join(first)
      yield* settle
      assert.deepStrictEqual(open(stubs), [1, 0, 0])
      stubs[0]!.finish()
      yield* Fiber.join(second)
    })
  )

  it.effect("go to the same one although they were made at once", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ startWith: () => Effect.sleep("1 second"), room: 1 })
      const pool = yield* WorkerPool.make({ size: { min: 0, max: 3 }, acquire })
      for (let n = 0; n < 3; n++) yield* Effect.forkChild(callOn(pool, { affinity: "a" }))
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.strictEqual(
        open(stubs).reduce((sum, n) => sum + n, 0),
        1
      )
      const stub = stubs.find(({ open }) => open === 1)!
      for (let n = 0; n < 3; n++) {
        stub.finish()
        yield* settle
      }
      assert.strictEqual(stub.served, 3)
    })
  )

  it.effect("go to another one when theirs has ended, those that wait for it too", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({ size: fixed(2), acquire })
      const first = yield* Effect.forkChild(callOn(pool, { affinity: "a" }))
      yield* settle
      yield* Effect.forkChild(callOn(pool, { affinity: "a" }))
      yield* settle
      assert.deepStrictEqual(open(stubs), [1, 0])
      stubs[0]!.die()
      yield* settle
      assert.deepStrictEqual(open(stubs), [1, 1])
      yield* Fiber.interrupt(first)
    })
  )

  it.effect("go to another one when theirs ends at any moment as they begin to wait for it", () =>
    Effect.gen(function* () {
      for (let operations = 3; operations <= 16; operations++) {
        for (let turns = 0; turns <= 8; turns++) {
          const { acquire, stubs } = harness({ room: 1 })
          const scope = yield* Scope.make()
          const pool = yield* Scope.provide(WorkerPool.make({ size: fixed(2), acquire }), scope)
          yield* Effect.forkChild(callOn(pool, { affinity: "a" }))
          yield* settle
          const second = yield* Effect.forkChild(
            Effect.provideService(callOn(pool, { affinity: "a" }), Scheduler.MaxOpsBeforeYield, operations)
          )
          for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
          stubs[0]!.die()
          yield* settle
          yield* settle
          assert.strictEqual(stubs[1]!.open, 1, `${operations} operations, ${turns} turns`)
          yield* Fiber.interrupt(second)
          yield* Scope.close(scope, Exit.void)
        }
      }
    })
  )

  it.effect("are told apart", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(2), acquire })
      for (const affinity of ["a", "b", "a", "a", "b"]) {
        yield* Effect.forkChild(callOn(pool, { affinity }))
        yield* settle
      }
      assert.deepStrictEqual(open(stubs), [3, 2])
    })
  )

  it.effect("do not keep those waiting that have waited longer for any worker", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
      const order: Array<string> = []
      const make = (name: string, affinity?: string) =>
        callOn(pool, { affinity }).pipe(
          Effect.andThen(Effect.sync(() => order.push(name))),
          Effect.forkChild,
          Effect.andThen(settle)
        )
      yield* make("a1", "a")
      yield* make("a2", "a")
      yield* make("any1")
      yield* make("a3", "a")
      yield* make("any2")
      yield* make("a4", "a")
      for (let n = 0; n < 6; n++) {
        stubs[0]!.finish()
        yield* settle
      }
      assert.deepStrictEqual(order, ["a1", "a2", "any1", "a3", "any2", "a4"])
    })
  )

  it.effect("give their place to the next when they are interrupted", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({ size: fixed(2), acquire })
      yield* Effect.forkChild(callOn(pool, { affinity: "a" }))
      yield* settle
      const second = yield* Effect.forkChild(callOn(pool, { affinity: "a" }))
      const third = yield* Effect.forkChild(callOn(pool, { affinity: "a" }))
      yield* settle
      yield* Fiber.interrupt(second)
      stubs[0]!.finish()
      yield* settle
      assert.deepStrictEqual(open(stubs), [1, 0])
      stubs[0]!.finish()
      yield* Fiber.join(third)
    })
  )
})

describe("a worker for each call", () => {
  it.effect("takes one, leaves, and is followed by another", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), oneShot: true, acquire })
      const first = yield* Effect.forkChild(callOn(pool))
      const second = yield* Effect.forkChild(callOn(pool))
      yield* settle
      assert.deepStrictEqual(open(stubs), [1])
      stubs[0]!.finish()
      yield* Fiber.join(first)
      yield* settle
      assert.deepStrictEqual(
        [released(stubs), open(stubs)],
        [
          [true, false],
          [0, 1]
        ]
      )
      stubs[1]!.finish()
      yield* Fiber.join(second)
    })
  )

  it.effect("leaves when its call is given up, or was a way to an object that is let go of", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), oneShot: true, acquire })
      const first = yield* Effect.forkChild(callOn(pool))
      yield* settle
      yield* Fiber.interrupt(first)
      yield* settle
      assert.deepStrictEqual(released(stubs), [true, false])
      const second = yield* Effect.forkChild(callOn(pool))
      yield* settle
      stubs[1]!.handles = 1
      stubs[1]!.finish()
      yield* Fiber.join(second)
      yield* settle
      assert.isFalse(stubs[1]!.released)
      stubs[1]!.handles = 0
      stubs[1]!.change()
      yield* settle
      assert.isTrue(stubs[1]!.released)
    })
  )

  it.effect("is not forgotten when the call is interrupted at any moment, while it waits or as it begins", () =>
    Effect.gen(function* () {
      for (let operations = 2; operations <= 20; operations++) {
        for (let turns = 0; turns <= 8; turns++) {
          const { acquire, stubs } = harness()
          const scope = yield* Scope.make()
          const pool = yield* Scope.provide(WorkerPool.make({ size: fixed(1), oneShot: true, acquire }), scope)
          const eager = Effect.provideService(callOn(pool), Scheduler.MaxOpsBeforeYield, operations)
          const first = yield* Effect.forkChild(eager)
          const second = yield* Effect.forkChild(eager)
          for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
          yield* Fiber.interrupt(turns % 2 ? first : second)
          yield* Fiber.interrupt(turns % 2 ? second : first)
          yield* settle
          const last = yield* Effect.forkChild(callOn(pool))
          yield* settle
          const stub = stubs.find(({ open }) => open === 1)
          assert.isDefined(stub, `${operations} operations, ${turns} turns`)
          stub!.finish()
          yield* Fiber.join(last)
          yield* Scope.close(scope, Exit.void)
        }
      }
    })
  )

  it.effect("may end as it likes: that costs nothing of the budget", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), oneShot: true, acquire, restart: { max: 1 } })
      for (let n = 0; n < 10; n++) {
        const fiber = yield* Effect.forkChild(Effect.exit(callOn(pool)))
        yield* settle
        if (n % 2) stubs[n]!.leave()
        stubs[n]!.die()
        yield* settle
        yield* Fiber.interrupt(fiber)
      }
      yield* settle
      assert.strictEqual(stubs.length, 11)
      assert.strictEqual((yield* pool.status).state, "running")
    })
  )
})

describe("a worker that has served long enough", () => {
  it.effect("is replaced after so many calls: the new one is there before it goes", () =>
    Effect.gen(function* () {
      let starts = 0
      const { acquire, stubs } = harness({ startWith: () => (++starts > 1 ? Effect.sleep("1 second") : Effect.void) })
      const pool = yield* WorkerPool.make({ size: fixed(1), recycle: { afterCalls: 3 }, acquire })
      yield* call(pool, stubs[0]!, 3)
      yield* settle
      assert.strictEqual(starts, 2)
      // It goes on meanwhile.
      const last = yield* Effect.forkChild(callOn(pool))
      yield* TestClock.adjust("1 second")
      yield* settle
      assert.deepStrictEqual(
        [open(stubs), released(stubs)],
        [
          [1, 0],
          [false, false]
        ]
      )
      stubs[0]!.finish()
      yield* Fiber.join(last)
      yield* settle
      assert.deepStrictEqual(released(stubs), [true, false])
      yield* call(pool, stubs[1]!, 1)
      assert.deepStrictEqual([(yield* pool.status).restarts, (yield* pool.status).lastExit], [0, undefined])
    })
  )

  it.effect("is replaced at an age, one after the other", () =>
    Effect.gen(function* () {
      let starting = 0
      let most = 0
      const { acquire, stubs } = harness({
        startWith: () => {
          most = Math.max(most, ++starting)
          return Effect.ensuring(
            Effect.sleep("100 millis"),
            Effect.sync(() => starting--)
          )
        }
      })
      const making = yield* Effect.forkChild(
        WorkerPool.make({ size: fixed(3), recycle: { afterAge: "1 minute" }, acquire })
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(making)
      most = 0
      yield* TestClock.adjust("70 seconds")
      yield* settle
      assert.deepStrictEqual(released(stubs), [true, true, true, false, false, false])
      assert.strictEqual(most, 1)
    })
  )

  it.effect("is replaced at a mark of memory", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      yield* WorkerPool.make({ size: fixed(1), recycle: { afterMemoryMiB: 100 }, acquire })
      uses(stubs[0]!, 99)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(released(stubs), [false])
      uses(stubs[0]!, 100)
      yield* TestClock.adjust("2 seconds")
      yield* settle
      assert.deepStrictEqual(released(stubs), [true, false])
    })
  )

  it.effect("is replaced when its memory rises three times in a row, a hundred calls each", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      yield* WorkerPool.make({ size: fixed(1), recycle: "auto", acquire })
      const sample = (mebibytes: number, calls = 100) => {
        stubs[0]!.served += calls
        uses(stubs[0]!, mebibytes)
        return Effect.andThen(TestClock.adjust("1 second"), settle)
      }
      for (const mebibytes of [50, 60, 70, 69, 80, 90, 90, 100, 110]) yield* sample(mebibytes)
      assert.deepStrictEqual(released(stubs), [false])
      // Too few calls to say anything.
      yield* sample(300, 99)
      assert.deepStrictEqual(released(stubs), [false])
      yield* sample(120)
      yield* settle
      assert.deepStrictEqual(released(stubs), [true, false])
    })
  )

  it.effect("goes on when its replacement does not come up, and is replaced later", () =>
    Effect.gen(function* () {
      let starts = 0
      const { acquire, stubs } = harness({ startWith: () => (++starts === 2 ? Effect.fail(broken) : Effect.void) })
      const pool = yield* WorkerPool.make({
        size: fixed(1),
        recycle: { afterAge: "1 minute" },
        restart: { max: 0 },
        acquire
      })
      yield* TestClock.adjust("80 seconds")
      assert.strictEqual(starts, 2)
      assert.deepStrictEqual(released(stubs), [false])
      yield* call(pool, stubs[0]!, 1)
      yield* TestClock.adjust("30 seconds")
      yield* settle
      assert.deepStrictEqual(released(stubs), [true, false])
    })
  )

  it.effect("that dies before its replacement is there has that one in its place", () =>
    Effect.gen(function* () {
      let starts = 0
      const { acquire, stubs } = harness({ startWith: () => (++starts > 1 ? Effect.sleep("1 second") : Effect.void) })
      const pool = yield* WorkerPool.make({ size: fixed(1), recycle: { afterCalls: 1 }, acquire })
      yield* call(pool, stubs[0]!, 1)
      stubs[0]!.die()
      yield* TestClock.adjust("5 seconds")
      yield* settle
      assert.deepStrictEqual(released(stubs), [true, false])
      assert.strictEqual((yield* pool.status).workers.length, 1)
    })
  )
})

describe("reloading", () => {
  it.effect("has new workers take over when all are ready, and the old ones finish", () =>
    Effect.gen(function* () {
      const old = harness()
      const pool = yield* WorkerPool.make({ size: fixed(2), acquire: old.acquire })
      const running = yield* Effect.forkChild(callOn(pool))
      yield* settle
      let starts = 0
      const next = harness({ startWith: () => (++starts === 2 ? Effect.sleep("1 second") : Effect.void) })
      const reload = yield* Effect.forkChild(pool.reload(next.acquire))
      yield* settle
      // One of two is ready: the old ones serve.
      const second = yield* Effect.forkChild(callOn(pool))
      yield* settle
      assert.deepStrictEqual([open(old.stubs), open(next.stubs)], [[1, 1], [0]])
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(reload)
      const third = yield* Effect.forkChild(callOn(pool))
      yield* settle
      assert.deepStrictEqual(
        [open(old.stubs), open(next.stubs)],
        [
          [1, 1],
          [1, 0]
        ]
      )
      assert.deepStrictEqual(released(old.stubs), [false, false])
      old.stubs[0]!.finish()
      old.stubs[1]!.finish()
      next.stubs[0]!.finish()
      yield* Fiber.joinAll([running, second, third])
      yield* settle
      assert.deepStrictEqual(
        [released(old.stubs), released(next.stubs)],
        [
          [true, true],
          [false, false]
        ]
      )
    })
  )

  it.effect("lets go of an old worker that was kept for a call on its way, whatever becomes of that", () =>
    Effect.gen(function* () {
      for (let operations = 3; operations <= 10; operations++) {
        for (let turns = 0; turns <= 20; turns++) {
          const { acquire, stubs } = harness({ room: 1 })
          const scope = yield* Scope.make()
          const pool = yield* Scope.provide(WorkerPool.make({ size: fixed(1), acquire }), scope)
          yield* Effect.forkChild(callOn(pool))
          yield* settle
          const second = yield* Effect.forkChild(
            Effect.provideService(callOn(pool), Scheduler.MaxOpsBeforeYield, operations)
          )
          for (let turn = 0; turn < turns; turn++) {
            if (turn === 3) stubs[0]!.finish()
            yield* Effect.yieldNow
          }
          if (turns <= 3) stubs[0]!.finish()
          yield* pool.reload(acquire)
          if (turns % 2) second.interruptUnsafe()
          yield* settle
          // It got there before.
          if (stubs[0]!.open === 1) stubs[0]!.finish()
          yield* settle
          assert.isTrue(stubs[0]!.released, `${operations} operations, ${turns} turns`)
          yield* Scope.close(scope, Exit.void)
        }
      }
    })
  )

  it.effect("that fails leaves the old workers serving, and nothing of the new ones", () =>
    Effect.gen(function* () {
      const old = harness()
      const pool = yield* WorkerPool.make({ size: fixed(2), acquire: old.acquire, restart: { max: 0 } })
      let starts = 0
      const next = harness({ startWith: () => (++starts === 2 ? Effect.fail(broken) : Effect.void) })
      const exit = yield* Effect.exit(pool.reload(next.acquire))
      assert.strictEqual(reasonOf(exit)._tag, "StartFailed")
      yield* settle
      assert.deepStrictEqual(released(next.stubs), [true])
      yield* call(pool, old.stubs[0]!, 2)
      assert.strictEqual((yield* pool.status).workers.length, 2)
    })
  )

  it.effect("can be interrupted, and leaves the old workers serving", () =>
    Effect.gen(function* () {
      const old = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire: old.acquire })
      const reload = yield* Effect.forkChild(pool.reload(harness({ startWith: () => Effect.never }).acquire))
      yield* settle
      yield* Fiber.interrupt(reload)
      yield* call(pool, old.stubs[0]!, 1)
      assert.strictEqual((yield* pool.status).workers.length, 1)
    })
  )

  it.effect("ends with the pool", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const scope = yield* Scope.make()
      const pool = yield* Scope.provide(WorkerPool.make({ size: fixed(1), acquire }), scope)
      const reload = yield* Effect.forkChild(
        Effect.exit(pool.reload(harness({ startWith: () => Effect.never }).acquire))
      )
      yield* settle
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(reasonOf(yield* Fiber.join(reload))._tag, "Closed")
      assert.strictEqual(reasonOf(yield* Effect.exit(pool.reload(acquire)))._tag, "Closed")
      assert.deepStrictEqual(released(stubs), [true])
    })
  )

  it.effect("goes on when the old workers reach the restart limit meanwhile", () =>
    Effect.gen(function* () {
      const old = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire: old.acquire, restart: { max: 0 } })
      const next = harness({ startWith: () => Effect.sleep("1 second") })
      const reload = yield* Effect.forkChild(pool.reload(next.acquire))
      yield* settle
      old.stubs[0]!.die()
      yield* settle
      assert.strictEqual((yield* pool.status).state, "failed")
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(reload)
      yield* call(pool, next.stubs[0]!, 1)
    })
  )

  it.effect("starts over after the restart limit, with a new budget", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire, restart: { max: 1 } })
      for (let n = 0; n < 2; n++) {
        stubs[n]!.die()
        yield* TestClock.adjust("1 second")
      }
      assert.strictEqual(reasonOf(yield* Effect.exit(callOn(pool)))._tag, "RestartLimit")
      yield* pool.reload(acquire)
      stubs[2]!.die()
      yield* TestClock.adjust("1 second")
      yield* settle
      yield* call(pool, stubs[3]!, 1)
    })
  )
})

describe("the budget", () => {
  it.effect("counts a worker that leaves as soon as it has come", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire, restart: { max: 2 } })
      for (let n = 0; n < 3; n++) {
        stubs[n]!.leave()
        yield* TestClock.adjust("500 millis")
        yield* settle
      }
      assert.strictEqual(reasonOf(yield* Effect.exit(callOn(pool)))._tag, "RestartLimit")
      assert.strictEqual(stubs.length, 3)
    })
  )

  it.effect("does not count one that is made to leave, however soon", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire, restart: { max: 0 } })
      for (let n = 0; n < 3; n++) {
        stubs[n]!.leave(false)
        yield* settle
      }
      assert.strictEqual(stubs.length, 4)
      assert.strictEqual((yield* pool.status).restarts, 0)
    })
  )

  it.effect("does not count one that leaves later", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      yield* WorkerPool.make({ size: fixed(1), acquire, restart: { max: 0 } })
      for (let n = 0; n < 5; n++) {
        yield* TestClock.adjust("2 seconds")
        stubs[n]!.leave()
        yield* settle
      }
      assert.strictEqual(stubs.length, 6)
    })
  )

  it.effect("counts workers that do not come up, however long each takes for it", () =>
    Effect.gen(function* () {
      let isBroken = false
      const { acquire, stubs } = harness({
        startWith: () => (isBroken ? Effect.delay(Effect.fail(broken), "1 minute") : Effect.void)
      })
      const pool = yield* WorkerPool.make({ size: fixed(1), acquire })
      isBroken = true
      stubs[0]!.die()
      yield* settle
      const waiting = yield* Effect.forkChild(callOn(pool))
      for (let n = 0; n < 3; n++) {
        yield* TestClock.adjust("62 seconds")
        yield* settle
      }
      assert.strictEqual((yield* pool.status).state, "failed")
      assert.strictEqual(reasonOf(yield* Fiber.await(waiting))._tag, "RestartLimit")
    })
  )

  it.effect("begins anew after a time of health", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      yield* WorkerPool.make({
        size: fixed(1),
        acquire,
        restart: { max: 1, window: "1 day", resetAfter: "1 minute" }
      })
      for (let n = 0; n < 5; n++) {
        stubs[n]!.die()
        yield* TestClock.adjust("61 seconds")
        yield* settle
      }
      assert.strictEqual(stubs.length, 6)
    })
  )
})

describe("the status", () => {
  it.effect("shows the workers, what waits, and the last end", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness({ room: 1 })
      const pool = yield* WorkerPool.make({ size: fixed(2), acquire })
      for (let n = 0; n < 3; n++) yield* Effect.forkChild(callOn(pool))
      yield* settle
      uses(stubs[0]!, 30)
      const status = yield* pool.status
      assert.deepStrictEqual([status.state, status.waiting, status.restarts], ["running", 1, 0])
      assert.deepStrictEqual(status.workers[0], {
        id: 1,
        pid: stubs[0]!.connection.hello.pid,
        state: "ready",
        inFlight: 1,
        calls: 0,
        memoryBytes: 30 * MiB,
        startedAt: 0
      })
      stubs[1]!.die()
      yield* TestClock.adjust("1 second")
      yield* settle
      const after = yield* pool.status
      assert.deepStrictEqual([after.restarts, after.lastExit?.id], [1, 2])
      assert.strictEqual(after.lastExit?.error.reason._tag, "WorkerExited")
      assert.deepStrictEqual(
        after.workers.map(({ id }) => id),
        [1, 3]
      )
    })
  )

  it.effect("changes are told, and end with the pool", () =>
    Effect.gen(function* () {
      const { acquire, stubs } = harness()
      const scope = yield* Scope.make()
      const pool = yield* Scope.provide(WorkerPool.make({ size: fixed(1), acquire }), scope)
      const seen: Array<string> = []
      const listening = yield* pool.statusChanges.pipe(
        Stream.runForEach(({ state, workers }) =>
          Effect.sync(() =>
            seen.push([state, ...workers.map(({ id, inFlight, state }) => `${id} ${state} ${inFlight}`)].join(", "))
          )
        ),
        Effect.forkChild
      )
      yield* settle
      const calling = yield* Effect.forkChild(callOn(pool))
      yield* TestClock.adjust("1 second")
      yield* settle
      stubs[0]!.finish()
      yield* Fiber.join(calling)
      yield* TestClock.adjust("1 second")
      yield* settle
      stubs[0]!.leave()
      yield* settle
      yield* Scope.close(scope, Exit.void)
      yield* Fiber.join(listening)
      assert.deepStrictEqual([seen[0], seen[1]], ["running, 1 ready 0", "running, 1 ready 1"])
      assert.include(seen, "running, 1 draining 0, 2 ready 0")
      assert.strictEqual(seen.at(-1), "closed")
    })
  )
})
