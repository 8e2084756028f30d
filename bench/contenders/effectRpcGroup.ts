/** What the two ends of the reference agree on. */
import type * as Layer from "effect/Layer"
import * as Rpc from "effect/rpc/Rpc"
import * as RpcGroup from "effect/rpc/RpcGroup"
import * as RpcSerialization from "effect/rpc/RpcSerialization"
import * as Schema from "effect/Schema"

const Small = Schema.Struct({ n: Schema.Int, name: Schema.String })

export class Group extends RpcGroup.make(Rpc.make("echo", { payload: Small, success: Small })) {}

export const serialization = (name: string): Layer.Layer<RpcSerialization.RpcSerialization> =>
  name === "binary" ? RpcSerialization.layerSchemaBinary() : RpcSerialization.layerNdjson
