import { type ChildProcess, spawn } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Option, Scheduler, Schema, Scope } from "effect"
import { Synapse } from "effect-synapse"
import * as PythonProcess from "../src/PythonProcess.ts"
import type { SynapseError, WorkerExited } from "../src/SynapseError.ts"
import * as modules from "./fixtures/modules.ts"
import { eventually, isAlive, withEnvironment } from "./fixtures/processes.ts"

const temporaryDirectory = () => mkdtempSync(join(tmpdir(), "synapse-test-"))

/** What is started in the place of an interpreter. */
const script = (directory: string, source: string) => {
  const path = join(directory, "python")
  writeFileSync(path, `#!/usr/bin/env python3\n${source}`, { mode: 0o755 })
  return path
}

const pid = Synapse.call(Schema.Int, {}, { method: "pid" })
const call = (method: string, input: object) => Synapse.call(Schema.Unknown, input, { method })
const reasonOf = (exit: Exit.Exit<unknown, SynapseError>) => Option.getOrThrow(Exit.findErrorOption(exit)).reason
const runtime = Synapse.layer(modules.python)

const openDescriptors = () => readdirSync("/proc/self/fd").length

/** How a worker ended in the middle of a call, after which the next call has to work. */
const endOf = (how: string) =>
  Effect.gen(function* () {
    const before = yield* pid
    const { reason } = yield* Effect.flip(call("die", { how }))
    assert(reason._tag === "WorkerExited", reason.message)
    assert.strictEqual(reason.pid, before)
    assert.isFalse(isAlive(before))
    assert.notStrictEqual(yield* pid, before)
    return reason as WorkerExited
  }).pipe(Effect.provide(runtime))

describe("a worker that ends during a call", () => {
  it.live("by os._exit tells its code and its last words", () =>
    Effect.gen(function* () {
      const reason = yield* endOf("exit")
      assert.deepStrictEqual([reason.kind, reason.exitCode, reason.signal], ["exit", 3, null])
      assert.include(reason.stderr, "leaving on purpose")
      assert.deepStrictEqual([(yield* endOf("exit-zero")).kind, (yield* endOf("exit-zero")).exitCode], ["exit", 0])
    })
  )

  it.live("by a signal tells which, and of a crash the Python frames", () =>
    Effect.gen(function* () {
      const killed = yield* endOf("kill")
      assert.deepStrictEqual([killed.kind, killed.signal], ["killed", "SIGKILL"])
      const segfault = yield* endOf("segfault")
      assert.deepStrictEqual([segfault.kind, segfault.signal], ["segfault", "SIGSEGV"])
      assert.match(segfault.crashDump, /main\.py", line \d+ in die/)
      const aborted = yield* endOf("abort")
      assert.deepStrictEqual([aborted.kind, aborted.signal], ["crash", "SIGABRT"])
    })
  )

  it.live("by a limit on its resources says so", () =>
    Effect.gen(function* () {
      const reason = yield* endOf("cpu")
      assert.deepStrictEqual([reason.kind, reason.signal], ["resourceLimit", "SIGXCPU"])
    })
  )

  it.live("by closing its channel is stopped and says so", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* endOf("close-channel")).kind, "channelClosed")
    })
  )

  it.live("by printing on its channel breaks the protocol and is stopped", () =>
    Effect.gen(function* () {
      const before = yield* pid
      const { reason } = yield* Effect.flip(call("die", { how: "garbage" }))
      assert.strictEqual(reason._tag, "ProtocolError")
      assert.notStrictEqual(yield* pid, before)
      assert.isFalse(isAlive(before))
    }).pipe(Effect.provide(runtime))
  )

  it.live("takes only the call with it that ran: those that waited go to the next worker", () =>
    Effect.gen(function* () {
      const path = join(temporaryDirectory(), "started")
      const busy = yield* Effect.forkChild(Effect.exit(call("busy", { state: "sleep", path })))
      yield* eventually(() => existsSync(path))
      const worker = Number(readFileSync(path, "utf8"))
      const waiting = yield* Effect.forEach(Array.from({ length: 50 }), () => Effect.forkChild(pid))
      process.kill(worker, "SIGKILL")
      assert.strictEqual(reasonOf(yield* Fiber.join(busy))._tag, "WorkerExited")
      for (const answer of yield* Effect.forEach(waiting, Fiber.join)) assert.notStrictEqual(answer, worker)
    }).pipe(Effect.provide(runtime))
  )

  it.live("fails each of a hundred open calls once, and leaves no process", () =>
    Effect.gen(function* () {
      const worker = yield* pid
      const path = join(temporaryDirectory(), "started")
      const open = yield* Effect.forEach(Array.from({ length: 100 }), (_, n) =>
        Effect.forkChild(Effect.exit(call("wait_async", { path: n === 99 ? path : `${path}-${n}` })))
      )
      yield* eventually(() => existsSync(path))
      process.kill(worker, "SIGKILL")
      const exits = yield* Effect.forEach(open, Fiber.join)
      for (const exit of exits) {
        const reason = reasonOf(exit)
        assert.deepStrictEqual([reason._tag, reason.delivery], ["WorkerExited", "unknown"])
      }
      assert.isFalse(isAlive(worker))
      assert.isNumber(yield* pid)
    }).pipe(Effect.provide(runtime))
  )
})

