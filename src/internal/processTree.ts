/**
 * Process trees: signalling a worker's group, finding what left the group, and what the kernel says of memory kills.
 */
import { readFileSync } from "node:fs"
import { readdir, readFile } from "node:fs/promises"

const isLinux = process.platform === "linux"

/** Signals a process group; nothing happens when it is gone. */
export const kill = (group: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(-group, signal)
  } catch {}
}

const exists = (group: number): boolean => {
  try {
    process.kill(-group, 0)
    return true
  } catch {
    return false
  }
}

const read = (path: string): Promise<string> => readFile(path, "latin1").catch(() => "")

// A zombie does not run: whoever inherited it has yet to collect it.
const isRunningMember = (stat: string, group: number): boolean => {
  const [state, , pgrp] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return Number(pgrp) === group && state !== "Z" && state !== "X"
}

/** Members of the group, and processes that left it (`setsid`, daemons) but inherited the worker's id. */
const remaining = async (group: number, workerId: string): Promise<ReadonlyArray<number>> => {
  if (!isLinux) return exists(group) ? [-group] : []
  const marker = `SYNAPSE_WORKER_ID=${workerId}\0`
  // Without a free descriptor nothing can be listed; the group was killed with its leader in any case.
  const entries = (await readdir("/proc").catch(() => [])).filter(
    (entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid
  )
  const found = await Promise.all(
    entries.map(
      async (entry) =>
        isRunningMember(await read(`/proc/${entry}/stat`), group) ||
        (await read(`/proc/${entry}/environ`)).includes(marker)
    )
  )
  return entries.filter((_, index) => found[index]).map(Number)
}

/** Kills what is left of a worker's tree after its leader ended, and returns when it is gone. */
export const sweep = async (group: number, workerId: string): Promise<void> => {
  // Bounded: a process stuck in the kernel leaves only when the kernel lets it.
  for (let pass = 0; pass < 50; pass++) {
    const left = await remaining(group, workerId)
    if (left.length === 0) return
    for (const pid of left) {
      try {
        process.kill(pid, "SIGKILL")
      } catch {}
    }
    await new Promise((resolve) => setTimeout(resolve, pass < 5 ? 2 : 20))
  }
}

const memoryEventFiles = (): ReadonlyArray<string> => {
  if (!isLinux) return []
  const files: Array<string> = []
  for (const line of readFileSync("/proc/self/cgroup", "utf8").trim().split("\n")) {
    const [, controllers, path] = line.split(":", 3)
    if (controllers === "") files.push(`/sys/fs/cgroup${path}/memory.events`, "/sys/fs/cgroup/memory.events")
    else if (controllers?.split(",").includes("memory")) {
      files.push(`/sys/fs/cgroup/memory${path}/memory.oom_control`, "/sys/fs/cgroup/memory/memory.oom_control")
    }
  }
  return files
}

/** How often the kernel has killed a process of this control group because memory ran out; 0 where it does not say. */
export const outOfMemoryKills = (): number => {
  try {
    for (const file of memoryEventFiles()) {
      try {
        const match = /^oom_kill (\d+)$/m.exec(readFileSync(file, "utf8"))
        if (match !== null) return Number(match[1])
      } catch {}
    }
  } catch {}
  return 0
}
