/** Calls whose answer nobody waits for. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { isSynapseError } from "../SynapseError.ts"

/**
 * Makes a call and is done when it has been given to a worker; it fails as the call does where that comes first. From then on the
 * call belongs to `scope`. What it fails with is its callers' no more, but what it never came to is logged.
 */
export const discard = <E, R>(
  method: string,
  scope: Scope.Scope,
  call: (onSent: () => void) => Effect.Effect<unknown, E, R>
): Effect.Effect<void, E, R> =>
  Effect.uninterruptibleMask((restore) => {
    const sent = Deferred.makeUnsafe<void, E>()
    const onSent = () => Deferred.doneUnsafe(sent, Exit.void)
    const settled = (exit: Exit.Exit<unknown, E>): Effect.Effect<void> => {
      if (Deferred.doneUnsafe(sent, Exit.asVoid(exit)) || Exit.isSuccess(exit)) return Effect.void
      const error = Exit.findErrorOption(exit)
      return error._tag === "Some" && isSynapseError(error.value)
        ? Effect.logWarning(`\`${method}\` was called with \`discard\`, and failed: ${error.value.message}`)
        : Effect.void
    }
    return Effect.flatMap(
      Effect.forkIn(Effect.onExit(restore(Effect.interruptible(call(onSent))), settled), scope, {
        startImmediately: true
      }),
      (fiber) => Effect.onInterrupt(restore(Deferred.await(sent)), () => Fiber.interrupt(fiber))
    )
  })
