import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Scheduler, Scope } from "effect"
import * as Envelope from "../src/Envelope.ts"
import type { SynapseError } from "../src/SynapseError.ts"
import { connect, payloadOf, setup } from "./fixtures/connection.ts"
import * as FakeWorker from "./fixtures/FakeWorker.ts"

const { Kind } = Envelope

const reasonOf = (exit: Exit.Exit<unknown, SynapseError>) => Option.getOrThrow(Exit.findErrorOption(exit)).reason

describe("the handshake", () => {
  it.effect("welcomes a worker with its settings before any request", () =>
    Effect.gen(function* () {
      const worker = yield* FakeWorker.make
      worker.hello()
      const connection = yield* connect(worker, { concurrency: 3 })
      const call = yield* Effect.forkChild(connection.call({ method: "main", payload: 1 }))
      const welcome = yield* worker.receive
      assert.strictEqual(welcome.kind, Kind.Welcome)
      assert.deepStrictEqual(payloadOf(welcome), {
        protocol: 1,
        maxFrameSize: Envelope.defaultMaxFrameSize,
        concurrency: 3,
        maxOpenCalls: 8,
        evaluate: false
      })
      assert.strictEqual((yield* worker.receive).kind, Kind.Request)
      yield* Fiber.interrupt(call)
    })
  )

  it.effect("refuses a worker of another protocol version, naming both", () =>
    Effect.gen(function* () {
      const worker = yield* FakeWorker.make
      worker.hello({ protocol: 99 })
      const { reason } = yield* Effect.flip(connect(worker))
      assert.strictEqual(reason._tag, "StartFailed")
      assert.include(reason.message, "99")
    })
  )

  it.effect("tells why a module did not import", () =>
    Effect.gen(function* () {
      const worker = yield* FakeWorker.make
      worker.hello({
        failure: { type: "ModuleNotFoundError", module: "builtins", message: "No module named 'nope'", frames: [] }
      })
      const { reason } = yield* Effect.flip(connect(worker))
      assert(reason._tag === "StartFailed")
      assert.strictEqual(reason.kind, "import")
      assert.include(reason.message, "ModuleNotFoundError: No module named 'nope'")
    })
  )

  it.effect("breaks when the first frame is not Hello", () =>
    Effect.gen(function* () {
      const worker = yield* FakeWorker.make
      worker.send(Kind.Pong, 0)
      assert.strictEqual((yield* Effect.flip(connect(worker))).reason._tag, "ProtocolError")
    })
  )

  it.effect("breaks when something prints on the channel", () =>
    Effect.gen(function* () {
      const worker = yield* FakeWorker.make
      worker.bytes(new TextEncoder().encode("hello world, this is a banner\n"))
      const { reason } = yield* Effect.flip(connect(worker))
      assert.strictEqual(reason._tag, "ProtocolError")
      assert.include(reason.message, "descriptor 3")
    })
  )

  it.effect("turns a death before Hello into StartFailed with the exit and the last words", () =>
    Effect.gen(function* () {
      const worker = yield* FakeWorker.make
      worker.die()
      const { reason } = yield* Effect.flip(connect(worker))
      assert(reason._tag === "StartFailed")
      assert.strictEqual(reason.kind, "exit")
      assert.strictEqual(reason.signal, "SIGKILL")
      assert.include(reason.message, "last words")
    })
  )
})

