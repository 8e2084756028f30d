/** The command line: in this process where that tells as much, and as a program where signals, pipes or Node matter. */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process"
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { NodeServices } from "@effect/platform-node"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Layer, Sink, Stdio, Stream } from "effect"
import { TestConsole } from "effect/testing"
import { NdArray } from "effect-synapse"
import { run } from "../src/internal/cli/command.ts"
import { fromJson, toJson } from "../src/internal/cli/json.ts"
import { Host } from "../src/internal/environmentHost.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const bin = join(root, "dist/bin.js")
const work = mkdtempSync(join(tmpdir(), "synapse-cli-"))
// What modules there import is found as in this project.
symlinkSync(join(root, "node_modules"), join(work, "node_modules"))
afterAll(() => rmSync(work, { recursive: true, force: true }))

/** Writes files below a new directory, which it returns. */
const directoryOf = (files: Readonly<Record<string, string>>): string => {
  const directory = mkdtempSync(join(work, "d-"))
  for (const [file, content] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, file)), { recursive: true })
    writeFileSync(join(directory, file), content)
  }
  return directory
}

const python = directoryOf({
  "main.py": `import logging
import os
import time
from pathlib import Path

import synapse


class Unknown(synapse.Error):
    """Nobody of that name."""

    name: str


@synapse.handler
def main(payload):
    return payload


@synapse.handler(raises=[Unknown])
def age(name: str) -> int:
    if name != "Ada":
        raise Unknown(name=name)
    return 36


@synapse.handler
def broken() -> None:
    raise ValueError("as it should be")


@synapse.handler
def size(data: bytes) -> int:
    return len(data)


@synapse.handler
def chatty() -> str:
    print("printed")
    logging.getLogger("app").warning("logged")
    return "answered"


@synapse.handler
def binary() -> bytes:
    return bytes([0, 1, 254, 255])


@synapse.handler
def count(to: int):
    yield from range(to)


@synapse.handler
def fails_late():
    yield 1
    raise ValueError("too late")


@synapse.handler
def two_halves(gate: str):
    yield "first"
    while not os.path.exists(gate):
        time.sleep(0.01)
    yield "second"


@synapse.handler
def wait(marker: str) -> None:
    Path(marker).write_text(str(os.getpid()))
    time.sleep(600)


@synapse.handler
async def later() -> None: ...
`
})

interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs the command in this process. */
const cli = (args: ReadonlyArray<string>, stdin = ""): Effect.Effect<Outcome> => {
  let written = ""
  const append = (chunk: string | Uint8Array) =>
    Effect.sync(() => {
      written += typeof chunk === "string" ? chunk : Buffer.from(chunk).toString("latin1")
    })
  const stdout = () => Sink.forEach(append)
  const stdio = Stdio.layerTest({ stdout, stdin: Stream.make(new TextEncoder().encode(stdin)) })
  return Effect.gen(function* () {
    const code = yield* run(args)
    const printed = (yield* TestConsole.logLines).join("\n")
    return { code, stdout: printed + written, stderr: (yield* TestConsole.errorLines).join("\n") }
  }).pipe(Effect.provide([Layer.merge(NodeServices.layer, stdio), TestConsole.layer], { local: true }))
}

/** Runs the command as a program, which does not outlive the test. */
const program = (args: ReadonlyArray<string>, options: { readonly cwd?: string } = {}): ChildProcess => {
  const child = spawn(process.execPath, [bin, ...args], { stdio: ["ignore", "pipe", "pipe"], ...options })
  children.add(child)
  child.on("close", () => children.delete(child))
  return child
}

const children = new Set<ChildProcess>()
afterEach(() => {
  for (const child of children) child.kill("SIGKILL")
})

const ended = (child: ChildProcess): Promise<Outcome> =>
  new Promise((resolve) => {
    let stdout = ""
    let stderr = ""
    child.stdout!.on("data", (data) => (stdout += String(data)))
    child.stderr!.on("data", (data) => (stderr += String(data)))
    child.on("close", (code) => resolve({ code: code ?? -1, stdout, stderr }))
  })

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

const until = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10))
}

// What is said while the environment is made is not what these tests are about.
beforeAll(() => ended(program(["call", python, "age", "name=Ada"])))

