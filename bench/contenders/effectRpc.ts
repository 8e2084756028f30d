/** Effect's own RPC, with a Node server in another process, over a Unix socket: what `SynapseRpc` is measured by. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as RpcClient from "effect/rpc/RpcClient"
import type { RpcClientError } from "effect/rpc/RpcClientError"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import { type Calls, type MakeContender, type Task, Unsupported } from "../harness/contender.ts"
import { type EffectCalls, runCalls, verifyCall } from "../harness/effectCalls.ts"
import { type Small, valuesOf } from "../harness/payloads.ts"
import { spawnServer } from "../harness/pythonChild.ts"
import { Group, serialization } from "./effectRpcGroup.ts"

class Client extends Context.Service<Client, RpcClient.RpcClient<RpcGroup.Rpcs<typeof Group>, RpcClientError>>()(
  "bench/Client"
) {}

/** `serialization`: `"ndjson"` or `"binary"`. */
export const make: MakeContender = async ({ serialization: format = "ndjson" }) => {
  const directory = mkdtempSync(join(tmpdir(), "synapse-bench-rpc-"))
  const path = join(directory, "socket")
  const script = fileURLToPath(new URL("./effectRpcServer.ts", import.meta.url))
  const server = await spawnServer(process.execPath, [script, path, String(format)])
  const live = Layer.effect(Client, RpcClient.make(Group, { disableTracing: true })).pipe(
    Layer.provide(RpcClient.layerProtocolSocket()),
    Layer.provide(serialization(String(format))),
    Layer.provide(NodeSocket.layerNet({ path }))
  )
  const runtime = ManagedRuntime.make(live)
  return {
    verify: (task) => runtime.runPromise(verifyCall(open(task))),
    run: (task) => {
      const calls = open(task)
      return runtime.runPromise(task.name === "calls" ? runCalls(calls, task) : runCalls(calls, once))
    },
    stop: async () => {
      await runtime.dispose()
      await server.stop()
      rmSync(directory, { recursive: true, force: true })
    }
  }
}

const once: Pick<Calls, "inFlight" | "millis"> = { inFlight: 1, millis: 0 }

const open = (task: Task): EffectCalls<Client> => {
  const isMeasured = task.name === "start" || (task.name === "calls" && task.payload.kind === "small")
  if (!isMeasured) throw new Unsupported("not measured")
  const values = valuesOf({ kind: "small" })
  return { values, call: (n) => Client.use((client) => client.echo(values.input(n) as Small)) }
}
