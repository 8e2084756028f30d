/** Rounds of calls that are effects, in the two shapes that `promiseContender.ts` has for promises. */
import * as Effect from "effect/Effect"
import type { Calls, Outcome } from "./contender.ts"
import type { Values } from "./payloads.ts"
import { wrongReply } from "./promiseContender.ts"

export interface EffectCalls<R> {
  readonly values: Values
  readonly call: (n: number) => Effect.Effect<unknown, unknown, R>
}

export const verifyCall = <R>({ call, values }: EffectCalls<R>): Effect.Effect<void, unknown, R> =>
  Effect.flatMap(call(0), (reply) => (values.isSame(reply, 0) ? Effect.void : Effect.die(wrongReply(0))))

export const runCalls = <R>(calls: EffectCalls<R>, task: Pick<Calls, "inFlight" | "millis">) =>
  task.inFlight === 1 ? oneAtATime(calls, task.millis) : manyAtOnce(calls, task.inFlight, task.millis)

const oneAtATime = <R>({ call, values }: EffectCalls<R>, millis: number): Effect.Effect<Outcome, unknown, R> =>
  Effect.gen(function* () {
    const latencies: Array<number> = []
    const deadline = performance.now() + millis
    let micros = 0
    for (let n = 1, now = 0; n === 1 || now < deadline; n++) {
      const begin = performance.now()
      const reply = yield* call(n)
      now = performance.now()
      latencies.push((now - begin) * 1000)
      micros += (now - begin) * 1000
      if (!values.isReply(reply, n)) return yield* Effect.die(wrongReply(n))
    }
    return { operations: latencies.length, micros, latencies }
  })

const manyAtOnce = <R>(
  { call, values }: EffectCalls<R>,
  inFlight: number,
  millis: number
): Effect.Effect<Outcome, unknown, R> =>
  Effect.gen(function* () {
    const begin = performance.now()
    const deadline = begin + millis
    let next = 0
    const caller = Effect.gen(function* () {
      do {
        const n = next++
        const reply = yield* call(n)
        if (!values.isReply(reply, n)) return yield* Effect.die(wrongReply(n))
      } while (performance.now() < deadline)
    })
    const callers = Array.from({ length: inFlight }, () => caller)
    yield* Effect.all(callers, { concurrency: "unbounded", discard: true })
    return { operations: next, micros: (performance.now() - begin) * 1000 }
  })
