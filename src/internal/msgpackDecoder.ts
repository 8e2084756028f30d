/**
 * The decoder of MessagePack.
 *
 * @internal
 */
import { isUtf8 } from "node:buffer"
import * as NdArray from "../NdArray.ts"
import { ArrowStream, arrowElement } from "./arrowStream.ts"
import type { FastBuffer } from "./msgpack.ts"
import { arraySize, elementTypes, fail, littleEndian, maxDepth, swapped, twoTo32, under } from "./msgpack.ts"

import type { Lent } from "./sharedMemory.ts"

const { utf8Slice } = Buffer.prototype as FastBuffer

/**
 * Arrays, maps, bytes and extensions in one message: each becomes an object, which takes up to two hundred times the
 * memory of the byte it may have been.
 */
const maxObjects = 1024 * 1024

/** How many keys of a `Map` may take how long, together with the bytes read meanwhile. They take a tenth of it at most. */
const paceKeys = 4096
const paceMillis = { least: 200, perKey: 0.003, perByte: 0.0001 }

const keyCacheSize = 1024
const none = new Uint8Array(0)

/**
 * Reads one value out of bytes that it never keeps: what it returns holds no view of them.
 *
 * @internal
 */
export class Decoder {
  #bytes: Uint8Array = none
  /** What the bytes refer to. */
  #lent: Lent | undefined
  #view: DataView | undefined
  #position = 0
  #end = 0
  /** How many values the containers may still announce: each takes a byte at least. */
  #announced = 0
  /** How many more objects there may be. */
  #objects = 0
  /** Keys of maps that are no objects, and when there were so many that they are watched. */
  #mapKeys = 0
  #watchedSince: { readonly position: number; readonly cpuMillis: number; readonly millis: number } | undefined
  readonly #keys: Array<string | undefined> = new Array(keyCacheSize).fill(undefined)
  /** What stands for the input stream with an id, which only a worker receives. */
  readonly #inputStream: ((id: number) => unknown) | undefined

  constructor(inputStream?: (id: number) => unknown) {
    this.#inputStream = inputStream
  }

