/**
 * Tells from samples of the memory in use whether a runtime keeps more and more of it.
 *
 * @internal
 */

/**
 * Commands between two samples.
 *
 * @internal
 */
export const sampleInterval = 100

const tolerated = 3
// Less is no leak that matters, and more than what differs from one collection to the next.
const riseBytes = 64 * 1024

/** @internal */
export interface Sample {
  /** Bytes in use after a collection. */
  readonly heap: number
  /** How many functions are kept compiled: their memory is meant to stay. */
  readonly functions: number
}

/**
 * A function that takes the samples of one runtime in turn, and answers whether it should be replaced: after more than
 * three rises in a row without a new function.
 *
 * @internal
 */
export const makeLeakGuard = (): ((sample: Sample) => boolean) => {
  let last: Sample | undefined
  let rises = 0
  return (sample) => {
    const rose = last !== undefined && sample.heap - last.heap > riseBytes && sample.functions <= last.functions
    rises = rose ? rises + 1 : 0
    last = sample
    return rises > tolerated
  }
}
