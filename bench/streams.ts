// What items of streams and calls of the host cost. `node bench/streams.ts`
import { fileURLToPath } from "node:url"
import { Console, Effect, Schema, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import * as HostFunctions from "../src/HostFunctions.ts"
import * as Synapse from "../src/Synapse.ts"

const directory = fileURLToPath(new URL("./python", import.meta.url))
const Item = Schema.Struct({ n: Schema.Int })
const count = 200_000

const Group = RpcGroup.make(Rpc.make("echo", { payload: { n: Schema.Int }, success: Schema.Int }))
const host = HostFunctions.make(Group, { echo: ({ n }) => Effect.succeed(n) })

const timed = (name: string, run: Effect.Effect<unknown, unknown, Synapse.Synapse>) =>
  Effect.gen(function* () {
    const start = performance.now()
    yield* run
    const millis = performance.now() - start
    yield* Console.log(`${name.padEnd(34)} ${(count / millis).toFixed(0).padStart(5)} thousand items/s`)
  })

const rows = Stream.fromIterable(Array.from({ length: count }, (_, n) => ({ n })))

const program = Effect.gen(function* () {
  for (const method of ["items", "async_items"]) {
    const stream = Synapse.stream(Item, { count }, { method })
    yield* timed(`${method}, out`, Stream.runDrain(stream))
    yield* timed(`${method}, out`, Stream.runDrain(stream))
  }
  for (const method of ["consume", "async_consume"]) {
    for (let n = 0; n < 2; n++) yield* timed(`${method}, in`, Synapse.call(Schema.Int, { rows }, { method }))
  }
  for (let n = 0; n < 2; n++) {
    const micros = yield* Synapse.call(Schema.Finite, { count: 5000 }, { method: "host_calls" })
    yield* Console.log(`host, one at a time                ${micros.toFixed(0).padStart(5)} µs a call`)
    const rate = yield* Synapse.call(Schema.Finite, { count: 20_000, at_once: 64 }, { method: "async_host_calls" })
    yield* Console.log(`host, 64 at once                   ${(rate / 1000).toFixed(0).padStart(5)} thousand calls/s`)
  }
})

await Effect.runPromise(Effect.provide(program, Synapse.layer({ directory, host })))
