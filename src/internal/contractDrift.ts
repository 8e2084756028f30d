/**
 * Whether two contracts fit: what one side sends has to be what the other takes.
 *
 * Types that refer to themselves are compared by the rule that two that are being compared already fit until something
 * tells otherwise. What does not fit is remembered by its place within the types, so that it is found once.
 */
import type { Constant, Contract, Definition, Drift, Field, Method, Payload, Place, Type } from "../Contract.ts"
import { mapChildren } from "./contractGraph.ts"
import { contractText } from "./contractText.ts"
import { type Language, wordsOf } from "./contractWords.ts"
import { closest, nearest } from "./nearest.ts"

export const driftOf = (typescript: Contract, python: Contract): ReadonlyArray<Drift> => {
  const comparison = new Comparison(typescript, python)
  return Object.keys(typescript.methods).flatMap((name) => comparison.method(name))
}

/** Findings of one method that are told. */
const maxFindings = 20
/** A contract that takes more comparisons than this fits as far as is known: values are checked anyway. */
const maxSteps = 100_000
/** How deep generics may be filled with generics. */
const maxDepth = 100
/** How many parts the arguments of a generic may have, which double at each step where it is used so. */
const maxArguments = 500

/** What does not fit, at a path below the two types that were compared. */
interface Finding {
  readonly path: string
  readonly message: string
  /** Where Python says it. */
  readonly place: Place | undefined
}

const fits: ReadonlyArray<Finding> = []

interface Side {
  readonly language: Language
  readonly contract: Contract
}

/** From the side that sends to the one that takes. */
interface Direction {
  readonly from: Side
  readonly to: Side
  /** Pairs that are being compared, or were found to fit. */
  readonly assumed: Map<string, ReadonlyArray<Finding>>
  /** The pairs of `assumed` that fit as long as those before them do, in order. */
  readonly trail: Array<string>
}

/** A structure with its tag among its fields. */
interface Structure {
  readonly fields: ReadonlyMap<string, Field>
  /** Whether there may be other keys. */
  readonly isOpen: boolean
  readonly place: Place | undefined
}

class Comparison {
  readonly #typescript: Side
  readonly #python: Side
  readonly #toPython: Direction
  readonly #toTypeScript: Direction
  readonly #ids = new Map<unknown, number>()
  readonly #structures = new Map<Definition, Structure | undefined>()
  readonly #filled = new Map<string, Definition>()
  #steps = 0

  constructor(typescript: Contract, python: Contract) {
    this.#typescript = { language: "TypeScript", contract: typescript }
    this.#python = { language: "Python", contract: python }
    this.#toPython = { from: this.#typescript, to: this.#python, assumed: new Map(), trail: [] }
    this.#toTypeScript = { from: this.#python, to: this.#typescript, assumed: new Map(), trail: [] }
  }

