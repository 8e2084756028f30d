/** A call as its caller sees it, over a pool that answers as it is told. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import type * as Connection from "../src/Connection.ts"
import * as Envelope from "../src/Envelope.ts"
import { type Calls, makeCall } from "../src/internal/call.ts"
import { enterOf, useOf } from "../src/internal/dispatcher.ts"
import { makeProgress } from "../src/internal/progress.ts"
import { CurrentRequest } from "../src/internal/serving.ts"
import { makeStream } from "../src/internal/streaming.ts"
import { Closed, SynapseError } from "../src/SynapseError.ts"
import type { WorkerPool } from "../src/WorkerPool.ts"
import { setup } from "./fixtures/connection.ts"
import * as FakeWorker from "./fixtures/FakeWorker.ts"

type Answer = Effect.Effect<Envelope.Frame, SynapseError>

const frame = (kind: number, payload?: unknown, meta?: object): Envelope.Frame => {
  const writer = Envelope.makeWriter()
  writer.frame(kind, 1, payload, meta)
  return Envelope.makeReader().push(writer.take())[0]!
}
const success = Effect.succeed(frame(Envelope.Kind.Success, "done"))
const turnedAway = (reason: string, payload: unknown) =>
  Effect.succeed(frame(Envelope.Kind.Die, payload, { reason, delivery: "rejected" }))
const exited = Effect.fail(FakeWorker.exited)

const answering = (answers: ReadonlyArray<Answer>, isOpen = true) => {
  const requests: Array<Connection.Request> = []
  const answer = (request: Connection.Request) => {
    requests.push(request)
    request.onSent?.()
    return answers[Math.min(requests.length, answers.length) - 1]!
  }
  const stub: Pick<Connection.Connection, "begin" | "open" | "isOpen"> = {
    isOpen: () => isOpen,
    begin: (request, resume) => {
      resume(answer(request))
      return undefined
    },
    open: (request, caller) => {
      caller.ended(Effect.runSyncExit(answer(request)), undefined)
      return undefined
    }
  }
  const connection = stub as Connection.Connection
  return {
    requests,
    call: makeCall({ use: useOf(connection), enter: enterOf(connection), callTimeout: undefined })
  }
}

describe("a call that the worker turns away", () => {
  it.effect("is sent again", () =>
    Effect.gen(function* () {
      const { call, requests } = answering([
        turnedAway("Closed", null),
        turnedAway("Overloaded", { capacity: 1 }),
        success
      ])
      assert.strictEqual(yield* call(Schema.String, 1), "done")
      assert.lengthOf(requests, 3)
    })
  )

  it.effect("because it leaves is sent to others until one takes it", () =>
    Effect.gen(function* () {
      const closed = turnedAway("Closed", null)
      const { call, requests } = answering([closed, closed, closed, closed, success], false)
      assert.strictEqual(yield* call(Schema.String, 1), "done")
      assert.lengthOf(requests, 5)
    })
  )

  it.effect("again and again fails with what it was told", () =>
    Effect.gen(function* () {
      const { call, requests } = answering([turnedAway("Overloaded", { capacity: 7 })])
      const { delivery, reason } = yield* Effect.flip(call(Schema.String, 1))
      assert(reason._tag === "Overloaded")
      assert.deepStrictEqual([reason.where, reason.capacity, delivery], ["worker", 7, "rejected"])
      assert.lengthOf(requests, 3)
    })
  )
})

describe("a call whose worker ends", () => {
  it.effect("is not sent again when it may have run", () =>
    Effect.gen(function* () {
      const { call, requests } = answering([exited, success])
      assert.strictEqual((yield* Effect.flip(call(Schema.String, 1))).delivery, "unknown")
      assert.lengthOf(requests, 1)
    })
  )

  it.effect("is sent again when that was let go of before the call reached it", () =>
    Effect.gen(function* () {
      const closed = (delivery: "notSent" | "unknown") =>
        Effect.fail(new SynapseError({ reason: new Closed({ delivery }) }))
      const { call, requests } = answering([closed("notSent"), success])
      assert.strictEqual(yield* call(Schema.String, 1), "done")
      assert.lengthOf(requests, 2)
      // What has begun to run may have done something.
      const begun = answering([closed("unknown"), success])
      assert.strictEqual((yield* Effect.flip(begun.call(Schema.String, 1, { idempotent: true }))).delivery, "unknown")
      // The runtime itself is closed.
      assert.strictEqual(
        (yield* Effect.flip(answering([closed("notSent")]).call(Schema.String, 1))).delivery,
        "notSent"
      )
    })
  )

  it.effect("is sent three times at most when it is idempotent", () =>
    Effect.gen(function* () {
      const { call, requests } = answering([exited])
      yield* Effect.flip(call(Schema.String, 1, { idempotent: true }))
      assert.lengthOf(requests, 3)
    })
  )
})

describe("a call with a time-out", () => {
  it.effect("whose deadline Python saw pass ends with CallTimeout", () =>
    Effect.gen(function* () {
      const { call } = answering([Effect.succeed(frame(Envelope.Kind.Interrupted))])
      const { reason } = yield* Effect.flip(call(Schema.String, 1, { timeout: "1 hour" }))
      assert.strictEqual(reason._tag, "CallTimeout")
    })
  )

  it.effect("tells the time that is left by the clock of its caller", () =>
    Effect.gen(function* () {
      const { call, requests } = answering([success])
      yield* call(Schema.String, 1, { timeout: "1 minute" })
      assert.strictEqual(requests[0]!.timeLeft!(), 60_000)
    })
  )
})

/** A worker that answers by hand. */
const byHand = Effect.map(setup(), ({ connection, worker }) => {
  const calls: Calls = { use: useOf(connection), enter: enterOf(connection), callTimeout: undefined }
  const received = worker.receiveKind(Envelope.Kind.Request)
  return { connection, worker, received, call: makeCall(calls), stream: makeStream(calls) }
})

