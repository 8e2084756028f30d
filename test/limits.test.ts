import { execFile, execFileSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Redacted, Schema } from "effect"
import { Synapse } from "effect-synapse"
import * as Connection from "../src/Connection.ts"
import * as Envelope from "../src/Envelope.ts"
import * as ControlGroup from "../src/internal/controlGroup.ts"
import { workerEnvironment } from "../src/internal/environmentVariables.ts"
import type { Limits } from "../src/internal/limits.ts"
import { parsePs, parseStat } from "../src/internal/vitals.ts"
import type { PythonEnvironment } from "../src/PythonEnvironment.ts"
import * as PythonProcess from "../src/PythonProcess.ts"
import type { ExceptionInfo, SynapseError } from "../src/SynapseError.ts"
import { noServing } from "./fixtures/connection.ts"
import { eventually, isAlive } from "./fixtures/processes.ts"

const MiB = 1024 * 1024
const temporaryDirectory = () => mkdtempSync(join(tmpdir(), "synapse-limits-"))
const python = execFileSync("python3", ["-c", "import sys; print(sys.executable)"], { encoding: "utf8" }).trim()

const module = `
import os
import subprocess
import sys
import time
import synapse

at_import = dict(os.environ)
kept = []

@synapse.handler
def pid():
    return os.getpid()

@synapse.handler
def secret():
    return [at_import.get("TOKEN"), os.environ.get("TOKEN")]

@synapse.handler
def take(mebibytes: int):
    kept.append(bytearray(os.urandom(1 << 20) * mebibytes))
    return len(kept[0])

@synapse.handler
def take_and_wait(mebibytes: int):
    take(mebibytes)
    time.sleep(600)

@synapse.handler
def release():
    kept.clear()

@synapse.handler
def open_files():
    files = []
    try:
        while True:
            files.append(open(os.devnull))
    finally:
        for each in files:
            each.close()

@synapse.handler
def spin():
    while True:
        pass

@synapse.handler
def child():
    return subprocess.Popen(["sleep", "600"]).pid

@synapse.handler
def stranger():
    """What neither the process group nor the environment leads to."""
    return subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, env={}).pid

@synapse.handler
def take_elsewhere(mebibytes: int):
    code = "import os; kept = bytearray(os.urandom(1 << 20) * %d); print('done')" % mebibytes
    return subprocess.run([sys.executable, "-c", code]).returncode

@synapse.handler
def groups():
    with open("/proc/self/cgroup") as file:
        return file.read()
`

interface StartOptions {
  readonly limits?: Limits
  readonly secrets?: Readonly<Record<string, string>>
  readonly source?: string
  readonly python?: string
}

/** A worker with limits, and what calls it. */
const start = Effect.fnUntraced(function* (options: StartOptions) {
  const directory = temporaryDirectory()
  yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(directory, { recursive: true })))
  writeFileSync(join(directory, "main.py"), options.source ?? module)
  const worker = yield* PythonProcess.make({
    python: options.python ?? python,
    directory,
    entrypoint: "main",
    env: { PATH: process.env.PATH!, PLAIN: "to be seen" },
    secrets: options.secrets,
    limits: options.limits,
    onLine: () => {}
  })
  const connection = yield* Connection.make(worker.socket, {
    maxFrameSize: Envelope.defaultMaxFrameSize,
    concurrency: 1,
    maxOpenCalls: 8,
    graceMillis: 0,
    cancelGraceMillis: 2000,
    evaluate: false,
    setup: worker.setup,
    inspect: worker.inspect,
    serve: () => Effect.succeed(noServing),
    onLog: () => {},
    onChange: () => {},
    onBusy: () => {}
  })
  const call = (method: string, payload: object = {}) => connection.call({ method, payload })
  return {
    worker,
    call,
    value: <A>(method: string, payload?: object) =>
      Effect.map(call(method, payload), (frame) => Envelope.decodePayload(frame.payload) as A),
    failure: Effect.fnUntraced(function* (method: string, payload?: object) {
      const frame = yield* call(method, payload)
      assert.strictEqual(frame.kind, Envelope.Kind.Die)
      return Envelope.decodePayload(frame.payload) as ExceptionInfo
    })
  }
})

