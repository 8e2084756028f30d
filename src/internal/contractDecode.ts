/**
 * Reading the contract that a worker sends. A hostile one can neither nest deeper than the stack nor make more of it than
 * it sent: what is taken is counted, and whatever else it holds is left behind.
 */
import type {
  Bounds,
  Constant,
  Contract,
  Definition,
  Field,
  Lengths,
  Method,
  Payload,
  Place,
  Problem,
  Type
} from "../Contract.ts"

/** How deep types may nest: definitions refer to each other by name. */
const maxDepth = 64
/** How many types, fields, constants, methods, definitions and problems there may be in all. */
const maxParts = 100_000
/** Characters of a name, a pattern or a file. */
const maxName = 1024
/** Characters of a docstring or a message. */
const maxText = 65_536

/** Throws an error that says where it is wrong. */
export const decodeContract = (input: unknown): Contract => new Reader().contract(input)

const fail = (path: string, what: string): never => {
  throw new Error(`the contract does not decode: ${what} (at ${path === "" ? "$" : path})`)
}

type Source = Readonly<Record<string, unknown>>

const kindsOfNumbers = new Set(["integer", "int64", "number"])
const plainKinds = new Set([
  "unknown",
  "null",
  "boolean",
  "date",
  "time",
  "duration",
  "decimal",
  "uuid",
  "table",
  "handle"
])

class Reader {
  #parts = 0
  #refs: Array<readonly [path: string, name: string]> = []

  contract(input: unknown): Contract {
    const source = object(input, "$")
    if (source.version !== 1) {
      return fail(
        "$.version",
        "it is not of version 1: update whichever is older, effect-synapse or its Python runtime"
      )
    }
    const methods = this.#record(source.methods, "$.methods", (value, path) => this.#method(value, path))
    const definitions = this.#record(source.definitions, "$.definitions", (value, path) =>
      this.#definition(value, path)
    )
    const problems = this.#list(source.problems, "$.problems", (value, path) => this.#problem(value, path))
    for (const [path, name] of this.#refs) {
      if (definitions[name] === undefined) fail(path, "it refers to a definition that is not there")
    }
    return { version: 1, methods, definitions, problems }
  }

  #count(path: string): void {
    if (++this.#parts > maxParts) fail(path, `it has more than ${maxParts} parts`)
  }

  #list<A>(input: unknown, path: string, read: (value: unknown, path: string) => A): ReadonlyArray<A> {
    if (!Array.isArray(input)) return fail(path, "expected a list")
    return input.map((value, i) => {
      this.#count(path)
      return read(value, `${path}[${i}]`)
    })
  }

  /** Names such as `__proto__` are names like any other. */
  #record<A>(input: unknown, path: string, read: (value: unknown, path: string) => A): { readonly [name: string]: A } {
    const record: Record<string, A> = Object.create(null)
    for (const [name, value] of Object.entries(object(input, path))) {
      this.#count(path)
      if (name.length > maxName) fail(path, `a name is longer than ${maxName} characters`)
      record[name] = read(value, `${path}.${name}`)
    }
    return record
  }

  #method(input: unknown, path: string): Method {
    const source = object(input, path)
    return {
      ...docAndPlace(source, path),
      payload: this.#payload(source.payload, `${path}.payload`),
      success: this.#type(source.success, `${path}.success`, 0),
      stream: boolean(source.stream, `${path}.stream`),
      raises: this.#list(source.raises, `${path}.raises`, (value, at) => {
        const name = text(value, at, maxName)
        this.#refs.push([at, name])
        return name
      })
    }
  }

  #payload(input: unknown, path: string): Payload {
    const source = object(input, path)
    switch (source.kind) {
      case "none":
        return { kind: "none" }
      case "whole":
        return {
          kind: "whole",
          type: this.#type(source.type, `${path}.type`, 0),
          required: boolean(source.required, `${path}.required`)
        }
      case "fields": {
        const fields = this.#fields(source, path)
        return isGiven(source.rest)
          ? { kind: "fields", fields, rest: this.#type(source.rest, `${path}.rest`, 0) }
          : { kind: "fields", fields }
      }
      default:
        return fail(`${path}.kind`, "expected none, whole or fields")
    }
  }

  #fields(source: Source, path: string): ReadonlyArray<Field> {
    const names = new Set<string>()
    return this.#list(source.fields, `${path}.fields`, (value, at) => {
      const field = object(value, at)
      const name = text(field.name, `${at}.name`, maxName)
      if (names.has(name)) fail(`${at}.name`, "the name is there twice")
      names.add(name)
      return {
        name,
        type: this.#type(field.type, `${at}.type`, 0),
        required: boolean(field.required, `${at}.required`),
        // Nothing is a default too.
        ...("default" in field && field.default !== undefined && { default: constant(field.default, `${at}.default`) }),
        ...(isGiven(field.always) && { always: boolean(field.always, `${at}.always`) }),
        ...(isGiven(field.doc) && { doc: text(field.doc, `${at}.doc`, maxText) })
      }
    })
  }

  #definition(input: unknown, path: string): Definition {
    const source = object(input, path)
    const common = docAndPlace(source, path)
    const parameters = isGiven(source.parameters)
      ? { parameters: this.#list(source.parameters, `${path}.parameters`, (value, at) => text(value, at, maxName)) }
      : {}
    switch (source.kind) {
      case "struct": {
        const tag = isGiven(source.tag) ? object(source.tag, `${path}.tag`) : undefined
        return {
          kind: "struct",
          ...common,
          ...parameters,
          fields: this.#fields(source, path),
          ...(tag !== undefined && {
            tag: {
              field: text(tag.field, `${path}.tag.field`, maxName),
              value: constant(tag.value, `${path}.tag.value`)
            }
          }),
          ...(isGiven(source.open) && { open: boolean(source.open, `${path}.open`) })
        }
      }
      case "record":
        return { kind: "record", ...common, ...parameters, fields: this.#fields(source, path) }
      case "error":
        return { kind: "error", ...common, fields: this.#fields(source, path) }
      case "enum":
        return {
          kind: "enum",
          ...common,
          members: this.#list(source.members, `${path}.members`, (value, at) => {
            const member = object(value, at)
            return {
              name: text(member.name, `${at}.name`, maxName),
              value: constant(member.value, `${at}.value`)
            }
          })
        }
      case "alias":
        return { kind: "alias", ...common, ...parameters, type: this.#type(source.type, `${path}.type`, 0) }
      default:
        return fail(`${path}.kind`, "expected struct, record, error, enum or alias")
    }
  }

  #type(input: unknown, path: string, depth: number): Type {
    this.#count(path)
    if (depth > maxDepth) fail("$", `types are nested deeper than ${maxDepth} levels`)
    const source = object(input, path)
    const kind = text(source.kind, `${path}.kind`, maxName)
    const type = (key: string): Type => this.#type(source[key], `${path}.${key}`, depth + 1)
    const types = (key: string): ReadonlyArray<Type> =>
      this.#list(source[key], `${path}.${key}`, (value, at) => this.#type(value, at, depth + 1))
    if (plainKinds.has(kind)) return { kind } as Type
    if (kindsOfNumbers.has(kind)) return { kind, ...bounds(source, path) } as Type
    switch (kind) {
      case "string":
        return {
          kind,
          ...(isGiven(source.pattern) && { pattern: text(source.pattern, `${path}.pattern`, maxName) }),
          ...lengths(source, path)
        }
      case "bytes":
        return { kind, ...lengths(source, path) }
      case "datetime":
        return { kind, aware: source.aware === null ? null : boolean(source.aware, `${path}.aware`) }
      case "literal":
        return { kind, values: this.#list(source.values, `${path}.values`, constant) }
      case "list":
        return {
          kind,
          items: type("items"),
          ...(isGiven(source.unique) && { unique: boolean(source.unique, `${path}.unique`) }),
          ...lengths(source, path)
        }
      case "tuple":
        return { kind, items: types("items") }
      case "map":
        return { kind, keys: type("keys"), values: type("values"), ...lengths(source, path) }
      case "union":
        return { kind, members: types("members") }
      case "ndarray":
        return {
          kind,
          dtype: source.dtype === null ? null : text(source.dtype, `${path}.dtype`, maxName),
          dimensions: source.dimensions === null ? null : count(source.dimensions, `${path}.dimensions`)
        }
      case "stream":
        return { kind, items: type("items") }
      case "ref": {
        const name = text(source.name, `${path}.name`, maxName)
        this.#refs.push([path, name])
        return { kind, name, ...(isGiven(source.arguments) && { arguments: types("arguments") }) }
      }
      case "parameter":
        return { kind, name: text(source.name, `${path}.name`, maxName) }
      default:
        return fail(`${path}.kind`, "it is of a kind that is not known: update effect-synapse")
    }
  }

  #problem(input: unknown, path: string): Problem {
    const source = object(input, path)
    return {
      method: text(source.method, `${path}.method`, maxName),
      path: text(source.path, `${path}.path`, maxName),
      message: text(source.message, `${path}.message`, maxText),
      ...(isGiven(source.place) && { place: place(source.place, `${path}.place`) })
    }
  }
}

