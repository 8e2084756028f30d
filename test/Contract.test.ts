import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schema } from "effect"
import { Rpc, RpcGroup, RpcMiddleware } from "effect/rpc"
import { Contract, NdArray, Synapse } from "../src/index.ts"

const typeOf = (schema: Schema.Top): Contract.Type => contractOf(schema).methods.f!.success
const contractOf = (schema: Schema.Top): Contract.Contract =>
  Contract.fromGroup(RpcGroup.make(Rpc.make("f", { success: schema })))

class User extends Schema.Class<User>("app/users/User")(
  { id: Schema.Int, name: Schema.optionalKey(Schema.String.annotate({ description: "As shown" })) },
  { description: "Somebody" }
) {}
class NotFound extends Schema.TaggedError<NotFound>("app/NotFound")("NotFound", { id: Schema.Int }) {}
class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}

interface Tree {
  readonly value: number
  readonly children: ReadonlyArray<Tree>
}
const Tree: Schema.Codec<Tree> = Schema.Struct({
  value: Schema.Finite,
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
})
type Json = string | ReadonlyArray<Json>
const Json: Schema.Codec<Json> = Schema.Union([
  Schema.String,
  Schema.Array(Schema.suspend((): Schema.Codec<Json> => Json))
])

describe("Contract.fromGroup", () => {
  const cases: ReadonlyArray<readonly [name: string, schema: Schema.Top, type: Contract.Type]> = [
    ["Void", Schema.Void, { kind: "null" }],
    ["Unknown", Schema.Unknown, { kind: "unknown" }],
    ["Boolean", Schema.Boolean, { kind: "boolean" }],
    ["Int", Schema.Int, { kind: "integer" }],
    ["Finite", Schema.Finite, { kind: "number" }],
    ["BigInt", Schema.BigInt, { kind: "int64" }],
    [
      "bounds",
      Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 9, exclusiveMaximum: true }), Schema.isMultipleOf(2)),
      { kind: "integer", minimum: 1, exclusiveMaximum: 9, multipleOf: 2 }
    ],
    ["int32", Schema.Int.check(Schema.isInt32()), { kind: "integer", minimum: -(2 ** 31), maximum: 2 ** 31 - 1 }],
    [
      "bounds of a bigint",
      Schema.BigInt.check(Schema.isGreaterThanBigInt(5n)),
      { kind: "int64", exclusiveMinimum: 5n }
    ],
    ["lengths", Schema.NonEmptyString.check(Schema.isMaxLength(5)), { kind: "string", minLength: 1, maxLength: 5 }],
    ["pattern", Schema.String.check(Schema.isPattern(/^a+$/)), { kind: "string", pattern: "^a+$" }],
    ["UUID", Schema.String.check(Schema.isUUID()), { kind: "uuid" }],
    ["Uint8Array", Schema.Uint8Array, { kind: "bytes" }],
    ["Date", Schema.Date, { kind: "datetime", aware: true }],
    ["DateTimeUtc", Schema.DateTimeUtc, { kind: "datetime", aware: true }],
    ["Date as text", Schema.DateFromString, { kind: "string" }],
    ["Duration", Schema.Duration, { kind: "duration" }],
    ["BigDecimal", Schema.BigDecimal, { kind: "decimal" }],
    ["Literals", Schema.Literals(["a", 1, true]), { kind: "literal", values: ["a", 1, true] }],
    ["NullOr", Schema.NullOr(Schema.Int), { kind: "union", members: [{ kind: "integer" }, { kind: "null" }] }],
    ["Array", Schema.Array(Schema.Int), { kind: "list", items: { kind: "integer" } }],
    ["NonEmptyArray", Schema.NonEmptyArray(Schema.Int), { kind: "list", items: { kind: "integer" }, minLength: 1 }],
    ["UniqueArray", Schema.UniqueArray(Schema.Int), { kind: "list", items: { kind: "integer" }, unique: true }],
    [
      "Tuple",
      Schema.Tuple([Schema.Int, Schema.String]),
      { kind: "tuple", items: [{ kind: "integer" }, { kind: "string" }] }
    ],
    [
      "Record",
      Schema.Record(Schema.String, Schema.Int),
      { kind: "map", keys: { kind: "string" }, values: { kind: "integer" } }
    ],
    [
      "ReadonlyMap",
      Schema.ReadonlyMap(Schema.Int, Schema.Boolean),
      { kind: "map", keys: { kind: "integer" }, values: { kind: "boolean" } }
    ],
    [
      "a map whose keys are none in MessagePack",
      Schema.ReadonlyMap(Schema.Array(Schema.Int), Schema.Boolean),
      {
        kind: "list",
        items: { kind: "tuple", items: [{ kind: "list", items: { kind: "integer" } }, { kind: "boolean" }] }
      }
    ],
    ["ReadonlySet", Schema.ReadonlySet(Schema.Int), { kind: "list", items: { kind: "integer" }, unique: true }],
    ["Float64Array", NdArray.Float64Array, { kind: "ndarray", dtype: "float64", dimensions: 1 }],
    ["NdArray", NdArray.schema({ shape: [null, 3] }), { kind: "ndarray", dtype: null, dimensions: 2 }],
    ["a class", User, { kind: "ref", name: "User" }]
  ]
  for (const [name, schema, type] of cases) it(name, () => assert.deepStrictEqual(typeOf(schema), type))

  it("is a contract that decodes", () => {
    for (const [, schema] of cases) {
      const contract = contractOf(schema)
      assert.deepStrictEqual(Exit.getSuccess(Effect.runSyncExit(Contract.decode(contract)))._tag, "Some")
    }
  })

  it("describes structures by their names, or by where they stand", () => {
    const group = RpcGroup.make(
      Rpc.make("find-user", {
        payload: { options: Schema.Struct({ deep: Schema.Boolean }) },
        success: Schema.NullOr(User)
      }),
      Rpc.make("color", {
        payload: { color: Schema.Enum({ Red: "red", Blue: "blue" }).annotate({ identifier: "Color" }) }
      })
    )
    const { definitions, methods, problems } = Contract.fromGroup(group)
    assert.deepStrictEqual(problems, [])
    assert.deepStrictEqual(methods["find-user"]?.payload, {
      kind: "fields",
      fields: [{ name: "options", type: { kind: "ref", name: "FindUserOptions" }, required: true }]
    })
    assert.deepStrictEqual(definitions.User, {
      kind: "struct",
      doc: "Somebody",
      fields: [
        { name: "id", type: { kind: "integer" }, required: true },
        { name: "name", type: { kind: "string" }, required: false, doc: "As shown" }
      ]
    })
    assert.deepStrictEqual(definitions.Color, {
      kind: "enum",
      members: [
        { name: "Red", value: "red" },
        { name: "Blue", value: "blue" }
      ]
    })
  })

  it("takes the tag out of the fields", () => {
    const { definitions, methods } = contractOf(
      Schema.Union([
        Schema.TaggedStruct("Circle", { radius: Schema.Finite }),
        Schema.Struct({ kind: Schema.Literal("square"), side: Schema.Finite })
      ])
    )
    assert.deepStrictEqual(methods.f?.success, {
      kind: "union",
      members: [
        { kind: "ref", name: "Circle" },
        { kind: "ref", name: "Square" }
      ]
    })
    assert.deepStrictEqual(definitions.Circle, {
      kind: "struct",
      fields: [{ name: "radius", type: { kind: "number" }, required: true }],
      tag: { field: "_tag", value: "Circle" }
    })
    assert.deepStrictEqual((definitions.Square as { readonly tag?: unknown }).tag, { field: "kind", value: "square" })
  })

  it("names what contains itself", () => {
    const tree = contractOf(Tree)
    assert.deepStrictEqual(tree.methods.f?.success, { kind: "ref", name: "FResult" })
    assert.deepStrictEqual((tree.definitions.FResult as { readonly fields: ReadonlyArray<Contract.Field> }).fields[1], {
      name: "children",
      type: { kind: "list", items: { kind: "ref", name: "FResult" } },
      required: true
    })
    const json = contractOf(Json)
    const [name] = Object.keys(json.definitions)
    assert.deepStrictEqual(json.definitions[name!], {
      kind: "alias",
      type: {
        kind: "union",
        members: [{ kind: "string" }, { kind: "list", items: { kind: "ref", name: name! } }]
      }
    })
  })

  it("collects the errors of the rpc, of its stream and of its middleware", () => {
    class Auth extends RpcMiddleware.Service<Auth>()("Auth", { error: Busy }) {}
    const group = RpcGroup.make(
      Rpc.make("one", { error: NotFound }).middleware(Auth),
      Rpc.make("many", { success: User, error: Schema.Union([NotFound, Busy]), stream: true })
    )
    const { definitions, methods } = Contract.fromGroup(group)
    assert.deepStrictEqual(methods.one?.raises, ["NotFound", "Busy"])
    assert.deepStrictEqual(methods.many, {
      payload: { kind: "none" },
      success: { kind: "ref", name: "User" },
      stream: true,
      raises: ["NotFound", "Busy"]
    })
    assert.deepStrictEqual(definitions.NotFound, {
      kind: "error",
      fields: [{ name: "id", type: { kind: "integer" }, required: true }]
    })
  })

  it("describes payloads: none, fields, whole, and streams in them", () => {
    const group = RpcGroup.make(
      Rpc.make("none"),
      Rpc.make("whole", { payload: Schema.Array(Schema.Int) }),
      Rpc.make("rest", {
        payload: Schema.StructWithRest(Schema.Struct({ a: Schema.Int }), [Schema.Record(Schema.String, Schema.Int)])
      }),
      Rpc.make("streams", { payload: { rows: Synapse.StreamOf(User) } })
    )
    const { methods } = Contract.fromGroup(group)
    assert.deepStrictEqual(methods.none?.payload, { kind: "none" })
    assert.deepStrictEqual(methods.whole?.payload, {
      kind: "whole",
      type: { kind: "list", items: { kind: "integer" } },
      required: true
    })
    assert.deepStrictEqual(methods.rest?.payload, {
      kind: "fields",
      fields: [{ name: "a", type: { kind: "integer" }, required: true }],
      rest: { kind: "integer" }
    })
    assert.deepStrictEqual(methods.streams?.payload, {
      kind: "fields",
      fields: [{ name: "rows", type: { kind: "stream", items: { kind: "ref", name: "User" } }, required: true }]
    })
  })

  it("says what it cannot describe", () => {
    const opaque = Schema.declare((u): u is symbol => typeof u === "symbol", { expected: "a symbol" })
    const { methods, problems } = Contract.fromGroup(
      RpcGroup.make(Rpc.make("f", { payload: { a: Schema.Struct({ b: opaque }) }, error: Schema.String }))
    )
    assert.deepStrictEqual(methods.f?.raises, [])
    assert.deepStrictEqual(
      problems.map(({ method, path }) => [method, path]),
      [
        ["f", "raises"],
        ["f", "a.b"]
      ]
    )
    assert.include(problems[1]?.message, "a symbol")
  })
})

