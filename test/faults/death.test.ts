/** Workers that die, and programs that do. */
import { existsSync } from "node:fs"
import { assert, describe } from "@effect/vitest"
import { Effect, Fiber, Result, Schema } from "effect"
import { Synapse } from "effect-synapse"
import type { WorkerExited } from "../../src/SynapseError.ts"
import { reasonOf, upTo } from "../fixtures/dialogue.ts"
import { eventually, isAlive } from "../fixtures/processes.ts"
import { call, pid, type RowOptions, row } from "./aftermath.ts"
import * as Program from "./program.ts"

/** A worker that dies in the middle of a call, and how that is told. */
const dies = (name: string, how: ReadonlyArray<string>, options: RowOptions, check: (reason: WorkerExited) => void) =>
  row(name, options, ({ run }) =>
    run(
      {},
      Effect.forEach(how, (how) =>
        Effect.gen(function* () {
          const before = yield* pid
          const reason = yield* reasonOf(call("die", { how }), "WorkerExited")
          assert.deepStrictEqual([reason.pid, reason.delivery], [before, "unknown"])
          assert.isFalse(isAlive(before))
          check(reason)
          assert.notStrictEqual(yield* pid, before)
        })
      )
    )
  )

/** A crash whose dump names the Python function in which it happened. */
const crashes = (name: string, how: ReadonlyArray<string>, options: RowOptions, kind: string, signal: string) =>
  dies(name, how, options, (reason) => {
    assert.deepStrictEqual([reason.kind, reason.signal], [kind, signal])
    assert.match(`${reason.crashDump}\n${reason.stderr}`, /main\.py", line \d+ in/)
  })

const killsBusy = ({ path, see }: { readonly path: (name: string) => string; readonly see: () => unknown }) =>
  Effect.gen(function* () {
    const before = yield* pid
    const open = yield* Effect.forEach(upTo(100), (n) =>
      Effect.forkChild(reasonOf(call("wait_async", { path: path(`open-${n}`) }), "WorkerExited"))
    )
    yield* eventually(() => upTo(100).every((n) => existsSync(path(`open-${n}`))))
    see()
    process.kill(before, "SIGKILL")
    for (const reason of yield* Effect.forEach(open, Fiber.join)) {
      assert.deepStrictEqual([reason.kind, reason.signal, reason.delivery], ["killed", "SIGKILL", "unknown"])
    }
    assert.notStrictEqual(yield* pid, before)
  })

/** Values are on their way in both directions, and some are answered already, whenever it dies. */
const killsUsingMemory = (see: () => unknown) =>
  Effect.gen(function* () {
    const value = new Uint8Array(700_000).fill(7)
    const once = Effect.map(Effect.result(call("echo_async", { value })), (result) => {
      if (Result.isFailure(result)) return result.failure.reason._tag
      assert.deepStrictEqual(result.success, { value })
      return "value"
    })
    const ends = new Set<string>()
    for (const n of upTo(6)) {
      const before = yield* pid
      const using = yield* Effect.forEach(upTo(4), () => Effect.forkChild(Effect.replicateEffect(once, 8)))
      yield* Effect.repeat(once, { times: n % 3 })
      see()
      process.kill(before, "SIGKILL")
      for (const fiber of using) for (const end of yield* Fiber.join(fiber)) ends.add(end)
      assert.notStrictEqual(yield* pid, before)
    }
    assert.includeMembers(["WorkerExited", "value"], [...ends])
  })

describe("a worker", () => {
  row("sigkill-idle", { quick: true }, ({ run }) =>
    run(
      {},
      Effect.gen(function* () {
        const before = yield* pid
        process.kill(before, "SIGKILL")
        yield* eventually(() => !isAlive(before))
        // Nothing was running: at most the first call finds out.
        yield* Effect.ignore(pid)
        assert.notStrictEqual(yield* pid, before)
      })
    )
  )
  row("sigkill-busy", { quick: true }, (world) => world.run({}, killsBusy(world)))
  row("sigkill-using-memory", { quick: true, memoryMiB: 60 }, ({ run, see }) =>
    run({ sharedMemory: { threshold: 1024, capacityMiB: 8 }, restart: { backoff: 0, max: 100 } }, killsUsingMemory(see))
  )
  crashes("segfault", ["segfault", "segfault-in-thread"], { quick: true }, "segfault", "SIGSEGV")
  crashes("abort", ["abort"], {}, "crash", "SIGABRT")
  crashes("bus", ["bus"], {}, "crash", "SIGBUS")
  crashes("fpe", ["fpe"], {}, "crash", "SIGFPE")
  crashes("Py_FatalError", ["fatal-error"], { quick: true }, "crash", "SIGABRT")

  row("c-stack-overflow", {}, ({ run }) =>
    run(
      {},
      Effect.gen(function* () {
        const { reason } = yield* Effect.flip(call("die", { how: "stack" }))
        // From 3.12 on, Python itself notices.
        if (reason._tag === "PythonException") return assert.strictEqual(reason.type, "RecursionError")
        assert(reason._tag === "WorkerExited", reason.message)
        assert.deepStrictEqual([reason.kind, reason.signal], ["segfault", "SIGSEGV"])
        assert.include(reason.crashDump, "_overflow_the_stack")
      })
    )
  )

  dies("os-exit", ["exit-3"], { quick: true }, (reason) =>
    assert.deepStrictEqual([reason.kind, reason.exitCode, reason.signal], ["exit", 3, null])
  )
  dies("exit-zero-in-flight", ["exit-0"], { quick: true }, (reason) =>
    assert.deepStrictEqual([reason.kind, reason.exitCode, reason.signal], ["exit", 0, null])
  )

  row("sys-exit-in-handler", { quick: true }, ({ run }) =>
    run(
      {},
      Effect.gen(function* () {
        const before = yield* pid
        for (const [how, type] of [
          ["sys.exit", "SystemExit"],
          ["interrupt", "KeyboardInterrupt"]
        ]) {
          assert.strictEqual((yield* reasonOf(call("leave", { how }), "PythonException")).type, type)
        }
        assert.strictEqual(yield* pid, before)
      })
    )
  )

  dies("closed-fd3", ["close-channel"], { quick: true }, (reason) => assert.strictEqual(reason.kind, "channelClosed"))

  dies("grandchild-holds-fds", ["leave-child"], { quick: true }, (reason) =>
    // The child would hold the pipes open for ten minutes.
    assert.deepStrictEqual([reason.kind, reason.signal], ["killed", "SIGKILL"])
  )

  row("setsid-grandchild", { quick: true }, ({ run, see }) =>
    run(
      {},
      Effect.gen(function* () {
        const worker = yield* pid
        const children = [
          yield* Synapse.call(Schema.Int, { own_session: true }, { method: "with_child" }),
          yield* Synapse.call(Schema.Int, { own_session: false }, { method: "with_child" })
        ]
        assert.isTrue(children.every(isAlive))
        see()
        process.kill(worker, "SIGKILL")
        yield* Effect.repeat(Effect.ignore(pid), { until: () => !isAlive(worker) })
        yield* eventually(() => !children.some(isAlive))
      })
    )
  )
})

describe("a worker that does not answer", () => {
  const heartbeat = { interval: "500 millis", misses: 2 } as const

  row("sigstop", { quick: true }, ({ path, run }) =>
    run(
      { heartbeat },
      Effect.gen(function* () {
        const before = yield* pid
        const open = yield* Effect.forkChild(reasonOf(call("wait_async", { path: path("open") }), "Unresponsive"))
        yield* eventually(() => existsSync(path("open")))
        process.kill(before, "SIGSTOP")
        const reason = yield* Fiber.join(open)
        assert.deepStrictEqual([reason.state, reason.pid, reason.delivery], ["stopped", before, "unknown"])
        assert.notStrictEqual(yield* pid, before)
        assert.isFalse(isAlive(before))
      })
    )
  )

  row("gil-jam", {}, ({ path, run }) =>
    run(
      { heartbeat },
      Effect.gen(function* () {
        const before = yield* pid
        const open = yield* Effect.forkChild(reasonOf(call("wait_async", { path: path("open") }), "Unresponsive"))
        yield* eventually(() => existsSync(path("open")))
        // Its caller hears in time, long before anybody misses the worker.
        yield* reasonOf(call("jam", { path: path("jammed") }, { timeout: 100 }), "CallTimeout")
        assert.strictEqual((yield* Fiber.join(open)).state, "busy")
        assert.notStrictEqual(yield* pid, before)
      })
    )
  )
})

describe("the program", () => {
  const states = ["idle", "sleep", "stubborn", "jam", "wait_async"]
  row("node-sigkill", {}, ({ path, see }) =>
    Effect.forEach(states, (state) =>
      Effect.gen(function* () {
        const announced = state === "idle" ? "" : path(state)
        const program = yield* Program.start(path(""), [state, announced])
        const pids = (yield* program.line).split(" ").map(Number)
        if (announced !== "") yield* eventually(() => existsSync(announced))
        assert.isTrue(pids.every(isAlive), state)
        see()
        program.child.kill("SIGKILL")
        yield* eventually(() => !pids.some(isAlive))
      }).pipe(Effect.scoped)
    )
  )

  row("node-exit", {}, ({ path, see }) =>
    Effect.forEach(["exit", "uncaught"], (mode) =>
      Effect.gen(function* () {
        const program = yield* Program.start(path(""), [mode])
        const pids = (yield* program.line).split(" ").map(Number)
        see()
        yield* program.go
        assert.strictEqual(yield* program.end, mode === "exit" ? 3 : 1)
        yield* eventually(() => !pids.some(isAlive))
      }).pipe(Effect.scoped)
    )
  )

  row("worker-thread-ends", {}, ({ path, see }) =>
    Effect.gen(function* () {
      const program = yield* Program.start(path(""), ["thread"])
      const pids = (yield* program.line).split(" ").map(Number)
      see()
      yield* program.go
      yield* eventually(() => !pids.some(isAlive))
      assert.strictEqual(program.child.exitCode, null)
    })
  )

  row("ctrl-c", {}, ({ path, see }) =>
    Effect.gen(function* () {
      const program = yield* Program.start(path(""), ["ctrl-c"])
      const pids = (yield* program.line).split(" ").map(Number)
      see()
      // The terminal signals the group of the program, in which the worker is not.
      program.child.kill("SIGINT")
      assert.strictEqual(yield* program.end, 130)
      yield* eventually(() => !pids.some(isAlive))
      assert.notInclude(program.output(), "KeyboardInterrupt")
    })
  )
})
