/**
 * The benchmark: `npm run bench`. It measures Synapse, what the machine allows, and other ways from Node to Python in one
 * run, and prints one page. `README.md` beside this file tells how to read it.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { type Arguments, parseArguments } from "./arguments.ts"
import { budgets } from "./budgets.ts"
import { drawChart } from "./chart/draw.ts"
import { contenders } from "./contenders.ts"
import { killAll } from "./harness/child.ts"
import { describeComparison, readEarlier } from "./harness/compare.ts"
import { type Entrant, measure } from "./harness/driver.ts"
import { install } from "./harness/install.ts"
import { findPython, type Interpreter, describeMachine as machineOf } from "./harness/machine.ts"
import { describeMachine, describeVerdicts, describeWorkload, legend } from "./harness/report.ts"
import { type Results, type RowRounds, summarise, type WorkloadResult } from "./harness/results.ts"
import { judge } from "./harness/verdicts.ts"
import { full, quick, type Workload, workloadsAt } from "./workloads.ts"

const folder = fileURLToPath(new URL(".", import.meta.url))

const isPeerNamed = (peers: Arguments["peers"], name: string): boolean =>
  peers === "all" || peers.some((each) => name === each || name.startsWith(`${each}-`))

const checkPeers = ({ peers }: Arguments): void => {
  for (const name of peers === "all" ? [] : peers) {
    const isKnown = contenders.some((contender) => contender.peer !== undefined && isPeerNamed([name], contender.name))
    if (!isKnown) throw new Error(`no peer is called ${name}: see --list`)
  }
}

/** Everyone who was asked for; a peer that cannot be installed stays, with the reason. */
const gather = async ({ peers }: Arguments, workloads: ReadonlyArray<Workload>, python: Interpreter) => {
  const needed = new Set(workloads.flatMap(({ rows }) => rows.map(({ contender }) => contender)))
  const entrants = new Map<string, Entrant>()
  const failures = new Map<string, string | undefined>()
  for (const contender of contenders) {
    const { name, peer } = contender
    if (!needed.has(name) || (peer !== undefined && !isPeerNamed(peers, name))) continue
    if (peer !== undefined && !failures.has(peer)) {
      const done = install(join(folder, "peers", peer), python.path)
      failures.set(
        peer,
        await done.then(
          () => undefined,
          (error: Error) => `cannot be installed: ${error.message}`
        )
      )
    }
    entrants.set(name, { ...contender, unavailable: peer === undefined ? undefined : failures.get(peer) })
  }
  return entrants
}

const list = (workloads: ReadonlyArray<Workload>): void => {
  for (const { name, rows, title } of workloads) {
    console.log(`${name.padEnd(14)}${title}`)
    console.log(`${"".padEnd(14)}  ${rows.map(({ id }) => id).join("; ")}`)
  }
  console.log(`\npeers: ${contenders.flatMap(({ name, peer }) => (peer === undefined ? [] : [name])).join(", ")}`)
}

const resultOf = ({ figure, name, title }: Workload, rows: ReadonlyArray<RowRounds>): WorkloadResult => ({
  name,
  title,
  figure,
  rows: rows.map((row) => summarise(row, rows, figure))
})

const save = async (results: Results): Promise<void> => {
  const target = join(folder, "results")
  mkdirSync(target, { recursive: true })
  writeFileSync(join(target, "latest.json"), `${JSON.stringify(results, undefined, 1)}\n`)
  try {
    writeFileSync(join(target, "chart.svg"), await drawChart(results))
    console.log("bench/results/latest.json and bench/results/chart.svg are written")
  } catch (error) {
    console.log(`bench/results/latest.json is written; no chart: ${error instanceof Error ? error.message : error}`)
  }
}

const main = async (args: Arguments, scratch: string): Promise<void> => {
  const all = workloadsAt(args.quick ? quick : full)
  const workloads = all.filter(({ name }) => args.only.length === 0 || args.only.some((part) => name.includes(part)))
  if (args.list) return list(workloads)
  checkPeers(args)
  if (workloads.length === 0) throw new Error(`no workload is called ${args.only.join(" or ")}: see --list`)
  // Before anything is written where it may be read from.
  const earlier = args.compare === undefined ? undefined : readEarlier(args.compare)
  const begin = performance.now()
  const python = findPython()
  const machine = machineOf(python)
  console.log(`${describeMachine(machine)}\n\n${legend}\n`)
  const entrants = await gather(args, workloads, python)
  const env = {
    ...process.env,
    BENCH_PYTHON: python.path,
    SYNAPSE_PYTHON: python.path,
    SYNAPSE_CACHE_DIRECTORY: join(scratch, "environments")
  }
  const rounds = new Map<string, ReadonlyArray<RowRounds>>()
  const measured: Array<WorkloadResult> = []
  for (const workload of workloads) {
    const rows = await measure(workload, { entrants, env })
    rounds.set(workload.name, rows)
    measured.push(resultOf(workload, rows))
    console.log(describeWorkload(measured.at(-1)!))
  }
  const results: Results = { machine, date: new Date().toISOString(), quick: args.quick, workloads: measured }
  console.log(describeVerdicts(budgets.map((budget) => judge(budget, rounds))))
  if (earlier !== undefined) console.log(describeComparison(results, earlier))
  else if (args.compare !== undefined) console.log("No earlier run is committed to compare with.\n")
  if (args.json !== undefined) writeFileSync(args.json, `${JSON.stringify(results, undefined, 1)}\n`)
  if (args.save) await save(results)
  console.log(`${((performance.now() - begin) / 1000).toFixed(0)} seconds`)
}

const scratch = mkdtempSync(join(tmpdir(), "synapse-bench-"))
const end = (): void => {
  killAll()
  rmSync(scratch, { recursive: true, force: true })
}
for (const [signal, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143]
] as const) {
  process.on(signal, () => {
    end()
    process.exit(code)
  })
}
try {
  await main(parseArguments(process.argv.slice(2)), scratch)
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
} finally {
  end()
}
