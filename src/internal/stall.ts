/** Notices that calls wait in a worker which answers nothing for a while. */
import { slowMillis } from "./pipeline.ts"

export class Stall {
  readonly #hasWaiting: () => boolean
  readonly #onStall: () => void
  #timer: NodeJS.Timeout | undefined
  #immediate: NodeJS.Immediate | undefined
  /** In milliseconds of `performance.now`. */
  #lastAnswer = 0

  /** `hasWaiting` tells whether calls wait, `onStall` is told when they have for too long. */
  constructor(hasWaiting: () => boolean, onStall: () => void) {
    this.#hasWaiting = hasWaiting
    this.#onStall = onStall
  }

  /** A call was sent that may wait. */
  watch(millis = slowMillis): void {
    this.#timer ??= setTimeout(this.#look, millis).unref()
  }

  /** Something was answered, at a time of `performance.now`. */
  answered(at: number): void {
    this.#lastAnswer = at
  }

  stop(): void {
    clearTimeout(this.#timer)
    clearImmediate(this.#immediate)
  }

  readonly #look = (): void => {
    // This process may have been away for as long: what came meanwhile is read first.
    this.#immediate = setImmediate(this.#lookAgain)
  }

  readonly #lookAgain = (): void => {
    this.#timer = undefined
    if (!this.#hasWaiting()) return
    const quietMillis = performance.now() - this.#lastAnswer
    if (quietMillis < slowMillis) this.watch(slowMillis - quietMillis)
    else this.#onStall()
  }
}
