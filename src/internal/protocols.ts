/** What a script with a protocol of its own changes in how a module is run. */
import type { Protocol, SynapseOptions } from "../Synapse.ts"

/** The protocols that a worker can speak with a script. */
export const protocols: ReadonlyArray<Protocol> = ["stdio-v1", "json-lines"]

const MiB = 1024 * 1024

/** Values that are no arrays are all in messages there, and those protocols know no bounds. */
const maxFrameSize = 128 * MiB

/** The options as they are for the protocol; a script knows nothing of shared memory. */
export const withProtocol = <R>(options: SynapseOptions<R>): SynapseOptions<R> =>
  options.protocol === undefined
    ? options
    : { ...options, maxFrameSize: options.maxFrameSize ?? maxFrameSize, sharedMemory: false }

/** Why the other options do not go with a protocol. */
export const wrongWithProtocol = <R>(options: SynapseOptions<R>): string | undefined => {
  const { concurrency, evaluate, group, protocol } = options
  if (protocol === undefined) return undefined
  if (concurrency !== undefined && concurrency !== 1) {
    return `The option \`concurrency\` is ${concurrency}: a script of the protocol "${protocol}" takes one call at a time. Use \`workers\``
  }
  if (evaluate === true) return `The option \`evaluate\` is true: a script of the protocol "${protocol}" takes no code`
  return group === undefined
    ? undefined
    : `The option \`group\` is set: a script of the protocol "${protocol}" does not tell what it takes and gives`
}
