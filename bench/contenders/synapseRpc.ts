/** An RPC group that Python serves, through `SynapseRpc`. `protocol`: Effect's own client over it, instead of the direct one. */
import { fileURLToPath } from "node:url"
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as RpcClient from "effect/rpc/RpcClient"
import type { RpcClientError } from "effect/rpc/RpcClientError"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import * as Synapse from "../../src/Synapse.ts"
import type { SynapseError } from "../../src/SynapseError.ts"
import * as SynapseRpc from "../../src/SynapseRpc.ts"
import { type Calls, type MakeContender, type Task, Unsupported } from "../harness/contender.ts"
import { type EffectCalls, runCalls, verifyCall } from "../harness/effectCalls.ts"
import { type Small, valuesOf } from "../harness/payloads.ts"
import { Group } from "./effectRpcGroup.ts"

type RpcsClient = RpcClient.RpcClient<RpcGroup.Rpcs<typeof Group>, SynapseError | RpcClientError>

class Client extends Context.Service<Client, RpcsClient>()("bench/Client") {}

const direct = Layer.effect(Client, SynapseRpc.client(Group, { disableTracing: true }))
const overProtocol = Layer.effect(Client, RpcClient.make(Group, { disableTracing: true })).pipe(
  Layer.provide(SynapseRpc.layerProtocol)
)

export const make: MakeContender = async ({ protocol = false }) => {
  const directory = fileURLToPath(new URL("../python", import.meta.url))
  const python = Synapse.layer({ directory })
  const runtime = ManagedRuntime.make(Layer.provide(protocol === true ? overProtocol : direct, python))
  await runtime.runPromise(Client)
  return {
    verify: (task) => runtime.runPromise(verifyCall(open(task))),
    run: (task) => {
      const calls = open(task)
      return runtime.runPromise(task.name === "calls" ? runCalls(calls, task) : runCalls(calls, once))
    },
    stop: () => runtime.dispose()
  }
}

const once: Pick<Calls, "inFlight" | "millis"> = { inFlight: 1, millis: 0 }

const open = (task: Task): EffectCalls<Client> => {
  const isMeasured = task.name === "start" || (task.name === "calls" && task.payload.kind === "small")
  if (!isMeasured) throw new Unsupported("not measured")
  const values = valuesOf({ kind: "small" })
  return { values, call: (n) => Client.use((client) => client.echo(values.input(n) as Small)) }
}
