/** How the calls of an RPC are made, and where that comes from. */
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"
import * as Headers from "effect/http/Headers"
import * as RpcClient from "effect/rpc/RpcClient"
import type { CallOptions } from "../Synapse.ts"

/** What a call may be asked to do beside its method, input and headers, which are the RPC's. */
export interface Options extends Omit<CallOptions, "method" | "payload" | "headers" | "onSent"> {}

const none: Options = {}

export const Options = Context.Reference<Options>("effect-synapse/SynapseRpc/Options", { defaultValue: () => none })

/**
 * The options of one call: those that were prepared for its RPC, over them those of the fiber that makes it. `prepared` is
 * given back where there is nothing to add.
 */
export const optionsOf = (
  fiber: Fiber.Fiber<unknown, unknown>,
  prepared: CallOptions,
  headers: Headers.Headers,
  onSent?: (() => void) | undefined
): CallOptions => {
  const current = fiber.getRef(Options)
  const sent = textsOf(headers)
  if (current === none && sent === undefined && onSent === undefined) return prepared
  return { ...prepared, ...current, headers: sent, onSent }
}

/** The headers that a fiber sends along, and over them those of the call. */
export const headersOf = (fiber: Fiber.Fiber<unknown, unknown>, own: Headers.Input | undefined): Headers.Headers => {
  const current = fiber.getRef(RpcClient.CurrentHeaders)
  return own === undefined ? current : Headers.merge(current, Headers.fromInput(own))
}

const textsOf = (headers: Headers.Headers): Readonly<Record<string, string>> | undefined => {
  // Most calls have none, and then nothing is made of them.
  for (const _ in headers) return { ...headers }
  return undefined
}
