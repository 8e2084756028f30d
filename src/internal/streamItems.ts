/** Items of a stream through a schema: those that fit go, the first that does not ends it. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as SchemaIssue from "effect/SchemaIssue"
import { notFitting, type Refused } from "./requestEnd.ts"

type Encoding = Exit.Exit<unknown, SchemaIssue.Issue>

export interface EncodedItems {
  readonly items: ReadonlyArray<unknown>
  /** Why the item after them cannot be sent. */
  readonly refused: Refused | undefined
}

/** Encodes items, of which the first has the place `first` in its stream. */
export const encodeItems = Effect.fnUntraced(function* <R>(
  encode: (item: unknown) => Effect.Effect<unknown, SchemaIssue.Issue, R>,
  items: ReadonlyArray<unknown>,
  first: number
): Effect.fn.Return<EncodedItems, never, R> {
  const encoded: Array<unknown> = []
  for (const item of items) {
    const encoding = encode(item)
    const exit = Exit.isExit(encoding) ? (encoding as Encoding) : yield* Effect.exit(encoding)
    if (Exit.isSuccess(exit)) {
      encoded.push(exit.value)
      continue
    }
    const issue = Cause.findErrorOption(exit.cause)
    if (Option.isNone(issue)) return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
    return { items: encoded, refused: notFitting(issue.value, `$[${first + encoded.length}]`) }
  }
  return { items: encoded, refused: undefined }
})