describe("a call inside a host function", () => {
  it.effect("names the call that waits for it, and none that is over", () =>
    Effect.gen(function* () {
      const { call, connection, received, worker } = yield* byHand
      const outer = yield* Effect.forkChild(call(Schema.Null, 1))
      const { id } = yield* received
      const nested = Effect.provideService(call(Schema.Null, 2), CurrentRequest, { owner: connection.owner, call: id })
      const inner = yield* Effect.forkChild(nested)
      const first = yield* received
      assert.strictEqual(Envelope.decodeMeta(first.meta).parent, id)
      for (const each of [first.id, id]) worker.send(Envelope.Kind.Success, each, null)
      yield* Effect.all([Fiber.join(inner), Fiber.join(outer)])
      yield* Effect.forkChild(nested)
      assert.notProperty(Envelope.decodeMeta((yield* received).meta), "parent")
    })
  )
})

describe("progress", () => {
  const { Kind } = Envelope

  it.effect("that a listener cannot take does not hide what the call failed with", () =>
    Effect.gen(function* () {
      const { call, received, worker } = yield* byHand
      const progress = makeProgress(Schema.Int, () => Effect.void)
      const failing = yield* Effect.forkChild(call(Schema.Null, 1, { progress }))
      const { id } = yield* received
      worker.send(Kind.Progress, id, "no number")
      worker.send(Kind.Fail, id, { _tag: "Broken", message: "" })
      assert.strictEqual((yield* Effect.flip(Fiber.join(failing))).reason._tag, "HandlerFailed")
    })
  )

  it.effect("that nobody has an end of does not hold up a time-out", () =>
    Effect.gen(function* () {
      const { call, received, worker } = yield* byHand
      const progress = makeProgress(Schema.Int, () => Effect.never)
      const failing = yield* Effect.forkChild(call(Schema.Null, 1, { progress, timeout: "1 seconds" }))
      worker.send(Kind.Progress, (yield* received).id, 1)
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual((yield* Effect.flip(Fiber.join(failing))).reason._tag, "CallTimeout")
    })
  )

  it.live("is heard before a stream fails", () =>
    Effect.gen(function* () {
      const { received, stream, worker } = yield* byHand
      const heard: Array<number> = []
      const progress = makeProgress(Schema.Int, (n) =>
        Effect.delay(
          Effect.sync(() => heard.push(n)),
          1
        )
      )
      const failing = yield* Effect.forkChild(Stream.runDrain(stream(Schema.Null, 1, { progress })))
      const { id } = yield* received
      for (const n of [1, 2]) worker.send(Kind.Progress, id, n)
      worker.send(Kind.Fail, id, { _tag: "Broken", message: "" })
      assert.strictEqual((yield* Effect.flip(Fiber.join(failing))).reason._tag, "HandlerFailed")
      assert.deepStrictEqual(heard, [1, 2])
    })
  )
})

