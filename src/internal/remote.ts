/** Workers that are elsewhere: an origin whose workers are connections to servers. */
import { isIP } from "node:net"
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import type { PythonEnvironment } from "../PythonEnvironment.ts"
import type { PythonProcess } from "../PythonProcess.ts"
import { isSynapseError, type SynapseError, SynapseError as SynapseError_, WorkerExited } from "../SynapseError.ts"
import { messageOf, startFailed } from "./connectionEnd.ts"
import * as Discovery from "./discovery.ts"
import * as Handshake from "./handshake.ts"
import { nativeSleep, nativeSleepUnref } from "./nativeSleep.ts"
import * as OldWire from "./oldWire.ts"
import type { Origin } from "./origin.ts"
import { p2p } from "./p2p.ts"
import { p2p0 } from "./p2p0.ts"

/** The certificates of a client, as the text or the bytes of PEM files. */
export interface Tls {
  /** The authorities that may have signed the server's certificate. Default: those that Node has. */
  readonly ca?: string | Uint8Array | undefined
  /** The certificate of this side, where the server asks for one. */
  readonly cert?: string | Uint8Array | undefined
  /** Its private key. */
  readonly key?: string | Uint8Array | Redacted.Redacted<string> | undefined
  /** The name that the server's certificate has to have. Default: `host`. */
  readonly serverName?: string | undefined
}

/** Which server is meant, and how to get there. */
export interface Target {
  /** Where the server is. Default: this machine, `"127.0.0.1"`. */
  readonly host?: string | undefined
  /** Its port. Default: 9999. */
  readonly port?: number | undefined
  /** Instead of `host` and `port`: a server of that namespace on this machine. */
  readonly namespace?: string | undefined
  /** Instead of them: addresses as `host[:port]`, of which the first one counts that answers. */
  readonly seeds?: ReadonlyArray<string> | undefined
  /**
   * What the server wants to be known. Default: the token of a server of this user on this machine, where there is one.
   * `false`: none.
   */
  readonly token?: string | Redacted.Redacted<string> | false | undefined
  /** Whether the connection is one of TLS, version 1.3, and with which certificates. Default: `false`. */
  readonly tls?: Tls | boolean | undefined
  /**
   * `"synapse"`, or what nodes of synapse-p2p speak: `"p2p"` those of today, `"p2p-0"` those of 0.0.x. Such nodes have neither
   * streams, objects and host functions nor tokens. A list is the arguments by position, and an object those by name.
   * Default: `"synapse"`.
   */
  readonly protocol?: "synapse" | "p2p" | "p2p-0" | undefined
  /** How long connecting may take, with everything that belongs to it. Default: 5 seconds. */
  readonly connectTimeout?: Duration.Input | undefined
}

const defaultHost = "127.0.0.1"
const defaultPort = 9999
const loopbacks = new Set(["localhost", "127.0.0.1", "::1"])

interface Address {
  readonly host: string
  readonly port: number
  readonly token: string | undefined
  readonly wantsTls: boolean
}

const shown = ({ host, port }: Address): string => `${host.includes(":") ? `[${host}]` : host}:${port}`

/** What of it cannot be, in words. */
export const wrongTarget = (target: Target): string | undefined => {
  const { connectTimeout, host, namespace, port, protocol, seeds, tls, token } = target
  if (port !== undefined && !(Number.isInteger(port) && port > 0 && port < 65536)) {
    return `The option \`port\` is ${String(port)}, not a whole number from 1 to 65535`
  }
  for (const [name, text] of Object.entries({ host, namespace })) {
    if (text !== undefined && (typeof text !== "string" || text.trim() === "")) {
      return `The option \`${name}\` is ${JSON.stringify(text)}, not a text such as "example"`
    }
  }
  if (protocol !== undefined && !["synapse", "p2p", "p2p-0"].includes(protocol)) {
    return `The option \`protocol\` is ${JSON.stringify(protocol)}, not one of synapse, p2p, p2p-0`
  }
  if ([host ?? port, namespace, seeds].filter((each) => each !== undefined).length > 1) {
    return "Of the options `host` with `port`, `namespace` and `seeds` one says where the server is: leave the others out"
  }
  if (seeds?.length === 0) return "The option `seeds` has no address in it"
  const wrong = seeds?.find((seed) => addressOf(seed) === undefined)
  if (wrong !== undefined) return `The option \`seeds\` has ${JSON.stringify(wrong)} in it, not host or host:port`
  if (typeof token === "string" && token.trim() === "") return "The option `token` is empty: `false` is none"
  if (tls !== undefined && tls !== false && protocol !== undefined && protocol !== "synapse") {
    return `The option \`tls\` is for servers of Synapse: nodes of ${protocol} know no TLS`
  }
  const millis = connectTimeout === undefined ? 1 : millisOf(connectTimeout)
  return millis > 0 ? undefined : `The option \`connectTimeout\` is no duration above zero such as "5 seconds"`
}

