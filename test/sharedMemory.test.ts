/**
 * Large values between this process and real workers. What is larger than `maxFrameSize` can only have come through shared
 * memory; and where a MiB is all there is of it, only what is given back can be used again.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { readdirSync, readlinkSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Logger, Schema, type Scope, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { HostFunctions, NdArray, Synapse } from "effect-synapse"
import type { SynapseError } from "../src/SynapseError.ts"
import { reasonOf, upTo } from "./fixtures/dialogue.ts"
import { memory } from "./fixtures/modules.ts"
import { eventually, isAlive } from "./fixtures/processes.ts"

const KiB = 1024
const MiB = KiB * KiB

type Options = Partial<Synapse.SynapseOptions<Synapse.Synapse>>

const call = <A = unknown>(method: string, input: unknown, options: Synapse.CallOptions = {}) =>
  Synapse.call(Schema.Unknown as Schema.Decoder<unknown>, input, { ...options, method }) as Effect.Effect<
    A,
    SynapseError,
    Synapse.Synapse
  >

/** Runs an effect with a runtime of its own. */
const withModule =
  (options: Options = {}) =>
  <A, E>(effect: Effect.Effect<A, E, Synapse.Synapse | Scope.Scope>): Effect.Effect<A, E | SynapseError> =>
    Effect.scoped(effect).pipe(
      Effect.provide(Logger.layer([])),
      Effect.provide(Synapse.layer({ ...memory, ...options } as Synapse.SynapseOptions<Synapse.Synapse>))
    ) as never

const test = (
  name: string,
  body: () => Effect.Effect<unknown, unknown, Synapse.Synapse | Scope.Scope>,
  options?: Options
) => it.live(name, () => withModule(options)(body()))

/** A value that takes most of the memory that there is. */
const large = () => Uint8Array.from({ length: 700 * KiB }, (_, i) => i)

/** There is room for a large value, at the latest when the worker has said so. */
const hasRoom = Effect.retry(call("echo", large()), {
  while: ({ reason }: SynapseError) => reason._tag === "FrameTooLarge"
})

/** Both ways are free again: what a worker sends, too. */
const isAsBefore = Effect.andThen(
  hasRoom,
  Effect.retry(call("copied", large()), {
    while: ({ reason }: SynapseError) => reason._tag === "FrameTooLarge"
  })
)

/** Files of memory that this process has open. */
const openFiles = (): number =>
  readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return /\(deleted\)$/.test(readlinkSync(`/proc/self/fd/${fd}`))
    } catch {
      return false
    }
  }).length

const names = (): ReadonlyArray<string> => readdirSync("/dev/shm").filter((name) => name.startsWith("synapse"))

