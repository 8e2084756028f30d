/** What a call is given: from its arguments, a file, or the standard input. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import { badUsage, type Failure } from "./failure.ts"
import { fromJson } from "./json.ts"

/** @internal */
export interface PayloadOptions {
  /** `-`, one JSON text, or pairs. */
  readonly words: ReadonlyArray<string>
  readonly file: string | undefined
}

/** A text that gives a value to a parameter. */
const pair = /^([A-Za-z_][\w.-]*)=(.*)$/s

/** Whether a word can only be a payload, and is not the name of a handler. */
export const isPayload = (word: string): boolean => word === "-" || /^\s*[[{"]/.test(word) || pair.test(word)

/** Nothing is given: an empty map, which fits a handler without parameters. */
export const readPayload = Effect.fnUntraced(function* ({ file, words }: PayloadOptions) {
  if (file !== undefined) {
    if (words.length > 0)
      return yield* Effect.fail(badUsage("Give the payload with --file or as an argument, not both."))
    return yield* parse(yield* readText(file), file)
  }
  if (words.length === 0) return {}
  const [first] = words
  if (words.length === 1 && first === "-") return yield* parse(yield* readStdin, "the standard input")
  if (words.length === 1 && !pair.test(first!)) return yield* parse(first!, "the payload")
  return yield* fromPairs(words)
})

const fromPairs = Effect.fnUntraced(function* (words: ReadonlyArray<string>) {
  const entries: Array<readonly [string, unknown]> = []
  for (const word of words) {
    const match = pair.exec(word)
    if (match === null) {
      return yield* Effect.fail(
        badUsage(`${JSON.stringify(word)} is no key=value pair. Quote JSON as one argument: '{"text": "hi"}'.`)
      )
    }
    entries.push([match[1]!, yield* valueOf(match[2]!)])
  }
  return Object.fromEntries(entries)
})

/** JSON where it is JSON, the bytes of a file after `@`, and else the text itself. */
const valueOf = (text: string): Effect.Effect<unknown, Failure, FileSystem.FileSystem> => {
  if (text.startsWith("@")) return readBytes(text.slice(1))
  return Effect.sync(() => {
    try {
      return fromJson(text)
    } catch {
      return text
    }
  })
}

const parse = (text: string, source: string): Effect.Effect<unknown, Failure> =>
  Effect.try({
    try: () => fromJson(text),
    catch: (error) => badUsage(`${upperFirst(source)} is no JSON: ${(error as SyntaxError).message}`)
  })

const upperFirst = (text: string): string => (text.startsWith("the ") ? `T${text.slice(1)}` : text)

const unreadable = (file: string) => (error: { readonly reason: { readonly _tag: string } }) =>
  badUsage(
    error.reason._tag === "NotFound"
      ? `The file ${file} does not exist.`
      : `The file ${file} cannot be read (${error.reason._tag}).`
  )

const readText = (file: string): Effect.Effect<string, Failure, FileSystem.FileSystem> =>
  FileSystem.FileSystem.pipe(
    Effect.flatMap((fs) => fs.readFileString(file)),
    Effect.mapError(unreadable(file))
  )

const readBytes = (file: string): Effect.Effect<Uint8Array, Failure, FileSystem.FileSystem> =>
  FileSystem.FileSystem.pipe(
    Effect.flatMap((fs) => fs.readFile(file)),
    Effect.mapError(unreadable(file))
  )

const readStdin = Effect.gen(function* () {
  const { stdin } = yield* Stdio.Stdio
  return yield* stdin.pipe(
    Stream.decodeText(),
    Stream.mkString,
    Effect.mapError(() => badUsage("The standard input cannot be read."))
  )
})
