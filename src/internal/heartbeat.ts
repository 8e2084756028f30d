/** Asks a silent worker whether it is there, and says what it is doing when it does not answer. */
import * as Effect from "effect/Effect"
import type { Vitals } from "../PythonProcess.ts"
import { nativeSleepUnref } from "./nativeSleep.ts"

export interface Options {
  readonly intervalMillis: number
  /** How many questions in a row may stay without an answer. */
  readonly misses: number
  /** A number that changes with everything that comes from the worker: each frame is a sign of life. */
  readonly heard: () => number
  readonly ping: () => void
  readonly inspect: Effect.Effect<Vitals | undefined>
  /** Waits in the worker's time. Default: the machine's. */
  readonly sleep?: ((millis: number) => Effect.Effect<void>) | undefined
}

/** What a process does that does not answer: stopped by a signal, using the CPU, or waiting. */
export type Activity = "stopped" | "busy" | "blocked"

/** `before` is an earlier look at the same process. */
export const activityOf = (vitals: Vitals | undefined, before?: Vitals | undefined): Activity => {
  if (vitals?.state === "stopped") return "stopped"
  if (vitals?.state === "running") return "busy"
  return vitals !== undefined && before !== undefined && vitals.cpuMillis > before.cpuMillis ? "busy" : "blocked"
}

/** Waits until the worker has missed all its chances. */
export const watch = Effect.fnUntraced(function* (options: Options): Effect.fn.Return<Activity> {
  const { heard, inspect, intervalMillis, misses, ping, sleep = nativeSleepUnref } = options
  let last = heard()
  let missed = 0
  let before: Vitals | undefined
  // Counted and not timed: after the machine slept, the worker gets its chances as well.
  while (true) {
    yield* sleep(intervalMillis)
    const now = heard()
    if (now !== last) {
      last = now
      missed = 0
      continue
    }
    const vitals = yield* inspect
    if (missed >= misses) return activityOf(vitals, before)
    before = vitals
    missed++
    ping()
  }
})
