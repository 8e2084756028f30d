/** The names and types of a Python module, and what it has to import for them. */
import type { Constant, Contract, Definition, Type } from "../Contract.ts"
import * as Graph from "./contractGraph.ts"
import { contractText } from "./contractText.ts"
import * as Python from "./pythonSource.ts"

/** Lines of a module, indented as they are within what they belong to. */
export type Block = ReadonlyArray<string>

/** One side of the wire: its definitions, and their names in the module. */
export interface Scope {
  readonly contract: Contract
  readonly isHost: boolean
  readonly names: Map<string, string>
  /** Which aliases are made of which. */
  readonly aliases: Graph.Graph
}

export const makeScope = (contract: Contract, isHost: boolean): Scope => {
  const aliases = Object.entries(contract.definitions).filter(([, { kind }]) => kind === "alias")
  return { contract, isHost, names: new Map(), aliases: Graph.make(Object.fromEntries(aliases)) }
}

export interface Parameter {
  readonly name: string
  readonly type: Python.Expression
  readonly value?: string
}

/** Names that annotations are made of: what hides one of them in a class changes what the others there mean. */
const typeNames =
  "Any AsyncIterable Awaitable Items Iterable Literal Result TypeAlias TypedDict abc bool bytes decimal dict dt " +
  "enum float int list np npt set str synapse tuple uuid"

/** Names that definitions cannot have besides. */
const otherNames =
  "False Handlers Host HostSync NamedTuple None T TYPE_CHECKING True TypeVar dataclass host host_sync Exception " +
  "NotImplementedError object property super type"

/** What names and types are in the module; those that were asked for are imported. */
export class Types {
  readonly #scopes: ReadonlyArray<Scope>
  readonly #hidden = new Set(typeNames.split(" "))
  readonly #taken = new Set(`${typeNames} ${otherNames}`.split(" "))
  readonly #typing = new Set<string>()
  readonly #collections = new Set<string>()
  readonly #modules = new Set<string>()
  /** Unions that were too long where they stood, by their text. */
  readonly #hoisted = new Map<string, { readonly name: string; readonly block: Block }>()
  /** Aliases that are being written out: one that contains itself ends in `Any`. */
  #open: ReadonlySet<string> = new Set()

  constructor(scopes: ReadonlyArray<Scope>) {
    this.#scopes = scopes
    for (const scope of scopes) this.#nameAll(scope)
  }

