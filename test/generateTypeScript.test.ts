/** From contracts to TypeScript: what no Python module of the corpus shows. */
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "vitest"
import type { Contract, Type } from "../src/Contract.ts"
import { generateTypeScript, isGroupName } from "../src/internal/generateTypeScript.ts"
import { fromPython } from "../src/internal/typescriptPattern.ts"
import { contract } from "./corpus/contract.ts"

const golden = fileURLToPath(new URL("corpus/everything.gen.ts", import.meta.url))

const place = { file: "main.py", line: 12 }

const returning = (success: Type): Contract => ({
  version: 1,
  problems: [],
  definitions: {},
  methods: { embed: { place, payload: { kind: "none" }, success, stream: false, raises: [] } }
})

describe("generateTypeScript", () => {
  it("gives the golden of a contract with everything in it", () => {
    const { findings, source } = generateTypeScript(contract, { groupName: "Everything", command: "make it" })
    assert.deepStrictEqual(findings, [])
    if (process.env.UPDATE_GOLDENS !== undefined) writeFileSync(golden, source)
    assert.strictEqual(source, readFileSync(golden, "utf8"))
  })

  it("gives what cannot be described as an error with its place, or as a warning where that is allowed", () => {
    const problem = { method: "embed", path: "parameter text", message: "`Foo` is not a type\nthat can arrive", place }
    const described = { ...returning({ kind: "unknown" }), problems: [problem] }
    const message = "main.py:12: `embed`, parameter text: `Foo` is not a type that can arrive"
    assert.deepStrictEqual(generateTypeScript(described).findings, [{ severity: "error", message }])
    const allowed = generateTypeScript(described, { allowUnknown: true })
    assert.deepStrictEqual(allowed.findings, [{ severity: "warning", message }])
    assert.include(allowed.source, "success: Schema.Unknown")
  })

  it("says what TypeScript has no schema for", () => {
    const complex = generateTypeScript(returning({ kind: "ndarray", dtype: "complex128", dimensions: 1 }))
    assert.match(complex.findings[0]!.message, /^main\.py:12: `embed`, return: .*complex128/)
    assert.notInclude(complex.source, "NdArray")
    const held = generateTypeScript(returning({ kind: "list", items: { kind: "handle" } }))
    assert.include(held.findings[0]!.message, "Synapse.acquire")
    const dangling = generateTypeScript(returning({ kind: "ref", name: "Gone" }))
    assert.include(dangling.findings[0]!.message, "Gone")
  })

  it("ends where a generic refers to ever other uses of itself", () => {
    const endless: Contract = {
      ...returning({ kind: "ref", name: "Deep", arguments: [{ kind: "integer" }] }),
      definitions: {
        Deep: {
          kind: "struct",
          place,
          parameters: ["T"],
          fields: [
            {
              name: "next",
              required: true,
              type: {
                kind: "ref",
                name: "Deep",
                arguments: [{ kind: "list", items: { kind: "parameter", name: "T" } }]
              }
            }
          ]
        }
      }
    }
    const { findings } = generateTypeScript(endless)
    assert.match(findings[0]!.message, /^main\.py:12: Deep: the generic refers to ever other uses of itself/)
  })

  it("is done soon with a generic whose arguments double", () => {
    const parameter = { kind: "parameter", name: "T" } as const
    const next = { kind: "ref", name: "Deep", arguments: [{ kind: "tuple", items: [parameter, parameter] }] } as const
    const { findings } = generateTypeScript({
      ...returning({ kind: "ref", name: "Deep", arguments: [{ kind: "integer" }] }),
      definitions: {
        Deep: { kind: "struct", parameters: ["T"], fields: [{ name: "next", required: true, type: next }] }
      }
    })
    assert.match(findings[0]!.message, /^Deep: the generic refers to ever other uses of itself/)
  })

  it("takes chains of references of any length", () => {
    const length = 20_000
    const definitions = Object.fromEntries(
      Array.from({ length }, (_, i) => {
        const type: Type = { kind: "ref", name: `N${(i + 1) % length}` }
        return [`N${i}`, { kind: "struct", fields: [{ name: "next", required: true, type }] } as const]
      })
    )
    const { source } = generateTypeScript({ ...returning({ kind: "ref", name: "N0" }), definitions })
    assert.include(source, "export const N19999 = ")
  })

  it("tells the uses of a generic from each other, and from what is called so", () => {
    const tuple = (...items: ReadonlyArray<Type>): Type => ({ kind: "tuple", items })
    const int: Type = { kind: "integer" }
    const pair = (...args: ReadonlyArray<Type>): Type => ({ kind: "ref", name: "Pair", arguments: args })
    const [a, b] = [{ kind: "parameter", name: "A" } as const, { kind: "parameter", name: "B" } as const]
    const { source } = generateTypeScript({
      ...returning(
        tuple(pair(int, int), pair(tuple(int, tuple(int)), int), pair(tuple(int), tuple(int, int)), {
          kind: "ref",
          name: "PairOfIntegerAndInteger"
        })
      ),
      definitions: {
        PairOfIntegerAndInteger: { kind: "struct", fields: [{ name: "other", required: true, type: int }] },
        Pair: {
          kind: "struct",
          parameters: ["A", "B"],
          fields: [
            { name: "first", required: true, type: a },
            { name: "second", required: true, type: b },
            { name: "next", required: false, type: { kind: "union", members: [pair(a, b), { kind: "null" }] } }
          ]
        }
      }
    })
    const used = /success: Schema\.Tuple\(\[([^\]]+)\]/
      .exec(source)![1]!
      .split(",")
      .map((name) => name.trim())
    assert.lengthOf(new Set(used), 4)
    assert.strictEqual(used[3], "PairOfIntegerAndInteger")
  })

  it("says only what is a schema of numbers", () => {
    const bounded = generateTypeScript(
      returning({
        kind: "tuple",
        items: [
          { kind: "int64", minimum: 0.5, exclusiveMaximum: 9.5, multipleOf: 0.5 },
          { kind: "int64", maximum: Number.NaN, multipleOf: 0 },
          { kind: "number", minimum: Number.NEGATIVE_INFINITY, maximum: Number.NaN, multipleOf: 0 },
          { kind: "literal", values: [1.5, Number.POSITIVE_INFINITY, "a", null] }
        ]
      })
    ).source
    assert.include(
      bounded,
      "Schema.BigInt.check(Schema.isGreaterThanOrEqualToBigInt(1n), Schema.isLessThanBigInt(10n)),"
    )
    assert.match(bounded, /\n\s+Schema\.BigInt,\n\s+Schema\.Number,\n/)
    assert.include(bounded, 'Schema.NullOr(Schema.Union([Schema.Literal("a"), Schema.Number]))')
  })

  it("keeps texts whole that hold the ends of lines", () => {
    const value = "a  \u2028b  \u2029"
    const { source } = generateTypeScript(returning({ kind: "literal", values: [value] }))
    const literal = /Schema\.Literal\((".*")\)/.exec(source)![1]!
    assert.strictEqual(JSON.parse(literal), value)
  })

  it("says that maps are not keyed by tuples", () => {
    const keys: Type = { kind: "tuple", items: [{ kind: "integer" }] }
    const { findings, source } = generateTypeScript(returning({ kind: "map", keys, values: { kind: "integer" } }))
    assert.include(findings[0]!.message, "a list of pairs")
    assert.include(source, "success: Schema.Unknown")
  })

  it("tells many names from each other that look alike", () => {
    const length = 10_000
    const definitions = Object.fromEntries(
      Array.from({ length }, (_, i) => [
        String.fromCodePoint(0x4e00 + i),
        { kind: "alias", type: { kind: "integer" } } as const
      ])
    )
    const { source } = generateTypeScript({ ...returning({ kind: "null" }), definitions })
    assert.lengthOf(new Set(source.match(/^export const \w+/gm)), length)
    assert.isBelow(source.length, length * 200)
  })

  it("tells the same of a contract in the same words, whatever the command is called", () => {
    const one = generateTypeScript(contract, { command: "a\nb */ // c" }).source
    assert.strictEqual(one, generateTypeScript(contract, { command: "a\nb */ // c" }).source)
    assert.include(one, "// a b */ // c\n")
  })

  it("tells which texts can name the group", () => {
    for (const name of ["Python", "_a$1"]) assert.isTrue(isGroupName(name), name)
    for (const name of ["", "1a", "a-b", "class", "Schema", "RpcGroup", "Map"]) assert.isFalse(isGroupName(name), name)
  })
})

