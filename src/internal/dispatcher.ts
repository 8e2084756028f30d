/**
 * Which worker takes a call, and how calls wait until one has room.
 *
 * A worker's place in it is a seat. Calls wait in a line: in that of all seats, or, bound to one by a key, in that seat's.
 */
import * as Effect from "effect/Effect"
import { type Connection, synchronousMethods } from "../Connection.ts"
import { Overloaded, SynapseError } from "../SynapseError.ts"
import type { QueueOptions, UseOptions, WorkerPool } from "../WorkerPool.ts"

const defaultQueueCapacity = 1024
/** Keys that are remembered; the one that was used least recently goes first. */
const maxKeys = 65_536

/** Calls that wait, of synchronous and of asynchronous handlers: room for one kind is not room for the other. */
class Line {
  /** Those of synchronous handlers that had a worker before. */
  readonly returned = new Set<Waiter>()
  readonly synchronous = new Set<Waiter>()
  readonly asynchronous = new Set<Waiter>()

  get size(): number {
    return this.returned.size + this.synchronous.size + this.asynchronous.size
  }

  of(isSynchronous: boolean, returned: boolean): Set<Waiter> {
    if (!isSynchronous) return this.asynchronous
    return returned ? this.returned : this.synchronous
  }

  /** The turn of the one that comes first; none at all when none waits. */
  firstOf(isSynchronous: boolean): number {
    const lines = isSynchronous ? [this.returned, this.synchronous] : [this.asynchronous]
    return Math.min(...lines.map((waiters) => waiters.values().next().value?.turn ?? Number.POSITIVE_INFINITY))
  }

  /** Takes all of them out. */
  take(): ReadonlyArray<Waiter> {
    const waiters = [...this.returned, ...this.synchronous, ...this.asynchronous]
    this.returned.clear()
    this.synchronous.clear()
    this.asynchronous.clear()
    return waiters
  }
}

/** A worker that takes calls. */
export interface Seat {
  readonly connection: Connection
  /** Calls that were given this worker and have not reached its connection yet, and those of synchronous handlers among them. */
  reserved: number
  reservedSynchronous: number
  /** Whether it may be given calls. */
  isOpen: boolean
  readonly line: Line
  readonly keys: Set<string>
}

type Used<A, R> = Effect.Effect<A, SynapseError, R>
type Use<A, R> = (connection: Connection) => Used<A, R>
type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

interface Waiter {
  /** Given the seat, or nothing when the call has to choose anew. */
  readonly resume: (effect: Effect.Effect<Seat | undefined, SynapseError>) => void
  /** Counts those who wait, in all lines. */
  readonly turn: number
  seat: Seat | undefined
}

export interface Options {
  readonly queue: QueueOptions | undefined
  /** Whether a worker takes a single call. */
  readonly oneShot: boolean
  /** Called when a call begins to wait. */
  readonly onWait: () => void
  /** Called when a seat that takes no more calls has lost one: its only one, or one that was on its way there. */
  readonly onSpent: (seat: Seat) => void
}

const anyTurn = (): number => Number.POSITIVE_INFINITY

