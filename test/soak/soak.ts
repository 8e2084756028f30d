/**
 * The soak: random calls of every kind, and random faults, with a ledger.
 *
 * Callers make one operation after the other, each drawn from the seed, the caller and its number, so that the same seed
 * decides the same. Beside them faults happen. Then everything has to come to rest, and nothing may be left.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { isDeepStrictEqual } from "node:util"
import { Cause, Context, Effect, Exit, Fiber, Layer, Logger, Option, Schema, Scope, Stream } from "effect"
import * as Synapse from "../../src/Synapse.ts"
import { Random } from "../fuzz/random.ts"
import * as Faults from "./faults.ts"
import { type Closing, Ledger } from "./ledger.ts"
import * as Leftovers from "./leftovers.ts"
import { type Draft, draw, hostOf, maxFrameSize, type Operation } from "./operations.ts"

export interface Options {
  readonly seconds: number
  readonly seed: number
  readonly workers: number
  /** Threads of each worker. */
  readonly concurrency: number
  /** Milliseconds from one fault to the next; 0: none. */
  readonly faultEvery: number
  /** How many operations there are at a time. */
  readonly callers: number
}

export interface Report extends Closing, Leftovers.Measured {
  readonly options: Options
  readonly node: string
  /** Nothing, or the first things that were not as they should be. */
  readonly wrong: ReadonlyArray<string>
  /** What the runtime and its workers were doing when a call was lost. */
  readonly notes: ReadonlyArray<string>
  readonly begun: number
  readonly ended: number
  readonly perSecond: number
  readonly outcomes: Readonly<Record<string, number>>
  readonly operations: Readonly<Record<string, Readonly<Record<string, number>>>>
  readonly faults: Readonly<Record<string, number>>
  /** Faults for which there was no worker. */
  readonly skipped: number
  readonly idempotent: { readonly calls: number; readonly failed: number }
  /** How many runtimes there were, how often their workers were started again, how many processes they were. */
  readonly runtimes: number
  readonly restarts: number
  readonly processes: number
  /** How many changes of the status were told, and the most memory that a worker was seen to have. */
  readonly statusChanges: number
  readonly workerMiB: number
  /** The longest that an interruption took, a `totalTimeout` was late, a runtime took to close, and all took to come to rest. */
  readonly latest: {
    readonly interruption: number
    readonly timeout: number
    readonly close: number
    readonly rest: number
  }
}

/** A bound for what never ends, not for how fast a machine is. */
const patienceMillis = 90_000
const interruptionMillis = 30_000
const closeMillis = 30_000

const directory = fileURLToPath(new URL("./python", import.meta.url))

/** One runtime of the soak. */
interface Slot {
  readonly runtime: Synapse.Runtime
  readonly scope: Scope.Closeable
  /** What its processes have in their environment. */
  readonly variable: string
  /** Follows its status, until it is closed. */
  readonly listening: Fiber.Fiber<unknown>
  readonly rejecting: boolean
  closing: boolean
}

const mix = (...numbers: ReadonlyArray<number>): Random => {
  let state = 0x9e3779b9
  for (const number of numbers) state = Math.imul(state ^ number, 0x85ebca6b) ^ (state >>> 13)
  // Neighbours of a seed are alike at first.
  const random = new Random(state)
  random.next()
  return random
}

const Surveyed = Schema.Struct({
  pid: Schema.Int,
  running: Schema.Int,
  calls: Schema.Int,
  streams: Schema.Int,
  host_calls: Schema.Int,
  handles: Schema.Int,
  tasks: Schema.Int
})

class Soak {
  readonly options: Options
  readonly files = mkdtempSync(join(tmpdir(), "synapse-soak-"))
  readonly temporary = join(this.files, "tmp")
  readonly ledger: Ledger
  readonly #rejections: Array<string> = []
  readonly #restoreTemporary = process.env.TMPDIR
  readonly #pids = new Set<number>()
  readonly #faults = new Map<string, number>()
  readonly #latest = { interruption: 0, close: 0, rest: 0 }
  /** Calls that faults have made. */
  readonly #background = new Set<Fiber.Fiber<void>>()
  #current!: Slot
  #runtimes = 0
  #restarts = 0
  #statusChanges = 0
  #workerBytes = 0
  #skipped = 0
  #pending = 0
  #remaking = false

