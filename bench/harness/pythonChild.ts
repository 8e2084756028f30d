/** Starting the Python that a contender talks to, for contenders that do so themselves. */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import type { Readable } from "node:stream"
import { fileURLToPath } from "node:url"

/** The interpreter that all contenders use: peers through a virtual environment made with it. */
export const basePython = (): string => process.env.BENCH_PYTHON ?? "python3"

export const spawnPython = (
  python: string,
  args: ReadonlyArray<string>,
  stdio: NonNullable<SpawnOptions["stdio"]>
): ChildProcess => spawn(python, args, { stdio })

/** A server that says in its first line that it is ready, and where; it ends when its standard input does. */
export const spawnServer = async (python: string, args: ReadonlyArray<string>) => {
  const child = spawnPython(python, args, ["pipe", "pipe", "inherit"])
  const lines = createInterface({ input: child.stdout as Readable })
  const exit = once(child, "exit").then(([code]) => {
    throw new Error(`the server ended with code ${code}`)
  })
  const [line] = (await Promise.race([once(lines, "line"), exit])) as [string]
  exit.catch(() => {})
  return { address: line, stop: () => stopChild(child) }
}

export const stopChild = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill("SIGKILL")
  await once(child, "exit")
}

/** The interpreter of a peer's virtual environment; `here` is the address of the peer's module. */
export const peerPython = (here: string): string => fileURLToPath(new URL(".venv/bin/python", here))
