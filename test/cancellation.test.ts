/** How calls of a real worker are given up, and what becomes of their handlers. */
import { existsSync, mkdtempSync, readFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Synapse } from "effect-synapse"
import { forget, live, nothingOpen, reasonOf, seenEventually, upTo } from "./fixtures/dialogue.ts"
import * as modules from "./fixtures/modules.ts"
import { eventually, isAlive } from "./fixtures/processes.ts"

/** A file that a handler writes what it does into. */
const diary = () => {
  const path = join(mkdtempSync(join(tmpdir(), "synapse-test-")), "diary")
  return { path, says: (text: string) => eventually(() => existsSync(path) && readFileSync(path, "utf8") === text) }
}

const echo = Synapse.call(Schema.Int, 1, { method: "echo" })
const pid = Synapse.call(Schema.Int, {}, { method: "pid" })

/** The ways in which a caller gives up. */
const givenUp = [
  ["interruption", Fiber.interrupt],
  ["Effect.timeout", Fiber.await]
] as const

for (const concurrency of [1, 2]) {
  layer(Synapse.layer({ ...modules.dialogue, concurrency }), live)(`with concurrency ${concurrency}`, (it) => {
    for (const [name, giveUp] of givenUp) {
      it.effect(`${name} cancels the task of an async handler`, () =>
        Effect.gen(function* () {
          yield* forget
          const call = Synapse.call(Schema.Void, { name }, { method: "wait_async" })
          const fiber = yield* Effect.forkChild(Effect.timeout(call, "1 minute"))
          yield* seenEventually(`${name} began`)
          if (giveUp === Fiber.await) yield* TestClock.adjust("1 minute")
          yield* giveUp(fiber)
          yield* seenEventually(`${name} cancelled`)
          yield* nothingOpen
        })
      )

      for (const method of ["wait_cooperatively", "wait_interrupted"]) {
        it.effect(`${name} reaches a sync handler: ${method}`, () =>
          Effect.gen(function* () {
            const { path, says } = diary()
            const call = Synapse.call(Schema.Void, { path }, { method })
            const fiber = yield* Effect.forkChild(Effect.timeout(call, "1 minute"))
            yield* says("began")
            if (giveUp === Fiber.await) yield* TestClock.adjust("1 minute")
            // It does not wait for Python.
            yield* giveUp(fiber)
            yield* says("cancelled")
            yield* nothingOpen
          })
        )
      }
    }

    it.effect("a race cancels who loses it", () =>
      Effect.gen(function* () {
        yield* forget
        const loser = Synapse.call(Schema.Void, { name: "loser" }, { method: "wait_async" })
        const winner = Effect.andThen(seenEventually("loser began"), echo)
        assert.strictEqual(yield* Effect.race(loser, winner), 1)
        yield* seenEventually("loser cancelled")
        yield* nothingOpen
      })
    )

    it.effect("a call that is given up before it starts, as it ends, or twice ends once", () =>
      Effect.gen(function* () {
        for (const n of upTo(300)) {
          const method = n % 2 === 0 ? "echo" : "echo_async"
          const fiber = yield* Effect.forkChild(Synapse.call(Schema.Int, n, { method }), { startImmediately: true })
          for (let turns = n % 7; turns > 0; turns--) yield* Effect.promise(() => new Promise(setImmediate))
          fiber.interruptUnsafe()
          yield* Fiber.interrupt(fiber)
        }
        yield* nothingOpen
        assert.strictEqual(yield* echo, 1)
      })
    )

    it.effect("a call that waits behind another is given up without having run", () =>
      Effect.gen(function* () {
        const { path, says } = diary()
        const behind = diary()
        const first = yield* Effect.forEach(upTo(concurrency), (n) =>
          Effect.forkChild(
            Synapse.call(Schema.Void, { path: n === 0 ? path : diary().path }, { method: "wait_cooperatively" })
          )
        )
        yield* says("began")
        const second = yield* Effect.forkChild(
          Synapse.call(Schema.Void, { path: behind.path }, { method: "wait_cooperatively" })
        )
        yield* Effect.yieldNow
        yield* Fiber.interrupt(second)
        yield* Fiber.interruptAll(first)
        yield* nothingOpen
        assert.isFalse(existsSync(behind.path))
      })
    )

    it.effect("a call whose time to wait is over was never sent, and one has its own time to run", () =>
      Effect.gen(function* () {
        const { path, says } = diary()
        const occupied = yield* Effect.forEach(upTo(concurrency), (n) =>
          Effect.forkChild(
            Synapse.call(Schema.Void, { path: n === 0 ? path : diary().path }, { method: "wait_cooperatively" })
          )
        )
        yield* says("began")
        const impatient = yield* Effect.forkChild(
          Synapse.call(Schema.Int, 1, { method: "echo", queueTimeout: "1 second" }),
          { startImmediately: true }
        )
        const patient = yield* Effect.forkChild(
          Synapse.call(Schema.NullOr(Schema.Finite), {}, { method: "remaining", timeout: "10 seconds" }),
          { startImmediately: true }
        )
        // What the worker was given ahead comes back, since it is busy.
        yield* Effect.repeat(Synapse.stats, { until: ({ calls }) => calls === concurrency })
        for (const _ of upTo(30)) yield* TestClock.adjust("1 second")
        const { option, running } = yield* reasonOf(Fiber.join(impatient), "CallTimeout")
        assert.deepStrictEqual([option, running], ["queueTimeout", false])
        assert.isUndefined(patient.pollUnsafe())
        yield* Fiber.interruptAll(occupied)
        const remaining = yield* Fiber.join(patient)
        assert(remaining !== null)
        assert.isAtMost(remaining, 10)
        assert.isAbove(remaining, 5)
      })
    )

    it.effect("a call without a time-out has no deadline in Python", () =>
      Effect.gen(function* () {
        assert.isNull(yield* Synapse.call(Schema.NullOr(Schema.Finite), {}, { method: "remaining" }))
      })
    )
  })
}

