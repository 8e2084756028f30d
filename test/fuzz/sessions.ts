/**
 * Sessions of a worker that nobody should trust, and what must hold of the host whatever such a worker sends: each call and
 * stream ends once, with a value or a typed error, nothing is open afterwards, and the answers owed are in proportion.
 */
import { ftruncateSync } from "node:fs"
import { setImmediate } from "node:timers/promises"
import { Cause, Effect, Exit, Fiber, Schema, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import * as Connection from "../../src/Connection.ts"
import * as Envelope from "../../src/Envelope.ts"
import * as HostFunctions from "../../src/HostFunctions.ts"
import { type Calls, makeCall } from "../../src/internal/call.ts"
import { closed } from "../../src/internal/connectionEnd.ts"
import { useOf } from "../../src/internal/dispatcher.ts"
import * as Serving from "../../src/internal/serving.ts"
import { SharedMemory } from "../../src/internal/sharedMemory.ts"
import { makeStream } from "../../src/internal/streaming.ts"
import { makeAcquire } from "../../src/RemoteObject.ts"
import * as Synapse from "../../src/Synapse.ts"
import { isSynapseError, type SynapseError } from "../../src/SynapseError.ts"
import * as FakeWorker from "../fixtures/FakeWorker.ts"
import { checkPrototypes } from "./codec.ts"
import type { Random } from "./random.ts"
import { encode, mutated, soup, value } from "./values.ts"

const { Kind } = Envelope

/** How a session ends once all was sent. */
export const endings = ["hangUp", "die", "close"] as const

export interface Session {
  /** What the worker writes, write by write. */
  readonly writes: ReadonlyArray<Uint8Array>
  readonly ending: (typeof endings)[number]
  /** How often the host gets its turn after a write. */
  readonly pauses: ReadonlyArray<number>
}

class NoSuchUser extends Schema.TaggedError<NoSuchUser>()("NoSuchUser", { id: Schema.Int }) {}

const Group = RpcGroup.make(
  Rpc.make("nameOf", { payload: { id: Schema.Int }, success: Schema.String, error: NoSuchUser }),
  Rpc.make("wait", { success: Schema.Void }),
  Rpc.make("defect", { success: Schema.Void }),
  Rpc.make("ids", { success: Schema.Int, stream: true })
)
const hostFunctions = HostFunctions.make(Group, {
  nameOf: ({ id }) => (id < 50 ? Effect.succeed(`user ${id}`) : Effect.fail(new NoSuchUser({ id }))),
  wait: () => Effect.never,
  defect: () => Effect.die(new Error("a fault of the host")),
  ids: () => Stream.rechunk(Stream.range(0, 299), 7)
})

const hello = {
  ...FakeWorker.hello,
  methods: [
    { name: "main", stream: false, async: false },
    { name: "slow", stream: false, async: false, cancel: "replace" },
    { name: "wait", stream: false, async: true },
    { name: "tokens", stream: true, async: true }
  ]
}

const Row = Schema.Struct({ id: Schema.Int, name: Schema.String, at: Schema.optionalKey(Schema.Date) })

/** What the host does meanwhile. Calls get the ids from 1 on, in this order. */
const program = (calls: Calls) => {
  const call = makeCall(calls)
  const stream = makeStream(calls)
  const object = Effect.gen(function* () {
    const held = yield* makeAcquire(calls)({}, { method: "main" })
    yield* held.call(Schema.Unknown, [1], { method: "method" })
    yield* held.get(Schema.Unknown, "attribute")
    return yield* Stream.runCollect(held.stream(Schema.Int, {}, { method: "items" }))
  })
  return [
    call(Schema.Unknown, { a: 1 }),
    Stream.runCollect(stream(Schema.Int, {}, { method: "tokens" })),
    Stream.runCollect(Stream.take(stream(Schema.Unknown, {}, { method: "tokens" }), 3)),
    call(Schema.Unknown, { rows: Stream.range(0, 200) }, { method: "wait" }),
    call(Row, {}, { progress: Synapse.onProgress(Schema.Finite, () => Effect.void) }),
    Effect.scoped(object),
    call(Schema.Array(Row), {}, { method: "wait", parseJson: true }),
    Effect.timeoutOption(call(Schema.Unknown, {}, { method: "wait" }), 1),
    Effect.timeoutOption(call(Schema.Unknown, {}, { method: "slow", onCancel: "replace" }), 1),
    call(Schema.Unknown, {}, { method: "wait", timeout: "2 millis" }),
    call(Schema.Unknown, {}, { method: "nowhere", idempotent: true })
  ] as ReadonlyArray<Effect.Effect<unknown, SynapseError>>
}
const lastCall = 16

const frame = (kind: number, id = 0, payload?: unknown, meta?: object): Buffer => {
  const writer = Envelope.makeWriter()
  writer.frame(kind, id, payload, meta)
  return Buffer.from(writer.take())
}

/** A frame whose meta and payload are these bytes, be they MessagePack or not. */
const rawFrame = (kind: number, id: number, meta: Uint8Array, payload: Uint8Array): Buffer => {
  const header = Buffer.alloc(12)
  header.writeUInt32LE(8 + meta.length + payload.length, 0)
  header.writeUInt8(kind, 4)
  header.writeUInt16LE(Math.min(meta.length, 0xffff), 6)
  header.writeUInt32LE(id >>> 0, 8)
  return Buffer.concat([header, meta, payload])
}

const exception = { type: "ValueError", module: "builtins", message: "no", frames: [] }
const log = {
  level: 20,
  logger: "main",
  message: "a line",
  time: 1.5,
  id: 1,
  file: null,
  line: null,
  exception: null
}

/** Frames of a session in which all is as it should be. */
const valid = (): Array<Buffer> => [
  frame(Kind.Hello, 0, hello),
  frame(Kind.Log, 0, log),
  frame(Kind.Chunk, 2, [0, 1, 2]),
  frame(Kind.Request, 1, { id: 3 }, { method: "nameOf", call: 1 }),
  frame(Kind.Progress, 5, 0.5),
  frame(Kind.Request, 2, null, { method: "ids", stream: 64, call: 2 }),
  frame(Kind.Request, 3, undefined, { source: 1, stream: 64, call: 4 }),
  frame(Kind.Success, 6, { handle: 9, type: "main.Model" }),
  frame(Kind.Chunk, 3, ["a", "b"]),
  frame(Kind.Credit, 2, 40),
  frame(Kind.Success, 1, { mean: 2.5 }),
  frame(Kind.Ping, 7),
  frame(Kind.Chunk, 2, [3]),
  frame(Kind.Credit, 3, 64),
  frame(Kind.Success, 5, { id: 1, name: "Ada", at: new Date(0) }),
  frame(Kind.Success, 7, "[]"),
  frame(Kind.Request, 4, {}, { method: "wait", deadline: 1 }),
  frame(Kind.Success, 12, 1),
  frame(Kind.Chunk, 3, ["c", "d"]),
  frame(Kind.Fail, 4, { _tag: "Refused", message: "no" }),
  frame(Kind.Cancel, 2),
  frame(Kind.Success, 13, 2),
  frame(Kind.Die, 11, { method: "nowhere", nearest: ["main"] }, { reason: "MethodNotFound", delivery: "rejected" }),
  frame(Kind.Request, 5, {}, { method: "defect" }),
  frame(Kind.Interrupted, 8),
  frame(Kind.Chunk, 14, [1, 2, 3]),
  frame(Kind.Success, 14, null),
  frame(Kind.Die, 9, exception),
  frame(Kind.Success, 2, null),
  frame(Kind.GoAway)
]

const kinds = Object.values(Kind)
const ids = [0, 1, 2, 3, 4, 5, 6, 7, 9, 12, lastCall, 0xffffffff]
const reasons = [
  ..."MethodNotFound DecodeFailed EncodeFailed FrameTooLarge Overloaded Unsupported Closed Recalled".split(" "),
  "Nonsense",
  1
]

/** A frame that is well-formed as a frame, and whose contents may be anything. */
const generated = (random: Random): Buffer => {
  const id = random.chance(0.9) ? random.pick(ids) : random.below(2 ** 32)
  switch (random.below(14)) {
    case 0:
      return frame(random.pick(kinds), id)
    case 1:
      return frame(random.pick([Kind.Success, Kind.Fail, Kind.Progress, Kind.Chunk]), id, value(random, 2))
    case 2:
      return frame(
        Kind.Chunk,
        id,
        random.times(1 + random.below(70), (i) => i)
      )
    case 3:
      return frame(Kind.Die, id, random.chance(0.5) ? exception : value(random, 2), {
        reason: random.pick(reasons),
        delivery: random.pick(["rejected", "unknown"])
      })
    case 4:
      return frame(Kind.Request, id, random.chance(0.5) ? { id: random.below(100) } : value(random, 2), {
        method: random.pick(["nameOf", "wait", "ids", "defect", "nope"]),
        call: random.pick(ids),
        ...(random.chance(0.4) ? { stream: random.pick([1, 64, 2 ** 31, 0, -1]) } : {}),
        ...(random.chance(0.2) ? { deadline: random.pick([0, 1, -5, 1e300]) } : {})
      })
    case 5:
      return frame(Kind.Request, id, undefined, {
        source: random.below(3),
        stream: random.pick([1, 64, 2 ** 31]),
        call: 4
      })
    case 6:
      return frame(Kind.Credit, id, random.pick([1, 64, 2 ** 31, 2 ** 53 - 1, 0, -1, 1.5, null]))
    case 7:
      return frame(Kind.Log, id, { ...log, [random.pick(Object.keys(log))]: value(random, 1) })
    case 8:
      return frame(random.pick([Kind.Hello, Kind.Log]), id, value(random, 2))
    case 9:
      return frame(Kind.Success, id, { handle: random.pick([0, 1, 9, -1, 2 ** 32, "x"]), type: "a.B" })
    case 10:
      return rawFrame(random.chance(0.8) ? random.pick(kinds) : random.below(256), id, soup(random, 6), soup(random))
    case 11:
    case 12:
      return referring(random, id)
    default:
      return rawFrame(
        random.pick(kinds),
        id,
        random.chance(0.7) ? Buffer.alloc(0) : encode({ method: "ids", stream: 1 }),
        soup(random)
      )
  }
}

const regions = [0, 1, 2 ** 30, 2 ** 30 + 1, 2 ** 31, 2 ** 32 - 1]
const places = [0n, 1n, 65_535n, 65_536n, 100_000n, 2n ** 32n, 2n ** 53n, 2n ** 60n, 2n ** 64n - 1n]
const dtypes = [0, 1, 2, 11, 99]

/** A frame whose values lie in shared memory, if its references are true. */
const referring = (random: Random, id: number): Buffer => {
  const serial = () => (random.chance(0.8) ? random.below(3) : random.below(2 ** 32))
  const head = () => (random.chance(0.5) ? [] : [random.pick(dtypes), 1, random.below(256), 0, 0, random.below(2)])
  const values = random.times(1 + random.below(4), () => FakeWorker.shared(serial(), head()))
  const payload = Buffer.concat(random.chance(0.6) ? [Buffer.from([0x90 | values.length]), ...values] : values)
  const references = random.times(random.below(4), () => ({
    serial: serial(),
    region: random.pick(regions),
    start: random.pick(places),
    offset: random.pick(places),
    length: random.chance(0.5) ? BigInt(random.below(3000)) : random.pick(places)
  }))
  const kind = random.chance(0.8)
    ? random.pick([Kind.Success, Kind.Fail, Kind.Chunk, Kind.Die, Kind.Request, Kind.Free])
    : random.pick(kinds)
  const meta = kind === Kind.Request ? encode({ method: random.pick(["nameOf", "nope"]), call: 1 }) : undefined
  return FakeWorker.frameWith(kind, id, payload, references, meta)
}

/** Changes some of the frames. The first is mostly left alone: without it there is no session. */
const mutate = (random: Random, frames: Array<Buffer>): void => {
  if (frames.length === 0) return
  const from = random.chance(0.9) ? 1 : 0
  const at = () => from + random.below(Math.max(1, frames.length - from))
  const bytes = (change: (bytes: Buffer) => void) => {
    const i = Math.min(at(), frames.length - 1)
    const copy = Buffer.from(frames[i]!)
    if (copy.length >= 12) change(copy)
    frames[i] = copy
  }
  switch (random.below(11)) {
    case 0:
      frames.splice(at(), 0, frames[at()] ?? frames[0]!)
      return
    case 1:
      frames.splice(at(), 1)
      return
    case 2: {
      const [moved] = frames.splice(at(), 1)
      if (moved !== undefined) frames.splice(at(), 0, moved)
      return
    }
    case 3:
      return bytes((copy) => copy.writeUInt32LE(random.pick(ids), 8))
    case 4:
      return bytes((copy) => copy.writeUInt8(random.chance(0.9) ? random.pick(kinds) : random.below(256), 4))
    case 5:
      return bytes((copy) => {
        const length = copy.readUInt32LE(0)
        const wrong = [length + 1, length - 1, length + 12, 0, 7, 8, 2 ** 24, 2 ** 24 + 1, 2 ** 32 - 1]
        copy.writeUInt32LE(random.pick(wrong) >>> 0, 0)
      })
    case 6:
      return bytes((copy) => copy.writeUInt16LE(random.pick([0, 1, copy.length - 12, copy.length, 0xffff]), 6))
    case 7: {
      const i = Math.min(at(), frames.length - 1)
      const original = frames[i]!
      if (original.length < 12) return
      const body = mutated(random, original.subarray(12))
      const metaSize = Math.min(original.readUInt16LE(6), body.length)
      frames[i] = rawFrame(original[4]!, original.readUInt32LE(8), body.subarray(0, metaSize), body.subarray(metaSize))
      return
    }
    case 8: {
      const i = Math.min(at(), frames.length - 1)
      frames[i] = mutated(random, frames[i]!)
      return
    }
    default:
      frames.splice(at(), 0, generated(random))
  }
}

/** The same bytes in other writes. */
const cut = (random: Random, frames: ReadonlyArray<Buffer>): ReadonlyArray<Buffer> => {
  const style = random.below(6)
  if (style < 3) return frames
  const [first = Buffer.alloc(0), ...others] = frames
  const rest = Buffer.concat(others)
  if (style === 3) return [first, rest]
  const most = style === 4 ? 3 : 200
  const writes = [first]
  for (let at = 0; at < rest.length; ) {
    const to = at + 1 + random.below(most)
    writes.push(rest.subarray(at, to))
    at = to
  }
  return writes
}

/** A session of a seed: a good one with faults, or frames that somebody made up. */
export const session = (random: Random): Session => {
  const frames = random.chance(0.8)
    ? valid()
    : [valid()[0]!, ...random.times(1 + random.below(30), () => generated(random))]
  for (let faults = random.below(8); faults > 0; faults--) mutate(random, frames)
  const writes = cut(random, frames)
  return {
    writes,
    ending: random.pick(endings),
    pauses: random.times(writes.length, () => random.pick([0, 0, 1, 1, 2, 5]))
  }
}

/** The session of a stored case. */
export const replay = (writes: ReadonlyArray<Uint8Array>, ending: Session["ending"]): Session => ({
  writes,
  ending,
  pauses: writes.map(() => 2)
})

/** The sessions that differ from a good one only in where a write ends. */
export const splits = (): ReadonlyArray<Session> => {
  const [first, ...others] = valid()
  const rest = Buffer.concat(others)
  return Array.from({ length: rest.length }, (_, at) =>
    replay([first!, rest.subarray(0, at), rest.subarray(at)], "hangUp")
  )
}

/**
 * Runs the host against a session and fails where a promise is broken. Gives how its calls ended. What is stuck fails after
 * a while, and only then takes so long.
 */
export const run = (session: Session, patienceMillis = 60_000): Promise<ReadonlyArray<string>> =>
  Effect.runPromise(Effect.timeout(Effect.scoped(host(session)), patienceMillis))

const host = Effect.fnUntraced(function* ({ ending, pauses, writes }: Session) {
  const outer = yield* Effect.scope
  const worker = yield* FakeWorker.make
  const served = yield* hostFunctions.serve
  const memory = yield* Effect.acquireRelease(
    Effect.sync(() => SharedMemory.open({ threshold: 1024, capacity: 2 ** 20 }, undefined)!),
    (memory) => Effect.sync(() => memory.close())
  )
  ftruncateSync(memory.descriptors[1]!, 100_000)
  let serving: Serving.Serving | undefined
  let logs = 0
  let malformed: unknown
  let changes = 0
  const connecting = Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* Connection.make(worker.socket, {
        maxFrameSize: Envelope.defaultMaxFrameSize,
        concurrency: 1,
        maxOpenCalls: 32,
        graceMillis: 0,
        cancelGraceMillis: 2,
        evaluate: false,
        memory,
        serve: (post, owner) =>
          Effect.tap(
            Serving.make({ owner, post, host: served, maxOpen: 8, maxFrameSize: Envelope.defaultMaxFrameSize }),
            (made) =>
              Effect.sync(() => {
                serving = made
              })
          ),
        onLog: (log) => {
          logs++
          if (typeof log.message !== "string" || !Number.isInteger(log.level)) malformed = log
        },
        onChange: () => changes++,
        onBusy: () => {}
      })
      const use: Calls["use"] = (method, begin) =>
        connection.isOpen() ? useOf(connection)(method, begin) : Effect.fail(closed)
      const enter: Calls["enter"] = (entry) =>
        connection.isOpen() ? entry.begin(connection, undefined) : entry.fail(closed)
      const calls = yield* Effect.forEach(program({ use, enter, callTimeout: undefined }), (call) =>
        // They outlive the connection.
        Effect.forkIn(Effect.exit(call), outer)
      )
      if (ending === "close") yield* allSent
      else yield* Effect.exit(connection.ended)
      return { connection, calls }
    })
  )

  let sent = false
  const allSent = Effect.promise(async () => {
    while (!sent) await setImmediate()
  })
  const running = yield* Effect.forkChild(Effect.exit(connecting))
  yield* Effect.yieldNow
  for (const [i, write] of writes.entries()) {
    worker.bytes(write)
    for (let n = pauses[i] ?? 0; n > 0; n--) yield* n > 4 ? Effect.promise(() => setImmediate()) : Effect.yieldNow
  }
  yield* Effect.promise(() => setImmediate())
  sent = true
  if (ending === "die") worker.die()
  else worker.hangUp()

  const exit = yield* Fiber.join(running)
  checkPrototypes()
  const size = writes.reduce((bytes, write) => bytes + write.length, 0)
  // Headers alone take twelve bytes; each may ask for a stream of forty-three chunks.
  if (malformed !== undefined) throw new Error("a log record that is none", { cause: malformed })
  if (logs > size / 12) throw new Error(`${logs} log records of ${size} bytes`)
  if (worker.received() > 100 + (size / 12) * 50) throw new Error(`${worker.received()} frames for ${size} bytes`)
  if (changes > 200 + size) throw new Error(`${changes} changes for ${size} bytes`)
  if (serving !== undefined && serving.open() + serving.openSources() > 0) {
    throw new Error(`${serving.open()} requests and ${serving.openSources()} sources are open`)
  }
  if (Exit.isFailure(exit)) return [outcomeOf(exit)]
  const { calls, connection } = exit.value
  const outcomes: Array<string> = []
  for (const call of calls) outcomes.push(outcomeOf(yield* Fiber.join(call)))
  const open = Object.values(connection.stats()).reduce((sum, n) => sum + n, 0)
  if (open > 0 || connection.load() > 0) throw new Error(`open afterwards: ${JSON.stringify(connection.stats())}`)
  return outcomes
})

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "value"
  const error = Cause.findErrorOption(exit.cause)
  if (error._tag === "Some" && isSynapseError(error.value)) {
    if (typeof error.value.message !== "string") throw new Error("an error without a message")
    return error.value.reason._tag
  }
  throw new Error(`not a typed end: ${Cause.pretty(exit.cause)}`)
}
