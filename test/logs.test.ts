import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Logger, Scope } from "effect"
import * as Logs from "../src/internal/logs.ts"
import { eventually } from "./fixtures/processes.ts"

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
  use: (logs: Logs.Logs) => Effect.Effect<void>,
  recordsPerSecond?: number
): Effect.fn.Return<void> {
  const scope = yield* Scope.make()
  yield* use(yield* Scope.provide(Logs.make(option, "/module", recordsPerSecond), scope))
  yield* Scope.close(scope, Exit.void)
})

/** Runs an effect, and gives what it has warned of meanwhile. */
const collecting = (effect: (warnings: ReadonlyArray<string>) => Effect.Effect<void>) => {
  const warnings: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    if (logLevel === "Warn") warnings.push(String(message))
  })
  return Effect.provide(effect(warnings), Logger.layer([logger]))
}
const dropped = (count: number) =>
  `${count} log records of Python were dropped: they came faster than limits.logRecordsPerSecond allows`

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

  it.live("beyond a number in a second are dropped for each worker, and counted in a warning", () =>
    collecting((warnings) => {
      const seen: Array<readonly [number, string]> = []
      return within(
        ({ message, pid }) => Effect.sync(() => void seen.push([pid, message])),
        (logs) =>
          Effect.gen(function* () {
            for (let n = 0; n < 100; n++) logs.record(1, log(`${n}`))
            logs.line(1, { source: "stdout", text: "printed", continued: false })
            logs.record(2, log("of another", { dropped: 3 }))
            yield* eventually(() => warnings.length > 0)
            assert.deepStrictEqual(warnings, [dropped(94)])
            assert.deepStrictEqual(seen.slice(0, 10), [
              ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => [1, `${n}`] as const)
            ])
            assert.deepStrictEqual(seen.slice(10), [[2, "of another"]])
            // The next second.
            yield* Effect.sleep("1100 millis")
            logs.record(1, log("later"))
            yield* eventually(() => seen.length === 12)
          }),
        10
      ).pipe(Effect.andThen(Effect.sync(() => assert.strictEqual(warnings.length, 1))))
    })
  )

  it.live("that were dropped after all others were logged are told at the end of the second", () =>
    collecting((warnings) => {
      const seen: Array<string> = []
      return within(
        ({ message }) => Effect.sync(() => void seen.push(message)),
        (logs) =>
          Effect.gen(function* () {
            logs.record(1, log("taken"))
            yield* eventually(() => seen.length === 1)
            for (let n = 0; n < 5; n++) logs.record(1, log("dropped"))
            assert.deepStrictEqual(warnings, [])
            yield* eventually(() => warnings.length > 0)
            assert.deepStrictEqual([warnings, seen], [[dropped(5)], ["taken"]])
          }),
        1
      )
    })
  )

  it.live("that were dropped are told when the scope is closed", () =>
    Effect.gen(function* () {
      let told: ReadonlyArray<string> = []
      yield* collecting((warnings) => {
        told = warnings
        const seen: Array<string> = []
        return within(
          ({ message }) => Effect.sync(() => void seen.push(message)),
          (logs) =>
            Effect.gen(function* () {
              logs.record(1, log("taken"))
              yield* eventually(() => seen.length === 1)
              for (let n = 0; n < 5; n++) logs.record(1, log("dropped"))
            }),
          1
        )
      })
      assert.deepStrictEqual(told, [dropped(5)])
    })
  )
})
