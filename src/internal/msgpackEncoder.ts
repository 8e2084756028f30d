/**
 * The encoder of MessagePack.
 *
 * @internal
 */
import { types } from "node:util"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as NdArray from "../NdArray.ts"
import { ArrowStream, arrowElement } from "./arrowStream.ts"
import type { FastBuffer } from "./msgpack.ts"
import {
  arraySize,
  CodecError,
  elementTypes,
  fail,
  littleEndian,
  maxDepth,
  swapped,
  twoTo32,
  under
} from "./msgpack.ts"
import type { Places, Reference } from "./sharedMemory.ts"
import { StreamReference } from "./streamReference.ts"

const allocate = (size: number): FastBuffer => Buffer.allocUnsafeSlow(size) as FastBuffer

const chunkSize = 64 * 1024
/** A buffer that grew beyond this is not kept for the next batch. */
const keptSize = 1024 * 1024

const maxUint64 = 2n ** 64n - 1n
const minInt64 = -(2n ** 63n)
const maxSafe = BigInt(Number.MAX_SAFE_INTEGER)
const codeOf = new Map<NdArray.DType, number>(elementTypes.map(({ dtype }, i) => [dtype, i + 1]))

const bytesOf = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)

const advice = (x: object): string => {
  const name: unknown = Object.getPrototypeOf(x)?.constructor?.name
  if (x instanceof Error) return `${name} is an error: pass its message or its fields`
  if (types.isPromise(x)) return "a Promise: await it first"
  if (types.isRegExp(x)) return "a RegExp: pass its source"
  if (Stream.isStream(x)) return "a Stream: pass it as the input itself or as one of its fields, no deeper"
  if (Effect.isEffect(x)) return "an Effect: run it first"
  if (ArrayBuffer.isView(x)) return `a ${name}: pass a Float32Array, or bytes`
  if ((name === "Table" || name === "RecordBatch") && "numRows" in x) {
    return `a ${name} of Arrow: give the call a \`payload\` schema with Arrow.${name} of effect-synapse/Arrow`
  }
  const what = `an instance of ${name || "a class"}`
  return `${what}: pass a plain object, or give the call a \`payload\` schema that encodes it`
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
  /** Where large values of the current frame may go, and those that did. */
  #places: Places | undefined
  #references: Array<Reference> | undefined

  /** Bytes that {@link take} would give. */
  get size(): number {
    return this.position - this.#origin
  }

  /** Begins a frame. One that becomes larger than `limit` is measured to its end but takes no more memory. */
  begin(limit: number, places?: Places): number {
    this.#limit = limit
    this.#places = places
    this.#references = undefined
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

  /** What the current frame refers to; nothing where it has all of its values in itself. */
  get references(): ReadonlyArray<Reference> | undefined {
    return this.#references
  }

  /** Forgets the current frame. */
  rollback(): void {
    for (const reference of this.#references ?? []) this.#places?.drop(reference)
    this.#references = undefined
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
    // Only what is written counts: `n` is room that may be needed, and a frame of which something was dropped is lost.
    if (this.position - this.#start > this.#limit) {
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
    else if (x instanceof StreamReference) this.#reference(x)
    else if (x instanceof ArrowStream) this.#arrow(x)
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
        if (key instanceof Uint8Array) this.#carried(key)
        else
          fail(
            "InvalidKey",
            "the key of a Map is not a string, number, bigint, boolean or Uint8Array: pass an array of pairs"
          )
    }
  }

  /** The header of an array or a map: `small` holds up to 15 itself, `large` is followed by 16 bits, the next by 32. */
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
      this.#dropped += most + stringHeaderSize(most)
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

  /** Puts a large value where both sides have memory; `undefined` where the message has to carry it. */
  #placed(view: ArrayBufferView): Reference | undefined {
    const places = this.#places
    if (places === undefined) return undefined
    const isLarge = view.byteLength >= places.threshold
    return this.#refer(places.refer(view) ?? (isLarge ? places.place([bytesOf(view)], view.byteLength) : undefined))
  }

  #refer(reference: Reference | undefined): Reference | undefined {
    if (reference === undefined) return undefined
    this.#references ??= []
    this.#references.push(reference)
    return reference
  }

  #serial({ serial }: Reference, headSize: number): void {
    this.#extension(4 + headSize, 3)
    this.room(4)
    this.view.setUint32(this.position, serial, true)
    this.position += 4
  }

  #binary(bytes: Uint8Array): void {
    const reference = this.#placed(bytes)
    if (reference === undefined) this.#carried(bytes)
    else this.#serial(reference, 0)
  }

  /** Bytes that are in the message itself, as those of a key have to be. */
  #carried(bytes: Uint8Array): void {
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

  #reference({ id }: StreamReference): void {
    this.#extension(4, 2)
    this.room(4)
    this.view.setUint32(this.position, id, true)
    this.position += 4
  }

  #arrow({ byteLength, pieces }: ArrowStream): void {
    const places = this.#places
    const isLarge = places !== undefined && byteLength >= places.threshold
    const reference = this.#refer(isLarge ? places.place(pieces, byteLength) : undefined)
    if (reference === undefined) {
      this.#extension(byteLength, 4)
      for (const piece of pieces) this.bytes(piece)
    } else {
      this.#serial(reference, 2)
      this.#byte(arrowElement)
      this.#byte(0)
    }
  }

  #elements(dtype: NdArray.DType, shape: ReadonlyArray<number>, data: ArrayBufferView): void {
    const code = codeOf.get(dtype)
    const size = code === undefined ? Number.NaN : arraySize(elementTypes[code - 1]!, shape)
    if (code === undefined || size !== data.byteLength || shape.length > 32) {
      // Its buffer is empty, and that of nothing else.
      throw new CodecError(
        "InvalidArray",
        data.buffer instanceof ArrayBuffer && data.buffer.detached
          ? "an array whose memory was let go of: use what Synapse.allocate gives within its scope, or a slice() of it"
          : "an NdArray whose shape does not hold its elements: use NdArray.make"
      )
    }
    const headSize = 2 + 4 * shape.length
    const reference = this.#placed(data)
    if (reference === undefined) this.#extension(headSize + data.byteLength, 1)
    else this.#serial(reference, headSize)
    this.room(headSize)
    this.buffer[this.position++] = code
    this.buffer[this.position++] = shape.length
    for (const n of shape) {
      this.view.setUint32(this.position, n, true)
      this.position += 4
    }
    if (reference !== undefined) return
    this.bytes(littleEndian ? bytesOf(data) : swapped(bytesOf(data), elementTypes[code - 1]!.make.BYTES_PER_ELEMENT))
  }
}

const loneSurrogate = "a string with half of a surrogate pair: call toWellFormed() on it, or pass bytes"

const stringHeaderSize = (length: number): number => (length < 32 ? 1 : length < 0x100 ? 2 : length < 0x10000 ? 3 : 5)
