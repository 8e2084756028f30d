/**
 * Fuzzing for as long as is wanted, in both directions: `node test/fuzz/run.ts --seconds 300`.
 *
 * `--only codec|worker|host` takes one part, `--seed` the first seed, `--cases` how many seeds instead of how long. A session
 * that fails is made as small as it can be and printed as a file for `test/fuzz/cases/`.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { fuzzCodec } from "./codec.ts"
import { Random } from "./random.ts"
import { run, type Session, session } from "./sessions.ts"

const { values: options } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
    cases: { type: "string" },
    only: { type: "string" }
  }
})
const parts = ["codec", "worker", "host"] as const
const chosen = parts.filter((part) => options.only === undefined || options.only === part)
const seconds = Number(options.seconds) / chosen.length
const firstSeed = Number(options.seed)
const limit = options.cases === undefined ? Number.POSITIVE_INFINITY : Number(options.cases)

let rejection: unknown
process.on("unhandledRejection", (reason) => {
  rejection = reason ?? "an unhandled rejection"
})

const failureOf = async (test: () => unknown): Promise<unknown> => {
  rejection = undefined
  try {
    await test()
  } catch (error) {
    return error
  }
  return rejection
}

/** Leaves writes out as long as it still fails. */
const smallest = async (failing: Session): Promise<Session> => {
  let best = failing
  for (let i = 0; i < best.writes.length; ) {
    const without = (list: ReadonlyArray<number>) => list.filter((_, at) => at !== i)
    const smaller = { ...best, writes: best.writes.filter((_, at) => at !== i), pauses: without(best.pauses) }
    if ((await failureOf(() => run(smaller, 1000))) === undefined) i++
    else best = smaller
  }
  return best
}

/** Runs seeds until the time is over, and gives the first that fails. */
const search = async (name: string, test: (seed: number) => unknown): Promise<number | undefined> => {
  const end = performance.now() + seconds * 1000
  let seed = firstSeed
  let longest = 0
  for (; seed - firstSeed < limit && performance.now() < end; seed++) {
    const begin = performance.now()
    const failure = await failureOf(() => test(seed))
    longest = Math.max(longest, performance.now() - begin)
    if (failure === undefined) continue
    console.error(`${name}: seed ${seed} fails`, failure)
    return seed
  }
  console.log(
    `${name}: ${seed - firstSeed} cases from the seed ${firstSeed} on, the longest took ${Math.round(longest)} ms`
  )
  return undefined
}

const codec = async (): Promise<boolean> => (await search("codec", fuzzCodec)) === undefined

const worker = async (): Promise<boolean> => {
  const seed = await search("worker", (seed) => run(session(new Random(seed))))
  if (seed === undefined) return true
  const { ending, pauses, writes } = await smallest(session(new Random(seed)))
  const lines = writes.map((write) => Buffer.from(write).toString("hex"))
  console.error(`# seed ${seed}, ends with ${ending}, pauses ${pauses.join(" ")}\n${lines.join("\n")}`)
  return false
}

/** Python's side: with what `node test/python.ts test` has installed. */
const host = async (): Promise<boolean> => {
  const root = fileURLToPath(new URL("../../python/", import.meta.url))
  const python = ["3.14", "3.13", "3.12", "3.11", "3.10"]
    .map((version) => `${root}.venv/${version}/bin/python`)
    .find((path) => existsSync(path))
  if (python === undefined) throw new Error("no Python with test tools: run `npm run test:python` first")
  const child = spawn(python, ["-m", "pytest", "-p", "no:cacheprovider", "-s", "tests/test_fuzz.py"], {
    cwd: root,
    env: {
      ...process.env,
      SYNAPSE_FUZZ_SECONDS: String(seconds),
      SYNAPSE_FUZZ_SEED: String(firstSeed),
      ...(options.cases === undefined ? {} : { SYNAPSE_FUZZ_CASES: options.cases })
    },
    stdio: "inherit"
  })
  const [status] = await once(child, "exit")
  return status === 0
}

const runners = { codec, worker, host }
for (const part of chosen) if (!(await runners[part]())) process.exitCode = 1
