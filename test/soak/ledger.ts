/**
 * The ledger: what was called, how each call ended, how often each ran, and what of it is wrong.
 *
 * Every call has a token. Python appends the token of each call that it begins to a file, before it answers; the ends that
 * callers saw say how often that may have been.
 */
import { readFileSync } from "node:fs"
import { Cause, Effect, Exit } from "effect"
import { isSynapseError, type SynapseErrorReason, type WorkerExited } from "../../src/SynapseError.ts"

/** How often a call may have run. */
const Runs = { open: 0, once: 1, never: 2, again: 3, againAndOnce: 4 } as const
type Runs = (typeof Runs)[keyof typeof Runs]

/** As often as an idempotent call is sent. */
const maxAttempts = 3
/** Tokens of one caller. */
const tokensOfCaller = 10_000_000
/** How long a worker may live on with what ends it: a stopped one until its heartbeat, a closed channel. */
const lethalMillis = 15_000
/** Timers of both sides have steps of a millisecond, and clocks differ by one. */
const earlyMillis = 10
const maxWrong = 20

/** What one caller knows of a call that is over. */
export interface Settled {
  readonly name: string
  readonly token: number
  /** By `performance.now`. */
  readonly begun: number
  readonly exit: Exit.Exit<unknown, unknown>
  /** Whether the ledger had asked for its interruption. */
  readonly interrupted: boolean
  /** Whether its runtime was being closed. */
  readonly closing: boolean
  /** Whether its runtime turns calls away where too many wait. */
  readonly rejecting: boolean
  readonly idempotent: boolean
  /** Whether it used an object, which goes with its worker. */
  readonly usesObject: boolean
  readonly timeouts: Timeouts
  /** Whether an error that no fault explains is the one to be expected. */
  readonly expects: ((reason: SynapseErrorReason) => boolean) | undefined
}

export type Timeouts = Readonly<
  Partial<Record<"timeout" | "queueTimeout" | "totalTimeout" | "maxTimeout", number | undefined>>
>

/** An error that only a fault explains. */
interface Disruption {
  readonly settled: Pick<Settled, "name" | "token" | "idempotent" | "usesObject">
  readonly reason: SynapseErrorReason
  /** By `Date.now`. */
  readonly from: number
  readonly to: number
}

const isDisruption = (outcome: string): boolean =>
  outcome === "WorkerExited" || outcome === "Unresponsive" || outcome === "ProtocolError"

/** What was done to a worker that may end it. */
interface Doom {
  readonly pid: number
  readonly at: number
  readonly kind: string
}

/** Whether an end is the one of a fault. */
const endsLike = (kind: string, reason: SynapseErrorReason): boolean => {
  switch (reason._tag) {
    case "WorkerExited":
      return isExitOf(kind, reason.kind, reason.exitCode, reason.signal)
    case "Unresponsive":
      return reason.state === "stopped" ? kind === "SIGSTOP" : kind.startsWith("jam") || kind === "replaced"
    default:
      return false
  }
}

const isExitOf = (kind: string, exit: string, code: number | null, signal: string | null): boolean => {
  switch (kind) {
    case "SIGKILL":
      return exit === "killed" && signal === "SIGKILL"
    case "SIGSEGV":
    case "segfault":
    case "segfault-in-thread":
      return exit === "segfault"
    case "SIGABRT":
      // Python's dump of its threads is not safe while they run: from outside, a few in a hundred crash in it.
      return exit === "segfault" || (exit === "crash" && signal === kind)
    case "abort":
      return exit === "crash" && signal === "SIGABRT"
    case "exit":
      return exit === "exit" && code === 3
    case "close-channel":
      return exit === "channelClosed"
    case "hoard":
      return exit === "outOfMemory"
    case "SIGTERM":
    case "leaves":
      return exit === "exit" && code === 0
    default:
      return false
  }
}

/** What runs until the worker is told to leave, or leaves by itself, is finished: only objects go with it. */
const isGentle = (kind: string): boolean => kind === "SIGTERM" || kind === "leaves"

const isGarbage = (kind: string): boolean => kind === "garbage" || kind === "print-on-channel"

