/** Which definitions of a contract refer to which: their order, their cycles, and which way their values go. */
import type { Contract, Definition, Payload, Type } from "../Contract.ts"

/** The types that stand in a type, itself among them. */
export const typesIn = (type: Type): ReadonlyArray<Type> => [type, ...children(type).flatMap(typesIn)]

const children = (type: Type): ReadonlyArray<Type> => {
  switch (type.kind) {
    case "list":
    case "stream":
      return [type.items]
    case "tuple":
      return type.items
    case "map":
      return [type.keys, type.values]
    case "union":
      return type.members
    case "ref":
      return type.arguments ?? []
    default:
      return []
  }
}

/** The same type with what stands directly in it replaced. */
export const mapChildren = (type: Type, f: (type: Type) => Type): Type => {
  switch (type.kind) {
    case "list":
    case "stream":
      return { ...type, items: f(type.items) }
    case "tuple":
      return { ...type, items: type.items.map(f) }
    case "map":
      return { ...type, keys: f(type.keys), values: f(type.values) }
    case "union":
      return { ...type, members: type.members.map(f) }
    case "ref":
      return type.arguments === undefined ? type : { ...type, arguments: type.arguments.map(f) }
    default:
      return type
  }
}

/** The types of a definition's fields, or of what it is another name for. */
export const typesOf = (definition: Definition): ReadonlyArray<Type> => {
  switch (definition.kind) {
    case "enum":
      return []
    case "alias":
      return [definition.type]
    default:
      return definition.fields.map((field) => field.type)
  }
}

export const referencesIn = (types: ReadonlyArray<Type>): ReadonlyArray<string> => [
  ...new Set(types.flatMap(typesIn).flatMap((type) => (type.kind === "ref" ? [type.name] : [])))
]

export interface Graph {
  /** The names of the definitions, each after what it refers to, but for the cycles. */
  readonly order: ReadonlyArray<string>
  /** Of a definition that is part of a cycle, the names in it. */
  readonly cycles: ReadonlyMap<string, ReadonlySet<string>>
  /** What is reachable from names, they among it. */
  readonly reach: (names: Iterable<string>) => ReadonlySet<string>
}

export const make = (definitions: Contract["definitions"]): Graph => {
  const edges = new Map(
    Object.entries(definitions).map(([name, definition]) => [
      name,
      referencesIn(typesOf(definition)).filter((other) => Object.hasOwn(definitions, other))
    ])
  )
  const { components, order } = componentsOf(edges)
  const cycles = new Map<string, ReadonlySet<string>>()
  for (const component of components) {
    for (const name of component) {
      if (component.size > 1 || edges.get(name)!.includes(name)) cycles.set(name, component)
    }
  }
  return {
    order,
    cycles,
    reach: (names) => {
      const reached = new Set<string>()
      const pending = [...names]
      for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
        if (reached.has(name) || !edges.has(name)) continue
        reached.add(name)
        pending.push(...edges.get(name)!)
      }
      return reached
    }
  }
}

/** Tarjan's strongly connected components, which come out in the order of their dependencies. */
const componentsOf = (edges: ReadonlyMap<string, ReadonlyArray<string>>) => {
  const indices = new Map<string, number>()
  const lowest = new Map<string, number>()
  const stack: Array<string> = []
  const components: Array<ReadonlySet<string>> = []
  const order: Array<string> = []
  const visit = (name: string): void => {
    indices.set(name, indices.size)
    lowest.set(name, indices.get(name)!)
    stack.push(name)
    for (const next of edges.get(name)!) {
      if (!indices.has(next)) visit(next)
      if (stack.includes(next)) lowest.set(name, Math.min(lowest.get(name)!, lowest.get(next)!))
    }
    order.push(name)
    if (lowest.get(name) === indices.get(name)) components.push(new Set(stack.splice(stack.indexOf(name))))
  }
  for (const name of edges.keys()) if (!indices.has(name)) visit(name)
  return { components, order }
}

/** The names of the definitions whose values go to Python, and of those whose values come from there. */
export const directions = (
  contract: Contract,
  graph: Graph
): { readonly sent: ReadonlySet<string>; readonly returned: ReadonlySet<string> } => {
  const methods = Object.values(contract.methods)
  const sent = methods.flatMap((method) => payloadTypes(method.payload))
  const returned = referencesIn(methods.map((method) => method.success))
  return {
    sent: graph.reach(referencesIn(sent)),
    returned: graph.reach([...returned, ...methods.flatMap((method) => method.raises)])
  }
}

const payloadTypes = (payload: Payload): ReadonlyArray<Type> => {
  switch (payload.kind) {
    case "none":
      return []
    case "whole":
      return [payload.type]
    case "fields":
      return [...payload.fields.map((field) => field.type), ...(payload.rest === undefined ? [] : [payload.rest])]
  }
}
