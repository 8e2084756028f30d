/** The definitions of a contract as classes of Python. */
import type { Constant, Definition, Field, Problem } from "../Contract.ts"
import * as Python from "./pythonSource.ts"
import {
  type Block,
  comment,
  constant,
  inClass,
  optionalOf,
  type Parameter,
  pascalCase,
  type Scope,
  type Types
} from "./pythonTypes.ts"

/** Writes definitions as they stand in the module. */
export class Definitions {
  readonly #types: Types
  readonly problems: Array<Problem> = []

  constructor(types: Types) {
    this.#types = types
  }

  definition(scope: Scope, name: string, own: string, definition: Definition): ReadonlyArray<Block> {
    switch (definition.kind) {
      case "struct":
        return this.struct(scope, own, definition)
      case "record":
        return [this.#record(scope, name, own, definition)]
      case "error":
        return [this.#error(scope, name, own, definition)]
      case "enum":
        return [this.#enum(own, definition)]
      case "alias":
        return []
    }
  }

  struct(scope: Scope, own: string, definition: Definition & { kind: "struct" }): ReadonlyArray<Block> {
    const { doc, fields, tag } = definition
    const all = tag === undefined ? fields : [tagField(tag), ...fields]
    // A dataclass always has all of its fields, and its instances are made with their names.
    if (definition.open !== true && all.every((field) => field.required && this.#types.isWritable(field.name))) {
      const lines = this.#fields(scope, own, fields)
      const body =
        tag === undefined
          ? lines
          : [
              ...lines,
              ...this.#types.lines(
                inClass,
                own,
                `${tag.field}: `,
                this.#types.literal([tag.value]),
                ` = ${constant(tag.value)}`
              )
            ]
      this.#types.use("dataclasses")
      return [["@dataclass(frozen=True, kw_only=True, slots=True)", ...this.class(own, [], doc, body)]]
    }
    return this.#typedDict(scope, own, doc, all)
  }

  #record(scope: Scope, name: string, own: string, definition: Definition & { kind: "record" }): Block {
    const lines = definition.fields.flatMap((field) => {
      const annotation = this.#types.type(scope, field.type)
      if (field.required)
        return this.#types.lines(inClass, `${own}${pascalCase(field.name)}`, `${field.name}: `, annotation)
      this.problem(
        name,
        field.name,
        "Python sends every item of a tuple, `None` for one that may be missing: use Schema.NullOr"
      )
      return this.#types.lines(
        inClass,
        `${own}${pascalCase(field.name)}`,
        `${field.name}: `,
        optionalOf(annotation),
        " = None"
      )
    })
    return this.class(own, [this.#types.need("typing", "NamedTuple")], definition.doc, lines)
  }

  #typedDict(scope: Scope, own: string, doc: string | undefined, fields: ReadonlyArray<Field>): ReadonlyArray<Block> {
    const base = this.#types.need("typing", "TypedDict")
    const required = fields.filter((field) => field.required)
    const optional = fields.filter((field) => !field.required)
    if (required.length === 0 || optional.length === 0) {
      return [this.#dict(scope, own, base, doc, fields, optional.length === 0)]
    }
    // `NotRequired` is there from Python 3.11 on.
    const first = this.#types.free(`${own}Required`)
    if (optional.every(({ name }) => this.#types.isWritable(name))) {
      return [
        this.#dict(scope, first, base, `The keys of \`${own}\` that are always there.`, required, true),
        this.#dict(scope, own, first, doc, optional, false)
      ]
    }
    const second = this.#types.free(`${own}Optional`)
    return [
      this.#dict(scope, first, base, undefined, required, true),
      this.#dict(scope, second, base, undefined, optional, false),
      this.class(own, [first, second], doc ?? "A map.", [])
    ]
  }

  #dict(
    scope: Scope,
    own: string,
    base: string,
    doc: string | undefined,
    fields: ReadonlyArray<Field>,
    isTotal: boolean
  ): Block {
    if (fields.every(({ name }) => this.#types.isWritable(name))) {
      return this.class(own, isTotal ? [base] : [base, "total=False"], doc, this.#fields(scope, own, fields))
    }
    // Keys that are no names; their types are text, since what they name may come later.
    return [
      ...comment(doc),
      `${own} = TypedDict(`,
      `    ${Python.quoted(own)},`,
      "    {",
      ...fields.map(
        ({ name, type }) =>
          `        ${Python.quoted(name)}: ${Python.quoted(Python.flat(this.#types.type(scope, type)))},`
      ),
      "    },",
      ...(isTotal ? [] : ["    total=False,"]),
      ")"
    ]
  }

  #fields(scope: Scope, own: string, fields: ReadonlyArray<Field>): Block {
    return fields.flatMap(({ doc, name, type }) => [
      ...this.#types.lines(inClass, `${own}${pascalCase(name)}`, `${name}: `, this.#types.type(scope, type)),
      ...(doc === undefined ? [] : Python.docstring(doc))
    ])
  }

  #error(scope: Scope, tag: string, own: string, definition: Definition & { kind: "error" }): Block {
    this.#types.use("synapse")
    const reserved = new Set(scope.isHost ? [...reservedFields, "tag", "error"] : reservedFields)
    const fields = definition.fields.filter(({ name }) => {
      if (name === "message" || name === "_tag") return false
      if (reserved.has(name) || name.startsWith("_") || !this.#types.isWritable(name)) {
        this.problem(tag, name, "no declared error of Python can have a field of that name: give it another one")
        return false
      }
      return true
    })
    const lines = fields.flatMap(({ doc, name, required, type }) => {
      // What TypeScript may leave out has a value all the same.
      const isMissing = scope.isHost && !required
      const annotation = this.#types.type(scope, type)
      return [
        ...this.#types.lines(
          inClass,
          `${own}${pascalCase(name)}`,
          `${name}: `,
          isMissing ? optionalOf(annotation) : annotation,
          `${isMissing ? " = None" : ""}`
        ),
        ...(doc === undefined ? [] : Python.docstring(doc))
      ]
    })
    if (!scope.isHost && fields.length > 0) {
      this.#types.need("typing", "TYPE_CHECKING")
      const parameters = fields.map(({ name, type }): Parameter => ({ name, type: this.#types.type(scope, type) }))
      const signature = this.#types.signature(
        "        ",
        own,
        "def __init__(",
        [receiverBeside(fields), { name: "message", type: "str | None", value: "None" }, "/", "*", ...parameters],
        "None",
        ": ..."
      )
      lines.push("", "if TYPE_CHECKING:", "", ...Python.indented(signature))
    }
    const base = scope.isHost ? "synapse.HostError" : "synapse.Error"
    const written = this.class(
      own,
      [base],
      definition.doc ?? (lines.length === 0 ? `The error \`${tag}\`.` : undefined),
      lines
    )
    // The tag is the name of the class.
    if (own === tag) return written
    const line = `${own}.__name__ = ${Python.quoted(tag)}`
    return [
      ...written,
      "",
      "",
      ...(line.length <= 88 ? [line] : [`${own}.__name__ = (`, `    ${Python.quoted(tag)}`, ")"])
    ]
  }

  #enum(own: string, definition: Definition & { kind: "enum" }): Block {
    const used = new Set(["name", "value", "mro"])
    const members = definition.members.map(({ name, value }) => {
      let member = Python.toPublicName(name)
      while (used.has(member)) member += "_"
      used.add(member)
      return `${member} = ${constant(value)}`
    })
    return this.class(own, [this.#types.module("enum", "enum.Enum")], definition.doc, members)
  }

  class(own: string, bases: ReadonlyArray<string>, doc: string | undefined, body: Block): Block {
    const head = bases.length === 0 ? [`class ${own}:`] : Python.layout("", "class ", Python.call(own, ...bases), ":")
    const docs = doc === undefined ? [] : Python.docstring(doc)
    const inner = docs.length > 0 && body.length > 0 ? [...docs, "", ...body] : [...docs, ...body]
    return [...head, ...Python.indented(inner.length === 0 ? ["pass"] : inner)]
  }

  problem(method: string, path: string, message: string): void {
    this.problems.push({ method, path, message })
  }
}

/** What a method calls its instance, which no field is called. */
const receiverBeside = (fields: ReadonlyArray<Field>): string => {
  let name = "self"
  while (fields.some((field) => field.name === name)) name += "_"
  return name
}

const reservedFields = ["args", "add_note", "with_traceback"]

const tagField = ({ field, value }: { readonly field: string; readonly value: Constant }): Field => ({
  name: field,
  type: { kind: "literal", values: [value] },
  required: true
})
