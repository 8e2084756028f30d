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
  let last: { readonly contract: string; readonly drift: ReadonlyArray<Contract.Drift> } | undefined
  return ({ contract: described }) =>
    Effect.gen(function* () {
      if (described === null) return yield* Effect.fail(undescribed)
      const found = yield* Contract.decode(described)
      // Of what was decoded: there is no telling what else a worker sends.
      const text = contractText(found)
      if (last?.contract === text) {
        // It has been said.
        return contract === "check" && last.drift.length > 0 ? yield* Effect.fail(drifted(last.drift)) : undefined
      }
      const drift = Contract.compare(wanted, found)
      last = { contract: text, drift }
      if (drift.length === 0) return
      if (contract === "check") return yield* Effect.fail(drifted(drift))
      yield* Effect.logWarning(`${listOf(drift)}\nCalls of these may fail`)
    })
}

const maxListed = 50

const listOf = (drift: ReadonlyArray<Contract.Drift>): string => {
  const lines = drift.slice(0, maxListed).map(({ message }) => `\n  ${message}`)
  const more = drift.length > maxListed ? `\n  and ${drift.length - maxListed} more` : ""
  return `The Python module does not keep the contract of the option \`group\`:${lines.join("")}${more}`
}

const drifted = (drift: ReadonlyArray<Contract.Drift>): SynapseError =>
  startFailed(
    `${listOf(drift)}\nChange one of the two (a generated one: run the command at its top again), or set the option \`contract\` to "warn"`
  )

const startFailed = (detail: string): SynapseError =>
  new SynapseError({ reason: new StartFailed({ kind: "contract", detail }) })

const undescribed = startFailed(
  "The worker does not describe its handlers, so that they cannot be compared with the option `group`: " +
    'set the option `contract` to "off"'
)
