/**
 * What a module's environment has and lacks, step by step as the library goes about it, but for making anything. A step
 * that fails is a problem with the library's own words, and those that need it are left out.
 */
import { access, constants, stat } from "node:fs/promises"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Result from "effect/Result"
import type { SynapseError } from "../../SynapseError.ts"
import { resolveEntrypoint } from "../entrypoint.ts"
import { type BuildInput, checkPinned, chooseUv, hintFor, installerVariables } from "../environmentBuild.ts"
import { environmentAt, findReady, type Link, readLink } from "../environmentCache.ts"
import { findOnPath, Host, withoutCredentials } from "../environmentHost.ts"
import { allInterpreters, capture, type Facts, makeSearch, type Search, wantedFrom } from "../environmentInterpreter.ts"
import { type Found, findInterpreter, realCacheDirectory, realDirectory, recipeOf } from "../environmentPlan.ts"
import { readRequirements } from "../environmentRequirements.ts"
import type { DoctorFlags } from "./doctor.ts"
import { freeBytes, inMiB } from "./examineMachine.ts"
import { type Finding, ok, problem, warning } from "./finding.ts"

/** An environment with a few packages takes about as much. */
const littleDisk = 1024 * 1024 * 1024

/** @internal */
export const examineModule = Effect.fnUntraced(function* (flags: DoctorFlags) {
  const fs = yield* FileSystem.FileSystem
  const named = flags.directory ?? "python"
  const isMissing = flags.directory === undefined && !(yield* Effect.orElseSucceed(fs.exists(named), () => false))
  if (!isMissing) return yield* examineDirectory(named, flags)
  const cache = yield* realCacheDirectory(undefined)
  const search = yield* makeSearch(process.cwd(), cache)
  const wanted = wantedFrom(flags.python, yield* Host)
  const found = yield* Effect.result(findInterpreter("venv", { _tag: "none" }, wanted, search))
  return [
    ok("module", "none was named, and there is no ./python: only this machine was looked at"),
    ...(yield* interpreters(found, yield* allInterpreters(wanted, search))),
    ...(Result.isSuccess(found) ? yield* provisioning(found.success.facts, search) : []),
    ...(yield* cacheDirectory(cache))
  ]
})

const examineDirectory = Effect.fnUntraced(function* (named: string, flags: DoctorFlags) {
  const mode = flags.environment ?? "venv"
  const cache = yield* realCacheDirectory(undefined)
  const directory = yield* Effect.result(realDirectory(named))
  if (Result.isFailure(directory)) return [failed("module", directory.failure), ...(yield* cacheDirectory(cache))]
  const entrypoint = yield* Effect.result(resolveEntrypoint(directory.success, flags.entrypoint ?? "main"))
  const requirements = yield* Effect.result(readRequirements(directory.success, undefined))
  const link = yield* readLink(directory.success, cache)
  const search = yield* makeSearch(directory.success, cache)
  const wanted = wantedFrom(flags.python, yield* Host)
  const found = yield* Effect.result(findInterpreter(mode, link, wanted, search))
  const findings: Array<Finding> = [
    Result.isSuccess(entrypoint)
      ? ok("module", `${entrypoint.success} in ${directory.success}`)
      : failed("module", entrypoint.failure),
    ...(yield* interpreters(found, yield* allInterpreters(wanted, search)))
  ]
  const isManaged = mode === "venv" && Result.isSuccess(found) && !found.success.own
  if (isManaged) findings.push(...(yield* provisioning(found.success.facts, search)))
  if (Result.isFailure(requirements)) findings.push(failed("requirements", requirements.failure))
  if (!isManaged) {
    if (Result.isSuccess(found)) findings.push(yield* unmanaged(found.success, link, search))
  } else if (Result.isSuccess(requirements)) {
    const recipe = yield* Effect.result(
      recipeOf({
        directory: directory.success,
        requirements: requirements.success,
        settings: {},
        facts: found.success.facts,
        cacheDirectory: cache
      })
    )
    findings.push(
      ...(Result.isSuccess(recipe)
        ? yield* managed(recipe.success, link, search)
        : [failed("environment", recipe.failure)])
    )
  }
  return [...findings, ...(yield* cacheDirectory(cache))]
})

/** The last line of a message of the library is what to do, where it has several. */
const failed = (subject: string, error: SynapseError): Finding => {
  const { reason } = error
  if (reason._tag === "InstallFailed") {
    return problem(
      subject,
      `\`${reason.command}\` failed\n${reason.output}`.trimEnd(),
      reason.hint ?? "Mend what it says"
    )
  }
  const lines = reason.message.split("\n")
  const last = lines.length > 1 ? lines.pop()! : undefined
  return problem(subject, lines.join("\n"), last ?? "Name another one, or create it")
}

