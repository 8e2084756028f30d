/** Whether a worker keeps the contract of a group, found out once for all workers that describe themselves alike. */
import * as Effect from "effect/Effect"
import * as Contract from "../Contract.ts"
import type { Hello } from "../Envelope.ts"
import type { SynapseOptions } from "../Synapse.ts"
import { StartFailed, SynapseError } from "../SynapseError.ts"
import { contractText } from "./contractText.ts"

/** Run with what a worker says of itself, before it is given any call. */
export type ContractCheck = (hello: Hello) => Effect.Effect<void, SynapseError>

/** Nothing where there is nothing to check, and so no need for a worker to describe itself. */
export const makeContractCheck = ({
  contract = "check",
  group
}: Pick<SynapseOptions<unknown>, "contract" | "group">): ContractCheck | undefined => {
  if (group === undefined || contract === "off") return undefined
  const wanted = Contract.fromGroup(group)
  // That of the workers that run, and beside them of those that a reload starts.
  let last: { readonly contract: string | undefined; readonly fault: Fault | undefined } | undefined
  return ({ contract: described }) =>
    Effect.gen(function* () {
      const found = described === null ? undefined : yield* Contract.decode(described)
      // Of what was decoded: there is no telling what else a worker sends.
      const text = found && contractText(found)
      const isKnown = last !== undefined && last.contract === text
      if (!isKnown) last = { contract: text, fault: found === undefined ? undescribed : drifted(wanted, found) }
      const fault = last?.fault
      if (fault === undefined) return
      if (contract === "check") return yield* Effect.fail(startFailed(`${fault.what}${fault.cure}`))
      if (!isKnown) yield* Effect.logWarning(`${fault.what}\nCalls may fail that do not fit`)
    })
}

/** Why a worker is not one for the group, and what can be done. */
interface Fault {
  readonly what: string
  readonly cure: string
}

const maxListed = 50

const listOf = (drift: ReadonlyArray<Contract.Drift>): string => {
  const lines = drift.slice(0, maxListed).map(({ message }) => `\n  ${message}`)
  const more = drift.length > maxListed ? `\n  and ${drift.length - maxListed} more` : ""
  return `The Python module does not keep the contract of the option \`group\`:${lines.join("")}${more}`
}

const drifted = (wanted: Contract.Contract, found: Contract.Contract): Fault | undefined => {
  const drift = Contract.compare(wanted, found)
  if (drift.length === 0) return undefined
  return {
    what: listOf(drift),
    cure: '\nChange one of the two (a generated one: run the command at its top again), or set the option `contract` to "warn"'
  }
}

const startFailed = (detail: string): SynapseError =>
  new SynapseError({ reason: new StartFailed({ kind: "contract", detail }) })

const undescribed: Fault = {
  what: "The worker does not describe its handlers, so that they cannot be compared with the option `group`",
  cure: ': set the option `contract` to "warn" or "off"'
}
