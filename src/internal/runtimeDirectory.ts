import { fileURLToPath } from "node:url"

/** Where the Python package that ships with this one lies; the same place seen from `src` and from `dist`. */
export const runtimeDirectory: string = fileURLToPath(new URL("../../python/src/synapse", import.meta.url))