describe("a look at a process", () => {
  it.live("tells whether it runs, sleeps or is stopped, and what it has used", () =>
    Effect.gen(function* () {
      const directory = temporaryDirectory()
      const worker = yield* PythonProcess.make({
        // An interpreter that spins, sleeps and takes memory as files tell it.
        python: script(
          directory,
          "import os, time\nkept = None\n" +
            "while True:\n" +
            "  if os.path.exists('take') and kept is None: kept = bytearray(os.urandom(1 << 20) * 100)\n" +
            "  if not os.path.exists('spin'): time.sleep(0.01)\n"
        ),
        directory,
        entrypoint: "main",
        env: { PATH: process.env.PATH! },
        onLine: () => {}
      })
      const look = Effect.map(worker.inspect, (vitals) => vitals!)
      const until = (condition: (vitals: PythonProcess.Vitals) => boolean) =>
        Effect.repeat(Effect.delay(look, "5 millis"), { until: condition })

      const first = yield* until(({ memoryBytes, state }) => state === "sleeping" && memoryBytes > 2 ** 20)
      writeFileSync(join(directory, "spin"), "")
      yield* until(({ state }) => state === "running")
      const busy = yield* until(({ cpuMillis }) => cpuMillis >= first.cpuMillis + 200)
      rmSync(join(directory, "spin"))
      writeFileSync(join(directory, "take"), "")
      const large = yield* until(({ memoryBytes }) => memoryBytes > first.memoryBytes + 90 * 2 ** 20)
      assert.isBelow(large.memoryBytes, first.memoryBytes + 250 * 2 ** 20)
      assert.isAtLeast(large.cpuMillis, busy.cpuMillis)

      process.kill(worker.pid, "SIGSTOP")
      yield* until(({ state }) => state === "stopped")
      process.kill(worker.pid, "SIGKILL")
      yield* Effect.repeat(Effect.delay(worker.inspect, "5 millis"), { until: (vitals) => vitals === undefined })
    })
  )
})

