/** Arrays as bytes and back, for contenders that carry bytes. */

export const toBytes = (data: Float64Array): Uint8Array => Buffer.from(data.buffer, data.byteOffset, data.byteLength)

/** The bytes themselves where they lie so that they can be numbers, else a copy. */
export const toFloat64Array = (bytes: Uint8Array): Float64Array =>
  bytes.byteOffset % 8 === 0
    ? new Float64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8)
    : new Float64Array(new Uint8Array(bytes).buffer)
