/** What a promise is rejected with where an effect failed. */
import { SynapseError } from "../SynapseError.ts"

/**
 * The same error with the stack of whoever awaits it, to be called where that is done: the stack of the fiber that failed has nothing
 * of the program in it. Calls that fail together get one each.
 */
export const rejectionOf = (error: unknown): unknown =>
  error instanceof SynapseError ? new SynapseError({ reason: error.reason }) : error
