/** `effect-synapse init`: an app and its Python module, written without touching what is there. */
import { readFileSync } from "node:fs"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import { whyOf } from "../environmentHost.ts"
import { Failure } from "./failure.ts"
import { shellWord } from "./shell.ts"
import { type Dependencies, filesOf, packageJson } from "./template.ts"
import { write } from "./terminal.ts"

/** @internal */
export interface InitFlags {
  readonly directory: string
}

/** @internal */
export const run = Effect.fnUntraced(function* ({ directory }: InitFlags) {
  const path = yield* Path.Path
  const root = path.resolve(directory)
  const existing = yield* readPackage(path.join(root, "package.json"))
  // `import` in a file named .ts needs a package that says so; in one named .mts it never does.
  const appFile = existing === undefined || existing.content.type === "module" ? "app.ts" : "app.mts"
  const wanted = dependencies()
  const lines: Array<string> = []
  for (const [file, content] of Object.entries(filesOf(appFile))) {
    const isNew = yield* writeNew(path.join(root, file), content)
    lines.push(isNew ? `  wrote   ${file}` : `  exists  ${file}, left as it is`)
  }
  lines.push(`  ${yield* writePackage(root, existing, `node ${appFile}`, wanted)}`)
  lines.push(
    "",
    "Next:",
    ...nextCommands(path.relative(process.cwd(), root), existing, wanted).map((line) => `  ${line}`)
  )
  yield* write(`${lines.join("\n")}\n`)
})

interface Package {
  readonly text: string
  readonly content: Readonly<Record<string, unknown>>
}

const refused = (file: string) => (error: unknown) => new Failure(`${file} cannot be written: ${whyOf(error)}`)

const readPackage = Effect.fnUntraced(function* (file: string) {
  const fs = yield* FileSystem.FileSystem
  const text = yield* fs.readFileString(file).pipe(
    Effect.catchIf(
      (error) => error.reason._tag === "NotFound",
      () => Effect.succeed(undefined)
    ),
    Effect.mapError((error) => new Failure(`${file} cannot be read: ${whyOf(error)}`))
  )
  if (text === undefined) return undefined
  const content = yield* Effect.try({
    try: () => JSON.parse(text) as unknown,
    catch: () => new Failure(`${file} is no JSON: mend it first.`)
  })
  return { text, content: isRecord(content) ? content : {} } satisfies Package as Package
})

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Writes a file unless there is one. */
const writeNew = Effect.fnUntraced(function* (file: string, content: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  yield* fs.makeDirectory(path.dirname(file), { recursive: true }).pipe(Effect.mapError(refused(file)))
  return yield* fs.writeFileString(file, content, { flag: "wx" }).pipe(
    Effect.as(true),
    Effect.catchIf(
      (error) => error.reason._tag === "AlreadyExists",
      () => Effect.succeed(false)
    ),
    Effect.mapError(refused(file))
  )
})

/** This package and what it needs beside it. */
const dependencies = (): Dependencies => {
  const own = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as {
    readonly name: string
    readonly version: string
    readonly peerDependencies: Dependencies
    readonly peerDependenciesMeta: Readonly<Record<string, { readonly optional?: boolean }>>
  }
  const peers = Object.entries(own.peerDependencies).filter(
    ([name]) => own.peerDependenciesMeta[name]?.optional !== true
  )
  return Object.fromEntries([[own.name, `^${own.version}`], ...peers])
}

/** A `package.json`, or the script `start` in one that has none. */
const writePackage = Effect.fnUntraced(function* (
  root: string,
  existing: Package | undefined,
  script: string,
  dependencies: Dependencies
) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(root, "package.json")
  if (existing === undefined) {
    const name = path
      .basename(root)
      .toLowerCase()
      .replaceAll(/[^a-z0-9-]+/g, "-")
      .replaceAll(/^-+|-+$/g, "")
    yield* writeNew(file, packageJson(name || "app", script, dependencies))
    return "wrote   package.json"
  }
  const { content, text } = existing
  const scripts = isRecord(content.scripts) ? content.scripts : {}
  if (scripts.start !== undefined) return "exists  package.json, left as it is"
  const indent = /^[ \t]+(?=")/m.exec(text)?.[0] ?? 2
  const changed = JSON.stringify({ ...content, scripts: { ...scripts, start: script } }, null, indent)
  yield* fs.writeFileString(file, text.endsWith("\n") ? `${changed}\n` : changed).pipe(Effect.mapError(refused(file)))
  return "exists  package.json, with a script `start` added"
})

const nextCommands = (
  directory: string,
  existing: Package | undefined,
  wanted: Dependencies
): ReadonlyArray<string> => {
  // The package manager that runs this says so.
  const manager = /^(pnpm|yarn|bun)\//.exec(process.env.npm_config_user_agent ?? "")?.[1] ?? "npm"
  const present = isRecord(existing?.content.dependencies) ? existing.content.dependencies : {}
  const missing = Object.keys(wanted).filter((name) => present[name] === undefined)
  const add = manager === "npm" ? "npm install" : `${manager} add`
  const execute = { npm: "npx", pnpm: "pnpm exec", yarn: "yarn", bun: "bunx" }[manager]
  return [
    ...(directory === "" ? [] : [`cd ${shellWord(directory)}`]),
    existing === undefined || missing.length === 0 ? `${manager} install` : `${add} ${missing.join(" ")}`,
    `${manager} start`,
    `${execute} effect-synapse call ./python greet name=Ada`
  ]
}
