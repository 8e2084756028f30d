/** Arrays in memory that Python has too. */
import * as Effect from "effect/Effect"
import * as NdArray from "../NdArray.ts"
import type { Allocate } from "../Synapse.ts"
import { SynapseError, Unsupported } from "../SynapseError.ts"
import type { Commons } from "./commons.ts"
import { arraySize, elementTypes, twoTo32 } from "./msgpack.ts"

const unsupported = (detail: string): Effect.Effect<never, SynapseError> =>
  Effect.fail(new SynapseError({ reason: new Unsupported({ method: "allocate", detail, delivery: "notSent" }) }))

const notInPlace =
  "there is no memory shared with Python: set `sharedMemory: { inPlace: true }` in the options of the layer"

/** Makes the `allocate` of a runtime. */
export const makeAllocate = (commons: Commons | undefined): Allocate => {
  const allocate = Effect.fnUntraced(function* (dtype: NdArray.DType, shape: number | ReadonlyArray<number>) {
    if (commons === undefined) return yield* unsupported(notInPlace)
    const element = elementTypes.find((element) => element.dtype === dtype)
    if (element === undefined)
      return yield* unsupported(
        `there is none of \`${dtype}\`; it may be ${elementTypes.map((element) => element.dtype).join(", ")}`
      )
    const dimensions = typeof shape === "number" ? [shape] : shape
    const isShape = dimensions.length <= 32 && dimensions.every((n) => Number.isInteger(n) && n >= 0 && n < twoTo32)
    if (!isShape) {
      return yield* unsupported(
        `there is none of shape [${dimensions.join(", ")}]: up to 32 whole numbers from 0 to 2^32 - 1`
      )
    }
    const size = arraySize(element, dimensions)
    const buffer = yield* commons.allocate(size)
    if (buffer === undefined) {
      return yield* unsupported(`no room for ${size} bytes: raise \`sharedMemory.capacityMiB\`, or close a scope`)
    }
    return NdArray.make(new element.make(buffer), dimensions, dtype)
  })
  return allocate as Allocate
}
