/**
 * Finding a Python interpreter: what to try in which order, what each candidate is, and why it was refused.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { PythonNotFound, SynapseError } from "../SynapseError.ts"
import { findOnPath, Host, interpretersIn, type Stamp, sha256, stampOf, variable, whyOf } from "./environmentHost.ts"

const minimum = ">=3.10"
const newestMinor = 14
const oldestMinor = 10

/** What an interpreter says about itself. */
export const Facts = Schema.Struct({
  /** `sys.executable`: the interpreter itself, and not the shim that led to it. */
  executable: Schema.String,
  /** The real path of the interpreter below any virtual environment. */
  base: Schema.String,
  /** The root of the virtual or conda environment it belongs to. */
  environment: Schema.NullOr(Schema.String),
  version: Schema.String,
  implementation: Schema.String,
  cacheTag: Schema.NullOr(Schema.String),
  platform: Schema.String,
  soabi: Schema.NullOr(Schema.String),
  freeThreaded: Schema.Boolean,
  size: Schema.Number,
  mtime: Schema.Number
})

/** @internal */
export type Facts = typeof Facts.Type

// Old syntax on purpose: an interpreter that is too old has to be able to say so.
const probeScript = `
import sys, os, json, sysconfig
executable = os.path.abspath(sys.executable)
base = os.path.realpath(getattr(sys, "_base_executable", None) or executable)
environment = None
for root in (os.path.dirname(os.path.dirname(executable)), os.path.dirname(executable)):
    if os.path.exists(os.path.join(root, "pyvenv.cfg")) or os.path.exists(os.path.join(root, "conda-meta")):
        environment = root
        break
stat = os.stat(base)
print("\\n" + json.dumps({
    "executable": executable, "base": base, "environment": environment,
    "version": ".".join(str(part) for part in sys.version_info[:3]),
    "implementation": sys.implementation.name, "cacheTag": sys.implementation.cache_tag,
    "platform": sysconfig.get_platform(), "soabi": sysconfig.get_config_var("SOABI"),
    "freeThreaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "size": stat.st_size, "mtime": int(stat.st_mtime)}))
`

const FactsJson = Schema.fromJsonString(Facts)

/** A version range as PEP 440 writes it; `undefined` when the text is none. */
export const parseRange = (text: string): ((version: string) => boolean) | undefined => {
  const tests = text.split(",").map((part) => parseClause(part.trim()))
  if (tests.some((test) => test === undefined)) return undefined
  return (version) => tests.every((test) => test!(version))
}

const numbers = (version: string): ReadonlyArray<number> => version.split(".").map(Number)

