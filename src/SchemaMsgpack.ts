/**
 * The MessagePack form of every schema.
 *
 * A schema describes values in TypeScript; {@link toCodecMsgpack} derives from it the codec between those values and
 * what MessagePack and Python carry. It is `Schema.toCodecJson`, except that what JSON lacks stays as it is: bytes,
 * 64-bit integers, NaN and the infinities, instants, maps with keys that are not strings, typed arrays. A
 * `Schema.Duration` is the ISO 8601 text of a `timedelta`, a `Schema.BigDecimal` the text of a `Decimal`.
 *
 * @since 0.1.0
 */
import * as DateTime from "effect/DateTime"
import type * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaParser from "effect/SchemaParser"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { ArrowStream } from "./internal/arrowStream.ts"
import { formatPath } from "./internal/msgpack.ts"
import * as NdArray from "./NdArray.ts"

// The derivation of a JSON codec asks each declaration for its link; none means that the value is canonical already.
const native = (): undefined => undefined
/** The same for values that can be the key of a map. */
const nativeKey = (): undefined => undefined

const NativeBigInt = Schema.declare((u): u is bigint | number => typeof u === "bigint" || Number.isSafeInteger(u), {
  expected: "an integer",
  toCodecJson: nativeKey
})

// An integer past 2^53 arrives as a bigint, which is refused here rather than rounded.
const NativeNumber = Schema.declare(Predicate.isNumber, { expected: "number", toCodecJson: nativeKey })

const NativeNil = Schema.declare((u): u is null | undefined => u === null || u === undefined, {
  expected: "null",
  toCodecJson: native
})

// The length is looked at first: the text comes from the worker, and the pattern takes time with its square.
const isInstant = (u: unknown): u is Date | string =>
  u instanceof Date ||
  (typeof u === "string" && u.length <= 64 && /T.*(Z|[+-]\d\d:?\d\d)$/i.test(u) && !Number.isNaN(Date.parse(u)))

// Text needs its time zone: without one it would be taken for local time.
const NativeInstant = Schema.declare(isInstant, {
  expected: "an instant (a datetime with tzinfo)",
  toCodecJson: native
})

type Pairs = ReadonlyArray<readonly [unknown, unknown]>

const isPairs = (u: unknown): u is Pairs =>
  Array.isArray(u) && u.every((pair) => Array.isArray(pair) && pair.length === 2)

const isRecord = (u: unknown): u is Readonly<Record<string, unknown>> =>
  Predicate.isObject(u) && (Object.getPrototypeOf(u) === Object.prototype || Object.getPrototypeOf(u) === null)

const mapExpected = "a map with string keys"

type MapLike = ReadonlyMap<unknown, unknown> | Readonly<Record<string, unknown>> | Pairs

const NativeMap = Schema.declare((u): u is MapLike => u instanceof Map || isRecord(u) || isPairs(u), {
  expected: "a map",
  toCodecJson: native
})

const bigintLink = Schema.link<bigint>()(
  NativeBigInt,
  SchemaTransformation.transform({
    decode: (n: bigint | number) => BigInt(n),
    encode: (n: bigint): bigint | number => n
  })
)

const undefinedLink = Schema.link<undefined>()(
  NativeNil,
  SchemaTransformation.transform({ decode: (_: null | undefined) => undefined, encode: (): null | undefined => null })
)

// Whoever declares `void` ignores what comes.
const voidLink = Schema.link<undefined>()(
  Schema.Any,
  SchemaTransformation.transform({ decode: () => undefined, encode: () => null })
)

const dateLink = Schema.link<Date>()(
  NativeInstant,
  SchemaTransformation.transform({
    decode: (instant: Date | string) => new Date(instant),
    encode: (date: Date): Date | string => date
  })
)

const utcLink = Schema.link<DateTime.Utc>()(
  NativeInstant,
  SchemaTransformation.transform({
    decode: (instant: Date | string) => DateTime.fromDateUnsafe(new Date(instant)),
    encode: (utc: DateTime.Utc): Date | string => DateTime.toDateUtc(utc)
  })
)

const durationLink = Schema.DurationFromIsoString.ast.encoding![0]

const canonical = (schema: Schema.Top): Schema.Codec<unknown> =>
  Schema.make<Schema.Codec<unknown>>(Schema.toCodecJson(schema).ast)

/** Whether every value of an encoded schema can be the key of a map in MessagePack. */
const isKey = (ast: SchemaAST.AST): boolean => {
  switch (ast._tag) {
    case "String":
    case "Boolean":
    case "Literal":
    case "TemplateLiteral":
    case "Enum":
    case "Any":
      return true
    case "Declaration":
      return ast.annotations?.toCodecJson === nativeKey
    case "Union":
      return ast.types.every(isKey)
    default:
      return false
  }
}

