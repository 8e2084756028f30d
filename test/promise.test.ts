/** The class with promises. Lines 1 to 8, 10, 12, 16, 18, 19 and 22 of the checklist in hqSynapse.test.ts, and the native protocol. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Schema } from "effect"
import { type CallOptions, type StandardSchema, Synapse, type SynapseOptions } from "effect-synapse/promise"
import { afterEach, assert, describe, it, vi } from "vitest"
import { isSynapseError, type SynapseError, type SynapseErrorReason } from "../src/SynapseError.ts"
import { isAlive } from "./fixtures/processes.ts"

const fixture = (name: string): string => fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url))
const scripts = fixture("hq-synapse")
const native = fixture("python")

const instances: Array<Synapse> = []
const directories: Array<string> = []
afterEach(async () => {
  vi.restoreAllMocks()
  await Promise.all(instances.splice(0).map((instance) => instance.dispose()))
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true })
})

/** An instance that is disposed of after the test, and the lines it says. */
const make = (options?: SynapseOptions) => {
  const synapse = new Synapse(options)
  instances.push(synapse)
  const lines: Array<string> = []
  synapse.instanceLogs.subscribe((line) => lines.push(line))
  return { synapse, lines }
}

const spawned = async (directory: string, entrypoint?: string, options?: SynapseOptions) => {
  const made = make(options)
  await made.synapse.spawn(directory, entrypoint)
  return made
}

/** A directory with the files that are named, of the fixtures or with a text. */
const directoryWith = (files: Readonly<Record<string, string | undefined>>): string => {
  const directory = mkdtempSync(join(tmpdir(), "synapse-promise-"))
  directories.push(directory)
  for (const [name, text] of Object.entries(files)) {
    if (text === undefined) copyFileSync(join(scripts, name), join(directory, name))
    else writeFileSync(join(directory, name), text)
  }
  return directory
}

const rejection = async (promise: Promise<unknown>): Promise<unknown> => {
  try {
    await promise
  } catch (error) {
    return error
  }
  return assert.fail("it was not rejected")
}

const reasonOf = async <T extends SynapseErrorReason["_tag"]>(promise: Promise<unknown>, tag: T) => {
  const error = await rejection(promise)
  assert.isTrue(isSynapseError(error), String(error))
  const { reason } = error as { readonly reason: SynapseErrorReason }
  assert.strictEqual(reason._tag, tag)
  return reason as Extract<SynapseErrorReason, { readonly _tag: T }>
}

const messageOf = async (promise: Promise<unknown>): Promise<string> => ((await rejection(promise)) as Error).message

const pidOf = (synapse: Synapse): Promise<number> => synapse.call({ do: "pid" })

const eventually = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
}

