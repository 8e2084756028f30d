/**
 * Everything at once and at random, for a minute: calls, streams, input streams, host functions, progress, code and objects,
 * given up at any moment. Every one of them ends once and as it should, and nothing is open afterwards.
 *
 * `SYNAPSE_SOAK_SECONDS` sets how long, `SYNAPSE_SOAK_SEED` what happens.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Schema, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { HostFunctions, Synapse } from "effect-synapse"
import type { SynapseError } from "../src/SynapseError.ts"
import { upTo } from "./fixtures/dialogue.ts"
import * as modules from "./fixtures/modules.ts"

const seconds = Number(process.env.SYNAPSE_SOAK_SECONDS ?? 60)
const seed = Number(process.env.SYNAPSE_SOAK_SEED ?? Date.now() % 1_000_000)

/** Mulberry32. */
const generator = (state: number) => (): number => {
  state = (state + 0x6d2b79f5) | 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}

class NoSuchUser extends Schema.TaggedError<NoSuchUser>()("NoSuchUser", { id: Schema.Int }) {}

const Group = RpcGroup.make(
  Rpc.make("nameOf", { payload: { id: Schema.Int }, success: Schema.String, error: NoSuchUser }),
  Rpc.make("wait", { success: Schema.Void }),
  Rpc.make("back", { payload: { method: Schema.String, depth: Schema.Int }, success: Schema.Int }),
  Rpc.make("ids", { success: Schema.Int, stream: true })
)

const host = HostFunctions.make(Group, {
  nameOf: ({ id }) => (id < 50 ? Effect.succeed(`user ${id}`) : Effect.fail(new NoSuchUser({ id }))),
  wait: () => Effect.never,
  back: ({ depth, method }) =>
    depth === 0
      ? Effect.succeed(0)
      : Effect.orDie(
          Effect.map(
            Synapse.call(Schema.Int, { method: "back", payload: { method, depth: depth - 1 } }, { method }),
            (n) => n + 1
          )
        ),
  ids: () => Stream.rechunk(Stream.range(0, 299), 7)
})

interface Ledger {
  begun: number
  ended: number
  readonly outcomes: Map<string, number>
  readonly wrong: Array<string>
}

const tagOf = (exit: Exit.Exit<unknown, SynapseError>): string => {
  if (Exit.isSuccess(exit)) return "value"
  const error = Cause.findErrorOption(exit.cause)
  if (error._tag === "Some") return error.value.reason._tag
  return Cause.hasInterruptsOnly(exit.cause) ? "interrupted" : "defect"
}

