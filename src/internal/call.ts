/** One call as its caller sees it: encoding, time-out, sending again, decoding. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Tracer from "effect/Tracer"
import type { Request } from "../Connection.ts"
import * as Envelope from "../Envelope.ts"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import type { Runtime } from "../Synapse.ts"
import { CallTimeout, EncodeFailed, SynapseError } from "../SynapseError.ts"
import type { WorkerPool } from "../WorkerPool.ts"
import { answerOf, isTurnedAway } from "./answer.ts"

/** How often a call is sent that was turned away, or that is idempotent and whose worker ended. */
const maxAttempts = 3

/** Makes the `call` of a runtime, given how one request is made on some worker. */
export const makeCall = (use: WorkerPool["use"], callTimeout: Duration.Input | undefined): Runtime["call"] => {
  const send = (request: Request, idempotent: boolean, attempt: number): Effect.Effect<Envelope.Frame, SynapseError> =>
    Effect.matchEffect(
      use(request.method, (connection) => connection.call(request)),
      {
        onFailure: (error) =>
          maySendAgain(error, idempotent, attempt) ? send(request, idempotent, attempt + 1) : Effect.fail(error),
        onSuccess: (frame) => {
          if (attempt >= maxAttempts || !isTurnedAway(frame)) return Effect.succeed(frame)
          if (request.progress !== undefined) request.progress.sent = false
          return send(request, idempotent, attempt + 1)
        }
      }
    )

  return (schema, input, options) =>
    Effect.withFiber((fiber) => {
      const method = options?.method ?? "main"
      const timeout = options?.timeout ?? callTimeout
      const trace = traceparent(fiber.cache.span)
      const decode = answerOf(schema, method, options?.parseJson ?? false)
      const idempotent = options?.idempotent ?? false
      const encoded =
        options?.payload === undefined ? Effect.succeed<unknown>(input) : encodeInput(options.payload, input, method)
      if (timeout === undefined) {
        return Effect.flatMap(
          Effect.flatMap(encoded, (payload) => send({ method, payload, trace }, idempotent, 1)),
          decode
        )
      }
      const duration = Duration.fromInputUnsafe(timeout)
      const durationMillis = Duration.toMillis(duration)
      const clock = fiber.getRef(Clock.Clock)
      const deadline = clock.currentTimeMillisUnsafe() + durationMillis
      const timeLeft = () => deadline - clock.currentTimeMillisUnsafe()
      const progress = { sent: false }
      const timedOut = Effect.suspend(() =>
        Effect.fail(new SynapseError({ reason: new CallTimeout({ method, durationMillis, running: progress.sent }) }))
      )
      return Effect.flatMap(encoded, (payload) =>
        send({ method, payload, trace, timeLeft, progress }, idempotent, 1)
      ).pipe(
        // Python saw the deadline pass before this side did.
        Effect.flatMap((frame) => (frame.kind === Envelope.Kind.Interrupted ? timedOut : Effect.succeed(frame))),
        Effect.timeoutOrElse({ duration, orElse: () => timedOut }),
        Effect.flatMap(decode)
      )
    })
}

// What never ran can run elsewhere; what may have run only if its caller says so. The restart budget bounds the first.
const maySendAgain = ({ reason }: SynapseError, idempotent: boolean, attempt: number): boolean => {
  switch (reason._tag) {
    case "WorkerExited":
    case "Unresponsive":
    case "ProtocolError":
      return reason.delivery === "notSent" || (idempotent && attempt < maxAttempts)
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
