/** A Node program with a worker: for what happens to the program itself. Prints process ids, one per line. */
import { closeSync, openSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { isMainThread, Worker } from "node:worker_threads"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, ManagedRuntime, Schedule, Schema } from "effect"
import * as Synapse from "../../src/Synapse.ts"
import { memory } from "../fixtures/modules.ts"

const [mode, path] = process.argv.slice(2)

const directory = fileURLToPath(new URL("./python", import.meta.url))
const options: Synapse.SynapseOptions = {
  directory,
  logs: "ignore",
  // How the test tells its processes.
  env: { SYNAPSE_FAULT: process.env.SYNAPSE_FAULT ?? "" }
}
const layer = Synapse.layer(options)

const pid = Synapse.call(Schema.Int, {}, { method: "pid" })
const family = Effect.gen(function* () {
  const child = yield* Synapse.call(Schema.Int, { own_session: false }, { method: "with_child" })
  return [yield* pid, child]
})
const tell = (pids: ReadonlyArray<number>) => Console.log(pids.join(" "))

/** Runs an effect while there are only a few free descriptors, not enough for a worker. */
const withoutDescriptors = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const held: Array<number> = []
      try {
        while (true) held.push(openSync("/dev/null", "r"))
      } catch {}
      for (let n = 0; n < 4; n++) closeSync(held.pop()!)
      return held
    }),
    () => effect,
    (held) =>
      Effect.sync(() => {
        for (const fd of held) closeSync(fd)
      })
  )

/** A worker that dies then is started again once that is possible. */
const replaced = Effect.gen(function* () {
  const before = yield* pid
  const isFailing = Effect.map(Synapse.status, ({ restarts }) => restarts > 0)
  yield* withoutDescriptors(
    Effect.andThen(
      Effect.sync(() => process.kill(before, "SIGKILL")),
      Effect.andThen(Effect.repeat(isFailing, { schedule: Schedule.spaced(10), until: (so) => so }), Effect.sleep(200))
    )
  )
  yield* Console.log(`${before} ${yield* pid}`)
}).pipe(Effect.provide(Synapse.layer({ ...options, restart: { max: 1000 } })))

/** A runtime that is built then fails, and can be built later. */
const failing = Effect.gen(function* () {
  const start = Effect.provide(pid, layer)
  yield* start
  const { reason } = yield* withoutDescriptors(Effect.flip(start))
  yield* Console.log(`${reason._tag}: ${reason.message}`.replaceAll("\n", " "))
  yield* Console.log(yield* start)
})

/** Large values come and go, whatever there is of shared memory; tells how large the last ones were. */
const large = Effect.gen(function* () {
  const sizes: Array<number> = []
  for (const length of [300_000, 20_000, 300_000]) {
    const value = new Float64Array(length).fill(0.5)
    const copied = yield* Synapse.call(Schema.Unknown, value, { method: "copied" })
    sizes.push((copied as Float64Array).filter((element) => element === 0.5).length)
  }
  yield* Console.log(sizes.join(" "))
}).pipe(Effect.provide(Synapse.layer({ ...options, directory: memory.directory })))

if (mode === "memory") {
  NodeRuntime.runMain(large)
} else if (mode === "emfile") {
  NodeRuntime.runMain(replaced)
} else if (mode === "emfile-start") {
  NodeRuntime.runMain(failing)
} else if (mode === "ctrl-c") {
  NodeRuntime.runMain(
    Effect.andThen(Effect.flatMap(family, tell), Effect.never).pipe(Effect.provide(layer)) as Effect.Effect<never>
  )
} else if (mode === "thread" && isMainThread) {
  const thread = new Worker(fileURLToPath(import.meta.url), { argv: ["thread"] })
  process.stdin.once("data", () => void thread.terminate())
  setInterval(() => {}, 60_000)
} else {
  const runtime = ManagedRuntime.make(layer)
  await runtime.runPromise(Effect.flatMap(family, tell))
  // Answered when the worker is gone.
  if (path !== undefined && path !== "")
    void runtime.runPromise(Synapse.call(Schema.Unknown, { path }, { method: mode! }))
  process.stdin.once("data", () => {
    if (mode === "exit") process.exit(3)
    if (mode === "uncaught") throw new Error("nobody catches this")
  })
  setInterval(() => {}, 60_000)
}
