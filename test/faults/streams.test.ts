/** Streams that break, in either direction, and consumers that do. */
import { assert, describe } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import { Synapse } from "effect-synapse"
import { reasonOf, upTo } from "../fixtures/dialogue.ts"
import { call, pid, row } from "./aftermath.ts"

const quick = { quick: true } as const

const numbers = (input: object, method = "count") => Synapse.stream(Schema.Int, input, { method })

const resident = Synapse.call(Schema.Int, {}, { method: "resident" })

describe("a stream", () => {
  // Of 100 MiB that were taken, Node gives back what it gets to; none of them is held.
  row("slow-consumer", { memoryMiB: 100 }, ({ run }) =>
    run(
      {},
      Effect.gen(function* () {
        const before = yield* resident
        let taken = 0
        // 400 MiB, if they were produced as fast as possible.
        yield* Synapse.stream(Schema.Uint8Array, { to: 400, size: 2 ** 20 }, { method: "count" }).pipe(
          Stream.take(100),
          Stream.runForEach(() =>
            Effect.andThen(
              Effect.sleep(1),
              Effect.sync(() => void taken++)
            )
          )
        )
        assert.strictEqual(taken, 100)
        assert.isBelow((yield* resident) - before, 60 * 2 ** 20)
      })
    )
  )

  row("early-stop", quick, ({ run }) =>
    run(
      {},
      Effect.gen(function* () {
        const taken = yield* Stream.runCollect(Stream.take(numbers({ to: 100_000 }), 20))
        assert.deepStrictEqual(taken, upTo(20))
        yield* Effect.repeat(call("seen"), {
          until: (seen) => (seen as ReadonlyArray<string>).includes("count closed")
        })
      })
    )
  )

  row("stream-breaks", quick, ({ run }) =>
    run(
      {},
      Effect.gen(function* () {
        const before = yield* pid
        const seen: Array<number> = []
        const reason = yield* reasonOf(
          Stream.runForEach(numbers({ after: 3, how: "raise" }, "breaks"), (n) => Effect.sync(() => seen.push(n))),
          "PythonException"
        )
        assert.deepStrictEqual([seen, reason.type], [upTo(3), "LookupError"])
        assert.strictEqual(yield* pid, before)
      })
    )
  )

  row("crash-mid-stream", quick, ({ run }) =>
    run(
      {},
      Effect.gen(function* () {
        const seen: Array<number> = []
        const reason = yield* reasonOf(
          Stream.runForEach(numbers({ after: 50, how: "kill" }, "breaks"), (n) => Effect.sync(() => seen.push(n))),
          "WorkerExited"
        )
        assert.deepStrictEqual([seen, reason.signal, reason.delivery], [upTo(50), "SIGKILL", "unknown"])
      })
    )
  )

  row("over-credit", quick, ({ run }) =>
    run(
      { entrypoint: "raw", env: { FAULT: "over-credit" } },
      Effect.gen(function* () {
        let taken = 0
        const reason = yield* reasonOf(
          Synapse.stream(Schema.String, {}, { method: "items" }).pipe(
            Stream.runForEach(() =>
              Effect.andThen(
                Effect.sleep(1),
                Effect.sync(() => void taken++)
              )
            )
          ),
          "ProtocolError"
        )
        assert.include(reason.detail, "more items than it was granted")
        assert.isAtMost(taken, 64)
      })
    )
  )

  row("upload-stream-fails", quick, ({ run }) =>
    run(
      {},
      Effect.gen(function* () {
        const before = yield* pid
        const broken = Stream.concat(Stream.range(0, 2), Stream.fail("broken"))
        assert.deepStrictEqual(yield* call("caught", { numbers: broken }), { read: [0, 1, 2], error: "broken" })
        const reason = yield* reasonOf(call("total", { numbers: broken }), "HandlerFailed")
        assert.strictEqual(reason.error, "broken")
        const dying = Stream.concat(Stream.range(0, 2), Stream.die(new Error("a bug")))
        yield* reasonOf(call("total", { numbers: dying }), "PythonException")
        assert.strictEqual(yield* pid, before)
      })
    )
  )
})
