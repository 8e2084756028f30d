/** Which protocol a module speaks, by the text of its sources. Nothing of it is run. */
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import type { Protocol } from "../Synapse.ts"

const importsSynapse =
  /^[ \t]*(?:import[ \t]+(?:[\w., \t]+,[ \t]*)?synapse\b|from[ \t]+synapse(?:\.\w+)*[ \t]+import\b)/m
const readsStdin = /\bstdin\b/
const sendsLines = /\b__STREAM__/

const read = (file: string): string => {
  try {
    return readFileSync(file, "utf8")
  } catch {
    return ""
  }
}

/**
 * A file that imports `synapse` is a module of ours, one that mentions `stdin` is a script, of lines where it has their
 * prefix. The entrypoint decides, and where it says neither, the files beside it do.
 */
export const detectProtocol = (directory: string, file: string): Protocol | undefined => {
  // Theirs, by chance of the same name.
  const isOurs = !existsSync(join(directory, "synapse.py")) && !existsSync(join(directory, "synapse"))
  const protocolOf = (sources: ReadonlyArray<string>): "native" | Protocol | undefined => {
    if (isOurs && sources.some((source) => importsSynapse.test(source))) return "native"
    if (!sources.some((source) => readsStdin.test(source))) return undefined
    return sources.some((source) => sendsLines.test(source)) ? "json-lines" : "stdio-v1"
  }
  const beside = () => readdirSync(directory).filter((name) => name.endsWith(".py"))
  const found =
    protocolOf([read(join(directory, file))]) ?? protocolOf(beside().map((name) => read(join(directory, name))))
  return found === "native" ? undefined : found
}
