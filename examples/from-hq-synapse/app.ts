// The example of hq-synapse's document with another import, and its module as it is. `npm run example from-hq-synapse` runs it.
import { Synapse } from "effect-synapse/promise"

// Its paths are relative to where it is.
process.chdir(import.meta.dirname)

const synapseInstance = new Synapse()
await synapseInstance.spawn("./py_test_module", "main")

const result = await synapseInstance.call({ foo: "bar" })
console.log("🟢 Python response:", result)

await synapseInstance.dispose()
