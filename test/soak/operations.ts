/**
 * Everything a program can ask of a runtime, at random: each operation draws what it does beforehand, knows what it has to
 * give, and succeeds with nothing, or with what is wrong.
 */
import { isDeepStrictEqual } from "node:util"
import { Effect, Schema, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import * as HostFunctions from "../../src/HostFunctions.ts"
import * as Synapse from "../../src/Synapse.ts"
import type { SynapseError, SynapseErrorReason } from "../../src/SynapseError.ts"
import type { Random } from "../fuzz/random.ts"
import type { Ledger, Timeouts } from "./ledger.ts"

/** What an operation draws from. */
export interface Draft {
  readonly random: Random
  readonly ledger: Ledger
  /** A token for each call that the operation makes. */
  readonly token: () => number
}

export interface Operation {
  readonly token: number
  /** Gives nothing, or what is wrong with what came. */
  readonly run: Effect.Effect<string | undefined, SynapseError, Synapse.Synapse>
  readonly timeouts?: Timeouts
  readonly idempotent?: boolean
  readonly usesObject?: boolean
  /** It does not end by itself. */
  readonly isEndless?: boolean
  readonly expects?: (reason: SynapseErrorReason) => boolean
}

type Make = (draft: Draft) => Operation

/** The largest message of the soak's runtimes. */
export const maxFrameSize = 4 * 2 ** 20

const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i)
const of = (token: number, n: number): ReadonlyArray<number> => upTo(n).map((i) => token * 1000 + i)

const shorten = (value: unknown): string => {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 200 ? `${text.slice(0, 200)}...` : text
}

const isEqual = (found: unknown, wanted: unknown): string | undefined =>
  isDeepStrictEqual(found, wanted) ? undefined : `${shorten(found)} and not ${shorten(wanted)}`

const equals = <E, R>(effect: Effect.Effect<unknown, E, R>, wanted: unknown) =>
  Effect.map(effect, (found) => isEqual(found, wanted))

const never = <E, R>(effect: Effect.Effect<unknown, E, R>) =>
  Effect.map(effect, (found) => `a value, where none is possible: ${shorten(found)}`)

/** Numbers in chunks of any size. */
const numbers = (n: number, size: number) => Stream.rechunk(Stream.fromIterable(upTo(n)), size)

const sum = (n: number): number => (n * (n - 1)) / 2

const tagged = (tag: string, token: number) => (reason: SynapseErrorReason) =>
  reason._tag === "HandlerFailed" && isDeepStrictEqual(fieldsOf(reason.error), { _tag: tag, token })

const fieldsOf = (error: unknown): unknown => {
  const { _tag, token } = error as { readonly _tag?: unknown; readonly token?: unknown }
  return { _tag, token }
}

const raised =
  (...types: ReadonlyArray<string>) =>
  (reason: SynapseErrorReason): boolean =>
    reason._tag === "PythonException" && types.includes(reason.type)

/** A value of any shape that can be carried. */
const anyValue = (random: Random, depth = 0): unknown => {
  switch (random.below(depth > 2 ? 6 : 8)) {
    case 0:
      return null
    case 1:
      return random.chance(0.5)
    case 2:
      return random.below(2 ** 20) - 2 ** 19
    case 3:
      return Number.MAX_SAFE_INTEGER - random.below(1000)
    case 4:
      return random.next()
    case 5:
      return `text ${"é".repeat(random.below(40))} ${random.below(1000)}`
    case 6:
      return random.times(random.below(5), () => anyValue(random, depth + 1))
    default:
      return Object.fromEntries(random.times(random.below(5), (i) => [`key ${i}`, anyValue(random, depth + 1)]))
  }
}

// One value

const echo: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const value = anyValue(random)
  const idempotent = random.chance(0.4)
  const input = {
    token,
    value,
    seconds: random.chance(0.1) ? random.next() * 0.03 : 0,
    text: random.chance(0.02) ? `line ${token}\n` : ""
  }
  const options = { method: random.pick(["echo", "echo_async"]), idempotent }
  const call = Synapse.call(Schema.Unknown, input, options)
  return { token, idempotent, run: equals(ledger.track(token, call, idempotent), [token, value]) }
}

