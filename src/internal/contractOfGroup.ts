/**
 * The contract of an `RpcGroup`: what its schemas make travel.
 *
 * It follows each schema to its encoded form, as `SchemaMsgpack.toCodecMsgpack` does, and keeps what a reader of the
 * schema knows besides: names, docs, bounds, and that a text is a UUID or a decimal.
 */
import type * as Rpc from "effect/rpc/Rpc"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import * as RpcSchema from "effect/rpc/RpcSchema"
import * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import type { Bounds, Constant, Contract, Definition, Field, Method, Payload, Problem, Type } from "../Contract.ts"
import { contractAnnotation, type Described } from "./contractAnnotation.ts"
import { contractText } from "./contractText.ts"

export const contractOfGroup = (group: RpcGroup.Any): Contract => {
  const describer = new Describer()
  const methods: Record<string, Method> = Object.create(null)
  const { requests } = group as RpcGroup.RpcGroup<Rpc.Any>
  const rpcs = Array.from(requests, ([name, rpc]) => [name, rpc as Rpc.Any as Rpc.AnyWithProps] as const)
  // The name of an error is its tag: it comes before whatever else would be called so.
  const raises = new Map(rpcs.map(([name, rpc]) => [name, describer.errors(name, rpc)]))
  for (const [name, rpc] of rpcs) methods[name] = describer.method(name, rpc, raises.get(name)!)
  return { version: 1, methods, definitions: describer.definitions, problems: describer.problems }
}

/** Where a schema stands: for problems, and for the names of structures that have none. */
interface Where {
  readonly method: string
  readonly path: string
  readonly name: string
}

const unknown: Type = { kind: "unknown" }
const nil: Type = { kind: "null" }

class Describer {
  readonly definitions: Record<string, Definition> = Object.create(null)
  readonly problems: Array<Problem> = []
  /** The names of definitions, by what copies of a schema have in common. */
  readonly #names = new Map<unknown, Map<string, string>>()
  /** Unions and lists that are being described. One that contains itself gets a name. */
  readonly #open = new Map<unknown, string | undefined>()

  /** Made once, since what they lead to is known by its identity. */
  readonly #links = new Map<SchemaAST.AST, SchemaAST.Link | undefined>()

