/** From a contract to the source of a TypeScript module: an `RpcGroup`, and the schemas of what its handlers take and give. */
import type { Contract, Definition, Field, Method, Payload, Place, Problem, Type } from "../Contract.ts"
import { instantiate, parametersOf } from "./contractGenerics.ts"
import * as Graph from "./contractGraph.ts"
import { contractText } from "./contractText.ts"
import { type Doc, group, hardline, indent, join, line, lineOr, render, softline } from "./layout.ts"
import { assign, isName } from "./typescriptNames.ts"
import * as Syntax from "./typescriptSyntax.ts"
import { constant, type Import, literals, make as makeWriter, tuple, uncheckedOf } from "./typescriptTypes.ts"

export interface Options {
  /** The name of the class that is the group. Default: `Python`. */
  readonly groupName?: string | undefined
  /** Whether what cannot be described is a warning, and `Schema.Unknown`. Default: false, and it is an error. */
  readonly allowUnknown?: boolean | undefined
  /** What makes the module anew; the header tells it. Default: `npx effect-synapse generate`. */
  readonly command?: string | undefined
}

/** What a user has to know about a generated module. */
export interface Finding {
  /** An error: the module is not to be used. */
  readonly severity: "error" | "warning"
  /** One line: the place as `main.py:12`, the handler, what is wrong, what to do. */
  readonly message: string
}

export interface Generated {
  /** The module, formatted, with a newline at its end; with `Schema.Unknown` for what could not be described. */
  readonly source: string
  readonly findings: ReadonlyArray<Finding>
}

const width = 120
const defaultGroupName = "Python"
const defaultCommand = "npx effect-synapse generate"

/** Whether a text can be the `groupName`. */
export const isGroupName = isName

/**
 * The source of the module. The same contract gives the same text.
 *
 * Fields that Python fills in are optional in what is sent, and their doc comment tells the default. In a definition that
 * only comes back those that Python always sends are not. Keys that Python takes beside the fields are dropped. Generics are
 * functions from schemas to a schema; those that contain themselves become one definition for each of their uses.
 */