/** Slow enough for its worker to end meanwhile, more than once. */
const slow: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const idempotent = random.chance(0.7)
  const input = { token, value: null, seconds: random.next() * random.pick([0.05, 0.5]) }
  const affinity = random.chance(0.3) ? { affinity: `slow key ${random.below(5)}` } : {}
  const call = Synapse.call(Schema.Unknown, input, { method: "echo_async", idempotent, ...affinity })
  return { token, idempotent, run: equals(ledger.track(token, call, idempotent), [token, null]) }
}

const large: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const value = Buffer.alloc(random.below(2 ** random.pick([12, 17, 20])), `${token} `)
  const idempotent = random.chance(0.5)
  const options = { method: random.pick(["echo", "echo_async"]), idempotent }
  const call = Synapse.call(Schema.Tuple([Schema.Int, Schema.Uint8Array]), { token, value }, options)
  return {
    token,
    idempotent,
    run: Effect.suspend(() => {
      const begun = Date.now()
      return Effect.map(ledger.track(token, call, idempotent), ([answered, bytes]) => {
        if (answered !== token) return `the answer of ${answered}`
        if (value.equals(bytes)) return undefined
        if (!isGarbled(value, bytes)) return `${bytes.length} other bytes, and not ${value.length}`
        ledger.garbled(token, begun)
        return undefined
      })
    })
  }
}

/** What the faults `garbage` and `print-on-channel` write. */
const garbageLengths = [64, 4 * "a print that went to the channel\n".length]

/** Whether the bytes are what they should be but for what a fault has written to the channel in the middle of them. */
const isGarbled = (value: Uint8Array, bytes: Uint8Array): boolean => {
  const at = value.findIndex((byte, index) => byte !== bytes[index])
  return (
    value.length === bytes.length &&
    garbageLengths.some(
      (length) =>
        Buffer.compare(bytes.subarray(at + length), value.subarray(at, Math.max(at, value.length - length))) === 0
    )
  )
}

const evaluated: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const n = random.below(1000)
  const code = Synapse.evaluate(Schema.Array(Schema.Int), { token, n })`
    ran(token)
    [token, n * n]
  `
  return { token, run: equals(ledger.track(token, code), [token, n * n]) }
}

const Remembered = Schema.Struct({ token: Schema.Int, worker: Schema.String, count: Schema.Int })

const remembered: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const key = `key ${random.below(40)}`
  return {
    token,
    run: Effect.suspend(() => {
      const begun = performance.now()
      const call = Synapse.call(Remembered, { token, key }, { method: "remember", affinity: key })
      return Effect.map(ledger.track(token, call), (found) =>
        found.token === token ? ledger.ranAt(key, found.worker, begun) : `the answer of ${found.token}`
      )
    })
  }
}

// Failures

const declined: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const call = Synapse.call(Schema.Unknown, { token }, { method: random.pick(["decline", "decline_async"]) })
  return { token, run: never(ledger.track(token, call)), expects: tagged("Declined", token) }
}

/** An exception of Python, which carries the token. */
export const failing: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const how = random.pick(["ValueError", "SystemExit", "KeyboardInterrupt"])
  const call = Synapse.call(Schema.Unknown, { token, how }, { method: random.pick(["fail", "fail_async"]) })
  return {
    token,
    run: never(ledger.track(token, call)),
    expects: (reason) => raised(how)(reason) && reason.message.includes(String(token))
  }
}

/** Inputs and answers that do not fit: method, input, schema, and the only way in which it may end. */
type Misfit = readonly [
  method: string,
  input: object,
  schema: Schema.Codec<unknown>,
  tag: SynapseErrorReason["_tag"],
  delivery: SynapseErrorReason["delivery"]
]