  decode(bytes: Uint8Array, lent?: Lent): unknown {
    this.#bytes = bytes
    this.#lent = lent
    this.#position = 0
    this.#end = bytes.length
    this.#announced = bytes.length
    this.#objects = maxObjects
    this.#mapKeys = 0
    this.#watchedSince = undefined
    try {
      const value = this.#value(0)
      const left = this.#end - this.#position
      return left === 0
        ? value
        : fail("Trailing", `${left} bytes follow the value, which ends at byte ${this.#position}`)
    } finally {
      this.#bytes = none
      this.#lent = undefined
      this.#view = undefined
    }
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
    if (--this.#objects < 0) this.#tooMany()
  }

  #tooMany(): never {
    return fail(
      "TooManyItems",
      `more than ${maxObjects} arrays, maps, bytes and dates in one message: send numbers as typed or numpy arrays, or ` +
        "what there is in several messages"
    )
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
    let sparse = false
    let key: unknown
    try {
      for (let i = 0; i < n; i++) {
        key = undefined
        key = this.#key()
        if (typeof key !== "string") {
          const first = key
          key = undefined
          return this.#mapFrom(object, first, n - i, depth)
        }
        const first = key.charCodeAt(0)
        if (first <= digit9 && first >= digit0 && !sparse && isFarIndex(key, i)) {
          keepSparse(object)
          sparse = true
        }
        if (first === underscore && key === "__proto__") setOwn(object, key, this.#value(depth + 1))
        else object[key] = this.#value(depth + 1)
      }
    } catch (error) {
      throw under(error, key)
    }
    return object
  }

  /** A map with a key that is not a string: what was read of it, then the rest, from the value of `first` on. */
  #mapFrom(read: Readonly<Record<string, unknown>>, first: unknown, n: number, depth: number): Map<unknown, unknown> {
    const map = new Map<unknown, unknown>(Object.entries(read))
    let key = first
    try {
      map.set(key, this.#value(depth + 1))
      for (let i = 1; i < n; i++) {
        key = undefined
        key = this.#key()
        map.set(key, this.#value(depth + 1))
        if (++this.#mapKeys % paceKeys === 0) this.#checkPace()
      }
    } catch (error) {
      throw under(error, key)
    }
    return map
  }

  /**
   * The hashes of numbers in a `Map` are no secret: with keys that share one, each takes longer than the one before. The
   * computer may have slept, and other threads may be busy: it is slow by both clocks or not at all.
   */
  #checkPace(): void {
    const now = { position: this.#position, cpuMillis: cpuMillis(), millis: performance.now() }
    const since = this.#watchedSince
    if (since === undefined) {
      this.#watchedSince = now
      return
    }
    const took = Math.min(now.cpuMillis - since.cpuMillis, now.millis - since.millis)
    const { least, perByte, perKey } = paceMillis
    if (took > least + perKey * this.#mapKeys + perByte * (now.position - since.position)) {
      fail("InvalidKey", "the keys of a map have the same hashes: send it as an array of pairs")
    }
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
    if (--this.#objects < 0) this.#tooMany()
    return new Uint8Array(this.#bytes.subarray(at, at + n))
  }

  #extension(n: number): unknown {
    const type = this.#uint8()
    const at = this.#take(n)
    if (--this.#objects < 0) this.#tooMany()
    switch (type) {
      case 0xff:
        return this.#date(at, n)
      case 1:
        return this.#elements(at, n)
      case 2:
        if (this.#inputStream !== undefined && n === 4) return this.#inputStream(this.#wide().getUint32(at, true))
        break
      case 3:
        return this.#lentValue(at, n)
      case 4:
        // A copy of its own is aligned, as Arrow wants it, whatever the place in the message.
        return new ArrowStream([new Uint8Array(this.#bytes.subarray(at, at + n))])
    }
    return fail(
      "UnknownExtension",
      `extension type ${(type << 24) >> 24}: only 1 (arrays), 3 (shared memory), 4 (Arrow) and -1 (instants) are known`
    )
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

  #elements(at: number, n: number): NdArray.NdArray | NdArray.TypedArray {
    const head = this.#arrayHead(at, n)
    // A copy of its own is aligned, whatever the place in the message.
    const own = new Uint8Array(this.#bytes.subarray(head.end, at + n))
    return arrayOf(head, littleEndian ? own : swapped(own, head.element.make.BYTES_PER_ELEMENT))
  }

  /** Element type and shape of an array, and where they end, in the `n` bytes from `at`. */
  #arrayHead(at: number, n: number): ArrayHead {
    const element = n < 2 ? undefined : elementTypes[this.#bytes[at]! - 1]
    const dimensions = n < 2 ? 0 : this.#bytes[at + 1]!
    const end = at + 2 + 4 * dimensions
    if (element === undefined) return fail("InvalidArray", "an array whose element type is not known")
    if (dimensions > 32 || end > at + n) return fail("InvalidArray", `an array of ${dimensions} dimensions`)
    const shape: Array<number> = []
    for (let i = at + 2; i < end; i += 4) shape.push(this.#wide().getUint32(i, true))
    return { element, shape, end }
  }

  /** A value that lies in shared memory: bytes, the elements of an array, or a stream of Arrow. */
  #lentValue(at: number, n: number): unknown {
    const lent = this.#lent
    if (lent === undefined || n < 4) {
      return fail("InvalidReference", "a value in shared memory, in a message that refers to none")
    }
    const isArrow = n === 6 && this.#bytes[at + 4] === arrowElement && this.#bytes[at + 5] === 0
    const head = n === 4 || isArrow ? undefined : this.#arrayHead(at + 4, n - 4)
    if (head !== undefined && head.end !== at + n) fail("InvalidArray", "bytes behind the shape of an array")
    const bytes = lent.take(this.#wide().getUint32(at, true))
    if (isArrow) return new ArrowStream([bytes])
    return head === undefined ? bytes : arrayOf(head, bytes)
  }
}

interface ArrayHead {
  readonly element: (typeof elementTypes)[number]
  readonly shape: ReadonlyArray<number>
  readonly end: number
}

const arrayOf = (
  { element, shape }: ArrayHead,
  bytes: Uint8Array<ArrayBuffer>
): NdArray.NdArray | NdArray.TypedArray => {
  const size = arraySize(element, shape)
  if (size !== bytes.length || bytes.byteOffset % element.make.BYTES_PER_ELEMENT !== 0) {
    return fail("InvalidArray", `${bytes.length} bytes for ${element.dtype} of shape [${shape.join(", ")}]`)
  }
  const data = new element.make(bytes.buffer, bytes.byteOffset, bytes.length / element.make.BYTES_PER_ELEMENT)
  return shape.length === 1 && element.dtype !== "bool" ? data : NdArray.make(data, shape, element.dtype)
}

const cpuMillis = (): number => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1000
}

const [underscore, digit0, digit9] = [0x5f, 0x30, 0x39]

const setOwn = (object: object, key: string, value: unknown): void => {
  Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true })
}

const isIndex = /^(0|[1-9]\d{0,9})$/

/** Whether an object with `n` properties would be given room for many more by this one. */
const isFarIndex = (key: string, n: number): boolean => Number(key) > n + 8 && isIndex.test(key)

const farIndex = 2 ** 20

/**
 * V8 gives an object with the key "1000" room for more than a thousand elements, twelve kilobytes for a few bytes. One that
 * has had an index far away has a table instead, as long as that is the smaller.
 */
const keepSparse = (object: Record<number, unknown>): void => {
  object[farIndex] = undefined
  delete object[farIndex]
}
