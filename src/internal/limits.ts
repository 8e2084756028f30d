/** What a worker may use, and what makes it keep to that. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { StartFailed, SynapseError } from "../SynapseError.ts"
import * as ControlGroup from "./controlGroup.ts"
import { watchMemory } from "./vitals.ts"

/** What each worker may use. Nothing is limited that is not named, but `openCalls`. */
export interface Limits {
  /** Memory in MiB. What happens beyond it is up to `memoryBy`. Default: no limit. */
  readonly memoryMiB?: number | undefined
  /**
   * How memory is limited. Default: `"watch"`.
   *
   * - `"watch"`: the worker's resident memory is looked at four times a second (elsewhere than on Linux, once). Beyond the
   *   limit the worker is killed, with its process group, and its calls fail with `WorkerExited` of kind `outOfMemory`. What
   *   it started is not counted, and it may be faster than the look.
   * - `"rlimit"`: Python cannot have more, and raises `MemoryError`; the worker goes on. What counts is address space, of which
   *   threads and numeric libraries reserve much more than they use: less than 1024 MiB is rarely enough. Not on macOS.
   * - `"cgroup"`: the kernel counts all that the worker and what it started use, and kills as soon as it is too much: kind
   *   `outOfMemory`. On Linux, where this process may make a control group below its own; elsewhere the start fails.
   */
  readonly memoryBy?: "watch" | "rlimit" | "cgroup" | undefined
  /**
   * Processor time of the worker's whole life, rounded up to seconds; for `oneShot`. Beyond it the worker is ended: kind
   * `resourceLimit`. Default: no limit.
   */
  readonly cpuTime?: Duration.Input | undefined
  /**
   * How many files, sockets and pipes the worker may have open at once, its own dozen included; beyond it Python raises
   * `OSError` 24. Default: the limit of this process.
   */
  readonly openFiles?: number | undefined
  /** How many calls a worker may have open at once. Default: 1024. */
  readonly openCalls?: number | undefined
  /** How many log records of a worker are taken in a second; the rest is dropped and counted. Default: no limit. */
  readonly logRecordsPerSecond?: number | undefined
}

/** The payload of `Setup`: what a worker is told before it imports its module. */
export interface Setup {
  readonly env?: Readonly<Record<string, string>>
  readonly limits?: {
    readonly addressSpace?: number
    readonly cpuSeconds?: number
    readonly openFiles?: number
    readonly cgroup?: string
  }
}

/** The limits of one worker. */
export interface Enforced {
  /** What the worker has to be told; nothing where there is nothing to say. */
  readonly setup: Setup | undefined
  /** Calls `onOver` when the process uses too much memory, where that is up to this side. Returns what ends the watch. */
  readonly watch: (pid: number, onOver: () => void) => () => void
  /** Whether the kernel has killed for memory what is limited by a control group; nothing where there is none. */
  readonly hasRunOut: (() => boolean) | undefined
  /** The limits in words, with the names of their options. */
  readonly memory: string | undefined
  readonly cpuTime: string | undefined
}

const MiB = 1024 * 1024

/** Prepares the limits of one worker; the scope is that of its process. Fails where one is not possible here. */
export const make = Effect.fnUntraced(function* (
  limits: Limits = {},
  secrets: Readonly<Record<string, string>> = {}
): Effect.fn.Return<Enforced, SynapseError, Scope.Scope> {
  yield* checkSecrets(secrets)
  const { cpuTime, memoryBy = "watch", memoryMiB, openFiles } = limits
  const bytes = memoryMiB === undefined ? undefined : Math.floor(memoryMiB * MiB)
  const group = bytes !== undefined && memoryBy === "cgroup" ? yield* ControlGroup.make(bytes) : undefined
  const cpuSeconds = cpuTime === undefined ? undefined : toSeconds(cpuTime)
  const told = {
    ...(bytes !== undefined && memoryBy === "rlimit" && { addressSpace: bytes }),
    ...(cpuSeconds !== undefined && { cpuSeconds }),
    ...(openFiles !== undefined && { openFiles }),
    ...(group !== undefined && { cgroup: group.path })
  }
  const setup = {
    ...(isNotEmpty(secrets) && { env: secrets }),
    ...(isNotEmpty(told) && { limits: told })
  }
  return {
    setup: isNotEmpty(setup) ? setup : undefined,
    watch: (pid, onOver) => (bytes !== undefined && memoryBy === "watch" ? watchMemory(pid, bytes, onOver) : () => {}),
    hasRunOut: group?.hasRunOut,
    memory: memoryMiB === undefined ? undefined : `limits.memoryMiB (${memoryMiB} MiB)`,
    cpuTime: cpuSeconds === undefined ? undefined : `limits.cpuTime (${cpuSeconds} s)`
  }
})

/** What the runtime itself tells a process, and finds it by. */
const ownVariables = new Set([
  "SYNAPSE_PPID",
  "SYNAPSE_WORKER_ID",
  "SYNAPSE_SETUP",
  "SYNAPSE_MEMORY",
  "SYNAPSE_PDEATHSIG"
])

/** Names the variable, which what would fail later does not, and never the value. */
const checkSecrets = (secrets: Readonly<Record<string, string>>): Effect.Effect<void, SynapseError> => {
  for (const [name, value] of Object.entries(secrets)) {
    const isOwn = ownVariables.has(name)
    if (!isOwn && /^[^=\0]+$/.test(name) && !/[\0\ud800-\udfff]/u.test(name + value)) continue
    const what = isOwn ? "is one of the runtime's own" : "has a name or a value that no environment can hold"
    const detail = `The variable ${JSON.stringify(name)} of the option \`env\` ${what}`
    return Effect.fail(new SynapseError({ reason: new StartFailed({ kind: "options", detail }) }))
  }
  return Effect.void
}

const isNotEmpty = (value: object): boolean => Object.keys(value).length > 0

/** The kernel counts whole seconds, and knows no limit of none. */
const toSeconds = (duration: Duration.Input): number | undefined => {
  const seconds = Math.ceil(Duration.toSeconds(duration))
  return Number.isFinite(seconds) ? Math.max(1, seconds) : undefined
}
