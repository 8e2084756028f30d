import { existsSync, mkdtempSync, readFileSync } from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it, layer } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Exit, Fiber, Layer, Option, Redacted, Schema, Tracer } from "effect"
import { TestClock } from "effect/testing"
import { Synapse, SynapseLive } from "effect-synapse"
import type { LogRecord } from "../src/internal/logs.ts"
import { reasonOf } from "./fixtures/dialogue.ts"
import * as modules from "./fixtures/modules.ts"
import { eventually } from "./fixtures/processes.ts"

const temporaryFile = () => join(mkdtempSync(join(tmpdir(), "synapse-test-")), "file")
const linesOf = (path: string) => readFileSync(path, "utf8").trim().split("\n")

const pid = Synapse.call(Schema.Int, {}, { method: "pid" })

/** The same process answers before and after. */
const sameProcess = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const before = yield* pid
    const result = yield* self
    assert.strictEqual(yield* pid, before)
    return result
  })

layer(Synapse.layer(modules.python), { timeout: "2 minutes" })("a call", (it) => {
  it.effect("returns the value that the schema describes", () =>
    Effect.gen(function* () {
      const Sum = Schema.Struct({ total: Schema.Int })
      assert.deepStrictEqual(yield* Synapse.call(Sum, { total: 3 }), { total: 3 })
      assert.strictEqual(yield* Synapse.call(Schema.Int, { a: 1, b: 2 }, { method: "add" }), 3)
      assert.strictEqual(yield* Synapse.call(Schema.Int, { a: 1, b: 2 }, { method: "add_async" }), 3)
    })
  )

  it.effect("decodes into classes, options and transformations", () =>
    Effect.gen(function* () {
      class Point extends Schema.Class<Point>("Point")({
        x: Schema.Finite,
        y: Schema.Finite,
        label: Schema.OptionFromNullOr(Schema.String)
      }) {}
      const point = yield* Synapse.call(Point, { point: { x: 1, y: 2 }, by: 1 }, { method: "move" })
      assert.isTrue(point instanceof Point)
      assert.deepStrictEqual([point.x, point.y, Option.isNone(point.label)], [2, 3, true])
    })
  )

  it.effect("encodes its input with the payload schema", () =>
    Effect.gen(function* () {
      const Payload = Schema.Struct({ at: Schema.DateTimeUtcFromMillis, tags: Schema.ReadonlySet(Schema.String) })
      const input = Schema.decodeUnknownSync(Schema.Struct({ at: Schema.DateTimeUtcFromMillis }))({ at: 1000 })
      const text = yield* Synapse.call(
        Schema.String,
        { at: input.at, tags: new Set(["a"]) },
        { method: "type_of", payload: Payload }
      )
      assert.strictEqual(text, "dict {'at': 1000, 'tags': ['a']}")
    })
  )

  it.effect("whose input does not fit the payload schema is not sent", () =>
    Effect.gen(function* () {
      const payload = Schema.Struct({ items: Schema.Array(Schema.Int) })
      const reason = yield* reasonOf(Synapse.call(Schema.Unknown, { items: [1, 2.5] }, { payload }), "EncodeFailed")
      assert.deepStrictEqual([reason.side, reason.path, reason.delivery], ["typescript", "$.items[1]", "notSent"])
    })
  )

  it.effect("with input that MessagePack cannot carry names the place and is not sent", () =>
    sameProcess(
      Effect.gen(function* () {
        const cycle: Record<string, unknown> = {}
        cycle.self = cycle
        for (const input of [{ a: Symbol("s") }, { a: () => 1 }, { a: 2n ** 70n }, { a: "\ud800" }, cycle]) {
          const reason = yield* reasonOf(Synapse.call(Schema.Unknown, input), "EncodeFailed")
          assert.strictEqual(reason.side, "typescript")
          assert.match(reason.path, /^\$\.(a|self)/)
        }
      })
    )
  )

  it.effect("whose reply does not fit names the place in one line", () =>
    sameProcess(
      Effect.gen(function* () {
        const schema = Schema.Struct({ a: Schema.Array(Schema.Struct({ b: Schema.String })) })
        const reason = yield* reasonOf(Synapse.call(schema, { a: [{ b: "x" }, { b: 1 }] }), "DecodeFailed")
        assert.deepStrictEqual([reason.side, reason.path], ["typescript", "$.a[1].b"])
        assert.notInclude(reason.issue, "\n")
      })
    )
  )

  it.effect("with arguments that do not fit does not enter the handler", () =>
    sameProcess(
      Effect.gen(function* () {
        const reason = yield* reasonOf(Synapse.call(Schema.Int, { a: 1, b: "two" }, { method: "add" }), "DecodeFailed")
        assert.deepStrictEqual([reason.side, reason.path, reason.delivery], ["python", "$.b", "rejected"])
        const missing = yield* reasonOf(Synapse.call(Schema.Int, { a: 1 }, { method: "add" }), "DecodeFailed")
        assert.include(missing.message, "b")
        const nested = yield* reasonOf(
          Synapse.call(Schema.Unknown, { point: { x: 1, y: "high" }, by: 1 }, { method: "move" }),
          "DecodeFailed"
        )
        assert.strictEqual(nested.path, "$.point.y")
      })
    )
  )

  it.effect("of a handler that does not exist names the nearest", () =>
    sameProcess(
      Effect.gen(function* () {
        const reason = yield* reasonOf(Synapse.call(Schema.Int, {}, { method: "ad" }), "MethodNotFound")
        assert.include(reason.nearest, "add")
        assert.strictEqual(reason.delivery, "rejected")
      })
    )
  )

  it.effect("parses a string reply as JSON when asked to, and leaves other strings alone", () =>
    Effect.gen(function* () {
      const parsed = yield* Synapse.call(Schema.Struct({ a: Schema.Int }), '{"a":1}', { parseJson: true })
      assert.deepStrictEqual(parsed, { a: 1 })
      assert.strictEqual(yield* Synapse.call(Schema.String, "not json", { parseJson: true }), "not json")
      assert.strictEqual(yield* Synapse.call(Schema.String, '{"a":1}'), '{"a":1}')
    })
  )

  it.effect("that raises a declared error carries its fields", () =>
    sameProcess(
      Effect.gen(function* () {
        const reason = yield* reasonOf(
          Synapse.call(Schema.String, { item: "tea" }, { method: "order" }),
          "HandlerFailed"
        )
        assert.strictEqual(reason.errorTag, "OutOfStock")
        assert.deepInclude(reason.error as object, { _tag: "OutOfStock", item: "tea", left: 0 })
        assert.include(reason.message, "OutOfStock")
      })
    )
  )

  it.effect("that raises carries type, message, frames, notes and the chain of causes", () =>
    sameProcess(
      Effect.gen(function* () {
        const reason = yield* reasonOf(
          Synapse.call(Schema.Unknown, { text: "bad value" }, { method: "chain" }),
          "PythonException"
        )
        const { exception } = reason
        assert.deepStrictEqual([exception.type, exception.module], ["KeyError", "builtins"])
        assert.strictEqual(exception.cause?.type, "ValueError")
        assert.strictEqual(exception.cause?.message, "bad value")
        const frame = exception.cause?.frames.at(-1)
        assert.strictEqual(frame?.function, "_fail")
        assert.match(frame?.file ?? "", /main\.py$/)
        assert.strictEqual(frame?.code, "raise ValueError(text)")
        assert.match(reason.traceback, /direct cause of the following exception/)
        // Frames of the runtime are nobody's business.
        assert.notMatch(reason.traceback, /synapse\/_/)
      })
    )
  )

  it.effect("that raises SystemExit or KeyboardInterrupt fails, and the worker lives", () =>
    sameProcess(
      Effect.gen(function* () {
        for (const [how, type] of [
          ["sys.exit", "SystemExit"],
          ["interrupt", "KeyboardInterrupt"]
        ] as const) {
          const reason = yield* reasonOf(Synapse.call(Schema.Unknown, { how }, { method: "leave" }), "PythonException")
          assert.strictEqual(reason.type, type)
        }
      })
    )
  )

  it.effect("whose handler returns what cannot be carried fails alone and names the place", () =>
    sameProcess(
      Effect.gen(function* () {
        const surprise = (what: string) => Synapse.call(Schema.Unknown, { what }, { method: "surprise" })
        const object = yield* reasonOf(surprise("object"), "EncodeFailed")
        assert.deepStrictEqual([object.side, object.path], ["python", "$.items[1]"])
        assert.strictEqual((yield* reasonOf(surprise("huge"), "EncodeFailed")).side, "python")
        assert.strictEqual((yield* reasonOf(surprise("surrogate"), "EncodeFailed")).side, "python")
      })
    )
  )

  it.effect("of a generator says that it streams", () =>
    sameProcess(
      Effect.gen(function* () {
        const reason = yield* reasonOf(Synapse.call(Schema.Unknown, {}, { method: "generate" }), "Unsupported")
        assert.match(reason.message, /generator|stream/)
        assert.strictEqual(reason.delivery, "rejected")
      })
    )
  )

  it.effect("shows its method, trace and deadline to the handler", () =>
    Effect.gen(function* () {
      const Context = Schema.Struct({
        method: Schema.String,
        trace: Schema.NullOr(Schema.String),
        has_deadline: Schema.Boolean
      })
      const plain = yield* Synapse.call(Context, {}, { method: "context" })
      assert.deepStrictEqual(plain, { method: "context", trace: null, has_deadline: false })
      const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
      const span = Tracer.externalSpan({ traceId, spanId: "00f067aa0ba902b7", sampled: true })
      const traced = yield* Synapse.call(Context, {}, { method: "context", timeout: "1 minute" }).pipe(
        Effect.withParentSpan(span)
      )
      assert.deepStrictEqual(traced, {
        method: "context",
        trace: `00-${traceId}-00f067aa0ba902b7-01`,
        has_deadline: true
      })
    })
  )

  it.effect("runs beside many others, each with its own answer", () =>
    Effect.gen(function* () {
      const numbers = Array.from({ length: 3000 }, (_, n) => n)
      const sums = yield* Effect.forEach(
        numbers,
        (n) => Synapse.call(Schema.Int, { a: n, b: 1 }, { method: n % 2 === 0 ? "add" : "add_async" }),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        sums,
        numbers.map((n) => n + 1)
      )
    })
  )
})

