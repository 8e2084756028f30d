import { createContext, runInContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Packr } from "msgpackr"
import type { CodecReason } from "../src/internal/msgpack.ts"
import { CodecError } from "../src/internal/msgpack.ts"
import { Decoder } from "../src/internal/msgpackDecoder.ts"
import { Encoder } from "../src/internal/msgpackEncoder.ts"
import * as NdArray from "../src/NdArray.ts"

const encode = (value: unknown): Uint8Array => {
  const encoder = new Encoder()
  encoder.encode(value)
  return encoder.take()
}

const encodedHex = (value: unknown): string => Buffer.from(encode(value)).toString("hex")

const decoder = new Decoder()
const decodeHex = (hex: string): unknown => decoder.decode(Buffer.from(hex, "hex"))

const roundTrip = (value: unknown): unknown => decoder.decode(encode(value))

const errorOf = (run: () => unknown): CodecError => {
  try {
    run()
  } catch (error) {
    if (error instanceof CodecError) return error
    throw error
  }
  return assert.fail("nothing was refused")
}

/** A small generator of numbers from 0 to 1 (mulberry32): what fails is found again. */
const seeded = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}

class Point {
  readonly x = 1
}

describe("MessagePack", () => {
  describe("integers and floats", () => {
    const forms: ReadonlyArray<readonly [value: number | bigint, hex: string]> = [
      [0, "00"],
      [127, "7f"],
      [128, "cc80"],
      [255, "ccff"],
      [256, "cd0100"],
      [65535, "cdffff"],
      [65536, "ce00010000"],
      [2 ** 31, "ce80000000"],
      [2 ** 32 - 1, "ceffffffff"],
      [2 ** 32, "cf0000000100000000"],
      [Number.MAX_SAFE_INTEGER, "cf001fffffffffffff"],
      [-1, "ff"],
      [-32, "e0"],
      [-33, "d0df"],
      [-128, "d080"],
      [-129, "d1ff7f"],
      [-32768, "d18000"],
      [-32769, "d2ffff7fff"],
      [-(2 ** 31), "d280000000"],
      [-(2 ** 31) - 1, "d3ffffffff7fffffff"],
      [-(2 ** 32), "d3ffffffff00000000"],
      [Number.MIN_SAFE_INTEGER, "d3ffe0000000000001"],
      [2n ** 53n, "cf0020000000000000"],
      [2n ** 64n - 1n, "cfffffffffffffffff"],
      [-(2n ** 53n), "d3ffe0000000000000"],
      [-(2n ** 63n), "d38000000000000000"],
      [-0, "cb8000000000000000"],
      [0.1, "cb3fb999999999999a"],
      [2 ** 53, "cb4340000000000000"],
      [Number.POSITIVE_INFINITY, "cb7ff0000000000000"],
      [Number.NaN, "cb7ff8000000000000"]
    ]

    it("take the shortest form and come back as they were", () => {
      for (const [value, hex] of forms) {
        assert.strictEqual(encodedHex(value), hex)
        assert.deepStrictEqual(roundTrip(value), value)
      }
    })

    it("are numbers where a number holds them, whatever the width on the wire", () => {
      assert.strictEqual(roundTrip(5n), 5)
      assert.strictEqual(decodeHex("d30000000000000005"), 5)
      assert.strictEqual(decodeHex("cf0000000000000005"), 5)
      assert.strictEqual(decodeHex("d3ffffffffffffffff"), -1)
      assert.strictEqual(decodeHex("ca3fc00000"), 1.5)
    })

    it("are refused beyond 64 bits", () => {
      assert.strictEqual(errorOf(() => encode(2n ** 64n)).reason, "IntRange")
      assert.strictEqual(errorOf(() => encode(-(2n ** 63n) - 1n)).reason, "IntRange")
    })

    it.effect.prop("come back equal", { n: Schema.Number }, ({ n }) =>
      Effect.sync(() => assert.isTrue(Object.is(roundTrip(n), n)))
    )
  })

  describe("text", () => {
    const lengths = [0, 1, 11, 12, 31, 32, 33, 85, 86, 255, 256, 21_845, 65_535, 65_536, 70_000, 200_000]

    it("comes back equal at every width of the header", () => {
      for (const unit of ["a", "é", "漢", "😀", "a漢"]) {
        for (const length of lengths) {
          const text = unit.repeat(Math.ceil(length / unit.length))
          assert.strictEqual(roundTrip(text), text)
        }
      }
    })

    it("has the shortest header", () => {
      assert.strictEqual(encodedHex("é".repeat(15)).slice(0, 2), "be")
      assert.strictEqual(encodedHex("é".repeat(16)).slice(0, 4), "d920")
      assert.strictEqual(encodedHex("é".repeat(128)).slice(0, 6), "da0100")
    })

    it("keeps U+FFFD and NUL, which are characters", () => {
      for (const text of ["\ufffd", "a\u0000b", `${"x".repeat(50)}\ufffd`]) assert.strictEqual(roundTrip(text), text)
    })

    it("is refused with half of a surrogate pair, at every length", () => {
      for (const length of lengths) {
        for (const text of [`${"a".repeat(length)}\ud800`, `\udfff${"é".repeat(length)}`]) {
          assert.strictEqual(errorOf(() => encode({ deep: [text] })).reason, "InvalidString")
        }
      }
      assert.strictEqual(errorOf(() => encode({ "\ud800": 1 })).reason, "InvalidString")
    })

    it.effect.prop("comes back equal", { text: Schema.String }, ({ text }) =>
      Effect.sync(() => {
        if (text.isWellFormed()) assert.strictEqual(roundTrip(text), text)
        else assert.strictEqual(errorOf(() => encode(text)).reason, "InvalidString")
      })
    )
  })

  describe("bytes and arrays of numbers", () => {
    it("are bytes from every view that means bytes", () => {
      const bytes = Uint8Array.of(0, 1, 2, 3)
      const views = [bytes, Buffer.from(bytes), bytes.buffer, new DataView(bytes.buffer), new Uint8Array(bytes.buffer)]
      for (const view of views) assert.deepStrictEqual(roundTrip(view), bytes)
      assert.deepStrictEqual(roundTrip(new DataView(bytes.buffer, 1, 2)), Uint8Array.of(1, 2))
      for (const n of [0, 255, 256, 65_535, 65_536])
        assert.deepStrictEqual(roundTrip(new Uint8Array(n)), new Uint8Array(n))
    })

    it("are a copy of their own, not a view of the message", () => {
      const message = Buffer.from(encode([Uint8Array.of(1, 2), Float32Array.of(1)]))
      const [bytes, floats] = decoder.decode(message) as [Uint8Array, Float32Array]
      message.fill(0)
      assert.deepStrictEqual([bytes, floats], [Uint8Array.of(1, 2), Float32Array.of(1)])
      assert.strictEqual(Object.getPrototypeOf(bytes), Uint8Array.prototype)
      assert.strictEqual(bytes.buffer.byteLength, 2)
    })

    const arrays = [
      Int8Array.of(-1, 2),
      Int16Array.of(-1, 300),
      Uint16Array.of(1, 65535),
      Int32Array.of(-1, 2 ** 30),
      Uint32Array.of(1, 2 ** 32 - 1),
      BigInt64Array.of(-1n, 2n ** 62n),
      BigUint64Array.of(1n, 2n ** 64n - 1n),
      Float32Array.of(1.5, Number.NaN),
      Float64Array.of(0.1, -0, Number.POSITIVE_INFINITY),
      new Float64Array(0)
    ]

    it("keep their element type, wherever in the message and in memory they lie", () => {
      for (const array of arrays) {
        for (const before of ["", "x", "xx", "xyz"]) assert.deepStrictEqual(roundTrip([before, array]), [before, array])
      }
      assert.deepStrictEqual(roundTrip(new Float32Array(Float32Array.of(0, 1, 2).buffer, 4, 1)), Float32Array.of(1))
      assert.deepStrictEqual(roundTrip(Uint8ClampedArray.of(1, 2)), Uint8Array.of(1, 2))
    })

    it("have the layout of the protocol", () => {
      assert.strictEqual(encodedHex(Int16Array.of(1, -1)), "c70a01040102000000" + "0100ffff")
      assert.strictEqual(
        encodedHex(NdArray.make(Uint8Array.of(1, 0, 1, 1), [2, 2], "bool")),
        "c70e0101020200000002000000" + "01000101"
      )
    })

    it("keep their shape", () => {
      const cases = [
        NdArray.make(Float64Array.of(1, 2, 3, 4, 5, 6), [2, 3]),
        NdArray.make(Float64Array.of(7), []),
        NdArray.make(new Float32Array(0), [0, 5]),
        NdArray.make(Uint8Array.of(1, 0), [2], "bool"),
        NdArray.make(Uint8Array.of(1, 2), [1, 2]),
        NdArray.make(
          BigInt64Array.of(5n),
          Array.from({ length: 32 }, () => 1)
        )
      ]
      for (const array of cases) assert.deepStrictEqual(roundTrip(array), array)
      assert.deepStrictEqual(roundTrip(NdArray.make(Uint8Array.of(1, 2), [2])), Uint8Array.of(1, 2))
    })

    it("are refused when shape and elements disagree", () => {
      const invalid = [
        "c70001", // nothing
        "d40101", // no dimensions
        "d50101ff", // 255 dimensions
        "c7060100010100000000", // element type 0
        "c706010c010100000000", // element type 12
        "c707010b010100000000", // one byte of a float64
        "c7060103010200000000", // trailing bytes missing
        "c707010302ffffffff00", // shape cut off
        `c70a010302ffffffffffffffff` // more elements than there is memory
      ]
      for (const hex of invalid)
        assert.instanceOf(
          errorOf(() => decodeHex(hex)),
          CodecError
        )
      assert.strictEqual(
        errorOf(() => encode(Object.assign(NdArray.make(Int8Array.of(1), [1]), { shape: [2] }))).reason,
        "InvalidArray"
      )
    })
  })

  describe("instants", () => {
    it("come back equal, to the millisecond", () => {
      const times = [
        0,
        1,
        999,
        -1,
        1_700_000_000_123,
        2 ** 32 * 1000,
        2 ** 34 * 1000 - 1,
        2 ** 34 * 1000,
        8.64e15,
        -8.64e15
      ]
      for (const time of times) assert.deepStrictEqual(roundTrip(new Date(time)), new Date(time))
    })

    it("take the form that their size asks for", () => {
      assert.strictEqual(encodedHex(new Date(1000)), "d6ff00000001")
      assert.strictEqual(encodedHex(new Date(1)), "d7ff003d090000000000")
      assert.strictEqual(encodedHex(new Date(-1)), "c70cff3b8b87c0ffffffffffffffff")
    })

    it("are truncated toward earlier", () => {
      assert.deepStrictEqual(decodeHex("d7ff0000000400000001"), new Date(1000))
      assert.deepStrictEqual(decodeHex("c70cff00000005fffffffffffffffe"), new Date(-2000))
      assert.deepStrictEqual(decodeHex("c70cff3b9ac9fffffffffffffffffe"), new Date(-1001))
    })

    it("are refused when there is none", () => {
      assert.strictEqual(errorOf(() => encode({ at: new Date(Number.NaN) })).message, "an invalid Date (at $.at)")
      for (const hex of [
        "d4ff00",
        "c70cffffffffff0000000000000000",
        "c70cff000000004000000000000000",
        "c70cff0000000000001f3fffffc28bff"
      ]) {
        assert.strictEqual(errorOf(() => decodeHex(hex)).reason, "InvalidDate")
      }
    })
  })

  describe("containers", () => {
    it("leave out undefined properties and keep undefined items as null", () => {
      assert.deepStrictEqual(roundTrip({ a: undefined, b: [undefined, 1, undefined, 2], c: { d: undefined } }), {
        b: [null, 1, null, 2],
        c: {}
      })
      assert.isNull(roundTrip(undefined))
    })

    it("come back equal at every width of the header", () => {
      for (const n of [0, 15, 16, 65_535, 65_536]) {
        const items = Array.from({ length: n }, (_, i) => i)
        assert.deepStrictEqual(roundTrip(items), items)
        const record = Object.fromEntries(items.map((i) => [`k${i}`, i]))
        assert.deepStrictEqual(roundTrip(record), record)
        assert.deepStrictEqual(roundTrip({ ...record, a: undefined, b: undefined }), record)
        const map = new Map(items.map((i) => [i + 0.5, i]))
        assert.deepStrictEqual(roundTrip(map), n === 0 ? {} : map)
      }
    })

    it("give maps with other keys than strings as a Map, without loss", () => {
      const keys = [1, "1", -1.5, true, false, 2n ** 60n, "__proto__"]
      const map = new Map(keys.map((key, i) => [key, i]))
      assert.deepStrictEqual(roundTrip(map), map)
      assert.deepStrictEqual(
        decodeHex("82a1610101a162"),
        new Map<unknown, unknown>([
          ["a", 1],
          [1, "b"]
        ])
      )
      assert.deepStrictEqual(roundTrip(new Map([[Uint8Array.of(1), 2]])), new Map([[Uint8Array.of(1), 2]]))
    })

    it("give a Map of strings as an object", () => {
      assert.deepStrictEqual(roundTrip(new Map([["a", 1]])), { a: 1 })
    })

    it("take sets as arrays and objects without prototype as maps", () => {
      assert.deepStrictEqual(roundTrip(new Set([1, "a"])), [1, "a"])
      assert.deepStrictEqual(roundTrip(Object.assign(Object.create(null), { a: 1 })), { a: 1 })
    })

    it("take objects of another realm", () => {
      const other = runInContext(
        "({ o: { a: [1] }, m: new Map([[1, 2]]), s: new Set([3]), d: new Date(5), b: Uint8Array.of(1).buffer })",
        createContext()
      )
      assert.deepStrictEqual(roundTrip(other), {
        o: { a: [1] },
        m: new Map([[1, 2]]),
        s: [3],
        d: new Date(5),
        b: Uint8Array.of(1)
      })
    })

    it("keep __proto__ and constructor as keys", () => {
      const object = JSON.parse(`{"__proto__": {"x": 1}, "constructor": 2, "toString": 3, "hasOwnProperty": 4}`)
      const back = roundTrip(object) as object
      assert.deepStrictEqual(Object.entries(back), Object.entries(object))
      assert.strictEqual(Object.getPrototypeOf(back), Object.prototype)
      assert.isUndefined(Reflect.get({}, "x"))
    })

    it("let the last of two equal keys win", () => {
      assert.deepStrictEqual(decodeHex("82a16101a16102"), { a: 2 })
    })

    it("read a property once", () => {
      let reads = 0
      const value = {
        get flicker() {
          return ++reads % 2 === 1 ? 1 : undefined
        }
      }
      assert.deepStrictEqual(roundTrip(value), { flicker: 1 })
    })

    it("nest to 128 levels in both directions", () => {
      const nested = (levels: number) => Array.from({ length: levels }).reduce<unknown>((inner) => [inner], 1)
      assert.deepStrictEqual(roundTrip(nested(128)), nested(128))
      assert.strictEqual(errorOf(() => encode(nested(129))).reason, "TooDeep")
      assert.strictEqual(errorOf(() => decodeHex(`${"91".repeat(129)}01`)).reason, "TooDeep")
    })
  })

  describe("what cannot be carried", () => {
    const cyclic: Record<string, unknown> = { inner: { list: [] } }
    cyclic.back = [{ cyclic }]
    const cases: ReadonlyArray<readonly [value: unknown, message: string]> = [
      [{ items: [0, { name: Symbol("x") }] }, "a symbol: pass its description (at $.items[1].name)"],
      [{ "two words": { f: () => 1 } }, 'a function: pass what it returns (at $["two words"].f)'],
      [
        [new Point()],
        "an instance of Point: pass a plain object, or give the call a `payload` schema that encodes it (at $[0])"
      ],
      [Promise.resolve(1), "a Promise: await it first (at $)"],
      [{ e: new TypeError("x") }, "TypeError is an error: pass its message or its fields (at $.e)"],
      [/a/, "a RegExp: pass its source (at $)"],
      [new Map([[1, new Map([["k", Symbol("x")]])]]), "a symbol: pass its description (at $[1].k)"],
      [new Set([1, Symbol("x")]), "a symbol: pass its description (at $[1])"],
      [
        { m: new Map([[{}, 1]]) },
        "the key of a Map is not a string, number, bigint, boolean or Uint8Array: pass an array of pairs (at $.m)"
      ],
      [cyclic, "the value contains itself: pass a copy without the cycle (at $.back[0].cyclic)"],
      [{ n: 2n ** 64n }, "an integer beyond 64 bits: pass it as text (at $.n)"],
      [
        new WeakMap(),
        "an instance of WeakMap: pass a plain object, or give the call a `payload` schema that encodes it (at $)"
      ]
    ]

    it("is refused with the place and what to do", () => {
      for (const [value, message] of cases) assert.strictEqual(errorOf(() => encode(value)).message, message)
    })

    it("takes a value that occurs twice, which is no cycle", () => {
      const shared = { a: 1 }
      assert.deepStrictEqual(roundTrip([shared, { shared }]), [shared, { shared }])
    })
  })

  describe("hostile bytes", () => {
    const refused: ReadonlyArray<readonly [name: string, hex: string, reason: CodecReason]> = [
      ["nothing", "", "Truncated"],
      ["trailing byte", "0102", "Trailing"],
      ["truncated text", "a56162", "Truncated"],
      ["truncated map", "82a16101", "Truncated"],
      ["truncated integer", "ce0001", "Truncated"],
      ["array of 4e9", "ddffffffff", "Truncated"],
      ["map of 4e9", "dfffffffff", "Truncated"],
      ["text of 4e9", "dbffffffff", "Truncated"],
      ["bytes of 4e9", "c6ffffffff", "Truncated"],
      ["extension of 4e9", "c9ffffffff05", "Truncated"],
      ["array of 1e6, ten given", `dd000f4240${"c0".repeat(10)}`, "Truncated"],
      ["arrays of 64k in one another", `${"dd0000ffff".repeat(4)}${"00".repeat(65_600)}`, "Truncated"],
      ["0xc1", "c1", "Reserved"],
      ["array as key", "8191a95f5f70726f746f5f5f81a17801", "InvalidKey"],
      ["map as key", "818001", "InvalidKey"],
      ["nil as key", "81c001", "InvalidKey"],
      ["instant as key", "81d6ff0000000101", "InvalidKey"],
      ["0xc1 as key", "81c101", "InvalidKey"],
      ["array as a later key", "8201019101", "InvalidKey"],
      ["UTF-8 ff fe", "a2fffe", "InvalidString"],
      ["UTF-8 of a surrogate", "a3eda080", "InvalidString"],
      ["UTF-8 overlong", "a2c080", "InvalidString"],
      ["UTF-8 cut off", "a2e6bc", "InvalidString"],
      ["UTF-8 invalid at the end of long text", `d950${"61".repeat(79)}ff`, "InvalidString"],
      ["UTF-8 invalid beside U+FFFD", "a4efbfbdff", "InvalidString"],
      ["UTF-8 invalid in a key", "81a1ff01", "InvalidString"],
      ["extension 0", "d40000", "UnknownExtension"],
      ["extension 5", "d40501", "UnknownExtension"],
      ["extension -2", "d4fe01", "UnknownExtension"],
      ...["42", "62", "65", "69", "70", "72", "73", "74", "78"].map(
        (type) => [`extension 0x${type}`, `c704${type}00000001`, "UnknownExtension"] as const
      ),
      ["record definition", "92d4724091a161054007", "UnknownExtension"],
      ["depth 600", `${"91".repeat(600)}01`, "TooDeep"],
      ["depth 1e6", `${"91".repeat(1_000_000)}01`, "TooDeep"],
      ["maps to depth 1e5", `${"81a161".repeat(100_000)}01`, "TooDeep"],
      ["6 MB of empty maps", `dd005b8d80${"80".repeat(6_000_000)}`, "TooManyItems"],
      ["more than a million bytes", `dd00100000${"c400".repeat(2 ** 20)}`, "TooManyItems"],
      ["more than a million instants", `dd00100000${"d6ff00000000".repeat(2 ** 20)}`, "TooManyItems"]
    ]

    it("are refused for what they are", () => {
      for (const [name, hex, reason] of refused) {
        assert.strictEqual(errorOf(() => decodeHex(hex)).reason, reason, name)
      }
    })

    it("are refused at once when they announce more than they hold", () => {
      const bomb = Buffer.alloc(16 * 1024 * 1024)
      for (let level = 0; level < 127; level++) bomb.set([0xdd, 0x00, 0xff, 0x00, 0x00], level * 5)
      const begin = process.cpuUsage()
      assert.strictEqual(errorOf(() => decoder.decode(bomb)).reason, "Truncated")
      assert.isBelow(process.cpuUsage(begin).user, 1_000_000)
    })

    it("hold up to a million arrays and maps together", () => {
      const pairs = (n: number) => `dd${n.toString(16).padStart(8, "0")}${"8090".repeat(n / 2)}`
      const most = 2 ** 20
      assert.lengthOf(decodeHex(pairs(most - 2)) as Array<unknown>, most - 2)
      assert.strictEqual(
        errorOf(() => decodeHex(pairs(most))).message,
        "more than 1048576 arrays, maps, bytes and dates in one message: send numbers as typed or numpy arrays, or " +
          "what there is in several messages (at $[1048575])"
      )
    })

    it("take no more memory for keys that look like indices", () => {
      const maps = decodeHex(`dd00002710${"83a130c0a431303233c0a47265737401".repeat(10_000)}`) as Array<object>
      assert.deepStrictEqual(Object.entries(maps[9999]!), [
        ["0", null],
        ["1023", null],
        ["rest", 1]
      ])
      const before = process.memoryUsage().heapUsed
      const more = decodeHex(`dd00002710${"82a131c0a431303233c0".repeat(10_000)}`) as Array<object>
      assert.isBelow(process.memoryUsage().heapUsed - before, 40_000_000)
      assert.lengthOf(more, 10_000)
    })

    it("take no time without end for keys that share their hashes", () => {
      // The hash that V8 gives small integers in a Map; of another one these keys are like any others.
      const hash = (key: number): number => {
        let h = (~key + (key << 15)) >>> 0
        h = Math.imul((h ^ (h >>> 12)) >>> 0, 5) >>> 0
        h = Math.imul((h ^ (h >>> 4)) >>> 0, 2057) >>> 0
        return (h ^ (h >>> 16)) >>> 0
      }
      const keys: Array<number> = []
      for (let key = 0; keys.length < 30_000; key++) if ((hash(key) & 0xfff) === 0) keys.push(key)
      const map = (n: number) => `df${n.toString(16).padStart(8, "0")}`
      const entries = keys.map((key) => `ce${key.toString(16).padStart(8, "0")}c0`).join("")
      const begin = process.cpuUsage()
      const error = errorOf(() => decodeHex(`dd00000400${`${map(keys.length)}${entries}`.repeat(100)}`))
      assert.include(["InvalidKey", "Truncated"], error.reason)
      assert.isBelow(process.cpuUsage(begin).user, 15_000_000)
      const many = new Map(Array.from({ length: 200_000 }, (_, i) => [i * 3, i]))
      assert.strictEqual((roundTrip(many) as typeof many).size, many.size)
    })

    it("name the place in the value", () => {
      assert.strictEqual(errorOf(() => decodeHex("81a161920182a16205a163c1")).path, "$.a[1].c")
      assert.strictEqual(errorOf(() => decodeHex("8201020391d40501")).path, "$[3][0]")
      assert.strictEqual(errorOf(() => decodeHex("82a161019101")).path, "$")
    })

    const fuzz = (seed: number, runs: number, bytesOf: (random: () => number) => Uint8Array) => {
      const random = seeded(seed)
      for (let run = 0; run < runs; run++) {
        const bytes = bytesOf(random)
        let value: unknown
        try {
          value = decoder.decode(bytes)
        } catch (error) {
          if (!(error instanceof CodecError)) throw new Error(`seed ${seed}, run ${run}`, { cause: error })
          assert.match(error.message, /\(at \$/)
          continue
        }
        // What decodes can be sent on, and is the same then.
        assert.deepStrictEqual(roundTrip(value), value)
      }
    }

    it("of random make nothing but a CodecError or a value", () => {
      fuzz(1, 30_000, (random) => Uint8Array.from({ length: Math.floor(random() * 40) }, () => random() * 256))
    })

    it("of mutated messages make nothing but a CodecError or a value", () => {
      const messages = [
        { id: 1, name: "Ada", at: new Date(1), tags: ["a", "é"], nested: { list: [1.5, -3, 2n ** 60n], none: null } },
        [
          new Map<unknown, unknown>([
            [1, "a"],
            ["b", 2]
          ]),
          Float64Array.of(1, 2),
          NdArray.make(Int8Array.of(1, 2), [2, 1])
        ],
        { text: "x".repeat(300), bytes: new Uint8Array(300), rows: Array.from({ length: 40 }, (_, i) => ({ i })) }
      ].map(encode)
      fuzz(2, 15_000, (random) => {
        const bytes = Uint8Array.from(messages[Math.floor(random() * messages.length)]!)
        for (let n = 1 + random() * 4; n > 0; n--) bytes[Math.floor(random() * bytes.length)] = random() * 256
        return random() < 0.2 ? bytes.subarray(0, random() * bytes.length) : bytes
      })
    })

    it("of a soup of tokens make nothing but a CodecError or a value", () => {
      const tokens = [
        "c0",
        "c2",
        "c3",
        "01",
        "ff",
        "cc80",
        "cdffff",
        "ceffffffff",
        "cfffffffffffffffff",
        "d38000000000000000",
        "ca3fc00000",
        "cb7ff8000000000000",
        "a0",
        "a161",
        "a2c3a9",
        "ab636f6e7374727563746f72",
        "a95f5f70726f746f5f5f",
        "d90161",
        "da000161",
        "db0000000161",
        "c400",
        "c40101",
        "90",
        "91",
        "92",
        "93",
        "dc0001",
        "dd00000002",
        "80",
        "81",
        "82",
        "83",
        "de0001",
        "df00000002",
        "d6ff00000001",
        "d7ff0000000000000001",
        "c7070103010100000005",
        "c70e010602010000000200000001",
        "d40501",
        "c1"
      ].map((hex) => Buffer.from(hex, "hex"))
      fuzz(3, 30_000, (random) =>
        Buffer.concat(Array.from({ length: 1 + random() * 12 }, () => tokens[Math.floor(random() * tokens.length)]!))
      )
    })
  })

  describe("beside msgpackr", () => {
    const packr = new Packr({ useRecords: false, variableMapSize: true, int64AsType: "number", moreTypes: false })

    it.effect.prop("says the same about plain values", { value: Schema.Json }, ({ value }) =>
      Effect.sync(() => {
        const text = JSON.stringify(value)
        if (/\\ud[89a-f]/i.test(text)) return
        const ours = encode(value)
        assert.deepStrictEqual(decoder.decode(ours), value)
        // It has no negative zero, as JSON has none, and renames this key.
        const unsigned = (read: unknown): unknown => JSON.parse(JSON.stringify(read))
        if (!text.includes("__proto__")) assert.deepEqual(unsigned(packr.unpack(ours)), unsigned(value))
        assert.deepEqual(unsigned(decoder.decode(packr.pack(value))), unsigned(value))
      })
    )
  })
})
