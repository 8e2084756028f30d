/** Workers that are replaced, reloaded, warmed up and kept apart, with real processes. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { PassThrough } from "node:stream"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, FileSystem, Option, Redacted, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Synapse } from "effect-synapse"
import { Host } from "../src/internal/environmentHost.ts"
import { reasonOf } from "./fixtures/dialogue.ts"
import { eventually, isAlive } from "./fixtures/processes.ts"

const source = (version: number, more = ""): string => `
import asyncio, os, time
import synapse

calls = 0
state = {}
warm = False
${more}

@synapse.handler
def version():
    return ${version}

@synapse.handler
def pid():
    return os.getpid()

@synapse.handler
def sleep(seconds: float):
    time.sleep(seconds)
    return os.getpid()

@synapse.handler
async def sleep_async(seconds: float):
    await asyncio.sleep(seconds)
    return os.getpid()

@synapse.handler
async def wait_for(path: str):
    while not os.path.exists(path):
        await asyncio.sleep(0.01)
    return os.getpid()

@synapse.handler
def numbers(n: int):
    for i in range(n):
        time.sleep(0.01)
        yield i

@synapse.handler
def remember(key: str):
    state[key] = state.get(key, 0) + 1
    return state[key]

@synapse.handler
def poison():
    synapse.replace_me("the GPU is gone")
    return os.getpid()

@synapse.handler
def announce(path: str):
    open(path, "w").close()
    time.sleep(600)

@synapse.handler
def warm_up(seconds: float):
    global warm
    time.sleep(seconds)
    warm = True

@synapse.handler
def is_warm():
    return warm

@synapse.handler
def leak(mebibytes: int):
    global calls
    calls += 1
    state[calls] = b"x" * (mebibytes * 1024 * 1024)
    return os.getpid()

@synapse.handler
def fails():
    raise RuntimeError("no")
`

/** A module of its own in a temporary directory, and what changes it. */
const temporaryModule = Effect.acquireRelease(
  Effect.sync(() => {
    const directory = mkdtempSync(join(tmpdir(), "synapse-module-"))
    const write = (version: number, more = "") => writeFileSync(join(directory, "main.py"), source(version, more))
    write(1)
    return { directory, write, options: { directory, logs: "ignore" } as const }
  }),
  ({ directory }) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)
const call = (method: string, input: object = {}, options: Synapse.CallOptions = {}) =>
  Synapse.call(Schema.Unknown, input, { ...options, method })
const pid = Synapse.call(Schema.Int, {}, { method: "pid" })
const upTo = (n: number) => Array.from({ length: n }, (_, i) => i)

