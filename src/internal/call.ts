/** One call as its caller sees it: encoding, time-outs, sending again, progress, decoding. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Tracer from "effect/Tracer"
import type { Caller, Connection, Opened, Request } from "../Connection.ts"
import * as Envelope from "../Envelope.ts"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import type { CallOptions, Runtime } from "../Synapse.ts"
import { EncodeFailed, SynapseError } from "../SynapseError.ts"
import type { Begin, WorkerPool } from "../WorkerPool.ts"
import { answerTo, type Expected, isRejected, turnedAway } from "./answer.ts"
import { Budget, type Durations } from "./budget.ts"
import { Deadlines, type Timed } from "./deadlines.ts"
import { Entry } from "./dispatcher.ts"
import * as InputStreams from "./inputStreams.ts"
import { listen } from "./progress.ts"
import { CurrentRequest, type Served } from "./serving.ts"

/** How often a call is sent that was turned away, or that is idempotent and whose worker ended. */
const maxAttempts = 3

/** Where calls go and what holds for all of them. */
export interface Calls {
  readonly use: WorkerPool["use"]
  readonly enter: WorkerPool["enter"]
  readonly callTimeout: Duration.Input | undefined
  /** The object whose methods are called, on the one worker that has it. */
  readonly target?: number | undefined
  /** The class of that object. */
  readonly type?: string | undefined
}

/** What a call asks for beside its method. */
export type Asked = Pick<Request, "get" | "onHandle">

/** Sends a request to a worker; see {@link Begin}. */
export type Opener = (connection: Connection, request: Request, resume: Parameters<Begin>[1]) => ReturnType<Begin>

/** What a call asks of a worker. A class, for the same reason as an open call. */
class CallRequest implements Request {
  readonly method: string
  readonly payload: unknown
  readonly inputs: Request["inputs"]
  readonly trace: string | undefined
  readonly headers: Request["headers"]
  readonly parent: number | undefined = undefined
  readonly target: number | undefined
  readonly get: boolean | undefined
  readonly replace: boolean
  readonly onProgress: Request["onProgress"]
  readonly onHandle: Request["onHandle"]
  readonly timeLeft: Request["timeLeft"]
  readonly ceiling: Request["ceiling"]
  readonly onSent: Request["onSent"]

  constructor(
    method: string,
    input: unknown,
    calls: Calls,
    fiber: Fiber.Fiber<unknown, unknown>,
    budget: Budget | undefined,
    options: Omit<CallOptions, "payload" | "progress"> | undefined,
    asked: Asked,
    onProgress: Request["onProgress"]
  ) {
    const { input: payload, streams } = InputStreams.extract(input, fiber.context)
    this.method = method
    this.payload = payload
    this.inputs = streams.length === 0 ? undefined : streams
    this.trace = traceparent(fiber.cache.span)
    this.headers = options?.headers
    this.target = calls.target
    this.get = asked.get
    this.replace = options?.onCancel === "replace"
    this.onProgress = onProgress
    this.onHandle = asked.onHandle
    this.timeLeft = budget && (() => budget.timeLeft())
    this.ceiling = budget && (() => budget.ceiling())
    const onSent = options?.onSent
    this.onSent =
      budget === undefined
        ? onSent
        : () => {
            budget.sent()
            onSent?.()
          }
  }
}

/** One call on its way, of one value or of a stream. */
export class Exchange {
  readonly method: string
  readonly budget: Budget | undefined
  readonly #calls: Calls
  readonly #request: Request
  readonly #current: Served | undefined
  readonly #affinity: string | undefined
  readonly #idempotent: boolean
  /** The failure of an attempt that may have run: whatever becomes of those after it, it is not undone. */
  #lost: SynapseError | undefined

  /** Prepares a call in the fiber of its caller. The input is encoded. */
  constructor(
    calls: Calls,
    fiber: Fiber.Fiber<unknown, unknown>,
    input: unknown,
    options: Omit<CallOptions, "payload" | "progress"> | undefined,
    asked: Asked,
    onProgress: Request["onProgress"]
  ) {
    this.method = options?.method ?? "main"
    this.budget = budgetOf(fiber, options, calls.callTimeout)
    this.#calls = calls
    this.#current = fiber.getRef(CurrentRequest)
    this.#affinity = options?.affinity
    this.#idempotent = options?.idempotent ?? false
    const heard = progressOf(this.budget, options?.maxTimeout !== undefined, onProgress)
    this.#request = new CallRequest(this.method, input, calls, fiber, this.budget, options, asked, heard)
  }

  /** Sends the request, again where that is safe, and waits for the first frame that is more than a refusal. */
  send(by: Opener): Effect.Effect<Envelope.Frame, SynapseError> {
    return this.#send(by, 1, false)
  }