describe("an answer", () => {
  it.effect("of a reason that nobody knows, or without its details, is a ProtocolError", () =>
    Effect.gen(function* () {
      for (const answer of [turnedAway("Gremlins", null), turnedAway("MethodNotFound", 7)]) {
        const { reason } = yield* Effect.flip(answering([answer]).call(Schema.String, 1))
        assert.strictEqual(reason._tag, "ProtocolError")
      }
    })
  )
})

describe("a call that may have run, and is sent again", () => {
  const notSent = new SynapseError({ reason: new Closed({ delivery: "notSent" }) })
  for (const [what, last, options] of [
    ["ends with the runtime before", Effect.fail(notSent), {}],
    ["is turned away", turnedAway("MethodNotFound", { nearest: [] }), {}],
    ["is turned away again and again", turnedAway("Overloaded", { capacity: 1 }), {}]
  ] as const) {
    it.effect(`and then ${what}, fails with what may have been`, () =>
      Effect.gen(function* () {
        const { call } = answering([exited, last])
        const error = yield* Effect.flip(call(Schema.String, 1, { idempotent: true, ...options }))
        assert.deepStrictEqual([error.reason._tag, error.delivery], ["WorkerExited", "unknown"])
      })
    )
  }

  it.effect("and then is refused by everybody, says that it may have run", () =>
    Effect.gen(function* () {
      let calls = 0
      const stub: Pick<Connection.Connection, "open"> = {
        open: (_, caller) => {
          caller.ended(Effect.runSyncExit(exited), undefined)
          return undefined
        }
      }
      const enter: WorkerPool["enter"] = (entry) => {
        if (++calls === 1) entry.begin(stub as Connection.Connection, undefined)
        else entry.fail(new SynapseError({ reason: new Closed({ delivery: "notSent" }) }))
      }
      const call = makeCall({ use: () => Effect.never, enter, callTimeout: undefined })
      const { delivery, reason } = yield* Effect.flip(call(Schema.String, 1, { idempotent: true }))
      assert.deepStrictEqual([reason._tag, delivery], ["WorkerExited", "unknown"])
    })
  )

  it.effect("is not when its caller has gone meanwhile", () =>
    Effect.gen(function* () {
      let calls = 0
      const closing = Deferred.makeUnsafe<void>()
      const stub: Pick<Connection.Connection, "open"> = {
        open: (_, caller) => {
          caller.ended(Effect.runSyncExit(exited), Deferred.await(closing))
          return undefined
        }
      }
      const enter: WorkerPool["enter"] = (entry) => {
        calls++
        entry.begin(stub as Connection.Connection, undefined)
      }
      const call = makeCall({ use: () => Effect.never, enter, callTimeout: undefined })
      const fiber = yield* Effect.forkChild(call(Schema.String, 1, { idempotent: true }), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      yield* Deferred.succeed(closing, undefined)
      yield* Effect.yieldNow
      assert.strictEqual(calls, 1)
    })
  )

  it.effect("and then waits in vain, says that it may have run", () =>
    Effect.gen(function* () {
      let calls = 0
      const stub: Pick<Connection.Connection, "open"> = {
        open: (request, caller) => {
          request.onSent?.()
          caller.ended(Effect.runSyncExit(exited), undefined)
          return undefined
        }
      }
      const enter: WorkerPool["enter"] = (entry) => {
        if (++calls === 1) entry.begin(stub as Connection.Connection, undefined)
      }
      const call = makeCall({ use: () => Effect.never, enter, callTimeout: undefined })
      const fiber = yield* Effect.forkChild(
        Effect.flip(call(Schema.String, 1, { idempotent: true, queueTimeout: "1 second", totalTimeout: "1 minute" }))
      )
      yield* TestClock.adjust("5 seconds")
      const { delivery, reason } = yield* Fiber.join(fiber)
      assert.deepStrictEqual([reason._tag, delivery], ["CallTimeout", "unknown"])
    })
  )
})