  method(name: string, rpc: Rpc.AnyWithProps, raises: ReadonlyArray<string>): Method {
    const pascal = pascalCase(name)
    const stream = RpcSchema.isStreamSchema(rpc.successSchema) ? rpc.successSchema : undefined
    const doc = descriptionOf(rpc.payloadSchema.ast)
    return {
      ...(doc !== undefined && { doc }),
      payload: this.#payload(rpc.payloadSchema.ast, { method: name, path: "", name: `${pascal}Payload` }),
      success: this.#type((stream?.success ?? rpc.successSchema).ast, {
        method: name,
        path: "return",
        name: `${pascal}${stream === undefined ? "Result" : "Item"}`
      }),
      stream: stream !== undefined,
      raises
    }
  }

  errors(name: string, rpc: Rpc.AnyWithProps): ReadonlyArray<string> {
    const schemas = [rpc.errorSchema]
    if (RpcSchema.isStreamSchema(rpc.successSchema)) schemas.push(rpc.successSchema.error)
    for (const middleware of rpc.middlewares) schemas.push(middleware.error)
    const found = new Set<string>()
    for (const { ast } of schemas) this.#error(ast, { method: name, path: "raises", name: "" }, found)
    return Array.from(found)
  }

  #error(ast: SchemaAST.AST, where: Where, found: Set<string>): void {
    const end = endOf(ast)
    if (end._tag === "Never") return
    if (end._tag === "Suspend") return this.#error(end.thunk(), where, found)
    if (end._tag === "Union") {
      for (const member of end.types) this.#error(member, where, found)
      return
    }
    const tag = end._tag === "Objects" ? tagOf(end, "_tag") : undefined
    if (end._tag !== "Objects" || typeof tag?.value !== "string") {
      return this.#problem(
        where,
        "an error without a `_tag` that is one string: what Python raises has one, declare it with Schema.TaggedError"
      )
    }
    const { value } = tag
    found.add(this.#define(end, ast, value, (name) => this.#fieldsOf(end, { ...where, name }, tag.field), "error"))
  }

  #payload(ast: SchemaAST.AST, where: Where): Payload {
    const end = endOf(ast)
    if (end._tag === "Void" || end._tag === "Undefined" || end._tag === "Null") return { kind: "none" }
    if (end._tag !== "Objects") return { kind: "whole", type: this.#type(ast, where), required: true }
    const [rest] = end.indexSignatures
    const fields = this.#fieldsOf(end, { ...where, name: where.name.replace(/Payload$/, "") })
    return rest === undefined
      ? { kind: "fields", fields }
      : { kind: "fields", fields, rest: restOf(this.#type(rest.type, where), fields) }
  }

  #type(ast: SchemaAST.AST, where: Where): Type {
    const end = endOf(ast)
    switch (end._tag) {
      case "Null":
      case "Undefined":
      case "Void":
        return nil
      case "Any":
      case "Unknown":
      case "ObjectKeyword":
        return unknown
      case "Never":
        return { kind: "union", members: [] }
      case "Boolean":
        return { kind: "boolean" }
      case "Symbol":
      case "UniqueSymbol":
      case "TemplateLiteral":
        return this.#named(end, ast, where, () => ({ kind: "string" }))
      case "String":
        return this.#named(end, ast, where, () => textOf(end))
      case "Number":
      case "BigInt":
        return this.#named(end, ast, where, () => numberOf(end))
      case "Literal":
        return { kind: "literal", values: [end.literal] }
      case "Enum":
        return this.#enum(end, ast, where)
      case "Suspend":
        return this.#type(end.thunk(), where)
      case "Declaration":
        return this.#declaration(end, where)
      case "Arrays":
        return this.#named(end, ast, where, () => this.#array(end, where))
      case "Union":
        return this.#named(end, ast, where, () => this.#union(end, where))
      case "Objects":
        return this.#object(end, ast, where)
    }
  }

  #declaration(ast: SchemaAST.Declaration, where: Where): Type {
    const described = ast.annotations?.[contractAnnotation] as Described | undefined
    if (described !== undefined) {
      if ("type" in described) return described.type
      return { kind: "stream", items: this.#type(described.streamOf.ast, inner(where, "[]", "Item")) }
    }
    const representation = ast.annotations?.representation as { readonly id?: unknown } | undefined
    const [first, second] = ast.typeParameters
    switch (representation?.id) {
      case "effect/schema/Uint8Array":
        return { kind: "bytes", ...lengthsOf(ast) }
      case "effect/schema/Date":
      case "effect/schema/DateTimeUtc":
        return { kind: "datetime", aware: true }
      case "effect/schema/Duration":
        return { kind: "duration" }
      case "effect/schema/BigDecimal":
        return { kind: "decimal" }
      case "effect/schema/ReadonlySet":
      case "effect/schema/HashSet":
        return { kind: "list", items: this.#type(first!, inner(where, "[]", "Item")), unique: true, ...lengthsOf(ast) }
      case "effect/schema/ReadonlyMap":
      case "effect/schema/HashMap": {
        const keys = this.#type(first!, inner(where, "[key]", "Key"))
        const values = this.#type(second!, inner(where, "[]", "Value"))
        return this.#isKey(keys)
          ? { kind: "map", keys, values, ...lengthsOf(ast) }
          : { kind: "list", items: { kind: "tuple", items: [keys, values] } }
      }
    }
    const link = this.#link(ast)
    if (link !== undefined) return this.#type(link.to, where)
    const expected = ast.annotations?.expected
    return this.#unknown(where, `${typeof expected === "string" ? expected : "a declared type"} has no form in Python`)
  }

  #link(ast: SchemaAST.Declaration): SchemaAST.Link | undefined {
    if (!this.#links.has(ast)) {
      const toLink = ast.annotations?.toCodecJson ?? ast.annotations?.toCodec
      const parameters = ast.typeParameters.map((parameter) => Schema.make(parameter))
      this.#links.set(ast, typeof toLink === "function" ? toLink(parameters) : undefined)
    }
    return this.#links.get(ast)
  }

  #isKey(type: Type): boolean {
    switch (type.kind) {
      case "null":
      case "list":
      case "tuple":
      case "map":
      case "datetime":
      case "ndarray":
      case "table":
      case "stream":
        return false
      case "ref": {
        const definition = this.definitions[type.name]
        return definition?.kind === "enum" || (definition?.kind === "alias" && this.#isKey(definition.type))
      }
      case "union":
        return type.members.every((member) => this.#isKey(member))
      default:
        return true
    }
  }

  #array(ast: SchemaAST.Arrays, where: Where): Type {
    const { elements } = ast
    const [rest, ...last] = ast.rest
    if (rest === undefined && !elements.some(isOptional)) {
      return {
        kind: "tuple",
        items: elements.map((item, i) => this.#type(item, inner(where, `[${i}]`, `Item${i + 1}`)))
      }
    }
    if (rest === undefined) {
      const fields = elements.map((item, i) => ({
        name: `item${i + 1}`,
        type: this.#type(item, inner(where, `[${i}]`, `Item${i + 1}`)),
        required: !isOptional(item)
      }))
      return { kind: "ref", name: this.#register(elements, where.name, () => ({ kind: "record", fields })) }
    }
    const items = [...elements, ...ast.rest].map((item) => this.#type(item, inner(where, "[]", "Item")))
    const lengths = lengthsOf(ast)
    const least = Math.max(elements.filter((item) => !isOptional(item)).length + last.length, lengths.minLength ?? 0)
    return {
      kind: "list",
      items: unionOf(items),
      ...(isChecked(ast, "effect/schema/isUnique") && { unique: true }),
      ...lengths,
      ...(least > 0 && { minLength: least })
    }
  }

  #union(ast: SchemaAST.Union, where: Where): Type {
    let variants = 0
    const name = (member: SchemaAST.AST): string => {
      const end = endOf(member)
      return end._tag === "Objects" || end._tag === "Arrays" ? `${where.name}Variant${++variants}` : where.name
    }
    return unionOf(ast.types.map((member) => this.#type(member, { ...where, name: name(member) })))
  }

  #enum(ast: SchemaAST.Enum, source: SchemaAST.AST, where: Where): Type {
    const members = ast.enums.map(([name, value]) => ({ name, value }))
    const name = this.#register(ast.enums, identifierOf(source, ast) ?? where.name, () => ({
      kind: "enum",
      members,
      ...docOf(source, ast)
    }))
    return { kind: "ref", name }
  }

  #object(ast: SchemaAST.Objects, source: SchemaAST.AST, where: Where): Type {
    const [index] = ast.indexSignatures
    if (index !== undefined && ast.propertySignatures.length === 0) {
      return this.#named(ast, source, where, () => ({
        kind: "map",
        keys: this.#type(index.parameter, inner(where, "[key]", "Key")),
        values: this.#type(index.type, inner(where, "[]", "Value")),
        ...lengthsOf(ast)
      }))
    }
    const tag = tagOf(ast)
    const wanted = identifierOf(source, ast) ?? (typeof tag?.value === "string" ? pascalCase(tag.value) : where.name)
    const fields = (name: string): ReadonlyArray<Field> => this.#fieldsOf(ast, { ...where, name }, tag?.field)
    return { kind: "ref", name: this.#define(ast, source, wanted, fields, "struct", tag) }
  }

  /** The name of a structure, which is taken before its fields are looked at: they may refer to it. */
  #define(
    ast: SchemaAST.Objects,
    source: SchemaAST.AST,
    wanted: string,
    fields: (name: string) => ReadonlyArray<Field>,
    kind: "struct" | "error",
    tag?: Tag
  ): string {
    const key = kind === "error" ? "!" : `${identifierOf(source, ast) ?? ""}`
    return this.#register(
      ast.propertySignatures,
      wanted,
      (name): Definition => ({
        ...docOf(source, ast),
        ...(kind === "error"
          ? { kind, fields: fields(name) }
          : {
              kind,
              fields: fields(name),
              ...(tag !== undefined && { tag }),
              ...(ast.indexSignatures.length > 0 && { open: true })
            })
      }),
      key
    )
  }

  /** Types that are no structures have a name where they were given one, or contain themselves. */
  #named(ast: SchemaAST.AST, source: SchemaAST.AST, where: Where, describe: () => Type): Type {
    const identifier = identifierOf(source, ast)
    const key = ast._tag === "Union" ? ast.types : ast._tag === "Arrays" ? ast.rest : ast
    if (identifier !== undefined) {
      const name = this.#register(key, identifier, () => ({ kind: "alias", type: describe(), ...docOf(source, ast) }))
      return { kind: "ref", name }
    }
    if (this.#open.has(key)) {
      const name = this.#open.get(key) ?? this.#free(where.name)
      this.#open.set(key, name)
      this.definitions[name] ??= { kind: "alias", type: unknown }
      return { kind: "ref", name }
    }
    this.#open.set(key, undefined)
    const type = describe()
    const name = this.#open.get(key)
    this.#open.delete(key)
    if (name === undefined) return type
    this.definitions[name] = { kind: "alias", type }
    return { kind: "ref", name }
  }

  #register(key: unknown, wanted: string, describe: (name: string) => Definition, variant = wanted): string {
    const names = this.#names.get(key) ?? new Map<string, string>()
    this.#names.set(key, names)
    const known = names.get(variant)
    if (known !== undefined) return known
    const name = this.#free(variant === "!" ? wanted : nameOf(wanted))
    names.set(variant, name)
    // Its place among the definitions is that of its first use.
    this.definitions[name] = { kind: "alias", type: unknown }
    this.definitions[name] = describe(name)
    return name
  }

  #free(wanted: string): string {
    for (let n = 1; ; n++) {
      const name = n === 1 ? wanted : `${wanted}${n}`
      if (!(name in this.definitions)) return name
    }
  }

  #fieldsOf(ast: SchemaAST.Objects, where: Where, tag?: string): ReadonlyArray<Field> {
    const fields: Array<Field> = []
    for (const { name, type } of ast.propertySignatures) {
      if (name === tag) continue
      if (typeof name === "symbol") {
        this.#problem(where, `the key ${String(name)} is a symbol, which cannot be carried`)
        continue
      }
      const key = String(name)
      const described = this.#type(type, inner(where, where.path === "" ? key : `.${key}`, pascalCase(key)))
      // What has a name has a doc of its own.
      const doc = type.context?.annotations?.description ?? (described.kind === "ref" ? undefined : descriptionOf(type))
      fields.push({
        name: key,
        type: described,
        required: !isOptional(type),
        ...(typeof doc === "string" && { doc })
      })
    }
    return fields
  }

  #unknown(where: Where, message: string): Type {
    this.#problem(where, message)
    return unknown
  }

  #problem({ method, path }: Where, message: string): void {
    this.problems.push({ method, path: path === "" ? "payload" : path, message })
  }
}

