/** A type of a contract in the words of either language. */
import type { Constant, Contract, Definition, Type } from "../Contract.ts"

export type Language = "TypeScript" | "Python"

const maxLength = 120
const maxMembers = 8
/** Deeper than this, a type is not spelled out. */
const maxDepth = 3

const typescript: Partial<Record<Type["kind"], string>> = {
  unknown: "unknown",
  null: "null",
  boolean: "boolean",
  integer: "integer",
  int64: "bigint",
  number: "number",
  string: "string",
  bytes: "Uint8Array",
  date: "a date as text",
  time: "a time as text",
  duration: "Duration",
  decimal: "BigDecimal",
  uuid: "a UUID as text",
  table: "an Arrow table",
  handle: "a held object"
}

const python: Partial<Record<Type["kind"], string>> = {
  unknown: "Any",
  null: "None",
  boolean: "bool",
  integer: "int",
  int64: "Int64",
  number: "float",
  string: "str",
  bytes: "bytes",
  date: "date",
  time: "time",
  duration: "timedelta",
  decimal: "Decimal",
  uuid: "UUID",
  table: "an Arrow table",
  handle: "Handle"
}

/** What a side says of a type. `definitions` are those of its contract. */
export const wordsOf = (type: Type, language: Language, definitions: Contract["definitions"]): string =>
  shorten(describe(type, { python: language === "Python", definitions }, 0))

interface In {
  readonly python: boolean
  readonly definitions: Contract["definitions"]
}

const describe = (type: Type, said: In, depth: number): string => {
  if (depth > maxDepth) return "…"
  const of = (inner: Type): string => describe(inner, said, depth + 1)
  const all = (types: ReadonlyArray<Type>): string => some(types.map(of)).join(", ")
  switch (type.kind) {
    case "datetime":
      if (!said.python) return type.aware === false ? "a local date and time as text" : "Date"
      return type.aware === null ? "datetime" : type.aware ? "datetime with tzinfo" : "datetime without tzinfo"
    case "literal":
      return said.python ? `Literal[${constants(type.values, said)}]` : constants(type.values, said)
    case "list":
      if (said.python) return `${type.unique === true ? "set" : "list"}[${of(type.items)}]`
      return `${type.unique === true ? "Set" : "Array"}<${of(type.items)}>`
    case "tuple":
      return said.python ? `tuple[${all(type.items)}]` : `[${all(type.items)}]`
    case "map":
      if (said.python) return `dict[${of(type.keys)}, ${of(type.values)}]`
      return `${type.keys.kind === "string" ? "Record" : "Map"}<${of(type.keys)}, ${of(type.values)}>`
    case "union":
      return type.members.length === 0 ? "never" : some(type.members.map(of)).join(" | ")
    case "ndarray": {
      const shape =
        type.dimensions === null ? "" : ` with ${type.dimensions} dimension${type.dimensions === 1 ? "" : "s"}`
      return `an array of ${type.dtype ?? "any element type"}${shape}`
    }
    case "stream":
      return said.python ? `Iterator[${of(type.items)}]` : `Stream<${of(type.items)}>`
    case "parameter":
      return type.name
    case "ref": {
      const definition = said.definitions[type.name]
      if (!said.python && definition?.kind === "record") {
        return `[${some(definition.fields.map(({ required, type }) => of(type) + (required ? "" : "?"))).join(", ")}]`
      }
      const inner = type.arguments ?? []
      const [open, close] = said.python ? ["[", "]"] : ["<", ">"]
      return `${type.name}${inner.length === 0 ? "" : `${open}${all(inner)}${close}`}${kindOf(definition, said)}`
    }
    default:
      return (said.python ? python : typescript)[type.kind] ?? type.kind
  }
}

/** What a name does not tell. */
const kindOf = (definition: Definition | undefined, said: In): string => {
  switch (definition?.kind) {
    case "record":
      return " (a NamedTuple)"
    case "enum":
      return ` (${constants(
        definition.members.map(({ value }) => value),
        said
      )})`
    default:
      return ""
  }
}

const some = (parts: ReadonlyArray<string>): ReadonlyArray<string> =>
  parts.length > maxMembers ? [...parts.slice(0, maxMembers), "…"] : parts

const constants = (values: ReadonlyArray<Constant>, { python }: In): string =>
  some(values.slice(0, maxMembers + 1).map((value) => wordOfConstant(value, python))).join(python ? ", " : " | ")

export const wordOfConstant = (value: Constant, python: boolean): string => {
  if (typeof value === "string") return JSON.stringify(shorten(value))
  if (python && value === null) return "None"
  if (python && typeof value === "boolean") return value ? "True" : "False"
  return String(value)
}

const shorten = (text: string): string => (text.length > maxLength ? `${text.slice(0, maxLength)}…` : text)
