/** The wire of today's synapse-p2p: a length and a map each way, and one call for a connection. */
import { decodePayload } from "../Envelope.ts"
import { encodeValue } from "./oldValue.ts"
import { raised, unknownEndpoint, type Wire } from "./oldWire.ts"
import { type RequestEnd, succeeded, tooLarge, unsupported } from "./requestEnd.ts"

const maxFrame = 4 * 1024 * 1024
const lengthSize = 4
const unregistered = "Unregistered endpoint called: "

export const p2p: Wire = {
  name: "p2p",
  request: (id, endpoint, input) => {
    const { args, kwargs } = argumentsOf(input)
    const payload = encodeValue({ type: "request", id: String(id), endpoint, args, kwargs })
    if (payload.length > maxFrame) return tooLarge({ size: payload.length, limit: maxFrame })
    const length = Buffer.alloc(lengthSize)
    length.writeUInt32BE(payload.length)
    return Buffer.concat([length, payload])
  },
  // What is too large is not waited for.
  sizeOf: (head) => (sizeOf(head) > maxFrame ? lengthSize : lengthSize + sizeOf(head)),
  answer: (id, method, received) => {
    if (received.length < lengthSize) return badAnswer("the node closed the connection without an answer")
    const size = sizeOf(received)
    if (size > maxFrame) return tooLarge({ size, limit: maxFrame })
    if (received.length < lengthSize + size) return badAnswer("the node closed the connection within its answer")
    const response = decodePayload(received.subarray(lengthSize, lengthSize + size))
    if (!isResponse(response)) return badAnswer("the node answered with something that is no response")
    // What it cannot read has no id.
    if (response.id !== String(id) && response.id !== "") return badAnswer("the node answered another request")
    return response.ok ? succeeded(response.result) : failureOf(method, response.error)
  }
}

interface Response {
  readonly id: unknown
  readonly ok: boolean
  readonly result: unknown
  readonly error: unknown
}

const isResponse = (u: unknown): u is Response =>
  typeof u === "object" && u !== null && "type" in u && u.type === "response" && "ok" in u && typeof u.ok === "boolean"

const sizeOf = (received: Uint8Array): number => new DataView(received.buffer, received.byteOffset).getUint32(0)

const badAnswer = (message: string): RequestEnd => raised("BadAnswer", message)

/** A list is the arguments by position, an object those by name, anything else the only one. */
const argumentsOf = (input: unknown): { readonly args: ReadonlyArray<unknown>; readonly kwargs: object } => {
  if (Array.isArray(input)) return { args: input, kwargs: {} }
  if (input === null) return { args: [], kwargs: {} }
  const isNamed = typeof input === "object" && Object.getPrototypeOf(input) === Object.prototype
  return isNamed ? { args: [], kwargs: input } : { args: [input], kwargs: {} }
}

const failureOf = (method: string, error: unknown): RequestEnd => {
  const { code, message } = { code: "", message: "", ...(error as { code?: string; message?: string } | null) }
  if (message.startsWith(unregistered)) return unknownEndpoint(method)
  const sizes = /^frame too large: (\d+) > (\d+)$/.exec(message)
  if (sizes !== null) return tooLarge({ size: Number(sizes[1]), limit: Number(sizes[2]) })
  return code === "bad_request" ? unsupported(`the node refuses it: ${message}`) : raised(code || "Error", message)
}