/** An index signature has the types of the fields too, which it is for as well. */
const restOf = (type: Type, fields: ReadonlyArray<Field>): Type => {
  if (type.kind !== "union") return type
  const own = new Set(fields.flatMap(({ type }) => (type.kind === "union" ? type.members : [type])).map(contractText))
  const members = type.members.filter((member) => !own.has(contractText(member)))
  return members.length === 0 ? type : unionOf(members)
}

const inner = (where: Where, path: string, name: string): Where => ({
  method: where.method,
  path: where.path + path,
  name: where.name + name
})

/** What a schema is encoded to in the end. */
const endOf = (ast: SchemaAST.AST): SchemaAST.AST => {
  let end = ast
  while (end.encoding !== undefined) end = end.encoding.at(-1)!.to
  return end
}

const isOptional = (ast: SchemaAST.AST): boolean => endOf(ast).context?.isOptional ?? false

/** Annotations before a check are on the schema, those after it on the check. */
const annotation = (key: string, ...asts: ReadonlyArray<SchemaAST.AST>): string | undefined => {
  for (const ast of asts) {
    const holders = [...(ast.checks ?? []).toReversed(), ast]
    for (const { annotations } of holders) {
      const value = annotations?.[key]
      if (typeof value === "string") return value
    }
  }
  return undefined
}

