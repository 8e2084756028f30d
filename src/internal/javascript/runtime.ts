/**
 * One worker thread with its JavaScript, seen from the main thread of the server.
 *
 * @internal
 */
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads"
import type { Log } from "./log.ts"
import { type ExceptionInfo, ownException } from "./stack.ts"

/** @internal */
export interface ModuleOptions {
  /** URL of the module that becomes `m`. */
  readonly module: string | undefined
  /** Its source, when it was signed and is verified. */
  readonly signedSource: Uint8Array | undefined
  /** Path of its source map, when it does not name it itself. */
  readonly sourceMap: string | undefined
  /** MiB of heap that a runtime may have; 0 for what Node gives it. */
  readonly memoryLimit: number
}

/** @internal */
export interface WorkerData extends Omit<ModuleOptions, "memoryLimit"> {
  /** Where the answers to messages arrive. */
  readonly answers: MessagePort
  /** Counts the answers: a thread that waits for one sleeps on it. */
  readonly signal: Int32Array<SharedArrayBuffer>
}

/** @internal */
export interface WorkerAnswer {
  readonly id: number
  readonly number: number
  readonly text: string
  readonly failure: string | undefined
}

/** @internal */
export type ToWorker =
  | {
      readonly type: "run"
      readonly id: number
      readonly source: string
      readonly param: string
      readonly format: "json" | "values"
    }
  | { readonly type: "stats" }

/** @internal */
export type FromWorker =
  | { readonly type: "ready" }
  | { readonly type: "failed"; readonly info: ExceptionInfo }
  | { readonly type: "ok"; readonly id: number; readonly text: string; readonly nanos: number }
  | { readonly type: "exception"; readonly id: number; readonly info: ExceptionInfo; readonly nanos: number }
  | { readonly type: "message"; readonly id: number; readonly number: number; readonly text: string }
  | { readonly type: "sample" | "stats"; readonly heap: number; readonly functions: number }
  | { readonly type: "log"; readonly level: Log["level"]; readonly source: string; readonly message: string }

/** @internal */
export interface Runtime {
  readonly send: (message: ToWorker) => void
  readonly answer: (answer: WorkerAnswer) => void
  /** Ends it, whatever it is doing. It is heard of no more. */
  readonly end: () => void
}

/** @internal */
export interface RuntimeEvents {
  readonly onMessage: (message: FromWorker) => void
  /** It ended of itself. */
  readonly onExit: (info: ExceptionInfo) => void
  readonly onOutput: (source: "stdout" | "stderr", text: string) => void
}

const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."))

/** @internal */
export const start = (options: ModuleOptions, events: RuntimeEvents): Runtime => {
  const { memoryLimit, module, signedSource, sourceMap } = options
  const { port1: answers, port2 } = new MessageChannel()
  const signal = new Int32Array(new SharedArrayBuffer(4))
  const workerData: WorkerData = { module, signedSource, sourceMap, answers: port2, signal }
  const worker = new Worker(new URL(`./worker${extension}`, import.meta.url), {
    workerData,
    transferList: [port2],
    stdout: true,
    stderr: true,
    resourceLimits: memoryLimit > 0 ? { maxOldGenerationSizeMb: memoryLimit } : {}
  })
  answers.unref()
  let ended = false
  let failed: ExceptionInfo | undefined
  worker.on("message", (message: FromWorker) => {
    if (!ended) events.onMessage(message)
  })
  worker.on("error", (error) => {
    failed = toExit(error)
  })
  worker.on("exit", (code) => {
    answers.close()
    if (ended) return
    ended = true
    events.onExit(failed ?? ownException("exit", "Error", `the runtime left with exit code ${code}`))
  })
  for (const source of ["stdout", "stderr"] as const) {
    worker[source].setEncoding("utf8").on("data", (text: string) => events.onOutput(source, text))
  }
  return {
    send: (message) => worker.postMessage(message),
    answer: (answer) => {
      answers.postMessage(answer)
      Atomics.add(signal, 0, 1)
      Atomics.notify(signal, 0)
    },
    end: () => {
      ended = true
      void worker.terminate()
    }
  }
}

const toExit = (error: unknown): ExceptionInfo => {
  if (error instanceof Error && "code" in error && error.code === "ERR_WORKER_OUT_OF_MEMORY") {
    return ownException("memory", "InternalError", "out of memory")
  }
  return ownException("exit", "Error", `the runtime failed: ${error instanceof Error ? error.message : String(error)}`)
}
