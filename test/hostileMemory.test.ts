/** Workers that say of shared memory what is not so, and frames that nobody takes. */
import * as Fs from "node:fs"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import type * as Connection from "../src/Connection.ts"
import * as Envelope from "../src/Envelope.ts"
import { answerOf } from "../src/internal/answer.ts"
import * as Serving from "../src/internal/serving.ts"
import { type Settings, SharedMemory } from "../src/internal/sharedMemory.ts"
import { connect, setup } from "./fixtures/connection.ts"
import { reasonOf, upTo } from "./fixtures/dialogue.ts"
import * as FakeWorker from "./fixtures/FakeWorker.ts"
import { eventually } from "./fixtures/processes.ts"

const { frameWith, shared } = FakeWorker
const { Kind } = Envelope
const MiB = 1024 * 1024

setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

const afterTurn = Effect.callback<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

/** The first region of the file of the worker's, of the host's, and of that which all have. */
const [hosts, workers, common] = [0, 2 ** 30, 2 ** 31]

const open = (settings: Partial<Settings> = {}) =>
  Effect.acquireRelease(
    Effect.sync(() => SharedMemory.open({ threshold: 1024, capacity: MiB, ...settings }, undefined)!),
    (memory) => Effect.sync(() => memory.close())
  )

const start = Effect.fnUntraced(function* (
  options: Partial<Connection.Options> = {},
  settings: Partial<Settings> = {}
) {
  const memory = yield* open(settings)
  const { connection, worker } = yield* setup({ memory, ...options })
  const file = memory.descriptors[1]!
  Fs.ftruncateSync(file, 65_536)
  const ask = Effect.flatMap(
    connection.call({ method: "main", payload: null }),
    answerOf(Schema.Unknown, "main", false)
  )
  /** The end of the next call, which the worker answers with these bytes. */
  const answer = Effect.fnUntraced(function* (bytes: (id: number) => Uint8Array) {
    const call = yield* Effect.forkChild(ask)
    const { id } = yield* worker.receiveKind(Kind.Request)
    worker.bytes(bytes(id))
    return yield* Fiber.join(call)
  })
  const answerWith = (payload: Uint8Array, references: ReadonlyArray<Partial<FakeWorker.Reference>>) =>
    answer((id) => frameWith(Kind.Success, id, payload, references))
  const freed = (n: number) =>
    Effect.map(
      Effect.forEach(upTo(n), () => worker.receiveKind(Kind.Free)),
      (frames) => frames.map(({ id }) => id)
    )
  return { memory, connection, worker, file, answer, answerWith, freed }
})

type Started = Effect.Success<ReturnType<typeof start>>

describe("a value in shared memory", () => {
  it.effect("is read from where its reference says, and its memory is given back", () =>
    Effect.gen(function* () {
      const { answerWith, file, freed } = yield* start()
      Fs.writeSync(file, Buffer.from("0123456789"), 0, 10, 65_536)
      const reference = { serial: 7, region: workers + 3, start: 65_536n, offset: 65_538n, length: 4n }
      assert.deepStrictEqual(yield* answerWith(shared(7), [reference]), Uint8Array.from(Buffer.from("2345")))
      assert.deepStrictEqual(yield* freed(1), [workers + 3])
    })
  )

  it.effect("may be there more than once", () =>
    Effect.gen(function* () {
      const { answerWith, file } = yield* start()
      Fs.writeSync(file, Buffer.from("ab"), 0, 2, 0)
      const bytes = Uint8Array.from(Buffer.from("ab"))
      const payload = Buffer.concat([Buffer.from([0x92]), shared(1), shared(1)])
      assert.deepStrictEqual(yield* answerWith(payload, [{ length: 2n }]), [bytes, bytes])
    })
  )
})