  /** Fails when a time-out passes before `self` is done. */
  limit<A, R>(self: Effect.Effect<A, SynapseError, R>): Effect.Effect<A, SynapseError, R> {
    return this.budget === undefined ? self : this.budget.limit(self, this.method)
  }

  #send(by: Opener, attempt: number, returned: boolean): Effect.Effect<Envelope.Frame, SynapseError> {
    let worker: Connection | undefined
    const begin: Begin = (connection, resume) => {
      worker = connection
      return by(connection, nested(this.#request, this.#current, connection), resume)
    }
    const how = { parent: this.#current, affinity: this.#affinity, returned }
    return Effect.matchEffect(this.#calls.use(this.method, begin, how), {
      onFailure: (error) => this.#failed(by, attempt, error),
      onSuccess: (frame) =>
        frame.kind === Envelope.Kind.Die ? this.#died(by, attempt, frame, worker) : Effect.succeed(frame)
    })
  }

  #again(by: Opener, attempt: number): Effect.Effect<Envelope.Frame, SynapseError> {
    this.budget?.queued(this.#lost !== undefined)
    return this.#send(by, attempt, true)
  }

  #failed(by: Opener, attempt: number, error: SynapseError): Effect.Effect<Envelope.Frame, SynapseError> {
    if (this.#calls.target !== undefined || !maySendAgain(error, this.#idempotent, attempt)) {
      return Effect.fail(this.#lost === undefined || error.delivery === "unknown" ? error : this.#lost)
    }
    if (error.delivery === "unknown") this.#lost = error
    return this.#again(by, attempt + 1)
  }

  #died(
    by: Opener,
    attempt: number,
    frame: Envelope.Frame,
    worker: Connection | undefined
  ): Effect.Effect<Envelope.Frame, SynapseError> {
    const again = attemptAfter(frame, attempt, this.#calls.target, worker)
    if (again !== undefined) return this.#again(by, again)
    return this.#lost !== undefined && isRejected(frame) ? Effect.fail(this.#lost) : Effect.succeed(frame)
  }
}

/** Encodes the input of a call and prepares it. */
export const prepare = <I, R>(
  calls: Calls,
  fiber: Fiber.Fiber<unknown, unknown>,
  input: unknown,
  options: CallOptions<I, R> | undefined,
  onProgress: Request["onProgress"]
): Effect.Effect<Exchange, SynapseError> =>
  Effect.map(encoded(input, options), (value) => new Exchange(calls, fiber, value, options, {}, onProgress))

/** Made inside a host function that a call on this worker still waits for, a request says so. */
const nested = (request: Request, current: Served | undefined, connection: Connection): Request =>
  isNested(current, connection) ? { ...request, parent: current.call } : request

const isNested = (current: Served | undefined, connection: Connection): current is Served =>
  current !== undefined && current.owner === connection.owner && connection.has(current.call)

const timeLeftOf = (budget: Budget) => () => budget.timeLeft()

const budgetOf = (
  fiber: Fiber.Fiber<unknown, unknown>,
  options: Durations | undefined,
  callTimeout: Duration.Input | undefined
): Budget | undefined => {
  if (callTimeout === undefined && (options === undefined || !Budget.isBounded(options))) return undefined
  return new Budget(fiber.getRef(Clock.Clock), { ...options, timeout: options?.timeout ?? callTimeout })
}

const progressOf = (
  budget: Budget | undefined,
  mayExtend: boolean,
  onProgress: ((payload: Uint8Array) => void) | undefined
): ((payload: Uint8Array) => void) | undefined => {
  if (budget === undefined || !mayExtend) return onProgress
  return (payload) => {
    budget.progressed()
    onProgress?.(payload)
  }
}

/** Makes a call and gives the frame that answers it. */
export const exchange = <I, R>(
  calls: Calls,
  input: unknown,
  options: CallOptions<I, R> | undefined,
  asked: Asked
): Effect.Effect<Envelope.Frame, SynapseError, R> =>
  listen(options?.progress, options?.method ?? "main", (onProgress) =>
    Effect.withFiber((fiber) => {
      if (options?.payload === undefined) return answered(new Exchange(calls, fiber, input, options, asked, onProgress))
      return Effect.flatMap(encoded(input, options), (value) =>
        answered(new Exchange(calls, fiber, value, options, asked, onProgress))
      )
    })
  )

const begin: Opener = (connection, request, resume) => connection.begin(request, resume)

const answered = (exchange: Exchange): Effect.Effect<Envelope.Frame, SynapseError> => {
  const { budget, method } = exchange
  const sent = exchange.send(begin)
  if (budget === undefined) return sent
  return Effect.flatMap(exchange.limit(sent), (frame) =>
    // Python saw the deadline pass before this side did.
    frame.kind === Envelope.Kind.Interrupted ? Effect.fail(budget.expired(method)) : Effect.succeed(frame)
  )
}

/** Makes the `call` of a runtime or of an object. */
export const makeCall =
  (calls: Calls): Runtime["call"] =>
  (schema, input, options) => {
    const decode = SchemaMsgpack.decode(schema)
    if (!isPlain(options)) {
      const { method = "main", parseJson = false } = options ?? {}
      const expected = { decode, method, parseJson, type: calls.type }
      return Effect.flatMap(exchange(calls, input, options, {}), (frame) => answerTo(expected, frame)) as never
    }
    return Effect.callback<unknown, SynapseError, unknown>((resume) => {
      const call = new PlainCall(calls, Fiber.getCurrent()!, input, options, decode, resume)
      call.enter(false)
      return Effect.sync(() => call.giveUp())
    }) as never
  }

/** Whether a call has no progress, which may extend its time, and an input that is encoded: most have. */
const isPlain = <I, R>(options: CallOptions<I, R> | undefined): boolean =>
  options === undefined ||
  (options.payload === undefined && options.progress === undefined && options.maxTimeout === undefined)

type End = Effect.Effect<unknown, SynapseError, unknown>

/**
 * A call as an {@link Exchange} makes it, without what few calls ask for: one object from its caller to its answer, because
 * what a call that waits among thousands costs is to come back to all that it has.
 */
class PlainCall extends Entry implements Request, Caller, Expected, Timed {
  readonly method: string
  readonly affinity: string | undefined
  readonly payload: unknown
  readonly inputs: Request["inputs"]
  readonly trace: string | undefined
  readonly headers: Request["headers"]
  readonly target: number | undefined
  readonly type: string | undefined
  readonly decode: Expected["decode"]
  readonly parseJson: boolean
  readonly replace: boolean
  readonly timeLeft: Request["timeLeft"]
  readonly onSent: Request["onSent"]
  parent: number | undefined
  deadline = Number.POSITIVE_INFINITY
  place = -1
  readonly #calls: Calls
  readonly #budget: Budget | undefined
  readonly #deadlines: Deadlines | undefined
  readonly #fiber: Fiber.Fiber<unknown, unknown>
  readonly #current: Served | undefined
  readonly #idempotent: boolean
  readonly #resume: (end: End) => void
  #worker: Connection | undefined
  #opened: Opened | undefined
  #spend: (() => void) | undefined
  #attempt = 1
  /** Nobody waits for it any more. */
  #isOver = false
  /** As in an {@link Exchange}. */
  #lost: SynapseError | undefined

