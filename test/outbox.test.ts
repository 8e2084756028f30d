import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import type * as Socket from "effect/socket/Socket"
import * as Envelope from "../src/Envelope.ts"
import * as Outbox from "../src/internal/outbox.ts"
import { settle } from "./fixtures/pool.ts"

/** An outbox whose writes wait until they are let go on. */
const setup = Effect.gen(function* () {
  const frames = Envelope.makeWriter()
  const reader = Envelope.makeReader()
  const state = { floods: 0, written: [] as Array<Envelope.Frame>, next: Deferred.makeUnsafe<void>() }
  const outbox = Outbox.make<number>({
    capacity: 16,
    frames,
    encode: (call) => frames.request(call, { method: "main" }, null),
    isWanted: () => true,
    onFlood: () => state.floods++
  })
  const writer: Socket.Writer = {
    write: (bytes) =>
      Effect.suspend(() => {
        state.written.push(...reader.push(bytes as Uint8Array))
        return Deferred.await(state.next)
      }),
    writeAll: () => Effect.void
  }
  yield* Effect.forkScoped(outbox.write(writer))
  yield* settle
  /** Lets what is being written go, and so the next batch come. */
  const goOn = Effect.suspend(() => {
    const { next } = state
    state.next = Deferred.makeUnsafe()
    Deferred.doneUnsafe(next, Effect.void)
    return settle
  })
  const answer = (id: number, size: number): void =>
    outbox.post({ kind: Envelope.Kind.Success, id, payload: "x".repeat(size) })
  return { outbox, state, goOn, answer }
})

describe("an outbox", () => {
  it.effect("that is never empty is no flood, and every frame leaves once", () =>
    Effect.gen(function* () {
      const { answer, goOn, state } = yield* setup
      const size = 20_000
      let posted = 0
      for (; posted < 64; posted++) answer(posted, size)
      // As many more as have left, again and again.
      while (posted < 20_000) {
        yield* goOn
        while (posted < state.written.length + 64 && posted < 20_000) answer(posted++, size)
      }
      while (state.written.length < posted) yield* goOn
      assert.strictEqual(state.floods, 0)
      assert.deepStrictEqual(
        state.written.map(({ id }) => id),
        Array.from({ length: posted }, (_, id) => id)
      )
    })
  )

  it.effect("says so when more is asked for than is read", () =>
    Effect.gen(function* () {
      const { answer, state } = yield* setup
      for (let id = 0; id < 16_500; id++) answer(id, 1)
      assert.isAbove(state.floods, 0)
    })
  )

  it.effect("lets requests leave, however many answers there are", () =>
    Effect.gen(function* () {
      const { answer, goOn, outbox, state } = yield* setup
      let posted = 0
      for (; posted < 64; posted++) answer(posted, 20_000)
      outbox.request(7)
      for (let turn = 0; turn < 30; turn++) {
        while (posted < state.written.length + 64) answer(posted++, 20_000)
        yield* goOn
      }
      assert.strictEqual(state.written.filter(({ kind }) => kind === Envelope.Kind.Request).length, 1)
    })
  )

  it.live("in which each call that cannot be encoded makes the next one leaves others their turn", () =>
    Effect.gen(function* () {
      let calls = 0
      let isOthersTurn = false
      const outbox = Outbox.make<number>({
        capacity: 16,
        frames: Envelope.makeWriter(),
        encode: () => {
          // Without turns of others this would go on for good.
          if (++calls < 100_000 && !isOthersTurn) outbox.request(1)
        },
        isWanted: () => true,
        onFlood: () => {}
      })
      yield* Effect.forkScoped(outbox.write({ write: () => Effect.void, writeAll: () => Effect.void }))
      yield* Effect.yieldNow
      outbox.request(1)
      yield* Effect.callback<void>((resume) => {
        setImmediate(() => {
          isOthersTurn = true
          resume(Effect.void)
        })
      })
      assert.isBelow(calls, 100_000)
    })
  )
})
