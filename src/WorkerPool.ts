/**
 * Supervised workers behind one door.
 *
 * The pool keeps as many workers as are wanted: it starts them, starts those again that end, with growing pauses and under
 * a budget, replaces those that have served long enough or leave, and lets go of those that nobody needs. A worker that is
 * replaced finishes what it has. Which worker takes a call is the dispatcher's. It knows connections and nothing beneath them.
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
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { Connection, Leaving, Stats } from "./Connection.ts"
import type { Frame } from "./Envelope.ts"
import { Dispatcher, type Entry, type Seat } from "./internal/dispatcher.ts"
import { nativeSleep } from "./internal/nativeSleep.ts"
import { quietSleep } from "./internal/quietSleep.ts"
import { Recycling, type Wear } from "./internal/recycling.ts"
import { Restarts } from "./internal/restarts.ts"
import type { Served } from "./internal/serving.ts"
import { Closed, StartFailed, SynapseError } from "./SynapseError.ts"

/**
 * When a worker that ended is started again.
 *
 * @category models
 * @since 0.1.0
 */
export interface RestartOptions {
  /** How many ends are forgiven within the window; one before the worker has loaded the module counts twice. Default: 5. */
  readonly max?: number | undefined
  /** The time within which ends are counted. Default: 30 seconds. */
  readonly window?: Duration.Input | undefined
  /**
   * The pause before the first restart; it doubles with each one that counts, up to 5 seconds. Each is up to a fifth
   * shorter or longer. Default: 50 ms.
   */
  readonly backoff?: Duration.Input | undefined
  /** After so long without an end, the count begins anew. Default: 30 seconds. */
  readonly resetAfter?: Duration.Input | undefined
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
 * When a worker has served long enough. Its replacement is started first; then it finishes what it has, and leaves.
 *
 * @category models
 * @since 0.1.0
 */
export interface RecycleOptions {
  /** After about so many calls. Default: never. */
  readonly afterCalls?: number | undefined
  /** At an age. Default: never. */
  readonly afterAge?: Duration.Input | undefined
  /**
   * When the process uses so much memory, looked at every second. `"auto"`: when it has grown three times in a row, by a
   * MiB and by 1 % at least, each time over 100 calls. Default: never.
   */
  readonly afterMemoryMiB?: number | "auto" | undefined
}

/**
 * How many workers there are.
 *
 * @category models
 * @since 0.1.0
 */
export interface Size {
  /** So many are always there. 0: the first call starts the first one. */
  readonly min: number
  /** So many there are at most: another one is started when a call has to wait. At least 1. */
  readonly max: number
  /** After how long without a call a worker beyond `min` leaves. Default: 1 minute. */
  readonly idleTimeToLive?: Duration.Input | undefined
}

/**
 * What {@link make} needs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly size: Size
  readonly restart?: RestartOptions | undefined
  readonly queue?: QueueOptions | undefined
  readonly recycle?: RecycleOptions | "auto" | undefined
  /** Whether every call has a worker of its own, which leaves after it. Default: `false`. */
  readonly oneShot?: boolean | undefined
  readonly acquire: Acquire
}

/**
 * Connects to a new worker; the scope owns it. `onChange` has to be called whenever a call ends or an object is let go of,
 * and whenever the worker takes no more calls.
 *
 * @category models
 * @since 0.1.0
 */
export type Acquire = (onChange: () => void) => Effect.Effect<Connection, SynapseError, Scope.Scope>

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
  /** Calls with the same key go to the same worker while that one takes calls. */
  readonly affinity?: string | undefined
}

/**
 * Begins a call at a worker, at once. `resume` is given its end; what is returned ends it for a caller that gives it up.
 *
 * @category models
 * @since 0.1.0
 */
export type Begin = (
  connection: Connection,
  resume: (end: Effect.Effect<Frame, SynapseError>) => void
) => (() => void) | undefined

/**
 * A worker as {@link Status} shows it.
 *
 * @category models
 * @since 0.1.0
 */
