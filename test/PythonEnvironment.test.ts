import { execFileSync, spawn } from "node:child_process"
import { createHash } from "node:crypto"
import * as NFS from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import * as NPath from "node:path"
import { PassThrough } from "node:stream"
import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { assert, beforeAll, describe, it, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Logger from "effect/Logger"
import type * as Path from "effect/Path"
import { systemError } from "effect/PlatformError"
import { ChildProcessSpawner } from "effect/process"
import * as Result from "effect/Result"
import { PythonEnvironment, type SynapseError } from "effect-synapse"
import { type BuildInput, hintFor } from "../src/internal/environmentBuild.ts"
import { cacheDirectoryOf, keyOf, runtimeHash } from "../src/internal/environmentCache.ts"
import { Host, withoutCredentials } from "../src/internal/environmentHost.ts"
import { type Facts, parseRange } from "../src/internal/environmentInterpreter.ts"
import { type Requirements, readRequirements } from "../src/internal/environmentRequirements.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

// Wheels are zip files: these two make every install work without an index. The second stands in for the codec.
const makeWheels = `
import io, sys, tarfile, zipfile
def wheel(name, version, files, requires=()):
    info = f"{name}-{version}.dist-info"
    files = {**files, f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
             f"{info}/METADATA": f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
             + "".join(f"Requires-Dist: {r}\\n" for r in requires)}
    record = "".join(f"{path},,\\n" for path in files) + f"{info}/RECORD,,\\n"
    with zipfile.ZipFile(f"{sys.argv[1]}/{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
wheel("demo", "1.0", {"demo.py": "VALUE = 1\\n"})
wheel("demo", "2.0", {"demo.py": "VALUE = 2\\n"})
wheel("needy", "1.0", {"needy.py": "import demo\\n"}, ["demo==1.0"])
wheel("broken", "1.0", {"broken.py": ""}, ["absent-from-the-folder"])
wheel("modern", "1.0", {"modern.py": ""})
wheel("large", "1.0", {"large.py": "#" * 2_000_000})
wheel("msgspec", "99.0", {"msgspec/__init__.py": ""})
# A source distribution that tells whether it was run.
with tarfile.open(f"{sys.argv[1]}/source-1.0.tar.gz", "w:gz") as archive:
    for path, text in {"PKG-INFO": "Metadata-Version: 2.1\\nName: source\\nVersion: 1.0\\n",
                       "pyproject.toml": "[build-system]\\nrequires = []\\nbuild-backend = 'backend'\\nbackend-path = ['.']\\n",
                       "backend.py": "import os; open(os.environ['SOURCE_RAN'], 'w').close()\\n"}.items():
        info = tarfile.TarInfo(f"source-1.0/{path}")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
`

let shared: string | undefined
const wheelsDirectory = (): string => {
  if (shared === undefined) {
    shared = NFS.mkdtempSync(NPath.join(tmpdir(), "wheels-"))
    execFileSync("python3", ["-c", makeWheels, shared])
    process.on("exit", () => NFS.rmSync(shared!, { recursive: true, force: true }))
  }
  return shared
}

let withUv: string | undefined
/** A directory for PATH with uv in it. */
const uvDirectory = (): string => {
  if (withUv === undefined) {
    const venv = NFS.mkdtempSync(NPath.join(tmpdir(), "uv-"))
    process.on("exit", () => NFS.rmSync(venv, { recursive: true, force: true }))
    execFileSync(realPython, ["-m", "venv", venv])
    withUv = NPath.join(venv, "bin")
    execFileSync(NPath.join(withUv, "python"), ["-m", "pip", "install", "--quiet", "uv"], { stdio: "pipe" })
  }
  return withUv
}

interface Sandbox {
  readonly directory: string
  readonly cache: string
  readonly write: (file: string, text: string, executable?: boolean) => string
}

/** A module's directory and a cache of its own. */
const makeSandbox = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const base = yield* fs.realPath(yield* fs.makeTempDirectoryScoped({ prefix: "synapse-environment-" }))
  const directory = NPath.join(base, "module")
  NFS.mkdirSync(directory)
  return {
    directory,
    cache: NPath.join(base, "cache"),
    write: (file, text, executable) => {
      const path = NPath.resolve(directory, file)
      NFS.mkdirSync(NPath.dirname(path), { recursive: true })
      NFS.writeFileSync(path, text)
      if (executable) NFS.chmodSync(path, 0o755)
      return path
    }
  } satisfies Sandbox as Sandbox
})

/** Runs `make` and keeps what it ran and said. */
class Watched {
  readonly commands: Array<string> = []
  readonly pids: Array<number> = []
  readonly logs: Array<string> = []
  onSpawn: (pid: number, command: string) => void = () => {}

  make(options: PythonEnvironment.EnvironmentOptions, host: Partial<Host> = {}) {
    return Effect.gen({ self: this }, function* () {
      const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
      const watching = ChildProcessSpawner.make((command) => {
        const text = command._tag === "StandardCommand" ? [command.command, ...command.args].join(" ") : "a pipe"
        this.commands.push(text)
        return Effect.tap(spawner.spawn(command), (handle) =>
          Effect.sync(() => {
            this.pids.push(handle.pid)
            this.onSpawn(handle.pid, text)
          })
        )
      })
      return yield* PythonEnvironment.make(options).pipe(
        Effect.provideService(ChildProcessSpawner.ChildProcessSpawner, watching),
        Effect.provideService(Host, { ...plainHost(), ...host }),
        Effect.provide(
          Logger.layer([
            Logger.make(({ logLevel, message }) => {
              this.logs.push(`${logLevel}: ${[message].flat().map(String).join(" ")}`)
            })
          ])
        )
      )
    })
  }
}

/** This machine, without what the person who runs the tests has activated. */
const plainHost = (env: Record<string, string | undefined> = {}): Host => ({
  platform: process.platform,
  env: {
    ...process.env,
    VIRTUAL_ENV: undefined,
    CONDA_PREFIX: undefined,
    SYNAPSE_PYTHON: undefined,
    SYNAPSE_CACHE_DIRECTORY: undefined,
    ...env
  },
  home: process.env.HOME ?? "/",
  terminal: undefined
})

const managed = (sandbox: Sandbox, more: PythonEnvironment.EnvironmentSettings = {}) => ({
  directory: sandbox.directory,
  python: realPython,
  environment: { cacheDirectory: sandbox.cache, offline: wheelsDirectory(), installer: "pip" as const, ...more }
})

const makeManaged = (sandbox: Sandbox, more?: PythonEnvironment.EnvironmentSettings) =>
  new Watched().make(managed(sandbox, more))

const python = (environment: PythonEnvironment.PythonEnvironment, code: string): string =>
  execFileSync(environment.python, ["-I", "-c", code], { encoding: "utf8" }).trim()

const demoValue = (environment: PythonEnvironment.PythonEnvironment): string =>
  python(environment, "import demo, synapse; print(demo.VALUE)")

/** The interpreter below whatever `python3` is, as a shell script's last word. */
const realPython = execFileSync(
  "python3",
  ["-I", "-c", "import os, sys; print(os.path.realpath(sys._base_executable))"],
  {
    encoding: "utf8"
  }
).trim()

const script = (body: string): string => `#!/bin/sh\n${body}\n`

/** An interpreter that says it has that version. */
const pretending = (version: string): string =>
  script(`exec '${realPython}' -I -S -c '
import json, os, sys
stat = os.stat(sys.argv[1])
print(json.dumps({"executable": sys.argv[1], "base": sys.argv[1], "environment": None, "version": "${version}",
    "implementation": "cpython", "cacheTag": None, "platform": "test", "soabi": None, "freeThreaded": False,
    "size": stat.st_size, "mtime": int(stat.st_mtime)}))
' "$0"`)

const failure = <A>(effect: Effect.Effect<A, SynapseError.SynapseError, Services>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

type Services = FileSystem.FileSystem | Path.Path | ChildProcessSpawner.ChildProcessSpawner

const reasonOf = <Tag extends SynapseError.SynapseErrorReason["_tag"]>(
  reason: SynapseError.SynapseErrorReason,
  tag: Tag
): Extract<SynapseError.SynapseErrorReason, { _tag: Tag }> => {
  assert.strictEqual(reason._tag, tag, reason.message)
  return reason as Extract<SynapseError.SynapseErrorReason, { _tag: Tag }>
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
  } catch {
    return false
  }
  // A zombie waits for its parent to look, and does nothing else.
  return process.platform !== "linux" || !/^State:\s+Z/m.test(NFS.readFileSync(`/proc/${pid}/status`, "utf8"))
}

/** Processes with that text among their arguments. */
const processesWith = (text: string): ReadonlyArray<string> =>
  execFileSync("ps", ["-eo", "pid=,stat=,args="], { encoding: "utf8", maxBuffer: 1 << 26 })
    .split("\n")
    .filter((line) => line.includes(text) && !/^\s*\d+\s+Z/.test(line) && !line.includes("ps -eo"))

