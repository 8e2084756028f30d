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
import type * as FileSystem from "effect/FileSystem"
import type * as Path from "effect/Path"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import { buildEnvironment } from "./internal/environmentBuild.ts"
import { findReady, type Link, makeLink, readLink } from "./internal/environmentCache.ts"
import { Host } from "./internal/environmentHost.ts"
import { type Facts, makeSearch, wantedFrom } from "./internal/environmentInterpreter.ts"
import {
  findInterpreter,
  type Ingredients,
  realCacheDirectory,
  realDirectory,
  recipeOf,
  settingsOf
} from "./internal/environmentPlan.ts"
import { readRequirements } from "./internal/environmentRequirements.ts"
import type { SynapseError } from "./SynapseError.ts"

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
    return yield* managedEnvironment(link, { directory, requirements, settings, facts: found.facts, cacheDirectory })
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

const managedEnvironment = Effect.fnUntraced(function* (link: Link, input: Ingredients) {
  const recipe = yield* recipeOf(input)
  const ready = (yield* findReady(recipe.cacheDirectory, recipe.key)) ?? (yield* buildEnvironment(recipe))
  yield* makeLink(recipe.directory, link, ready.path)
  yield* Effect.logDebug("Using the managed Python environment").pipe(Effect.annotateLogs({ path: ready.path }))
  return {
    python: ready.python,
    version: recipe.facts.version,
    directory: recipe.directory,
    kind: "managed",
    path: ready.path
  } satisfies PythonEnvironment as PythonEnvironment
})