const empty = { version: 1, methods: {}, definitions: {}, problems: [] }

describe("Contract.decode", () => {
  const decode = (input: unknown) => Effect.runSyncExit(Contract.decode(input))
  const refusal = (input: unknown): string => {
    const exit = decode(input)
    assert.isTrue(Exit.isFailure(exit))
    const error = Exit.findErrorOption(exit)
    return error._tag === "Some" ? error.value.message : "no failure"
  }
  const withSuccess = (success: unknown) => ({
    ...empty,
    methods: { f: { payload: { kind: "none" }, success, stream: false, raises: [] } }
  })

  it("keeps what is known, and leaves the rest behind", () => {
    const type = { kind: "integer", minimum: 2n, more: new Uint8Array(3) }
    const exit = decode({ ...withSuccess(type), more: 1 })
    assert.deepStrictEqual(Exit.isSuccess(exit) && { ...exit.value, methods: { ...exit.value.methods } }, {
      ...withSuccess({ kind: "integer", minimum: 2n }),
      definitions: Object.create(null)
    } as never)
  })

  it("takes __proto__ for a name", () => {
    const methods = JSON.parse(
      '{"__proto__": {"payload": {"kind": "none"}, "success": {"kind": "null"}, "stream": false, "raises": []}}'
    )
    const exit = decode({ ...empty, methods })
    assert.isTrue(Exit.isSuccess(exit))
    if (Exit.isSuccess(exit)) {
      assert.deepStrictEqual(Object.keys(exit.value.methods), ["__proto__"])
      assert.isNull(Object.getPrototypeOf(exit.value.methods))
      assert.deepStrictEqual(Contract.compare(exit.value, exit.value), [])
    }
  })

  it("refuses with a ProtocolError that says where", () => {
    assert.include(refusal(withSuccess({ kind: "list" })), "$.methods.f.success.items")
    assert.include(refusal(withSuccess({ kind: "widget" })), "update effect-synapse")
    assert.include(refusal({ ...empty, version: 2 }), "update whichever is older")
    assert.include(refusal(withSuccess({ kind: "ref", name: "toString" })), "is not there")
    assert.include(refusal("text"), "expected a map")
    assert.include(refusal(new Map()), "expected a map")
  })

  it("refuses what is too deep, too much or too long", () => {
    let deep: unknown = { kind: "null" }
    for (let n = 0; n < 10_000; n++) deep = { kind: "list", items: deep }
    assert.include(refusal(withSuccess(deep)), "nested deeper")
    assert.include(refusal(withSuccess({ kind: "literal", values: Array(200_000).fill(1) })), "more than")
    assert.include(refusal(withSuccess({ kind: "ref", name: "x".repeat(5000) })), "longer than")
  })
})