layer(Synapse.layer({ ...modules.python, callTimeout: "10 minutes" }), { timeout: "2 minutes" })("time", (it) => {
  it.effect("a time-out fails the call on time, says that Python was at it, and tells Python", () =>
    Effect.gen(function* () {
      const path = temporaryFile()
      yield* pid
      const call = yield* Effect.forkChild(
        Effect.exit(Synapse.call(Schema.Unknown, { path }, { method: "wait_async", timeout: "30 seconds" }))
      )
      // Once the handler runs, only the clock of the test decides.
      yield* eventually(() => existsSync(path))
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(call.pollUnsafe())
      yield* TestClock.adjust("1 second")
      const exit = yield* Fiber.join(call)
      const { reason } = Option.getOrThrow(Exit.findErrorOption(exit))
      assert(reason._tag === "CallTimeout")
      assert.deepStrictEqual([reason.durationMillis, reason.running, reason.delivery], [30_000, true, "unknown"])
      yield* eventually(() => existsSync(`${path}.cancelled`))
    })
  )

  it.effect("the runtime's time-out applies to calls that name none", () =>
    Effect.gen(function* () {
      const path = temporaryFile()
      const call = yield* Effect.forkChild(
        Effect.exit(Synapse.call(Schema.Unknown, { path }, { method: "wait_async" }))
      )
      yield* eventually(() => existsSync(path))
      yield* TestClock.adjust("10 minutes")
      const { reason } = Option.getOrThrow(Exit.findErrorOption(yield* Fiber.join(call)))
      assert.strictEqual(reason._tag, "CallTimeout")
    })
  )

  it.effect(
    "an interrupted caller does not wait, a sync handler sees that it is cancelled, and the next call works",
    () =>
      Effect.gen(function* () {
        const path = temporaryFile()
        const call = yield* Effect.forkChild(Synapse.call(Schema.Unknown, { path }, { method: "wait_until_cancelled" }))
        yield* eventually(() => existsSync(path))
        yield* Fiber.interrupt(call)
        yield* eventually(() => existsSync(`${path}.cancelled`))
        assert.isNumber(yield* pid)
      })
  )

  it.effect("a call interrupted at any moment leaves its place to the next", () =>
    Effect.gen(function* () {
      for (let round = 0; round < 30; round++) {
        const calls = yield* Effect.forEach(Array.from({ length: 20 }), (_, n) =>
          Effect.forkChild(Synapse.call(Schema.Int, { a: n, b: round }, { method: n % 2 ? "add" : "add_async" }))
        )
        for (let yields = 0; yields < round; yields++) yield* Effect.yieldNow
        yield* Fiber.interruptAll(calls)
      }
      assert.isNumber(yield* pid)
    })
  )
})