describe("a handler that never ends", () => {
  layer(
    Synapse.layer({ ...modules.dialogue, workers: 2, cancelGrace: "3 seconds" }),
    live
  )((it) => {
    it.effect("has its worker replaced after the grace, and no other", () =>
      Effect.gen(function* () {
        // Both workers, by their process ids.
        const pids = new Set<number>()
        while (pids.size < 2) {
          const found = yield* Effect.all([pid, pid, pid, pid], { concurrency: "unbounded" })
          for (const each of found) pids.add(each)
        }
        const { path, says } = diary()
        const stuck = yield* Effect.forkChild(Synapse.call(Schema.Void, { path }, { method: "wait_for_ever" }))
        yield* says("began")
        const other = yield* pid
        const [victim] = Array.from(pids).filter((each) => each !== other)
        yield* Fiber.interrupt(stuck)
        yield* TestClock.adjust("2 seconds")
        assert.isTrue(isAlive(victim!))
        yield* TestClock.adjust("1 second")
        yield* eventually(() => !isAlive(victim!))
        assert.isTrue(isAlive(other))
        // The replacement takes calls.
        while (
          (yield* Effect.all([pid, pid, pid, pid], { concurrency: "unbounded" })).every((each) => each === other)
        ) {
          // Until it is there.
        }
        yield* nothingOpen
      })
    )

    it.effect("keeps its worker where nobody asked for that, and loses it where the caller did", () =>
      Effect.gen(function* () {
        const { path, says } = diary()
        const call = Synapse.call(Schema.Void, { path }, { method: "wait_interrupted", onCancel: "replace" })
        const fiber = yield* Effect.forkChild(call)
        yield* says("began")
        yield* Fiber.interrupt(fiber)
        // It ends within the grace.
        yield* says("cancelled")
        yield* nothingOpen
        const before = yield* pid
        yield* TestClock.adjust("1 minute")
        assert.isTrue(isAlive(before))
      })
    )
  })
})

describe("the scope of a runtime", () => {
  it.live("ends calls that run, and tells their handlers", () =>
    Effect.gen(function* () {
      const { path, says } = diary()
      const fiber = yield* Effect.scoped(
        Effect.gen(function* () {
          const runtime = yield* Synapse.make(modules.dialogue)
          const fiber = yield* Effect.forkDetach(runtime.call(Schema.Void, { path }, { method: "wait_cooperatively" }))
          yield* says("began")
          return fiber
        })
      )
      yield* reasonOf(Fiber.join(fiber), "Closed")
      yield* says("cancelled")
    }).pipe(Effect.provide(NodeServices.layer))
  )
})
