/** The regions of a file of memory: which there are, which are in use, and how much memory they have. */

/** A part of a file. Its number, place and capacity never change. */
export interface Region {
  /** The upper two bits are those of the file. */
  readonly number: number
  /** Where it begins in the file. */
  readonly start: number
  readonly capacity: number
  /** References to it that were not given back. */
  uses: number
  /** Bytes of it that have been written, and are memory. */
  touched: number
}

const granularity = 64 * 1024
/** More regions than are needed at a time: what is sent in so many pieces is better sent in one. */
const maxRegions = 4096
/** The upper two bits of a number are those of the file. */
const numbersOfFile = 2 ** 30

export class Regions {
  readonly #file: number
  readonly #limit: number
  readonly #onDrop: (region: Region) => void
  readonly #regions = new Map<number, Region>()
  /** How many there ever were: a number stays with its place, and is not given again. */
  #made = 0
  #end = 0
  #touched = 0
  #used = 0

  /**
   * The regions of file `file` (0 to 3), of which no more than `limit` bytes become memory. `onDrop` hears of those that
   * will not be used again.
   */
  constructor(file: number, limit: number, onDrop: (region: Region) => void = () => {}) {
    this.#file = file
    this.#limit = limit
    this.#onDrop = onDrop
  }

  /** How many regions are in use. */
  get used(): number {
    return this.#used
  }

  /** How many bytes are memory. */
  get touched(): number {
    return this.#touched
  }

  /** A region for `size` bytes, with one reference; nothing where there is no room. */
  allocate(size: number): Region | undefined {
    const region = this.#fitting(size) ?? this.#make(size)
    if (region === undefined) return undefined
    const more = Math.max(0, size - region.touched)
    this.#touched += more
    region.touched += more
    region.uses = 1
    this.#used++
    return region
  }

  #fitting(size: number): Region | undefined {
    const room = this.#limit - this.#touched
    let best: Region | undefined
    for (const region of this.#regions.values()) {
      if (region.uses > 0 || region.capacity < size || size - region.touched > room) continue
      if (best === undefined || region.capacity < best.capacity) best = region
    }
    return best
  }

  #make(size: number): Region | undefined {
    if (size > this.#limit - this.#touched) return undefined
    if (this.#regions.size >= maxRegions && !this.#dropUnused()) return undefined
    const capacity = Math.max(granularity, 2 ** Math.ceil(Math.log2(size)))
    const region: Region = {
      number: this.#file * numbersOfFile + (this.#made++ % numbersOfFile),
      start: this.#end,
      capacity,
      uses: 0,
      touched: 0
    }
    this.#end += capacity
    this.#regions.set(region.number, region)
    return region
  }

  /** Makes room for the number of one more, by one that has no memory. */
  #dropUnused(): boolean {
    for (const region of this.#regions.values()) {
      if (region.uses > 0 || region.touched > 0) continue
      this.#onDrop(region)
      return this.#regions.delete(region.number)
    }
    return false
  }

  /** The region with that number. */
  get(number: number): Region | undefined {
    return this.#regions.get(number)
  }

  /** Adds a reference to a region that has one. */
  use(region: Region): void {
    region.uses++
  }

  /** Takes a reference back; `false` where there is none. */
  free(region: Region): boolean {
    if (region.uses === 0) return false
    if (--region.uses === 0) this.#used--
    return true
  }

  /** The memory of a region that is not in use has been given back. */
  forget(region: Region): void {
    this.#touched -= region.touched
    region.touched = 0
  }

  /** The file has been emptied. None may be in use: those to come have numbers and places of their own. */
  emptied(): void {
    this.#regions.clear()
    this.#touched = 0
  }
}