const reasonOf = <A, R>(effect: Effect.Effect<A, SynapseError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

describe("memory that is watched", () => {
  it.effect("ends the worker with its process group when it is too much, under a clock that stands still", () =>
    Effect.gen(function* () {
      const { call, value } = yield* start({ limits: { memoryMiB: 120 } })
      const child = yield* value<number>("child")
      const reason = yield* reasonOf(call("take_and_wait", { mebibytes: 300 }))
      assert(reason._tag === "WorkerExited")
      assert.deepStrictEqual([reason.kind, reason.signal, reason.delivery], ["outOfMemory", "SIGKILL", "unknown"])
      assert.strictEqual(reason.limit, "limits.memoryMiB (120 MiB)")
      assert.strictEqual(
        reason.summary,
        `The Python worker ${reason.pid} used more memory than limits.memoryMiB (120 MiB) and was killed`
      )
      yield* eventually(() => !isAlive(child))
    })
  )

  it.live("of a runtime ends one worker, and the next call works", () =>
    Effect.gen(function* () {
      const directory = temporaryDirectory()
      writeFileSync(join(directory, "main.py"), module)
      const call = (method: string, input: object) => Synapse.call(Schema.Int, input, { method })
      yield* Effect.gen(function* () {
        const before = yield* call("pid", {})
        const reason = yield* reasonOf(call("take_and_wait", { mebibytes: 300 }))
        assert(reason._tag === "WorkerExited")
        assert.deepStrictEqual([reason.kind, reason.pid], ["outOfMemory", before])
        assert.strictEqual(yield* call("take", { mebibytes: 10 }), 10 * MiB)
      }).pipe(
        Effect.provide(Synapse.layer({ directory, environment: "system", logs: "ignore", limits: { memoryMiB: 150 } }))
      )
      rmSync(directory, { recursive: true })
    })
  )

  it.live("does nothing below the mark, and a worker that is killed from outside did not run out", () =>
    Effect.gen(function* () {
      const { call, value, worker } = yield* start({ limits: { memoryMiB: 500 } })
      assert.isUndefined(worker.setup)
      yield* value("take", { mebibytes: 100 })
      yield* Effect.sleep("600 millis")
      process.kill(worker.pid, "SIGKILL")
      const reason = yield* reasonOf(call("pid"))
      assert(reason._tag === "WorkerExited")
      assert.deepStrictEqual([reason.kind, reason.limit], ["killed", undefined])
    })
  )

  it("does not keep Node alive", async () => {
    const url = new URL("../src/internal/vitals.ts", import.meta.url).href
    const code = `import { watchMemory } from ${JSON.stringify(url)}; watchMemory(process.pid, 1e15, () => {}); console.log("end")`
    const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module-typescript", "-e", code], {
      timeout: 120_000
    })
    assert.strictEqual(stdout, "end\n")
  })
})

describe.skipIf(process.platform !== "linux")("memory that the worker limits itself", () => {
  it.live("is a MemoryError in the handler, and the worker goes on", () =>
    Effect.gen(function* () {
      const { failure, value, worker } = yield* start({ limits: { memoryMiB: 1024, memoryBy: "rlimit" } })
      assert.deepStrictEqual(worker.setup, { limits: { addressSpace: 1024 * MiB } })
      assert.strictEqual((yield* failure("take", { mebibytes: 2000 })).type, "MemoryError")
      assert.strictEqual(yield* value("take", { mebibytes: 10 }), 10 * MiB)
      assert.strictEqual(yield* value("pid"), worker.pid)
    })
  )
})

/** Why no control group can be made here, if none can. */
const missing = await Effect.runPromiseExit(Effect.scoped(ControlGroup.make(64 * MiB))).then((exit) =>
  Exit.isSuccess(exit) ? undefined : String(exit.cause)
)
const reason = missing === undefined ? "" : ` (skipped: ${missing})`

