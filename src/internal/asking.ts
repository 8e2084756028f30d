/** What a fake worker asks of its host: functions, and the streams in the input of a call. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Envelope from "../Envelope.ts"
import type { Post } from "./requestEnd.ts"

const { Kind } = Envelope

/** A host function, or an input stream, did not give what was asked for. */
export class HostFailure extends Schema.TaggedError<HostFailure>("effect-synapse/testing/HostFailure")("HostFailure", {
  method: Schema.String,
  /** `"Failed"` with a declared error; else what Python finds as the `reason` of a `synapse.HostCallFailed`. */
  reason: Schema.String,
  /** The declared error, or the details, as they travelled. */
  error: Schema.Unknown
}) {
  override get message(): string {
    return `The host function \`${this.method}\` did not succeed (${this.reason}): ${JSON.stringify(this.error)}`
  }
}

interface Ask {
  readonly method: string
  readonly queue: Queue.Queue<ReadonlyArray<unknown>, HostFailure | Cause.Done>
}

/** What a request says of itself: a function by its name, or an input stream by its id. */
interface AskMeta {
  readonly method?: string
  readonly source?: number
  readonly call?: number
  readonly stream?: number
}

/** Asks inside of one call. */
export interface Asks {
  readonly call: (method: string, payload: unknown) => Effect.Effect<unknown, HostFailure>
  readonly stream: (method: string, payload: unknown) => Stream.Stream<unknown, HostFailure>
}

export class Asking {
  readonly #post: Post
  readonly #asks = new Map<number, Ask>()
  #lastId = 0

  constructor(post: Post) {
    this.#post = post
  }

  of(call: number): Asks {
    return {
      call: (method, payload) =>
        Stream.runHead(this.#items(method, { method, call }, payload)).pipe(
          Effect.map((value) => (value._tag === "Some" ? value.value : null))
        ),
      stream: (method, payload) => this.#items(method, { method, call, stream: Envelope.streamItems }, payload)
    }
  }

  /** An input stream of a call, which is read when it is run. */
  readonly inputStream = (id: number): Stream.Stream<unknown, HostFailure> =>
    this.#items("input", { source: id, stream: Envelope.streamItems }, undefined)

  /** Takes what the host says of it. */
  answered(frame: Envelope.Frame): void {
    const ask = this.#asks.get(frame.id)
    if (ask === undefined) return
    const value = Envelope.decodeFrame(frame)
    switch (frame.kind) {
      case Kind.Chunk:
        return void Queue.offerUnsafe(ask.queue, value as ReadonlyArray<unknown>)
      case Kind.Success:
        // The value of a call; a stream ends with nothing.
        if (value !== null) Queue.offerUnsafe(ask.queue, [value])
        Queue.endUnsafe(ask.queue)
        break
      case Kind.Fail:
        this.#fail(ask, "Failed", value)
        break
      case Kind.Die: {
        const { reason } = Envelope.decodeMeta(frame.meta)
        this.#fail(ask, typeof reason === "string" ? reason : "Exception", value)
        break
      }
      case Kind.Interrupted:
        this.#fail(ask, "Interrupted", null)
        break
      default:
        return
    }
    this.#asks.delete(frame.id)
  }

  /** The worker is gone. */
  end(): void {
    for (const ask of this.#asks.values()) this.#fail(ask, "Closed", null)
    this.#asks.clear()
  }

  #fail({ method, queue }: Ask, reason: string, error: unknown): void {
    Queue.failCauseUnsafe(queue, Cause.fail(new HostFailure({ method, reason, error })))
  }

  #items(method: string, meta: AskMeta, payload: unknown): Stream.Stream<unknown, HostFailure> {
    const open = Effect.acquireRelease(
      Effect.map(Queue.unbounded<ReadonlyArray<unknown>, HostFailure | Cause.Done>(), (queue) => {
        const id = ++this.#lastId
        this.#asks.set(id, { method, queue })
        // One that cannot be encoded fails before it is sent.
        const onError = (error: unknown): void => {
          this.#asks.delete(id)
          Queue.failCauseUnsafe(
            queue,
            Cause.fail(new HostFailure({ method, reason: "EncodeFailed", error: String(error) }))
          )
        }
        this.#post({ kind: Kind.Request, id, meta, payload, onError })
        return { id, queue }
      }),
      ({ id }) =>
        Effect.sync(() => {
          if (this.#asks.delete(id)) this.#post({ kind: Kind.Cancel, id })
        })
    )
    return Stream.unwrap(
      Effect.map(open, ({ id, queue }) =>
        Stream.flattenIterable(
          Stream.tap(Stream.fromQueue(queue), (items) =>
            Effect.sync(() => {
              const isOpen = meta.stream !== undefined && this.#asks.has(id)
              if (isOpen) this.#post({ kind: Kind.Credit, id, payload: items.length })
            })
          )
        )
      )
    ).pipe(Stream.scoped)
  }
}
