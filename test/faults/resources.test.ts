/** Workers, and programs, that run out of something. */
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, beforeAll, describe } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { Synapse } from "effect-synapse"
import * as ControlGroup from "../../src/internal/controlGroup.ts"
import { reasonOf } from "../fixtures/dialogue.ts"
import { memory } from "../fixtures/modules.ts"
import { isAlive } from "../fixtures/processes.ts"
import { call, pid, row } from "./aftermath.ts"
import * as Program from "./program.ts"

const noGroups =
  Exit.isFailure(await Effect.runPromiseExit(Effect.scoped(ControlGroup.make(2 ** 30)))) && "no control groups here"

const mount = (directory: string): void => {
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", directory], { stdio: "ignore" })
}
const unmount = (directory: string): void => {
  execFileSync("umount", [directory], { stdio: "ignore" })
}

const canMount = (): boolean => {
  const directory = mkdtempSync(join(tmpdir(), "synapse-faults-"))
  try {
    mount(directory)
    unmount(directory)
    return true
  } catch {
    return false
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

describe("a worker", () => {
  row("oom", { unless: noGroups }, ({ run }) =>
    run(
      { limits: { memoryMiB: 120, memoryBy: "cgroup" } },
      Effect.gen(function* () {
        const before = yield* pid
        const reason = yield* reasonOf(call("hoard", { mebibytes: 500 }), "WorkerExited")
        assert.deepStrictEqual([reason.kind, reason.signal], ["outOfMemory", "SIGKILL"])
        assert.isFalse(isAlive(before))
      })
    )
  )

  row("oom, by looking", {}, ({ run }) =>
    run(
      { limits: { memoryMiB: 120 } },
      Effect.gen(function* () {
        const reason = yield* reasonOf(call("hoard", { mebibytes: 300 }), "WorkerExited")
        assert.deepStrictEqual([reason.kind, reason.signal], ["outOfMemory", "SIGKILL"])
      })
    )
  )

  row("memory-limit", { quick: true }, ({ run }) =>
    run(
      { limits: { memoryMiB: 1024, memoryBy: "rlimit" } },
      Effect.gen(function* () {
        const before = yield* pid
        assert.strictEqual(
          (yield* reasonOf(call("allocate", { mebibytes: 4096 }), "PythonException")).type,
          "MemoryError"
        )
        assert.strictEqual(yield* call("allocate", { mebibytes: 1 }), 2 ** 20)
        assert.strictEqual(yield* pid, before)
      })
    )
  )

  row("cpu-limit", {}, ({ run }) =>
    run(
      { oneShot: true, limits: { cpuTime: "1 second" } },
      Effect.gen(function* () {
        const reason = yield* reasonOf(call("burn"), "WorkerExited")
        assert.deepStrictEqual([reason.kind, reason.signal], ["resourceLimit", "SIGXCPU"])
      })
    )
  )

  row("nofile", { quick: true }, ({ run }) =>
    run(
      { limits: { openFiles: 64 } },
      Effect.gen(function* () {
        const before = yield* pid
        const reason = yield* reasonOf(call("open_files", { how_many: 100 }), "PythonException")
        assert.deepStrictEqual([reason.type, reason.exception.message.slice(0, 10)], ["OSError", "[Errno 24]"])
        assert.strictEqual(yield* call("open_files", { how_many: 20 }), 20)
        assert.strictEqual(yield* pid, before)
      })
    )
  )
})

describe("shared memory", () => {
  const { directory, sharedMemory } = memory

  // Its environment is made before anything is measured.
  beforeAll(() => Effect.runPromise(Effect.provide(Effect.asVoid(pid), Synapse.layer(memory))))

  row("memory-full", { quick: true, memoryMiB: 80 }, ({ run }) =>
    run(
      { directory, sharedMemory },
      Effect.gen(function* () {
        const before = yield* pid
        const value = new Float64Array(300_000).fill(0.5)
        for (const _ of [1, 2, 3]) {
          assert.deepStrictEqual(yield* call("copied", value), value)
          assert.strictEqual(
            (yield* reasonOf(call("copied", new Uint8Array(20 * 2 ** 20)), "FrameTooLarge")).side,
            "typescript"
          )
          assert.strictEqual((yield* reasonOf(call("numbers", { count: 3_000_000 }), "FrameTooLarge")).side, "python")
        }
        assert.strictEqual(yield* pid, before)
      })
    )
  )

  row("memory-retained", { quick: true }, ({ run }) =>
    run(
      { directory, sharedMemory, maxFrameSize: memory.maxFrameSize },
      Effect.gen(function* () {
        const value = new Float64Array(50_000).fill(0.5)
        for (const _ of [1, 2, 3]) {
          yield* call("keep", value)
          yield* call("keep", value)
          yield* reasonOf(call("keep", value), "FrameTooLarge")
          assert.deepStrictEqual(yield* call("look"), [25_000, 25_000])
          yield* call("drop")
          yield* Effect.retry(call("copied", value), { while: ({ reason }) => reason._tag === "FrameTooLarge" })
        }
      })
    )
  )
})

describe("a machine whose shared memory", () => {
  /** The program sees another `/dev/shm`. */
  const under = (options: string) => [
    ...["unshare", "--mount", "sh", "-c"],
    ...[`mount -t tmpfs -o ${options} tmpfs /dev/shm && exec "$@"`, "sh"]
  ]
  for (const [name, options] of [
    ["shm-full", "size=1m"],
    ["shm-missing", "ro"]
  ] as const) {
    row(name, { unless: !canMount() && "no right to mount" }, ({ path, see }) =>
      Effect.gen(function* () {
        const program = yield* Program.start(path(""), ["memory"], under(options))
        see()
        assert.strictEqual(yield* program.end, 0, program.output())
        assert.match(program.output(), /300000 20000 300000\n$/)
      })
    )
  }
})

describe("this side", () => {
  row("tmp-full", { unless: !canMount() && "no right to mount" }, ({ options, path }) =>
    Effect.gen(function* () {
      for (const name of ["module", "cache"]) mkdirSync(path(name))
      writeFileSync(path("module/main.py"), "")
      yield* Effect.acquireRelease(
        Effect.sync(() => mount(path("cache"))),
        () => Effect.sync(() => unmount(path("cache")))
      )
      const layer = Synapse.layer(
        options({ directory: path("module"), environment: { mode: "venv", cacheDirectory: path("cache") } })
      )
      const reason = yield* reasonOf(Effect.provide(Effect.void, layer), "InstallFailed")
      assert.match(reason.message, /No space left/)
      assert.isFalse(existsSync(path("module/.venv")))
      const ready = path("cache/ready")
      assert.deepStrictEqual(existsSync(ready) ? readdirSync(ready) : [], [])
    })
  )

  const fewFiles = ["prlimit", "--nofile=200:200"]

  row("emfile-node", {}, ({ path, see }) =>
    Effect.gen(function* () {
      const program = yield* Program.start(path(""), ["emfile"], fewFiles)
      see()
      assert.strictEqual(yield* program.end, 0, program.output())
      assert.match(program.output(), /too many files are open/)
      const [before, after] = program.output().trim().split("\n").at(-1)!.split(" ")
      assert.notStrictEqual(before, after)
    })
  )

  row("emfile-node, at the start", {}, ({ path, see }) =>
    Effect.gen(function* () {
      const program = yield* Program.start(path(""), ["emfile-start"], fewFiles)
      see()
      assert.strictEqual(yield* program.end, 0, program.output())
      assert.match(program.output(), /^\w+: .*(too many (open )?files|EMFILE)/im)
      assert.match(program.output(), /\n\d+\n$/)
    })
  )
})
