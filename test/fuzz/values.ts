/** Values that can be carried, MessagePack that somebody made up, and bytes with faults in them. */
import { Encoder } from "../../src/internal/msgpackEncoder.ts"
import * as NdArray from "../../src/NdArray.ts"
import type { Random } from "./random.ts"

export const encode = (value: unknown): Uint8Array => {
  const encoder = new Encoder()
  encoder.encode(value)
  return encoder.take()
}

const integers: ReadonlyArray<number | bigint> = [0, 7, 8, 15, 16, 31, 32, 53, 63].flatMap((bits) => {
  const power = 2n ** BigInt(bits)
  return [power - 1n, power, power + 1n, -power, 1n - power].map((n) =>
    n >= -(2n ** 53n) + 1n && n < 2n ** 53n ? Number(n) : n
  )
})
const floats = [0.5, -0, 1e300, 5e-324, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0.1]
const texts = ["", "a", "id", "é", "漢字", "😀", "\u0000", "\ufffd", "x".repeat(31), "y".repeat(32), "ü".repeat(130)]
const keys = [
  "a",
  "b",
  "_tag",
  "__proto__",
  "constructor",
  "toString",
  "hasOwnProperty",
  "0",
  "1",
  "1023",
  "4294967294"
]
const arrays = [
  Int8Array,
  Uint8Array,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array
] as const

const text = (random: Random): string =>
  random.chance(0.5)
    ? random.pick(texts)
    : random
        .pick(texts)
        .slice(0, 40)
        .concat(String(random.below(1e9)))

/** A value that comes back equal. */
export const value = (random: Random, depth = 4): unknown => {
  const leaf = random.below(depth === 0 ? 7 : 11)
  switch (leaf) {
    case 0:
      return random.pick([null, true, false])
    case 1:
      return random.pick(integers)
    case 2:
      return random.chance(0.5) ? random.pick(floats) : (random.next() - 0.5) * 10 ** random.below(20)
    case 3:
      return text(random)
    case 4:
      return new Uint8Array(random.bytes(random.pick([0, 1, 3, 255, 256])))
    case 5:
      return new Date(Math.floor((random.next() - 0.3) * 10 ** random.below(16)))
    case 6:
      return typedArray(random)
    case 7:
      return random.times(size(random), () => value(random, depth - 1))
    case 8:
      return map(random, depth)
    default:
      return record(random, depth)
  }
}

const size = (random: Random): number => (random.chance(0.02) ? random.pick([15, 16, 17, 300]) : random.below(5))

const record = (random: Random, depth: number): unknown => {
  const entries = random.times(size(random), () => {
    const key = random.chance(0.6) ? random.pick(keys) : text(random)
    return [key, value(random, depth - 1)] as const
  })
  return Object.fromEntries(entries)
}

/** One with only strings as keys would come back as an object. */
const map = (random: Random, depth: number): unknown => {
  const entries = random.times(random.below(4), () => {
    const key = random.pick([text(random), random.pick(integers), random.pick(floats), random.chance(0.5)])
    return [key, value(random, depth - 1)] as const
  })
  return new Map<unknown, unknown>([[random.below(1000), null], ...entries])
}

const typedArray = (random: Random): unknown => {
  const make = random.pick(arrays)
  const shape = random.times(random.below(4), () => random.below(4))
  const length = shape.reduce((product, n) => product * n, 1)
  const bytes = random.bytes(length * make.BYTES_PER_ELEMENT)
  const data = new make(new Uint8Array(bytes).buffer)
  return shape.length === 1 ? data : NdArray.make(data, shape)
}

const tokens = [
  ..."c0 c2 c3 00 01 7f e0 ff c1 a0 c400 90 80".split(" "),
  ..."cc80 cdffff ceffffffff cfffffffffffffffff d080 d18000 d280000000 d38000000000000000".split(" "),
  ..."cf0020000000000000 d3ffe0000000000000 ca3fc00000 ca7fc00001 cb7ff8000000000000 cbfff0000000000001".split(" "),
  ..."a161 a130 a431303233 aa34323934393637323935 a2c3a9 a1ff a3eda080 d90161 da000161 db0000000161".split(" "),
  ..."ab636f6e7374727563746f72 a95f5f70726f746f5f5f a45f746167 a66c656e677468".split(" "),
  ..."c40101 c5000101 c60000000101 91 92 93 9f dc0001 dd00000002 81 82 83 8f de0001 df00000002".split(" "),
  ..."d6ff00000001 d7ff0000000000000001 c70cff000000010000000000000001 d4ff00 d40501 d502ffff c70005".split(" "),
  ..."d6020100000002 c7070103010100000005 c70e010602010000000200000001 c7060101010000000 c7030102007f".split(" "),
  ..."dc ffff ddffffffff dfffffffff dbffffffff c6ffffffff c9ffffffff01 92d4724091a161054007".split(" ")
].map((hex) => Buffer.from(hex, "hex"))

/** Whole tokens of MessagePack in an order that nobody meant. */
export const soup = (random: Random, most = 14): Buffer =>
  Buffer.concat(random.times(1 + random.below(most), () => random.pick(tokens)))

const edges = [0x00, 0x01, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc7, 0xd4, 0xdd, 0xdf, 0xe0, 0xff]

/** The same bytes with a few faults. */
export const mutated = (random: Random, bytes: Uint8Array): Buffer => {
  let result: Buffer = Buffer.from(bytes)
  for (let faults = 1 + random.below(4); faults > 0; faults--) result = fault(random, result)
  return result
}

const fault = (random: Random, bytes: Buffer): Buffer => {
  if (bytes.length === 0) return random.bytes(1)
  const at = random.below(bytes.length)
  const to = at + 1 + random.below(Math.min(8, bytes.length - at))
  switch (random.below(7)) {
    case 0:
      bytes[at] = bytes[at]! ^ (1 << random.below(8))
      return bytes
    case 1:
      bytes[at] = random.pick(edges)
      return bytes
    case 2:
      bytes[at] = random.below(256)
      return bytes
    case 3:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(to)])
    case 4:
      return Buffer.concat([bytes.subarray(0, to), bytes.subarray(at)])
    case 5:
      return Buffer.concat([bytes.subarray(0, at), soup(random, 3), bytes.subarray(at)])
    default:
      return bytes.subarray(0, at)
  }
}
