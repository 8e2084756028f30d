// Handwritten digits: Python trains a model once, TypeScript asks it. Run it with `npm start`.
import { fileURLToPath } from "node:url"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schema } from "effect"
import { Synapse } from "effect-synapse"

const PythonLive = Synapse.layer({ directory: fileURLToPath(new URL("./python", import.meta.url)) })

const Scan = Schema.Struct({ pixels: Schema.Array(Schema.Finite), label: Schema.Int })

/** Each pixel, from 0 to 16, as a character twice as high as wide. */
const draw = (pixels: ReadonlyArray<number>): ReadonlyArray<string> =>
  Array.from({ length: 8 }, (_, row) =>
    pixels
      .slice(row * 8, row * 8 + 8)
      .map((ink) => " .:-=+*#@"[Math.floor(ink / 2)]!.repeat(2))
      .join("")
  )

const recognise = (pixels: ReadonlyArray<number>) => Synapse.call(Schema.Int, { pixels }, { method: "recognise" })

const program = Effect.gen(function* () {
  const scans = yield* Synapse.call(Schema.Array(Scan), { count: 4 }, { method: "held_out" })
  const recognised = yield* Effect.forEach(scans, (scan) => recognise(scan.pixels), { concurrency: "unbounded" })

  const pictures = scans.map((scan) => draw(scan.pixels))
  for (let row = 0; row < 8; row++) yield* Console.log(pictures.map((picture) => picture[row]).join("   "))
  yield* Console.log(recognised.map((digit) => `recognised: ${digit}`.padEnd(19)).join(""))

  const accuracy = yield* Synapse.call(Schema.Finite, {}, { method: "accuracy" })
  yield* Console.log(`\n${(accuracy * 100).toFixed(1)} % of the held-out scans are recognised`)

  // A scan of the wrong size: Python raises an error that it declared, TypeScript handles it by name.
  yield* recognise([1, 2, 3]).pipe(
    Effect.catchReason("SynapseError", "HandlerFailed", (reason) =>
      Console.log(`Refused as it should be: ${reason.message}`)
    )
  )
})

program.pipe(Effect.provide(PythonLive), NodeRuntime.runMain)
