/** Arrays in memory that this process and its workers have mapped. */
import { readdirSync, readlinkSync } from "node:fs"
import { MessageChannel } from "node:worker_threads"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Schedule, Schema, Scope } from "effect"
import { NdArray, Synapse } from "effect-synapse"
import type { SynapseError } from "../src/SynapseError.ts"
import { reasonOf, upTo } from "./fixtures/dialogue.ts"
import { memory } from "./fixtures/modules.ts"

const MiB = 1024 * 1024
const isLinux = process.platform === "linux"

const inPlace = { sharedMemory: { threshold: 1024, capacityMiB: 4, inPlace: true } }

const call = <A = unknown>(method: string, input: unknown) =>
  Synapse.call(Schema.Unknown as Schema.Decoder<unknown>, input, { method }) as Effect.Effect<
    A,
    SynapseError,
    Synapse.Synapse
  >

const test = (
  name: string,
  body: () => Effect.Effect<unknown, unknown, Synapse.Synapse | Scope.Scope>,
  options: Partial<Synapse.SynapseOptions> = {}
) =>
  (isLinux ? it.live : it.live.skip)(name, () =>
    Effect.scoped(body()).pipe(Effect.provide(Synapse.layer({ ...memory, ...inPlace, ...options })))
  )

const allocateIn = (scope: Scope.Scope, dtype: "float64" | "uint8", shape: number | ReadonlyArray<number>) =>
  Scope.provide(Synapse.allocate(dtype, shape), scope)

const eventually = <A, R>(allocate: Effect.Effect<A, SynapseError, R>) =>
  Effect.retry(allocate, { while: ({ reason }) => reason._tag === "Unsupported", schedule: Schedule.spaced(1) })

/** What the arrays of a scope that is closed by hand are in. */
const aScope = Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
const close = (scope: Scope.Closeable) => Scope.close(scope, Exit.void)