const pairsFromMap = SchemaTransformation.transform({
  decode: (map: MapLike): Pairs => (map instanceof Map ? Array.from(map) : isPairs(map) ? map : Object.entries(map)),
  encode: (pairs: Pairs): MapLike => new Map(pairs)
})

const entriesOf = (key: Schema.Top, value: Schema.Top) => {
  const entries = Schema.Array(Schema.Tuple([canonical(key), canonical(value)]))
  return isKey(SchemaAST.toEncoded(canonical(key).ast))
    ? NativeMap.pipe(Schema.decodeTo(entries, pairsFromMap))
    : entries
}

const mapAnnotations = {
  toCodecJson: ([key, value]: readonly [Schema.Top, Schema.Top]) =>
    Schema.link<ReadonlyMap<unknown, unknown>>()(
      entriesOf(key, value),
      SchemaTransformation.transform({
        decode: (entries: Pairs): ReadonlyMap<unknown, unknown> => new Map(entries),
        encode: (map: ReadonlyMap<unknown, unknown>): Pairs => Array.from(map)
      })
    )
}

const hashMapAnnotations = {
  toCodecJson: ([key, value]: readonly [Schema.Top, Schema.Top]) =>
    Schema.link<HashMap.HashMap<unknown, unknown>>()(
      entriesOf(key, value),
      SchemaTransformation.transform({
        decode: (entries: Pairs) => HashMap.fromIterable(entries),
        encode: (map: HashMap.HashMap<unknown, unknown>): Pairs => Array.from(map)
      })
    )
}

const copy = <A extends SchemaAST.AST>(ast: A, changes: { readonly [key: string]: unknown }): A =>
  Object.assign(Object.create(Object.getPrototypeOf(ast)), ast, changes)

/** Ends an encoding in `link`. What an optional key is encoded to has to be optional too. */
const encodeTo = <A extends SchemaAST.AST>(ast: A, link: SchemaAST.Link): A => {
  const context = ast.context
  if (context === undefined) return copy(ast, { encoding: [link] })
  const optional = new SchemaAST.Context(context.isOptional, context.isMutable, undefined, context.annotations)
  const to = copy(link.to, { context: optional })
  return copy(ast, { encoding: [new SchemaAST.Link(to, link.transformation)] })
}

const annotate = <A extends SchemaAST.AST>(ast: A, annotations: { readonly [key: string]: unknown }): A =>
  copy(ast, { annotations: { ...ast.annotations, ...annotations } })

const declaration = (ast: SchemaAST.Declaration): SchemaAST.AST => {
  const own = ast.typeParameters.length === 0 ? ast : copy(ast, { typeParameters: ast.typeParameters.map(toNative) })
  const representation = ast.annotations?.representation
  switch (Predicate.hasProperty(representation, "id") ? representation.id : undefined) {
    case "effect/schema/Uint8Array":
      return annotate(own, { toCodecJson: nativeKey })
    case "effect/schema/Date":
      return encodeTo(own, dateLink)
    case "effect/schema/DateTimeUtc":
      return encodeTo(own, utcLink)
    case "effect/schema/Duration":
      return encodeTo(own, durationLink)
    case "effect/schema/ReadonlyMap":
      return annotate(own, mapAnnotations)
    case "effect/schema/HashMap":
      return annotate(own, hashMapAnnotations)
    default:
      return own
  }
}

// Any object has properties, a `Map` of other keys and a `Date` too: a struct without required keys would take them for
// empty. As a check of the encoded side this leaves the choice between the members of a union to their tags.
const onlyStringKeys = Schema.makeFilter((u: object) => isRecord(u), { expected: mapExpected })

const memo = new WeakMap<SchemaAST.AST, SchemaAST.AST>()

/** The same schema with every leaf that MessagePack carries made canonical. */
const toNative = (ast: SchemaAST.AST): SchemaAST.AST => {
  let out = memo.get(ast)
  if (out === undefined) {
    out = nativeStep(ast)
    memo.set(ast, out)
  }
  return out
}

