/** JSON over HTTP with kept connections: undici's `Pool.request`, or the `fetch` that Node has built in. */
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import type { MakeContender } from "../../harness/contender.ts"
import { makeJsonContender } from "../../harness/jsonContender.ts"
import { peerPython, spawnServer } from "../../harness/pythonChild.ts"

interface Pool {
  readonly request: (options: Readonly<Record<string, unknown>>) => Promise<{
    readonly statusCode: number
    readonly body: { readonly json: () => Promise<unknown> }
  }>
  readonly close: () => Promise<void>
}

interface Undici {
  readonly Pool: new (origin: string, options: { readonly connections: number }) => Pool
}

const { Pool } = createRequire(import.meta.url)("undici") as Undici

const headers = { "content-type": "application/json" }

/** `client`: `"undici"` or `"fetch"`. */
export const make: MakeContender = async ({ client = "undici" }) => {
  const script = fileURLToPath(new URL("./server.py", import.meta.url))
  const server = await spawnServer(peerPython(import.meta.url), [script])
  const pool = new Pool(server.address, { connections: 64 })

  const request = async (message: unknown): Promise<unknown> => {
    const options = { path: "/", method: "POST", headers, body: JSON.stringify(message) }
    const { body, statusCode } = await pool.request(options)
    if (statusCode !== 200) throw new Error(`status ${statusCode}`)
    return body.json()
  }
  const fetched = async (message: unknown): Promise<unknown> => {
    const response = await fetch(server.address, { method: "POST", headers, body: JSON.stringify(message) })
    if (!response.ok) throw new Error(`status ${response.status}`)
    return response.json()
  }
  return makeJsonContender(client === "fetch" ? fetched : request, async () => {
    await server.stop()
    void pool.close().catch(() => {})
  })
}
