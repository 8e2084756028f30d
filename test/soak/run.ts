/**
 * The soak for as long as is wanted: `npm run soak -- --seconds 300 --fault-every 1000`.
 *
 * `--workers` and `--concurrency` (threads of each) shape the runtime, `--callers` says how many operations there are at a
 * time, `--fault-every` how many milliseconds are from one fault to the next (0: none), `--seed` decides what is called and
 * what goes wrong. `--json FILE` also writes all figures, `--json -` prints them instead. The exit code is 1 when something was
 * not as it should be.
 */
import { writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { Effect } from "effect"
import { type Report, soak } from "./soak.ts"

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    workers: { type: "string", default: "2" },
    concurrency: { type: "string", default: "1" },
    callers: { type: "string", default: "24" },
    "fault-every": { type: "string", default: "1000" },
    json: { type: "string" }
  }
})

const number = (
  name: "seconds" | "seed" | "workers" | "concurrency" | "callers" | "fault-every",
  least: number
): number => {
  const value = Number(values[name])
  if (Number.isFinite(value) && value >= least) return value
  throw new Error(`--${name} is ${values[name]}, not a number from ${least}`)
}

const counts = (of: Readonly<Record<string, number>>): string =>
  Object.entries(of)
    .sort(([, a], [, b]) => b - a)
    .map(([name, count]) => `${name} ${count}`)
    .join(", ")

const rowsOf = (report: Report): ReadonlyArray<readonly [string, string]> => {
  const { latest, lagMillis: lag, options, rssMiB: rss } = report
  const whole = (n: number): string => n.toFixed(0)
  return [
    ["seed", `${options.seed}, ${options.seconds} s, ${options.callers} callers`],
    ["workers", `${options.workers} with ${options.concurrency} threads, a fault every ${options.faultEvery} ms`],
    ["calls", `${report.begun} begun, ${report.ended} ended, ${whole(report.perSecond)}/s`],
    ["ends", counts(report.outcomes)],
    ["runs in Python", `${report.executed}, ${report.executedAgain} of them more than once`],
    ["idempotent", `${report.idempotent.calls}, ${report.idempotent.failed} failed`],
    [
      "ended by a fault",
      `${report.disrupted}, and ${report.garbled} altered, of ${report.dooms} that may end a worker`
    ],
    ["faults", `${counts(report.faults)}; ${report.skipped} found no worker`],
    ["processes", `${report.processes} of ${report.runtimes} runtimes, ${report.restarts} restarts`],
    ["status", `${report.statusChanges} changes, largest worker ${whole(report.workerMiB)} MiB`],
    [
      "memory of Node",
      `${whole(rss.first)} to ${whole(rss.last)} MiB, ${rss.slope.toFixed(3)} MiB/s over the last two thirds`
    ],
    ["in use", `${report.liveMiB.map((mebibytes) => mebibytes.toFixed(1)).join(", ")} MiB after collections`],
    [
      "event loop",
      `late by ${lag.p50.toFixed(1)} ms (p50), ${lag.p99.toFixed(1)} ms (p99), ${whole(lag.max)} ms (most)`
    ],
    [
      "at the latest",
      `interruption ${whole(latest.interruption)} ms, time-out ${whole(latest.timeout)} ms late, ` +
        `close ${whole(latest.close)} ms, rest ${whole(latest.rest)} ms`
    ],
    ["wrong", report.wrong.length === 0 ? "nothing" : `\n${[...report.wrong, ...report.notes].join("\n")}`]
  ]
}

process.env.SYNAPSE_CACHE_DIRECTORY ??= fileURLToPath(
  new URL("../../node_modules/.cache/effect-synapse", import.meta.url)
)
const report = await Effect.runPromise(
  soak({
    seconds: number("seconds", 0),
    seed: number("seed", 0),
    workers: number("workers", 1),
    concurrency: number("concurrency", 1),
    callers: number("callers", 1),
    faultEvery: number("fault-every", 0)
  })
)
const json = JSON.stringify(report, undefined, 2)
if (values.json === "-") console.log(json)
else {
  for (const [name, value] of rowsOf(report)) console.log(`${name.padEnd(16)}  ${value}`)
  if (values.json !== undefined) writeFileSync(values.json, `${json}\n`)
}
if (report.wrong.length > 0) process.exitCode = 1
