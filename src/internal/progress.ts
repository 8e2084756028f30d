/** Progress of a call on its way to the caller's listener: in order, beside the result, and never in its way. */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import type * as Schema from "effect/Schema"
import * as Envelope from "../Envelope.ts"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import { DecodeFailed, SynapseError } from "../SynapseError.ts"
import { CodecError } from "./msgpack.ts"

/** How many values wait for a listener that is slower than Python: the oldest are dropped. */
const capacity = 256

/** What is done with each progress of a call. Made by `Synapse.onProgress`. */
export interface Progress<in out R> {
  readonly listener: (payload: Uint8Array, method: string) => Effect.Effect<void, SynapseError, R>
  /** Whether all of the values are waited for, however many they are. */
  readonly isComplete?: boolean | undefined
}

/** Partial results of a call: progress of which nothing is dropped. */
export const makeMessages = <P, RD, R>(
  schema: Schema.Decoder<P, RD>,
  onMessage: (value: P) => Effect.Effect<unknown, never, R>
): Progress<RD | R> => ({ ...makeProgress(schema, onMessage), isComplete: true })

export const makeProgress = <P, RD, R>(
  schema: Schema.Decoder<P, RD>,
  onProgress: (value: P) => Effect.Effect<unknown, never, R>
): Progress<RD | R> => {
  const decode = SchemaMsgpack.decode(schema)
  return {
    listener: (payload, method) =>
      Effect.suspend(() => decode(Envelope.decodePayload(payload))).pipe(
        Effect.mapError((error) => {
          const { issue, path } = SchemaMsgpack.describeIssue(error)
          return decodeFailed(method, path, issue)
        }),
        Effect.catchDefect((defect) =>
          defect instanceof CodecError
            ? Effect.fail(decodeFailed(method, defect.path, defect.issue))
            : Effect.die(defect)
        ),
        Effect.flatMap(onProgress),
        Effect.asVoid
      )
  }
}

const decodeFailed = (method: string, path: string, issue: string): SynapseError =>
  new SynapseError({
    reason: new DecodeFailed({ side: "typescript", what: "progress", method, path, issue, delivery: "unknown" })
  })

/**
 * Runs a call and its listener side by side. The result comes after the progress before it was listened to; interrupting
 * the call interrupts the listener.
 */
export const listen = <R>(
  progress: Progress<R> | undefined,
  method: string,
  call: (onProgress: ((payload: Uint8Array) => void) | undefined) => Effect.Effect<Envelope.Frame, SynapseError, R>
): Effect.Effect<Envelope.Frame, SynapseError, R> =>
  progress === undefined
    ? call(undefined)
    : Effect.scoped(
        Effect.gen(function* () {
          const { finish, onProgress } = yield* listening(progress, method)
          const exit = yield* Effect.exit(call(onProgress))
          if (Exit.isSuccess(exit) && exit.value.kind === Envelope.Kind.Success) {
            yield* Effect.onExit(finish, (finished) =>
              // Nobody will decode the answer.
              Effect.sync(() => Exit.isFailure(finished) && Envelope.discard(exit.value))
            )
          }
          // What the call failed with is told whatever the listener fails with; and a time-out when it passes.
          else if (!isTimeout(exit)) yield* Effect.ignore(finish)
          return yield* exit
        })
      )

const isTimeout = (exit: Exit.Exit<unknown, SynapseError>): boolean => {
  const error = Exit.findErrorOption(exit)
  return error._tag === "Some" && error.value.reason._tag === "CallTimeout"
}

/** Starts a listener for as long as the scope is open. `finish` waits until it has heard everything. */
export const listening = Effect.fnUntraced(function* <R>(progress: Progress<R>, method: string) {
  const queue = yield* progress.isComplete === true
    ? Queue.unbounded<Uint8Array, Cause.Done>()
    : Queue.sliding<Uint8Array, Cause.Done>(capacity)
  const fiber = yield* Queue.take(queue).pipe(
    Effect.flatMap((payload) => progress.listener(payload, method)),
    Effect.forever,
    Effect.catchTag("Done", () => Effect.void),
    Effect.forkScoped
  )
  return {
    onProgress: (payload: Uint8Array): void => {
      // The bytes belong to the reader's chunk.
      Queue.offerUnsafe(queue, payload.slice())
    },
    finish: Effect.andThen(Queue.end(queue), Fiber.join(fiber))
  }
})