  method(name: string): ReadonlyArray<Drift> {
    const wanted = this.#typescript.contract.methods[name]!
    const found = this.#python.contract.methods[name]
    if (found === undefined) return [missing(name, Object.keys(this.#python.contract.methods))]
    const findings = [...this.#payload(wanted.payload, found.payload), ...this.#success(wanted, found)]
    findings.push(...this.#raises(wanted, found))
    return findings.slice(0, maxFindings).map(({ message, path, place = found.place }) => ({
      method: name,
      path,
      message: `\`${name}${label(path)}\`: ${message}${shown(place)}`,
      ...(place !== undefined && { place })
    }))
  }

  #success(wanted: Method, found: Method): ReadonlyArray<Finding> {
    const at = (finding: Finding): Finding => ({ ...finding, path: `return${finding.path}` })
    if (wanted.stream !== found.stream) {
      const message = wanted.stream
        ? "TypeScript reads a stream, Python returns one value: write a generator, or use @synapse.handler(stream=True)"
        : "TypeScript expects one value, Python streams: declare the rpc with `stream: true`"
      return [at(leaf(message))]
    }
    // Whoever declares no result drops what comes.
    if (wanted.success.kind === "null" && !wanted.stream) return fits
    return this.#fits(found.success, wanted.success, this.#toTypeScript, 0).map((finding) =>
      at(wanted.stream ? { ...finding, path: `[]${finding.path}` } : finding)
    )
  }

  #raises(wanted: Method, found: Method): ReadonlyArray<Finding> {
    const declared = new Set(wanted.raises)
    return found.raises.flatMap((name) => {
      const place = this.#python.contract.definitions[name]?.place
      const at = (finding: Finding): Finding => ({ ...finding, path: `raises ${name}${finding.path}` })
      if (!declared.has(name)) {
        const close = nearest(name, wanted.raises)
        const known = close.length === 0 ? "none" : close.map((each) => `\`${each}\``).join(", ")
        return [
          at(
            leaf(
              `Python raises it, TypeScript does not declare it as an error of the rpc (it declares ${known})`,
              place
            )
          )
        ]
      }
      return this.#fits({ kind: "ref", name }, { kind: "ref", name }, this.#toTypeScript, 0).map(at)
    })
  }

  #payload(sent: Payload, taken: Payload, depth = 0): ReadonlyArray<Finding> {
    if (++this.#steps > maxSteps || depth > maxDepth) return fits
    if (sent.kind === "whole" && sent.type.kind === "unknown") return fits
    if (taken.kind === "whole" && taken.type.kind === "unknown") return fits
    const structure = this.#structureSent(sent)
    switch (taken.kind) {
      case "none":
        if (sent.kind === "none") return fits
        if (sent.kind === "whole" && structure === undefined) {
          return sent.type.kind === "null"
            ? fits
            : [leaf(`TypeScript sends ${this.#said(sent.type, this.#toPython)}, the handler takes nothing`)]
        }
        return Array.from(structure?.fields.keys() ?? [], (name) =>
          inside(name, leaf("TypeScript sends it, the handler takes no arguments"))
        )
      case "fields":
        return this.#arguments(sent, structure, taken, depth)
      case "whole": {
        if (sent.kind === "none" || (sent.kind === "whole" && sent.type.kind === "null")) {
          if (!taken.required || this.#fits({ kind: "null" }, taken.type, this.#toPython, 0).length === 0) return fits
          return [leaf(`TypeScript sends nothing, Python takes ${this.#received(taken.type, this.#toPython)}`)]
        }
        if (sent.kind === "whole") return this.#fits(sent.type, taken.type, this.#toPython, 0)
        return this.#structure(structure!, sent.rest, taken.type)
      }
    }
  }

  /** The keys that a payload has; nothing where it is no structure. */
  #structureSent(sent: Payload): Structure | undefined {
    if (sent.kind === "none") return { fields: new Map(), isOpen: false, place: undefined }
    if (sent.kind === "fields")
      return { fields: byName(sent.fields), isOpen: sent.rest !== undefined, place: undefined }
    const type = this.#resolve(sent.type, this.#typescript)
    return type.kind === "ref" ? this.#structureOf(type, this.#typescript) : undefined
  }

  #arguments(
    sent: Payload,
    structure: Structure | undefined,
    taken: Payload & { kind: "fields" },
    depth: number
  ): ReadonlyArray<Finding> {
    const takesNothing = taken.fields.every(({ required }) => !required)
    if (sent.kind === "whole" && structure === undefined) {
      const type = this.#resolve(sent.type, this.#typescript)
      if (type.kind === "null" && takesNothing) return fits
      if (type.kind === "union") {
        return type.members.flatMap((member) =>
          this.#payload({ kind: "whole", type: member, required: true }, taken, depth + 1)
        )
      }
      if (type.kind === "map") return this.#entries(type.values, taken)
      return [leaf(`TypeScript sends ${this.#said(sent.type, this.#toPython)}, Python takes ${keysOf(taken.fields)}`)]
    }
    const fields = structure?.fields ?? new Map<string, Field>()
    const findings = this.#fields(fields, taken.fields, this.#toPython, 0)
    const names = taken.fields.map(({ name }) => name)
    const known = new Set(names)
    const unknown = Array.from(fields.values()).flatMap((field) => {
      if (known.has(field.name)) return []
      if (taken.rest !== undefined) {
        return this.#fits(field.type, taken.rest, this.#toPython, 0).map((finding) => inside(field.name, finding))
      }
      const near = closest(field.name, names)
      const meant = near === undefined ? `it takes ${keysOf(taken.fields)}` : `did you mean \`${near}\`?`
      return [inside(field.name, leaf(`TypeScript sends it, the handler has no parameter of that name: ${meant}`))]
    })
    const rest = sent.kind === "fields" && sent.rest !== undefined ? this.#entries(sent.rest, taken, fields) : fits
    return [...findings, ...unknown, ...rest]
  }

  /** Keys that only calls know. */
  #entries(
    values: Type,
    taken: Payload & { kind: "fields" },
    sent?: ReadonlyMap<string, Field>
  ): ReadonlyArray<Finding> {
    if (taken.rest === undefined) {
      return [leaf(`TypeScript sends any keys, Python takes ${keysOf(taken.fields)}: give it **kwargs, or a dict`)]
    }
    // Those beside keys that are known have been looked at.
    const required = sent === undefined ? taken.fields.filter(({ required }) => required) : []
    return [
      ...required.map(({ name }) => inside(name, leaf("Python requires it, TypeScript may leave it out"))),
      ...this.#fits(values, taken.rest, this.#toPython, 0).map((finding) => inside("*", finding))
    ]
  }

