/** Calls that go wrong, are given up, or ask back. */
import { existsSync, readFileSync } from "node:fs"
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { HostFunctions, Synapse } from "effect-synapse"
import { reasonOf, upTo } from "../fixtures/dialogue.ts"
import { eventually, isAlive } from "../fixtures/processes.ts"
import { call, type Options, pid, type RowOptions, row, type World } from "./aftermath.ts"

const quick = { quick: true } as const

/** A row whose worker goes on as if nothing had happened. */
const harmless = <E>(
  name: string,
  options: RowOptions,
  effect: (world: World) => Effect.Effect<unknown, E, Synapse.Synapse>,
  runtime: Options = {}
) =>
  row(name, options, (world) =>
    world.run(
      runtime,
      Effect.gen(function* () {
        const before = yield* pid
        yield* effect(world)
        assert.strictEqual(yield* pid, before)
      })
    )
  )

describe("a call that fails", () => {
  harmless("remote-exception", quick, () =>
    Effect.gen(function* () {
      const count = yield* Synapse.call(Schema.Int, {}, { method: "how_many_nasty" })
      const reasons = yield* Effect.forEach(upTo(count), (which) =>
        reasonOf(call("nasty", { which }), "PythonException")
      )
      const types = reasons.map(({ type }) => type)
      for (const type of ["EvilStr", "EvilArgs", "KeyboardInterrupt", "SystemExit", "RecursionError", "SyntaxError"]) {
        assert.include(types, type)
      }
      for (const { exception, traceback } of reasons) {
        assert.isAtMost(exception.frames.length, 51)
        assert.isBelow(traceback.length, 1_000_000)
      }
      const notes = reasons.find(({ exception }) => exception.message === "with notes")?.exception.notes
      assert.strictEqual(notes?.[0], "first")
      assert.strictEqual(reasons.at(-1)?.exception.cause?.type, "KeyError")
    })
  )

  harmless("unknown-method", quick, () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(call("ecko"), "MethodNotFound")
      assert.strictEqual(reason.nearest[0], "echo")
      assert.strictEqual(reason.delivery, "rejected")
    })
  )

  harmless("bad-arguments", quick, () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(call("add", { a: 1, b: "two" }), "DecodeFailed")
      assert.deepStrictEqual([reason.side, reason.what, reason.path], ["python", "arguments", "$.b"])
      assert.deepStrictEqual(yield* call("seen"), [])
    })
  )

  harmless("bad-result", quick, () =>
    Effect.gen(function* () {
      for (const [what, path] of [
        ["object", "$.items[1]"],
        ["huge", "$[0]"],
        ["surrogate", "$"],
        ["nested", undefined]
      ] as const) {
        const reason = yield* reasonOf(call("give", { what }), "EncodeFailed")
        assert.strictEqual(reason.side, "python")
        if (path !== undefined) assert.include(reason.path, path, what)
      }
    })
  )

  harmless("bad-reply-schema", quick, () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(Synapse.call(Schema.Int, { what: "text" }, { method: "give" }), "DecodeFailed")
      assert.deepStrictEqual([reason.side, reason.what, reason.path], ["typescript", "reply", "$"])
    })
  )

  harmless("unencodable-argument", quick, () =>
    Effect.gen(function* () {
      const cycle: { self?: unknown } = {}
      cycle.self = cycle
      for (const [value, path] of [
        [Symbol("no"), "$.value"],
        [cycle, "$.value.self"],
        [2n ** 70n, "$.value"],
        ["\ud800", "$.value"],
        [() => 1, "$.value"],
        [new Date(Number.NaN), "$.value"]
      ] as const) {
        const reason = yield* reasonOf(call("echo", { value }), "EncodeFailed")
        assert.deepStrictEqual([reason.side, reason.delivery], ["typescript", "notSent"])
        assert.isTrue(reason.path.startsWith(path), reason.path)
      }
    })
  )

  harmless("too-large-out", { quick: true, memoryMiB: 100 }, () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(call("echo", "x".repeat(17 * 2 ** 20)), "FrameTooLarge")
      assert.deepStrictEqual([reason.side, reason.delivery], ["typescript", "notSent"])
      assert.isAbove(reason.size, reason.limit)
    })
  )

  harmless("too-large-in", { quick: true, memoryMiB: 100 }, () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(call("give", { what: "large" }), "FrameTooLarge")
      assert.deepStrictEqual([reason.side, reason.delivery], ["python", "unknown"])
      assert.isAbove(reason.size, reason.limit)
    })
  )
})

