/** Workers that do not want to leave, and runtimes that are closed at a bad moment. */
import { existsSync } from "node:fs"
import { NodeServices } from "@effect/platform-node"
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Fiber, Schema, Scope } from "effect"
import { Synapse } from "effect-synapse"
import type { SynapseError } from "../../src/SynapseError.ts"
import { reasonOf, upTo } from "../fixtures/dialogue.ts"
import { eventually, isAlive } from "../fixtures/processes.ts"
import { becomesEmpty, call, memory, type Options, pid, row, type World } from "./aftermath.ts"

/**
 * How long closing may take: many times the grace and the half second of the promise, and a small part of what it would take if
 * it waited for what the worker does.
 */
const promptMillis = 10_000

const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const before = performance.now()
    return Effect.map(effect, (value) => ({ value, millis: performance.now() - before }))
  })

/** A runtime in a scope of its own. */
const open = ({ options, see }: World, overrides: Options = {}) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const runtime = yield* Scope.provide(Synapse.make(options(overrides)), scope).pipe(
      Effect.provide(NodeServices.layer),
      Effect.provideService(Synapse.Synapse, undefined as never)
    )
    see()
    const close = Scope.close(scope, Exit.void)
    yield* Effect.addFinalizer(() => close)
    return {
      close,
      pid: runtime.call(Schema.Int, {}, { method: "pid" }),
      call: (method: string, input: object = {}) => runtime.call(Schema.Unknown, input, { method })
    }
  })

describe("a worker that does not leave", () => {
  row("ignore-sigterm", { quick: true }, (world) =>
    Effect.gen(function* () {
      const runtime = yield* open(world, { disposeTimeout: "50 millis" })
      const call = yield* Effect.forkChild(reasonOf(runtime.call("stubborn", { path: world.path("began") }), "Closed"))
      yield* eventually(() => existsSync(world.path("began")))
      assert.isBelow((yield* timed(runtime.close)).millis, promptMillis)
      assert.strictEqual((yield* Fiber.join(call)).delivery, "unknown")
    })
  )

  for (const [name, how] of [
    ["stuck-thread", "thread"],
    ["stuck-atexit", "atexit"],
    ["mp-child", "multiprocessing"]
  ] as const) {
    row(name, { quick: name === "stuck-thread" }, (world) =>
      Effect.gen(function* () {
        const runtime = yield* open(world)
        yield* runtime.call("stuck_at_the_end", { how })
        world.see()
        assert.isBelow((yield* timed(runtime.close)).millis, promptMillis)
      })
    )
  }

  row("close-16", { timeoutMillis: 300_000 }, (world) =>
    Effect.gen(function* () {
      const graceMillis = 2000
      const runtime = yield* open(world, { workers: 16, disposeTimeout: graceMillis })
      const calls = yield* Effect.forEach(upTo(16), (n) =>
        Effect.forkChild(reasonOf(runtime.call("stubborn", { path: world.path(`began-${n}`) }), "Closed"))
      )
      yield* eventually(() => upTo(16).every((n) => existsSync(world.path(`began-${n}`))))
      const { millis } = yield* timed(runtime.close)
      assert.isAtLeast(millis, graceMillis)
      assert.isBelow(millis, 8 * graceMillis)
      yield* Effect.forEach(calls, Fiber.join)
    })
  )
})

