/** Items of a stream through a schema: those that fit go, the first that does not ends it. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as SchemaIssue from "effect/SchemaIssue"
import { notFitting, type Refused } from "./requestEnd.ts"

/** The items that fit, up to the first that does not. */
export interface Fitting<A> {
  readonly items: ReadonlyArray<A>
  /** Why the item after them does not fit. */
  readonly issue: SchemaIssue.Issue | undefined
}

/** Runs items through a codec. */
export const fitting = Effect.fnUntraced(function* <A, R>(
  run: (item: unknown) => Effect.Effect<A, SchemaIssue.Issue, R>,
  items: ReadonlyArray<unknown>
): Effect.fn.Return<Fitting<A>, never, R> {
  const done: Array<A> = []
  for (const item of items) {
    const running = run(item)
    const exit = isExit(running) ? running : yield* Effect.exit(running)
    if (Exit.isSuccess(exit)) {
      done.push(exit.value)
      continue
    }
    const issue = Cause.findErrorOption(exit.cause)
    if (Option.isNone(issue)) return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
    return { items: done, issue: issue.value }
  }
  return { items: done, issue: undefined }
})

// Most codecs run without waiting: no effect is run for each item.
const isExit = <A, E, R>(effect: Effect.Effect<A, E, R>): effect is Exit.Exit<A, E> => Exit.isExit(effect)

export interface EncodedItems {
  readonly items: ReadonlyArray<unknown>
  /** Why the item after them cannot be sent. */
  readonly refused: Refused | undefined
}

/** Encodes items, of which the first has the place `first` in its stream. */
export const encodeItems = <R>(
  encode: (item: unknown) => Effect.Effect<unknown, SchemaIssue.Issue, R>,
  items: ReadonlyArray<unknown>,
  first: number
): Effect.Effect<EncodedItems, never, R> =>
  Effect.map(fitting(encode, items), ({ issue, items }) => ({
    items,
    refused: issue && notFitting(issue, `$[${first + items.length}]`)
  }))
