/** One value of MessagePack, apart from any frame. */
import { Encoder } from "./msgpackEncoder.ts"

const encoder = new Encoder()

/** The bytes of a value, which belong to the caller. Throws a `CodecError`. */
export const encodeValue = (value: unknown): Uint8Array => {
  encoder.begin(Number.POSITIVE_INFINITY)
  try {
    encoder.encode(value)
  } catch (error) {
    encoder.rollback()
    throw error
  }
  return encoder.take()
}
