/**
 * Waiting for what happens outside of this process: in finalizers and for signs of life. It goes on under `TestClock`,
 * whose time stands still, and is not hurried by it.
 */
import * as Effect from "effect/Effect"

/** The longest delay of a timer; beyond it Node fires at once. */
export const maxDelayMillis = 2 ** 31 - 1

export const nativeSleep = (millis: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const timer = setTimeout(() => resume(Effect.void), Math.min(millis, maxDelayMillis))
    return Effect.sync(() => clearTimeout(timer))
  })

/** The same without keeping Node alive: for what only watches. */
export const nativeSleepUnref = (millis: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const timer = setTimeout(() => resume(Effect.void), Math.min(millis, maxDelayMillis)).unref()
    return Effect.sync(() => clearTimeout(timer))
  })
