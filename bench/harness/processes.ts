/** What `/proc` tells of the processes below this one: which there are, the CPU they used, the memory they hold. */
import { readdirSync, readFileSync } from "node:fs"

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    // A process may end while it is looked at.
    return undefined
  }
}

/** The fields of `stat` from the third on: the second, the name, may contain anything. */
const statOf = (pid: number): ReadonlyArray<string> | undefined => {
  const stat = read(`/proc/${pid}/stat`)
  return stat?.slice(stat.lastIndexOf(")") + 2).split(" ")
}

export const descendants = (root: number): ReadonlyArray<number> => {
  const children = new Map<number, Array<number>>()
  for (const name of readdirSync("/proc")) {
    const pid = Number(name)
    const stat = Number.isInteger(pid) ? statOf(pid) : undefined
    if (stat === undefined) continue
    const parent = Number(stat[1])
    children.set(parent, [...(children.get(parent) ?? []), pid])
  }
  const found: Array<number> = []
  const visit = (pid: number): void => {
    for (const child of children.get(pid) ?? []) {
      found.push(child)
      visit(child)
    }
  }
  visit(root)
  return found
}

const ticksPerSecond = 100

const ticksInMicros = (...fields: ReadonlyArray<string | undefined>): number =>
  (fields.reduce((sum, ticks) => sum + Number(ticks ?? 0), 0) * 1e6) / ticksPerSecond

/** The CPU time of a process so far. `schedstat` counts nanoseconds, but by thread; `stat` counts ticks of 10 ms. */
const cpuMicrosOf = (pid: number): number => {
  let nanos = 0
  for (const thread of listThreads(pid))
    nanos += Number(read(`/proc/${pid}/task/${thread}/schedstat`)?.split(" ")[0] ?? 0)
  if (nanos > 0) return nanos / 1000
  const stat = statOf(pid)
  return ticksInMicros(stat?.[11], stat?.[12])
}

const listThreads = (pid: number): ReadonlyArray<string> => {
  try {
    return readdirSync(`/proc/${pid}/task`)
  } catch {
    return []
  }
}

/** The CPU time of all processes below this one: those that run, and those that are gone. */
export const cpuMicrosBelow = (root: number): number => {
  const gone = statOf(root)
  const running = descendants(root).reduce((sum, pid) => sum + cpuMicrosOf(pid), 0)
  return running + ticksInMicros(gone?.[13], gone?.[14])
}

export interface HeldMemory {
  readonly residentBytes: number
  /** Pages shared with other processes count by their share. */
  readonly proportionalBytes: number
}

export const memoryOf = (pid: number): HeldMemory => {
  const rollup = read(`/proc/${pid}/smaps_rollup`) ?? ""
  const bytes = (field: string): number =>
    Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(rollup)?.[1] ?? 0) * 1024
  return { residentBytes: bytes("Rss"), proportionalBytes: bytes("Pss") }
}
