/** When a worker that ended is started again: pauses that grow, under a budget. */
import * as Duration from "effect/Duration"
import { RestartLimit, SynapseError } from "../SynapseError.ts"
import type { RestartOptions } from "../WorkerPool.ts"

const maxPauseMillis = 5000
/** How much a pause differs from its length, so that many runtimes do not start all at once. */
const jitter = 0.2
const keptExits = 3

export class Restarts {
  readonly #max: number
  readonly #windowMillis: number
  readonly #backoffMillis: number
  readonly #resetMillis: number
  #ends: Array<{ readonly at: number; readonly weight: number }> = []
  #exits: Array<string> = []
  /** How often a worker was started again. */
  count = 0

  constructor(options: RestartOptions = {}) {
    this.#max = options.max ?? 5
    this.#windowMillis = Duration.toMillis(options.window ?? "30 seconds")
    this.#backoffMillis = Duration.toMillis(options.backoff ?? "50 millis")
    this.#resetMillis = Duration.toMillis(options.resetAfter ?? "30 seconds")
  }

  /**
   * Learns of an end. Gives the pause before the next start in milliseconds, or nothing when the budget is used up.
   * `startingMillis` is how long the worker had been starting, if it was not ready; `random` is a number from 0 to 1.
   */
  next(nowMillis: number, error: SynapseError, startingMillis: number | undefined, random: number): number | undefined {
    this.#exits = [...this.#exits, error.message].slice(-keptExits)
    // A worker that does not come up may take longer for that than the window: nothing has been well meanwhile.
    if (startingMillis !== undefined) {
      this.#ends = this.#ends.map((end) => ({ ...end, at: Math.min(end.at + startingMillis, nowMillis) }))
    }
    const last = this.#ends.at(-1)
    if (last !== undefined && nowMillis - last.at >= this.#resetMillis) this.#ends = []
    this.#ends = this.#ends.filter(({ at }) => nowMillis - at < this.#windowMillis)
    this.#ends.push({ at: nowMillis, weight: startingMillis === undefined ? 1 : 2 })
    const used = this.#ends.reduce((sum, { weight }) => sum + weight, 0)
    if (used > this.#max) return undefined
    this.count++
    const pause = Math.min(maxPauseMillis, this.#backoffMillis * 2 ** (this.#ends.length - 1))
    return pause * (1 - jitter + 2 * jitter * random)
  }

  /** Forgets what has been. */
  reset(): void {
    this.#ends = []
    this.#exits = []
  }

  limit(): SynapseError {
    return new SynapseError({
      reason: new RestartLimit({ max: this.#max, windowMillis: this.#windowMillis, exits: this.#exits })
    })
  }
}
