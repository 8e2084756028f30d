/**
 * The budgets, as data. Each is a figure of this run, or the ratio of two rows of one workload within its rounds, and
 * what it may be at most or has to be at least.
 */
import type { FigureName } from "./harness/figures.ts"

export interface Budget {
  readonly about: string
  readonly workload: string
  readonly figure: FigureName
  readonly row: string
  /** The row that it is divided by, round by round. */
  readonly by?: string | undefined
  readonly atMost?: number | undefined
  readonly atLeast?: number | undefined
}

export const budgets: ReadonlyArray<Budget> = [
  {
    about: "sequential, by the raw floor",
    workload: "sequential",
    figure: "p50",
    row: "synapse",
    by: "floor",
    atMost: 0.7
  },
  {
    about: "sequential, by hq-synapse",
    workload: "sequential",
    figure: "p50",
    row: "synapse",
    by: "hq-synapse",
    atMost: 1 / 3
  },
  {
    about: "sequential, by python-shell",
    workload: "sequential",
    figure: "p50",
    row: "synapse",
    by: "python-shell",
    atMost: 1 / 3
  },
  {
    about: "sequential, by node-calls-python, async",
    workload: "sequential",
    figure: "p50",
    row: "synapse",
    by: "node-calls-python",
    atMost: 1
  },
  {
    about: "sequential without polling, by the raw floor",
    workload: "sequential",
    figure: "p50",
    row: "synapse-no-polling",
    by: "floor",
    atMost: 1.5
  },
  {
    about: "64 in flight, by the batched raw floor",
    workload: "in-flight",
    figure: "rate",
    row: "synapse",
    by: "floor",
    atLeast: 0.25
  },
  {
    about: "64 in flight, by python-shell",
    workload: "in-flight",
    figure: "rate",
    row: "synapse",
    by: "python-shell",
    atLeast: 1.7
  },
  {
    about: "64 in flight, by hq-synapse",
    workload: "in-flight",
    figure: "rate",
    row: "synapse",
    by: "hq-synapse",
    atLeast: 15
  },
  { about: "64 in flight, by grpc", workload: "in-flight", figure: "rate", row: "synapse", by: "grpc", atLeast: 30 },
  { about: "64 in flight, both sides together", workload: "in-flight", figure: "cpu", row: "synapse", atMost: 10 },
  {
    about: "512 in flight, a call by one at 64",
    workload: "in-flight",
    figure: "perCall",
    row: "synapse, 512 at once",
    by: "synapse",
    atMost: 1.2
  },
  {
    about: "10,000 open calls, a call by one at 64",
    workload: "in-flight",
    figure: "perCall",
    row: "synapse, 10000 at once",
    by: "synapse",
    atMost: 1.2
  },
  {
    about: "async handler, by the sync one",
    workload: "in-flight",
    figure: "rate",
    row: "synapse, async handler",
    by: "synapse",
    atLeast: 0.7
  },
  { about: "stream of small items", workload: "stream", figure: "rate", row: "synapse", atLeast: 500 },
  {
    about: "1 MB of bytes, by raw bytes",
    workload: "bytes-1mb",
    figure: "p50",
    row: "synapse",
    by: "floor",
    atMost: 1.3
  },
  { about: "8 MB float64, copying", workload: "array-8mb", figure: "p50", row: "synapse", atMost: 6000 },
  { about: "8 MB float64, in place", workload: "array-8mb", figure: "p50", row: "synapse-in-place", atMost: 1000 },
  { about: "80 MB float64, copying", workload: "array-80mb", figure: "p50", row: "synapse", atMost: 60_000 },
  { about: "80 MB float64, in place", workload: "array-80mb", figure: "p50", row: "synapse-in-place", atMost: 8000 },
  {
    about: "SynapseRpc, by Effect's RPC",
    workload: "rpc",
    figure: "p50",
    row: "synapse-rpc",
    by: "effect-rpc",
    atMost: 1.3
  },
  {
    about: "SynapseRpc, 64 in flight, by Effect's RPC",
    workload: "rpc-in-flight",
    figure: "perCall",
    row: "synapse-rpc",
    by: "effect-rpc",
    atMost: 1.3
  },
  { about: "warm start to the first reply", workload: "start-warm", figure: "millis", row: "synapse", atMost: 200 },
  { about: "replacement of a killed worker", workload: "replacement", figure: "millis", row: "synapse", atMost: 250 },
  { about: "memory of an idle worker", workload: "memory", figure: "resident", row: "synapse", atMost: 30 },
  // What allocators and page tables wander by counts as nothing.
  { about: "memory added by the calls", workload: "memory", figure: "growth", row: "synapse", atMost: 1 },
  ...[2, 4, 8, 16, 32].flatMap(
    (workers): ReadonlyArray<Budget> =>
      (["perCall", "cpu"] as const).map((figure) => ({
        about: `${workers} workers, ${figure === "cpu" ? "CPU of a call" : "a call"} by one worker`,
        workload: "workers",
        figure,
        row: `synapse, ${workers}`,
        by: "synapse, 1",
        atMost: 1.3
      }))
  )
]
