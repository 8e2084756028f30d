/** Text that is laid out to a width: groups are on one line where they fit, and broken at all of their lines where not. */

/** A piece of text with the places where it may be broken. */
export type Doc =
  | string
  | ReadonlyArray<Doc>
  | { readonly kind: "line"; readonly flat: string; readonly broken: string; readonly hard: boolean }
  | { readonly kind: "indent"; readonly content: Doc }
  | { readonly kind: "group"; readonly content: Doc }

/** A break, or nothing. */
export const softline: Doc = { kind: "line", flat: "", broken: "", hard: false }
/** A break, or a space. */
export const line: Doc = { kind: "line", flat: " ", broken: "", hard: false }
/** A break with a text after it, or another text in its place. */
export const lineOr = (flat: string, broken: string): Doc => ({ kind: "line", flat, broken, hard: false })
/** A break; every group around it is broken. */
export const hardline: Doc = { kind: "line", flat: "", broken: "", hard: true }

export const indent = (content: Doc): Doc => ({ kind: "indent", content })

export const group = (content: Doc): Doc => ({ kind: "group", content })

export const join = (docs: ReadonlyArray<Doc>, separator: Doc): Doc =>
  docs.flatMap((doc, i) => (i === 0 ? [doc] : [separator, doc]))

/** Whether a piece cannot be on one line. */
export const isBroken = (doc: Doc): boolean => {
  if (typeof doc === "string") return false
  if (!("kind" in doc)) return doc.some(isBroken)
  return doc.kind === "line" ? doc.hard : isBroken(doc.content)
}

interface Pending {
  readonly doc: Doc
  readonly depth: number
  readonly flat: boolean
}

const indentation = "  "

/** Lays a piece out. Lines have no trailing spaces. */
export const render = (doc: Doc, width: number): string => {
  let out = ""
  let column = 0
  const pending: Array<Pending> = [{ doc, depth: 0, flat: false }]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { depth, doc, flat } = next
    if (typeof doc === "string") {
      out += doc
      column += doc.length
    } else if (!("kind" in doc)) {
      for (const each of doc.toReversed()) pending.push({ doc: each, depth, flat })
    } else if (doc.kind === "indent") {
      pending.push({ doc: doc.content, depth: depth + 1, flat })
    } else if (doc.kind === "group") {
      const isFlat = flat || (!isBroken(doc.content) && fits(doc.content, depth, pending, width - column))
      pending.push({ doc: doc.content, depth, flat: isFlat })
    } else if (flat) {
      out += doc.flat
      column += doc.flat.length
    } else {
      const start = indentation.repeat(depth) + doc.broken
      out += `\n${start}`
      column = start.length
    }
  }
  return out.replaceAll(/[ ]+$/gm, "")
}

/** Whether a piece, and what follows it up to the next break, fits into a width. */
const fits = (doc: Doc, depth: number, rest: ReadonlyArray<Pending>, width: number): boolean => {
  let left = width
  let index = rest.length
  const pending: Array<Pending> = [{ doc, depth, flat: true }]
  while (left >= 0) {
    const next = pending.pop() ?? rest[--index]
    if (next === undefined) return true
    if (typeof next.doc === "string") left -= next.doc.length
    else if (!("kind" in next.doc)) for (const each of next.doc.toReversed()) pending.push({ ...next, doc: each })
    else if (next.doc.kind !== "line") pending.push({ ...next, doc: next.doc.content })
    else if (!next.flat) return true
    else left -= next.doc.flat.length
  }
  return false
}
