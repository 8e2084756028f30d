/**
 * How many synchronous calls a worker is given at a time.
 *
 * A worker runs `concurrency` of them. Giving it more hides the way there and back, which is most of the time of a quick
 * handler; but what waits in a worker cannot go to another, and may be lost with it. So quick answers let the depth grow
 * and slow ones let it shrink, and what waits behind a slow handler is asked back: calls wait about as long in the worker as
 * the trip takes, and otherwise here.
 *
 * A worker that starves for a processor answers late too, but all at once: with fewer calls it would only do less whenever
 * it has one.
 */

/** An answer within this time lets the depth grow. */
const quickMillis = 5
/** Answers after this time halve it, unless most came together. */
export const slowMillis = 20

export class Pipeline {
  readonly #least: number
  readonly #most: number
  /** How many calls the worker may have. */
  depth: number
  #depthBefore: number | undefined
  /** Of the answers that come together: how many there are, and whether one was late. */
  #answers = 0
  #isLate = false

  constructor(least: number, most: number) {
    this.#least = Math.min(least, most)
    this.#most = most
    this.depth = this.#least
  }

  /** Learns that nothing is answered for long. */
  stalled(): void {
    this.#depthBefore ??= this.depth
    this.depth = this.#least
  }

  /** Learns from an answer that came so long after its call was made. */
  answered(millis: number): void {
    this.#answers++
    if (millis <= quickMillis) {
      if (this.depth < this.#most) this.depth++
    } else if (millis > slowMillis) this.#isLate = true
  }

  /** Learns that no more answers came together with those before; `false` if there were none. The worker had `load` calls. */
  settled(load: number): boolean {
    if (this.#answers === 0) return false
    // More than run at once do not end together because they were slow.
    const areAllAtOnce = this.#answers > this.#least && this.#answers * 2 >= load
    if (areAllAtOnce) this.depth = Math.max(this.depth, this.#depthBefore ?? 0)
    else if (this.#isLate) this.depth = Math.max(this.#least, this.depth >> 1)
    this.#depthBefore = undefined
    this.#answers = 0
    this.#isLate = false
    return true
  }
}
