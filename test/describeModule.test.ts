/** Asking a module for its contract. */
import { readdirSync, readFileSync } from "node:fs"
import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { Synapse, type SynapseError } from "effect-synapse"
import { describeModule } from "../src/internal/describeModule.ts"
import * as modules from "./fixtures/modules.ts"

/** The processes that this one has started. */
const children = (): ReadonlyArray<string> =>
  readdirSync("/proc/self/task").flatMap((task) =>
    readFileSync(`/proc/self/task/${task}/children`, "utf8").split(" ").filter(Boolean)
  )

layer(NodeServices.layer)("describeModule", (it) => {
  it.effect("gives the contract of the module, and leaves no process behind", () =>
    Effect.gen(function* () {
      const before = children()
      const contract = yield* describeModule(modules.python)
      assert.strictEqual(contract.version, 1)
      assert.isDefined(contract.methods.main)
      assert.deepStrictEqual(children(), before)
    })
  )

  it.effect("takes the entrypoint as a layer does", () =>
    Effect.gen(function* () {
      const contract = yield* describeModule({ ...modules.python, entrypoint: "package/inner.py" })
      assert.isAbove(Object.keys(contract.methods).length, 0)
      const missing = yield* Effect.flip(describeModule({ ...modules.python, entrypoint: "missing" }))
      assert.strictEqual(missing.reason._tag, "ModuleNotFound")
    })
  )

  it.effect("fails as a layer does where the module does not import", () =>
    Effect.gen(function* () {
      const options = { ...modules.broken, entrypoint: "missing_import" }
      const before = children()
      const described = yield* Effect.flip(describeModule(options))
      const layered = yield* Effect.flip(Effect.provide(Synapse.Synapse, Synapse.layer(options)))
      assert.strictEqual(described.reason._tag, "StartFailed")
      assert.deepStrictEqual(withoutStderr(described), withoutStderr(layered as SynapseError.SynapseError))
      assert.deepStrictEqual(children(), before)
    })
  )

  it.effect("refuses an option with a value that it cannot have", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(describeModule({ ...modules.python, startTimeout: -1 }))
      assert.include(error.reason, { _tag: "StartFailed", kind: "options" })
    })
  )
})

const withoutStderr = ({ reason }: SynapseError.SynapseError): unknown => ({ ...reason, stderr: "" })