export const generateTypeScript = (contract: Contract, options: Options = {}): Generated => {
  const { allowUnknown = false, command = defaultCommand, groupName = defaultGroupName } = options
  const instantiated = instantiate(contract)
  const { definitions, methods } = instantiated.contract
  const graph = Graph.make(definitions)
  const { returned, sent } = Graph.directions(instantiated.contract, graph)
  const isCyclic = (name: string) => graph.cycles.has(name)
  // The schemas of cycles have to take all fields of what is made: their tags have no default.
  const withoutDefaults = graph.reach(graph.order.filter(isCyclic))
  const parameters = assign(new Set(Object.values(definitions).flatMap(parametersOf)), [groupName])
  const names = assign(graph.order, [groupName, ...parameters.values()])

  const problems: Array<Problem> = [...contract.problems]
  for (const name of instantiated.endless) {
    const { place } = contract.definitions[name]!
    problems.push({
      method: "",
      path: name,
      message: "the generic refers to ever other uses of itself",
      ...(place !== undefined && { place })
    })
  }
  let at: Omit<Problem, "message"> = { method: "", path: "" }
  const imports = new Set<Import>()
  const written = new Set<string>()
  const writer = makeWriter({
    definitions,
    nameOf: (name) => names.get(name) ?? name,
    parameterOf: (name) => parameters.get(name) ?? name,
    isSuspended: (name) => !written.has(name) && isCyclic(name),
    onImport: (name) => imports.add(name),
    onProblem: (message) => problems.push({ ...at, message })
  })

  /** Compilers and linters leave those alone that are not used where they begin with an underscore. */
  const parametersIn = (definition: Definition): ReadonlyArray<string> => {
    const used = new Set(
      Graph.typesOf(definition)
        .flatMap(Graph.typesIn)
        .map((type) => (type.kind === "parameter" ? type.name : ""))
    )
    return parametersOf(definition).map((name) => `${used.has(name) ? "" : "_"}${parameters.get(name)}`)
  }

  const isOptional = (field: Field, isSent: boolean): boolean => !field.required && (isSent || field.always !== true)

  const fieldDoc = (field: Field): Doc | undefined =>
    Syntax.comment(
      field.doc,
      [
        field.default === undefined || field.required ? undefined : `Default: \`${constant(field.default)}\`.`,
        uncheckedOf(field)
      ]
        .filter((text) => text !== undefined)
        .join(" ")
    )

  const property = (field: Field, isSent: boolean): Syntax.Property => {
    const schema = writer.schema(field.type)
    return {
      name: field.name,
      value: isOptional(field, isSent) ? Syntax.call("Schema.optionalKey", schema) : schema,
      doc: fieldDoc(field)
    }
  }

  const structOf = (name: string, definition: Definition & { readonly kind: "struct" }): Doc => {
    const { tag } = definition
    const tagged =
      tag === undefined
        ? []
        : [
            {
              name: tag.field,
              value:
                withoutDefaults.has(name) || tag.value === null
                  ? literals([tag.value])
                  : Syntax.call("Schema.tag", constant(tag.value))
            }
          ]
    const fields = definition.fields.map((field) => property(field, sent.has(name) || !returned.has(name)))
    return Syntax.call("Schema.Struct", Syntax.object([...tagged, ...fields]))
  }

  const recordOf = (name: string, definition: Definition & { readonly kind: "record" }): Doc => {
    const items = definition.fields.map((field) => {
      const { doc: _, value } = property(field, sent.has(name) || !returned.has(name))
      return value
    })
    return Syntax.call("Schema.Tuple", Syntax.array(items))
  }

  /** The fields of a tuple are told by its comment. */
  const docOf = (definition: Definition): Doc | undefined =>
    definition.kind === "record"
      ? Syntax.comment(definition.doc, definition.fields.map(describeItem).join("\n"))
      : definition.kind === "alias"
        ? Syntax.comment(definition.doc, uncheckedOf(definition))
        : Syntax.comment(definition.doc)

  /** The key that tells the members of a union, all of them structures, from each other. */
  const tagOf = (type: Type): string | undefined => {
    if (type.kind !== "union") return undefined
    const tags = type.members.map((member) => {
      const definition = member.kind === "ref" && member.arguments === undefined ? definitions[member.name] : undefined
      return definition?.kind === "struct" ? definition.tag : undefined
    })
    const [first] = tags
    const isTagged = tags.every((tag) => tag?.field === first?.field && typeof tag?.value === "string")
    return isTagged && new Set(tags.map((tag) => tag?.value)).size === tags.length ? first?.field : undefined
  }

  const expressionOf = (name: string, definition: Definition): Doc => {
    switch (definition.kind) {
      case "struct":
        return structOf(name, definition)
      case "record":
        return recordOf(name, definition)
      case "alias":
        return writer.schema(definition.type)
      case "enum":
        return enumOf(definition.members)
      case "error":
        return ""
    }
  }

  const typeOf = (name: string, definition: Definition): Doc => {
    const own = names.get(name)!
    const params = parametersIn(definition)
    const head = params.length === 0 ? own : `${own}<${params.join(", ")}>`
    const isSent = sent.has(name) || !returned.has(name)
    switch (definition.kind) {
      case "struct": {
        const { tag } = definition
        const members = definition.fields.map((field): Doc => {
          const mark = isOptional(field, isSent) ? "?" : ""
          return [
            ...Syntax.withComment(fieldDoc(field)),
            `readonly ${Syntax.key(field.name)}${mark}: `,
            writer.type(field.type)
          ]
        })
        if (tag !== undefined) members.unshift(`readonly ${Syntax.key(tag.field)}: ${constant(tag.value)}`)
        return members.length === 0
          ? `export interface ${head} {}`
          : [`export interface ${head} {`, indent([hardline, join(members, hardline)]), hardline, "}"]
      }
      case "record": {
        const items = definition.fields.map(
          (field): Doc => [
            isName(field.name) ? `${field.name}${isOptional(field, isSent) ? "?" : ""}: ` : "",
            writer.type(field.type)
          ]
        )
        return [`export type ${head} = `, tuple(items)]
      }
      case "alias":
        return definition.type.kind === "union"
          ? declaredUnion(head, definition.type.members.map(writer.type))
          : [`export type ${head} = `, writer.type(definition.type)]
      default:
        return `export type ${head} = typeof ${own}.Type`
    }
  }

  const declarationOf = (name: string, definition: Definition): Doc => {
    const own = names.get(name)!
    at = { method: "", path: name, ...(definition.place !== undefined && { place: definition.place }) }
    if (definition.kind === "error") {
      const fields = definition.fields.map((field) => property(field, false))
      const args = Syntax.call(`Schema.TaggedError<${own}>()`, Syntax.string(name), Syntax.object(fields))
      written.add(name)
      return [...Syntax.withComment(docOf(definition)), `export class ${own} extends `, args, " {}"]
    }
    const expression = expressionOf(name, definition)
    const comment = Syntax.withComment(docOf(definition))
    const params = parametersIn(definition)
    if (params.length > 0) {
      const bounds = params.map((each) => `${each} extends Schema.Top`).join(", ")
      const args = params.map((each) => `${each}: ${each}`).join(", ")
      written.add(name)
      return [
        ...comment,
        `export const ${own} = <${bounds}>(${args}) =>`,
        group(indent([line, expression])),
        hardline,
        typeOf(name, definition)
      ]
    }
    const annotate = Syntax.call(".annotate", Syntax.inlineObject([{ name: "identifier", value: Syntax.string(own) }]))
    const tag = definition.kind === "alias" && !isCyclic(name) ? tagOf(definition.type) : undefined
    const calls =
      tag === undefined ? [annotate] : [annotate, Syntax.call(".pipe", `Schema.toTaggedUnion(${Syntax.string(tag)})`)]
    const isPlain = definition.kind === "alias" && isReference(definition.type)
    const constantDeclaration = [
      `export const ${own} = `,
      isPlain ? expression : chained(definition, expression, calls)
    ]
    const typeDeclaration = isCyclic(name)
      ? typeOf(name, definition)
      : definition.kind === "struct"
        ? `export interface ${own} extends Schema.Schema.Type<typeof ${own}> {}`
        : `export type ${own} = typeof ${own}.Type`
    written.add(name)
    return [...comment, constantDeclaration, hardline, typeDeclaration]
  }

  const payloadOf = (payload: Payload): Doc | undefined => {
    switch (payload.kind) {
      case "none":
        return undefined
      case "whole": {
        const schema = writer.schema(payload.type)
        return payload.required || takesNull(payload.type) ? schema : Syntax.call("Schema.UndefinedOr", schema)
      }
      case "fields": {
        const fields = Syntax.object(payload.fields.map((field) => property(field, true)))
        if (payload.rest === undefined) return Syntax.docOf(fields)
        // An index signature is for all keys.
        const all = [...payload.fields.map((field) => field.type), payload.rest]
        const rest = payload.fields.length === 0 ? payload.rest : unionOf(all)
        const record = Syntax.call("Schema.Record", "Schema.String", writer.schema(rest))
        return payload.fields.length === 0
          ? record
          : Syntax.call("Schema.StructWithRest", Syntax.call("Schema.Struct", fields), Syntax.array([record]))
      }
    }
  }

  const rpcOf = (name: string, method: Method): Doc => {
    const where = { method: name, ...(method.place !== undefined && { place: method.place }) }
    at = { ...where, path: "payload" }
    const payload = payloadOf(method.payload)
    at = { ...where, path: "return" }
    const success = method.success.kind === "null" && !method.stream ? undefined : writer.schema(method.success)
    const errors = method.raises.map((each) => writer.schema({ kind: "ref", name: each }))
    const properties = [
      ...(payload === undefined ? [] : [{ name: "payload", value: payload }]),
      ...(success === undefined ? [] : [{ name: "success", value: success }]),
      ...(errors.length === 0
        ? []
        : [
            {
              name: "error",
              value: errors.length === 1 ? errors[0]! : Syntax.call("Schema.Union", Syntax.array(errors))
            }
          ]),
      ...(method.stream ? [{ name: "stream", value: "true" }] : [])
    ]
    const args = properties.length === 0 ? [] : [Syntax.object(properties)]
    return [...Syntax.withComment(Syntax.comment(method.doc)), Syntax.call("Rpc.make", Syntax.string(name), ...args)]
  }

  const declarations = graph.order.map((name) => declarationOf(name, definitions[name]!))
  const callable = Object.entries(methods).filter(([, { success }]) => success.kind !== "handle")
  const handles = Object.entries(methods).filter(([, { success }]) => success.kind === "handle")
  const rpcs = callable.map(([name, method]) => rpcOf(name, method))
  const groupDoc = Syntax.comment(
    "The handlers of the module.",
    handles.length === 0
      ? undefined
      : `Objects that stay in Python are not among them, and are acquired with \`Synapse.acquire\`: ${handles.map(([name]) => `\`${name}\``).join(", ")}.`
  )
  const groupClass: Doc = [
    ...Syntax.withComment(groupDoc),
    `export class ${groupName} extends `,
    group(["RpcGroup.make(", indent([softline, join(rpcs, [",", line])]), softline, ")"]),
    " {}"
  ]
  const recursive: ReadonlyArray<Doc> =
    graph.cycles.size === 0
      ? []
      : [
          [
            "/** The schema of a type that contains itself. */",
            hardline,
            `type Recursive<A> = Schema.Codec<A, unknown> & { readonly "~type.make": A; readonly "~type.make.in": A }`
          ]
        ]
  const blocks: ReadonlyArray<Doc> = [
    [
      join(
        [
          `// Generated by effect-synapse from the handlers of a Python module. Do not edit it: make it anew with`,
          `// ${oneLine(command)}`
        ],
        hardline
      ),
      hardline,
      importsOf(imports, rpcs.length > 0)
    ],
    ...recursive,
    ...declarations,
    groupClass
  ]
  return {
    source: `${render(join(blocks, [hardline, hardline]), width)}\n`,
    findings: problems.map((problem) => ({
      severity: allowUnknown ? "warning" : "error",
      message: describe(problem)
    }))
  }
}

