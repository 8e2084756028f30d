/** node-calls-python: the interpreter inside Node's process, in a thread of libuv's pool, or blocking Node. */
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import type { MakeContender } from "../../harness/contender.ts"
import { makeContender } from "../../harness/promiseContender.ts"

interface Interpreter {
  readonly importSync: (path: string) => unknown
  readonly call: (module: unknown, name: string, ...args: ReadonlyArray<unknown>) => Promise<unknown>
  readonly callSync: (module: unknown, name: string, ...args: ReadonlyArray<unknown>) => unknown
}

const { interpreter } = createRequire(import.meta.url)("node-calls-python") as { readonly interpreter: Interpreter }

/** `sync`: whether calls block Node. */
export const make: MakeContender = async ({ sync = false }) => {
  const module = interpreter.importSync(fileURLToPath(new URL("./main.py", import.meta.url)))
  const call: (name: string, value: unknown) => unknown =
    sync === true
      ? (name, value) => interpreter.callSync(module, name, value)
      : (name, value) => interpreter.call(module, name, value)
  return makeContender(
    {
      value: async (value) => call("echo", value),
      bytes: async (data) => new Uint8Array((await call("echo", data)) as ArrayBuffer),
      array: async (data) => new Float64Array((await call("array", data)) as ArrayBuffer)
    },
    () => {}
  )
}