const described = ({ environment, executable, freeThreaded, implementation, version }: Facts): string =>
  `${implementation === "cpython" ? "Python" : implementation} ${version}${freeThreaded ? " free-threaded" : ""}, ${executable}` +
  (environment === null ? "" : ` (in the environment ${environment})`)

const storeStub = /Microsoft Store stub/

const interpreters = Effect.fnUntraced(function* (
  found: Result.Result<Found, SynapseError>,
  candidates: Effect.Success<ReturnType<typeof allInterpreters>>
) {
  const findings: Array<Finding> = [
    Result.isSuccess(found) ? ok("python", described(found.success.facts)) : failed("python", found.failure)
  ]
  const used = Result.isSuccess(found) ? found.success.facts : undefined
  const seen = new Set(used === undefined ? [] : [used.base, used.executable])
  for (const { facts, file, refused } of candidates) {
    if (facts !== undefined && (seen.has(facts.base) || seen.has(facts.executable))) continue
    if (facts !== undefined) seen.add(facts.base)
    if (facts === undefined && storeStub.test(refused ?? "")) {
      findings.push(
        warning(
          "other python",
          `${file}: ${refused}`,
          "Turn its alias off in Settings > Apps > App execution aliases, or install Python from python.org"
        )
      )
    } else {
      findings.push(
        ok(
          "other python",
          facts === undefined
            ? `${file}: ${refused}`
            : ((refused && `${facts.executable}: ${refused}`) ?? described(facts))
        )
      )
    }
  }
  return findings
})

// What the script that makes environments goes by, too.
const modulesScript = `
import importlib.util as util, json
def version():
    try:
        from importlib.metadata import version
        return version("pip")
    except Exception:
        return None
print(json.dumps({"venv": util.find_spec("venv") is not None, "ensurepip": util.find_spec("ensurepip") is not None, "pip": version()}))
`

interface Modules {
  readonly venv: boolean
  readonly ensurepip: boolean
  readonly pip: string | null
}

const modulesOf = (facts: Facts, search: Search) =>
  capture(facts.base, ["-I", "-c", modulesScript], search.directory).pipe(
    Effect.flatMap(({ stderr, stdout }) =>
      Effect.try({ try: () => JSON.parse(stdout) as Modules, catch: () => stderr || "no answer" })
    ),
    Effect.result
  )

/** What makes environments: venv and pip of the interpreter, or uv. */
const provisioning = Effect.fnUntraced(function* (facts: Facts, search: Search) {
  const [major, minor] = facts.version.split(".")
  const uv = (yield* findOnPath("uv"))[0]
  const modules = yield* modulesOf(facts, search)
  if (Result.isFailure(modules)) {
    return [
      problem("venv", `${facts.base} did not answer: ${modules.failure}`, "Install this Python again, or another")
    ]
  }
  const { ensurepip, pip, venv } = modules.success
  const isNewPip = pip !== null && compareVersions(pip, [22, 3]) >= 0
  const isComplete = venv && (ensurepip || isNewPip)
  const missing = [...(venv ? [] : ["venv"]), ...(ensurepip ? [] : ["ensurepip"])].join(" and ")
  const fix = `apt install python${major}.${minor}-venv (Debian, Ubuntu), or install uv`
  return [
    isComplete || uv !== undefined
      ? ok(
          "venv",
          missing === ""
            ? "venv and ensurepip"
            : `without ${missing}, which ${uv === undefined ? "pip" : "uv"} makes up for`
        )
      : problem("venv", `this Python comes without ${missing}`, fix),
    ok(
      "installers",
      [
        `pip ${pip ?? (ensurepip ? "from ensurepip" : "is not there")}`,
        uv === undefined ? "uv is not on PATH" : `uv at ${uv}`
      ].join(", ")
    )
  ]
})

const compareVersions = (version: string, [major, minor]: readonly [number, number]): number => {
  const [actualMajor = 0, actualMinor = 0] = version.split(".").map(Number)
  return actualMajor === major ? actualMinor - minor : actualMajor - major
}

/** An environment that is used as it is. */
const unmanaged = Effect.fnUntraced(function* ({ facts, own }: Found, link: Link, search: Search) {
  const whose = own ? "your own .venv, used as it is" : "used as it is"
  const msgspec = yield* capture(facts.executable, ["-I", "-c", "import msgspec"], search.directory).pipe(
    Effect.map(({ exitCode }) => exitCode === 0),
    Effect.orElseSucceed(() => false)
  )
  const where = facts.environment ?? (link._tag === "ours" ? link.target : facts.base)
  return msgspec
    ? ok("environment", `${where} (${whose})`)
    : warning(
        "environment",
        `${where} (${whose}) has no msgspec: messages are slower`,
        `${facts.executable} -m pip install msgspec`
      )
})

