/** A contract with what the Python modules of the corpus do not have. */
import type { Contract, Field, Type } from "../../src/Contract.ts"

const integer: Type = { kind: "integer" }
const text: Type = { kind: "string" }
const nil: Type = { kind: "null" }
const parameter = (name: string): Type => ({ kind: "parameter", name })
const list = (items: Type): Type => ({ kind: "list", items })
const union = (...members: ReadonlyArray<Type>): Type => ({ kind: "union", members })
const ref = (name: string, ...args: ReadonlyArray<Type>): Type =>
  args.length === 0 ? { kind: "ref", name } : { kind: "ref", name, arguments: args }
const required = (name: string, type: Type): Field => ({ name, type, required: true })
const word = (letter: string): string => letter.repeat(34)

export const contract: Contract = {
  version: 1,
  problems: [],
  definitions: {
    // Names
    delete: { kind: "struct", fields: [required("if", integer)] },
    "package.Thing": {
      kind: "struct",
      fields: [required("a b", integer), required("0", text), required("größe", text)]
    },
    package_Thing: { kind: "struct", fields: [] },
    T: { kind: "alias", type: integer },
    RpcGroup: { kind: "alias", type: ref("T") },
    // Comments and defaults
    Talkative: {
      kind: "struct",
      doc: "First.\r\n\r\n  Indented */ and */ more.\n",
      fields: [
        { name: "text", type: text, required: false, default: 'it"s "quoted"', doc: "One.\nTwo." },
        { name: "big", type: { kind: "int64" }, required: false, default: 2n ** 60n },
        { name: "large", type: { kind: "number" }, required: false, default: 1e21 },
        { name: "nothing", type: union(text, nil), required: false, default: null, always: true }
      ]
    },
    // Literals and enums
    Words: {
      kind: "alias",
      type: { kind: "literal", values: [word("a"), word("b"), word("c"), `"${word("d")}`, null] }
    },
    Numbers: { kind: "alias", type: { kind: "literal", values: Array.from({ length: 30 }, (_, i) => i * 1000) } },
    One: { kind: "alias", type: { kind: "literal", values: ["one"] } },
    Flags: {
      kind: "enum",
      members: [
        { name: "NO", value: false },
        { name: "MANY", value: 2n ** 60n }
      ]
    },
    // Unions
    Circle: {
      kind: "struct",
      tag: { field: "kind", value: "circle" },
      fields: [required("radius", { kind: "number" })]
    },
    Square: { kind: "struct", tag: { field: "kind", value: "square" }, fields: [required("side", { kind: "number" })] },
    Shape: { kind: "alias", doc: "Either.", type: union(ref("Circle"), ref("Square")) },
    Mixed: { kind: "alias", type: union(ref("Circle"), integer) },
    // Recursion
    Json: {
      kind: "alias",
      type: union(
        nil,
        { kind: "boolean" },
        { kind: "number" },
        text,
        { kind: "map", keys: text, values: ref("Json") },
        list(ref("Json"))
      )
    },
    Expression: { kind: "alias", type: union(ref("Constant"), ref("Sum"), ref("Product")) },
    Constant: { kind: "struct", tag: { field: "op", value: "constant" }, fields: [required("value", ref("Shape"))] },
    Sum: { kind: "struct", tag: { field: "op", value: "sum" }, fields: [required("of", list(ref("Expression")))] },
    Product: {
      kind: "struct",
      doc: "A product.",
      tag: { field: "op", value: "product" },
      fields: [required("left", ref("Expression")), required("right", ref("Expression"))]
    },
    Everything: {
      kind: "struct",
      fields: [
        required("self", union(ref("Everything"), nil)),
        required("when", { kind: "datetime", aware: true }),
        required("perhaps", { kind: "datetime", aware: null }),
        required("took", { kind: "duration" }),
        required("cost", { kind: "decimal" }),
        required("raw", { kind: "bytes" }),
        required("names", { kind: "list", items: text, unique: true }),
        required("byNumber", { kind: "map", keys: integer, values: text }),
        required("vector", { kind: "ndarray", dtype: "float32", dimensions: 1 }),
        required("image", { kind: "ndarray", dtype: "uint8", dimensions: 3 }),
        required("any", { kind: "ndarray", dtype: null, dimensions: null }),
        required("big", { kind: "int64" }),
        required("pair", { kind: "tuple", items: [integer, text] }),
        required("row", ref("Row")),
        required("table", { kind: "table" }),
        required("odd", { kind: "literal", values: ["a", 1, null] })
      ]
    },
    Row: {
      kind: "record",
      fields: [
        required("first", integer),
        required("default", text),
        { name: "rest", type: ref("Everything"), required: false }
      ]
    },
    // Generics
    Pair: {
      kind: "struct",
      parameters: ["T", "U"],
      fields: [required("left", parameter("T")), required("right", { kind: "map", keys: text, values: parameter("U") })]
    },
    Twice: { kind: "alias", parameters: ["T"], type: { kind: "tuple", items: [parameter("T"), parameter("T")] } },
    Nested: {
      kind: "struct",
      parameters: ["T"],
      fields: [required("pair", ref("Pair", parameter("T"), ref("Twice", parameter("T"))))]
    },
    Node: {
      kind: "struct",
      parameters: ["T"],
      fields: [required("value", parameter("T")), required("next", union(ref("Node", parameter("T")), nil))]
    },
    Phantom: { kind: "struct", parameters: ["V"], fields: [required("value", integer)] },
    Wrapper: {
      kind: "struct",
      parameters: ["T"],
      fields: [required("nodes", list(ref("Node", list(parameter("T")))))]
    },
    // Constraints
    Bounds: {
      kind: "struct",
      fields: [
        required("even", { kind: "int64", minimum: 0n, multipleOf: 2n }),
        required("tenth", { kind: "number", exclusiveMinimum: -1.5, maximum: 1e21, multipleOf: 0.1 }),
        required("words", { kind: "string", pattern: "\\A\\w+/(?P<rest>.*)\\Z", maxLength: 3 }),
        required("unchecked", { kind: "string", pattern: "(?i)abc" }),
        required("map", { kind: "map", keys: text, values: integer, minLength: 1, maxLength: 2 }),
        required("set", { kind: "list", items: integer, unique: true, maxLength: 2 })
      ]
    },
    // Errors
    Odd: { kind: "error", fields: [required("message", text), required("name", text), required("code", ref("Flags"))] },
    None: { kind: "error", fields: [] }
  },
  methods: {
    none: { payload: { kind: "none" }, success: nil, stream: false, raises: [] },
    names: {
      payload: { kind: "whole", type: ref("delete"), required: true },
      success: { kind: "tuple", items: [ref("package.Thing"), ref("package_Thing"), ref("RpcGroup")] },
      stream: false,
      raises: ["Odd", "None"]
    },
    __proto_: {
      payload: { kind: "fields", fields: [required("a", integer)], rest: integer },
      success: ref("Talkative"),
      stream: false,
      raises: ["None"]
    },
    "it's": { payload: { kind: "fields", fields: [], rest: integer }, success: nil, stream: true, raises: [] },
    maybe: {
      payload: { kind: "whole", type: list(text), required: false },
      success: ref("Words"),
      stream: false,
      raises: []
    },
    unions: {
      payload: { kind: "fields", fields: [required("shape", ref("Shape")), required("mixed", ref("Mixed"))] },
      success: { kind: "tuple", items: [ref("Words"), ref("Numbers"), ref("One"), ref("Flags")] },
      stream: false,
      raises: []
    },
    recursion: {
      payload: { kind: "fields", fields: [required("json", ref("Json")), required("expression", ref("Expression"))] },
      success: ref("Everything"),
      stream: false,
      raises: []
    },
    generics: {
      payload: { kind: "whole", type: ref("Nested", ref("Shape")), required: true },
      success: {
        kind: "tuple",
        items: [ref("Node", integer), ref("Wrapper", text), ref("Twice"), ref("Phantom", text)]
      },
      stream: true,
      raises: ["None"]
    },
    streams: {
      payload: { kind: "fields", fields: [required("rows", { kind: "stream", items: { kind: "table" } })] },
      success: ref("Bounds"),
      stream: false,
      raises: []
    },
    handle: { payload: { kind: "none" }, success: { kind: "handle" }, stream: false, raises: [] }
  }
}
