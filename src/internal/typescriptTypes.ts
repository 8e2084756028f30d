/** Types of a contract as schemas, and as the types of their values. */
import type { Bounds, Constant, Contract, Field, Lengths, Type } from "../Contract.ts"
import { parametersOf } from "./contractGenerics.ts"
import { type Doc, group, indent, join, line, softline } from "./layout.ts"
import * as Pattern from "./typescriptPattern.ts"
import * as Syntax from "./typescriptSyntax.ts"

/** What can be imported by a generated module. */
export type Import = "NdArray" | "PythonTime" | "Synapse" | "Arrow" | "DateTime" | "BigDecimal" | "Duration"

export interface Writer {
  /** The expression of a type's schema. */
  readonly schema: (type: Type) => Doc
  /** The type of its values. */
  readonly type: (type: Type) => Doc
}

export interface Options {
  readonly definitions: Contract["definitions"]
  /** The name of a definition in the module. */
  readonly nameOf: (name: string) => string
  /** The name of a parameter of a generic. */
  readonly parameterOf: (name: string) => string
  /** Whether a definition has to be referred to before it is there. */
  readonly isSuspended: (name: string) => boolean
  readonly onImport: (name: Import) => void
  /** Called with what cannot be said in TypeScript: it becomes `Schema.Unknown`. */
  readonly onProblem: (message: string) => void
}

const typedArrays: Readonly<Record<string, string>> = {
  int8: "Int8Array",
  uint8: "Uint8Array",
  int16: "Int16Array",
  uint16: "Uint16Array",
  int32: "Int32Array",
  uint32: "Uint32Array",
  int64: "BigInt64Array",
  uint64: "BigUint64Array",
  float32: "Float32Array",
  float64: "Float64Array"
}

const unknown = "Schema.Unknown"

