/**
 * Supervised workers behind one door.
 *
 * The pool starts its workers, sends each call to the least loaded one, lets calls wait while there is no room, and
 * starts a worker again when it ends, with growing pauses and under a budget. It knows connections and nothing beneath
 * them.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { type Connection, type Stats, synchronousMethods } from "./Connection.ts"
import type { Served } from "./internal/serving.ts"
import { Closed, Overloaded, RestartLimit, StartFailed, SynapseError } from "./SynapseError.ts"

/**
 * When a worker that ended is started again.
 *
 * @category models
 * @since 0.1.0
 */
export interface RestartOptions {
  /** How many ends are forgiven within the window; one before the worker said hello counts twice. Default: 5. */
  readonly max?: number | undefined
  /** The time within which ends are counted. Default: 30 seconds. */
  readonly window?: Duration.Input | undefined
  /** The pause before the first restart; it doubles with each one within the window, up to 5 seconds. Default: 50 ms. */
  readonly backoff?: Duration.Input | undefined
}

/**
 * How calls wait for room.
 *
 * @category models
 * @since 0.1.0
 */
export interface QueueOptions {
  /** How many calls may wait when `whenFull` is `"reject"`. Default: 1024. */
  readonly capacity?: number | undefined
  /**
   * `"wait"`: a caller waits until there is room (the default). `"reject"`: a call beyond the capacity fails with
   * `Overloaded` at once.
   */
  readonly whenFull?: "wait" | "reject" | undefined
}

/**
 * What {@link make} needs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The number of workers, at least 1. */
  readonly size: number
  readonly restart?: RestartOptions | undefined
  readonly queue?: QueueOptions | undefined
  /**
   * Connects to a new worker; the scope owns it. `onChange` has to be called whenever the worker can take more calls
   * than before, or none any more.
   */
  readonly acquire: (onChange: () => void) => Effect.Effect<Connection, SynapseError, Scope.Scope>
}

/**
 * How a worker is chosen for a call.
 *
 * @category models
 * @since 0.1.0
 */
export interface UseOptions {
  /**
   * The call that waits for a function inside which this one is made: it goes to the worker of that call, where it has a
   * place. Elsewhere it might wait for a worker that waits for it.
   */
  readonly parent?: Served | undefined
  /** The call had a worker before, and comes before those that never had one. */
  readonly returned?: boolean | undefined
}

/**
 * A pool of workers.
 *
 * @category models
 * @since 0.1.0
 */
export interface WorkerPool {
  /** Runs one call of a method on the least loaded worker, waiting for room where there is none. */
  readonly use: <A, R>(
    method: string,
    call: (connection: Connection) => Effect.Effect<A, SynapseError, R>,
    how?: UseOptions | undefined
  ) => Effect.Effect<A, SynapseError, R>
  /** What is open on all workers. */
  readonly stats: () => Stats
}

interface Slot {
  connection: Connection | undefined
  /** Calls that were given this worker and have not reached its connection yet. */
  reserved: number
}

interface Waiter {
  readonly resume: (effect: Effect.Effect<Slot, SynapseError>) => void
  slot: Slot | undefined
}

/** Calls that wait, of synchronous and of asynchronous handlers: room for one kind is not room for the other. */
interface Waiting {
  /** Those of synchronous handlers that had a worker before. */
  readonly returned: Set<Waiter>
  readonly synchronous: Set<Waiter>
  readonly asynchronous: Set<Waiter>
}

interface End {
  /** How it ended; nothing for a worker that leaves in order. */
  readonly error: SynapseError | undefined
  readonly wasReady: boolean
}

const maxBackoffMillis = 5000
const defaultQueueCapacity = 1024

