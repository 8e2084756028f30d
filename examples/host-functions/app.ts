// Python that calls TypeScript. Run it with `npm run example host-functions`.
import { fileURLToPath } from "node:url"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Layer, Schema, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { HostFunctions, Synapse } from "effect-synapse"

const User = Schema.Struct({ id: Schema.Int, name: Schema.String })

class NoSuchUser extends Schema.TaggedError<NoSuchUser>()("NoSuchUser", { id: Schema.Int }) {}

// What Python may call: an ordinary RpcGroup.
const Users = RpcGroup.make(
  Rpc.make("lookupUser", { payload: { id: Schema.Int }, success: User, error: NoSuchUser }),
  Rpc.make("userIds", { success: Schema.Int, stream: true })
)

// A service of the app: host functions use it as everything else does.
class Database extends Context.Service<Database, ReadonlyMap<number, string>>()("app/Database") {
  static readonly layer = Layer.succeed(
    Database,
    new Map([
      [1, "Ada"],
      [2, "Alan"],
      [3, "Grace"]
    ])
  )
}

const host = HostFunctions.make(
  Users,
  Effect.gen(function* () {
    const database = yield* Database
    return Users.of({
      lookupUser: ({ id }) => {
        const name = database.get(id)
        return name === undefined ? Effect.fail(new NoSuchUser({ id })) : Effect.succeed({ id, name })
      },
      userIds: () => Stream.fromIterable(database.keys())
    })
  })
)

const PythonLive = Synapse.layer({ directory: fileURLToPath(new URL("./python", import.meta.url)), host }).pipe(
  Layer.provide(Database.layer)
)

const Strings = Schema.Array(Schema.String)

const program = Effect.gen(function* () {
  for (const line of yield* Synapse.call(Strings, { ids: [1, 2, 7] }, { method: "greet" })) yield* Console.log(line)
  yield* Console.log(`all of them: ${(yield* Synapse.call(Strings, {}, { method: "roster" })).join(", ")}`)
  yield* Console.log(`initials: ${yield* Synapse.call(Schema.String, { ids: [3, 2, 1] }, { method: "initials" })}`)

  yield* Synapse.call(User, { id: 9 }, { method: "strict" }).pipe(
    Effect.catchReason("SynapseError", "HandlerFailed", ({ error }) =>
      Console.log(`came back as it went: ${JSON.stringify(error)}`)
    )
  )
})

program.pipe(Effect.provide(PythonLive), NodeRuntime.runMain)