  /** A payload of named values, for a handler that takes them as one. */
  #structure(sent: Structure, rest: Type | undefined, taken: Type, depth = 0): ReadonlyArray<Finding> {
    if (++this.#steps > maxSteps || depth > maxDepth) return fits
    const type = this.#resolve(taken, this.#python)
    if (type.kind === "unknown") return fits
    if (type.kind === "map" && this.#takesNames(sent, type, this.#python, depth)) {
      const values = [...Array.from(sent.fields.values(), ({ name, type }) => [name, type] as const)]
      if (rest !== undefined) values.push(["*", rest])
      return values.flatMap(([name, value]) =>
        this.#fits(value, type.values, this.#toPython, 0).map((finding) => inside(name, finding))
      )
    }
    if (type.kind === "union") {
      const tried: Array<ReadonlyArray<Finding>> = []
      for (const member of type.members) {
        const findings = this.#structure(sent, rest, member, depth + 1)
        if (findings.length === 0) return fits
        tried.push(findings)
      }
      return tried.find((each) => each[0]?.path !== "") ?? tried[0] ?? fits
    }
    const structure = type.kind === "ref" ? this.#structureOf(type, this.#python) : undefined
    if (structure !== undefined) {
      return placed(
        [
          ...this.#fields(sent.fields, Array.from(structure.fields.values()), this.#toPython, 0),
          ...surplus(sent, structure)
        ],
        structure.place
      )
    }
    return [
      leaf(
        `TypeScript sends a map with ${keysOf(Array.from(sent.fields.values()))}, Python takes ${this.#received(taken, this.#toPython)}`
      )
    ]
  }