describe("spawn", () => {
  it("hq-synapse 1: main and main.py are the same file", async () => {
    for (const entrypoint of ["main", "main.py", undefined]) {
      const { synapse } = await spawned(scripts, entrypoint)
      assert.deepStrictEqual(await synapse.call({ foo: "bar" }), {
        data: "Processing result from py of payload: {'foo': 'bar'}"
      })
    }
  })

  it("hq-synapse 2: a second spawn of a live instance starts nothing", async () => {
    const { synapse } = make()
    await Promise.all([synapse.spawn(scripts, "scenes"), synapse.spawn(scripts, "scenes")])
    const pid = await pidOf(synapse)
    await synapse.spawn(scripts, "scenes")
    await synapse.spawn("/nowhere", "else")
    assert.strictEqual(await pidOf(synapse), pid)
  })

  it("hq-synapse 3: what is missing is told in this order, before anything is started", async () => {
    const { synapse, lines } = make({ protocol: "stdio-v1" })
    assert.strictEqual(await messageOf(synapse.spawn("./nowhere", "main")), 'Directory "./nowhere" does not exist.')
    const directory = directoryWith({})
    assert.strictEqual(await messageOf(synapse.spawn(directory, "main")), 'Entrypoint "main.py" does not exist.')
    assert.strictEqual(await messageOf(synapse.spawn(directory, "main.py")), 'Entrypoint "main.py" does not exist.')
    writeFileSync(join(directory, "main.py"), "import sys; sys.stdin.read()")
    assert.strictEqual(await messageOf(synapse.spawn(directory, "main")), '"requirements.txt" file is missing.')
    assert.isFalse(existsSync(join(directory, ".venv")))
    assert.deepStrictEqual(lines, [])
  })

  it("hq-synapse 4 and 8: .venv is made, the requirements are installed, and both are seen", async () => {
    const cacheDirectory = directoryWith({})
    const directory = directoryWith({ "main.py": undefined, "requirements.txt": undefined })
    const { lines } = await spawned(directory, "main", { environment: { cacheDirectory } })
    const name = readFileSync(join(directory, ".venv/pyvenv.cfg"), "utf8").match(/version\S* = (\d+\.\d+)/)?.[1]
    assert.isTrue(existsSync(join(directory, `.venv/lib/python${name}/site-packages/msgpack-1.1.0.dist-info`)))
    assert.include(lines, "Creating the Python environment\n")
    assert.include(lines, "Installing msgpack\n")
  })

  it("hq-synapse 4: a .venv that is there is used, and nothing is installed", async () => {
    const directory = directoryWith({ "scenes.py": undefined, "requirements.txt": undefined })
    await (await spawned(directory, "scenes")).synapse.dispose()
    const { lines } = await spawned(directory, "scenes")
    await eventually(() => lines.length > 0)
    assert.deepStrictEqual(lines, ["🐍 Python: script running\n"])
  })

  it("hq-synapse 5: requirements that changed are installed, and a .venv that is half made is an error", async () => {
    const directory = directoryWith({ "main.py": undefined, "requirements.txt": undefined })
    await (await spawned(directory)).synapse.dispose()
    writeFileSync(join(directory, "requirements.txt"), "# none any more\n")
    const reason = await reasonOf(spawned(directory), "StartFailed")
    assert.include(reason.exception?.message, "msgpack")
    const half = directoryWith({ "main.py": undefined, "requirements.txt": undefined })
    mkdirSync(join(half, ".venv/bin"), { recursive: true })
    await reasonOf(spawned(half), "PythonNotFound")
    // Its interpreter is gone.
    symlinkSync("/gone/python", join(half, ".venv/bin/python"))
    assert.include((await reasonOf(spawned(half), "PythonNotFound")).tried[0]?.found, "venv --clear .venv")
  })

  it("hq-synapse 6: an installation that fails rejects with the exit code and the output", async () => {
    const directory = directoryWith({ "main.py": undefined, "requirements.txt": "./nowhere\n" })
    const reason = await reasonOf(
      spawned(directory, "main", { environment: { cacheDirectory: directoryWith({}), installer: "pip" } }),
      "InstallFailed"
    )
    assert.isAbove(reason.exitCode!, 0)
    assert.include(reason.output, "nowhere")
  })

  it("hq-synapse 6: an environment that cannot be made rejects too", async () => {
    const directory = directoryWith({ "main.py": undefined, "requirements.txt": undefined })
    const cacheDirectory = join(directory, "requirements.txt")
    await reasonOf(spawned(directory, "main", { environment: { cacheDirectory } }), "InstallFailed")
  })

  it("hq-synapse 7: the interpreter can be chosen", async () => {
    await reasonOf(spawned(scripts, "main", { python: ">=99" }), "PythonNotFound")
    const { synapse } = await spawned(scripts, "main", { python: ">=3.10" })
    assert.isObject(await synapse.call(1))
  })

  it("that fails leaves an instance that can be spawned", async () => {
    const { synapse } = make()
    const reason = await reasonOf(synapse.spawn(scripts, "broken-import"), "StartFailed")
    assert.strictEqual(reason.exception?.type, "ModuleNotFoundError")
    await synapse.spawn(scripts, "scenes")
    assert.strictEqual(await synapse.call("here"), "here")
  })

  it("that is under way ends with dispose", async () => {
    const { synapse } = make()
    const spawning = synapse.spawn(scripts, "scenes")
    const message = messageOf(spawning)
    await synapse.dispose()
    assert.strictEqual(await message, "The instance was disposed of before it was spawned.")
    await synapse.spawn(scripts, "scenes")
    assert.strictEqual(await synapse.call(1), 1)
  })

  it("begins anew after dispose, however far the one before is", async () => {
    const { synapse } = make()
    const message = messageOf(synapse.spawn(scripts, "scenes"))
    const disposing = synapse.dispose()
    await synapse.spawn(scripts, "scenes")
    assert.strictEqual(await synapse.call(1), 1)
    assert.strictEqual(await message, "The instance was disposed of before it was spawned.")
    await disposing
    assert.strictEqual(await synapse.call(2), 2)
  })

  it("again starts one anew whose processes ended too often", async () => {
    const { synapse } = await spawned(scripts, "scenes", { restart: { max: 0 } })
    await reasonOf(synapse.call({ do: "exit" }), "WorkerExited")
    await reasonOf(synapse.call(1), "RestartLimit")
    await synapse.spawn(scripts, "scenes")
    assert.strictEqual(await synapse.call(1), 1)
  })
})