export class Dispatcher {
  readonly #options: Options
  readonly #seats = new Set<Seat>()
  readonly #line = new Line()
  readonly #seatOfKey = new Map<string, Seat>()
  /** Seats in whose own line calls wait, or did. */
  readonly #crowded = new Set<Seat>()
  /** Every connection there is, those included that leave. */
  readonly connections = new Set<Connection>()
  #synchronous: ReadonlySet<string> | undefined
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
    const seat: Seat = {
      connection,
      reserved: 0,
      reservedSynchronous: 0,
      isOpen: true,
      line: new Line(),
      keys: new Set()
    }
    // Before the first one, nobody knew which calls take turns.
    const unsorted = this.#synchronous === undefined ? this.#line.take() : []
    this.#synchronous = synchronousMethods(connection.hello)
    this.#seats.add(seat)
    for (const waiter of unsorted) waiter.resume(Effect.succeed(undefined))
    return seat
  }

  /** Gives a seat no more calls; those that wait for it choose anew. */
  remove(seat: Seat): void {
    seat.isOpen = false
    if (!this.#seats.delete(seat)) return
    for (const key of seat.keys) this.#seatOfKey.delete(key)
    this.#crowded.delete(seat)
    for (const waiter of seat.line.take()) waiter.resume(Effect.succeed(undefined))
  }

  /** Fails the calls that wait and every one that comes, until {@link reopen}. */
  close(error: SynapseError): void {
    this.#refusal = error
    for (const line of [this.#line, ...Array.from(this.#crowded, (seat) => seat.line)]) {
      for (const waiter of line.take()) waiter.resume(Effect.fail(error))
    }
  }

  /** What calls fail with now. */
  get refusal(): SynapseError | undefined {
    return this.#refusal
  }

  reopen(): void {
    this.#refusal = undefined
  }

  /** Gives the calls that wait what room there is: nobody who waits for one seat comes before who waits longer for any. */
  admit = (): void => {
    this.#admitBound((synchronous) => this.#line.firstOf(synchronous))
    if (this.#line.size === 0) return
    this.#admitFrom(this.#line, (synchronous) => this.#leastLoaded(synchronous), anyTurn)
    this.#admitBound(anyTurn)
  }

  #admitBound(before: (synchronous: boolean) => number): void {
    for (const seat of this.#crowded) {
      this.#admitFrom(seat.line, (synchronous) => this.#free(seat, synchronous), before)
      if (seat.line.size === 0) this.#crowded.delete(seat)
    }
  }

  /** Admits those whose turn is before another. */
  #admitFrom(
    line: Line,
    choose: (synchronous: boolean) => Seat | undefined,
    before: (synchronous: boolean) => number
  ): void {
    const admit = (waiters: Set<Waiter>, synchronous: boolean): void => {
      for (const waiter of waiters) {
        const seat = waiter.turn < before(synchronous) ? choose(synchronous) : undefined
        if (seat === undefined) return
        waiters.delete(waiter)
        seat.reserved++
        if (synchronous) seat.reservedSynchronous++
        waiter.seat = seat
        waiter.resume(Effect.succeed(seat))
      }
    }
    admit(line.returned, true)
    if (line.returned.size === 0) admit(line.synchronous, true)
    admit(line.asynchronous, false)
  }

  #leastLoaded(synchronous: boolean): Seat | undefined {
    let best: Seat | undefined
    let bestLoad = Number.POSITIVE_INFINITY
    for (const seat of this.#seats) {
      if (!this.#hasRoom(seat, synchronous)) continue
      const load = seat.connection.load() + seat.reserved
      if (load < bestLoad) {
        best = seat
        bestLoad = load
      }
    }
    return best
  }

  #boundTo(key: string): Seat | undefined {
    const bound = this.#seatOfKey.get(key)
    if (bound === undefined) return undefined
    // The last one in the map is the one that was used last.
    this.#seatOfKey.delete(key)
    this.#seatOfKey.set(key, bound)
    return bound
  }

  #bind(key: string, seat: Seat): void {
    if (this.#options.oneShot || !seat.isOpen || this.#seatOfKey.has(key)) return
    if (this.#seatOfKey.size >= maxKeys) {
      const [oldest, itsSeat] = this.#seatOfKey.entries().next().value!
      itsSeat.keys.delete(oldest)
      this.#seatOfKey.delete(oldest)
    }
    this.#seatOfKey.set(key, seat)
    seat.keys.add(key)
  }

  readonly use: WorkerPool["use"] = (method, call, how) =>
    // A seat for one call must not be forgotten between being taken and being used.
    this.#options.oneShot
      ? Effect.uninterruptibleMask((restore) => this.#use(method, call, how, restore))
      : Effect.suspend(() => this.#use(method, call, how, undefined))

  #use<A, R>(method: string, call: Use<A, R>, how: UseOptions | undefined, restore: Restore | undefined): Used<A, R> {
    if (this.#refusal !== undefined) return Effect.fail(this.#refusal)
    const waitsForIt = this.#whereItsParentIs(how?.parent)
    if (waitsForIt !== undefined) return restore === undefined ? call(waitsForIt) : restore(call(waitsForIt))
    // Before a worker has said what there is, a call counts as one that takes turns.
    const synchronous = this.#synchronous?.has(method) ?? true
    const key = how?.affinity
    const bound = key === undefined ? undefined : this.#boundTo(key)
    const returned = how?.returned ?? false
    const line = bound?.line ?? this.#line
    const waiters = line.of(synchronous, returned)
    const isFirst = waiters.size === 0 && (waiters !== line.synchronous || line.returned.size === 0)
    const seat = isFirst ? this.#free(bound, synchronous) : undefined
    if (seat !== undefined) {
      if (key !== undefined) this.#bind(key, seat)
      return this.#give(seat, call, restore)
    }
    // It was admitted before.
    if (!returned) {
      const { capacity = defaultQueueCapacity, whenFull } = this.#options.queue ?? {}
      if (whenFull === "reject" && this.waiting >= capacity) {
        return Effect.fail(new SynapseError({ reason: new Overloaded({ where: "queue", capacity }) }))
      }
    }
    return this.#wait(method, synchronous, waiters, bound, call, how, restore)
  }

  /** The call goes to the worker that waits for it, where it has a place. */
  #whereItsParentIs(parent: UseOptions["parent"]): Connection | undefined {
    if (parent === undefined) return undefined
    for (const connection of this.connections) {
      // A fiber may go on when the call is over that it was started for: then nobody waits.
      if (connection.owner === parent.owner)
        return connection.isOpen() && connection.has(parent.call) ? connection : undefined
    }
    return undefined
  }

  #free(bound: Seat | undefined, synchronous: boolean): Seat | undefined {
    if (bound === undefined) return this.#leastLoaded(synchronous)
    return this.#hasRoom(bound, synchronous) ? bound : undefined
  }

  #hasRoom({ connection, isOpen, reserved, reservedSynchronous }: Seat, synchronous: boolean): boolean {
    if (!isOpen || (this.#options.oneShot && reserved > 0) || connection.room(false) <= reserved) return false
    return !synchronous || connection.room(true) > reservedSynchronous
  }

  /** Gives back a reserved place. */
  #vacate(seat: Seat, synchronous: boolean): void {
    seat.reserved--
    if (synchronous) seat.reservedSynchronous--
    // It may have been kept for this call alone.
    if (!seat.isOpen) this.#options.onSpent(seat)
  }

  /** Makes the call at a seat, the only one there where a worker takes one. */
  #give<A, R>(seat: Seat, call: Use<A, R>, restore: Restore | undefined): Used<A, R> {
    if (restore === undefined) return call(seat.connection)
    if (!this.#options.oneShot) return restore(call(seat.connection))
    seat.isOpen = false
    return Effect.ensuring(
      restore(call(seat.connection)),
      Effect.sync(() => this.#options.onSpent(seat))
    )
  }

  // A reserved place is given back by whoever waited for it: by making its call, or by being interrupted before. An
  // interruption may come when the place is not reserved any more and the call not made yet: the next waiter is told.
  #wait<A, R>(
    method: string,
    synchronous: boolean,
    waiters: Set<Waiter>,
    bound: Seat | undefined,
    call: Use<A, R>,
    how: UseOptions | undefined,
    outer: Restore | undefined
  ): Used<A, R> {
    const key = how?.affinity
    return Effect.uninterruptibleMask((inner) => {
      const restore = outer ?? inner
      let waiter: Waiter | undefined
      const wait = Effect.callback<Seat | undefined, SynapseError>((resume) => {
        // The fiber may have made way for others since it found no room: there may be some, or nobody to wait for.
        if (this.#refusal !== undefined) return resume(Effect.fail(this.#refusal))
        if (bound?.isOpen === false) return resume(Effect.succeed(undefined))
        waiter = { resume, turn: ++this.#lastTurn, seat: undefined }
        waiters.add(waiter)
        if (bound !== undefined) this.#crowded.add(bound)
        this.admit()
        // Another worker would be of no use to a call that waits for this one.
        if (waiter.seat === undefined && bound === undefined) this.#options.onWait()
      })
      const giveUp = Effect.sync(() => {
        if (waiter === undefined) return
        waiters.delete(waiter)
        if (waiter.seat !== undefined) this.#vacate(waiter.seat, synchronous)
        this.admit()
      })
      return Effect.flatMap(
        Effect.onInterrupt(restore(wait), () => giveUp),
        (seat) => {
          if (seat !== undefined) this.#vacate(seat, synchronous)
          const boundNow = key === undefined ? undefined : this.#boundTo(key)
          // The worker may have ended since, or another call bound the key: this one has been admitted and chooses again,
          // before others.
          if (seat === undefined || !seat.isOpen || (boundNow !== undefined && boundNow !== seat)) {
            this.admit()
            return restore(this.use(method, call, { ...how, returned: true }))
          }
          if (key !== undefined) this.#bind(key, seat)
          return Effect.onInterrupt(this.#give(seat, call, restore), () => Effect.sync(this.admit))
        }
      )
    })
  }
}