/** A handler that would take ten minutes: one that is ended in the minute of a test was ended by what ends it here. */
describe("a call that is given up", () => {
  for (const [name, method] of [
    ["deadline-async", "sleep_async"],
    ["deadline-sync", "compute_for_ever"]
  ] as const) {
    harmless(name, quick, ({ path }) =>
      Effect.gen(function* () {
        const input = method === "sleep_async" ? { seconds: 600 } : { path: path("began") }
        const reason = yield* reasonOf(call(method, input, { timeout: 20 }), "CallTimeout")
        assert.deepStrictEqual([reason.option, reason.durationMillis], ["timeout", 20])
      })
    )
  }

  harmless("cancel-before-start", quick, () =>
    Effect.forEach(upTo(200), (n) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(call(n % 2 === 0 ? "echo" : "echo_async", n), { startImmediately: true })
        fiber.interruptUnsafe()
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
      })
    )
  )

  harmless("cancel-after-reply", quick, () =>
    Effect.forEach(upTo(200), (n) =>
      Effect.gen(function* () {
        let ends = 0
        const fiber = yield* Effect.forkChild(
          Effect.onExit(call(n % 2 === 0 ? "echo" : "echo_async", n), () => Effect.sync(() => void ends++)),
          { startImmediately: true }
        )
        for (let turns = n % 9; turns > 0; turns--) yield* Effect.promise(() => new Promise(setImmediate))
        const exit = yield* Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
        assert.strictEqual(ends, 1)
        if (Exit.isSuccess(exit)) assert.strictEqual(exit.value, n)
      })
    )
  )

  harmless("cancel-sync-interrupt", quick, ({ path }) =>
    Effect.forEach(upTo(20), (n) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(call("compute_for_ever", { path: path(`began-${n}`) }))
        yield* eventually(() => existsSync(path(`began-${n}`)))
        yield* Fiber.interrupt(fiber)
        // The one thread for handlers is free again.
        assert.strictEqual(yield* call("echo", n), n)
      })
    )
  )

  harmless("cancel-sync-blocked", {}, ({ path }) =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(call("sleep", { seconds: 1, path: path("began") }))
      yield* eventually(() => existsSync(path("began")))
      yield* Fiber.interrupt(fiber)
      // It was let go at once; what cannot be interrupted is still counted.
      assert.strictEqual((yield* Synapse.stats).calls, 1)
      assert.strictEqual(yield* call("echo", 1), 1)
      assert.strictEqual((yield* Synapse.stats).calls, 0)
    })
  )

  row("cancel-kill", quick, ({ path, run }) =>
    run(
      { cancelGrace: "50 millis" },
      Effect.gen(function* () {
        const before = yield* pid
        for (const [method, options] of [
          ["blocked_for_ever", {}],
          ["jam", { onCancel: "replace" }]
        ] as const) {
          const fiber = yield* Effect.forkChild(call(method, { path: path(method) }, options))
          yield* eventually(() => existsSync(path(method)))
          yield* Fiber.interrupt(fiber)
          // One that was given to the worker ahead cannot be had back from C code that holds the interpreter.
          assert.notStrictEqual(yield* Effect.retry(pid, { times: 3, while: ({ isRetryable }) => isRetryable }), before)
          yield* eventually(() => !isAlive(before))
        }
      })
    )
  )
})

describe("too many calls", () => {
  row("overload", { memoryMiB: 60 }, ({ run }) =>
    run(
      { queue: { whenFull: "reject", capacity: 0 } },
      Effect.gen(function* () {
        const exits = yield* Effect.forEach(
          upTo(5000),
          () => Effect.result(Synapse.call(Schema.String, { seconds: 0.5 }, { method: "sleep_async" })),
          { concurrency: "unbounded" }
        )
        const failed = exits.flatMap((exit) => (exit._tag === "Failure" ? [exit.failure] : []))
        assert.isAtLeast(exits.length - failed.length, 1024)
        assert.isAtLeast(failed.length, 1)
        for (const { delivery, reason } of failed) {
          assert.deepStrictEqual([reason._tag, delivery], ["Overloaded", "notSent"])
        }
      })
    )
  )

  row("queue-full", quick, ({ path, run }) =>
    run(
      { queue: { whenFull: "reject", capacity: 2 } },
      Effect.gen(function* () {
        const running = yield* Effect.forkChild(call("sleep", { seconds: 600, path: path("began") }))
        yield* eventually(() => existsSync(path("began")))
        // Behind a handler that takes so long, none is given to the worker ahead.
        const waiting = yield* Effect.forEach(upTo(2), () =>
          Effect.forkChild(call("echo", 1), { startImmediately: true })
        )
        const more = yield* Effect.forEach(upTo(50), () => Effect.forkChild(Effect.result(call("echo", 1))))
        const full = yield* Effect.forEach(more, Fiber.join)
        const failed = full.flatMap((exit) => (exit._tag === "Failure" ? [exit.failure] : []))
        assert.deepStrictEqual([...new Set(failed.map(({ reason }) => reason._tag))], ["Overloaded"])
        process.kill(yield* Effect.sync(() => Number(readFileSync(path("began"), "utf8"))), "SIGKILL")
        yield* reasonOf(Fiber.join(running), "WorkerExited")
        for (const fiber of waiting) assert.strictEqual(yield* Fiber.join(fiber), 1)
      })
    )
  )
})