describe("call", () => {
  it("hq-synapse 9: sequential and concurrent calls keep order and pairing", async () => {
    const { synapse } = await spawned(scripts, "scenes")
    assert.deepStrictEqual(await synapse.call({ foo: "bar" }), { foo: "bar" })
    for (const n of [1, 2, 3]) assert.strictEqual(await synapse.call(n), n)
    assert.deepStrictEqual(await Promise.all([1, 2, 3].map((n) => synapse.call(n))), [1, 2, 3])
  })

  it("hq-synapse 10: before spawn, and after dispose, throws", async () => {
    const message = "Cannot send inputs to instance before spawning it."
    const { synapse } = make()
    assert.throws(() => synapse.call(1), message)
    await synapse.spawn(scripts, "scenes")
    await synapse.dispose()
    assert.throws(() => synapse.call(1), message)
  })

  it("hq-synapse 11 and 17: an error of the script is what the promise is rejected with", async () => {
    const { synapse } = await spawned(scripts, "scenes")
    assert.strictEqual(await rejection(synapse.call({ error: "test_error" })), "test_error")
    assert.deepStrictEqual(await rejection(synapse.call({ error: { code: 3 } })), { code: 3 })
    assert.strictEqual(await rejection(synapse.call({ do: "log error", value: "bad" })), "[ERROR] bad")
    assert.strictEqual(await synapse.call("after"), "after")
  })

  it("hq-synapse 12: forceJSONParse parses strings; what is not JSON is returned and logged", async () => {
    const { lines, synapse } = await spawned(scripts, "scenes")
    assert.deepStrictEqual(await synapse.call('{"a": [1, null]}', true), { a: [1, null] })
    assert.strictEqual(await synapse.call('{"a": 1}'), '{"a": 1}')
    assert.deepStrictEqual(await synapse.call({ a: 1 }, true), { a: 1 })
    assert.deepStrictEqual(
      lines.filter((line) => line.startsWith("[ERROR]")),
      []
    )
    assert.strictEqual(await synapse.call("{not JSON", true), "{not JSON")
    assert.lengthOf(
      lines.filter((line) => line.startsWith("[ERROR] forced parsing failed")),
      1
    )
  })

  it("hq-synapse 14: 20 MB come back", async () => {
    const { synapse } = await spawned(scripts, "scenes")
    const text = "x".repeat(20_000_000)
    assert.isTrue((await synapse.call(text)) === text)
  })

  it("hq-synapse 22: has a time-out, after which the process is replaced where the script goes on", async () => {
    const { synapse } = await spawned(scripts, "scenes", { cancelGrace: 100 })
    const reason = await reasonOf(synapse.call({ do: "sleep", value: 60 }, { timeout: 500 }), "CallTimeout")
    assert.strictEqual(reason.method, "main")
    assert.strictEqual(await synapse.call("next"), "next")
  })

  it("hq-synapse 20 and 22: a process that ends fails its call, and is started again", async () => {
    const { synapse } = await spawned(scripts, "scenes")
    const pid = await pidOf(synapse)
    for (const [how, code] of Object.entries({ raise: 1, exit: 3, "hard exit": 4 })) {
      const reason = await reasonOf(synapse.call({ do: how }), "WorkerExited")
      assert.strictEqual(reason.exitCode, code)
    }
    assert.notStrictEqual(await pidOf(synapse), pid)
    await synapse.dispose()
  })

  it("fails with the stack of the program that awaits it", async () => {
    const { synapse } = await spawned(scripts, "scenes")
    const caller = async () => await synapse.call({ do: "exit" })
    const ended = (await rejection(caller())) as SynapseError
    assert.match(ended.stack!, /SynapseError: WorkerExited: (.*\n)*? *at (async )?caller .*promise\.test\.ts/)
    const broken = (await rejection(spawned(scripts, "broken-import"))) as SynapseError
    assert.match(broken.stack!, /SynapseError: StartFailed: (.*\n)*? *at (async )?spawned .*promise\.test\.ts/)
  })

  it("is given up by its signal, with the reason of that", async () => {
    const { lines, synapse } = await spawned(scripts, "scenes", { cancelGrace: 50 })
    const controller = new AbortController()
    const call = rejection(synapse.call({ do: "sleep", value: 60 }, { signal: controller.signal }))
    await eventually(() => lines.includes("🐍 Python: sleeping\n"))
    controller.abort(new Error("enough"))
    assert.strictEqual(((await call) as Error).message, "enough")
    assert.strictEqual(await synapse.call("next"), "next")
    const aborted = (await rejection(synapse.call(1, { signal: AbortSignal.abort() }))) as Error
    assert.strictEqual(aborted.name, "AbortError")
  })
})