const method = (part: Partial<Contract.Method>): Contract.Method => ({
  payload: { kind: "none" },
  success: { kind: "null" },
  stream: false,
  raises: [],
  ...part
})
const contract = (
  part: Partial<Contract.Method>,
  definitions: Contract.Contract["definitions"] = {}
): Contract.Contract => ({
  version: 1,
  methods: { embed: method(part) },
  definitions,
  problems: []
})
const takes = (type: Contract.Type, more: Partial<Contract.Field> = {}): Partial<Contract.Method> => ({
  payload: { kind: "fields", fields: [{ name: "text", type, required: true, ...more }] }
})
const messages = (typescript: Contract.Contract, python: Contract.Contract): ReadonlyArray<string> =>
  Contract.compare(typescript, python).map(({ message }) => message)
const sends = (schema: Schema.Top, taken: Contract.Type, definitions?: Contract.Contract["definitions"]) =>
  messages(
    Contract.fromGroup(RpcGroup.make(Rpc.make("embed", { payload: Schema.Struct({ text: schema as never }) }))),
    contract(takes(taken), definitions)
  )
const gets = (given: Contract.Type, schema: Schema.Top, definitions?: Contract.Contract["definitions"]) =>
  messages(
    Contract.fromGroup(RpcGroup.make(Rpc.make("embed", { success: schema }))),
    contract({ success: given }, definitions)
  )

