/**
 * The sending end of a stream: gathers items into chunks and sends them as there is room for them.
 *
 * There is room for as many items as were granted; and of those that were sent and not credited yet the bytes are
 * bounded, except that one may always be on its way. A credit acknowledges the oldest.
 */
import * as Effect from "effect/Effect"
import * as Envelope from "../Envelope.ts"
import type { Encoder } from "./msgpackEncoder.ts"
import { notCarried, type Post, type Refused, tooLarge } from "./requestEnd.ts"

/** What the length of a frame counts beside its payload. */
const frameOverhead = 8
/** The header of an array of up to 65535 items. */
const headerSize = 3
const maxChunkItems = 0xffff

/** @internal */
export interface Options {
  readonly id: number
  /** How many items may be sent at first. */
  readonly granted: number
  readonly post: Post
  /** Shared by the outlets of a connection: each leaves it empty. */
  readonly encoder: Encoder
  readonly maxFrameSize: number
}

/** @internal */
export class Outlet {
  readonly #options: Options
  /** Bytes of the largest item. */
  readonly #maxItemSize: number
  #granted: number
  /** The sizes of the items on their way: those before `#oldest` are acknowledged. */
  #sizes: Array<number> = []
  #oldest = 0
  #bytesOnTheirWay = 0
  #sent = 0
  /** An item that was encoded before there was room for it. */
  #held: Uint8Array | undefined
  #wake: (() => void) | undefined

  constructor(options: Options) {
    this.#options = options
    this.#maxItemSize = options.maxFrameSize - frameOverhead - headerSize
    this.#granted = options.granted
  }

  /** The worker has consumed the `n` oldest items, and takes as many more. */
  credit(n: number): void {
    this.#granted += n
    const acknowledged = Math.min(this.#sizes.length, this.#oldest + n)
    while (this.#oldest < acknowledged) this.#bytesOnTheirWay -= this.#sizes[this.#oldest++]!
    if (this.#oldest * 2 > this.#sizes.length) {
      this.#sizes = this.#sizes.slice(this.#oldest)
      this.#oldest = 0
    }
    if (this.#wake !== undefined && this.#hasRoom()) this.#wake()
  }

  /**
   * Sends items, and waits until there is room for one more. An item that cannot be sent fails it, after those before it
   * were sent.
   */
  readonly send = (items: ReadonlyArray<unknown>): Effect.Effect<void, Refused> => this.#sendFrom(items, 0)

  #sendFrom(items: ReadonlyArray<unknown>, from: number): Effect.Effect<void, Refused> {
    return Effect.suspend(() => {
      let at = from
      while (this.#hasRoom()) {
        if (at === items.length) return Effect.void
        const chunk = this.#gather(items, at)
        at += chunk.count
        if (chunk.refused !== undefined) return Effect.fail(chunk.refused)
      }
      return Effect.flatMap(this.#room, () => this.#sendFrom(items, at))
    })
  }

  readonly #room = Effect.callback<void>((resume) => {
    // The fiber may have made way for others since it looked.
    if (this.#hasRoom()) return resume(Effect.void)
    this.#wake = () => {
      this.#wake = undefined
      resume(Effect.void)
    }
    return Effect.sync(() => {
      this.#wake = undefined
    })
  })

  #hasRoom(): boolean {
    return this.#granted > 0 && this.#fits(this.#held?.length ?? 1)
  }

  /** Whether so many bytes may be sent. */
  #fits(size: number): boolean {
    return this.#oldest === this.#sizes.length || this.#bytesOnTheirWay + size <= Envelope.streamBytes
  }

  /** Sends a chunk of the items from `from` on: as many as there is room for. */
  #gather(items: ReadonlyArray<unknown>, from: number): { readonly count: number; readonly refused?: Refused } {
    const { encoder, id, post } = this.#options
    const most = Math.min(items.length - from, this.#granted, maxChunkItems)
    encoder.begin(Number.POSITIVE_INFINITY)
    encoder.room(headerSize)
    encoder.position += headerSize
    let count = 0
    let size = 0
    let refused: Refused | undefined
    let without: number | undefined
    for (; count < most; count++) {
      const next = this.#encode(items[from + count], this.#sent + count)
      if (typeof next !== "number") {
        refused = next
        break
      }
      // Both at once: the items fit into a frame, and into what may be on its way.
      if (!this.#fits(next) || (count > 0 && size + next > this.#maxItemSize)) {
        without = next
        break
      }
      size += next
      this.#bytesOnTheirWay += next
      this.#sizes.push(next)
    }
    const bytes = encoder.take()
    const end = headerSize + size
    if (without !== undefined) this.#held = bytes.subarray(end, end + without)
    this.#granted -= count
    this.#sent += count
    if (count > 0) post({ kind: Envelope.Kind.Chunk, id, payloadBytes: withHeader(bytes.subarray(0, end), count) })
    return refused === undefined ? { count } : { count, refused }
  }

  /** Appends the item of that place in the stream to the encoder, and tells its size or why it cannot be sent. */
  #encode(item: unknown, index: number): number | Refused {
    const { encoder, maxFrameSize } = this.#options
    const held = this.#held
    this.#held = undefined
    encoder.begin(this.#maxItemSize)
    if (held !== undefined) {
      encoder.bytes(held)
      return held.length
    }
    try {
      encoder.encode(item)
    } catch (error) {
      encoder.rollback()
      return notCarried(error, `$[${index}]`)
    }
    const size = encoder.frameSize
    if (size <= this.#maxItemSize) return size
    encoder.rollback()
    return tooLarge({ size: size + frameOverhead + headerSize, limit: maxFrameSize })
  }
}

const withHeader = (chunk: Uint8Array, count: number): Uint8Array => {
  chunk[0] = 0xdc
  chunk[1] = count >> 8
  chunk[2] = count
  return chunk
}
