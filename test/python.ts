// Checks and tests of the Python runtime, with tools from an environment of their own: `node test/python.ts check|format|test`.
// `test` runs under every supported version of Python that is installed and says which are not: all cases under the first
// one, a part of the cases under the others.
import { spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { once } from "node:events"
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { availableParallelism, homedir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../python/", import.meta.url))
const requirements = join(root, "dev-requirements.txt")
/** Modules made of a contract, with what implements them. */
const stubs = "../test/fixtures/contract"
const stubModules = [
  "--config-file",
  "pyproject.toml",
  "--follow-imports",
  "silent",
  `${stubs}/contract.py`,
  `${stubs}/layout.py`,
  `${stubs}/main.py`
]
const supported = ["3.10", "3.11", "3.12", "3.13", "3.14"]

class Failed extends Error {}

/** Runs a command to its end and gives what it printed; prints it when the command fails. */
const run = async (command: string, args: ReadonlyArray<string>): Promise<string> => {
  // What starts Node takes the one that runs this.
  const env = { SYNAPSE_NODE: process.execPath, ...process.env }
  const child = spawn(command, args, { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] })
  const chunks: Array<Buffer> = []
  child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk))
  child.stderr.on("data", (chunk: Buffer) => chunks.push(chunk))
  const [status] = await once(child, "close")
  const output = Buffer.concat(chunks).toString()
  if (status === 0) return output
  process.stdout.write(output)
  throw new Failed(`${command} ${args.join(" ")}`)
}

/** Says when it fails. What runs beside it goes on all the same: nothing would end it. */
const told = async (running: Promise<void>): Promise<void> => {
  try {
    await running
  } catch (error) {
    if (!(error instanceof Failed)) throw error
    console.log(`failed: ${error.message}`)
    process.exitCode = 1
  }
}

const versionOf = (python: string): string | undefined => {
  const { status, stdout } = spawnSync(python, ["-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], {
    encoding: "utf8"
  })
  return status === 0 ? stdout.trim() : undefined
}

/** Interpreters by version: what the path has, and what pyenv has installed. */
const interpreters = (): ReadonlyMap<string, string> => {
  const pyenv = join(process.env.PYENV_ROOT ?? join(homedir(), ".pyenv"), "versions")
  const candidates = [
    "python3",
    ...(existsSync(pyenv) ? readdirSync(pyenv).map((version) => join(pyenv, version, "bin", "python3")) : []),
    ...[supported[0]!, supported.at(-1)!].map((version) => `python${version}`)
  ]
  const found = new Map<string, string>()
  for (const candidate of candidates) {
    const version = versionOf(candidate)
    if (version !== undefined && supported.includes(version) && !found.has(version)) found.set(version, candidate)
  }
  return found
}

const found = interpreters()
const [first] = found.keys()
if (first === undefined) throw new Error(`no Python of the versions ${supported.join(", ")} was found`)

/** The environment with the tools, made again when its requirements change. Only the first one checks. */
const environment = async (version: string, python: string): Promise<string> => {
  const directory = join(root, ".venv", version)
  const wanted = readFileSync(requirements, "utf8")
    .split("\n")
    .filter((line) => line !== "" && (version === first || !/^(mypy|ruff)==/.test(line)))
  const key = createHash("sha256").update(wanted.join("\n")).digest("hex")
  const marker = join(directory, "requirements.sha256")
  const interpreter = join(directory, "bin", "python")
  if (!existsSync(marker) || readFileSync(marker, "utf8") !== key) {
    rmSync(directory, { recursive: true, force: true })
    await run(python, ["-m", "venv", directory])
    await run(interpreter, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...wanted])
    writeFileSync(marker, key)
  }
  return interpreter
}

const ruffAndMypy = async (commands: ReadonlyArray<ReadonlyArray<string>>): Promise<void> => {
  const python = await environment(first, found.get(first)!)
  for (const command of commands) process.stdout.write(await run(python, ["-m", ...command]))
}

const test = async (version: string): Promise<void> => {
  const python = found.get(version)
  if (python === undefined) return console.log(`Python ${version}: not installed here, not tested`)
  const fewer = version === first ? [] : ["--fewer"]
  const output = await run(await environment(version, python), ["-m", "pytest", "-p", "no:cacheprovider", ...fewer])
  console.log(`Python ${version}\n${output}`)
}

switch (process.argv[2]) {
  case "check":
    await told(
      ruffAndMypy([
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy", "--strict", "src"],
        // What is made of contracts is clean under the defaults of others, and under the oldest and the newest Python.
        ["ruff", "format", "--isolated", "--check", stubs],
        ["ruff", "check", "--isolated", "--config", `src = ["${stubs}"]`, stubs],
        ...[supported[0]!, supported.at(-1)!].map((version) => [
          "mypy",
          "--strict",
          "--python-version",
          version,
          ...stubModules
        ])
      ])
    )
    break
  case "format":
    await told(
      ruffAndMypy([
        ["ruff", "check", "--fix", "."],
        ["ruff", "format", "."]
      ])
    )
    break
  case "test": {
    const left = [...supported]
    const worker = async (): Promise<void> => {
      for (let version = left.shift(); version !== undefined; version = left.shift()) await told(test(version))
    }
    await Promise.all(Array.from({ length: Math.max(2, availableParallelism()) }, worker))
    break
  }
  default:
    throw new Error("usage: node test/python.ts check|format|test")
}
