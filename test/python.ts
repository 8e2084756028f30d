// Checks and tests of the Python runtime, with tools from an environment of their own: `node test/python.ts check|format|test`.
// `test` runs under every supported version of Python that is installed and says which are not.
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { homedir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../python/", import.meta.url))
const requirements = join(root, "dev-requirements.txt")
const supported = ["3.10", "3.11", "3.12", "3.13", "3.14"]

const run = (command: string, args: ReadonlyArray<string>): void => {
  const { error, status } = spawnSync(command, args, { cwd: root, stdio: "inherit" })
  if (error !== undefined) throw error
  if (status !== 0) process.exit(status ?? 1)
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
    ...supported.map((version) => `python${version}`)
  ]
  const found = new Map<string, string>()
  for (const candidate of candidates) {
    const version = versionOf(candidate)
    if (version !== undefined && supported.includes(version) && !found.has(version)) found.set(version, candidate)
  }
  return found
}

/** The environment with the tools, made again when its requirements change. */
const environment = (version: string, python: string): string => {
  const directory = join(root, ".venv", version)
  const key = createHash("sha256").update(readFileSync(requirements)).digest("hex")
  const marker = join(directory, "requirements.sha256")
  const interpreter = join(directory, "bin", "python")
  if (!existsSync(marker) || readFileSync(marker, "utf8") !== key) {
    rmSync(directory, { recursive: true, force: true })
    run(python, ["-m", "venv", directory])
    run(interpreter, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements])
    writeFileSync(marker, key)
  }
  return interpreter
}

const found = interpreters()
const [first] = found
if (first === undefined) throw new Error(`no Python of the versions ${supported.join(", ")} was found`)

switch (process.argv[2]) {
  case "check": {
    const python = environment(...first)
    run(python, ["-m", "ruff", "format", "--check", "."])
    run(python, ["-m", "ruff", "check", "."])
    run(python, ["-m", "mypy", "--strict", "src"])
    break
  }
  case "format": {
    const python = environment(...first)
    run(python, ["-m", "ruff", "check", "--fix", "."])
    run(python, ["-m", "ruff", "format", "."])
    break
  }
  case "test": {
    for (const version of supported) {
      const python = found.get(version)
      if (python === undefined) console.log(`Python ${version}: not installed here, not tested`)
      else {
        console.log(`Python ${version}`)
        run(environment(version, python), ["-m", "pytest", "-q", "-p", "no:cacheprovider"])
      }
    }
    break
  }
  default:
    throw new Error("usage: node test/python.ts check|format|test")
}