  constructor(options: Options) {
    this.options = options
    mkdirSync(this.temporary)
    const file = join(this.files, "ledger")
    writeFileSync(file, "")
    this.ledger = new Ledger(file)
    process.env.TMPDIR = this.temporary
    process.on("unhandledRejection", this.#onRejection)
  }

  readonly #onRejection = (reason: unknown): void => void this.#rejections.push(String(reason))

  /** Puts everything back where it was. */
  restore(): void {
    process.off("unhandledRejection", this.#onRejection)
    if (this.#restoreTemporary === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = this.#restoreTemporary
    rmSync(this.files, { recursive: true, force: true })
  }

  get #hasFaults(): boolean {
    return this.options.faultEvery > 0
  }

  #layer(mark: string, random: Random, rejecting: boolean): Layer.Layer<Synapse.Synapse, unknown> {
    const { callers, concurrency, workers } = this.options
    return Synapse.layer({
      directory,
      workers,
      concurrency,
      maxFrameSize,
      evaluate: true,
      logs: "ignore",
      host: hostOf(this.ledger),
      cancelGrace: "500 millis",
      limits: { memoryMiB: 400 },
      env: { SYNAPSE_SOAK: mark, SYNAPSE_SOAK_LEDGER: this.ledger.file },
      ...(rejecting && { queue: { whenFull: "reject", capacity: 1 + random.below(callers) } }),
      ...(this.#hasFaults && {
        heartbeat: { interval: "1 second", misses: 2 },
        recycle: { afterCalls: random.pick([500, 3000]), afterAge: random.pick(["5 seconds", "1 minute"] as const) },
        disposeTimeout: random.pick([0, 100, 500]),
        // Each end is forgiven, and soon forgotten: pauses would keep most of the time without workers.
        restart: { max: Number.MAX_SAFE_INTEGER, window: "500 millis", backoff: "10 millis" }
      })
    })
  }

  /** Starts a runtime: again where its first workers were killed before they said hello. */
  readonly #open: Effect.Effect<Slot> = Effect.gen({ self: this }, function* () {
    const number = ++this.#runtimes
    const mark = `${this.files}/${number}/`
    const random = mix(this.options.seed, this.options.callers + 2, number)
    const rejecting = random.chance(0.3)
    const scope = yield* Scope.make()
    const exit = yield* Effect.exit(Layer.buildWithScope(this.#layer(mark, random, rejecting), scope))
    if (Exit.isFailure(exit)) {
      yield* Scope.close(scope, Exit.void)
      if (!this.#hasFaults || this.#runtimes > 1000) return yield* Effect.die(exit.cause)
      return yield* this.#open
    }
    const runtime = Context.get(exit.value, Synapse.Synapse)
    const listening = yield* Effect.forkDetach(
      Stream.runForEach(runtime.statusChanges, ({ workers }) =>
        Effect.sync(() => {
          this.#statusChanges++
          for (const { memoryBytes = 0, pid } of workers) {
            if (pid !== undefined) this.#pids.add(pid)
            this.#workerBytes = Math.max(this.#workerBytes, memoryBytes)
          }
        })
      )
    )
    return { runtime, scope, listening, variable: `SYNAPSE_SOAK=${mark}`, rejecting, closing: false }
  })

  readonly #close = (slot: Slot): Effect.Effect<void> =>
    Effect.gen({ self: this }, function* () {
      slot.closing = true
      const before = performance.now()
      const { restarts } = yield* slot.runtime.status
      yield* this.#within("closing a runtime", patienceMillis, Scope.close(slot.scope, Exit.void))
      yield* this.#within("the status of a closed runtime", closeMillis, Fiber.await(slot.listening))
      this.#restarts += restarts
      this.#latest.close = Math.max(this.#latest.close, performance.now() - before)
      const left = Leftovers.withVariable(slot.variable)
      if (left.length > 0) this.ledger.isWrong(`processes of a closed runtime: ${left.join(", ")}`)
      const status = yield* slot.runtime.status
      if (status.state !== "closed" || status.workers.length > 0 || status.waiting > 0) {
        this.ledger.isWrong(`the status of a closed runtime: ${JSON.stringify(status)}`)
      }
    })

  #within<A, E>(what: string, millis: number, effect: Effect.Effect<A, E>): Effect.Effect<Option.Option<A>, E> {
    return Effect.tap(Effect.timeoutOption(effect, millis), (done) =>
      Effect.sync(() => {
        if (Option.isNone(done)) this.ledger.isWrong(`${what} takes more than ${millis} ms`)
      })
    )
  }