describe("a regular expression of Python", () => {
  const matches = (pattern: string, text: string): boolean | undefined => {
    const source = fromPython(pattern)
    return source === undefined ? undefined : new RegExp(source, "u").test(text)
  }

  it("matches the same in JavaScript", () => {
    assert.isTrue(matches("^\\w+$", "größe_1"))
    assert.isFalse(matches("^\\W$", "ö"))
    assert.isTrue(matches("^[\\w.-]+@x$", "ö.b-c@x"))
    assert.isTrue(matches("\\Aa/b\\Z", "a/b"))
    assert.isFalse(matches("\\Aa\\Z", "a\n"))
    assert.isTrue(matches("(?P<first>a)b", "ab"))
    assert.isTrue(matches("^[]a[]$", "["))
    assert.isTrue(matches("^\\#\\-\\ $", "#- "))
    assert.isTrue(matches("^[^]]$", "x"))
    assert.isTrue(matches("(?<!a)b", "cb"))
    assert.isTrue(matches("^😀?$", "😀"))
    assert.isTrue(matches("^\n$", "\n"))
  })

  it("is none where JavaScript has no such thing", () => {
    for (const pattern of ["(?i)a", "\\bword", "[\\W]", "(?P<a>a)(?P=a)", "(?>a)", "a++", "(", "\\"]) {
      assert.isUndefined(fromPython(pattern), pattern)
    }
  })
})
