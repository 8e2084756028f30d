/**
 * Running the provisioning script: its specification, its events, and what its failures mean.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { InstallFailed, SynapseError } from "../SynapseError.ts"
import { environmentAt, type Index } from "./environmentCache.ts"
import { findOnPath, Host, sha256, whyOf, withoutCredentials } from "./environmentHost.ts"
import type { Facts } from "./environmentInterpreter.ts"
import { Event, makeProgress } from "./environmentProgress.ts"
import type { Requirements } from "./environmentRequirements.ts"
import { runtimeDirectory } from "./runtimeDirectory.ts"

/** @internal */
export interface BuildInput {
  readonly cacheDirectory: string
  readonly key: string
  readonly directory: string
  readonly facts: Facts
  readonly requirements: Requirements
  readonly installer: "auto" | "uv" | "pip"
  readonly offline: boolean
  readonly wheels: string | undefined
  readonly index: Index
  readonly strict: boolean
}

/** @internal */
export const installFailed = (
  command: ReadonlyArray<string>,
  exitCode: number | null,
  output: string,
  hint: string | undefined
): SynapseError =>
  new SynapseError({
    reason: new InstallFailed({
      command: withoutCredentials(command.join(" ")),
      exitCode,
      output: withoutCredentials(output).split("\n").slice(-30).join("\n"),
      ...(hint === undefined ? {} : { hint })
    })
  })

const generateHashes =
  "write them with `pip-compile --generate-hashes --no-emit-index-url -o requirements.txt requirements.in`, or with " +
  "`uv pip compile --generate-hashes -o requirements.txt requirements.in`"

const hints: ReadonlyArray<readonly [pattern: RegExp, hint: (input: BuildInput) => string]> = [
  [
    /No space left on device|ENOSPC|Errno 28|disk quota/i,
    (input) =>
      `The disk is full: make room, or put the cache elsewhere with environment.cacheDirectory (now ${input.cacheDirectory}).`
  ],
  [/Too many open files|Errno 24\b/i, () => "Too many files are open: raise the limit (`ulimit -n`)."],
  [
    /ensurepip is not available|No module named '?(?:ensurepip|venv)'?|python3[\d.]*-venv/,
    (input) =>
      `This Python comes without venv or pip. On Debian and Ubuntu: apt install python${minor(input)}-venv (or python3-pip).`
  ],
  [
    /--require-hashes|Hash-checking is required/,
    () =>
      "The requirements have hashes, but not for everything that they need, also indirectly, or without an exact " +
      `version: ${generateHashes}.`
  ],
  [
    /DO NOT MATCH THE HASHES|hash mismatch|Hash mismatch|THESE PACKAGES DO NOT MATCH/i,
    () =>
      "A downloaded file is not the one that the requirements pin (hash mismatch): update the hashes, or find out who " +
      "changed the file."
  ],
  [
    /requires a different Python|Requires-Python|requires-python|does not satisfy Python[>=<]|only (?:has|have) wheels with the following Python/i,
    (input) =>
      `A package does not support Python ${input.facts.version}: choose another interpreter with the option \`python\`.`
  ],
  [
    /(?:error|fatal error):.*(?:gcc|cc|clang|cl\.exe|Microsoft Visual C\+\+)|command '[^']*(?:gcc|cc|clang)[^']*' failed|Failed building wheel|Failed to build|build_ext|Python\.h: No such file|Unable to find a compiler|error: subprocess-exited-with-error/i,
    (input) =>
      "A package has no ready-made wheel for this Python and platform and could not be built: install a compiler and the " +
      `Python headers, or choose a version of the package or of Python (now ${input.facts.version}) that has wheels.`
  ]
]

const noNetwork =
  /Temporary failure in name resolution|Name or service not known|getaddrinfo failed|nodename nor servname|NewConnectionError|Network is unreachable|Connection refused|Max retries exceeded|ConnectTimeoutError|dns error|error sending request|Could not connect|tcp connect error/i

const noPackage =
  /No matching distribution found|Could not find a version that satisfies|was not found in the (?:package registry|provided package locations)|No solution found|not found in the cache/i

const minor = (input: BuildInput): string => input.facts.version.split(".").slice(0, 2).join(".")

