// The server of synapse-p2p's own document, with another import, called from TypeScript. `python/client.py` is the document's client,
// for a server that was started with `python server.py`. Run it with `npm run example from-synapse-p2p`.
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Schema } from "effect"
import { Synapse } from "effect-synapse"

/** Starts the server at a free port; the scope stops it as Ctrl-C does. */
const server = Effect.acquireRelease(
  Effect.callback<() => Promise<unknown>>((resume) => {
    const child = spawn("python3", [fileURLToPath(new URL("./python/server.py", import.meta.url))], {
      stdio: ["ignore", "pipe", "inherit"],
      env: {
        ...process.env,
        PYTHONPATH: fileURLToPath(new URL("../../python/src", import.meta.url)),
        SYNAPSE_PORT: "0"
      }
    })
    const ended = new Promise((resolve) => child.once("exit", resolve))
    child.stdout.on("data", (data) => {
      process.stdout.write(data)
      if (String(data).includes("Background Tasks:")) {
        resume(
          Effect.succeed(() => {
            child.kill("SIGINT")
            return ended
          })
        )
      }
    })
  }),
  (stop) => Effect.promise(stop)
)

const NodeLive = Synapse.connect({ namespace: "cryptocurrencies.bitcoin" })

const program = Effect.gen(function* () {
  const nodes = yield* Synapse.call(Schema.String, {}, { method: "get_nodes" })
  yield* Console.log(nodes)
  const sent = yield* Synapse.call(Schema.String, { message: "hello everyone" }, { method: "broadcast_message" })
  yield* Console.log(`Received: ${sent}`)
})

program.pipe(Effect.provide(NodeLive.pipe(Layer.provide(Layer.effectDiscard(server)))), NodeRuntime.runMain)