export interface WorkerStatus {
  /** Counts the workers of a runtime. */
  readonly id: number
  /** The process id; nothing before the worker said hello. */
  readonly pid: number | undefined
  /** `"draining"`: it takes no more calls and finishes what it has. */
  readonly state: "starting" | "ready" | "draining"
  /** Calls it has now, those included that were given up and not answered yet. */
  readonly inFlight: number
  /** Calls it has had that are over. */
  readonly calls: number
  /** Its resident memory, where that can be had. */
  readonly memoryBytes: number | undefined
  /** When it was started, in milliseconds since the epoch. */
  readonly startedAt: number
}

/**
 * A runtime at a moment.
 *
 * @category models
 * @since 0.1.0
 */
export interface Status {
  /** `"failed"`: the restart budget is used up, and calls fail until a reload. */
  readonly state: "running" | "failed" | "closed"
  readonly workers: ReadonlyArray<WorkerStatus>
  /** Calls that wait for a worker. */
  readonly waiting: number
  /** How often a worker was started again after it had ended. */
  readonly restarts: number
  /** The last end of a worker that nobody had asked for. */
  readonly lastExit: WorkerEnd | undefined
}

/**
 * How a worker ended.
 *
 * @category models
 * @since 0.1.0
 */
export interface WorkerEnd {
  /** The {@link WorkerStatus.id}. */
  readonly id: number
  /** In milliseconds since the epoch. */
  readonly at: number
  readonly error: SynapseError
}

/**
 * A pool of workers.
 *
 * @category models
 * @since 0.1.0
 */
export interface WorkerPool {
  /** Runs one call of a method on the least loaded worker, waiting for room where there is none. */
  readonly use: (method: string, begin: Begin, how?: UseOptions | undefined) => Effect.Effect<Frame, SynapseError>
  /**
   * The same, for a call that takes care of itself: it begins at once where there is room, and otherwise waits.
   */
  readonly enter: (entry: Entry, parent: Served | undefined, returned: boolean) => void
  /** What is open on all workers. */
  readonly stats: () => Stats
  readonly status: Effect.Effect<Status>
  /**
   * The status, whenever it is another one: at once when a worker comes or goes, and otherwise within a second. Ends with
   * the pool.
   */
  readonly statusChanges: Stream.Stream<Status>
  /**
   * Starts new workers with `acquire`, has them take the calls once all are ready, and lets the others finish. Where one does
   * not come up, it fails and nothing has changed. A pool that gave up goes on.
   */
  readonly reload: (acquire: Acquire) => Effect.Effect<void, SynapseError>
  /** Wants another number of workers. Those that are too many finish what they have. */
  readonly resize: (size: Size) => Effect.Effect<void>
}

interface Worker {
  readonly id: number
  readonly generation: Generation
  readonly startedAt: number
  readonly wear: Wear
  /** The one that goes when this one is ready. */
  replaces: Worker | undefined
  state: WorkerStatus["state"]
  connection: Connection | undefined
  seat: Seat | undefined
  /** Whether it is leaving, so that its end need not be brought about. */
  endsByItself: boolean
  /** Whether it has nothing left to do and should be gone soon. */
  isOverdue: boolean
  /** Ticks without a call, and the calls it had had at the last one. */
  idleTicks: number
  served: number
  /** Succeeds when the worker has said hello, fails when it will not. */
  readonly ready: Deferred.Deferred<void, SynapseError>
  /** Succeeds when the worker is not wanted any more and has nothing left to do. */
  readonly finished: Deferred.Deferred<void>
}

/** Workers that were started from the same files. */
interface Generation {
  readonly acquire: Acquire
}

/** How often workers are looked at that may have served long enough, or have nothing to do. */
const tickMillis = 1000
/** How long a call waits before another worker is started for it. */
const growMillis = 50
/** How long a worker that ended may take to be cleared away before another one is started. */
const clearingMillis = 1000
/** A worker that leaves by itself so soon after its hello counts as one that ended. */
const tooSoonMillis = 1000
/** How long a worker that leaves by itself may take to do so once nobody waits for it. */
const leavingMillis = 10_000
/** How long nothing is recycled after a replacement that did not come up. */
const recyclePauseMillis = 30_000
/** How often the status is looked at while somebody listens. */
const statusMillis = 1000

