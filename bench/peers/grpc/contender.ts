/** gRPC over a Unix socket: `@grpc/grpc-js` here, grpcio there. Arrays travel as bytes, the least that it can do. */
import { mkdtempSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { type MakeContender, Unsupported } from "../../harness/contender.ts"
import { toBytes, toFloat64Array } from "../../harness/float64.ts"
import { makeContender } from "../../harness/promiseContender.ts"
import { peerPython, spawnServer } from "../../harness/pythonChild.ts"

type Unary = (message: unknown, done: (error: Error | null, reply: unknown) => void) => void

interface Client {
  readonly Value: Unary
  readonly Bytes: Unary
  readonly Array: Unary
  readonly close: () => void
}

interface Grpc {
  readonly credentials: { readonly createInsecure: () => unknown }
  readonly loadPackageDefinition: (definition: unknown) => {
    readonly bench: { readonly Echo: new (address: string, credentials: unknown, options: unknown) => Client }
  }
}

interface ProtoLoader {
  readonly loadSync: (file: string, options: { readonly defaults: boolean }) => unknown
}

const require = createRequire(import.meta.url)
const grpc = require("@grpc/grpc-js") as Grpc
const { loadSync } = require("@grpc/proto-loader") as ProtoLoader

const unlimited = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 }

export const make: MakeContender = async () => {
  const directory = mkdtempSync(join(tmpdir(), "synapse-bench-grpc-"))
  const script = fileURLToPath(new URL("./server.py", import.meta.url))
  const server = await spawnServer(peerPython(import.meta.url), [script, join(directory, "socket")])
  // A zero does not travel: it is what a field has that is not there.
  const definition = loadSync(fileURLToPath(new URL("./echo.proto", import.meta.url)), { defaults: true })
  const { Echo } = grpc.loadPackageDefinition(definition).bench
  const client = new Echo(server.address, grpc.credentials.createInsecure(), unlimited)
  const call = (method: "Value" | "Bytes" | "Array", message: unknown): Promise<unknown> =>
    new Promise((resolve, reject) => {
      client[method](message, (error, reply) => (error === null ? resolve(reply) : reject(error)))
    })
  const blob = async (method: "Bytes" | "Array", data: Uint8Array): Promise<Uint8Array> =>
    ((await call(method, { data })) as { readonly data: Uint8Array }).data

  return makeContender(
    {
      value: (value) => {
        if (typeof value !== "object" || value === null || !("n" in value)) throw new Unsupported("has no such message")
        return call("Value", value)
      },
      bytes: (data) => blob("Bytes", data),
      array: async (data) => toFloat64Array(await blob("Array", toBytes(data)))
    },
    async () => {
      client.close()
      await server.stop()
      rmSync(directory, { recursive: true, force: true })
    }
  )
}