describe("a value of many megabytes", () => {
  const length = 33 * MiB + 5
  const reference = { region: workers + 3, start: 0n, offset: 4096n, length: BigInt(length) }
  const bytes = Uint8Array.from({ length: 65_537 }, (_, i) => i * 31)

  /** Memory with the value, as often as it fits. */
  const startFilled = Effect.fnUntraced(function* () {
    const started = yield* start({}, { capacity: 64 * MiB })
    const value = Buffer.alloc(length)
    for (let at = 0; at < length; at += bytes.length) value.set(bytes.subarray(0, length - at), at)
    Fs.writeSync(started.file, value, 0, length, 4096)
    return { ...started, value }
  })

  /** The frame of an answer that has the value. */
  const answered = Effect.fnUntraced(function* ({ connection, worker }: Pick<Started, "connection" | "worker">) {
    const call = yield* Effect.forkChild(connection.call({ method: "main", payload: null }))
    const { id } = yield* worker.receiveKind(Kind.Request)
    worker.bytes(frameWith(Kind.Success, id, shared(1), [reference]))
    return yield* Fiber.join(call)
  })
  const decode = answerOf(Schema.Unknown, "main", false)

  it.effect("is read whole, while other things go on", () =>
    Effect.gen(function* () {
      const started = yield* startFilled()
      const frame = yield* answered(started)
      let turns = 0
      const turning = yield* Effect.forkChild(
        Effect.forever(
          Effect.andThen(
            afterTurn,
            Effect.sync(() => turns++)
          )
        )
      )
      const arrived = yield* decode(frame)
      assert.isAbove(turns, 0)
      yield* Fiber.interrupt(turning)
      assert.isTrue(started.value.equals(arrived as Uint8Array))
      assert.deepStrictEqual(yield* started.freed(1), [workers + 3])
    })
  )

  it.effect("may be there more than once, as copies of their own", () =>
    Effect.gen(function* () {
      const { answerWith, value } = yield* startFilled()
      const twice = Buffer.concat([Buffer.from([0x92]), shared(1), shared(1)])
      const reason = yield* reasonOf(answerWith(twice, [reference]), "DecodeFailed")
      assert.match(reason.issue, /more than the/)
      const half = { ...reference, length: BigInt(17 * MiB) }
      const [one, other] = (yield* answerWith(twice, [half])) as readonly [Uint8Array, Uint8Array]
      assert.notStrictEqual(one.buffer, other.buffer)
      assert.isTrue(value.subarray(0, one.length).equals(one) && Buffer.from(one).equals(other))
    })
  )

  it.effect("fails its call where its file is smaller, and its memory is given back", () =>
    Effect.gen(function* () {
      const { answerWith, file, freed } = yield* startFilled()
      Fs.ftruncateSync(file, 20 * MiB)
      const reason = yield* reasonOf(answerWith(shared(1), [reference]), "DecodeFailed")
      assert.match(reason.issue, /cannot be read/)
      assert.deepStrictEqual(yield* freed(1), [workers + 3])
    })
  )

  it.effect("gives its memory back when its call is interrupted as it is read", () =>
    Effect.gen(function* () {
      const started = yield* startFilled()
      const frame = yield* answered(started)
      const decoding = yield* Effect.forkChild(decode(frame), { startImmediately: true })
      yield* Fiber.interrupt(decoding)
      assert.deepStrictEqual(yield* started.freed(1), [workers + 3])
    })
  )
})

