import { execFileSync, spawnSync } from "node:child_process"
import * as NFS from "node:fs"
import { tmpdir } from "node:os"
import * as NPath from "node:path"
import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Latch from "effect/Latch"
import * as Stream from "effect/Stream"
import { changes } from "../src/internal/watching.ts"

interface Module {
  readonly directory: string
  readonly write: (file: string, text: string) => void
  /** What an editor does that writes beside the file and renames. */
  readonly save: (file: string, text: string) => void
}

const makeModule = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const base = yield* fs.realPath(yield* fs.makeTempDirectoryScoped({ prefix: "synapse-watching-" }))
  const directory = NPath.join(base, "module")
  const write = (file: string, text: string) => {
    const path = NPath.resolve(directory, file)
    NFS.mkdirSync(NPath.dirname(path), { recursive: true })
    NFS.writeFileSync(path, text)
  }
  write("main.py", "VALUE = 1\n")
  return {
    directory,
    write,
    save: (file, text) => {
      write(`${file}.tmp.1`, text)
      NFS.renameSync(NPath.join(directory, `${file}.tmp.1`), NPath.join(directory, file))
    }
  } satisfies Module as Module
})

/** Collects what is reported, each burst as its files in one line. */
const watch = Effect.fnUntraced(function* (module: Module, paths?: ReadonlyArray<string>) {
  const reports: Array<string> = []
  const stream = yield* changes({ directory: module.directory, paths })
  const fiber = yield* Effect.forkScoped(
    Stream.runForEach(stream, (files) => Effect.sync(() => void reports.push(files.join(" "))))
  )
  return { reports, fiber }
})

const eventually = (what: string, test: () => boolean): Effect.Effect<void> => {
  const deadline = Date.now() + 60_000
  const poll: Effect.Effect<void> = Effect.suspend(() => {
    if (test()) return Effect.void
    if (Date.now() > deadline) return Effect.die(new Error(`It never happened: ${what}`))
    return Effect.andThen(Effect.sleep("20 millis"), poll)
  })
  return poll
}

const reported = (reports: ReadonlyArray<string>, count: number) =>
  eventually(`${count} reports, only ${JSON.stringify(reports)}`, () => reports.length >= count)