describe("clocks", () => {
  it.effect("a runtime on the live clock serves a caller on the clock of a test", () =>
    Effect.gen(function* () {
      const scope = yield* Effect.scope
      const context = yield* TestClock.withLive(Layer.buildWithScope(Synapse.layer(modules.python), scope))
      assert.isNumber(
        yield* Synapse.call(Schema.Int, {}, { method: "pid", timeout: "1 minute" }).pipe(Effect.provide(context))
      )
    })
  )
})

describe("options", () => {
  const provided = <A, E>(self: Effect.Effect<A, E, Synapse.Synapse>, options: Partial<Synapse.SynapseOptions>) =>
    Effect.provide(self, Synapse.layer({ ...modules.python, ...options }))

  it.effect("a message beyond maxFrameSize costs its own call, in both directions", () =>
    provided(
      sameProcess(
        Effect.gen(function* () {
          const out = yield* reasonOf(Synapse.call(Schema.Unknown, new Uint8Array(200_000)), "FrameTooLarge")
          assert.deepStrictEqual([out.side, out.limit, out.delivery], ["typescript", 100_000, "notSent"])
          const back = yield* reasonOf(
            Synapse.call(Schema.Unknown, { what: "large" }, { method: "surprise" }),
            "FrameTooLarge"
          )
          assert.deepStrictEqual([back.side, back.limit], ["python", 100_000])
          assert.isAbove(back.size, 2_000_000)
        })
      ),
      { maxFrameSize: 100_000, sharedMemory: false }
    )
  )

  it.effect("concurrency lets sync handlers run side by side", () =>
    provided(
      Effect.gen(function* () {
        const path = temporaryFile()
        const held = yield* Effect.forkChild(Synapse.call(Schema.Unknown, { path }, { method: "wait_until_cancelled" }))
        assert.isNumber(yield* pid)
        yield* Fiber.interrupt(held)
      }),
      { concurrency: 2 }
    )
  )

  it.effect("several workers share the calls", () =>
    provided(
      Effect.gen(function* () {
        const pids = yield* Effect.forEach(Array.from({ length: 40 }), () => pid, { concurrency: "unbounded" })
        assert.strictEqual(new Set(pids).size, 2)
      }),
      { workers: 2 }
    )
  )

  it.effect("the worker's environment has what is added and no more than programs need", () =>
    provided(
      Effect.gen(function* () {
        process.env.SYNAPSE_TEST_SECRET = "do not pass on"
        const env = yield* Synapse.call(Schema.Record(Schema.String, Schema.String), {}, { method: "environment" })
        assert.strictEqual(env.MODEL, "small")
        assert.strictEqual(env.TOKEN, "hidden")
        assert.property(env, "PATH")
        assert.notProperty(env, "SYNAPSE_TEST_SECRET")
        assert.notProperty(env, "SYNAPSE_PPID")
      }),
      { env: { MODEL: "small", TOKEN: Redacted.make("hidden") } }
    )
  )

  it.effect("an entrypoint may be a file name, a path or a dotted module", () =>
    Effect.gen(function* () {
      assert.isNumber(yield* provided(pid, { entrypoint: "main.py" }))
      for (const entrypoint of ["package.inner", "package/inner.py"]) {
        assert.strictEqual(yield* provided(Synapse.call(Schema.String, null), { entrypoint }), "inner")
      }
    })
  )

  it.effect("output, logging and warnings arrive as records with level, logger, place and call", () =>
    Effect.gen(function* () {
      const records: Array<LogRecord> = []
      yield* provided(Synapse.call(Schema.String, { text: "hi" }, { method: "output" }), {
        logs: (record) => Effect.sync(() => records.push(record))
      })
      const find = (text: string) => {
        const record = records.find(({ message }) => message.includes(text))
        assert(record !== undefined, `no record of ${text} in ${JSON.stringify(records)}`)
        return record
      }
      const printed = find("printed hi")
      assert.deepInclude(printed, { level: "Info", logger: "stdout", message: "printed hi" })
      assert.match(printed.file ?? "", /main\.py$/)
      assert.isNumber(printed.line)
      assert.isNumber(printed.call)
      assert.deepInclude(find("complained hi"), { level: "Warn", logger: "stderr" })
      const logged = find("logged hi")
      assert.deepInclude(logged, { level: "Error", logger: "app.model", call: printed.call })
      assert.match(logged.file ?? "", /main\.py$/)
      assert.deepInclude(find("warned hi"), { level: "Warn", logger: "py.warnings" })
      assert.deepInclude(find("raw hi"), { level: "Info", logger: "stdout" })
      assert.match(find("caught").exception ?? "", /ValueError: hi/)
    })
  )
})

