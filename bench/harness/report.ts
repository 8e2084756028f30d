/** The page: a table for each workload, then the budgets. */
import { type FigureName, figures } from "./figures.ts"
import type { Machine } from "./machine.ts"
import type { RowResult, WorkloadResult } from "./results.ts"
import type { Verdict } from "./verdicts.ts"

interface Column {
  readonly header: string
  readonly cell: (row: RowResult) => string
}

const times = (value: number | undefined): string => {
  if (value === undefined) return ""
  return value >= 100 ? value.toFixed(0) : value.toPrecision(value >= 10 ? 3 : 2)
}

const figure = (header: string, name: FigureName, scale = 1): Column => ({
  header,
  cell: ({ figures: known }) => {
    const spread = known[name]
    return spread === undefined ? "" : figures[name].digits(spread.median * scale)
  }
})

const ratioTo = (header: string, to: string): Column => ({
  header,
  cell: (row) => (row.id === to ? (row.rounds > 0 ? "1" : "") : times(row.times[to]))
})

const columnsOf = ({ figure: name, rows }: WorkloadResult): ReadonlyArray<Column> => {
  const { digits, unit } = figures[name]
  // One operation that takes milliseconds has its CPU told in milliseconds too.
  const [cpuUnit, cpuScale] = name === "millis" ? ["ms", 1 / 1000] : ["µs", 1]
  const columns: ReadonlyArray<Column> = [
    figure(unit, name),
    {
      header: "quartiles",
      cell: ({ figures: known }) => {
        const spread = known[name]
        return spread === undefined ? "" : `${digits(spread.low)} - ${digits(spread.high)}`
      }
    },
    figure("p99", "p99"),
    ratioTo("× floor", "floor"),
    ratioTo("× Synapse", rows.some(({ id }) => id === "synapse") ? "synapse" : (rows[0]?.id ?? "")),
    figure("by share of pages", "proportional"),
    figure("growth, MB", "growth"),
    figure(`CPU, Node, ${cpuUnit}`, "nodeCpu", cpuScale),
    figure(`CPU, Python, ${cpuUnit}`, "pythonCpu", cpuScale),
    { header: "rounds", cell: ({ rounds }) => (rounds === 0 ? "" : String(rounds)) }
  ]
  return columns.filter(({ cell }) => rows.some((row) => cell(row) !== ""))
}

/** The first column is aligned to the left, the others to the right; what follows them is text. */
export const table = (
  headers: ReadonlyArray<string>,
  rows: ReadonlyArray<{ readonly cells: ReadonlyArray<string>; readonly text?: string | undefined }>
): string => {
  const all = [headers, ...rows.map(({ cells }) => cells)]
  const widths = headers.map((_, i) => Math.max(...all.map((cells) => cells[i]?.length ?? 0)))
  const line = (cells: ReadonlyArray<string>, text = ""): string =>
    [...cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))), text]
      .join("  ")
      .trimEnd()
  return [line(headers), ...rows.map(({ cells, text }) => line(cells, text))].join("\n")
}

export const describeWorkload = (workload: WorkloadResult): string => {
  const columns = columnsOf(workload)
  const rows = workload.rows.map((row) =>
    row.failure === undefined
      ? { cells: [row.label, ...columns.map(({ cell }) => cell(row))] }
      : { cells: [row.label], text: `n/a: ${row.failure}` }
  )
  return `${workload.name}: ${workload.title}\n\n${table(["", ...columns.map(({ header }) => header)], rows)}\n`
}

export const describeVerdicts = (verdicts: ReadonlyArray<Verdict>): string =>
  `Budgets\n\n${table(
    ["", "budget", "measured", ""],
    verdicts.map(({ about, limit, measured, verdict }) =>
      verdict === "not measured"
        ? { cells: [about, limit], text: `not measured: ${measured}` }
        : { cells: [about, limit, measured, verdict] }
    )
  )}\n`

export const describeMachine = ({ cores, cpu, kernel, memoryGb, node, python }: Machine): string =>
  `${cpu}, ${cores} cores, ${memoryGb} GB; ${kernel}; Node ${node}, Python ${python}`

export const legend = `Medians over the rounds, with their quartiles. "× floor" and "× Synapse" say how many times as long a row took as that one
in the same round. CPU is what each side used for one operation: the contender's Node process, and all processes below it.`
