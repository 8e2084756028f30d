// Checks and tests of the Python runtime, with tools from an environment of their own: `node test/python.ts check|format|test`.
// `test` runs under every supported version of Python that is installed and says which are not: all cases under the first
// one, a part of the cases under the others.
import { spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { once } from "node:events"
import { existsSync, globSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
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
const uvVersion = "0.13.9"
const supported = ["3.10", "3.11", "3.12", "3.13", "3.14"]

class Failed extends Error {}

/** Runs a command to its end and gives what it printed; prints it when the command fails. */
const run = async (command: string, args: ReadonlyArray<string>): Promise<string> => {
  const env = {
    // What starts Node takes the one that runs this.
    SYNAPSE_NODE: process.execPath,
    // What is compiled is kept, by Node and by Python: thousands of processes import the same.
    NODE_COMPILE_CACHE: join(root, "../node_modules/.cache/compiled"),
    ...process.env,
    PYTHONDONTWRITEBYTECODE: undefined
  }
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

/** uv, in an environment of its own: it fills the others in a tenth of the time that pip takes. */
const makeUv = async (): Promise<string> => {
  const directory = join(root, ".venv", "uv")
  const marker = join(directory, "version")
  if (!existsSync(marker) || readFileSync(marker, "utf8") !== uvVersion) {
    rmSync(directory, { recursive: true, force: true })
    await run(found.get(first)!, ["-m", "venv", directory])
    const interpreter = join(directory, "bin", "python")
    await run(interpreter, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", `uv==${uvVersion}`])
    writeFileSync(marker, uvVersion)
  }
  return join(directory, "bin", "uv")
}

/** The environment with the tools, made again when its requirements change. Only the first one checks. */
const makeEnvironment = async (version: string, python: string): Promise<string> => {
  const directory = join(root, ".venv", version)
  const wanted = readFileSync(requirements, "utf8")
    .split("\n")
    .filter((line) => line !== "" && (version === first || !/^(mypy|ruff)==/.test(line)))
  const key = createHash("sha256").update(wanted.join("\n")).digest("hex")
  const marker = join(directory, "requirements.sha256")
  const interpreter = join(directory, "bin", "python")
  if (!existsSync(marker) || readFileSync(marker, "utf8") !== key) {
    rmSync(directory, { recursive: true, force: true })
    await run(python, ["-m", "venv", "--without-pip", directory])
    const uv = await madeOnce("uv", makeUv)
    await run(uv, ["pip", "install", "--quiet", "--python", interpreter, ...wanted])
    writeFileSync(marker, key)
  }
  return interpreter
}

const made = new Map<string, Promise<string>>()
/** What is made, once for all that ask for it at the same time. */
const madeOnce = (name: string, make: () => Promise<string>): Promise<string> => {
  const making = made.get(name) ?? make()
  made.set(name, making)
  return making
}
const environment = (version: string): Promise<string> =>
  madeOnce(version, () => makeEnvironment(version, found.get(version)!))

const ruffAndMypy = async (commands: ReadonlyArray<ReadonlyArray<string>>): Promise<void> => {
  const python = await environment(first)
  for (const command of commands) process.stdout.write(await run(python, ["-m", ...command]))
}

interface Part {
  readonly version: string
  /** Which half of the files; nothing for all of them. */
  readonly half?: 0 | 1
}

const test = async ({ half, version }: Part): Promise<void> => {
  if (!found.has(version)) return console.log(`Python ${version}: not installed here, not tested`)
  const fewer = version === first ? [] : ["--fewer"]
  const files = globSync("tests/test_*.py", { cwd: root }).sort()
  const chosen = half === undefined ? [] : files.filter((_, index) => index % 2 === half)
  const interpreter = await environment(version)
  const output = await run(interpreter, ["-m", "pytest", "-p", "no:cacheprovider", ...fewer, ...chosen])
  console.log(`Python ${version}${half === undefined ? "" : `, half ${half + 1} of the files`}\n${output}`)
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
    // All cases take longest: they begin first, in two halves.
    const left: Array<Part> = [
      { version: first, half: 0 },
      { version: first, half: 1 },
      ...supported.filter((version) => version !== first).map((version) => ({ version }))
    ]
    const worker = async (): Promise<void> => {
      for (let part = left.shift(); part !== undefined; part = left.shift()) await told(test(part))
    }
    // Two more than there are processors: half of the time they wait.
    await Promise.all(Array.from({ length: availableParallelism() + 2 }, worker))
    break
  }
  default:
    throw new Error("usage: node test/python.ts check|format|test")
}
