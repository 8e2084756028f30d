/**
 * What a contender is: one way of reaching Python (or, for a reference, something else) that lives in a process of its
 * own and carries out tasks.
 */

/** What a call carries there and back. Sizes are bytes. */
export type Payload =
  | { readonly kind: "small" }
  | { readonly kind: "record" }
  | { readonly kind: "rows" }
  | { readonly kind: "bytes"; readonly size: number }
  | { readonly kind: "array"; readonly size: number }

/** Calls for `millis`, at least one by each of the `inFlight` callers, each of which waits for its reply. */
export interface Calls {
  readonly name: "calls"
  readonly payload: Payload
  readonly inFlight: number
  readonly millis: number
  /** Which handler answers: a function, a coroutine, or one that makes the array that it answers with. Default: `"sync"`. */
  readonly handler?: "sync" | "async" | "fresh" | undefined
}

/** So many small items, from a generator of Python, or to an iterator of it. */
export interface Items {
  readonly name: "items"
  readonly direction: "out" | "in"
  readonly handler: "sync" | "async"
  readonly count: number
}

/** So many calls that Python makes of functions in Node. */
export interface HostCalls {
  readonly name: "hostCalls"
  readonly inFlight: number
  readonly count: number
}

/** From SIGKILL of the Python process to the next reply. */
export interface Replacement {
  readonly name: "replacement"
}

/** What an idle Python process holds, and how much more after so many calls. */
export interface Memory {
  readonly name: "memory"
  readonly calls: number
}

/** Making the contender and its first call, in a process that has done neither. */
export interface Start {
  readonly name: "start"
}

export type Task = Calls | Items | HostCalls | Replacement | Memory | Start

/** What one round of a task came to. */
export interface Outcome {
  readonly operations: number
  /** The time that the operations took, without what the contender did to check them where they ran one at a time. */
  readonly micros: number
  /** Of each operation, where they ran one at a time. */
  readonly latencies?: ReadonlyArray<number> | undefined
  /** Figures of a task's own, such as bytes of memory. */
  readonly values?: Readonly<Record<string, number>> | undefined
}

export interface Contender {
  /** One call whose reply is compared in full, outside the time that is measured. */
  readonly verify: (task: Task) => Promise<void>
  readonly run: (task: Task) => Promise<Outcome>
  readonly stop: () => Promise<void>
}

/** What a contender's module exports as `make`. Settings come from `contenders.ts`, and from the row. */
export type MakeContender = (settings: Readonly<Record<string, unknown>>) => Promise<Contender>

/** A task that a contender has no way to do; the message says why and stands in the table. */
export class Unsupported extends Error {}