const text: Contract.Type = { kind: "string" }
const int: Contract.Type = { kind: "integer" }
const float: Contract.Type = { kind: "number" }
const nil: Contract.Type = { kind: "null" }
const list = (items: Contract.Type): Contract.Type => ({ kind: "list", items })
const union = (...members: ReadonlyArray<Contract.Type>): Contract.Type => ({ kind: "union", members })
const ref = (name: string, ...given: ReadonlyArray<Contract.Type>): Contract.Type => ({
  kind: "ref",
  name,
  ...(given.length > 0 && { arguments: given })
})
const struct = (
  fields: { readonly [name: string]: Contract.Type },
  more: Partial<Contract.Definition & { kind: "struct" }> = {}
): Contract.Definition => ({
  kind: "struct",
  fields: Object.entries(fields).map(([name, type]) => ({ name, type, required: true })),
  ...more
})

describe("Contract.compare", () => {
  it("says what each side says, and where", () => {
    const python = contract({ ...takes(int), place: { file: "main.py", line: 12 } })
    const [drift, ...others] = Contract.compare(contract(takes(text)), python)
    assert.deepStrictEqual(others, [])
    assert.deepStrictEqual(drift, {
      method: "embed",
      path: ".text",
      message: "`embed.text`: TypeScript says string, Python says int (main.py:12)",
      place: { file: "main.py", line: 12 }
    })
  })

  describe("lets a receiver take more than is sent", () => {
    const passing: ReadonlyArray<readonly [string, ReadonlyArray<string>]> = [
      ["int for float", sends(Schema.Int, float)],
      ["a bigint for an int", sends(Schema.BigInt, int)],
      ["a literal for text", sends(Schema.Literal("a"), text)],
      ["fewer literals", sends(Schema.Literals(["a", "b"]), { kind: "literal", values: ["a", "b", "c"] })],
      [
        "literals for an enum",
        sends(Schema.Literal("red"), ref("Color"), {
          Color: { kind: "enum", members: [{ name: "RED", value: "red" }] }
        })
      ],
      [
        "an enum for literals",
        gets(ref("Color"), Schema.Literals(["red", "blue"]), {
          Color: { kind: "enum", members: [{ name: "RED", value: "red" }] }
        })
      ],
      ["a wider union", sends(Schema.String, union(text, int, nil))],
      ["int where TypeScript takes number", gets(int, Schema.Finite)],
      ["anything for unknown", sends(Schema.Unknown, int)],
      ["unknown for anything", gets({ kind: "unknown" }, Schema.Int)],
      ["any result for void", gets(int, Schema.Void)],
      ["text for a date", sends(Schema.String, { kind: "date" })],
      ["a UUID for text", gets({ kind: "uuid" }, Schema.String)],
      ["a naive datetime for text", gets({ kind: "datetime", aware: false }, Schema.String)],
      ["a datetime of any kind for an instant", gets({ kind: "datetime", aware: null }, Schema.DateTimeUtc)],
      [
        "an array of one element type for any",
        sends(NdArray.Float64Array, { kind: "ndarray", dtype: null, dimensions: null })
      ],
      ["a tuple for a list", sends(Schema.Tuple([Schema.Int, Schema.Int]), list(int))],
      ["a list for an iterator", sends(Schema.Array(Schema.Int), { kind: "stream", items: int })],
      ["a struct for a dict", sends(Schema.Struct({ a: Schema.Int }), { kind: "map", keys: text, values: int })],
      [
        "a struct for a dict whose keys are its names",
        sends(Schema.Struct({ a: Schema.Int }), {
          kind: "map",
          keys: { kind: "literal", values: ["a", "b"] },
          values: int
        })
      ],
      ["bounds of either side", sends(Schema.Int, { kind: "integer", minimum: 3 })],
      ["a set for a list", gets({ kind: "list", items: int, unique: true }, Schema.Array(Schema.Int))],
      [
        "a tuple for a NamedTuple",
        sends(Schema.Tuple([Schema.Finite, Schema.Finite]), ref("Point"), {
          Point: { kind: "record", fields: ["x", "y", "z"].map((name, i) => ({ name, type: float, required: i < 2 })) }
        })
      ],
      [
        "a tuple that may be shorter for a NamedTuple with defaults",
        sends(Schema.Tuple([Schema.Finite, Schema.optionalKey(Schema.String)]), ref("Point"), {
          Point: {
            kind: "record",
            fields: [
              { name: "x", type: float, required: true },
              { name: "label", type: text, required: false }
            ]
          }
        })
      ],
      ["null for a literal", sends(Schema.NullOr(Schema.Literal("a")), { kind: "literal", values: ["a", null] })],
      [
        "a field with a default that Python always sends",
        gets(ref("A"), Schema.Struct({ a: Schema.Int }), {
          A: { kind: "struct", fields: [{ name: "a", type: int, required: false, always: true }] }
        })
      ],
      [
        "an index signature for fields and further keys",
        messages(
          Contract.fromGroup(
            RpcGroup.make(
              Rpc.make("embed", {
                payload: Schema.StructWithRest(Schema.Struct({ text: Schema.String }), [
                  Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Int]))
                ])
              })
            )
          ),
          contract({
            payload: { kind: "fields", fields: [{ name: "text", type: text, required: true }], rest: int }
          })
        )
      ],
      [
        "further keys of a structure",
        sends(Schema.Struct({ a: Schema.Int, b: Schema.Int }), ref("A"), { A: struct({ a: int }, { open: true }) })
      ],
      ["a boolean for both of its constants", sends(Schema.Boolean, { kind: "literal", values: [true, false] })],
      ["an array of bytes for bytes", sends(NdArray.Uint8Array, { kind: "bytes" })],
      ["bytes for an array of them", sends(Schema.Uint8Array, { kind: "ndarray", dtype: "uint8", dimensions: null })],
      ["bytes where TypeScript takes an array", gets({ kind: "bytes" }, NdArray.Uint8Array)],
      ["a number for a decimal", sends(Schema.Finite, { kind: "decimal" })],
      ["text for a datetime", sends(Schema.String, { kind: "datetime", aware: true })],
      ["a parameter with a default", messages(contract({}), contract(takes(text, { required: false })))],
      ["handlers that nobody asks for", messages({ ...contract({}), methods: {} }, contract(takes(text)))],
      [
        "a generic",
        gets(ref("Page", int), Schema.Struct({ items: Schema.Array(Schema.Int) }), {
          Page: struct({ items: list({ kind: "parameter", name: "T" }) }, { parameters: ["T"] })
        })
      ]
    ]
    for (const [name, found] of passing) it(name, () => assert.deepStrictEqual(found, []))
  })

  describe("finds what does not fit", () => {
    const failing: ReadonlyArray<readonly [string, ReadonlyArray<string>, string]> = [
      [
        "a struct for a dict whose keys are no text",
        sends(Schema.Struct({ a: Schema.Int }), { kind: "map", keys: int, values: int }),
        "`embed.text`: TypeScript says EmbedText, Python says dict[int, int]"
      ],
      [
        "further keys of a structure that refuses them",
        sends(Schema.Struct({ a: Schema.Int, aa: Schema.Int }), ref("A"), { A: struct({ a: int }) }),
        "`embed.text.aa`: TypeScript sends it, Python takes no other keys than its own"
      ],
      [
        "any further keys of a structure that refuses them",
        sends(
          Schema.StructWithRest(Schema.Struct({ a: Schema.Int }), [Schema.Record(Schema.String, Schema.Int)]),
          ref("A"),
          {
            A: struct({ a: int })
          }
        ),
        "`embed.text.*`: TypeScript sends any keys, Python takes no other keys than its own"
      ],
      [
        "a boolean for one of its constants",
        sends(Schema.Boolean, { kind: "literal", values: [true] }),
        "`embed.text`: TypeScript says boolean, Python says Literal[True]"
      ],
      [
        "bytes for an array of two dimensions",
        sends(Schema.Uint8Array, { kind: "ndarray", dtype: "uint8", dimensions: 2 }),
        "`embed.text`: TypeScript says Uint8Array, Python says an array of uint8 with 2 dimensions"
      ],
      [
        "a float for the text of a decimal",
        gets(float, Schema.BigDecimal),
        "`embed()`: TypeScript says BigDecimal, Python says float"
      ],
      ["text for an instant", gets(text, Schema.DateTimeUtc), "`embed()`: TypeScript says Date, Python says str"],
      ["float for int", sends(Schema.Finite, int), "`embed.text`: TypeScript says number, Python says int"],
      [
        "text that is no literal",
        sends(Schema.String, { kind: "literal", values: ["a"] }),
        '`embed.text`: TypeScript says string, Python says Literal["a"]'
      ],
      [
        "a literal too many",
        gets({ kind: "literal", values: ["a", "b"] }, Schema.Literal("a")),
        '`embed()`: TypeScript says "a", Python says Literal["a", "b"]'
      ],
      [
        "null",
        sends(Schema.NullOr(Schema.String), text),
        "`embed.text`: TypeScript says string | null, Python says str"
      ],
      ["None", gets(union(int, nil), Schema.Int), "`embed()`: TypeScript says integer, Python says int | None"],
      [
        "Int64 for a number",
        gets({ kind: "int64" }, Schema.Int),
        "`embed()`: TypeScript says integer, Python says Int64 (which Schema.BigInt takes)"
      ],
      [
        "an instant for text",
        gets({ kind: "datetime", aware: true }, Schema.String),
        "`embed()`: TypeScript says string, Python says datetime with tzinfo (which Schema.DateTimeUtc takes)"
      ],
      [
        "a naive datetime for an instant",
        gets({ kind: "datetime", aware: false }, Schema.Date),
        "`embed()`: TypeScript says Date, Python says datetime without tzinfo"
      ],
      [
        "an array of another element type",
        sends(NdArray.Float32Array, { kind: "ndarray", dtype: "float64", dimensions: 1 }),
        "`embed.text`: TypeScript says an array of float32 with 1 dimension, Python says an array of float64 with 1 dimension"
      ],
      [
        "within a list",
        sends(Schema.Array(Schema.String), list(int)),
        "`embed.text[]`: TypeScript says string, Python says int"
      ],
      [
        "a list for a tuple",
        sends(Schema.Array(Schema.Int), { kind: "tuple", items: [int, int] }),
        "`embed.text`: TypeScript says Array<integer>, Python says tuple[int, int]"
      ],
      [
        "within a structure",
        sends(Schema.Struct({ a: Schema.Struct({ b: Schema.String }) }), ref("A"), {
          A: struct({ a: ref("B") }),
          B: struct({ b: int }, { place: { file: "models.py", line: 3 } })
        }),
        "`embed.text.a.b`: TypeScript says string, Python says int (models.py:3)"
      ],
      [
        "a missing field",
        sends(Schema.Struct({ colour: Schema.String }), ref("A"), { A: struct({ color: text }, { open: true }) }),
        "`embed.text.color`: Python requires it, TypeScript never sends it (it sends `colour`)"
      ],
      [
        "a field that may be missing",
        sends(Schema.Struct({ a: Schema.optionalKey(Schema.Int) }), ref("A"), { A: struct({ a: int }) }),
        "`embed.text.a`: Python requires it, TypeScript may leave it out"
      ],
      [
        "an item that may be missing",
        sends(Schema.Tuple([Schema.Finite, Schema.optionalKey(Schema.String)]), ref("Point"), {
          Point: {
            kind: "record",
            fields: [
              { name: "x", type: float, required: true },
              { name: "label", type: text, required: true }
            ]
          }
        }),
        "`embed.text`: TypeScript says [number, string?], Python says Point (a NamedTuple)"
      ],
      [
        "a field that Python may leave out",
        gets(ref("A"), Schema.Struct({ a: Schema.Int }), {
          A: { kind: "struct", fields: [{ name: "a", type: int, required: false }] }
        }),
        "`embed().a`: TypeScript requires it, Python may leave it out"
      ],
      [
        "a tag",
        sends(Schema.TaggedStruct("Circle", { r: Schema.Int }), union(ref("Square"), ref("Line")), {
          Square: struct({ a: int }, { tag: { field: "_tag", value: "Square" } }),
          Line: struct({ a: int }, { tag: { field: "_tag", value: "Line" } })
        }),
        "`embed.text`: TypeScript says Circle, Python says Square | Line"
      ],
      [
        "within the member of that tag",
        sends(Schema.TaggedStruct("Circle", { r: Schema.String }), union(ref("Square"), ref("Circle")), {
          Square: struct({ a: int }, { tag: { field: "_tag", value: "Square" } }),
          Circle: struct({ r: int }, { tag: { field: "_tag", value: "Circle" } })
        }),
        "`embed.text.r`: TypeScript says string, Python says int"
      ],
      [
        "a structure for a NamedTuple",
        sends(Schema.Struct({ x: Schema.Int }).annotate({ identifier: "Point" }), ref("Point"), {
          Point: { kind: "record", fields: [{ name: "x", type: int, required: true }] }
        }),
        "`embed.text`: TypeScript says Point, Python says Point (a NamedTuple)"
      ],
      [
        "a generic",
        gets(ref("Page", text), Schema.Struct({ items: Schema.Array(Schema.Int) }), {
          Page: struct({ items: list({ kind: "parameter", name: "T" }) }, { parameters: ["T"] })
        }),
        "`embed().items[]`: TypeScript says integer, Python says str"
      ],
      [
        "a stream for a value",
        messages(contract({}), contract({ stream: true })),
        "`embed()`: TypeScript expects one value, Python streams: declare the rpc with `stream: true`"
      ],
      [
        "a value for a stream",
        messages(contract({ stream: true }), contract({})),
        "`embed()`: TypeScript reads a stream, Python returns one value: write a generator, or use @synapse.handler(stream=True)"
      ],
      [
        "items",
        messages(contract({ stream: true, success: int }), contract({ stream: true, success: text })),
        "`embed()[]`: TypeScript says integer, Python says str"
      ],
      [
        "a parameter that is not sent",
        messages(contract({}), contract(takes(text))),
        "`embed.text`: Python requires it, TypeScript never sends it"
      ],
      [
        "a key that Python refuses",
        messages(
          contract({ payload: { kind: "fields", fields: [{ name: "txt", type: text, required: false }] } }),
          contract(takes(text, { required: false }))
        ),
        "`embed.txt`: TypeScript sends it, the handler has no parameter of that name: did you mean `text`?"
      ],
      [
        "arguments of a handler that has none",
        messages(contract(takes(text)), contract({})),
        "`embed.text`: TypeScript sends it, the handler takes no arguments"
      ],
      [
        "a value for a handler with parameters",
        messages(contract({ payload: { kind: "whole", type: list(int), required: true } }), contract(takes(text))),
        "`embed`: TypeScript sends Array<integer>, Python takes the key `text`"
      ],
      [
        "nothing for a value",
        messages(contract({}), contract({ payload: { kind: "whole", type: list(int), required: true } })),
        "`embed`: TypeScript sends nothing, Python takes list[int]"
      ],
      [
        "keys for a value",
        messages(contract(takes(text)), contract({ payload: { kind: "whole", type: list(int), required: true } })),
        "`embed`: TypeScript sends a map with the key `text`, Python takes list[int]"
      ]
    ]
    for (const [name, found, expected] of failing) it(name, () => assert.deepStrictEqual(found, [expected]))
  })

  it("names the handlers that come close to one that is missing", () => {
    const python = { ...contract({}), methods: { embed: method({}), train: method({}) } }
    const typescript = { ...contract({}), methods: { embd: method({}) } }
    assert.deepStrictEqual(messages(typescript, python), [
      "`embd`: the module has no handler of that name; it has `embed`"
    ])
  })

  it("finds errors that TypeScript does not declare, and fields that Python does not give", () => {
    const python = contract(
      { raises: ["NotFound", "Busy"] },
      {
        NotFound: { kind: "error", fields: [{ name: "id", type: text, required: true }] },
        Busy: { kind: "error", fields: [], place: { file: "main.py", line: 7 } }
      }
    )
    class NotFound extends Schema.TaggedError<NotFound>()("NotFound", {
      id: Schema.Int,
      message: Schema.String,
      why: Schema.String
    }) {}
    const typescript = Contract.fromGroup(RpcGroup.make(Rpc.make("embed", { error: NotFound })))
    assert.deepStrictEqual(messages(typescript, python), [
      "`embed raises NotFound.id`: TypeScript says integer, Python says str",
      "`embed raises NotFound.why`: TypeScript requires it, Python never gives it",
      "`embed raises Busy`: Python raises it, TypeScript does not declare it as an error of the rpc (it declares `NotFound`) (main.py:7)"
    ])
  })

  it("takes payloads that Python takes whole", () => {
    const whole = (type: Contract.Type, definitions: Contract.Contract["definitions"] = {}) =>
      contract({ payload: { kind: "whole", type, required: true } }, definitions)
    assert.deepStrictEqual(messages(contract(takes(text)), whole({ kind: "unknown" })), [])
    assert.deepStrictEqual(messages(contract(takes(text)), whole({ kind: "map", keys: text, values: text })), [])
    assert.deepStrictEqual(messages(contract(takes(text)), whole(ref("Job"), { Job: struct({ text }) })), [])
    assert.deepStrictEqual(messages(contract(takes(text)), whole(ref("Job"), { Job: struct({ text: int }) })), [
      "`embed.text`: TypeScript says string, Python says int"
    ])
  })

  it("compares types that contain themselves", () => {
    const python = (value: Contract.Type) => ({ Node: struct({ value, children: list(ref("Node")) }) })
    assert.deepStrictEqual(sends(Tree, ref("Node"), python(float)), [])
    assert.deepStrictEqual(gets(ref("Node"), Tree, python(float)), [])
    assert.deepStrictEqual(sends(Tree, ref("Node"), python(int)), [
      "`embed.text.value`: TypeScript says number, Python says int"
    ])
    assert.deepStrictEqual(
      sends(Json, ref("Json"), { Json: { kind: "alias", type: union(text, list(ref("Json"))) } }),
      []
    )
    assert.lengthOf(sends(Json, ref("Json"), { Json: { kind: "alias", type: union(int, list(ref("Json"))) } }), 1)
  })

  it("does not forget what a failed alternative relied on", () => {
    // B fits only while A is thought to; the member of the union that holds A fails.
    const typescript = contract(takes(ref("A")), {
      A: struct({ b: ref("B"), bad: text }),
      B: struct({ a: ref("A") })
    })
    const python = contract(takes(union(ref("A"), ref("C"))), {
      A: struct({ b: ref("B"), bad: int }),
      B: struct({ a: ref("A") }),
      C: struct({ b: ref("B") })
    })
    assert.isNotEmpty(messages(typescript, python))
  })

  it("ends, and soon, with whatever a worker describes", () => {
    const begin = process.cpuUsage()
    const hostile: ReadonlyArray<readonly [Contract.Type, Contract.Contract["definitions"]]> = [
      [ref("A"), { A: { kind: "alias", type: ref("A") } }],
      [ref("A"), { A: { kind: "alias", type: ref("B") }, B: { kind: "alias", type: union(ref("A"), ref("B")) } }],
      [
        ref("A"),
        { A: { kind: "alias", type: union(ref("B"), nil) }, B: { kind: "alias", type: union(ref("A"), int) } }
      ],
      [
        ref("U0"),
        Object.fromEntries(
          Array.from({ length: 40 }, (_, i) => {
            const next = i === 39 ? int : ref(`U${i + 1}`)
            return [`U${i}`, { kind: "alias", type: union(next, next) }]
          })
        )
      ],
      [
        ref("G", int),
        {
          G: struct(
            {
              next: ref("G", {
                kind: "tuple",
                items: [
                  { kind: "parameter", name: "T" },
                  { kind: "parameter", name: "T" }
                ]
              })
            },
            { parameters: ["T"] }
          )
        }
      ],
      [union(...Array.from({ length: 2000 }, (_, i) => ({ kind: "literal" as const, values: [`${i}`] }))), {}],
      [
        ref("S"),
        { S: struct(Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`${"x".repeat(150)}${i}`, int]))) }
      ]
    ]
    const wanted = Schema.Struct({
      next: Schema.suspend((): Schema.Codec<unknown> => wanted as never),
      xyz: Schema.Literals(["a", ...Array.from({ length: 500 }, (_, i) => `${i}x`)])
    })
    for (const [type, definitions] of hostile) {
      sends(wanted, type, definitions)
      gets(type, wanted, definitions)
      const whole = contract({ payload: { kind: "whole", type, required: true } }, definitions)
      messages(Contract.fromGroup(RpcGroup.make(Rpc.make("embed", { payload: wanted }))), whole)
    }
    assert.isBelow(process.cpuUsage(begin).user, 10_000_000)
  })
})