describe("calls", () => {
  it.effect("match answers by id, in whatever order they come", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const calls = yield* Effect.forkChild(
        Effect.forEach(["a", "b", "c"], (method) => connection.call({ method, payload: null }), {
          concurrency: "unbounded"
        })
      )
      const requests = [yield* worker.receive, yield* worker.receive, yield* worker.receive]
      for (const request of requests.toReversed()) {
        worker.send(Kind.Success, request.id, Envelope.decodeMeta(request.meta).method)
      }
      assert.deepStrictEqual((yield* Fiber.join(calls)).map(payloadOf), ["a", "b", "c"])
      assert.strictEqual(connection.load(), 0)
    })
  )

  it.effect("end once: late, doubled and forged answers are ignored", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const first = yield* Effect.forkChild(connection.call({ method: "main", payload: 1 }))
      const request = yield* worker.receive
      worker.send(Kind.Success, request.id, "right")
      worker.send(Kind.Success, request.id, "late")
      worker.send(Kind.Die, 77, null)
      worker.send(200, request.id)
      assert.strictEqual(payloadOf(yield* Fiber.join(first)), "right")
      const second = yield* Effect.forkChild(connection.call({ method: "main", payload: 2 }))
      worker.send(Kind.Success, (yield* worker.receive).id, "second")
      assert.strictEqual(payloadOf(yield* Fiber.join(second)), "second")
    })
  )

  it.effect("that cannot be encoded fail alone, are never sent, and say where", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const bad = yield* Effect.flip(connection.call({ method: "main", payload: { a: [1, Symbol("no")] } }))
      assert(bad.reason._tag === "EncodeFailed")
      assert.strictEqual(bad.reason.path, "$.a[1]")
      assert.strictEqual(bad.delivery, "notSent")
      const good = yield* Effect.forkChild(connection.call({ method: "main", payload: 1 }))
      const request = yield* worker.receive
      assert.strictEqual(request.kind, Kind.Request)
      worker.send(Kind.Success, request.id, "ok")
      assert.strictEqual(payloadOf(yield* Fiber.join(good)), "ok")
    })
  )

  it.effect("too large for a frame fail alone, with size and limit", () =>
    Effect.gen(function* () {
      const { connection } = yield* setup({ maxFrameSize: 1000 })
      const error = yield* Effect.flip(connection.call({ method: "main", payload: new Uint8Array(2000) }))
      assert(error.reason._tag === "FrameTooLarge")
      assert.strictEqual(error.reason.limit, 1000)
      assert.isAbove(error.reason.size, 2000)
      assert.strictEqual(connection.load(), 0)
    })
  )

  it.effect("carry the time that is left", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      yield* Effect.forkChild(connection.call({ method: "main", payload: 1, timeLeft: () => 750 }))
      assert.strictEqual(Envelope.decodeMeta((yield* worker.receive).meta).deadline, 750)
    })
  )

  it.effect("more than the queue holds wait and are all sent", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup({ maxOpenCalls: 2 })
      const unblock = worker.blockWrites()
      const calls = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 20 }), (_, n) => connection.call({ method: "main", payload: n }), {
          concurrency: "unbounded"
        })
      )
      yield* Effect.yieldNow
      unblock()
      for (let n = 0; n < 20; n++) {
        const request = yield* worker.receiveKind(Kind.Request)
        worker.send(Kind.Success, request.id, payloadOf(request))
      }
      assert.deepStrictEqual(
        (yield* Fiber.join(calls)).map(payloadOf),
        Array.from({ length: 20 }, (_, n) => n)
      )
    })
  )
})

describe("interruption", () => {
  it.effect("does not wait for the worker, tells it, and keeps the place until it has answered", () =>
    Effect.gen(function* () {
      let changes = 0
      const { connection, worker } = yield* setup({ onChange: () => changes++ })
      const call = yield* Effect.forkChild(connection.call({ method: "main", payload: 1 }))
      const request = yield* worker.receive
      yield* Fiber.interrupt(call)
      const cancel = yield* worker.receive
      assert.deepStrictEqual([cancel.kind, cancel.id], [Kind.Cancel, request.id])
      assert.strictEqual(connection.load(), 1)
      const before = changes
      worker.send(Kind.Interrupted, request.id)
      yield* Effect.repeat(Effect.yieldNow, { until: () => connection.load() === 0 })
      assert.isAbove(changes, before)
    })
  )

  it.effect("before the request was sent sends nothing at all", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const unblock = worker.blockWrites()
      const first = yield* Effect.forkChild(connection.call({ method: "first", payload: 1 }))
      yield* worker.receive
      const second = yield* Effect.forkChild(connection.call({ method: "second", payload: 2 }))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(second)
      assert.strictEqual(connection.load(), 1)
      unblock()
      const third = yield* Effect.forkChild(connection.call({ method: "third", payload: 3 }))
      assert.strictEqual(Envelope.decodeMeta((yield* worker.receive).meta).method, "third")
      yield* Fiber.interruptAll([first, third])
    })
  )
})

