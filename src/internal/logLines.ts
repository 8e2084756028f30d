/** The lines that an instance has to say, for those that listen at the moment. */

import type { InstanceLogs, Observer, Subscription } from "../promise.ts"

/** Lines that wait for an iteration, beyond which the oldest are dropped. */
const maxWaiting = 10_000

export class LogLines implements InstanceLogs {
  readonly #listeners = new Set<(line: string) => void>()
  readonly #iterations = new Set<Iteration>()

  readonly emit = (line: string): void => {
    for (const listener of this.#listeners) {
      try {
        listener(line)
      } catch (error) {
        // The listener's own fault: nobody else's line is lost for it, and it is not hidden.
        queueMicrotask(() => {
          throw error
        })
      }
    }
    for (const iteration of this.#iterations) iteration.push(line)
  }

  readonly subscribe = (observer: Observer | ((line: string) => void)): Subscription => {
    // Each subscription is one of its own, also of the same function.
    const listener = (line: string) => (typeof observer === "function" ? observer(line) : observer.next?.(line))
    this.#listeners.add(listener)
    const unsubscribe = () => {
      this.#listeners.delete(listener)
    }
    const subscription = Object.assign(() => unsubscribe(), { unsubscribe, [Symbol.dispose]: unsubscribe })
    return Object.defineProperty(subscription, "closed", { get: () => !this.#listeners.has(listener) }) as Subscription
  };

  [Symbol.asyncIterator](): AsyncIterator<string> {
    const iteration = new Iteration(() => this.#iterations.delete(iteration))
    this.#iterations.add(iteration)
    return iteration
  }

  /** Ends the iterations, after what they have not seen yet. Subscriptions stay. */
  end(): void {
    for (const iteration of this.#iterations) iteration.end()
  }
}

class Iteration implements AsyncIterator<string> {
  readonly #onEnd: () => void
  #waiting: Array<string> = []
  #takers: Array<(result: IteratorResult<string>) => void> = []
  #ended = false

  constructor(onEnd: () => void) {
    this.#onEnd = onEnd
  }

  push(line: string): void {
    const taker = this.#takers.shift()
    if (taker !== undefined) return taker({ done: false, value: line })
    this.#waiting.push(line)
    if (this.#waiting.length > maxWaiting) this.#waiting.shift()
  }

  end(): void {
    if (this.#ended) return
    this.#ended = true
    this.#onEnd()
    for (const taker of this.#takers.splice(0)) taker({ done: true, value: undefined })
  }

  next(): Promise<IteratorResult<string>> {
    const line = this.#waiting.shift()
    if (line !== undefined) return Promise.resolve({ done: false, value: line })
    if (this.#ended) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve) => this.#takers.push(resolve))
  }

  return(): Promise<IteratorResult<string>> {
    this.#waiting = []
    this.end()
    return Promise.resolve({ done: true, value: undefined })
  }
}
