/** This run beside an earlier one, by ratios: absolute figures of two runs say little about the code. */
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { table } from "./report.ts"
import type { Results, RowResult, WorkloadResult } from "./results.ts"

const committed = "bench/results/latest.json"

/** The results in a file, or those of the last commit, or nothing where there are none. */
export const readEarlier = (file: string): Results | undefined => {
  if (file !== "") return JSON.parse(readFileSync(file, "utf8")) as Results
  const cwd = fileURLToPath(new URL("../..", import.meta.url))
  const { status, stdout } = spawnSync("git", ["show", `HEAD:${committed}`], {
    cwd,
    encoding: "utf8",
    maxBuffer: 2 ** 26
  })
  return status === 0 ? (JSON.parse(stdout) as Results) : undefined
}

/** What the others of a workload are divided by: the floor where there is one. */
const referenceOf = ({ rows }: WorkloadResult): RowResult | undefined =>
  rows.find(({ id, rounds }) => id === "floor" && rounds > 0) ?? rows.find(({ rounds }) => rounds > 0)

export const describeComparison = (now: Results, earlier: Results): string => {
  const lines = now.workloads.flatMap((workload) => {
    const reference = referenceOf(workload)
    const before = earlier.workloads.find(({ name }) => name === workload.name)
    if (reference === undefined || before === undefined) return []
    return workload.rows.flatMap((row) => {
      const then = before.rows.find(({ id }) => id === row.id)?.times[reference.id]
      const today = row.times[reference.id]
      if (then === undefined || today === undefined) return []
      const change = ((today / then - 1) * 100).toFixed(0)
      const sign = today >= then ? "+" : ""
      return [
        {
          cells: [`${workload.name}: ${row.label}`, then.toPrecision(3), today.toPrecision(3), `${sign}${change} %`],
          text: `by ${reference.label}`
        }
      ]
    })
  })
  const title = `Ratios of time beside those of ${earlier.date}, by the first row of each workload (more is slower)`
  return `${title}\n\n${table(["", "then", "now", "change"], lines)}\n`
}