const compare = (a: ReadonlyArray<number>, b: ReadonlyArray<number>): number => {
  for (let index = 0; index < Math.max(a.length, b.length); index++) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

const parseClause = (clause: string): ((version: string) => boolean) | undefined => {
  const match = /^(>=|<=|==|!=|~=|>|<|)\s*(\d+(?:\.\d+){0,2})(\.\*)?$/.exec(clause)
  if (match === null) return undefined
  const wanted = numbers(match[2]!)
  const operator = match[1]!
  // "3.12" and "==3.12.*" mean every 3.12; "==3.12" is exact, as in PEP 440.
  const prefix = operator === "" || match[3] !== undefined
  if (prefix && !["", "==", "!="].includes(operator)) return undefined
  const startsWith = (version: string, parts: ReadonlyArray<number>) => {
    const actual = numbers(version)
    return parts.every((part, index) => actual[index] === part)
  }
  switch (operator) {
    case ">=":
      return (version) => compare(numbers(version), wanted) >= 0
    case "<=":
      return (version) => compare(numbers(version), wanted) <= 0
    case ">":
      return (version) => compare(numbers(version), wanted) > 0
    case "<":
      return (version) => compare(numbers(version), wanted) < 0
    case "~=":
      if (wanted.length < 2) return undefined
      return (version) => compare(numbers(version), wanted) >= 0 && startsWith(version, wanted.slice(0, -1))
    case "!=":
      return (version) => !(prefix ? startsWith(version, wanted) : compare(numbers(version), wanted) === 0)
    default:
      return (version) => (prefix ? startsWith(version, wanted) : compare(numbers(version), wanted) === 0)
  }
}

const atLeastMinimum = parseRange(minimum)!

/** What is remembered of a candidate, and the states of the files that it was learnt from. */
const Remembered = Schema.Struct({
  real: Schema.String,
  size: Schema.Number,
  mtime: Schema.Number,
  /** The state of what a shim consults; empty for an interpreter that is no shim. */
  context: Schema.String,
  facts: Schema.optionalKey(Facts),
  refused: Schema.optionalKey(Schema.String)
})

type Remembered = typeof Remembered.Type

const RememberedJson = Schema.fromJsonString(Remembered)

/** @internal */
export interface Search {
  /** The module's directory: shims and uv look for the version that is pinned there. */
  readonly directory: string
  readonly cacheDirectory: string
  /** The state of everything that decides which interpreter a shim (pyenv, asdf, mise, uv) leads to. */
  readonly shims: Effect.Effect<string>
}

/** @internal */
export const makeSearch = Effect.fnUntraced(function* (directory: string, cacheDirectory: string) {
  const context = yield* Effect.context<FileSystem.FileSystem | Path.Path>()
  const shims = yield* Effect.cached(Effect.provideContext(shimContext(directory), context))
  return { directory, cacheDirectory, shims } satisfies Search as Search
})

const outputLimit = 64 * 1024

/** Runs a command to its end. Fails with a sentence when it cannot be run or does not end. */
export const capture = Effect.fnUntraced(function* (
  command: string,
  args: ReadonlyArray<string>,
  cwd: string,
  env?: Record<string, string | undefined>,
  timeoutSeconds = 30
) {
  const spawner = yield* ChildProcessSpawner
  const text = (stream: Stream.Stream<Uint8Array, unknown>) =>
    stream.pipe(
      Stream.decodeText(),
      Stream.runFold(
        () => "",
        (all, part) => (all.length < outputLimit ? all + part : all)
      ),
      Effect.orElseSucceed(() => "")
    )
  return yield* Effect.gen(function* () {
    const handle = yield* spawner.spawn(
      ChildProcess.make(command, args, {
        cwd,
        stdin: "ignore",
        forceKillAfter: "1 second",
        ...(env === undefined ? {} : { env, extendEnv: true })
      })
    )
    const [stdout, stderr, exitCode] = yield* Effect.all([text(handle.stdout), text(handle.stderr), handle.exitCode], {
      concurrency: "unbounded"
    })
    return { stdout, stderr, exitCode: Number(exitCode) }
  }).pipe(
    Effect.scoped,
    Effect.mapError((error) => (error.reason._tag === "NotFound" ? "cannot be started" : whyOf(error))),
    // Node throws some of what keeps a process from starting.
    Effect.catchDefect((defect) => Effect.fail(whyOf(defect))),
    // Generous: a machine under load, or a virus scanner that sees this interpreter for the first time.
    Effect.timeoutOrElse({
      duration: `${timeoutSeconds} seconds`,
      orElse: () => Effect.fail(`did not answer within ${timeoutSeconds} seconds`)
    })
  )
})

const firstLine = (text: string): string =>
  text
    .split("\n")
    .find((line) => line.trim() !== "")
    ?.trim() ?? ""

/** Why a process that should have printed its facts did not. */
const explain = (file: string, exitCode: number, stdout: string, stderr: string): string => {
  if (exitCode === 9009 || (/[\\/]WindowsApps[\\/]/i.test(file) && stdout.trim() === "")) {
    return "the Microsoft Store stub, not Python"
  }
  const said = firstLine(stderr) || firstLine(stdout)
  return `is not a Python 3 that works (exit code ${exitCode}${said === "" ? ", no output" : `: ${said}`})`
}

const probeArgs = ["-I", "-S", "-c", probeScript]

type Probed = Result.Result<Facts, { readonly refused: string; readonly lasting: boolean }>

const runProbe = (file: string, cwd: string): Effect.Effect<Probed, never, ChildProcessSpawner> =>
  capture(file, probeArgs, cwd).pipe(
    Effect.map(({ exitCode, stderr, stdout }): Probed => {
      const decoded = Schema.decodeUnknownResult(FactsJson)(stdout.trim().split("\n").at(-1))
      return exitCode === 0 && Result.isSuccess(decoded)
        ? Result.succeed(decoded.success)
        : Result.fail({ refused: explain(file, exitCode, stdout, stderr), lasting: true })
    }),
    Effect.catch((refused) => Effect.succeed<Probed>(Result.fail({ refused, lasting: false })))
  )

const shimContext = Effect.fnUntraced(function* (directory: string) {
  const host = yield* Host
  const path = yield* Path.Path
  const variables = Object.entries(host.env)
    .filter(([name]) => /^(PYENV_|ASDF_|MISE_|UV_PYTHON)/.test(name))
    .map(([name, value]) => `${name}=${value}`)
    .sort()
  const files = [
    path.join(variable(host, "PYENV_ROOT") ?? path.join(host.home, ".pyenv"), "version"),
    path.join(host.home, ".tool-versions"),
    path.join(host.home, ".config", "mise", "config.toml")
  ]
  for (let at = directory; ; at = path.dirname(at)) {
    files.push(...[".python-version", ".tool-versions", "mise.toml", ".mise.toml"].map((name) => path.join(at, name)))
    if (path.dirname(at) === at) break
  }
  const stamps = yield* Effect.forEach(files, stampOf, { concurrency: "unbounded" })
  const states = files.flatMap((file, index) => {
    const stamp = stamps[index]
    return stamp === undefined ? [] : [`${file} ${stamp.size} ${stamp.mtime}`]
  })
  return sha256([directory, ...variables, ...states].join("\n"))
})

const memoryOf = Effect.fnUntraced(function* (search: Search, what: string) {
  const path = yield* Path.Path
  return path.join(search.cacheDirectory, "interpreters", `${sha256(what).slice(0, 32)}.json`)
})

/** A convenience that may fail in silence: without a writable cache every start asks the interpreter again. */
const remember = (file: string, content: string): Effect.Effect<void, never, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    yield* fs.makeDirectory(path.dirname(file), { recursive: true, mode: 0o700 })
    const temporary = `${file}.${process.pid}.${Date.now()}`
    yield* fs.writeFileString(temporary, content)
    yield* fs.rename(temporary, file)
  }).pipe(Effect.ignore)

