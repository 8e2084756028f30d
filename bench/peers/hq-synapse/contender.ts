/**
 * The message format of hq-synapse, by a client of our own: the package itself is in no registry. It does as that one did:
 * one call at a time, the others in a queue, and every chunk appended to all that has come.
 */
import { createRequire } from "node:module"
import type { Readable, Writable } from "node:stream"
import { fileURLToPath } from "node:url"
import type { MakeContender } from "../../harness/contender.ts"
import { toBytes, toFloat64Array } from "../../harness/float64.ts"
import { makeContender } from "../../harness/promiseContender.ts"
import { peerPython, spawnPython, stopChild } from "../../harness/pythonChild.ts"

interface MessagePack {
  readonly encode: (value: unknown) => Uint8Array
  readonly decode: (bytes: Uint8Array) => unknown
}

const { decode, encode } = createRequire(import.meta.url)("@msgpack/msgpack") as MessagePack

interface Waiting {
  readonly input: unknown
  readonly resolve: (reply: unknown) => void
}

const makeClient = (stdin: Writable, stdout: Readable) => {
  const queue: Array<Waiting> = []
  let isBusy = false
  let buffer = Buffer.alloc(0)

  const next = (): void => {
    const first = queue[0]
    if (isBusy || first === undefined) return
    isBusy = true
    const body = encode(first.input)
    const length = Buffer.alloc(4)
    length.writeUInt32LE(body.length)
    stdin.write(Buffer.concat([length, body]))
  }
  stdout.on("data", (chunk: Buffer) => {
    buffer = Buffer.concat([buffer, chunk])
    while (buffer.length >= 4 && buffer.length >= 4 + buffer.readUInt32LE(0)) {
      const end = 4 + buffer.readUInt32LE(0)
      const reply = decode(buffer.subarray(4, end))
      buffer = buffer.subarray(end)
      isBusy = false
      queue.shift()?.resolve(reply)
      next()
    }
  })
  return (input: unknown): Promise<unknown> =>
    new Promise((resolve) => {
      queue.push({ input, resolve })
      next()
    })
}

export const make: MakeContender = async () => {
  const script = fileURLToPath(new URL("./main.py", import.meta.url))
  const child = spawnPython(peerPython(import.meta.url), [script], ["pipe", "pipe", "inherit"])
  const call = makeClient(child.stdin as Writable, child.stdout as Readable)
  return makeContender(
    {
      value: call,
      bytes: (data) => call(data) as Promise<Uint8Array>,
      array: async (data) => {
        const { array } = (await call({ array: toBytes(data) })) as { readonly array: Uint8Array }
        return toFloat64Array(array)
      }
    },
    () => stopChild(child)
  )
}
