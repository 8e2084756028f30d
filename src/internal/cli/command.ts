/**
 * The commands of the command line: their arguments, flags and help. What they do is loaded when one of them runs, so
 * that help is there at once.
 */
import { readFileSync } from "node:fs"
import * as Console from "effect/Console"
import * as Argument from "effect/cli/Argument"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Stdio from "effect/Stdio"
import { parseDuration } from "./duration.ts"
import { ExitCode } from "./exitCode.ts"
import { logger, OutputClosed } from "./terminal.ts"

/** Runs what a command does, which is loaded by now. */
const load = <F, E, R>(
  module: () => Promise<{ readonly run: (flags: F) => Effect.Effect<void, E, R> }>,
  flags: F
): Effect.Effect<void, E, R> => Effect.flatMap(Effect.promise(module), ({ run }) => run(flags))

const orNothing = <A>(flag: Flag.Flag<A>): Flag.Flag<A | undefined> =>
  flag.pipe(Flag.optional, Flag.map(Option.getOrUndefined))

const switchedOn = (name: string, description: string): Flag.Flag<boolean> =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withDefault(false))

const moduleFlags = {
  entrypoint: Flag.String("entrypoint").pipe(
    Flag.withAlias("e"),
    Flag.withMetavar("<module>"),
    Flag.withDescription('The Python module to serve, such as "main" (the default) or "package.module"'),
    orNothing
  ),
  python: Flag.String("python").pipe(
    Flag.withMetavar("<interpreter|range>"),
    Flag.withDescription('The interpreter, or a range of versions such as ">=3.11"'),
    orNothing
  ),
  environment: Flag.Literals("environment", ["venv", "existing", "system"]).pipe(
    Flag.withDescription("Where the packages of the module come from (default: venv, made and kept for it)"),
    orNothing
  )
}

const directory = Argument.Directory("directory").pipe(
  Argument.withDescription("The directory of the Python module, such as ./python")
)

const init = Command.make(
  "init",
  {
    directory: Argument.Directory("directory").pipe(
      Argument.withDescription("Where the app goes (default: the current directory)"),
      Argument.withDefault(".")
    )
  },
  (flags) => load(() => import("./init.ts"), flags)
).pipe(
  Command.withDescription(
    "Write a Python module and an app that calls it, ready to run. Files that exist are left as they are."
  ),
  Command.withShortDescription("Write a Python module and an app that calls it"),
  Command.withExamples([
    { command: "effect-synapse init", description: "Into the current directory" },
    { command: "effect-synapse init my-app", description: "Into a new one" }
  ])
)

const call = Command.make(
  "call",
  {
    directory,
    method: Argument.String("method").pipe(
      Argument.withDescription("The handler (default: main)"),
      Argument.optional,
      Argument.map(Option.getOrUndefined)
    ),
    payload: Argument.String("payload").pipe(
      Argument.withDescription(
        "JSON; or key=value pairs, whose values are JSON where they are JSON, and the bytes of a file after @; or - for JSON from stdin"
      ),
      Argument.variadic()
    ),
    file: Flag.File("file").pipe(
      Flag.withAlias("f"),
      Flag.withMetavar("<path>"),
      Flag.withDescription("A file with the payload as JSON"),
      orNothing
    ),
    timeout: Flag.String("timeout").pipe(
      Flag.withAlias("t"),
      Flag.withMetavar("<duration>"),
      Flag.withDescription(
        'How long the call may run: "30 seconds", 1.5s, 500ms, or a number of seconds (default: no limit)'
      ),
      Flag.filterMap(
        parseDuration,
        (text) => `${JSON.stringify(text)} is no duration such as "30 seconds", 1.5s or 500ms`
      ),
      orNothing
    ),
    raw: switchedOn("raw", "Print text and bytes as they are, not as JSON").pipe(Flag.withAlias("r")),
    list: switchedOn("list", "Print the handlers of the module and call none").pipe(Flag.withAlias("l")),
    ...moduleFlags
  },
  (flags) => load(() => import("./call.ts"), flags)
).pipe(
  Command.withDescription(
    "Call a handler and print its value as JSON; the items of a stream one per line, as they come. What Python prints and " +
      "logs goes to stderr. The exit code is 0, 1 when the call failed, 2 when it could not be asked for."
  ),
  Command.withShortDescription("Call a handler and print its value as JSON"),
  Command.withExamples([
    { command: `effect-synapse call ./python embed '{"text": "hi"}'`, description: "With a JSON payload" },
    {
      command: "effect-synapse call ./python resize image=@photo.png width=640 --raw > small.png",
      description: "With pairs"
    },
    { command: "effect-synapse call ./python main - < payload.json", description: "With JSON from stdin" },
    { command: "effect-synapse call ./python --list", description: "What there is to call" }
  ])
)

const doctor = Command.make(
  "doctor",
  {
    directory: Argument.Directory("directory").pipe(
      Argument.withDescription("The directory of the Python module (default: ./python, where there is one)"),
      Argument.optional,
      Argument.map(Option.getOrUndefined)
    ),
    json: switchedOn("json", "Print the findings as JSON"),
    ...moduleFlags
  },
  (flags) => load(() => import("./doctor.ts"), flags)
).pipe(
  Command.withDescription(
    "Look at everything that a module needs to run: interpreters, environment, requirements, cache, memory. Nothing is " +
      "changed. The exit code is 1 when there is a problem."
  ),
  Command.withShortDescription("Look at what a module needs to run, and tell how to mend it"),
  Command.withExamples([
    { command: "effect-synapse doctor ./python", description: "A module and this machine" },
    { command: "effect-synapse doctor --json", description: "For a program" }
  ])
)

