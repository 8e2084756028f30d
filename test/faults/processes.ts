/** Which processes belong to a test: those that carry its mark in their environment, and children of this process. */
import { readdirSync, readFileSync } from "node:fs"

export interface Seen {
  readonly pid: number
  /** Tells a process from a later one with the same number. */
  readonly startedAt: string
}

interface Stat extends Seen {
  readonly parent: number
  readonly isZombie: boolean
}

const read = (path: string): string => {
  try {
    return readFileSync(path, "latin1")
  } catch {
    return ""
  }
}

const statOf = (pid: number): Stat | undefined => {
  const stat = read(`/proc/${pid}/stat`)
  if (stat === "") return undefined
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return { pid, parent: Number(fields[1]), isZombie: fields[0] === "Z", startedAt: fields[19]! }
}

/** All of them; zombies have no environment left, but those that are ours to collect are our children. */
export const ofTest = (mark: string): ReadonlyArray<Seen> =>
  readdirSync("/proc").flatMap((entry) => {
    const stat = /^\d+$/.test(entry) ? statOf(Number(entry)) : undefined
    if (stat === undefined || stat.pid === process.pid) return []
    return stat.parent === process.pid || read(`/proc/${entry}/environ`).includes(mark) ? [stat] : []
  })

/** Whether there is anything left of a process. A zombie of somebody else's is theirs to collect. */
export const exists = ({ pid, startedAt }: Seen): boolean => {
  const stat = statOf(pid)
  if (stat === undefined || stat.startedAt !== startedAt) return false
  return !stat.isZombie || stat.parent === process.pid
}

export const describe = ({ pid }: Seen): string =>
  `${pid} ${read(`/proc/${pid}/cmdline`).replaceAll("\0", " ").trim() || "(zombie)"}`
