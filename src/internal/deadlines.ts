/**
 * The times at which calls are given up, on one timer: a call that has a time-out costs no fiber and no timer of its own.
 *
 * There is a heap for each clock, so that programs on a `TestClock` have theirs.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { maxDelayMillis } from "./nativeSleep.ts"

/** Who is given up at a time. */
export interface Timed {
  /** Called once, when its time has come. */
  expire(): void
  /** In milliseconds of the clock. */
  deadline: number
  /** Where it is in the heap, -1 when it is not. */
  place: number
}

/** Runs a function later; `cancel` for never. `hold` says whether Node is to stay for it. */
interface Timer {
  readonly start: (millis: number, run: () => void) => void
  readonly cancel: () => void
  readonly hold: (hold: boolean) => void
}

export class Deadlines {
  readonly #clock: Clock.Clock
  readonly #timer: Timer
  readonly #heap: Array<Timed> = []
  /** When the timer runs; infinity when it does not. */
  #armedAt = Number.POSITIVE_INFINITY

  constructor(clock: Clock.Clock) {
    this.#clock = clock
    this.#timer = clock === Context.get(Context.empty(), Clock.Clock) ? nativeTimer() : timerOf(clock)
  }

  /** The one of a clock. */
  static of(clock: Clock.Clock): Deadlines {
    let deadlines = ofClocks.get(clock)
    if (deadlines === undefined) {
      deadlines = new Deadlines(clock)
      ofClocks.set(clock, deadlines)
    }
    return deadlines
  }

  /** Lets it expire at a time that is not past; at another one, where it is to expire already. */
  set(timed: Timed, deadline: number): void {
    this.#take(timed)
    if (deadline === Number.POSITIVE_INFINITY) return this.#rest()
    timed.deadline = deadline
    timed.place = this.#heap.length
    this.#heap.push(timed)
    this.#rise(timed)
    if (this.#heap.length === 1) this.#timer.hold(true)
    if (deadline < this.#armedAt) this.#arm()
  }

  /** It does not expire any more. */
  clear(timed: Timed): void {
    if (timed.place === -1) return
    this.#take(timed)
    this.#rest()
  }

  #rest(): void {
    if (this.#heap.length === 0) this.#timer.hold(false)
  }

  #arm(): void {
    this.#timer.cancel()
    const [first] = this.#heap
    if (first === undefined) {
      this.#armedAt = Number.POSITIVE_INFINITY
      return
    }
    this.#armedAt = first.deadline
    const millis = first.deadline - this.#clock.currentTimeMillisUnsafe()
    this.#timer.start(Math.max(0, Math.min(millis, maxDelayMillis)), this.#expire)
  }

  readonly #expire = (): void => {
    this.#armedAt = Number.POSITIVE_INFINITY
    for (let first = this.#heap[0]; first !== undefined; first = this.#heap[0]) {
      if (first.deadline > this.#clock.currentTimeMillisUnsafe()) break
      this.#take(first)
      first.expire()
    }
    this.#arm()
    this.#rest()
  }

  #take(timed: Timed): void {
    const { place } = timed
    if (place === -1) return
    timed.place = -1
    const last = this.#heap.pop()!
    if (last === timed) return
    last.place = place
    this.#heap[place] = last
    this.#rise(last)
    this.#sink(last)
  }

  #rise(timed: Timed): void {
    const heap = this.#heap
    while (timed.place > 0) {
      const parent = heap[(timed.place - 1) >> 1]!
      if (parent.deadline <= timed.deadline) return
      this.#swap(parent, timed)
    }
  }

  #sink(timed: Timed): void {
    const heap = this.#heap
    while (true) {
      const left = heap[2 * timed.place + 1]
      const right = heap[2 * timed.place + 2]
      if (left === undefined) return
      const child = right !== undefined && right.deadline < left.deadline ? right : left
      if (timed.deadline <= child.deadline) return
      this.#swap(timed, child)
    }
  }

  #swap(above: Timed, below: Timed): void {
    const { place } = above
    above.place = below.place
    below.place = place
    this.#heap[above.place] = above
    this.#heap[place] = below
  }
}

const ofClocks = new WeakMap<Clock.Clock, Deadlines>()

const nativeTimer = (): Timer => {
  let timer: NodeJS.Timeout | undefined
  return {
    start: (millis, run) => {
      // A moment too early would find nothing to do.
      timer = setTimeout(run, Math.ceil(millis))
    },
    cancel: () => clearTimeout(timer),
    hold: (hold) => {
      if (hold) timer?.ref()
      else timer?.unref()
    }
  }
}

const timerOf = (clock: Clock.Clock): Timer => {
  let sleeping: Fiber.Fiber<void> | undefined
  const cancel = (): void => {
    const fiber = sleeping
    sleeping = undefined
    fiber?.interruptUnsafe()
  }
  let start: { readonly at: number; readonly run: () => void } | undefined
  const sleep = (): void => {
    if (start === undefined) return
    const { at, run } = start
    const millis = Math.max(0, at - clock.currentTimeMillisUnsafe())
    const fiber = Effect.runFork(Effect.provideService(Effect.sleep(millis), Clock.Clock, clock))
    sleeping = fiber
    fiber.addObserver(() => {
      if (sleeping !== fiber) return
      sleeping = undefined
      start = undefined
      run()
    })
  }
  return {
    start: (millis, run) => {
      start = { at: clock.currentTimeMillisUnsafe() + millis, run }
      sleep()
    },
    cancel: () => {
      start = undefined
      cancel()
    },
    // One that sleeps on a clock that nobody moves is missed.
    hold: (hold) => {
      if (!hold) cancel()
      else if (sleeping === undefined) sleep()
    }
  }
}