const misfits: ReadonlyArray<Misfit> = [
  ["typed", { n: "text" }, Schema.Unknown, "DecodeFailed", "rejected"],
  ["typed", { n: 1, more: 2 }, Schema.Unknown, "DecodeFailed", "rejected"],
  ["typed", {}, Schema.Unknown, "DecodeFailed", "rejected"],
  ["typed", { n: 1 }, Schema.String, "DecodeFailed", "unknown"],
  ["nothing_of_that_name", {}, Schema.Unknown, "MethodNotFound", "rejected"],
  ["count", { to: 3 }, Schema.Unknown, "Unsupported", "rejected"],
  ["open_session", {}, Schema.Unknown, "Unsupported", "unknown"],
  ["echo", { value: Symbol("no") }, Schema.Unknown, "EncodeFailed", "notSent"],
  ["echo", { value: 2n ** 70n }, Schema.Unknown, "EncodeFailed", "notSent"],
  ["echo", { value: "x".repeat(maxFrameSize + 1) }, Schema.Unknown, "FrameTooLarge", "notSent"],
  ["give", { what: "object" }, Schema.Unknown, "EncodeFailed", "unknown"],
  ["give", { what: "key" }, Schema.Unknown, "EncodeFailed", "unknown"],
  ["give", { what: "huge" }, Schema.Unknown, "EncodeFailed", "unknown"],
  ["give", { what: "surrogate" }, Schema.Unknown, "EncodeFailed", "unknown"],
  ["give", { what: "large" }, Schema.Unknown, "FrameTooLarge", "unknown"],
  ["give", { what: "text" }, Schema.Int, "DecodeFailed", "unknown"]
]

const misfitting: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const [method, input, schema, tag, delivery] = random.pick(misfits)
  const call = Synapse.call(schema, { token, ...input }, { method })
  return {
    token,
    run: never(ledger.track(token, call)),
    expects: (reason) => reason._tag === tag && reason.delivery === delivery
  }
}

const unstreamable: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const stream = Synapse.stream(Schema.Unknown, { token, value: 1 }, { method: random.pick(["echo", "echo_async"]) })
  return {
    token,
    run: never(ledger.track(token, Stream.runCollect(stream))),
    expects: (reason) => reason._tag === "Unsupported" && reason.delivery === "rejected"
  }
}

// Streams

/** Collects a stream, whose items have to be right also where it fails later. */
const items = <E, R>(
  { ledger }: Draft,
  token: number,
  stream: Stream.Stream<unknown, E, R>,
  wanted: ReadonlyArray<unknown>
): Effect.Effect<string | undefined, E, R> =>
  Effect.suspend(() => {
    const found: Array<unknown> = []
    const collect = Stream.runForEach(stream, (item) => Effect.sync(() => found.push(item)))
    return Effect.onExit(
      Effect.map(ledger.track(token, collect), () => isEqual(found, wanted)),
      () =>
        Effect.sync(() => {
          const wrong = isEqual(found, wanted.slice(0, found.length))
          if (wrong !== undefined) ledger.isWrong(`items of ${token}: ${wrong}`)
        })
    )
  })

const counted: Make = (draft) => {
  const { random } = draft
  const token = draft.token()
  const to = random.below(400)
  const take = random.chance(0.5) ? to + 1 : 1 + random.below(500)
  const stream = Synapse.stream(Schema.Int, { token, to }, { method: random.pick(["count", "count_async"]) })
  return { token, run: items(draft, token, Stream.take(stream, take), of(token, Math.min(to, take))) }
}

const slowlyConsumed: Make = (draft) => {
  const token = draft.token()
  const to = draft.random.below(200)
  const stream = Synapse.stream(Schema.Int, { token, to }, { method: draft.random.pick(["count", "count_async"]) })
  const slow = Stream.mapEffect(stream, (item) => Effect.as(Effect.sleep(1), item))
  return { token, run: items(draft, token, slow, of(token, to)) }
}

const ticking: Make = (draft) => {
  const token = draft.token()
  const take = 1 + draft.random.below(20)
  const stream = Synapse.stream(Schema.Int, { token, seconds: 0.001 }, { method: "tick" })
  return { token, run: items(draft, token, Stream.take(stream, take), of(token, take)) }
}

