/**
 * Values as JSON, with what JSON has no words for as objects with a `$synapse` key: bytes, integers beyond 2^53, dates, and
 * the numbers that are not finite. `synapse/javascript/_values.py` is the other side.
 *
 * @internal
 */
const tag = "$synapse"

const tagged = (kind: string, value: unknown) => ({ [tag]: kind, value })

/** Sees each value through its holder: what is passed to a replacer has been through `toJSON`. */
function replace(this: Record<string, unknown>, key: string, converted: unknown): unknown {
  const value = this[key]
  switch (typeof value) {
    case "bigint":
      return tagged("int", String(value))
    case "number":
      return Number.isFinite(value) ? value : tagged("float", String(value))
    case "object":
      return value === null ? null : replaceObject(value, converted)
    default:
      return converted
  }
}

const replaceObject = (value: object, converted: unknown): unknown => {
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : tagged("date", value.toISOString())
  if (ArrayBuffer.isView(value)) {
    return tagged("bytes", Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64"))
  }
  if (value instanceof ArrayBuffer) return tagged("bytes", Buffer.from(value).toString("base64"))
  if (value instanceof Set) return [...value]
  if (value instanceof Map) return tagged("map", [...value])
  if (typeof converted === "object" && converted !== null && Object.hasOwn(converted, tag)) {
    return tagged("map", Object.entries(converted))
  }
  return converted
}

const revive = (_key: string, value: unknown): unknown => {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, tag)) return value
  const { [tag]: kind, value: carried } = value as Record<string, unknown>
  switch (kind) {
    case "int":
      return BigInt(carried as string)
    case "float":
      return Number(carried)
    case "date":
      return new Date(carried as string)
    case "bytes":
      return new Uint8Array(Buffer.from(carried as string, "base64"))
    case "map":
      return Object.fromEntries(carried as ReadonlyArray<readonly [string, unknown]>)
    default:
      throw new SyntaxError(`a value of the unknown kind ${JSON.stringify(kind)}`)
  }
}

/**
 * The JSON of a value, or nothing for one that is not carried (a function, a symbol, and in plain JSON `undefined`). Throws
 * what `JSON.stringify` throws.
 *
 * @internal
 */
export const toText = (value: unknown, format: "json" | "values"): string | undefined =>
  format === "json" ? JSON.stringify(value) : value === undefined ? "null" : JSON.stringify(value, replace)

/**
 * The value of a JSON text; throws a `SyntaxError`.
 *
 * @internal
 */
export const fromText = (text: string, format: "json" | "values"): unknown =>
  format === "values" && text.includes(`"${tag}"`) ? JSON.parse(text, revive) : JSON.parse(text)
