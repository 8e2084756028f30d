/** A contender whose calls carry JSON: bytes become base64, arrays lists of numbers. */
import type { Contender } from "./contender.ts"
import { makeContender } from "./promiseContender.ts"

export const makeJsonContender = (
  call: (message: unknown) => Promise<unknown>,
  stop: () => Promise<void> | void
): Contender =>
  makeContender(
    {
      value: call,
      bytes: async (data) => {
        const message = { base64: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64") }
        const reply = (await call(message)) as typeof message
        return Buffer.from(reply.base64, "base64")
      },
      array: async (data) => {
        const reply = (await call({ array: Array.from(data) })) as { readonly array: ReadonlyArray<number> }
        return Float64Array.from(reply.array)
      }
    },
    stop
  )
