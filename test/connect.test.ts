/**
 * Servers that are Python programs, and nodes of synapse-p2p, called over a network.
 *
 * What is kept of synapse-p2p, and where it does better:
 *
 * | promise | test |
 * | --- | --- |
 * | 4a 1, 2, 3 | `p2p 4a 1` to `p2p 4a 3` here, for those who call; `python/tests/test_p2p.py` for a server |
 * | 4a 4, 5, 6 | `test_p2p_4a_4_...` to `test_p2p_4a_6_...` in `python/tests/test_server.py` |
 * | 4b 7, 8 | `p2p 4b 7` and `p2p 4b 8` here and in `python/tests/test_p2p.py` |
 */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Fiber, Layer, Redacted, Schema, Scope, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { HostFunctions, Synapse, SynapseError, SynapseRpc } from "effect-synapse"
import * as Envelope from "../src/Envelope.ts"
import { encodeValue } from "../src/internal/oldValue.ts"
import { reasonOf, seenEventually, upTo } from "./fixtures/dialogue.ts"
import { makeCertificates, node, removeDirectory, serve } from "./fixtures/server.ts"

afterAll(removeDirectory)

const certificates = makeCertificates()

const pid = Synapse.call(Schema.Int, {}, { method: "pid" })

/** Why a layer does not come up. */
const failed = (options: Synapse.ConnectOptions) =>
  Effect.scoped(Layer.build(Synapse.connect(options))).pipe(
    Effect.flip,
    Effect.map(({ reason }) => {
      assert.instanceOf(reason, SynapseError.StartFailed)
      return reason
    })
  )