describe("a worker that dies during a call", () => {
  row("retry-idempotent", {}, ({ path, run }) =>
    run(
      { workers: 2 },
      Effect.gen(function* () {
        const input = { path: path("runs"), until: 3 }
        assert.strictEqual(yield* call("count_then_die", input, { idempotent: true }), 3)
      })
    )
  )

  row("no-retry-unknown", quick, ({ path, run }) =>
    run(
      { workers: 2 },
      Effect.gen(function* () {
        const reason = yield* reasonOf(call("count_then_die", { path: path("runs"), until: 3 }), "WorkerExited")
        assert.strictEqual(reason.delivery, "unknown")
        assert.strictEqual(readFileSync(path("runs"), "utf8"), "ran\n")
      })
    )
  )
})

class Refused extends Schema.TaggedError<Refused>()("Refused", { why: Schema.String }) {}

const Functions = RpcGroup.make(
  Rpc.make("fail", { success: Schema.Void, error: Refused }),
  Rpc.make("defect", { success: Schema.Void }),
  Rpc.make("wait", { success: Schema.Void }),
  Rpc.make("back", { success: Schema.Unknown })
)

/** Functions that misbehave; `waiting` tells how many of `wait` are open, `release` ends them. */
const makeFunctions = Effect.sync(() => {
  const released = Deferred.makeUnsafe<void>()
  let waiting = 0
  let begun = 0
  const host = HostFunctions.make(Functions, {
    fail: () => Effect.fail(new Refused({ why: "not today" })),
    defect: () => Effect.die(new Error("a bug")),
    wait: () =>
      Effect.suspend(() => {
        waiting++
        begun++
        return Effect.ensuring(
          Deferred.await(released),
          Effect.sync(() => void waiting--)
        )
      }),
    back: () => Effect.orDie(call("echo", "and back"))
  })
  const release = Deferred.succeed(released, undefined)
  return { host, waiting: () => waiting, begun: () => begun, release }
})

const withFunctions = (
  name: string,
  effect: (functions: Effect.Success<typeof makeFunctions>) => Effect.Effect<unknown, unknown, Synapse.Synapse>
): void =>
  row(name, { quick: name !== "callback-slow" }, ({ run }) =>
    Effect.flatMap(makeFunctions, (functions) => run({ host: functions.host }, effect(functions)))
  )

describe("a function that Python calls", () => {
  withFunctions("callback-throws", () =>
    Effect.gen(function* () {
      const failed = yield* reasonOf(call("ask", { method: "fail" }), "HandlerFailed")
      assert.deepStrictEqual(failed.error, { _tag: "Refused", why: "not today" })
      assert.deepStrictEqual(yield* call("ask", { method: "defect" }), { reason: "Exception" })
      assert.deepStrictEqual(yield* call("ask", { method: "nowhere" }), { reason: "MethodNotFound" })
    })
  )

  withFunctions("callback-slow", ({ begun, waiting }) =>
    Effect.gen(function* () {
      for (const method of ["ask", "ask_sync"]) {
        const before = begun()
        const fiber = yield* Effect.forkChild(
          reasonOf(call(method, { method: "wait" }, { timeout: 500 }), "CallTimeout")
        )
        yield* Effect.raceFirst(
          eventually(() => begun() > before),
          Fiber.await(fiber)
        )
        assert.isTrue((yield* Fiber.join(fiber)).running)
        yield* eventually(() => waiting() === 0)
      }
    })
  )

  withFunctions("callback-after-cancel", ({ begun, release, waiting }) =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(call("ask", { method: "wait" }))
      yield* eventually(() => begun() === 1)
      // Its answer comes as the call that waits for it is given up.
      yield* release
      yield* Fiber.interrupt(fiber)
      yield* eventually(() => waiting() === 0)
    })
  )

  withFunctions("callback-deadlock", () =>
    Effect.gen(function* () {
      // The one place for handlers is taken by the call that waits.
      for (const method of ["ask_sync", "ask"]) {
        const answer = yield* call(method, { method: "back" }, { timeout: "60 seconds" })
        assert.deepStrictEqual(answer, method === "ask" ? { value: "and back" } : "and back")
      }
    })
  )
})