const eventually = (what: string, test: () => boolean, timeoutMillis = 60_000): Effect.Effect<void> =>
  Effect.suspend(() => {
    const deadline = Date.now() + timeoutMillis
    const poll: Effect.Effect<void> = Effect.suspend(() => {
      if (test()) return Effect.void
      if (Date.now() > deadline) return Effect.die(new Error(`It never happened: ${what}`))
      return Effect.andThen(Effect.sleep("20 millis"), poll)
    })
    return poll
  })

const entries = (directory: string): ReadonlyArray<string> => {
  try {
    return NFS.readdirSync(directory)
  } catch {
    return []
  }
}

// What makes them holds up Node, and with it every test that is under way: an interpreter that answered meanwhile is not heard
// before the time for it is over.
beforeAll(() => {
  wheelsDirectory()
  uvDirectory()
})

describe("PythonEnvironment", () => {
  describe("version ranges", () => {
    const cases: ReadonlyArray<
      readonly [range: string, inside: ReadonlyArray<string>, outside: ReadonlyArray<string>]
    > = [
      [">=3.10", ["3.10.0", "3.14.2", "4.0.0"], ["3.9.18", "2.7.18"]],
      [">=3.11,<3.13", ["3.11.0", "3.12.9"], ["3.10.14", "3.13.0"]],
      ["3.12", ["3.12.0", "3.12.11"], ["3.11.9", "3.13.0", "3.1.2"]],
      ["==3.12.*", ["3.12.7"], ["3.13.0"]],
      ["==3.12.4", ["3.12.4"], ["3.12.5"]],
      ["~=3.11", ["3.11.0", "3.14.0"], ["3.10.9", "4.0.0"]],
      ["~=3.11.2", ["3.11.2", "3.11.9"], ["3.11.1", "3.12.0"]],
      [">3.10, !=3.12.*", ["3.11.0", "3.13.0"], ["3.12.3", "3.10.0"]],
      ["<=3.12.1", ["3.12.1"], ["3.12.2"]]
    ]
    for (const [range, inside, outside] of cases) {
      it(`"${range}" holds ${inside.join(", ")} and not ${outside.join(", ")}`, () => {
        const satisfies = parseRange(range)!
        for (const version of inside) assert.isTrue(satisfies(version), version)
        for (const version of outside) assert.isFalse(satisfies(version), version)
      })
    }
    it("paths and commands are no ranges", () => {
      for (const text of ["python3.12", "/usr/bin/python3", "./3.12", "pypy3", "", "latest", "~=3"]) {
        assert.isUndefined(parseRange(text), text)
      }
    })
  })

  describe("what failures mean", () => {
    const input = {
      cacheDirectory: "/cache",
      facts: { version: "3.11.7" },
      offline: false,
      wheels: undefined
    } as BuildInput
    const cases: ReadonlyArray<readonly [output: string, hint: RegExp, input?: Partial<BuildInput>]> = [
      ["OSError: [Errno 28] No space left on device", /disk is full.*\/cache/],
      [
        "The virtual environment was not created successfully because ensurepip is not available.",
        /apt install python3\.11-venv/
      ],
      ["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", /hash mismatch/],
      ["ERROR: Package 'x' requires a different Python: 3.11.7 not in '>=3.12'", /does not support Python 3\.11\.7/],
      ["error: command 'gcc' failed: No such file or directory", /compiler/],
      ["Temporary failure in name resolution\nERROR: No matching distribution found for x", /cannot be reached/],
      ["ERROR: No matching distribution found for nunpy", /unknown to the index/],
      [
        "  × No solution found when resolving dependencies:\n  ╰─▶ Because nunpy was not found in the package registry",
        /unknown to the index/
      ],
      ["ERROR: No matching distribution found for x", /folder \/wheels lacks/, { offline: true, wheels: "/wheels" }],
      ["ERROR: No matching distribution found for x", /no folder of wheels is given/, { offline: true }]
    ]
    for (const [output, hint, more] of cases) {
      it(`${JSON.stringify(output.split("\n")[0])} is explained`, () => {
        assert.match(hintFor(output, { ...input, ...more })!, hint)
      })
    }
    it("what is not known is not guessed", () => assert.isUndefined(hintFor("something else", input)))
    it("credentials in URLs are left out", () => {
      assert.strictEqual(
        withoutCredentials("pip --index-url https://me:secret@host/simple -r x, git+https://token@host/y"),
        "pip --index-url https://host/simple -r x, git+https://host/y"
      )
    })
  })

  describe("the key", () => {
    const facts: Facts = {
      executable: "/usr/bin/python3",
      base: "/usr/bin/python3.11",
      environment: null,
      version: "3.11.7",
      implementation: "cpython",
      cacheTag: "cpython-311",
      platform: "linux-x86_64",
      soabi: "cpython-311-x86_64-linux-gnu",
      freeThreaded: false,
      size: 1,
      mtime: 2
    }
    const requirements: Requirements = {
      files: [],
      pyproject: undefined,
      fingerprint: ["requirements.txt 1"],
      names: [],
      loose: []
    }
    const input = {
      facts,
      requirements,
      runtime: "r",
      installer: "auto",
      wheels: undefined,
      index: "i",
      strict: false
    } as const
    const other = (name: string, changed: object) =>
      it(`changes with ${name}`, () => assert.notStrictEqual(keyOf({ ...input, ...changed }), keyOf(input)))
    for (const [name, change] of Object.entries({
      base: "/opt/python",
      version: "3.11.8",
      implementation: "pypy",
      cacheTag: "x",
      platform: "x",
      soabi: "x",
      freeThreaded: true,
      size: 3,
      mtime: 3
    }))
      other(`the interpreter's ${name}`, { facts: { ...facts, [name]: change } })
    other("the requirements", { requirements: { ...requirements, fingerprint: ["requirements.txt 2"] } })
    other("the runtime", { runtime: "s" })
    other("the installer", { installer: "uv" })
    other("the index", { index: "j" })
    other("strictness", { strict: true })
    other("the folder of wheels", { wheels: "/wheels" })
    it("stays the same for the same inputs, through whatever environment the interpreter was reached", () => {
      assert.strictEqual(
        keyOf({ ...input, facts: { ...facts, executable: "/venv/bin/python", environment: "/venv" } }),
        keyOf(input)
      )
    })
  })

  layer(NodeServices.layer, { excludeTestServices: true })((it) => {
    it.effect("the hash of the runtime changes with any of its files, in packages within it too", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const runtime = yield* fs.makeTempDirectoryScoped({ prefix: "synapse-environment-" })
        const inner = NPath.join(runtime, "inner")
        yield* fs.makeDirectory(inner)
        yield* fs.writeFileString(NPath.join(inner, "_a.py"), "1")
        const before = yield* runtimeHash(runtime)
        assert.strictEqual(yield* runtimeHash(runtime), before)
        yield* fs.writeFileString(NPath.join(inner, "_a.py"), "2")
        assert.notStrictEqual(yield* runtimeHash(runtime), before)
      })
    )

    describe("the cache directory", () => {
      const of = (host: Partial<Host>, option?: string) =>
        cacheDirectoryOf(option).pipe(
          Effect.provideService(Host, { ...plainHost(), home: "/home/me", env: {}, ...host })
        )
      it.effect("is the user's cache directory, or what an option or a variable says", () =>
        Effect.gen(function* () {
          assert.strictEqual(yield* of({ platform: "linux" }), "/home/me/.cache/effect-synapse")
          assert.strictEqual(yield* of({ platform: "linux", env: { XDG_CACHE_HOME: "/x" } }), "/x/effect-synapse")
          assert.strictEqual(
            yield* of({ platform: "linux", env: { XDG_CACHE_HOME: "x" } }),
            "/home/me/.cache/effect-synapse"
          )
          assert.strictEqual(yield* of({ platform: "darwin" }), "/home/me/Library/Caches/effect-synapse")
          assert.strictEqual(
            yield* of({ platform: "win32", env: { LOCALAPPDATA: "/local" } }),
            "/local/effect-synapse/Cache"
          )
          assert.strictEqual(yield* of({ env: { SYNAPSE_CACHE_DIRECTORY: "/variable" } }), "/variable")
          assert.strictEqual(yield* of({ env: { SYNAPSE_CACHE_DIRECTORY: "/variable" } }, "/option"), "/option")
        })
      )

      it.effect("that cannot be written is an error that says so", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const file = sandbox.write("a-file", "")
          const reason = reasonOf(
            yield* failure(makeManaged(sandbox, { cacheDirectory: NPath.join(file, "cache") })),
            "InstallFailed"
          )
          assert.match(reason.hint!, /cannot be written.*cacheDirectory/)
        })
      )
    })

    describe("checks, before any process", () => {
      it.effect("a missing directory, then a missing requirements file, then a missing interpreter", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const watched = new Watched()
          const directory = NPath.join(sandbox.directory, "absent")
          const options = { directory, python: "/absent/python", environment: { requirements: "absent.txt" } }
          const first = reasonOf(yield* failure(watched.make(options)), "ModuleNotFound")
          assert.deepStrictEqual([first.what, first.path], ["directory", directory])
          NFS.mkdirSync(directory)
          const second = reasonOf(yield* failure(watched.make(options)), "ModuleNotFound")
          assert.deepStrictEqual([second.what, second.path], ["requirements", NPath.join(directory, "absent.txt")])
          NFS.writeFileSync(NPath.join(directory, "absent.txt"), "")
          const third = reasonOf(yield* failure(watched.make(options)), "PythonNotFound")
          assert.deepStrictEqual(third.tried, [{ candidate: "/absent/python", found: "does not exist" }])
          assert.deepStrictEqual(watched.commands, [])
        })
      )

      it.effect("a file is not a module's directory", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const directory = sandbox.write("main.py", "")
          const reason = reasonOf(yield* failure(new Watched().make({ directory })), "ModuleNotFound")
          assert.strictEqual(reason.what, "directory")
          assert.match(reason.detail, /not a directory/)
        })
      )

      it.effect("a missing file that another one includes is reported with the file and the line", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const top = sandbox.write("requirements.txt", "# first\n-r requirements/base.txt\n")
          const base = sandbox.write("requirements/base.txt", "demo\n\n--constraint=pins.txt  # here\n")
          const reason = reasonOf(yield* failure(new Watched().make(managed(sandbox))), "ModuleNotFound")
          assert.deepStrictEqual(
            [reason.what, reason.path],
            ["requirements", NPath.join(sandbox.directory, "requirements/pins.txt")]
          )
          assert.include(reason.detail, `${base}:3`)
          assert.notInclude(reason.detail, top)
        })
      )
    })

    describe("requirements", () => {
      const read = (sandbox: Sandbox, named?: string | ReadonlyArray<string>) =>
        readRequirements(sandbox.directory, named)

      it.effect("a module without requirements needs none", () =>
        Effect.gen(function* () {
          const found = yield* read(yield* makeSandbox)
          assert.deepStrictEqual(found, { files: [], pyproject: undefined, fingerprint: [], names: [], loose: [] })
        })
      )

      it.effect("requirements.txt comes before pyproject.toml, and an option before both", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const toml = sandbox.write(
            "pyproject.toml",
            `[project]\nname = "x"\ndependencies = ["demo[all]>=1", 'other'] # two\n`
          )
          assert.deepInclude(yield* read(sandbox), { files: [], pyproject: toml, names: ["demo", "other"] })
          const text = sandbox.write("requirements.txt", "needy==1.0\n")
          assert.deepInclude(yield* read(sandbox), { files: [text], pyproject: undefined, names: ["needy"] })
          const named = sandbox.write("dev.txt", "a; python_version > '3'\nb @ https://host/b.whl\n-c pins.txt")
          sandbox.write("pins.txt", "c==1")
          assert.deepInclude(yield* read(sandbox, ["dev.txt"]), { files: [named], names: ["a", "b"] })
        })
      )

      it.effect("the fingerprint follows every included file and ignores comments, blank lines and credentials", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "-r base.txt\n--index-url https://me:one@host/simple\ndemo\n")
          sandbox.write("base.txt", "-r requirements.txt\nneedy==1.0\n")
          const before = (yield* read(sandbox)).fingerprint
          sandbox.write(
            "requirements.txt",
            "# hello\n-r base.txt\n\n--index-url https://me:two@host/simple\ndemo # why\n"
          )
          assert.deepStrictEqual((yield* read(sandbox)).fingerprint, before)
          sandbox.write("base.txt", "-r requirements.txt\nneedy \\\n  ==2.0\n")
          assert.notDeepEqual((yield* read(sandbox)).fingerprint, before)
        })
      )

      it.effect("of a pyproject.toml only the dependencies count, where they can be told apart", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const toml = (version: string, dependencies: string, more = "") =>
            sandbox.write(
              "pyproject.toml",
              `[project]\nversion = "${version}"\ndependencies = [${dependencies}]\n${more}`
            )
          toml("1", `\n  "a[x]>=1", # why\n  "b",\n`)
          const before = (yield* read(sandbox)).fingerprint
          toml("2", `"a[x]>=1", "b"`, "[tool.x]\ny = 1\n")
          assert.deepStrictEqual((yield* read(sandbox)).fingerprint, before)
          toml("2", `"a[x]>=2", "b"`)
          assert.notDeepEqual((yield* read(sandbox)).fingerprint, before)
          toml("2", `"a[x]>=1", """b"""`)
          const whole = (yield* read(sandbox)).fingerprint
          toml("3", `"a[x]>=1", """b"""`)
          assert.notDeepEqual((yield* read(sandbox)).fingerprint, whole)
        })
      )

      it.effect("a local package ties the environment to its directory and the state of its file", () =>
        Effect.gen(function* () {
          const one = yield* makeSandbox
          const two = yield* makeSandbox
          for (const sandbox of [one, two]) sandbox.write("requirements.txt", "demo\n")
          assert.deepStrictEqual((yield* read(one)).fingerprint, (yield* read(two)).fingerprint)
          for (const sandbox of [one, two]) sandbox.write("requirements.txt", "./wheels/demo-1.0-py3-none-any.whl\n")
          const before = (yield* read(one)).fingerprint
          assert.notDeepEqual(before, (yield* read(two)).fingerprint)
          one.write("wheels/demo-1.0-py3-none-any.whl", "content")
          assert.notDeepEqual((yield* read(one)).fingerprint, before)
        })
      )
    })

    describe("finding an interpreter", () => {
      const system = (sandbox: Sandbox, python?: string) => ({
        directory: sandbox.directory,
        environment: { mode: "system" as const, cacheDirectory: sandbox.cache },
        ...(python === undefined ? {} : { python })
      })
      /** A machine that has these commands and no others. */
      const machine = (sandbox: Sandbox, env: Record<string, string> = {}, bin = "bin"): Partial<Host> => ({
        platform: "linux",
        env: { PATH: NPath.join(sandbox.directory, bin), ...env },
        home: sandbox.directory
      })

      it.effect("an interpreter that is too old is refused with its version", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const old = sandbox.write("old-python", pretending("3.9.18"), true)
          const reason = reasonOf(yield* failure(new Watched().make(system(sandbox, old))), "PythonNotFound")
          assert.strictEqual(reason.tried[0]?.candidate, old)
          assert.match(reason.tried[0]!.found, /Python 3\.9\.18, older than the oldest supported 3\.10/)
        })
      )

      it.effect("what the system does not start is refused with what the system says", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const found = (python: string) =>
            Effect.map(
              failure(new Watched().make({ ...managed(sandbox), python })),
              (reason) => reasonOf(reason, "PythonNotFound").tried[0]!.found
            )
          const plain = sandbox.write("plain", script("exit 0"))
          assert.strictEqual(yield* found(plain), `spawn ${plain} EACCES`)
          const busy = sandbox.write("busy", script("exit 0"), true)
          const writer = NFS.openSync(busy, "a")
          yield* Effect.addFinalizer(() => Effect.sync(() => NFS.closeSync(writer)))
          assert.strictEqual(yield* found(busy), `spawn ETXTBSY`)
        })
      )

      it.effect("something that is not Python is refused with what it said", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const other = sandbox.write("other", script("echo 'Unknown option: -I' >&2; exit 2"), true)
          const reason = reasonOf(yield* failure(new Watched().make(system(sandbox, other))), "PythonNotFound")
          assert.match(reason.tried[0]!.found, /exit code 2: Unknown option: -I/)
        })
      )

      it.effect("SYNAPSE_PYTHON is used, and is an error when it is wrong", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const env = plainHost({ SYNAPSE_PYTHON: realPython }).env
          const found = yield* new Watched().make(system(sandbox), { env })
          assert.strictEqual(found.python, realPython)
          const wrong = { ...env, SYNAPSE_PYTHON: "no-such-python" }
          const reason = reasonOf(yield* failure(new Watched().make(system(sandbox), { env: wrong })), "PythonNotFound")
          assert.include(reason.wanted, "SYNAPSE_PYTHON=no-such-python")
          assert.deepStrictEqual(reason.tried, [{ candidate: "no-such-python", found: "is not on PATH" }])
        })
      )

      it.effect("the newest on PATH within the range is used", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          for (const version of ["3.10", "3.11", "3.12", "3.13"]) {
            sandbox.write(`bin/python${version}`, pretending(`${version}.1`), true)
          }
          sandbox.write("bin/python3", pretending("3.10.1"), true)
          const make = (python?: string) => new Watched().make(system(sandbox, python), machine(sandbox))
          assert.strictEqual((yield* make()).version, "3.13.1")
          assert.strictEqual((yield* make(">=3.11,<3.13")).version, "3.12.1")
          assert.strictEqual((yield* make("3.11")).version, "3.11.1")
          assert.strictEqual((yield* make("python3")).version, "3.10.1")
          const reason = reasonOf(yield* failure(make(">=3.14")), "PythonNotFound")
          assert.strictEqual(reason.wanted, ">=3.14")
          assert.deepInclude(reason.tried, {
            candidate: NPath.join(sandbox.directory, "bin/python3"),
            found: "Python 3.10.1, not in the range >=3.14"
          })
        })
      )

      it.effect("a shim that leads nowhere is passed over, and asked again only when its world changes", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("bin/python3.13", script("echo 'python3.13: command not found' >&2; exit 127"), true)
          sandbox.write("bin/python3", pretending("3.11.2"), true)
          const make = () => {
            const watched = new Watched()
            return Effect.map(watched.make(system(sandbox), machine(sandbox)), ({ version }) => [
              version,
              watched.commands.length
            ])
          }
          assert.deepStrictEqual(yield* make(), ["3.11.2", 2])
          assert.deepStrictEqual(yield* make(), ["3.11.2", 0])
          sandbox.write(".python-version", "3.13")
          assert.deepStrictEqual(yield* make(), ["3.11.2", 1])
        })
      )

      it.effect("an interpreter that was replaced is asked again", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const make = () => new Watched().make(system(sandbox), machine(sandbox))
          const file = sandbox.write("bin/python3", pretending("3.11.2"), true)
          assert.strictEqual((yield* make()).version, "3.11.2")
          sandbox.write("bin/python3", `${pretending("3.12.7")}\n`, true)
          assert.strictEqual((yield* make()).version, "3.12.7")
          NFS.rmSync(file)
          reasonOf(yield* failure(make()), "PythonNotFound")
        })
      )

      it.effect("uv's choice comes before PATH, and uv is asked once", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const chosen = sandbox.write("uv-python", pretending("3.12.3"), true)
          sandbox.write(
            "bin/uv",
            script(`echo "$UV_PYTHON_DOWNLOADS $*" >> '${sandbox.directory}/asked'; echo '${chosen}'`),
            true
          )
          sandbox.write("bin/python3", pretending("3.11.2"), true)
          const make = () => new Watched().make(system(sandbox, ">=3.11"), machine(sandbox))
          assert.strictEqual((yield* make()).python, chosen)
          assert.strictEqual((yield* make()).python, chosen)
          assert.strictEqual(
            NFS.readFileSync(`${sandbox.directory}/asked`, "utf8"),
            "never python find --system --no-python-downloads >=3.11\n"
          )
        })
      )

      it.effect("on Windows the launcher is asked, and the Store stub is told from Python", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const stub = sandbox.write("Microsoft/WindowsApps/python.exe", script("exit 9"), true)
          const host = (...bin: ReadonlyArray<string>): Partial<Host> => ({
            platform: "win32",
            env: { Path: bin.map((name) => NPath.join(sandbox.directory, name)).join(";") },
            home: sandbox.directory
          })
          const reason = reasonOf(
            yield* failure(new Watched().make(system(sandbox), host("Microsoft/WindowsApps"))),
            "PythonNotFound"
          )
          assert.deepInclude(reason.tried, { candidate: stub, found: "the Microsoft Store stub, not Python" })
          const target = sandbox.write("Python312/python.exe", pretending("3.12.4"), true)
          sandbox.write("Windows/py.exe", script(`[ "$1" = -3 ] && echo '${target}'`), true)
          const found = yield* new Watched().make(system(sandbox), host("Microsoft/WindowsApps", "Windows"))
          assert.deepStrictEqual([found.python, found.version], [target, "3.12.4"])
        })
      )

      it.effect("an activated environment is used as it is where an existing one is wanted", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const venv = NPath.join(sandbox.directory, "activated")
          execFileSync(realPython, ["-m", "venv", "--without-pip", venv])
          const env = plainHost({ VIRTUAL_ENV: venv }).env
          const options = {
            directory: sandbox.directory,
            environment: { mode: "existing" as const, cacheDirectory: sandbox.cache }
          }
          const found = yield* new Watched().make(options, { env })
          assert.deepStrictEqual([found.kind, found.path, found.python], ["user", venv, NPath.join(venv, "bin/python")])
          const named = yield* new Watched().make({ ...options, python: venv })
          assert.deepStrictEqual(named, found)
          const base = yield* new Watched().make(system(sandbox, found.python), { env })
          assert.deepStrictEqual([base.kind, base.path, base.python], ["system", undefined, realPython])
        })
      )
    })

    describe("the user's own .venv", () => {
      /** An interpreter that is named comes before the module's own. */
      const unnamed = (sandbox: Sandbox) => ({ ...managed(sandbox), python: undefined })
      const makeAny = (sandbox: Sandbox) => new Watched().make(unnamed(sandbox))

      it.effect("is used as it is and never touched", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "demo\n")
          const venv = NPath.join(sandbox.directory, ".venv")
          execFileSync(realPython, ["-m", "venv", "--without-pip", venv])
          const before = NFS.readdirSync(venv, { recursive: true }).sort()
          const found = yield* makeAny(sandbox)
          assert.deepStrictEqual([found.kind, found.path, found.python], ["user", venv, NPath.join(venv, "bin/python")])
          assert.deepStrictEqual(NFS.readdirSync(venv, { recursive: true }).sort(), before)
          assert.isTrue(NFS.lstatSync(venv).isDirectory())
          assert.deepStrictEqual(entries(NPath.join(sandbox.cache, "envs")), [])
        })
      )

      it.effect("may be a link to somewhere else", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const venv = NPath.join(sandbox.directory, "elsewhere")
          execFileSync(realPython, ["-m", "venv", "--without-pip", venv])
          NFS.symlinkSync("elsewhere", NPath.join(sandbox.directory, ".venv"))
          assert.strictEqual((yield* makeAny(sandbox)).kind, "user")
          assert.strictEqual(NFS.readlinkSync(NPath.join(sandbox.directory, ".venv")), "elsewhere")
        })
      )

      it.effect("whose interpreter is gone is an error that says how to repair it", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          NFS.mkdirSync(NPath.join(sandbox.directory, ".venv/bin"), { recursive: true })
          NFS.symlinkSync("/gone/python", NPath.join(sandbox.directory, ".venv/bin/python"))
          const reason = reasonOf(yield* failure(makeAny(sandbox)), "PythonNotFound")
          assert.match(reason.tried[0]!.found, /does not exist.*venv --clear \.venv/)
          assert.isTrue(NFS.lstatSync(NPath.join(sandbox.directory, ".venv")).isDirectory())
        })
      )

      it.effect("has its interpreter in Scripts on Windows", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const interpreter = sandbox.write(".venv/Scripts/python.exe", pretending("3.12.4"), true)
          const found = yield* new Watched().make(unnamed(sandbox), {
            platform: "win32",
            env: {},
            home: sandbox.directory
          })
          assert.strictEqual(found.python, interpreter)
        })
      )

      it.effect("that is a file is left alone", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write(".venv", "the name of an environment\n")
          assert.strictEqual((yield* makeManaged(sandbox)).kind, "managed")
          assert.strictEqual(
            NFS.readFileSync(NPath.join(sandbox.directory, ".venv"), "utf8"),
            "the name of an environment\n"
          )
        })
      )
    })

    describe.concurrent("a managed environment", () => {
      it.effect("is made once, visibly, with a link to it, and is found again without a process or a word", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "needy\n")
          const first = new Watched()
          const made = yield* first.make(managed(sandbox))
          assert.strictEqual(made.kind, "managed")
          assert.strictEqual(made.directory, sandbox.directory)
          assert.strictEqual(demoValue(made), "1")
          assert.strictEqual(NFS.realpathSync(NPath.join(sandbox.directory, ".venv")), made.path)
          assert.strictEqual(NFS.realpathSync(made.python), NFS.realpathSync(realPython))
          assert.deepStrictEqual(
            first.logs.filter((line) => !/^Debug|^Info: Still at it/.test(line)),
            [
              "Info: Creating the Python environment",
              "Info: Installing needy",
              "Info: Installing msgspec",
              "Info: The Python environment is ready"
            ]
          )
          const second = new Watched()
          assert.deepStrictEqual(yield* second.make(managed(sandbox)), made)
          assert.deepStrictEqual(second.commands, [])
          assert.deepStrictEqual(
            second.logs.filter((line) => !line.startsWith("Debug")),
            []
          )

          NFS.rmSync(NPath.join(sandbox.directory, ".venv"))
          yield* makeManaged(sandbox)
          assert.strictEqual(NFS.realpathSync(NPath.join(sandbox.directory, ".venv")), made.path)

          sandbox.write("requirements.txt", "demo==2.0\n")
          const changed = yield* makeManaged(sandbox)
          assert.notStrictEqual(changed.path, made.path)
          assert.strictEqual(demoValue(changed), "2")
          assert.strictEqual(NFS.realpathSync(NPath.join(sandbox.directory, ".venv")), changed.path)
          assert.strictEqual(demoValue(made), "1")
        })
      )

      it.effect("has the dependencies of a pyproject.toml", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("pyproject.toml", `[project]\nname = "x"\nversion = "1"\ndependencies = ["demo==2.0"]\n`)
          const made = yield* makeManaged(sandbox)
          assert.strictEqual(demoValue(made), "2")
          assert.strictEqual(python(made, "import importlib.util; print(importlib.util.find_spec('x'))"), "None")
        })
      )

      it.effect("is made without the codec when that cannot be had, with a warning", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const wheels = NPath.join(sandbox.directory, "wheels")
          NFS.mkdirSync(wheels)
          const watched = new Watched()
          const { env } = plainHost({ PIP_CONFIG_FILE: "/dev/null", PIP_FIND_LINKS: "", PIP_NO_INDEX: "1" })
          const made = yield* watched.make(managed(sandbox, { offline: wheels }), { env })
          assert.match(watched.logs.join("\n"), /Warn: msgspec cannot be installed, the runtime uses its slower codec/)
          assert.include(python(made, "import synapse; print(list(synapse.__path__)[0])"), made.path!)
          const [record] = entries(NPath.join(sandbox.cache, "ready"))
          const ready: unknown = JSON.parse(NFS.readFileSync(NPath.join(sandbox.cache, "ready", record!), "utf8"))
          assert.deepInclude(ready, { codec: false })
        })
      )

      it.effect("in a cache that was moved is made again", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const before = yield* makeManaged(sandbox)
          const moved = `${sandbox.cache}-moved`
          NFS.renameSync(sandbox.cache, moved)
          const after = yield* makeManaged(sandbox, { cacheDirectory: moved })
          assert.notStrictEqual(NPath.basename(after.path!), NPath.basename(before.path!))
          python(after, "import synapse")
          assert.strictEqual(NFS.realpathSync(NPath.join(sandbox.directory, ".venv")), after.path)
        })
      )

      it.effect("whose interpreter is gone is made again", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const before = yield* makeManaged(sandbox)
          for (const name of ["python", "python3"]) {
            NFS.rmSync(NPath.join(before.path!, "bin", name), { force: true })
            NFS.symlinkSync("/gone/python", NPath.join(before.path!, "bin", name))
          }
          const after = yield* makeManaged(sandbox)
          assert.notStrictEqual(after.path, before.path)
          python(after, "import synapse")
        })
      )

      it.effect(
        "that cannot be installed is an error with the command, its output and advice, and leaves nothing",
        () =>
          Effect.gen(function* () {
            const sandbox = yield* makeSandbox
            sandbox.write("requirements.txt", "broken\n")
            const reason = reasonOf(yield* failure(makeManaged(sandbox)), "InstallFailed")
            assert.match(reason.command, /pip .*install .*--no-index/)
            assert.strictEqual(reason.exitCode, 1)
            assert.match(reason.output, /absent-from-the-folder/)
            assert.include(reason.hint!, `The folder ${wheelsDirectory()} lacks a wheel`)
            assert.deepStrictEqual(entries(NPath.join(sandbox.cache, "envs")), [])
            assert.deepStrictEqual(entries(NPath.join(sandbox.cache, "ready")), [])
            assert.isFalse(NFS.existsSync(NPath.join(sandbox.directory, ".venv")))
          })
      )

      it.effect("from a folder of wheels that is not there is an error that names the folder", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const reason = reasonOf(yield* failure(makeManaged(sandbox, { offline: "absent" })), "InstallFailed")
          assert.include(reason.hint!, NPath.join(sandbox.directory, "absent"))
        })
      )

      it.effect("that needs a package, offline without a folder, is an error that says so and leaves nothing", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "demo\n")
          const { env } = plainHost({ PIP_CONFIG_FILE: "/dev/null", PIP_FIND_LINKS: "" })
          const make = new Watched().make(managed(sandbox, { offline: true }), { env })
          const reason = reasonOf(yield* failure(make), "InstallFailed")
          assert.match(reason.hint!, /no folder of wheels is given/)
          assert.deepStrictEqual(entries(NPath.join(sandbox.cache, "envs")), [])
        })
      )

      it.effect(
        "in a cache that is full is an error that says so, and leaves nothing that passes for an environment",
        ({ skip }) =>
          Effect.gen(function* () {
            const sandbox = yield* makeSandbox
            sandbox.write("requirements.txt", "large\nneedy\nmsgspec\n")
            NFS.mkdirSync(sandbox.cache)
            const mount = (...args: ReadonlyArray<string>) =>
              Effect.option(Effect.try(() => execFileSync("mount", [...args, sandbox.cache], { stdio: "pipe" })))
            if (
              process.platform !== "linux" ||
              (yield* mount("-t", "tmpfs", "-o", "size=1m", "tmpfs"))._tag === "None"
            ) {
              return skip("a file system can be mounted only on Linux and by root")
            }
            yield* Effect.addFinalizer(() => Effect.sync(() => execFileSync("umount", ["--lazy", sandbox.cache])))
            // Room for the environment and not for its packages, then for less and less of it.
            for (const free of [1024, 512, 64, 8, 0]) {
              const ballast = NPath.join(sandbox.cache, "ballast")
              NFS.writeFileSync(ballast, "")
              const { bavail, bsize } = NFS.statfsSync(sandbox.cache)
              NFS.writeFileSync(ballast, Buffer.alloc(Math.max(bavail * bsize - free * 1024, 0)))
              const reason = reasonOf(yield* failure(makeManaged(sandbox)), "InstallFailed")
              assert.match(reason.hint ?? reason.output, /disk is full/, `${free} KiB`)
              assert.deepStrictEqual(entries(NPath.join(sandbox.cache, "envs")), [])
              assert.deepStrictEqual(entries(NPath.join(sandbox.cache, "ready")), [])
              assert.isFalse(NFS.existsSync(NPath.join(sandbox.directory, ".venv")))
            }
            yield* mount("-o", "remount,size=100m")
            assert.strictEqual(demoValue(yield* makeManaged(sandbox)), "1")
          })
      )

      it.effect("with a pinned hash that does not match is refused", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", `demo==1.0 --hash=sha256:${"0".repeat(64)}\n`)
          const reason = reasonOf(yield* failure(makeManaged(sandbox)), "InstallFailed")
          assert.match(reason.hint!, /hash mismatch/)
        })
      )
    })

    describe("an environment that is made again in the same process", () => {
      it.effect("leaves the old one as it is, and whatever runs in it goes on", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "needy\nmsgspec\n")
          const before = yield* makeManaged(sandbox)
          const worker = spawn(
            before.python,
            [
              "-I",
              "-B",
              "-u",
              "-c",
              "import sys; print(sys.prefix); input(); import needy, synapse; print(needy.demo.VALUE)"
            ],
            { stdio: ["pipe", "pipe", "inherit"] }
          )
          yield* Effect.addFinalizer(() => Effect.sync(() => worker.kill("SIGKILL")))
          const line = Effect.promise(
            () => new Promise<string>((resolve) => worker.stdout.once("data", (text) => resolve(String(text).trim())))
          )
          assert.strictEqual(yield* line, before.path)
          // As old as what is collected when nobody is known to use it.
          const old = new Date(Date.now() - 3_600_000)
          NFS.utimesSync(before.path!, old, old)
          const state = () =>
            NFS.readdirSync(before.path!, { recursive: true }).map((name) => {
              const { ino, mtimeMs, size } = NFS.lstatSync(NPath.join(before.path!, String(name)))
              return [name, ino, mtimeMs, size]
            })
          const untouched = state()
          sandbox.write("requirements.txt", "demo==2.0\nmsgspec\n")
          const [after, again] = yield* Effect.all([makeManaged(sandbox), makeManaged(sandbox)], {
            concurrency: "unbounded"
          })
          assert.strictEqual(after.path, again.path)
          assert.strictEqual(demoValue(after), "2")
          assert.strictEqual(NFS.realpathSync(NPath.join(sandbox.directory, ".venv")), after.path)
          assert.deepStrictEqual(state(), untouched)
          const answer = yield* Effect.forkChild(line)
          yield* Effect.yieldNow
          worker.stdin.write("\n")
          assert.strictEqual(yield* Fiber.join(answer), "1")
          sandbox.write("requirements.txt", "needy\nmsgspec\n")
          assert.strictEqual((yield* makeManaged(sandbox)).path, before.path)
        })
      )
    })

    describe.concurrent("a strict environment", () => {
      const wheelOf = (name: string, version: string) => `${name}-${version}-py3-none-any.whl`
      const hashed = (file: string, requirement: string) => {
        const content = NFS.readFileSync(NPath.join(wheelsDirectory(), file))
        return `${requirement} --hash=sha256:${createHash("sha256").update(content).digest("hex")}\n`
      }
      const wheel = (name: string, version: string) => hashed(wheelOf(name, version), `${name}==${version}`)

      /** An index on the loopback interface that has what the folder of wheels has, and knows what it was asked. */
      const makeIndex = Effect.gen(function* () {
        const asked: Array<string> = []
        const server = createServer((request, response) => {
          const path = request.url!
          asked.push(path)
          const file = NPath.join(wheelsDirectory(), NPath.basename(path))
          if (path.startsWith("/files/") && NFS.existsSync(file)) return void response.end(NFS.readFileSync(file))
          const name = NPath.basename(path)
          const links = NFS.readdirSync(wheelsDirectory())
            .filter((file) => path.startsWith("/simple/") && file.startsWith(`${name}-`))
            .map((file) => `<a href="/files/${file}">${file}</a>`)
          response.writeHead(links.length === 0 ? 404 : 200, { "content-type": "text/html" }).end(links.join("\n"))
        })
        yield* Effect.acquireRelease(
          Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
          () => Effect.sync(() => server.close())
        )
        return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/simple/`, asked }
      })

      /** Every way that pip and uv know to be led to another index. */
      const injected = (sandbox: Sandbox, url: string): Record<string, string> => {
        const conf = `[global]\nindex-url = ${url}\nextra-index-url = ${url}\nfind-links = ${url}demo/\n`
        const toml = `extra-index-url = ["${url}"]\nfind-links = ["${url}demo/"]\n`
        sandbox.write("../home/.config/pip/pip.conf", conf)
        sandbox.write("../home/.config/uv/uv.toml", toml)
        sandbox.write("uv.toml", toml)
        return {
          HOME: NPath.join(sandbox.directory, "../home"),
          XDG_CONFIG_HOME: NPath.join(sandbox.directory, "../home/.config"),
          XDG_CACHE_HOME: NPath.join(sandbox.directory, "../installer-cache"),
          PIP_CONFIG_FILE: sandbox.write("../pip.conf", conf),
          PIP_INDEX_URL: url,
          PIP_EXTRA_INDEX_URL: url,
          PIP_FIND_LINKS: `${url}demo/`,
          PIP_NO_BINARY: ":all:",
          UV_INDEX: url,
          UV_DEFAULT_INDEX: url,
          UV_INDEX_STRATEGY: "unsafe-best-match",
          UV_FIND_LINKS: `${url}demo/`,
          UV_NO_VERIFY_HASHES: "1",
          NO_PROXY: "127.0.0.1",
          SOURCE_RAN: NPath.join(sandbox.directory, "../source-ran")
        }
      }

      for (const installer of ["pip", "uv"] as const) {
        const prepare = Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const good = yield* makeIndex
          const evil = yield* makeIndex
          const { env } = plainHost({
            ...injected(sandbox, evil.url),
            PATH: installer === "uv" ? `${uvDirectory()}:${process.env.PATH}` : process.env.PATH
          })
          const make = (more: PythonEnvironment.EnvironmentSettings = {}) =>
            new Watched().make(
              managed(sandbox, { offline: false, installer, strict: true, index: good.url, ...more }),
              { env }
            )
          const refused = Effect.gen(function* () {
            const reason = reasonOf(yield* failure(make()), "InstallFailed")
            assert.deepStrictEqual(entries(NPath.join(sandbox.cache, "envs")), [])
            assert.deepStrictEqual(entries(NPath.join(sandbox.cache, "ready")), [])
            assert.isFalse(NFS.existsSync(env.SOURCE_RAN!))
            assert.deepStrictEqual(evil.asked, [])
            return reason
          })
          return { sandbox, good, evil, make, refused }
        })

        it.effect(`has what is pinned, from one index whatever else ${installer} is told`, () =>
          Effect.gen(function* () {
            const { evil, good, make, sandbox } = yield* prepare
            sandbox.write(
              "requirements.txt",
              `--only-binary :all:\n${wheel("needy", "1.0")}${wheel("demo", "1.0")}${wheel("msgspec", "99.0")}-c pins.txt\n`
            )
            sandbox.write("pins.txt", "demo==1.0\n")
            const made = yield* make()
            assert.strictEqual(demoValue(made), "1")
            assert.isNotEmpty(good.asked)
            assert.deepStrictEqual(evil.asked, [])
            assert.strictEqual((yield* make()).path, made.path)
            // The same variables and files do lead elsewhere where nothing is said against it.
            const loose = yield* make({ strict: false, index: undefined })
            assert.notStrictEqual(loose.path, made.path)
            assert.isNotEmpty(evil.asked)
          })
        )

        it.effect(`has the codec only where it is pinned too, with ${installer}`, () =>
          Effect.gen(function* () {
            const { good, make, sandbox } = yield* prepare
            sandbox.write("requirements.txt", wheel("demo", "1.0"))
            const made = yield* make()
            assert.strictEqual(demoValue(made), "1")
            assert.isEmpty(good.asked.filter((path) => path.includes("msgspec")))
            assert.strictEqual(
              python(made, "import importlib.util; print(importlib.util.find_spec('msgspec'))"),
              "None"
            )
          })
        )

        it.effect(`refuses what a pinned package needs without a hash, with ${installer}`, () =>
          Effect.gen(function* () {
            const { refused, sandbox } = yield* prepare
            sandbox.write("requirements.txt", wheel("needy", "1.0"))
            const reason = yield* refused
            assert.match(
              reason.hint!,
              /also indirectly.*pip-compile --generate-hashes.*uv pip compile --generate-hashes/
            )
          })
        )

        it.effect(`refuses a file that is not the pinned one, with ${installer}`, () =>
          Effect.gen(function* () {
            const { refused, sandbox } = yield* prepare
            sandbox.write("requirements.txt", `demo==1.0 --hash=sha256:${"0".repeat(64)}\n`)
            assert.match((yield* refused).hint!, /hash mismatch/)
          })
        )

        it.effect(`refuses what follows a comment that ends in a backslash, with ${installer}`, () =>
          Effect.gen(function* () {
            const { evil, refused, sandbox } = yield* prepare
            sandbox.write(
              "requirements.txt",
              `${wheel("demo", "1.0").trim()} # note \\\n--extra-index-url ${evil.url}\n`
            )
            const reason = yield* refused
            assert.include(reason.output, `requirements.txt:2: --extra-index-url ${evil.url}`)
          })
        )

        it.effect(`builds nothing from source, with ${installer}`, () =>
          Effect.gen(function* () {
            const { good, refused, sandbox } = yield* prepare
            sandbox.write("requirements.txt", hashed("source-1.0.tar.gz", "source==1.0"))
            const reason = yield* refused
            assert.include(reason.hint!, `${good.url}, or has no wheel there`)
          })
        )

        it.effect(`refuses a package that the index does not know, with ${installer}`, () =>
          Effect.gen(function* () {
            const { good, refused, sandbox } = yield* prepare
            sandbox.write("requirements.txt", wheel("demo", "1.0").replace("demo", "nunpy"))
            assert.include((yield* refused).hint!, `unknown to the index ${good.url}`)
          })
        )

        it.effect(`takes the folder of wheels where one is named, with ${installer}`, () =>
          Effect.gen(function* () {
            const { evil, good, make, sandbox } = yield* prepare
            sandbox.write("requirements.txt", `${wheel("demo", "2.0")}${wheel("msgspec", "99.0")}`)
            assert.strictEqual(demoValue(yield* make({ offline: wheelsDirectory() })), "2")
            assert.deepStrictEqual([...good.asked, ...evil.asked], [])
          })
        )

        it.effect(`an index that is named takes the place of the configured one, with ${installer}`, () =>
          Effect.gen(function* () {
            const sandbox = yield* makeSandbox
            const configured = yield* makeIndex
            const named = yield* makeIndex
            sandbox.write("requirements.txt", "demo==1.0\nmsgspec\n")
            const { env } = plainHost({
              PATH: installer === "uv" ? `${uvDirectory()}:${process.env.PATH}` : process.env.PATH,
              XDG_CACHE_HOME: NPath.join(sandbox.directory, "../installer-cache"),
              NO_PROXY: "127.0.0.1",
              PIP_INDEX_URL: configured.url,
              UV_DEFAULT_INDEX: configured.url
            })
            const make = (index?: string) =>
              new Watched().make(managed(sandbox, { offline: false, installer, index }), { env })
            const one = yield* make()
            assert.isNotEmpty(configured.asked)
            assert.deepStrictEqual(named.asked, [])
            configured.asked.length = 0
            const other = yield* make(named.url)
            assert.isNotEmpty(named.asked)
            assert.deepStrictEqual(configured.asked, [])
            assert.notStrictEqual(other.path, one.path)
          })
        )
      }

      it.effect("refuses before any installer runs what is not pinned by version and hash, with its place", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const hash = `--hash=sha256:${"0".repeat(64)}`
          const refused = [
            "demo",
            "demo==1.0",
            `demo>=1.0 ${hash}`,
            `demo==1.* ${hash}`,
            `demo ${hash}`,
            "demo==1.0 --hash=md5:0",
            `demo==1.0 ${hash} --index-url http://127.0.0.1:9/`,
            `demo==1.0 ; python_version > '3' --find-links . ${hash}`,
            `demo @ http://127.0.0.1:9/demo-1.0-py3-none-any.whl ${hash}`,
            `demo @ git+https://127.0.0.1:9/demo ${hash}`,
            `http://127.0.0.1:9/demo-1.0-py3-none-any.whl ${hash}`,
            `./demo-1.0-py3-none-any.whl ${hash}`,
            "-e ../shared",
            "--editable=../shared",
            "--index-url http://127.0.0.1:9/",
            "-i http://127.0.0.1:9/",
            "--extra-index-url http://127.0.0.1:9/",
            "--find-links wheels",
            "--trusted-host 127.0.0.1",
            "--no-binary :all:",
            "--only-binary demo",
            "--pre",
            "-r http://127.0.0.1:9/requirements.txt"
          ]
          sandbox.write("requirements/base.txt", `${refused.join("\n")}\n`)
          sandbox.write(
            "requirements/pins.txt",
            `demo==1.0 ; python_version > "3"\nother @ http://127.0.0.1:9/other.whl\n--pre\n`
          )
          sandbox.write(
            "requirements.txt",
            `--require-hashes\n# A comment\u2028--pre\ndemo[a,b]==1.0 ; python_version > "3" \\\n  ${hash} \\\n  ${hash}  # via x\n` +
              "-r requirements/base.txt\n-c requirements/pins.txt\n"
          )
          const { loose } = yield* readRequirements(sandbox.directory, undefined)
          const at = (file: string) => NPath.join(sandbox.directory, file)
          assert.deepStrictEqual(loose, [
            `${at("requirements.txt")}:3: --pre`,
            ...refused.map((line, index) => `${at("requirements/base.txt")}:${index + 1}: ${line}`),
            `${at("requirements/pins.txt")}:2: other @ http://127.0.0.1:9/other.whl`,
            `${at("requirements/pins.txt")}:3: --pre`
          ])
          const watched = new Watched()
          const reason = reasonOf(yield* failure(watched.make(managed(sandbox, { strict: true }))), "InstallFailed")
          assert.include(reason.output, `${at("requirements/base.txt")}:2: demo==1.0`)
          assert.match(reason.hint!, /pip-compile --generate-hashes.*uv pip compile --generate-hashes/)
          assert.deepStrictEqual(
            watched.commands.filter((command) => command.includes("_provision.py")),
            []
          )
          assert.deepStrictEqual(entries(NPath.join(sandbox.cache, "envs")), [])
        })
      )

      it.effect("refuses what the installers read as something else, each in its way", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const pinned = `demo==1.0 --hash=sha256:${"0".repeat(64)}\n`
          for (const file of ["good.txt", "a b.txt", "a#b.txt", 'a"b".txt', "=a.txt", "a\\b.txt"])
            sandbox.write(file, pinned)
          const includes = (line: string) => {
            sandbox.write("requirements.txt", `${line}\n`)
            return Effect.map(readRequirements(sandbox.directory, undefined), ({ loose }) => loose.length === 0)
          }
          for (const line of [
            "-r good.txt",
            "-rgood.txt",
            "--requirement=good.txt",
            "--constraint good.txt",
            '-c "a b.txt"'
          ]) {
            assert.isTrue(yield* includes(line), line)
          }
          for (const line of [
            "-r a#b.txt",
            '-r a"b".txt',
            "-r a b.txt",
            "-r a\\b.txt",
            "-r=good.txt",
            "--requirement = good.txt"
          ]) {
            assert.isFalse(yield* includes(line), line)
          }
          for (const comment of ["# coding: utf-8", "# A word on encoding", "#\n#\n# coding: utf-7"]) {
            assert.isTrue(yield* includes(`${comment}\n${pinned}`), comment)
          }
          for (const comment of ["# coding: utf-7", "#\n#vim: set fileencoding=utf_7 :"]) {
            assert.isFalse(yield* includes(`${comment}\n# +AAo---pre\n${pinned}`), comment)
          }
        })
      )

      it.effect("refuses the dependencies of a pyproject.toml, which has no hashes", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const toml = sandbox.write("pyproject.toml", `[project]\nname = "x"\ndependencies = ["demo==1.0"]\n`)
          const reason = reasonOf(yield* failure(makeManaged(sandbox, { strict: true })), "InstallFailed")
          assert.include(reason.output, toml)
          for (const harmless of [`[project]\nname = "x"\ndependencies = []\n`, "[tool.x]\ny = 1\n"]) {
            sandbox.write("pyproject.toml", harmless)
            assert.deepStrictEqual((yield* readRequirements(sandbox.directory, undefined)).loose, [])
          }
        })
      )
    })

    describe("progress in a terminal", () => {
      /** A terminal that keeps what it is shown. */
      const makeTerminal = () => {
        const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 200 })
        const shown = { text: "" }
        stream.on("data", (part) => {
          shown.text += part
        })
        return { stream, shown }
      }
      const hideCursor = "\u001b[?25l"
      const showCursor = "\u001b[?25h"

      it.effect("is a bar that is gone in the end, and no log line but the last", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "needy\nmsgspec\n")
          const { shown, stream } = makeTerminal()
          const watched = new Watched()
          yield* watched.make(managed(sandbox), { terminal: stream })
          assert.include(shown.text, "Installing needy, msgspec")
          assert.isAbove(shown.text.lastIndexOf(showCursor), shown.text.lastIndexOf(hideCursor))
          assert.deepStrictEqual(
            watched.logs.filter((line) => !line.startsWith("Debug")),
            ["Info: The Python environment is ready"]
          )
          const { length } = shown.text
          yield* watched.make(managed(sandbox), { terminal: stream })
          assert.strictEqual(shown.text.length, length)
        })
      )

      it.effect("is cleaned up after a failure and after an interruption", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "broken\n")
          for (const interrupted of [false, true]) {
            const { shown, stream } = makeTerminal()
            const fiber = yield* Effect.forkChild(new Watched().make(managed(sandbox), { terminal: stream }))
            yield* eventually("the bar is drawn", () => shown.text.includes(hideCursor))
            if (interrupted) yield* Fiber.interrupt(fiber)
            else yield* Fiber.await(fiber)
            assert.isAbove(shown.text.lastIndexOf(showCursor), shown.text.lastIndexOf(hideCursor))
          }
        })
      )
    })

    describe.concurrent("crashes and neighbours", () => {
      const provisioning = (command: string) => command.includes("_provision.py")

      it.effect("a builder that is killed at any moment costs that build only", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "needy\nmsgspec\n")
          for (const [index, after] of [0, 250, 600].entries()) {
            const watched = new Watched()
            watched.onSpawn = (pid, command) => {
              // The builder alone, or it and everything it runs.
              if (provisioning(command))
                setTimeout(() => kill(index % 2 === 0 ? pid : -pid), after + Math.random() * 100)
            }
            const result = yield* Effect.result(watched.make(managed(sandbox)))
            if (Result.isFailure(result)) reasonOf(result.failure.reason, "InstallFailed")
            const made = yield* makeManaged(sandbox)
            assert.strictEqual(demoValue(made), "1")
            NFS.rmSync(sandbox.cache, { recursive: true, force: true, maxRetries: 5 })
          }
        })
      )

      const kill = (pid: number) => {
        try {
          process.kill(pid, "SIGKILL")
        } catch {
          // It has left already.
        }
      }

      it.effect("what a killed builder left is removed by a later build, and what is being built is not", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const old = new Date(Date.now() - 3_600_000)
          const leave = (name: string, age?: Date) => {
            const env = NPath.join(sandbox.cache, "envs", name)
            NFS.mkdirSync(env, { recursive: true })
            NFS.writeFileSync(NPath.join(env, "synapse-build.json"), "{}")
            if (age !== undefined) NFS.utimesSync(env, age, age)
            return env
          }
          const dead = leave("dead", old)
          const young = leave("young")
          const busy = leave("busy", old)
          const holder = spawn(
            "python3",
            [
              "-c",
              "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print(1, flush=True); input()",
              NPath.join(busy, "synapse-build.json")
            ],
            { stdio: ["pipe", "pipe", "inherit"] }
          )
          yield* Effect.addFinalizer(() => Effect.sync(() => holder.kill("SIGKILL")))
          yield* Effect.promise(() => new Promise((resolve) => holder.stdout.once("data", resolve)))
          yield* makeManaged(sandbox)
          assert.deepStrictEqual(
            [dead, young, busy].map((env) => NFS.existsSync(env)),
            [false, true, true]
          )
        })
      )

      it.effect("a cache that is removed while it is built in ends with a good environment or a typed error", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "needy\nmsgspec\n")
          const envs = NPath.join(sandbox.cache, "envs")
          const built = (file: RegExp) => list(envs).some((name) => file.test(name))
          for (const file of [
            /synapse-build\.json$/,
            /bin.python$/,
            /site-packages.demo\.py$/,
            /site-packages.synapse$/
          ]) {
            const making = yield* Effect.forkChild(Effect.result(makeManaged(sandbox)))
            yield* eventually(`there is ${file}`, () => built(file))
            remove(sandbox.cache)
            const result = yield* Fiber.join(making)
            if (Result.isSuccess(result)) assert.strictEqual(demoValue(result.success), "1")
            else reasonOf(result.failure.reason, "InstallFailed")
            assert.strictEqual(demoValue(yield* makeManaged(sandbox)), "1")
            remove(sandbox.cache)
          }
        })
      )

      const list = (directory: string): ReadonlyArray<string> => {
        try {
          return NFS.readdirSync(directory, { recursive: true }).map(String)
        } catch {
          return []
        }
      }

      /** What `rm -rf` does while others write. */
      const remove = (directory: string) => {
        try {
          NFS.rmSync(directory, { recursive: true, force: true })
        } catch {
          // A file was written behind its back; the rest is gone.
        }
      }

      it.effect("four processes at once build once, and all have the environment", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "demo==1.0\nmsgspec\n")
          const outputs = yield* Effect.forEach([1, 2, 3, 4], () => inAnotherProcess(sandbox).output, {
            concurrency: "unbounded"
          })
          const paths = outputs.map((output) => output.trim().split("\n").at(-1))
          assert.strictEqual(new Set(paths).size, 1, outputs.join("\n---\n"))
          assert.strictEqual(entries(NPath.join(sandbox.cache, "envs")).length, 1)
          assert.strictEqual(outputs.filter((output) => output.includes("Creating the Python environment")).length, 1)
          const made = yield* makeManaged(sandbox)
          assert.strictEqual(made.path, paths[0])
          assert.strictEqual(demoValue(made), "1")
        })
      )

      it.effect("four processes at once where there are no locks have one environment, and it stays", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "demo==1.0\nmsgspec\n")
          sandbox.write("../cache/locks", "no directory")
          const outputs = yield* Effect.forEach([1, 2, 3, 4], () => inAnotherProcess(sandbox).output, {
            concurrency: "unbounded"
          })
          const paths = outputs.map((output) => output.trim().split("\n").at(-1)!)
          assert.strictEqual(new Set(paths).size, 1, outputs.join("\n---\n"))
          const made = yield* makeManaged(sandbox)
          assert.strictEqual(made.path, paths[0])
          assert.strictEqual(demoValue(made), "1")
          const envs = NPath.join(sandbox.cache, "envs")
          assert.deepStrictEqual(entries(envs), [NPath.basename(paths[0]!)])
          // As old as what is collected when no record leads to it.
          const old = new Date(Date.now() - 3_600_000)
          NFS.utimesSync(paths[0]!, old, old)
          sandbox.write("requirements.txt", "demo==2.0\nmsgspec\n")
          assert.strictEqual(demoValue(yield* makeManaged(sandbox)), "2")
          assert.strictEqual(demoValue(made), "1")
        })
      )

      it.effect("interruption ends every process and removes what was begun", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "slow @ http://127.0.0.1:9/slow.whl\n")
          const pip = sandbox.write(
            "bin/uv",
            script(`[ "$1" = venv ] && exec '${realPython}' -m venv --without-pip "$6"; sleep 600`),
            true
          )
          const watched = new Watched()
          const env = plainHost({ PATH: `${NPath.dirname(pip)}:${process.env.PATH}` }).env
          const options = managed(sandbox, { installer: "uv" })
          const fiber = yield* Effect.forkChild(watched.make(options, { env }))
          yield* eventually("uv installs", () => processesWith(`${pip} pip install`).length > 0)
          yield* Fiber.interrupt(fiber)
          assert.deepStrictEqual(
            watched.pids.filter((pid) => isAlive(pid)),
            []
          )
          assert.deepStrictEqual(processesWith(sandbox.directory), [])
          assert.deepStrictEqual(entries(NPath.join(sandbox.cache, "envs")), [])
          assert.deepStrictEqual(entries(NPath.join(sandbox.cache, "ready")), [])
        })
      )

      it.effect("any file operation may fail: the error is typed, or nothing depends on it", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "demo==1.0\nmsgspec\n")
          const made = yield* makeManaged(sandbox)
          const fs = yield* FileSystem.FileSystem
          const cause = Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" })
          let left = 0
          /** Does what \`fs\` does, but for one operation. */
          const failing = new Proxy(fs, {
            get: (target, name: keyof FileSystem.FileSystem) => {
              const operation: unknown = target[name]
              if (typeof operation !== "function") return operation
              return (...args: ReadonlyArray<unknown>) =>
                Effect.suspend(() =>
                  left-- === 0
                    ? Effect.fail(systemError({ _tag: "Unknown", module: "FileSystem", method: name, cause }))
                    : operation.apply(target, args)
                )
            }
          })
          const failed: Array<string> = []
          for (let index = 0; left <= 0; index++) {
            left = index
            const result = yield* Effect.result(
              makeManaged(sandbox).pipe(Effect.provideService(FileSystem.FileSystem, failing))
            )
            if (Result.isSuccess(result)) assert.strictEqual(result.success.path, made.path, `operation ${index}`)
            else failed.push(result.failure.message)
          }
          assert.isNotEmpty(failed.filter((message) => message.includes("too many files are open; raise the limit")))
        })
      )

      it.effect("a builder does not outlive the process that waits for it", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const pip = sandbox.write(
            "bin/uv",
            script(`[ "$1" = venv ] && exec '${realPython}' -m venv --without-pip "$6"; sleep 600`),
            true
          )
          const path = `${NPath.dirname(pip)}:${process.env.PATH}`
          const child = inAnotherProcess(sandbox, { installer: "uv" }, { PATH: path, SYNAPSE_PYTHON: realPython })
          yield* eventually("uv installs", () => processesWith(`${pip} pip install`).length > 0)
          child.process.kill("SIGKILL")
          yield* eventually("everything ends", () => processesWith(sandbox.directory).length === 0)
        })
      )
    })

    describe("uv", () => {
      it.effect("that is demanded and not there is an error that says what to do", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          const host = { env: plainHost({ PATH: "/nowhere" }).env }
          const options = managed(sandbox, { installer: "uv" })
          const reason = reasonOf(yield* failure(new Watched().make(options, host)), "InstallFailed")
          assert.match(reason.hint!, /install it, or set environment\.installer/)
        })
      )

      it.effect("makes the environment when it is on PATH", () =>
        Effect.gen(function* () {
          const sandbox = yield* makeSandbox
          sandbox.write("requirements.txt", "needy\n")
          const host = { env: plainHost({ PATH: `${uvDirectory()}:${process.env.PATH}` }).env }
          const made = yield* new Watched().make(managed(sandbox, { installer: "auto" }), host)
          assert.strictEqual(demoValue(made), "1")
          assert.match(NFS.readFileSync(NPath.join(made.path!, "pyvenv.cfg"), "utf8"), /^uv = /m)
          sandbox.write("requirements.txt", "broken\n")
          const reason = reasonOf(
            yield* failure(new Watched().make(managed(sandbox, { installer: "uv" }), host)),
            "InstallFailed"
          )
          assert.match(reason.command, /uv pip install/)
          assert.match(reason.hint!, /lacks a wheel/)
        })
      )
    })
  })
})

/** `make` in a process of its own, which prints its log and last the path of the environment. */
const inAnotherProcess = (
  sandbox: Sandbox,
  more: PythonEnvironment.EnvironmentSettings = {},
  env: Record<string, string> = {}
) => {
  const code = `
    import { NodeServices } from "@effect/platform-node"
    import { Effect } from "effect"
    import * as PythonEnvironment from "${new URL("../src/PythonEnvironment.ts", import.meta.url)}"
    const made = await PythonEnvironment.make(${JSON.stringify(managed(sandbox, more))}).pipe(
      Effect.provide(NodeServices.layer), Effect.runPromise)
    console.log(made.path)`
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
    cwd: root,
    env: { ...plainHost().env, ...env },
    stdio: ["ignore", "pipe", "pipe"]
  })
  let text = ""
  child.stdout.on("data", (part) => {
    text += part
  })
  child.stderr.on("data", (part) => {
    text += part
  })
  return {
    process: child,
    output: Effect.callback<string>((resume) => {
      child.on("close", () => resume(Effect.succeed(text)))
    })
  }
}
