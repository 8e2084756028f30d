/**
 * What all tests share: one build, since examples, documents and the package use it at the same time, one cache of
 * Python environments, since fixtures that need the same packages can, and one of compiled code, since a hundred programs
 * import the same modules.
 */
import { execFileSync } from "node:child_process"
import { fileURLToPath } from "node:url"

export default (): void => {
  execFileSync("npm", ["run", "-s", "build"], { cwd: fileURLToPath(new URL("..", import.meta.url)), stdio: "inherit" })
  process.env.NODE_COMPILE_CACHE ??= fileURLToPath(new URL("../node_modules/.cache/compiled", import.meta.url))
  process.env.SYNAPSE_CACHE_DIRECTORY ??= fileURLToPath(
    new URL("../node_modules/.cache/effect-synapse", import.meta.url)
  )
}
