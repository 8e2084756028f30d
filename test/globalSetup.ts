/**
 * What all tests share: one build, since examples, documents and the package use it at the same time, and one cache of
 * Python environments, since fixtures that need the same packages can.
 */
import { execFileSync } from "node:child_process"
import { fileURLToPath } from "node:url"

export default (): void => {
  execFileSync("npm", ["run", "-s", "build"], { cwd: fileURLToPath(new URL("..", import.meta.url)), stdio: "inherit" })
  process.env.SYNAPSE_CACHE_DIRECTORY ??= fileURLToPath(
    new URL("../node_modules/.cache/effect-synapse", import.meta.url)
  )
}
