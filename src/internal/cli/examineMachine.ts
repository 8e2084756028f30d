/** What a machine has for any module: Node, the platform, memory to share, the packages that are optional. */
import { readFileSync } from "node:fs"
import { statfs } from "node:fs/promises"
import { findPackageJSON } from "node:module"
import { arch, release } from "node:os"
import * as Effect from "effect/Effect"
import * as PythonProcess from "../../PythonProcess.ts"
import { Host } from "../environmentHost.ts"
import * as MemoryFile from "../memoryFile.ts"
import { type Finding, ok, problem, warning } from "./finding.ts"

const MiB = 1024 * 1024
/** Below this, an array of a common size finds no room. */
const littleMemoryMiB = 128

/** Bytes that a file system has free for this user; nothing where there is no telling. */
export const freeBytes = (directory: string): Effect.Effect<number | undefined> =>
  Effect.promise(() =>
    statfs(directory).then(
      ({ bavail, bsize }) => bavail * bsize,
      () => undefined
    )
  )

/** A number of bytes for people. */
export const inMiB = (bytes: number): string =>
  bytes >= 10 * 1024 * MiB ? `${Math.round(bytes / MiB / 1024)} GiB` : `${Math.round(bytes / MiB)} MiB`

const packageAt = (file: string): Package => JSON.parse(readFileSync(file, "utf8")) as Package

interface Package {
  readonly version: string
  readonly engines: { readonly node: string }
  readonly peerDependencies: Readonly<Record<string, string>>
}

const own = (): Package => packageAt(findPackageJSON("..", import.meta.url) ?? "package.json")

const node = Effect.sync((): Finding => ok("node", `${process.versions.node} (${own().engines.node} is needed)`))

const platform = Effect.gen(function* () {
  const host = yield* Host
  const detail = `${host.platform} ${arch()} ${release()}`
  const checked = yield* Effect.result(PythonProcess.checkPlatform)
  if (checked._tag === "Failure" || host.platform === "win32") {
    return problem("platform", `${detail}: workers do not run here`, "Use Linux, for example WSL 2")
  }
  return host.platform === "linux"
    ? ok("platform", detail)
    : warning("platform", `${detail}: untested`, "Use Linux where it matters")
})

const sharedMemory = Effect.gen(function* () {
  const subject = "shared memory"
  const { platform } = yield* Host
  if (platform !== "linux") return []
  const free = yield* freeBytes("/dev/shm")
  const fix = "Give /dev/shm more (docker run --shm-size=1g); without it large values travel in the messages"
  if (free === undefined) return [warning(subject, "there is no /dev/shm", fix)]
  const isOpen = yield* Effect.sync(() => {
    const file = MemoryFile.open()
    file?.close()
    return file !== undefined
  })
  if (!isOpen) return [warning(subject, "/dev/shm cannot be written", fix)]
  const detail = `/dev/shm has ${inMiB(free)} free`
  return [free < littleMemoryMiB * MiB ? warning(subject, detail, fix) : ok(subject, detail)]
})

const optionalPackages: ReadonlyArray<readonly [name: string, use: string]> = [
  ["koffi", "sharedMemory.inPlace"],
  ["apache-arrow", "effect-synapse/Arrow"]
]

const optionalPackage = ([name, use]: readonly [string, string]): Finding => {
  const file = findPackage(name)
  if (file === undefined) return ok(name, `not installed; only ${use} needs it`)
  const { version } = packageAt(file)
  const least = /\d+/.exec(own().peerDependencies[name] ?? "")?.[0]
  return Number(version.split(".")[0]) < Number(least)
    ? warning(name, `${version}, older than ${use} needs`, `npm install ${name}@${own().peerDependencies[name]}`)
    : ok(name, version)
}

const findPackage = (name: string): string | undefined => {
  try {
    return findPackageJSON(name, import.meta.url)
  } catch {
    return undefined
  }
}

/** @internal */
export const examineMachine: Effect.Effect<ReadonlyArray<Finding>> = Effect.gen(function* () {
  return [
    yield* node,
    yield* platform,
    ...(yield* sharedMemory),
    ...optionalPackages.map(optionalPackage)
  ] satisfies ReadonlyArray<Finding>
})
