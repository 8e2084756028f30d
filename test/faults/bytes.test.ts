/** Workers that break the protocol, and values that are meant to break this side. */
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import * as Socket from "effect/socket/Socket"
import { HostFunctions, Synapse } from "effect-synapse"
import * as Envelope from "../../src/Envelope.ts"
import * as PythonProcess from "../../src/PythonProcess.ts"
import type { SynapseError } from "../../src/SynapseError.ts"
import { connect, payloadOf } from "../fixtures/connection.ts"
import { reasonOf, upTo } from "../fixtures/dialogue.ts"
import { isAlive } from "../fixtures/processes.ts"
import { call, pid, type RowOptions, row, type World } from "./aftermath.ts"

const raw = (fault: string) => ({ entrypoint: "raw", env: { FAULT: fault } })

/** Node may compute for so long at a time: much less than what dealing with a flood at once would take. */
const maxTurnMillis = 1000

/** Measures for how long Node computed without looking up, other programs not included, and how much memory it took at most. */
const watched = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      let turnMillis = 0
      let turn = { at: performance.now(), cpu: process.cpuUsage() }
      const before = process.memoryUsage.rss()
      let peak = before
      const timer = setInterval(() => {
        peak = Math.max(peak, process.memoryUsage.rss())
        const { system, user } = process.cpuUsage(turn.cpu)
        turnMillis = Math.max(turnMillis, Math.min(performance.now() - turn.at, (user + system) / 1000))
        turn = { at: performance.now(), cpu: process.cpuUsage() }
      }, 5)
      return {
        end: () => {
          clearInterval(timer)
          return { turnMillis, grownMiB: (peak - before) / 2 ** 20 }
        }
      }
    }),
    () => effect,
    ({ end }) =>
      Effect.sync(() => {
        const { grownMiB, turnMillis } = end()
        assert.isBelow(turnMillis, maxTurnMillis, "milliseconds in which Node did nothing else")
        assert.isBelow(grownMiB, 250, "MiB that Node took meanwhile")
      })
  )

/** A worker that breaks the protocol is ended, and says why. */
const broken = (name: string, why: RegExp, options: RowOptions = { quick: true }) =>
  row(name, options, ({ run }) =>
    run(
      raw(name),
      Effect.gen(function* () {
        const before = yield* pid
        const reason = yield* watched(reasonOf(call("fault"), "ProtocolError"))
        assert.match(reason.detail, why)
        assert.strictEqual(reason.delivery, "unknown")
        yield* pid
        assert.isFalse(isAlive(before))
      })
    )
  )

describe("bytes that are no frames end the worker", () => {
  broken("garbage-frame", /0xc1, which begins no value/)
  broken("http", /length \d+, not one from 8/, {})
  broken("huge-length", /length 4294967295/, {})
  broken("zero-length", /length 0/)
  broken("trailing-control", /Log|trailing/i, {})
  broken("over-credit", /one value was asked/, {})
  broken("memory-cut", /references to shared memory that are not whole/)

  row("print-on-fd3", { quick: true }, ({ run }) =>
    run(
      {},
      Effect.gen(function* () {
        const before = yield* pid
        const reason = yield* reasonOf(call("die", { how: "print-on-channel" }), "ProtocolError")
        assert.include(reason.detail, "file descriptor 3")
        yield* pid
        assert.isFalse(isAlive(before))
      })
    )
  )
})

describe("a value that cannot be had fails its own call", () => {
  for (const [name, issue] of [
    ["trailing", /follow/],
    ["nesting", /128|deep|nest/i],
    ["array32", /./],
    ["empty-maps", /./],
    ["memory-lies", /more than the 1073741824 of its capacity/],
    ["memory-shrinks", /536870912 bytes of shared memory cannot be read/]
  ] as const) {
    row(name, { quick: true, memoryMiB: name === "empty-maps" ? 150 : 20 }, ({ run }) =>
      run(
        raw(name),
        Effect.gen(function* () {
          const before = yield* pid
          assert.match((yield* watched(reasonOf(call("fault"), "DecodeFailed"))).issue, issue)
          assert.strictEqual(yield* pid, before)
        })
      )
    )
  }

  row("proto-key", { quick: true }, ({ run }) =>
    run(
      {},
      Effect.gen(function* () {
        const value = (yield* call("give", { what: "proto" })) as Record<string, unknown>
        assert.deepStrictEqual(Object.keys(value), ["__proto__", "constructor"])
        assert.strictEqual(Object.getPrototypeOf(value), Object.prototype)
        assert.deepStrictEqual(Object.getOwnPropertyDescriptor(value, "__proto__")?.value, { polluted: true })
        assert.notProperty({}, "polluted")
        assert.notProperty(Object, "polluted")
        // And back again.
        assert.deepStrictEqual(Object.keys((yield* call("echo", value)) as object), Object.keys(value))
      })
    )
  )
})