export class Ledger {
  readonly file: string
  readonly wrong: Array<string> = []
  /** What belongs to it and is not wrong by itself. */
  readonly notes: Array<string> = []
  readonly outcomes = new Map<string, Map<string, number>>()
  begun = 0
  ended = 0
  interruptions = 0
  /** How long after it was due a time-out came, at most. */
  latestTimeoutMillis = 0
  readonly idempotent = { calls: 0, failed: 0 }
  readonly #runs: Array<Uint8Array> = []
  readonly #lastToken: Array<number> = []
  /** Why those did not run that are said not to have run. */
  readonly #notRun = new Map<number, string>()
  readonly #disruptions: Array<Disruption> = []
  readonly #dooms: Array<Doom> = []
  /** Answers in the middle of which something else was written to the channel, and when that was, by `Date.now`. */
  readonly #garbled: Array<{ readonly token: number; readonly from: number; readonly to: number }> = []
  readonly #keys = new Map<string, Map<string, { firstEnd: number; leftAt: number }>>()
  #wrongs = 0

  constructor(file: string) {
    this.file = file
  }

  /** Whether it is of no use to go on. */
  get isFull(): boolean {
    return this.#wrongs >= maxWrong
  }

  /** The next token of a caller: the same ones in the same order, whatever the others do. */
  token(caller: number): number {
    const token = (this.#lastToken[caller] ?? 0) + 1
    this.#lastToken[caller] = token
    return caller * tokensOfCaller + token
  }

  /** Follows one call to its end: what that says of how often it ran. */
  track<A, E, R>(token: number, call: Effect.Effect<A, E, R>, idempotent = false): Effect.Effect<A, E, R> {
    if (idempotent) this.#setRuns(token, Runs.again)
    return Effect.onExit(call, (exit) =>
      Effect.sync(() => {
        const runs = runsOf(exit, idempotent)
        this.#setRuns(token, runs)
        if (runs === Runs.never) this.#notRun.set(token, `${idempotent ? "idempotent, " : ""}${describe(exit)}`)
      })
    )
  }

  /** Something was done to a worker that may end it. */
  doom(pid: number, kind: string): void {
    this.#dooms.push({ pid, at: Date.now(), kind })
  }

  /** In the middle of an answer is something else, which only a fault explains. */
  garbled(token: number, from: number): void {
    this.#garbled.push({ token, from, to: Date.now() })
  }

  isWrong(what: string): void {
    this.#wrongs++
    if (this.wrong.length < maxWrong) this.wrong.push(what)
  }

  /** A call has ended. Tells how, in a word. */
  settle(settled: Settled): string {
    this.ended++
    const { exit, idempotent, name, token } = settled
    const outcome = outcomeOf(exit)
    const outcomes = this.outcomes.get(name) ?? new Map<string, number>()
    this.outcomes.set(name, outcomes)
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
    if (idempotent) {
      this.idempotent.calls++
      // A runtime that is closed sends nothing again.
      if (isDisruption(outcome) && !settled.closing) this.idempotent.failed++
    }
    const wrong = this.#judge(settled)
    if (wrong !== undefined) this.isWrong(`${name} ${token}: ${wrong}`)
    return outcome
  }

  #judge(settled: Settled): string | undefined {
    const { exit } = settled
    if (Exit.isSuccess(exit)) return typeof exit.value === "string" ? exit.value : undefined
    if (Cause.hasInterruptsOnly(exit.cause)) {
      return settled.interrupted ? undefined : "was interrupted, and nobody had asked for it"
    }
    const error = Cause.findErrorOption(exit.cause)
    if (error._tag === "None" || !isSynapseError(error.value)) return `a defect: ${Cause.pretty(exit.cause)}`
    if (Cause.hasDies(exit.cause)) return `a defect beside an error: ${Cause.pretty(exit.cause)}`
    return this.judgeReason(settled, error.value.reason)
  }

