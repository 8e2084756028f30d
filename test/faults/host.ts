/** A Node program with a worker: for what happens to the program itself. Prints process ids, one per line. */
import { closeSync, openSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { isMainThread, Worker } from "node:worker_threads"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, ManagedRuntime, Schema } from "effect"
import * as Synapse from "../../src/Synapse.ts"

const [mode, path] = process.argv.slice(2)

const directory = fileURLToPath(new URL("./python", import.meta.url))
const layer = Synapse.layer({
  directory,
  logs: "ignore",
  // How the test tells its processes.
  env: { SYNAPSE_FAULT: process.env.SYNAPSE_FAULT ?? "" }
})

const pid = Synapse.call(Schema.Int, {}, { method: "pid" })
const family = Effect.gen(function* () {
  const child = yield* Synapse.call(Schema.Int, { own_session: false }, { method: "with_child" })
  return [yield* pid, child]
})
const tell = (pids: ReadonlyArray<number>) => Console.log(pids.join(" "))

/** Where it goes wrong when there is no free descriptor, and whether it works once there is. */
const withoutDescriptors = Effect.gen(function* () {
  const start = Effect.provide(pid, layer)
  yield* start
  const held: Array<number> = []
  try {
    while (true) held.push(openSync("/dev/null", "r"))
  } catch {}
  // A few are left, not enough for a worker.
  for (let n = 0; n < 4; n++) closeSync(held.pop()!)
  const { reason } = yield* Effect.flip(start)
  for (const fd of held) closeSync(fd)
  yield* Console.log(`${reason._tag}: ${reason.message}`.replaceAll("\n", " "))
  yield* Console.log(yield* start)
})

if (mode === "emfile") {
  NodeRuntime.runMain(withoutDescriptors)
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
