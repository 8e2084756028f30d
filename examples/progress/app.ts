// Progress beside a result, and a time-out that progress extends. Run it with `npm run example progress`.
import { fileURLToPath } from "node:url"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schema } from "effect"
import { Synapse } from "effect-synapse"

const PythonLive = Synapse.layer({ directory: fileURLToPath(new URL("./python", import.meta.url)) })

const Step = Schema.Struct({ epoch: Schema.Int, loss: Schema.Finite })

const epochs = 20

const bar = (done: number) => `${"#".repeat(done)}${".".repeat(epochs - done)}`

const program = Effect.gen(function* () {
  const loss = yield* Synapse.call(
    Schema.Finite,
    { epochs },
    {
      method: "train",
      progress: Synapse.onProgress(Step, ({ epoch, loss }) =>
        epoch % 5 === 0 ? Console.log(`${bar(epoch)} loss ${loss.toFixed(3)}`) : Effect.void
      ),
      // A second without progress is too long, and so is a minute with it.
      timeout: "1 second",
      maxTimeout: "1 minute"
    }
  )
  yield* Console.log(`the loss is ${loss.toFixed(3)}`)

  // Too little time: the handler sees that nobody waits any more, and stops.
  yield* Synapse.call(Schema.Finite, { epochs: 1000 }, { method: "train", timeout: "200 millis" }).pipe(
    Effect.catchReason("SynapseError", "CallTimeout", () => Console.log("that took too long"))
  )
  const trained = yield* Synapse.call(Schema.Int, {}, { method: "trained" })
  yield* Console.log(trained < 1000 ? "and it was stopped" : "and it was not stopped")
})

program.pipe(Effect.provide(PythonLive), NodeRuntime.runMain)