describe("arrays", () => {
  const makers = [
    [Int8Array, "int8"],
    [Uint8Array, "uint8"],
    [Int16Array, "int16"],
    [Uint16Array, "uint16"],
    [Int32Array, "int32"],
    [Uint32Array, "uint32"],
    [BigInt64Array, "int64"],
    [BigUint64Array, "uint64"],
    [Float32Array, "float32"],
    [Float64Array, "float64"]
  ] as const

  test("of every type arrive as they are, in both directions", () =>
    Effect.gen(function* () {
      for (const [make, dtype] of makers) {
        const bytes = Uint8Array.from({ length: 40_000 }, (_, i) => (i * 7) % 64)
        const data = new make(bytes.buffer, 0, 40_000 / make.BYTES_PER_ELEMENT)
        const array = NdArray.make(data as Float64Array, [4, data.length / 4], dtype as "float64")
        const [name, shape] = yield* call<ReadonlyArray<unknown>>("described", array)
        assert.deepStrictEqual([name, shape], [dtype, [4, data.length / 4]])
        for (const method of ["echo", "echo_async", "copied"]) {
          assert.deepStrictEqual(yield* call(method, array), array, `${dtype} ${method}`)
        }
      }
    }))

  test("of one dimension are typed arrays", () =>
    Effect.gen(function* () {
      for (const [make] of makers) {
        // Bytes are bytes.
        if (make === Uint8Array) continue
        const data = new make(30_000)
        assert.deepStrictEqual(yield* call("copied", data), data)
      }
    }))

  test("of booleans keep their type, and those of up to 32 dimensions their shape", () =>
    Effect.gen(function* () {
      const flags = Uint8Array.from({ length: 40_000 }, (_, i) => i & 1)
      for (const shape of [[40_000], [2, 20_000], [...upTo(29).map(() => 1), 5, 80, 100]]) {
        const array = NdArray.make(flags, shape, "bool")
        assert.deepStrictEqual(yield* call("copied", array), array)
        const floats = NdArray.make(Float32Array.from(flags), shape)
        const arrived = yield* call<NdArray.NdArray | Float32Array>("copied", floats)
        assert.deepStrictEqual(arrived, shape.length === 1 ? floats.data : floats)
      }
    }))

  test("without elements, and with one, are values as all others", () =>
    Effect.gen(function* () {
      for (const array of [
        NdArray.make(new Float64Array(0), [0, 3]),
        NdArray.make(new Float64Array(0), [3, 0, 2]),
        NdArray.make(Float64Array.of(1.5), [])
      ]) {
        assert.deepStrictEqual(yield* call("copied", { array, large: large() }), { array, large: large() })
      }
      assert.deepStrictEqual(yield* call("copied", new Float32Array(0)), new Float32Array(0))
    }))

  test("arrive in the order of their indices, however they lie in Python", () =>
    Effect.gen(function* () {
      const grid = (rows: number, columns: number, at: (row: number, column: number) => number) =>
        NdArray.make(
          Int32Array.from({ length: rows * columns }, (_, i) => at(Math.floor(i / columns), i % columns)),
          [rows, columns]
        )
      assert.deepStrictEqual(yield* call("laid_out", {}), {
        transposed: grid(100, 120, (row, column) => column * 100 + row),
        strided: grid(60, 20, (row, column) => row * 200 + column * 5),
        reversed: grid(120, 100, (row, column) => (119 - row) * 100 + column),
        columns: grid(120, 100, (row, column) => row * 100 + column),
        swapped: grid(120, 100, (row, column) => row * 100 + column),
        broadcast: grid(50, 100, (_, column) => column),
        scalar: NdArray.make(Float64Array.of(7.5), []),
        empty: NdArray.make(new Float32Array(0), [0, 5])
      })
    }))

  test("that Python makes where they are sent from arrive, time and again", () =>
    Effect.gen(function* () {
      const count = 80_000
      for (const _ of upTo(20)) {
        assert.deepStrictEqual(
          yield* call("made", { count }),
          Float64Array.from({ length: count }, (_, i) => i)
        )
      }
    }))

  test("are this side's own: what Python does later changes nothing", () =>
    Effect.gen(function* () {
      const value = NdArray.make(new Float64Array(20_000).fill(1), [20_000])
      const first = yield* call<Float64Array>("echo", value.data)
      first.fill(9)
      assert.strictEqual(value.data[0], 1)
      const second = yield* call<Float64Array>("numbers", { count: 20_000 })
      yield* call("numbers", { count: 20_000 })
      assert.strictEqual(second[19_999], 19_999)
    }))
})

describe("bytes", () => {
  const bytes = large()

  test("arrive as bytes, whatever holds them here", () =>
    Effect.gen(function* () {
      const shared = new Uint8Array(new SharedArrayBuffer(bytes.length))
      shared.set(bytes)
      const askew = new Uint8Array(bytes.length + 3).subarray(3)
      askew.set(bytes)
      for (const value of [bytes, Buffer.from(bytes), bytes.buffer, new DataView(bytes.buffer), shared, askew]) {
        const sum = bytes.reduce((sum, byte) => sum + byte, 0)
        assert.deepStrictEqual(yield* call("described", value), ["bytes", bytes.length, sum])
        assert.deepStrictEqual(yield* call("echo", value), bytes)
      }
    }))

  test("arrive from bytes, bytearrays and memoryviews", () =>
    Effect.gen(function* () {
      for (const kind of ["bytes", "bytearray", "memoryview"]) {
        assert.deepStrictEqual(yield* call("zeros", { size: 300_000, kind }), new Uint8Array(300_000))
      }
    }))
})

