/**
 * A strict MessagePack codec: what it cannot carry without change it refuses, and it says where.
 *
 * @internal
 */
import { isUtf8 } from "node:buffer"
import { endianness } from "node:os"
import { types } from "node:util"
import * as NdArray from "../NdArray.ts"

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
  | "UnknownExtension"
  | "Reserved"
  | "Truncated"
  | "Trailing"

/**
 * The only error of the codec.
 *
 * The path is put together while the error leaves the containers, so that a value that can be carried pays nothing for it.
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

const fail = (reason: CodecReason, issue: string): never => {
  throw new CodecError(reason, issue)
}

const under = (error: unknown, key: unknown, container?: object): unknown => {
  if (error instanceof CodecError && key !== undefined) error.under(key, container)
  return error
}

/** Methods of Node's buffers that skip the checks and the encoding lookup of `write` and `toString`. */
interface FastBuffer extends Buffer {
  utf8Write(text: string, offset: number, length: number): number
  utf8Slice(start: number, end: number): string
}

const { utf8Slice } = Buffer.prototype as FastBuffer

const allocate = (size: number): FastBuffer => Buffer.allocUnsafeSlow(size) as FastBuffer

const chunkSize = 64 * 1024
/** A buffer that grew beyond this is not kept for the next batch. */
const keptSize = 1024 * 1024

const maxUint64 = 2n ** 64n - 1n
const minInt64 = -(2n ** 63n)
const maxSafe = BigInt(Number.MAX_SAFE_INTEGER)
const twoTo32 = 2 ** 32

const elementTypes = [
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

const arraySize = (element: (typeof elementTypes)[number], shape: ReadonlyArray<number>): number =>
  shape.reduce((product, length) => product * length, element.make.BYTES_PER_ELEMENT)

const codeOf = new Map<NdArray.DType, number>(elementTypes.map(({ dtype }, i) => [dtype, i + 1]))

const bytesOf = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)

const littleEndian = endianness() === "LE"

/** Elements travel little-endian: a copy with the bytes of each in the other order. */
const swapped = (bytes: Uint8Array, elementSize: number): Uint8Array<ArrayBuffer> => {
  const copy = new Uint8Array(bytes)
  for (let i = 0; i < copy.length; i += elementSize) copy.subarray(i, i + elementSize).reverse()
  return copy
}

const advice = (x: object): string => {
  const name: unknown = Object.getPrototypeOf(x)?.constructor?.name
  if (x instanceof Error) return `${name} is an error: pass its message or its fields`
  if (types.isPromise(x)) return "a Promise: await it first"
  if (types.isRegExp(x)) return "a RegExp: pass its source"
  if (ArrayBuffer.isView(x)) return `a ${name}: pass a Float32Array, or bytes`
  return `an instance of ${name || "a class"}: pass a plain object, or give the call a \`payload\` schema that encodes it`
}

/** Objects of other realms have another `Object.prototype`, and it too has none. */
const isPlain = (x: object): x is Readonly<Record<string, unknown>> => {
  const prototype = Object.getPrototypeOf(x)
  return prototype === Object.prototype || prototype === null || Object.getPrototypeOf(prototype) === null
}

/**
 * Appends values to one growing buffer.
 *
 * Bytes that were handed out by {@link Encoder.take} are never written again: the next ones go behind them.
 *
 * @internal
 */
export class Encoder {
  buffer: FastBuffer = allocate(chunkSize)
  view: DataView = new DataView(this.buffer.buffer, this.buffer.byteOffset, this.buffer.length)
  /** Where the next byte goes. */
  position = 0
  /** Where the bytes that were not taken yet begin. */
  #origin = 0
  /** Where the current frame begins. */
  #start = 0
  /** How large the current frame may become. */
  #limit = Number.POSITIVE_INFINITY
  /** Bytes of the current frame that were counted and not kept. */
  #dropped = 0

  /** Bytes that {@link take} would give. */
  get size(): number {
    return this.position - this.#origin
  }

  /** Begins a frame. One that becomes larger than `limit` is measured to its end but takes no more memory. */
  begin(limit: number): number {
    this.#limit = limit
    this.#dropped = 0
    this.#start = this.position
    return this.#start
  }

  /** The size of the current frame. */
  get frameSize(): number {
    return this.#dropped + this.position - this.#start
  }

