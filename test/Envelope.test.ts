import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Envelope from "../src/Envelope.ts"
import { CodecError } from "../src/internal/msgpack.ts"
import type { Places, Reference } from "../src/internal/sharedMemory.ts"
import * as NdArray from "../src/NdArray.ts"
import { frameWith, referencesOf, shared } from "./fixtures/FakeWorker.ts"

const { Kind } = Envelope

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ""), "hex")

const decoded = (frame: Envelope.Frame) => ({
  kind: frame.kind,
  id: frame.id,
  meta: Envelope.decodeMeta(frame.meta),
  payload: Envelope.decodePayload(frame.payload)
})

const readAll = (bytes: Uint8Array) => Envelope.makeReader().push(bytes).map(decoded)

const sample = (): Uint8Array => {
  const writer = Envelope.makeWriter()
  writer.request(1, { method: "main" }, { text: "hello", bytes: Uint8Array.of(1, 2, 3) })
  writer.request(2, { method: "chat", deadline: 100, trace: "00-a-b-01", headers: { a: "b" }, stream: 64 }, undefined)
  writer.frame(Kind.Cancel, 1)
  writer.frame(Kind.Credit, 2, 64)
  writer.frame(Kind.Success, 0xffffffff, null)
  return writer.take()
}

describe("Envelope", () => {
  describe("the examples of docs/protocol.md", () => {
    const text = readFileSync(new URL("../docs/protocol.md", import.meta.url), "utf8")
    const examples = Array.from(
      text.matchAll(/```hex\n([^`]+)```\s+```json\n([^`]+)```/g),
      ([, bytes = "", json = ""]) => ({ bytes: hex(bytes), json: JSON.parse(json) })
    )

    it("are there", () => {
      assert.deepStrictEqual(
        examples.map(({ json }) => json.kind),
        [
          ...[Kind.Setup, Kind.Hello, Kind.Welcome, Kind.Request, Kind.Success, Kind.Die, Kind.Cancel],
          ...[Kind.Request, Kind.Chunk, Kind.Credit, Kind.Progress, Kind.Request, Kind.Success, Kind.GoAway]
        ]
      )
    })

    it("decode to what they say", () => {
      for (const { bytes, json } of examples) {
        assert.deepStrictEqual(readAll(bytes), [{ payload: undefined, ...json }])
      }
    })

    it("are the bytes that this side writes", () => {
      for (const { bytes, json } of examples) {
        const writer = Envelope.makeWriter()
        if (json.kind === Kind.Request) writer.request(json.id, json.meta, json.payload)
        else writer.frame(json.kind, json.id, json.payload, Object.keys(json.meta).length === 0 ? undefined : json.meta)
        assert.strictEqual(Buffer.from(writer.take()).toString("hex"), bytes.toString("hex"))
      }
    })

    it.effect("hold control payloads that fit their schemas", () =>
      Effect.gen(function* () {
        const of = (kind: number) => examples.find(({ json }) => json.kind === kind)?.json.payload
        assert.strictEqual((yield* Schema.decodeUnknownEffect(Envelope.Hello)(of(Kind.Hello))).pid, 4242)
        assert.strictEqual((yield* Schema.decodeUnknownEffect(Envelope.Welcome)(of(Kind.Welcome))).concurrency, 1)
      })
    )
  })

  describe("the reader", () => {
    const whole = readAll(sample())

    it("gives the frames of a batch", () => {
      assert.deepStrictEqual(whole, [
        { kind: 1, id: 1, meta: { method: "main" }, payload: { text: "hello", bytes: Uint8Array.of(1, 2, 3) } },
        {
          kind: 1,
          id: 2,
          meta: { method: "chat", deadline: 100, trace: "00-a-b-01", headers: { a: "b" }, stream: 64 },
          payload: null
        },
        { kind: 8, id: 1, meta: {}, payload: undefined },
        { kind: 7, id: 2, meta: {}, payload: 64 },
        { kind: 2, id: 0xffffffff, meta: {}, payload: null }
      ])
    })

    it("gives the same frames wherever the stream is cut", () => {
      const bytes = sample()
      for (let cut = 0; cut <= bytes.length; cut++) {
        const reader = Envelope.makeReader()
        const frames = [bytes.subarray(0, cut), bytes.subarray(cut)].flatMap((chunk) => reader.push(chunk).map(decoded))
        assert.deepStrictEqual(frames, whole)
      }
    })

    it("gives the same frames byte by byte, and keeps none back", () => {
      const bytes = sample()
      const reader = Envelope.makeReader()
      const frames = Array.from(bytes, (byte) => reader.push(Uint8Array.of(byte)).map(decoded)).flat()
      assert.deepStrictEqual(frames, whole)
    })

    it("copies a frame only when it came in parts", () => {
      const bytes = sample()
      assert.isTrue(
        Envelope.makeReader()
          .push(bytes)
          .every((frame) => frame.payload.length === 0 || frame.payload.buffer === bytes.buffer)
      )
    })

    it("does not change frames that it gave when more bytes come", () => {
      const writer = Envelope.makeWriter()
      const reader = Envelope.makeReader()
      const frames: Array<Envelope.Frame> = []
      for (let i = 0; i < 200; i++) writer.frame(Kind.Success, i, { i, text: "x".repeat(i * 7) })
      const bytes = writer.take()
      for (let at = 0; at < bytes.length; at += 1000) frames.push(...reader.push(bytes.subarray(at, at + 1000)))
      frames.forEach((frame, i) => {
        assert.deepStrictEqual(Envelope.decodePayload(frame.payload), { i, text: "x".repeat(i * 7) })
      })
    })

    it("takes a frame of many chunks in linear time", () => {
      const writer = Envelope.makeWriter()
      writer.frame(Kind.Success, 1, new Uint8Array(12_000_000))
      const bytes = writer.take()
      const reader = Envelope.makeReader()
      const begin = process.cpuUsage()
      let frames = 0
      for (let at = 0; at < bytes.length; at += 512) frames += reader.push(bytes.subarray(at, at + 512)).length
      assert.strictEqual(frames, 1)
      assert.isBelow(process.cpuUsage(begin).user, 5_000_000)
    })

    const broken = (chunks: ReadonlyArray<Uint8Array>, options?: { readonly maxFrameSize?: number }) => {
      const reader = Envelope.makeReader(options)
      try {
        for (const chunk of chunks) reader.push(chunk)
      } catch (error) {
        assert.instanceOf(error, Envelope.FramingError)
        return error as Envelope.FramingError
      }
      return assert.fail("the reader took it")
    }

    it("refuses what is not a frame, and says what and where", () => {
      assert.strictEqual(
        broken([sample(), Buffer.from("Traceback (most recent call last)")]).message,
        `the frame at byte ${sample().length} has length 1667330644, not one from 8 to 16777216` +
          ` (maxFrameSize); it begins with "Traceback (most recent call last"`
      )
      assert.match(broken([hex("00000000")]).message, /^the frame at byte 0 .* length 0,.* begins with 00000000$/)
      assert.match(broken([hex("07000000"), hex("00")]).message, /length 7/)
      assert.match(
        broken([hex("0a000000 0100 0300 00000000 8080")]).message,
        /^the frame at byte 0 .* 3 bytes of meta but ends after 2/
      )
      assert.match(broken([hex("65000000")], { maxFrameSize: 100 }).message, /length 101, not one from 8 to 100/)
    })

    it("hands over the frames that came whole before the fault", () => {
      assert.deepStrictEqual(broken([Buffer.concat([sample(), hex("00000000")])]).frames.map(decoded), whole)
    })

    it("stays broken", () => {
      const reader = Envelope.makeReader()
      assert.throws(() => reader.push(hex("00000000")), Envelope.FramingError)
      assert.throws(() => reader.push(sample()), Envelope.FramingError)
    })

    it("refuses a length before the bytes have come, and reserves nothing for them", () => {
      assert.instanceOf(broken([hex("ffff"), hex("ffff")]), Envelope.FramingError)
      const before = process.memoryUsage().arrayBuffers
      const readers = Array.from({ length: 100 }, () => {
        const reader = Envelope.makeReader({ maxFrameSize: 2 ** 31 })
        reader.push(hex("0000007f 01"))
        return reader
      })
      assert.isBelow(process.memoryUsage().arrayBuffers - before, 200 * 1024 * 1024)
      assert.lengthOf(readers, 100)
    })
  })

  describe("the writer", () => {
    it("never writes over bytes that it gave away", () => {
      const writer = Envelope.makeWriter()
      const batches: Array<readonly [taken: Uint8Array, copy: Buffer]> = []
      for (let i = 0; i < 400; i++) {
        for (let j = 0; j <= i % 7; j++)
          writer.request(i, { method: `m${j}` }, { i, text: "y".repeat((i * 97) % 3000) })
        const taken = writer.take()
        batches.push([taken, Buffer.from(taken)])
      }
      for (const [taken, copy] of batches) assert.isTrue(copy.equals(taken))
    })

    it("counts the bytes that wait", () => {
      const writer = Envelope.makeWriter()
      assert.strictEqual(writer.size, 0)
      writer.frame(Kind.Ping, 1)
      assert.strictEqual(writer.size, 12)
      assert.lengthOf(writer.take(), 12)
      assert.strictEqual(writer.size, 0)
      assert.lengthOf(writer.take(), 0)
    })

    it("leaves the batch as it was when a value cannot be carried", () => {
      const writer = Envelope.makeWriter()
      writer.request(1, { method: "main" }, "before")
      for (const bad of [Symbol("x"), { a: [() => 1] }, "\ud800", ["x".repeat(200_000), 2n ** 64n]]) {
        assert.throws(() => writer.request(2, { method: "main" }, bad), CodecError)
        assert.throws(() => writer.frame(Kind.Success, 2, bad), CodecError)
      }
      assert.throws(() => writer.request(2, { method: "main", headers: { a: "\ud800" } }, 1), CodecError)
      assert.throws(() => writer.request(2, { method: "main", headers: { a: "x".repeat(70_000) } }, 1), CodecError)
      assert.throws(() => {
        writer.request(
          2,
          { method: "main" },
          {
            get a() {
              throw new RangeError("mine")
            }
          }
        )
      }, RangeError)
      writer.request(3, { method: "main" }, "after")
      assert.deepStrictEqual(
        readAll(writer.take()).map(({ id, payload }) => [id, payload]),
        [
          [1, "before"],
          [3, "after"]
        ]
      )
    })

    it("measures a frame that is too large and goes on", () => {
      const values = [
        new Uint8Array(40_000),
        "x".repeat(90_000),
        "é".repeat(40_000),
        Array.from({ length: 30_000 }, (_, i) => i),
        Array.from({ length: 3_000 }, (_, i) => ({
          name: `n${i}`,
          skipped: undefined,
          when: new Date(i),
          raw: new Float32Array(3)
        })),
        { a: new Uint8Array(10_000), b: "z".repeat(70_000), c: new Map([[1, new Float64Array(9_000)]]) }
      ]
      for (const value of values) {
        const large = Envelope.makeWriter()
        large.frame(Kind.Success, 1, value)
        const size = large.take().length - 4
        const small = Envelope.makeWriter({ maxFrameSize: 20_000 })
        small.frame(Kind.Ping, 1)
        try {
          small.frame(Kind.Success, 2, value)
          assert.fail("it was written")
        } catch (error) {
          assert.instanceOf(error, Envelope.FrameTooLarge)
          assert.deepStrictEqual(
            [(error as Envelope.FrameTooLarge).size, (error as Envelope.FrameTooLarge).limit],
            [size, 20_000]
          )
        }
        small.frame(Kind.Pong, 3)
        assert.deepStrictEqual(
          readAll(small.take()).map(({ id, kind }) => [kind, id]),
          [
            [Kind.Ping, 1],
            [Kind.Pong, 3]
          ]
        )
      }
    })

    it("writes a frame of exactly maxFrameSize", () => {
      const writer = Envelope.makeWriter({ maxFrameSize: 100 })
      writer.frame(Kind.Success, 1, new Uint8Array(90))
      const bytes = writer.take()
      assert.lengthOf(bytes, 104)
      assert.lengthOf(Envelope.makeReader({ maxFrameSize: 100 }).push(bytes), 1)
      assert.throws(() => writer.frame(Kind.Success, 1, new Uint8Array(91)), Envelope.FrameTooLarge)
    })

    it("does not keep the memory of a large value that it refused", () => {
      const writer = Envelope.makeWriter({ maxFrameSize: 1024 * 1024 })
      const before = process.memoryUsage().arrayBuffers
      assert.throws(
        () =>
          writer.frame(
            Kind.Success,
            1,
            Array.from({ length: 1_000_000 }, () => "sixteen bytes..."),
            undefined
          ),
        Envelope.FrameTooLarge
      )
      assert.isBelow(process.memoryUsage().arrayBuffers - before, 16 * 1024 * 1024)
    })

    it("writes the same bytes for a method that it knows", () => {
      const writer = Envelope.makeWriter()
      const written = (method: string) => {
        writer.request(1, { method }, 1)
        return Buffer.from(writer.take()).toString("hex")
      }
      const methods = Array.from({ length: 600 }, (_, i) => `method_${i}`)
      assert.deepStrictEqual(methods.map(written), methods.map(written))
    })
  })

  it("refuses meta that is not a map with string keys", () => {
    for (const bytes of ["01", "90", "c0", "810102", "81a161", "a161"]) {
      assert.throws(() => Envelope.decodeMeta(hex(bytes)), CodecError)
    }
  })
})