describe("a channel", () => {
  it.live("that breaks while the process lives on is the end of the worker", () =>
    Effect.gen(function* () {
      // An interpreter that closes its channel with bytes in it that it has not read.
      const python = script(
        temporaryDirectory(),
        "import os, select, time\nselect.select([3], [], [])\nos.close(3)\ntime.sleep(600)\n"
      )
      const worker = yield* PythonProcess.make({
        python,
        directory: tmpdir(),
        entrypoint: "main",
        env: { PATH: process.env.PATH! },
        onLine: () => {}
      })
      const { pull } = yield* worker.socket.reader
      const { write } = yield* worker.socket.writer
      yield* write(new Uint8Array(100))
      const { reason } = yield* Effect.flip(pull)
      assert(reason._tag === "SocketReadError")
      assert.strictEqual(((reason.cause as SynapseError).reason as WorkerExited).kind, "channelClosed")
      assert.isFalse(isAlive(worker.pid))
    })
  )

  it.live("is read to its end, also when a write is first to find the worker gone", () =>
    Effect.gen(function* () {
      const size = 60_000
      const worker = yield* PythonProcess.make({
        python: script(temporaryDirectory(), `import os\nos.write(3, b'.' * ${size})\n`),
        directory: tmpdir(),
        entrypoint: "main",
        env: { PATH: process.env.PATH! },
        onLine: () => {}
      })
      const { pull } = yield* worker.socket.reader
      const { write } = yield* worker.socket.writer
      // Node sees nothing meanwhile.
      const isGone = () => /\) Z /.test(readFileSync(`/proc/${worker.pid}/stat`, "utf8"))
      const cell = new Int32Array(new SharedArrayBuffer(4))
      for (let looks = 0; !isGone(); looks++) {
        assert.isBelow(looks, 4000)
        Atomics.wait(cell, 0, 0, 5)
      }
      yield* write(new Uint8Array(100))
      let received = 0
      while (received < size) for (const chunk of yield* pull) received += chunk.length
      assert.strictEqual(received, size)
      assert.strictEqual((yield* Effect.flip(pull)).reason._tag, "SocketReadError")
    })
  )

  // An interpreter that tells how much it has read, and answers each read with a byte, once it may.
  const answering = (directory: string) =>
    PythonProcess.make({
      python: script(
        directory,
        "import os, time\n" +
          "while not os.path.exists('go'): time.sleep(0.001)\n" +
          "while data := os.read(3, 1 << 20):\n" +
          "  os.write(3, b'.')\n" +
          "  with open('read', 'ab') as file: file.write(bytes(len(data)))\n"
      ),
      directory,
      entrypoint: "main",
      env: { PATH: process.env.PATH! },
      onLine: () => {}
    })

  // A fiber may make way for others between any two of its operations.
  for (let operations = 2; operations <= 6; operations++) {
    it.live(`is heard whose bytes come as the reader makes way after ${operations} operations`, () =>
      Effect.gen(function* () {
        const directory = temporaryDirectory()
        const worker = yield* answering(directory)
        const { pull } = yield* worker.socket.reader
        const { write } = yield* worker.socket.writer
        const came = (): boolean => existsSync(join(directory, "read"))
        const pulling = runMakingWay(pull, operations, came)
        yield* write(new Uint8Array(1))
        writeFileSync(join(directory, "go"), "")
        const [chunk] = yield* Fiber.join(pulling)
        assert.deepStrictEqual(Buffer.from(chunk as Uint8Array).toString(), ".")
        // So is its end.
        const ending = runMakingWay(Effect.flip(pull), operations, () => !isAlive(worker.pid))
        process.kill(worker.pid, "SIGKILL")
        assert.strictEqual((yield* Fiber.join(ending)).reason._tag, "SocketReadError")
      })
    )

    it.live(`takes more when there is room again as the writer makes way after ${operations} operations`, () =>
      Effect.gen(function* () {
        const directory = temporaryDirectory()
        const worker = yield* answering(directory)
        const { write } = yield* worker.socket.writer
        const bytes = 4 * 2 ** 20
        const isRead = (): boolean =>
          existsSync(join(directory, "read")) && statSync(join(directory, "read")).size === bytes
        const writing = runMakingWay(write(new Uint8Array(bytes)), operations, isRead)
        writeFileSync(join(directory, "go"), "")
        yield* Fiber.join(writing)
      })
    )
  }
})

