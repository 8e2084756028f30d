/** Where it was measured. */
import { spawnSync } from "node:child_process"
import { cpus, release, totalmem, type } from "node:os"

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGb: number
  readonly kernel: string
  readonly node: string
  readonly python: string
}

export interface Interpreter {
  /** The executable itself, behind shims and links. */
  readonly path: string
  readonly version: string
}

/** `SYNAPSE_PYTHON` where it is set, else what `python3` is. */
export const findPython = (): Interpreter => {
  const command = process.env.SYNAPSE_PYTHON ?? "python3"
  const code = "import os, platform, sys; print(os.path.realpath(sys.executable)); print(platform.python_version())"
  const { error, status, stdout } = spawnSync(command, ["-I", "-c", code], { encoding: "utf8" })
  if (error !== undefined || status !== 0) throw new Error(`${command} does not run: set SYNAPSE_PYTHON`)
  const [path = "", version = ""] = stdout.trim().split("\n")
  return { path, version }
}

export const describeMachine = (python: Interpreter): Machine => {
  const processors = cpus()
  return {
    cpu: processors[0]?.model.trim() ?? "unknown",
    cores: processors.length,
    memoryGb: Math.round(totalmem() / 1e9),
    kernel: `${type()} ${release()}`,
    node: process.versions.node,
    python: python.version
  }
}