describe("a native module", () => {
  const Sum = Schema.Struct({ total: Schema.Int })

  /** What a library of schemas has, and no more. */
  const positive: StandardSchema<number> = {
    "~standard": {
      version: 1,
      vendor: "test",
      validate: (value) =>
        typeof value === "number" && value > 0
          ? { value }
          : { issues: [{ message: "not positive", path: ["a", { key: 0 }] }] }
    }
  }

  it("hq-synapse 22: has handlers instead of the template, called by method", async () => {
    const { synapse } = await spawned(native)
    const sum: number = await synapse.call({ a: 1, b: 2 }, { method: "add", schema: Schema.Int })
    assert.strictEqual(sum, 3)
    const { total } = await synapse.call({ total: 3 }, { schema: Sum })
    assert.strictEqual(total, 3)
    assert.strictEqual(await synapse.call({ a: 1, b: 2 }, { method: "add", timeout: "5 seconds" }), 3)
  })

  it("has answers of any Standard Schema", async () => {
    const { synapse } = await spawned(native)
    const add = (a: number, options: CallOptions = {}) =>
      synapse.call({ a, b: 0 }, { ...options, method: "add", schema: positive })
    const sum: number = await add(2)
    assert.strictEqual(sum, 2)
    const reason = await reasonOf(add(-2), "DecodeFailed")
    assert.deepStrictEqual([reason.path, reason.issue], ["$.a[0]", "not positive"])
  })

  it("fails with the errors of the service", async () => {
    const { synapse } = await spawned(native)
    const decode = await reasonOf(synapse.call({ total: "x" }, { schema: Sum }), "DecodeFailed")
    assert.strictEqual(decode.path, "$.total")
    await reasonOf(synapse.call({}, { method: "nope" }), "MethodNotFound")
  })

  it("needs no requirements, and is told from a script by its sources", async () => {
    const handler = "@synapse.handler\ndef main(n: int) -> int:\n    return n + 1\n"
    const modules = [
      { "main.py": `import synapse\n\n${handler}` },
      { "main.py": `from synapse import handler\nimport synapse, sys\n\n# sys.stdin\n${handler}` },
      { "main.py": "from app import main\n", "app.py": `import synapse\n\n${handler}` }
    ]
    for (const files of modules) {
      const { synapse } = await spawned(directoryWith(files))
      assert.strictEqual(await synapse.call({ n: 1 }), 2)
    }
    const split = directoryWith({
      "main.py": "from loop import main\n\n# import synapse\nmain()\n",
      "loop.py": `import synapse_free\n${readFileSync(join(scripts, "main.py"), "utf8")}`,
      "synapse_free.py": "",
      "requirements.txt": undefined
    })
    assert.isObject(await (await spawned(split)).synapse.call(1))
  })
})