/** Runs a fiber that makes way for others after so many operations, once, until something has happened. */
const runMakingWay = <A, E>(effect: Effect.Effect<A, E>, operations: number, happened: () => boolean) => {
  let makesWay = false
  const others = new Scheduler.MixedScheduler("async", (task) => {
    const wait = async () => {
      while (!happened()) await new Promise((resolve) => setTimeout(resolve, 1))
      // What it brought about is told in a later turn of the event loop.
      for (let turns = 0; turns < 10; turns++) await new Promise((resolve) => setTimeout(resolve, 1))
      task()
    }
    void wait()
    return () => {}
  })
  const scheduler: Scheduler.Scheduler = {
    executionMode: "async",
    shouldYield: ({ currentOpCount }) => {
      if (makesWay || currentOpCount < operations) return false
      makesWay = true
      return true
    },
    makeDispatcher: () => others.makeDispatcher()
  }
  return Effect.runFork(effect, { scheduler })
}

describe("a worker that is told to leave from outside", () => {
  it.live("finishes what it has while another takes what is new", () =>
    Effect.gen(function* () {
      const before = yield* pid
      const path = join(temporaryDirectory(), "started")
      const running = yield* Effect.forkChild(
        Synapse.call(Schema.String, { path, seconds: 0.5 }, { method: "announce_and_sleep" })
      )
      yield* eventually(() => existsSync(path))
      process.kill(before, "SIGTERM")
      yield* Effect.repeat(pid, { until: (after) => after !== before })
      assert.strictEqual(yield* Fiber.join(running), "slept")
      yield* eventually(() => !isAlive(before))
    }).pipe(Effect.provide(runtime))
  )
})

describe("a worker that asks to be replaced", () => {
  it.live("finishes what it has, and another takes what is new", () =>
    Effect.gen(function* () {
      const directory = temporaryDirectory()
      writeFileSync(
        join(directory, "main.py"),
        "import os, synapse\n@synapse.handler\ndef main(ask: bool):\n" +
          "    if ask: synapse.replace_me('it has seen enough')\n    return os.getpid()\n"
      )
      const runtime = yield* Synapse.make({ directory, environment: "system", logs: "ignore" })
      const before = yield* runtime.call(Schema.Int, { ask: false })
      assert.strictEqual(yield* runtime.call(Schema.Int, { ask: true }), before)
      assert.notStrictEqual(yield* runtime.call(Schema.Int, { ask: false }), before)
      yield* eventually(() => !isAlive(before))
    }).pipe(Effect.provide(NodeServices.layer))
  )
})

describe("closing the scope", () => {
  it.live("leaves no process, no descriptor and no timer behind", () =>
    Effect.gen(function* () {
      yield* Effect.provide(pid, runtime)
      const before = openDescriptors()
      const worker = yield* Effect.provide(pid, runtime)
      assert.isFalse(isAlive(worker))
      yield* eventually(() => openDescriptors() <= before)
    })
  )

  it.live("takes along what the worker started, also what left its process group", () =>
    Effect.gen(function* () {
      const pids = yield* Effect.provide(
        Effect.flatMap(Synapse.call(Schema.Array(Schema.Int), { path: "" }, { method: "children" }), (pids) =>
          Effect.sync(() => {
            assert.isTrue(pids.every(isAlive))
            return pids
          })
        ),
        runtime
      )
      assert.deepStrictEqual(pids.filter(isAlive), [])
    })
  )

  it.live("ends a worker that ignores every request to leave", () =>
    Effect.gen(function* () {
      const worker = yield* Effect.provide(
        Effect.gen(function* () {
          const worker = yield* pid
          yield* Effect.forkChild(call("stubborn", {}))
          return worker
        }),
        Synapse.layer({ ...modules.python, disposeTimeout: "50 millis" })
      )
      assert.isFalse(isAlive(worker))
    })
  )

  it.live("of several workers stops them side by side", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const context = yield* Scope.provide(
        Synapse.make({ ...modules.python, workers: 4, disposeTimeout: "10 minutes" }),
        scope
      )
      const workers = yield* Effect.forEach(
        Array.from({ length: 4 }),
        () => context.call(Schema.Int, {}, { method: "pid" }),
        { concurrency: "unbounded" }
      )
      // With a grace of ten minutes each, only workers that all leave by themselves at once let the scope close.
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(workers.filter(isAlive), [])
    }).pipe(Effect.provide(NodeServices.layer))
  )

  it.live("while the worker is starting leaves none", () =>
    Effect.gen(function* () {
      // Others have silent workers, too.
      const mark = temporaryDirectory()
      for (const millis of [0, 1, 2, 5, 10, 20, 40, 80]) {
        const building = yield* Effect.forkChild(
          Effect.provide(
            Effect.never,
            Synapse.layer({ ...modules.broken, entrypoint: "silent", env: { SYNAPSE_MARK: mark } })
          )
        )
        yield* Effect.sleep(millis)
        yield* Fiber.interrupt(building)
      }
      assert.deepStrictEqual(withEnvironment(`SYNAPSE_MARK=${mark}`), [])
    })
  )

  it.live("lets a call finish within the grace", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const context = yield* Scope.provide(
        Synapse.make({ ...modules.python, disposeTimeout: Duration.infinity }),
        scope
      )
      const answer = yield* Effect.forkChild(context.call(Schema.String, { seconds: 0.3 }, { method: "sleep" }))
      yield* Effect.sleep("50 millis")
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* Fiber.join(answer), "slept")
    }).pipe(Effect.provide(NodeServices.layer))
  )
})

