/**
 * How many synchronous calls a worker is given at a time.
 *
 * A worker runs `concurrency` of them. Giving it more hides the way there and back, which is most of the time of a quick
 * handler; but what waits in a worker cannot go to another, and may be lost with it. So quick answers let the depth grow
 * and slow ones let it shrink, and what waits behind a slow handler is asked back: calls wait about as long in the worker as
 * the trip takes, and otherwise here.
 */

/** An answer within this time lets the depth grow. */
const quickMillis = 5
/** An answer after this time halves it. */
export const slowMillis = 20

export class Pipeline {
  readonly #least: number
  readonly #most: number
  /** How many calls the worker may have. */
  depth: number

  constructor(least: number, most: number) {
    this.#least = Math.min(least, most)
    this.#most = most
    this.depth = this.#least
  }

  /** Learns that nothing is answered for long. */
  stalled(): void {
    this.depth = this.#least
  }

  /** Learns from an answer that came so long after its call was made. */
  answered(millis: number): void {
    if (millis <= quickMillis) {
      if (this.depth < this.#most) this.depth++
    } else if (millis > slowMillis) this.depth = Math.max(this.#least, this.depth >> 1)
  }
}