const oneLine = (text: string): string => text.replaceAll(/\s+/g, " ")

const chained = (definition: Definition, expression: Doc, calls: ReadonlyArray<Doc>): Doc =>
  // A schema that is a call with a check has three calls with this one.
  definition.kind === "alias" ? Syntax.chain(expression, ...calls) : [expression, ...calls]

const isReference = (type: Type): boolean => type.kind === "ref" && type.arguments === undefined

const takesNull = (type: Type): boolean =>
  type.kind === "null" || type.kind === "unknown" || (type.kind === "union" && type.members.some(takesNull))

/** Each alternative once. */
const unionOf = (members: ReadonlyArray<Type>): Type => {
  const seen = new Map(
    members
      .flatMap((member) => (member.kind === "union" ? member.members : [member]))
      .map((member) => [contractText(member), member])
  )
  const [only, ...others] = seen.values()
  return others.length === 0 && only !== undefined ? only : { kind: "union", members: [...seen.values()] }
}

const declaredUnion = (head: string, members: ReadonlyArray<Doc>): Doc =>
  group([`export type ${head} =`, indent([lineOr(" ", "| "), join(members, lineOr(" | ", "| "))])])

const enumOf = (members: (Definition & { readonly kind: "enum" })["members"]): Doc => {
  const isEnum = members.every(
    ({ value }) => typeof value === "string" || (typeof value === "number" && Number.isFinite(value))
  )
  return isEnum
    ? Syntax.call("Schema.Enum", Syntax.object(members.map(({ name, value }) => ({ name, value: constant(value) }))))
    : literals(members.map(({ value }) => value))
}

