/**
 * Our MessagePack codec beside msgpackr with the options that make it safe: `node bench/codec.ts`.
 *
 * Ours checks what msgpackr does not (well-formed strings, UTF-8, announced lengths), so being near it is the aim.
 */
import { Packr } from "msgpackr"
import { Decoder } from "../src/internal/msgpackDecoder.ts"
import { Encoder } from "../src/internal/msgpackEncoder.ts"

const packr = new Packr({
  useRecords: false,
  variableMapSize: true,
  int64AsType: "number",
  encodeUndefinedAsNil: true,
  structuredClone: false,
  moreTypes: false,
  copyBuffers: true,
  largeBigIntToFloat: false,
  useBigIntExtension: false
})
const encoder = new Encoder()
const decoder = new Decoder()

const encode = (value: unknown): Uint8Array => {
  encoder.encode(value)
  return encoder.take()
}

const row = (i: number) => ({ id: i, name: `user-${i}`, active: i % 3 === 0, score: i * 1.25, tags: ["a", "b"] })

const inputs: ReadonlyArray<readonly [name: string, value: unknown]> = [
  ["small call", { text: "hello", limit: 10, ratio: 0.5, tags: ["a", "b"] }],
  [
    "1 KB record",
    {
      id: 123456,
      name: "Ada Lovelace",
      email: "ada@example.org",
      created: new Date(1_700_000_000_123),
      roles: ["admin", "author", "reviewer"],
      address: { street: "12 St James's Square", city: "London", zip: "SW1Y 4JH", country: "GB" },
      scores: Array.from({ length: 24 }, (_, i) => i * 1.5),
      about: "Wrote the first program for a machine that was never built. ".repeat(8),
      flags: { beta: true, newsletter: false, verified: true }
    }
  ],
  ["100 KB of rows", Array.from({ length: 1700 }, (_, i) => row(i))],
  ["8 KB of bytes", new Uint8Array(Float64Array.from({ length: 1024 }, (_, i) => i / 3).buffer)],
  ["1,024 floats", Array.from({ length: 1024 }, (_, i) => i / 3)],
  ["200 words of text", Array.from({ length: 200 }, (_, i) => `wörd number ${i} of a list`)]
]

/** The best of five rounds, in operations per second. */
const measure = (run: () => unknown): number => {
  let best = 0
  for (let round = 0; round < 5; round++) {
    const end = performance.now() + 150
    const begin = performance.now()
    let operations = 0
    while (performance.now() < end) {
      for (let i = 0; i < 16; i++) run()
      operations += 16
    }
    best = Math.max(best, (operations * 1000) / (performance.now() - begin))
  }
  return best
}

const show = (perSecond: number): string =>
  (perSecond > 10_000 ? `${(perSecond / 1000).toFixed(0)} k/s` : `${perSecond.toFixed(0)} /s`).padStart(12)

console.log(`${"".padEnd(26)}${"size".padStart(8)}${"ours".padStart(12)}${"msgpackr".padStart(12)}   ratio`)
for (const [name, value] of inputs) {
  const bytes = Buffer.from(encode(value))
  const pairs = [
    ["encode", measure(() => encode(value)), measure(() => packr.pack(value))],
    ["decode", measure(() => decoder.decode(bytes)), measure(() => packr.unpack(bytes))]
  ] as const
  for (const [what, ours, theirs] of pairs) {
    const label = `${what} ${name}`.padEnd(26)
    console.log(
      `${label}${String(bytes.length).padStart(8)}${show(ours)}${show(theirs)}${(ours / theirs).toFixed(2).padStart(8)}`
    )
  }
}
