/**
 * The chart of the README, drawn by Vega-Lite: Synapse beside each peer, a panel for each of three workloads. Its packages
 * are installed on demand, as those of the peers are.
 */
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import { install } from "../harness/install.ts"
import type { Results, WorkloadResult } from "../harness/results.ts"
import { chartSpec } from "./spec.ts"

interface VegaLite {
  readonly compile: (spec: unknown) => { readonly spec: unknown }
}

interface Vega {
  readonly parse: (spec: unknown) => unknown
  readonly View: new (
    runtime: unknown,
    options: { readonly renderer: "none" }
  ) => {
    readonly toSVG: () => Promise<string>
    readonly finalize: () => void
  }
}

const folder = fileURLToPath(new URL(".", import.meta.url))

/** By a name that the type checker does not follow: the packages are not there before they are asked for. */
const load = async <A>(name: string): Promise<A> => {
  const path = createRequire(import.meta.url).resolve(name)
  return (await import(path)) as A
}

export const drawChart = async (results: Results): Promise<string> => {
  await install(folder, "python3")
  const lite = await load<VegaLite>("vega-lite")
  const vega = await load<Vega>("vega")
  const { spec } = lite.compile(chartSpec(panelsOf(results)))
  const view = new vega.View(vega.parse(spec), { renderer: "none" })
  const svg = await view.toSVG()
  view.finalize()
  return svg
}

export interface Point {
  readonly label: string
  readonly value: number
  readonly isSynapse: boolean
}

export interface Panel {
  readonly title: string
  readonly unit: string
  readonly points: ReadonlyArray<Point>
}

const panelsOf = ({ workloads }: Results): ReadonlyArray<Panel> => {
  const named = (name: string): WorkloadResult | undefined => workloads.find((workload) => workload.name === name)
  return [
    panel("One call at a time: a small map there and back, median", "µs, less is better", named("sequential"), 1),
    panel("64 calls at once", "calls a second, more is better", named("in-flight"), 1000),
    panel("A float64 array of 8 MB there and back, median", "ms, less is better", named("array-8mb"), 1 / 1000)
  ].filter(({ points }) => points.length > 0)
}

/** Contenders whose figures the reader would look for; rows that vary Synapse stay in the table. */
const panel = (title: string, unit: string, workload: WorkloadResult | undefined, scale: number): Panel => ({
  title,
  unit,
  points: (workload?.rows ?? []).flatMap(({ figures, id, label }) => {
    const spread = workload === undefined ? undefined : figures[workload.figure]
    if (spread === undefined || id.includes(", ")) return []
    return [{ label, value: spread.median * scale, isSynapse: id.startsWith("synapse") }]
  })
})
