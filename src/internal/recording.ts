/**
 * The text of a recording: a line of JSON for each call, in which everything that MessagePack carries is there without loss.
 *
 * What JSON lacks is an object with one key that begins with a dollar sign; a map that has such a key itself is inside of one.
 */
import * as Predicate from "effect/Predicate"
import * as NdArray from "../NdArray.ts"
import { ArrowStream } from "./arrowStream.ts"

/** Stands in a payload for a stream, whose items are not recorded. */
export class InputMark {
  readonly _tag = "InputMark"
}

/** How one call went. */
export interface Recorded {
  /** Counts the calls of a session. */
  readonly call: number
  readonly method: string
  readonly payload: unknown
  /** What the caller asked for beside it. */
  readonly options?: Readonly<Record<string, unknown>> | undefined
  /** What it reported, where somebody listened. */
  readonly progress?: ReadonlyArray<unknown> | undefined
  /** The items of a stream. */
  readonly items?: ReadonlyArray<unknown> | undefined
  /** The end: a stream has none of these when it came to its own. */
  readonly value?: unknown
  /** A `SynapseError`, encoded. */
  readonly error?: unknown
  /** Nobody waited for it any more. */
  readonly interrupted?: true | undefined
}

const header = { synapse: "recording", version: 1 }

export const headerLine = JSON.stringify(header)

/** Arrays with more elements are base64. */
const maxListed = 256

type TypedArray = NdArray.TypedArray

const makers: Readonly<Record<NdArray.DType, (bytes: ArrayBuffer) => TypedArray>> = {
  bool: (bytes) => new Uint8Array(bytes),
  int8: (bytes) => new Int8Array(bytes),
  uint8: (bytes) => new Uint8Array(bytes),
  int16: (bytes) => new Int16Array(bytes),
  uint16: (bytes) => new Uint16Array(bytes),
  int32: (bytes) => new Int32Array(bytes),
  uint32: (bytes) => new Uint32Array(bytes),
  int64: (bytes) => new BigInt64Array(bytes),
  uint64: (bytes) => new BigUint64Array(bytes),
  float32: (bytes) => new Float32Array(bytes),
  float64: (bytes) => new Float64Array(bytes)
}

const base64 = (view: ArrayBufferView): string =>
  Buffer.from(view.buffer, view.byteOffset, view.byteLength).toString("base64")

const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"))

const elementsOf = (data: TypedArray): unknown =>
  data.length > maxListed ? base64(data) : Array.from(data as Iterable<number | bigint>, toJson)

/** A value that MessagePack gave, as JSON. */
export const toJson = (value: unknown): unknown => {
  switch (typeof value) {
    case "number":
      return Number.isFinite(value) && !Object.is(value, -0)
        ? value
        : { $number: Object.is(value, -0) ? "-0" : String(value) }
    case "bigint":
      return { $bigint: String(value) }
    case "undefined":
      return null
    case "object":
      return value === null ? null : objectToJson(value)
    default:
      return value
  }
}

const objectToJson = (value: object): unknown => {
  if (Array.isArray(value)) return value.map(toJson)
  if (value instanceof Uint8Array) return { $bytes: base64(value) }
  if (value instanceof Date) return { $date: value.toISOString() }
  if (value instanceof Map) return { $map: Array.from(value, ([key, item]) => [toJson(key), toJson(item)]) }
  if (value instanceof ArrowStream) return { $arrow: Buffer.concat(value.pieces).toString("base64") }
  if (value instanceof InputMark) return { $stream: true }
  if (NdArray.isNdArray(value)) {
    return { $array: { dtype: value.dtype, shape: value.shape, data: elementsOf(value.data) } }
  }
  if (NdArray.isTypedArray(value)) return { $array: { dtype: NdArray.dtypeOf(value), data: elementsOf(value) } }
  const fields = Object.fromEntries(Object.entries(value).map(([key, item]) => [key, toJson(item)]))
  return Object.keys(fields).some((key) => key.startsWith("$")) ? { $map: Object.entries(fields), plain: true } : fields
}