  /** The unions that got a name of their own. */
  get hoisted(): ReadonlyArray<Block> {
    return Array.from(this.#hoisted.values(), ({ block }) => block)
  }

  /** Imports a module. */
  use(module: string): void {
    this.#modules.add(module)
  }

  /** Imports a name. */
  need(module: "typing" | "collections", name: string): string {
    if (module === "typing") this.#typing.add(name)
    else this.#collections.add(name)
    return name
  }

  module(module: string, name: string): string {
    this.#modules.add(module)
    return name
  }

  /** A name that nothing else in the module has. */
  free(wanted: string): string {
    let name = wanted
    while (this.#taken.has(name)) name += "_"
    this.#taken.add(name)
    this.#hidden.add(name)
    return name
  }

  // Errors come first: their classes are called by their tags. What both sides say alike is one class.
  #nameAll(scope: Scope): void {
    const [first] = this.#scopes
    const { definitions } = scope.contract
    const names = Object.keys(definitions)
    const isError = (name: string): boolean => definitions[name]!.kind === "error"
    for (const name of [...names.filter(isError), ...names.filter((each) => !isError(each))]) {
      const shared = scope !== first && !isError(name) && isSameDefinition(name, first!.contract, scope.contract)
      const plain = Python.isIdentifier(name) ? name : pascalCase(name)
      const own = shared
        ? first!.names.get(name)!
        : this.free(this.#taken.has(plain) && scope.isHost ? `Host${plain}` : plain)
      scope.names.set(name, own)
    }
  }

  imports(): Block {
    const from = (module: string, names: ReadonlySet<string>): Block => {
      if (names.size === 0) return []
      const sorted = Array.from(names).sort(
        (a, b) => rankOf(a) - rankOf(b) || (a.toLowerCase() < b.toLowerCase() ? -1 : 1)
      )
      const line = `from ${module} import ${sorted.join(", ")}`
      return line.length <= 88 ? [line] : [`from ${module} import (`, ...sorted.map((name) => `    ${name},`), ")"]
    }
    const plain = ["abc", "datetime", "decimal", "enum", "uuid"].filter((name) => this.#modules.has(name))
    const standard = [
      ...plain.map((name) => (name === "datetime" ? "import datetime as dt" : `import ${name}`)),
      ...from("collections.abc", this.#collections),
      ...(this.#modules.has("dataclasses") ? ["from dataclasses import dataclass"] : []),
      ...from("typing", this.#typing)
    ]
    const other = [
      ...(this.#modules.has("numpy") ? ["import numpy as np"] : []),
      ...(this.#modules.has("numpy.typing") ? ["import numpy.typing as npt"] : []),
      ...(this.#modules.has("synapse") ? ["import synapse"] : [])
    ]
    return standard.length > 0 && other.length > 0 ? [...standard, "", ...other] : [...standard, ...other]
  }

  type(scope: Scope, type: Type): Python.Expression {
    const of = (inner: Type): Python.Expression => this.type(scope, inner)
    switch (type.kind) {
      case "null":
        return "None"
      case "boolean":
        return "bool"
      case "integer":
      case "int64":
        return "int"
      case "number":
        return "float"
      case "string":
        return "str"
      case "bytes":
        return "bytes"
      case "datetime":
        return this.module("datetime", "dt.datetime")
      case "date":
        return this.module("datetime", "dt.date")
      case "time":
        return this.module("datetime", "dt.time")
      case "duration":
        return this.module("datetime", "dt.timedelta")
      case "decimal":
        return this.module("decimal", "decimal.Decimal")
      case "uuid":
        return this.module("uuid", "uuid.UUID")
      case "handle":
        return this.module("synapse", "synapse.Handle")
      case "literal":
        return this.literal(type.values)
      case "list":
        return Python.generic(
          type.unique === true && this.isHashable(scope, type.items) ? "set" : "list",
          of(type.items)
        )
      case "tuple":
        return type.items.length === 0 ? "tuple[()]" : Python.generic("tuple", ...type.items.map(of))
      case "map":
        return Python.generic("dict", of(type.keys), of(type.values))
      case "union": {
        const members = type.members.map(of)
        // Of no value at all, nothing is to be said.
        if (members.length === 0) return this.any()
        if (members.includes("Any")) return "Any"
        return { anyOf: distinct(members) }
      }
      case "ndarray":
        this.#modules.add("numpy.typing")
        if (type.dtype === null) return Python.generic("npt.NDArray", this.any())
        this.#modules.add("numpy")
        return Python.generic("npt.NDArray", `np.${type.dtype === "bool" ? "bool_" : type.dtype}`)
      case "stream":
        this.#modules.add("synapse")
        return Python.generic("synapse.Stream", of(type.items))
      case "ref":
        return this.reference(scope, type.name)
      // pyarrow has no types that checkers know; a table arrives as one, and may be returned, without a word.
      case "table":
      case "unknown":
      case "parameter":
        return this.any()
    }
  }

  any(): string {
    return this.need("typing", "Any")
  }

  reference(scope: Scope, name: string): Python.Expression {
    const own = scope.names.get(name)
    return own === undefined || this.#open.has(own) ? this.any() : own
  }

  literal(values: ReadonlyArray<Constant>): Python.Expression {
    // A `Literal` holds no floats.
    if (values.some((value) => typeof value === "number" && !Number.isInteger(value))) {
      const kinds = values.map((value) =>
        typeof value === "string" ? "str" : typeof value === "boolean" ? "bool" : value === null ? "None" : "float"
      )
      return { anyOf: Array.from(new Set(kinds)) }
    }
    return Python.generic(this.need("typing", "Literal"), ...values.map(constant))
  }

  isHashable(scope: Scope, type: Type): boolean {
    switch (type.kind) {
      case "list":
      case "map":
      case "ndarray":
      case "table":
      case "unknown":
      case "stream":
      case "parameter":
      case "handle":
        return false
      case "tuple":
        return type.items.every((item) => this.isHashable(scope, item))
      case "union":
        return type.members.every((member) => this.isHashable(scope, member))
      case "ref": {
        const definition = scope.contract.definitions[type.name]
        return (
          definition?.kind === "enum" ||
          (definition?.kind === "alias" &&
            !scope.aliases.cycles.has(type.name) &&
            this.isHashable(scope, definition.type))
        )
      }
      default:
        return true
    }
  }

  /** Whether the runtime takes a single parameter of this type for the whole payload. */
  isMap(scope: Scope, type: Type): boolean {
    switch (type.kind) {
      case "unknown":
      case "table":
      case "parameter":
      case "map":
        return true
      case "union":
        return type.members.every((member) => member.kind === "null" || this.isMap(scope, member))
      case "ref": {
        const definition = scope.contract.definitions[type.name]
        if (definition?.kind === "alias")
          return scope.aliases.cycles.has(type.name) || this.isMap(scope, definition.type)
        return definition === undefined || definition.kind === "struct" || definition.kind === "error"
      }
      default:
        return false
    }
  }

  alias(scope: Scope, name: string, own: string, definition: Definition & { kind: "alias" }): Block {
    // Whatever leads back to it does so through other aliases of its cycle.
    const cycle = scope.aliases.cycles.get(name) ?? []
    this.#open = new Set([own, ...Array.from(cycle, (each) => scope.names.get(each)!)])
    const value = this.type(scope, definition.type)
    this.#open = new Set()
    return [...comment(definition.doc), ...this.assignment(own, value)]
  }

  /** Whether a method of that name would hide the name of a type. */
  isHidden(name: string): boolean {
    return this.#hidden.has(name)
  }

  /** A field that hides the name of a type, or is private to its class, cannot be one of a class. */
  isWritable(name: string): boolean {
    return Python.isIdentifier(name) && !this.#hidden.has(name)
  }

  /** The lines of a signature; `owner` begins the names of what is too long for it. */
  signature(
    indent: string,
    owner: string,
    before: string,
    parameters: ReadonlyArray<Parameter | string>,
    result: Python.Expression,
    after: string
  ): Block {
    const shown = (each: Parameter | string): string =>
      typeof each === "string" ? each : `${each.name}: ${Python.flat(each.type)}${defaultOf(each)}`
    const line = `${before}${parameters.map(shown).join(", ")}) -> ${Python.flat(result)}${after}`
    if (indent.length + line.length <= 88) return [line]
    const inner = parameters.flatMap((each) =>
      typeof each === "string"
        ? [`${each},`]
        : this.lines(
            `${indent}    `,
            `${owner}${pascalCase(each.name)}`,
            `${each.name}: `,
            each.type,
            `${defaultOf(each)},`
          )
    )
    return [before, ...Python.indented(inner), ...this.lines(indent, `${owner}Result`, ") -> ", result, after)]
  }

  /** Lines of an annotation. A union that is too long for where it stands gets a name, that of its place. */
  lines(indent: string, name: string, before: string, type: Python.Expression, after = ""): Block {
    const isLong = typeof type === "object" && "anyOf" in type && !Python.fits(indent, before, type, after)
    const lines = Python.layout(indent, before, isLong ? this.hoist(name, type) : type, after)
    return lines.map((line) => line.slice(indent.length))
  }

  hoist(wanted: string, type: Python.Expression): string {
    const text = Python.flat(type)
    const known = this.#hoisted.get(text)
    if (known !== undefined) return known.name
    const name = this.free(wanted)
    this.#hoisted.set(text, { name, block: this.assignment(name, type) })
    return name
  }

  assignment(name: string, type: Python.Expression): Block {
    return Python.layout("", `${name}: ${this.need("typing", "TypeAlias")} = `, type, "")
  }
}

export const inClass = "    "

const defaultOf = ({ value }: Parameter): string => (value === undefined ? "" : ` = ${value}`)

/** Constants come before classes. */
const rankOf = (name: string): number => (name === name.toUpperCase() ? 0 : 1)

export const constant = (value: Constant): string => {
  if (typeof value === "string") return Python.quoted(value)
  if (typeof value === "boolean") return value ? "True" : "False"
  return value === null ? "None" : String(value)
}

const distinct = (members: ReadonlyArray<Python.Expression>): ReadonlyArray<Python.Expression> => {
  const seen = new Set<string>()
  return members.filter((member) => {
    const text = Python.flat(member)
    return seen.has(text) ? false : seen.add(text)
  })
}

export const comment = (doc: string | undefined): Block =>
  doc === undefined
    ? []
    : Python.docstring(doc).flatMap((line) => {
        const text = line.replaceAll('"""', "").trimEnd()
        return text === "" ? [] : [`# ${text}`]
      })

export const pascalCase = (name: string): string => {
  const words = name.split(/[^A-Za-z0-9]+/).filter((word) => word !== "")
  return Python.toIdentifier(words.map((word) => word[0]!.toUpperCase() + word.slice(1)).join(""))
}

/** Whether a name means the same in two contracts, with all that it refers to. */
const isSameDefinition = (name: string, a: Contract, b: Contract): boolean => {
  const seen = new Set<string>()
  const isSame = (each: string): boolean => {
    if (seen.has(each)) return true
    seen.add(each)
    const [one, other] = [a.definitions[each], b.definitions[each]]
    if (one === undefined || other === undefined || contractText(one) !== contractText(other)) return false
    return Graph.referencesIn(Graph.typesOf(one)).every(isSame)
  }
  return isSame(name)
}

export const optionalOf = (type: Python.Expression): Python.Expression => {
  if (type === "Any" || type === "None") return type
  const members = typeof type === "object" && "anyOf" in type ? type.anyOf : [type]
  return members.includes("None") ? type : { anyOf: [...members, "None"] }
}