describe("large values", () => {
  const value = {
    name: "nested",
    list: [1, { array: NdArray.make(Float64Array.from({ length: 9000 }, Math.sqrt), [90, 100]) }, "text"],
    bytes: Uint8Array.from({ length: 20_000 }, (_, i) => i % 251),
    deeper: { down: [{ here: new Float32Array(5000).fill(0.5) }] },
    small: Uint8Array.of(1, 2, 3)
  }

  test("lie anywhere in objects and lists", () =>
    Effect.gen(function* () {
      for (const method of ["echo", "echo_async", "copied"]) {
        assert.deepStrictEqual(yield* call(method, value), value, method)
      }
    }))

  test("pass the schemas of a call", () =>
    Effect.gen(function* () {
      const Image = Schema.Struct({ pixels: NdArray.schema({ dtype: "float32" }), raw: Schema.Uint8Array })
      const image = {
        pixels: NdArray.make(new Float32Array(30_000).fill(2), [100, 300]),
        raw: large().subarray(0, 9000)
      }
      const answer = yield* Synapse.call(
        Schema.Struct({ value: Image }),
        { value: image },
        { method: "copied", payload: Schema.Struct({ value: Image }) }
      )
      assert.deepStrictEqual(answer, { value: image })
    }))

  test(
    "are carried by the message below the threshold, and not from it on",
    () =>
      Effect.gen(function* () {
        const below = call("add", { value: new Uint8Array(99_999), to: 0 })
        assert.strictEqual((yield* reasonOf(below, "FrameTooLarge")).side, "typescript")
        assert.strictEqual(yield* call("add", { value: new Uint8Array(100_000), to: 0 }), 100_000)
        assert.strictEqual((yield* reasonOf(call("zeros", { size: 99_999 }), "FrameTooLarge")).side, "python")
        assert.deepStrictEqual(yield* call("zeros", { size: 100_000 }), new Uint8Array(100_000))
      }),
    { sharedMemory: { threshold: 100_000 } }
  )

  test("use the same memory again and again: in all, a hundred times what there is", () =>
    Effect.gen(function* () {
      const value = large()
      for (const _ of upTo(80)) {
        assert.deepStrictEqual(yield* call("echo", value), value)
        assert.strictEqual((yield* call<Uint8Array>("copied", value)).length, value.length)
      }
    }))

  test("of sizes that differ use the same memory", () =>
    Effect.gen(function* () {
      for (const n of upTo(60)) {
        const size = 2000 + ((n * 7919) % 90) * 10_000
        assert.strictEqual((yield* call<Uint8Array>("copied", new Uint8Array(size))).length, size)
      }
    }))

  test("that are in an answer more than once are each there", () =>
    Effect.gen(function* () {
      const value = new Float64Array(2000).fill(3)
      assert.deepStrictEqual(
        yield* call("many", { value, times: 10 }),
        upTo(10).map(() => value)
      )
    }))

  test("that would be more than the capacity once they are copied fail their call", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(call("many", { value: large(), times: 2 }), "DecodeFailed")
      assert.match(reason.issue, /more than the 1048576 of its capacity/)
      yield* isAsBefore
    }))

  for (const [name, options] of [
    ["that find no room", { maxFrameSize: 16 * MiB }],
    ["without shared memory", { maxFrameSize: 16 * MiB, sharedMemory: false }]
  ] as const) {
    test(
      `${name} are carried by their messages, in both directions`,
      () =>
        Effect.gen(function* () {
          const value = new Float64Array(500_000).fill(1.5)
          assert.deepStrictEqual(yield* call("copied", value), value)
          assert.deepStrictEqual(
            yield* call("numbers", { count: 300_000 }),
            Float64Array.from({ length: 300_000 }, (_, i) => i)
          )
          assert.strictEqual((yield* call<Float64Array>("made", { count: 300_000 })).length, 300_000)
          const list = [large(), large(), large()]
          assert.deepStrictEqual(yield* call("copied", list), list)
        }),
      options
    )
  }

  for (const [name, options] of [
    ["that find no room", {}],
    ["without shared memory", { sharedMemory: false }]
  ] as const) {
    test(
      `${name}, nor in their message, fail with its size, and only their call`,
      () =>
        Effect.gen(function* () {
          const size = 2 * MiB
          const out = yield* reasonOf(call("add", { value: new Uint8Array(size), to: 1 }), "FrameTooLarge")
          assert.deepStrictEqual([out.side, out.limit], ["typescript", 16_384])
          assert.isAtLeast(out.size, size)
          const back = yield* reasonOf(call("zeros", { size }), "FrameTooLarge")
          assert.deepStrictEqual([back.side, back.limit], ["python", 16_384])
          assert.isAtLeast(back.size, size)
          assert.strictEqual(yield* call("add", { value: new Uint8Array(10), to: 1 }), 11)
        }),
      options
    )
  }
})

