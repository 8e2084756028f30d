/** Streams, progress, held objects and replacement, over a worker that does as it is told. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Envelope from "../src/Envelope.ts"
import { turnedAway } from "../src/internal/answer.ts"
import { payloadOf, setup } from "./fixtures/connection.ts"
import type * as FakeWorker from "./fixtures/FakeWorker.ts"

const { Kind } = Envelope

const request = { method: "main", payload: null }
const metaOf = (frame: Envelope.Frame) => Envelope.decodeMeta(frame.meta)

describe("a stream", () => {
  it.effect("grants its first items with the request, and gives chunks in order until its end", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const stream = connection.stream(request)
      const sent = yield* worker.receive
      assert.deepStrictEqual(metaOf(sent), { method: "main", stream: Envelope.streamItems })
      worker.send(Kind.Chunk, sent.id, [1, 2])
      worker.send(Kind.Chunk, sent.id, [3])
      worker.send(Kind.Success, sent.id, null)
      assert.deepStrictEqual(payloadOf(yield* stream.take), [1, 2])
      assert.deepStrictEqual(payloadOf(yield* stream.take), [3])
      assert.strictEqual((yield* stream.take).kind, Kind.Success)
      assert.deepStrictEqual(connection.stats(), { calls: 0, streams: 0, hostCalls: 0, handles: 0 })
    })
  )

  it.effect("that nobody reads holds up no call", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      connection.stream(request)
      const { id } = yield* worker.receive
      for (let n = 0; n < Envelope.streamItems; n++) worker.send(Kind.Chunk, id, [n])
      const call = yield* Effect.forkChild(connection.call(request))
      worker.send(Kind.Success, (yield* worker.receiveKind(Kind.Request)).id, "here")
      assert.strictEqual(payloadOf(yield* Fiber.join(call)), "here")
      assert.strictEqual(connection.stats().streams, 1)
    })
  )

  it.effect("that was granted nothing more and goes on breaks the connection", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      connection.stream(request)
      const { id } = yield* worker.receive
      worker.send(Kind.Chunk, id, new Array(Envelope.streamItems + 1).fill(0))
      const { reason } = yield* Effect.flip(connection.ended)
      assert.strictEqual(reason._tag, "ProtocolError")
      assert.include(reason.message, "more items")
    })
  )

  for (const [what, payload] of [
    ["nothing", []],
    ["no array", { a: 1 }]
  ] as const) {
    it.effect(`whose chunk holds ${what} breaks the connection`, () =>
      Effect.gen(function* () {
        const { connection, worker } = yield* setup()
        connection.stream(request)
        worker.send(Kind.Chunk, (yield* worker.receive).id, payload)
        assert.strictEqual((yield* Effect.flip(connection.ended)).reason._tag, "ProtocolError")
      })
    )
  }

  it.effect("of a call that asked for one value breaks the connection", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      yield* Effect.forkChild(connection.call(request))
      worker.send(Kind.Chunk, (yield* worker.receive).id, [1])
      assert.strictEqual((yield* Effect.flip(connection.ended)).reason._tag, "ProtocolError")
    })
  )

  it.effect("that is closed tells the worker once, and ignores what was on its way", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const stream = connection.stream(request)
      const { id } = yield* worker.receive
      worker.send(Kind.Chunk, id, [1])
      yield* stream.take
      stream.close()
      stream.close()
      const cancel = yield* worker.receive
      assert.deepStrictEqual([cancel.kind, cancel.id], [Kind.Cancel, id])
      assert.strictEqual(connection.load(), 1)
      worker.send(Kind.Chunk, id, [2])
      worker.send(Kind.Interrupted, id)
      yield* Effect.repeat(Effect.yieldNow, { until: () => connection.load() === 0 })
      assert.isTrue(connection.isOpen())
      assert.strictEqual(worker.received(), 0)
    })
  )

  it.effect("gives what came before the worker died, then how it died", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const stream = connection.stream(request)
      worker.send(Kind.Chunk, (yield* worker.receive).id, [1])
      worker.die()
      yield* Effect.exit(connection.ended)
      assert.deepStrictEqual(payloadOf(yield* stream.take), [1])
      const error = yield* Effect.flip(stream.take)
      assert.deepStrictEqual([error.reason._tag, error.delivery], ["WorkerExited", "unknown"])
      const after = yield* Effect.flip(connection.stream(request).take)
      assert.deepStrictEqual([after.reason._tag, after.delivery], ["WorkerExited", "notSent"])
    })
  )
})

describe("progress", () => {
  it.effect("reaches its call alone, and none that has ended", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const heard: Array<unknown> = []
      const call = yield* Effect.forkChild(
        connection.call({ ...request, onProgress: (payload) => heard.push(Envelope.decodePayload(payload)) })
      )
      const sent = yield* worker.receive
      assert.strictEqual(metaOf(sent).progress, true)
      worker.send(Kind.Progress, sent.id + 1, "another")
      worker.send(Kind.Progress, sent.id, 1)
      worker.send(Kind.Progress, sent.id, 2)
      worker.send(Kind.Success, sent.id, null)
      worker.send(Kind.Progress, sent.id, "late")
      yield* Fiber.join(call)
      assert.deepStrictEqual(heard, [1, 2])
    })
  )
})

describe("a deadline", () => {
  it.effect("that has passed in the queue means that the call is never sent", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const late = yield* Effect.forkChild(connection.call({ ...request, timeLeft: () => 0 }))
      const call = yield* Effect.forkChild(connection.call({ ...request, method: "second" }))
      const sent = yield* worker.receive
      assert.strictEqual(metaOf(sent).method, "second")
      worker.send(Kind.Success, sent.id, null)
      yield* Fiber.join(call)
      yield* Fiber.interrupt(late)
      assert.deepStrictEqual([worker.received(), connection.load()], [0, 0])
    })
  )
})

describe("a held object", () => {
  const hold = (handles: Array<number>) => ({ ...request, onHandle: (handle: number) => handles.push(handle) })

  it.effect("is known before its caller goes on, and released once", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const handles: Array<number> = []
      const call = yield* Effect.forkChild(connection.call(hold(handles)))
      const sent = yield* worker.receive
      assert.strictEqual(metaOf(sent).hold, true)
      worker.send(Kind.Success, sent.id, { handle: 9, type: "main.Model" })
      yield* Fiber.join(call)
      assert.deepStrictEqual([handles, connection.stats().handles], [[9], 1])
      connection.release(9)
      connection.release(9)
      const release = yield* worker.receive
      assert.deepStrictEqual([release.kind, release.id], [Kind.Release, 9])
      assert.deepStrictEqual([worker.received(), connection.stats().handles], [0, 0])
    })
  )

  it.effect("that arrives when its caller is gone is released", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      const handles: Array<number> = []
      const call = yield* Effect.forkChild(connection.call(hold(handles)))
      const { id } = yield* worker.receive
      yield* Fiber.interrupt(call)
      worker.send(Kind.Success, id, { handle: 4, type: "main.Model" })
      assert.strictEqual((yield* worker.receiveKind(Kind.Release)).id, 4)
      assert.deepStrictEqual([handles, connection.stats().handles], [[], 0])
    })
  )

  it.effect("that its answer does not name fails its call and nothing else", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      for (const payload of ["nothing", { handle: 0, type: "a.B" }, { handle: 2 ** 32, type: "a.B" }]) {
        const call = yield* Effect.forkChild(connection.call({ ...request, onHandle: () => assert.fail("no handle") }))
        worker.send(Kind.Success, (yield* worker.receiveKind(Kind.Request)).id, payload)
        assert.strictEqual((yield* Fiber.join(call)).kind, Kind.Success)
      }
      assert.isTrue(connection.isOpen())
      assert.strictEqual(connection.stats().handles, 0)
    })
  )

  it.live("is let go with all others, however many, while nothing can be written", () =>
    Effect.gen(function* () {
      const count = 17_000
      const { connection, worker } = yield* setup({ maxOpenCalls: count })
      const handles: Array<number> = []
      const holding = { ...request, onHandle: (handle: number) => handles.push(handle) }
      const calls = yield* Effect.forEach(Array.from({ length: count }), () =>
        Effect.forkChild(connection.call(holding))
      )
      for (let handle = 1; handle <= count; handle++) {
        worker.send(Kind.Success, (yield* worker.receiveKind(Kind.Request)).id, { handle, type: "a.B" })
      }
      yield* Fiber.awaitAll(calls)
      const unblock = worker.blockWrites()
      yield* Effect.forkChild(connection.call(request))
      yield* worker.receiveKind(Kind.Request)
      for (const handle of handles) connection.release(handle)
      assert.isTrue(connection.isOpen())
      unblock()
    })
  )
})

describe("a call that is given up and goes on", () => {
  const replaceable = { methods: [{ name: "main", stream: false, async: false, cancel: "replace" }] }

  for (const [by, options, hello] of [
    ["its caller", { replace: true }, {}],
    ["its handler", {}, replaceable]
  ] as const) {
    it.effect(`lets the worker be replaced after the grace, where ${by} asks for it`, () =>
      Effect.gen(function* () {
        const { connection, worker } = yield* setup({ cancelGraceMillis: 2000 }, hello)
        const call = yield* Effect.forkChild(connection.call({ ...request, ...options }))
        yield* worker.receive
        yield* Fiber.interrupt(call)
        yield* worker.receiveKind(Kind.Cancel)
        yield* TestClock.adjust("1999 millis")
        assert.isTrue(connection.isOpen())
        yield* TestClock.adjust("1 millis")
        yield* connection.leaving
        assert.strictEqual(payloadOf(yield* worker.receiveKind(Kind.Shutdown)), 0)
        assert.strictEqual((yield* Effect.flip(connection.ended)).reason._tag, "Unresponsive")
      })
    )
  }

  it.effect("and ends within the grace costs nothing", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup({ cancelGraceMillis: 2000 }, replaceable)
      const call = yield* Effect.forkChild(connection.call(request))
      const { id } = yield* worker.receive
      yield* Fiber.interrupt(call)
      worker.send(Kind.Interrupted, id)
      yield* Effect.repeat(Effect.yieldNow, { until: () => connection.load() === 0 })
      yield* TestClock.adjust("5 seconds")
      assert.isTrue(connection.isOpen())
    })
  )

  it.effect("otherwise keeps its worker for ever", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup({ cancelGraceMillis: 2000 })
      const call = yield* Effect.forkChild(connection.call(request))
      yield* worker.receive
      yield* Fiber.interrupt(call)
      yield* TestClock.adjust("1 hours")
      assert.isTrue(connection.isOpen())
      assert.strictEqual(connection.load(), 1)
    })
  )

  for (const [how, stop] of [
    ["answers", (worker: FakeWorker.FakeWorker, id: number) => worker.send(Kind.Interrupted, id)],
    ["leaves", (worker: FakeWorker.FakeWorker) => worker.die()]
  ] as const) {
    it.effect(`ends those beside it with the reason when the worker ${how} as it is stopped`, () =>
      Effect.gen(function* () {
        const { connection, worker } = yield* setup({ cancelGraceMillis: 1000 })
        const beside = yield* Effect.forkChild(connection.call(request))
        const { id } = yield* worker.receiveKind(Kind.Request)
        const stuck = yield* Effect.forkChild(connection.call({ ...request, replace: true }))
        yield* worker.receiveKind(Kind.Request)
        yield* Fiber.interrupt(stuck)
        yield* worker.receiveKind(Kind.Cancel)
        yield* TestClock.adjust("1 seconds")
        yield* worker.receiveKind(Kind.Shutdown)
        stop(worker, id)
        const { delivery, reason } = yield* Effect.flip(Fiber.join(beside))
        assert.deepStrictEqual([reason._tag, delivery], ["Unresponsive", "unknown"])
      })
    )
  }

  it.effect("in the method of an object keeps its worker, whatever handler has that name", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup({ cancelGraceMillis: 2000 }, replaceable)
      const call = yield* Effect.forkChild(connection.call({ ...request, target: 3 }))
      yield* worker.receive
      yield* Fiber.interrupt(call)
      yield* TestClock.adjust("1 hours")
      assert.isTrue(connection.isOpen())
    })
  )
})

describe("calls that wait in a worker", () => {
  it.live("behind one that is not answered for long are asked back, once, and can be sent again", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup({ concurrency: 1 })
      const first = yield* Effect.forkChild(connection.call(request))
      const second = yield* Effect.forkChild(connection.call(request))
      const requests = [yield* worker.receiveKind(Kind.Request), yield* worker.receiveKind(Kind.Request)]
      // The worker knows which of them has not started.
      const recalls = [yield* worker.receiveKind(Kind.Recall), yield* worker.receiveKind(Kind.Recall)]
      assert.deepStrictEqual(
        recalls.map(({ id }) => id),
        requests.map(({ id }) => id)
      )
      worker.send(Kind.Die, requests[1]!.id, null, { reason: "Recalled", delivery: "rejected" })
      assert.strictEqual(turnedAway(yield* Fiber.join(second)), "Recalled")
      worker.send(Kind.Success, requests[0]!.id, "done")
      assert.strictEqual(payloadOf(yield* Fiber.join(first)), "done")
      assert.deepStrictEqual([worker.received(), connection.load()], [0, 0])
    })
  )

  it.live("behind a generator are asked back too", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup({ concurrency: 1 })
      connection.stream({ method: "generate", payload: null })
      yield* worker.receiveKind(Kind.Request)
      const call = yield* Effect.forkChild(connection.call(request))
      const { id } = yield* worker.receiveKind(Kind.Request)
      assert.strictEqual((yield* worker.receiveKind(Kind.Recall)).id, id)
      worker.send(Kind.Success, id, "done")
      assert.strictEqual(payloadOf(yield* Fiber.join(call)), "done")
    })
  )

  it.effect("do not come back unasked", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup()
      yield* Effect.forkChild(connection.call(request))
      const { id } = yield* worker.receive
      worker.send(Kind.Die, id, null, { reason: "Recalled", delivery: "rejected" })
      const { reason } = yield* Effect.flip(connection.ended)
      assert.strictEqual(reason._tag, "ProtocolError")
      assert.include(reason.message, "not asked for")
    })
  )

  it.live("are left alone while answers come, and where they have a place", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup({ concurrency: 2 })
      const calls = yield* Effect.forkChild(
        Effect.all([connection.call(request), connection.call(request)], { concurrency: "unbounded" })
      )
      const { id } = yield* worker.receiveKind(Kind.Request)
      const other = yield* worker.receiveKind(Kind.Request)
      yield* Effect.sleep(60)
      assert.strictEqual(worker.received(), 0)
      for (const each of [id, other.id]) worker.send(Kind.Success, each, null)
      yield* Fiber.join(calls)
    })
  )

  it.live("and come back leave no room for more behind the slow one", () =>
    Effect.gen(function* () {
      const { connection, worker } = yield* setup({ concurrency: 1, maxOpenCalls: 64 })
      // Until it has found the worker quick.
      while (connection.room(true) < 9) {
        const quick = yield* Effect.forkChild(connection.call(request))
        worker.send(Kind.Success, (yield* worker.receiveKind(Kind.Request)).id, null)
        yield* Fiber.join(quick)
      }
      const slow = yield* Effect.forkChild(connection.call(request))
      yield* Effect.forkChild(connection.call(request))
      const { id } = yield* worker.receiveKind(Kind.Request)
      yield* Effect.sleep("15 millis")
      // These are asked back as soon as they are there.
      for (let n = 0; n < 8; n++) yield* Effect.forkChild(connection.call(request))
      for (let n = 0; n < 10; n++) {
        const recalled = yield* worker.receiveKind(Kind.Recall)
        if (recalled.id !== id) worker.send(Kind.Die, recalled.id, null, { reason: "Recalled", delivery: "rejected" })
      }
      yield* Effect.repeat(Effect.yieldNow, { until: () => connection.load() === 1 })
      assert.strictEqual(connection.room(true), 0)
      yield* Fiber.interrupt(slow)
    })
  )
})