/** What to do about a failure, where its output tells. */
export const hintFor = (output: string, input: BuildInput): string | undefined => {
  for (const [pattern, hint] of hints) {
    if (pattern.test(output)) return hint(input)
  }
  if (input.offline && (noPackage.test(output) || noNetwork.test(output))) {
    return input.wheels === undefined
      ? "Installing is offline and no folder of wheels is given: set environment.offline to one, or allow the network."
      : `The folder ${input.wheels} lacks a wheel that is needed: add it, for example with \`pip download -d ${input.wheels}\`.`
  }
  // A refused connection also ends in "no matching distribution", so it is looked for first.
  if (noNetwork.test(output)) {
    const settings = input.strict ? "environment.index, HTTPS_PROXY" : "PIP_INDEX_URL, HTTPS_PROXY"
    return `The package index cannot be reached: check the network, proxy and index settings (${settings}).`
  }
  if (noPackage.test(output) && input.strict) {
    const { url } = input.index
    return (
      `A package, or that version of it, is unknown to the index${url === undefined ? "" : ` ${withoutCredentials(url)}`}, or ` +
      `has no wheel there for Python ${input.facts.version} on this platform. A strict install builds nothing and asks no ` +
      "other index (environment.index)."
    )
  }
  if (noPackage.test(output)) {
    return (
      "A package, or that version of it, is unknown to the index: check its name and version, and that it supports " +
      `Python ${input.facts.version} on this platform.`
    )
  }
  return undefined
}

/** uv when it is wanted or, by itself, when it is there and knows the same index as pip. */
export const chooseUv = Effect.fnUntraced(function* (input: BuildInput) {
  if (input.installer === "pip") return null
  const uv = (yield* findOnPath("uv"))[0]
  if (uv !== undefined) {
    return input.installer === "auto" && input.index.pipOnly && input.wheels === undefined ? null : uv
  }
  if (input.installer === "auto") return null
  return yield* Effect.fail(
    installFailed(
      ["uv"],
      null,
      "uv: not found on PATH",
      'environment.installer is "uv", and uv is not on PATH: install it, or set environment.installer to "auto" or "pip".'
    )
  )
})

const EventJson = Schema.fromJsonString(Event)
const stderrLimit = 8 * 1024

/** Builds the environment of a key, or waits for whoever is building it. */
export const buildEnvironment = Effect.fnUntraced(function* (input: BuildInput) {
  const path = yield* Path.Path
  if (input.strict) yield* checkPinned(input.requirements.loose)
  const uv = yield* chooseUv(input)
  yield* checkWheels(input.wheels)
  yield* prepareCache(input)
  const specification = JSON.stringify({
    root: input.cacheDirectory,
    key: input.key,
    directory: input.directory,
    requirements: input.strict
      ? [yield* writeStrictOptions(input), ...input.requirements.files]
      : input.requirements.files,
    pyproject: input.requirements.pyproject ?? null,
    runtime: runtimeDirectory,
    uv,
    offline: input.offline,
    wheels: input.wheels ?? null,
    strict: input.strict
  })
  const script = path.join(runtimeDirectory, "_provision.py")
  const last = yield* Effect.scoped(runScript(input, ["-I", "-X", "utf8", "-u", script, specification]))
  if (last.event === "failed") {
    return yield* Effect.fail(installFailed(last.command, last.exitCode, last.output, hintFor(last.output, input)))
  }
  const ready = yield* environmentAt(path.join(input.cacheDirectory, "envs", last.name))
  if (ready !== undefined) return ready
  return yield* Effect.fail(
    installFailed(
      ["build", input.cacheDirectory],
      null,
      `${last.name} was removed as soon as it was built`,
      "Something removes files from the cache directory: run again."
    )
  )
})

const shownLines = 20

/** Refuses what a strict install does. */
export const checkPinned = (loose: ReadonlyArray<string>): Effect.Effect<void, SynapseError> => {
  if (loose.length === 0) return Effect.void
  const more = loose.length > shownLines ? [`and ${loose.length - shownLines} more`] : []
  return Effect.fail(
    installFailed(
      ["check", "requirements"],
      null,
      [...loose.slice(0, shownLines), ...more].join("\n"),
      "environment.strict takes exact versions with hashes (`name==1.0 --hash=sha256:…`) and no index, links or packages " +
        `from paths, URLs and version control in the requirements: ${generateHashes}.`
    )
  )
}

/** What uv takes from no variable, first among the requirements. */
const strictOptions = "--require-hashes\n--only-binary :all:\n"

const writeStrictOptions = Effect.fnUntraced(function* (input: BuildInput) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(input.cacheDirectory, "strict.txt")
  const temporary = `${file}.${process.pid}.${sha256(String(Math.random())).slice(0, 8)}`
  yield* fs.writeFileString(temporary, strictOptions).pipe(
    Effect.andThen(fs.rename(temporary, file)),
    Effect.onError(() => Effect.ignore(fs.remove(temporary, { force: true }))),
    Effect.mapError((error) => {
      const output = whyOf(error)
      return installFailed(["write", file], null, output, hintFor(output, input))
    })
  )
  return file
})

