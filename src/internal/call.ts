/** One call as its caller sees it: encoding, time-outs, sending again, progress, decoding. */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Schema from "effect/Schema"
import type * as Tracer from "effect/Tracer"
import type { Connection, Request } from "../Connection.ts"
import * as Envelope from "../Envelope.ts"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import type { CallOptions, Runtime } from "../Synapse.ts"
import { EncodeFailed, SynapseError } from "../SynapseError.ts"
import type { WorkerPool } from "../WorkerPool.ts"
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

/** One call on its way, of one value or of a stream. */
export interface Exchange {
  readonly method: string
  readonly budget: Budget | undefined
  /** Sends the request, again where that is safe, and waits for the first frame that is more than a refusal. */
  readonly send: (
    by: (connection: Connection, request: Request) => Effect.Effect<Envelope.Frame, SynapseError>
  ) => Effect.Effect<Envelope.Frame, SynapseError>
  /** Fails when a time-out passes before `self` is done. */
  readonly limit: <A, R>(self: Effect.Effect<A, SynapseError, R>) => Effect.Effect<A, SynapseError, R>
}

/** Prepares a call in the fiber of its caller; encodes the input. */
export const prepare = <I, R>(
  calls: Calls,
  fiber: Fiber.Fiber<unknown, unknown>,
  input: unknown,
  options: CallOptions<I, R> | undefined,
  asked: Asked,
  onProgress: ((payload: Uint8Array) => void) | undefined
): Effect.Effect<Exchange, SynapseError> => {
  const method = options?.method ?? "main"
  const budget = budgetOf(fiber, options, calls.callTimeout)
  const idempotent = options?.idempotent ?? false
  const current = fiber.getRef(CurrentRequest)
  const encoded =
    options?.payload === undefined ? Effect.succeed(input) : encodeInput(options.payload, input as I, method)
  return Effect.map(encoded, (value) => {
    const { input: payload, streams } = InputStreams.extract(value, fiber.context)
    const request: Request = {
      method,
      payload,
      inputs: streams.length === 0 ? undefined : streams,
      trace: traceparent(fiber.cache.span),
      target: calls.target,
      replace: options?.onCancel === "replace",
      onProgress: progressOf(budget, options?.maxTimeout !== undefined, onProgress),
      timeLeft: budget && (() => budget.timeLeft()),
      ceiling: budget && (() => budget.ceiling()),
      onSent: budget && (() => budget.sent()),
      ...asked
    }
    /** The failure of an attempt that may have run: whatever becomes of those after it, it is not undone. */
    let lost: SynapseError | undefined
    const failed = (error: SynapseError): Effect.Effect<never, SynapseError> =>
      Effect.fail(lost === undefined || error.delivery === "unknown" ? error : lost)
    const send = (
      by: Parameters<Exchange["send"]>[0],
      attempt: number,
      returned: boolean
    ): ReturnType<Exchange["send"]> => {
      let worker: Connection | undefined
      const attempted = (connection: Connection): ReturnType<typeof by> => {
        worker = connection
        return by(connection, nested(request, current, connection))
      }
      return Effect.matchEffect(
        calls.use(method, attempted, { parent: current, affinity: options?.affinity, returned }),
        {
          onFailure: (error) => {
            if (calls.target !== undefined || !maySendAgain(error, idempotent, attempt)) return failed(error)
            if (error.delivery === "unknown") lost = error
            return again(by, attempt + 1)
          },
          onSuccess: (frame) => {
            const why = turnedAway(frame)
            // What was asked back is not turned away by anyone, nor is what a worker that leaves did not come to.
            const leaves = why === "Closed" && calls.target === undefined && worker?.isOpen() === false
            if (why === "Recalled" || leaves) return again(by, attempt)
            if (why !== undefined && attempt < maxAttempts) return again(by, attempt + 1)
            return lost !== undefined && isRejected(frame) ? Effect.fail(lost) : Effect.succeed(frame)
          }
        }
      )
    }
    const again = (by: Parameters<typeof send>[0], attempt: number): ReturnType<typeof send> => {
      budget?.queued(lost !== undefined)
      return send(by, attempt, true)
    }
    return {
      method,
      budget,
      send: (by) => send(by, 1, false),
      limit: (self) => (budget === undefined ? self : budget.limit(self, method))
    }
  })
}

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
    Effect.withFiber((fiber) =>
      Effect.flatMap(prepare(calls, fiber, input, options, asked, onProgress), ({ budget, limit, method, send }) => {
        const sent = send((connection, request) => connection.call(request))
        if (budget === undefined) return sent
        return Effect.flatMap(limit(sent), (frame) =>
          // Python saw the deadline pass before this side did.
          frame.kind === Envelope.Kind.Interrupted ? Effect.fail(budget.expired(method)) : Effect.succeed(frame)
        )
      })
    )
  )

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

const encodeInput = <I>(
  payload: Schema.Codec<I, unknown>,
  input: I,
  method: string
): Effect.Effect<unknown, SynapseError> =>
  Effect.mapError(SchemaMsgpack.encode(payload)(input), (error) => {
    const { issue, path } = SchemaMsgpack.describeIssue(error)
    return new SynapseError({
      reason: new EncodeFailed({ side: "typescript", method, path, issue, delivery: "notSent" })
    })
  })

const traceparent = (span: Tracer.AnySpan | undefined): string | undefined =>
  span === undefined
    ? undefined
    : `00-${span.traceId.padStart(32, "0")}-${span.spanId.padStart(16, "0")}-${span.sampled ? "01" : "00"}`