describe("the lifetime of the layer", () => {
  it.effect("a second runtime has its own key, process and calls", () =>
    Effect.gen(function* () {
      class Second extends Synapse.Service<Second>()("test/Second") {}
      const [first, second] = yield* Effect.all([pid, Second.call(Schema.Int, {}, { method: "pid" })]).pipe(
        Effect.provide(Layer.mergeAll(Synapse.layer(modules.python), Second.layer(modules.python)))
      )
      assert.notStrictEqual(first, second)
    })
  )

  it.effect("calls after the scope has closed fail with Closed and are not sent", () =>
    Effect.gen(function* () {
      const runtime = yield* Effect.provide(Synapse.Synapse, Synapse.layer(modules.python))
      const reason = yield* reasonOf(runtime.call(Schema.Unknown, 1), "Closed")
      assert.strictEqual(reason.delivery, "notSent")
    })
  )

  it.effect("the options come from the environment for SynapseLive", () =>
    Effect.gen(function* () {
      const config = { SYNAPSE: { DIRECTORY: modules.python.directory, ENTRYPOINT: "package.inner" } }
      const answer = yield* Synapse.call(Schema.String, null).pipe(
        Effect.provide(SynapseLive),
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(config)))
      )
      assert.strictEqual(answer, "inner")
    })
  )

  it.effect("the number of workers may be that of the machine", () =>
    Effect.gen(function* () {
      for (const [WORKERS, count] of [
        ["cpus", availableParallelism()],
        ["2", 2]
      ] as const) {
        const config = { SYNAPSE: { DIRECTORY: modules.python.directory, WORKERS } }
        const { workers } = yield* Synapse.status.pipe(
          Effect.provide(SynapseLive),
          Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(config)))
        )
        assert.strictEqual(workers.length, count)
      }
      const config = { SYNAPSE: { DIRECTORY: modules.python.directory, WORKERS: "all" } }
      const refused = yield* Effect.flip(Layer.build(SynapseLive)).pipe(
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(config)))
      )
      assert.include(refused.message, 'is "all", not "cpus" or a whole number')
    })
  )

  it.effect("layerConfig takes each option as a Config", () =>
    Effect.gen(function* () {
      const live = Synapse.layerConfig({
        directory: Config.String("MODULE"),
        entrypoint: Config.succeed("package.inner")
      })
      const answer = yield* Synapse.call(Schema.String, null).pipe(
        Effect.provide(live),
        Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ MODULE: modules.python.directory })))
      )
      assert.strictEqual(answer, "inner")
    })
  )
})