/** The environment that Synapse makes: whether it is there, and if not, whether it can be. */
const managed = Effect.fnUntraced(function* (recipe: BuildInput, link: Link, search: Search) {
  const { names } = recipe.requirements
  const packages = names.length === 0 ? "none" : names.slice(0, 8).join(", ") + (names.length > 8 ? ", ..." : "")
  const ready = yield* findReady(recipe.cacheDirectory, recipe.key)
  const before = link._tag === "ours" ? yield* environmentAt(link.target) : undefined
  const other =
    link._tag === "other"
      ? [
          warning(
            "link",
            `${recipe.directory}/.venv is a file, so that editors do not find the environment`,
            "Remove it, and the next start leaves a link there"
          )
        ]
      : []
  if (ready !== undefined) {
    return [
      ok("requirements", names.length === 0 ? packages : `${packages}: installed`),
      ok("environment", `${ready.path}, up to date`),
      ...other
    ]
  }
  const isOld = before !== undefined
  return [
    yield* available(recipe, packages, search),
    warning(
      "environment",
      isOld ? `${before.path} is out of date: the interpreter, the requirements or Synapse changed` : "is not made yet",
      "Nothing to do: the next start makes it"
    ),
    ...other
  ]
})

/** Asks the installer whether it could install, without installing. */
const available = Effect.fnUntraced(function* (recipe: BuildInput, packages: string, search: Search) {
  const subject = "requirements"
  const { files, loose, pyproject } = recipe.requirements
  if (recipe.strict) {
    const pinned = yield* Effect.result(checkPinned(loose))
    if (Result.isFailure(pinned)) return failed(subject, pinned.failure)
  }
  const uv = yield* Effect.result(chooseUv(recipe))
  if (Result.isFailure(uv)) return failed(subject, uv.failure)
  const sources = [...files, ...(pyproject === undefined ? [] : [pyproject])]
  if (recipe.requirements.names.length === 0) return ok(subject, packages)
  const host = yield* Host
  const env = installerVariables(host, recipe)
  const asked =
    uv.success === null
      ? pyproject === undefined
        ? [
            recipe.facts.base,
            ...["-I", "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-input", "--no-color", "--quiet"],
            ...["--disable-pip-version-check", "--break-system-packages", "--only-binary", ":all:"],
            ...files.flatMap((file) => ["-r", file])
          ]
        : undefined
      : [
          uv.success,
          ...["pip", "compile", "--quiet", "--no-header", "--only-binary", ":all:", "--python", recipe.facts.base],
          ...sources
        ]
  if (asked === undefined) return ok(subject, `${packages}: not installed yet`)
  const [command = "", ...args] = asked
  const answer = yield* Effect.result(capture(command, args, search.directory, env, 120))
  if (Result.isFailure(answer)) {
    return warning(subject, `${packages}: not installed yet, and ${command} ${answer.failure}`, "Check the network")
  }
  const { exitCode, stderr, stdout } = answer.success
  if (exitCode === 0) return ok(subject, `${packages}: wheels for all of them are there to install`)
  const output = withoutCredentials(`${stdout}\n${stderr}`.trim())
  if (/no such option|unrecognized arguments|No module named pip/.test(output)) {
    return ok(subject, `${packages}: not installed yet`)
  }
  const last = output
    .split("\n")
    .filter((line) => line.trim() !== "")
    .slice(-3)
    .join("\n")
  return problem(
    subject,
    `${packages}: cannot all be installed from wheels\n${last}`,
    hintFor(output, recipe) ?? "Mend what the installer says"
  )
})

/** Where environments are kept: there, writable, of this user alone, and with room. */
const cacheDirectory = Effect.fnUntraced(function* (directory: string) {
  const path = yield* Path.Path
  const subject = "cache"
  const choose = "Choose another with SYNAPSE_CACHE_DIRECTORY"
  const existing = yield* nearestExisting(path, directory)
  const isWritable = yield* Effect.promise(() =>
    access(existing, constants.W_OK | constants.X_OK).then(
      () => true,
      () => false
    )
  )
  if (!isWritable) return [problem(subject, `${directory} cannot be written`, `${choose}, or make it writable`)]
  const mode = existing === directory ? yield* Effect.promise(() => stat(directory).then(({ mode }) => mode)) : 0
  const free = yield* freeBytes(existing)
  const detail = `${directory}${free === undefined ? "" : `, ${inMiB(free)} free`}`
  if ((mode & 0o022) !== 0) {
    return [
      warning(subject, `${detail}: others may write to it, and what they write would be run`, `chmod go-w ${directory}`)
    ]
  }
  if (free !== undefined && free < littleDisk)
    return [warning(subject, detail, `Make room, or: ${choose.toLowerCase()}`)]
  return [ok(subject, detail)]
})

const nearestExisting = Effect.fnUntraced(function* (path: Path.Path, directory: string) {
  const fs = yield* FileSystem.FileSystem
  for (let at = directory; ; at = path.dirname(at)) {
    if (path.dirname(at) === at || (yield* Effect.orElseSucceed(fs.exists(at), () => false))) return at
  }
})
