/**
 * A control group of one worker: the kernel counts the memory of all that is in it, and kills there when it is too much.
 *
 * It is made below the group that this process is in, so that whatever limits this process limits the worker as well.
 */
import { randomUUID } from "node:crypto"
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs"
import { rmdir } from "node:fs/promises"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { StartFailed, SynapseError } from "../SynapseError.ts"

export interface ControlGroup {
  /** Its directory. Whatever writes `0` to `cgroup.procs` there is in it from then on. */
  readonly path: string
  /** Whether the kernel has killed a process in it because memory ran out. */
  readonly hasRunOut: () => boolean
}

/** A group that others can be made below. */
export interface Parent {
  readonly version: 1 | 2
  readonly path: string
}

/** How long the kernel may take to let go of a group whose processes were killed. */
const removeMillis = 2000

/**
 * Makes a group whose processes have so many bytes of memory together. The scope owns it: closing it kills what is in it,
 * and removes it. Fails with `StartFailed` where no group can be made.
 */
export const make = (
  bytes: number,
  locate: () => Parent = locateOwn
): Effect.Effect<ControlGroup, SynapseError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      try {
        return Effect.succeed(makeUnsafe(locate(), bytes))
      } catch (error) {
        return Effect.fail(unavailable(error instanceof Error ? error.message : String(error)))
      }
    }),
    ({ path }) => Effect.promise(() => remove(path))
  )

const unavailable = (what: string): SynapseError =>
  new SynapseError({
    reason: new StartFailed({
      kind: "options",
      detail: `limits.memoryBy "cgroup" is not possible here: ${what}. "watch" and "rlimit" need no control group`
    })
  })

const makeUnsafe = (parent: Parent, bytes: number): ControlGroup => {
  if (parent.version === 2) giveMemoryOn(parent.path)
  removeForgotten(parent.path)
  const path = join(parent.path, `synapse-${process.pid}-${randomUUID()}`)
  try {
    mkdirSync(path)
  } catch (error) {
    throw new Error(`no group can be made in ${parent.path}: ${refusal(error as NodeJS.ErrnoException)}`)
  }
  const [limit, swap, events] =
    parent.version === 2
      ? (["memory.max", "memory.swap.max", "memory.events"] as const)
      : (["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control"] as const)
  try {
    writeFileSync(join(path, limit), String(bytes))
  } catch (error) {
    removeIfEmpty(path)
    throw error
  }
  // Not on every system, and not needed where there is no swap.
  tryWrite(join(path, swap), parent.version === 2 ? "0" : String(bytes))
  if (parent.version === 2) tryWrite(join(path, "memory.oom.group"), "1")
  return {
    path,
    hasRunOut: () => Number(/^oom_kill (\d+)$/m.exec(tryRead(join(path, events)))?.[1] ?? 0) > 0
  }
}

const refusal = ({ code, message }: NodeJS.ErrnoException): string => {
  switch (code) {
    case "EACCES":
    case "EPERM":
      return "this process may not write there"
    case "EROFS":
      return "it is mounted to be read only"
    default:
      return message
  }
}

// A group of version 2 has a controller only where the one above it gives that on.
const giveMemoryOn = (path: string): void => {
  const controls = join(path, "cgroup.subtree_control")
  if (readFileSync(controls, "utf8").trim().split(" ").includes("memory")) return
  try {
    writeFileSync(controls, "+memory")
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === "EBUSY"
      ? new Error(
          `${path} has processes in it, this one among them, and the kernel lets no such group give the memory controller on`
        )
      : error
  }
}

// A process that was killed could not remove its groups, and the kernel does not.
const removeForgotten = (parent: string): void => {
  for (const entry of readdirSync(parent)) {
    const [, pid] = /^synapse-(\d+)-/.exec(entry) ?? []
    if (pid !== undefined && !exists(Number(pid))) removeIfEmpty(join(parent, entry))
  }
}

const exists = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH"
  }
}

const removeIfEmpty = (path: string): void => {
  try {
    rmdirSync(path)
  } catch {}
}

const tryWrite = (path: string, text: string): void => {
  try {
    writeFileSync(path, text)
  } catch {}
}

const tryRead = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}

const remove = async (path: string): Promise<void> => {
  const until = performance.now() + removeMillis
  while (performance.now() < until) {
    for (const pid of tryRead(join(path, "cgroup.procs")).split("\n").filter(Boolean).map(Number)) {
      // 0: a process that cannot be seen from here.
      if (pid > 0) tryKill(pid)
    }
    try {
      return await rmdir(path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return
    }
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

const tryKill = (pid: number): void => {
  try {
    process.kill(pid, "SIGKILL")
  } catch {}
}

const locateOwn = (): Parent => {
  if (process.platform !== "linux")
    throw new Error(`control groups are a part of Linux, and this is ${process.platform}`)
  const parent = locateIn(readFileSync("/proc/self/cgroup", "utf8"), readFileSync("/proc/self/mountinfo", "utf8"))
  if (parent === undefined) throw new Error("no control groups with a memory controller are mounted")
  if (parent.version === 1) return parent
  const controllers = readFileSync(join(parent.path, "cgroup.controllers"), "utf8").trim()
  if (!controllers.split(" ").includes("memory")) {
    throw new Error(`${parent.path} has no memory controller, only: ${controllers === "" ? "none" : controllers}`)
  }
  return parent
}

/** The group that counts memory, from what `/proc/self/cgroup` and `/proc/self/mountinfo` say. */
export const locateIn = (groups: string, mounts: string): Parent | undefined => {
  const mounted = mounts
    .split("\n")
    .map((line) => line.split(" - "))
    .flatMap(([place, system]) => {
      const [, , , root, point] = place!.split(" ")
      const [type, , options] = system?.split(" ") ?? []
      return root === undefined || point === undefined || type === undefined
        ? []
        : [{ root, point: unescape(point), type, options: options?.split(",") ?? [] }]
    })
  const lines = groups.split("\n").flatMap((line) => {
    const match = /^\d+:([^:]*):(.*)$/.exec(line)
    return match === null ? [] : [{ controllers: match[1]!.split(","), path: match[2]! }]
  })
  // Where both versions are mounted, a controller is part of one of them.
  for (const version of [1, 2] as const) {
    const group = lines.find(({ controllers }) => controllers.includes(version === 1 ? "memory" : ""))
    const mount = mounted.find(({ options, type }) =>
      version === 1 ? type === "cgroup" && options.includes("memory") : type === "cgroup2"
    )
    if (group && mount) return { version, path: join(mount.point, below(mount.root, group.path)) }
  }
  return undefined
}

/** In a container, what is mounted may be a part of the tree that paths are told of. */
const below = (root: string, path: string): string => {
  if (root === "/") return path
  return path === root || path.startsWith(`${root}/`) ? path.slice(root.length) : "/"
}

/** Spaces and the like are octal there. */
const unescape = (path: string): string =>
  path.replaceAll(/\\(\d{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
