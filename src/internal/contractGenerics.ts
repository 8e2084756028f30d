/** Generics that contain themselves become one definition for each of their uses; the others stay as they are. */
import type { Contract, Definition, Field, Type } from "../Contract.ts"
import { make as makeGraph, mapChildren, referencesIn, typesOf } from "./contractGraph.ts"
import { contractText } from "./contractText.ts"

/** More uses than any program has: a generic that refers to ever other uses of itself. */
const maxInstances = 1000

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
  let instances = 0

  /** A type without references to unrolled generics, `bindings` being what its parameters are. */
  const close = (type: Type, bindings: ReadonlyMap<string, Type>): Type => {
    if (type.kind === "parameter") return bindings.get(type.name) ?? type
    const closed = mapChildren(type, (child) => close(child, bindings))
    if (closed.kind !== "ref" || !unrolled.has(closed.name)) return closed
    const definition = definitions[closed.name]!
    const args = parametersOf(definition).map((_, i) => closed.arguments?.[i] ?? { kind: "unknown" as const })
    const name = `${closed.name}Of${args.map(nameOf).join("And")}`
    if (!Object.hasOwn(out, name)) {
      if (++instances > maxInstances) {
        endless.add(closed.name)
        return { kind: "unknown" }
      }
      // Before its types are looked at, which may refer to it.
      out[name] = definition
      out[name] = mapTypes(definition, (inner) =>
        close(inner, new Map(parametersOf(definition).map((parameter, i) => [parameter, args[i]!])))
      )
    }
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
  const cyclic = graph.order.filter((name) => isGeneric(name) && graph.cycles.has(name))
  const found = new Set(cyclic)
  for (const name of graph.order) {
    if (!isGeneric(name)) continue
    const used = graph.reach(referencesIn(typesOf(definitions[name]!)))
    if (cyclic.some((other) => used.has(other))) found.add(name)
  }
  return found
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
