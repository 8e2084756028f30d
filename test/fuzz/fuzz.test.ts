/**
 * A few seconds of what `npm run fuzz` does for as long as it is told to: stored cases first, then the same seeds as ever,
 * then new ones. What fails says its seed; `node test/fuzz/run.ts --seed N --cases 1` runs it again.
 */
import { assert, describe, it } from "@effect/vitest"
import { cases } from "./cases.ts"
import { checkBytes, fuzzCodec } from "./codec.ts"
import { Random } from "./random.ts"
import { endings, replay, run, session, splits } from "./sessions.ts"

const fresh = Date.now() % 2 ** 31

const during = async (seed: number, test: () => unknown): Promise<void> => {
  try {
    await test()
  } catch (error) {
    throw new Error(`seed ${seed}`, { cause: error })
  }
}

describe("the codec", () => {
  it("takes the stored cases", () => {
    for (const { lines, name } of cases("codec")) {
      for (const bytes of lines)
        assert.doesNotThrow(() => checkBytes(bytes), undefined, `${name}: ${bytes.toString("hex")}`)
    }
  })

  for (const first of [1, fresh]) {
    it(`makes a value or a CodecError of any bytes, from the seed ${first} on`, async () => {
      for (let seed = first; seed < first + 20_000; seed++) await during(seed, () => fuzzCodec(seed))
    })
  }
})

describe("a connection to a hostile worker", () => {
  it("takes the stored cases", async () => {
    for (const { lines, name } of cases("worker")) {
      for (const ending of endings) {
        await run(replay(lines, ending)).catch((cause) => {
          throw new Error(`${name}, ${ending}`, { cause })
        })
      }
    }
  })

  it("gives every call the same end wherever a session is cut", async () => {
    const all = splits()
    const whole = await run(all[0]!)
    // By what was sent; three of the calls have time limits.
    const timeless = (outcomes: ReadonlyArray<string>) => outcomes.filter((_, i) => i < 7 || i > 9)
    for (let i = 1; i < all.length; i += 7) assert.deepStrictEqual(timeless(await run(all[i]!)), timeless(whole))
  })

  for (const first of [1, fresh]) {
    it(`ends every call once, with a value or a typed error, from the seed ${first} on`, async () => {
      for (let seed = first; seed < first + 400; seed++) await during(seed, () => run(session(new Random(seed))))
    })
  }
})
