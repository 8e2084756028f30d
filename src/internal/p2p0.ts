/** The wire of synapse-p2p 0.0.x: one map, the text of an answer, and the end of the connection. */
import { encodeValue } from "./oldValue.ts"
import { raised, unknownEndpoint, type Wire } from "./oldWire.ts"
import { notDecoded, Refused, succeeded, tooLarge } from "./requestEnd.ts"

/** Nodes read so many bytes, once. */
const maxRequest = 4096

/** What a node says of an endpoint that it does not have. */
const badRequest = "400"

export const p2p0: Wire = {
  name: "p2p-0",
  request: (_id, method, input) => {
    const args = argumentsOf(input)
    if (args instanceof Refused) return args
    const bytes = encodeValue({ endpoint: method, args })
    return bytes.length > maxRequest ? tooLarge({ size: bytes.length, limit: maxRequest }) : bytes
  },
  sizeOf: () => undefined,
  answer: (_id, method, received) => {
    if (received.length === 0) {
      return raised(
        "NoAnswer",
        "the node closed the connection without an answer: the endpoint raised, or returned no text or an empty one"
      )
    }
    const text = new TextDecoder().decode(received)
    return text === badRequest ? unknownEndpoint(method) : succeeded(text)
  }
}

const argumentsOf = (input: unknown): ReadonlyArray<unknown> | Refused => {
  if (Array.isArray(input)) return input
  if (input === null) return []
  if (typeof input === "object" && Object.getPrototypeOf(input) === Object.prototype) {
    const issue = "the protocol p2p-0 has arguments by position alone: pass a list of them"
    return Object.keys(input).length === 0 ? [] : notDecoded({ path: "$", issue })
  }
  return [input]
}