describe.skipIf(missing !== undefined)(`memory that a control group limits${reason}`, () => {
  const limits: Limits = { memoryMiB: 120, memoryBy: "cgroup" }
  const groupOf = (worker: PythonProcess.PythonProcess) =>
    (worker.setup as { readonly limits: { readonly cgroup: string } }).limits.cgroup
  const ownGroups = (group: string) =>
    readdirSync(join(group, "..")).filter((entry) => entry.startsWith(`synapse-${process.pid}-`))

  it.live("ends the worker by the kernel, and leaves no group", () =>
    Effect.gen(function* () {
      const group = yield* Effect.scoped(
        Effect.gen(function* () {
          const { call, value, worker } = yield* start({ limits })
          const group = groupOf(worker)
          assert.include(yield* value<string>("groups"), group.slice(group.lastIndexOf("/")))
          assert.strictEqual(yield* value("take", { mebibytes: 50 }), 50 * MiB)
          yield* value("release")
          const reason = yield* reasonOf(call("take", { mebibytes: 300 }))
          assert(reason._tag === "WorkerExited")
          assert.deepStrictEqual([reason.kind, reason.signal], ["outOfMemory", "SIGKILL"])
          assert.include(reason.message, "used more memory than limits.memoryMiB (120 MiB)")
          return group
        })
      )
      assert.isFalse(existsSync(group))
    })
  )

  it.live("is told apart for each worker, and from a signal from outside", () =>
    Effect.gen(function* () {
      const [one, other] = [yield* start({ limits }), yield* start({ limits })]
      const ranOut = yield* reasonOf(one.call("take", { mebibytes: 300 }))
      assert(ranOut._tag === "WorkerExited")
      process.kill(other.worker.pid, "SIGKILL")
      const killed = yield* reasonOf(other.call("pid"))
      assert(killed._tag === "WorkerExited")
      assert.deepStrictEqual([ranOut.kind, killed.kind], ["outOfMemory", "killed"])
    })
  )

  it.live("counts what the worker starts", () =>
    Effect.gen(function* () {
      const { value } = yield* start({ limits })
      const exit = yield* Effect.exit(value<number>("take_elsewhere", { mebibytes: 300 }))
      // The kernel takes the larger one, unless the whole group goes.
      if (Exit.isSuccess(exit)) assert.strictEqual(exit.value, -9)
    })
  )

  it.live("ends with the worker, and with it what left its process group and its environment", () =>
    Effect.gen(function* () {
      const [group, stranger] = yield* Effect.scoped(
        Effect.gen(function* () {
          const { value, worker } = yield* start({ limits })
          const stranger = yield* value<number>("stranger")
          assert.isTrue(isAlive(stranger))
          return [groupOf(worker), stranger] as const
        })
      )
      assert.isFalse(isAlive(stranger))
      assert.isFalse(existsSync(group))
    })
  )

  it.live("leaves no group when the start fails", () =>
    Effect.gen(function* () {
      const { path } = yield* Effect.scoped(ControlGroup.make(64 * MiB))
      for (const options of [{ source: "raise ValueError('no')" }, { python: "/nowhere/python" }]) {
        const reason = yield* reasonOf(Effect.scoped(start({ limits, ...options })))
        assert.strictEqual(reason._tag, "StartFailed")
        assert.deepStrictEqual(ownGroups(path), [])
      }
    })
  )

  it.live("leaves no group when the start is interrupted", () =>
    Effect.gen(function* () {
      const { path } = yield* Effect.scoped(ControlGroup.make(64 * MiB))
      for (const millis of [0, 1, 5, 20, 80]) {
        yield* Effect.scoped(start({ limits })).pipe(Effect.timeoutOption(millis))
        assert.deepStrictEqual(ownGroups(path), [])
      }
    })
  )

  it.live("removes the groups that a process left which was killed", () =>
    Effect.gen(function* () {
      const { path } = yield* Effect.scoped(ControlGroup.make(64 * MiB))
      const pid = execFileSync(process.execPath, ["-p", "process.pid"], { encoding: "utf8" }).trim()
      const forgotten = join(path, "..", `synapse-${pid}-forgotten`)
      mkdirSync(forgotten)
      const group = yield* ControlGroup.make(64 * MiB)
      assert.isFalse(existsSync(forgotten))
      assert.isTrue(existsSync(group.path))
    })
  )
})

