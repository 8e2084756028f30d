// What a call costs: one at a time, and many in flight. `node bench/calls.ts`
import { fileURLToPath } from "node:url"
import { Console, Effect, Schema } from "effect"
import * as Synapse from "../src/Synapse.ts"

const directory = fileURLToPath(new URL("./python", import.meta.url))
const Reply = Schema.Struct({ n: Schema.Int, name: Schema.String })
const input = { n: 1, name: "hello" }

const percentile = (sorted: ReadonlyArray<number>, p: number): string =>
  sorted[Math.floor((sorted.length - 1) * p)]!.toFixed(1)

const sequential = (method: string) =>
  Effect.gen(function* () {
    const micros: Array<number> = []
    for (let n = 0; n < 5000; n++) {
      const start = performance.now()
      yield* Synapse.call(Reply, input, { method })
      if (n >= 1000) micros.push((performance.now() - start) * 1000)
    }
    micros.sort((a, b) => a - b)
    yield* Console.log(
      `${method.padEnd(11)} one at a time   p50 ${percentile(micros, 0.5)} µs   p99 ${percentile(micros, 0.99)} µs`
    )
  })

const inFlight = (method: string, concurrency: number, count: number) =>
  Effect.gen(function* () {
    const calls = Array.from({ length: count }, () => Synapse.call(Reply, input, { method }))
    const cpu = process.cpuUsage()
    const start = performance.now()
    yield* Effect.forEach(calls, (call) => call, { concurrency, discard: true })
    const millis = performance.now() - start
    const used = process.cpuUsage(cpu)
    const perCall = ((used.user + used.system) / count).toFixed(1)
    yield* Console.log(
      `${method.padEnd(11)} ${String(concurrency).padStart(5)} in flight ${(count / millis).toFixed(0).padStart(5)} thousand/s   ` +
        `Node ${perCall} µs of CPU a call`
    )
  })

const program = Effect.gen(function* () {
  yield* Synapse.call(Reply, input)
  yield* Console.log(`warm start to first reply ${(performance.now() - start).toFixed(0)} ms`)
  for (const method of ["main", "async_main"]) {
    yield* inFlight(method, 64, 20_000)
    yield* sequential(method)
    for (const concurrency of [64, 512, 10_000]) yield* inFlight(method, concurrency, 100_000)
  }
})

// Once to make the environment, so that the second start is a warm one.
await Effect.runPromise(Effect.scoped(Synapse.Synapse.pipe(Effect.provide(Synapse.layer({ directory })))))
const start = performance.now()
await Effect.runPromise(Effect.provide(program, Synapse.layer({ directory })))