  /** Whether an error may occur where it did; what cannot be told yet is told at the end. */
  judgeReason(settled: Settled, reason: SynapseErrorReason): string | undefined {
    if (settled.expects?.(reason) === true) return undefined
    const elapsed = performance.now() - settled.begun
    switch (reason._tag) {
      case "WorkerExited":
      case "Unresponsive":
      case "ProtocolError": {
        const { closing, name, token, usesObject } = settled
        const idempotent = settled.idempotent && !closing
        const to = Date.now()
        this.#disruptions.push({ settled: { idempotent, name, token, usesObject }, reason, from: to - elapsed, to })
        return undefined
      }
      case "Closed": {
        const { token, usesObject } = settled
        if (settled.closing) return undefined
        // Its worker leaves, and no other has the object.
        return usesObject && reason.delivery === "rejected" ? undefined : `${reason.message} (${token})`
      }
      case "CallTimeout": {
        const due = settled.timeouts[reason.option]
        if (due === undefined || due !== reason.durationMillis) return `a time-out nobody set: ${reason.message}`
        if (elapsed < due - earlyMillis) return `a time-out after ${elapsed} ms: ${reason.message}`
        if (reason.option === "totalTimeout")
          this.latestTimeoutMillis = Math.max(this.latestTimeoutMillis, elapsed - due)
        return undefined
      }
      case "Overloaded":
        return settled.rejecting && reason.where === "queue" ? undefined : reason.message
      case "PythonException":
        // A host function that is refused, or interrupted, because the runtime is being closed.
        return settled.closing && reason.type.endsWith("HostCallFailed") ? undefined : reason.message
      default:
        return `${reason._tag}: ${reason.message}`
    }
  }

  /** A call with a key ran in a worker: once the key has left a worker for another one, it never comes back. */
  ranAt(key: string, worker: string, begun: number): string | undefined {
    const now = performance.now()
    const workers = this.#keys.get(key) ?? new Map<string, { firstEnd: number; leftAt: number }>()
    this.#keys.set(key, workers)
    for (const [other, seen] of workers) {
      if (other !== worker && seen.firstEnd < begun) seen.leftAt = Math.min(seen.leftAt, now)
    }
    const seen = workers.get(worker)
    if (seen === undefined) workers.set(worker, { firstEnd: now, leftAt: Number.POSITIVE_INFINITY })
    else if (begun > seen.leftAt) return `the key ${key} came back to the worker ${worker}`
    return undefined
  }

  #setRuns(token: number, runs: Runs): void {
    const caller = Math.floor(token / tokensOfCaller)
    const index = token % tokensOfCaller
    let list = this.#runs[caller]
    if (list === undefined || list.length <= index) {
      const longer = new Uint8Array(Math.max(1024, 2 * index))
      if (list !== undefined) longer.set(list)
      this.#runs[caller] = list = longer
    }
    list[index] = runs
  }

  /** Compares what callers saw with what ran and with what was done to the workers. */
  close(): Closing {
    const ran = new Map<number, number>()
    const dooms = [...this.#dooms]
    for (const line of readFileSync(this.file, "latin1").split("\n")) {
      const doom = /^! (\d+) (\d+) (.+)$/.exec(line)
      if (doom !== null) dooms.push({ pid: Number(doom[1]), at: Number(doom[2]), kind: doom[3]! })
      else if (line !== "") ran.set(Number(line), (ran.get(Number(line)) ?? 0) + 1)
    }
    this.#compareRuns(ran)
    this.#compareEnds(dooms)
    let more = 0
    for (const times of ran.values()) if (times > 1) more++
    return {
      executed: ran.size,
      executedAgain: more,
      disrupted: this.#disruptions.length,
      garbled: this.#garbled.length,
      dooms: dooms.length
    }
  }

  #compareRuns(ran: ReadonlyMap<number, number>): void {
    for (const [token, times] of ran) {
      const caller = Math.floor(token / tokensOfCaller)
      if (!Number.isSafeInteger(token) || token % tokensOfCaller > (this.#lastToken[caller] ?? 0)) {
        this.isWrong(`${token} ran, and nobody had called it`)
      } else if (!allows(this.#runsOf(token), times)) {
        const why = this.#notRun.get(token) ?? ""
        this.isWrong(`${token} ran ${times} times, and should have run ${wordsOf(this.#runsOf(token))} ${why}`)
      }
    }
    this.#lastToken.forEach((last, caller) => {
      for (let index = 1; index <= last; index++) {
        const token = caller * tokensOfCaller + index
        if (!ran.has(token) && !allows(this.#runsOf(token), 0)) {
          this.isWrong(`${token} did not run, and should have run ${wordsOf(this.#runsOf(token))}`)
        }
      }
    })
  }

  #runsOf(token: number): Runs {
    return (this.#runs[Math.floor(token / tokensOfCaller)]?.[token % tokensOfCaller] ?? Runs.open) as Runs
  }

  #compareEnds(dooms: ReadonlyArray<Doom>): void {
    for (const { from, to, token } of this.#garbled) {
      if (!dooms.some(({ at, kind }) => isGarbage(kind) && at >= from - lethalMillis && at <= to)) {
        this.isWrong(`${token}: its answer has other bytes in the middle, and no fault explains them`)
      }
    }
    for (const { from, reason, settled, to } of this.#disruptions) {
      const { idempotent, name, token, usesObject } = settled
      const near = dooms.filter(({ at }) => at >= from - lethalMillis && at <= to)
      if (!isExplained(reason, near, usesObject)) {
        const kinds = "pid" in reason ? near.filter(({ pid }) => pid === reason.pid).map(({ kind }) => kind) : []
        this.isWrong(`${name} ${token}: no fault explains ${summaryOf(reason)}; its worker had: ${kinds.join(", ")}`)
      } else if (idempotent && new Set(near.map(({ pid }) => pid)).size < maxAttempts) {
        this.isWrong(`${name} ${token}: was not sent again, and may be: ${summaryOf(reason)}`)
      }
    }
  }
}

