/**
 * The cache of managed environments: where it is, the key of an environment, the record that makes one visible, and the
 * link that leads from a module's directory into it.
 *
 * ```
 * <cache>/ready/<key>.json          the record: written by one atomic rename when an environment is complete
 * <cache>/envs/<key>-<random>/      environments, also unfinished ones
 * <cache>/locks/<key>.lock          held while an environment is built
 * <cache>/interpreters/<hash>.json  what interpreters said about themselves
 * ```
 *
 * @internal
 */

import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import { Host, interpretersIn, sha256, stampOf, variable, withoutCredentials } from "./environmentHost.ts"
import type { Facts } from "./environmentInterpreter.ts"
import type { Requirements } from "./environmentRequirements.ts"

/** Raised with any change that makes environments of earlier versions unfit; `SCHEMA` in `_provision.py` is the same. */
const schema = 1

/** @internal */
export const cacheDirectoryOf = Effect.fnUntraced(function* (option: string | undefined) {
  const host = yield* Host
  const path = yield* Path.Path
  const chosen = option ?? variable(host, "SYNAPSE_CACHE_DIRECTORY")
  if (chosen !== undefined) return path.resolve(chosen)
  switch (host.platform) {
    case "win32":
      return path.join(
        variable(host, "LOCALAPPDATA") ?? path.join(host.home, "AppData", "Local"),
        "effect-synapse",
        "Cache"
      )
    case "darwin":
      return path.join(host.home, "Library", "Caches", "effect-synapse")
    default: {
      const xdg = variable(host, "XDG_CACHE_HOME")
      // The XDG specification has relative paths ignored.
      return path.join(
        xdg !== undefined && path.isAbsolute(xdg) ? xdg : path.join(host.home, ".cache"),
        "effect-synapse"
      )
    }
  }
})

/** @internal */
export interface KeyInput {
  readonly facts: Facts
  readonly requirements: Requirements
  readonly runtime: string
  readonly installer: "auto" | "uv" | "pip"
  /** A folder of wheels. */
  readonly wheels: string | undefined
  readonly index: string
  readonly strict: boolean
}

/** The name of an environment's content. Equal inputs share one environment, in whatever directory they are. */
export const keyOf = (input: KeyInput): string => {
  const { executable: _, environment: __, ...interpreter } = input.facts
  return sha256(
    JSON.stringify([
      schema,
      Object.entries(interpreter).sort(([a], [b]) => (a < b ? -1 : 1)),
      input.runtime,
      input.requirements.fingerprint,
      input.installer,
      input.wheels ?? null,
      input.wheels === undefined ? input.index : null,
      input.strict
    ])
  ).slice(0, 32)
}

/** The hash of the runtime's sources: environments hold a copy of them. */
export const runtimeHash = Effect.fnUntraced(function* (directory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const names = (yield* fs.readDirectory(directory, { recursive: true }))
    .filter((name) => /\.pyi?$|^py\.typed$/.test(name))
    .sort()
  const hashes = yield* Effect.forEach(
    names,
    (name) => Effect.map(fs.readFile(path.join(directory, name)), (content) => `${name} ${sha256(content)}`),
    { concurrency: 8 }
  )
  return sha256(hashes.join("\n"))
})

const indexVariables =
  /^(?:PIP_(?:INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|CONSTRAINT|PRE|CONFIG_FILE)|UV_(?:INDEX|DEFAULT_INDEX|INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|CONSTRAINT|CONFIG_FILE))$/

const pipConfigurationFiles = (host: Host, path: Path.Path): ReadonlyArray<string> => {
  const named = variable(host, "PIP_CONFIG_FILE")
  const own = named === undefined ? [] : [named]
  const xdg = variable(host, "XDG_CONFIG_HOME") ?? path.join(host.home, ".config")
  switch (host.platform) {
    case "win32":
      return [
        path.join(variable(host, "PROGRAMDATA") ?? "C:\\ProgramData", "pip", "pip.ini"),
        path.join(host.home, "pip", "pip.ini"),
        path.join(variable(host, "APPDATA") ?? path.join(host.home, "AppData", "Roaming"), "pip", "pip.ini"),
        ...own
      ]
    case "darwin":
      return [
        "/Library/Application Support/pip/pip.conf",
        path.join(host.home, "Library", "Application Support", "pip", "pip.conf"),
        path.join(host.home, ".pip", "pip.conf"),
        path.join(xdg, "pip", "pip.conf"),
        ...own
      ]
    default:
      return [
        "/etc/xdg/pip/pip.conf",
        "/etc/pip.conf",
        path.join(host.home, ".pip", "pip.conf"),
        path.join(xdg, "pip", "pip.conf"),
        ...own
      ]
  }
}

/** @internal */
export interface Index {
  /** Changes with the index that packages come from; holds no credentials. */
  readonly fingerprint: string
  /** Whether only pip is told about an index: uv does not read pip's configuration. */
  readonly pipOnly: boolean
  /** The index that takes the place of the one that is configured. */
  readonly url: string | undefined
}

/** Where packages come from. A strict install knows the index that it is given and no configuration. */
export const indexOf = (
  url: string | undefined,
  strict: boolean
): Effect.Effect<Index, never, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function* () {
    const configured = strict ? { fingerprint: "", pipOnly: false } : yield* configuredIndex
    const fingerprint = sha256(`${configured.fingerprint} ${withoutCredentials(url ?? "")}`)
    return { fingerprint, pipOnly: configured.pipOnly, url } satisfies Index as Index
  })

