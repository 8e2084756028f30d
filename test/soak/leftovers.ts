/** What must not be left, and how memory and the event loop fared meanwhile. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import { type IntervalHistogram, monitorEventLoopDelay } from "node:perf_hooks"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

const read = (path: string): string => {
  try {
    return readFileSync(path, "latin1")
  } catch {
    return ""
  }
}

const pids = (): ReadonlyArray<number> =>
  readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)

/** Processes that have a variable in their environment. */
export const withVariable = (variable: string): ReadonlyArray<number> =>
  pids().filter((pid) => `\0${read(`/proc/${pid}/environ`)}`.includes(`\0${variable}\0`))

/** Children of this process, zombies included. */
const children = (): ReadonlyArray<number> =>
  pids().filter((pid) => {
    const stat = read(`/proc/${pid}/stat`)
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) === process.pid
  })

/** What this process holds: descriptors, resources of Node, children. */
export const holdings = (): ReadonlyArray<string> => [
  ...readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [`descriptor ${readlinkSync(`/proc/self/fd/${fd}`).replace(/\d+/g, "")}`]
    } catch {
      return []
    }
  }),
  ...process.getActiveResourcesInfo().map((name) => `resource ${name}`),
  ...children().map((pid) => `process ${pid} ${read(`/proc/${pid}/cmdline`).replaceAll("\0", " ") || "(zombie)"}`)
]

/** What there is now and was not before. */
export const surplus = (now: ReadonlyArray<string>, before: ReadonlyArray<string>): ReadonlyArray<string> => {
  const known = [...before]
  return now.filter((item) => {
    const at = known.indexOf(item)
    if (at >= 0) known.splice(at, 1)
    return at < 0
  })
}

const MiB = 2 ** 20

/** What is in use, garbage not included: the second collection frees what the first one let go of. */
const liveMiB = (): number => {
  collectGarbage()
  collectGarbage()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return (heapUsed + arrayBuffers) / MiB
}

interface Sample {
  readonly seconds: number
  readonly mebibytes: number
}

/** Least squares, in MiB per second. */
const slopeOf = (samples: ReadonlyArray<Sample>): number => {
  const mean = (of: (sample: Sample) => number) => samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length
  const x = mean(({ seconds }) => seconds)
  const y = mean(({ mebibytes }) => mebibytes)
  const above = samples.reduce((sum, sample) => sum + (sample.seconds - x) * (sample.mebibytes - y), 0)
  const below = samples.reduce((sum, sample) => sum + (sample.seconds - x) ** 2, 0)
  return below === 0 ? 0 : above / below
}

export interface Measured {
  /** How late timers were, in milliseconds. */
  readonly lagMillis: { readonly p50: number; readonly p99: number; readonly max: number }
  /** Resident memory of Node, and its slope over the last two thirds. */
  readonly rssMiB: { readonly first: number; readonly last: number; readonly most: number; readonly slope: number }
  /** What is in use after a collection, at the beginning, after a third, two thirds, and at the end. */
  readonly liveMiB: ReadonlyArray<number>
  /** Whether memory grows beyond doubt. */
  readonly leaks: boolean
}

const resolutionMillis = 10
/** Less than this is what caches and compiled code take. */
const leastLeakMiB = 40

export class Meter {
  readonly #begun = performance.now()
  readonly #seconds: number
  readonly #delays: IntervalHistogram = monitorEventLoopDelay({ resolution: resolutionMillis })
  readonly #rss: Array<Sample> = []
  readonly #live: Array<number> = [liveMiB()]

  constructor(seconds: number) {
    this.#seconds = seconds
    this.#delays.enable()
  }

  /** To be called a few times in a second. */
  sample(): void {
    const seconds = (performance.now() - this.#begun) / 1000
    this.#rss.push({ seconds, mebibytes: process.memoryUsage.rss() / MiB })
    if (this.#live.length < 3 && seconds >= (this.#live.length * this.#seconds) / 3) this.#live.push(liveMiB())
  }

  close(): Measured {
    this.#delays.disable()
    this.#live.push(liveMiB())
    const late = (nanos: number): number => Math.max(0, nanos / 1e6 - resolutionMillis)
    const samples = this.#rss.filter(({ seconds }) => seconds >= this.#seconds / 3)
    const rss = this.#rss.map(({ mebibytes }) => mebibytes)
    const [, second = 0, third = 0, last = 0] = this.#live
    const isLong = this.#seconds >= 60
    return {
      lagMillis: {
        p50: late(this.#delays.percentile(50)),
        p99: late(this.#delays.percentile(99)),
        max: late(this.#delays.max)
      },
      rssMiB: { first: rss[0] ?? 0, last: rss.at(-1) ?? 0, most: Math.max(0, ...rss), slope: slopeOf(samples) },
      liveMiB: this.#live,
      leaks: isLong && third - second > leastLeakMiB / 2 && last - third > leastLeakMiB / 2
    }
  }
}