describe("interruption at any moment", () => {
  // The scheduler yields after so many operations: between any two, given enough values.
  for (let operations = 1; operations <= 24; operations++) {
    it.effect(`after ${operations} operations leaks no call`, () =>
      Effect.gen(function* () {
        const states: Array<boolean> = []
        const { connection, worker } = yield* setup({ onBusy: (busy) => states.push(busy) })
        const call = yield* Effect.forkChild(
          Effect.provideService(
            connection.call({ method: "main", payload: 1 }),
            Scheduler.MaxOpsBeforeYield,
            operations
          )
        )
        yield* Fiber.interrupt(call)
        yield* Effect.repeat(Effect.yieldNow, { times: 5 })
        for (let left = worker.received(); left > 0; left--) {
          const frame = yield* worker.receive
          if (frame.kind === Kind.Cancel) worker.send(Kind.Interrupted, frame.id)
        }
        yield* Effect.repeat(Effect.yieldNow, { times: 5 })
        assert.strictEqual(connection.load(), 0)
        assert.notStrictEqual(states.at(-1), true)
      })
    )
  }
})

describe("the end of a connection", () => {
  it.effect("fails every open call once, telling what was sent from what was not", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup({ maxOpenCalls: 200 })
      worker.blockWrites()
      const sent = yield* Effect.forkChild(Effect.exit(connection.call({ method: "main", payload: 1 })))
      yield* worker.receive
      const waiting = yield* Effect.forkChild(
        Effect.forEach(
          Array.from({ length: 100 }),
          () => Effect.exit(connection.call({ method: "main", payload: 2 })),
          { concurrency: "unbounded" }
        )
      )
      yield* Effect.yieldNow
      worker.die()
      const unknown = reasonOf(yield* Fiber.join(sent))
      assert(unknown._tag === "WorkerExited")
      assert.strictEqual(unknown.delivery, "unknown")
      assert.strictEqual(unknown.stderr, "last words")
      for (const exit of yield* Fiber.join(waiting)) {
        const reason = reasonOf(exit)
        assert(reason._tag === "WorkerExited")
        assert.strictEqual(reason.delivery, "notSent")
      }
      assert.strictEqual(connection.load(), 0)
      assert.isFalse(connection.isOpen())
      const after = yield* Effect.flip(connection.call({ method: "main", payload: 3 }))
      assert.strictEqual(after.delivery, "notSent")
    })
  )

  it.effect("by a remote peer is a ProtocolError", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      worker.hangUp()
      assert.strictEqual((yield* Effect.flip(connection.ended)).reason._tag, "ProtocolError")
    })
  )

  it.effect("by a broken frame says what was wrong, after the answers before it", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const answered = yield* Effect.forkChild(connection.call({ method: "main", payload: 1 }))
      const request = yield* worker.receive
      const open = yield* Effect.forkChild(Effect.exit(connection.call({ method: "main", payload: 2 })))
      yield* worker.receive
      const good = Envelope.makeWriter()
      good.frame(Kind.Success, request.id, "in time")
      worker.bytes(Buffer.concat([good.take(), Buffer.from([0, 0, 0, 0, 1, 2, 3, 4])]))
      assert.strictEqual(payloadOf(yield* Fiber.join(answered)), "in time")
      assert.strictEqual(reasonOf(yield* Fiber.join(open))._tag, "ProtocolError")
    })
  )

  it.effect("by its scope sends Shutdown with the grace and fails open calls with Closed", () =>
    Effect.gen(function* () {
      const worker = yield* FakeWorker.make
      worker.hello()
      const scope = yield* Scope.make()
      const connection = yield* Scope.provide(connect(worker, { graceMillis: 5 }), scope)
      const call = yield* Effect.forkChild(Effect.exit(connection.call({ method: "main", payload: 1 })))
      yield* worker.receiveKind(Kind.Request)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(payloadOf(yield* worker.receiveKind(Kind.Shutdown)), 5)
      const reason = reasonOf(yield* Fiber.join(call))
      assert.strictEqual(reason._tag, "Closed")
      assert.strictEqual(reason.delivery, "unknown")
      const after = yield* Effect.flip(connection.call({ method: "main", payload: 1 }))
      assert.deepStrictEqual([after.reason._tag, after.delivery], ["Closed", "notSent"])
    })
  )

  it.effect("by a write that fails while the reader hears nothing", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      worker.failWrites()
      const reason = (yield* Effect.flip(connection.call({ method: "main", payload: 1 }))).reason
      assert.strictEqual(reason._tag, "ProtocolError")
      assert.isFalse(connection.isOpen())
    })
  )

  it.effect("by a worker that asks without end and reads no answers", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      worker.blockWrites()
      const pings = Envelope.makeWriter()
      for (let n = 0; n < 50_000; n++) pings.frame(Kind.Ping, n)
      worker.bytes(pings.take())
      assert.strictEqual((yield* Effect.flip(connection.ended)).reason._tag, "ProtocolError")
    })
  )

  it.effect("by its scope is Closed for a call that the worker stops at the end of the grace", () =>
    Effect.gen(function* () {
      const worker = yield* FakeWorker.make
      worker.hello()
      const scope = yield* Scope.make()
      const connection = yield* Scope.provide(connect(worker, { graceMillis: 60_000 }), scope)
      const call = yield* Effect.forkChild(Effect.exit(connection.call({ method: "main", payload: 1 })))
      const request = yield* worker.receiveKind(Kind.Request)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* worker.receiveKind(Kind.Shutdown)
      worker.send(Kind.Interrupted, request.id)
      assert.strictEqual(reasonOf(yield* Fiber.join(call))._tag, "Closed")
      worker.die()
      yield* Fiber.join(closing)
    })
  )

  it.effect("by its scope lets calls finish that are answered within the grace", () =>
    Effect.gen(function* () {
      const worker = yield* FakeWorker.make
      worker.hello()
      const scope = yield* Scope.make()
      const connection = yield* Scope.provide(connect(worker, { graceMillis: 60_000 }), scope)
      const call = yield* Effect.forkChild(connection.call({ method: "main", payload: 1 }))
      const request = yield* worker.receiveKind(Kind.Request)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* worker.receiveKind(Kind.Shutdown)
      worker.send(Kind.Success, request.id, "finished")
      worker.die()
      yield* Fiber.join(closing)
      assert.strictEqual(payloadOf(yield* Fiber.join(call)), "finished")
    })
  )
})