describe("an answer", () => {
  row("slow-drip", {}, ({ run }) =>
    run(
      raw("slow-drip"),
      Effect.gen(function* () {
        const before = yield* pid
        const reason = yield* reasonOf(call("fault", {}, { timeout: 200 }), "CallTimeout")
        assert.isTrue(reason.running)
        // The rest of it is for nobody.
        assert.strictEqual(yield* pid, before)
      })
    )
  )

  for (const name of ["late-reply", "duplicate-reply"]) {
    row(name, { quick: true }, ({ run }) =>
      run(
        raw(name),
        Effect.gen(function* () {
          const before = yield* pid
          if (name === "late-reply") yield* reasonOf(call("fault", {}, { timeout: 50 }), "CallTimeout")
          else assert.strictEqual(yield* call("fault"), "first")
          assert.strictEqual(yield* pid, before)
        })
      )
    )
  }
})

describe("a flood", () => {
  for (const name of ["pong-flood", "unknown-flood", "log-flood"]) {
    row(name, { quick: name === "pong-flood", memoryMiB: 60 }, ({ run }) =>
      run(
        { ...raw(name), logs: () => Effect.void },
        Effect.gen(function* () {
          const before = yield* pid
          assert.strictEqual(yield* watched(call("fault")), "done")
          assert.strictEqual(yield* pid, before)
        })
      )
    )
  }

  row("callback-flood", { memoryMiB: 60 }, ({ run }) =>
    Effect.gen(function* () {
      const never = yield* Deferred.make<never>()
      let most = 0
      let open = 0
      const host = HostFunctions.make(RpcGroup.make(Rpc.make("slow", { success: Schema.Void })), {
        slow: () => {
          most = Math.max(most, ++open)
          return Effect.ensuring(
            Deferred.await(never),
            Effect.sync(() => open--)
          )
        }
      })
      yield* run(
        { ...raw("callback-flood"), host },
        Effect.gen(function* () {
          const before = yield* pid
          const reason = yield* watched(reasonOf(call("fault"), "ProtocolError"))
          assert.include(reason.detail, "does not read the answers")
          yield* pid
          assert.isFalse(isAlive(before))
        })
      )
      assert.isAtMost(most, 1024)
      assert.strictEqual(open, 0)
    })
  )
})

describe("a worker that stops reading", () => {
  row("never-reads", { memoryMiB: 100 }, ({ run }) =>
    run(
      { ...raw("never-reads"), heartbeat: { interval: "500 millis", misses: 2 } },
      Effect.gen(function* () {
        const before = yield* pid
        const stuck = yield* Effect.forkChild(reasonOf(call("fault"), "Unresponsive"), {
          startImmediately: true
        })
        const large = new Uint8Array(4 * 2 ** 20)
        const ends = yield* Effect.forEach(upTo(8), () => Effect.result(call("echo", large)), {
          concurrency: "unbounded"
        })
        const reason = yield* Fiber.join(stuck)
        assert.deepStrictEqual([reason.pid, reason.state], [before, "blocked"])
        // What was not written yet goes to the next worker.
        for (const end of ends) if (end._tag === "Failure") assert.strictEqual(end.failure.reason._tag, "Unresponsive")
        assert.isTrue(ends.some(({ _tag }) => _tag === "Failure"))
        yield* pid
        assert.isFalse(isAlive(before))
      })
    )
  )
})

/** Gives pieces of at most `size` bytes of each chunk, the first of them of `first`. */
const pieces = (chunk: Uint8Array, first: number, size: number): ReadonlyArray<Uint8Array> => {
  const parts: Array<Uint8Array> = []
  let at = 0
  for (let next = first; at < chunk.length; next = size) {
    parts.push(chunk.subarray(at, at + next))
    at += next
  }
  return parts
}

/** A socket that takes every chunk apart, in both directions. */
const inPieces = (socket: Socket.Socket, first: number, size: number): Socket.Socket =>
  Socket.make({
    reader: Effect.map(socket.reader, (reader) => ({
      ...reader,
      pull: Effect.map(
        reader.pull,
        (chunks) => chunks.flatMap((chunk) => pieces(chunk as Uint8Array, first, size)) as [Uint8Array]
      )
    })),
    writer: Effect.map(socket.writer, ({ write }) => {
      const writeOne = (chunk: Uint8Array | string | Socket.CloseEvent) =>
        chunk instanceof Uint8Array
          ? Effect.forEach(pieces(chunk, first, size), write, { discard: true })
          : write(chunk)
      return { write: writeOne, writeAll: (chunks) => Effect.forEach(chunks, writeOne, { discard: true }) }
    })
  })