describe("a worker that lies", () => {
  const huge = 2n ** 60n
  const lies: Record<string, readonly [RegExp, Uint8Array, ReadonlyArray<Partial<FakeWorker.Reference>>]> = {
    "of bytes beyond the end of its file": [/cannot be read/, shared(1), [{ offset: 65_530n, length: 7n }]],
    "of bytes that begin beyond the end of its file": [/cannot be read/, shared(1), [{ offset: huge, length: 1n }]],
    "of more bytes than there can be": [/more than the 1048576/, shared(1), [{ length: huge }]],
    "of as many bytes as a number can tell": [
      /more than/,
      shared(1),
      [{ offset: 2n ** 64n - 1n, length: 2n ** 64n - 1n }]
    ],
    "of more bytes in all than its capacity": [
      /more than the 1048576/,
      Buffer.concat([Buffer.from([0xdc, 0, 20]), ...upTo(20).map((serial) => shared(serial))]),
      upTo(20).map((serial) => ({ serial, length: 60_000n }))
    ],
    "of a region of the host's that there is not": [/not there/, shared(1), [{ region: hosts + 5, length: 1n }]],
    "of a region that all have, where there is none": [/not there/, shared(1), [{ region: common, length: 1n }]],
    "of a fourth file": [/not there/, shared(1), [{ region: 2 ** 32 - 1, length: 1n }]],
    "of two values with one serial": [/two references with the serial 1/, shared(1), [{ length: 1n }, { length: 2n }]],
    "of a serial that is not among its references": [/serial 9, which is not there/, shared(9), [{ length: 1n }]],
    "of an array that is larger than its memory": [
      /16 bytes for float64/,
      shared(1, [11, 1, 3, 0, 0, 0]),
      [{ length: 16n }]
    ],
    "of an array that begins between two elements": [
      /InvalidArray|bytes for float64|cannot/,
      shared(1, [11, 1, 255, 255, 255, 255]),
      [{ length: 16n }]
    ],
    "of an array of a type that there is not": [/element type/, shared(1, [99, 1, 1, 0, 0, 0]), [{ length: 16n }]],
    "of an array with bytes behind its shape": [/behind the shape/, shared(1, [3, 1, 1, 0, 0, 0, 0]), [{ length: 1n }]],
    "of a value with half a serial": [/refers to none|shared memory/, Buffer.from([0xd5, 3, 1, 0]), [{ length: 1n }]]
  }

  for (const [name, [issue, payload, references]] of Object.entries(lies)) {
    it.effect(`${name} fails its call, and no other`, () =>
      Effect.gen(function* () {
        const { answer, answerWith, freed } = yield* start()
        const before = process.memoryUsage().arrayBuffers
        const reason = yield* reasonOf(answerWith(payload, references), "DecodeFailed")
        assert.match(reason.issue, issue)
        assert.isBelow(process.memoryUsage().arrayBuffers - before, 16 * MiB)
        // What is the worker's it gets back, whatever it has said of it.
        const itsOwn = references.filter(({ region = workers }) => region >= workers && region < common)
        assert.deepStrictEqual(
          yield* freed(itsOwn.length),
          itsOwn.map(() => workers)
        )
        assert.deepStrictEqual(yield* answer((id) => frameWith(Kind.Success, id, Buffer.from([0xc0]), [{}])), null)
      })
    )
  }

  it.effect("and says one value a million times does not have it copied a million times", () =>
    Effect.gen(function* () {
      const { answerWith } = yield* start({}, { capacity: 16 * MiB })
      const n = 50_000
      const header = Buffer.from([0xdc, n >> 8, n & 255])
      const before = process.memoryUsage().arrayBuffers
      const payload = Buffer.concat([header, ...upTo(n).map(() => shared(1))])
      const reason = yield* reasonOf(answerWith(payload, [{ length: 65_536n }]), "DecodeFailed")
      assert.match(reason.issue, /more than the 16777216/)
      assert.isBelow(process.memoryUsage().arrayBuffers - before, 64 * MiB)
    })
  )

  it.effect("and makes its file smaller before it is read fails its call", () =>
    Effect.gen(function* () {
      const { connection, file, worker } = yield* start()
      const call = yield* Effect.forkChild(connection.call({ method: "main", payload: null }))
      const { id } = yield* worker.receiveKind(Kind.Request)
      worker.bytes(frameWith(Kind.Success, id, shared(1), [{ length: 65_536n }]))
      const frame = yield* Fiber.join(call)
      Fs.ftruncateSync(file, 100)
      const reason = yield* reasonOf(answerOf(Schema.Unknown, "main", false)(frame), "DecodeFailed")
      assert.match(reason.issue, /cannot be read/)
    })
  )

  it.effect("and refers to memory of the host's that it has given back fails its call", () =>
    Effect.gen(function* () {
      const { answer, connection, worker } = yield* start()
      const given = yield* Effect.forkChild(connection.call({ method: "main", payload: new Uint8Array(2000) }))
      const request = yield* worker.receiveKind(Kind.Request)
      const [{ region, length } = { region: 1, length: 0n }] = FakeWorker.referencesOf(request)
      assert.deepStrictEqual([region, length], [hosts, 2000n])
      worker.send(Kind.Free, region)
      worker.send(Kind.Success, request.id, null)
      yield* Fiber.join(given)
      const late = answer((id) => frameWith(Kind.Success, id, shared(1), [{ region, length: 2000n }]))
      assert.match((yield* reasonOf(late, "DecodeFailed")).issue, /not there/)
    })
  )

  it.effect("and refers to more than what it was given fails its call", () =>
    Effect.gen(function* () {
      for (const reference of [
        { offset: 1n, length: 65_536n },
        { offset: 65_536n, length: 1n },
        { offset: 0n, length: 2n ** 53n }
      ]) {
        const { connection, worker } = yield* start({}, { capacity: 2 ** 53 })
        const call = Effect.flatMap(
          connection.call({ method: "main", payload: new Uint8Array(2000) }),
          answerOf(Schema.Unknown, "main", false)
        )
        const given = yield* Effect.forkChild(call)
        const { id } = yield* worker.receiveKind(Kind.Request)
        worker.bytes(frameWith(Kind.Success, id, shared(1), [{ region: hosts, ...reference }]))
        assert.match((yield* reasonOf(Fiber.join(given), "DecodeFailed")).issue, /not there/)
      }
    })
  )

  it.effect("and gives back what it does not have is not listened to", () =>
    Effect.gen(function* () {
      const { answer, connection, worker } = yield* start()
      for (const region of [hosts, hosts + 7, workers, workers + 1, common, 2 ** 32 - 1, 0])
        worker.send(Kind.Free, region)
      const given = yield* Effect.forkChild(connection.call({ method: "main", payload: new Uint8Array(2000) }))
      const request = yield* worker.receiveKind(Kind.Request)
      // Twice what it has once: the second reference would be to memory that another value has by then.
      worker.send(Kind.Free, hosts)
      worker.send(Kind.Free, hosts)
      worker.send(Kind.Success, request.id, null)
      yield* Fiber.join(given)
      const two = yield* Effect.forkChild(
        connection.call({ method: "main", payload: [new Uint8Array(2000), new Uint8Array(3000)] })
      )
      const [first, second] = FakeWorker.referencesOf(yield* worker.receiveKind(Kind.Request))
      assert.notStrictEqual(first!.region, second!.region)
      yield* Fiber.interrupt(two)
      assert.isNull(yield* answer((id) => frameWith(Kind.Success, id, Buffer.from([0xc0]), [{}])))
    })
  )

  const truncated: Record<string, (id: number) => Uint8Array> = {
    "with references that are not whole": (id) => {
      const bytes = frameWith(Kind.Success, id, Buffer.from([0xc0]), [{}])
      bytes.writeUInt16LE(2, bytes.length - 2)
      return bytes
    },
    "without a count of its references": (id) => Buffer.from([8, 0, 0, 0, Kind.Success, 1, 0, 0, id, 0, 0, 0]),
    "with half a count": (id) => Buffer.from([9, 0, 0, 0, Kind.Success, 1, 0, 0, id, 0, 0, 0, 1]),
    "with no references although it says so": (id) =>
      Buffer.from([10, 0, 0, 0, Kind.Success, 1, 0, 0, id, 0, 0, 0, 0, 0])
  }
  for (const [name, bytes] of Object.entries(truncated)) {
    it.effect(`and sends a frame ${name} breaks the protocol`, () =>
      Effect.gen(function* () {
        const { answer } = yield* start()
        const reason = yield* reasonOf(answer(bytes), "ProtocolError")
        assert.match(reason.detail, /references to shared memory that are not whole/)
      })
    )
  }

  it.effect("and refers to memory where there is none breaks the protocol", () =>
    Effect.gen(function* () {
      const { answer } = yield* start({ memory: undefined })
      const reason = yield* reasonOf(
        answer((id) => frameWith(Kind.Success, id, shared(1), [{ length: 1n }])),
        "ProtocolError"
      )
      assert.match(reason.detail, /shared memory where there is none/)
    })
  )
})

