#!/usr/bin/env node
/**
 * The command `effect-synapse`.
 *
 * Nothing is imported before the version of Node is known: an older one would stop at the syntax of what is.
 *
 * @since 0.1.0
 */
import { readFileSync } from "node:fs"

/** The least version of Node that `package.json` names. */
const needed = (): string => {
  const { engines } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
    readonly engines: { readonly node: string }
  }
  return engines.node.replace(/^[^\d]*/, "")
}

const isOlder = (version: string, than: string): boolean => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  const [leastMajor = 0, leastMinor = 0] = than.split(".").map(Number)
  return major < leastMajor || (major === leastMajor && minor < leastMinor)
}

const least = needed()
if (isOlder(process.versions.node, least)) {
  process.stderr.write(
    `effect-synapse needs Node ${least} or later, and this is Node ${process.versions.node}. ` +
      "Install a newer one: https://nodejs.org\n"
  )
  process.exitCode = 1
} else {
  const { main } = await import("./internal/cli/main.ts")
  main()
}