  /** Where the current frame begins: growing moves it. */
  get frameStart(): number {
    return this.#start
  }

  /** Forgets the current frame. */
  rollback(): void {
    this.position = this.#start
    this.#dropped = 0
  }

  /** All bytes since the last time. */
  take(): Uint8Array {
    const bytes = this.buffer.subarray(this.#origin, this.position)
    if (this.buffer.length > keptSize) this.#use(allocate(chunkSize), 0)
    this.#origin = this.#start = this.position
    return bytes
  }

  #use(buffer: FastBuffer, position: number): void {
    this.buffer = buffer
    this.view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length)
    this.position = position
  }

  #grow(n: number): void {
    if (this.position - this.#start + n > this.#limit) {
      this.#dropped += this.position - this.#start
      this.position = this.#start
      if (this.position + n <= this.buffer.length) return
    }
    const waiting = this.position - this.#origin
    const buffer = allocate(Math.max(chunkSize, 2 * (waiting + n)))
    this.buffer.copy(buffer, 0, this.#origin, this.position)
    this.#start -= this.#origin
    this.#origin = 0
    this.#use(buffer, waiting)
  }

  /** Makes room for `n` bytes at `position`. */
  room(n: number): void {
    if (this.position + n > this.buffer.length) this.#grow(n)
  }

  bytes(bytes: Uint8Array): void {
    const n = bytes.length
    if (n > this.#limit) {
      this.#dropped += n
      return
    }
    this.room(n)
    this.buffer.set(bytes, this.position)
    this.position += n
  }

  /** Appends one value. On failure the bytes written so far are to be rolled back. */
  encode(x: unknown): void {
    try {
      this.#value(x, 0)
    } catch (error) {
      if (error instanceof CodecError && error.reason === "TooDeep") error.explainCycle()
      throw error
    }
  }

  #value(x: unknown, depth: number): void {
    if (typeof x === "string") this.#string(x)
    else if (typeof x === "number") this.#number(x)
    else if (x === null || x === undefined) this.#byte(0xc0)
    else if (typeof x === "object") this.#object(x, depth)
    else if (typeof x === "boolean") this.#byte(x ? 0xc3 : 0xc2)
    else if (typeof x === "bigint") this.#bigint(x)
    else if (typeof x === "function") fail("Unsupported", "a function: pass what it returns")
    else fail("Unsupported", "a symbol: pass its description")
  }

  #object(x: object, depth: number): void {
    if (Array.isArray(x)) this.#array(x, depth)
    else if (isPlain(x)) this.#plain(x, depth)
    else if (x instanceof Uint8Array) this.#binary(x)
    else if (types.isDate(x)) this.#date(x)
    else if (types.isMap(x)) this.#map(x, depth)
    else if (types.isSet(x)) this.#array(Array.from(x), depth, x)
    else if (types.isAnyArrayBuffer(x)) this.#binary(new Uint8Array(x))
    else if (types.isDataView(x)) this.#binary(bytesOf(x))
    else if (NdArray.isNdArray(x)) this.#elements(x.dtype, x.shape, x.data)
    else if (types.isUint8ClampedArray(x)) this.#elements("uint8", [x.length], x)
    else if (NdArray.isTypedArray(x)) this.#elements(NdArray.dtypeOf(x), [x.length], x)
    else fail("Unsupported", advice(x))
  }

  #array(items: ReadonlyArray<unknown>, depth: number, container: object = items): void {
    if (depth >= maxDepth) fail("TooDeep", `nested deeper than ${maxDepth} levels`)
    const n = items.length
    this.#header(n, 0x90, 0xdc)
    let i = 0
    try {
      for (; i < n; i++) this.#value(items[i], depth + 1)
    } catch (error) {
      throw under(error, i, container)
    }
  }

  #plain(x: Readonly<Record<string, unknown>>, depth: number): void {
    if (depth >= maxDepth) fail("TooDeep", `nested deeper than ${maxDepth} levels`)
    const keys = Object.keys(x)
    const n = keys.length
    // Properties are read once, so the header is written for all of them and corrected when some were undefined.
    this.#header(n, 0x80, 0xde)
    const headerEnd = this.frameSize
    let omitted = 0
    let i = 0
    try {
      for (; i < n; i++) {
        const key = keys[i]!
        const value = x[key]
        if (value === undefined) {
          omitted++
        } else {
          this.#string(key)
          this.#value(value, depth + 1)
        }
      }
    } catch (error) {
      throw under(error, keys[i], x)
    }
    if (omitted > 0 && this.#dropped === 0) this.#correct(this.#start + headerEnd, n, n - omitted)
  }

  /** Rewrites the length of a map in the header of the width that `written` took. */
  #correct(headerEnd: number, written: number, n: number): void {
    if (written < 16) this.buffer[headerEnd - 1] = 0x80 | n
    else if (written < 65536) this.view.setUint16(headerEnd - 2, n)
    else this.view.setUint32(headerEnd - 4, n)
  }

  #map(map: ReadonlyMap<unknown, unknown>, depth: number): void {
    if (depth >= maxDepth) fail("TooDeep", `nested deeper than ${maxDepth} levels`)
    const entries = Array.from(map)
    this.#header(entries.length, 0x80, 0xde)
    let at: unknown
    try {
      for (const [key, value] of entries) {
        at = undefined
        this.#key(key)
        at = key
        this.#value(value, depth + 1)
      }
    } catch (error) {
      throw under(error, at, map)
    }
  }

  #key(key: unknown): void {
    switch (typeof key) {
      case "string":
      case "number":
      case "bigint":
      case "boolean":
        this.#value(key, maxDepth)
        break
      default:
        if (key instanceof Uint8Array) this.#binary(key)
        else
          fail(
            "InvalidKey",
            "the key of a Map is not a string, number, bigint, boolean or Uint8Array: pass an array of pairs"
          )
    }
  }

  /** The header of an array or a map: `small` holds up to 15 in itself, `large` is followed by 16 bits, the next by 32. */
  #header(n: number, small: number, large: number): void {
    this.room(5)
    if (n < 16) {
      this.buffer[this.position++] = small | n
    } else if (n < 65536) {
      this.buffer[this.position] = large
      this.view.setUint16(this.position + 1, n)
      this.position += 3
    } else {
      this.buffer[this.position] = large + 1
      this.view.setUint32(this.position + 1, n)
      this.position += 5
    }
  }

  #byte(byte: number): void {
    this.room(1)
    this.buffer[this.position++] = byte
  }

  #string(text: string): void {
    const n = text.length
    if (n < 32) {
      this.room(n + 1)
      const buffer = this.buffer
      let at = this.position
      buffer[at++] = 0xa0 | n
      let i = 0
      for (; i < n; i++) {
        const unit = text.charCodeAt(i)
        if (unit > 127) break
        buffer[at++] = unit
      }
      if (i === n) {
        this.position = at
        return
      }
    }
    this.#utf8(text, n)
  }

  #utf8(text: string, units: number): void {
    const most = units > chunkSize ? Buffer.byteLength(text) : units * 3
    if (most > this.#limit && units > chunkSize) {
      if (!text.isWellFormed()) fail("InvalidString", loneSurrogate)
      this.#dropped += most
      return
    }
    this.room(most + 5)
    // Written behind the header that ASCII would need, and moved in the rare case that it needs another.
    const guess = stringHeaderSize(units)
    const length = this.buffer.utf8Write(text, this.position + guess, most)
    if (length !== units && !text.isWellFormed()) fail("InvalidString", loneSurrogate)
    const actual = stringHeaderSize(length)
    const { buffer, position } = this
    if (actual !== guess) buffer.copyWithin(position + actual, position + guess, position + guess + length)
    if (actual === 1) {
      buffer[position] = 0xa0 | length
    } else if (actual === 2) {
      buffer[position] = 0xd9
      buffer[position + 1] = length
    } else if (actual === 3) {
      buffer[position] = 0xda
      this.view.setUint16(position + 1, length)
    } else {
      buffer[position] = 0xdb
      this.view.setUint32(position + 1, length)
    }
    this.position = position + actual + length
  }

  #number(x: number): void {
    this.room(9)
    const { buffer, view } = this
    const at = this.position
    if (x !== (x | 0) || (x === 0 && 1 / x < 0)) {
      this.#wide(x)
    } else if (x >= 0) {
      if (x < 0x80) {
        buffer[at] = x
        this.position = at + 1
      } else if (x < 0x100) {
        buffer[at] = 0xcc
        buffer[at + 1] = x
        this.position = at + 2
      } else if (x < 0x10000) {
        buffer[at] = 0xcd
        buffer[at + 1] = x >> 8
        buffer[at + 2] = x
        this.position = at + 3
      } else {
        buffer[at] = 0xce
        view.setUint32(at + 1, x)
        this.position = at + 5
      }
    } else if (x >= -0x20) {
      buffer[at] = x
      this.position = at + 1
    } else if (x >= -0x80) {
      buffer[at] = 0xd0
      buffer[at + 1] = x
      this.position = at + 2
    } else if (x >= -0x8000) {
      buffer[at] = 0xd1
      view.setInt16(at + 1, x)
      this.position = at + 3
    } else {
      buffer[at] = 0xd2
      view.setInt32(at + 1, x)
      this.position = at + 5
    }
  }

  /** Numbers beyond 32 bits with sign, floats among them. */
  #wide(x: number): void {
    const { buffer, view } = this
    const at = this.position
    if (!Number.isSafeInteger(x) || x === 0) {
      buffer[at] = 0xcb
      view.setFloat64(at + 1, x)
    } else if (x > 0 && x < twoTo32) {
      buffer[at] = 0xce
      view.setUint32(at + 1, x)
      this.position = at + 5
      return
    } else {
      buffer[at] = x > 0 ? 0xcf : 0xd3
      view.setInt32(at + 1, Math.floor(x / twoTo32))
      view.setUint32(at + 5, x % twoTo32)
    }
    this.position = at + 9
  }

  #bigint(x: bigint): void {
    if (x >= -maxSafe && x <= maxSafe) {
      this.#number(Number(x))
      return
    }
    if (x > maxUint64 || x < minInt64) fail("IntRange", "an integer beyond 64 bits: pass it as text")
    this.room(9)
    this.buffer[this.position] = x > 0n ? 0xcf : 0xd3
    if (x > 0n) this.view.setBigUint64(this.position + 1, x)
    else this.view.setBigInt64(this.position + 1, x)
    this.position += 9
  }

  #binary(bytes: Uint8Array): void {
    const n = bytes.length
    this.#tooLong(n)
    this.room(5)
    if (n < 0x100) {
      this.buffer[this.position] = 0xc4
      this.buffer[this.position + 1] = n
      this.position += 2
    } else if (n < 0x10000) {
      this.buffer[this.position] = 0xc5
      this.view.setUint16(this.position + 1, n)
      this.position += 3
    } else {
      this.buffer[this.position] = 0xc6
      this.view.setUint32(this.position + 1, n)
      this.position += 5
    }
    this.bytes(bytes)
  }

  #tooLong(n: number): void {
    if (n >= twoTo32) fail("Unsupported", `${n} bytes in one value: MessagePack carries less than 4 GiB`)
  }

  /** The header of an extension of `n` bytes. */
  #extension(n: number, type: number): void {
    this.#tooLong(n)
    this.room(6)
    const { buffer, view } = this
    let at = this.position
    if (n === 1 || n === 2 || n === 4 || n === 8 || n === 16) {
      buffer[at++] = 0xd4 + Math.log2(n)
    } else if (n < 0x100) {
      buffer[at++] = 0xc7
      buffer[at++] = n
    } else if (n < 0x10000) {
      buffer[at++] = 0xc8
      view.setUint16(at, n)
      at += 2
    } else {
      buffer[at++] = 0xc9
      view.setUint32(at, n)
      at += 4
    }
    buffer[at++] = type
    this.position = at
  }

  #date(date: Date): void {
    const millis = date.getTime()
    if (Number.isNaN(millis)) fail("InvalidDate", "an invalid Date")
    const seconds = Math.floor(millis / 1000)
    const nanos = (millis - seconds * 1000) * 1_000_000
    const size = seconds < 0 || seconds >= 2 ** 34 ? 12 : nanos !== 0 || seconds >= twoTo32 ? 8 : 4
    this.#extension(size, 0xff)
    this.room(12)
    const { position, view } = this
    if (size === 4) {
      view.setUint32(position, seconds)
    } else if (size === 8) {
      view.setUint32(position, nanos * 4 + Math.floor(seconds / twoTo32))
      view.setUint32(position + 4, seconds % twoTo32)
    } else {
      view.setUint32(position, nanos)
      view.setBigInt64(position + 4, BigInt(seconds))
    }
    this.position += size
  }

  #elements(dtype: NdArray.DType, shape: ReadonlyArray<number>, data: ArrayBufferView): void {
    const code = codeOf.get(dtype)
    const size = code === undefined ? Number.NaN : arraySize(elementTypes[code - 1]!, shape)
    if (code === undefined || size !== data.byteLength || shape.length > 32) {
      throw new CodecError("InvalidArray", "an NdArray whose shape does not hold its elements: use NdArray.make")
    }
    this.#extension(2 + 4 * shape.length + data.byteLength, 1)
    this.room(2 + 4 * shape.length)
    this.buffer[this.position++] = code
    this.buffer[this.position++] = shape.length
    for (const n of shape) {
      this.view.setUint32(this.position, n, true)
      this.position += 4
    }
    this.bytes(littleEndian ? bytesOf(data) : swapped(bytesOf(data), elementTypes[code - 1]!.make.BYTES_PER_ELEMENT))
  }
}

