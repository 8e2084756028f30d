/**
 * Which worker takes a call, and how calls wait until one has room.
 *
 * A worker's place in it is a seat. Calls wait in a line: in that of all seats, or, bound to one by a key, in that seat's.
 * A call that gets a seat begins there at once: between the two there is nothing that could end either.
 */
import * as Effect from "effect/Effect"
import { type Connection, type Methods, synchronousMethods } from "../Connection.ts"
import { Overloaded, SynapseError } from "../SynapseError.ts"
import type { Begin, QueueOptions, UseOptions, WorkerPool } from "../WorkerPool.ts"
import { maxDelayMillis } from "./nativeSleep.ts"

const defaultQueueCapacity = 1024
/** Keys that are remembered; the one that was used least recently goes first. */
const maxKeys = 65_536

/** A call on its way to a worker. */
export abstract class Entry {
  abstract readonly method: string
  abstract readonly affinity: string | undefined
  /** Counts those who wait, in all lines. */
  turn = 0
  /** Where it waits, with whom before and behind it. */
  queue: Queue | undefined
  previous: Entry | undefined
  next: Entry | undefined

  /** Begins at a worker. With `spend`, it is the only call of that worker, which hears of it when it is over. */
  abstract begin(connection: Connection, spend: (() => void) | undefined): void

  abstract fail(error: SynapseError): void

  /** Nobody wants it any more. */
  giveUp(): void {
    if (this.queue !== undefined) this.queue.remove(this)
    else this.cancel()
  }

  /** Ends what has begun. */
  protected abstract cancel(): void
}

/** One that an effect waits for. */
class WaitedEntry extends Entry {
  readonly method: string
  readonly affinity: string | undefined
  readonly #begin: Begin
  readonly #resume: Parameters<Begin>[1]
  #cancel: (() => void) | undefined
  #spend: (() => void) | undefined

  constructor(method: string, affinity: string | undefined, begin: Begin, resume: Parameters<Begin>[1]) {
    super()
    this.method = method
    this.affinity = affinity
    this.#begin = begin
    this.#resume = resume
  }

  begin(connection: Connection, spend: (() => void) | undefined): void {
    this.#spend = spend
    const resume = this.#resume
    this.#cancel = this.#begin(
      connection,
      spend === undefined ? resume : (end) => resume(Effect.ensuring(end, Effect.sync(spend)))
    )
  }

  fail(error: SynapseError): void {
    this.#resume(Effect.fail(error))
  }

  protected cancel(): void {
    this.#cancel?.()
    this.#spend?.()
  }
}

/** Keeps Node alive while calls wait: what they wait for may be nothing that does. */
class Waiting {
  readonly #timer = setInterval(() => {}, maxDelayMillis).unref()
  #count = 0