const recall = Effect.fnUntraced(function* (file: string) {
  const fs = yield* FileSystem.FileSystem
  return yield* fs.readFileString(file).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(RememberedJson)),
    Effect.orElseSucceed(() => undefined)
  )
})

interface FileState extends Stamp {
  readonly real: string
  /** The configuration of the virtual environment the file may belong to. */
  readonly configuration: string
}

const stateOf = Effect.fnUntraced(function* (file: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const [stamp, real, configuration] = yield* Effect.all(
    [
      stampOf(file),
      fs.realPath(file).pipe(Effect.orElseSucceed(() => file)),
      stampOf(path.join(path.dirname(path.dirname(file)), "pyvenv.cfg"))
    ],
    { concurrency: "unbounded" }
  )
  if (stamp === undefined) return undefined
  return {
    ...stamp,
    real,
    configuration: configuration === undefined ? "" : `${configuration.size} ${configuration.mtime}`
  } satisfies FileState
})

/**
 * Learns what an interpreter is: from memory when neither it nor, for a shim, what it consults has changed, and from
 * itself otherwise. `fresh` does not trust a remembered refusal.
 */
const probe = Effect.fnUntraced(function* (file: string, search: Search, fresh: boolean) {
  const state = yield* stateOf(file)
  if (state === undefined) return Result.fail("does not exist")
  const memory = yield* memoryOf(search, `${file}\n${state.configuration}`)
  const known = yield* recall(memory)
  if (
    known !== undefined &&
    known.real === state.real &&
    known.size === state.size &&
    known.mtime === state.mtime &&
    (known.context === "" || known.context === (yield* search.shims))
  ) {
    const facts = known.facts
    // A shim's interpreter may change or go while the shim stays.
    const current = facts === undefined ? undefined : yield* stampOf(facts.base)
    if (facts !== undefined && current?.size === facts.size && current.mtime === facts.mtime) {
      return Result.succeed(facts)
    }
    if (facts === undefined && known.refused !== undefined && !fresh) return Result.fail(known.refused)
  }
  return yield* probeAndRemember(file, state, memory, search)
})

const probeAndRemember = Effect.fnUntraced(function* (file: string, state: FileState, memory: string, search: Search) {
  const fs = yield* FileSystem.FileSystem
  const probed = yield* runProbe(file, search.directory)
  const base = { real: state.real, size: state.size, mtime: state.mtime }
  if (Result.isFailure(probed)) {
    if (probed.failure.lasting) {
      const context = yield* search.shims
      yield* remember(memory, encodeRemembered({ ...base, context, refused: probed.failure.refused }))
    }
    return Result.fail(probed.failure.refused)
  }
  const facts = probed.success
  const real = yield* fs.realPath(facts.executable).pipe(Effect.orElseSucceed(() => facts.executable))
  const context = real === state.real ? "" : yield* search.shims
  yield* remember(memory, encodeRemembered({ ...base, context, facts }))
  return Result.succeed(facts)
})