const loneSurrogate = "a string with half of a surrogate pair: call toWellFormed() on it, or pass bytes"

const stringHeaderSize = (length: number): number => (length < 32 ? 1 : length < 0x100 ? 2 : length < 0x10000 ? 3 : 5)

/** Containers in one value: each costs its own memory, up to seventy times the byte it takes. */
const containerLimit = (bytes: number): number => Math.max(2 ** 22, bytes / 4)

const keyCacheSize = 1024

/**
 * Reads one value out of bytes that it never keeps: what it returns holds no view of them.
 *
 * @internal
 */
export class Decoder {
  #bytes: Uint8Array = new Uint8Array(0)
  #view: DataView | undefined
  #position = 0
  #end = 0
  /** How many values the containers may still announce: each takes a byte at least. */
  #announced = 0
  #containers = 0
  readonly #keys: Array<string | undefined> = new Array(keyCacheSize).fill(undefined)

  decode(bytes: Uint8Array): unknown {
    this.#bytes = bytes
    this.#view = undefined
    this.#position = 0
    this.#end = bytes.length
    this.#announced = bytes.length
    this.#containers = containerLimit(bytes.length)
    const value = this.#value(0)
    if (this.#position !== this.#end) {
      fail("Trailing", `${this.#end - this.#position} bytes follow the value that ends at byte ${this.#position}`)
    }
    return value
  }