describe("a server", () => {
  it.live("is called as a module is", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const program = Effect.gen(function* () {
        assert.strictEqual(yield* Synapse.call(Schema.Int, { a: 1, b: 2 }, { method: "add" }), 3)
        assert.strictEqual(yield* Synapse.call(Schema.Int, { a: 1 }, { method: "add" }), 11)
        const value = { a: [1, null, 2.5], b: new Uint8Array([1, 2]), c: new Date(5) }
        assert.deepStrictEqual(yield* Synapse.call(Schema.Any, value), value)
        assert.strictEqual(yield* Synapse.call(Schema.String, {}, { method: "who" }), "127.0.0.1")
        const calls = upTo(500).map((a) => Synapse.call(Schema.Int, { a, b: 1 }, { method: "add" }))
        const sums = yield* Effect.all(calls, { concurrency: "unbounded" })
        assert.deepStrictEqual(
          sums,
          upTo(500).map((a) => a + 1)
        )
        const { workers } = yield* Synapse.status
        assert.deepStrictEqual(
          workers.map(({ pid, state }) => [pid, state]),
          [[server.pid, "ready"]]
        )
      })
      yield* Effect.provide(program, Synapse.connect({ port: server.port }))
    })
  )

  it.live("says what went wrong as a module does", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const program = Effect.gen(function* () {
        const raised = yield* reasonOf(Synapse.call(Schema.Any, {}, { method: "fails" }), "PythonException")
        assert.deepStrictEqual([raised.type, raised.exception.message], ["ValueError", "no luck"])
        assert.strictEqual(raised.exception.frames.at(-1)?.function, "fails")
        const declared = yield* reasonOf(Synapse.call(Schema.Any, {}, { method: "refuses" }), "HandlerFailed")
        assert.deepInclude(declared.error as object, { _tag: "TooLarge", limit: 3 })
        const missing = yield* reasonOf(Synapse.call(Schema.Any, {}, { method: "ad" }), "MethodNotFound")
        assert.include(missing.nearest, "add")
        const misfit = yield* reasonOf(Synapse.call(Schema.Any, { a: "1" }, { method: "add" }), "DecodeFailed")
        assert.deepStrictEqual([misfit.path, misfit.delivery], ["$.a", "rejected"])
        const late = Synapse.call(Schema.Any, { name: "late" }, { method: "forever", timeout: "100 millis" })
        yield* reasonOf(late, "CallTimeout")
        yield* seenEventually("ended late")
        yield* reasonOf(Synapse.stream(Schema.Any, {}, { method: "pid" }).pipe(Stream.runDrain), "Unsupported")
        yield* reasonOf(Synapse.evaluate(Schema.Any)`1 + 1`, "Unsupported")
        assert.strictEqual(yield* pid, server.pid)
      })
      yield* Effect.provide(program, Synapse.connect({ port: server.port, logs: "ignore" }))
    })
  )

  it.live("streams, takes streams, reports progress and calls host functions", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const group = RpcGroup.make(
        Rpc.make("userName", { payload: { id: Schema.Int }, success: Schema.String }),
        Rpc.make("names", { success: Schema.String, stream: true })
      )
      const hostFunctions = HostFunctions.make(group, {
        userName: ({ id }) => Effect.succeed(`user ${id}`),
        names: () => Stream.fromIterable(upTo(200).map(String))
      })
      const program = Effect.gen(function* () {
        const numbers = (method: string, n: number) => Synapse.stream(Schema.Int, { n }, { method })
        assert.deepStrictEqual(yield* Stream.runCollect(numbers("numbers", 3000)), upTo(3000))
        assert.deepStrictEqual(yield* Stream.runCollect(numbers("plain_numbers", 300)), upTo(300))
        const first = yield* numbers("numbers", 1_000_000).pipe(Stream.take(5), Stream.runCollect)
        assert.deepStrictEqual(first, upTo(5))
        const rows = Stream.fromIterable(upTo(1000))
        assert.strictEqual(yield* Synapse.call(Schema.Int, { rows }, { method: "total" }), 499_500)
        const epochs: Array<number> = []
        const progress = Synapse.onProgress(Schema.Int, (epoch) => Effect.sync(() => epochs.push(epoch)))
        const trained = yield* Synapse.call(Schema.String, { epochs: 5 }, { method: "train", progress })
        assert.deepStrictEqual([trained, epochs], ["trained", upTo(5)])
        const greetings = upTo(20).map((id) => Synapse.call(Schema.String, { id }, { method: "greet" }))
        assert.deepStrictEqual(
          yield* Effect.all(greetings, { concurrency: "unbounded" }),
          upTo(20).map((id) => `Hello user ${id}`)
        )
        const names = yield* Synapse.call(Schema.Array(Schema.String), {}, { method: "all_names" })
        assert.deepStrictEqual(names, upTo(200).map(String))
      })
      yield* Effect.provide(program, Synapse.connect({ port: server.port, hostFunctions }))
    })
  )

  it.live("keeps what two clients have apart, and what one leaves behind it lets go of", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(Synapse.connect({ port: server.port }), scope)
      const first = Context.get(context, Synapse.Synapse)
      const program = Effect.gen(function* () {
        const held = yield* Scope.provide(first.acquire({ name: "first" }, { method: "open_session" }), scope)
        const session = yield* Synapse.acquire({ name: "second" }, { method: "open_session" })
        assert.strictEqual(yield* held.call(Schema.Int, { by: 2 }, { method: "add" }), 2)
        assert.strictEqual(yield* session.call(Schema.Int, { by: 5 }, { method: "add" }), 5)
        const call = yield* Effect.forkChild(
          Effect.exit(first.call(Schema.Any, { name: "left" }, { method: "forever" })),
          { startImmediately: true }
        )
        yield* seenEventually("begun left")
        yield* Scope.close(scope, Exit.void)
        yield* Fiber.join(call)
        yield* seenEventually("ended left")
        yield* seenEventually("closed first")
        // The server goes on, and so does what the other one has.
        assert.strictEqual(yield* session.get(Schema.Int, "count"), 5)
      }).pipe(Effect.scoped)
      yield* Effect.provide(program, Synapse.connect({ port: server.port }))
    })
  )

  it.live("serves a typed client of a group", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const group = RpcGroup.make(
        Rpc.make("add", { payload: { a: Schema.Int, b: Schema.Int }, success: Schema.Int }),
        Rpc.make("numbers", { payload: { n: Schema.Int }, success: Schema.Int, stream: true })
      )
      const program = Effect.gen(function* () {
        const python = yield* SynapseRpc.client(group)
        assert.strictEqual(yield* python.add({ a: 1, b: 2 }), 3)
        assert.deepStrictEqual(yield* Stream.runCollect(python.numbers({ n: 10 })), upTo(10))
      })
      yield* Effect.scoped(program).pipe(Effect.provide(Synapse.connect({ port: server.port })))
    })
  )

  it.live("refuses what is too large, and that call alone", () =>
    Effect.gen(function* () {
      const server = yield* serve({ options: "max_frame_size=100_000" })
      const program = Effect.gen(function* () {
        const large = Synapse.call(Schema.Any, { data: new Uint8Array(200_000) })
        assert.strictEqual((yield* reasonOf(large, "FrameTooLarge")).limit, 100_000)
        const answer = Synapse.call(Schema.Any, { size: 200_000 }, { method: "make" })
        assert.strictEqual((yield* reasonOf(answer, "FrameTooLarge")).limit, 100_000)
        assert.strictEqual(yield* pid, server.pid)
      })
      yield* Effect.provide(program, Synapse.connect({ port: server.port }))
    })
  )
})