/**
 * Starts a pool and waits until every worker has said hello.
 *
 * **Details**
 *
 * Fails with what the first failing worker failed with: a worker that does not come up at the start is not tried again.
 * Closing the scope stops all workers at the same time and fails waiting calls with `Closed`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<WorkerPool, SynapseError, Scope.Scope> {
  const clock = yield* Clock.Clock
  const slots: Array<Slot> = Array.from({ length: options.size }, () => ({ connection: undefined, reserved: 0 }))
  const waiting: Waiting = { returned: new Set(), synchronous: new Set(), asynchronous: new Set() }
  let synchronous: ReadonlySet<string> = new Set()
  const stopped = yield* Deferred.make<never, SynapseError>()
  const restarts = makeRestarts(options.restart)
  let stoppedWith: SynapseError | undefined

  const stop = (error: SynapseError): void => {
    if (stoppedWith !== undefined) return
    stoppedWith = error
    Deferred.doneUnsafe(stopped, Exit.fail(error))
    for (const waiters of [waiting.returned, waiting.synchronous, waiting.asynchronous]) {
      for (const waiter of waiters) waiter.resume(Effect.fail(error))
      waiters.clear()
    }
  }

  const leastLoaded = (isSynchronous: boolean): Slot | undefined => {
    let best: Slot | undefined
    let bestLoad = Number.POSITIVE_INFINITY
    for (const slot of slots) {
      const { connection, reserved } = slot
      if (connection === undefined || connection.room(isSynchronous) <= reserved) continue
      const load = connection.load() + reserved
      if (load < bestLoad) {
        best = slot
        bestLoad = load
      }
    }
    return best
  }

  const admit = (): void => {
    admitFrom(waiting.returned, true)
    if (waiting.returned.size === 0) admitFrom(waiting.synchronous, true)
    admitFrom(waiting.asynchronous, false)
  }
  const admitFrom = (waiters: Set<Waiter>, isSynchronous: boolean): void => {
    for (const waiter of waiters) {
      const slot = leastLoaded(isSynchronous)
      if (slot === undefined) return
      waiters.delete(waiter)
      slot.reserved++
      waiter.slot = slot
      waiter.resume(Effect.succeed(slot))
    }
  }

  const waitersOf = (isSynchronous: boolean, returned: boolean): Set<Waiter> => {
    if (!isSynchronous) return waiting.asynchronous
    return returned ? waiting.returned : waiting.synchronous
  }

  // A reserved place is given back by whoever waited for it: by making its call, or by being interrupted before. An
  // interruption may come when the place is not reserved any more and the call not made yet: the next waiter is told.
  const waitAndUse = <A, R>(
    waiters: Set<Waiter>,
    call: (connection: Connection) => Effect.Effect<A, SynapseError, R>
  ): Effect.Effect<A, SynapseError, R> =>
    Effect.uninterruptibleMask((restore) => {
      let waiter: Waiter | undefined
      const wait = Effect.callback<Slot, SynapseError>((resume) => {
        if (stoppedWith !== undefined) return resume(Effect.fail(stoppedWith))
        waiter = { resume, slot: undefined }
        waiters.add(waiter)
        // The fiber may have made way for others since it found no room.
        admit()
      })
      const giveUp = Effect.sync(() => {
        if (waiter === undefined) return
        waiters.delete(waiter)
        if (waiter.slot !== undefined) waiter.slot.reserved--
        admit()
      })
      return Effect.flatMap(
        Effect.onInterrupt(restore(wait), () => giveUp),
        (slot) => {
          slot.reserved--
          // The worker may have ended since: this call has been admitted and only waits for the next.
          if (slot.connection === undefined)
            return restore(stoppedWith === undefined ? waitAndUse(waiters, call) : Effect.fail(stoppedWith))
          return Effect.onInterrupt(restore(call(slot.connection)), () => Effect.sync(admit))
        }
      )
    })

  // Every connection there is, those included that leave.
  const connections = new Set<Connection>()
  const connectionOf = (owner: object): Connection | undefined => {
    for (const connection of connections) if (connection.owner === owner) return connection
    return undefined
  }

  const use: WorkerPool["use"] = (method, call, how) =>
    Effect.suspend(() => {
      if (stoppedWith !== undefined) return Effect.fail(stoppedWith)
      const isSynchronous = synchronous.has(method)
      const parent = how?.parent
      const waitsForIt = parent && connectionOf(parent.owner)
      // A fiber may go on when the call is over that it was started for: then nobody waits.
      if (waitsForIt?.isOpen() && waitsForIt.has(parent!.call)) return call(waitsForIt)
      const returned = how?.returned ?? false
      const waiters = waitersOf(isSynchronous, returned)
      const isFirst = waiters.size === 0 && (waiters !== waiting.synchronous || waiting.returned.size === 0)
      const slot = isFirst ? leastLoaded(isSynchronous) : undefined
      if (slot !== undefined) return call(slot.connection!)
      // It was admitted before.
      if (returned) return waitAndUse(waiters, call)
      const capacity = options.queue?.capacity ?? defaultQueueCapacity
      if (options.queue?.whenFull === "reject" && waiting.synchronous.size + waiting.asynchronous.size >= capacity) {
        return Effect.fail(new SynapseError({ reason: new Overloaded({ where: "queue", capacity }) }))
      }
      return waitAndUse(waiters, call)
    })

  // Workers that said that they leave: out of their slot, with calls to finish.
  const draining = new Set<Fiber.Fiber<void>>()
  const drain = (connection: Connection, scope: Scope.Closeable): Effect.Effect<void> =>
    Effect.exit(Effect.raceFirst(connection.ended, Deferred.await(stopped))).pipe(
      Effect.interruptible,
      Effect.flatMap((exit) => Scope.close(scope, exit)),
      Effect.forkDetach,
      Effect.flatMap((fiber) =>
        Effect.sync(() => {
          draining.add(fiber)
          fiber.addObserver(() => draining.delete(fiber))
        })
      )
    )

  const acquire = Effect.uninterruptibleMask((restore) =>
    Effect.tap(restore(options.acquire(admit)), (connection) =>
      Effect.acquireRelease(
        Effect.sync(() => connections.add(connection)),
        () => Effect.sync(() => connections.delete(connection))
      )
    )
  )

  // Serves one worker from its start until it ends or leaves.
  const serve = (slot: Slot, onReady: () => void): Effect.Effect<End> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        let wasReady = false
        const run = Effect.gen(function* () {
          const connection = yield* Scope.provide(acquire, scope)
          slot.connection = connection
          synchronous = synchronousMethods(connection.hello)
          wasReady = true
          onReady()
          admit()
          yield* Effect.raceFirst(connection.ended, connection.leaving)
          return connection
        })
        const exit = yield* Effect.exit(restore(Effect.raceFirst(run, Deferred.await(stopped))))
        slot.connection = undefined
        if (Exit.isSuccess(exit)) {
          yield* drain(exit.value, scope)
          return { wasReady, error: undefined }
        }
        yield* Scope.close(scope, exit)
        return { wasReady, error: yield* Effect.flip(Effect.failCause(exit.cause)) }
      })
    )

  const supervise = (slot: Slot, started: Deferred.Deferred<void, SynapseError>) =>
    Effect.gen(function* () {
      while (true) {
        const { error, wasReady } = yield* serve(slot, () => Deferred.doneUnsafe(started, Exit.void))
        if (error === undefined) continue
        // Fails the start of the pool, and does nothing after it.
        if (Deferred.doneUnsafe(started, Exit.fail(error)) || stoppedWith !== undefined) return
        const pause = restarts.next(clock.currentTimeMillisUnsafe(), error, wasReady)
        if (pause === undefined) return stop(restarts.limit())
        // A logger that fails is no reason to leave the calls without a worker.
        yield* Effect.ignoreCause(Effect.logWarning(error.message))
        yield* Effect.sleep(pause)
      }
    }).pipe(
      Effect.catchCause((cause) =>
        Effect.sync(() => {
          if (Cause.hasInterruptsOnly(cause)) return
          const error = supervisorFailed(cause)
          Deferred.doneUnsafe(started, Exit.fail(error))
          stop(error)
        })
      )
    )

  const started = slots.map(() => Deferred.makeUnsafe<void, SynapseError>())
  yield* Effect.acquireRelease(
    Effect.forEach(slots, (slot, index) => Effect.forkDetach(Effect.interruptible(supervise(slot, started[index]!)))),
    // All at once: sixteen workers close in the grace of one.
    (fibers) =>
      Effect.suspend(() => {
        stop(new SynapseError({ reason: new Closed({ delivery: "notSent" }) }))
        return Fiber.interruptAll([...fibers, ...draining])
      })
  )
  yield* Effect.forEach(started, Deferred.await, { concurrency: "unbounded", discard: true })

  const stats = (): Stats => {
    const total = { calls: 0, streams: 0, hostCalls: 0, handles: 0 }
    for (const connection of connections) {
      const { calls, handles, hostCalls, streams } = connection.stats()
      total.calls += calls
      total.streams += streams
      total.hostCalls += hostCalls
      total.handles += handles
    }
    return total
  }
  return { use, stats }
})

// Calls fail rather than wait for a worker that nobody starts.
const supervisorFailed = (cause: Cause.Cause<unknown>): SynapseError =>
  new SynapseError({
    reason: new StartFailed({
      kind: "spawn",
      detail: `The supervision of a worker failed, which it should not: ${Cause.pretty(cause)}`
    })
  })

interface Restarts {
  /** The pause before the next start, or nothing when the budget is used up. */
  readonly next: (nowMillis: number, error: SynapseError, wasReady: boolean) => Duration.Duration | undefined
  readonly limit: () => SynapseError
}

const makeRestarts = (options: RestartOptions = {}): Restarts => {
  const max = options.max ?? 5
  const windowMillis = Duration.toMillis(options.window ?? "30 seconds")
  const backoffMillis = Duration.toMillis(options.backoff ?? "50 millis")
  let ends: Array<{ readonly at: number; readonly weight: number }> = []
  const exits: Array<string> = []
  return {
    next: (nowMillis, error, wasReady) => {
      exits.push(error.message)
      if (exits.length > 3) exits.shift()
      ends = ends.filter(({ at }) => nowMillis - at < windowMillis)
      ends.push({ at: nowMillis, weight: wasReady ? 1 : 2 })
      const used = ends.reduce((sum, { weight }) => sum + weight, 0)
      return used > max
        ? undefined
        : Duration.millis(Math.min(maxBackoffMillis, backoffMillis * 2 ** (ends.length - 1)))
    },
    limit: () => new SynapseError({ reason: new RestartLimit({ max, windowMillis, exits: [...exits] }) })
  }
}