const start = ({ directory, env }: ReturnType<World["options"]>, python: string) =>
  PythonProcess.make({
    python,
    directory,
    entrypoint: "main",
    env: { PATH: process.env.PATH!, ...(env as Record<string, string>) },
    onLine: () => {}
  })

const inSplit = (
  options: ReturnType<World["options"]>,
  python: string,
  split: (socket: Socket.Socket) => Socket.Socket,
  input: unknown
) =>
  Effect.gen(function* () {
    const worker = yield* start(options, python)
    const connection = yield* connect({ socket: split(worker.socket) }, { graceMillis: 500 })
    for (const method of ["echo", "echo_async"]) {
      const frame = yield* connection.call({ method, payload: input })
      assert.strictEqual(frame.kind, Envelope.Kind.Success)
      assert.deepStrictEqual(payloadOf(frame), input)
    }
    assert.strictEqual(payloadOf(yield* connection.call({ method: "pid", payload: {} })), worker.pid)
    assert.deepStrictEqual(connection.stats(), { calls: 0, streams: 0, hostCalls: 0, handles: 0 })
  }).pipe(Effect.scoped)

const pythonOf = Effect.map(Synapse.Synapse, ({ environment }) => environment.python)

describe("frames may arrive in any pieces", () => {
  const input = { text: "naïve 🐍".repeat(20), numbers: upTo(100), bytes: new Uint8Array(300) }

  row("byte-by-byte", { quick: true }, ({ options, run }) =>
    Effect.flatMap(run({}, pythonOf), (python) => inSplit(options(), python, (socket) => inPieces(socket, 1, 1), input))
  )

  row("split at each offset", {}, ({ options, run }) =>
    Effect.flatMap(run({}, pythonOf), (python) =>
      Effect.forEach(upTo(40), (n) =>
        inSplit(options(), python, (socket) => inPieces(socket, n + 1, Number.MAX_SAFE_INTEGER), input)
      )
    )
  )
})

describe("a worker that gets", () => {
  // The host's frames, with bytes changed: the runtime leaves, or goes on, and does nothing else.
  row("mutated client frames", { timeoutMillis: 300_000 }, ({ options, run }) =>
    Effect.gen(function* () {
      const python = yield* run({}, pythonOf)
      const writer = Envelope.makeWriter()
      let seed = 20_260_101
      const below = (n: number): number => {
        seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff
        return seed % n
      }
      const session = (n: number): Uint8Array => {
        writer.frame(Envelope.Kind.Welcome, 0, {
          protocol: 1,
          maxFrameSize: 1 << 20,
          concurrency: 1 + (n % 2),
          maxOpenCalls: 16,
          evaluate: false
        })
        for (const method of ["echo", "add", "echo_async", "count"]) {
          writer.frame(
            Envelope.Kind.Request,
            1 + below(5),
            { payload: upTo(5), a: 1, b: 2 },
            method === "count" ? { method, stream: 2 } : { method, deadline: 1000 }
          )
        }
        writer.frame(Envelope.Kind.Cancel, 1 + below(5))
        writer.frame(Envelope.Kind.Ping, 9)
        writer.frame(Envelope.Kind.Credit, 2, 3)
        writer.frame(Envelope.Kind.Shutdown, 0, 0)
        const bytes = writer.take().slice()
        for (let count = 1 + below(4); count > 0; count--) {
          const at = below(bytes.length)
          if (below(3) === 0) bytes.copyWithin(at, below(bytes.length))
          else bytes[at] = below(256)
        }
        return bytes
      }
      const endOf = (bytes: Uint8Array) =>
        Effect.gen(function* () {
          const worker = yield* start(options(), python)
          const { write } = yield* worker.socket.writer
          const { pull } = yield* worker.socket.reader
          yield* Effect.ignore(write(bytes))
          return yield* Effect.timeoutOption(Effect.flip(Effect.forever(pull)), "2 seconds")
        }).pipe(Effect.scoped)
      let left = 0
      for (const n of upTo(40)) {
        const end = yield* endOf(session(n))
        // It waits for more, as after a length that was made larger.
        if (Option.isNone(end)) continue
        left++
        assert(end.value.reason._tag === "SocketReadError")
        const { reason } = end.value.reason.cause as SynapseError
        assert(reason._tag === "WorkerExited")
        assert.isNull(reason.signal, `session ${n}`)
        assert.include([0, 75, 76], reason.exitCode, `session ${n}`)
      }
      assert.isAtLeast(left, 10)
    })
  )
})