const identifierOf = (source: SchemaAST.AST, end: SchemaAST.AST): string | undefined =>
  annotation("identifier", source, end)

const descriptionOf = (...asts: ReadonlyArray<SchemaAST.AST>): string | undefined => annotation("description", ...asts)

const docOf = (source: SchemaAST.AST, end: SchemaAST.AST): { readonly doc?: string } => {
  const doc = descriptionOf(source, end)
  return doc === undefined ? {} : { doc }
}

interface Tag {
  readonly field: string
  readonly value: Constant
}

/** The key that tells a structure from others: `_tag`, or else the first that can be one text only. */
const tagOf = (ast: SchemaAST.Objects, field?: string): Tag | undefined => {
  const tags = ast.propertySignatures.flatMap(({ name, type }): ReadonlyArray<Tag> => {
    const end = endOf(type)
    return typeof name === "string" && end._tag === "Literal" && typeof end.literal === "string" && !isOptional(type)
      ? [{ field: name, value: end.literal }]
      : []
  })
  const wanted = tags.find((tag) => tag.field === (field ?? "_tag"))
  return field === undefined ? (wanted ?? tags[0]) : wanted
}

const unionOf = (types: ReadonlyArray<Type>): Type => {
  const members: Array<Type> = []
  const values: Array<Constant> = []
  const seen = new Set<string>()
  for (const type of types.flatMap((each) => (each.kind === "union" ? each.members : [each]))) {
    if (type.kind === "unknown") return unknown
    if (type.kind === "literal") values.push(...type.values.filter((value) => !values.includes(value)))
    const key = type.kind === "literal" ? "literal" : contractText(type)
    if (seen.has(key)) continue
    seen.add(key)
    members.push(type)
  }
  // The constants stand where the first of them stood.
  const merged = members.map((type): Type => (type.kind === "literal" ? { kind: "literal", values } : type))
  return merged.length === 1 ? merged[0]! : { kind: "union", members: merged }
}