describe("a module that changes", () => {
  it.live("is served by new workers after a reload; what runs is finished by the old ones", () =>
    Effect.gen(function* () {
      const { directory, options, write } = yield* temporaryModule
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* call("version"), 1)
        const old = yield* pid
        const path = join(directory, "go")
        const running = yield* Effect.forkChild(call("wait_for", { path }))
        const streaming = yield* Effect.forkChild(
          Stream.runCollect(Synapse.stream(Schema.Int, { n: 100 }, { method: "numbers" }))
        )
        yield* Effect.repeat(Synapse.stats, { until: ({ calls }) => calls === 2 })
        write(2)
        yield* Synapse.reload
        assert.strictEqual(yield* call("version"), 2)
        assert.isTrue(isAlive(old))
        writeFileSync(path, "")
        assert.strictEqual(yield* Fiber.join(running), old)
        assert.deepStrictEqual(Array.from(yield* Fiber.join(streaming)), upTo(100))
        yield* Synapse.status.pipe(Effect.repeat({ until: ({ workers }) => workers.length === 1 }))
        assert.isFalse(isAlive(old))
      }).pipe(Effect.provide(Synapse.layer({ ...options, concurrency: 2 })))
    })
  )

  it.live("and does not import leaves the old one serving", () =>
    Effect.gen(function* () {
      const { options, write } = yield* temporaryModule
      yield* Effect.gen(function* () {
        const old = yield* pid
        write(2, "import nothing_of_that_name")
        const reason = yield* reasonOf(Synapse.reload, "StartFailed")
        assert.include(reason.message, "nothing_of_that_name")
        assert.strictEqual(yield* pid, old)
        write(3)
        yield* Synapse.reload
        assert.strictEqual(yield* call("version"), 3)
      }).pipe(Effect.provide(Synapse.layer(options)))
    })
  )

  it.live("twice is looked at one after the other: what is served is what was found last", () =>
    Effect.gen(function* () {
      const { directory, options } = yield* temporaryModule
      const link = join(directory, "current")
      const release = (version: number) => {
        const at = join(directory, `v${version}`)
        mkdirSync(at, { recursive: true })
        writeFileSync(join(at, "main.py"), source(version))
        rmSync(link, { force: true })
        symlinkSync(at, link)
      }
      release(1)
      let looks = Number.NEGATIVE_INFINITY
      const fs = yield* FileSystem.FileSystem
      const realPath: FileSystem.FileSystem["realPath"] = (path) =>
        Effect.tap(fs.realPath(path), () =>
          // For the entrypoint, and then for the environment.
          path.endsWith("current") && ++looks === 2 ? Effect.sleep("1 second") : Effect.void
        )
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* call("version"), 1)
        release(2)
        looks = 0
        const first = yield* Effect.forkChild(Synapse.reload)
        yield* Effect.sleep("100 millis")
        release(3)
        const second = yield* Effect.forkChild(Synapse.reload)
        yield* Fiber.join(first)
        yield* Fiber.join(second)
        assert.strictEqual(yield* call("version"), 3)
      }).pipe(
        Effect.provide(Synapse.layerNoPlatform({ ...options, directory: link, environment: "system" })),
        Effect.provideService(FileSystem.FileSystem, { ...fs, realPath })
      )
    }).pipe(Effect.provide(NodeServices.layer))
  )

  it.live("draws no progress bar over what the program prints, once it runs", () =>
    Effect.gen(function* () {
      const { directory, options } = yield* temporaryModule
      const terminal = Object.assign(new PassThrough(), { isTTY: true, columns: 80 })
      const drawn = () => String(terminal.read() ?? "")
      const environment = { cacheDirectory: join(directory, ".cache"), offline: true } as const
      yield* Effect.gen(function* () {
        // It hides the cursor; what it says first depends on how long that takes.
        assert.include(drawn(), "\u001b[?25l")
        writeFileSync(join(directory, "requirements.txt"), "six; python_version < '3'")
        const first = (yield* Synapse.Synapse).environment.path
        yield* Synapse.reload
        assert.notStrictEqual((yield* Synapse.Synapse).environment.path, first)
        assert.strictEqual(drawn(), "")
      }).pipe(
        Effect.provide(Synapse.layer({ ...options, environment })),
        Effect.updateService(Host, (host) => ({ ...host, terminal }))
      )
    })
  )

  it.live("is reloaded by itself when it is watched", () =>
    Effect.gen(function* () {
      const { options, write } = yield* temporaryModule
      const version = (n: number) => call("version").pipe(Effect.repeat({ until: (found) => found === n }))
      yield* Effect.gen(function* () {
        yield* version(1)
        write(22)
        yield* version(22)
        write(23, "syntax error")
        yield* Effect.sleep("1 second")
        assert.strictEqual(yield* call("version"), 22)
        write(24)
        yield* version(24)
      }).pipe(Effect.provide(Synapse.layer({ ...options, watch: { debounce: "50 millis" } })))
    })
  )
})

describe("callers", () => {
  it.live("notice nothing of workers that are recycled", () =>
    Effect.gen(function* () {
      const { options } = yield* temporaryModule
      yield* Effect.gen(function* () {
        const pids = new Set<number>()
        const some = Effect.forEach(
          upTo(400),
          (n) =>
            Effect.map(n % 7 === 0 ? call("sleep_async", { seconds: 0.001 }) : pid, (id) => pids.add(id as number)),
          { concurrency: 32, discard: true }
        )
        yield* Effect.repeat(some, { until: () => pids.size > 8 })
        const status = yield* Synapse.status
        assert.deepStrictEqual([status.restarts, status.lastExit], [0, undefined])
      }).pipe(Effect.provide(Synapse.layer({ ...options, workers: 2, recycle: { afterCalls: 300 } })))
    })
  )

  it.live("notice nothing of a worker that leaks, and is replaced by itself", () =>
    Effect.gen(function* () {
      const { options } = yield* temporaryModule
      yield* Effect.gen(function* () {
        const first = yield* pid
        let calls = 0
        yield* Effect.andThen(
          call("leak", { mebibytes: 1 }),
          Effect.sync(() => calls++)
        ).pipe(
          Effect.andThen(Effect.sleep("2 millis")),
          Effect.andThen(pid),
          Effect.repeat({ until: (now) => now !== first })
        )
        assert.isAbove(calls, 50)
        assert.deepStrictEqual((yield* Synapse.status).lastExit, undefined)
      }).pipe(Effect.provide(Synapse.layer({ ...options, recycle: { afterMemoryMiB: 200 } })))
    })
  )

  it.live("notice nothing of a worker that asks to be replaced", () =>
    Effect.gen(function* () {
      const { options } = yield* temporaryModule
      yield* Effect.gen(function* () {
        yield* Effect.sleep("1100 millis")
        const running = yield* Effect.forkChild(call("sleep_async", { seconds: 0.5 }), { startImmediately: true })
        const old = yield* call("poison")
        assert.notStrictEqual(yield* pid, old)
        assert.strictEqual(yield* Fiber.join(running), old)
      }).pipe(Effect.provide(Synapse.layer(options)))
    })
  )
})