const millisOf = (input: Duration.Input): number => {
  try {
    return Duration.toMillis(input)
  } catch {
    return Number.NaN
  }
}

const addressOf = (seed: string): { readonly host: string; readonly port: number } | undefined => {
  const match = /^\s*(?:\[([^\]]+)\]|([^:\s]+))(?::(\d{1,5}))?\s*$/.exec(seed)
  const host = match?.[1] ?? match?.[2] ?? (isIP(seed.trim()) === 6 ? seed.trim() : undefined)
  const port = match?.[3] === undefined ? defaultPort : Number(match[3])
  return host === undefined || port < 1 || port > 65535 ? undefined : { host, port }
}

const connectFailed = (detail: string): SynapseError => startFailed("connect", detail)

const given = (token: Target["token"]): string | undefined => {
  if (Redacted.isRedacted(token)) return Redacted.value(token)
  return typeof token === "string" ? token : undefined
}

/** Where to try, one after the other. */
const addressesOf = (target: Target, turn: number): Effect.Effect<ReadonlyArray<Address>, SynapseError> =>
  Effect.try({
    try: () => find(target, turn),
    catch: (error) => (isSynapseError(error) ? error : connectFailed(messageOf(error)))
  })

const find = (target: Target, turn: number): ReadonlyArray<Address> => {
  const { namespace, protocol = "synapse", seeds, token } = target
  if (namespace !== undefined) {
    const found = Discovery.servers({ namespace }).filter(({ protocols }) => protocols.includes(protocol))
    if (found.length === 0) {
      throw connectFailed(
        `No server of the namespace ${JSON.stringify(namespace)} runs on this machine (looked in ` +
          `${Discovery.directory()}): start one, or give \`host\` and \`port\``
      )
    }
    // Several connections are spread over the servers.
    const first = turn % found.length
    return [...found.slice(first), ...found.slice(0, first)].map((server) => ({
      host: server.host,
      port: server.port,
      token: token === undefined ? Discovery.tokenOf(server) : given(token),
      wantsTls: server.tls
    }))
  }
  const places = seeds?.map((seed) => addressOf(seed)!) ?? [
    { host: target.host ?? defaultHost, port: target.port ?? defaultPort }
  ]
  return places.map(({ host, port }) => {
    const isHere = token === undefined && protocol === "synapse" && loopbacks.has(host)
    const server = isHere ? Discovery.servers({ port })[0] : undefined
    return { host, port, token: server === undefined ? given(token) : Discovery.tokenOf(server), wantsTls: false }
  })
}

/** The connection to one address, without the names of its errors. */
const rawSocket = (address: Address, { tls = false }: Target): Effect.Effect<Socket.Socket> => {
  const { host, port } = address
  if (tls === false) return NodeSocket.makeNet({ host, port, noDelay: true })
  const { ca, cert, key, serverName } = tls === true ? {} : tls
  return NodeSocket.makeTls({
    host,
    port,
    minVersion: "TLSv1.3",
    ...(ca !== undefined && { ca: pem(ca) }),
    ...(cert !== undefined && { cert: pem(cert) }),
    ...(key !== undefined && { key: pem(Redacted.isRedacted(key) ? Redacted.value(key) : key) }),
    ...(serverName === undefined ? (isIP(host) === 0 ? { servername: host } : {}) : { servername: serverName })
  })
}

const pem = (value: string | Uint8Array): string | Buffer => (typeof value === "string" ? value : Buffer.from(value))

const dial = (address: Address, target: Target): Socket.Socket => {
  const { protocol = "synapse" } = target
  const raw = rawSocket(address, target)
  if (protocol !== "synapse") return OldWire.make(protocol === "p2p" ? p2p : p2p0, shown(address), raw)
  const socket = Effect.runSync(raw)
  return Handshake.make(socket, shown(address), address.token)
}