const generatedFlags = {
  output: Flag.File("output").pipe(
    Flag.withAlias("o"),
    Flag.withMetavar("<file>"),
    Flag.withDescription("The file to write (default: print it)"),
    orNothing
  ),
  check: switchedOn("check", "Write nothing; exit with 1 when the file is not what would be written"),
  watch: switchedOn("watch", "Go on, and write the file again when what it is made from changes").pipe(
    Flag.withAlias("w")
  )
}

const generate = Command.make(
  "generate",
  {
    directory,
    ...generatedFlags,
    name: Flag.String("name").pipe(
      Flag.withAlias("n"),
      Flag.withMetavar("<class>"),
      Flag.withDescription("The name of the RpcGroup (default: Python)"),
      orNothing
    ),
    allowUnknown: switchedOn("allow-unknown", "Take Schema.Unknown for types that cannot be said in TypeScript"),
    ...moduleFlags
  },
  (flags) => load(() => import("./generate.ts"), flags)
).pipe(
  Command.withDescription(
    "Write the types of a Python module as a TypeScript module: an RpcGroup of its handlers, with a schema for what each takes, " +
      "gives and raises."
  ),
  Command.withShortDescription("Write the types of a Python module as TypeScript"),
  Command.withExamples([
    { command: "effect-synapse generate ./python -o src/python.gen.ts", description: "Write the module" },
    { command: "effect-synapse generate ./python -o src/python.gen.ts --check", description: "In CI" },
    { command: "effect-synapse generate ./python -o src/python.gen.ts --watch", description: "While you work" }
  ])
)

const stubs = Command.make(
  "stubs",
  {
    file: Argument.File("file").pipe(
      Argument.withDescription("A TypeScript module that exports an RpcGroup; it is imported, and so runs")
    ),
    ...generatedFlags,
    group: Flag.String("group").pipe(
      Flag.withAlias("g"),
      Flag.withMetavar("<export>"),
      Flag.withDescription("The RpcGroup that Python serves (default: the only one that is exported)"),
      orNothing
    ),
    host: Flag.String("host").pipe(
      Flag.withMetavar("<export>"),
      Flag.withDescription("The RpcGroup of host functions, which Python calls (default: none)"),
      orNothing
    ),
    allowUnknown: switchedOn("allow-unknown", "Take Any for schemas that cannot be said in Python")
  },
  (flags) => load(() => import("./stubs.ts"), flags)
).pipe(
  Command.withDescription(
    "Write the types of an RpcGroup as a Python module: a class of its handlers to implement, and the structures and errors " +
      "that they take, give and raise."
  ),
  Command.withShortDescription("Write the types of an RpcGroup as Python"),
  Command.withExamples([
    { command: "effect-synapse stubs src/contract.ts -o python/contract.py", description: "Write the module" },
    {
      command: "effect-synapse stubs src/contract.ts -o python/contract.py --group Embedder --host Library",
      description: "With the functions that Python calls"
    },
    { command: "effect-synapse stubs src/contract.ts -o python/contract.py --check", description: "In CI" }
  ])
)

const root = Command.make("effect-synapse").pipe(
  Command.withDescription("Run Python from TypeScript"),
  Command.withSubcommands([init, call, doctor, generate, stubs])
)

/** Errors of usage in few words: the help is a page, and stdout is for results. */
const presenter = (colors: boolean): CliOutput.Presenter => ({
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Console.error(
          `${CliOutput.defaultFormatter({ colors }).formatErrors(event.errors).trim()}\n\nSee \`${event.commandPath.join(" ")} --help\`.`
        )
      : CliOutput.defaultPresenter.present(event)
})

const version = (): string =>
  (JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as { readonly version: string })
    .version

/** Runs the command and gives its exit code, after what went wrong is said. */
export const run = (args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const { canColor } = yield* TerminalCapabilities.TerminalCapabilities
    const colors = canColor && (yield* Effect.flatMap(Stdio.Stdio, ({ stderrIsTerminal }) => stderrIsTerminal))
    return yield* Command.runWith(root, { version: version() })(args).pipe(
      Effect.as(ExitCode.ok as number),
      Effect.catch((error) => tell(error, colors)),
      Effect.provideService(CliOutput.Presenter, presenter(colors)),
      Effect.provide(Logger.layer([logger]))
    )
  })

/** Says what went wrong, where the parser has not done so already. */
const tell = Effect.fnUntraced(function* (error: Error | OutputClosed, colors: boolean): Effect.fn.Return<number> {
  // Who reads the output has enough of it.
  if (error instanceof OutputClosed) return ExitCode.ok
  if (CliError.isCliError(error) && error._tag === "ShowHelp") {
    return error.errors.length === 0 ? ExitCode.ok : ExitCode.usage
  }
  const { describeFailure, exitCodeOf } = yield* Effect.promise(() => import("./failure.ts"))
  yield* Console.error(`${colors ? "\u001b[31merror:\u001b[39m" : "error:"} ${describeFailure(error)}`)
  return exitCodeOf(error)
})
