/** Random values of generated schemas, as both sides can carry them, and when one came back as it went. */
import { BigDecimal, DateTime, Duration } from "effect"
import { NdArray } from "effect-synapse"

const firstInstant = Date.parse("0001-01-02T00:00:00Z")
const instants = Date.parse("9999-12-30T00:00:00Z") - firstInstant
const timedeltaMillis = 86_400_000 * 999_999

const isPlain = (u: unknown): u is Readonly<Record<string, unknown>> =>
  typeof u === "object" && u !== null && [Object.prototype, null].includes(Object.getPrototypeOf(u))

/** The value with what Python has no room for brought into its range: 64 bits, the years from 1 to 9999, microseconds. */
export const carried = (value: unknown): unknown => {
  if (typeof value === "bigint") return BigInt.asIntN(64, value)
  if (typeof value === "string") return value.toWellFormed()
  if (DateTime.isDateTime(value)) {
    const millis = Math.abs(DateTime.toEpochMillis(value)) % instants
    return DateTime.makeUnsafe(firstInstant + millis)
  }
  if (Duration.isDuration(value)) {
    const millis = Duration.toMillis(value)
    return Duration.millis(Number.isFinite(millis) ? Math.trunc(millis % timedeltaMillis) : 0)
  }
  if (Array.isArray(value)) return value.map(carried)
  if (value instanceof Map) return new Map(Array.from(value, ([key, each]) => [carried(key), carried(each)]))
  if (value instanceof Set) return new Set(Array.from(value, carried))
  if (isPlain(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key.toWellFormed(), carried(each)]))
  }
  return value
}

// Python writes UTC and UUIDs in one way.
const text = (value: string): string =>
  /^[\da-f-]{36}$/i.test(value) ? value.toLowerCase() : value.replace(/(?<=\d)Z$/, "+00:00")

/** Whether a value came back as it went. Keys that were left out may have been filled in. */
export const isBack = (actual: unknown, sent: unknown): boolean => {
  // Integers have one zero.
  if (typeof sent === "number") return Object.is(actual, sent) || actual === sent
  if (typeof sent === "string") return typeof actual === "string" && text(actual) === text(sent)
  if (BigDecimal.isBigDecimal(sent)) return BigDecimal.isBigDecimal(actual) && BigDecimal.equals(actual, sent)
  if (Duration.isDuration(sent)) return Duration.isDuration(actual) && Duration.equals(actual, sent)
  if (DateTime.isDateTime(sent)) {
    return DateTime.isDateTime(actual) && DateTime.toEpochMillis(actual) === DateTime.toEpochMillis(sent)
  }
  if (NdArray.isNdArray(sent)) {
    return (
      NdArray.isNdArray(actual) &&
      actual.dtype === sent.dtype &&
      isBack(actual.shape, sent.shape) &&
      isBack(actual.data, sent.data)
    )
  }
  if (ArrayBuffer.isView(sent)) {
    return (
      Object.prototype.toString.call(actual) === Object.prototype.toString.call(sent) &&
      isBack(Array.from(actual as Uint8Array), Array.from(sent as Uint8Array))
    )
  }
  if (Array.isArray(sent)) {
    // A named tuple has all of its fields.
    return Array.isArray(actual) && actual.length >= sent.length && sent.every((each, i) => isBack(actual[i], each))
  }
  if (sent instanceof Map) {
    return (
      actual instanceof Map &&
      actual.size === sent.size &&
      Array.from(sent).every(([key, each]) => isBack(actual.get(key), each))
    )
  }
  if (sent instanceof Set) {
    return actual instanceof Set && actual.size === sent.size && Array.from(sent).every((each) => actual.has(each))
  }
  if (isPlain(sent)) {
    return isPlain(actual) && Object.entries(sent).every(([key, each]) => isBack(actual[key], each))
  }
  return Object.is(actual, sent)
}
