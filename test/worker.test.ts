/** The start of one worker. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Logs } from "../src/internal/logs.ts"
import { type Origin, python } from "../src/internal/origin.ts"
import { makeStartWorker } from "../src/internal/worker.ts"
import type { PythonEnvironment } from "../src/PythonEnvironment.ts"
import { StartFailed, SynapseError } from "../src/SynapseError.ts"

it.effect("logs what its process writes before anybody has it", () =>
  Effect.gen(function* () {
    const lines: Array<unknown> = []
    const logs = { line: (pid, { text }) => lines.push([pid, text]) } as Partial<Logs> as Logs
    const failure = new SynapseError({ reason: new StartFailed({ kind: "spawn", detail: "given up" }) })
    const spawn: Origin["spawn"] = ({ onLine }) =>
      Effect.suspend(() => {
        onLine({ source: "stdout", text: "early", continued: false }, 7)
        return Effect.fail(failure)
      })
    const shared = { host: undefined, logs, commons: undefined, origin: { ...python, spawn } }
    const start = makeStartWorker({ directory: "/", sharedMemory: false }, shared)
    const environment = { python: "python3", directory: "/" } as PythonEnvironment
    const error = yield* Effect.flip(Effect.scoped(start({ entrypoint: "main", environment }, () => {})))
    assert.strictEqual(error, failure)
    assert.deepStrictEqual(lines, [[7, "early"]])
  })
)
