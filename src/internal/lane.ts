/**
 * The receiving end of a stream: keeps what came until it is taken, and grants more as it is consumed.
 *
 * A consumer that has to wait while the sender has used up its grant takes more than a grant's way there and back allows:
 * then more is granted at a time.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Envelope from "../Envelope.ts"
import type { SynapseError } from "../SynapseError.ts"

type Arrival = Exit.Exit<Envelope.Frame, SynapseError>

interface Chunk {
  readonly frame: Envelope.Frame
  readonly items: number
}

export class Lane {
  #window: number
  readonly #maxWindow: number
  readonly #credit: (items: number) => void
  readonly #chunks: Array<Chunk> = []
  #end: Arrival | undefined
  #waiting: ((arrival: Arrival) => void) | undefined
  /** Items that may still come. */
  #granted: number
  /** Items that the consumer has in hand. */
  #inHand = 0
  /** Items consumed and not granted anew. */
  #consumed = 0

  /** `credit` tells the sender that so many more items may come; `window` is how many at first, and `maxWindow` at most. */
  constructor(window: number, maxWindow: number, credit: (items: number) => void) {
    this.#window = window
    this.#maxWindow = maxWindow
    this.#granted = window
    this.#credit = credit
  }

  /** Takes a chunk that came; `false` when it has more items than were granted. */
  offer(frame: Envelope.Frame, items: number): boolean {
    this.#granted -= items
    if (this.#granted < 0) return false
    this.#chunks.push({ frame, items })
    this.#wake()
    return true
  }

  /** The frame or the failure after which nothing comes. */
  end(arrival: Arrival): void {
    this.#end = arrival
    this.#wake()
  }

  /** The next frame: a chunk, or what ended the stream. Taking one says that the one before is consumed. */
  readonly take: Effect.Effect<Envelope.Frame, SynapseError> = Effect.suspend(() => {
    this.#settleCredit()
    return (
      this.#next() ??
      Effect.callback<Envelope.Frame, SynapseError>((resume) => {
        // The fiber may have made way for others since it looked.
        const arrived = this.#next()
        if (arrived !== undefined) return resume(arrived)
        this.#waiting = resume
        return Effect.sync(() => {
          this.#waiting = undefined
        })
      })
    )
  })

  /** Nobody takes what came. */
  close(): void {
    for (const { frame } of this.#chunks.splice(0)) Envelope.discard(frame)
    if (this.#end !== undefined && Exit.isSuccess(this.#end)) Envelope.discard(this.#end.value)
  }

  #next(): Arrival | undefined {
    const chunk = this.#chunks.shift()
    if (chunk === undefined) return this.#end
    this.#inHand = chunk.items
    return Exit.succeed(chunk.frame)
  }

  #wake(): void {
    const resume = this.#waiting
    if (resume === undefined) return
    this.#waiting = undefined
    resume(this.#next()!)
  }

  // Half a window at a time, but nothing is owed to a sender that has to wait for it.
  #settleCredit(): void {
    this.#consumed += this.#inHand
    this.#inHand = 0
    if (this.#end !== undefined || this.#consumed === 0) return
    const waits = this.#chunks.length === 0
    if (this.#consumed < this.#window / 2 && !waits) return
    // A sender that has used little of what it may send is not held up by that.
    const isHeldUp = waits && this.#granted <= this.#window / 2
    const window = isHeldUp ? Math.min(this.#window * 2, this.#maxWindow) : this.#window
    const items = this.#consumed + window - this.#window
    this.#window = window
    this.#granted += items
    this.#credit(items)
    this.#consumed = 0
  }
}
