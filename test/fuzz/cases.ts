/**
 * Inputs that once failed, or that are worth a look on every run. Each file of `cases/` has bytes in hexadecimal, and after
 * a `#` what they are: in `codec-*.hex` a message on each line, which Python reads too; in `worker-*.hex` a session that a
 * worker sends, a write on each line; in `host-*.hex` one that a host sends, for Python's tests.
 */
import { readdirSync, readFileSync } from "node:fs"

const directory = new URL("cases/", import.meta.url)

export interface Case {
  readonly name: string
  readonly lines: ReadonlyArray<Buffer>
}

export const cases = (prefix: "codec" | "worker" | "host"): ReadonlyArray<Case> =>
  readdirSync(directory)
    .filter((name) => name.startsWith(`${prefix}-`) && name.endsWith(".hex"))
    .sort()
    .map((name) => ({ name, lines: linesOf(readFileSync(new URL(name, directory), "utf8")) }))

const linesOf = (text: string): ReadonlyArray<Buffer> =>
  text
    .split("\n")
    .map((line) => line.replace(/#.*/, "").replaceAll(/\s/g, ""))
    .filter((hex) => hex !== "")
    .map((hex) => Buffer.from(hex, "hex"))
