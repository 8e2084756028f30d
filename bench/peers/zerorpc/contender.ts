/** zerorpc over a Unix socket. Arrays travel as bytes. */
import { mkdtempSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { MakeContender } from "../../harness/contender.ts"
import { toBytes, toFloat64Array } from "../../harness/float64.ts"
import { makeContender } from "../../harness/promiseContender.ts"
import { peerPython, spawnServer } from "../../harness/pythonChild.ts"

interface Client {
  readonly connect: (address: string) => void
  readonly invoke: (
    method: string,
    value: unknown,
    done: (error: unknown, reply: unknown, more: boolean) => void
  ) => void
  readonly close: () => void
}

interface Zerorpc {
  readonly Client: new (options: { readonly heartbeatInterval: number; readonly timeout: number }) => Client
}

const { Client } = createRequire(import.meta.url)("zerorpc") as Zerorpc

export const make: MakeContender = async () => {
  const directory = mkdtempSync(join(tmpdir(), "synapse-bench-zerorpc-"))
  const script = fileURLToPath(new URL("./server.py", import.meta.url))
  const server = await spawnServer(peerPython(import.meta.url), [script, `ipc://${join(directory, "socket")}`])
  const client = new Client({ heartbeatInterval: 30_000, timeout: 60 })
  client.connect(server.address)
  const call = (method: "value" | "array", value: unknown): Promise<unknown> =>
    new Promise((resolve, reject) => {
      client.invoke(method, value, (error, reply) => {
        if (error === null || error === undefined) resolve(reply)
        else reject(error instanceof Error ? error : new Error(String(error)))
      })
    })
  return makeContender(
    {
      value: (value) => call("value", value),
      bytes: (data) => call("value", data) as Promise<Uint8Array>,
      array: async (data) => toFloat64Array((await call("array", toBytes(data))) as Uint8Array)
    },
    async () => {
      await server.stop()
      rmSync(directory, { recursive: true, force: true })
    }
  )
}