interface Check {
  readonly id: string
  readonly payload: Readonly<Record<string, unknown>>
}

const checksOf = ({ checks }: Pick<SchemaAST.AST, "checks">): ReadonlyArray<Check> =>
  (checks ?? []).flatMap((check): ReadonlyArray<Check> => {
    if (check._tag === "FilterGroup") return checksOf(check)
    const representation = check.annotations?.representation as Partial<Check> | undefined
    return typeof representation?.id === "string"
      ? [{ id: representation.id, payload: representation.payload ?? {} }]
      : []
  })

const isChecked = (ast: SchemaAST.AST, id: string): boolean => checksOf(ast).some((check) => check.id === id)

const textOf = (ast: SchemaAST.AST): Type => {
  let pattern: string | undefined
  for (const { id, payload } of checksOf(ast)) {
    if (id === "effect/schema/isUUID" || id === "effect/schema/isGUID") return { kind: "uuid" }
    const { flags, source } = payload
    if (id === "effect/schema/isPattern" && typeof source === "string" && (flags === "" || flags === "u")) {
      pattern ??= source
    }
  }
  return { kind: "string", ...(pattern !== undefined && { pattern }), ...lengthsOf(ast) }
}

const lengthChecks: Readonly<Record<string, readonly [least: string | undefined, most: string | undefined]>> = {
  isMinLength: ["minLength", undefined],
  isMaxLength: [undefined, "maxLength"],
  isBetweenLength: ["minimum", "maximum"],
  isMinCodePoints: ["minCodePoints", undefined],
  isMaxCodePoints: [undefined, "maxCodePoints"],
  isBetweenCodePoints: ["minimum", "maximum"],
  isMinSize: ["minSize", undefined],
  isMaxSize: [undefined, "maxSize"],
  isBetweenSize: ["minimum", "maximum"],
  isMinProperties: ["minProperties", undefined],
  isMaxProperties: [undefined, "maxProperties"],
  isBetweenProperties: ["minimum", "maximum"]
}