describe("a frame that refers to shared memory", () => {
  /** Memory that is a list of what was put there. */
  const memory = (threshold = 100, most = Number.POSITIVE_INFINITY) => {
    const placed = new Map<number, Uint8Array>()
    const dropped: Array<number> = []
    const places: Places = {
      threshold,
      place: (pieces, length): Reference | undefined => {
        if (placed.size >= most) return undefined
        const serial = placed.size + 1
        placed.set(serial, Buffer.concat(pieces))
        const region = { number: 2 ** 30 + serial, start: serial * 65_536, capacity: 65_536, uses: 1, touched: 0 }
        return { serial, region, offset: region.start + 5, length }
      },
      refer: () => undefined,
      drop: ({ serial }) => dropped.push(serial)
    }
    const tables: Array<Uint8Array> = []
    const freed: Array<number> = []
    const claim = (table: Uint8Array) => {
      tables.push(Uint8Array.from(table))
      return {
        fetch: undefined,
        take: (serial: number) => new Uint8Array(placed.get(serial)!),
        free: () => void freed.push(tables.length)
      }
    }
    return { places, placed, dropped, claim, tables, freed }
  }

  const value = {
    text: "x".repeat(500),
    small: new Uint8Array(99),
    bytes: Uint8Array.from({ length: 100 }, (_, i) => i),
    nested: [{ array: NdArray.make(Float64Array.from({ length: 20 }, Math.sqrt), [4, 5]) }, new Float32Array(50)],
    view: new DataView(new ArrayBuffer(120)),
    last: true
  }
  const arrived = { ...value, view: new Uint8Array(120) }

  it("has the value of one that has all in itself, in less of a message", () => {
    const { claim, freed, placed, places } = memory()
    const writer = Envelope.makeWriter({ places })
    writer.request(1, { method: "main" }, value)
    const bytes = writer.take()
    assert.deepStrictEqual(
      Array.from(placed.values(), ({ length }) => length),
      [100, 160, 200, 120]
    )
    const [frame] = Envelope.makeReader({ claim }).push(bytes)
    assert.deepStrictEqual(Envelope.decodeFrame(frame!), arrived)
    assert.deepStrictEqual(freed, [1])
  })

  it("ends with a table of where its values are, and their count", () => {
    const { places } = memory()
    const writer = Envelope.makeWriter({ places })
    writer.frame(Kind.Success, 7, new Uint8Array(1000))
    const reference = { serial: 1, region: 2 ** 30 + 1, start: 65_536n, offset: 65_541n, length: 1000n }
    assert.strictEqual(
      Buffer.from(writer.take()).toString("hex"),
      frameWith(Kind.Success, 7, Buffer.from([0xd6, 3, 1, 0, 0, 0]), [reference]).toString("hex")
    )
  })

  it("is the same wherever the stream is cut, and so is the one behind it", () => {
    const { claim, places } = memory()
    const writer = Envelope.makeWriter({ places })
    writer.frame(Kind.Success, 1, [new Uint8Array(200), "text"])
    writer.frame(Kind.Success, 2, "behind")
    const bytes = writer.take()
    for (let cut = 0; cut <= bytes.length; cut++) {
      const reader = Envelope.makeReader({ claim })
      const frames = [bytes.subarray(0, cut), bytes.subarray(cut)].flatMap((chunk) => reader.push(chunk))
      assert.deepStrictEqual(frames.map(Envelope.decodeFrame), [[new Uint8Array(200), "text"], "behind"])
    }
  })

  it("carries what finds no room", () => {
    const { claim, placed, places } = memory(100, 2)
    const writer = Envelope.makeWriter({ places })
    writer.request(1, { method: "main" }, value)
    assert.strictEqual(placed.size, 2)
    assert.deepStrictEqual(Envelope.decodeFrame(Envelope.makeReader({ claim }).push(writer.take())[0]!), arrived)
  })

  it("may be much smaller than its values, and otherwise is measured with what it carries", () => {
    const { claim, dropped, places } = memory(5000, 2)
    const writer = Envelope.makeWriter({ places, maxFrameSize: 4096 })
    const large = new Uint8Array(100_000)
    writer.frame(Kind.Success, 1, [large])
    assert.deepStrictEqual(Envelope.decodeFrame(Envelope.makeReader({ claim }).push(writer.take())[0]!), [large])
    assert.throws(() => writer.frame(Kind.Success, 1, [large, large]), /a frame of 100\d\d\d bytes/)
    assert.deepStrictEqual(dropped, [2])
    assert.strictEqual(writer.size, 0)
  })

  it("that is not written after all drops each of its references once", () => {
    const { dropped, places } = memory()
    const writer = Envelope.makeWriter({ places })
    const large = () => new Uint8Array(200)
    assert.throws(() => writer.frame(Kind.Success, 1, [large(), large(), () => {}]), CodecError)
    assert.deepStrictEqual(dropped, [1, 2])
    writer.frame(Kind.Success, 2, large())
    assert.throws(() => writer.frame(Kind.Success, 3, Symbol()), CodecError)
    assert.deepStrictEqual(dropped, [1, 2])
  })

  it("carries the keys of its maps", () => {
    const { placed, places } = memory()
    const writer = Envelope.makeWriter({ places })
    writer.frame(Kind.Success, 1, new Map([[new Uint8Array(200), new Uint8Array(300)]]))
    assert.deepStrictEqual(
      Array.from(placed.values(), ({ length }) => length),
      [300]
    )
  })

  it("gives its memory back whether it decodes or not, and when it is discarded", () => {
    const { claim, freed, placed } = memory()
    placed.set(1, new Uint8Array(3))
    const [decodes, fails, dropped] = Envelope.makeReader({ claim }).push(
      Buffer.concat([
        frameWith(Kind.Success, 1, shared(1), [{}]),
        frameWith(Kind.Success, 1, shared(1, [11, 1, 1, 0, 0, 0]), [{}]),
        frameWith(Kind.Success, 1, shared(1), [{}])
      ])
    )
    assert.deepStrictEqual(Envelope.decodeFrame(decodes!), new Uint8Array(3))
    assert.lengthOf(freed, 1)
    assert.throws(() => Envelope.decodeFrame(fails!), /3 bytes for float64/)
    assert.lengthOf(freed, 2)
    Envelope.discard(dropped!)
    assert.lengthOf(freed, 3)
  })

  it("may have 65,535 references", () => {
    const { claim, tables } = memory()
    const references = Array.from({ length: 0xffff }, (_, serial) => ({ serial }))
    Envelope.makeReader({ claim }).push(frameWith(Kind.Success, 1, Buffer.from([0xc0]), references))
    assert.strictEqual(tables[0]!.length, 0xffff * 32)
  })

  it("breaks the stream where its references are not whole, or there is no memory", () => {
    const { claim } = memory()
    const bytes = frameWith(Kind.Success, 1, Buffer.from([0xc0]), [{}])
    assert.throws(() => Envelope.makeReader().push(bytes), /references to shared memory where there is none/)
    for (const count of [0, 2, 0xffff]) {
      const wrong = Buffer.from(bytes)
      wrong.writeUInt16LE(count, wrong.length - 2)
      assert.throws(() => Envelope.makeReader({ claim }).push(wrong), Envelope.FramingError, "that are not whole")
    }
  })

  it("with other flags is as one without", () => {
    const bytes = Buffer.from(frameWith(Kind.Success, 1, Buffer.from([0xc3]), []).subarray(0, 13))
    bytes.writeUInt32LE(9, 0)
    bytes[5] = 0xfe
    const [frame] = Envelope.makeReader().push(bytes)
    assert.deepStrictEqual([Envelope.decodeFrame(frame!), referencesOf(frame!)], [true, []])
  })
})

describe("a frame near the limit", () => {
  it("is written whole or refused, whatever room its values might have needed", () => {
    let seed = 1
    const random = (below: number): number => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
      return seed % below
    }
    let written = 0
    for (let round = 0; round < 400; round++) {
      const maxFrameSize = 65_536
      const writer = Envelope.makeWriter({ maxFrameSize })
      for (let n = random(3); n > 0; n--) writer.frame(Envelope.Kind.Success, 9, "x".repeat(random(5000)))
      writer.take()
      const length = 100 + random(60_000)
      const wanted = maxFrameSize - random(Math.min(maxFrameSize / 2, 3 * length))
      const items: Array<string> = []
      for (let size = 0; size + length + 20 < wanted; size += length + 3) items.push("y".repeat(length))
      try {
        writer.frame(Envelope.Kind.Success, 1, items)
      } catch (error) {
        assert.instanceOf(error, Envelope.FrameTooLarge)
        continue
      }
      written++
      const bytes = writer.take()
      assert.strictEqual(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) + 4, bytes.length)
    }
    assert.isAbove(written, 100)
  })
})
