// Types that are written once, on the side that has them. Run it with `npm run example typed-contract`.
//
// Two files of this example are generated, and kept up to date (`--check` in CI, `--watch` while you work):
//   npx effect-synapse generate examples/typed-contract/python -o examples/typed-contract/python.gen.ts
//   npx effect-synapse stubs examples/typed-contract/host.ts -o examples/typed-contract/python/host.py --host Bank
import { fileURLToPath } from "node:url"
import { NodeRuntime } from "@effect/platform-node"
import { BigDecimal, Console, Effect, Schema, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { HostFunctions, Synapse, SynapseRpc } from "effect-synapse"
import { Bank, UnknownCurrency } from "./host.ts"
import { Parcel, Pickup, Python } from "./python.gen.ts"

const directory = fileURLToPath(new URL("./python", import.meta.url))

const rates = new Map([["SEK", "11.25"]])

const host = HostFunctions.make(Bank, {
  exchangeRate: ({ currency }) => {
    const rate = rates.get(currency)
    return rate === undefined
      ? Effect.fail(new UnknownCurrency({ currency }))
      : Effect.succeed(BigDecimal.fromStringUnsafe(rate))
  }
})

// The module is compared with the group before the first call.
const PythonLive = Synapse.layer({ directory, host, group: Python })

const program = Effect.gen(function* () {
  const python = yield* SynapseRpc.client(Python)

  // `count` and `currency` have defaults in Python; `Parcel` and `Pickup` are told apart by their tag.
  const parcel = Parcel.make({ street: "Storgatan 1" })
  const order = yield* python.quote({ lines: [{ product: "tea", count: 2 }, { product: "cup" }], delivery: parcel })
  yield* Console.log(`${BigDecimal.format(order.total)} ${order.currency}, ${order.notes.join(", ")}`)

  const pickup = Pickup.make({ shop: "Stockholm" })
  const abroad = yield* python.quote({ lines: [{ product: "tea" }], delivery: pickup, currency: "SEK" })
  yield* Console.log(`${BigDecimal.format(abroad.total)} ${abroad.currency}`)

  // A declared error is in the error channel, as its class.
  yield* python
    .quote({ lines: [{ product: "cup", count: 7 }], delivery: pickup })
    .pipe(Effect.catchTag("OutOfStock", ({ left, product }) => Console.log(`only ${left} of ${product} left`)))

  // What does not fit is refused before it is sent, with its place.
  yield* python
    .quote({ lines: [{ product: "tea", count: 0 }], delivery: pickup })
    .pipe(Effect.catchReason("SynapseError", "EncodeFailed", ({ message }) => Console.log(message)))

  const steps = python.track({ order: 1 })
  yield* Stream.runForEach(steps, (step) => Console.log(`the order is ${step}`))
})

// A group that Python does not keep: the layer fails, and says why.
const Older = RpcGroup.make(Rpc.make("track", { payload: { order: Schema.String }, success: Schema.Int, stream: true }))

const drifted = Effect.void.pipe(
  Effect.provide(Synapse.layer({ directory, host, group: Older, logs: "ignore" })),
  Effect.catchReason("SynapseError", "StartFailed", ({ detail }) => Console.log(detail))
)

program.pipe(Effect.scoped, Effect.provide(PythonLive), Effect.andThen(drifted), NodeRuntime.runMain)