const encodeRemembered = (remembered: Remembered): string => JSON.stringify(remembered)

/** @internal */
export interface Tried {
  readonly candidate: string
  readonly found: string
}

const notFound = (wanted: string, tried: ReadonlyArray<Tried>): SynapseError =>
  new SynapseError({ reason: new PythonNotFound({ wanted, tried }) })

/** What `python` (the option or SYNAPSE_PYTHON) asks for. */
export interface Wanted {
  readonly explicit: string | undefined
  readonly range: string | undefined
  readonly satisfies: (version: string) => boolean
  /** As an error names it. */
  readonly text: string
}

/** @internal */
export const wantedFrom = (python: string | undefined, host: Host): Wanted => {
  const variableValue = variable(host, "SYNAPSE_PYTHON")
  const range = [python, variableValue].find((text) => text !== undefined && parseRange(text) !== undefined)
  const explicit = [python, variableValue].find((text) => text !== undefined && parseRange(text) === undefined)
  const inRange = range === undefined ? () => true : parseRange(range)!
  const named = explicit === undefined ? undefined : explicit === python ? explicit : `SYNAPSE_PYTHON=${explicit}`
  return {
    explicit,
    range,
    satisfies: (version) => atLeastMinimum(version) && inRange(version),
    text: [...(named === undefined ? [] : [named]), range ?? minimum].join(", ")
  }
}

const check = (facts: Facts, wanted: Wanted): string | undefined => {
  if (wanted.satisfies(facts.version)) return undefined
  return atLeastMinimum(facts.version)
    ? `Python ${facts.version}, not in the range ${wanted.range}`
    : `Python ${facts.version}, older than the oldest supported 3.10`
}

/** Probes one interpreter that has to do: whatever is wrong with it is the error. */
const demand = Effect.fnUntraced(function* (
  candidates: ReadonlyArray<string>,
  wanted: Wanted,
  search: Search,
  advice: string
) {
  const tried: Array<Tried> = []
  for (const candidate of candidates) {
    const probed = yield* probe(candidate, search, true)
    const refused = Result.isSuccess(probed) ? check(probed.success, wanted) : probed.failure
    if (Result.isSuccess(probed) && refused === undefined) return probed.success
    tried.push({ candidate, found: refused! + advice })
  }
  return yield* Effect.fail(notFound(wanted.text, tried))
})

/** The interpreter that the option `python` or SYNAPSE_PYTHON names: by path, by its environment, or by command. */
export const explicitInterpreter = Effect.fnUntraced(function* (explicit: string, wanted: Wanted, search: Search) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  if (/[\\/]/.test(explicit)) {
    const file = path.resolve(explicit)
    const isDirectory = yield* fs.stat(file).pipe(
      Effect.map((info) => info.type === "Directory"),
      Effect.orElseSucceed(() => false)
    )
    return yield* isDirectory ? environmentInterpreter(file, wanted, search, "") : demand([file], wanted, search, "")
  }
  const found = yield* findOnPath(explicit)
  if (found.length > 0) return yield* demand(found.slice(0, 1), wanted, search, "")
  return yield* Effect.fail(notFound(wanted.text, [{ candidate: explicit, found: "is not on PATH" }]))
})

/** The interpreter of an environment that somebody else made. */
export const environmentInterpreter = Effect.fnUntraced(function* (
  root: string,
  wanted: Wanted,
  search: Search,
  advice: string
) {
  const path = yield* Path.Path
  const files = interpretersIn(yield* Host, path, root)
  const stamps = yield* Effect.forEach(files, stampOf, { concurrency: "unbounded" })
  const existing = files.filter((_, index) => stamps[index] !== undefined)
  return yield* demand(existing.length > 0 ? existing.slice(0, 1) : files.slice(0, 1), wanted, search, advice)
})

type Searched =
  | { readonly _tag: "found"; readonly facts: Facts }
  | { readonly _tag: "none"; readonly tried: ReadonlyArray<Tried> }

/** Searches the machine: uv's choice, then PATH. */
export const searchInterpreter = Effect.fnUntraced(function* (wanted: Wanted, search: Search) {
  const first = yield* searchOnce(wanted, search, false)
  // What was refused before may work by now.
  const last = first._tag === "found" ? first : yield* searchOnce(wanted, search, true)
  return last._tag === "found" ? last.facts : yield* Effect.fail(notFound(wanted.text, last.tried))
})

