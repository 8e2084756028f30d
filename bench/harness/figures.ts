/** The figures that a round gives, how they are written, and how two of them compare. */
import type { Sample } from "./protocol.ts"

export interface Figure {
  readonly unit: string
  readonly of: (sample: Sample) => number | undefined
  readonly digits: (value: number) => string
  /** Whether more of it is better; ratios of time are the other way around. */
  readonly isRate: boolean
}

const threeDigits = (value: number): string => {
  if (value >= 100) return value.toFixed(0)
  return value >= 10 ? value.toFixed(1) : value.toFixed(2)
}

const time = (unit: string, of: Figure["of"]): Figure => ({ unit, of, digits: threeDigits, isRate: false })
const perOperation = (micros: number, { operations }: Sample): number => micros / operations

export const figures = {
  p50: time("µs, p50", ({ p50 }) => p50),
  p99: time("µs, p99", ({ p99 }) => p99),
  perCall: time("µs a call", (sample) => perOperation(sample.micros, sample)),
  millis: time("ms", ({ micros }) => micros / 1000),
  rate: {
    unit: "thousand/s",
    of: ({ micros, operations }) => (operations * 1000) / micros,
    digits: threeDigits,
    isRate: true
  },
  nodeCpu: time("µs of CPU a call in Node", (sample) => perOperation(sample.nodeCpuMicros, sample)),
  pythonCpu: time("µs of CPU a call in Python", (sample) => perOperation(sample.pythonCpuMicros, sample)),
  cpu: time("µs of CPU a call", (sample) => perOperation(sample.nodeCpuMicros + sample.pythonCpuMicros, sample)),
  resident: time("MB resident", ({ values }) => megabytes(values?.residentBytes)),
  proportional: time("MB by share of pages", ({ values }) => megabytes(values?.proportionalBytes)),
  growth: time("MB more", ({ values }) => megabytes(values?.growthBytes))
} satisfies Record<string, Figure>

const megabytes = (bytes: number | undefined): number | undefined => (bytes === undefined ? undefined : bytes / 1e6)

export type FigureName = keyof typeof figures

export const figureNames = Object.keys(figures) as ReadonlyArray<FigureName>
