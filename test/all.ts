// Checks and tests of both halves, at the same time: each waits for processes of its own more than it computes.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))

const run = async (command: string, ...args: ReadonlyArray<string>): Promise<boolean> => {
  const [code] = await once(spawn(command, args, { cwd: root, stdio: "inherit" }), "exit")
  return code === 0
}

const isClean = async (): Promise<boolean> =>
  (await run("biome", "check", "--error-on-warnings")) && (await run("tsc", "-p", "."))

const passed =
  (await isClean()) &&
  (await Promise.all([
    run("vitest", "run"),
    run("node", "test/python.ts", "check").then((isClean) => isClean && run("node", "test/python.ts", "test"))
  ]).then((passed) => !passed.includes(false)))
if (!passed) process.exitCode = 1