describe("a control group", () => {
  // Files that stand for those of the kernel.
  const fake = (files: Readonly<Record<string, string>>) => {
    const path = temporaryDirectory()
    for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text)
    return path
  }

  it.live("of version 2 has its limit, no swap and an end for all that is in it", () =>
    Effect.gen(function* () {
      const parent = fake({ "cgroup.subtree_control": "cpu\n" })
      yield* Effect.scoped(
        Effect.gen(function* () {
          const group = yield* ControlGroup.make(64 * MiB, () => ({ version: 2, path: parent }))
          const read = (name: string) => readFileSync(join(group.path, name), "utf8")
          assert.strictEqual(readFileSync(join(parent, "cgroup.subtree_control"), "utf8"), "+memory")
          assert.strictEqual(read("memory.max"), String(64 * MiB))
          assert.deepStrictEqual([read("memory.swap.max"), read("memory.oom.group")], ["0", "1"])
          assert.isFalse(group.hasRunOut())
          writeFileSync(
            join(group.path, "memory.events"),
            "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 1\n"
          )
          assert.isTrue(group.hasRunOut())
          // In the kernel's, a directory goes with its files.
          for (const name of readdirSync(group.path)) rmSync(join(group.path, name))
        })
      )
      assert.deepStrictEqual(readdirSync(parent), ["cgroup.subtree_control"])
    })
  )

  it.live("that cannot be made fails the start, and says what is missing", () =>
    Effect.gen(function* () {
      for (const [locate, detail] of [
        [() => ({ version: 1, path: "/nowhere" }), "ENOENT"],
        [() => ({ version: 2, path: fake({}) }), "cgroup.subtree_control"],
        [
          () => {
            throw new Error("no control groups with a memory controller are mounted")
          },
          'limits.memoryBy "cgroup" is not possible here: no control groups with a memory controller are mounted'
        ]
      ] as ReadonlyArray<readonly [() => ControlGroup.Parent, string]>) {
        const reason = yield* reasonOf(Effect.scoped(ControlGroup.make(64 * MiB, locate)))
        assert(reason._tag === "StartFailed")
        assert.strictEqual(reason.kind, "options")
        assert.include(reason.detail, detail)
      }
    })
  )

  it("is made below the one that counts the memory of this process", () => {
    const locate = (groups: string, ...mounts: ReadonlyArray<string>) =>
      ControlGroup.locateIn(groups, mounts.join("\n"))
    const v1 = "35 32 0:32 / /sys/fs/cgroup/memory rw,relatime shared:1 - cgroup cgroup rw,memory"
    const v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
    const docker = "35 32 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"
    assert.deepStrictEqual(locate("0::/user.slice/app.scope\n", v2), {
      version: 2,
      path: "/sys/fs/cgroup/user.slice/app.scope"
    })
    assert.deepStrictEqual(locate("4:memory:/a\n1:cpu,cpuacct:/b\n0::/c\n", v1, v2.replace("/sys/fs/cgroup", "/u")), {
      version: 1,
      path: "/sys/fs/cgroup/memory/a"
    })
    assert.deepStrictEqual(locate("4:memory:/docker/ab/c\n", docker)?.path, "/sys/fs/cgroup/memory/c")
    assert.deepStrictEqual(locate("4:memory:/docker/ab\n", docker)?.path, "/sys/fs/cgroup/memory")
    assert.deepStrictEqual(locate("4:memory:/docker/abc\n", docker)?.path, "/sys/fs/cgroup/memory/")
    assert.deepStrictEqual(locate("0::/a:b\n", v2.replace("/sys/fs/cgroup", "/my\\040groups"))?.path, "/my groups/a:b")
    assert.isUndefined(locate("4:memory:/a\n", v2.replace("cgroup2 cgroup2", "tmpfs tmpfs")))
    assert.isUndefined(locate("", ""))
  })
})

describe("processor time", () => {
  it.live("that is used up ends the worker, and says which limit it was", () =>
    Effect.gen(function* () {
      const { call, worker } = yield* start({ limits: { cpuTime: "800 millis" } })
      assert.deepStrictEqual(worker.setup, { limits: { cpuSeconds: 1 } })
      const reason = yield* reasonOf(call("spin"))
      assert(reason._tag === "WorkerExited")
      assert.deepStrictEqual([reason.kind, reason.signal], ["resourceLimit", "SIGXCPU"])
      assert.include(reason.message, "reached limits.cpuTime (1 s) and was ended by SIGXCPU")
    })
  )
})

describe("open files", () => {
  it.live("that are too many are an OSError in the handler, and the worker goes on", () =>
    Effect.gen(function* () {
      const { failure, value, worker } = yield* start({ limits: { openFiles: 64 } })
      const failed = yield* failure("open_files")
      assert.strictEqual(failed.type, "OSError")
      assert.include(failed.message, "[Errno 24]")
      assert.strictEqual(yield* value("pid"), worker.pid)
    })
  )
})

describe("a limit that cannot be set", () => {
  it.live("fails the start with its name", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(start({ limits: { openFiles: 2 ** 50 } }))
      assert(reason._tag === "StartFailed")
      assert.include(reason.message, "limits.openFiles: a limit of 1125899906842624 cannot be set")
    })
  )
})