describe("arrays that a module retains", () => {
  test("keep their memory, and there is room again when they are dropped", () =>
    Effect.gen(function* () {
      const value = new Float64Array(60_000).fill(2)
      assert.strictEqual(yield* call("keep", value), 1)
      assert.strictEqual(yield* call("keep", value), 2)
      yield* reasonOf(call("keep", value), "FrameTooLarge")
      // Smaller ones go in what is left, or in their message.
      assert.strictEqual(yield* call("add", { value: new Uint8Array(10_000), to: 0 }), 10_000)
      assert.deepStrictEqual(yield* call("look", {}), [120_000, 120_000])
      yield* call("drop", {})
      yield* isAsBefore
    }))

  test(
    "do not hold up others: these are carried by their messages",
    () =>
      Effect.gen(function* () {
        const value = new Float64Array(60_000).fill(2)
        for (const n of upTo(5)) assert.strictEqual(yield* call("keep", value), n + 1)
        assert.deepStrictEqual(yield* call("copied", value), value)
        assert.deepStrictEqual(
          yield* call("look", {}),
          upTo(5).map(() => 120_000)
        )
      }),
    { maxFrameSize: 16 * MiB }
  )

  test("and returned once are read-only from then on", () =>
    Effect.gen(function* () {
      const value = new Float64Array(60_000)
      yield* call("keep", value)
      assert.deepStrictEqual(yield* call("writable", new Float64Array(10_000)), [true, true])
      assert.deepStrictEqual(yield* call("increment", new Float64Array(10_000)), new Float64Array(10_000).fill(1))
      yield* call("keep", yield* call("echo", new Float64Array(10_000)))
      assert.deepStrictEqual(yield* call("look", {}), [0, 0])
    }))
})

describe("memory is given back by calls that", () => {
  const ends = (
    name: string,
    times: number,
    end: Effect.Effect<unknown, unknown, Synapse.Synapse>,
    options?: Options
  ) =>
    test(
      name,
      () =>
        Effect.andThen(
          Effect.forEach(upTo(times), () => end),
          isAsBefore
        ),
      options
    )
  const value = large()
  const progress = Synapse.onProgress(Schema.Finite, () => Effect.void)

  ends(
    "are interrupted while they run",
    20,
    Effect.gen(function* () {
      const waiting = yield* Effect.forkChild(call("waits", value))
      yield* eventuallyOpen
      yield* Fiber.interrupt(waiting)
      yield* hasRoom
    })
  )
  ends(
    "are interrupted before they are sent",
    40,
    Effect.gen(function* () {
      const waiting = yield* Effect.forkChild(call("waits", value), { startImmediately: true })
      yield* Fiber.interrupt(waiting)
      yield* hasRoom
    })
  )
  ends(
    "are interrupted as they are answered",
    60,
    Effect.gen(function* () {
      const answered = yield* Effect.forkChild(call("copied", value))
      for (const _ of upTo(10)) yield* Effect.yieldNow
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      yield* Fiber.interrupt(answered)
      yield* isAsBefore
    })
  )
  ends("time out", 10, Effect.andThen(reasonOf(call("waits", value, { timeout: "1 millis" }), "CallTimeout"), hasRoom))
  ends("name no handler", 20, reasonOf(call("nobody", value), "MethodNotFound"))
  ends("do not fit their handler", 20, reasonOf(call("add", { value, to: "two" }), "DecodeFailed"))
  ends("cannot be encoded", 20, reasonOf(call("add", { value, to: () => 2 }), "EncodeFailed"))
  ends(
    "are too large for a message beside what lies in memory",
    20,
    reasonOf(call("add", { value, to: "x".repeat(20_000) }), "FrameTooLarge")
  )
  ends("fail in Python", 20, Effect.andThen(reasonOf(call("fails", value), "PythonException"), hasRoom))
  // The fields of errors are carried by the message.
  ends(
    "fail with an error that has large fields",
    20,
    Effect.andThen(reasonOf(call("refuses", value), "FrameTooLarge"), hasRoom)
  )
  ends(
    "have answers that do not fit their schema",
    20,
    Effect.andThen(reasonOf(Synapse.call(Schema.String, value, { method: "copied" }), "DecodeFailed"), hasRoom)
  )
  ends(
    "have a listener that does not take their progress",
    5,
    Effect.gen(function* () {
      const reason = yield* reasonOf(call("reports", { size: 700 * KiB }, { progress }), "DecodeFailed")
      assert.strictEqual(reason.side, "typescript")
      // At once, rather than when the answer is collected as garbage.
      yield* call("reports", { size: 700 * KiB })
    })
  )
  ends("lose their worker", 4, reasonOf(call("dies", value), "WorkerExited"), { restart: { backoff: 0, max: 100 } })
  ends("warm a worker up", 1, Effect.void, { warmUp: { method: "echo", input: value } })
})