const nativeStep = (ast: SchemaAST.AST): SchemaAST.AST => {
  const last = ast.encoding?.at(-1)
  if (ast.encoding !== undefined && last !== undefined) {
    const link = new SchemaAST.Link(toNative(last.to), last.transformation)
    return copy(ast, { encoding: [...ast.encoding.slice(0, -1), link] })
  }
  switch (ast._tag) {
    case "BigInt":
      return encodeTo(ast, bigintLink)
    case "Literal":
      return typeof ast.literal === "bigint" ? encodeTo(ast, bigintLink) : ast
    case "Number": {
      const { checks, context } = ast
      return annotate(copy(NativeNumber.ast, { annotations: ast.annotations, checks, context }), {
        ...NativeNumber.ast.annotations
      })
    }
    case "Undefined":
      return encodeTo(ast, undefinedLink)
    case "Void":
      return encodeTo(ast, voidLink)
    case "Unknown":
      return new SchemaAST.Any(ast.annotations, ast.checks, undefined, ast.context)
    case "Declaration":
      return declaration(ast)
    case "Arrays":
      return copy(ast, { elements: ast.elements.map(toNative), rest: ast.rest.map(toNative) })
    case "Objects":
      return new SchemaAST.Objects(
        ast.propertySignatures.map(
          (property) => new SchemaAST.PropertySignature(property.name, toNative(property.type))
        ),
        ast.indexSignatures.map((index) => new SchemaAST.IndexSignature(index.parameter, toNative(index.type))),
        ast.annotations,
        ast.checks,
        undefined,
        ast.context,
        [...(ast.encodingChecks ?? []), onlyStringKeys]
      )
    case "Union":
      return copy(ast, { types: ast.types.map(toNative) })
    case "Suspend":
      return copy(ast, { thunk: () => toNative(ast.thunk()) })
    default:
      return ast
  }
}

/**
 * Derives the codec between a schema's values and their MessagePack form.
 *
 * **Details**
 *
 * | schema | in MessagePack |
 * | --- | --- |
 * | `Number`, `Finite`, `Int` | integer or float; an integer past 2^53 is refused |
 * | `BigInt` | integer |
 * | `Uint8Array` | bytes |
 * | `Date`, `DateTimeUtc` | timestamp; text with a time zone is accepted |
 * | `Duration` | ISO 8601 text, as of a `timedelta` |
 * | `BigDecimal` | text, as of a `Decimal` |
 * | `ReadonlyMap`, `HashMap` | map when its keys are strings, numbers, booleans or bytes; else an array of pairs |
 * | `ReadonlySet`, `HashSet` | array |
 * | typed arrays and n-dimensional arrays (`NdArray`) | extension 1 |
 * | tables and record batches (`Arrow`) | extension 4 |
 * | `Undefined` | nil |
 * | `Void` | nil; anything is accepted and dropped |
 * | `Unknown`, `Any` | what is there |
 * | everything else | as in `Schema.toCodecJson` |
 *
 * **Gotchas**
 *
 * In `Schema.Union([Schema.BigInt, Schema.Number])` small integers are bigints; put the member that shall win first.
 *
 * **Example** (Bytes and instants without text)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { SchemaMsgpack } from "effect-synapse"
 *
 * const File = Schema.Struct({ content: Schema.Uint8Array, modified: Schema.Date })
 *
 * const encoded = Schema.encodeSync(SchemaMsgpack.toCodecMsgpack(File))({
 *   content: Uint8Array.of(1, 2, 3),
 *   modified: new Date(0)
 * })
 *
 * console.log(encoded) // { content: Uint8Array(3) [ 1, 2, 3 ], modified: 1970-01-01T00:00:00.000Z }
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const toCodecMsgpack = <A, E, RD, RE>(schema: Schema.Codec<A, E, RD, RE>): Schema.Codec<A, unknown, RD, RE> =>
  Schema.make<Schema.Codec<A, unknown, RD, RE>>(Schema.toCodecJson(Schema.make<Schema.Top>(toNative(schema.ast))).ast)

// What was found is part of the message; see `describeIssue` for how much of it.
const parseOptions: SchemaAST.ParseOptions = { reportInput: true }

const decoders = new WeakMap<SchemaAST.AST, (input: unknown) => unknown>()
const encoders = new WeakMap<SchemaAST.AST, (input: unknown) => unknown>()

/**
 * Prepares the decoder of a schema from what MessagePack carried. It is kept for as long as the schema.
 *
 * **Details**
 *
 * It runs as soon as it is applied. Where nothing asynchronous and no failed alternative of a union was in the way,
 * what it returns is an `Exit` already (`Exit.isExit` tells): running it costs nothing.
 *
 * @category running
 * @since 0.1.0
 */
export const decode = <A, RD>(
  schema: Schema.Decoder<A, RD>
): ((input: unknown) => Effect.Effect<A, SchemaIssue.Issue, RD>) => {
  const prepared = decoders.get(schema.ast)
  if (prepared !== undefined) return prepared as (input: unknown) => Effect.Effect<A, SchemaIssue.Issue, RD>
  const run = SchemaParser.decodeUnknownEffect(toCodecMsgpack(schema), parseOptions)
  decoders.set(schema.ast, run)
  return run
}

/**
 * Prepares the encoder of a schema to what MessagePack carries; the counterpart of {@link decode}.
 *
 * **Details**
 *
 * The input is `unknown` because it is checked: one that does not fit the schema fails.
 *
 * @category running
 * @since 0.1.0
 */
