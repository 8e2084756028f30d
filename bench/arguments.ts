/** The command line. */
import { parseArgs } from "node:util"

export interface Arguments {
  readonly only: ReadonlyArray<string>
  /** The peers that take part, or all of them. */
  readonly peers: ReadonlyArray<string> | "all"
  readonly quick: boolean
  readonly list: boolean
  readonly json: string | undefined
  /** A file to compare with; empty for the last committed run. */
  readonly compare: string | undefined
  readonly save: boolean
}

export const usage = `npm run bench -- [options]

  --only NAME       workloads whose name contains NAME; may be repeated
  --peers NAME,...  these peers only
  --no-peers        no peers
  --quick           fewer and shorter rounds
  --list            what there is, and nothing is run
  --json FILE       writes the results there
  --compare [FILE]  prints the ratios beside those of FILE, or of the last committed run
  --save            writes bench/results/latest.json and chart.svg, which a full run with all peers does by itself`

export const parseArguments = (args: ReadonlyArray<string>): Arguments => {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      only: { type: "string", multiple: true, default: [] },
      peers: { type: "string", default: "all" },
      "no-peers": { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      json: { type: "string" },
      compare: { type: "boolean", default: false },
      save: { type: "boolean", default: false }
    }
  })
  // The file of `--compare FILE` is the only thing that may stand alone.
  if (positionals.length > (values.compare ? 1 : 0)) throw new Error(`what is ${positionals.join(" ")}?\n\n${usage}`)
  const named = values.peers === "all" ? "all" : values.peers.split(",").filter((name) => name !== "")
  const peers = values["no-peers"] ? [] : named
  const isWhole = peers === "all" && !values.quick && values.only.length === 0
  return {
    only: values.only,
    peers,
    quick: values.quick,
    list: values.list,
    json: values.json,
    compare: values.compare ? (positionals[0] ?? "") : undefined,
    save: values.save || isWhole
  }
}
