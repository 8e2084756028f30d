/**
 * What a module needs installed: its requirements files with everything that they include, or its `pyproject.toml`.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import { ModuleNotFound, SynapseError } from "../SynapseError.ts"
import { Host, sha256, stampOf, whyOf, withoutCredentials } from "./environmentHost.ts"

/** @internal */
export interface Requirements {
  /** Absolute paths for the installer's `-r`. */
  readonly files: ReadonlyArray<string>
  readonly pyproject: string | undefined
  /** What changes when anything that would be installed changes. */
  readonly fingerprint: ReadonlyArray<string>
  /** The names of the packages that are asked for directly, for people. */
  readonly names: ReadonlyArray<string>
  /** What a strict install refuses, each with its place. */
  readonly loose: ReadonlyArray<string>
}

const missing = (path: string, detail: string): SynapseError =>
  new SynapseError({ reason: new ModuleNotFound({ what: "requirements", path, detail }) })

/** Reads the requirements of a module. Fails when a file that is named, by an option or by another file, is missing. */
export const readRequirements = Effect.fnUntraced(function* (
  directory: string,
  named: string | ReadonlyArray<string> | undefined
) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const sources =
    named === undefined
      ? yield* usualSources(directory)
      : (typeof named === "string" ? [named] : named).map((file) => path.resolve(directory, file))
  const files: Array<string> = []
  const fingerprint: Array<string> = []
  const names: Array<string> = []
  const loose: Array<string> = []
  const seen = new Set<string>()
  let pyproject: string | undefined

  const read = (file: string, includedBy: string) =>
    fs
      .readFileString(file)
      .pipe(
        Effect.mapError((error) =>
          missing(
            file,
            error.reason._tag === "NotFound"
              ? `the file does not exist; it is named by ${includedBy}`
              : `${whyOf(error)}; it is named by ${includedBy}`
          )
        )
      )

  const visit = (file: string, includedBy: string, constraints: boolean): Effect.Effect<void, SynapseError> =>
    Effect.gen(function* () {
      if (seen.has(file)) return
      seen.add(file)
      const text = expandVariables(yield* read(file, includedBy), yield* Host)
      loose.push(...encodings(text).map((line) => `${file}:${line.number}: ${line.text}`))
      const lines = logicalLines(text)
      const normal = withoutCredentials(lines.map(({ text }) => text).join("\n"))
      fingerprint.push(`${path.relative(directory, file)} ${sha256(normal)}`)
      for (const line of lines) {
        const include = inclusion(line.text)
        if (include !== undefined) {
          const target = path.resolve(path.dirname(file), include.file)
          yield* visit(target, `${file}:${line.number}`, constraints || include.constraints)
        } else if (!constraints) {
          const name = packageName(line.text)
          if (name !== undefined) names.push(name)
        }
        if (include === undefined ? !isPinned(line.text, constraints) : !plainInclusion.test(line.text)) {
          loose.push(`${file}:${line.number}: ${line.text}`)
        }
        fingerprint.push(...(yield* Effect.provideContext(localState(directory, line.text), context)))
      }
    })
  const context = yield* Effect.context<FileSystem.FileSystem | Path.Path>()

  for (const source of sources) {
    if (source.endsWith(".toml")) {
      const text = yield* read(source, "the option environment.requirements")
      const dependencies = dependenciesText(text)
      pyproject = source
      fingerprint.push(`pyproject ${sha256(dependencies)}`)
      names.push(...dependencyNames(dependencies))
      if (dependencies !== "[]" && /\bdependencies\b/.test(text)) loose.push(`${source}: dependencies have no hashes`)
      for (const line of dependencies.split("\n")) {
        fingerprint.push(...(yield* localState(directory, line)))
      }
    } else {
      yield* visit(source, "the option environment.requirements", false)
      files.push(source)
    }
  }
  return { files, pyproject, fingerprint, names: [...new Set(names)], loose } satisfies Requirements as Requirements
})

const usualSources = Effect.fnUntraced(function* (directory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  for (const name of ["requirements.txt", "pyproject.toml"]) {
    const file = path.join(directory, name)
    // What cannot be looked at is there as well: reading it says why.
    const there = yield* fs.stat(file).pipe(
      Effect.map((info) => info.type !== "Directory"),
      Effect.catch((error) => Effect.succeed(error.reason._tag !== "NotFound"))
    )
    if (there) return [file]
  }
  return []
})

/** pip replaces `${NAME}` in requirements files. */
const expandVariables = (text: string, host: Host): string =>
  text.replaceAll(/\$\{([A-Z0-9_]+)\}/g, (whole, name: string) => host.env[name] ?? whole)

interface Line {
  readonly text: string
  readonly number: number
}

/** Wherever Python may end a line: what passes for a comment here must not be a line of its own there. */
const lineEnd = /\r\n|(?!\t)[\p{Cc}\u2028\u2029]/u

/**
 * The lines as pip and uv see them: continued ones joined, without comments and blank ones. A comment ends with its line:
 * where it ends in a backslash, uv reads what follows and pip takes it for more of the comment.
 */