describe("memory that nobody takes", () => {
  const hasMemory = { length: 100n }

  const opened = (connection: Connection.Connection) => connection.stream({ method: "main", payload: null })

  it.effect("of an answer to a call that was given up is given back", () =>
    Effect.gen(function* () {
      const { connection, freed, worker } = yield* start()
      const call = yield* Effect.forkChild(connection.call({ method: "main", payload: null }))
      const { id } = yield* worker.receiveKind(Kind.Request)
      yield* Fiber.interrupt(call)
      worker.bytes(frameWith(Kind.Success, id, shared(1), [hasMemory]))
      assert.deepStrictEqual(yield* freed(1), [workers])
    })
  )

  it.effect("of an answer to a call that was given up and wanted an object is given back", () =>
    Effect.gen(function* () {
      const { connection, freed, worker } = yield* start()
      const call = yield* Effect.forkChild(
        connection.call({ method: "main", payload: null, onHandle: () => assert.fail("there is no object") })
      )
      const { id } = yield* worker.receiveKind(Kind.Request)
      yield* Fiber.interrupt(call)
      worker.bytes(frameWith(Kind.Fail, id, shared(1), [hasMemory]))
      assert.deepStrictEqual(yield* freed(1), [workers])
    })
  )

  for (const [name, kind, id] of [
    ["an answer to no call", Kind.Success, 4_000_000],
    ["an item of no stream", Kind.Chunk, 4_000_000],
    ["progress of no call", Kind.Progress, 4_000_000],
    ["a ping", Kind.Ping, 0],
    ["a cancellation", Kind.Cancel, 5],
    ["a frame of a kind that nobody knows", 200, 5]
  ] as const) {
    it.effect(`of ${name} is given back`, () =>
      Effect.gen(function* () {
        const { freed, worker } = yield* start()
        worker.bytes(frameWith(kind, id, shared(1), [hasMemory]))
        assert.deepStrictEqual(yield* freed(1), [workers])
      })
    )
  }

  it.effect(
    "of items that are not read any more is given back, of those that came before and of those that come later",
    () =>
      Effect.gen(function* () {
        const { connection, freed, worker } = yield* start()
        const incoming = opened(connection)
        const { id } = yield* worker.receiveKind(Kind.Request)
        const item = (region: number) =>
          frameWith(Kind.Chunk, id, Buffer.concat([Buffer.from([0x91]), shared(1)]), [{ region, length: 100n }])
        worker.bytes(item(workers))
        worker.bytes(item(workers + 1))
        worker.bytes(item(workers + 2))
        Envelope.decodeFrame(yield* incoming.take)
        assert.deepStrictEqual(yield* freed(1), [workers])
        incoming.close()
        assert.deepStrictEqual(yield* freed(2), [workers + 1, workers + 2])
        worker.bytes(item(workers + 3))
        assert.deepStrictEqual(yield* freed(1), [workers + 3])
      })
  )

  it.effect("of the end of a stream that is not read any more is given back", () =>
    Effect.gen(function* () {
      const { connection, freed, worker } = yield* start()
      const incoming = opened(connection)
      const { id } = yield* worker.receiveKind(Kind.Request)
      worker.bytes(frameWith(Kind.Chunk, id, Buffer.concat([Buffer.from([0x91]), shared(1)]), [hasMemory]))
      worker.bytes(frameWith(Kind.Fail, id, shared(1), [{ region: workers + 1, length: 100n }]))
      yield* incoming.take
      incoming.close()
      assert.deepStrictEqual(yield* freed(1), [workers + 1])
    })
  )

  const meta = (value: object): Uint8Array => {
    const writer = Envelope.makeWriter()
    writer.frame(Kind.Request, 1, undefined, value)
    return writer.take().subarray(12)
  }

  for (const [name, value] of [
    ["no function", { method: "nobody" }],
    ["no input stream", { source: 17, stream: 1 }]
  ] as const) {
    it.effect(`of a request of ${name} is given back`, () =>
      Effect.gen(function* () {
        const { freed, worker } = yield* start({
          serve: (post, owner) =>
            Serving.make({ post, owner, host: undefined, maxOpen: 8, maxFrameSize: Envelope.defaultMaxFrameSize })
        })
        worker.bytes(frameWith(Kind.Request, 3, shared(1), [hasMemory], meta(value)))
        assert.strictEqual((yield* worker.receiveKind(Kind.Die)).id, 3)
        worker.bytes(frameWith(Kind.Success, 4_000_000, shared(1), [hasMemory]))
        assert.deepStrictEqual(yield* freed(2), [workers, workers])
      })
    )
  }

  it.effect("of an answer that is dropped undecoded is given back when it is collected", () =>
    Effect.gen(function* () {
      const { answer, connection, worker } = yield* start()
      const dropped = Effect.gen(function* () {
        const call = yield* Effect.forkChild(connection.call({ method: "main", payload: null }))
        const { id } = yield* worker.receiveKind(Kind.Request)
        worker.bytes(frameWith(Kind.Success, id, shared(1), [hasMemory]))
        yield* Fiber.join(call)
      })
      yield* dropped
      yield* answer((id) => frameWith(Kind.Success, id, Buffer.from([0xc0]), [{ region: common }]))
      yield* eventually(() => {
        collectGarbage()
        return worker.received() > 0
      })
      assert.deepStrictEqual((yield* worker.receive).kind, Kind.Free)
    })
  )

  it.effect("of thousands of values is given back, to a worker that reads", () =>
    Effect.gen(function* () {
      const { answerWith, freed } = yield* start()
      const references = upTo(40_000).map((serial) => ({ serial, region: workers + serial, length: 1n }))
      assert.isNull(yield* answerWith(Buffer.from([0xc0]), references))
      assert.strictEqual(new Set(yield* freed(references.length)).size, references.length)
    })
  )

  it.effect("of a request that is too large for its message is taken back", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* start({ maxFrameSize: 4096 })
      for (const _ of upTo(50)) {
        const large = { array: new Uint8Array(900_000), text: "x".repeat(5000) }
        yield* reasonOf(connection.call({ method: "main", payload: large }), "FrameTooLarge")
        yield* reasonOf(
          connection.call({ method: "main", payload: [new Uint8Array(900_000), () => {}] }),
          "EncodeFailed"
        )
      }
      const fits = yield* Effect.forkChild(connection.call({ method: "main", payload: new Uint8Array(900_000) }))
      assert.lengthOf(FakeWorker.referencesOf(yield* worker.receiveKind(Kind.Request)), 1)
      yield* Fiber.interrupt(fits)
    })
  )

  it.effect("of a worker that is gone is closed once nothing of it is needed", () =>
    Effect.gen(function* () {
      const memory = yield* open()
      const isOpen = () => memory.descriptors.map((fd) => Fs.existsSync(`/proc/self/fd/${fd}`))
      const worker = yield* FakeWorker.make
      worker.hello()
      Fs.writeSync(memory.descriptors[1]!, Buffer.from("last words"), 0, 10, 0)
      const frame = yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connect(worker, { memory })
          const call = yield* Effect.forkChild(connection.call({ method: "main", payload: null }))
          const { id } = yield* worker.receiveKind(Kind.Request)
          worker.bytes(frameWith(Kind.Success, id, shared(1), [{ length: 10n }]))
          worker.die()
          return yield* Fiber.join(call)
        })
      )
      memory.close()
      assert.deepStrictEqual(isOpen(), [true, true])
      assert.deepStrictEqual(Envelope.decodeFrame(frame), Uint8Array.from(Buffer.from("last words")))
      assert.deepStrictEqual(isOpen(), [false, false])
    })
  )
})
