/**
 * Waiting for an answer without letting the event loop go to sleep, for as long as that pays.
 *
 * Where calls follow each other and are answered within some ten microseconds, waking up takes longer than the answer. The loop is
 * kept turning meanwhile: whatever else there is to do is done.
 */

/** So often in a row it may look in vain before it sleeps at once. */
const patience = 4

export class Looking {
  readonly #windowMillis: number
  readonly #isWaiting: () => boolean
  #misses = 0
  #until = 0
  #isTurning = false

  /** `windowMillis`: how long to look for an answer, 0 for not at all. `isWaiting`: whether there is still one to come. */
  constructor(windowMillis: number, isWaiting: () => boolean) {
    this.#windowMillis = windowMillis
    this.#isWaiting = isWaiting
  }

  /** A call was sent, and it is the only one. */
  begin(): void {
    if (this.#misses >= patience || this.#windowMillis === 0) return
    this.#until = performance.now() + this.#windowMillis
    if (this.#isTurning) return
    this.#isTurning = true
    setImmediate(this.#look)
  }

  /** A call was answered so long after it was made. */
  answered(millis: number): void {
    if (millis < this.#windowMillis) this.#misses = 0
  }

  readonly #look = (): void => {
    if (this.#isWaiting()) {
      if (performance.now() < this.#until) {
        setImmediate(this.#look)
        return
      }
      this.#misses++
    }
    this.#isTurning = false
  }
}