const inPieces: Make = (draft) => {
  const { random } = draft
  const token = draft.token()
  const [to, size] = [random.below(20), random.below(2 ** random.pick([10, 18]))]
  const stream = Synapse.stream(Schema.Uint8Array, { token, to, size }, { method: "pieces" })
  const heads = Stream.map(stream, (piece) => {
    const text = Buffer.from(piece).toString("latin1")
    return text.length - text.indexOf(".") === size || size === 0 ? Number.parseInt(text, 10) : `${text.length} bytes`
  })
  return { token, run: items(draft, token, heads, of(token, to)) }
}

const breaking: Make = (draft) => {
  const { random } = draft
  const token = draft.token()
  const fail_at = random.below(150)
  const how = random.pick(["Declined", "ValueError"])
  const method = random.pick(["count", "count_async"])
  const stream = Synapse.stream(Schema.Int, { token, to: fail_at + 1, fail_at, how }, { method })
  return {
    token,
    run: Effect.map(
      items(draft, token, stream, of(token, fail_at)),
      () => "a stream that should have failed came to an end"
    ),
    expects: how === "Declined" ? tagged(how, token) : raised(how)
  }
}

// Input streams

const totalled: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const n = random.below(500)
  const input = { token, numbers: numbers(n, 1 + random.below(50)) }
  const call = Synapse.call(Schema.Int, input, { method: random.pick(["total", "total_async"]) })
  return { token, run: equals(ledger.track(token, call), token * 1000 + sum(n)) }
}

const shifted: Make = (draft) => {
  const { random } = draft
  const token = draft.token()
  const [n, take] = [random.below(300), 1 + random.below(400)]
  const input = { token, numbers: numbers(n, 1 + random.below(50)) }
  const stream = Synapse.stream(Schema.Int, input, { method: random.pick(["shifted", "shifted_async"]) })
  return { token, run: items(draft, token, Stream.take(stream, take), of(token, Math.min(n, take))) }
}

const brokenInput: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const broken = Stream.concat(numbers(random.below(100), 1 + random.below(50)), Stream.fail("broken"))
  const method = random.pick(["total", "total_async"])
  const call = Synapse.call(Schema.Int, { token, numbers: broken }, { method })
  return { token, run: never(ledger.track(token, call)), expects: ({ _tag }) => _tag === "HandlerFailed" }
}

// Host functions

class NoSuchUser extends Schema.TaggedError<NoSuchUser>()("NoSuchUser", { token: Schema.Int }) {}
/** A call inside a host function failed; it is kept for the one that made it. */
class BackFailed extends Schema.TaggedError<BackFailed>()("BackFailed", { token: Schema.Int }) {}

const Group = RpcGroup.make(
  Rpc.make("nameOf", { payload: { id: Schema.Int }, success: Schema.String, error: NoSuchUser }),
  Rpc.make("wait", { payload: { id: Schema.Int }, success: Schema.Void }),
  Rpc.make("die", { payload: { id: Schema.Int }, success: Schema.Void }),
  Rpc.make("back", {
    payload: { tokens: Schema.Array(Schema.Int), method: Schema.String },
    success: Schema.Array(Schema.Int),
    error: BackFailed
  }),
  Rpc.make("ids", { payload: { id: Schema.Int }, success: Schema.Int, stream: true })
)

const backFailures = new Map<number, SynapseError>()

const hasName = (id: number): boolean => id % 5 !== 0

/** What Python may call. */
export const hostOf = (ledger: Ledger) =>
  HostFunctions.make(Group, {
    nameOf: ({ id }) => (hasName(id) ? Effect.succeed(`user ${id}`) : Effect.fail(new NoSuchUser({ token: id }))),
    wait: () => Effect.never,
    die: ({ id }) => Effect.die(new RangeError(`boom ${id}`)),
    back: ({ method, tokens }) =>
      Effect.mapError(
        ledger.track(tokens[0]!, Synapse.call(Schema.Array(Schema.Int), { tokens }, { method })),
        (error) => {
          // Of those on the way back, the first one says what happened.
          if (!backFailures.has(tokens[1] ?? 0)) backFailures.set(tokens[0]!, error)
          return new BackFailed({ token: tokens[0]! })
        }
      ),
    ids: ({ id }) => Stream.rechunk(Stream.fromIterable(of(id, 300)), 7)
  })