describe("a worker that", () => {
  it.effect("pings is answered with the id of the ping", () =>
    Effect.gen(function* () {
      const { worker } = yield* setup()
      worker.send(Kind.Ping, 9)
      const pong = yield* worker.receive
      assert.deepStrictEqual([pong.kind, pong.id], [Kind.Pong, 9])
    })
  )

  it.effect("says GoAway takes nothing new and finishes what it has", () =>
    Effect.gen(function* () {
      let changed = 0
      const { connection, worker } = yield* setup({ onChange: () => changed++ })
      const call = yield* Effect.forkChild(connection.call({ method: "main", payload: 1 }))
      const request = yield* worker.receive
      worker.send(Kind.GoAway, 0)
      worker.send(Kind.Success, request.id, "done")
      assert.strictEqual(payloadOf(yield* Fiber.join(call)), "done")
      assert.isFalse(connection.isOpen())
      yield* connection.leaving
      assert.isAbove(changed, 0)
    })
  )

  it.effect("answers what cannot be decoded costs that call alone", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const call = yield* Effect.forkChild(connection.call({ method: "main", payload: 1 }))
      const request = yield* worker.receive
      // A Success whose payload is the byte that MessagePack never uses.
      const frame = Buffer.alloc(13)
      frame.writeUInt32LE(9, 0)
      frame[4] = Kind.Success
      frame.writeUInt32LE(request.id, 8)
      frame[12] = 0xc1
      worker.bytes(frame)
      const answer = yield* Fiber.join(call)
      assert.throws(() => payloadOf(answer))
      assert.isTrue(connection.isOpen())
    })
  )

  it.effect("logs is heard", () =>
    Effect.gen(function* () {
      const logs: Array<Envelope.Log> = []
      const { connection, worker } = yield* setup({ onLog: (log) => logs.push(log) })
      worker.send(Kind.Log, 0, {
        level: 20,
        logger: "app",
        message: "hi",
        time: 1,
        id: null,
        file: null,
        line: null,
        exception: null
      })
      const call = yield* Effect.forkChild(connection.call({ method: "main", payload: 1 }))
      worker.send(Kind.Success, (yield* worker.receive).id, 1)
      yield* Fiber.join(call)
      assert.deepStrictEqual(
        logs.map((log) => log.message),
        ["hi"]
      )
    })
  )

  it.effect("busy and idle states are told once each way", () =>
    Effect.gen(function* () {
      const states: Array<boolean> = []
      const { connection, worker } = yield* setup({ onBusy: (busy) => states.push(busy) })
      const calls = yield* Effect.forkChild(
        Effect.all([connection.call({ method: "a", payload: 1 }), connection.call({ method: "b", payload: 1 })], {
          concurrency: 2
        })
      )
      for (let n = 0; n < 2; n++) worker.send(Kind.Success, (yield* worker.receive).id, n)
      yield* Fiber.join(calls)
      assert.deepStrictEqual(states, [true, false])
    })
  )
})

