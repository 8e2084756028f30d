/** Waiting in the background: what only watches must not keep Node alive, and follows `TestClock` all the same. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { maxDelayMillis } from "./nativeSleep.ts"

export const quietSleep = (millis: number): Effect.Effect<void> =>
  Effect.clockWith((clock) => {
    // The clock of Node is the default; its timers hold on to the event loop.
    if (clock !== Context.get(Context.empty(), Clock.Clock)) return Effect.sleep(millis)
    return Effect.callback((resume) => {
      const timer = setTimeout(() => resume(Effect.void), Math.min(millis, maxDelayMillis)).unref()
      return Effect.sync(() => clearTimeout(timer))
    })
  })