const named: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const call = Synapse.call(Schema.String, { token }, { method: random.pick(["name_of", "name_of_sync"]) })
  return hasName(token)
    ? { token, run: equals(ledger.track(token, call), `user ${token}`) }
    : { token, run: never(ledger.track(token, call)), expects: tagged("NoSuchUser", token) }
}

const manyNamed: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const ids = upTo(random.below(20)).map((i) => token * 50 + 5 * i + 1)
  const method = random.pick(["names_of", "names_of_threads"])
  const call = Synapse.call(Schema.Array(Schema.String), { token, ids }, { method })
  return {
    token,
    run: equals(
      ledger.track(token, call),
      ids.map((id) => `user ${id}`)
    )
  }
}

const hostItems: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const take = random.chance(0.3) ? -1 : 1 + random.below(320)
  const method = random.pick(["host_items", "host_items_sync"])
  const call = Synapse.call(Schema.Array(Schema.Int), { token, take }, { method })
  return { token, run: equals(ledger.track(token, call), of(token, take < 0 ? 300 : Math.min(take, 300))) }
}

const hostDies: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const call = Synapse.call(Schema.Unknown, { token, method: "die" }, { method: random.pick(["ask", "ask_sync"]) })
  return {
    token,
    run: never(ledger.track(token, call)),
    expects: (reason) => reason._tag === "PythonException" && reason.message.includes(`boom ${token}`)
  }
}

const thereAndBack: Make = ({ ledger, random, token: next }) => {
  const tokens = random.times(1 + random.below(4), next)
  const token = tokens[0]!
  const method = random.pick(["back", "back_async"])
  const call = ledger.track(token, Synapse.call(Schema.Array(Schema.Int), { tokens }, { method }))
  const run = Effect.mapError(call, (error) => {
    const { reason } = error
    if (reason._tag !== "HandlerFailed" || reason.errorTag !== "BackFailed") return error
    const cause = tokens.map((inner) => backFailures.get(inner)).findLast((inner) => inner !== undefined)
    return cause ?? error
  })
  const forget = Effect.sync(() => {
    for (const inner of tokens) backFailures.delete(inner)
  })
  return { token, run: Effect.ensuring(equals(run, tokens), forget) }
}

// Time-outs and progress

const waiters = ["wait_async", "wait_cooperatively", "wait_interrupted"] as const

const timedOut: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const limit = random.below(40)
  const timeouts = random.chance(0.5) ? { timeout: limit } : { totalTimeout: limit }
  const method = random.pick(waiters)
  const call = Synapse.call(Schema.Unknown, { token }, { method, ...timeouts })
  return { token, timeouts, run: never(ledger.track(token, call)) }
}

const hostNeverEnds: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const timeouts = { timeout: 1 + random.below(30) }
  const options = { method: random.pick(["ask", "ask_sync"]), ...timeouts }
  const call = Synapse.call(Schema.Unknown, { token, method: "wait" }, options)
  return { token, timeouts, run: never(ledger.track(token, call)) }
}

const bounded: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const limit = () => (random.chance(0.5) ? 1 + random.below(30) : undefined)
  const timeouts = { timeout: limit(), queueTimeout: limit(), totalTimeout: limit() }
  const value = anyValue(random)
  const seconds = random.next() * 0.02
  const idempotent = random.chance(0.3)
  const options = { method: random.pick(["echo", "echo_async"]), idempotent, ...timeouts }
  const call = Synapse.call(Schema.Unknown, { token, value, seconds }, options)
  return { token, timeouts, idempotent, run: equals(ledger.track(token, call, idempotent), [token, value]) }
}

