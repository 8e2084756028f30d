/** The server of the reference: `node effectRpcServer.ts SOCKET SERIALIZATION`. It ends when its standard input does. */
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as RpcServer from "effect/rpc/RpcServer"
import { Group, serialization } from "./effectRpcGroup.ts"

const [path = "", name = ""] = process.argv.slice(2)

const server = RpcServer.layer(Group, { disableTracing: true }).pipe(
  Layer.provide(Group.toLayer({ echo: Effect.succeed })),
  Layer.provide(RpcServer.layerProtocolSocketServer),
  Layer.provide(serialization(name)),
  Layer.provide(NodeSocketServer.layer({ path }))
)

process.stdin.resume().on("end", () => process.exit(0))
const ready = Effect.sync(() => console.log(path))
Effect.runFork(Effect.scoped(Effect.andThen(Effect.andThen(Layer.build(server), ready), Effect.never)))
