/**
 * Live Python objects held from TypeScript.
 *
 * A handler that returns `synapse.Handle(object)` keeps the object in its worker; `Synapse.acquire` holds it for as long as
 * a scope is open. Its methods are called and its attributes read on the one worker that has it.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Connection } from "./Connection.ts"
import * as Envelope from "./Envelope.ts"
import { answerOf } from "./internal/answer.ts"
import { type Calls, exchange, makeCall } from "./internal/call.ts"
import { useOf } from "./internal/dispatcher.ts"
import { makeStream } from "./internal/streaming.ts"
import type { CallOptions, InputServices } from "./Synapse.ts"
import { SynapseError, Unsupported } from "./SynapseError.ts"
import type { WorkerPool } from "./WorkerPool.ts"

/**
 * How a method is called: as a handler, but for its name, which has no default.
 *
 * @category models
 * @since 0.1.0
 */
export interface MethodOptions<I = unknown, R = never> extends CallOptions<I, R> {
  /** The method's name. It has no leading underscore. */
  readonly method: string
}

/**
 * A Python object, held by its worker until the scope that acquired it closes.
 *
 * **Details**
 *
 * Calls fail with `Unsupported` once it is released, and with what ended its worker once that is gone: the object went
 * with it.
 *
 * @category models
 * @since 0.1.0
 */
export interface RemoteObject {
  /** The object's class, with its module. */
  readonly type: string
  /** Calls a method and decodes what it returns. */
  readonly call: <A, In extends I, RD = never, I = unknown, R = never>(
    schema: Schema.Decoder<A, RD>,
    input: In,
    options: MethodOptions<I, R>
  ) => Effect.Effect<A, SynapseError, RD | NoInfer<R> | InputServices<In>>
  /** The items of a generator method. */
  readonly stream: <A, In extends I, RD = never, I = unknown, R = never>(
    schema: Schema.Decoder<A, RD>,
    input: In,
    options: MethodOptions<I, R>
  ) => Stream.Stream<A, SynapseError, RD | NoInfer<R> | InputServices<In>>
  /** Reads an attribute. */
  readonly get: <A, RD = never>(
    schema: Schema.Decoder<A, RD>,
    attribute: string,
    options?: Pick<CallOptions, "timeout" | "totalTimeout"> | undefined
  ) => Effect.Effect<A, SynapseError, RD>
  /** Calls a method that returns a `synapse.Handle`, and holds that object. */
  readonly acquire: <In extends I, I = unknown, R = never>(
    input: In,
    options: MethodOptions<I, R>
  ) => Effect.Effect<RemoteObject, SynapseError, Scope.Scope | NoInfer<R> | InputServices<In>>
}

/**
 * Makes the `acquire` of a runtime or of an object.
 *
 * @internal
 */
export const makeAcquire = (calls: Calls) =>
  Effect.fnUntraced(function* <I, R>(
    input: unknown,
    options?: CallOptions<I, R>
  ): Effect.fn.Return<RemoteObject, SynapseError, Scope.Scope | R> {
    let connection: Connection | undefined
    let handle: number | undefined
    let released = false
    // Before there is anything to release: whatever interrupts this, the object is not forgotten.
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        released = true
        if (handle !== undefined) connection?.release(handle)
      })
    )
    const use: WorkerPool["use"] = (method, begin, how) =>
      calls.use(
        method,
        (used, resume) => {
          connection = used
          return begin(used, resume)
        },
        how
      )
    const frame = yield* exchange({ ...calls, use }, input, options, {
      onHandle: (held) => {
        handle = held
      }
    })
    const { type } = yield* answerOf(Envelope.Held, options?.method ?? "main", false, calls.type)(frame)
    const held: Calls = {
      callTimeout: calls.callTimeout,
      target: handle,
      type,
      use: (method, begin) => (released ? Effect.fail(isReleased(method)) : useOf(connection!)(method, begin)),
      enter: (entry) => (released ? entry.fail(isReleased(entry.method)) : entry.begin(connection!, undefined))
    }
    const get: RemoteObject["get"] = (schema, attribute, options) =>
      Effect.flatMap(
        exchange(held, null, { ...options, method: attribute }, { get: true }),
        answerOf(schema, attribute, false, type)
      )
    return { type, get, call: makeCall(held), stream: makeStream(held), acquire: makeAcquire(held) as never }
  })

const isReleased = (method: string): SynapseError =>
  new SynapseError({
    reason: new Unsupported({
      method,
      detail: "the object was released: use it inside the scope that acquired it",
      delivery: "notSent"
    })
  })