/** What a socket fails with before the server has said anything. */
const beforeHello = (address: Address, target: Target, { reason }: Socket.SocketError): SynapseError => {
  if (reason._tag === "SocketReadError" && isSynapseError(reason.cause)) return reason.cause
  const where = shown(address)
  switch (reason._tag) {
    case "SocketOpenError":
      return connectFailed(`Cannot connect to ${where}: ${messageOf(reason.cause)}`)
    case "SocketCloseError":
      return connectFailed(
        `${where} closed the connection before it said hello: ` +
          (target.tls ? "it may want a certificate of this side" : "it is no Synapse server, or it wants TLS")
      )
    default:
      return connectFailed(`${where}: ${"cause" in reason ? messageOf(reason.cause) : reason._tag}`)
  }
}

const afterHello = (address: Address, { reason }: Socket.SocketError): SynapseError =>
  reason._tag === "SocketReadError" && isSynapseError(reason.cause)
    ? reason.cause
    : new SynapseError_({
        reason: new WorkerExited({
          kind: "disconnected",
          pid: 0,
          exitCode: null,
          signal: null,
          crashDump: "",
          stderr: "",
          address: shown(address),
          delivery: "unknown"
        })
      })

/** The socket to the first server that answers. */
const socketOf = (target: Target, addresses: ReadonlyArray<Address>): Socket.Socket => {
  let current: Socket.Socket | undefined

  const attempt = (address: Address): Effect.Effect<Socket.Reader, SynapseError, Scope.Scope> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        if (address.wantsTls && !target.tls) {
          return yield* Effect.fail(connectFailed(`${shown(address)} speaks TLS: give the option \`tls\``))
        }
        const scope = yield* Scope.fork(yield* Effect.scope)
        const socket = dial(address, target)
        const exit = yield* Effect.exit(restore(reading(socket, address, target).pipe(Scope.provide(scope))))
        if (Exit.isFailure(exit)) yield* Scope.close(scope, exit)
        const reader = yield* exit
        current = socket
        return reader
      })
    )

  return Socket.make({
    reader: Effect.gen(function* () {
      let first: SynapseError | undefined
      for (const address of addresses) {
        const found = yield* Effect.result(attempt(address))
        if (found._tag === "Success") return found.success
        first ??= found.failure
      }
      return yield* Effect.fail(Handshake.socketErrorOf(first!))
    }),
    writer: Effect.suspend(() => current!.writer)
  })
}

const reading = (
  socket: Socket.Socket,
  address: Address,
  target: Target
): Effect.Effect<Socket.Reader, SynapseError, Scope.Scope> => {
  const timeout = Duration.fromInputUnsafe(target.connectTimeout ?? "5 seconds")
  let greeted = false
  const errorOf = (error: Socket.SocketError): SynapseError =>
    greeted ? afterHello(address, error) : beforeHello(address, target, error)
  // A server knows nothing of a `TestClock`.
  const tooSlow = Effect.andThen(
    nativeSleep(Duration.toMillis(timeout)),
    Effect.fail(connectFailed(`${shown(address)} did not answer within ${Duration.format(timeout)}`))
  )
  return Effect.raceFirst(Effect.mapError(socket.reader, errorOf), tooSlow).pipe(
    Effect.map(({ pull, upgrade }) => ({
      pull: pull.pipe(
        Effect.tap(() => {
          greeted = true
          return Effect.void
        }),
        Effect.mapError((error) => Handshake.socketErrorOf(errorOf(error)))
      ),
      upgrade
    }))
  )
}

/** What a server runs in, nobody here knows. */
const environmentOf = (target: Target): PythonEnvironment => ({
  python: "",
  version: "",
  directory: describe(target),
  kind: "system",
  path: undefined
})

/** Where the server is, as the options say it. */
export const describe = ({ host = defaultHost, namespace, port = defaultPort, seeds }: Target): string =>
  namespace ?? seeds?.join(", ") ?? `${host}:${port}`

export const origin = (target: Target): Origin => {
  let turn = 0
  return {
    check: Effect.suspend(() => {
      const wrong = wrongTarget(target)
      return wrong === undefined ? Effect.void : Effect.fail(startFailed("options", wrong))
    }),
    find: () => Effect.succeed({ entrypoint: describe(target), environment: environmentOf(target) }),
    spawn: () => Effect.map(addressesOf(target, turn++), (addresses): PythonProcess => remoteWorker(target, addresses)),
    sleep: nativeSleepUnref
  }
}

const remoteWorker = (target: Target, addresses: ReadonlyArray<Address>): PythonProcess => ({
  pid: 0,
  socket: socketOf(target, addresses),
  setup: undefined,
  inspect: Effect.succeed(undefined),
  noteStderr: () => {},
  stderr: () => "",
  setKeepAlive: () => {}
})