  #fields(
    sent: ReadonlyMap<string, Field>,
    taken: ReadonlyArray<Field>,
    direction: Direction,
    depth: number
  ): ReadonlyArray<Finding> {
    const { from, to } = direction
    const findings: Array<Finding> = []
    for (const { name, required, type } of taken) {
      if (++this.#steps > maxSteps) break
      const field = sent.get(name)
      if (field === undefined) {
        if (!required) continue
        const near = closest(name, Array.from(sent.keys()))
        const gives = from.language === "Python" ? "gives" : "sends"
        const meant = near === undefined ? "" : ` (it ${gives} \`${near}\`)`
        findings.push(inside(name, leaf(`${to.language} requires it, ${from.language} never ${gives} it${meant}`)))
        continue
      }
      if (required && !field.required && field.always !== true) {
        findings.push(inside(name, leaf(`${to.language} requires it, ${from.language} may leave it out`)))
      }
      for (const finding of this.#fits(field.type, type, direction, depth + 1)) findings.push(inside(name, finding))
    }
    return findings
  }

  #fits(sent: Type, taken: Type, direction: Direction, depth: number): ReadonlyArray<Finding> {
    if (sent === taken && sent.kind !== "ref" && sent.kind !== "parameter") return fits
    if (++this.#steps > maxSteps || depth > maxDepth) return fits
    if (sent.kind !== "ref" && taken.kind !== "ref") return this.#compare(sent, taken, direction, depth)
    const pair = `${this.#id(sent)}>${this.#id(taken)}`
    const known = direction.assumed.get(pair)
    if (known !== undefined) return known
    const { assumed, trail } = direction
    const start = trail.length
    trail.push(pair)
    assumed.set(pair, fits)
    const findings = this.#compare(sent, taken, direction, depth)
    if (findings.length > 0) {
      // What was found to fit since then may have relied on it.
      for (const later of trail.splice(start)) assumed.delete(later)
      assumed.set(pair, findings)
    }
    return findings
  }

  #compare(sent: Type, taken: Type, direction: Direction, depth: number): ReadonlyArray<Finding> {
    const { from, to } = direction
    const a = this.#resolve(sent, from)
    const b = this.#resolve(taken, to)
    if (a.kind === "unknown" || b.kind === "unknown") return fits
    if (a.kind === "union") return this.#members(a.members, sent, taken, b, direction, depth)
    const constants = constantsOf(a, from)
    if (constants !== undefined && !(constants.length === 1 && b.kind === "union")) {
      const wrong = constants.find((value) => !this.#takesConstant(value, b, to, depth))
      return wrong === undefined ? fits : [this.#mismatch(sent, taken, direction)]
    }
    if (b.kind === "union") return this.#oneOf(a, b.members, sent, taken, direction, depth)
    return this.#alike(a, b, direction, depth) ?? [this.#mismatch(sent, taken, direction)]
  }

  #members(
    members: ReadonlyArray<Type>,
    sent: Type,
    taken: Type,
    b: Type,
    direction: Direction,
    depth: number
  ): ReadonlyArray<Finding> {
    const findings: Array<Finding> = []
    for (const member of members) {
      for (const finding of this.#fits(member, b, direction, depth + 1)) {
        // Of a union whose member is of no kind that is taken, all is said.
        findings.push(finding.path === "" ? this.#mismatch(sent, taken, direction) : finding)
      }
    }
    return distinct(findings)
  }

  #oneOf(
    a: Type,
    members: ReadonlyArray<Type>,
    sent: Type,
    taken: Type,
    direction: Direction,
    depth: number
  ): ReadonlyArray<Finding> {
    const inner: Array<ReadonlyArray<Finding>> = []
    for (const member of members) {
      const findings = this.#fits(a, member, direction, depth + 1)
      if (findings.length === 0) return fits
      // Of that kind, and with the same tag.
      if (findings.every(({ path }) => path !== "") && !this.#hasOtherTag(a, member, direction)) inner.push(findings)
    }
    return inner.length === 1 ? inner[0]! : [this.#mismatch(sent, taken, direction)]
  }

  #hasOtherTag(sent: Type, taken: Type, { from, to }: Direction): boolean {
    const a = this.#resolve(sent, from)
    const b = this.#resolve(taken, to)
    if (a.kind !== "ref" || b.kind !== "ref") return false
    const fields = this.#structureOf(a, from)?.fields
    for (const { name, type } of this.#structureOf(b, to)?.fields.values() ?? []) {
      const other = fields?.get(name)?.type
      if (type.kind !== "literal" || other?.kind !== "literal") continue
      if (!other.values.some((value) => type.values.some((each) => isSame(each, value)))) return true
    }
    return false
  }

  /** Nothing where the two are of different kinds. */
  #alike(a: Type, b: Type, direction: Direction, depth: number): ReadonlyArray<Finding> | undefined {
    const at = (path: string, x: Type, y: Type): ReadonlyArray<Finding> =>
      this.#fits(x, y, direction, depth + 1).map((finding) => ({ ...finding, path: path + finding.path }))
    const isToPython = direction.to.language === "Python"
    switch (a.kind) {
      case "integer":
        return isOneOf(b, "integer", "int64", "number") || (isToPython && b.kind === "decimal") ? fits : undefined
      case "int64":
        // Python's integers have no end, and numbers of TypeScript end at 2^53.
        return isOneOf(b, "int64") || (isToPython && isOneOf(b, "integer", "number", "decimal")) ? fits : undefined
      case "number":
        return b.kind === "number" || (isToPython && b.kind === "decimal") ? fits : undefined
      case "string":
        if (b.kind === "datetime") return isToPython || b.aware !== true ? fits : undefined
        return isOneOf(b, "string", "uuid", "date", "time", "decimal", "duration") ? fits : undefined
      case "uuid":
      case "date":
      case "time":
      case "decimal":
      case "duration":
        return isOneOf(b, "string", a.kind) ? fits : undefined
      case "datetime":
        if (b.kind === "datetime") return a.aware === null || b.aware === null || a.aware === b.aware ? fits : undefined
        // An instant is no text on the wire.
        return b.kind === "string" && a.aware !== true ? fits : undefined
      case "ndarray":
        if (b.kind === "bytes") return isOfBytes(a) ? fits : undefined
        if (b.kind !== "ndarray") return undefined
        return (a.dtype === null || b.dtype === null || a.dtype === b.dtype) &&
          (a.dimensions === null || b.dimensions === null || a.dimensions === b.dimensions)
          ? fits
          : undefined
      case "bytes":
        return b.kind === "bytes" || (b.kind === "ndarray" && isOfBytes(b)) ? fits : undefined
      case "boolean":
        return b.kind === "boolean" || (b.kind === "literal" && [true, false].every((each) => b.values.includes(each)))
          ? fits
          : undefined
      case "null":
      case "table":
      case "handle":
        return a.kind === b.kind ? fits : undefined
      case "list":
        if (b.kind === "tuple") {
          if (a.minLength !== b.items.length || a.maxLength !== b.items.length) return undefined
          return b.items.flatMap((item, i) => at(`[${i}]`, a.items, item))
        }
        return b.kind === "list" || (b.kind === "stream" && isToPython) ? at("[]", a.items, b.items) : undefined
      case "tuple":
        return this.#tuple(a.items, a.items.length, b, direction, at)
      case "stream":
        return b.kind === "stream" ? at("[]", a.items, b.items) : undefined
      case "map":
        if (b.kind !== "map") return undefined
        return [...at("[key]", a.keys, b.keys), ...at("[]", a.values, b.values)]
      case "ref":
        return this.#defined(a, b, direction, depth, at)
      default:
        return undefined
    }
  }

  /** Items of which so many are always there. */
  #tuple(
    items: ReadonlyArray<Type>,
    sent: number,
    b: Type,
    { to }: Direction,
    at: (path: string, x: Type, y: Type) => ReadonlyArray<Finding>
  ): ReadonlyArray<Finding> | undefined {
    if (b.kind === "list") return distinct(items.flatMap((item, i) => at(`[${i}]`, item, b.items)))
    if (b.kind === "tuple") {
      return sent === items.length && items.length === b.items.length
        ? items.flatMap((item, i) => at(`[${i}]`, item, b.items[i]!))
        : undefined
    }
    const record = b.kind === "ref" ? this.#definition(b, to) : undefined
    if (record?.kind !== "record") return undefined
    const { fields } = record
    const least = fields.filter(({ required }) => required).length
    if (sent < least || items.length > fields.length) return undefined
    return items.flatMap((item, i) => at(`.${fields[i]!.name}`, item, fields[i]!.type))
  }

  #defined(
    a: Type & { kind: "ref" },
    b: Type,
    direction: Direction,
    depth: number,
    at: (path: string, x: Type, y: Type) => ReadonlyArray<Finding>
  ): ReadonlyArray<Finding> | undefined {
    const { from, to } = direction
    const definition = this.#definition(a, from)
    if (definition?.kind === "record") {
      return this.#tuple(
        definition.fields.map(({ type }) => type),
        definition.fields.filter(({ always, required }) => required || always === true).length,
        b,
        direction,
        at
      )
    }
    const structure = this.#structureOf(a, from)
    if (structure === undefined) return undefined
    if (b.kind === "map") {
      if (!this.#takesNames(structure, b, to, depth)) return undefined
      return Array.from(structure.fields.values()).flatMap(({ name, type }) => at(`.${name}`, type, b.values))
    }
    const other = b.kind === "ref" ? this.#structureOf(b, to) : undefined
    if (other === undefined) return undefined
    const place = from.language === "Python" ? structure.place : other.place
    const findings = this.#fields(structure.fields, Array.from(other.fields.values()), direction, depth)
    return placed(to.language === "Python" ? [...findings, ...surplus(structure, other)] : findings, place)
  }

  /** Whether the names of fields can be the keys of a map. */
  #takesNames({ fields, isOpen }: Structure, { keys }: Type & { kind: "map" }, side: Side, depth: number): boolean {
    const type = this.#resolve(keys, side)
    if (isOpen && constantsOf(type, side) !== undefined) return false
    return Array.from(fields.keys()).every((name) => this.#takesConstant(name, type, side, depth + 1))
  }

  #takesConstant(value: Constant, type: Type, side: Side, depth: number): boolean {
    const constants = constantsOf(type, side)
    this.#steps += 1 + (constants?.length ?? 0) / 100
    if (this.#steps > maxSteps || depth > maxDepth) return true
    if (constants !== undefined) return constants.some((each) => isSame(each, value))
    switch (type.kind) {
      case "unknown":
        return true
      case "union":
        return type.members.some((member) => this.#takesConstant(value, this.#resolve(member, side), side, depth + 1))
      case "string":
      case "uuid":
      case "date":
      case "time":
      case "duration":
        return typeof value === "string"
      case "datetime":
        return typeof value === "string" && (side.language === "Python" || type.aware !== true)
      case "decimal":
        return typeof value === "string" || (side.language === "Python" && typeof value === "number")
      case "number":
        return typeof value === "number" || typeof value === "bigint"
      case "integer":
      case "int64":
        return typeof value === "bigint" || Number.isInteger(value)
      case "boolean":
        return typeof value === "boolean"
      case "null":
        return value === null
      default:
        return false
    }
  }

  /** The type behind its names; a reference is left where it leads to a structure. */
  #resolve(type: Type, side: Side): Type {
    let found = type
    for (let n = 0; found.kind === "ref" && n < maxDepth; n++) {
      const definition = this.#definition(found, side)
      if (definition?.kind === "enum") return { kind: "literal", values: definition.members.map(({ value }) => value) }
      if (definition?.kind !== "alias") return definition === undefined ? { kind: "unknown" } : found
      found = definition.type
    }
    // Of a parameter that nothing was given for, and of a name that only leads to itself, nothing is known.
    return found.kind === "parameter" || (found.kind === "ref" && this.#definition(found, side)?.kind === "alias")
      ? { kind: "unknown" }
      : found
  }

  /** The definition with its parameters filled in. */
  #definition(type: Type & { kind: "ref" }, { contract, language }: Side): Definition | undefined {
    const definition = contract.definitions[type.name]
    const given = type.arguments ?? []
    if (definition === undefined || given.length === 0 || !("parameters" in definition)) return definition
    const key = `${language} ${contractText(type)}`
    const known = this.#filled.get(key)
    if (known !== undefined) return known
    const fill = filling(
      new Map((definition.parameters ?? []).map((name, i) => [name, given[i] ?? { kind: "unknown" }]))
    )
    const filled: Definition =
      definition.kind === "alias"
        ? { ...definition, type: fill(definition.type) }
        : definition.kind === "struct" || definition.kind === "record"
          ? { ...definition, fields: definition.fields.map((field) => ({ ...field, type: fill(field.type) })) }
          : definition
    this.#filled.set(key, filled)
    return filled
  }

  #structureOf(type: Type & { kind: "ref" }, side: Side): Structure | undefined {
    const definition = this.#definition(type, side)
    if (definition === undefined) return undefined
    if (!this.#structures.has(definition))
      this.#structures.set(definition, this.#structureBehind(type, definition, side))
    return this.#structures.get(definition)
  }

  #structureBehind(type: Type & { kind: "ref" }, definition: Definition, side: Side): Structure | undefined {
    if (definition.kind === "error") {
      const fields = byName(definition.fields)
      fields.set("_tag", constantField("_tag", type.name))
      // Every declared error of Python has one.
      if (side.language === "Python")
        fields.set("message", { name: "message", type: { kind: "string" }, required: true })
      return { fields, isOpen: true, place: definition.place }
    }
    if (definition.kind !== "struct") return undefined
    const fields = byName(definition.fields)
    if (definition.tag !== undefined)
      fields.set(definition.tag.field, constantField(definition.tag.field, definition.tag.value))
    return { fields, isOpen: definition.open === true, place: definition.place }
  }

  #id(type: Type): string {
    if (type.kind === "ref") return contractText(type)
    let id = this.#ids.get(type)
    if (id === undefined) {
      id = this.#ids.size
      this.#ids.set(type, id)
    }
    return `#${id}`
  }

  #said(type: Type, { from }: Direction): string {
    return wordsOf(type, from.language, from.contract.definitions)
  }

  #received(type: Type, { to }: Direction): string {
    return wordsOf(type, to.language, to.contract.definitions)
  }

  #mismatch(sent: Type, taken: Type, direction: Direction): Finding {
    const said = this.#said(sent, direction)
    const received = this.#received(taken, direction)
    const [typescript, python] = direction.from.language === "TypeScript" ? [said, received] : [received, said]
    return leaf(
      `TypeScript says ${typescript}, Python says ${python}${hintOf(direction.from.language === "TypeScript" ? taken : sent, direction)}`
    )
  }
}

