/** The type table of the README, each row in both directions through a real worker. */
import { assert, describe, layer } from "@effect/vitest"
import { BigDecimal, DateTime, Duration, Effect, Equal, Schema } from "effect"
import { NdArray, Synapse } from "effect-synapse"
import * as modules from "./fixtures/modules.ts"

/** Through Python and back, encoded and decoded by one schema. */
const echo = <A>(schema: Schema.Codec<A, unknown>, value: A) => Synapse.call(schema, value, { payload: schema })

const give = <A>(schema: Schema.Decoder<A>, what: string) => Synapse.call(schema, { what }, { method: "give" })

/** What Python makes of a value: its type and repr. */
const seen = <A>(schema: Schema.Codec<A, unknown>, value: A) =>
  Synapse.call(Schema.String, value, { payload: schema, method: "type_of" })

const Any = Schema.Unknown

layer(Synapse.layer(modules.python), { timeout: "2 minutes" })("values", (it) => {
  describe("from TypeScript, as Python sees them", () => {
    const rows: ReadonlyArray<readonly [string, Schema.Codec<unknown, unknown>, unknown, string]> = [
      ["null", Any, null, "NoneType None"],
      ["undefined at the top", Any, undefined, "NoneType None"],
      ["an undefined property is left out", Any, { a: undefined, b: 1 }, "dict {'b': 1}"],
      ["an undefined item is None", Any, [undefined], "list [None]"],
      ["booleans", Any, true, "bool True"],
      ["small integers", Any, 7, "int 7"],
      ["integers beyond 32 bits stay integers", Any, 1700000000000, "int 1700000000000"],
      ["the largest safe integer", Any, Number.MAX_SAFE_INTEGER, "int 9007199254740991"],
      ["the smallest safe integer", Any, Number.MIN_SAFE_INTEGER, "int -9007199254740991"],
      ["minus zero is a float", Any, -0, "float -0.0"],
      ["fractions", Any, 1.5, "float 1.5"],
      ["NaN", Any, Number.NaN, "float nan"],
      ["infinity", Any, Number.POSITIVE_INFINITY, "float inf"],
      ["bigint", Any, 2n ** 63n, "int 9223372036854775808"],
      ["the schema of bigint", Schema.BigInt, -(2n ** 63n), "int -9223372036854775808"],
      ["strings", Any, "naïve 🐍", "str 'naïve 🐍'"],
      ["bytes", Any, new Uint8Array([0, 255]), "bytes b'\\x00\\xff'"],
      ["arrays", Any, [1, "a"], "list [1, 'a']"],
      ["objects", Any, { a: { b: [] } }, "dict {'a': {'b': []}}"],
      ["maps keep the type of their keys", Any, new Map([[1, "a"]]), "dict {1: 'a'}"],
      ["the schema of maps", Schema.ReadonlyMap(Schema.Int, Schema.String), new Map([[1, "a"]]), "dict {1: 'a'}"],
      ["sets", Schema.ReadonlySet(Schema.Int), new Set([1]), "list [1]"],
      [
        "dates",
        Schema.Date,
        new Date("2026-01-02T03:04:05.678Z"),
        "datetime datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=datetime.timezone.utc)"
      ],
      [
        "the schema of DateTime.Utc",
        Schema.DateTimeUtc,
        DateTime.makeUnsafe("2026-01-02T03:04:05Z"),
        "datetime datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)"
      ],
      ["durations", Schema.Duration, Duration.seconds(90), "str 'PT1M30S'"],
      ["decimals", Schema.BigDecimal, BigDecimal.fromStringUnsafe("1.10"), "str '1.1'"]
    ]
    for (const [name, schema, value, expected] of rows) {
      it.effect(name, () => Effect.map(seen(schema, value), (text) => assert.strictEqual(text, expected)))
    }
  })

  describe("from Python, as TypeScript decodes them", () => {
    const rows: ReadonlyArray<readonly [string, Schema.Codec<unknown, unknown>, unknown]> = [
      ["none", Schema.Null, null],
      ["none", Schema.Void, undefined],
      ["none", Schema.NullOr(Schema.Int), null],
      ["true", Schema.Boolean, true],
      ["int", Schema.Int, 7],
      ["max-safe", Schema.Int, Number.MAX_SAFE_INTEGER],
      ["beyond-safe", Schema.Unknown, 2n ** 53n + 1n],
      ["max-int64", Schema.BigInt, 2n ** 63n - 1n],
      ["max-uint64", Schema.BigInt, 2n ** 64n - 1n],
      ["min-int64", Schema.BigInt, -(2n ** 63n)],
      ["int", Schema.BigInt, 7n],
      ["float", Schema.Finite, 1.5],
      ["nan", Schema.Number, Number.NaN],
      ["infinity", Schema.Number, Number.POSITIVE_INFINITY],
      ["minus-zero", Schema.Number, -0],
      ["text", Schema.String, "naïve 🐍"],
      ["bytes", Schema.Uint8Array, new Uint8Array([0, 255])],
      ["bytearray", Schema.Uint8Array, new Uint8Array([97, 98])],
      ["list", Schema.Tuple([Schema.Int, Schema.String, Schema.Null]), [1, "a", null]],
      ["tuple", Schema.Array(Schema.Int), [1, 2]],
      ["set", Schema.ReadonlySet(Schema.Int), new Set([1])],
      ["frozenset", Schema.Array(Schema.Int), [2]],
      ["dict", Schema.Unknown, { a: { b: [] } }],
      [
        "int-keys",
        Schema.ReadonlyMap(Schema.Int, Schema.String),
        new Map([
          [1, "a"],
          [2, "b"]
        ])
      ],
      [
        "int-keys",
        Schema.Unknown,
        new Map([
          [1, "a"],
          [2, "b"]
        ])
      ],
      [
        "mixed-keys",
        Schema.Unknown,
        new Map<unknown, string>([
          [1, "a"],
          ["1", "b"]
        ])
      ],
      ["dict", Schema.ReadonlyMap(Schema.String, Schema.Unknown), new Map([["a", { b: [] }]])],
      ["aware", Schema.Date, new Date("2026-01-02T03:04:05.678Z")],
      ["naive", Schema.String, "2026-01-02T03:04:05"],
      ["date", Schema.String, "2026-01-02"],
      ["time", Schema.String, "03:04:05"],
      ["timedelta", Schema.Duration, Duration.millis(86_402_500)],
      ["decimal", Schema.BigDecimal, BigDecimal.fromStringUnsafe("1.10")],
      ["decimal", Schema.String, "1.10"],
      ["uuid", Schema.String.check(Schema.isUUID()), "123e4567-e89b-12d3-a456-426614174000"],
      ["enum", Schema.Literals(["red", "green"]), "red"],
      [
        "dataclass",
        Schema.Struct({ x: Schema.Finite, y: Schema.Finite, label: Schema.NullOr(Schema.String) }),
        { x: 1, y: 2, label: null }
      ],
      ["array", NdArray.Float64Array, new Float64Array([1, 2.5])]
    ]
    for (const [what, schema, expected] of rows) {
      it.effect(`${what} as ${schema.ast._tag}`, () =>
        Effect.map(give(schema, what), (value) => {
          // Durations and decimals have an equality of their own.
          if (!Equal.equals(value, expected)) assert.deepStrictEqual(value, expected)
        })
      )
    }

    it.effect("a dictionary with __proto__ as an own key, and no prototype changed", () =>
      Effect.gen(function* () {
        const value = (yield* give(Schema.Unknown, "proto")) as object
        assert.deepStrictEqual(Object.entries(value), [
          ["__proto__", 1],
          ["constructor", 2]
        ])
        assert.strictEqual(Object.getPrototypeOf(value), Object.prototype)
      })
    )

    for (const what of ["tuple-keys", "none-keys"]) {
      it.effect(`a map with ${what} is refused as what Python cannot send, with its path`, () =>
        Effect.map(Effect.flip(give(Schema.Unknown, what)), ({ reason }) => {
          assert.strictEqual(reason._tag, "EncodeFailed")
          assert.include(reason, { side: "python", method: "give", path: "$.rows[1].table" })
        })
      )
    }

    it.effect("an integer that a number cannot hold is refused, not rounded", () =>
      Effect.map(Effect.flip(give(Schema.Number, "beyond-safe")), ({ reason }) =>
        assert.strictEqual(reason._tag, "DecodeFailed")
      )
    )
  })

  describe("there and back again", () => {
    const Record = Schema.Struct({
      id: Schema.Int,
      ratio: Schema.Finite,
      name: Schema.String,
      blob: Schema.Uint8Array,
      big: Schema.BigInt,
      at: Schema.optionalKey(Schema.String),
      tags: Schema.Array(Schema.String),
      choice: Schema.Union([
        Schema.Struct({ _tag: Schema.tag("A"), value: Schema.Boolean }),
        Schema.Struct({ _tag: Schema.tag("B"), value: Schema.NullOr(Schema.String) })
      ])
    })
    // 64 bits is what the wire carries; lone surrogates are refused by promise.
    const Carried = Record.check(
      Schema.makeFilter(
        ({ at, big, choice, name, tags }) =>
          BigInt.asIntN(64, big) === big &&
          [at ?? "", name, ...tags, choice._tag === "B" ? (choice.value ?? "") : ""].every((text) =>
            text.isWellFormed()
          )
      )
    )
    it.effect.prop(
      "any record of the schema is equal after Python has seen it",
      { record: Carried },
      ({ record }) => Effect.map(echo(Record, record), (back) => assert.deepEqual(back, record)),
      { arbitrary: { runs: 50 } }
    )

    const Tree: Schema.Codec<Tree> = Schema.Struct({
      value: Schema.Int,
      children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
    })
    interface Tree {
      readonly value: number
      readonly children: ReadonlyArray<Tree>
    }
    it.effect("recursive values", () => {
      const tree: Tree = { value: 1, children: [{ value: 2, children: [{ value: 3, children: [] }] }] }
      return Effect.map(echo(Tree, tree), (back) => assert.deepStrictEqual(back, tree))
    })

    it.effect("twenty megabytes of text, frame size allowing", () =>
      Effect.gen(function* () {
        const text = "é".repeat(6_000_000)
        assert.strictEqual(yield* Synapse.call(Schema.String, text), text)
      })
    )

    it.effect("typed arrays of every kind", () =>
      Effect.gen(function* () {
        const arrays = [
          [NdArray.Float64Array, new Float64Array([1.5, -0, Number.NaN])],
          [NdArray.Float32Array, new Float32Array([1.5])],
          [NdArray.Int8Array, new Int8Array([-1, 127])],
          [NdArray.Int16Array, new Int16Array([-300])],
          [NdArray.Uint16Array, new Uint16Array([65535])],
          [NdArray.Int32Array, new Int32Array([-70_000])],
          [NdArray.Uint32Array, new Uint32Array([4_000_000_000])],
          [NdArray.BigInt64Array, new BigInt64Array([-(2n ** 63n)])],
          [NdArray.BigUint64Array, new BigUint64Array([2n ** 64n - 1n])]
        ] as const
        for (const [schema, array] of arrays) {
          const back = yield* Synapse.call(schema as Schema.Decoder<ArrayBufferView>, array)
          assert.deepStrictEqual(back, array)
        }
      })
    )

    it.effect("arrays of several dimensions keep shape and element type", () =>
      Effect.gen(function* () {
        const array = NdArray.make(new Float32Array([1, 2, 3, 4, 5, 6]), [2, 3])
        const back = yield* Synapse.call(Schema.Unknown, array)
        assert(NdArray.isNdArray(back))
        assert.deepStrictEqual(
          [back.dtype, back.shape, [...(back.data as Float32Array)]],
          ["float32", [2, 3], [1, 2, 3, 4, 5, 6]]
        )
      })
    )
  })
})