describe("secrets", () => {
  it.live("are in the environment of the module, and not in what the system shows of the process", () =>
    Effect.gen(function* () {
      const { value, worker } = yield* start({ secrets: { TOKEN: "hidden-from-the-system" } })
      assert.deepStrictEqual(yield* value("secret"), ["hidden-from-the-system", "hidden-from-the-system"])
      if (process.platform !== "linux") return
      const read = (file: string) => readFileSync(`/proc/${worker.pid}/${file}`, "latin1")
      assert.include(read("environ"), "to be seen")
      for (const file of ["environ", "cmdline"]) assert.notInclude(read(file), "hidden-from-the-system")
    })
  )

  it.live("that no environment can hold are refused by name, and not shown", () =>
    Effect.gen(function* () {
      for (const [name, value] of [
        ["TOKEN", "hid\0den"],
        ["TOKEN", "hid\ud800den"],
        ["A=B", "hidden"],
        ["", "hidden"],
        ["A\0B", "hidden"],
        // By which the processes are found that the worker has started.
        ["SYNAPSE_WORKER_ID", "hidden"]
      ] as const) {
        const reason = yield* reasonOf(start({ secrets: { [name]: value } }))
        assert(reason._tag === "StartFailed")
        assert.strictEqual(reason.kind, "options")
        assert.include(reason.detail, `The variable ${JSON.stringify(name)} of the option \`env\``)
        assert.notInclude(reason.message, "hid")
      }
      const { value } = yield* start({ secrets: { TOKEN: "𐀀 ü\n" } })
      assert.deepStrictEqual(yield* value("secret"), ["𐀀 ü\n", "𐀀 ü\n"])
    })
  )

  it("are what was redacted, and take the place of what is inherited", () => {
    const environment = { python: "/usr/bin/python3", path: undefined } as unknown as PythonEnvironment
    const { env, secrets } = workerEnvironment({ HOME: "/root", LANG: "C", OTHER: "no" }, environment, {
      MODEL: "small",
      TOKEN: Redacted.make("hidden"),
      LANG: Redacted.make("private")
    })
    assert.deepStrictEqual(env, { HOME: "/root", MODEL: "small" })
    assert.deepStrictEqual(secrets, { TOKEN: "hidden", LANG: "private" })
  })

  it.live("and limits that there are none of are not waited for", () =>
    Effect.gen(function* () {
      const { value, worker } = yield* start({ limits: { openCalls: 5, logRecordsPerSecond: 5 }, secrets: {} })
      assert.isUndefined(worker.setup)
      assert.strictEqual(yield* value("pid"), worker.pid)
    })
  )
})

describe("a look at a process", () => {
  const units = { pageSize: 4096, ticksPerSecond: 100 }
  const stat = (state: string) =>
    `7 (a) R (b c) ${state} 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 900 9000000 1000 18446744073709551615 1\n`

  it("reads what Linux says, whatever the program is called", () => {
    const seen = { cpuMillis: 3000, memoryBytes: 4096 * 1000 }
    assert.deepStrictEqual(parseStat(stat("R"), units), { state: "running", ...seen })
    for (const letter of ["S", "D", "I"]) assert.deepStrictEqual(parseStat(stat(letter), units)?.state, "sleeping")
    for (const letter of ["T", "t"]) assert.deepStrictEqual(parseStat(stat(letter), units)?.state, "stopped")
    for (const letter of ["Z", "X"]) assert.isUndefined(parseStat(stat(letter), units))
  })

  it("reads what ps prints", () => {
    assert.deepStrictEqual(parsePs("S+     0:01.50   2048\n"), {
      state: "sleeping",
      cpuMillis: 1500,
      memoryBytes: 2048 * 1024
    })
    assert.deepStrictEqual(parsePs("R 1-02:03:04 1"), { state: "running", cpuMillis: 93_784_000, memoryBytes: 1024 })
    assert.strictEqual(parsePs("T 00:00:00 1")?.state, "stopped")
    for (const text of ["", "\n", "Z 00:00:00 0", "S what 1"]) assert.isUndefined(parsePs(text))
  })

  it("is the same in both ways", async () => {
    const { stdout } = await promisify(execFile)(
      "ps",
      "-o state= -o time= -o rss= -p".split(" ").concat(`${process.pid}`)
    )
    const vitals = parsePs(stdout)!
    assert.isAbove(vitals.memoryBytes, 10 * MiB)
    assert.approximately(vitals.cpuMillis, process.cpuUsage().user / 1000 + process.cpuUsage().system / 1000, 2000)
  })
})
