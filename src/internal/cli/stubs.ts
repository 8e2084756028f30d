/** `effect-synapse stubs`: the types of an RpcGroup as a Python module. */
import { dirname } from "node:path"
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"
import * as Contract from "../../Contract.ts"
import { pythonStubs } from "../pythonStubs.ts"
import * as Watching from "../watching.ts"
import { Failure } from "./failure.ts"
import { emit, type Target, validateTarget } from "./generatedFile.ts"
import { loadGroups } from "./groups.ts"
import { shellWord, shownPath } from "./shell.ts"
import { note } from "./terminal.ts"

/** @internal */
export interface StubsFlags extends Target {
  readonly file: string
  readonly watch: boolean
  readonly allowUnknown: boolean
  readonly group: string | undefined
  readonly host: string | undefined
}

/** @internal */
export const run = Effect.fnUntraced(function* (flags: StubsFlags) {
  yield* validateTarget(flags)
  if (!flags.watch) return yield* generate(flags)
  const directory = dirname(flags.file)
  const changes = yield* Watching.changes({ directory, paths: ["."] })
  yield* generateAnew(flags)
  yield* note(`watching ${shownPath(directory)}; Ctrl-C ends it`)
  yield* changes.pipe(
    Stream.filter((files) => files.some((file) => /\.[cm]?[jt]sx?$|\.json$/.test(file))),
    Stream.runForEach(() => generateAnew(flags))
  )
})

const generate = Effect.fnUntraced(function* (flags: StubsFlags) {
  const { group, host } = yield* loadGroups(flags.file, flags)
  const command = ["npx effect-synapse", ...wordsOf(flags).map(shellWord)].join(" ")
  const { problems, source } = pythonStubs({
    command,
    contract: group && Contract.fromGroup(group),
    host: host && Contract.fromGroup(host)
  })
  const prefix = flags.allowUnknown ? "warning: " : ""
  yield* Effect.forEach(problems, (problem) => note(prefix + described(problem)), { discard: true })
  if (problems.length > 0 && !flags.allowUnknown) {
    return yield* Effect.fail(
      new Failure(
        `${problems.length === 1 ? "1 schema" : `${problems.length} schemas`} cannot be said in Python, and nothing was ` +
          "written: change the schemas, or take Any for them with --allow-unknown."
      )
    )
  }
  yield* emit(source, flags, command)
})

const described = ({ message, method, path }: Contract.Problem): string =>
  `${method === "" ? "" : `\`${method}\``}${path === "" ? "" : `${method === "" ? "" : ", "}${path}`}: ${message}`

const wordsOf = ({ allowUnknown, file, group, host, output }: StubsFlags): ReadonlyArray<string> => [
  "stubs",
  shownPath(file),
  ...(output === undefined ? [] : ["-o", shownPath(output)]),
  ...(group === undefined ? [] : ["--group", group]),
  ...(host === undefined ? [] : ["--host", host]),
  ...(allowUnknown ? ["--allow-unknown"] : [])
]

/** In a process of its own: Node loads a module, and what that imports, only once. */
const generateAnew = Effect.fnUntraced(function* (flags: StubsFlags) {
  const spawner = yield* ChildProcessSpawner
  const command = ChildProcess.make(process.execPath, [process.argv[1]!, ...wordsOf(flags)], {
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
    forceKillAfter: "1 second"
  })
  // What went wrong has been said there.
  yield* spawner.exitCode(command).pipe(
    Effect.scoped,
    Effect.mapError((error) => new Failure(`${process.execPath} cannot be started: ${error.message}`))
  )
})
