/** When a worker has served long enough: after so many calls, at an age, or when its memory grows. */
import * as Duration from "effect/Duration"
import type { RecycleOptions } from "../WorkerPool.ts"

const MiB = 1024 * 1024
/** Memory is compared after so many calls. */
const sampleCalls = 100
/** So many rises in a row are a leak. */
const leakRises = 3
/** Less is no rise: allocators and caches breathe. */
const leastRise = { bytes: MiB, ratio: 0.01 }

export class Recycling {
  readonly #afterCalls: number
  readonly #afterAgeMillis: number
  readonly #afterBytes: number
  readonly #leaks: boolean
  /** Whether memory has to be looked at. */
  readonly watchesMemory: boolean

  constructor(options: RecycleOptions | "auto" = {}) {
    const { afterAge, afterCalls, afterMemoryMiB } = options === "auto" ? { afterMemoryMiB: "auto" as const } : options
    this.#afterCalls = afterCalls ?? Number.POSITIVE_INFINITY
    this.#afterAgeMillis = afterAge === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(afterAge)
    this.#afterBytes = typeof afterMemoryMiB === "number" ? afterMemoryMiB * MiB : Number.POSITIVE_INFINITY
    this.#leaks = afterMemoryMiB === "auto"
    this.watchesMemory = afterMemoryMiB !== undefined
  }

  /** Whether a worker has had its calls. Cheap: it is asked at every end of a call. */
  isUsedUp(calls: number): boolean {
    return calls >= this.#afterCalls
  }

  /** Makes what follows one worker. */
  follow(): Wear {
    return new Wear(this.#afterAgeMillis, this.#afterBytes, this.#leaks)
  }
}

/** What one worker has gone through. */
export class Wear {
  readonly #afterAgeMillis: number
  readonly #afterBytes: number
  readonly #leaks: boolean
  #sampledCalls = 0
  #sampledBytes = Number.POSITIVE_INFINITY
  #rises = 0

  constructor(afterAgeMillis: number, afterBytes: number, leaks: boolean) {
    this.#afterAgeMillis = afterAgeMillis
    this.#afterBytes = afterBytes
    this.#leaks = leaks
  }

  /** Why the worker should be replaced, in words that follow "it"; nothing when it should not. */
  isDue(ageMillis: number, calls: number, memoryBytes: number | undefined): string | undefined {
    if (ageMillis >= this.#afterAgeMillis) return `served for ${Math.round(ageMillis / 1000)} s`
    if (memoryBytes === undefined) return undefined
    if (memoryBytes >= this.#afterBytes) return `uses ${Math.round(memoryBytes / MiB)} MiB`
    if (!this.#leaks || calls - this.#sampledCalls < sampleCalls) return undefined
    const rise = memoryBytes - this.#sampledBytes
    this.#rises = rise >= Math.max(leastRise.bytes, leastRise.ratio * this.#sampledBytes) ? this.#rises + 1 : 0
    this.#sampledCalls = calls
    this.#sampledBytes = memoryBytes
    return this.#rises >= leakRises ? `uses more and more memory, ${Math.round(memoryBytes / MiB)} MiB now` : undefined
  }
}
