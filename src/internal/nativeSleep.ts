/** Waiting in finalizers: they run under `TestClock` too, where the Effect clock stands still. */
import * as Effect from "effect/Effect"

/** The longest delay of a timer; beyond it Node fires at once. */
export const maxDelayMillis = 2 ** 31 - 1

export const nativeSleep = (millis: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const timer = setTimeout(() => resume(Effect.void), Math.min(millis, maxDelayMillis))
    return Effect.sync(() => clearTimeout(timer))
  })