const eventuallyOpen = Effect.repeat(Synapse.stats, { until: ({ calls }) => calls > 0 })

describe("streams of large items", () => {
  const MostlyFull = { sharedMemory: { threshold: 1024, capacityMiB: 4 } }

  for (const method of ["items", "items_async"]) {
    test(
      `come in order from ${method}, however much there is in all`,
      () =>
        Effect.gen(function* () {
          const received = yield* Stream.runFold(
            Synapse.stream(Schema.Uint8Array, { count: 100, size: 300_000 }, { method }),
            () => 0,
            (n, item) => {
              assert.deepStrictEqual([item.length, item[0], item[299_999]], [300_000, n, n])
              return n + 1
            }
          )
          assert.strictEqual(received, 100)
        }),
      MostlyFull
    )

    test(
      `wait in ${method} for a consumer that does not take them`,
      () =>
        Effect.gen(function* () {
          for (const _ of upTo(10)) {
            const some = yield* Synapse.stream(Schema.Uint8Array, { count: 100, size: 300_000 }, { method }).pipe(
              Stream.tap(() => call("add", { value: new Uint8Array(2000), to: 0 })),
              Stream.take(3),
              Stream.runCollect
            )
            assert.deepStrictEqual(
              some.map((item) => item[0]),
              [0, 1, 2]
            )
          }
          yield* isAsBefore
        }),
      MostlyFull
    )
  }

  test("go to Python in messages", () =>
    Effect.gen(function* () {
      const arrays = Stream.map(Stream.range(1, 20), (n) => new Float64Array(1000).fill(n))
      assert.strictEqual(yield* call("total", { arrays }), 210_000)
      const tooLarge = call("total", { arrays: Stream.make(new Float64Array(50_000)) })
      assert.strictEqual((yield* Effect.flip(tooLarge)).reason._tag, "PythonException")
    }))
})

describe("functions of the host", () => {
  const Group = RpcGroup.make(
    Rpc.make("double", { payload: { value: NdArray.Float64Array }, success: Schema.Unknown }),
    Rpc.make("refuse", { payload: { value: Schema.Unknown }, success: Schema.Void, error: Schema.Unknown })
  )
  const host = HostFunctions.make(Group, {
    double: ({ value }) => Effect.succeed((value as Float64Array).map((n) => n * 2)),
    refuse: ({ value }) => Effect.fail({ _tag: "Refused", message: "no", value })
  })

  test(
    "are given large arguments, and give large results",
    () =>
      Effect.gen(function* () {
        const value = Float64Array.from({ length: 60_000 }, (_, i) => i)
        for (const _ of upTo(20)) {
          assert.deepStrictEqual(
            yield* call("ask", { method: "double", value }),
            value.map((n) => n * 2)
          )
        }
        for (const _ of upTo(10)) {
          yield* reasonOf(call("ask", { method: "refuse", value }), "FrameTooLarge")
          yield* reasonOf(call("ask", { method: "nobody", value }), "PythonException")
        }
        assert.deepStrictEqual(
          yield* call("ask", { method: "double", value }),
          value.map((n) => n * 2)
        )
      }),
    { host, sharedMemory: { threshold: 1024, capacityMiB: 2 } }
  )
})