describe("call", () => {
  it.effect("prints the value as JSON, from a payload as JSON", () =>
    Effect.gen(function* () {
      const { code, stderr, stdout } = yield* cli(["call", python, "age", '{"name": "Ada"}'])
      assert.deepStrictEqual([code, stdout, stderr], [0, "36\n", ""])
    })
  )

  it.effect("takes pairs, whose values are JSON where they can be, bytes of files after @ and else text", () =>
    Effect.gen(function* () {
      const file = join(directoryOf({ "data.bin": "12345" }), "data.bin")
      const given = ["n=3", "on=true", "list=[1,2]", "text=a=b", 'quoted="3"', "empty="]
      const { stdout } = yield* cli(["call", python, "main", ...given])
      assert.deepStrictEqual(JSON.parse(stdout), {
        n: 3,
        on: true,
        list: [1, 2],
        text: "a=b",
        quoted: "3",
        empty: ""
      })
      assert.strictEqual((yield* cli(["call", python, "size", `data=@${file}`])).stdout, "5\n")
    })
  )

  it.effect("takes the payload from stdin and from a file", () =>
    Effect.gen(function* () {
      const file = join(directoryOf({ "p.json": '{"x": 2}' }), "p.json")
      assert.strictEqual((yield* cli(["call", python, "main", "-"], '{"x": 1}')).stdout, '{"x":1}\n')
      assert.strictEqual((yield* cli(["call", python, "main", "--file", file])).stdout, '{"x":2}\n')
    })
  )

  it.effect("calls the handler main when only a payload is given", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* cli(["call", python, '{"x": 1}'])).stdout, '{"x":1}\n')
      assert.strictEqual((yield* cli(["call", python, "x=1", "y=2"])).stdout, '{"x":1,"y":2}\n')
    })
  )

  it.effect("keeps all digits of an integer, both ways", () =>
    Effect.gen(function* () {
      const { stdout } = yield* cli(["call", python, '{"n": 9007199254740993, "m": -9223372036854775808}'])
      assert.strictEqual(stdout, '{"n":9007199254740993,"m":-9223372036854775808}\n')
    })
  )

  it.effect("prints bytes as base64, and as they are with --raw", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* cli(["call", python, "binary"])).stdout, '"AAH+/w=="\n')
      assert.strictEqual((yield* cli(["call", python, "binary", "--raw"])).stdout, "\u0000\u0001\u00fe\u00ff")
      assert.strictEqual((yield* cli(["call", python, "chatty", "--raw"])).stdout, "answered\n")
    })
  )

  it.effect("prints the items of a stream one per line, also those before a failure", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* cli(["call", python, "count", "to=3"])).stdout, "0\n1\n2\n")
      const late = yield* cli(["call", python, "fails_late"])
      assert.deepStrictEqual([late.code, late.stdout], [1, "1\n"])
      assert.include(late.stderr, "ValueError: too late")
    })
  )

  it.effect("keeps what Python prints and logs out of stdout", () =>
    Effect.gen(function* () {
      const { stderr, stdout } = yield* cli(["call", python, "chatty"])
      assert.strictEqual(stdout, '"answered"\n')
      assert.include(stderr.split("\n"), "printed")
      assert.include(stderr.split("\n"), "warning: app: logged")
    })
  )

  it.effect("tells an exception with Python's traceback and exits with 1", () =>
    Effect.gen(function* () {
      const { code, stderr, stdout } = yield* cli(["call", python, "broken"])
      assert.deepStrictEqual([code, stdout], [1, ""])
      assert.match(stderr, /^error: `broken` raised ValueError: as it should be \(.*main\.py:\d+\)\n\nTraceback/)
      assert.include(stderr, 'raise ValueError("as it should be")')
      assert.notInclude(stderr, ".ts:")
    })
  )

  it.effect("tells a declared error with its fields and exits with 1", () =>
    Effect.gen(function* () {
      const { code, stderr } = yield* cli(["call", python, "age", "name=Bob"])
      assert.strictEqual(code, 1)
      const [message, fields] = stderr.split("\n")
      assert.strictEqual(message, "error: `age` failed with Unknown: Nobody of that name.")
      assert.deepStrictEqual(JSON.parse(fields!), { _tag: "Unknown", message: "Nobody of that name.", name: "Bob" })
    })
  )

  it.effect("names the handlers that come close to one that is not there", () =>
    Effect.gen(function* () {
      const { code, stderr } = yield* cli(["call", python, "aeg"])
      assert.strictEqual(code, 1)
      assert.include(stderr, "The module has no handler `aeg`. It has `age`")
    })
  )

  it.effect("lists the handlers with their signatures, and calls none", () =>
    Effect.gen(function* () {
      const { code, stdout } = yield* cli(["call", python, "--list"])
      assert.strictEqual(code, 0)
      const lines = stdout.split("\n")
      assert.includeMembers(lines, [
        "age(name: str) -> int, raises Unknown",
        "count(to: int) -> Iterator[Any]",
        "later() -> None"
      ])
      const greeter = directoryOf({ "main.py": typed("str") })
      const { stdout: listed } = yield* cli(["call", greeter, "--list"])
      assert.strictEqual(listed, "greet(name: str, times: int = 1) -> list[str]  # Greets.\n")
    })
  )

  it.live("ends a call that takes longer than --timeout", () =>
    Effect.gen(function* () {
      const marker = join(work, "timeout.pid")
      const { code, stderr } = yield* cli(["call", python, "wait", `marker=${marker}`, "--timeout", "300ms"])
      assert.strictEqual(code, 1)
      assert.include(stderr, "`wait` was not done within the 300 ms of timeout")
    })
  )

  it.effect("refuses what cannot be with exit code 2, before Python is started", () =>
    Effect.gen(function* () {
      const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
        [["age", "{bad"], /^error: The payload is no JSON: /],
        [["age", "name=Ada", "{}"], /"\{\}" is no key=value pair/],
        [["age", "--file", "/nowhere.json"], /The file \/nowhere\.json does not exist/],
        [["age", "{}", "--file", "x.json"], /not both/],
        [["age", "data=@/nowhere"], /The file \/nowhere does not exist/],
        [["age", "--timeout", "soon"], /no duration such as/],
        [["age", "--timout", "3"], /Did you mean this\?\s+--timeout/]
      ]
      for (const [args, text] of wrong) {
        const { code, stderr, stdout } = yield* cli(["call", "/no/such/directory", ...args])
        assert.deepStrictEqual([code, stdout], [2, ""], args.join(" "))
        assert.match(stderr, text)
      }
    })
  )

  it.effect("tells that a directory is not there", () =>
    Effect.gen(function* () {
      const { code, stderr } = yield* cli(["call", "/no/such/directory"])
      assert.strictEqual(code, 1)
      assert.strictEqual(stderr, 'error: The directory "/no/such/directory" cannot be used: it does not exist')
    })
  )

  it("prints each item when it comes", async () => {
    const gate = join(work, "gate")
    const child = program(["call", python, "two_halves", `gate=${gate}`])
    const outcome = ended(child)
    const first = await new Promise((resolve) => child.stdout!.once("data", (data) => resolve(String(data))))
    assert.strictEqual(first, '"first"\n')
    writeFileSync(gate, "")
    assert.strictEqual((await outcome).stdout, '"first"\n"second"\n')
  })

  it("ends in silence when nobody reads its output any more", async () => {
    const { stderr, stdout } = await promisify(execFile)("bash", [
      "-c",
      `set -o pipefail; "$0" "$1" call "$2" count to=1000000 | head -1; echo "\${PIPESTATUS[0]}"`,
      process.execPath,
      bin,
      python
    ])
    assert.deepStrictEqual([stdout, stderr], ["0\n0\n", ""])
  })

  it.skipIf(!existsSync("/dev/full"))("fails where its output cannot be written", async () => {
    const { stdout } = await promisify(execFile)("bash", [
      "-c",
      `"$0" "$1" call "$2" age name=Ada 2>&1 > /dev/full; echo $?`,
      process.execPath,
      bin,
      python
    ])
    assert.match(stdout, /^error: The output cannot be written: ENOSPC.*\n1\n$/)
  })

  it("gives its result where nobody reads what is said beside it", async () => {
    const chatty =
      "import synapse\n\n\n@synapse.handler\ndef main() -> int:\n    for i in range(100_000):\n        print(i)\n    return 1\n"
    const { stdout } = await promisify(execFile)("bash", [
      "-c",
      `"$0" "$1" call "$2" 2> >(head -1 > /dev/null); echo $?`,
      process.execPath,
      bin,
      directoryOf({ "main.py": chatty })
    ])
    assert.strictEqual(stdout, "1\n0\n")
  })

  it("leaves nothing behind on Ctrl-C, and exits with 130", async () => {
    const marker = join(work, "interrupt.pid")
    const child = program(["call", python, "wait", `marker=${marker}`])
    const outcome = ended(child)
    await until(() => existsSync(marker) && readFileSync(marker, "utf8") !== "")
    const pid = Number(readFileSync(marker, "utf8"))
    assert.isTrue(isAlive(pid))
    child.kill("SIGINT")
    assert.deepStrictEqual(await outcome, { code: 130, stdout: "", stderr: "" })
    assert.isFalse(isAlive(pid))
  })
})

