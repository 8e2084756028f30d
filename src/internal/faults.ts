/** What is to go wrong in fake workers: planned by a test, taken by the calls and the starts that it is meant for. */
import type * as Duration from "effect/Duration"
import type { ExceptionInfo, ExitKind } from "../SynapseError.ts"

/** How a process ends. */
export interface Exit {
  readonly exitCode: number | null
  readonly signal: string | null
  readonly kind: ExitKind
  readonly stderr: string
  readonly crashDump: string
}

/** What happens to a call. */
export type Fault =
  | {
      readonly _tag: "Crash"
      readonly exit: Exit
      /** In place of the handler, in place of the answer, or in the middle of it. */
      readonly at: "request" | "answer" | "frame"
      /** For how long the call is there before. */
      readonly after: Duration.Duration
      /** Of a stream: after how many items. */
      readonly afterItems: number | undefined
    }
  | { readonly _tag: "Hang" }
  | { readonly _tag: "Delay"; readonly duration: Duration.Duration }
  | { readonly _tag: "Garbage"; readonly bytes: Uint8Array; readonly within: "channel" | "payload" }

/** What happens to a start. */
export type StartFault =
  | { readonly _tag: "Slow"; readonly duration: Duration.Duration }
  | { readonly _tag: "Exit"; readonly exit: Exit }
  | { readonly _tag: "Import"; readonly exception: ExceptionInfo }

/** What a fake worker was asked. */
export interface Received {
  readonly method: string
  /** As it travelled: decoded from MessagePack, and not with a schema. */
  readonly payload: unknown
  /** Whether a stream was asked for. */
  readonly stream: boolean
  readonly headers: Readonly<Record<string, string>>
  /** The process id of the worker. */
  readonly pid: number
}

/** A fake worker that runs. */
export interface Running {
  readonly exit: (exit: Exit) => void
  readonly dropHeartbeat: () => void
  readonly leave: (reason: string | undefined) => void
}

/** Stands for the name of any method. */
export const anyMethod = "*"

interface Planned<A> {
  readonly method: string
  readonly fault: A
  left: number
}

interface Waiting {
  readonly method: string
  readonly count: number
  readonly resume: () => void
}

const takeFrom = <A>(plan: Array<Planned<A>>, method: string): A | undefined => {
  const at = plan.findIndex((planned) => planned.method === anyMethod || planned.method === method)
  const planned = plan[at]
  if (planned === undefined) return undefined
  if (--planned.left <= 0) plan.splice(at, 1)
  return planned.fault
}

export class Faults {
  readonly running = new Set<Running>()
  readonly received: Array<Received> = []
  readonly #calls: Array<Planned<Fault>> = []
  readonly #starts: Array<Planned<StartFault>> = []
  #waiting: ReadonlyArray<Waiting> = []

  /** Plans a fault for so many calls of a method; those that were planned before come first. */
  plan(method: string, fault: Fault, calls: number): void {
    this.#calls.push({ method, fault, left: calls })
  }

  planStart(fault: StartFault, starts: number): void {
    this.#starts.push({ method: anyMethod, fault, left: starts })
  }

  clear(): void {
    this.#calls.length = 0
    this.#starts.length = 0
  }

  /** Takes what is to happen to the next call of a method. */
  take(method: string): Fault | undefined {
    return takeFrom(this.#calls, method)
  }

  takeStart(): StartFault | undefined {
    return takeFrom(this.#starts, anyMethod)
  }

  /** A call has reached a worker. */
  receive(call: Received): void {
    this.received.push(call)
    const due = this.#waiting.filter(({ count, method }) => this.#count(method) >= count)
    if (due.length === 0) return
    this.#waiting = this.#waiting.filter((waiting) => !due.includes(waiting))
    for (const { resume } of due) resume()
  }

  /** Calls back when so many calls of a method have been received; what is returned forgets it. */
  onReceived(method: string, count: number, resume: () => void): () => void {
    const waiting = { method, count, resume }
    if (this.#count(method) >= count) resume()
    else this.#waiting = [...this.#waiting, waiting]
    return () => {
      this.#waiting = this.#waiting.filter((other) => other !== waiting)
    }
  }

  #count(method: string): number {
    return method === anyMethod
      ? this.received.length
      : this.received.reduce((count, call) => count + Number(call.method === method), 0)
  }
}