describe("an array that is allocated", () => {
  test("has its type, its shape and nothing but zeros, whatever was there before", () =>
    Effect.gen(function* () {
      const dtypes = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float32 float64".split(" ")
      for (const dtype of dtypes as Array<NdArray.DType>) {
        for (const shape of [[3, 5, 7], [40_000], []]) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const array = yield* Synapse.allocate(dtype, shape)
              assert.deepStrictEqual([array.dtype, array.shape], [dtype, shape])
              assert.strictEqual(
                array.data.length,
                shape.reduce((size, n) => size * n, 1)
              )
              assert.isTrue((array.data as Float64Array).every((element) => Number(element) === 0))
              const ones = array.data as unknown as { fill: (value: unknown) => void }
              ones.fill(typeof array.data[0] === "bigint" ? 1n : 1)
            })
          )
        }
      }
    }))

  test("of a length has one dimension", () =>
    Effect.gen(function* () {
      const array = yield* Synapse.allocate("int16", 12)
      assert.deepStrictEqual([array.shape, array.data], [[12], new Int16Array(12)])
    }))

  test("is the same memory in Python: each side sees what the other writes", () =>
    Effect.gen(function* () {
      const array = yield* Synapse.allocate("float64", [50, 40])
      yield* call("keep", array)
      array.data[7] = 2.5
      assert.deepStrictEqual(yield* call("look", {}), [2.5])
      yield* call("fill", { out: array, value: 3 })
      assert.isTrue(array.data.every((element) => element === 3))
      array.data.fill(0.5)
      assert.deepStrictEqual(yield* call("look", {}), [1000])
    }))

  test("that a call returns is of the same buffer, and so is a contiguous part of it", () =>
    Effect.gen(function* () {
      const array = yield* Synapse.allocate("float64", [50, 40])
      for (const [i] of array.data.entries()) array.data[i] = i
      const same = yield* call<NdArray.NdArray<"float64">>("increment", array)
      assert.strictEqual(same.data.buffer, array.data.buffer)
      assert.deepStrictEqual(same.shape, [50, 40])
      assert.strictEqual(array.data[10], 11)
      const [row, rows, column] = yield* call<[Float64Array, NdArray.NdArray<"float64">, Float64Array]>("parts", array)
      assert.strictEqual(row.buffer, array.data.buffer)
      assert.strictEqual(rows.data.buffer, array.data.buffer)
      assert.deepStrictEqual([rows.shape, rows.data.byteOffset], [[10, 40], 10 * 40 * 8])
      // What is not contiguous is a copy.
      assert.notStrictEqual(column.buffer, array.data.buffer)
      row[0] = 77
      assert.strictEqual(array.data[0], 77)
      assert.strictEqual(column[0], 2)
    }))

  test("may be written to in Python after it was returned", () =>
    Effect.gen(function* () {
      const array = yield* Synapse.allocate("float64", 3000)
      for (const n of upTo(10)) {
        yield* call("increment", array)
        assert.strictEqual(array.data[2999], n + 1)
      }
    }))

  test("is in the same memory whatever its size, and so is a part of it that is passed", () =>
    Effect.gen(function* () {
      const array = yield* Synapse.allocate("float64", [4, 3])
      yield* call("increment", NdArray.make(array.data.subarray(3, 9), [2, 3]))
      assert.deepStrictEqual(Array.from(array.data), [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0])
      yield* call("increment", array.data.subarray(0, 1))
      assert.strictEqual(array.data[0], 1)
    }))

  test("without elements is as any other", () =>
    Effect.gen(function* () {
      const array = yield* Synapse.allocate("float32", [0, 5])
      assert.deepStrictEqual(array, NdArray.make(new Float32Array(0), [0, 5]))
      assert.deepStrictEqual(yield* call("described", array), ["float32", [0, 5], 0, true])
      assert.deepStrictEqual(yield* call("echo", array), array)
      yield* call("fill", { out: array, value: 1 })
    }))

  test(
    "is that of all workers",
    () =>
      Effect.gen(function* () {
        const array = yield* Synapse.allocate("float64", 10_000)
        const pids = new Set<unknown>()
        for (const _ of upTo(200)) {
          if (pids.size === 2) break
          for (const pid of yield* Effect.all([call("pid", {}), call("pid", {})], { concurrency: 2 })) pids.add(pid)
        }
        yield* Effect.forEach(upTo(8), () => call("fill", { out: array, value: 1 }), { concurrency: 2 })
        yield* Effect.forEach(upTo(20), () => call("increment", array))
        assert.strictEqual(array.data[9999], 21)
      }),
    { workers: 2 }
  )

  test(
    "outlives its workers",
    () =>
      Effect.gen(function* () {
        const array = yield* Synapse.allocate("float64", 10_000)
        yield* call("fill", { out: array, value: 4 })
        yield* reasonOf(call("dies", array), "WorkerExited")
        assert.strictEqual(array.data[9999], 4)
        yield* call("increment", array)
        yield* Effect.flatMap(Synapse.Synapse, ({ reload }) => reload)
        yield* call("increment", array)
        assert.strictEqual(array.data[0], 6)
      }),
    { restart: { backoff: 0 } }
  )

  test("is left in Python as any argument when its call is given up", () =>
    Effect.gen(function* () {
      const array = yield* Synapse.allocate("float64", 10_000)
      for (const _ of upTo(20)) {
        const waiting = yield* Effect.forkChild(call("waits", array))
        yield* Effect.repeat(Synapse.stats, { until: ({ calls }) => calls > 0 })
        yield* Fiber.interrupt(waiting)
      }
      yield* call("increment", array)
      assert.strictEqual(array.data[0], 1)
    }))
})

describe("when its scope is closed", () => {
  test("its buffer is detached, and it cannot be passed any more", () =>
    Effect.gen(function* () {
      const scope = yield* aScope
      const array = yield* allocateIn(scope, "float64", [10, 10])
      const part = yield* call<Float64Array>("echo", array.data.subarray(10, 20))
      yield* close(scope)
      assert.deepStrictEqual(
        [array.data.length, (array.data.buffer as ArrayBuffer).detached, part.length],
        [0, true, 0]
      )
      const reason = yield* reasonOf(call("echo", array), "EncodeFailed")
      assert.match(reason.issue, /memory was let go of/)
    }))

  test("a worker that holds it has what was there, and nobody else is given that memory", () =>
    Effect.gen(function* () {
      const scope = yield* aScope
      const array = yield* allocateIn(scope, "float64", [100, 100])
      array.data.fill(1)
      yield* call("keep", array)
      yield* close(scope)
      const others = yield* Effect.forEach(upTo(5), () => Synapse.allocate("float64", [100, 100]))
      for (const other of others) other.data.fill(9)
      assert.deepStrictEqual(yield* call("look", {}), [10_000])
      yield* call("fill", { out: others[0], value: 2 })
      assert.deepStrictEqual(yield* call("look", {}), [10_000])
    }))

  test("what a worker holds of it and returns then is an answer that does not decode", () =>
    Effect.gen(function* () {
      const scope = yield* aScope
      const array = yield* allocateIn(scope, "float64", [100, 100])
      yield* call("keep", array)
      yield* close(scope)
      const reason = yield* reasonOf(call("kept_first", {}), "DecodeFailed")
      assert.match(reason.issue, /was let go of/)
      yield* call("drop", {})
    }))

  test("there is room for others", () =>
    Effect.gen(function* () {
      for (const n of upTo(40)) {
        yield* Effect.scoped(
          Effect.gen(function* () {
            // At the latest when the worker has said that it needs the one before no more.
            const array = yield* eventually(Synapse.allocate("uint8", 3 * MiB - n))
            assert.strictEqual((yield* call<Uint8Array>("echo", array)).length, array.data.length)
          })
        )
      }
    }))

  test("there is room for others of other sizes", () =>
    Effect.gen(function* () {
      for (const size of [60_000, 3 * MiB, 100_000, 3.5 * MiB, 1000, 2.5 * MiB]) {
        const many = Effect.forEach(upTo(Math.floor((3.9 * MiB) / size)), () => Synapse.allocate("uint8", size))
        for (const array of yield* Effect.scoped(many)) assert.strictEqual(array.data.length, 0)
      }
    }))

  it.live("a runtime leaves no descriptor", () =>
    Effect.gen(function* () {
      if (!isLinux) return
      const files = () =>
        readdirSync("/proc/self/fd").filter((fd) => {
          try {
            return /memfd|deleted/.test(readlinkSync(`/proc/self/fd/${fd}`))
          } catch {
            return false
          }
        }).length
      const before = files()
      let array: NdArray.NdArray | undefined
      yield* Effect.gen(function* () {
        array = yield* Synapse.allocate("float64", 100)
        assert.isAbove(files(), before)
      }).pipe(Effect.scoped, Effect.provide(Synapse.layer({ ...memory, ...inPlace })))
      assert.strictEqual(files(), before)
      assert.strictEqual(array?.data.length, 0)
    })
  )
})

