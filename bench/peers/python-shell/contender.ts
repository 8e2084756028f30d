/** python-shell in its `json` mode: a line is a message, and answers come in the order of the questions. */
import { once } from "node:events"
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import type { MakeContender } from "../../harness/contender.ts"
import { makeJsonContender } from "../../harness/jsonContender.ts"
import { basePython } from "../../harness/pythonChild.ts"

interface Shell extends NodeJS.EventEmitter {
  readonly send: (message: unknown) => void
  readonly terminate: (signal: NodeJS.Signals) => void
}

interface PythonShellPackage {
  readonly PythonShell: new (script: string, options: Readonly<Record<string, unknown>>) => Shell
}

const { PythonShell } = createRequire(import.meta.url)("python-shell") as PythonShellPackage

export const make: MakeContender = async () => {
  const script = fileURLToPath(new URL("./main.py", import.meta.url))
  const shell = new PythonShell(script, { mode: "json", pythonPath: basePython() })
  const waiting: Array<(reply: unknown) => void> = []
  shell.on("message", (reply) => waiting.shift()?.(reply))
  const call = (message: unknown): Promise<unknown> =>
    new Promise((resolve) => {
      waiting.push(resolve)
      shell.send(message)
    })
  return makeJsonContender(call, async () => {
    const closed = once(shell, "close")
    shell.terminate("SIGKILL")
    await closed.catch(() => {})
  })
}