layer(NodeServices.layer, { excludeTestServices: true })((it) => {
  describe.concurrent("watching", () => {
    it.effect("a file that is changed, added or removed is reported", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        const { reports } = yield* watch(module)
        module.write("main.py", "VALUE = 22\n")
        yield* reported(reports, 1)
        module.write("other.py", "")
        yield* reported(reports, 2)
        NFS.rmSync(NPath.join(module.directory, "other.py"))
        yield* reported(reports, 3)
        assert.deepStrictEqual(reports, ["main.py", "other.py", "other.py"])
      })
    )

    it.effect("a change that keeps the size is reported, and so is one between the first look and the first pull", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        const stream = yield* changes({ directory: module.directory })
        yield* Effect.sleep("20 millis")
        module.write("main.py", "VALUE = 2\n")
        assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(stream, 1)), [["main.py"]])
      })
    )

    it.effect("a burst of changes is one report", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        const { reports } = yield* watch(module)
        for (let index = 0; index < 10; index++) {
          module.write(`part${index}.py`, "")
          yield* Effect.sleep("60 millis")
        }
        yield* reported(reports, 1)
        module.write("main.py", "VALUE = 22\n")
        yield* reported(reports, 2)
        assert.deepStrictEqual(reports, [
          Array.from({ length: 10 }, (_, index) => `part${index}.py`).join(" "),
          "main.py"
        ])
      })
    )

    it.effect("what never comes to rest is reported in the end", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        const stream = yield* changes({ directory: module.directory, debounce: "50 millis" })
        let size = 0
        const restless = Effect.andThen(
          Effect.sync(() => module.write("main.py", "#".repeat(++size))),
          Effect.sleep("10 millis")
        )
        yield* Effect.forkScoped(Effect.forever(restless))
        assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(stream, 1)), [["main.py"]])
      })
    )

    it.effect("a file that is saved by renaming over it is reported once, every time", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        const { reports } = yield* watch(module)
        for (let index = 1; index <= 4; index++) {
          module.save("main.py", `VALUE = ${"1".repeat(index)}\n`)
          yield* reported(reports, index)
        }
        assert.deepStrictEqual(
          reports,
          Array.from({ length: 4 }, () => "main.py")
        )
      })
    )

    it.effect("files in new directories are reported, and later changes of them", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        const { reports } = yield* watch(module)
        module.write("a/b/c/deep.py", "")
        yield* reported(reports, 1)
        module.save("a/b/c/deep.py", "# more\n")
        yield* reported(reports, 2)
        NFS.rmSync(NPath.join(module.directory, "a"), { recursive: true })
        yield* reported(reports, 3)
        module.write("a/b/c/deep.py", "")
        yield* reported(reports, 4)
        assert.deepStrictEqual(
          reports,
          Array.from({ length: 4 }, () => "a/b/c/deep.py")
        )
      })
    )

    it.effect("hundreds of files at once are one report", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        const { reports } = yield* watch(module)
        for (let index = 0; index < 400; index++) module.write(`package${index % 20}/part${index}.py`, "")
        yield* reported(reports, 1)
        assert.strictEqual(reports[0]!.split(" ").length, 400)
      })
    )

    it.effect("dependency files count, other data only where it is named", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        const { reports } = yield* watch(module)
        const named = yield* watch(module, ["model.json", "data", ".env", "../shared", "absent"])
        const files = ["pyproject.toml", "requirements-dev.txt", "requirements.txt", "uv.lock"]
        for (const file of [
          ...files,
          "model.json",
          "notes.txt",
          "data/deep/table.csv",
          ".env",
          "../shared/base.yaml"
        ]) {
          module.write(file, "x")
        }
        yield* reported(reports, 1)
        yield* reported(named.reports, 1)
        assert.deepStrictEqual(reports, [files.join(" ")])
        assert.deepStrictEqual(named.reports, [
          [...files, "model.json", "data/deep/table.csv", ".env", "../shared/base.yaml"].sort().join(" ")
        ])
      })
    )

    it.effect("virtual environments, caches, hidden and temporary files do not count, named directories included", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        module.write("../cache/envs/one/lib/package.py", "")
        NFS.symlinkSync("../cache/envs/one", NPath.join(module.directory, ".venv"))
        NFS.symlinkSync("../cache/envs/one", NPath.join(module.directory, "link"))
        const { reports } = yield* watch(module, ["data"])
        module.write("../cache/envs/one/lib/package.py", "changed")
        for (const file of [
          ".git/hooks/hook.py",
          "node_modules/tool/tool.py",
          "__pycache__/main.cpython-311.pyc",
          "data/__pycache__/main.cpython-311.pyc",
          "environment/pyvenv.cfg",
          "environment/lib/package.py",
          ".hidden.py",
          ".main.py.swp",
          "main.py~",
          "#main.py#",
          "main.py.tmp.4",
          "main.py___jb_tmp___",
          "data/4913",
          "data/table.csv~",
          "data/.table.csv.swx"
        ])
          module.write(file, "x")
        // Emacs marks a file that is being edited with a link that leads nowhere.
        NFS.symlinkSync("me@host.1", NPath.join(module.directory, ".#main.py"))
        module.write("data/table.csv", "x")
        yield* reported(reports, 1)
        assert.deepStrictEqual(reports, ["data/table.csv"])
      })
    )

    it.effect("what came and went within a burst is not reported", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        const stream = yield* changes({ directory: module.directory, debounce: "400 millis" })
        const first = yield* Effect.forkScoped(Stream.runCollect(Stream.take(stream, 1)))
        const pause = Effect.sleep("350 millis")
        module.write("passing.py", "")
        yield* pause
        NFS.rmSync(NPath.join(module.directory, "passing.py"))
        yield* Effect.sleep("1 second")
        module.write("main.py", "VALUE = 22\n")
        assert.deepStrictEqual(yield* Fiber.join(first), [["main.py"]])
      })
    )

    it.effect("an import by Python is no change", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        module.write("package/__init__.py", "")
        const { reports } = yield* watch(module)
        execFileSync("python3", ["-c", "import main, package"], {
          cwd: module.directory,
          env: { ...process.env, PYTHONDONTWRITEBYTECODE: undefined, PYTHONPATH: module.directory }
        })
        assert.isTrue(NFS.existsSync(NPath.join(module.directory, "__pycache__")))
        yield* Effect.sleep("700 millis")
        module.write("package/__init__.py", "x = 1\n")
        yield* reported(reports, 1)
        assert.deepStrictEqual(reports, ["package/__init__.py"])
      })
    )

    it.effect(
      "a directory that is removed and made again goes on being watched, and is one report when it is back",
      () =>
        Effect.gen(function* () {
          const module = yield* makeModule
          const { reports } = yield* watch(module)
          NFS.rmSync(module.directory, { recursive: true })
          yield* Effect.sleep("1 second")
          assert.deepStrictEqual(reports, [])
          module.write("main.py", "VALUE = 22\n")
          yield* reported(reports, 1)
          module.write("main.py", "VALUE = 333\n")
          yield* reported(reports, 2)
          assert.deepStrictEqual(reports, ["main.py", "main.py"])
        })
    )

    it.effect("changes while the last one is dealt with are one report after it", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        const reloaded = yield* Latch.make()
        const reports: Array<string> = []
        const stream = yield* changes({ directory: module.directory })
        yield* Effect.forkScoped(
          Stream.runForEach(stream, (files) => {
            reports.push(files.join(" "))
            return reloaded.await
          })
        )
        module.write("one.py", "")
        yield* reported(reports, 1)
        module.write("two.py", "")
        yield* Effect.sleep("700 millis")
        module.write("three.py", "")
        yield* reloaded.open
        yield* reported(reports, 2)
        assert.deepStrictEqual(reports, ["one.py", "three.py two.py"])
      })
    )

    it.effect("nothing is reported once the scope is closed", () =>
      Effect.gen(function* () {
        const module = yield* makeModule
        const { fiber, reports } = yield* Effect.scoped(Effect.tap(watch(module), () => Effect.sleep("350 millis")))
        yield* Fiber.await(fiber)
        module.write("main.py", "VALUE = 22\n")
        yield* Effect.sleep("1 second")
        assert.deepStrictEqual(reports, [])
      })
    )

    it.effect("Node ends while it watches", () =>
      Effect.sync(() => {
        const code = `
          import { Effect, Stream } from "effect"
          import { changes } from "./src/internal/watching.ts"
          Effect.runFork(Stream.runDrain(Stream.unwrap(changes({ directory: ${JSON.stringify(tmpdir())} }))))
          setTimeout(() => {}, 700)`
        const ended = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
          cwd: fileURLToPath(new URL("..", import.meta.url)),
          encoding: "utf8",
          timeout: 120_000
        })
        assert.deepStrictEqual([ended.status, ended.signal, ended.stderr], [0, null, ""])
      })
    )
  })
})