const searchOnce = Effect.fnUntraced(function* (wanted: Wanted, search: Search, fresh: boolean) {
  const host = yield* Host
  const tried: Array<Tried> = []
  const seen = new Set<string>()
  const consider = Effect.fnUntraced(function* (file: string, label: string) {
    if (seen.has(file)) return undefined
    seen.add(file)
    const probed = yield* probe(file, search, fresh)
    const refused = Result.isSuccess(probed) ? check(probed.success, wanted) : probed.failure
    if (Result.isSuccess(probed) && refused === undefined) return probed.success
    tried.push({ candidate: label, found: refused! })
    return undefined
  })
  for (const finder of findersOf(host, wanted)) {
    const files = yield* findOnPath(finder.command)
    if (files.length === 0 && finder.ask === undefined)
      tried.push({ candidate: finder.command, found: "is not on PATH" })
    for (const file of files) {
      const answer = finder.ask === undefined ? file : yield* ask(file, finder.ask, search)
      if (answer === undefined) tried.push({ candidate: [file, ...finder.ask!].join(" "), found: "none" })
      const facts = answer === undefined ? undefined : yield* consider(answer, answer)
      if (facts !== undefined) return { _tag: "found", facts } as Searched
    }
  }
  return { _tag: "none", tried } as Searched
})

/** @internal */
export interface Candidate {
  readonly file: string
  /** What it is; nothing where it is no interpreter that works. */
  readonly facts: Facts | undefined
  /** Why it is not used. */
  readonly refused: string | undefined
}

/** Every interpreter that a search would look at, in its order, and what each is. */
export const allInterpreters = Effect.fnUntraced(function* (wanted: Wanted, search: Search) {
  const candidates = new Map<string, Candidate>()
  for (const finder of findersOf(yield* Host, wanted)) {
    for (const found of yield* findOnPath(finder.command)) {
      const file = finder.ask === undefined ? found : yield* ask(found, finder.ask, search)
      if (file === undefined || candidates.has(file)) continue
      const probed = yield* probe(file, search, true)
      candidates.set(
        file,
        Result.isSuccess(probed)
          ? { file, facts: probed.success, refused: check(probed.success, wanted) }
          : { file, facts: undefined, refused: probed.failure }
      )
    }
  }
  return [...candidates.values()] as ReadonlyArray<Candidate>
})

interface Finder {
  readonly command: string
  /** For a command that knows interpreters: the arguments with which it prints the path of one. */
  readonly ask?: ReadonlyArray<string>
}

const findersOf = (host: Host, wanted: Wanted): ReadonlyArray<Finder> => {
  const uv = { command: "uv", ask: ["python", "find", "--system", "--no-python-downloads", wanted.range ?? minimum] }
  if (host.platform === "win32") {
    return [
      uv,
      { command: "py", ask: ["-3", "-I", "-S", "-c", "import sys; print(sys.executable)"] },
      { command: "python" }
    ]
  }
  const versions = Array.from({ length: newestMinor - oldestMinor + 1 }, (_, index) => `3.${newestMinor - index}`)
  const possible = versions.filter((version) => mayHold(version, wanted)).map((version) => `python${version}`)
  return [uv, ...[...possible, "python3", "python"].map((command) => ({ command }))]
}

/** Whether some patch release of `3.N` can be in the range. */
const mayHold = (version: string, wanted: Wanted): boolean =>
  Array.from({ length: 40 }, (_, patch) => `${version}.${patch}`).some(wanted.satisfies)

/** Asks a command for the path of an interpreter, once per state of that command and of what it consults. */
const ask = Effect.fnUntraced(function* (command: string, args: ReadonlyArray<string>, search: Search) {
  const fs = yield* FileSystem.FileSystem
  const stamp = yield* stampOf(command)
  const context = [command, ...args, yield* search.shims, stamp?.size, stamp?.mtime].join("\n")
  const memory = yield* memoryOf(search, context)
  const known = yield* fs.readFileString(memory).pipe(Effect.orElseSucceed(() => ""))
  if (known !== "" && (yield* stampOf(known)) !== undefined) return known
  const answer = yield* capture(command, args, search.directory, { UV_PYTHON_DOWNLOADS: "never" }).pipe(
    Effect.orElseSucceed(() => undefined)
  )
  const found = answer?.exitCode === 0 ? answer.stdout.trim() : ""
  if (found === "") return undefined
  yield* remember(memory, found)
  return found
})
