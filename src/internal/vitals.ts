/** A look at a process: what it does, and what it has used. */
import { execFile } from "node:child_process"
import { readFileSync } from "node:fs"
import { endianness } from "node:os"
import * as Effect from "effect/Effect"
import type { Vitals } from "../PythonProcess.ts"

const isLinux = process.platform === "linux"

/** How often memory is looked at. Where that takes a process of its own, less often. */
const watchMillis = isLinux ? 250 : 1000
/** How long `ps` may take. */
const psMillis = 2000

/** A look at a process; nothing where it is gone. */
export const inspect = (pid: number): Effect.Effect<Vitals | undefined> =>
  isLinux
    ? Effect.sync(() => readStat(pid))
    : Effect.callback((resume) => {
        const child = runPs(pid, (vitals) => resume(Effect.succeed(vitals)))
        return Effect.sync(() => child.kill())
      })

/**
 * Calls `onOver`, once, when a process uses more than so many bytes of memory. Runs on the system's clock and keeps
 * nothing alive. Returns what stops it.
 */
export const watchMemory = (pid: number, bytes: number, onOver: () => void): (() => void) => {
  let stopped = false
  const stop = (): void => {
    stopped = true
    clearInterval(timer)
  }
  const check = (vitals: Vitals | undefined): void => {
    isLooking = false
    if (stopped || vitals === undefined || vitals.memoryBytes <= bytes) return
    stop()
    onOver()
  }
  let isLooking = false
  const timer = setInterval(() => {
    if (isLooking) return
    isLooking = true
    if (isLinux) check(readStat(pid))
    else runPs(pid, check).unref()
  }, watchMillis)
  timer.unref()
  return stop
}

const readStat = (pid: number): Vitals | undefined => {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, "latin1"), units())
  } catch {
    return undefined
  }
}

interface Units {
  readonly ticksPerSecond: number
  readonly pageSize: number
}

/** What `/proc/<pid>/stat` says; nothing of a process that has ended and was not collected yet. */
export const parseStat = (stat: string, { pageSize, ticksPerSecond }: Units): Vitals | undefined => {
  // A program may have any name, with spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  const state = stateOf(fields[0]!)
  return (
    state && {
      state,
      cpuMillis: ((Number(fields[11]) + Number(fields[12])) * 1000) / ticksPerSecond,
      memoryBytes: Number(fields[21]) * pageSize
    }
  )
}

const stateOf = (letter: string): Vitals["state"] | undefined => {
  switch (letter) {
    case "R":
      return "running"
    case "T":
    case "t":
      return "stopped"
    case "Z":
    case "X":
    case "":
      return undefined
    default:
      return "sleeping"
  }
}

/** The units of the kernel as it tells them to every program, or else what they mostly are. */
const units = (): Units => {
  known ??= readUnits()
  return known
}
let known: Units | undefined

const readUnits = (): Units => {
  let pageSize = 4096
  let ticksPerSecond = 100
  try {
    const vector = readFileSync("/proc/self/auxv")
    const size = ["arm", "ia32", "mips", "mipsel"].includes(process.arch) ? 4 : 8
    const little = endianness() === "LE"
    const wordAt = (at: number): number =>
      size === 4
        ? little
          ? vector.readUInt32LE(at)
          : vector.readUInt32BE(at)
        : Number(little ? vector.readBigUInt64LE(at) : vector.readBigUInt64BE(at))
    for (let at = 0; at + 2 * size <= vector.length; at += 2 * size) {
      // AT_PAGESZ and AT_CLKTCK.
      if (wordAt(at) === 6) pageSize = wordAt(at + size)
      if (wordAt(at) === 17) ticksPerSecond = wordAt(at + size)
    }
  } catch {}
  return { pageSize, ticksPerSecond }
}

const runPs = (pid: number, onVitals: (vitals: Vitals | undefined) => void) =>
  execFile(
    "ps",
    ["-o", "state=", "-o", "time=", "-o", "rss=", "-p", String(pid)],
    { env: { ...process.env, LC_ALL: "C" }, timeout: psMillis },
    (error, stdout) => onVitals(error === null ? parsePs(stdout) : undefined)
  )

/** What `ps -o state= -o time= -o rss=` prints: `S+ 1-02:03:04.56 7890`, in KiB. */
export const parsePs = (line: string): Vitals | undefined => {
  const [letters, time, kibibytes] = line.trim().split(/\s+/)
  const match = /^(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)$/.exec(time ?? "")
  const state = stateOf((letters ?? "").slice(0, 1))
  if (match === null || state === undefined) return undefined
  const [days, hours, minutes, seconds] = match.slice(1).map((part) => Number(part ?? 0)) as [
    number,
    number,
    number,
    number
  ]
  return {
    state,
    cpuMillis: (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000,
    memoryBytes: Number(kibibytes) * 1024
  }
}
