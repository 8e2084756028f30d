/** Pieces of TypeScript source, laid out as biome and prettier do. */
import { type Doc, group, hardline, indent, isBroken, join, line, softline } from "./layout.ts"

/** An array or an object: as the last argument of a call it opens on the line of the call. */
interface Hugged {
  readonly hugged: Doc
}

export type Argument = Doc | Hugged

const isHugged = (argument: Argument): argument is Hugged =>
  typeof argument === "object" && !Array.isArray(argument) && "hugged" in argument

export const docOf = (argument: Argument): Doc => (isHugged(argument) ? argument.hugged : argument)

// Calls with a function among their arguments.
const composing = new WeakSet<object>()

const isComposing = (doc: Doc): boolean => typeof doc === "object" && composing.has(doc)

export const call = (callee: Doc, ...args: ReadonlyArray<Argument>): Doc => {
  const docs = args.map(docOf)
  const made = callOf(callee, args, docs)
  if (docs.some((doc) => typeof doc === "string" && doc.includes("=>"))) composing.add(made)
  return made
}

const callOf = (callee: Doc, args: ReadonlyArray<Argument>, docs: ReadonlyArray<Doc>): object & Doc => {
  const last = args.at(-1)
  if (last === undefined) return [callee, "()"]
  if (isHugged(last) && !docs.slice(0, -1).some(isBroken)) return [callee, "(", join(docs, ", "), ")"]
  // Formatters take several arguments of which one is a call with a function for a composition, one on each line.
  const separator = docs.length > 1 && docs.some(isComposing) ? hardline : line
  return [group([callee, "(", indent([softline, join(docs, [",", separator])]), softline, ")"])]
}

/** Calls on one line, each on its own where they do not fit. Formatters break what has three calls or more. */
export const chain = (first: Doc, ...calls: ReadonlyArray<Doc>): Doc =>
  calls.length < 2 ? [first, ...calls] : group([first, indent(calls.map((each) => [softline, each]))])

export const array = (items: ReadonlyArray<Doc>): Hugged => ({
  hugged: items.length === 0 ? "[]" : group(["[", indent([softline, join(items, [",", line])]), softline, "]"])
})

/** Numbers fill their lines. */
export const numbers = (items: ReadonlyArray<string>): Hugged => ({
  hugged: group([
    "[",
    indent([
      softline,
      items.map((item, i) => {
        const text = i === items.length - 1 ? item : `${item},`
        return i === 0 ? text : group([line, text])
      })
    ]),
    softline,
    "]"
  ])
})

export interface Property {
  readonly name: string
  readonly value: Doc
  /** A comment before it. */
  readonly doc?: Doc | undefined
}

/** An object with each property on a line of its own. */
export const object = (properties: ReadonlyArray<Property>): Hugged => ({
  hugged:
    properties.length === 0
      ? "{}"
      : ["{", indent([hardline, join(properties.map(propertyOf), [",", hardline])]), hardline, "}"]
})

/** An object on one line where it fits. */
export const inlineObject = (properties: ReadonlyArray<Property>): Hugged => ({
  hugged:
    properties.length === 0
      ? "{}"
      : group(["{", indent([line, join(properties.map(propertyOf), [",", line])]), line, "}"])
})

const propertyOf = ({ doc, name, value }: Property): Doc => [...withComment(doc), key(name), ": ", value]

export const withComment = (doc: Doc | undefined): ReadonlyArray<Doc> => (doc === undefined ? [] : [doc, hardline])

const plainName = /^[\p{ID_Start}_$][\p{ID_Continue}$]*$/u

/** A property's name as it stands in an object or an interface. */
export const key = (name: string): string => {
  // Written plainly it sets the prototype.
  if (name === "__proto__") return `["__proto__"]`
  return plainName.test(name) ? name : string(name)
}

/** Quoted as takes the least escapes. What ends a line for some does not stand in it: the end of a line is trimmed. */
export const string = (text: string): string => {
  const quoted = JSON.stringify(text).replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029")
  const doubles = text.split('"').length
  const singles = text.split("'").length
  if (doubles <= singles) return quoted
  return `'${quoted.slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`
}

export const number = (value: number | bigint): string =>
  typeof value === "bigint" ? `${value}n` : Object.is(value, -0) ? "-0" : String(value).replace("e+", "e")

/** A doc comment; nothing where there is no text. It cannot be ended by what it says. */
export const comment = (...paragraphs: ReadonlyArray<string | undefined>): Doc | undefined => {
  const text = paragraphs
    .filter((paragraph) => paragraph !== undefined && paragraph.trim() !== "")
    .join("\n\n")
    .replaceAll("*/", "*\\/")
    .trim()
  if (text === "") return undefined
  const lines = text.split(/\r\n|[\n\r\u2028\u2029]/).map((each) => each.trimEnd())
  const [first] = lines
  if (lines.length === 1 && first !== undefined && first.length <= 100) return `/** ${first} */`
  return ["/**", hardline, lines.map((each): Doc => [each === "" ? " *" : ` * ${each}`, hardline]), " */"]
}
