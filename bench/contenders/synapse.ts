/**
 * Synapse, as an app uses it: effects, with a schema on every reply. Settings are options of its layer, and `module`:
 * `"python"` for values or `"arrays"` for what needs numpy.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as ManagedRuntime from "effect/ManagedRuntime"
import { isObject } from "effect/Predicate"
import * as Rpc from "effect/rpc/Rpc"
import * as RpcGroup from "effect/rpc/RpcGroup"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as HostFunctions from "../../src/HostFunctions.ts"
import * as NdArray from "../../src/NdArray.ts"
import * as Synapse from "../../src/Synapse.ts"
import type { Calls, HostCalls, Items, MakeContender, Memory, Outcome, Payload, Task } from "../harness/contender.ts"
import { type EffectCalls, runCalls, verifyCall } from "../harness/effectCalls.ts"
import { array, valuesOf } from "../harness/payloads.ts"
import { descendants, memoryOf } from "../harness/processes.ts"

type Run<A> = Effect.Effect<A, unknown, Synapse.Synapse>

const Group = RpcGroup.make(Rpc.make("echo", { payload: { n: Schema.Int }, success: Schema.Int }))
const host = HostFunctions.make(Group, { echo: ({ n }) => Effect.succeed(n) })

export const make: MakeContender = async ({ coldCache = false, module = "python", ...options }) => {
  const directory = fileURLToPath(new URL(`../${module}`, import.meta.url))
  // A cold start is one with nothing in the cache of environments.
  const cache = coldCache === true ? mkdtempSync(join(tmpdir(), "synapse-bench-cold-")) : undefined
  if (cache !== undefined) process.env.SYNAPSE_CACHE_DIRECTORY = cache
  const runtime = ManagedRuntime.make(Synapse.layer({ directory, host, ...options }))
  const inPlace = isObject(options.sharedMemory) && "inPlace" in options.sharedMemory
  await runtime.runPromise(Synapse.Synapse)
  return {
    verify: (task) => runtime.runPromise(verify(task, inPlace)),
    run: (task) => runtime.runPromise(run(task, inPlace)),
    stop: async () => {
      await runtime.dispose()
      if (cache !== undefined) rmSync(cache, { recursive: true, force: true })
    }
  }
}

const Profile = Schema.Struct({
  id: Schema.Int,
  name: Schema.String,
  email: Schema.String,
  roles: Schema.Array(Schema.String),
  address: Schema.Struct({ street: Schema.String, city: Schema.String, zip: Schema.String, country: Schema.String }),
  scores: Schema.Array(Schema.Finite),
  about: Schema.String,
  flags: Schema.Struct({ beta: Schema.Boolean, newsletter: Schema.Boolean, verified: Schema.Boolean })
})

const Row = Schema.Struct({
  id: Schema.Int,
  name: Schema.String,
  active: Schema.Boolean,
  score: Schema.Finite,
  tags: Schema.Array(Schema.String)
})

const schemas: Record<Payload["kind"], Schema.Decoder<unknown>> = {
  small: Schema.Struct({ n: Schema.Int, name: Schema.String }),
  record: Profile,
  rows: Schema.Array(Row),
  bytes: Schema.Uint8Array,
  array: NdArray.Float64Array
}

const methods = { sync: "main", async: "async_main", fresh: "fresh" } as const

const open = ({ handler = "sync", payload }: Calls, values = valuesOf(payload)): EffectCalls<Synapse.Synapse> => {
  const schema = schemas[payload.kind]
  const options = { method: methods[handler] }
  return { values, call: (n) => Synapse.call(schema, values.input(n), options) }
}

/** The calls of arrays that both sides have in the same memory. */
const openInPlace = (task: Calls) => {
  if (task.payload.kind !== "array") return Effect.die(new Error("only arrays have a place"))
  return Effect.map(Synapse.allocate("float64", task.payload.size / 8), ({ data }) => open(task, array(data)))
}