const hintOf = (python: Type, { from }: Direction): string => {
  if (python.kind === "int64" && from.language === "Python") return " (which Schema.BigInt takes)"
  if (python.kind === "datetime" && python.aware === true && from.language === "Python")
    return " (which Schema.DateTimeUtc takes)"
  return ""
}

const leaf = (message: string, place?: Place): Finding => ({ path: "", message, place })

const inside = (name: string, finding: Finding): Finding => ({ ...finding, path: `.${name}${finding.path}` })

/** Keys that a structure of Python refuses. */
const surplus = (sent: Structure, taken: Structure): ReadonlyArray<Finding> => {
  if (taken.isOpen) return fits
  const names = Array.from(taken.fields.keys())
  const others = Array.from(sent.fields.keys()).flatMap((name) => {
    if (taken.fields.has(name)) return []
    const near = closest(name, names)
    const meant = near === undefined ? "" : `: did you mean \`${near}\`?`
    return [inside(name, leaf(`TypeScript sends it, Python takes no other keys than its own${meant}`))]
  })
  return sent.isOpen
    ? [...others, inside("*", leaf("TypeScript sends any keys, Python takes no other keys than its own"))]
    : others
}

/** Python says it where the innermost structure is that has a place. */
const placed = (findings: ReadonlyArray<Finding>, place: Place | undefined): ReadonlyArray<Finding> =>
  findings.map((finding) => (finding.place === undefined ? { ...finding, place } : finding))