export const make = ({ definitions, isSuspended, nameOf, onImport, onProblem, parameterOf }: Options): Writer => {
  const problem = (message: string): Doc => {
    onProblem(message)
    return unknown
  }

  const imported = (name: Import, text: string): Doc => {
    onImport(name)
    return text
  }

  const schema = (type: Type): Doc => {
    switch (type.kind) {
      case "unknown":
        return unknown
      case "null":
        return "Schema.Null"
      case "boolean":
        return "Schema.Boolean"
      case "date":
        return imported("PythonTime", "PythonTime.Date")
      case "time":
        return imported("PythonTime", "PythonTime.Time")
      case "duration":
        return "Schema.Duration"
      case "decimal":
        return "Schema.BigDecimal"
      case "uuid":
        return "Schema.String.check(Schema.isGUID())"
      case "table":
        return imported("Arrow", "Arrow.Table")
      case "handle":
        return problem("an object that stays in Python is acquired with Synapse.acquire, and is no value")
      case "integer":
        return checked("Schema.Int", bounds(type, ""))
      case "int64":
        return checked("Schema.BigInt", bounds(type, "BigInt"))
      case "number":
        return checked("Schema.Number", bounds(type, ""))
      case "string":
        return checked("Schema.String", [...lengths(type, "CodePoints"), ...pattern(type.pattern)])
      case "bytes":
        return checked("Schema.Uint8Array", lengths(type, "Length"))
      case "datetime":
        if (type.aware === true) return "Schema.DateTimeUtc"
        return imported("PythonTime", type.aware === false ? "PythonTime.NaiveDateTime" : "PythonTime.AnyDateTime")
      case "literal":
        return literals(type.values)
      case "list":
        return type.unique === true
          ? checked(Syntax.call("Schema.ReadonlySet", schema(type.items)), lengths(type, "Size"))
          : checked(Syntax.call("Schema.Array", schema(type.items)), lengths(type, "Length"))
      case "tuple":
        return Syntax.call("Schema.Tuple", Syntax.array(type.items.map(schema)))
      case "map":
        return map(type)
      case "union":
        return union(type.members)
      case "ndarray":
        return ndarray(type.dtype, type.dimensions)
      case "stream":
        return Syntax.call(imported("Synapse", "Synapse.StreamOf"), schema(type.items))
      case "parameter":
        return parameterOf(type.name)
      case "ref":
        return reference(type)
    }
  }

  const map = (type: Type & { readonly kind: "map" }): Doc => {
    if (!isKey(type.keys, definitions)) {
      return problem("a map whose keys are no single texts or numbers cannot travel: use a list of pairs")
    }
    const values = schema(type.values)
    return isPlainText(type.keys)
      ? checked(Syntax.call("Schema.Record", "Schema.String", values), lengths(type, "Properties"))
      : checked(Syntax.call("Schema.ReadonlyMap", schema(type.keys), values), lengths(type, "Size"))
  }

  const union = (members: ReadonlyArray<Type>): Doc => {
    const others = members.filter((member) => member.kind !== "null")
    const [only] = others
    const inner =
      others.length === 1 && only !== undefined
        ? schema(only)
        : Syntax.call("Schema.Union", Syntax.array(others.map(schema)))
    return others.length === members.length ? inner : Syntax.call("Schema.NullOr", inner)
  }

  const ndarray = (dtype: string | null, dimensions: number | null): Doc => {
    const typedArray = dtype === null ? undefined : typedArrays[dtype]
    if (dtype !== null && dtype !== "bool" && typedArray === undefined) {
      return problem(`no typed array of JavaScript holds numpy's ${dtype}: convert it, to float64 for example`)
    }
    onImport("NdArray")
    if (dimensions === 1 && typedArray !== undefined) return `NdArray.${typedArray}`
    const properties = [
      ...(dtype === null ? [] : [{ name: "dtype", value: Syntax.string(dtype) }]),
      ...(dimensions === null ? [] : [{ name: "ndim", value: Syntax.number(dimensions) }])
    ]
    return properties.length === 0 ? "NdArray.schema()" : Syntax.call("NdArray.schema", Syntax.inlineObject(properties))
  }

  const reference = ({ arguments: args, name }: Type & { readonly kind: "ref" }): Doc => {
    const definition = Object.hasOwn(definitions, name) ? definitions[name] : undefined
    if (definition === undefined) return problem(`the contract has no definition of ${name}`)
    const own = nameOf(name)
    if (isSuspended(name)) return Syntax.call("Schema.suspend", `(): Recursive<${own}> => ${own}`)
    const parameters = parametersOf(definition)
    if (parameters.length === 0) return own
    return Syntax.call(own, ...parameters.map((_, i) => schema(args?.[i] ?? { kind: "unknown" })))
  }

  const type = (of: Type): Doc => {
    switch (of.kind) {
      case "unknown":
      case "handle":
        return "unknown"
      case "null":
        return "null"
      case "boolean":
        return "boolean"
      case "date":
      case "time":
      case "uuid":
      case "string":
        return "string"
      case "duration":
        return imported("Duration", "Duration.Duration")
      case "decimal":
        return imported("BigDecimal", "BigDecimal.BigDecimal")
      case "table":
        return "typeof Arrow.Table.Type"
      case "integer":
      case "number":
        return "number"
      case "int64":
        return "bigint"
      case "bytes":
        return "Uint8Array"
      case "datetime":
        return of.aware === false
          ? "string"
          : imported("DateTime", of.aware === true ? "DateTime.Utc" : "DateTime.Utc | string")
      case "literal":
        return join(distinct(of.values.map((value) => (isLiteral(value) ? constant(value) : "number"))), " | ")
      case "list":
        return generic(of.unique === true ? "ReadonlySet" : "ReadonlyArray", type(of.items))
      case "tuple":
        return tuple(of.items.map(type))
      case "map":
        if (!isKey(of.keys, definitions)) return "unknown"
        return isPlainText(of.keys)
          ? ["{ readonly [key: string]: ", type(of.values), " }"]
          : generic("ReadonlyMap", type(of.keys), type(of.values))
      case "union":
        return alternatives(of.members.map(type))
      case "ndarray":
        return ndarrayType(of.dtype, of.dimensions)
      case "stream":
        return "unknown"
      case "parameter":
        return parameterOf(of.name)
      case "ref":
        return of.arguments === undefined || of.arguments.length === 0
          ? nameOf(of.name)
          : generic(nameOf(of.name), ...of.arguments.map(type))
    }
  }

  const ndarrayType = (dtype: string | null, dimensions: number | null): Doc => {
    const typedArray = dtype === null ? undefined : typedArrays[dtype]
    if (dtype !== null && dtype !== "bool" && typedArray === undefined) return "unknown"
    if (dimensions === 1 && typedArray !== undefined) return `globalThis.${typedArray}`
    return imported("NdArray", dtype === null ? "NdArray.NdArray" : `NdArray.NdArray<${Syntax.string(dtype)}>`)
  }

  return { schema, type }
}

const generic = (name: string, ...args: ReadonlyArray<Doc>): Doc =>
  group([name, "<", indent([softline, join(args, [",", line])]), softline, ">"])

const alternatives = (members: ReadonlyArray<Doc>): Doc => join(members, " | ")

export const tuple = (items: ReadonlyArray<Doc>): Doc => ["readonly ", Syntax.docOf(Syntax.array(items))]

/** Whether a value can be the key of a map on the wire. What leads only to itself can. */
const isKey = (type: Type, definitions: Contract["definitions"], depth = 0): boolean => {
  switch (type.kind) {
    case "null":
    case "list":
    case "tuple":
    case "map":
    case "datetime":
    case "ndarray":
    case "table":
    case "stream":
    case "handle":
      return false
    case "union":
      return type.members.every((member) => isKey(member, definitions, depth))
    case "ref": {
      const definition = Object.hasOwn(definitions, type.name) ? definitions[type.name] : undefined
      if (definition === undefined || depth > maxAliases) return true
      return (
        definition.kind === "enum" || (definition.kind === "alias" && isKey(definition.type, definitions, depth + 1))
      )
    }
    default:
      return true
  }
}