  /** What a runtime and its workers are doing: where a call was lost, that tells where it is. */
  readonly #describe = ({ closing, runtime, variable }: Slot): Effect.Effect<string> =>
    Effect.gen({ self: this }, function* () {
      const stacks = runtime.call(Schema.String, {}, { method: "stacks", totalTimeout: interruptionMillis })
      const told = yield* Effect.all(
        Array.from({ length: 4 * this.options.workers }, () => Effect.exit(stacks)),
        { concurrency: "unbounded" }
      )
      const texts = told.map((exit) => (Exit.isSuccess(exit) ? exit.value : Cause.pretty(exit.cause)))
      return [
        JSON.stringify({ closing, current: this.#current.variable === variable, ...(yield* runtime.status) }),
        JSON.stringify(yield* runtime.stats),
        ...Leftovers.withVariable(variable).map((pid) => `process ${pid}`),
        ...new Set(texts)
      ].join("\n")
    })

  readonly #remake = (before: boolean): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (this.#remaking) return Effect.void
      this.#remaking = true
      const old = this.#current
      const open = Effect.map(this.#open, (slot) => {
        this.#current = slot
      })
      const both = before ? Effect.andThen(open, this.#close(old)) : Effect.andThen(this.#close(old), open)
      return Effect.ensuring(
        both,
        Effect.sync(() => {
          this.#remaking = false
        })
      )
    })

