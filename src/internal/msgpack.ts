/**
 * What the encoder and the decoder of MessagePack share: the error, the limits, the element types of arrays.
 *
 * The codec is strict: what it cannot carry without change it refuses, and it says where.
 *
 * @internal
 */
import { endianness } from "node:os"

/** @internal */
export const maxDepth = 128

/** @internal */
export type CodecReason =
  | "TooDeep"
  | "TooManyItems"
  | "IntRange"
  | "InvalidString"
  | "InvalidDate"
  | "InvalidKey"
  | "InvalidArray"
  | "InvalidMeta"
  | "Unsupported"
  | "InvalidReference"
  | "UnknownExtension"
  | "Reserved"
  | "Truncated"
  | "Trailing"

/**
 * The only error of the codec.
 *
 * The path is put together while the error leaves the containers: a value that can be carried pays nothing for it.
 *
 * @internal
 */
export class CodecError extends Error {
  readonly reason: CodecReason
  issue: string
  /** Innermost first. */
  #keys: Array<unknown> = []
  /** The containers of the keys; kept only where they may tell a cycle. */
  #containers: Array<object> = []

  constructor(reason: CodecReason, issue: string) {
    super()
    this.name = "CodecError"
    this.reason = reason
    this.issue = issue
  }

  /** Where in the value, as `$.items[3].name`. */
  get path(): string {
    return formatPath(this.#keys.toReversed())
  }

  override get message(): string {
    return `${this.issue} (at ${this.path})`
  }

  /** Tells the error that it happened under `key` of `container`. */
  under(key: unknown, container?: object): void {
    this.#keys.push(key)
    if (this.reason === "TooDeep" && container !== undefined) this.#containers.push(container)
  }

  /** Says so when the value was too deep because it contains itself. */
  explainCycle(): void {
    const outermostFirst = this.#containers.reverse()
    const again = outermostFirst.findIndex((container, i) => outermostFirst.indexOf(container) < i)
    this.#containers = []
    if (again === -1) return
    this.#keys = this.#keys.slice(-again)
    this.issue = "the value contains itself: pass a copy without the cycle"
  }
}

/** Outermost key first, as `$.items[3].name`. */
export const formatPath = (keys: ReadonlyArray<unknown>): string => `$${keys.map(segment).join("")}`

const segment = (key: unknown): string =>
  typeof key === "string"
    ? /^[\p{ID_Start}_$][\p{ID_Continue}$]*$/u.test(key)
      ? `.${key}`
      : `[${JSON.stringify(key)}]`
    : `[${String(key)}]`

/** @internal */
export const fail = (reason: CodecReason, issue: string): never => {
  throw new CodecError(reason, issue)
}

/** @internal */
export const under = (error: unknown, key: unknown, container?: object): unknown => {
  if (error instanceof CodecError && key !== undefined) error.under(key, container)
  return error
}

/**
 * Methods of Node's buffers that skip the checks and the encoding lookup of `write` and `toString`.
 *
 * @internal
 */
export interface FastBuffer extends Buffer {
  utf8Write(text: string, offset: number, length: number): number
  utf8Slice(start: number, end: number): string
}

/** @internal */
export const twoTo32 = 2 ** 32

/**
 * By the code of the wire, less one.
 *
 * @internal
 */
export const elementTypes = [
  { dtype: "bool", make: Uint8Array },
  { dtype: "int8", make: Int8Array },
  { dtype: "uint8", make: Uint8Array },
  { dtype: "int16", make: Int16Array },
  { dtype: "uint16", make: Uint16Array },
  { dtype: "int32", make: Int32Array },
  { dtype: "uint32", make: Uint32Array },
  { dtype: "int64", make: BigInt64Array },
  { dtype: "uint64", make: BigUint64Array },
  { dtype: "float32", make: Float32Array },
  { dtype: "float64", make: Float64Array }
] as const

/**
 * Bytes of the elements.
 *
 * @internal
 */
export const arraySize = (element: (typeof elementTypes)[number], shape: ReadonlyArray<number>): number =>
  shape.reduce((product, length) => product * length, element.make.BYTES_PER_ELEMENT)

/** @internal */
export const littleEndian = endianness() === "LE"

/**
 * Elements travel little-endian: a copy with the bytes of each in the other order.
 *
 * @internal
 */
export const swapped = (bytes: Uint8Array, elementSize: number): Uint8Array<ArrayBuffer> => {
  const copy = new Uint8Array(bytes)
  for (let i = 0; i < copy.length; i += elementSize) copy.subarray(i, i + elementSize).reverse()
  return copy
}
