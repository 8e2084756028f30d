/** What the driver and the process of a contender tell each other. */
import type { Task } from "./contender.ts"

export interface Prepare {
  readonly type: "prepare"
  readonly module: string
  readonly settings: Readonly<Record<string, unknown>>
  /** Whether only the module is loaded: making the contender is what is measured. */
  readonly loadOnly: boolean
}

export type Request = Prepare | { readonly type: "run"; readonly task: Task } | { readonly type: "stop" }

/** What one round of a row came to. Latencies are of single operations, where they ran one at a time. */
export interface Sample {
  readonly operations: number
  readonly micros: number
  readonly p50?: number | undefined
  readonly p99?: number | undefined
  readonly nodeCpuMicros: number
  /** Of every process below the contender's. */
  readonly pythonCpuMicros: number
  readonly values?: Readonly<Record<string, number>> | undefined
}

export type Response =
  | { readonly type: "done"; readonly sample?: Sample | undefined }
  | { readonly type: "failed"; readonly message: string; readonly unsupported: boolean }
