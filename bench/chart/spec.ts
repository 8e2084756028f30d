/** The chart as Vega-Lite wants it. */
import type { Panel } from "./draw.ts"

const width = 460
const rowHeight = 19

/** One panel: a dot on a logarithmic axis, a line that leads to it, and the figure beside it. */
const panelSpec = ({ points, title, unit }: Panel) => {
  const isRate = unit.includes("more")
  const values = points.map(({ isSynapse, label, value }) => ({ label, value, isSynapse, text: written(value) }))
  const largest = Math.max(...points.map(({ value }) => value))
  const smallest = Math.min(...points.map(({ value }) => value))
  // Whole powers of ten around the figures, with room for the text behind the last.
  const domain = [10 ** Math.floor(Math.log10(smallest)), 10 ** (Math.log10(largest) + 0.5)]
  const y = { field: "label", type: "nominal", sort: { field: "value", order: isRate ? "descending" : "ascending" } }
  const x = { field: "value", type: "quantitative" }
  const color = {
    field: "isSynapse",
    type: "nominal",
    scale: { domain: [true, false], range: ["#0b6e4f", "#4b5563"] },
    legend: null
  }
  return {
    title: { text: title, subtitle: `${unit}; logarithmic` },
    data: { values },
    width,
    height: { step: rowHeight },
    encoding: { y: { ...y, axis: { title: null, labelLimit: 0 } } },
    layer: [
      {
        mark: { type: "rule", strokeWidth: 1.5, opacity: 0.45 },
        encoding: {
          x: {
            ...x,
            scale: { type: "log", domain, nice: false },
            axis: { title: null, format: "~s", values: powersOfTen(domain) }
          },
          x2: { datum: domain[0] },
          color
        }
      },
      { mark: { type: "point", filled: true, size: 70, opacity: 1 }, encoding: { x, color } },
      {
        mark: { type: "text", align: "left", dx: 8, fontSize: 12 },
        encoding: { x, text: { field: "text", type: "nominal" }, color }
      }
    ]
  }
}

const powersOfTen = ([low = 1, high = 1]: ReadonlyArray<number>): ReadonlyArray<number> => {
  const first = Math.round(Math.log10(low))
  return Array.from({ length: Math.floor(Math.log10(high)) - first + 1 }, (_, i) => 10 ** (first + i))
}

const written = (value: number): string =>
  value.toLocaleString("en", { maximumSignificantDigits: value >= 100 ? 3 : 2 })

export const chartSpec = (panels: ReadonlyArray<Panel>) => ({
  $schema: "https://vega.github.io/schema/vega-lite/v6.json",
  // White, so that it can be read on a dark page too.
  background: "white",
  padding: 16,
  vconcat: panels.map(panelSpec),
  spacing: 26,
  resolve: { scale: { x: "independent", y: "independent", color: "independent" } },
  config: {
    font: "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
    title: { anchor: "start", fontSize: 14, subtitleFontSize: 12, subtitleColor: "#6b7280", offset: 8 },
    axis: { labelFontSize: 12, labelColor: "#111827", gridColor: "#e5e7eb", domainColor: "#9ca3af" },
    view: { stroke: null }
  }
})
