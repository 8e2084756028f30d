/**
 * Who takes part. A contender is a module with a `make`, and settings for it; a peer has a folder of its own with its
 * manifests, and is installed when it is first asked for.
 */

export interface ContenderDefinition {
  readonly name: string
  readonly label: string
  /** Relative to this folder. */
  readonly module: string
  readonly settings?: Readonly<Record<string, unknown>> | undefined
  /** The folder in `peers/`. */
  readonly peer?: string | undefined
}

const synapse = "contenders/synapse.ts"

const peer = (name: string, label: string, folder = name, settings?: ContenderDefinition["settings"]) => ({
  name,
  label,
  module: `peers/${folder}/contender.ts`,
  peer: folder,
  settings
})

export const contenders: ReadonlyArray<ContenderDefinition> = [
  { name: "floor", label: "floor: raw bytes", module: "contenders/floor.ts" },
  { name: "synapse", label: "Synapse", module: synapse },
  { name: "synapse-no-polling", label: "Synapse, no polling", module: synapse, settings: { polling: false } },
  {
    name: "synapse-channel",
    label: "Synapse, all over the channel",
    module: synapse,
    settings: { sharedMemory: false }
  },
  {
    name: "synapse-in-place",
    label: "Synapse, arrays in place",
    module: synapse,
    settings: { sharedMemory: { inPlace: true } }
  },
  { name: "effect-rpc", label: "Effect RPC, Node server", module: "contenders/effectRpc.ts" },
  {
    name: "effect-rpc-binary",
    label: "Effect RPC, Node server, binary",
    module: "contenders/effectRpc.ts",
    settings: { serialization: "binary" }
  },
  { name: "synapse-rpc", label: "SynapseRpc", module: "contenders/synapseRpc.ts" },
  {
    name: "synapse-rpc-protocol",
    label: "Effect RPC, SynapseRpc's protocol",
    module: "contenders/synapseRpc.ts",
    settings: { protocol: true }
  },
  peer("hq-synapse", "hq-synapse's message format"),
  peer("python-shell", "python-shell"),
  peer("pythonia", "pythonia"),
  peer("node-calls-python", "node-calls-python, async"),
  peer("node-calls-python-sync", "node-calls-python, sync", "node-calls-python", { sync: true }),
  peer("zerorpc", "zerorpc"),
  peer("grpc", "grpc-js + grpcio"),
  peer("http-json", "HTTP/JSON, undici + uvicorn"),
  peer("http-json-fetch", "HTTP/JSON, fetch + uvicorn", "http-json", { client: "fetch" })
]

export const contenderNamed = (name: string): ContenderDefinition => {
  const found = contenders.find((contender) => contender.name === name)
  if (found === undefined) throw new Error(`no contender is called ${name}`)
  return found
}
