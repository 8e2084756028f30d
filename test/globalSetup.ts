/**
 * What all tests share: one build, since examples, documents and the package use it at the same time, one cache of
 * Python environments, since fixtures that need the same packages can, and one of compiled code, since a hundred programs
 * import the same modules.
 */
import { execFileSync } from "node:child_process"
import { homedir } from "node:os"
import { delimiter, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

/** The path with Python itself in the place of pyenv's scripts, each of which starts forty processes before it. */
const withoutShims = (path: string): string => {
  const shims = join(process.env.PYENV_ROOT ?? join(homedir(), ".pyenv"), "shims")
  const directories = path.split(delimiter)
  if (!directories.includes(shims)) return path
  const python = execFileSync("python3", ["-I", "-c", "import sys; print(sys.executable)"], { encoding: "utf8" }).trim()
  return directories.map((directory) => (directory === shims ? dirname(python) : directory)).join(delimiter)
}

export default (): void => {
  // `npm test` has just built.
  if (process.env.npm_lifecycle_event !== "test") {
    execFileSync("npm", ["run", "-s", "build"], {
      cwd: fileURLToPath(new URL("..", import.meta.url)),
      stdio: "inherit"
    })
  }
  process.env.PATH = withoutShims(process.env.PATH ?? "")
  process.env.NODE_COMPILE_CACHE ??= fileURLToPath(new URL("../node_modules/.cache/compiled", import.meta.url))
  process.env.SYNAPSE_CACHE_DIRECTORY ??= fileURLToPath(
    new URL("../node_modules/.cache/effect-synapse", import.meta.url)
  )
}