const logicalLines = (text: string): ReadonlyArray<Line> => {
  const result: Array<Line> = []
  let pending: Line | undefined
  for (const [index, raw] of text
    .replace(/^\uFEFF/, "")
    .split(lineEnd)
    .entries()) {
    const comment = /(^|\s)#/.test(raw)
    const started: Line = pending ?? { text: "", number: index + 1 }
    if (!comment && raw.endsWith("\\")) {
      pending = { ...started, text: `${started.text}${raw.slice(0, -1)} ` }
      continue
    }
    result.push({ ...started, text: started.text + raw })
    pending = undefined
  }
  if (pending !== undefined) result.push(pending)
  return result
    .map(({ number, text }) => ({ number, text: text.replace(/(^|\s)#.*$/, "").trim() }))
    .filter(({ text }) => text !== "")
}

const inclusion = (line: string): { readonly file: string; readonly constraints: boolean } | undefined => {
  const match = /^(?:(-r|--requirement)|-c|--constraint)(?:\s*=\s*|\s+|(?<=^-[rc]))(\S.*)$/.exec(line)
  if (match === null) return undefined
  const file = match[2]!.trim().replace(/^(["'])(.*)\1$/, "$2")
  return /^[a-z][a-z0-9+.-]+:\/\//i.test(file) ? undefined : { file, constraints: match[1] === undefined }
}

/** An inclusion whose file has the same name for all that read it. */
const plainInclusion = /^(?:-[rc] *|--(?:requirement|constraint)(?:=| +))(?:[^\s#"'\\=][^\s#"'\\]*|(["'])[^#"'\\]+\1)$/

/** Comments that have pip, and nobody else, decode the file in another way. */
const encodings = (text: string): ReadonlyArray<Line> =>
  text
    .split("\n", 2)
    .map((text, index) => ({ text: text.trim(), number: index + 1 }))
    .filter(({ text }) => /^#.*coding[:=](?!\s*utf-?8(?![\w.-]))/i.test(text))

const packageName = (requirement: string): string | undefined =>
  /^([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(?:$|[[<>=!~;@,( ])/.exec(requirement)?.[1]

const harmlessOption = /^--(?:require-hashes|prefer-binary|only-binary(?:\s*=\s*|\s+):all:)$/

/** One version of a package, by name. Nothing of it says where to take it from. */
const exact = String.raw`[A-Za-z0-9][\w.-]*\s*(?:\[[\w\s,.-]*\])?\s*={2,3}\s*[\w.!+-]+\s*(?:;(?:(?!\s-).)*)?`

const pinned = new RegExp(String.raw`^${exact}(?:\s+--hash(?:=|\s+)sha(?:256|384|512):[0-9a-f]+)+$`, "i")

/** Constraints choose versions of what is pinned elsewhere, so they may do without a hash. */
const constraint = new RegExp(`^${exact}$`)

const isPinned = (line: string, constraints: boolean): boolean =>
  harmlessOption.test(line) || pinned.test(line) || (constraints && constraint.test(line))

const local =
  /^(?:-e|--editable|-f|--find-links|file:|\.{0,2}[\\/]|\.{1,2}$|[A-Za-z]:\\)|@\s*file:|\.(?:whl|tar\.gz|zip)\b/

/** A line that leads to local files ties the environment to this directory and, where it names a file, to its state. */
const localState = Effect.fnUntraced(function* (directory: string, line: string) {
  if (!local.test(line) || /^\S+:\/\/(?!\/)/.test(line)) return []
  const path = yield* Path.Path
  const file = /([^\s"'=]+\.(?:whl|tar\.gz|zip))/.exec(line)?.[1]?.replace(/^file:(\/\/)?/, "")
  const stamp = file === undefined ? undefined : yield* stampOf(path.resolve(directory, file))
  return [`local ${directory} ${stamp?.size ?? ""} ${stamp?.mtime ?? ""}`]
})

const dependencyArray =
  /^[ \t]*dependencies[ \t]*=[ \t]*(\[(?:[^\]"'#]|"(?!"")(?:[^"\\\n]|\\.)*"|'(?!'')[^'\n]*'|#[^\n]*)*\])/gm

/**
 * The part of a `pyproject.toml` that says what to install, without reading TOML: Python reads the dependencies, this
 * only has to change whenever they do. Where the array cannot be told apart for certain, the whole file stands for it.
 */
const dependenciesText = (toml: string): string => {
  const found = [...toml.matchAll(dependencyArray)]
  const only = found.length === 1 && !/"""|'''/.test(toml) ? found[0]![1]! : undefined
  if (only === undefined) return toml
  return only
    .replaceAll(/("(?:[^"\\\n]|\\.)*"|'[^'\n]*')|#[^\n]*|\s+/g, (_, text: string | undefined) => text ?? "")
    .replaceAll(/,(?=\])/g, "")
}

const dependencyNames = (dependencies: string): ReadonlyArray<string> =>
  dependencies.startsWith("[")
    ? [...dependencies.matchAll(/["']([^"']*)["']/g)].flatMap((match) => packageName(match[1]!) ?? [])
    : []