describe("a call in a process of its own", () => {
  it.live("finds nothing of the one before, and leaves nothing to the next", () =>
    Effect.gen(function* () {
      const { options } = yield* temporaryModule
      yield* Effect.gen(function* () {
        const remember = Synapse.call(Schema.Int, { key: "a" }, { method: "remember" })
        assert.deepStrictEqual(yield* Effect.all([remember, remember, remember], { concurrency: 3 }), [1, 1, 1])
        const first = yield* pid
        assert.notStrictEqual(yield* pid, first)
        assert.deepStrictEqual(
          Array.from(yield* Stream.runCollect(Synapse.stream(Schema.Int, { n: 5 }, { method: "numbers" }))),
          upTo(5)
        )
        yield* reasonOf(call("fails"), "PythonException")
        yield* Synapse.status.pipe(
          Effect.repeat({ until: ({ workers }) => workers.every(({ state }) => state === "ready") })
        )
        assert.isFalse(isAlive(first))
      }).pipe(Effect.provide(Synapse.layer({ ...options, oneShot: true, workers: 2 })))
    })
  )

  it.live("is ended with it when it is given up, or takes too much processor time", () =>
    Effect.gen(function* () {
      const { options } = yield* temporaryModule
      yield* Effect.gen(function* () {
        const { workers } = yield* Synapse.status
        yield* reasonOf(call("sleep", { seconds: 60 }, { timeout: "200 millis" }), "CallTimeout")
        yield* pid
        yield* Effect.promise(async () => {
          while (isAlive(workers[0]!.pid!)) await new Promise((resolve) => setTimeout(resolve, 10))
        })
      }).pipe(Effect.provide(Synapse.layer({ ...options, oneShot: true, limits: { cpuTime: "1 second" } })))
    })
  )
})

describe("a new worker", () => {
  it.live("is warmed up before it takes calls", () =>
    Effect.gen(function* () {
      const { options } = yield* temporaryModule
      const warmUp = { method: "warm_up", input: { seconds: 0.1 } }
      yield* Effect.gen(function* () {
        assert.isTrue(yield* call("is_warm"))
        yield* Synapse.reload
        assert.isTrue(yield* call("is_warm"))
      }).pipe(Effect.provide(Synapse.layer({ ...options, warmUp })))
      const reason = yield* reasonOf(
        Effect.provide(pid, Synapse.layer({ ...options, warmUp: { method: "fails", input: {} } })),
        "StartFailed"
      )
      assert.deepStrictEqual([reason.kind, reason.message.includes("RuntimeError: no")], ["warmUp", true])
      assert.include(reason.message, "option `warmUp`")
    })
  )

  it.effect("whose warming up takes too long is given up, and that is said", () =>
    Effect.gen(function* () {
      const { directory, options } = yield* temporaryModule
      const path = join(directory, "began")
      const slow = { startTimeout: "1 second", warmUp: { method: "announce", input: { path } } } as const
      const starting = yield* Effect.forkChild(
        reasonOf(Effect.provide(pid, Synapse.layer({ ...options, ...slow })), "StartFailed")
      )
      yield* eventually(() => existsSync(path))
      yield* TestClock.adjust("1 second")
      const late = yield* Fiber.join(starting)
      assert.deepStrictEqual([late.kind, late.message.includes("option `warmUp`")], ["timeout", true])
    })
  )

  it.live("is started by the first call where none is always there, and leaves when it has nothing to do", () =>
    Effect.gen(function* () {
      const { options } = yield* temporaryModule
      const workers = { min: 0, max: 2, idleTimeToLive: "1 second" } as const
      yield* Effect.gen(function* () {
        assert.deepStrictEqual((yield* Synapse.status).workers, [])
        assert.isNumber(yield* pid)
        yield* Synapse.statusChanges.pipe(
          Stream.filter((status) => status.workers.length === 0),
          Stream.runHead,
          Effect.map(Option.getOrThrow)
        )
        assert.isNumber(yield* pid)
      }).pipe(Effect.provide(Synapse.layer({ ...options, workers })))
    })
  )
})

