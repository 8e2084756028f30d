// Python in a template literal, and a Python object held from TypeScript. Run it with `npm run example inline-python`.
import { fileURLToPath } from "node:url"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schema } from "effect"
import { Synapse } from "effect-synapse"

const PythonLive = Synapse.layer({
  directory: fileURLToPath(new URL("./python", import.meta.url)),
  // It runs whatever it is given: off unless a layer says so.
  evaluate: true
})

const program = Effect.gen(function* () {
  const values = [2, 4, 4, 4, 5, 5, 7, 9]
  const deviation = yield* Synapse.evaluate(Schema.Finite, { values })`
    import statistics
    statistics.pstdev(values)
  `
  yield* Console.log(`deviation ${deviation}`)

  // A traceback names this file and the line of the literal.
  yield* Synapse.evaluate(Schema.Finite)`1 / 0`.pipe(
    Effect.catchReason("SynapseError", "PythonException", ({ exception }) => {
      const { file, line } = exception.frames.at(-1)!
      return Console.log(`${exception.type} in ${file.split("/").at(-1)}, line ${line}`)
    })
  )

  yield* Effect.scoped(
    Effect.gen(function* () {
      const sample = yield* Synapse.acquire({ name: "heights" }, { method: "sample" })
      yield* sample.call(Schema.Int, { values: [1.6, 1.7] }, { method: "add" })
      yield* sample.call(Schema.Int, { values: [1.8] }, { method: "add" })
      yield* Console.log(yield* sample.call(Schema.String, {}, { method: "describe" }))
      yield* Console.log(`${(yield* sample.get(Schema.Array(Schema.Finite), "values")).length} values`)
    })
  )
  yield* Console.log(`${(yield* Synapse.stats).handles} objects are held`)
})

program.pipe(Effect.provide(PythonLive), NodeRuntime.runMain)