const verify = (task: Task, inPlace: boolean): Run<void> => {
  if (task.name !== "calls") return Effect.void
  return inPlace ? Effect.scoped(Effect.flatMap(openInPlace(task), verifyCall)) : verifyCall(open(task))
}

const run = (task: Task, inPlace: boolean): Run<Outcome> => {
  switch (task.name) {
    case "calls":
      return inPlace
        ? Effect.scoped(Effect.flatMap(openInPlace(task), (calls) => runCalls(calls, task)))
        : runCalls(open(task), task)
    case "items":
      return items(task)
    case "hostCalls":
      return hostCalls(task)
    case "replacement":
      return replacement
    case "memory":
      return memory(task)
    case "start":
      return smallCalls(1, 0)
  }
}

const smallCalls = (inFlight: number, millis: number): Run<Outcome> =>
  runCalls(open({ name: "calls", payload: { kind: "small" }, inFlight, millis }), { inFlight, millis })

const Item = Schema.Struct({ n: Schema.Int })

const itemsOut = ({ count, handler }: Items) =>
  Effect.map(
    Stream.runFold(
      Synapse.stream(Item, { count }, { method: handler === "sync" ? "items" : "async_items" }),
      () => 0,
      (sum, { n }) => sum + n
    ),
    (sum) => sum === (count * (count - 1)) / 2
  )

const itemsIn = ({ count, handler }: Items) => {
  const rows = Stream.fromIterable(
    (function* () {
      for (let n = 0; n < count; n++) yield { n }
    })()
  )
  const method = handler === "sync" ? "consume" : "async_consume"
  return Effect.map(Synapse.call(Schema.Int, { rows }, { method }), (received) => received === count)
}

const items = (task: Items): Run<Outcome> =>
  Effect.gen(function* () {
    const begin = performance.now()
    const complete = yield* task.direction === "out" ? itemsOut(task) : itemsIn(task)
    if (!complete) return yield* Effect.die(new Error("items are missing"))
    return { operations: task.count, micros: (performance.now() - begin) * 1000 }
  })

const hostCalls = ({ count, inFlight }: HostCalls): Run<Outcome> =>
  Effect.gen(function* () {
    const seconds = yield* inFlight === 1
      ? Synapse.call(Schema.Finite, { count }, { method: "host_calls" })
      : Synapse.call(Schema.Finite, { count, at_once: inFlight }, { method: "async_host_calls" })
    return { operations: count, micros: seconds * 1e6 }
  })

const workerPid = Effect.map(Synapse.status, ({ workers }) => workers.find(({ pid }) => pid !== undefined)?.pid ?? 0)

/** The first calls may have been given to the worker that is dead already. */
const replacement: Run<Outcome> = Effect.gen(function* () {
  const attempt = Synapse.call(schemas.small, { n: 1, name: "hello" })
  for (let n = 0; n < 200; n++) yield* attempt
  const pid = yield* workerPid
  const begin = performance.now()
  process.kill(pid, "SIGKILL")
  while (!(yield* Effect.isSuccess(attempt))) {
    if (performance.now() - begin > 20_000) return yield* Effect.die(new Error("no reply within 20 seconds"))
  }
  return { operations: 1, micros: (performance.now() - begin) * 1000 }
})

/** An idle worker is one that has answered a call, and then nothing for half a second. */
const memory = ({ calls }: Memory): Run<Outcome> =>
  Effect.gen(function* () {
    const some = (count: number) =>
      Effect.gen(function* () {
        for (let done = 0; done < count; ) done += (yield* smallCalls(64, 200)).operations
      })
    const held = Effect.map(Effect.andThen(Effect.sleep(500), workerPid), memoryOf)
    yield* smallCalls(1, 0)
    const idle = yield* held
    yield* some(calls / 10)
    const settled = yield* held
    const begin = performance.now()
    yield* some(calls)
    const micros = (performance.now() - begin) * 1000
    const after = yield* held
    const processes = descendants(process.pid).length
    const growthBytes = after.residentBytes - settled.residentBytes
    return { operations: calls, micros, values: { ...idle, growthBytes, processes } }
  })
