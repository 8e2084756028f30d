/** Workers that do not come up. */
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs"
import { assert, describe } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Synapse } from "effect-synapse"
import { reasonOf } from "../fixtures/dialogue.ts"
import { eventually, isAlive } from "../fixtures/processes.ts"
import { call, type Options, pid, row, type World } from "./aftermath.ts"

const build = ({ options }: World, overrides: Options) => Effect.provide(Effect.void, Synapse.layer(options(overrides)))

/** A module of its own. */
const moduleOf = ({ path }: World, source: string): string => {
  mkdirSync(path("module"))
  writeFileSync(path("module/main.py"), source)
  return path("module")
}

const script = (path: string, text: string, mode = 0o755): string => {
  writeFileSync(path, text)
  chmodSync(path, mode)
  return path
}

describe("an interpreter", () => {
  row("python-missing", { quick: true }, (world) =>
    Effect.gen(function* () {
      const python = world.path("nowhere/python")
      const reason = yield* reasonOf(build(world, { python }), "PythonNotFound")
      assert.include(reason.wanted, python)
      assert.deepStrictEqual(
        reason.tried.map(({ candidate }) => candidate),
        [python]
      )
      assert.deepStrictEqual(world.see(), [])
    })
  )

  row("not-executable", { quick: true }, (world) =>
    Effect.gen(function* () {
      const plain = script(world.path("plain"), "#!/bin/sh\n", 0o644)
      const badShebang = script(world.path("bad"), "#!/nowhere/interpreter\n")
      for (const python of [plain, badShebang]) {
        const reason = yield* reasonOf(build(world, { python }), "PythonNotFound")
        assert.strictEqual(reason.tried[0]?.candidate, python)
      }
    })
  )

  row("python-too-old", { quick: true }, (world) =>
    Effect.gen(function* () {
      const facts = { base: "", environment: null, version: "3.8.18", implementation: "cpython", cacheTag: null }
      const told = { ...facts, platform: "test", soabi: null, freeThreaded: false, size: 1, mtime: 1 }
      const python = script(
        world.path("python"),
        `#!/bin/sh\necho '${JSON.stringify({ ...told, executable: world.path("python") })}'\n`
      )
      const reason = yield* reasonOf(build(world, { python, directory: moduleOf(world, "") }), "PythonNotFound")
      assert.match(reason.message, /3\.8\.18, older than/)
      assert.isFalse(existsSync(world.path("module/.venv")))
    })
  )

  row("cwd-missing", { quick: true }, (world) =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(build(world, { directory: world.path("nowhere") }), "ModuleNotFound")
      assert.deepStrictEqual([reason.what, reason.path], ["directory", world.path("nowhere")])
    })
  )
})

describe("a module", () => {
  row("import-error", { quick: true }, (world) =>
    Effect.gen(function* () {
      const directory = moduleOf(world, "import a_package_that_is_not_there\n")
      const reason = yield* reasonOf(build(world, { directory }), "StartFailed")
      assert.deepStrictEqual([reason.kind, reason.exception?.type], ["import", "ModuleNotFoundError"])
      assert.include(reason.message, "a_package_that_is_not_there")
    })
  )

  row("syntax-error", {}, (world) =>
    Effect.gen(function* () {
      const directory = moduleOf(world, "x = 1\ndef main(:\n")
      const reason = yield* reasonOf(build(world, { directory }), "StartFailed")
      assert.deepStrictEqual([reason.kind, reason.exception?.type], ["import", "SyntaxError"])
      assert.match(reason.message, /main\.py.*(:|line )2/)
    })
  )

  row("silent-worker", {}, (world) =>
    Effect.gen(function* () {
      const started = world.path("started")
      const source = `import os, time\nos.mkdir(${JSON.stringify(started)})\nos.fork()\ntime.sleep(600)\n`
      const building = yield* Effect.forkChild(
        reasonOf(build(world, { directory: moduleOf(world, source), startTimeout: "2 seconds" }), "StartFailed")
      )
      yield* eventually(() => existsSync(started))
      assert.isAtLeast(world.see().length, 1)
      assert.strictEqual((yield* Fiber.join(building)).kind, "timeout")
    })
  )

  row("half-hello", { quick: true }, (world) =>
    Effect.gen(function* () {
      const directory = moduleOf(world, "import os\nos.write(3, b'\\x64\\0\\0\\0\\x09\\0\\0')\nos._exit(0)\n")
      const reason = yield* reasonOf(build(world, { directory }), "StartFailed")
      assert.deepStrictEqual([reason.kind, reason.exitCode], ["exit", 0])
    })
  )

  row("wrong-version", { quick: true }, (world) =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(
        build(world, { entrypoint: "raw", env: { FAULT: "wrong-version" } }),
        "StartFailed"
      )
      assert.strictEqual(reason.kind, "protocol")
      assert.match(reason.detail, /version 99 .* version 1:/)
    })
  )

  row("crash-loop", { quick: true }, (world) =>
    Effect.gen(function* () {
      // Comes up once.
      const once = JSON.stringify(world.path("once"))
      const source = `
import os, sys, synapse
try:
    os.mkdir(${once})
except FileExistsError:
    print("not again", file=sys.stderr, flush=True)
    sys.exit(1)
@synapse.handler
def pid():
    return os.getpid()
`
      const reason = yield* Effect.gen(function* () {
        process.kill(yield* pid, "SIGKILL")
        let reason = (yield* Effect.flip(call("pid"))).reason
        while (reason._tag === "WorkerExited") reason = (yield* Effect.flip(call("pid"))).reason
        // Nothing is started any more.
        yield* Effect.sleep("100 millis")
        assert.deepStrictEqual(world.see(), [])
        return reason
      }).pipe(
        Effect.provide(
          Synapse.layer(world.options({ directory: moduleOf(world, source), restart: { backoff: "1 millis" } }))
        )
      )
      assert(reason._tag === "RestartLimit", reason.message)
      assert.strictEqual(reason.exits.length, 3)
      for (const exit of reason.exits) assert.match(exit, /exit(ed with)? code 1|SystemExit/)
    })
  )

  row("start-interrupted", { timeoutMillis: 300_000 }, (world) =>
    Effect.gen(function* () {
      // Each millisecond of the beginning, and then less of them until after the worker is up.
      for (let millis = 0; millis < 600; millis += millis < 40 ? 1 : 20) {
        const building = yield* Effect.forkChild(
          Effect.provide(Effect.andThen(pid, Effect.never), Synapse.layer(world.options()))
        )
        yield* Effect.sleep(millis)
        world.see()
        yield* Fiber.interrupt(building)
        assert.deepStrictEqual(
          world.see().filter((process_) => isAlive(process_.pid)),
          [],
          `interrupted after ${millis} ms`
        )
      }
    })
  )
})
