/**
 * The calls of a connection by their numbers, which follow each other so that an answer that comes too late finds no other call.
 *
 * A `Map` of calls that come and go is slow: V8 replaces its storage again and again, each one refers to the next, and
 * what the first of them held is only let go of when all memory is looked through.
 */

/** What has a place in the table. */
export interface Numbered {
  readonly id: number
}

const initialCapacity = 64

export class CallTable<Call extends Numbered> {
  /** The place of a call is that of the lower bits of its number. */
  #places: Array<Call | undefined> = new Array(initialCapacity).fill(undefined)
  #lastId = 0
  #size = 0

  get size(): number {
    return this.#size
  }

  /** The number that the next call has to have. */
  nextId(): number {
    if (this.#size * 2 > this.#places.length) this.#grow()
    let id = this.#lastId
    do id = (id + 1) >>> 0
    while (id === 0 || this.#places[this.#placeOf(id)] !== undefined)
    return id
  }

  /** Adds the call with the number that {@link nextId} gave. */
  add(call: Call): void {
    this.#places[this.#placeOf(call.id)] = call
    this.#lastId = call.id
    this.#size++
  }

  get(id: number): Call | undefined {
    const call = this.#places[this.#placeOf(id)]
    return call !== undefined && call.id === id ? call : undefined
  }

  /** Takes a call out; `false` when it is not there any more. */
  delete(call: Call): boolean {
    const place = this.#placeOf(call.id)
    if (this.#places[place] !== call) return false
    this.#places[place] = undefined
    this.#size--
    return true
  }

  /** Those that are there now, in the order in which they came. */
  values(): ReadonlyArray<Call> {
    const calls = this.#places.filter((call) => call !== undefined)
    // By how long ago their numbers were given: numbers begin anew in the end.
    return calls.sort((a, b) => ((this.#lastId - b.id) >>> 0) - ((this.#lastId - a.id) >>> 0))
  }

  #placeOf(id: number): number {
    return id & (this.#places.length - 1)
  }

  // Calls whose numbers differ in their lower bits still do when more bits count.
  #grow(): void {
    const calls = this.values()
    this.#places = new Array(this.#places.length * 2).fill(undefined)
    for (const call of calls) this.#places[this.#placeOf(call.id)] = call
  }
}
