import { assert, describe, it } from "@effect/vitest"
import {
  BigDecimal,
  Context,
  DateTime,
  Duration,
  Effect,
  Equal,
  Exit,
  HashMap,
  HashSet,
  Option,
  Schema,
  SchemaGetter
} from "effect"
import * as Envelope from "../src/Envelope.ts"
import * as NdArray from "../src/NdArray.ts"
import * as SchemaMsgpack from "../src/SchemaMsgpack.ts"

const overTheWire = (value: unknown): unknown => {
  const writer = Envelope.makeWriter()
  writer.frame(Envelope.Kind.Success, 1, value === undefined ? null : value)
  const [frame] = Envelope.makeReader().push(writer.take())
  return frame === undefined ? assert.fail("no frame") : Envelope.decodePayload(frame.payload)
}

const issueOf = (schema: Schema.Decoder<unknown>, input: unknown) =>
  Effect.map(Effect.flip(SchemaMsgpack.decode(schema)(input)), SchemaMsgpack.describeIssue)

class User extends Schema.Class<User>("User")({
  id: Schema.BigInt,
  joined: Schema.optionalKey(Schema.Date),
  avatar: Schema.Uint8Array
}) {}

class Failed extends Schema.TaggedError<Failed>("Failed")("Failed", { at: Schema.DateTimeUtc }) {}

interface Tree {
  readonly value: bigint
  readonly children: ReadonlyArray<Tree>
}

const Tree: Schema.Codec<Tree> = Schema.Struct({
  value: Schema.BigInt,
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
})

// Some of Effect's values remember what was computed of them.
const assertEqual = (actual: unknown, expected: unknown): void => {
  if (!Equal.equals(actual, expected)) assert.deepStrictEqual(actual, expected)
}

const row = <A>(schema: Schema.Codec<A, unknown>, value: A, wire: unknown) => ({
  name: `${schema.ast._tag} ${String(wire)}`,
  roundTrip: Effect.gen(function* () {
    const encoded = yield* SchemaMsgpack.encode(schema)(value)
    assert.deepStrictEqual(encoded, wire)
    assertEqual(yield* SchemaMsgpack.decode(schema)(overTheWire(encoded)), value)
  })
})

const at = new Date(1_700_000_000_123)

