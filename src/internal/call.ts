/** One call as its caller sees it: encoding, time-outs, sending again, progress, decoding. */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Tracer from "effect/Tracer"
import type { Connection, Request } from "../Connection.ts"
import * as Envelope from "../Envelope.ts"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import type { CallOptions, Runtime } from "../Synapse.ts"
import { EncodeFailed, SynapseError } from "../SynapseError.ts"
import type { Begin, WorkerPool } from "../WorkerPool.ts"
import { answerOf, isRejected, turnedAway } from "./answer.ts"
import { Budget, type Durations } from "./budget.ts"
import * as InputStreams from "./inputStreams.ts"
import { listen } from "./progress.ts"
import { CurrentRequest, type Served } from "./serving.ts"

/** How often a call is sent that was turned away, or that is idempotent and whose worker ended. */
const maxAttempts = 3

/** Where calls go and what holds for all of them. */
export interface Calls {
  readonly use: WorkerPool["use"]
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
    replace: boolean,
    asked: Asked,
    onProgress: Request["onProgress"]
  ) {
    const { input: payload, streams } = InputStreams.extract(input, fiber.context)
    this.method = method
    this.payload = payload
    this.inputs = streams.length === 0 ? undefined : streams
    this.trace = traceparent(fiber.cache.span)
    this.target = calls.target
    this.get = asked.get
    this.replace = replace
    this.onProgress = onProgress
    this.onHandle = asked.onHandle
    this.timeLeft = budget && (() => budget.timeLeft())
    this.ceiling = budget && (() => budget.ceiling())
    this.onSent = budget && (() => budget.sent())
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
    const replace = options?.onCancel === "replace"
    this.#request = new CallRequest(this.method, input, calls, fiber, this.budget, replace, asked, heard)
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
    const why = turnedAway(frame)
    // What was asked back is not turned away by anyone, nor is what a worker that leaves did not come to.
    const leaves = why === "Closed" && this.#calls.target === undefined && worker?.isOpen() === false
    if (why === "Recalled" || leaves) return this.#again(by, attempt)
    if (why !== undefined && attempt < maxAttempts) return this.#again(by, attempt + 1)
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
  current !== undefined && current.owner === connection.owner && connection.has(current.call)
    ? { ...request, parent: current.call }
    : request

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
  (schema, input, options) =>
    Effect.flatMap(
      exchange(calls, input, options, {}),
      answerOf(schema, options?.method ?? "main", options?.parseJson ?? false, calls.type)
    ) as never

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

const encoded = <I, R>(
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