/** Each progress starts the time-out anew, until the last one of all. */
const maximal: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const timeouts = { timeout: 60_000, maxTimeout: 10 + random.below(40) }
  const method = random.pick(["work", "work_async"])
  const call = Synapse.call(Schema.Unknown, { token, steps: 10_000, seconds: 0.005 }, { method, ...timeouts })
  return { token, timeouts, run: never(ledger.track(token, call)) }
}

const progressing: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const steps = 1 + random.below(30)
  const method = random.pick(["work", "work_async"])
  return {
    token,
    run: Effect.suspend(() => {
      const seen: Array<number> = []
      const progress = Synapse.onProgress(Schema.Int, (n) => Effect.sync(() => seen.push(n)))
      const call = Synapse.call(Schema.Int, { token, steps }, { method, progress })
      return Effect.map(ledger.track(token, call), (found) => isEqual(found, token) ?? isEqual(seen, of(token, steps)))
    })
  }
}

const interruptedOnly: Make = ({ ledger, random, token: next }) => {
  const token = next()
  const call = Synapse.call(Schema.Unknown, { token }, { method: random.pick(waiters) })
  return { token, isEndless: true, run: never(ledger.track(token, call)) }
}

// Objects

const object: Make = (draft) => {
  const { ledger, random } = draft
  const [opening, saying, streaming, forking] = random.times(4, draft.token) as [number, number, number, number]
  const method = random.pick(["say", "say_async"])
  const [to, take] = [random.below(100), 1 + random.below(100)]
  const forks = random.chance(0.3)
  const run = Effect.gen(function* () {
    const session = yield* ledger.track(opening, Synapse.acquire({ token: opening }, { method: "open_session" }))
    const say = session.call(Schema.String, { token: saying, text: "hi" }, { method })
    const said = isEqual(yield* ledger.track(saying, say), `${opening}: hi`)
    const count = isEqual(yield* session.get(Schema.Int, "said"), 1)
    const words = session.stream(Schema.Int, { token: streaming, to }, { method: "words" })
    const heard = yield* items(draft, streaming, Stream.take(words, take), of(streaming, Math.min(to, take)))
    if (!forks) return said ?? count ?? heard
    const fork = yield* ledger.track(forking, session.acquire({ token: forking }, { method: "fork" }))
    return said ?? count ?? heard ?? isEqual(yield* fork.get(Schema.Int, "token"), forking)
  })
  return { token: opening, usesObject: true, run: Effect.scoped(run) }
}

/** Names, how often each is drawn, and what it draws. */
const table: ReadonlyArray<readonly [name: string, weight: number, make: Make]> = [
  ["echo", 6, echo],
  ["slow", 2, slow],
  ["large", 1, large],
  ["evaluate", 2, evaluated],
  ["affinity", 3, remembered],
  ["declared error", 2, declined],
  ["exception", 2, failing],
  ["misfit", 2, misfitting],
  ["no stream", 1, unstreamable],
  ["stream", 3, counted],
  ["slow consumer", 1, slowlyConsumed],
  ["endless stream", 1, ticking],
  ["large items", 1, inPieces],
  ["failing stream", 1, breaking],
  ["input stream", 2, totalled],
  ["stream in and out", 2, shifted],
  ["failing input", 1, brokenInput],
  ["host function", 2, named],
  ["many host functions", 1, manyNamed],
  ["host stream", 2, hostItems],
  ["host defect", 1, hostDies],
  ["nested calls", 2, thereAndBack],
  ["host function without end", 1, hostNeverEnds],
  ["time-out", 2, timedOut],
  ["three time-outs", 3, bounded],
  ["maxTimeout", 1, maximal],
  ["progress", 2, progressing],
  ["interruption", 1, interruptedOnly],
  ["object", 3, object]
]

const drawn = table.flatMap(([name, weight, make]) => Array.from({ length: weight }, () => ({ name, make })))

/** What the next operation is. */
export const draw = (draft: Draft): Operation & { readonly name: string } => {
  const { make, name } = draft.random.pick(drawn)
  return { name, ...make(draft) }
}
