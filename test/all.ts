// The tests of both halves, at the same time: each waits for processes of its own more than it computes.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))

const run = async (command: string, ...args: ReadonlyArray<string>): Promise<boolean> => {
  const [code] = await once(spawn(command, args, { cwd: root, stdio: "inherit" }), "exit")
  return code === 0
}

const passed = await Promise.all([run("vitest", "run"), run("node", "test/python.ts", "test")])
if (passed.includes(false)) process.exitCode = 1
