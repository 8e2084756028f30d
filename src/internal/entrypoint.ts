/** From the entrypoint that a user names to the module that Python imports, or the script it runs, confined to the directory. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import { ModuleNotFound, SynapseError } from "../SynapseError.ts"

const moduleName = /^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$/

const fail = (path: string, detail: string): Effect.Effect<never, SynapseError> =>
  Effect.fail(new SynapseError({ reason: new ModuleNotFound({ what: "entrypoint", path, detail }) }))

/**
 * The dotted name of the module: `"main.py"`, `"main"`, `"package/module.py"` and `"package.module"` are understood. The
 * file has to exist, and to lie in the directory once links are followed.
 */
export const resolveEntrypoint = Effect.fnUntraced(function* (
  directory: string,
  entrypoint: string
): Effect.fn.Return<string, SynapseError, FileSystem.FileSystem | Path.Path> {
  const path = yield* Path.Path
  const name = entrypoint.replace(/\.py$/, "").replaceAll(/[\\/]/g, ".")
  if (!moduleName.test(name)) {
    return yield* fail(entrypoint, `name a module of the directory, such as "main" or "package.module"`)
  }
  const base = path.join(...name.split("."))
  yield* confined(directory, [`${base}.py`, path.join(base, "__init__.py")])
  return name
})

/**
 * The path of a script in the directory: `"main"` and `"main.py"` are the same one, and so is any file name. It has to exist,
 * and to lie in the directory once links are followed.
 */
export const resolveScript = Effect.fnUntraced(function* (
  directory: string,
  entrypoint: string
): Effect.fn.Return<string, SynapseError, FileSystem.FileSystem | Path.Path> {
  const path = yield* Path.Path
  const file = path.normalize(entrypoint.endsWith(".py") ? entrypoint : `${entrypoint}.py`)
  yield* confined(directory, [file])
  return file
})

/** Fails unless one of the files is there, and lies in the directory. */
const confined = Effect.fnUntraced(function* (
  directory: string,
  files: ReadonlyArray<string>
): Effect.fn.Return<void, SynapseError, FileSystem.FileSystem | Path.Path> {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const root = yield* Effect.orElseSucceed(fs.realPath(directory), () => undefined)
  const info = yield* Effect.orElseSucceed(fs.stat(directory), () => undefined)
  // A directory that is missing, or is none, is the environment's to report.
  if (root === undefined || info?.type !== "Directory") return
  for (const candidate of files) {
    const file = yield* Effect.orElseSucceed(fs.realPath(path.resolve(root, candidate)), () => undefined)
    if (file === undefined) continue
    if (file.startsWith(root + path.sep)) return
    return yield* fail(path.resolve(root, candidate), `it leads to "${file}", outside of the module's directory`)
  }
  return yield* fail(path.resolve(root, files[0]!), "it does not exist; create it, or set the option `entrypoint`")
})
