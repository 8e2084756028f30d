/** Each budget beside what this run measured. */
import type { Budget } from "../budgets.ts"
import { figures } from "./figures.ts"
import { type RowRounds, ratio } from "./results.ts"
import { median } from "./statistics.ts"

export interface Verdict {
  readonly about: string
  readonly limit: string
  readonly measured: string
  readonly verdict: "met" | "missed" | "not measured"
}

export type Rounds = ReadonlyMap<string, ReadonlyArray<RowRounds>>

export const judge = (budget: Budget, rounds: Rounds): Verdict => {
  const { about, atLeast, atMost, by, figure } = budget
  const unit = by === undefined ? ` ${figures[figure].unit}` : "×"
  const shown = (value: number): string => (by === undefined ? figures[figure].digits(value) : value.toFixed(2)) + unit
  const limit = atMost === undefined ? `at least ${shown(atLeast ?? 0)}` : `at most ${shown(atMost)}`
  const value = measured(budget, rounds)
  if (typeof value === "string") return { about, limit, measured: value, verdict: "not measured" }
  const isMet = value <= (atMost ?? Number.POSITIVE_INFINITY) && value >= (atLeast ?? Number.NEGATIVE_INFINITY)
  return { about, limit, measured: shown(value), verdict: isMet ? "met" : "missed" }
}

/** The figure, or why there is none. */
const measured = ({ by, figure, row, workload }: Budget, rounds: Rounds): number | string => {
  const rows = rounds.get(workload)
  if (rows === undefined) return "workload left out"
  const of = rows.find(({ id }) => id === row)
  const to = by === undefined ? undefined : rows.find(({ id }) => id === by)
  for (const needed of [of, ...(by === undefined ? [] : [to])]) {
    if (needed === undefined) return "contender left out"
    if (needed.failure !== undefined) return `${needed.label}: ${needed.failure}`
  }
  const value = to === undefined ? valueOf(of!, figure) : ratio(of!, to, figure)
  return value ?? "no figure"
}

const valueOf = ({ samples }: RowRounds, figure: Budget["figure"]): number | undefined => {
  const values = samples.flatMap((sample) => (sample === undefined ? [] : (figures[figure].of(sample) ?? [])))
  return values.length === 0 ? undefined : median(values)
}