describe("a layer that cannot be built", () => {
  const build = (options: Synapse.SynapseOptions) => Effect.scoped(Layer.build(Synapse.layer(options)))

  it.effect("names a missing directory", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(build({ directory: "/does/not/exist" }), "ModuleNotFound")
      assert.deepStrictEqual([reason.what, reason.path], ["directory", "/does/not/exist"])
    })
  )

  it.effect("names a directory that is a file", () =>
    Effect.gen(function* () {
      const directory = join(modules.python.directory, "main.py")
      assert.strictEqual((yield* reasonOf(build({ directory }), "ModuleNotFound")).what, "directory")
    })
  )

  it.effect("names a missing entrypoint, and one that is no module or leads outside", () =>
    Effect.gen(function* () {
      for (const entrypoint of ["nope", "../python/main", "-c", "a\0b", "/etc/passwd"]) {
        const reason = yield* reasonOf(build({ ...modules.python, entrypoint }), "ModuleNotFound")
        assert.strictEqual(reason.what, "entrypoint")
      }
    })
  )

  it.effect("names an option that cannot work", () =>
    Effect.gen(function* () {
      const wrong: ReadonlyArray<readonly [string, Partial<Synapse.SynapseOptions>]> = [
        ["workers", { workers: 0 }],
        ["concurrency", { concurrency: 1.5 }],
        ["maxFrameSize", { maxFrameSize: 1 }],
        ["restart.max", { restart: { max: -1 } }],
        ["queue.capacity", { queue: { capacity: Number.NaN } }],
        ["queue.whenFull", { queue: { whenFull: "explode" as never } }],
        ["environment.mode", { environment: "conda" as never }],
        ["python", { python: 3.11 as never }],
        ["directory", { directory: "" }],
        ["callTimeout", { callTimeout: "soon" as never }]
      ]
      for (const [name, options] of wrong) {
        const reason = yield* reasonOf(build({ ...modules.python, ...options }), "StartFailed")
        assert.strictEqual(reason.kind, "options")
        assert.include(reason.message, `\`${name}\``)
      }
    })
  )

  it.effect("names an interpreter that is not there", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(build({ ...modules.python, python: "/no/such/python" }), "PythonNotFound")
      assert.include(reason.message, "/no/such/python")
    })
  )

  it.effect("tells the traceback of a module that does not import", () =>
    Effect.gen(function* () {
      const missing = yield* reasonOf(build({ ...modules.broken, entrypoint: "missing_import" }), "StartFailed")
      assert.strictEqual(missing.kind, "import")
      assert.strictEqual(missing.exception?.type, "ModuleNotFoundError")
      assert.include(missing.message, "import a_package_that_does_not_exist")
      const syntax = yield* reasonOf(build({ ...modules.broken, entrypoint: "syntax_error" }), "StartFailed")
      assert.strictEqual(syntax.exception?.type, "SyntaxError")
      assert.match(syntax.message, /syntax_error\.py/)
    })
  )

  it.effect("tells the exit of a module that leaves while it is loaded", () =>
    Effect.gen(function* () {
      const soft = yield* reasonOf(build({ ...modules.broken, entrypoint: "exits" }), "StartFailed")
      assert.strictEqual(soft.exception?.type, "SystemExit")
      const hard = yield* reasonOf(build({ ...modules.broken, entrypoint: "exits_hard" }), "StartFailed")
      assert.deepStrictEqual([hard.kind, hard.exitCode], ["exit", 6])
      assert.include(hard.stderr ?? "", "last words")
      const killed = yield* reasonOf(build({ ...modules.broken, entrypoint: "kills_itself" }), "StartFailed")
      assert.strictEqual(killed.signal, "SIGKILL")
    })
  )

  it.effect("gives up on a module that never finishes loading", () =>
    Effect.gen(function* () {
      const building = yield* Effect.forkChild(
        reasonOf(build({ ...modules.broken, entrypoint: "silent", startTimeout: "30 seconds" }), "StartFailed")
      )
      // Time passes for the runtime whenever it looks, until it has given up.
      const reason = yield* Effect.raceFirst(
        Fiber.join(building),
        Effect.forever(Effect.andThen(TestClock.withLive(Effect.sleep("50 millis")), TestClock.adjust("31 seconds")))
      )
      assert.strictEqual(reason.kind, "timeout")
      assert.include(reason.message, "startTimeout")
    })
  )
})

describe("delivery", () => {
  it.live("an idempotent call is sent again when its worker dies", () =>
    Effect.gen(function* () {
      const path = temporaryFile()
      const runs = yield* Synapse.call(Schema.Int, { path }, { method: "write_then_die", idempotent: true })
      assert.strictEqual(runs, 3)
    }).pipe(Effect.provide(Synapse.layer(modules.python)))
  )

  it.live("a call that is not runs once, and says that nobody knows", () =>
    Effect.gen(function* () {
      const path = temporaryFile()
      const reason = yield* reasonOf(Synapse.call(Schema.Int, { path }, { method: "write_then_die" }), "WorkerExited")
      assert.deepStrictEqual([reason.exitCode, reason.delivery], [9, "unknown"])
      yield* pid
      assert.deepStrictEqual(linesOf(path), ["ran"])
    }).pipe(Effect.provide(Synapse.layer(modules.python)))
  )
})