  #wide(): DataView {
    this.#view ??= new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length)
    return this.#view
  }

  /** Takes `n` bytes and tells where they begin. */
  #take(n: number): number {
    const at = this.#position
    if (n > this.#end - at) this.#truncated()
    this.#position = at + n
    return at
  }

  #truncated(): never {
    return fail("Truncated", `the data end at byte ${this.#end}, inside a value`)
  }

  #uint8(): number {
    return this.#bytes[this.#take(1)]!
  }

  #uint16(): number {
    const at = this.#take(2)
    return (this.#bytes[at]! << 8) | this.#bytes[at + 1]!
  }

  #uint32(): number {
    return this.#wide().getUint32(this.#take(4))
  }

  #value(depth: number): unknown {
    if (this.#position >= this.#end) this.#truncated()
    const token = this.#bytes[this.#position++]!
    if (token < 0x80) return token
    if (token >= 0xe0) return token - 256
    if (token >= 0xa0 && token < 0xc0) return this.#string(token & 31)
    if (token < 0x90) return this.#map(token & 15, depth)
    if (token < 0xa0) return this.#array(token & 15, depth)
    switch (token) {
      case 0xc0:
        return null
      case 0xc2:
        return false
      case 0xc3:
        return true
      case 0xc4:
        return this.#binary(this.#uint8())
      case 0xc5:
        return this.#binary(this.#uint16())
      case 0xc6:
        return this.#binary(this.#uint32())
      case 0xc7:
        return this.#extension(this.#uint8())
      case 0xc8:
        return this.#extension(this.#uint16())
      case 0xc9:
        return this.#extension(this.#uint32())
      case 0xca:
        return this.#wide().getFloat32(this.#take(4))
      case 0xcb:
        return this.#wide().getFloat64(this.#take(8))
      case 0xcc:
        return this.#uint8()
      case 0xcd:
        return this.#uint16()
      case 0xce:
        return this.#uint32()
      case 0xcf:
        return this.#uint64()
      case 0xd0:
        return (this.#uint8() << 24) >> 24
      case 0xd1:
        return (this.#uint16() << 16) >> 16
      case 0xd2:
        return this.#uint32() | 0
      case 0xd3:
        return this.#int64()
      case 0xd4:
      case 0xd5:
      case 0xd6:
      case 0xd7:
      case 0xd8:
        return this.#extension(1 << (token - 0xd4))
      case 0xd9:
        return this.#string(this.#uint8())
      case 0xda:
        return this.#string(this.#uint16())
      case 0xdb:
        return this.#string(this.#uint32())
      case 0xdc:
        return this.#array(this.#uint16(), depth)
      case 0xdd:
        return this.#array(this.#uint32(), depth)
      case 0xde:
        return this.#map(this.#uint16(), depth)
      case 0xdf:
        return this.#map(this.#uint32(), depth)
    }
    return fail("Reserved", `byte ${this.#position - 1} is 0xc1, which begins no value`)
  }

  #uint64(): number | bigint {
    const at = this.#take(8)
    const high = this.#wide().getUint32(at)
    return high < 0x200000 ? high * twoTo32 + this.#wide().getUint32(at + 4) : this.#wide().getBigUint64(at)
  }

  #int64(): number | bigint {
    const at = this.#take(8)
    const high = this.#wide().getInt32(at)
    if (high < 0x200000 && high >= -0x200000) {
      const n = high * twoTo32 + this.#wide().getUint32(at + 4)
      if (n >= Number.MIN_SAFE_INTEGER) return n
    }
    return this.#wide().getBigInt64(at)
  }

  #enter(values: number, depth: number): void {
    if (depth >= maxDepth) fail("TooDeep", `nested deeper than ${maxDepth} levels`)
    // What containers announce is reserved before it is read, so together they may announce no more than there is.
    this.#announced -= values
    if (this.#announced < 0 || values > this.#end - this.#position) {
      fail("Truncated", `a container at byte ${this.#position} announces more values than the data hold`)
    }
    if (--this.#containers < 0) fail("TooManyItems", "more arrays and maps than a message of this size may hold")
  }

  #array(n: number, depth: number): Array<unknown> {
    this.#enter(n, depth)
    const items = new Array<unknown>(n)
    let i = 0
    try {
      for (; i < n; i++) items[i] = this.#value(depth + 1)
    } catch (error) {
      throw under(error, i)
    }
    return items
  }

  #map(n: number, depth: number): unknown {
    this.#enter(n * 2, depth)
    const object: Record<string, unknown> = {}
    let key: unknown
    try {
      for (let i = 0; i < n; i++) {
        key = undefined
        key = this.#key()
        if (typeof key !== "string") return this.#mapFrom(object, key, n - i, depth)
        if (key === "__proto__") setOwn(object, key, this.#value(depth + 1))
        else object[key] = this.#value(depth + 1)
      }
    } catch (error) {
      throw under(error, key)
    }
    return object
  }

  /** A map with a key that is not a string: what was read of it, and the rest, which begins with the value of `first`. */
  #mapFrom(read: Readonly<Record<string, unknown>>, first: unknown, n: number, depth: number): Map<unknown, unknown> {
    const map = new Map<unknown, unknown>(Object.entries(read))
    map.set(first, this.#value(depth + 1))
    let key: unknown
    try {
      for (let i = 1; i < n; i++) {
        key = undefined
        key = this.#key()
        map.set(key, this.#value(depth + 1))
      }
    } catch (error) {
      throw under(error, key)
    }
    return map
  }

  #key(): unknown {
    const token = this.#bytes[this.#position]
    if (token === undefined || this.#position >= this.#end) return this.#truncated()
    if (token >= 0xa0 && token < 0xc0) {
      this.#position++
      return this.#shortKey(token & 31)
    }
    const isScalar = token < 0x80 || token >= 0xe0 || (token >= 0xc2 && token <= 0xdb)
    const isExtension = (token >= 0xc7 && token <= 0xc9) || (token >= 0xd4 && token <= 0xd8)
    if (isScalar && !isExtension) return this.#value(maxDepth)
    return fail("InvalidKey", "the key of a map is not a string, integer, float, boolean or bytes")
  }

  /** Keys repeat: those of records come from a cache that holds one key for each hash. */
  #shortKey(n: number): string {
    const at = this.#take(n)
    if (n === 0) return ""
    const bytes = this.#bytes
    const hash = (n * 31 + bytes[at]! * 7 + bytes[at + (n >> 1)]! * 3 + bytes[at + n - 1]! * 13) & (keyCacheSize - 1)
    const cached = this.#keys[hash]
    if (cached !== undefined && cached.length === n) {
      let i = 0
      while (i < n && cached.charCodeAt(i) === bytes[at + i]) i++
      if (i === n) return cached
    }
    const key = this.#text(at, n)
    // Only ASCII has as many bytes as units.
    if (key.length === n) this.#keys[hash] = key
    return key
  }

  #string(n: number): string {
    const at = this.#take(n)
    return this.#text(at, n)
  }

  #text(at: number, n: number): string {
    if (n < 12) {
      const bytes = this.#bytes
      let text = ""
      let i = at
      for (; i < at + n; i++) {
        const byte = bytes[i]!
        if (byte > 127) break
        text += String.fromCharCode(byte)
      }
      if (i === at + n) return text
    }
    const text = utf8Slice.call(this.#bytes, at, at + n)
    // What is invalid was replaced. The check costs nothing for ASCII.
    if (text.includes("\ufffd") && !isUtf8(this.#bytes.subarray(at, at + n))) {
      fail("InvalidString", `a string at byte ${at} is not UTF-8: send it as bytes`)
    }
    return text
  }

  #binary(n: number): Uint8Array {
    const at = this.#take(n)
    return new Uint8Array(this.#bytes.subarray(at, at + n))
  }

  #extension(n: number): unknown {
    const type = this.#uint8()
    const at = this.#take(n)
    switch (type) {
      case 0xff:
        return this.#date(at, n)
      case 1:
        return this.#elements(at, n)
      default:
        return fail(
          "UnknownExtension",
          `extension type ${(type << 24) >> 24}: only 1 (arrays) and -1 (instants) are known`
        )
    }
  }

  #date(at: number, n: number): Date {
    const view = this.#wide()
    let seconds: number
    let nanos = 0
    if (n === 4) {
      seconds = view.getUint32(at)
    } else if (n === 8) {
      const high = view.getUint32(at)
      nanos = high >>> 2
      seconds = (high & 3) * twoTo32 + view.getUint32(at + 4)
    } else if (n === 12) {
      nanos = view.getUint32(at)
      seconds = Number(view.getBigInt64(at + 4))
    } else {
      return fail("InvalidDate", `an instant of ${n} bytes instead of 4, 8 or 12`)
    }
    if (nanos > 999_999_999) fail("InvalidDate", `an instant with ${nanos} nanoseconds`)
    const date = new Date(seconds * 1000 + Math.floor(nanos / 1_000_000))
    if (Number.isNaN(date.getTime())) fail("InvalidDate", "an instant beyond the range of Date")
    return date
  }

  #elements(at: number, n: number): Date | NdArray.NdArray | NdArray.TypedArray {
    const bytes = this.#bytes
    const element = n < 2 ? undefined : elementTypes[bytes[at]! - 1]
    const dimensions = n < 2 ? 0 : bytes[at + 1]!
    const dataAt = at + 2 + 4 * dimensions
    if (element === undefined) return fail("InvalidArray", "an array whose element type is not known")
    if (dimensions > 32 || dataAt > at + n) return fail("InvalidArray", `an array of ${dimensions} dimensions`)
    const shape: Array<number> = []
    for (let i = at + 2; i < dataAt; i += 4) shape.push(this.#wide().getUint32(i, true))
    const size = arraySize(element, shape)
    if (size !== at + n - dataAt) {
      return fail("InvalidArray", `${at + n - dataAt} bytes for ${element.dtype} of shape [${shape.join(", ")}]`)
    }
    // A copy of its own is aligned, whatever the place in the message.
    const own = new Uint8Array(bytes.subarray(dataAt, at + n))
    const data = new element.make((littleEndian ? own : swapped(own, element.make.BYTES_PER_ELEMENT)).buffer)
    return dimensions === 1 && element.dtype !== "bool" ? data : NdArray.make(data, shape, element.dtype)
  }
}

const setOwn = (object: object, key: string, value: unknown): void => {
  Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true })
}
