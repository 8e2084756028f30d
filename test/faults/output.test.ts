/** What workers print and log, too much of it and at the wrong moment. */
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import type { Synapse } from "effect-synapse"
import { reasonOf } from "../fixtures/dialogue.ts"
import { eventually } from "../fixtures/processes.ts"
import { call, memory, pid, row } from "./aftermath.ts"

/** Gathers records, and drops those of the runtime itself. */
const gathering = () => {
  const records: Array<Synapse.LogRecord> = []
  return { records, logs: (record: Synapse.LogRecord) => Effect.sync(() => void records.push(record)) }
}

describe("output", () => {
  for (const how of ["raw", "text"]) {
    row(
      how === "raw" ? "print-flood" : "print-flood, through sys.stdout",
      { quick: how === "raw", memoryMiB: 250 },
      ({ run }) =>
        Effect.gen(function* () {
          let characters = 0
          let longest = 0
          let heldMiB = 0
          let measuredAt = 0
          const logs = ({ message }: Synapse.LogRecord) =>
            Effect.sync(() => {
              characters += message.length
              longest = Math.max(longest, message.length)
              if (performance.now() - measuredAt < 500) return
              // What is let go of is collected when Node gets to it.
              heldMiB = Math.max(heldMiB, memory().heldMiB)
              measuredAt = performance.now()
            })
          const before = memory().heldMiB
          yield* run(
            { logs },
            Effect.map(call("flood", { mebibytes: 400, how }), (value) => assert.strictEqual(value, "flooded"))
          )
          assert.isAtMost(longest, 65_537)
          assert.isAbove(characters, 2 ** 20)
          // Of 400 MiB: 16 wait, as many are being logged, and buffers are given back a collection later.
          assert.isBelow(heldMiB - before, 128)
        })
    )
  }

  row("c-printf-then-kill", { quick: true }, ({ run }) =>
    Effect.gen(function* () {
      const { logs, records } = gathering()
      yield* run({ logs }, reasonOf(call("die", { how: "printf" }), "WorkerExited"))
      const printed = records.filter(({ logger }) => logger === "stdout").map(({ message }) => message)
      assert.deepStrictEqual(printed.sort(), ["from print", "from printf"])
    })
  )

  row("unread-logs", { memoryMiB: 60 }, ({ run }) =>
    Effect.gen(function* () {
      const never = yield* Deferred.make<void>()
      yield* run(
        // Nobody takes a record.
        { logs: () => Deferred.await(never) },
        Effect.gen(function* () {
          assert.strictEqual(yield* call("log_much", { records: 50_000 }), "logged")
          assert.strictEqual(yield* call("flood", { mebibytes: 20, how: "raw" }), "flooded")
        })
      )
      yield* Deferred.succeed(never, undefined)
    })
  )

  row("logging-loop", { memoryMiB: 40 }, ({ run }) =>
    Effect.gen(function* () {
      const { logs, records } = gathering()
      yield* run(
        { logs },
        Effect.gen(function* () {
          const before = yield* pid
          // Python's own limit of recursion ends it, if the runtime adds nothing.
          yield* call("log_in_a_loop")
          yield* eventually(() => records.some(({ message }) => message === "first"))
          assert.strictEqual(yield* pid, before)
        })
      )
      assert.isBelow(records.length, 5000)
    })
  )
})
