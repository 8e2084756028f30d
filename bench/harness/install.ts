/**
 * Installs what a folder's manifests name, into folders that git ignores: npm packages by its lock file, Python packages
 * into a virtual environment. Nothing is done again while the manifests are the same.
 */
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { delimiter, dirname, join } from "node:path"

const limitMillis = 5 * 60_000

/** Fails with the line of the output that says why. */
const run = (command: string, args: ReadonlyArray<string>, cwd: string): Promise<void> =>
  new Promise((resolve, reject) => {
    // npm runs with the Node that runs this, and so do the install scripts of what it installs.
    const env = { ...process.env, PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH ?? ""}` }
    const child = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"], timeout: limitMillis })
    let output = ""
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.on("error", reject)
    child.on("close", (code, signal) =>
      code === 0 ? resolve() : reject(new Error(signal === null ? reasonIn(output) : `${command} took too long`))
    )
  })

const reasonIn = (output: string): string => {
  const lines = output.split("\n").filter((line) => line.trim() !== "")
  return (
    lines.findLast((line) => /\berror\b/i.test(line) && !/log of this run/.test(line)) ??
    lines.at(-1) ??
    "failed"
  ).trim()
}

const digestOf = (files: ReadonlyArray<string>, salt: string): string => {
  const hash = createHash("sha256").update(salt)
  for (const file of files) hash.update(readFileSync(file))
  return hash.digest("hex")
}

/** Makes `target` with `build`, unless it is there and was made of the same. */
const unlessDone = async (target: string, digest: string, build: () => Promise<void>): Promise<void> => {
  const marker = join(target, ".bench-installed")
  if (existsSync(marker) && readFileSync(marker, "utf8") === digest) return
  rmSync(target, { recursive: true, force: true })
  await build()
  mkdirSync(target, { recursive: true })
  writeFileSync(marker, digest)
}

export const install = async (folder: string, python: string): Promise<void> => {
  const lock = join(folder, "package-lock.json")
  if (existsSync(lock)) {
    const digest = digestOf([join(folder, "package.json"), lock], process.version)
    await unlessDone(join(folder, "node_modules"), digest, () => run("npm", ["ci", "--no-audit", "--no-fund"], folder))
  }
  const requirements = join(folder, "requirements.txt")
  if (existsSync(requirements)) {
    const environment = join(folder, ".venv")
    await unlessDone(environment, digestOf([requirements], python), async () => {
      await run(python, ["-m", "venv", environment], folder)
      const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
      await run(join(environment, "bin", "python"), pip, folder)
    })
  }
}