describe("an array is refused", () => {
  test("where there is no room, by what can be done about it", () =>
    Effect.gen(function* () {
      const reason = yield* reasonOf(Synapse.allocate("uint8", 5 * MiB), "Unsupported")
      assert.match(reason.detail, /no room for 5242880 bytes: raise `sharedMemory.capacityMiB`/)
      yield* Synapse.allocate("uint8", 3 * MiB)
      yield* reasonOf(Synapse.allocate("uint8", 2 * MiB), "Unsupported")
      yield* Synapse.allocate("uint8", MiB)
    }))

  for (const [name, options] of [
    ["not in place", { sharedMemory: { threshold: 1024 } }],
    ["not at all", { sharedMemory: false }]
  ] as const) {
    test(
      `where memory is shared ${name}`,
      () =>
        Effect.gen(function* () {
          const reason = yield* reasonOf(Synapse.allocate("uint8", 10), "Unsupported")
          assert.match(reason.detail, /set `sharedMemory: \{ inPlace: true \}`/)
        }),
      options
    )
  }

  test("whose shape or type there is not", () =>
    Effect.gen(function* () {
      for (const shape of [
        -1,
        1.5,
        Number.NaN,
        [2, -3],
        [2 ** 53],
        [-2, -2],
        [Number.POSITIVE_INFINITY],
        upTo(33).map(() => 1),
        [2 ** 32, 0]
      ]) {
        const reason = yield* reasonOf(Synapse.allocate("uint8", shape), "Unsupported")
        assert.match(reason.detail, /of shape|no room/, String(shape))
      }
      const reason = yield* reasonOf(Synapse.allocate("float16" as "uint8", 4), "Unsupported")
      assert.match(reason.detail, /none of `float16`/)
    }))
})

describe("the memory of an array", () => {
  test("is not taken out of its buffer", () =>
    Effect.gen(function* () {
      const { data } = yield* Synapse.allocate("float64", 100)
      const buffer = data.buffer as ArrayBuffer
      const { port1, port2 } = new MessageChannel()
      yield* Effect.addFinalizer(() => Effect.sync(() => port1.close()))
      assert.throws(() => buffer.transfer(), /cannot be transferred: copy it with slice/)
      assert.throws(() => buffer.transferToFixedLength(), /cannot be transferred/)
      assert.throws(() => structuredClone(buffer, { transfer: [buffer] }))
      assert.throws(() => port2.postMessage(buffer, [buffer]))
      assert.strictEqual(data.length, 100)
      yield* call("fill", { out: data, value: 2 })
      assert.strictEqual(data[99], 2)
    }))

  test("may be taken by force, which ends nothing but the array", () =>
    Effect.gen(function* () {
      const scope = yield* aScope
      const { data } = yield* allocateIn(scope, "float64", 10_000)
      const taken = new Float64Array(ArrayBuffer.prototype.transfer.call(data.buffer))
      taken[0] = 5
      yield* close(scope)
      const other = yield* Synapse.allocate("float64", 10_000)
      assert.isTrue(other.data.every((element) => element === 0))
      assert.strictEqual(taken[0], 5)
    }))
})
