/** Waiting in the background: what only watches must not keep Node alive, and follows `TestClock` all the same. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { nativeSleepUnref } from "./nativeSleep.ts"

export const quietSleep = (millis: number): Effect.Effect<void> =>
  Effect.clockWith((clock) =>
    // The clock of Node is the default; its timers hold on to the event loop.
    clock === Context.get(Context.empty(), Clock.Clock) ? nativeSleepUnref(millis) : Effect.sleep(millis)
  )