describe("SchemaMsgpack", () => {
  const table = [
    row(Schema.Number, 1.5, 1.5),
    row(Schema.Number, Number.NaN, Number.NaN),
    row(Schema.Number, Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY),
    row(Schema.Int, 2 ** 40, 2 ** 40),
    row(Schema.Finite, -0, -0),
    row(Schema.BigInt, 1n, 1n),
    row(Schema.BigInt, 2n ** 63n, 2n ** 63n),
    row(Schema.Literal(5n), 5n, 5n),
    row(Schema.String, "é", "é"),
    row(Schema.Boolean, true, true),
    row(Schema.Null, null, null),
    row(Schema.Undefined, undefined, null),
    row(Schema.Void, undefined, null),
    row(Schema.Uint8Array, Uint8Array.of(1, 2), Uint8Array.of(1, 2)),
    row(NdArray.Float64Array, Float64Array.of(1, 2), Float64Array.of(1, 2)),
    row(Schema.Date, at, at),
    row(Schema.DateTimeUtc, DateTime.makeUnsafe(at), at),
    row(Schema.Duration, Duration.seconds(93_784.5), "P1DT2H3M4.5S"),
    row(Schema.Duration, Duration.millis(-1500), "-PT1.5S"),
    row(Schema.Duration, Duration.nanos(1n), "PT0.000000001S"),
    row(Schema.BigDecimal, BigDecimal.fromStringUnsafe("-12.345"), "-12.345"),
    row(Schema.ReadonlyMap(Schema.String, Schema.Date), new Map([["a", at]]), new Map([["a", at]])),
    row(Schema.ReadonlyMap(Schema.Int, Schema.BigInt), new Map([[1, 2n]]), new Map([[1, 2n]])),
    row(Schema.ReadonlyMap(Schema.BigInt, Schema.Null), new Map([[2n ** 60n, null]]), new Map([[2n ** 60n, null]])),
    row(Schema.ReadonlyMap(Schema.Literals(["a", 1]), Schema.Int), new Map([[1 as const, 1]]), new Map([[1, 1]])),
    row(
      Schema.ReadonlyMap(Schema.Int, Schema.ReadonlyMap(Schema.Boolean, Schema.Duration)),
      new Map([[1, new Map([[true, Duration.seconds(1)]])]]),
      new Map([[1, new Map([[true, "PT1S"]])]])
    ),
    row(Schema.ReadonlyMap(Schema.Tuple([Schema.Int, Schema.Int]), Schema.Int), new Map([[[1, 2] as const, 3]]), [
      [[1, 2], 3]
    ]),
    row(Schema.ReadonlyMap(Schema.Date, Schema.Int), new Map([[at, 3]]), [[at, 3]]),
    row(
      Schema.HashMap(Schema.Int, Schema.Option(Schema.BigInt)),
      HashMap.make([1, Option.some(2n)]),
      new Map([[1, { _tag: "Some", value: 2n }]])
    ),
    row(Schema.ReadonlySet(Schema.BigInt), new Set([1n]), [1n]),
    row(Schema.HashSet(Schema.Uint8Array), HashSet.empty<Uint8Array>(), []),
    row(Schema.Option(Schema.Uint8Array), Option.some(Uint8Array.of(1)), { _tag: "Some", value: Uint8Array.of(1) }),
    row(Schema.Option(Schema.Date), Option.none(), { _tag: "None" }),
    row(User, new User({ id: 1n, avatar: Uint8Array.of(1) }), { id: 1n, avatar: Uint8Array.of(1) }),
    row(User, new User({ id: 1n, joined: at, avatar: Uint8Array.of(1) }), {
      id: 1n,
      joined: at,
      avatar: Uint8Array.of(1)
    }),
    row(
      Tree,
      { value: 1n, children: [{ value: 2n, children: [] }] },
      { value: 1n, children: [{ value: 2n, children: [] }] }
    ),
    row(Schema.Exit(Schema.BigInt, Failed, Schema.Defect()), Exit.succeed(1n), { _tag: "Success", value: 1n }),
    row(Schema.Array(Schema.UndefinedOr(Schema.Int)), [1, undefined], [1, null]),
    row(Schema.Struct({ a: Schema.optional(Schema.Date), b: Schema.optionalKey(Schema.BigInt) }), {}, {}),
    row(Schema.Struct({ a: Schema.optional(Schema.Date) }), { a: undefined }, { a: null }),
    row(Schema.NullOr(Schema.Date), null, null),
    row(Schema.Union([Schema.Date, Schema.Uint8Array, Schema.String]), Uint8Array.of(1), Uint8Array.of(1)),
    row(Schema.Record(Schema.String, Schema.Uint8Array), { a: Uint8Array.of(1) }, { a: Uint8Array.of(1) }),
    row(Schema.Tuple([Schema.BigInt, Schema.Date]), [1n, at], [1n, at]),
    row(Schema.FiniteFromString, 5, "5"),
    row(Schema.Unknown, Uint8Array.of(1), Uint8Array.of(1)),
    row(Schema.Struct({ hole: Schema.Unknown }), { hole: new Map([[1, at]]) }, { hole: new Map([[1, at]]) })
  ]

  it.effect("carries every row of the type table both ways", () =>
    Effect.forEach(table, ({ name, roundTrip }) => Effect.withSpan(roundTrip, name), { discard: true })
  )

  it.effect("gives an error that is an error again", () =>
    Effect.gen(function* () {
      const error = new Failed({ at: DateTime.makeUnsafe(at) })
      const back = yield* SchemaMsgpack.decode(Failed)(overTheWire(yield* SchemaMsgpack.encode(Failed)(error)))
      assert.instanceOf(back, Failed)
      assert.deepStrictEqual(DateTime.toDateUtc(back.at), at)
    })
  )

  it.effect("decodes what Python makes of the same values", () =>
    Effect.gen(function* () {
      const cases = [
        [Schema.BigInt, 5, 5n],
        [Schema.Duration, "P1DT7200S", Duration.hours(26)],
        [Schema.Duration, "P0D", Duration.zero],
        [Schema.Duration, "-PT86394.999997S", Duration.nanos(-86_394_999_997_000n)],
        [Schema.BigDecimal, "1E+3", BigDecimal.make(1n, -3)],
        [Schema.DateTimeUtc, "2024-01-01T00:00:00+01:00", DateTime.makeUnsafe("2023-12-31T23:00:00Z")],
        [Schema.Date, "2024-01-01T00:00:00Z", new Date("2024-01-01T00:00:00Z")],
        [Schema.ReadonlyMap(Schema.String, Schema.Int), { a: 1 }, new Map([["a", 1]])],
        [Schema.ReadonlyMap(Schema.Int, Schema.Int), [[1, 2]], new Map([[1, 2]])],
        [Schema.Void, null, undefined],
        [Schema.Void, { ignored: 1 }, undefined],
        [Schema.Undefined, undefined, undefined],
        [Schema.Struct({ a: Schema.optional(Schema.String) }), { a: null }, { a: undefined }]
      ] as const
      for (const [schema, wire, value] of cases) {
        assertEqual(yield* SchemaMsgpack.decode<unknown, never>(schema)(wire), value)
      }
    })
  )

  it.effect("says in one line what did not fit and where", () =>
    Effect.gen(function* () {
      const Shape = Schema.Union([
        Schema.Struct({ _tag: Schema.tag("Circle"), radius: Schema.Number }),
        Schema.Struct({ _tag: Schema.tag("Square"), side: Schema.Number })
      ])
      const cases = [
        [
          Schema.Struct({ items: Schema.Array(Schema.Int) }),
          { items: [1, "2"] },
          "$.items[1]",
          'Expected number, got "2"'
        ],
        [Schema.Array(Schema.Int), [2.5], "$[0]", "Expected an integer, got 2.5"],
        [Schema.Struct({ a: Schema.String }), {}, "$.a", "Missing key"],
        [Schema.NullOr(Schema.String), 5, "$", "Expected string | null, got 5"],
        [Schema.Number, 2n ** 60n, "$", "Expected number, got the integer 1152921504606846976"],
        [Schema.BigInt, 1.5, "$", "Expected an integer, got 1.5"],
        [Schema.Record(Schema.String, Schema.Int), { "a b": null }, '$["a b"]', "Expected number, got null"],
        [Shape, { _tag: "Circle", radius: "x" }, "$.radius", 'Expected number, got "x"'],
        [Schema.Duration, "P1M", "$", 'Expected an ISO 8601 duration without years or months, got "P1M"'],
        [
          Schema.Date,
          "2024-01-01T00:00:00",
          "$",
          'Expected an instant (a datetime with tzinfo), got "2024-01-01T00:00:00"'
        ],
        [Schema.String, { a: 1, b: 2 }, "$", "Expected string, got a map with the keys a, b"],
        [Schema.String, new Uint8Array(9), "$", "Expected string, got 9 bytes"]
      ] as const
      for (const [schema, input, path, issue] of cases) {
        assert.deepStrictEqual(yield* issueOf(schema, input), { path, issue })
      }
    })
  )

  it.effect("keeps the message short whatever the size of the value", () =>
    Effect.gen(function* () {
      const large = Array.from({ length: 100_000 }, (_, i) => ({ name: `n${i}`, text: "x".repeat(20) }))
      const cases = [
        [Schema.NullOr(Schema.String), large],
        [Schema.String, Object.fromEntries(large.map(({ name }) => [name, name]))],
        [Schema.Int, "x".repeat(1_000_000)],
        [Schema.Array(Schema.Unknown).check(Schema.isMaxLength(3)), large]
      ] as const
      for (const [schema, input] of cases) {
        const { issue } = yield* issueOf(schema, input)
        assert.isBelow(issue.length, 150)
        assert.notInclude(issue, "\n")
      }
    })
  )

  it.effect("does not take other things for a map with string keys", () =>
    Effect.gen(function* () {
      const Lenient = Schema.Struct({ a: Schema.optional(Schema.String) })
      for (const schema of [Lenient, Schema.Struct({}), Schema.Record(Schema.String, Schema.Int)]) {
        for (const input of [new Map([[1, 2]]), at, Uint8Array.of(), NdArray.make(Int8Array.of(1), [])]) {
          assert.match((yield* issueOf(schema, input)).issue, /^Expected a map with string keys, got /)
        }
      }
      assert.deepStrictEqual(yield* SchemaMsgpack.decode(Schema.Union([Lenient, Schema.Date]))(at), at)
    })
  )

  it.effect("refuses a duration without end, which Python has no form for", () =>
    Effect.gen(function* () {
      assert.isTrue(Exit.isFailure(yield* Effect.exit(SchemaMsgpack.encode(Schema.Duration)(Duration.infinity))))
    })
  )

  it.effect("checks the input that it encodes", () =>
    Effect.gen(function* () {
      const issue = yield* Effect.flip(SchemaMsgpack.encode(Schema.Struct({ n: Schema.Int }))({ n: "1" }))
      assert.deepStrictEqual(SchemaMsgpack.describeIssue(issue), { path: "$.n", issue: 'Expected number, got "1"' })
    })
  )

  it("gives a result that needs no running where nothing is asynchronous", () => {
    const schema = Schema.Struct({ id: Schema.BigInt, at: Schema.Date, tags: Schema.Array(Schema.String) })
    const wire = { id: 1, at, tags: ["a"] }
    assert.deepStrictEqual(SchemaMsgpack.decode(schema)(wire), Exit.succeed({ id: 1n, at, tags: ["a"] }))
    assert.isTrue(Exit.isExit(SchemaMsgpack.encode(schema)({ id: 1n, at, tags: ["a"] })))
  })

  it("prepares a schema once", () => {
    const schema = Schema.Struct({ a: Schema.Date })
    assert.strictEqual(SchemaMsgpack.decode(schema), SchemaMsgpack.decode(schema))
    assert.strictEqual(SchemaMsgpack.encode(schema), SchemaMsgpack.encode(schema))
  })

  it.effect("keeps the services that a schema asks for", () =>
    Effect.gen(function* () {
      class Prefix extends Context.Service<Prefix, string>()("Prefix") {}
      const Prefixed = Schema.String.pipe(
        Schema.decodeTo(Schema.String, {
          decode: SchemaGetter.transformEffect((text: string) => Effect.map(Prefix, (prefix) => prefix + text)),
          encode: SchemaGetter.transform((text: string) => text)
        })
      )
      const decoded = SchemaMsgpack.decode(Schema.Array(Prefixed))(["a"])
      assert.deepStrictEqual(yield* Effect.provideService(decoded, Prefix, "> "), ["> a"])
    })
  )

  const Everything = Schema.Struct({
    number: Schema.Number,
    int: Schema.Int,
    bigint: Schema.BigInt.check(Schema.isBetweenBigInt({ minimum: -(2n ** 63n), maximum: 2n ** 64n - 1n })),
    bytes: Schema.optionalKey(Schema.Uint8Array),
    date: Schema.optional(Schema.Date),
    list: Schema.Array(Schema.NullOr(Schema.Boolean)),
    map: Schema.ReadonlyMap(Schema.Int, Schema.Option(Schema.Number))
  })

  it.effect.prop("carries whatever fits a schema", { value: Everything }, ({ value }) =>
    Effect.gen(function* () {
      const wire = overTheWire(yield* SchemaMsgpack.encode(Everything)(value))
      assert.deepStrictEqual(yield* SchemaMsgpack.decode(Everything)(wire), value)
    })
  )
})

describe("text that only looks like an instant", () => {
  it.effect("is refused without much thought, however long it is", () =>
    Effect.gen(function* () {
      const decode = SchemaMsgpack.decode(Schema.Date)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(decode("T".repeat(2_000_000)))))
    })
  )
})