/** Of names that stand for names. */
const maxAliases = 16

const isPlainText = (type: Type): boolean =>
  type.kind === "string" && type.pattern === undefined && type.minLength === undefined && type.maxLength === undefined

export const constant = (value: Constant): string =>
  typeof value === "string"
    ? Syntax.string(value)
    : typeof value === "number" || typeof value === "bigint"
      ? Syntax.number(value)
      : String(value)

const distinct = (texts: ReadonlyArray<string>): ReadonlyArray<string> => Array.from(new Set(texts))

/** There is no literal of infinity, nor of what is no number. */
const isLiteral = (value: Constant): boolean => typeof value !== "number" || Number.isFinite(value)

export const literals = (values: ReadonlyArray<Constant>): Doc => {
  if (!values.every(isLiteral)) {
    const others = values.filter((value) => value !== null && typeof value !== "number")
    const members =
      others.length === 0
        ? "Schema.Number"
        : Syntax.call("Schema.Union", Syntax.array([literals(others), "Schema.Number"]))
    return values.includes(null) ? Syntax.call("Schema.NullOr", members) : members
  }
  const others = values.filter((value) => value !== null)
  const [only] = others
  const inner =
    others.length === 0
      ? "Schema.Null"
      : others.length === 1 && only !== undefined
        ? Syntax.call("Schema.Literal", constant(only))
        : Syntax.call(
            "Schema.Literals",
            others.every((value) => typeof value === "number")
              ? Syntax.numbers(others.map(constant))
              : Syntax.array(others.map(constant))
          )
  return others.length === values.length || others.length === 0 ? inner : Syntax.call("Schema.NullOr", inner)
}

const checked = (schema: Doc, checks: ReadonlyArray<Doc>): Doc =>
  checks.length === 0 ? schema : [schema, Syntax.call(".check", ...checks)]

const bounds = (
  { exclusiveMaximum, exclusiveMinimum, maximum, minimum, multipleOf }: Bounds,
  suffix: "" | "BigInt"
): ReadonlyArray<Doc> => {
  /** Of integers a bound is one, too: `round` takes it to the nearest that is allowed. */
  const bound = (
    name: string,
    value: number | bigint | undefined,
    round: (value: number) => number
  ): ReadonlyArray<Doc> => {
    if (value === undefined || !Number.isFinite(Number(value))) return []
    const shown = suffix === "" ? Number(value) : typeof value === "bigint" ? value : BigInt(round(value))
    return [Syntax.call(`Schema.${name}${suffix}`, Syntax.number(shown))]
  }
  return [
    ...bound("isGreaterThanOrEqualTo", minimum, Math.ceil),
    ...bound("isGreaterThan", exclusiveMinimum, Math.floor),
    ...bound("isLessThanOrEqualTo", maximum, Math.floor),
    ...bound("isLessThan", exclusiveMaximum, Math.ceil),
    ...divisor(multipleOf, suffix)
  ]
}

const divisor = (multipleOf: number | bigint | undefined, suffix: "" | "BigInt"): ReadonlyArray<Doc> => {
  if (multipleOf === undefined || Number(multipleOf) === 0 || !Number.isFinite(Number(multipleOf))) return []
  if (suffix === "") return [Syntax.call("Schema.isMultipleOf", Syntax.number(Number(multipleOf)))]
  // Python alone checks what is a multiple of a fraction.
  if (typeof multipleOf === "number" && !Number.isInteger(multipleOf)) return []
  return [Syntax.call("Schema.makeFilter", `(n: bigint) => n % ${BigInt(multipleOf)}n === 0n`)]
}

const lengths = (
  { maxLength, minLength }: Lengths,
  unit: "Length" | "CodePoints" | "Size" | "Properties"
): ReadonlyArray<Doc> => [
  ...(minLength === undefined ? [] : [`Schema.isMin${unit}(${minLength})`]),
  ...(maxLength === undefined ? [] : [`Schema.isMax${unit}(${maxLength})`])
]

const pattern = (python: string | undefined): ReadonlyArray<Doc> => {
  const source = python === undefined ? undefined : Pattern.fromPython(python)
  return source === undefined ? [] : [`Schema.isPattern(/${source === "" ? "(?:)" : source}/u)`]
}

/** What is checked by Python alone: patterns that JavaScript does not know. */
export const uncheckedOf = ({ type }: Pick<Field, "type">): string | undefined =>
  type.kind === "string" && type.pattern !== undefined && Pattern.fromPython(type.pattern) === undefined
    ? `Python checks that it matches \`${type.pattern}\`.`
    : undefined
