/**
 * Turns a module's directory and some options into an interpreter that can run the module.
 *
 * By default a virtual environment is made for the module, once: it is kept in a cache under a key of everything that
 * went into it (interpreter, requirements, options), made again when one of these changes, and shared by modules that
 * need the same. It is safe against crashes and concurrent builders at any moment. `<directory>/.venv` leads to it, so
 * that editors find it; a `.venv` that the user made is used as it is and never touched.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import { buildEnvironment, installFailed } from "./internal/environmentBuild.ts"
import {
  cacheDirectoryOf,
  findReady,
  indexOf,
  keyOf,
  type Link,
  makeLink,
  readLink,
  runtimeHash
} from "./internal/environmentCache.ts"
import { Host, variable, whyOf } from "./internal/environmentHost.ts"
import {
  environmentInterpreter,
  explicitInterpreter,
  type Facts,
  makeSearch,
  type Search,
  searchInterpreter,
  type Wanted,
  wantedFrom
} from "./internal/environmentInterpreter.ts"
import { type Requirements, readRequirements } from "./internal/environmentRequirements.ts"
import { runtimeDirectory } from "./internal/runtimeDirectory.ts"
import { ModuleNotFound, SynapseError } from "./SynapseError.ts"

/**
 * Where the packages of a module come from.
 *
 * **Details**
 *
 * - `"venv"`: a virtual environment that is made and kept up to date for the module, or the module's own `.venv`.
 * - `"existing"`: an environment that is there already (the module's `.venv`, an activated virtual or conda
 *   environment, or the interpreter that is named); nothing is installed.
 * - `"system"`: the interpreter below any virtual environment; nothing is installed.
 *
 * @category models
 * @since 0.1.0
 */
export type EnvironmentMode = "venv" | "existing" | "system"

/**
 * How the packages of a module are installed.
 *
 * @category models
 * @since 0.1.0
 */
export interface EnvironmentSettings {
  /** The default is `"venv"`. */
  readonly mode?: EnvironmentMode | undefined
  /**
   * Requirements files, or a `pyproject.toml` whose dependencies are installed, relative to the module's directory. The
   * default is its `requirements.txt`, else its `pyproject.toml`, else nothing.
   */
  readonly requirements?: string | ReadonlyArray<string> | undefined
  /** The default is `"auto"`: uv when it is on PATH and knows the index that pip is configured for, else pip. */
  readonly installer?: "auto" | "uv" | "pip" | undefined
  /**
   * `true`: never use an index. A folder, relative to the module's directory: install the wheels in it and nothing else.
   * The default is `false`.
   */
  readonly offline?: boolean | string | undefined
  /**
   * The URL of the index that packages come from, in place of the one that pip and uv are configured for. The default is
   * that one, and with `strict` the Python Package Index.
   */
  readonly index?: string | undefined
  /**
   * Install exactly what the requirements pin: wheels only, each with a hash, from one index only, whatever else pip and
   * uv are configured for. Requirements without hashes, and those that are no wheels on the index, are refused. The
   * default is `false`. An environment that nothing is installed into is not checked.
   */
  readonly strict?: boolean | undefined
  /**
   * Where environments are kept, relative to the working directory. The default is `SYNAPSE_CACHE_DIRECTORY`, else the
   * user's cache directory.
   */
  readonly cacheDirectory?: string | undefined
}

/**
 * What {@link make} needs to know.
 *
 * @category models
 * @since 0.1.0
 */
export interface EnvironmentOptions {
  /** The module's directory, relative to the working directory. */
  readonly directory: string
  /**
   * The path or command of an interpreter, or a version range such as `">=3.10"`, `">=3.11,<3.13"` or `"3.12"`. The
   * default is `SYNAPSE_PYTHON`, else the first that is found, in the order that the page on environments gives.
   */
  readonly python?: string | undefined
  /** The default is `"venv"`. */
  readonly environment?: EnvironmentMode | EnvironmentSettings | undefined
}

/**
 * An interpreter that can run a module.
 *
 * @category models
 * @since 0.1.0
 */
export interface PythonEnvironment {
  /** The absolute path of the interpreter to run. */
  readonly python: string
  /** Its version, such as `"3.12.1"`. */
  readonly version: string
  /** The real path of the module's directory. */
  readonly directory: string
  /** Made by Synapse (`"managed"`), somebody else's (`"user"`), or none at all (`"system"`). */
  readonly kind: "managed" | "user" | "system"
  /** The root of the environment, where there is one. */
  readonly path: string | undefined
}

const settingsOf = (environment: EnvironmentOptions["environment"]): EnvironmentSettings =>
  typeof environment === "string" ? { mode: environment } : (environment ?? {})