describe("a connection that is lost", () => {
  it.live("is made anew, and open calls fail or are sent again", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const program = Effect.gen(function* () {
        const open = yield* Effect.forkChild(
          Effect.flip(Synapse.call(Schema.Any, { name: "open" }, { method: "forever" })),
          { startImmediately: true }
        )
        const again = yield* Effect.forkChild(
          Synapse.call(Schema.Any, { name: "again" }, { method: "forever", idempotent: true, timeout: "30 seconds" }),
          { startImmediately: true }
        )
        yield* seenEventually("begun open")
        yield* seenEventually("begun again")
        yield* server.stop()
        const { reason } = yield* Fiber.join(open)
        assert.instanceOf(reason, SynapseError.WorkerExited)
        assert.deepStrictEqual([reason.kind, reason.address], ["disconnected", `127.0.0.1:${server.port}`])
        assert.include(reason.message, `The connection to the server 127.0.0.1:${server.port} was lost`)
        // Calls wait for the server to come back.
        const waiting = yield* Effect.forkChild(pid, { startImmediately: true })
        const next = yield* serve({ port: server.port })
        assert.strictEqual(yield* Fiber.join(waiting), next.pid)
        yield* seenEventually("begun again")
        yield* Fiber.interrupt(again)
        assert.isAtLeast((yield* Synapse.status).restarts, 1)
      })
      yield* Effect.provide(program, Synapse.connect({ namespace: "test.connect" }))
    })
  )

  it.live("fails the calls when the server does not come back within the budget", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const restart = { max: 2, backoff: "1 millis" } as const
      const program = Effect.gen(function* () {
        assert.strictEqual(yield* pid, server.pid)
        yield* server.stop()
        const { exits } = yield* reasonOf(Effect.forever(pid), "RestartLimit")
        assert.match(String(exits.at(-1)), /ECONNREFUSED/)
      })
      yield* Effect.provide(program, Synapse.connect({ port: server.port, token: server.token!, restart }))
    })
  )

  it.live("finishes what it has when the server says that it leaves", () =>
    Effect.gen(function* () {
      const server = yield* serve({ options: "grace=10" })
      const program = Effect.gen(function* () {
        const call = yield* Effect.forkChild(Synapse.call(Schema.Void, { seconds: 0.5 }, { method: "busy" }), {
          startImmediately: true
        })
        yield* Effect.sleep("100 millis")
        yield* server.stop("SIGTERM")
        yield* Fiber.join(call)
      })
      yield* Effect.provide(program, Synapse.connect({ port: server.port }))
    })
  )

  it.live("is noticed by its silence", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const heartbeat = { interval: "100 millis", misses: 2 } as const
      const program = Effect.gen(function* () {
        yield* Synapse.call(Schema.Void, { seconds: 0.6 }, { method: "busy" })
        server.process.kill("SIGSTOP")
        const call = Synapse.call(Schema.Any, { name: "silent" }, { method: "forever" })
        const reason = yield* reasonOf(call, "Unresponsive")
        assert.strictEqual(reason.pid, server.pid)
      })
      yield* Effect.provide(program, Synapse.connect({ port: server.port, heartbeat }))
    })
  )
})

describe("the token", () => {
  it.live("is asked for before anything else", () =>
    Effect.gen(function* () {
      const server = yield* serve({ options: "token='secret'" })
      const { port } = server
      assert.strictEqual(yield* Effect.provide(pid, Synapse.connect({ port, token: "secret" })), server.pid)
      const redacted = Redacted.make("secret")
      assert.strictEqual(yield* Effect.provide(pid, Synapse.connect({ port, token: redacted })), server.pid)
      const wrong = yield* failed({ port, token: "other" })
      assert.deepStrictEqual([wrong.kind, wrong.detail], ["token", `127.0.0.1:${port} refused the token`])
      const none = yield* failed({ port, token: false })
      assert.deepStrictEqual([none.kind, none.detail.includes("asks for a token")], ["token", true])
    })
  )

  it.live("is not for servers that ask for none", () =>
    Effect.gen(function* () {
      const server = yield* serve({ options: "token=False" })
      assert.strictEqual(yield* Effect.provide(pid, Synapse.connect({ port: server.port })), server.pid)
      const given = yield* failed({ port: server.port, token: "secret" })
      assert.strictEqual(given.kind, "token")
    })
  )
})

