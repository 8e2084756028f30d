/** `effect-synapse generate`: the types of a Python module as a TypeScript module. */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { describeModule } from "../describeModule.ts"
import { type Finding, generateTypeScript, isGroupName } from "../generateTypeScript.ts"
import * as Watching from "../watching.ts"
import { badUsage, describeFailure, Failure } from "./failure.ts"
import { emit, type Target, validateTarget } from "./generatedFile.ts"
import { noHandlers } from "./handlers.ts"
import { type ModuleFlags, runtimeOptions } from "./module.ts"
import { shellWord, shownPath } from "./shell.ts"
import { note } from "./terminal.ts"

/** @internal */
export interface GenerateFlags extends ModuleFlags, Target {
  readonly watch: boolean
  readonly allowUnknown: boolean
  readonly name: string | undefined
}

/** @internal */
export const run = Effect.fnUntraced(function* (flags: GenerateFlags) {
  yield* validateTarget(flags)
  if (flags.name !== undefined && !isGroupName(flags.name)) {
    return yield* Effect.fail(badUsage(`--name ${JSON.stringify(flags.name)} is no name of a class, such as "Python".`))
  }
  if (!flags.watch) return yield* generate(flags)
  const changes = yield* Watching.changes({ directory: flags.directory })
  const attempt = Effect.catch(generate(flags), (error) => note(`error: ${describeFailure(error)}`))
  yield* attempt
  yield* note(`watching ${shownPath(flags.directory)}; Ctrl-C ends it`)
  yield* Stream.runForEach(changes, () => attempt)
})

const generate = Effect.fnUntraced(function* (flags: GenerateFlags) {
  const contract = yield* describeModule(runtimeOptions(flags))
  if (Object.keys(contract.methods).length === 0) return yield* Effect.fail(new Failure(noHandlers))
  const command = commandOf(flags)
  const { findings, source } = generateTypeScript(contract, {
    command,
    groupName: flags.name,
    allowUnknown: flags.allowUnknown
  })
  yield* Effect.forEach(findings, told, { discard: true })
  const errors = findings.filter(({ severity }) => severity === "error").length
  if (errors > 0) {
    return yield* Effect.fail(
      new Failure(
        `${errors === 1 ? "1 type" : `${errors} types`} cannot be said in TypeScript, and nothing was written: change ` +
          "the annotations, or take Schema.Unknown for them with --allow-unknown."
      )
    )
  }
  yield* emit(source, flags, command)
})

const told = ({ message, severity }: Finding): Effect.Effect<void> =>
  severity === "warning" ? note(`warning: ${message}`) : note(message)

/** What makes the same file again, for its header: with the flags that decide what is in it. */
const commandOf = ({ allowUnknown, directory, entrypoint, name, output }: GenerateFlags): string =>
  [
    "npx effect-synapse generate",
    shellWord(shownPath(directory)),
    ...(output === undefined ? [] : ["-o", shellWord(shownPath(output))]),
    ...(entrypoint === undefined ? [] : ["--entrypoint", shellWord(entrypoint)]),
    ...(name === undefined ? [] : ["--name", name]),
    ...(allowUnknown ? ["--allow-unknown"] : [])
  ].join(" ")
