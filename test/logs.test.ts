import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import * as Logs from "../src/internal/logs.ts"

const log = (message: string, overrides: object = {}) => ({
  level: 20,
  logger: "app",
  message,
  time: 0,
  id: null,
  file: "/module/main.py",
  line: 3,
  exception: null,
  ...overrides
})

const within = Effect.fnUntraced(function* (
  option: Logs.LogsOption,
  use: (logs: Logs.Logs) => Effect.Effect<void>
): Effect.fn.Return<void> {
  const scope = yield* Scope.make()
  yield* use(yield* Scope.provide(Logs.make(option, "/module"), scope))
  yield* Scope.close(scope, Exit.void)
})

describe("log records", () => {
  it.effect("are all delivered before the scope is closed, files named from the module's directory", () =>
    Effect.gen(function* () {
      const records: Array<Logs.LogRecord> = []
      yield* within(
        (record) => Effect.sync(() => records.push(record)),
        (logs) => Effect.forEach([1, 2, 3], (n) => Effect.sync(() => logs.record(1, log(`${n}`))), { discard: true })
      )
      assert.deepStrictEqual(
        records.map(({ file, message }) => [file, message]),
        [1, 2, 3].map((n) => ["main.py", `${n}`])
      )
    })
  )

  it.effect("do not keep the scope open when nobody takes them", () =>
    within(
      () => Effect.never,
      (logs) =>
        Effect.andThen(
          Effect.sync(() => logs.record(1, log("stuck"))),
          Effect.yieldNow
        )
    )
  )

  it.effect("go on after one that could not be logged", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      yield* within(
        (record) =>
          record.message === "2" ? Effect.die(new Error("no")) : Effect.sync(() => void seen.push(record.message)),
        (logs) => Effect.forEach([1, 2, 3], (n) => Effect.sync(() => logs.record(1, log(`${n}`))), { discard: true })
      )
      assert.deepStrictEqual(seen, ["1", "3"])
    })
  )

  it.effect("that come too fast are dropped, by number and by size, and long ones are cut", () =>
    Effect.gen(function* () {
      const sizes: Array<number> = []
      yield* within(
        (record) => Effect.sync(() => sizes.push(record.message.length)),
        (logs) => Effect.sync(() => Array.from({ length: 2000 }, () => logs.record(1, log("x".repeat(100_000)))))
      )
      assert.isBelow(sizes.length, 300)
      assert.isAtMost(Math.max(...sizes), 65_537)
    })
  )
})
