/** How a client and a server make sure of each other before the first frame. Neither sends the token. */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Socket from "effect/socket/Socket"
import type { SynapseError } from "../SynapseError.ts"
import { startFailed } from "./connectionEnd.ts"

const magic = Buffer.from("SYNAPSE")
const version = 1
const nonceSize = 32
const proofSize = 32
const greetingSize = magic.length + 1 + nonceSize
/** Whether the proof holds, and that of the server. */
const verdictSize = 1 + proofSize

const open = 0
const wantsToken = 1

const proofOf = (token: string, role: "client" | "server", client: Uint8Array, server: Uint8Array): Buffer =>
  createHmac("sha256", token).update(role).update(client).update(server).digest()

/** A failure that the reader of a socket fails with. */
export const socketErrorOf = (cause: SynapseError): Socket.SocketError =>
  new Socket.SocketError({ reason: new Socket.SocketReadError({ cause }) })

const refuse = (kind: "token" | "protocol", detail: string): Effect.Effect<never, Socket.SocketError> =>
  Effect.fail(socketErrorOf(startFailed(kind, detail)))

type Batch = readonly [Uint8Array, ...Array<Uint8Array>]

/** A socket whose reader has shaken hands with the server at `address`. */
export const make = (socket: Socket.Socket, address: string, token: string | undefined): Socket.Socket =>
  Socket.make({
    reader: Effect.gen(function* () {
      const pull = yield* Socket.readerBytes(socket)
      const writer = yield* socket.writer
      let early = Buffer.alloc(0)
      const take = Effect.fnUntraced(function* (size: number) {
        while (early.length < size) early = Buffer.concat([early, ...(yield* pull)])
        const taken = early.subarray(0, size)
        early = early.subarray(size)
        return taken
      })

      const nonce = randomBytes(nonceSize)
      yield* writer.write(Buffer.concat([magic, Buffer.of(version), nonce]))
      const greeting = yield* take(greetingSize)
      if (!greeting.subarray(0, magic.length).equals(magic)) {
        return yield* refuse("protocol", `${address} is no Synapse server`)
      }
      const asked = greeting[magic.length]
      const other = greeting.subarray(magic.length + 1)
      if (asked !== open && asked !== wantsToken) {
        return yield* refuse("protocol", `${address} speaks another version: update whichever is older`)
      }
      if (asked === open && token !== undefined) {
        return yield* refuse(
          "token",
          `${address} asks for no token: it is not the server that the token is for. Give \`token: false\` if it is`
        )
      }
      if (asked === wantsToken) {
        if (token === undefined) {
          return yield* refuse("token", `${address} asks for a token: give the option \`token\``)
        }
        yield* writer.write(proofOf(token, "client", nonce, other))
        const verdict = yield* take(verdictSize)
        if (verdict[0] !== 1) return yield* refuse("token", `${address} refused the token`)
        if (!timingSafeEqual(verdict.subarray(1), proofOf(token, "server", nonce, other))) {
          return yield* refuse(
            "token",
            `${address} does not know the token: it is not the server that the token is for`
          )
        }
      }
      let rest: Buffer | undefined = early.length > 0 ? early : undefined
      const read: Socket.Reader["pull"] = Effect.suspend((): Effect.Effect<Batch, Socket.SocketError> => {
        if (rest === undefined) return pull
        const batch: Batch = [rest]
        rest = undefined
        return Effect.succeed(batch)
      })
      return { pull: read, upgrade: () => Effect.void }
    }),
    writer: socket.writer
  })