describe("calls with a key", () => {
  it.live("find what the last one left", () =>
    Effect.gen(function* () {
      const { options } = yield* temporaryModule
      yield* Effect.gen(function* () {
        const remember = (key: string) => call("remember", { key }, { affinity: key })
        for (let n = 1; n <= 5; n++) {
          const found = yield* Effect.all(["a", "b", "c", "d"].map(remember), { concurrency: 4 })
          assert.deepStrictEqual(found, [n, n, n, n])
        }
      }).pipe(Effect.provide(Synapse.layer({ ...options, workers: 3 })))
    })
  )
})

describe("a secret", () => {
  it.live("may be longer than a message", () =>
    Effect.gen(function* () {
      const { options, write } = yield* temporaryModule
      write(1, 'SECRET = os.environ["TOKEN"]\nsynapse.handler(name="secret")(lambda: len(SECRET))')
      const env = { TOKEN: Redacted.make("x".repeat(10_000)) }
      const found = yield* Effect.provide(call("secret"), Synapse.layer({ ...options, env, maxFrameSize: 4096 }))
      assert.strictEqual(found, 10_000)
    })
  )
})

describe("options that cannot work", () => {
  for (const [what, options] of [
    ["workers", { workers: 0 }],
    ["workers.max", { workers: { max: 300 } }],
    ["workers.min", { workers: { min: 3, max: 2 } }],
    ["workers.idleTimeToLive", { workers: { max: 2, idleTimeToLive: -1 } }],
    ["heartbeat.misses", { heartbeat: { misses: 0 } }],
    ["heartbeat.interval", { heartbeat: { interval: -1 } }],
    ["heartbeat.interval", { heartbeat: { interval: 0 } }],
    ["heartbeat", { heartbeat: true as never }],
    ["restart.window", { restart: { window: 0 } }],
    ["restart.resetAfter", { restart: { resetAfter: 0 } }],
    ["watch", { watch: "yes" as never }],
    ["watch.paths", { watch: { paths: "prompts" as never } }],
    ["recycle", { recycle: "always" as never }],
    ["recycle.afterAge", { recycle: { afterAge: 0 } }],
    ["queue.capacity", { workers: { min: 0, max: 2 }, queue: { capacity: 0, whenFull: "reject" } }],
    ["warmUp.method", { warmUp: { method: "", input: null } }],
    ["recycle.afterCalls", { recycle: { afterCalls: 0 } }],
    ["recycle.afterMemoryMiB", { recycle: { afterMemoryMiB: Number.NaN } }],
    ["limits.cpuTime", { limits: { cpuTime: "1 second" } }],
    ["limits.memoryMiB", { limits: { memoryMiB: 0 } }]
  ] as ReadonlyArray<readonly [string, Partial<Synapse.SynapseOptions>]>) {
    it.live(`are refused by name: ${what} in ${JSON.stringify(options)}`, () =>
      Effect.gen(function* () {
        const { options: module } = yield* temporaryModule
        const reason = yield* reasonOf(Effect.provide(pid, Synapse.layer({ ...module, ...options })), "StartFailed")
        assert.strictEqual(reason.kind, "options")
        assert.include(reason.message, what)
      })
    )
  }

  it.live("are refused by a resize too", () =>
    Effect.gen(function* () {
      const { options } = yield* temporaryModule
      yield* Effect.gen(function* () {
        yield* reasonOf(Synapse.resize(0), "StartFailed")
        yield* Synapse.resize(2)
        yield* Synapse.status.pipe(
          Effect.repeat({ until: ({ workers }) => workers.filter(({ state }) => state === "ready").length === 2 })
        )
      }).pipe(Effect.provide(Synapse.layer(options)))
    })
  )
})
