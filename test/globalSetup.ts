/** One cache of Python environments for all tests: fixtures that need the same packages share one. */
import { fileURLToPath } from "node:url"

export default (): void => {
  process.env.SYNAPSE_CACHE_DIRECTORY ??= fileURLToPath(
    new URL("../node_modules/.cache/effect-synapse", import.meta.url)
  )
}