/**
 * Starts a pool and waits until the workers that are always there have said hello.
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
  const random = yield* Random.Random
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  const oneShot = options.oneShot ?? false
  const restarts = new Restarts(options.restart)
  const recycling = new Recycling(options.recycle)
  const changes = yield* PubSub.sliding<void>(1)
  const reloading = yield* Semaphore.make(1)
  const workers = new Set<Worker>()
  const fibers = new Map<Worker | symbol, Fiber.Fiber<unknown>>()
  let size = options.size
  /** How many workers there should be now, from `size.min` to `size.max`. */
  let wanted = size.min
  let generation: Generation = { acquire: options.acquire }
  let state: Status["state"] = "running"
  let started = false
  let lastExit: WorkerEnd | undefined
  let lastId = 0
  /** Workers that will be started when a pause is over. */
  let pausing = 0
  let recycleAgainAt = 0
  /** Whether it is about to be looked at how many workers there should be. */
  let growing = false

  const now = (): number => clock.currentTimeMillisUnsafe()
  const changed = (): void => void PubSub.publishUnsafe(changes, undefined)

  const isRunning = (): boolean => state === "running"

  /** Runs an effect until it is over or the pool is. */
  const run = (effect: Effect.Effect<unknown>, as: Worker | symbol = Symbol()): void => {
    const fiber = runFork(effect)
    fibers.set(as, fiber)
    fiber.addObserver(() => fibers.delete(as))
  }
  // A logger that fails is no reason to leave the calls without a worker.
  const log = (message: Effect.Effect<void>): void => run(Effect.ignoreCause(message))

  const count = (is: (worker: Worker) => boolean): number => {
    let found = 0
    for (const worker of workers) if (is(worker)) found++
    return found
  }
  const isReplacement = ({ replaces }: Worker): boolean => replaces?.state === "ready"
  /** The workers that there are of those that are wanted: one that is to replace another is not one more. */
  const isWanted = (worker: Worker): boolean =>
    worker.generation === generation && worker.state !== "draining" && !isReplacement(worker)

  /** Whether it has been given its one call, which may do to it what it likes. */
  const isSpent = ({ seat }: Worker): boolean => oneShot && seat?.isOpen === false

  const dispatcher = new Dispatcher({
    queue: options.queue,
    oneShot,
    onWait: () => {
      if (!isRunning() || wanted >= size.max || growing) return
      growing = true
      // Most calls that wait do so for a moment, which is less than a worker takes to start.
      const pause = wanted === 0 ? Effect.void : Effect.sleep(growMillis)
      run(
        Effect.ensuring(
          Effect.andThen(pause, Effect.sync(grow)),
          Effect.sync(() => {
            growing = false
          })
        )
      )
    },
    onSpent: (seat) => {
      for (const worker of workers) {
        if (worker.seat !== seat) continue
        retire(worker)
        finish(worker)
      }
      fill()
    }
  })

  /** Starts workers for the calls that wait. */
  const grow = (): void => {
    const ready = count((worker) => worker.state === "ready" && isWanted(worker))
    // Those that are starting, too: one that is not wanted any more would be let go of.
    wanted = Math.min(size.max, Math.max(wanted, ready + dispatcher.waitingForAny))
    fill()
  }

  /** Starts what is missing, and lets go of what is too many. */
  const fill = (): void => {
    if (!isRunning()) return
    const there = Array.from(workers).filter(isWanted)
    // A worker that fails to start may use up the budget.
    for (let missing = wanted - pausing - there.length; missing > 0 && isRunning(); missing--) start(generation)
    // Those that are not ready yet go first, then the youngest.
    there.sort((a, b) => Number(a.state === "ready") - Number(b.state === "ready") || b.id - a.id)
    for (const worker of there.slice(0, Math.max(0, there.length - wanted))) retire(worker)
  }

  const start = (of: Generation, replaces?: Worker): Worker => {
    const worker: Worker = {
      id: ++lastId,
      generation: of,
      startedAt: now(),
      wear: recycling.follow(),
      replaces,
      state: "starting",
      connection: undefined,
      seat: undefined,
      endsByItself: false,
      isOverdue: false,
      idleTicks: 0,
      served: 0,
      ready: Deferred.makeUnsafe(),
      finished: Deferred.makeUnsafe()
    }
    workers.add(worker)
    run(live(worker), worker)
    changed()
    return worker
  }

  /** Gives a worker that has said hello the calls that wait. */
  const serve = (worker: Worker): void => {
    if (worker.state !== "starting" || worker.connection === undefined) return
    worker.state = "ready"
    worker.seat = dispatcher.add(worker.connection)
    dispatcher.admit()
    const { replaces } = worker
    // Not kept: it would keep the one before it, and so on.
    worker.replaces = undefined
    if (replaces !== undefined) retire(replaces)
    changed()
  }

  /** Gives a worker no more calls; it finishes what it has. */
  const retire = (worker: Worker): void => {
    if (worker.state === "draining") return
    worker.state = "draining"
    if (worker.seat !== undefined) dispatcher.remove(worker.seat)
    finish(worker)
    changed()
  }

  const finish = (worker: Worker): void => {
    const { connection, finished, state } = worker
    if (state !== "draining") return
    if (connection !== undefined && !connection.isIdle()) return
    if (!worker.endsByItself) return void Deferred.doneUnsafe(finished, Exit.void)
    // Unless a handler that was given up keeps it from it.
    if (worker.isOverdue) return
    worker.isOverdue = true
    run(Effect.andThen(quietSleep(leavingMillis), Deferred.succeed(finished, undefined)))
  }

  const onChange = (worker: Worker): void => {
    if (worker.state === "draining") return finish(worker)
    dispatcher.admit(worker.seat)
    const served = worker.connection?.served() ?? 0
    if (recycling.isUsedUp(served)) recycle(worker, `has had ${served} calls`)
  }

  /** Starts what replaces a worker. */
  const recycle = (worker: Worker, why: string): void => {
    if (!isRunning() || worker.state !== "ready" || worker.generation !== generation) return
    // One after the other: all of them at once would take twice the memory.
    if (now() < recycleAgainAt || count(isReplacement) > 0) return
    log(Effect.logDebug(`The Python worker ${pidOf(worker)} ${why} and is replaced`))
    start(generation, worker)
  }

  const acquire = (worker: Worker): Effect.Effect<Connection, SynapseError, Scope.Scope> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.tap(restore(worker.generation.acquire(() => onChange(worker))), (connection) =>
        Effect.acquireRelease(
          Effect.sync(() => dispatcher.connections.add(connection)),
          () => Effect.sync(() => dispatcher.connections.delete(connection))
        )
      )
    )

  /** The life of one worker, from its start until everything of it is gone. */
  const live = (worker: Worker): Effect.Effect<void> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const serving = Effect.gen(function* () {
          const connection = yield* Scope.provide(acquire(worker), scope)
          const readyAt = now()
          worker.connection = connection
          // Those of a reload begin together.
          if (worker.generation === generation) serve(worker)
          // Whoever waits for it may go on at once.
          Deferred.doneUnsafe(worker.ready, Exit.void)
          const leaving = yield* Effect.raceFirst(connection.leaving, connection.ended)
          onLeft(worker, now() - readyAt, leaving)
          return yield* connection.ended
        })
        const exit = yield* Effect.exit(restore(Effect.raceFirst(serving, Deferred.await(worker.finished))))
        const closing = yield* Effect.forkDetach(Scope.close(scope, exit))
        if (Exit.isFailure(exit) && worker.state !== "draining") onEnded(worker, exit.cause, Fiber.await(closing))
        retire(worker)
        Deferred.doneUnsafe(worker.ready, Exit.fail(dispatcher.refusal ?? closed))
        yield* Fiber.await(closing)
        workers.delete(worker)
        changed()
        fill()
      })
    )

  const onLeft = (worker: Worker, afterMillis: number, { byItself, isDone, why }: Leaving): void => {
    worker.endsByItself = true
    if (why !== undefined) {
      const asks = `The Python worker ${pidOf(worker)} asks to be replaced: ${why}`
      log(isDone ? Effect.logDebug(asks) : Effect.logInfo(asks))
    }
    if (!byItself)
      log(Effect.logWarning(`The Python worker ${pidOf(worker)} goes on with a given-up call and is replaced`))
    const counts = byItself && !isDone && isWanted(worker) && !isSpent(worker)
    retire(worker)
    if (counts && afterMillis < tooSoonMillis) startAgain(leftTooSoon(worker, why), undefined, Effect.void)
    else fill()
  }

  const onEnded = (worker: Worker, cause: Cause.Cause<SynapseError>, cleared: Effect.Effect<unknown>): void => {
    if (Cause.hasInterruptsOnly(cause)) return
    const failure = Cause.findErrorOption(cause)
    const error = Option.getOrElse(failure, () => supervisorFailed(cause))
    const wasReady = worker.connection !== undefined
    const wasWanted = isWanted(worker)
    const wasReplacement = isReplacement(worker)
    const wasSpent = isSpent(worker)
    Deferred.doneUnsafe(worker.ready, Exit.fail(error))
    lastExit = { id: worker.id, at: now(), error }
    retire(worker)
    // Trying again mends nothing.
    if (Option.isNone(failure)) return giveUp(error)
    if (wasReplacement) {
      recycleAgainAt = now() + recyclePauseMillis
      log(Effect.logWarning(`The replacement of a worker did not come up, so that it goes on: ${error.message}`))
    } else if (wasWanted && !wasSpent && (wasReady || started)) {
      startAgain(error, wasReady ? undefined : now() - worker.startedAt, cleared)
    }
  }

  const startAgain = (
    error: SynapseError,
    startingMillis: number | undefined,
    cleared: Effect.Effect<unknown>
  ): void => {
    const pause = restarts.next(now(), error, startingMillis, random.nextDoubleUnsafe())
    if (pause === undefined) return giveUp(restarts.limit())
    log(Effect.logWarning(`A worker ended and is started again: ${error.message}`))
    pausing++
    run(
      // A function of the host that cannot be interrupted is no reason to go without a worker.
      Effect.raceFirst(cleared, nativeSleep(clearingMillis)).pipe(
        Effect.andThen(Effect.sleep(pause)),
        Effect.ensuring(Effect.sync(() => pausing--)),
        Effect.andThen(Effect.sync(fill))
      )
    )
  }

  const giveUp = (error: SynapseError): void => {
    state = "failed"
    dispatcher.close(error)
    for (const [of, fiber] of fibers) if (typeof of === "symbol") fiber.interruptUnsafe()
    // The others are not at fault, and finish what they have. A reload that is under way starts over.
    for (const worker of Array.from(workers)) if (worker.generation === generation) retire(worker)
    log(Effect.logError(error.message))
    changed()
  }

  const tick = Effect.gen(function* () {
    const idleMillis = Duration.toMillis(size.idleTimeToLive ?? "1 minute")
    for (const worker of Array.from(workers)) {
      const { connection } = worker
      if (connection === undefined || worker.state !== "ready") continue
      const served = connection.served()
      const isIdle = connection.isIdle() && connection.load() === 0 && served === worker.served
      worker.idleTicks = isIdle ? worker.idleTicks + 1 : 0
      worker.served = served
      if (isIdle && worker.idleTicks * tickMillis >= idleMillis && wanted > size.min && isWanted(worker)) {
        wanted--
        retire(worker)
        continue
      }
      const vitals = recycling.watchesMemory ? yield* connection.inspect : undefined
      const why = worker.wear.isDue(now() - worker.startedAt, served, vitals?.memoryBytes)
      if (why !== undefined) recycle(worker, why)
    }
  })

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      state = "closed"
      dispatcher.close(closed)
      dispatcher.dispose()
      // All at once: sixteen workers close in the grace of one.
      return Effect.andThen(Fiber.interruptAll(fibers.values()), PubSub.shutdown(changes))
    })
  )
  yield* Effect.andThen(quietSleep(tickMillis), tick).pipe(Effect.forever, Effect.interruptible, Effect.forkScoped)
  fill()
  yield* Effect.forEach(Array.from(workers), ({ ready }) => Deferred.await(ready), {
    concurrency: "unbounded",
    discard: true
  })
  started = true

  const reload: WorkerPool["reload"] = (acquire) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        if (state === "closed") return yield* Effect.fail(closed)
        const next: Generation = { acquire }
        const fresh = Array.from({ length: Math.max(1, wanted) }, () => start(next))
        const exit = yield* Effect.exit(
          restore(
            Effect.forEach(fresh, ({ ready }) => Deferred.await(ready), { concurrency: "unbounded", discard: true })
          )
        )
        if (Exit.isFailure(exit)) {
          yield* Fiber.interruptAll(fresh.flatMap((worker) => fibers.get(worker) ?? []))
          return yield* exit
        }
        generation = next
        wanted = Math.max(wanted, 1)
        if (state === "failed") {
          restarts.reset()
          dispatcher.reopen()
          state = "running"
        }
        fresh.forEach(serve)
        for (const worker of Array.from(workers)) if (worker.generation !== next) retire(worker)
        fill()
      })
    ).pipe(reloading.withPermit)

  const status = Effect.gen(function* () {
    const shown = yield* Effect.forEach(Array.from(workers), (worker) =>
      Effect.map(worker.connection?.inspect ?? Effect.succeed(undefined), (vitals): WorkerStatus => {
        const { connection, id, startedAt, state } = worker
        return {
          id,
          pid: pidOf(worker),
          state,
          inFlight: connection?.load() ?? 0,
          calls: connection?.served() ?? 0,
          memoryBytes: vitals?.memoryBytes,
          startedAt
        }
      })
    )
    return { state, workers: shown, waiting: dispatcher.waiting, restarts: restarts.count, lastExit }
  })

  const statusChanges = Effect.map(PubSub.subscribe(changes), (subscription) =>
    Stream.succeed(undefined).pipe(
      Stream.concat(
        Stream.merge(Stream.fromSubscription(subscription), Stream.fromEffectRepeat(quietSleep(statusMillis)), {
          haltStrategy: "left"
        })
      ),
      Stream.concat(Stream.succeed(undefined)),
      Stream.mapEffect(() => status),
      Stream.changesWith(isSame)
    )
  ).pipe(Stream.unwrap, Stream.scoped)

  const stats = (): Stats => {
    const total = { calls: 0, streams: 0, hostCalls: 0, handles: 0 }
    for (const connection of dispatcher.connections) {
      const { calls, handles, hostCalls, streams } = connection.stats()
      total.calls += calls
      total.streams += streams
      total.hostCalls += hostCalls
      total.handles += handles
    }
    return total
  }

  return {
    use: dispatcher.use,
    enter: dispatcher.enter,
    stats,
    status,
    statusChanges,
    reload,
    resize: (to) =>
      Effect.sync(() => {
        size = to
        wanted = Math.min(Math.max(wanted, to.min), to.max)
        fill()
        grow()
        changed()
      })
  }
})

const isSame = (a: Status, b: Status): boolean =>
  a.state === b.state &&
  a.waiting === b.waiting &&
  a.restarts === b.restarts &&
  a.lastExit === b.lastExit &&
  JSON.stringify(a.workers) === JSON.stringify(b.workers)

const closed = new SynapseError({ reason: new Closed({ delivery: "notSent" }) })

const pidOf = ({ connection }: Worker): number | undefined => connection?.hello.pid

const leftTooSoon = (worker: Worker, why: string | undefined): SynapseError =>
  new SynapseError({
    reason: new StartFailed({
      kind: "exit",
      detail:
        `The Python worker ${pidOf(worker)} asked to be replaced within a second of its start` +
        (why === undefined ? "" : `: ${why}`)
    })
  })

// Calls fail rather than wait for a worker that nobody starts.
const supervisorFailed = (cause: Cause.Cause<unknown>): SynapseError =>
  new SynapseError({
    reason: new StartFailed({
      kind: "spawn",
      detail: `The supervision of a worker failed, which it should not: ${Cause.pretty(cause)}`
    })
  })
