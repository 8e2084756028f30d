/** The parts of the server that Python starts; what it does as a whole is tested from there, in python/tests. */
import { once } from "node:events"
import { type AddressInfo, connect, createServer } from "node:net"
import { assert, describe, it } from "vitest"
import { FrameError, Kind, makeFrame, makeReader, splitRun } from "../src/internal/javascript/frames.ts"
import { makeLeakGuard } from "../src/internal/javascript/leakGuard.ts"
import { serve } from "../src/internal/javascript/session.ts"
import { generateKeys, isSigned, SignatureError, sign, verify } from "../src/internal/javascript/signature.ts"
import { fromText, toText } from "../src/internal/javascript/values.ts"

describe("frames", () => {
  const frames = [
    makeFrame(Kind.Run, 1, "\u0003\0\0\0()=", { format: "json", limit: 250 }),
    makeFrame(Kind.Ok, 0xffffffff, "häh".repeat(20)),
    makeFrame(Kind.Cancel, 7, "")
  ]
  const bytes = Buffer.concat(frames)

  it("arrive whole, wherever what carries them is split", () => {
    for (let split = 0; split <= bytes.length; split++) {
      const read = makeReader(1000)
      const got = [...read(bytes.subarray(0, split)), ...read(bytes.subarray(split))]
      assert.deepStrictEqual(
        got.map(({ id, kind, meta, payload }) => [kind, id, meta, payload.toString()]),
        [
          [Kind.Run, 1, { format: "json", limit: 250 }, "\u0003\0\0\0()="],
          [Kind.Ok, 0xffffffff, {}, "häh".repeat(20)],
          [Kind.Cancel, 7, {}, ""]
        ]
      )
    }
  })

  it("arrive byte by byte", () => {
    const read = makeReader(1000)
    assert.strictEqual([...bytes].flatMap((byte) => read(Buffer.of(byte))).length, frames.length)
  })

  it.each([
    ["too long", makeFrame(Kind.Ok, 1, "x".repeat(1001))],
    ["too short for its header", Buffer.from([3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])],
    ["too short for its meta", Buffer.from([8, 0, 0, 0, 1, 0, 9, 0, 0, 0, 0, 0])],
    ["with a meta that is not JSON", Buffer.from([9, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 123])]
  ])("that are %s are refused", (_, frame) => {
    assert.throws(() => makeReader(1000)(frame), FrameError)
  })

  it("of a command whose source is beyond them are refused", () => {
    assert.deepStrictEqual(splitRun(Buffer.from("\u0001\0\0\0ab")), { source: "a", param: "b" })
    for (const text of ["\u0003\0\0\0ab", "ab", ""]) assert.throws(() => splitRun(Buffer.from(text)), FrameError)
  })
})

describe("a connection", () => {
  it("that sends more than a token before it is known is ended", async () => {
    const server = createServer((socket) =>
      serve(socket, { maxFrameSize: 1 << 20, log: () => {}, admit: () => undefined })
    )
    await once(server.listen(0, "127.0.0.1"), "listening")
    const socket = connect((server.address() as AddressInfo).port, "127.0.0.1")
    socket.on("error", () => {}).resume()
    const began = performance.now()
    socket.write(makeFrame(Kind.Hello, 0, "x".repeat(500_000)).subarray(0, 8000))
    await once(socket, "close")
    // Sooner than one that says nothing.
    assert.isBelow(performance.now() - began, 4000)
    server.close()
  })
})

describe("values", () => {
  it("beyond JSON come back as they went", () => {
    for (const value of [
      2n ** 60n,
      new Date(5),
      Number.NaN,
      -Infinity,
      new Uint8Array([1, 2]),
      { $synapse: [1n] },
      null
    ]) {
      assert.deepStrictEqual(fromText(toText(value, "values")!, "values"), value)
    }
  })

  it("are what JSON.stringify makes of them in plain JSON", () => {
    assert.strictEqual(toText([Number.NaN, new Date(0), undefined], "json"), '[null,"1970-01-01T00:00:00.000Z",null]')
    assert.isUndefined(toText(undefined, "json"))
    assert.isUndefined(toText(() => 1, "values"))
    assert.throws(() => toText(1n, "json"), TypeError)
  })

  it("of a kind that is not known are refused, and do not touch prototypes", () => {
    assert.throws(() => fromText('{"$synapse":"else","value":1}', "values"), SyntaxError)
    const value = fromText('{"$synapse":"map","value":[["__proto__",{"polluted":true}]]}', "values") as object
    assert.isTrue(Object.hasOwn(value, "__proto__"))
    assert.isFalse("polluted" in {})
  })
})

describe("signatures", () => {
  const { privateKey, publicKey } = generateKeys()
  const source = Buffer.from("export const one = 1\n")
  const signed = sign(source, privateKey)

  it("fit what was signed, with the key of the signer", () => {
    assert.isTrue(isSigned(signed))
    assert.isFalse(isSigned(source))
    assert.strictEqual(verify(signed, publicKey).toString(), source.toString())
    assert.throws(() => verify(signed, generateKeys().publicKey), SignatureError, /does not fit/)
  })

  it("fit nothing in which a bit is changed", () => {
    for (let at = 0; at < signed.length; at++) {
      const changed = Buffer.from(signed)
      changed[at]! ^= 1
      assert.throws(() => verify(changed, publicKey), SignatureError)
    }
  })

  it("need keys that are keys", () => {
    assert.throws(() => verify(signed, "abc"), SignatureError, /public key is not 32 bytes/)
    assert.throws(() => sign(source, publicKey), SignatureError, /private key is not 64 bytes/)
  })
})

describe("the leak guard", () => {
  const rise = 100_000
  const answers = (samples: ReadonlyArray<readonly [heap: number, functions: number]>) => {
    const isLeaking = makeLeakGuard()
    return samples.map(([heap, functions]) => isLeaking({ heap, functions }))
  }

  it("answers after more than three rises in a row", () => {
    assert.deepStrictEqual(answers([0, 1, 2, 3, 4].map((n) => [n * rise, 1] as const)), [
      false,
      false,
      false,
      false,
      true
    ])
  })

  it("begins anew after a fall, and takes no notice of functions that are compiled or of a few bytes", () => {
    const heaps = [0, 1, 2, 3, 1, 2, 3, 4]
    assert.isFalse(answers(heaps.map((n) => [n * rise, 1] as const)).includes(true))
    assert.isFalse(answers(heaps.map((_, n) => [n * rise, n] as const)).includes(true))
    assert.isFalse(answers(heaps.map((_, n) => [n * 1000, 1] as const)).includes(true))
  })
})
