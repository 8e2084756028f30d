/**
 * Tells when the files of a module have changed.
 *
 * It looks at the files every now and then instead of asking the system to be told. Node's recursive `fs.watch` loses a
 * file on Linux once an editor has saved it by renaming over it: in a test, each of 80 later saves went unreported. It
 * also watches everything below `.venv` and `node_modules`, and hears nothing from network and container mounts.
 * Looking has none of these problems, survives the removal of the directory itself, and costs about a millisecond for a
 * hundred files.
 *
 * A file has changed when its modification time or size has: what Python goes by when it trusts its byte code.
 */

import type { Dirent } from "node:fs"
import * as NFS from "node:fs/promises"
import * as NPath from "node:path"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { quietSleep } from "./quietSleep.ts"

/** @internal */
export interface WatchOptions {
  /** The module's directory. It may be removed and made again. */
  readonly directory: string
  /** Files and directories that count too, whole, relative to the module's directory. */
  readonly paths?: ReadonlyArray<string> | undefined
  /** How long nothing may change before a burst of changes is reported as one. Default: 200 milliseconds. */
  readonly debounce?: Duration.Input | undefined
}

/** Between two looks. */
const intervalMillis = 300
/** The share of the time that may go into looking: a directory with very many files is looked at less often. */
const share = 0.05
const maxIntervalMillis = 5000
/** What never comes to rest is reported all the same, after so many times the debounce. */
const maxBursts = 25

/** The modification times and sizes of files, by their paths relative to the module's directory. */
type Snapshot = ReadonlyMap<string, string>

/**
 * The changes from now on: for each burst the files that were added, changed or removed, relative to the directory.
 *
 * The state that changes are told from is taken when this effect runs, so it runs before a worker reads the files. The
 * stream looks only while somebody pulls: changes during a reload are one element after it. It does not fail, does not
 * keep Node alive, and can be consumed once.
 */
export const changes = Effect.fnUntraced(function* (options: WatchOptions) {
  const debounceMillis = Duration.toMillis(options.debounce ?? "200 millis")
  const look = takeSnapshot(options.directory, options.paths ?? [])
  let seen = yield* look
  let pauseMillis = intervalMillis

  const settled = Effect.fnUntraced(function* (first: Snapshot) {
    let current = first
    for (let burst = 0; burst < maxBursts; burst++) {
      yield* quietSleep(debounceMillis)
      const next = yield* look
      if (next !== undefined && difference(current, next).length === 0) break
      current = next ?? current
    }
    return current
  })

  const next: Effect.Effect<ReadonlyArray<string>> = Effect.gen(function* () {
    while (true) {
      yield* quietSleep(pauseMillis)
      const start = performance.now()
      const found = yield* look
      pauseMillis = Math.min(Math.max(intervalMillis, (performance.now() - start) / share), maxIntervalMillis)
      if (found === undefined) continue
      // There was nothing to see at the start: what is there now is the state to tell changes from.
      seen ??= found
      if (difference(seen, found).length === 0) continue
      const current = yield* settled(found)
      const changed = difference(seen, current)
      seen = current
      // A temporary file that came and went leaves nothing to report.
      if (changed.length > 0) return changed
    }
  })
  return Stream.fromEffectRepeat(next)
})

const difference = (before: Snapshot, after: Snapshot): ReadonlyArray<string> => {
  const changed: Array<string> = []
  for (const [file, stamp] of after) if (before.get(file) !== stamp) changed.push(file)
  for (const file of before.keys()) if (!after.has(file)) changed.push(file)
  return changed.sort()
}

/** `undefined` while there is no telling: the directory is not there, or the system does not answer. */
const takeSnapshot = (directory: string, paths: ReadonlyArray<string>): Effect.Effect<Snapshot | undefined> =>
  Effect.promise(async (signal) => {
    const files = new Map<string, string>()
    try {
      const entries = await NFS.readdir(directory, { withFileTypes: true })
      const scan: Scan = { directory, files, signal }
      await Promise.all([
        visitEntries(scan, directory, entries, isSource),
        ...paths.map((path) => visitPath(scan, NPath.resolve(directory, path)))
      ])
      return files
    } catch {
      return undefined
    }
  })

interface Scan {
  readonly directory: string
  readonly files: Map<string, string>
  readonly signal: AbortSignal
}

const isSource = (name: string): boolean =>
  /\.py$|^requirements.*\.txt$|^pyproject\.toml$|^uv\.lock$/.test(name) && !isTemporary(name)

/** Hidden files, and what editors keep beside a file or write before they rename it. */
const isTemporary = (name: string): boolean =>
  /^[.#]|~$|#$|\.(?:tmp|bak|sw[a-p]|pyc)$|___jb_(?:tmp|old)___$|^4913$/.test(name)

const isData = (name: string): boolean => !isTemporary(name)

const visitEntries = async (
  scan: Scan,
  directory: string,
  entries: ReadonlyArray<Dirent>,
  counts: (name: string) => boolean
): Promise<void> => {
  scan.signal.throwIfAborted()
  await Promise.all(
    entries.map(async (entry) => {
      const path = NPath.join(directory, entry.name)
      // A link to a directory is not followed: it may lead anywhere, back to where it is as well.
      if (entry.isDirectory()) {
        if (/^\.|^__pycache__$|^node_modules$/.test(entry.name)) return
        const below = await unlessGone(NFS.readdir(path, { withFileTypes: true }))
        // A virtual environment under whatever name.
        if (below === undefined || below.some(({ name }) => name === "pyvenv.cfg")) return
        await visitEntries(scan, path, below, counts)
      } else if (counts(entry.name)) await visitFile(scan, path)
    })
  )
}

const visitFile = async (scan: Scan, path: string): Promise<void> => {
  const info = await unlessGone(NFS.stat(path, { bigint: true }))
  if (info?.isFile()) scan.files.set(NPath.relative(scan.directory, path), `${info.mtimeNs} ${info.size}`)
}

/** What is named counts, hidden or not. */
const visitPath = async (scan: Scan, path: string): Promise<void> => {
  const info = await unlessGone(NFS.stat(path))
  if (info?.isFile()) return visitFile(scan, path)
  const entries = info?.isDirectory() ? await unlessGone(NFS.readdir(path, { withFileTypes: true })) : undefined
  if (entries !== undefined) await visitEntries(scan, path, entries, isData)
}

const gone = new Set(["ENOENT", "ENOTDIR", "ELOOP", "EACCES", "EPERM"])

/** Any other failure, such as too many open files, says nothing about the file: the look counts for nothing then. */
const unlessGone = <A>(reading: Promise<A>): Promise<A | undefined> =>
  reading.catch((error: NodeJS.ErrnoException) => {
    if (gone.has(error.code ?? "")) return undefined
    throw error
  })
