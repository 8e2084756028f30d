import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Exit, Schema } from "effect"
import * as Envelope from "../src/Envelope.ts"
import * as NdArray from "../src/NdArray.ts"
import * as SchemaMsgpack from "../src/SchemaMsgpack.ts"

const overTheWire = (value: unknown): unknown => {
  const writer = Envelope.makeWriter()
  writer.frame(Envelope.Kind.Success, 1, value)
  const [frame] = Envelope.makeReader().push(writer.take())
  return frame === undefined ? assert.fail("no frame") : Envelope.decodePayload(frame.payload)
}

const anyOf = <A extends NdArray.TypedArray>(schema: Schema.Codec<A>) =>
  Schema.make<Schema.Codec<NdArray.TypedArray>>(schema.ast)

describe("NdArray", () => {
  it("takes the element type from the typed array", () => {
    assert.strictEqual(NdArray.make(Float64Array.of(1, 2), [1, 2]).dtype, "float64")
    assert.strictEqual(NdArray.make(BigUint64Array.of(1n), []).dtype, "uint64")
    assert.strictEqual(NdArray.make(Uint8Array.of(1), [1], "bool").dtype, "bool")
    assert.strictEqual(NdArray.make(Buffer.of(1), [1]).dtype, "uint8")
    assert.deepStrictEqual(NdArray.fromTypedArray(Int16Array.of(1, 2)).shape, [2])
  })

  it("refuses a shape that does not hold exactly the elements", () => {
    const data = Int32Array.of(1, 2, 3, 4)
    for (const shape of [
      [],
      [3],
      [2, 3],
      [-2, -2],
      [0.5, 8],
      [Number.NaN],
      [4, ...Array.from({ length: 32 }, () => 1)]
    ]) {
      assert.throws(() => NdArray.make(data, shape), RangeError)
    }
    assert.throws(() => NdArray.make(new Float32Array(0), [0, 2 ** 32]), RangeError)
    assert.throws(
      () => NdArray.make(data, [4], "float64"),
      /an array of float64 cannot hold the elements of a Int32Array/
    )
  })

  it("tells its own values and typed arrays from others", () => {
    const array = NdArray.make(Int8Array.of(1), [1])
    assert.isTrue(NdArray.isNdArray(array))
    assert.isFalse(NdArray.isNdArray({ ...array }))
    assert.isTrue(NdArray.isTypedArray(Buffer.of(1)))
    for (const other of [[1], new DataView(new ArrayBuffer(1)), Uint8ClampedArray.of(1), null, array]) {
      assert.isFalse(NdArray.isTypedArray(other))
    }
  })

  it("gives nested arrays", () => {
    const data = Int8Array.of(1, 2, 3, 4, 5, 6)
    assert.deepStrictEqual(NdArray.toNested(NdArray.make(data, [2, 3])), [
      [1, 2, 3],
      [4, 5, 6]
    ])
    assert.deepStrictEqual(NdArray.toNested(NdArray.make(data, [1, 3, 2])), [
      [
        [1, 2],
        [3, 4],
        [5, 6]
      ]
    ])
    assert.deepStrictEqual(NdArray.toNested(NdArray.make(Uint8Array.of(1, 0), [2], "bool")), [true, false])
    assert.deepStrictEqual(NdArray.toNested(NdArray.make(BigInt64Array.of(5n), [])), 5n)
    assert.deepStrictEqual(NdArray.toNested(NdArray.make(new Float32Array(0), [2, 0])), [[], []])
  })

  it.effect("has schemas that carry every typed array as it is", () =>
    Effect.gen(function* () {
      const cases: ReadonlyArray<readonly [schema: Schema.Codec<NdArray.TypedArray>, value: NdArray.TypedArray]> = [
        [anyOf(NdArray.Int8Array), Int8Array.of(-1)],
        [anyOf(NdArray.Uint8Array), Uint8Array.of(255)],
        [anyOf(NdArray.Int16Array), Int16Array.of(-300)],
        [anyOf(NdArray.Uint16Array), Uint16Array.of(300)],
        [anyOf(NdArray.Int32Array), Int32Array.of(-70_000)],
        [anyOf(NdArray.Uint32Array), Uint32Array.of(2 ** 32 - 1)],
        [anyOf(NdArray.BigInt64Array), BigInt64Array.of(-(2n ** 63n))],
        [anyOf(NdArray.BigUint64Array), BigUint64Array.of(2n ** 64n - 1n)],
        [anyOf(NdArray.Float32Array), Float32Array.of(0.5, Number.NaN)],
        [anyOf(NdArray.Float64Array), Float64Array.of(0.1, -0)]
      ]
      for (const [schema, value] of cases) {
        const wire = overTheWire(yield* SchemaMsgpack.encode(schema)(value))
        assert.deepStrictEqual(yield* SchemaMsgpack.decode(schema)(wire), value)
      }
    })
  )

  it.effect("has a schema that gives an NdArray whatever the number of dimensions", () =>
    Effect.gen(function* () {
      const schema = NdArray.schema()
      const cases = [
        NdArray.make(Float64Array.of(1, 2, 3, 4), [2, 2]),
        NdArray.make(Float64Array.of(1, 2), [2]),
        NdArray.make(Uint8Array.of(1, 2), [2]),
        NdArray.make(Uint8Array.of(1, 0), [2], "bool"),
        NdArray.make(Int8Array.of(1), [])
      ]
      for (const value of cases) {
        const wire = overTheWire(yield* SchemaMsgpack.encode(schema)(value))
        assert.deepStrictEqual(yield* SchemaMsgpack.decode(schema)(wire), value)
      }
    })
  )

  it.effect("refuses another element type or shape, and says which was wanted and which came", () =>
    Effect.gen(function* () {
      const matrix = NdArray.make(Float32Array.of(1, 2, 3, 4, 5, 6), [2, 3])
      const fits = [
        NdArray.schema({ dtype: "float32" }),
        NdArray.schema({ ndim: 2 }),
        NdArray.schema({ dtype: "float32", shape: [2, null] })
      ]
      for (const schema of fits) assert.isTrue(Exit.isSuccess(yield* Effect.exit(SchemaMsgpack.decode(schema)(matrix))))
      const issueOf = (schema: Schema.Decoder<unknown>, value: unknown) =>
        SchemaMsgpack.decode(schema)(value).pipe(
          Effect.flip,
          Effect.map((issue) => SchemaMsgpack.describeIssue(issue).issue)
        )
      const got = "got an array of float32 with shape [2, 3]"
      const cases = [
        [NdArray.schema({ dtype: "float64" }), matrix, `Expected an array of float64, ${got}`],
        [NdArray.schema({ ndim: 1 }), matrix, `Expected an array of any element type with 1 dimension, ${got}`],
        [
          NdArray.schema({ shape: [null, 4] }),
          matrix,
          `Expected an array of any element type with shape [any, 4], ${got}`
        ],
        [NdArray.Float32Array, matrix, `Expected a Float32Array (a one-dimensional array of float32), ${got}`],
        [
          NdArray.Float64Array,
          Float32Array.of(1),
          "Expected a Float64Array (a one-dimensional array of float64), got an array of float32 with shape [1]"
        ],
        [NdArray.schema(), [1, 2], "Expected an array (numpy.ndarray or array.array), got a list of 2"]
      ] as const
      for (const [schema, value, message] of cases) assert.strictEqual(yield* issueOf(schema, value), message)
    })
  )

  it.effect("gives random arrays of its element type and shape", () =>
    Effect.gen(function* () {
      const schemas = [
        NdArray.schema(),
        NdArray.schema({ dtype: "bool" }),
        NdArray.schema({ dtype: "uint64", ndim: 2 }),
        NdArray.schema({ shape: [null, 3] }),
        NdArray.Float32Array,
        NdArray.BigInt64Array
      ]
      for (const schema of schemas) {
        const samples = yield* Arbitrary.sampleEffect(Arbitrary.schema<Schema.Schema<unknown>>(schema), {
          count: 20,
          seed: 1
        })
        for (const value of samples) {
          assert.isTrue(Schema.is(schema as Schema.Schema<unknown>)(value))
          assert.deepStrictEqual(
            yield* SchemaMsgpack.decode(schema as Schema.Codec<unknown>)(overTheWire(value)),
            value
          )
        }
      }
    })
  )
})
