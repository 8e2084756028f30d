/** Streams in the input of a call: Python reads them while the call runs, and each runs in the caller's fiber context. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Arr from "effect/Array"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Pull from "effect/Pull"
import * as Schema from "effect/Schema"
import type * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import * as Stream from "effect/Stream"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import { contractAnnotation, type Described } from "./contractAnnotation.ts"
import { Encoder } from "./msgpackEncoder.ts"
import type { Outlet } from "./outlet.ts"
import { failed, Refused, type RequestEnd, succeeded, textOf } from "./requestEnd.ts"
import { encodeItems } from "./streamItems.ts"
import { StreamReference } from "./streamReference.ts"

/** A stream that a payload refers to. */
export interface InputStream {
  readonly reference: StreamReference
  readonly stream: Stream.Stream<unknown, unknown>
  /** The context of the caller. */
  readonly context: Context.Context<never>
}

export interface Extracted {
  /** The input, with references in the place of its streams. */
  readonly input: unknown
  readonly streams: ReadonlyArray<InputStream>
}

const none: ReadonlyArray<InputStream> = []

/**
 * Finds the streams of an input: itself, or fields of a plain object. The input is left as it is, and given back where it
 * has none.
 */
export const extract = (input: unknown, context: Context.Context<never>): Extracted => {
  if (!Predicate.isObject(input)) return { input, streams: none }
  if (Stream.isStream(input)) {
    const found = inputStream(input, context)
    return { input: found.reference, streams: [found] }
  }
  if (!isPlain(input)) return { input, streams: none }
  let replaced: Record<string, unknown> | undefined
  const streams: Array<InputStream> = []
  for (const key of Object.keys(input)) {
    const value = input[key]
    if (!Stream.isStream(value)) continue
    const found = inputStream(value, context)
    streams.push(found)
    replaced ??= { ...input }
    replaced[key] = found.reference
  }
  return replaced === undefined ? { input, streams: none } : { input: replaced, streams }
}

const isPlain = (u: object): u is Readonly<Record<string, unknown>> => {
  const prototype = Object.getPrototypeOf(u)
  return prototype === Object.prototype || prototype === null
}

const inputStream = (
  stream: Stream.Stream<unknown, unknown, unknown>,
  context: Context.Context<never>
): InputStream => ({
  reference: new StreamReference(),
  // What it needs is in the context that it runs in.
  stream: stream as Stream.Stream<unknown, unknown>,
  context
})

/**
 * Runs a stream into an outlet, to its end.
 *
 * @internal
 */
export const send = (stream: Stream.Stream<unknown, unknown>, outlet: Outlet): Effect.Effect<RequestEnd> =>
  Stream.runForEachArray(stream, outlet.send).pipe(Effect.as(succeeded(null)), Effect.catch(endOfFailure))

const endOfFailure = (error: unknown): Effect.Effect<RequestEnd> =>
  error instanceof Refused ? Effect.succeed(error) : Effect.map(encodeFailure(error), failed)

/** An error whose class is a schema goes as the schema says. */
export const encodeFailure = (error: unknown): Effect.Effect<unknown> => {
  const constructor = Predicate.isObject(error) ? error.constructor : undefined
  if (!Schema.isSchema(constructor)) return Effect.succeed(failureOf(error))
  // It can be any schema at all: of one that needs services or does not fit its own values, the fields go.
  const encode = SchemaMsgpack.encode(constructor as unknown as Schema.Codec<unknown, unknown>)
  return Effect.suspend(() => encode(error)).pipe(
    Effect.map((encoded) => (isPlain(encoded as object) ? { ...messageOf(error), ...(encoded as object) } : encoded)),
    Effect.catchCause(() => Effect.succeed(failureOf(error)))
  )
}

const messageOf = (error: unknown): { readonly message?: string } =>
  error instanceof Error && error.message !== "" ? { message: error.message } : {}

/** A failure as Python gets it: a map with `_tag` and `message` of what is an error, any other value as it is. */
const failureOf = (error: unknown): unknown => {
  const tag = Predicate.hasProperty(error, "_tag") && typeof error._tag === "string" ? error._tag : undefined
  if (!(error instanceof Error)) {
    if (isCarried(error)) return error
    if (tag === undefined) return { _tag: "Error", message: textOf(error).toWellFormed() }
  }
  const { stack: _, ...fields } = error as Readonly<Record<string, unknown>>
  return {
    _tag: tag ?? ((error as Error).name || "Error"),
    message: error instanceof Error ? error.message.toWellFormed() : "",
    ...Object.fromEntries(Object.entries(fields).filter(([, value]) => isCarried(value)))
  }
}

const isCarried = (value: unknown): boolean => {
  try {
    new Encoder().encode(value)
    return true
  } catch {
    return false
  }
}

/**
 * A stream in the input of a call whose items are encoded with a schema.
 *
 * **Details**
 *
 * It is for the `payload` of a call, for the input itself or for one of its fields. An item that does not fit ends the
 * stream where it is, after the items before it; Python's reader fails with `EncodeFailed` and the item's path, as
 * `$[3].name`. Python sends no streams this way; the handlers of a test without Python receive them.
 *
 * @category schemas
 * @since 0.1.0
 */
export const StreamOf = <A, E>(item: Schema.Codec<A, E>): Schema.Codec<Stream.Stream<A, unknown>> => {
  const encode = SchemaMsgpack.encode(item)
  const decode = SchemaMsgpack.decode(item)
  return Schema.declare((u): u is Stream.Stream<A, unknown> => Stream.isStream(u), {
    expected: "a Stream",
    [contractAnnotation]: { streamOf: item } satisfies Described,
    toCodecJson: () =>
      Schema.link<Stream.Stream<A, unknown>>()(
        EncodedStream,
        SchemaTransformation.transform({
          decode: (stream: Stream.Stream<unknown, unknown>) => Stream.mapEffect(stream, decode),
          encode: (stream: Stream.Stream<A, unknown>) => encodeStream(stream, encode)
        })
      )
  })
}

const EncodedStream = Schema.declare((u): u is Stream.Stream<unknown, unknown> => Stream.isStream(u), {
  expected: "a Stream",
  toCodecJson: () => undefined
})

const encodeStream = (
  stream: Stream.Stream<unknown, unknown>,
  encode: (item: unknown) => Effect.Effect<unknown, SchemaIssue.Issue>
): Stream.Stream<unknown, unknown> =>
  Stream.transformPull(stream, (pull) =>
    Effect.sync(() => {
      let count = 0
      let refused: Refused | undefined
      const next: Pull.Pull<NonEmptyReadonlyArray<unknown>, unknown> = Effect.suspend(() => {
        if (refused !== undefined) return Effect.fail(refused)
        return Effect.flatMap(pull, (items) =>
          Effect.flatMap(encodeItems(encode, items, count), (encoded) => {
            count += items.length
            refused = encoded.refused
            return Arr.isReadonlyArrayNonEmpty(encoded.items) ? Effect.succeed(encoded.items) : next
          })
        )
      })
      return next
    })
  )
