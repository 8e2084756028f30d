/**
 * What the environment of a module depends on outside its directory: the platform, the variables and the home of the
 * user. One reference, so that tests can stand on another platform.
 *
 * @internal
 */

import { createHash } from "node:crypto"
import { homedir } from "node:os"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import { PlatformError } from "effect/PlatformError"

/** @internal */
export interface Host {
  readonly platform: NodeJS.Platform
  readonly env: Readonly<Record<string, string | undefined>>
  readonly home: string
  /** What a person watches, if one does: progress is then a bar on it and no log lines. */
  readonly terminal: NodeJS.WritableStream | undefined
}

/** @internal */
export const Host: Context.Reference<Host> = Context.Reference<Host>("effect-synapse/PythonEnvironment/Host", {
  defaultValue: () => ({
    platform: process.platform,
    env: process.env,
    home: homedir(),
    terminal: process.stderr.isTTY === true ? process.stderr : undefined
  })
})

/** The value of a variable; an empty one is as good as none. */
export const variable = (host: Host, name: string): string | undefined => {
  const value = host.env[name]
  return value === undefined || value.trim() === "" ? undefined : value
}

/** @internal */
export const sha256 = (content: string | Uint8Array): string => createHash("sha256").update(content).digest("hex")

/** Removes user names and passwords from the URLs in a text. */
export const withoutCredentials = (text: string): string =>
  text.replaceAll(/([a-z][a-z0-9+.-]*:\/\/)[^\s/@'"]+@/gi, "$1")

/** Why the system refused something, in its own words: those of a `PlatformError` repeat the call and leave them out. */
export const whyOf = (error: unknown): string => {
  const cause = error instanceof PlatformError ? (error.cause ?? error) : error
  const { code, message } = cause as NodeJS.ErrnoException
  return code === "EMFILE" || code === "ENFILE"
    ? "too many files are open; raise the limit (ulimit -n)"
    : String(message ?? cause)
}

/** Where the interpreter of an environment can be, likeliest first. */
export const interpretersIn = (host: Host, path: Path.Path, root: string): ReadonlyArray<string> =>
  host.platform === "win32"
    ? [path.join(root, "Scripts", "python.exe"), path.join(root, "python.exe")]
    : [path.join(root, "bin", "python"), path.join(root, "bin", "python3")]

/** What tells one state of a file from another. Whole seconds: archives and image layers keep no more. */
export interface Stamp {
  readonly size: number
  readonly mtime: number
}

/** The stamp of a file, following links; `undefined` when there is none. */
export const stampOf = (file: string): Effect.Effect<Stamp | undefined, never, FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const info = yield* fs.stat(file)
    if (info.type === "Directory") return undefined
    const mtime = Option.getOrElse(info.mtime, () => new Date(0))
    return { size: Number(info.size), mtime: Math.floor(mtime.getTime() / 1000) }
  }).pipe(Effect.orElseSucceed(() => undefined))

/** Every file of that name on PATH, in order. On Windows the name is tried as it is and with `.exe`. */
export const findOnPath = Effect.fnUntraced(function* (name: string) {
  const host = yield* Host
  const path = yield* Path.Path
  const value = Object.entries(host.env).find(([key]) => key.toUpperCase() === "PATH")?.[1] ?? ""
  const names = host.platform === "win32" && !name.toLowerCase().endsWith(".exe") ? [`${name}.exe`] : [name]
  const directories = value.split(host.platform === "win32" ? ";" : ":").filter((entry) => path.isAbsolute(entry))
  const files = [...new Set(directories)].flatMap((directory) => names.map((file) => path.join(directory, file)))
  const stamps = yield* Effect.forEach(files, stampOf, { concurrency: "unbounded" })
  return files.filter((_, index) => stamps[index] !== undefined)
})