describe("closing", () => {
  row("close-while-starting", { quick: true }, (world) =>
    Effect.gen(function* () {
      for (const millis of [0, 10, 40, 120]) {
        const scope = yield* Scope.make()
        const starting = yield* Effect.forkIn(
          Effect.exit(
            Synapse.make(world.options({ entrypoint: "silent", startTimeout: "10 minutes" })).pipe(
              Scope.provide(scope),
              Effect.provide(NodeServices.layer),
              Effect.provideService(Synapse.Synapse, undefined as never)
            )
          ),
          scope
        )
        yield* Effect.sleep(millis)
        world.see()
        yield* Scope.close(scope, Exit.void)
        yield* Fiber.await(starting)
        assert.deepStrictEqual(
          world.see().filter((process_) => isAlive(process_.pid)),
          []
        )
      }
    })
  )

  row("close-while-calling", { quick: true }, (world) =>
    Effect.gen(function* () {
      // Those that end within the grace do.
      const graceful = yield* open(world, { disposeTimeout: "10 minutes" })
      const short = yield* Effect.forEach(upTo(100), () =>
        Effect.forkChild(graceful.call("sleep_async", { seconds: 0.3 }), { startImmediately: true })
      )
      yield* Effect.sleep("50 millis")
      yield* graceful.close
      for (const fiber of short) assert.strictEqual(yield* Fiber.join(fiber), "slept")

      // Of those that do not, each hears so once.
      const forced = yield* open(world, { disposeTimeout: "50 millis" })
      let ends = 0
      const long = yield* Effect.forEach(upTo(100), (n) =>
        Effect.forkChild(
          Effect.onExit(reasonOf(forced.call("wait_async", { path: world.path(`open-${n}`) }), "Closed"), () =>
            Effect.sync(() => void ends++)
          )
        )
      )
      yield* eventually(() => upTo(100).every((n) => existsSync(world.path(`open-${n}`))))
      yield* forced.close
      for (const fiber of long) assert.strictEqual((yield* Fiber.join(fiber)).delivery, "unknown")
      assert.strictEqual(ends, 100)
      assert.strictEqual((yield* reasonOf(forced.pid, "Closed")).delivery, "notSent")
    })
  )

  row("close-twice", { quick: true }, (world) =>
    Effect.gen(function* () {
      const runtime = yield* open(world)
      yield* runtime.pid
      yield* Effect.all([runtime.close, runtime.close, runtime.close], { concurrency: "unbounded" })
      yield* runtime.close
    })
  )

  row("close-and-crash", {}, (world) =>
    Effect.forEach([0, 1, 5, 20], (millis) =>
      Effect.gen(function* () {
        const runtime = yield* open(world, { workers: 2 })
        const worker = yield* runtime.pid
        const call = yield* Effect.forkChild(Effect.result(runtime.call("wait_async")), { startImmediately: true })
        const closing = yield* Effect.forkChild(runtime.close, { startImmediately: true })
        yield* Effect.sleep(millis)
        try {
          process.kill(worker, "SIGKILL")
        } catch {}
        yield* Fiber.join(closing)
        const result = yield* Fiber.join(call)
        assert(result._tag === "Failure")
        assert.include(["Closed", "WorkerExited"], (result.failure as SynapseError).reason._tag)
      }).pipe(Effect.scoped)
    )
  )
})

describe("a worker that leaves", () => {
  row("sigterm-from-outside", {}, ({ path, run }) =>
    run(
      {},
      Effect.gen(function* () {
        const before = yield* pid
        const running = yield* Effect.forkChild(call("sleep", { seconds: 1, path: path("began") }))
        yield* eventually(() => existsSync(path("began")))
        process.kill(before, "SIGTERM")
        const failures: Array<unknown> = []
        yield* Effect.repeat(
          Effect.tapError(pid, (error) => Effect.sync(() => failures.push(error))),
          {
            until: (after) => after !== before
          }
        )
        assert.deepStrictEqual(failures, [])
        assert.strictEqual(yield* Fiber.join(running), "slept")
        yield* eventually(() => !isAlive(before))
      })
    )
  )

  row("recycle", { memoryMiB: 120 }, ({ run }) =>
    run(
      { workers: 2, recycle: { afterCalls: 100 } },
      Effect.gen(function* () {
        const pids = new Set<number>()
        // Any failure fails the row.
        const one = Effect.tap(pid, (pid) => Effect.sync(() => pids.add(pid)))
        const until = (workers: number) =>
          Effect.forEach(upTo(8), () => Effect.repeat(one, { until: () => pids.size >= workers }), {
            concurrency: "unbounded",
            discard: true
          })
        yield* until(4)
        const before = memory()
        yield* until(24)
        // Of those that were replaced, nothing is kept: each has a buffer of 64 KiB.
        yield* eventually(() => [...pids].filter(isAlive).length <= 3)
        yield* Effect.promise(() =>
          becomesEmpty(
            "MiB of buffers that are kept",
            () => {
              const more = memory().buffersMiB - before.buffersMiB
              return more < 0.5 ? [] : [more.toFixed(2)]
            },
            5000
          )
        )
      })
    )
  )
})