/**
 * Finds or makes the environment of a module.
 *
 * **Details**
 *
 * Without changes since the last start no process is run: the check is a few file stats. Otherwise the environment is
 * made, which is visible: log lines, or a progress bar when stderr is a terminal. Interruption ends every process and
 * leaves nothing that a later start would take for an environment.
 *
 * Fails with the reasons `ModuleNotFound` (the directory or a requirements file), `PythonNotFound` and `InstallFailed`.
 *
 * **Example** (Finding the interpreter of a module)
 *
 * ```ts
 * import { NodeServices } from "@effect/platform-node"
 * import { Effect } from "effect"
 * import { PythonEnvironment } from "effect-synapse"
 *
 * const program = Effect.gen(function*() {
 *   const environment = yield* PythonEnvironment.make({ directory: "./python", python: ">=3.11" })
 *   return environment.python
 * }).pipe(Effect.provide(NodeServices.layer))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  options: EnvironmentOptions
) => Effect.Effect<PythonEnvironment, SynapseError, ChildProcessSpawner | FileSystem.FileSystem | Path.Path> =
  Effect.fnUntraced(function* (options) {
    const settings = settingsOf(options.environment)
    const directory = yield* realDirectory(options.directory)
    const requirements = yield* readRequirements(directory, settings.requirements)
    const cacheDirectory = yield* realCacheDirectory(settings.cacheDirectory)
    const link = yield* readLink(directory, cacheDirectory)
    const wanted = wantedFrom(options.python, yield* Host)
    const search = yield* makeSearch(directory, cacheDirectory)
    const mode = settings.mode ?? "venv"
    const found = yield* findInterpreter(mode, link, wanted, search)
    if (mode === "system") return systemEnvironment(directory, found.facts)
    if (mode === "existing" || found.own) return existingEnvironment(directory, found.facts)
    return yield* managedEnvironment({ directory, requirements, settings, facts: found.facts, link, cacheDirectory })
  })

const realDirectory = Effect.fnUntraced(function* (directory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const absolute = path.resolve(directory)
  const refuse = (detail: string) =>
    new SynapseError({ reason: new ModuleNotFound({ what: "directory", path: absolute, detail }) })
  const info = yield* fs
    .stat(absolute)
    .pipe(Effect.mapError((error) => refuse(error.reason._tag === "NotFound" ? "it does not exist" : whyOf(error))))
  if (info.type !== "Directory") return yield* Effect.fail(refuse("it is not a directory"))
  return yield* fs.realPath(absolute).pipe(Effect.mapError((error) => refuse(whyOf(error))))
})

/** Records hold the real path, so that a cache that was moved is noticed and one behind a link is not. */
const realCacheDirectory = Effect.fnUntraced(function* (option: string | undefined) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const wanted = yield* cacheDirectoryOf(option)
  const rest: Array<string> = []
  // The directory may not exist yet: what is real is the part of its path that does.
  for (let at = wanted; ; at = path.dirname(at)) {
    const real = yield* fs.realPath(at).pipe(Effect.orElseSucceed(() => undefined))
    if (real !== undefined) return path.join(real, ...rest)
    if (path.dirname(at) === at) return wanted
    rest.unshift(path.basename(at))
  }
})

interface Found {
  readonly facts: Facts
  /** Whether it belongs to a `.venv` that the user made in the module's directory. */
  readonly own: boolean
}

const brokenAdvice =
  " (.venv is not one of Synapse's, so it is left alone: repair it, for example with " +
  "`python3 -m venv --clear .venv`, or remove it)"

const findInterpreter = Effect.fnUntraced(function* (
  mode: EnvironmentMode,
  link: Link,
  wanted: Wanted,
  search: Search
) {
  const host = yield* Host
  const found = (facts: Facts, own = false): Found => ({ facts, own })
  if (wanted.explicit !== undefined) return found(yield* explicitInterpreter(wanted.explicit, wanted, search))
  if (mode !== "system") {
    if (link._tag === "user") {
      return found(yield* environmentInterpreter(link.path, wanted, search, brokenAdvice), true)
    }
    if (mode === "existing" && link._tag === "ours") {
      return found(yield* environmentInterpreter(link.target, wanted, search, ""))
    }
    for (const name of ["VIRTUAL_ENV", "CONDA_PREFIX"]) {
      const root = variable(host, name)
      if (root === undefined) continue
      const active = yield* environmentInterpreter(root, wanted, search, ` (${name} is set)`).pipe(Effect.result)
      if (active._tag === "Success") return found(active.success)
      // What is activated by chance only has to do where it would be used itself.
      if (mode === "existing") return yield* Effect.fail(active.failure)
    }
  }
  return found(yield* searchInterpreter(wanted, search))
})

const systemEnvironment = (directory: string, facts: Facts): PythonEnvironment => ({
  python: facts.base,
  version: facts.version,
  directory,
  kind: "system",
  path: undefined
})

const existingEnvironment = (directory: string, facts: Facts): PythonEnvironment => ({
  python: facts.executable,
  version: facts.version,
  directory,
  kind: facts.environment === null ? "system" : "user",
  path: facts.environment ?? undefined
})

const managedEnvironment = Effect.fnUntraced(function* (input: {
  readonly directory: string
  readonly requirements: Requirements
  readonly settings: EnvironmentSettings
  readonly facts: Facts
  readonly link: Link
  readonly cacheDirectory: string
}) {
  const path = yield* Path.Path
  const { cacheDirectory, directory, facts, requirements } = input
  const installer = input.settings.installer ?? "auto"
  const offline = input.settings.offline ?? false
  const wheels = typeof offline === "string" ? path.resolve(directory, offline) : undefined
  const strict = input.settings.strict ?? false
  const runtime = runtimeHash(runtimeDirectory).pipe(
    Effect.mapError((error) => installFailed(["read", runtimeDirectory], null, whyOf(error), undefined))
  )
  const [index, hash] = yield* Effect.all([indexOf(input.settings.index, strict), runtime], {
    concurrency: "unbounded"
  })
  const key = keyOf({ facts, requirements, runtime: hash, installer, wheels, index: index.fingerprint, strict })
  const ready =
    (yield* findReady(cacheDirectory, key)) ??
    (yield* buildEnvironment({
      cacheDirectory,
      key,
      directory,
      facts,
      requirements,
      installer,
      offline: offline !== false,
      wheels,
      index,
      strict
    }))
  yield* makeLink(directory, input.link, ready.path)
  yield* Effect.logDebug("Using the managed Python environment").pipe(Effect.annotateLogs({ path: ready.path }))
  return {
    python: ready.python,
    version: facts.version,
    directory,
    kind: "managed",
    path: ready.path
  } satisfies PythonEnvironment as PythonEnvironment
})
