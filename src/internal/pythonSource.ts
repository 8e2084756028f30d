/** Python source, laid out as `ruff format` lays it out by default, and names that Python takes. */

/** Columns of a line. */
const width = 88
const step = "    "

/** An expression that can be broken over lines at its brackets. */
export type Expression =
  | string
  | {
      readonly open: string
      readonly close: string
      readonly items: ReadonlyArray<Expression>
      /** Whether a comma may follow a single item: as the argument of a type it would make a tuple. */
      readonly comma: boolean
    }
  | { readonly anyOf: ReadonlyArray<Expression> }

/** A type with arguments. */
export const generic = (name: string, ...items: ReadonlyArray<Expression>): Expression => ({
  open: `${name}[`,
  close: "]",
  items,
  comma: false
})

export const call = (name: string, ...items: ReadonlyArray<Expression>): Expression => ({
  open: `${name}(`,
  close: ")",
  items,
  comma: true
})

export const list = (before: string, items: ReadonlyArray<Expression>): Expression => ({
  open: `${before}[`,
  close: "]",
  items,
  comma: true
})

export const flat = (expression: Expression): string => {
  if (typeof expression === "string") return expression
  if ("anyOf" in expression) return expression.anyOf.map(flat).join(" | ")
  return `${expression.open}${expression.items.map(flat).join(", ")}${expression.close}`
}

export const fits = (indent: string, before: string, expression: Expression, after: string): boolean =>
  indent.length + before.length + flat(expression).length + after.length <= width

/** The lines of an expression between what stands before and after it. A union stands in brackets of its own. */
export const layout = (
  indent: string,
  before: string,
  expression: Expression,
  after: string
): ReadonlyArray<string> => {
  if (typeof expression === "object" && "anyOf" in expression && !fits(indent, before, expression, after)) {
    const together = fits(indent + step, "", expression, "")
    const inner = together ? [`${indent}${step}${flat(expression)}`] : bracketed(indent + step, "", expression, "")
    return [`${indent}${before}(`, ...inner, `${indent})${after}`]
  }
  return bracketed(indent, before, expression, after)
}

/** The same within brackets. */
const bracketed = (indent: string, before: string, expression: Expression, after: string): ReadonlyArray<string> => {
  if (typeof expression === "string" || fits(indent, before, expression, after)) {
    return [`${indent}${before}${flat(expression)}${after}`]
  }
  if ("anyOf" in expression) {
    const last = expression.anyOf.length - 1
    return expression.anyOf.flatMap((member, i) =>
      bracketed(indent, i === 0 ? before : "| ", member, i === last ? after : "")
    )
  }
  const { close, items, open } = expression
  if (items.length === 0) return [`${indent}${before}${open}${close}${after}`]
  const comma = expression.comma || items.length > 1 ? "," : ""
  return [
    `${indent}${before}${open}`,
    ...items.flatMap((item) => bracketed(indent + step, "", item, comma)),
    `${indent}${close}${after}`
  ]
}

/** Joins parts with as many empty lines between them. */
export const separated = (parts: ReadonlyArray<ReadonlyArray<string>>, emptyLines: number): ReadonlyArray<string> =>
  parts.flatMap((part, i) => (i === 0 ? part : [...Array.from({ length: emptyLines }, () => ""), ...part]))

export const indented = (lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.map((line) => (line === "" ? "" : step + line))

/** The lines of a docstring. */
export const docstring = (text: string, indent = ""): ReadonlyArray<string> => {
  const lines = textLines(text).map((line) => line.replaceAll("\\", "\\\\").replaceAll('"""', '\\"\\"\\"'))
  const [first = "", ...more] = lines
  if (more.length === 0) return [`${indent}"""${first}${first.endsWith('"') ? " " : ""}"""`]
  return [`${indent}"""${first}`, ...more.map((line) => (line === "" ? "" : indent + line)), `${indent}"""`]
}

/** Control characters say nothing to a reader, and something to Python. */
const textLines = (text: string): ReadonlyArray<string> => {
  const lines = text
    .replaceAll("\t", step)
    .split(/\r\n|[\n\r\u2028\u2029\u0085]/)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
    .map((line) => line.replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, " ").trimEnd())
  const [first = "", ...more] = lines
  const common = Math.min(...more.filter((line) => line !== "").map((line) => line.length - line.trimStart().length))
  const rest = more.map((line) => line.slice(Number.isFinite(common) ? common : 0))
  const all = [first.trimStart(), ...rest]
  while (all.length > 1 && all.at(-1) === "") all.pop()
  while (all.length > 1 && all[0] === "") all.shift()
  return all
}

/** A string in the quotes that need fewer escapes. */
export const quoted = (text: string): string => {
  const escaped = JSON.stringify(text).slice(1, -1).replaceAll("\u007f", "\\u007f")
  const double = text.split('"').length - 1
  const single = text.split("'").length - 1
  return double > single ? `'${escaped.replaceAll('\\"', '"').replaceAll("'", "\\'")}'` : `"${escaped}"`
}

const keywords = new Set(
  (
    "False None True and as assert async await break class continue def del elif else except finally for from global if " +
    "import in is lambda nonlocal not or pass raise return try while with yield"
  ).split(" ")
)

/** Whether a name can be written as it is. Within classes, names that begin with two underscores change. */
export const isIdentifier = (name: string): boolean =>
  /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && !keywords.has(name) && !name.startsWith("__")

/** A name that can be written, and looks like this one. */
export const toIdentifier = (name: string): string => {
  const word = name.replaceAll(/[^A-Za-z0-9_]/g, "_").replace(/^__+/, "_")
  const begun = /^[A-Za-z_]/.test(word) ? word : `_${word}`
  return keywords.has(begun) ? `${begun}_` : begun
}

/** The same for a name that is public. */
export const toPublicName = (name: string): string => {
  const word = toIdentifier(name).replace(/^_+/, "")
  return isIdentifier(word) ? word : toIdentifier(`n${word}`)
}
