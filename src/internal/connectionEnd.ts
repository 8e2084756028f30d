/** How the end of a connection looks to those who wait on it: at the start, and to each open call. */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import type * as Socket from "effect/socket/Socket"
import type { Delivery } from "../SynapseError.ts"
import {
  Closed,
  isSynapseError,
  ProtocolError,
  StartFailed,
  SynapseError,
  Unresponsive,
  WorkerExited
} from "../SynapseError.ts"

export const closed = new SynapseError({ reason: new Closed({ delivery: "unknown" }) })

export const messageOf = (error: unknown): string => {
  if (Exit.isExit(error)) return Exit.isFailure(error) ? Cause.pretty(error.cause) : "it stopped"
  return error instanceof Error ? error.message : String(error)
}

export const protocolError = (error: unknown): SynapseError =>
  new SynapseError({ reason: new ProtocolError({ detail: messageOf(error), delivery: "unknown" }) })

export const startFailed = (kind: StartFailed["kind"], detail: string): SynapseError =>
  new SynapseError({ reason: new StartFailed({ kind, detail }) })

/** The end of a worker that did not answer for so long, or still ran what was given up so long ago. */
export const unresponsive = (pid: number, state: Unresponsive["state"], silentMillis: number): SynapseError =>
  new SynapseError({ reason: new Unresponsive({ pid, state, silentMillis, delivery: "unknown" }) })

/** A local process says why its socket ended; any other socket just ends. */
export const endOf = (error: Socket.SocketError, greeted: boolean): SynapseError => {
  const cause = error.reason._tag === "SocketReadError" ? error.reason.cause : undefined
  if (isSynapseError(cause)) return greeted ? cause : beforeHello(cause)
  return greeted
    ? protocolError(error)
    : startFailed("exit", `The worker closed its channel before it said hello: ${error.message}`)
}

const beforeHello = (error: SynapseError): SynapseError => {
  const { reason } = error
  if (reason._tag !== "WorkerExited") return error
  if (reason.limit !== undefined) {
    return startFailed("exit", `Python went over ${reason.limit} before the module had been loaded`)
  }
  const how = reason.signal === null ? `exited with code ${reason.exitCode}` : `was ended by ${reason.signal}`
  return new SynapseError({
    reason: new StartFailed({
      kind: "exit",
      detail: `Python ${how} before the module had been loaded`,
      exitCode: reason.exitCode,
      signal: reason.signal,
      stderr: [reason.crashDump, reason.stderr].filter((text) => text !== "").join("\n")
    })
  })
}

/** The same end, seen by a call that got this far. */
export const withDelivery = (error: SynapseError, delivery: Delivery): SynapseError => {
  const { reason } = error
  if (reason.delivery === delivery) return error
  switch (reason._tag) {
    case "WorkerExited":
      return new SynapseError({ reason: new WorkerExited({ ...reason, delivery }) })
    case "Unresponsive":
      return new SynapseError({ reason: new Unresponsive({ ...reason, delivery }) })
    case "ProtocolError":
      return new SynapseError({ reason: new ProtocolError({ ...reason, delivery }) })
    case "Closed":
      return new SynapseError({ reason: new Closed({ delivery }) })
    default:
      return error
  }
}