  constructor(
    calls: Calls,
    fiber: Fiber.Fiber<unknown, unknown>,
    input: unknown,
    options: Omit<CallOptions, "payload" | "progress"> | undefined,
    decode: Expected["decode"],
    resume: (end: End) => void
  ) {
    super()
    const { input: payload, streams } = InputStreams.extract(input, fiber.context)
    this.method = options?.method ?? "main"
    this.affinity = options?.affinity
    this.payload = payload
    this.inputs = streams.length === 0 ? undefined : streams
    this.trace = traceparent(fiber.cache.span)
    this.headers = options?.headers
    this.target = calls.target
    this.type = calls.type
    this.decode = decode
    this.parseJson = options?.parseJson ?? false
    this.replace = options?.onCancel === "replace"
    const budget = budgetOf(fiber, options, calls.callTimeout)
    this.timeLeft = budget && timeLeftOf(budget)
    this.onSent = budget === undefined ? options?.onSent : this.#sentIn(budget, options?.onSent)
    this.#calls = calls
    this.#budget = budget
    this.#deadlines = budget && Deadlines.of(fiber.getRef(Clock.Clock))
    this.#fiber = fiber
    this.#current = fiber.getRef(CurrentRequest)
    this.#idempotent = options?.idempotent ?? false
    this.#resume = resume
  }

  #sentIn(budget: Budget, onSent: Request["onSent"]): () => void {
    return () => {
      budget.sent()
      this.#deadlines!.set(this, budget.endsAt)
      onSent?.()
    }
  }

  enter(returned: boolean): void {
    const budget = this.#budget
    if (budget !== undefined) {
      if (budget.isOver) return this.expire()
      this.#deadlines!.set(this, budget.endsAt)
    }
    this.#calls.enter(this, this.#current, returned)
  }

  expire(): void {
    // What is given up may say how far it got.
    const error = this.#budget!.expired(this.method)
    this.giveUp()
    this.#end(Effect.fail(error))
  }

  override giveUp(): void {
    this.#isOver = true
    this.#deadlines?.clear(this)
    super.giveUp()
  }

