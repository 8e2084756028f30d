/** Values of Python as JSON and back, without loss where JSON has a way. */
import * as NdArray from "../../NdArray.ts"
import { ArrowStream } from "../arrowStream.ts"

/**
 * A value as JSON. Integers keep all of their digits; bytes are base64, arrays of numpy nested lists, instants ISO 8601;
 * numbers that JSON has not are strings. A map whose keys are no texts is a list of pairs. With `indent` on several lines.
 */
export const toJson = (value: unknown, indent?: number): string => JSON.stringify(plain(value), null, indent)

// The raw text of a number is how JSON.stringify writes an integer that a `number` cannot hold.
const { rawJSON } = JSON as unknown as { readonly rawJSON: (text: string) => unknown }

const plain = (value: unknown): unknown => {
  switch (typeof value) {
    case "bigint":
      return rawJSON(String(value))
    case "number":
      return Number.isFinite(value) ? value : String(value)
    case "undefined":
      return null
    case "object":
      return value === null ? null : plainObject(value)
    default:
      return value
  }
}

const plainObject = (value: object): unknown => {
  if (Array.isArray(value)) return value.map(plain)
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.length).toString("base64")
  if (value instanceof Date) return value.toISOString()
  if (value instanceof Map) return plainMap(value)
  if (value instanceof Set) return Array.from(value, plain)
  if (NdArray.isNdArray(value)) return plain(NdArray.toNested(value))
  if (NdArray.isTypedArray(value)) return Array.from(value as Iterable<number | bigint>, plain)
  if (value instanceof ArrowStream) return `an Arrow table of ${value.byteLength} bytes`
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, plain(member)]))
}

const plainMap = (map: ReadonlyMap<unknown, unknown>): unknown => {
  const entries = Array.from(map, ([key, value]) => [key, plain(value)] as const)
  return entries.every(([key]) => typeof key === "string")
    ? Object.fromEntries(entries)
    : entries.map(([key, value]) => [plain(key), value])
}

type Reviver = (key: string, value: unknown, context: { readonly source?: string }) => unknown

/** Parses JSON; integers beyond 2^53 are bigints. Throws a `SyntaxError`. */
export const fromJson = (text: string): unknown =>
  JSON.parse(text, exactIntegers as (key: string, value: unknown) => unknown)

const exactIntegers: Reviver = (_, value, { source }) =>
  typeof value === "number" && !Number.isSafeInteger(value) && source !== undefined && /^-?\d+$/.test(source)
    ? BigInt(source)
    : value