/** The variables that installers see: those of this process, or under `strict` none that leads them elsewhere. */
export const installerVariables = (host: Host, input: BuildInput): Record<string, string | undefined> => {
  const { url } = input.index
  const chosen = url === undefined ? {} : { PIP_INDEX_URL: url, UV_DEFAULT_INDEX: url }
  if (!input.strict) return { ...host.env, ...chosen }
  return {
    ...Object.fromEntries(Object.entries(host.env).filter(([name]) => !/^(?:PIP|UV)_/i.test(name))),
    // The null device, by the name that pip knows, stands for no configuration file at all: `--isolated` reads some.
    PIP_CONFIG_FILE: host.platform === "win32" ? "nul" : "/dev/null",
    PIP_REQUIRE_HASHES: "1",
    PIP_ONLY_BINARY: ":all:",
    UV_NO_CONFIG: "1",
    UV_REQUIRE_HASHES: "1",
    ...chosen
  }
}

const checkWheels = Effect.fnUntraced(function* (wheels: string | undefined) {
  if (wheels === undefined) return
  const fs = yield* FileSystem.FileSystem
  yield* fs
    .readDirectory(wheels)
    .pipe(
      Effect.mapError((error) =>
        installFailed(
          ["ls", wheels],
          null,
          whyOf(error),
          `The folder of wheels ${wheels}, named by environment.offline, cannot be read.`
        )
      )
    )
})

const prepareCache = Effect.fnUntraced(function* (input: BuildInput) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const envs = path.join(input.cacheDirectory, "envs")
  yield* fs.makeDirectory(envs, { recursive: true, mode: 0o700 }).pipe(
    Effect.andThen(fs.access(envs, { writable: true })),
    Effect.mapError((error) =>
      installFailed(
        ["mkdir", envs],
        null,
        whyOf(error),
        `The cache directory ${input.cacheDirectory} cannot be written: choose another with environment.cacheDirectory ` +
          "or SYNAPSE_CACHE_DIRECTORY."
      )
    )
  )
})

type Outcome = Extract<Event, { event: "ready" | "failed" }>

/** Runs the script and returns its last word. The scope takes the process and everything it started along. */
const runScript = Effect.fnUntraced(function* (input: BuildInput, args: ReadonlyArray<string>) {
  const spawner = yield* ChildProcessSpawner
  const progress = yield* makeProgress(input.requirements.names)
  const command = [input.facts.base, "_provision.py"]
  const crashed = (exitCode: number | null, output: string) => installFailed(command, exitCode, output, undefined)
  let outcome: Outcome | undefined
  let stderr = ""
  // stdin stays a pipe that nobody writes to: its end tells the script that this process is gone.
  const handle = yield* spawner
    .spawn(
      ChildProcess.make(input.facts.base, args, {
        cwd: input.directory,
        env: installerVariables(yield* Host, input),
        forceKillAfter: "2 seconds"
      })
    )
    .pipe(
      // Node throws some of what keeps a process from starting.
      Effect.catchDefect(Effect.fail),
      Effect.mapError((error) => crashed(null, whyOf(error)))
    )
  const lines = yield* handle.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) => {
      const event = Schema.decodeUnknownOption(EventJson)(line)
      if (Option.isNone(event)) return Effect.void
      if (event.value.event === "ready" || event.value.event === "failed") outcome = event.value
      return progress.on(event.value)
    }),
    Effect.ignore,
    Effect.forkScoped
  )
  yield* handle.stderr.pipe(
    Stream.decodeText(),
    Stream.runForEach((text) =>
      Effect.sync(() => {
        stderr = (stderr + text).slice(-stderrLimit)
      })
    ),
    Effect.ignore,
    Effect.forkScoped
  )
  const exitCode = yield* handle.exitCode.pipe(
    Effect.map(Number),
    Effect.mapError((error) => crashed(null, `${stderr}\n${whyOf(error)}`.trim()))
  )
  // The exit is what counts: a process that the script left behind could hold its output open.
  yield* Fiber.await(lines).pipe(Effect.timeoutOption("1 second"))
  // The assignment happens in the fiber above, where the compiler does not look.
  const last = outcome as Outcome | undefined
  return last ?? (yield* Effect.fail(crashed(exitCode, stderr)))
})