describe("calls of synchronous handlers", () => {
  const answerAll = (worker: FakeWorker.FakeWorker, count: number) =>
    Effect.repeat(
      Effect.map(worker.receiveKind(Kind.Request), (request) => worker.send(Kind.Success, request.id, null)),
      { times: count - 1 }
    )

  it.effect("are given one at a time to a worker that nothing is known of, and asynchronous ones all at once", () =>
    Effect.gen(function* () {
      const { connection } = yield* setup({ maxOpenCalls: 100 })
      assert.deepStrictEqual([connection.room(true), connection.room(false)], [1, 100])
      yield* Effect.forkChild(connection.call({ method: "main", payload: 1 }))
      yield* Effect.yieldNow
      assert.deepStrictEqual([connection.room(true), connection.room(false)], [0, 99])
    })
  )

  it.effect("are given ahead while answers come quickly, never more than the limit", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup({ maxOpenCalls: 8 })
      const calls = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 200 }), () => connection.call({ method: "main", payload: 1 }), {
          discard: true
        })
      )
      yield* answerAll(worker, 200)
      yield* Fiber.join(calls)
      assert.strictEqual(connection.room(true), 8)
    })
  )

  it.effect("that were given up count until the worker has answered", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const call = yield* Effect.forkChild(connection.call({ method: "main", payload: 1 }))
      const request = yield* worker.receiveKind(Kind.Request)
      yield* Fiber.interrupt(call)
      assert.strictEqual(connection.room(true), 0)
      worker.send(Kind.Interrupted, request.id)
      yield* Effect.repeat(Effect.yieldNow, { until: () => connection.room(true) === 1 })
    })
  )
})
