// The smallest module: the standard library only. Run it with `npm run hello`.
import { fileURLToPath } from "node:url"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schema } from "effect"
import { Synapse } from "effect-synapse"

const PythonLive = Synapse.layer({ directory: fileURLToPath(new URL("./python", import.meta.url)) })

const Summary = Schema.Struct({ mean: Schema.Finite, count: Schema.Int })

const program = Effect.gen(function* () {
  const summary = yield* Synapse.call(Summary, { values: [1, 2, 3, 4] })
  yield* Console.log(`mean ${summary.mean} of ${summary.count} values`)

  const greeting = yield* Synapse.call(Schema.String, { name: "Ada" }, { method: "greet", timeout: "5 seconds" })
  yield* Console.log(greeting)
})

program.pipe(Effect.provide(PythonLive), NodeRuntime.runMain)
