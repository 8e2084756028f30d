/** What must hold of the codec, whatever bytes come. */
import { deepStrictEqual, strictEqual } from "node:assert"
import { CodecError } from "../../src/internal/msgpack.ts"
import { Decoder } from "../../src/internal/msgpackDecoder.ts"
import { Random } from "./random.ts"
import { encode, mutated, soup, value } from "./values.ts"

const decoder = new Decoder()

const prototypes = [Object, Array, Map, Uint8Array, Function].map(({ prototype }) => prototype as object)
const untouched = prototypes.map((prototype) => Reflect.ownKeys(prototype).length)

/** No bytes change what all objects have in common. */
export const checkPrototypes = (): void => {
  deepStrictEqual(
    prototypes.map((prototype) => Reflect.ownKeys(prototype).length),
    untouched
  )
}

/** Bytes are a value, which can be sent on and is the same then, or a `CodecError` that says where. */
export const checkBytes = (bytes: Uint8Array): void => {
  const copy = Buffer.from(bytes)
  let decoded: unknown
  try {
    decoded = decoder.decode(bytes)
  } catch (error) {
    if (!(error instanceof CodecError) || !/\(at \$/.test(error.message)) throw error
    return
  } finally {
    checkPrototypes()
  }
  strictEqual(Buffer.compare(copy, bytes), 0)
  deepStrictEqual(decoder.decode(encode(decoded)), decoded)
}

/** What was encoded comes back. */
export const checkValue = (original: unknown): void => deepStrictEqual(decoder.decode(encode(original)), original)

/** One case of a seed. What it throws has the bytes. */
export const fuzzCodec = (seed: number): void => {
  const random = new Random(seed)
  if (random.chance(0.25)) return checkValue(value(random))
  const bytes = random.pick([
    () => random.bytes(random.below(60)),
    () => soup(random),
    () => mutated(random, soup(random)),
    () => mutated(random, encode(value(random)))
  ])()
  try {
    checkBytes(bytes)
  } catch (error) {
    throw new Error(`bytes ${bytes.toString("hex")}`, { cause: error })
  }
}