const isGiven = (value: unknown): boolean => value !== undefined && value !== null

const object = (input: unknown, path: string): Source => {
  if (typeof input === "object" && input !== null) {
    const prototype = Object.getPrototypeOf(input)
    if (prototype === Object.prototype || prototype === null) return input as Source
  }
  return fail(path, "expected a map with string keys")
}

const text = (input: unknown, path: string, most: number): string => {
  if (typeof input !== "string") return fail(path, "expected a string")
  return input.length > most ? fail(path, `the text is longer than ${most} characters`) : input
}

const boolean = (input: unknown, path: string): boolean =>
  typeof input === "boolean" ? input : fail(path, "expected a boolean")

const count = (input: unknown, path: string): number =>
  typeof input === "number" && Number.isSafeInteger(input) && input >= 0 ? input : fail(path, "expected a whole number")

const number = (input: unknown, path: string): number | bigint =>
  typeof input === "number" || typeof input === "bigint" ? input : fail(path, "expected a number")

const constant = (input: unknown, path: string): Constant => {
  switch (typeof input) {
    case "string":
      return text(input, path, maxText)
    case "number":
    case "bigint":
    case "boolean":
      return input
    default:
      return input === null ? null : fail(path, "expected a constant")
  }
}

const bounds = (source: Source, path: string): Bounds => {
  const found: Record<string, number | bigint> = {}
  for (const key of ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"]) {
    if (isGiven(source[key])) found[key] = number(source[key], `${path}.${key}`)
  }
  return found
}

const lengths = (source: Source, path: string): Lengths => ({
  ...(isGiven(source.minLength) && { minLength: count(source.minLength, `${path}.minLength`) }),
  ...(isGiven(source.maxLength) && { maxLength: count(source.maxLength, `${path}.maxLength`) })
})

const place = (input: unknown, path: string): Place => {
  const source = object(input, path)
  return { file: text(source.file, `${path}.file`, maxName), line: count(source.line, `${path}.line`) }
}

const docAndPlace = (source: Source, path: string): { readonly doc?: string; readonly place?: Place } => ({
  ...(isGiven(source.doc) && { doc: text(source.doc, `${path}.doc`, maxText) }),
  ...(isGiven(source.place) && { place: place(source.place, `${path}.place`) })
})