const describeItem = (field: Field, index: number): string =>
  `${index}. \`${field.name}\`${field.doc === undefined ? "" : `: ${oneLine(field.doc)}`}`

const importsOf = (imports: ReadonlySet<Import>, hasRpcs: boolean): Doc => {
  const sorted = (names: ReadonlyArray<Import>) => names.filter((name) => imports.has(name)).toSorted()
  const types = sorted(["BigDecimal", "DateTime", "Duration"]).map((name) => `type ${name}`)
  const own = sorted(["NdArray", "PythonTime", "Synapse"])
  return join(
    [
      `import { ${[...types, "Schema"].join(", ")} } from "effect"`,
      `import { ${hasRpcs ? "Rpc, " : ""}RpcGroup } from "effect/rpc"`,
      ...(own.length === 0 ? [] : [`import { ${own.join(", ")} } from "effect-synapse"`]),
      ...(imports.has("Arrow") ? [`import * as Arrow from "effect-synapse/Arrow"`] : [])
    ],
    hardline
  )
}

const placeOf = (place: Place | undefined): string => (place === undefined ? "" : `${place.file}:${place.line}: `)

const describe = ({ message, method, path, place }: Problem): string => {
  const where = [...(method === "" ? [] : [`\`${method}\``]), ...(path === "" ? [] : [path])].join(", ")
  return `${placeOf(place)}${where}${where === "" ? "" : ": "}${oneLine(message)}`
}
