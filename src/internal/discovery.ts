/** Which servers there are on this machine: a file for each, in a directory of this user alone. */
import { lstatSync, readdirSync, readFileSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Schema from "effect/Schema"

const Found = Schema.Struct({
  version: Schema.Literal(1),
  namespace: Schema.NullOr(Schema.String),
  pid: Schema.Int,
  host: Schema.String,
  port: Schema.Int,
  /** The path of the file that has it. */
  token: Schema.NullOr(Schema.String),
  tls: Schema.Boolean,
  protocols: Schema.Array(Schema.String)
})

/** A server as its file describes it. */
export type Found = typeof Found.Type

const decode = Schema.decodeUnknownSync(Found)

export const directory = (): string => {
  const { SYNAPSE_RUNTIME_DIRECTORY: given, USERNAME, XDG_RUNTIME_DIR: runtime } = process.env
  if (given) return given
  if (runtime) return join(runtime, "synapse")
  return join(tmpdir(), `synapse-${process.getuid?.() ?? USERNAME ?? "user"}`)
}

/** The servers of a namespace, or at a port, the last one started first. Throws where others may enter the directory. */
export const servers = (wanted: {
  readonly namespace?: string | undefined
  readonly port?: number | undefined
}): ReadonlyArray<Found> => {
  const folder = directory()
  const stats = lstatSync(folder, { throwIfNoEntry: false })
  if (stats === undefined) return []
  const isPrivate = stats.isDirectory() && stats.uid === process.getuid?.() && (stats.mode & 0o077) === 0
  if (process.platform !== "win32" && !isPrivate) {
    throw new Error(
      `${folder} has to be a directory of this user that nobody else may enter (mode 700): it tells the tokens of ` +
        "servers. Name another one with SYNAPSE_RUNTIME_DIRECTORY"
    )
  }
  return readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .flatMap((name) => read(join(folder, name)))
    .filter(
      ({ server: { namespace, pid, port } }) =>
        (wanted.namespace === undefined || namespace === wanted.namespace) &&
        (wanted.port === undefined || port === wanted.port) &&
        isAlive(pid)
    )
    .sort((a, b) => b.at - a.at)
    .map(({ server }) => server)
}

const read = (path: string): ReadonlyArray<{ readonly at: number; readonly server: Found }> => {
  try {
    return [{ at: statSync(path).mtimeMs, server: decode(JSON.parse(readFileSync(path, "utf8"))) }]
  } catch {
    // It went as it was looked at, or is from another version.
    return []
  }
}

const isAlive = (pid: number): boolean => {
  if (process.platform === "win32") return true
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** The token of a server, where it has one that this user may know. */
export const tokenOf = ({ token }: Found): string | undefined => {
  if (token === null) return undefined
  try {
    return readFileSync(token, "utf8").trim()
  } catch {
    return undefined
  }
}
