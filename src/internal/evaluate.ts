/** Python in a template literal: its source, and where it stands in the TypeScript file. */
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as Envelope from "../Envelope.ts"
import type { Evaluate } from "../Synapse.ts"
import { SynapseError, Unsupported } from "../SynapseError.ts"
import { answerOf } from "./answer.ts"
import { type Calls, exchange } from "./call.ts"

/** A place in a source file; `line` counts from 1. */
export interface Place {
  readonly file: string | null
  readonly line: number
}

/** The payload of `$evaluate`. */
export interface Code extends Place {
  readonly source: string
  readonly bindings: Readonly<Record<string, unknown>>
}

// A literal is the same object each time it is reached.
const places = new WeakMap<TemplateStringsArray, Place>()

/** Notes where a literal stands. `caller` is the function that the code around it called. */
export const rememberPlace = (literal: TemplateStringsArray, caller: Function): void => {
  if (!places.has(literal)) places.set(literal, placeOf(literal, caller))
}

/**
 * The code of a literal whose place was noted. A value that is put into it is bound to a name of its own, and never becomes
 * a part of the source.
 */
export const codeOf = (
  literal: TemplateStringsArray,
  values: ReadonlyArray<unknown>,
  bindings: Readonly<Record<string, unknown>>
): Code => {
  const place = places.get(literal) ?? { file: null, line: 1 }
  const bound: Record<string, unknown> = { ...bindings }
  let source = ""
  // As it is written: a backslash is Python's, but for those that the literal itself needs.
  for (const [index, part] of literal.raw.entries()) {
    source += part.replaceAll("\\`", "`").replaceAll("\\${", "${")
    if (index >= values.length) break
    let name = `_value_${index + 1}`
    while (Object.hasOwn(bound, name)) name = `_${name}`
    bound[name] = values[index]
    source += name
  }
  return { ...place, source, bindings: bound }
}

const placeOf = (literal: TemplateStringsArray, caller: Function): Place => {
  const called = calledAt(caller)
  if (called.file === null) return called
  let text: string
  try {
    text = readFileSync(called.file, "utf8")
  } catch {
    return called
  }
  // The call may begin lines before its literal: the file knows where that stands.
  const lines = startsOf(text, literal.raw[0]!)
  const near = lines.reduce<number | undefined>(
    (best, line) => (best === undefined || Math.abs(line - called.line) < Math.abs(best - called.line) ? line : best),
    undefined
  )
  return { file: called.file, line: near ?? called.line }
}

const startsOf = (text: string, part: string): ReadonlyArray<number> => {
  const lines: Array<number> = []
  const quoted = `\`${part}`
  for (let at = text.indexOf(quoted); at !== -1; at = text.indexOf(quoted, at + 1)) {
    lines.push(text.slice(0, at).split("\n").length)
  }
  return lines
}

const calledAt = (caller: Function): Place => {
  const limit = Error.stackTraceLimit
  const holder: { stack?: string } = {}
  Error.stackTraceLimit = 1
  Error.captureStackTrace(holder, caller)
  Error.stackTraceLimit = limit
  // `at name (file:1:2)` or `at file:1:2`; the file's path may have parentheses of its own.
  const place = /^\s*at (?:async )?(?:.*? \()?(.+):(\d+):\d+\)?$/m.exec(holder.stack ?? "")
  if (place === null) return { file: null, line: 1 }
  const [, file, line] = place
  return { file: file!.startsWith("file:") ? fileURLToPath(file!) : file!, line: Number(line) }
}

/** Makes the `evaluate` of a runtime. */
export const makeEvaluate =
  (calls: Calls, allowed: boolean): Evaluate =>
  (schema, bindings, options) =>
    function evaluate(literal, ...values) {
      rememberPlace(literal, evaluate)
      if (!allowed) return Effect.fail(notAllowed)
      const code = codeOf(literal, values, bindings ?? {})
      return Effect.flatMap(
        exchange(calls, code, { ...options, method: Envelope.evaluateMethod }, {}),
        answerOf(schema, Envelope.evaluateMethod, options?.parseJson ?? false)
      )
    }

const notAllowed = new SynapseError({
  reason: new Unsupported({
    method: Envelope.evaluateMethod,
    detail: "running code is off: set `evaluate: true` in the options of the layer",
    delivery: "notSent"
  })
})
