/**
 * How long a call may wait and run.
 *
 * Waiting for a worker and running on it have budgets of their own, and one may bound the whole. A budget is measured on
 * the caller's clock; progress starts that of running anew.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { CallTimeout, SynapseError } from "../SynapseError.ts"
import { maxDelayMillis } from "./nativeSleep.ts"

export interface Durations {
  readonly timeout?: Duration.Input | undefined
  readonly queueTimeout?: Duration.Input | undefined
  readonly totalTimeout?: Duration.Input | undefined
  readonly maxTimeout?: Duration.Input | undefined
}

type Option = CallTimeout["option"]

const millis = (input: Duration.Input | undefined): number =>
  input === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(Duration.fromInputUnsafe(input))

export class Budget {
  readonly #clock: Clock.Clock
  readonly #millis: Readonly<Record<Option, number>>
  readonly #begun: number
  #queuedAt: number
  #sentAt: number | undefined
  #mayHaveRun = false
  /** When the time to run began, or began anew. */
  #runsFrom = 0

  constructor(clock: Clock.Clock, durations: Durations) {
    this.#clock = clock
    this.#millis = {
      timeout: millis(durations.timeout),
      queueTimeout: millis(durations.queueTimeout),
      totalTimeout: millis(durations.totalTimeout),
      maxTimeout: millis(durations.maxTimeout)
    }
    this.#begun = this.#queuedAt = clock.currentTimeMillisUnsafe()
  }

  /** Whether anything bounds the call. */
  static isBounded({ maxTimeout, queueTimeout, timeout, totalTimeout }: Durations): boolean {
    return timeout !== undefined || queueTimeout !== undefined || totalTimeout !== undefined || maxTimeout !== undefined
  }

  /** The call was given to a worker. */
  sent(): void {
    this.#sentAt = this.#runsFrom = this.#clock.currentTimeMillisUnsafe()
  }

  /** The call waits for a worker again. `mayHaveRun`: it may have run on one before. */
  queued(mayHaveRun = false): void {
    this.#sentAt = undefined
    this.#mayHaveRun ||= mayHaveRun
    this.#queuedAt = this.#clock.currentTimeMillisUnsafe()
  }

  progressed(): void {
    if (this.#millis.maxTimeout !== Number.POSITIVE_INFINITY) this.#runsFrom = this.#clock.currentTimeMillisUnsafe()
  }

  /** Milliseconds left to run for a call that is sent now, `undefined` without a bound. */
  timeLeft(): number | undefined {
    const { maxTimeout, timeout, totalTimeout } = this.#millis
    const left = Math.min(timeout, maxTimeout, this.#begun + totalTimeout - this.#clock.currentTimeMillisUnsafe())
    return left === Number.POSITIVE_INFINITY ? undefined : left
  }

  /** Milliseconds within which progress may extend the time to run, `undefined` when it may not. */
  ceiling(): number | undefined {
    const { maxTimeout, totalTimeout } = this.#millis
    if (maxTimeout === Number.POSITIVE_INFINITY) return undefined
    return Math.min(maxTimeout, this.#begun + totalTimeout - this.#clock.currentTimeMillisUnsafe())
  }

  get isOver(): boolean {
    return this.endsAt <= this.#clock.currentTimeMillisUnsafe()
  }

  /** When the first of the budgets is used up, as things stand. */
  get endsAt(): number {
    const { maxTimeout, queueTimeout, timeout, totalTimeout } = this.#millis
    const total = this.#begun + totalTimeout
    if (this.#sentAt !== undefined) return Math.min(total, this.#runsFrom + timeout, this.#sentAt + maxTimeout)
    // What has no time to run is never sent.
    return timeout > 0 && maxTimeout > 0 ? Math.min(total, this.#queuedAt + queueTimeout) : this.#queuedAt
  }

  /** Fails with `CallTimeout` when a budget is used up before `self` is done. */
  limit<A, E, R>(self: Effect.Effect<A, E, R>, method: string): Effect.Effect<A, E | SynapseError, R> {
    return Effect.raceFirst(self, this.#timer(method))
  }

  /** The error of a call whose budget is used up, or of which Python saw the deadline pass. */
  expired(method: string): SynapseError {
    const [, option] = this.#firstOf(this.#bounds())
    return this.#error(option, method)
  }

  #timer(method: string): Effect.Effect<never, SynapseError> {
    return Effect.suspend(() => {
      const now = this.#clock.currentTimeMillisUnsafe()
      const [at, option] = this.#firstOf(this.#bounds())
      if (at <= now) return Effect.fail(this.#error(option, method))
      // Nothing says when it will be sent, or wait again: what is bounded from then on cannot end earlier than this.
      const { maxTimeout, queueTimeout, timeout } = this.#millis
      const next = this.#sentAt === undefined ? Math.min(timeout, maxTimeout) : queueTimeout
      const wake = Math.min(at, now + Math.max(next, 1))
      if (wake === Number.POSITIVE_INFINITY) return Effect.never
      return Effect.flatMap(Effect.sleep(Math.min(wake - now, maxDelayMillis)), () => this.#timer(method))
    })
  }

  #bounds(): ReadonlyArray<readonly [number, Option]> {
    const { maxTimeout, queueTimeout, timeout, totalTimeout } = this.#millis
    const total = [this.#begun + totalTimeout, "totalTimeout"] as const
    if (this.#sentAt === undefined) {
      // What has no time to run is never sent.
      const never = Number.POSITIVE_INFINITY
      return [
        total,
        [this.#queuedAt + queueTimeout, "queueTimeout"],
        [timeout > 0 ? never : this.#queuedAt, "timeout"],
        [maxTimeout > 0 ? never : this.#queuedAt, "maxTimeout"]
      ]
    }
    return [total, [this.#runsFrom + timeout, "timeout"], [this.#sentAt + maxTimeout, "maxTimeout"]]
  }

  #firstOf(bounds: ReadonlyArray<readonly [number, Option]>): readonly [number, Option] {
    return bounds.reduce((first, bound) => (bound[0] < first[0] ? bound : first))
  }

  #error(option: Option, method: string): SynapseError {
    const durationMillis = this.#millis[option]
    return new SynapseError({
      reason: new CallTimeout({
        method,
        option,
        durationMillis,
        running: this.#sentAt !== undefined || this.#mayHaveRun
      })
    })
  }
}