  begin(): void {
    if (this.#count++ === 0) this.#timer.ref()
  }

  end(): void {
    if (--this.#count === 0) this.#timer.unref()
  }

  close(): void {
    clearInterval(this.#timer)
  }
}

/** Entries in the order in which they came; any of them may leave. */
class Queue {
  readonly #waiting: Waiting
  first: Entry | undefined
  #last: Entry | undefined
  size = 0

  constructor(waiting: Waiting) {
    this.#waiting = waiting
  }

  /** The turn of the one that comes first; none at all when none waits. */
  get turn(): number {
    return this.first === undefined ? Number.POSITIVE_INFINITY : this.first.turn
  }

  push(entry: Entry): void {
    entry.queue = this
    entry.previous = this.#last
    if (this.#last === undefined) this.first = entry
    else this.#last.next = entry
    this.#last = entry
    this.size++
    this.#waiting.begin()
  }

  remove(entry: Entry): void {
    const { next, previous } = entry
    if (previous === undefined) this.first = next
    else previous.next = next
    if (next === undefined) this.#last = previous
    else next.previous = previous
    entry.queue = entry.previous = entry.next = undefined
    this.size--
    this.#waiting.end()
  }
}

/** Calls that wait, of synchronous and of asynchronous handlers: room for one kind is not room for the other. */
class Line {
  /** Those of synchronous handlers that had a worker before. */
  readonly returned: Queue
  readonly synchronous: Queue
  readonly asynchronous: Queue

  constructor(waiting: Waiting) {
    this.returned = new Queue(waiting)
    this.synchronous = new Queue(waiting)
    this.asynchronous = new Queue(waiting)
  }

  get size(): number {
    return this.returned.size + this.synchronous.size + this.asynchronous.size
  }

  of(isSynchronous: boolean, returned: boolean): Queue {
    if (!isSynchronous) return this.asynchronous
    return returned ? this.returned : this.synchronous
  }

  firstOf(isSynchronous: boolean): number {
    return isSynchronous ? Math.min(this.returned.turn, this.synchronous.turn) : this.asynchronous.turn
  }

  /** Takes all of them out. */
  take(): ReadonlyArray<Entry> {
    const entries: Array<Entry> = []
    for (const queue of [this.returned, this.synchronous, this.asynchronous]) {
      for (let entry = queue.first; entry !== undefined; entry = queue.first) {
        queue.remove(entry)
        entries.push(entry)
      }
    }
    return entries
  }
}

/** A worker that takes calls. */
export interface Seat {
  readonly connection: Connection
  /** Whether it may be given calls. */
  isOpen: boolean
  readonly line: Line
  readonly keys: Set<string>
}

export interface Options {
  readonly queue: QueueOptions | undefined
  /** Whether a worker takes a single call. */
  readonly oneShot: boolean
  /** Called when a call begins to wait. */
  readonly onWait: () => void
  /** Called when a seat that takes one call has had it. */
  readonly onSpent: (seat: Seat) => void
}

const anyTurn = Number.POSITIVE_INFINITY

export class Dispatcher {
  readonly #options: Options
  readonly #seats: Array<Seat> = []
  readonly #waiting = new Waiting()
  readonly #line = new Line(this.#waiting)
  readonly #seatOfKey = new Map<string, Seat>()
  /** Seats in whose own line calls wait, or did. */
  readonly #crowded = new Set<Seat>()
  /** Every connection there is, those included that leave. */
  readonly connections = new Set<Connection>()
  #synchronous: Methods | undefined
  #refusal: SynapseError | undefined
  #lastTurn = 0

  constructor(options: Options) {
    this.#options = options
  }

  /** How many calls wait for whichever worker has room. */
  get waitingForAny(): number {
    return this.#line.size
  }

  /** How many calls wait. */
  get waiting(): number {
    let waiting = this.waitingForAny
    for (const { line } of this.#crowded) waiting += line.size
    return waiting
  }

  /** Makes a seat. {@link admit} gives it calls. */
  add(connection: Connection): Seat {
    const seat: Seat = { connection, isOpen: true, line: new Line(this.#waiting), keys: new Set() }
    // Before the first one, nobody knew which calls take turns.
    const unsorted = this.#synchronous === undefined ? this.#line.take() : []
    this.#synchronous = synchronousMethods(connection.hello)
    for (const entry of unsorted) this.#wait(entry, undefined, false)
    this.#seats.push(seat)
    return seat
  }

  /** Gives a seat no more calls; those that wait for it choose anew. */
  remove(seat: Seat): void {
    seat.isOpen = false
    const at = this.#seats.indexOf(seat)
    if (at < 0) return
    this.#seats.splice(at, 1)
    for (const key of seat.keys) this.#seatOfKey.delete(key)
    this.#crowded.delete(seat)
    for (const entry of seat.line.take()) this.#enter(entry, true)
  }

  /** Fails the calls that wait and every one that comes, until {@link reopen}. */
  close(error: SynapseError): void {
    this.#refusal = error
    for (const line of [this.#line, ...Array.from(this.#crowded, (seat) => seat.line)]) {
      for (const entry of line.take()) entry.fail(error)
    }
  }

  /** Nothing waits any more, or will. */
  dispose(): void {
    this.#waiting.close()
  }

  /** What calls fail with now. */
  get refusal(): SynapseError | undefined {
    return this.#refusal
  }

  reopen(): void {
    this.#refusal = undefined
  }

  /**
   * Gives the calls that wait what room there is: nobody who waits for one seat comes before who waits longer for any. With
   * `changed`, no other seat has room that it had not before: then calls that wait have nothing to look for there.
   */
  admit = (changed?: Seat): void => {
    if (this.#crowded.size === 0) {
      if (this.#line.size > 0) this.#admitFrom(this.#line, undefined, anyTurn, anyTurn, changed)
      return
    }
    this.#admitBound(this.#line.firstOf(true), this.#line.firstOf(false))
    this.#admitFrom(this.#line, undefined, anyTurn, anyTurn)
    this.#admitBound(anyTurn, anyTurn)
  }

  #admitBound(synchronous: number, asynchronous: number): void {
    for (const seat of this.#crowded) {
      this.#admitFrom(seat.line, seat, synchronous, asynchronous)
      if (seat.line.size === 0) this.#crowded.delete(seat)
    }
  }

  /** Admits those whose turn comes before another. */
  #admitFrom(line: Line, bound: Seat | undefined, synchronous: number, asynchronous: number, only?: Seat): void {
    this.#admitAll(line.returned, bound, true, synchronous, only)
    if (line.returned.size === 0) this.#admitAll(line.synchronous, bound, true, synchronous, only)
    this.#admitAll(line.asynchronous, bound, false, asynchronous, only)
  }

  // Beginning a call may end it at once, and its caller make others: each time, the queue is looked at anew.
  #admitAll(queue: Queue, bound: Seat | undefined, synchronous: boolean, before: number, only?: Seat): void {
    for (let entry = queue.first; entry !== undefined && entry.turn < before; entry = queue.first) {
      const its = bound ?? this.#boundTo(entry.affinity)
      const seat = this.#free(its ?? only, synchronous)
      // Another call has bound its key since.
      const waitsElsewhere = seat === undefined && its !== bound
      if (seat === undefined && !waitsElsewhere) return
      queue.remove(entry)
      if (seat !== undefined) this.#give(seat, entry)
      else this.#wait(entry, its, true)
    }
  }

  #leastLoaded(synchronous: boolean): Seat | undefined {
    let best: Seat | undefined
    let bestLoad = Number.POSITIVE_INFINITY
    for (const seat of this.#seats) {
      const load = seat.connection.load()
      if (load < bestLoad && hasRoom(seat, synchronous)) {
        best = seat
        bestLoad = load
      }
    }
    return best
  }

  #boundTo(key: string | undefined): Seat | undefined {
    const bound = key === undefined ? undefined : this.#seatOfKey.get(key)
    if (key === undefined || bound === undefined) return undefined
    // The last one in the map is the one that was used last.
    this.#seatOfKey.delete(key)
    this.#seatOfKey.set(key, bound)
    return bound
  }

  #bind(key: string, seat: Seat): void {
    if (this.#options.oneShot || this.#seatOfKey.has(key)) return
    if (this.#seatOfKey.size >= maxKeys) {
      const [oldest, itsSeat] = this.#seatOfKey.entries().next().value!
      itsSeat.keys.delete(oldest)
      this.#seatOfKey.delete(oldest)
    }
    this.#seatOfKey.set(key, seat)
    seat.keys.add(key)
  }

  readonly use: WorkerPool["use"] = (method, begin, how) =>
    Effect.callback((resume) => {
      const entry = new WaitedEntry(method, how?.affinity, begin, resume)
      this.enter(entry, how?.parent, how?.returned ?? false)
      return Effect.sync(() => entry.giveUp())
    })

  readonly enter: WorkerPool["enter"] = (entry, parent, returned) => {
    const connection = parent === undefined ? undefined : this.#whereItsParentIs(parent)
    if (connection === undefined) this.#enter(entry, returned)
    else entry.begin(connection, undefined)
  }

  /** Gives a call a seat, or lets it wait. */
  #enter(entry: Entry, returned: boolean): void {
    if (this.#refusal !== undefined) return entry.fail(this.#refusal)
    const synchronous = this.#isSynchronous(entry.method)
    const bound = this.#boundTo(entry.affinity)
    const line = bound?.line ?? this.#line
    const isFirst = line.of(synchronous, returned).size === 0 && (!synchronous || returned || line.returned.size === 0)
    const seat = isFirst ? this.#free(bound, synchronous) : undefined
    if (seat !== undefined) return this.#give(seat, entry)
    // One that had a worker was admitted before.
    if (!returned) {
      const { capacity = defaultQueueCapacity, whenFull } = this.#options.queue ?? {}
      if (whenFull === "reject" && this.waiting >= capacity) {
        return entry.fail(new SynapseError({ reason: new Overloaded({ where: "queue", capacity }) }))
      }
    }
    this.#wait(entry, bound, returned)
    // Another worker would be of no use to a call that waits for this one.
    if (bound === undefined) this.#options.onWait()
  }

  // Before a worker has said what there is, a call counts as one that takes turns.
  #isSynchronous(method: string): boolean {
    return this.#synchronous === undefined || this.#synchronous.has(method)
  }

  #wait(entry: Entry, bound: Seat | undefined, returned: boolean): void {
    entry.turn = ++this.#lastTurn
    const line = bound?.line ?? this.#line
    line.of(this.#isSynchronous(entry.method), returned).push(entry)
    if (bound !== undefined) this.#crowded.add(bound)
  }

  #give(seat: Seat, entry: Entry): void {
    if (entry.affinity !== undefined) this.#bind(entry.affinity, seat)
    if (!this.#options.oneShot) return entry.begin(seat.connection, undefined)
    seat.isOpen = false
    entry.begin(seat.connection, () => this.#options.onSpent(seat))
  }

  /** The call goes to the worker that waits for it, where it has a place. */
  #whereItsParentIs(parent: NonNullable<UseOptions["parent"]>): Connection | undefined {
    if (this.#refusal !== undefined) return undefined
    for (const connection of this.connections) {
      // A fiber may go on when the call is over that it was started for: then nobody waits.
      if (connection.owner === parent.owner)
        return connection.isOpen() && connection.has(parent.call) ? connection : undefined
    }
    return undefined
  }

  #free(bound: Seat | undefined, synchronous: boolean): Seat | undefined {
    if (bound === undefined) return this.#leastLoaded(synchronous)
    return hasRoom(bound, synchronous) ? bound : undefined
  }
}

/** The `enter` of calls that go to one worker and do not wait. */
export const enterOf =
  (connection: Connection): WorkerPool["enter"] =>
  (entry) =>
    entry.begin(connection, undefined)

/** The `use` of such calls. */
export const useOf =
  (connection: Connection): WorkerPool["use"] =>
  (_method, begin) =>
    Effect.callback((resume) => {
      const cancel = begin(connection, resume)
      return cancel && Effect.sync(cancel)
    })

const hasRoom = ({ connection, isOpen }: Seat, synchronous: boolean): boolean =>
  isOpen && connection.room(synchronous) > 0