  #end(end: End): void {
    this.#isOver = true
    this.#deadlines?.clear(this)
    this.#resume(end)
  }

  begin(connection: Connection, spend: (() => void) | undefined): void {
    this.#worker = connection
    this.#spend = spend
    this.parent = isNested(this.#current, connection) ? this.#current.call : undefined
    const opened = connection.open(this, this)
    // One that was refused may have begun elsewhere by now.
    if (opened !== undefined) this.#opened = opened
  }

  fail(error: SynapseError): void {
    this.#end(Effect.fail(this.#lost === undefined || error.delivery === "unknown" ? error : this.#lost))
  }

  protected cancel(): void {
    const opened = this.#opened
    this.#opened = undefined
    opened?.giveUp()
    this.#spent()
  }

  #spent(): void {
    const spend = this.#spend
    this.#spend = undefined
    spend?.()
  }

  ended(exit: Exit.Exit<Envelope.Frame, SynapseError>, first: Effect.Effect<void> | undefined): void {
    this.#opened = undefined
    this.#spent()
    if (first === undefined) return this.#settle(exit)
    // Its input streams end before it does.
    Effect.runForkWith(this.#fiber.context)(first).addObserver(() => this.#settle(exit))
  }

  #settle(exit: Exit.Exit<Envelope.Frame, SynapseError>): void {
    if (this.#isOver) {
      if (Exit.isSuccess(exit)) Envelope.discard(exit.value)
      return
    }
    if (Exit.isFailure(exit)) return this.#failed(exit)
    const frame = exit.value
    if (frame.kind === Envelope.Kind.Die && this.#isSentAgain(frame)) return
    // Python saw the deadline pass before this side did.
    if (frame.kind === Envelope.Kind.Interrupted && this.#budget !== undefined) {
      return this.#end(Effect.fail(this.#budget.expired(this.method)))
    }
    // Decoded by its caller.
    this.#end(Effect.suspend(() => answerTo(this, frame)))
  }

  #failed({ cause }: Exit.Failure<unknown, SynapseError>): void {
    const found = Cause.findErrorOption(cause)
    if (Option.isNone(found)) return this.#end(Effect.failCause(cause))
    const error = found.value
    if (this.target !== undefined || !maySendAgain(error, this.#idempotent, this.#attempt)) {
      return this.fail(error)
    }
    if (error.delivery === "unknown") this.#lost = error
    this.#again(this.#attempt + 1)
  }

  /** Sends what was turned away again, or fails with what was lost before; `false` for an answer. */
  #isSentAgain(frame: Envelope.Frame): boolean {
    const again = attemptAfter(frame, this.#attempt, this.target, this.#worker)
    if (again !== undefined) this.#again(again)
    else if (this.#lost !== undefined && isRejected(frame)) this.fail(this.#lost)
    else return false
    return true
  }

  #again(attempt: number): void {
    this.#attempt = attempt
    this.#budget?.queued(this.#lost !== undefined)
    this.enter(true)
  }
}

/** Which attempt comes after one that was turned away; none after any other answer, or the last one. */
const attemptAfter = (
  frame: Envelope.Frame,
  attempt: number,
  target: number | undefined,
  worker: Connection | undefined
): number | undefined => {
  const why = turnedAway(frame)
  // What was asked back is not turned away by anyone, nor is what a worker that leaves did not come to.
  const leaves = why === "Closed" && target === undefined && worker?.isOpen() === false
  if (why === "Recalled" || leaves) return attempt
  return why !== undefined && attempt < maxAttempts ? attempt + 1 : undefined
}

// What never ran can run elsewhere; what may have run only if its caller says so. The restart budget bounds the first.
const maySendAgain = ({ reason }: SynapseError, idempotent: boolean, attempt: number): boolean => {
  switch (reason._tag) {
    case "WorkerExited":
    case "Unresponsive":
    case "ProtocolError":
      return reason.delivery === "notSent" || (idempotent && attempt < maxAttempts)
    // Its worker was let go of as the call was on its way there; or there are no others, which the next attempt finds.
    case "Closed":
      return reason.delivery === "notSent" && attempt < maxAttempts
    default:
      return false
  }
}

/** The input of a call as its `payload` schema encodes it. */
export const encoded = <I, R>(
  input: unknown,
  options: CallOptions<I, R> | undefined
): Effect.Effect<unknown, SynapseError> => {
  if (options?.payload === undefined) return Effect.succeed(input)
  return Effect.mapError(SchemaMsgpack.encode(options.payload)(input), (error) => {
    const { issue, path } = SchemaMsgpack.describeIssue(error)
    const { method = "main" } = options
    return new SynapseError({
      reason: new EncodeFailed({ side: "typescript", method, path, issue, delivery: "notSent" })
    })
  })
}

const traceparent = (span: Tracer.AnySpan | undefined): string | undefined =>
  span === undefined
    ? undefined
    : `00-${span.traceId.padStart(32, "0")}-${span.spanId.padStart(16, "0")}-${span.sampled ? "01" : "00"}`
