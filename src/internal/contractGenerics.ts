/** Generics that contain themselves become one definition for each of their uses; the others stay as they are. */
import type { Contract, Definition, Field, Type } from "../Contract.ts"
import { make as makeGraph, mapChildren, referencesIn, typesOf } from "./contractGraph.ts"
import { contractText } from "./contractText.ts"

/** More uses than any program has: a generic that refers to ever other uses of itself. */
const maxInstances = 1000
/** How much text arguments may be, which double at each use where a parameter stands in them twice. */
const maxArguments = 10_000
/** Of a longer name only so much is kept. */
const maxName = 200

export interface Instantiated {
  readonly contract: Contract
  /** The generics that have no end. */
  readonly endless: ReadonlySet<string>
}

/** The names of a generic's parameters. */
export const parametersOf = (definition: Definition | undefined): ReadonlyArray<string> =>
  definition !== undefined && "parameters" in definition ? (definition.parameters ?? []) : []

export const instantiate = (contract: Contract): Instantiated => {
  const { definitions } = contract
  const unrolled = generics(definitions)
  if (unrolled.size === 0) return { contract, endless: new Set() }
  const out: Record<string, Definition> = Object.create(null)
  const endless = new Set<string>()
  /** The names of the uses, by what they use. */
  const instances = new Map<string, string>()

  /** What is called so already may be something else: a class of that name, or another use that reads the same. */
  const free = (wanted: string, key: string): string => {
    let name = wanted.length > maxName ? `${wanted.slice(0, maxName)}_${hash(key)}` : wanted
    while (Object.hasOwn(definitions, name) || Object.hasOwn(out, name)) name += "_"
    return name
  }

  /** A type without references to unrolled generics, `bindings` being what its parameters are. */
  const close = (type: Type, bindings: ReadonlyMap<string, Type>): Type => {
    if (type.kind === "parameter") return bindings.get(type.name) ?? type
    const closed = mapChildren(type, (child) => close(child, bindings))
    if (closed.kind !== "ref" || !unrolled.has(closed.name)) return closed
    const definition = definitions[closed.name]!
    const args = parametersOf(definition).map((_, i) => closed.arguments?.[i] ?? { kind: "unknown" as const })
    const key = contractText({ kind: "ref", name: closed.name, arguments: args })
    const known = instances.get(key)
    if (known !== undefined) return { kind: "ref", name: known }
    if (instances.size === maxInstances || key.length > maxArguments) {
      endless.add(closed.name)
      return { kind: "unknown" }
    }
    const name = free(`${closed.name}Of${args.map(nameOf).join("And")}`, key)
    // Before its types are looked at, which may refer to it.
    instances.set(key, name)
    out[name] = definition
    out[name] = mapTypes(definition, (inner) =>
      close(inner, new Map(parametersOf(definition).map((parameter, i) => [parameter, args[i]!])))
    )
    return { kind: "ref", name }
  }

  const none = new Map<string, Type>()
  for (const [name, definition] of Object.entries(definitions)) {
    if (!unrolled.has(name)) {
      const closed = mapTypes(definition, (type) => close(type, none))
      const parameters = parametersOf(definition)
      out[name] = parameters.length === 0 ? closed : ({ ...closed, parameters } as Definition)
    }
  }
  const field = (each: Field): Field => ({ ...each, type: close(each.type, none) })
  const methods = Object.entries(contract.methods).map(([name, method]) => {
    const { payload } = method
    const closedPayload =
      payload.kind === "none"
        ? payload
        : payload.kind === "whole"
          ? { ...payload, type: close(payload.type, none) }
          : {
              ...payload,
              fields: payload.fields.map(field),
              ...(payload.rest !== undefined && { rest: close(payload.rest, none) })
            }
    return [name, { ...method, payload: closedPayload, success: close(method.success, none) }] as const
  })
  return { contract: { ...contract, methods: Object.fromEntries(methods), definitions: out }, endless }
}

/** The generics that are part of a cycle, and those that use one of them. */
const generics = (definitions: Contract["definitions"]): ReadonlySet<string> => {
  const graph = makeGraph(definitions)
  const isGeneric = (name: string) => parametersOf(definitions[name]).length > 0
  const users = new Map<string, Array<string>>()
  for (const name of graph.order) {
    for (const used of referencesIn(typesOf(definitions[name]!))) {
      const known = users.get(used)
      if (known === undefined) users.set(used, [name])
      else known.push(name)
    }
  }
  const reached = new Set<string>()
  const pending = graph.order.filter((name) => isGeneric(name) && graph.cycles.has(name))
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (reached.has(name)) continue
    reached.add(name)
    for (const user of users.get(name) ?? []) pending.push(user)
  }
  return new Set(graph.order.filter((name) => isGeneric(name) && reached.has(name)))
}

/** A definition without parameters, its types replaced. */
const mapTypes = (definition: Definition, f: (type: Type) => Type): Definition => {
  switch (definition.kind) {
    case "enum":
      return definition
    case "alias": {
      const { parameters: _, ...rest } = definition
      return { ...rest, type: f(definition.type) }
    }
    case "error":
      return { ...definition, fields: definition.fields.map((field) => ({ ...field, type: f(field.type) })) }
    default: {
      const { parameters: _, ...rest } = definition
      return { ...rest, fields: definition.fields.map((field) => ({ ...field, type: f(field.type) })) }
    }
  }
}

const nameOf = (type: Type): string => {
  const inner = type.kind === "ref" ? (type.arguments ?? []) : childrenOf(type)
  const own = type.kind === "ref" ? type.name : type.kind[0]!.toUpperCase() + type.kind.slice(1)
  const suffix = inner.length === 0 ? "" : `Of${inner.map(nameOf).join("And")}`
  return own + (plain(type) ? suffix : `${suffix}_${hash(contractText(type))}`)
}

/** Whether its name tells all of it. */
const plain = ({ kind, ...rest }: Type): boolean =>
  Object.keys(rest).every((key) => ["name", "arguments", "items", "keys", "values", "members"].includes(key)) &&
  kind !== "literal"

const hash = (text: string): string => {
  let h = 5381
  for (const unit of text) h = (Math.imul(h, 33) ^ unit.codePointAt(0)!) >>> 0
  return h.toString(36)
}

const childrenOf = (type: Type): ReadonlyArray<Type> => {
  const found: Array<Type> = []
  mapChildren(type, (child) => {
    found.push(child)
    return child
  })
  return found
}
