/** A stream of a Python generator as its caller sees it: opening, items in order, the end. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Pull from "effect/Pull"
import type * as Schema from "effect/Schema"
import type * as SchemaIssue from "effect/SchemaIssue"
import * as Stream from "effect/Stream"
import type { Incoming } from "../Connection.ts"
import * as Envelope from "../Envelope.ts"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import type { CallOptions, Runtime } from "../Synapse.ts"
import { DecodeFailed, SynapseError } from "../SynapseError.ts"
import { failureOfFrame, parsed, undecodable } from "./answer.ts"
import { type Calls, prepare } from "./call.ts"
import { listening } from "./progress.ts"
import { fitting } from "./streamItems.ts"

/** Makes the `stream` of a runtime or of an object. */
export const makeStream =
  (calls: Calls): Runtime["stream"] =>
  (schema, input, options) =>
    Stream.scoped(Stream.unwrap(Effect.map(open(calls, schema, input, options), Stream.fromPull))) as never

const open = Effect.fnUntraced(function* <A, RD, I, R>(
  calls: Calls,
  schema: Schema.Decoder<A, RD>,
  input: unknown,
  options: CallOptions<I, R> | undefined
) {
  const listener =
    options?.progress === undefined ? undefined : yield* listening(options.progress, options.method ?? "main")
  const exchange = yield* Effect.withFiber((fiber) => prepare(calls, fiber, input, options, listener?.onProgress))
  const { budget, method } = exchange
  let incoming: Incoming | undefined
  // Before there is one: whatever interrupts this, a stream that was opened is closed.
  yield* Effect.addFinalizer(() => Effect.sync(() => incoming?.close()))
  const first = yield* exchange.limit(
    exchange.send((connection, request, resume) => {
      incoming = connection.stream(request)
      resume(incoming.take)
      return undefined
    })
  )

  const decode = itemsOf(schema, method, options?.parseJson ?? false)
  let next: Effect.Effect<Envelope.Frame, SynapseError> = Effect.succeed(first)
  let items = 0
  let failure: SynapseError | undefined

  const onFrame = (frame: Envelope.Frame): Pull.Pull<Items<A>, SynapseError, void, RD | R> => {
    switch (frame.kind) {
      case Envelope.Kind.Chunk:
        return Effect.flatMap(decode(frame, items), (decoded) => {
          failure = decoded.failure
          items += decoded.items.length
          return isNonEmpty(decoded.items) ? Effect.succeed(decoded.items) : pull
        })
      case Envelope.Kind.Success:
        return listener === undefined ? Cause.done() : Effect.andThen(listener.finish, Cause.done())
      case Envelope.Kind.Interrupted:
        if (budget !== undefined) return Effect.fail(budget.expired(method))
    }
    const failed = failureOfFrame(frame, method, calls.type)
    return listener === undefined ? failed : Effect.andThen(Effect.ignore(listener.finish), failed)
  }
  const pull: Pull.Pull<Items<A>, SynapseError, void, RD | R> = Effect.suspend(() => {
    if (failure !== undefined) return Effect.fail(failure)
    const current = next
    next = exchange.limit(incoming!.take)
    return Effect.flatMap(current, onFrame)
  })
  return Effect.succeed(pull)
})

type Items<A> = readonly [A, ...Array<A>]

const isNonEmpty = <A>(items: ReadonlyArray<A>): items is Items<A> => items.length > 0

interface Decoded<A> {
  readonly items: ReadonlyArray<A>
  /** Why the item after them cannot be had. */
  readonly failure: SynapseError | undefined
}

/** How the chunks of a stream are turned into items of a schema. */
export const itemsOf = <A, RD>(
  schema: Schema.Decoder<A, RD>,
  method: string,
  parseJson: boolean
): ((frame: Envelope.Frame, before: number) => Effect.Effect<Decoded<A>, never, RD>) => {
  const decode = SchemaMsgpack.decode(schema)
  const decodeItem = parseJson ? (item: unknown) => decode(parsed(item)) : decode
  return (frame, before) => {
    let payload: ReadonlyArray<unknown>
    try {
      payload = Envelope.decodeFrame(frame) as ReadonlyArray<unknown>
    } catch (error) {
      return Effect.succeed({ items: [], failure: new SynapseError({ reason: undecodable(error, method) }) })
    }
    return Effect.map(fitting(decodeItem, payload), ({ issue, items }) => ({
      items,
      failure: issue && notDecoded(issue, `$[${before + items.length}]`, method)
    }))
  }
}

const notDecoded = (error: SchemaIssue.Issue, place: string, method: string): SynapseError => {
  const { issue, path } = SchemaMsgpack.describeIssue(error)
  return new SynapseError({
    reason: new DecodeFailed({
      side: "typescript",
      what: "reply",
      method,
      path: `${place}${path.slice(1)}`,
      issue,
      delivery: "unknown"
    })
  })
}
