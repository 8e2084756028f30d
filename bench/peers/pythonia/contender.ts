/**
 * pythonia. A result is a handle to an object in Python, whose value is a second request; strings come back as they are.
 * Its fast mode is on: without it, each result is described in text as well.
 */
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import type { MakeContender } from "../../harness/contender.ts"
import { makeContender } from "../../harness/promiseContender.ts"
import { basePython } from "../../harness/pythonChild.ts"

interface Handle {
  readonly valueOf: () => Promise<unknown>
}

interface Module {
  readonly echo: (value: unknown) => Promise<Handle>
  readonly from_base64: (text: string) => Promise<string>
}

interface Pythonia {
  readonly python: ((path: string) => Promise<Module>) & {
    readonly exit: () => void
    readonly setFastMode: (fast: boolean) => void
  }
}

export const make: MakeContender = async () => {
  // It starts Python as soon as it is loaded.
  process.env.PYTHON_BIN = basePython()
  const { python } = createRequire(import.meta.url)("pythonia") as Pythonia
  python.setFastMode(true)
  const module = await python(fileURLToPath(new URL("./main.py", import.meta.url)))
  const value = async (value: unknown): Promise<unknown> => (await module.echo(value)).valueOf()
  return makeContender(
    {
      value,
      bytes: async (data) => {
        const text = Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64")
        return Buffer.from(await module.from_base64(text), "base64")
      },
      array: async (data) => Float64Array.from((await value(Array.from(data))) as ReadonlyArray<number>)
    },
    () => python.exit()
  )
}