/** The value that JSON stands for. Throws an `Error` where it stands for none. */
export const fromJson = (json: unknown): unknown => {
  if (Array.isArray(json)) return json.map(fromJson)
  if (!Predicate.isObject(json)) return json
  const fields = json as Readonly<Record<string, unknown>>
  const tag = Object.keys(fields).find((key) => key.startsWith("$"))
  if (tag === undefined) return Object.fromEntries(Object.entries(fields).map(([key, item]) => [key, fromJson(item)]))
  const content = fields[tag]
  switch (tag) {
    case "$number":
      return Number(content)
    case "$bigint":
      return BigInt(content as string)
    case "$bytes":
      return bytesOf(content as string)
    case "$date":
      return new Date(content as string)
    case "$map": {
      const entries = (content as ReadonlyArray<readonly [unknown, unknown]>).map(
        ([key, item]) => [fromJson(key), fromJson(item)] as const
      )
      return fields.plain === true
        ? Object.fromEntries(entries as unknown as ReadonlyArray<readonly [string, unknown]>)
        : new Map(entries)
    }
    case "$arrow":
      return new ArrowStream([bytesOf(content as string)])
    case "$stream":
      return new InputMark()
    case "$array":
      return arrayFrom(
        content as { readonly dtype: NdArray.DType; readonly shape?: Array<number>; readonly data: unknown }
      )
    default:
      throw new Error(`\`${tag}\` is not known`)
  }
}

const arrayFrom = ({
  data,
  dtype,
  shape
}: {
  readonly dtype: NdArray.DType
  readonly shape?: ReadonlyArray<number>
  readonly data: unknown
}): unknown => {
  if (!Object.hasOwn(makers, dtype)) throw new Error(`an array of \`${dtype}\` is not known`)
  const make = makers[dtype]
  const elements = typeof data === "string" ? make(bytesOf(data).buffer as ArrayBuffer) : listed(make, data)
  return shape === undefined ? elements : NdArray.make(elements, shape, dtype)
}

const listed = (make: (bytes: ArrayBuffer) => TypedArray, data: unknown): TypedArray => {
  const elements = fromJson(data) as ReadonlyArray<never>
  const array = make(new ArrayBuffer(elements.length * make(new ArrayBuffer(0)).BYTES_PER_ELEMENT))
  ;(array as { set: (elements: ReadonlyArray<never>) => void }).set(elements)
  return array
}

/** One text for equal values: keys of maps have no order. */
export const canonical = (json: unknown): string =>
  JSON.stringify(json, (_, value) =>
    Predicate.isObject(value) && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value
  )

const plainKeys = ["call", "method", "interrupted"] as const
const valueKeys = ["payload", "options", "progress", "items", "value", "error"] as const

/** The line of a call. */
export const lineOf = (recorded: Recorded): string => {
  const line: Record<string, unknown> = { call: recorded.call, method: recorded.method }
  for (const key of valueKeys) if (recorded[key] !== undefined) line[key] = toJson(recorded[key])
  if (recorded.interrupted) line.interrupted = true
  return JSON.stringify(line)
}

/** A call with the number of its line. */
export interface Line {
  readonly line: number
  readonly recorded: Recorded
}

/** The calls of a recording. Throws an `Error` that names the line which is none. */
export const parse = (text: string): ReadonlyArray<Line> => {
  const [first, ...others] = text.split("\n")
  const head = tryParse(first ?? "", 1) as Partial<typeof header>
  if (head?.synapse !== header.synapse) throw new Error("its first line is not that of a recording")
  if (head.version !== header.version) {
    throw new Error(`it has version ${head.version}, and this package reads version ${header.version}: record it anew`)
  }
  const lines: Array<Line> = []
  for (const [index, line] of others.entries()) {
    if (line.trim() === "") continue
    const number = index + 2
    lines.push({ line: number, recorded: recordedOf(tryParse(line, number), number) })
  }
  return lines.sort((a, b) => a.recorded.call - b.recorded.call)
}

const tryParse = (line: string, number: number): unknown => {
  try {
    return JSON.parse(line)
  } catch {
    throw new Error(`line ${number} is not JSON`)
  }
}

const recordedOf = (json: unknown, number: number): Recorded => {
  const fields = json as Readonly<Record<string, unknown>>
  if (!Predicate.isObject(json) || typeof fields.method !== "string" || typeof fields.call !== "number") {
    throw new Error(`line ${number} is not a call: it needs \`call\` and \`method\``)
  }
  const recorded: Record<string, unknown> = {}
  try {
    for (const key of plainKeys) if (fields[key] !== undefined) recorded[key] = fields[key]
    for (const key of valueKeys) if (Object.hasOwn(fields, key)) recorded[key] = fromJson(fields[key])
  } catch (error) {
    throw new Error(`line ${number}: ${error instanceof Error ? error.message : String(error)}`)
  }
  return recorded as unknown as Recorded
}
