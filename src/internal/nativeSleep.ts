/** Waiting in finalizers: they run under `TestClock` too, where the Effect clock stands still. */
import * as Effect from "effect/Effect"

export const nativeSleep = (millis: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    return Effect.sync(() => clearTimeout(timer))
  })