/** Where the user's configuration has packages come from. */
const configuredIndex = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const host = yield* Host
  const path = yield* Path.Path
  const uvFile = path.join(variable(host, "XDG_CONFIG_HOME") ?? path.join(host.home, ".config"), "uv", "uv.toml")
  const read = (file: string) => fs.readFileString(file).pipe(Effect.orElseSucceed(() => ""))
  const [pip, uv] = yield* Effect.all(
    [Effect.forEach(pipConfigurationFiles(host, path), read, { concurrency: "unbounded" }), read(uvFile)],
    { concurrency: "unbounded" }
  )
  const settings = pip
    .join("\n")
    .split("\n")
    .filter((line) => !/^\s*([#;]|$)/.test(line))
    .join("\n")
  const variables = Object.entries(host.env).filter(([name, value]) => indexVariables.test(name) && value !== "")
  const forPip =
    /^\s*(?:extra-)?index-url|^\s*find-links|^\s*no-index/m.test(settings) ||
    variables.some(([name]) => /^PIP_(?:INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX)$/.test(name))
  const forUv = /index|find-links/.test(uv) || variables.some(([name]) => name.startsWith("UV_"))
  const lines = [...variables.map(([name, value]) => `${name}=${value}`).sort(), settings, uv]
  return { fingerprint: sha256(withoutCredentials(lines.join("\n"))), pipOnly: forPip && !forUv }
})

const RecordJson = Schema.fromJsonString(
  Schema.Struct({
    schema: Schema.Number,
    root: Schema.String,
    name: Schema.String,
    codec: Schema.Boolean
  })
)

/** @internal */
export interface Ready {
  readonly path: string
  readonly python: string
}

/** The environment's interpreter, if the environment is there and its base interpreter too. */
export const environmentAt = Effect.fnUntraced(function* (root: string) {
  const path = yield* Path.Path
  const python = interpretersIn(yield* Host, path, root)[0]!
  const [executable, owner] = yield* Effect.all([stampOf(python), stampOf(path.join(root, "synapse-build.json"))], {
    concurrency: "unbounded"
  })
  return executable === undefined || owner === undefined ? undefined : ({ path: root, python } satisfies Ready as Ready)
})

/** The published environment of a key. One that was moved, or whose files are gone, counts as absent. */
export const findReady = Effect.fnUntraced(function* (cacheDirectory: string, key: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const record = yield* fs
    .readFileString(path.join(cacheDirectory, "ready", `${key}.json`))
    .pipe(Effect.flatMap(Schema.decodeUnknownEffect(RecordJson)), Effect.option)
  if (Option.isNone(record) || record.value.schema !== schema || record.value.root !== cacheDirectory) return undefined
  return yield* environmentAt(path.join(cacheDirectory, "envs", record.value.name))
})

/** What `<directory>/.venv` is: nothing, our link, something of the user's, or something that is no environment. */
export type Link =
  | { readonly _tag: "none" }
  | { readonly _tag: "ours"; readonly target: string }
  | { readonly _tag: "user"; readonly path: string }
  | { readonly _tag: "other" }

const environmentName = /[\\/]envs[\\/][0-9a-f]{32}-[0-9a-f]{8}$/

/** @internal */
export const readLink = Effect.fnUntraced(function* (directory: string, cacheDirectory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(directory, ".venv")
  // Reading the link first: one call tells a link, a directory and nothing apart in most cases.
  const target = yield* fs.readLink(file).pipe(Effect.option)
  if (Option.isSome(target)) {
    const resolved = path.resolve(directory, target.value.replace(/^\\\\\?\\/, "").replace(/[\\/]+$/, ""))
    const ours = path.dirname(resolved) === path.join(cacheDirectory, "envs") || environmentName.test(resolved)
    return (ours ? { _tag: "ours", target: resolved } : { _tag: "user", path: file }) as Link
  }
  const info = yield* fs.stat(file).pipe(Effect.option)
  if (Option.isNone(info)) return { _tag: "none" } as Link
  return (info.value.type === "Directory" ? { _tag: "user", path: file } : { _tag: "other" }) as Link
})

/**
 * Leads `<directory>/.venv` to the environment, for editors. Best effort: a directory that cannot be written has no link.
 */
export const makeLink = Effect.fnUntraced(function* (directory: string, link: Link, target: string) {
  if (link._tag === "user" || link._tag === "other" || (link._tag === "ours" && link.target === target)) return
  const fs = yield* FileSystem.FileSystem
  const host = yield* Host
  const path = yield* Path.Path
  const file = path.join(directory, ".venv")
  const temporary = `${file}.${process.pid}.${sha256(String(Math.random())).slice(0, 8)}`
  const replaced: Effect.Effect<void, Error, ChildProcessSpawner> =
    host.platform === "win32"
      ? Effect.andThen(Effect.ignore(fs.remove(file)), junction(file, target))
      : fs.symlink(target, temporary).pipe(
          Effect.andThen(fs.rename(temporary, file)),
          Effect.onError(() => Effect.ignore(fs.remove(temporary, { force: true })))
        )
  yield* replaced.pipe(
    Effect.catch((error) => Effect.logDebug(`No link ${file} to the Python environment`, error.message))
  )
})

/** Symbolic links need a privilege on Windows, junctions do not. */
const junction = Effect.fnUntraced(function* (file: string, target: string) {
  const spawner = yield* ChildProcessSpawner
  const exitCode = yield* spawner.exitCode(
    ChildProcess.make("cmd", ["/d", "/c", "mklink", "/J", file, target], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
      forceKillAfter: "1 second"
    })
  )
  if (Number(exitCode) !== 0) yield* Effect.fail(new Error(`mklink exited with ${exitCode}`))
})