  /** Makes one operation and settles it. */
  #perform(
    name: string,
    operation: Operation,
    interruptAfter: number | undefined,
    slot = this.#current
  ): Effect.Effect<void> {
    const { ledger } = this
    return Effect.gen({ self: this }, function* () {
      ledger.begun++
      const begun = performance.now()
      const run = Effect.provideService(operation.run, Synapse.Synapse, slot.runtime)
      const fiber = yield* Effect.forkDetach(run, { startImmediately: true })
      let interrupted = false
      if (interruptAfter !== undefined) {
        if (interruptAfter > 0) yield* Effect.sleep(interruptAfter)
        interrupted = fiber.pollUnsafe() === undefined
        const before = performance.now()
        fiber.interruptUnsafe()
        if (interrupted) ledger.interruptions++
        yield* this.#within(`interrupting ${name} ${operation.token}`, interruptionMillis, Fiber.await(fiber))
        this.#latest.interruption = Math.max(this.#latest.interruption, performance.now() - before)
      }
      const ended = yield* this.#within(`${name} ${operation.token}`, patienceMillis, Fiber.await(fiber))
      if (Option.isNone(ended)) {
        ledger.notes.push(`as ${name} ${operation.token} was lost: ${yield* this.#describe(slot)}`)
        return fiber.interruptUnsafe()
      }
      const outcome = ledger.settle({
        name,
        token: operation.token,
        begun,
        exit: ended.value,
        interrupted,
        closing: slot.closing,
        rejecting: slot.rejecting,
        idempotent: operation.idempotent ?? false,
        usesObject: operation.usesObject ?? false,
        timeouts: operation.timeouts ?? {},
        expects: operation.expects
      })
      // What turns calls away does so at once.
      if (outcome === "Closed" || outcome === "Overloaded") yield* Effect.sleep(10)
    })
  }

  readonly #caller = (caller: number, until: number): Effect.Effect<void> =>
    Effect.gen({ self: this }, function* () {
      const { ledger } = this
      for (let number = 0; performance.now() < until && !ledger.isFull; number++) {
        const random = mix(this.options.seed, caller, number)
        const interrupts = random.chance(0.25)
        const interruptAfter = random.chance(0.3) ? 0 : random.below(60)
        const operation = draw({ random, ledger, token: () => ledger.token(caller) })
        const slot = this.#current
        yield* this.#perform(
          operation.name,
          operation,
          interrupts || operation.isEndless === true ? interruptAfter : undefined,
          slot
        )
      }
    })

  /** The faults, one after the other; what they begin is ended in the scope. */
  readonly #troublemaker = (until: number): Effect.Effect<void, never, Scope.Scope> =>
    Effect.gen({ self: this }, function* () {
      const { callers, faultEvery, seed } = this.options
      for (let number = 0; this.#hasFaults; number++) {
        yield* Effect.sleep(faultEvery)
        if (performance.now() >= until || this.ledger.isFull) return
        const random = mix(seed, callers + 1, number)
        const { fault, name } = Faults.draw(random)
        const done = Effect.map(fault(this.#world(random)), (done) => {
          if (done) this.#faults.set(name, (this.#faults.get(name) ?? 0) + 1)
          else this.#skipped++
        })
        yield* Effect.forkScoped(Effect.catchCause(done, (cause) => Effect.sync(() => this.#defect(name, cause))))
      }
    })

  #defect(name: string, cause: Cause.Cause<unknown>): void {
    if (!Cause.hasInterruptsOnly(cause)) this.ledger.isWrong(`${name}: ${Cause.pretty(cause)}`)
  }

  #world(random: Random): Faults.World {
    const { ledger, options } = this
    const slot = this.#current
    return {
      random,
      ledger,
      workers: options.workers,
      runtime: slot.runtime,
      processes: () => Leftovers.withVariable(slot.variable),
      pending: () => this.#pending,
      remake: this.#remake,
      make: (name, make) =>
        Effect.suspend(() => {
          const token = (): number => ledger.token(options.callers + 1)
          const lethal = name.startsWith("die")
          const draft: Draft = { random, ledger, token }
          if (lethal) this.#pending++
          const perform = Effect.ensuring(
            this.#perform(name, make(draft), undefined, slot),
            Effect.sync(() => {
              if (lethal) this.#pending--
            })
          )
          this.#background.add(Effect.runFork(perform))
          return Effect.void
        })
    }
  }

  /** What is open, where nothing should be. */
  readonly #notAtRest = Effect.gen({ self: this }, function* () {
    const { runtime } = this.#current
    const { workers } = this.options
    const survey = runtime.call(Surveyed, { seconds: 0.05 }, { method: "survey" })
    const status = yield* runtime.status
    const surveyed = yield* Effect.all(
      Array.from({ length: 4 * workers }, () => survey),
      { concurrency: "unbounded" }
    )
    const host = yield* runtime.stats
    const after = yield* runtime.status
    const pids = after.workers.map(({ pid }) => pid)
    const open: Array<string> = []
    for (const { pid, ...counts } of surveyed) {
      const text = JSON.stringify({ pid, ...counts })
      if (Object.values(counts).some((count) => count !== 0) && !open.includes(text)) open.push(text)
    }
    if (Object.values(host).some((count) => count !== 0)) open.push(JSON.stringify(host))
    const isQuiet =
      after.waiting === 0 &&
      after.state === "running" &&
      after.workers.length === workers &&
      after.workers.every(({ inFlight, state }) => state === "ready" && inFlight === 0)
    if (
      !isQuiet ||
      !isDeepStrictEqual(
        pids,
        status.workers.map(({ pid }) => pid)
      )
    )
      open.push(JSON.stringify(after))
    const unseen = pids.filter((pid) => !surveyed.some((found) => found.pid === pid))
    if (unseen.length > 0) open.push(`not surveyed: ${unseen.join(", ")}`)
    return open
  })

  readonly #comesToRest = Effect.gen({ self: this }, function* () {
    const begun = performance.now()
    yield* Effect.orDie(this.#current.runtime.resize(this.options.workers))
    let open: ReadonlyArray<string> = []
    do {
      yield* Effect.sleep(100)
      const exit = yield* Effect.exit(this.#notAtRest)
      open = Exit.isSuccess(exit) ? exit.value : [Cause.pretty(exit.cause)]
    } while (open.length > 0 && performance.now() - begun < patienceMillis)
    this.#latest.rest = performance.now() - begun
    for (const what of open) this.ledger.isWrong(`open in the end: ${what}`)
  })

  readonly run: Effect.Effect<Report> = Effect.gen({ self: this }, function* () {
    const { ledger, options } = this
    const { callers, seconds } = options
    // Everything is loaded and compiled before anything is measured.
    yield* Effect.flatMap(this.#open, this.#close)
    const held = Leftovers.holdings()
    this.#current = yield* this.#open
    const firstPids = (yield* this.#current.runtime.status).workers.map(({ pid }) => pid)
    const meter = new Leftovers.Meter(seconds)
    const metering = setInterval(() => meter.sample(), 250)
    const until = performance.now() + seconds * 1000
    const begun = performance.now()
    yield* Effect.scoped(
      Effect.gen({ self: this }, function* () {
        const trouble = yield* Effect.forkScoped(this.#troublemaker(until))
        yield* Effect.all(
          Array.from({ length: callers }, (_, caller) => this.#caller(caller, until)),
          { concurrency: "unbounded" }
        )
        yield* Fiber.await(trouble)
        while (this.#remaking) yield* Effect.sleep(50)
        yield* Fiber.awaitAll(Array.from(this.#background))
      })
    )
    const elapsed = performance.now() - begun
    yield* this.#comesToRest
    if (!this.#hasFaults) {
      const { lastExit, restarts, workers } = yield* this.#current.runtime.status
      const pids = workers.map(({ pid }) => pid)
      if (restarts > 0 || lastExit !== undefined || !isDeepStrictEqual(pids, firstPids)) {
        ledger.isWrong(`a worker ended without a fault: ${lastExit?.error.message}`)
      }
    }
    yield* this.#close(this.#current)
    clearInterval(metering)
    const measured = meter.close()
    yield* this.#leavesNothing(held)
    const closing = ledger.close()
    if (ledger.ended !== ledger.begun) ledger.isWrong(`${ledger.begun} calls began and ${ledger.ended} ended`)
    if (measured.leaks) ledger.isWrong(`Node's memory grows: ${measured.liveMiB.map(Math.round).join(", ")} MiB`)
    return this.#report(elapsed, closing, measured)
  }).pipe(Effect.provide(Logger.layer([])))

  readonly #leavesNothing = (held: ReadonlyArray<string>): Effect.Effect<void> =>
    Effect.gen({ self: this }, function* () {
      const until = performance.now() + closeMillis
      const left = (): ReadonlyArray<string> => [
        ...Leftovers.surplus(Leftovers.holdings(), held),
        ...readdirSync(this.temporary).map((name) => `temporary file ${name}`)
      ]
      while (left().length > 0 && performance.now() < until) yield* Effect.sleep(20)
      for (const what of left()) this.ledger.isWrong(`left: ${what}`)
      for (const what of this.#rejections) this.ledger.isWrong(`a promise was rejected unnoticed: ${what}`)
    })

  #report(elapsed: number, closing: Closing, measured: Leftovers.Measured): Report {
    const { begun, ended, idempotent, latestTimeoutMillis, notes, outcomes, wrong } = this.ledger
    const total = new Map<string, number>()
    for (const counts of outcomes.values()) {
      for (const [outcome, count] of counts) total.set(outcome, (total.get(outcome) ?? 0) + count)
    }
    return {
      options: this.options,
      node: process.version,
      wrong,
      notes,
      begun,
      ended,
      perSecond: ended / (elapsed / 1000),
      outcomes: Object.fromEntries(total),
      operations: Object.fromEntries(Array.from(outcomes, ([name, counts]) => [name, Object.fromEntries(counts)])),
      faults: Object.fromEntries(this.#faults),
      skipped: this.#skipped,
      idempotent,
      runtimes: this.#runtimes,
      restarts: this.#restarts,
      processes: this.#pids.size,
      statusChanges: this.#statusChanges,
      workerMiB: this.#workerBytes / 2 ** 20,
      latest: { ...this.#latest, timeout: latestTimeoutMillis },
      ...closing,
      ...measured
    }
  }
}

/** Soaks for so long. What was not as it should be is in the report. */
export const soak = (options: Options): Effect.Effect<Report> =>
  Effect.suspend(() => {
    const soak = new Soak(options)
    return Effect.ensuring(
      soak.run,
      Effect.sync(() => soak.restore())
    )
  })