describe("where no server is", () => {
  it.live("the layer says why", () =>
    Effect.gen(function* () {
      const refusing = yield* failed({ port: 1 })
      assert.strictEqual(refusing.kind, "connect")
      assert.match(refusing.detail, /Cannot connect to 127\.0\.0\.1:1: .*ECONNREFUSED/)
      const nobody = yield* failed({ namespace: "nobody.here" })
      assert.match(nobody.detail, /No server of the namespace "nobody\.here" runs on this machine/)
      const web = yield* node(() => Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\nand more than forty bytes"))
      assert.match((yield* failed({ port: web.port })).detail, /is no Synapse server/)
      const silent = yield* node(() => undefined)
      const slow = yield* failed({ port: silent.port, connectTimeout: "100 millis" })
      assert.match(slow.detail, /did not answer within 100ms/)
      const closing = yield* node(() => new Uint8Array(0))
      assert.match((yield* failed({ port: closing.port })).detail, /closed the connection before it said hello/)
    })
  )

  it.live("options that cannot be are refused by name", () =>
    Effect.gen(function* () {
      const wrong: ReadonlyArray<readonly [Synapse.ConnectOptions, string]> = [
        [{ port: 0 }, "`port`"],
        [{ host: " " }, "`host`"],
        [{ namespace: "" }, "`namespace`"],
        [{ namespace: "a", seeds: ["b"] }, "leave the others out"],
        [{ seeds: [] }, "`seeds` has no address"],
        [{ seeds: ["a:b"] }, "`seeds` has"],
        [{ token: "" }, "`token` is empty"],
        [{ protocol: "http" as never }, "`protocol`"],
        [{ protocol: "p2p", tls: true }, "know no TLS"],
        [{ connectTimeout: 0 }, "`connectTimeout`"],
        [{ connections: 0 }, "`workers`"],
        [{ maxFrameSize: 1 }, "`maxFrameSize`"]
      ]
      for (const [options, said] of wrong) {
        const reason = yield* failed(options)
        assert.strictEqual(reason.kind, "options")
        assert.include(reason.detail, said)
      }
    })
  )

  it.live("the next seed is tried", () =>
    Effect.gen(function* () {
      const server = yield* serve()
      const seeds = ["127.0.0.1:1", `127.0.0.1:${server.port}`]
      assert.strictEqual(yield* Effect.provide(pid, Synapse.connect({ seeds })), server.pid)
      const none = yield* failed({ seeds: ["127.0.0.1:1", "127.0.0.1:2"] })
      assert.include(none.detail, "127.0.0.1:1:")
    })
  )

  it.live("connections are spread over the servers of a namespace", () =>
    Effect.gen(function* () {
      const one = yield* serve({ namespace: "both" })
      const other = yield* serve({ namespace: "both" })
      const program = Effect.gen(function* () {
        const { workers } = yield* Synapse.status
        assert.sameMembers(
          workers.map(({ pid }) => pid),
          [one.pid, other.pid]
        )
      })
      yield* Effect.provide(program, Synapse.connect({ namespace: "both", connections: 2 }))
    })
  )
})

describe.skipIf(certificates === undefined)("TLS", () => {
  const read = (name: string): string => certificates!.read(name)

  it.live("is for clients that trust the server", () =>
    Effect.gen(function* () {
      const server = yield* serve({ options: "tls=synapse.TLS(certificate='server.pem', key='server.key')" })
      const { port, token } = server
      const tls = { ca: read("ca.pem") }
      const trusting = Synapse.connect({ port, tls })
      assert.strictEqual(yield* Effect.provide(pid, trusting), server.pid)
      assert.match((yield* failed({ port, tls: true })).detail, /self-signed|unable to/)
      const named = yield* failed({ port, tls: { ...tls, serverName: "example.org" } })
      assert.match(named.detail, /does not match certificate/)
      assert.match((yield* failed({ port, token: token! })).detail, /it wants TLS/)
      assert.match((yield* failed({ namespace: "test.connect" })).detail, /speaks TLS: give the option `tls`/)
    })
  )

  it.live("is mutual where the server asks for it", () =>
    Effect.gen(function* () {
      const options = "tls=synapse.TLS(certificate='server.pem', key='server.key', ca='ca.pem')"
      const server = yield* serve({ options })
      const { port } = server
      const tls = { ca: read("ca.pem"), cert: read("client.pem"), key: Redacted.make(read("client.key")) }
      assert.strictEqual(yield* Effect.provide(pid, Synapse.connect({ port, tls })), server.pid)
      const without = yield* failed({ port, tls: { ca: tls.ca } })
      assert.strictEqual(without.kind, "connect")
      assert.match(without.detail, /certificate/)
    })
  )
})

const sum = Buffer.from("82a8656e64706f696e74a373756da461726773920102", "hex")

const oldNode = node((data) => {
  const request = Envelope.decodePayload(data) as { endpoint: string; args: Array<number> }
  switch (request.endpoint) {
    case "sum":
      return Buffer.from(`Result: ${request.args.reduce((a, b) => a + b, 0)}`)
    case "fails":
      return new Uint8Array(0)
    case "waits":
      return undefined
    default:
      return Buffer.from("400")
  }
})

describe("a node of synapse-p2p 0.0.x", () => {
  const at = (port: number) => Synapse.connect({ port, protocol: "p2p-0" })
  const call = (method: string, input: unknown) => Synapse.call(Schema.String, input, { method })

  it.live("p2p 4a 1: its endpoints are called, and the text of their result is the answer", () =>
    Effect.gen(function* () {
      const { port, requests } = yield* oldNode
      const program = Effect.gen(function* () {
        assert.strictEqual(yield* call("sum", [1, 2]), "Result: 3")
        assert.deepStrictEqual(requests.at(-1), sum)
        const many = yield* Effect.all(
          upTo(20).map((n) => call("sum", [n, 1])),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(
          many,
          upTo(20).map((n) => `Result: ${n + 1}`)
        )
        assert.strictEqual(yield* call("sum", 7), "Result: 7")
        assert.strictEqual(yield* call("sum", {}), "Result: 0")
      })
      yield* Effect.provide(program, at(port))
    })
  )

  it.live("p2p 4a 2: an endpoint that it does not have is not found", () =>
    Effect.gen(function* () {
      const { port } = yield* oldNode
      yield* Effect.provide(reasonOf(call("nope", []), "MethodNotFound"), at(port))
    })
  )

  it.live(
    "p2p 4a 3: a connection that closes without a word is a failure, and what it would not read is not sent",
    () =>
      Effect.gen(function* () {
        const { port, requests } = yield* oldNode
        const program = Effect.gen(function* () {
          const failed = yield* reasonOf(call("fails", []), "PythonException")
          assert.deepStrictEqual(
            [failed.type, failed.exception.message.includes("without an answer")],
            ["NoAnswer", true]
          )
          assert.strictEqual((yield* reasonOf(call("sum", ["x".repeat(5000)]), "FrameTooLarge")).limit, 4096)
          const named = yield* reasonOf(call("sum", { a: 1 }), "DecodeFailed")
          assert.include(named.issue, "pass a list")
          yield* reasonOf(Stream.runDrain(Synapse.stream(Schema.Any, [], { method: "sum" })), "Unsupported")
          assert.lengthOf(requests, 1)
        })
        yield* Effect.provide(program, at(port))
      })
  )

  it.live("p2p 4a 3: a call that is given up closes its connection", () =>
    Effect.gen(function* () {
      const { closed, port, requests } = yield* oldNode
      const program = Effect.gen(function* () {
        const call_ = yield* Effect.forkChild(call("waits", []), { startImmediately: true })
        yield* until(() => requests.length === 1)
        const before = closed.count
        yield* Fiber.interrupt(call_)
        yield* until(() => closed.count === before + 1)
        yield* reasonOf(Synapse.call(Schema.Any, [], { method: "waits", timeout: Duration.millis(50) }), "CallTimeout")
      })
      yield* Effect.provide(program, at(port))
    })
  )
})

const until = (holds: () => boolean) =>
  Effect.suspend(() => (holds() ? Effect.void : Effect.sleep("5 millis"))).pipe(Effect.repeat({ until: holds }))

const framed = (payload: Uint8Array): Buffer => {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(payload.length)
  return Buffer.concat([length, payload])
}

interface Today {
  readonly id: string
  readonly endpoint: string
  readonly args: Array<number>
  readonly kwargs: Record<string, unknown>
}

const todaysNode = node((data) => {
  const request = Envelope.decodePayload(data.subarray(4)) as Today
  const answer = (fields: object) =>
    framed(encodeValue({ id: request.id, ok: true, result: null, error: null, type: "response", ...fields }))
  const error = (code: string, message: string) => answer({ ok: false, error: { code, message } })
  switch (request.endpoint) {
    case "sum":
      return answer({ result: request.args.reduce((a, b) => a + b, 0) })
    case "kwargs":
      return answer({ result: request.kwargs })
    case "fails":
      return error("internal_error", "no luck")
    case "fields":
      return error("bad_request", "unknown request fields: ['zz']")
    case "large":
      return error("bad_request", "frame too large: 5242880 > 4194304")
    case "short":
      return answer({}).subarray(0, 20)
    case "garbage":
      return framed(Buffer.of(0xc1))
    case "other":
      return answer({ id: "other" })
    case "request":
      return answer({ type: "request" })
    case "closes":
      return new Uint8Array(0)
    default:
      return error("bad_request", `Unregistered endpoint called: ${request.endpoint}`)
  }
})

describe("a node of today's synapse-p2p", () => {
  const at = (port: number) => Synapse.connect({ port, protocol: "p2p" })
  const call = (method: string, input: unknown = []) => Synapse.call(Schema.Any, input, { method })

  it.live("p2p 4b 7: frames as they are today, and failures by their codes", () =>
    Effect.gen(function* () {
      const { port, requests } = yield* todaysNode
      const program = Effect.gen(function* () {
        assert.strictEqual(yield* call("sum", [1, 2]), 3)
        assert.deepStrictEqual(
          requests.at(-1)?.toString("hex"),
          "0000003085a474797065a772657175657374a26964a131a8656e64706f696e74a373756da461726773920102a66b776172677380"
        )
        assert.deepStrictEqual(yield* call("kwargs", { a: [1], b: null }), { a: [1], b: null })
        yield* reasonOf(call("nope"), "MethodNotFound")
        const raised = yield* reasonOf(call("fails"), "PythonException")
        assert.deepStrictEqual([raised.type, raised.exception.message], ["internal_error", "no luck"])
        assert.include((yield* reasonOf(call("fields"), "Unsupported")).detail, "unknown request fields: ['zz']")
        const large = yield* reasonOf(call("large"), "FrameTooLarge")
        assert.deepStrictEqual([large.size, large.limit], [5_242_880, 4_194_304])
        assert.strictEqual(yield* call("sum", [1]), 1)
      })
      yield* Effect.provide(program, at(port))
    })
  )

  it.live("p2p 4b 8: what is no answer is a typed failure, and so is a node that is gone", () =>
    Effect.gen(function* () {
      const { port } = yield* todaysNode
      const program = Effect.gen(function* () {
        for (const method of ["short", "other", "request", "closes"]) {
          assert.strictEqual((yield* reasonOf(call(method), "PythonException")).type, "BadAnswer")
        }
        yield* reasonOf(call("garbage"), "EncodeFailed")
        yield* reasonOf(call("sum", ["x".repeat(5_000_000)]), "FrameTooLarge")
        assert.strictEqual(yield* call("sum", [1]), 1)
      })
      yield* Effect.provide(program, at(port))
      // Nobody accepts there.
      const closed = yield* Effect.scoped(Effect.map(todaysNode, ({ port }) => port))
      assert.match((yield* failed({ port: closed, protocol: "p2p" })).detail, /Cannot connect/)
      const open = yield* Scope.make()
      const leaving = yield* Scope.provide(todaysNode, open)
      const calls = Effect.gen(function* () {
        assert.strictEqual(yield* call("sum", [1]), 1)
        yield* Scope.close(open, Exit.void)
        const reason = yield* reasonOf(call("sum", [1]), "WorkerExited")
        assert.strictEqual(reason.kind, "disconnected")
      })
      yield* Effect.provide(calls, at(leaving.port))
    })
  )

  it.live("a server of ours answers it, and the one before", () =>
    Effect.gen(function* () {
      const { port } = yield* serve({ options: "protocols=('synapse', 'p2p', 'p2p-0')" })
      const add = Synapse.call(Schema.Int, [1, 2], { method: "add" })
      assert.strictEqual(yield* Effect.provide(add, at(port)), 3)
      const who = Synapse.call(Schema.String, [], { method: "who" })
      assert.strictEqual(yield* Effect.provide(who, Synapse.connect({ port, protocol: "p2p-0" })), "127.0.0.1")
    })
  )
})