describe("workers", () => {
  const value = large()

  test(
    "have each their own memory",
    () =>
      Effect.gen(function* () {
        const both = Effect.all([
          call("keep", value.subarray(0, 500_000)),
          call("waits", {}).pipe(Effect.timeoutOption(0))
        ])
        yield* both
        const answers = yield* Effect.forEach(upTo(60), () => call("copied", value.subarray(0, 400_000)), {
          concurrency: 2
        })
        assert.isTrue(answers.every((answer) => (answer as Uint8Array).length === 400_000))
      }),
    { workers: 2 }
  )

  test(
    "that live for one call give their answer and their memory",
    () =>
      Effect.gen(function* () {
        const before = openFiles()
        for (const _ of upTo(4)) assert.deepStrictEqual(yield* call("copied", value), value)
        // Of those that wait for their call, and of none that had it.
        yield* eventually(() => openFiles() <= before + 2)
      }),
    { oneShot: true }
  )

  test("that are replaced by others begin with all of theirs", () =>
    Effect.gen(function* () {
      const before = openFiles()
      for (const _ of upTo(3)) {
        yield* call("keep", value)
        yield* Effect.flatMap(Synapse.Synapse, ({ reload }) => reload)
        yield* isAsBefore
      }
      yield* eventually(() => openFiles() <= before)
    }))

  it.live("leave no descriptor, and nothing that has a name", () =>
    Effect.gen(function* () {
      const before = openFiles()
      yield* withModule({ workers: 2 })(
        Effect.gen(function* () {
          assert.strictEqual(openFiles(), before + 4)
          yield* call("copied", value)
          assert.deepStrictEqual(names(), [])
          yield* reasonOf(call("dies", value), "WorkerExited")
          yield* hasRoom
          yield* eventually(() => openFiles() === before + 4)
        })
      )
      assert.strictEqual(openFiles(), before)
      assert.deepStrictEqual(names(), [])
    })
  )

  it.live("have no files where memory is not shared", () =>
    Effect.gen(function* () {
      const before = openFiles()
      yield* withModule({ sharedMemory: false })(Effect.sync(() => assert.strictEqual(openFiles(), before)))
    })
  )

  it.live("of a program that is killed in the middle leave nothing", () =>
    Effect.gen(function* () {
      const program = spawn(
        process.execPath,
        [fileURLToPath(new URL("./fixtures/memory/program.ts", import.meta.url))],
        {
          stdio: ["ignore", "pipe", "inherit"]
        }
      )
      yield* Effect.addFinalizer(() => Effect.sync(() => program.kill("SIGKILL")))
      const [line] = yield* Effect.promise(() => once(program.stdout, "data"))
      const pid = Number(String(line))
      assert.isTrue(isAlive(pid))
      const maps = () => readdirSync(`/proc/${program.pid}/fd`).length
      assert.isAbove(maps(), 0)
      program.kill("SIGKILL")
      yield* eventually(() => !isAlive(pid))
      assert.deepStrictEqual(names(), [])
    })
  )
})

describe("the options of shared memory", () => {
  const refused: ReadonlyArray<readonly [string, unknown, RegExp]> = [
    ["no object", true, /`sharedMemory` is true, not false or an object/],
    ["null", null, /`sharedMemory` is null/],
    [
      "a threshold that is too small",
      { threshold: 1023 },
      /`sharedMemory.threshold` is 1023, not a whole number from 1024/
    ],
    ["a threshold that is no whole number", { threshold: 5000.5 }, /`sharedMemory.threshold`/],
    ["a threshold as text", { threshold: "1 MiB" }, /`sharedMemory.threshold`/],
    ["no capacity", { capacityMiB: 0 }, /`sharedMemory.capacityMiB` is 0, not a whole number from 1 to/],
    ["a capacity beyond all memory", { capacityMiB: 2 ** 21 }, /`sharedMemory.capacityMiB`/],
    ["a word for being in place", { inPlace: "yes" }, /`sharedMemory.inPlace` is "yes", not one of true, false/]
  ]
  for (const [name, sharedMemory, message] of refused) {
    it.effect(`refuse ${name}, by name`, () =>
      Effect.gen(function* () {
        const reason = yield* reasonOf(withModule({ sharedMemory } as never)(Effect.void), "StartFailed")
        assert.strictEqual(reason.kind, "options")
        assert.match(reason.detail, message)
      })
    )
  }

  for (const [polling, message] of [
    ["2 millis", /`polling` is "2 millis", not false or a duration of at most a millisecond/],
    [-1, /`polling` is -1/],
    ["soon", /`polling` is "soon"/],
    [true, /`polling` is true/]
  ] as const) {
    it.effect(`refuse a polling of ${polling}, by name`, () =>
      Effect.gen(function* () {
        const reason = yield* reasonOf(withModule({ polling } as never)(Effect.void), "StartFailed")
        assert.match(reason.detail, message)
      })
    )
  }

  for (const polling of [false, 0, "50 micros", "1 millis"] as const) {
    test(
      `let a worker work with a polling of ${polling}`,
      () =>
        Effect.gen(function* () {
          for (const _ of upTo(20)) assert.strictEqual(yield* call("add", { value: new Uint8Array(9), to: 1 }), 10)
        }),
      { polling }
    )
  }
})