describe("JSON of values", () => {
  it("has a form for everything that Python sends", () => {
    const array = NdArray.make(new Float64Array([1, 2, 3, Number.NaN]), [2, 2])
    const value = {
      big: 12345678901234567890n,
      none: null,
      infinite: Number.NEGATIVE_INFINITY,
      at: new Date(0),
      bytes: new Uint8Array([1, 2]),
      array,
      typed: new BigInt64Array([1n]),
      map: new Map<unknown, unknown>([[1, "a"]]),
      texts: new Map([["a", 1]]),
      set: new Set([1])
    }
    assert.strictEqual(
      toJson(value),
      '{"big":12345678901234567890,"none":null,"infinite":"-Infinity","at":"1970-01-01T00:00:00.000Z","bytes":"AQI=",' +
        '"array":[[1,2],[3,"NaN"]],"typed":[1],"map":[[1,"a"]],"texts":{"a":1},"set":[1]}'
    )
  })

  it("reads integers as they are", () => {
    assert.deepStrictEqual(fromJson("[1, 1.5, 1e400, 9007199254740993]"), [1, 1.5, Infinity, 9007199254740993n])
  })
})

describe("init", () => {
  const files = [".gitignore", "app.ts", "package.json", "python", "tsconfig.json"]

  it.effect("writes an app and tells what to do next", () =>
    Effect.gen(function* () {
      const directory = join(work, "new app")
      const { code, stdout } = yield* cli(["init", directory])
      assert.strictEqual(code, 0)
      assert.deepStrictEqual(readdirSync(directory).sort(), files)
      const { name, scripts, type } = JSON.parse(readFileSync(join(directory, "package.json"), "utf8"))
      assert.deepStrictEqual([name, type, scripts], ["new-app", "module", { start: "node app.ts" }])
      assert.match(stdout, /Next:\n {2}cd '.*new app'\n {2}npm install\n {2}npm start\n/)
    })
  )

  it.effect("writes a module that runs and whose stream and error are there", () =>
    Effect.gen(function* () {
      const directory = join(work, "runs")
      yield* cli(["init", directory])
      const module = join(directory, "python")
      assert.strictEqual((yield* cli(["call", module, "greet", "name=Ada"])).stdout, '"Hello, Ada!"\n')
      assert.strictEqual((yield* cli(["call", module, "countdown", "start=2"])).stdout, "2\n1\n")
      assert.include((yield* cli(["call", module, "greet", "name="])).stderr, "NameMissing")
    })
  )

  it.effect("leaves what is there as it is, and says so", () =>
    Effect.gen(function* () {
      const directory = directoryOf({ "python/main.py": "mine", "app.ts": "mine", "tsconfig.json": "mine" })
      const { stdout } = yield* cli(["init", directory])
      for (const file of ["python/main.py", "app.ts", "tsconfig.json"]) {
        assert.strictEqual(readFileSync(join(directory, file), "utf8"), "mine")
        assert.include(stdout, `exists  ${file}, left as it is`)
      }
      assert.include(stdout, "wrote   python/requirements.txt")
      const again = yield* cli(["init", directory])
      assert.notInclude(again.stdout, "wrote")
    })
  )

  it.effect(
    "adds only the script that is missing to a package, in its indentation, and an app that its type allows",
    () =>
      Effect.gen(function* () {
        const text = '{\n    "name": "mine",\n    "type": "commonjs",\n    "dependencies": { "effect": "^4.1.0" }\n}'
        const directory = directoryOf({ "package.json": text })
        const { stdout } = yield* cli(["init", directory])
        const changed = readFileSync(join(directory, "package.json"), "utf8")
        assert.deepStrictEqual(JSON.parse(changed), { ...JSON.parse(text), scripts: { start: "node app.mts" } })
        assert.match(changed, /^\{\n {4}"name"/)
        assert.isTrue(existsSync(join(directory, "app.mts")))
        assert.include(stdout, "npm install effect-synapse @effect/platform-node\n")
      })
  )
})

interface Finding {
  readonly subject: string
  readonly status: string
  readonly detail: string
  readonly fix?: string
}

const findingsOf = ({ stdout }: Outcome): ReadonlyArray<Finding> => JSON.parse(stdout).findings

const finding = (outcome: Outcome, subject: string): Finding | undefined =>
  findingsOf(outcome).find((each) => each.subject === subject)

describe("doctor", () => {
  it.effect("finds a module that runs in order", () =>
    Effect.gen(function* () {
      yield* cli(["call", python, "age", "name=Ada"])
      const outcome = yield* cli(["doctor", python, "--json"])
      assert.strictEqual(outcome.code, 0)
      for (const subject of ["node", "module", "python", "venv", "requirements", "environment", "cache"]) {
        assert.strictEqual(finding(outcome, subject)?.status, "ok", subject)
      }
      assert.match(finding(outcome, "environment")!.detail, /up to date$/)
    })
  )

  it.effect("tells each problem with its fix, and exits with 1", () =>
    Effect.gen(function* () {
      const { code, stderr, stdout } = yield* cli(["doctor", directoryOf({ "other.py": "" }), "--python", "/no/python"])
      assert.strictEqual(code, 1)
      assert.strictEqual(stderr, "error: 2 problems")
      assert.match(stdout, /^problem {2}module .*main\.py" cannot be used: it does not exist; create it, or set/m)
      assert.match(stdout, /^problem {2}python .*No Python interpreter for \/no\/python/m)
      assert.match(stdout, /-> Install Python, or name one/)
    })
  )

  it.effect("changes nothing: an environment that is missing is not made", () =>
    Effect.gen(function* () {
      const directory = directoryOf({ "main.py": "", "requirements.txt": "# nothing\n" })
      const cache = join(work, "cache-of-nobody")
      const outcome = yield* cli(["doctor", directory, "--json"]).pipe(
        Effect.updateService(Host, (host) => ({ ...host, env: { ...host.env, SYNAPSE_CACHE_DIRECTORY: cache } }))
      )
      assert.match(finding(outcome, "environment")!.detail, /not made yet/)
      assert.deepStrictEqual(readdirSync(directory).sort(), ["main.py", "requirements.txt"])
      assert.isFalse(existsSync(join(cache, "envs")))
    })
  )

  it.effect("says what the installer lacks, and how to get it", () =>
    Effect.gen(function* () {
      const directory = directoryOf({ "main.py": "", "requirements.txt": "absent-from-every-index==1\n" })
      const outcome = yield* cli(["doctor", directory, "--json"]).pipe(
        Effect.updateService(Host, (host) => ({ ...host, env: { ...host.env, PIP_NO_INDEX: "1" } }))
      )
      const { detail, fix, status } = finding(outcome, "requirements")!
      assert.strictEqual(status, "problem")
      assert.include(detail, "absent-from-every-index: cannot all be installed")
      assert.isDefined(fix)
    })
  )

  it.effect("finds a cache that cannot be written, or that others can write", () =>
    Effect.gen(function* () {
      const doctor = (cache: string) =>
        cli(["doctor", python, "--json"]).pipe(
          Effect.updateService(Host, (host) => ({ ...host, env: { ...host.env, SYNAPSE_CACHE_DIRECTORY: cache } })),
          Effect.map((outcome) => finding(outcome, "cache")!)
        )
      const file = join(directoryOf({ file: "" }), "file")
      assert.include(yield* doctor(join(file, "cache")), {
        status: "problem",
        detail: `${join(file, "cache")} cannot be written`
      })
      const open = directoryOf({})
      chmodSync(open, 0o777)
      const { fix, status } = yield* doctor(open)
      assert.deepStrictEqual([status, fix], ["warning", `chmod go-w ${open}`])
    })
  )

  it.effect("knows the stub of the Microsoft Store", () =>
    Effect.gen(function* () {
      const stub = join(directoryOf({ "WindowsApps/python3.14": "#!/bin/sh\nexit 1\n" }), "WindowsApps")
      chmodSync(join(stub, "python3.14"), 0o755)
      const outcome = yield* cli(["doctor", python, "--json"]).pipe(
        Effect.updateService(Host, (host) => ({ ...host, env: { ...host.env, PATH: `${stub}:${host.env.PATH}` } }))
      )
      const found = findingsOf(outcome).find(({ detail }) => detail.includes(stub))
      assert.strictEqual(found?.status, "warning")
      assert.include(found?.fix, "App execution aliases")
    })
  )

  it.effect("looks at the machine where there is no module", () =>
    Effect.gen(function* () {
      const { stdout } = yield* Effect.promise(() => ended(program(["doctor"], { cwd: directoryOf({}) })))
      assert.match(stdout, /^ok +module +none was named/m)
      assert.match(stdout, /^ok +python +Python 3\./m)
      assert.notInclude(stdout, "\u001b")
    })
  )
})

const typed = (parameter: string): string =>
  `import synapse\n\n\n@synapse.handler\ndef greet(name: ${parameter}, times: int = 1) -> list[str]:\n    """Greets."""\n    return []\n`

describe("generate", () => {
  it.effect("writes a module, finds it up to date, and leaves it alone then", () =>
    Effect.gen(function* () {
      const module = directoryOf({ "main.py": typed("str") })
      const file = join(module, "out/python.gen.ts")
      const written = yield* cli(["generate", module, "-o", file, "--name", "Greeter"])
      assert.strictEqual(written.code, 0)
      assert.match(written.stderr, /wrote .*out\/python\.gen\.ts$/)
      const text = readFileSync(file, "utf8")
      assert.include(text, "export class Greeter extends RpcGroup.make(")
      assert.match(text, /^\/\/ npx effect-synapse generate \S+ -o \S+ --name Greeter$/m)
      const again = yield* cli(["generate", module, "-o", file, "--name", "Greeter"])
      assert.match(again.stderr, /is up to date$/)
      assert.deepStrictEqual(readdirSync(join(module, "out")), ["python.gen.ts"])
    })
  )

  it.effect("prints the module where no file is named", () =>
    Effect.gen(function* () {
      const { code, stderr, stdout } = yield* cli(["generate", directoryOf({ "main.py": typed("str") })])
      assert.deepStrictEqual([code, stderr], [0, ""])
      assert.match(stdout, /^\/\/ Generated by effect-synapse/)
    })
  )

  it.effect("checks without writing: 1 and the difference when Python has changed, whatever the line ends", () =>
    Effect.gen(function* () {
      const module = directoryOf({ "main.py": typed("str") })
      const file = join(module, "python.gen.ts")
      const check = cli(["generate", module, "-o", file, "--check"])
      const missing = yield* check
      assert.strictEqual(missing.code, 1)
      assert.match(missing.stderr, /^error: .*python\.gen\.ts does not exist: run `npx effect-synapse generate/)
      assert.isFalse(existsSync(file))

      yield* cli(["generate", module, "-o", file])
      const text = readFileSync(file, "utf8")
      writeFileSync(file, text.replaceAll("\n", "\r\n"))
      assert.strictEqual((yield* check).code, 0)

      writeFileSync(file, text)
      writeFileSync(join(module, "main.py"), typed("int"))
      const stale = yield* check
      assert.strictEqual(stale.code, 1)
      assert.match(stale.stderr, /is not up to date: run `npx effect-synapse generate .*`\.\n@@ from line \d+ @@\n/)
      assert.match(stale.stderr, /^- .*name: Schema\.String.*\n\+ .*name: Schema\.Int/m)
      assert.strictEqual(readFileSync(file, "utf8"), text)

      // Lines between two changes that are the same are not part of the difference.
      const lines = text.split("\n")
      writeFileSync(file, ["// mine", ...lines.slice(2)].join("\n"))
      const changed = (yield* check).stderr.split("\n").filter((line) => /^[-+]/.test(line))
      assert.deepStrictEqual(changed.map((line) => line[0]).join(""), "-++-+", changed.join("\n"))
    })
  )

  it.effect("writes no group of a module that has no handlers", () =>
    Effect.gen(function* () {
      const module = directoryOf({ "main.py": "def greet(name: str) -> str:\n    return name\n" })
      const file = join(module, "python.gen.ts")
      const { code, stderr } = yield* cli(["generate", module, "-o", file])
      assert.strictEqual(code, 1)
      assert.match(stderr, /The module has no handlers: write @synapse\.handler above/)
      assert.isFalse(existsSync(file))
      const list = yield* cli(["call", module, "--list"])
      assert.deepStrictEqual([list.code, list.stdout], [0, ""])
      assert.match(list.stderr, /The module has no handlers/)
    })
  )

  it.effect("writes over no file that somebody wrote", () =>
    Effect.gen(function* () {
      const module = directoryOf({ "main.py": typed("str"), "app.ts": "mine" })
      const { code, stderr } = yield* cli(["generate", module, "-o", join(module, "app.ts")])
      assert.strictEqual(code, 1)
      assert.match(stderr, /app\.ts was not generated, and is left as it is/)
      assert.strictEqual(readFileSync(join(module, "app.ts"), "utf8"), "mine")
    })
  )

  it.effect("writes what a link leads to, for those who may read it", () =>
    Effect.gen(function* () {
      const module = directoryOf({ "main.py": typed("str"), "real.ts": "" })
      const [link, dangling] = [join(module, "link.ts"), join(module, "dangling.ts")]
      symlinkSync("real.ts", link)
      symlinkSync("new/far.ts", dangling)
      chmodSync(join(module, "real.ts"), 0o640)
      for (const file of [link, dangling]) {
        assert.strictEqual((yield* cli(["generate", module, "-o", file])).code, 0)
        assert.isTrue(lstatSync(file).isSymbolicLink())
      }
      for (const file of ["real.ts", "new/far.ts"]) {
        assert.match(readFileSync(join(module, file), "utf8"), /^\/\/ Generated by/)
      }
      assert.strictEqual(statSync(join(module, "real.ts")).mode & 0o777, 0o640)
    })
  )

  it.effect("writes nothing while a type cannot be said, unless unknown ones are allowed", () =>
    Effect.gen(function* () {
      const opaque = typed("str").replace("-> list[str]", "-> Opaque")
      const module = directoryOf({ "main.py": `class Opaque:\n    pass\n\n\n${opaque}` })
      const file = join(module, "python.gen.ts")
      const refused = yield* cli(["generate", module, "-o", file])
      assert.strictEqual(refused.code, 1)
      assert.match(refused.stderr, /main\.py:\d+.*`?greet`?/)
      assert.match(refused.stderr, /error: 1 type cannot be said in TypeScript/)
      assert.isFalse(existsSync(file))
      assert.strictEqual((yield* cli(["generate", module, "-o", file, "--allow-unknown"])).code, 0)
      assert.include(readFileSync(file, "utf8"), "success: Schema.Unknown")
    })
  )

  it.effect("refuses flags that do not go together with exit code 2", () =>
    Effect.gen(function* () {
      for (const [args, text] of [
        [["--check"], /name it with -o/],
        [["--watch"], /name it with -o/],
        [["--check", "--watch", "-o", "x.ts"], /leave --watch out/],
        [["--name", "not a name"], /is no name of a class/]
      ] as const) {
        const { code, stderr } = yield* cli(["generate", python, ...args])
        assert.strictEqual(code, 2)
        assert.match(stderr, text)
      }
    })
  )

  it("writes the module again when Python changes, and survives what does not import", async () => {
    const module = directoryOf({ "main.py": typed("str") })
    const file = join(module, "python.gen.ts")
    const child = program(["generate", module, "-o", file, "--watch"])
    let said = ""
    child.stderr!.on("data", (data) => (said += String(data)))
    const outcome = ended(child)
    await until(() => said.includes("watching"))
    writeFileSync(join(module, "main.py"), "import synapse(\n")
    await until(() => said.includes("SyntaxError"))
    writeFileSync(join(module, "main.py"), typed("int"))
    await until(() => readFileSync(file, "utf8").includes("name: Schema.Int"))
    child.kill("SIGINT")
    assert.strictEqual((await outcome).code, 130)
  })
})

const groups = (type: string): string => `import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { text } from "./types.ts"

export class Embedder extends RpcGroup.make(Rpc.make("embed", { payload: { text: ${type} }, success: Schema.Boolean })) {}
export const Library = RpcGroup.make(Rpc.make("lookup", { payload: { id: Schema.Int }, success: text }))
export const other = 1
`

const contractDirectory = (): string =>
  directoryOf({
    "types.ts": 'import { Schema } from "effect"\n\nexport const text = Schema.String\n',
    "contract.ts": groups("text")
  })

describe("stubs", () => {
  it.effect("writes a Python module, finds it up to date, and checks it", () =>
    Effect.gen(function* () {
      const directory = contractDirectory()
      const args = ["stubs", join(directory, "contract.ts"), "--group", "Embedder", "--host", "Library"]
      const file = join(directory, "python/contract.py")
      assert.strictEqual((yield* cli([...args, "-o", file, "--check"])).code, 1)
      const written = yield* cli([...args, "-o", file])
      assert.deepStrictEqual([written.code, written.stdout], [0, ""])
      const text = readFileSync(file, "utf8")
      assert.include(text, "def embed(self, text: str) -> Result[bool]:")
      assert.match(text, /^# npx effect-synapse stubs \S+ -o \S+ --group Embedder --host Library$/m)
      assert.include(text, "def lookup(self, *, id: int) -> str:")
      execFileSync("python3", ["-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())", file])
      assert.strictEqual((yield* cli([...args, "-o", file, "--check"])).code, 0)
      writeFileSync(file, text.replace("-> str", "-> bytes"))
      const stale = yield* cli([...args, "-o", file, "--check"])
      assert.strictEqual(stale.code, 1)
      assert.match(stale.stderr, /^- .*-> bytes.*\n\+ .*-> str/m)
    })
  )

  it.effect("asks which group is meant where there are several", () =>
    Effect.gen(function* () {
      const file = join(contractDirectory(), "contract.ts")
      const several = yield* cli(["stubs", file])
      assert.deepStrictEqual([several.code, several.stdout], [2, ""])
      assert.match(several.stderr, /exports the RpcGroups Embedder, Library: say with --group/)
      const wrong = yield* cli(["stubs", file, "--group", "Nobody"])
      assert.match(wrong.stderr, /--group Nobody: .*exports the RpcGroups Embedder, Library\./)
      const rest = yield* cli(["stubs", file, "--host", "Library"])
      assert.include(rest.stdout, "def embed(self")
    })
  )

  it.effect("tells what keeps a module from being loaded", () =>
    Effect.gen(function* () {
      const directory = contractDirectory()
      assert.strictEqual((yield* cli(["stubs", join(directory, "absent.ts")])).code, 2)
      writeFileSync(join(directory, "none.ts"), "export const a = 1\n")
      assert.match((yield* cli(["stubs", join(directory, "none.ts")])).stderr, /exports no RpcGroup/)
      writeFileSync(join(directory, "throws.ts"), 'throw new Error("as it should")\n')
      const { code, stderr } = yield* cli(["stubs", join(directory, "throws.ts")])
      assert.strictEqual(code, 1)
      assert.match(stderr, /^error: .*throws\.ts cannot be loaded: as it should$/)
    })
  )

  it("writes the module again when the group or what it imports changes", async () => {
    const directory = contractDirectory()
    const file = join(directory, "contract.py")
    const args = ["--group", "Embedder", "-o", file, "--watch"]
    const child = program(["stubs", join(directory, "contract.ts"), ...args])
    const outcome = ended(child)
    await until(() => existsSync(file) && readFileSync(file, "utf8").includes("text: str"))
    writeFileSync(
      join(directory, "types.ts"),
      'import { Schema } from "effect"\n\nexport const text = Schema.Boolean\n'
    )
    await until(() => readFileSync(file, "utf8").includes("text: bool"))
    child.kill("SIGINT")
    assert.strictEqual((await outcome).code, 130)
  })
})

describe("the command", () => {
  for (const command of ["init", "call", "doctor", "generate", "stubs"]) {
    it.effect(`explains ${command} with examples`, () =>
      Effect.gen(function* () {
        const { code, stdout } = yield* cli([command, "--help"])
        assert.strictEqual(code, 0)
        assert.include(stdout, `EXAMPLES`)
        assert.include(stdout, `effect-synapse ${command}`)
        assert.notInclude(stdout, "\u001b")
      })
    )
  }

  it.effect("suggests the command that comes close", () =>
    Effect.gen(function* () {
      const { code, stderr, stdout } = yield* cli(["docter"])
      assert.deepStrictEqual([code, stdout], [2, ""])
      assert.match(stderr, /Unknown subcommand "docter".*Did you mean this\?\s+doctor/s)
    })
  )

  it.effect("tells its version", () =>
    Effect.gen(function* () {
      const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"))
      assert.include((yield* cli(["--version"])).stdout, version)
    })
  )

  it.effect("completes its commands in bash and zsh", () =>
    Effect.gen(function* () {
      const bash = (yield* cli(["--completions", "bash"])).stdout
      const completed = execFileSync("bash", [
        "-c",
        `${bash}
COMP_LINE="effect-synapse d"; COMP_WORDS=(effect-synapse d); COMP_CWORD=1; $(complete -p effect-synapse | sed 's/.*-F \\([^ ]*\\).*/\\1/') effect-synapse d effect-synapse; echo "\${COMPREPLY[*]}"`
      ])
      assert.include(String(completed), "doctor")
      const zsh = (yield* cli(["--completions", "zsh"])).stdout
      assert.match(zsh, /^#compdef effect-synapse/)
      assert.include(zsh, "doctor")
    })
  )

  it("says so where Node is too old", async () => {
    const old = `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "20.19.0" } })`
    const args = ["--import", `data:text/javascript,${encodeURIComponent(old)}`, bin, "--help"]
    const outcome = await ended(spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] }))
    assert.deepStrictEqual([outcome.code, outcome.stdout], [1, ""])
    assert.match(outcome.stderr, /^effect-synapse needs Node 22\.19 or later, and this is Node 20\.19\.0\./)
  })

  it("loads the runtime for no help", async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [
      "--input-type=module",
      "-e",
      `import { registerHooks } from "node:module"
registerHooks({ load: (url, context, next) => (process.stdout.write(url + "\\n"), next(url, context)) })
process.argv.splice(1, process.argv.length, "node", "effect-synapse", "--help")
await import(${JSON.stringify(`file://${bin}`)})`
    ])
    assert.include(stdout, "internal/cli/command.js")
    assert.notMatch(
      stdout,
      /dist\/(Synapse|Connection|SynapseError)\.js|effect\/dist\/index\.js|platform-node\/dist\/index\.js/
    )
  })
})