export const encode = <A, E, RD, RE>(
  schema: Schema.Codec<A, E, RD, RE>
): ((input: unknown) => Effect.Effect<unknown, SchemaIssue.Issue, RE>) => {
  const prepared = encoders.get(schema.ast)
  if (prepared !== undefined) return prepared as (input: unknown) => Effect.Effect<unknown, SchemaIssue.Issue, RE>
  const run = SchemaParser.encodeUnknownEffect(toCodecMsgpack(schema), parseOptions)
  encoders.set(schema.ast, run)
  return run
}

const shownLength = 60

const shorten = (text: string): string => (text.length > shownLength ? `${text.slice(0, shownLength)}…` : text)

/** A short description, whatever the size of the value. */
const describe = (u: unknown): string => {
  if (typeof u === "string") return JSON.stringify(shorten(u))
  if (typeof u === "bigint") return `the integer ${shorten(String(u))}`
  if (!Predicate.isObjectOrArray(u)) return String(u)
  if (Array.isArray(u)) return `a list of ${u.length}`
  if (u instanceof Uint8Array) return `${u.length} bytes`
  if (u instanceof Date) return Number.isNaN(u.getTime()) ? "an invalid Date" : u.toISOString()
  if (NdArray.isNdArray(u)) return `an array of ${u.dtype} with shape [${u.shape.join(", ")}]`
  if (NdArray.isTypedArray(u)) return describe(NdArray.fromTypedArray(u))
  if (u instanceof Map) return `a map with keys that are not strings`
  if (u instanceof ArrowStream) return `an Arrow table of ${u.byteLength} bytes`
  if (isRecord(u)) return shorten(`a map with the keys ${Object.keys(u).join(", ")}`)
  return "an object"
}

interface Finding {
  readonly path: ReadonlyArray<PropertyKey>
  readonly message: string
}

/** What MessagePack carries that has properties but is no map with string keys. */
const isNative = (u: unknown): boolean =>
  u instanceof Map || ArrayBuffer.isView(u) || NdArray.isNdArray(u) || u instanceof ArrowStream

const findings = (issue: SchemaIssue.Issue, path: ReadonlyArray<PropertyKey>): ReadonlyArray<Finding> => {
  switch (issue._tag) {
    case "Pointer":
      return findings(issue.issue, [...path, ...issue.path])
    case "Encoding":
      return findings(issue.issue, path)
    case "Composite":
      if (SchemaAST.isObjects(issue.ast) && isNative(issue.input)) {
        return [{ path, message: `Expected ${mapExpected}, got ${describe(issue.input)}` }]
      }
      return issue.issues.flatMap((inner) => findings(inner, path))
    case "AnyOf":
      return issue.issues.length === 0
        ? [{ path, message: messageOf(issue) }]
        : issue.issues.flatMap((inner) => findings(inner, path))
    case "Filter":
      return issue.issue._tag === "InvalidValue" ? [{ path, message: messageOf(issue) }] : findings(issue.issue, path)
    default:
      return [{ path, message: messageOf(issue) }]
  }
}

const format = SchemaIssue.makeFormatterDefault()

/** The formatter prints what it found in full, however large: it is given the issue alone. */
const withoutInput = (issue: SchemaIssue.Issue): SchemaIssue.Issue => {
  const { input: _, ...rest } = issue
  return rest._tag === "Filter" ? { ...rest, issue: withoutInput(rest.issue) } : rest
}

const messageOf = (issue: SchemaIssue.Issue): string => {
  const found = "input" in issue ? `, got ${describe(issue.input)}` : ""
  return `${format(withoutInput(issue))}${found}`
}

/**
 * What was wrong, in one line, and where, as `$.items[3].name`.
 *
 * **Example** (A reply that does not fit)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { SchemaMsgpack } from "effect-synapse"
 *
 * const decode = SchemaMsgpack.decode(Schema.Struct({ items: Schema.Array(Schema.Int) }))
 *
 * Effect.runSync(Effect.flip(decode({ items: [1, "2"] })).pipe(Effect.map(SchemaMsgpack.describeIssue)))
 * // { path: "$.items[1]", issue: 'Expected number, got "2"' }
 * ```
 *
 * @category formatting
 * @since 0.1.0
 */
export const describeIssue = (issue: SchemaIssue.Issue): { readonly path: string; readonly issue: string } => {
  const all = findings(issue, [])
  // Of the alternatives of a union the one that got furthest says most.
  const depth = Math.max(...all.map((finding) => finding.path.length))
  const path = formatPath(all.find((finding) => finding.path.length === depth)?.path ?? [])
  const messages = all.filter((finding) => formatPath(finding.path) === path).map((finding) => finding.message)
  return {
    path,
    issue: Array.from(new Set(messages))
      .join("; ")
      .replaceAll(/\s*\n\s*/g, " ")
  }
}
