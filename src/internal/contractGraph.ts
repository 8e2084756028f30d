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
        for (const next of edges.get(name)!) pending.push(next)
      }
      return reached
    }
  }
}

/** Tarjan's strongly connected components, which come out in the order of their dependencies. Chains may be of any length. */
const componentsOf = (edges: ReadonlyMap<string, ReadonlyArray<string>>) => {
  const indices = new Map<string, number>()
  const lowest = new Map<string, number>()
  const stack: Array<string> = []
  const onStack = new Set<string>()
  const components: Array<ReadonlySet<string>> = []
  const order: Array<string> = []
  const open: Array<{ readonly name: string; readonly others: Iterator<string> }> = []
  const enter = (name: string): void => {
    lowest.set(name, indices.size)
    indices.set(name, indices.size)
    stack.push(name)
    onStack.add(name)
    open.push({ name, others: edges.get(name)!.values() })
  }
  const leave = (name: string): void => {
    open.pop()
    order.push(name)
    const least = lowest.get(name)!
    const above = open.at(-1)
    if (above !== undefined) lowest.set(above.name, Math.min(lowest.get(above.name)!, least))
    if (least !== indices.get(name)) return
    const component = new Set(stack.splice(stack.lastIndexOf(name)))
    for (const each of component) onStack.delete(each)
    components.push(component)
  }
  for (const start of edges.keys()) {
    if (!indices.has(start)) enter(start)
    for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
      const { done, value: next } = top.others.next()
      if (done === true) leave(top.name)
      else if (!indices.has(next)) enter(next)
      else if (onStack.has(next)) lowest.set(top.name, Math.min(lowest.get(top.name)!, indices.get(next)!))
    }
  }
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