const startHost = (state: string, path: string) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [fileURLToPath(new URL("./fixtures/host.ts", import.meta.url)), state, path], {
        stdio: ["ignore", "pipe", "inherit"]
      })
    ),
    (host) => Effect.sync(() => host.kill("SIGKILL"))
  )

const firstLine = (host: ChildProcess) =>
  Effect.callback<number>((resume) => {
    host.stdout!.once("data", (chunk: Buffer) => resume(Effect.succeed(Number(chunk.toString()))))
  })

const exitOf = (host: ChildProcess) =>
  Effect.callback<number | null>((resume) => {
    if (host.exitCode !== null || host.signalCode !== null) return resume(Effect.succeed(host.exitCode))
    host.once("exit", (code) => resume(Effect.succeed(code)))
  })

describe("when Node is killed, the worker is gone", () => {
  for (const state of ["idle", "sleep", "python", "c-with-gil", "c-without-gil"]) {
    it.live(`in the state ${state}`, () =>
      Effect.gen(function* () {
        const path = state === "idle" ? "" : join(temporaryDirectory(), "started")
        const host = yield* startHost(state, path)
        const worker = yield* firstLine(host)
        if (path !== "") yield* eventually(() => existsSync(path))
        assert.isTrue(isAlive(worker))
        host.kill("SIGKILL")
        yield* eventually(() => !isAlive(worker))
      })
    )
  }
})

describe("when the user interrupts the program", () => {
  it.live("the scope closes in order, Python says nothing, and Node leaves with 130", () =>
    Effect.gen(function* () {
      const host = yield* startHost("main", "")
      const worker = yield* firstLine(host)
      const output: Array<string> = []
      host.stdout!.on("data", (chunk: Buffer) => output.push(chunk.toString()))
      host.kill("SIGINT")
      assert.strictEqual(yield* exitOf(host), 130)
      assert.isFalse(isAlive(worker))
      assert.deepStrictEqual(output, [])
    })
  )
})

describe("a call that waits for its turn", () => {
  it.live("keeps Node alive, also when nobody waits for the call before it", () =>
    Effect.gen(function* () {
      const host = yield* startHost("waiting", "")
      const output: Array<string> = []
      host.stdout!.on("data", (chunk: Buffer) => output.push(chunk.toString()))
      assert.strictEqual(yield* exitOf(host), 0)
      assert.match(output.join(""), /^\d+\n$/m)
    })
  )
})

describe("an idle worker", () => {
  it.live("does not keep Node alive, and goes with it", () =>
    Effect.gen(function* () {
      const host = yield* startHost("unreferenced", "")
      const worker = yield* firstLine(host)
      assert.strictEqual(yield* exitOf(host), 0)
      yield* eventually(() => !isAlive(worker))
    })
  )
})