export interface Closing {
  /** Calls that ran, and those of them that ran more than once. */
  readonly executed: number
  readonly executedAgain: number
  /** Calls that ended with a fault. */
  readonly disrupted: number
  /** Answers that have in them what a fault wrote to the channel. */
  readonly garbled: number
  /** What was done to workers that may end them. */
  readonly dooms: number
}

const isExplained = (reason: SynapseErrorReason, dooms: ReadonlyArray<Doom>, usesObject: boolean): boolean => {
  if (reason._tag === "ProtocolError") return dooms.some(({ kind }) => isGarbage(kind))
  return (
    "pid" in reason &&
    dooms.some(({ kind, pid }) => pid === reason.pid && endsLike(kind, reason) && (usesObject || !isGentle(kind)))
  )
}

const summaryOf = (reason: SynapseErrorReason): string =>
  `${reason._tag} (${reason.delivery}): ${reason._tag === "WorkerExited" ? endOf(reason) : reason.message}`

const endOf = ({ crashDump, kind, stderr, summary }: WorkerExited): string =>
  [`${kind}, ${summary}`, stderr, crashDump].filter((text) => text !== "").join("\n")

const describe = (exit: Exit.Exit<unknown, unknown>): string => {
  const error = Exit.findErrorOption(exit)
  return error._tag === "Some" && isSynapseError(error.value) ? error.value.message : ""
}

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return typeof exit.value === "string" ? "wrong" : "value"
  if (Cause.hasInterruptsOnly(exit.cause)) return "interrupted"
  const error = Cause.findErrorOption(exit.cause)
  return error._tag === "Some" && isSynapseError(error.value) ? error.value.reason._tag : "defect"
}

const runsOf = (exit: Exit.Exit<unknown, unknown>, idempotent: boolean): Runs => {
  if (Exit.isSuccess(exit)) return idempotent ? Runs.againAndOnce : Runs.once
  const error = Cause.findErrorOption(exit.cause)
  if (error._tag === "None" || !isSynapseError(error.value)) return idempotent ? Runs.again : Runs.open
  const { delivery, reason } = error.value
  if (delivery !== "unknown") return Runs.never
  const answered = reason._tag === "HandlerFailed" || reason._tag === "PythonException"
  if (idempotent) return answered ? Runs.againAndOnce : Runs.again
  return answered ? Runs.once : Runs.open
}

const allows = (runs: Runs, times: number): boolean => {
  switch (runs) {
    case Runs.open:
      return times <= 1
    case Runs.once:
      return times === 1
    case Runs.never:
      return times === 0
    case Runs.again:
      return times <= maxAttempts
    case Runs.againAndOnce:
      return times >= 1 && times <= maxAttempts
  }
}

const wordsOf = (runs: Runs): string => {
  switch (runs) {
    case Runs.open:
      return "once at most"
    case Runs.once:
      return "once"
    case Runs.never:
      return "never"
    case Runs.again:
      return `${maxAttempts} times at most`
    case Runs.againAndOnce:
      return `once to ${maxAttempts} times`
  }
}