describe("instanceLogs", () => {
  it("hq-synapse 16: a subscription from before spawn sees the first line", async () => {
    const { lines, synapse } = make()
    await synapse.spawn(scripts, "scenes")
    await eventually(() => lines.length > 0)
    assert.strictEqual(lines[0], "🐍 Python: script running\n")
    await synapse.call({ do: "print" })
    await eventually(() => lines.includes("🐍 Python: from C\n"))
    assert.includeMembers(lines, ["🐍 Python: hello\n", "🐍 Python: to stderr\n", "🐍 Python: written\n"])
  })

  it("can be iterated until dispose, by several", async () => {
    const { synapse } = make()
    const collect = async () => {
      const lines: Array<string> = []
      for await (const line of synapse.instanceLogs) lines.push(line)
      return lines
    }
    const all = [collect(), collect()]
    await synapse.spawn(scripts, "scenes")
    await synapse.dispose()
    for (const lines of await Promise.all(all)) assert.include(lines, "🐍 Python: script running\n")
  })

  it("goes on after dispose for subscriptions, which end when they are told to", async () => {
    const { lines, synapse } = make()
    const seen: Array<string> = []
    const subscription = synapse.instanceLogs.subscribe({ next: (line) => seen.push(line) })
    await synapse.spawn(scripts, "scenes")
    await synapse.dispose()
    assert.isFalse(subscription.closed)
    subscription.unsubscribe()
    assert.isTrue(subscription.closed)
    await synapse.spawn(scripts, "scenes")
    await synapse.dispose()
    const first = "🐍 Python: script running\n"
    assert.lengthOf(
      seen.filter((line) => line === first),
      1
    )
    assert.lengthOf(
      lines.filter((line) => line === first),
      2
    )
  })
})

describe("dispose", () => {
  it("hq-synapse 18 and 19: is quick, does nothing without a process, and lets spawn work again", async () => {
    const { synapse } = make({ disposeTimeout: "1 hour" })
    await synapse.dispose()
    await synapse.spawn(scripts, "scenes")
    const pid = await pidOf(synapse)
    // The grace is for those that need it.
    await Promise.all([synapse.dispose(), synapse.dispose()])
    assert.isFalse(isAlive(pid))
    await synapse.spawn(scripts, "scenes")
    assert.notStrictEqual(await pidOf(synapse), pid)
  })

  it("hq-synapse 19: a process that ignores SIGTERM is really dead", async () => {
    const { synapse } = await spawned(scripts, "scenes")
    const pid = await pidOf(synapse)
    assert.strictEqual(await synapse.call({ do: "ignore" }), "ignoring")
    await synapse.dispose()
    assert.isFalse(isAlive(pid))
  })

  it("hq-synapse 18: rejects when the process is alive all the same", async () => {
    const { synapse } = await spawned(scripts, "scenes")
    const pid = await pidOf(synapse)
    const kill = process.kill.bind(process)
    vi.spyOn(process, "kill").mockImplementation((target, signal) =>
      target === pid && signal === 0 ? true : kill(target, signal)
    )
    assert.strictEqual(await messageOf(synapse.dispose()), `Cannot kill instance with PID: ${pid}`)
  })

  it("lets the call that runs end, and refuses new ones", async () => {
    const { lines, synapse } = await spawned(scripts, "scenes")
    const call = synapse.call({ do: "sleep", value: 0.05 })
    await eventually(() => lines.includes("🐍 Python: sleeping\n"))
    const disposing = synapse.dispose()
    assert.throws(() => synapse.call(1))
    assert.strictEqual(await call, 0.05)
    await disposing
  })

  it("is what `await using` does", async () => {
    const { synapse } = await spawned(scripts, "scenes")
    const pid = await pidOf(synapse)
    await synapse[Symbol.asyncDispose]()
    assert.isFalse(isAlive(pid))
  })
})

it("has no Effect in its types", () => {
  const declarations = readFileSync(fileURLToPath(new URL("../dist/promise.d.ts", import.meta.url)), "utf8")
  assert.notMatch(declarations, /^import .*from "effect/m)
})
