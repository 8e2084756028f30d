/**
 * Short runs of the soak: everything at once and at random, with faults and without. `npm run soak` does it for as long as it
 * is told to; with the seed of a run that failed, it does the same again.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type Options, soak } from "./soak/soak.ts"

const seed = Number(process.env.SYNAPSE_SOAK_SEED ?? Date.now() % 1_000_000)

const soaks = (what: string, options: Omit<Options, "seed" | "callers">): void => {
  it.live(
    `${what} (seed ${seed})`,
    () =>
      Effect.gen(function* () {
        const report = yield* soak({ ...options, seed, callers: 24 })
        const { faults, outcomes, wrong } = report
        assert.deepStrictEqual(wrong, [], JSON.stringify(report))
        assert.isAbove(outcomes.value ?? 0, 100)
        assert.isAbove(outcomes.interrupted ?? 0, 10)
        assert.isAbove(outcomes.CallTimeout ?? 0, 1)
        assert.strictEqual(Object.keys(faults).length > 0, options.faultEvery > 0)
      }),
    (options.seconds + 240) * 1000
  )
}

describe("everything at once", () => {
  soaks("ends once, with its own value or an error that a fault explains, and leaves nothing", {
    seconds: 20,
    workers: 2,
    concurrency: 1 + (seed % 3),
    faultEvery: 500
  })

  soaks("ends once, with its own value, where nothing goes wrong", {
    seconds: 15,
    workers: 1,
    concurrency: seed % 2 === 0 ? 1 : 3,
    faultEvery: 0
  })
})