describe("everything at once", () => {
  it.live(
    `ends once, and leaves nothing open (seed ${seed})`,
    () =>
      Effect.gen(function* () {
        const random = generator(seed)
        const below = (n: number) => Math.floor(random() * n)
        const pick = <A>(items: ReadonlyArray<A>): A => items[below(items.length)]!
        const ledger: Ledger = { begun: 0, ended: 0, outcomes: new Map(), wrong: [] }

        const sum = (n: number) => (n * (n - 1)) / 2
        const numbers = (n: number) => Stream.rechunk(Stream.fromIterable(upTo(n)), 1 + below(50))
        const expect = <A, E, R>(effect: Effect.Effect<A, E, R>, wanted: unknown) =>
          Effect.tap(effect, (value) =>
            Effect.sync(() => {
              if (JSON.stringify(value) !== JSON.stringify(wanted)) {
                ledger.wrong.push(`${JSON.stringify(value)} and not ${JSON.stringify(wanted)}`)
              }
            })
          )
        const count = () => {
          const n = below(400)
          const stream = Synapse.stream(Schema.Int, { to: n }, { method: pick(["count", "count_async"]) })
          const take = below(500)
          return random() < 0.5
            ? expect(Stream.runCollect(stream), upTo(n))
            : expect(Stream.runCollect(Stream.take(stream, take)), upTo(Math.min(n, take)))
        }
        const operations: ReadonlyArray<() => Effect.Effect<unknown, SynapseError, Synapse.Synapse>> = [
          () => {
            const n = below(1000)
            return expect(Synapse.call(Schema.Int, n, { method: pick(["echo", "echo_async"]) }), n)
          },
          count,
          () => {
            const slow = Synapse.stream(Schema.Int, { seconds: 0.001 }, { method: "ticking" })
            return expect(Stream.runCollect(Stream.take(slow, 20)), upTo(20))
          },
          () =>
            Stream.runDrain(
              Stream.mapEffect(Synapse.stream(Schema.Int, { to: 200 }, { method: "count" }), () => Effect.sleep(1))
            ),
          () => {
            const n = below(500)
            const input = { numbers: numbers(n) }
            return expect(Synapse.call(Schema.Int, input, { method: pick(["total", "total_async"]) }), sum(n))
          },
          () => {
            const n = below(300)
            const input = { numbers: numbers(n) }
            const stream = Synapse.stream(Schema.Int, input, { method: pick(["doubled", "doubled_async"]) })
            const take = below(400)
            return expect(
              Stream.runCollect(Stream.take(stream, take)),
              upTo(Math.min(n, take)).map((i) => i * 2)
            )
          },
          () => {
            const input = { numbers: Stream.concat(numbers(below(50)), Stream.fail("broken")) }
            return Synapse.call(Schema.Int, input, { method: pick(["total", "total_async"]) })
          },
          () => {
            const id = below(60)
            return expect(
              Synapse.call(Schema.String, { id }, { method: pick(["name_of", "name_of_sync"]) }),
              `user ${id}`
            )
          },
          () => {
            const ids = upTo(below(20))
            const call = Synapse.call(
              Schema.Array(Schema.String),
              { ids },
              { method: pick(["names_of", "names_of_threads"]) }
            )
            return expect(
              call,
              ids.map((id) => `user ${id}`)
            )
          },
          () => {
            const take = below(320)
            return expect(
              Synapse.call(
                Schema.Array(Schema.Int),
                { method: "ids", take: take === 0 ? -1 : take },
                { method: pick(["host_items", "host_items_sync"]) }
              ),
              upTo(take === 0 ? 300 : Math.min(take, 300))
            )
          },
          () => {
            const depth = below(4)
            const payload = { method: "ask_sync", depth }
            return expect(Synapse.call(Schema.Int, { method: "back", payload }, { method: "ask_sync" }), depth)
          },
          () =>
            Synapse.call(
              Schema.Unknown,
              { method: "wait", payload: {} },
              { method: pick(["ask", "ask_sync"]), timeout: 1 + below(30) }
            ),
          () => Synapse.call(Schema.Void, { name: "soak" }, { method: "wait_async", timeout: 1 + below(30) }),
          () => {
            const steps = 1 + below(30)
            let last = 0
            const Step = Schema.Struct({ done: Schema.Int, of: Schema.Int })
            const progress = Synapse.onProgress(Step, ({ done }) =>
              Effect.sync(() => {
                last = done
              })
            )
            const call = Synapse.call(Schema.String, { steps }, { method: pick(["work", "work_async"]), progress })
            return expect(
              Effect.map(call, () => last),
              steps
            )
          },
          () => {
            const n = below(100)
            return expect(Synapse.evaluate(Schema.Int, { n })`n * n`, n * n)
          },
          () =>
            Effect.scoped(
              Effect.gen(function* () {
                const session = yield* Synapse.acquire({ name: "soak" }, { method: "open_session" })
                yield* session.call(Schema.String, { text: "a" }, { method: pick(["say", "say_async"]) })
                yield* session.get(Schema.Int, "said")
                const words = session.stream(Schema.String, { text: "a b c d" }, { method: "words" })
                yield* expect(Stream.runCollect(Stream.take(words, 1 + below(3))).pipe(Effect.map((w) => w[0])), "a")
              })
            )
        ]
        const allowed = new Set(["value", "interrupted", "CallTimeout", "HandlerFailed"])

        const one = Effect.gen(function* () {
          ledger.begun++
          let ends = 0
          const operation = pick(operations)()
          const fiber = yield* Effect.forkChild(
            Effect.onExit(operation, (exit) =>
              Effect.sync(() => {
                ends++
                const tag = tagOf(exit)
                ledger.outcomes.set(tag, (ledger.outcomes.get(tag) ?? 0) + 1)
                if (!allowed.has(tag)) {
                  ledger.wrong.push(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : tag)
                }
              })
            ),
            { startImmediately: true }
          )
          const interrupt = random() < 0.3
          if (interrupt) {
            if (random() < 0.7) yield* Effect.sleep(below(20))
            yield* Fiber.interrupt(fiber)
          }
          yield* Fiber.await(fiber)
          ledger.ended += ends
        })

        const pids = Synapse.call(Schema.Int, {}, { method: "pid" })
        const before = yield* pids
        const end = performance.now() + seconds * 1000
        const loop = Effect.whileLoop({
          while: () => performance.now() < end && ledger.wrong.length < 5,
          body: () => one,
          step: () => {}
        })
        yield* Effect.all(
          upTo(24).map(() => loop),
          { concurrency: "unbounded" }
        )

        const report = JSON.stringify({ ...ledger, outcomes: Object.fromEntries(ledger.outcomes) })
        assert.deepStrictEqual(ledger.wrong, [], report)
        assert.strictEqual(ledger.ended, ledger.begun)
        assert.isAbove(ledger.outcomes.get("value") ?? 0, 100, report)
        assert.isAbove(ledger.outcomes.get("interrupted") ?? 0, 10, report)
        assert.isAbove(ledger.outcomes.get("CallTimeout") ?? 0, 1, report)

        // What was given up last may take a moment in Python: until all counts are what they were before.
        const Python = Schema.Struct({
          calls: Schema.Int,
          streams: Schema.Int,
          host_calls: Schema.Int,
          handles: Schema.Int
        })
        yield* Effect.repeat(
          Effect.all([
            Synapse.call(Python, {}, { method: "stats" }),
            Synapse.call(Schema.Int, {}, { method: "still_running" }),
            Synapse.stats
          ]),
          {
            until: ([python, running, host]) =>
              JSON.stringify([python, running, host]) ===
              JSON.stringify([
                { calls: 1, streams: 0, host_calls: 0, handles: 0 },
                0,
                { calls: 0, streams: 0, hostCalls: 0, handles: 0 }
              ])
          }
        )
        assert.strictEqual(yield* pids, before)
      }).pipe(
        Effect.provide(
          Synapse.layer({ ...modules.dialogue, concurrency: seed % 2 === 0 ? 1 : 3, evaluate: true, host })
        )
      ),
    (seconds + 60) * 1000
  )
})
