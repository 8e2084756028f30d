/**
 * What a module's environment is to be, before anything is made: its directory, its interpreter, and the recipe that its
 * key stands for.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import type { EnvironmentMode, EnvironmentOptions, EnvironmentSettings } from "../PythonEnvironment.ts"
import { ModuleNotFound, SynapseError } from "../SynapseError.ts"
import { type BuildInput, installFailed } from "./environmentBuild.ts"
import { cacheDirectoryOf, indexOf, keyOf, type Link, runtimeHash } from "./environmentCache.ts"
import { Host, variable, whyOf } from "./environmentHost.ts"
import {
  environmentInterpreter,
  explicitInterpreter,
  type Facts,
  type Search,
  searchInterpreter,
  type Wanted
} from "./environmentInterpreter.ts"
import type { Requirements } from "./environmentRequirements.ts"
import { runtimeDirectory } from "./runtimeDirectory.ts"

/** The settings, where only a mode is given. */
export const settingsOf = (environment: EnvironmentOptions["environment"]): EnvironmentSettings =>
  typeof environment === "string" ? { mode: environment } : (environment ?? {})

/** The module's directory, links followed. */
export const realDirectory = Effect.fnUntraced(function* (directory: string) {
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
export const realCacheDirectory = Effect.fnUntraced(function* (option: string | undefined) {
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

/** @internal */
export interface Found {
  readonly facts: Facts
  /** Whether it belongs to a `.venv` that the user made in the module's directory. */
  readonly own: boolean
}

const brokenAdvice =
  " (.venv is not one of Synapse's, so it is left alone: repair it, for example with " +
  "`python3 -m venv --clear .venv`, or remove it)"

/** The interpreter that a module runs in, or that its environment is made from. */
export const findInterpreter = Effect.fnUntraced(function* (
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

/** @internal */
export interface Ingredients {
  readonly directory: string
  readonly requirements: Requirements
  readonly settings: EnvironmentSettings
  readonly facts: Facts
  readonly cacheDirectory: string
}

/** How the managed environment of a module is made, under the key of all that goes into it. */
export const recipeOf = Effect.fnUntraced(function* (ingredients: Ingredients) {
  const path = yield* Path.Path
  const { cacheDirectory, directory, facts, requirements, settings } = ingredients
  const installer = settings.installer ?? "auto"
  const offline = settings.offline ?? false
  const wheels = typeof offline === "string" ? path.resolve(directory, offline) : undefined
  const strict = settings.strict ?? false
  const runtime = runtimeHash(runtimeDirectory).pipe(
    Effect.mapError((error) => installFailed(["read", runtimeDirectory], null, whyOf(error), undefined))
  )
  const [index, hash] = yield* Effect.all([indexOf(settings.index, strict), runtime], {
    concurrency: "unbounded"
  })
  const key = keyOf({ facts, requirements, runtime: hash, installer, wheels, index: index.fingerprint, strict })
  return {
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
  } satisfies BuildInput as BuildInput
})