const lengthsOf = (ast: SchemaAST.AST): { readonly minLength?: number; readonly maxLength?: number } => {
  let lengths: { minLength?: number; maxLength?: number } = {}
  for (const { id, payload } of checksOf(ast)) {
    const [least, most] = lengthChecks[id.replace("effect/schema/", "")] ?? []
    const minLength = least === undefined ? undefined : payload[least]
    const maxLength = most === undefined ? undefined : payload[most]
    if (typeof minLength === "number") lengths = { ...lengths, minLength: Math.max(minLength, lengths.minLength ?? 0) }
    if (typeof maxLength === "number") {
      lengths = { ...lengths, maxLength: Math.min(maxLength, lengths.maxLength ?? maxLength) }
    }
  }
  return lengths
}

const numberOf = (ast: SchemaAST.Number | SchemaAST.BigInt): Type => {
  if (ast._tag === "BigInt") return { kind: "int64", ...boundsOf(ast) }
  return { kind: isChecked(ast, "effect/schema/isInt") ? "integer" : "number", ...boundsOf(ast) }
}

const boundsOf = (ast: SchemaAST.AST): Bounds => {
  let bounds: Bounds = {}
  for (const { id, payload } of checksOf(ast)) {
    const name = id.replace("effect/schema/", "")
    if (!/^is(Greater|Less|Between|MultipleOf)/.test(name) || /Date$|Length$|Size$|Points$|Properties$/.test(name))
      continue
    const value = (key: string): number | bigint | undefined => {
      const found = payload[key]
      if (typeof found === "string" && /^-?\d+$/.test(found)) return BigInt(found)
      return typeof found === "number" ? found : undefined
    }
    const lower = value("minimum")
    const upper = value("maximum")
    const exclusiveLower = payload.exclusiveMinimum === true ? lower : value("exclusiveMinimum")
    const exclusiveUpper = payload.exclusiveMaximum === true ? upper : value("exclusiveMaximum")
    const multipleOf = value("divisor") ?? value("multipleOf")
    bounds = {
      ...bounds,
      ...(lower !== undefined && payload.exclusiveMinimum !== true && { minimum: lower }),
      ...(exclusiveLower !== undefined && { exclusiveMinimum: exclusiveLower }),
      ...(upper !== undefined && payload.exclusiveMaximum !== true && { maximum: upper }),
      ...(exclusiveUpper !== undefined && { exclusiveMaximum: exclusiveUpper }),
      ...(multipleOf !== undefined && { multipleOf })
    }
  }
  return bounds
}

const words = (text: string): ReadonlyArray<string> => text.split(/[^A-Za-z0-9]+/).filter((word) => word !== "")

const pascalCase = (text: string): string => {
  const name = words(text)
    .map((word) => word[0]!.toUpperCase() + word.slice(1))
    .join("")
  return /^[A-Za-z]/.test(name) ? name : `Type${name}`
}

/** Identifiers may say where they are from, as `"app/users/User"`. */
const nameOf = (identifier: string): string => {
  const last = identifier.split(/[/.#:@]/).findLast((part) => part !== "") ?? identifier
  return /^[A-Za-z_]\w*$/.test(last) ? last : pascalCase(last)
}