const distinct = (findings: ReadonlyArray<Finding>): ReadonlyArray<Finding> => {
  const seen = new Set<string>()
  return findings.filter(({ message, path }) => {
    const key = `${path} ${message}`
    return seen.has(key) ? false : seen.add(key)
  })
}

const missing = (method: string, handlers: ReadonlyArray<string>): Drift => {
  const names = nearest(method, handlers)
    .map((name) => `\`${name}\``)
    .join(", ")
  const has = names === "" ? "none: decorate a function with @synapse.handler" : names
  return { method, path: "", message: `\`${method}\`: the module has no handler of that name; it has ${has}` }
}

/** Of `embed`: its parameter as `embed.text`, what it returns as `embed()`. */
const label = (path: string): string => {
  if (path.startsWith("return")) return `()${path.slice("return".length)}`
  return path.startsWith("raises ") ? ` ${path}` : path
}

const shown = (place: Place | undefined): string => (place === undefined ? "" : ` (${place.file}:${place.line})`)

const keysOf = (fields: ReadonlyArray<Field>): string =>
  fields.length === 0
    ? "no keys"
    : `the key${fields.length === 1 ? "" : "s"} ${fields.map(({ name }) => `\`${name}\``).join(", ")}`

const byName = (fields: ReadonlyArray<Field>): Map<string, Field> => new Map(fields.map((field) => [field.name, field]))

const constantField = (name: string, value: Constant): Field => ({
  name,
  type: { kind: "literal", values: [value] },
  required: true
})

const isOneOf = (type: Type, ...kinds: ReadonlyArray<Type["kind"]>): boolean => kinds.includes(type.kind)

const constantsOf = (type: Type, { contract }: Side): ReadonlyArray<Constant> | undefined => {
  if (type.kind === "literal") return type.values
  if (type.kind === "null") return [null]
  const definition = type.kind === "ref" ? contract.definitions[type.name] : undefined
  return definition?.kind === "enum" ? definition.members.map(({ value }) => value) : undefined
}

/** An array of one dimension that is bytes on the wire. */
const isOfBytes = ({ dimensions, dtype }: Type & { kind: "ndarray" }): boolean =>
  (dtype === null || dtype === "uint8") && (dimensions === null || dimensions === 1)

const isInteger = (value: Constant): value is number | bigint => typeof value === "bigint" || Number.isInteger(value)

const isSame = (a: Constant, b: Constant): boolean =>
  a === b || (isInteger(a) && isInteger(b) && BigInt(a) === BigInt(b))

const filling = (given: ReadonlyMap<string, Type>): ((type: Type) => Type) => {
  const fill = (type: Type): Type => {
    if (type.kind === "parameter") return given.get(type.name) ?? type
    const filled = mapChildren(type, fill)
    return filled.kind === "ref" && sizeOf(filled.arguments ?? []) > maxArguments ? { kind: "unknown" } : filled
  }
  return fill
}

/** How many parts types have, as far as that matters. */
const sizeOf = (types: ReadonlyArray<Type>): number => {
  let size = 0
  const count = (type: Type): void => {
    if (++size > maxArguments) return
    switch (type.kind) {
      case "list":
      case "stream":
        return count(type.items)
      case "tuple":
        return type.items.forEach(count)
      case "map":
        count(type.keys)
        return count(type.values)
      case "union":
        return type.members.forEach(count)
      case "ref":
        return type.arguments?.forEach(count)
    }
  }
  types.forEach(count)
  return size
}
