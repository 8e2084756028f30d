/** What a run came to: the rounds of each row, reduced to medians, spreads and ratios. */
import { type FigureName, figureNames, figures } from "./figures.ts"
import type { Machine } from "./machine.ts"
import type { Sample } from "./protocol.ts"
import { median, type Spread, spreadOf } from "./statistics.ts"

/** The rounds of a row; one that it did not take part in is empty. */
export interface RowRounds {
  readonly id: string
  readonly label: string
  readonly samples: ReadonlyArray<Sample | undefined>
  readonly failure?: string | undefined
}

export interface RowResult {
  readonly id: string
  readonly label: string
  readonly rounds: number
  readonly figures: Partial<Record<FigureName, Spread>>
  /** How many times as long as each other row it took, by the workload's figure. */
  readonly times: Readonly<Record<string, number>>
  readonly failure?: string | undefined
}

export interface WorkloadResult {
  readonly name: string
  readonly title: string
  readonly figure: FigureName
  readonly rows: ReadonlyArray<RowResult>
}

export interface Results {
  readonly machine: Machine
  readonly date: string
  readonly quick: boolean
  readonly workloads: ReadonlyArray<WorkloadResult>
}

const valuesOf = ({ samples }: RowRounds, name: FigureName): ReadonlyArray<number | undefined> =>
  samples.map((sample) => (sample === undefined ? undefined : figures[name].of(sample)))

const isNumber = (value: number | undefined): value is number => value !== undefined && Number.isFinite(value)

/** The median, over the rounds that both took part in, of one's figure by the other's. */
export const ratio = (of: RowRounds, to: RowRounds, name: FigureName): number | undefined => {
  const others = valuesOf(to, name)
  const ratios = valuesOf(of, name).map((value, round) => {
    const other = others[round]
    return value === undefined || other === undefined || other === 0 ? undefined : value / other
  })
  const known = ratios.filter(isNumber)
  return known.length === 0 ? undefined : median(known)
}

const timesAsLong = (of: RowRounds, to: RowRounds, name: FigureName): number | undefined =>
  figures[name].isRate ? ratio(to, of, name) : ratio(of, to, name)

export const summarise = (row: RowRounds, rows: ReadonlyArray<RowRounds>, figure: FigureName): RowResult => {
  const spreads: Partial<Record<FigureName, Spread>> = {}
  for (const name of figureNames) {
    const known = valuesOf(row, name).filter(isNumber)
    if (known.length > 0) spreads[name] = spreadOf(known)
  }
  const times: Record<string, number> = {}
  for (const other of rows) {
    const value = other === row ? undefined : timesAsLong(row, other, figure)
    if (value !== undefined) times[other.id] = value
  }
  return {
    id: row.id,
    label: row.label,
    rounds: row.samples.filter((sample) => sample !== undefined).length,
    figures: spreads,
    times,
    failure: row.failure
  }
}
