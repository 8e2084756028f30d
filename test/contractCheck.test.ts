/** Layers that compare their module with a group when it starts, with real workers. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Logger, Ref, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Contract, Synapse } from "effect-synapse"
import { makeContractCheck } from "../src/internal/contractCheck.ts"
import { reasonOf } from "./fixtures/dialogue.ts"

const module = (text: string, more = ""): string => `
from __future__ import annotations
import dataclasses, os
from collections.abc import Iterator
import synapse

class TooLong(synapse.Error):
    limit: int

@dataclasses.dataclass
class Options:
    model: str
    dimensions: int = 8

@synapse.handler(raises=[TooLong])
def embed(text: ${text}, options: Options | None = None) -> list[float]:
    return [float(len(str(text)))]

@synapse.handler
def count(upTo: int) -> Iterator[int]:
    yield from range(upTo)

@synapse.handler
def pid() -> int:
    return os.getpid()
${more}
`

class TooLong extends Schema.TaggedError<TooLong>()("TooLong", { limit: Schema.Int }) {}

const Embedder = RpcGroup.make(
  Rpc.make("embed", {
    payload: { text: Schema.String, options: Schema.optionalKey(Schema.Struct({ model: Schema.String })) },
    success: Schema.Array(Schema.Finite),
    error: TooLong
  }),
  Rpc.make("count", { payload: { upTo: Schema.Int }, success: Schema.Int, stream: true })
)

const temporaryModule = Effect.acquireRelease(
  Effect.sync(() => {
    const directory = mkdtempSync(join(tmpdir(), "synapse-contract-"))
    return { directory, write: (text: string) => writeFileSync(join(directory, "main.py"), text) }
  }),
  ({ directory }) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
).pipe(
  Effect.map(({ directory, write }) => ({
    write,
    options: { directory, environment: "system", logs: "ignore", group: Embedder } as const
  }))
)

const embed = Synapse.call(Schema.Array(Schema.Finite), { text: "abc" }, { method: "embed" })
const pid = Synapse.call(Schema.Int, {}, { method: "pid" })

/** The messages of all that is logged. */
const logged = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const messages = yield* Ref.make<ReadonlyArray<string>>([])
    const logger = Logger.make(
      ({ message }) => void Effect.runSync(Ref.update(messages, (all) => [...all, String(message)]))
    )
    yield* effect.pipe(Effect.provide(Logger.layer([logger])))
    return yield* Ref.get(messages)
  })

const drift = "`embed.text`: TypeScript says string, Python says int (main.py:16)"

describe("a layer with a group", () => {
  it.live("starts with a module that keeps its contract", () =>
    Effect.gen(function* () {
      const { options, write } = yield* temporaryModule
      write(module("str"))
      assert.deepStrictEqual(yield* Effect.provide(embed, Synapse.layer({ ...options, workers: 2 })), [3])
    })
  )

  it.live("fails before any call with a module that drifts, and says each drift", () =>
    Effect.gen(function* () {
      const { options, write } = yield* temporaryModule
      write(module("int").replace("-> Iterator[int]", "-> Iterator[str]").replace("upTo", "n"))
      const reason = yield* reasonOf(Effect.provide(embed, Synapse.layer(options)), "StartFailed")
      assert.strictEqual(reason.kind, "contract")
      assert.deepStrictEqual(reason.message.split("\n").slice(1, -1), [
        `  ${drift}`,
        "  `count.n`: Python requires it, TypeScript never sends it (main.py:20)",
        "  `count.upTo`: TypeScript sends it, the handler has no parameter of that name: it takes the key `n` (main.py:20)",
        "  `count()[]`: TypeScript says integer, Python says str (main.py:20)"
      ])
    })
  )

  it.live("compares before the worker is warmed up", () =>
    Effect.gen(function* () {
      const { options, write } = yield* temporaryModule
      write(module("int"))
      const layer = Synapse.layer({ ...options, warmUp: { method: "no_such", input: {} } })
      assert.strictEqual((yield* reasonOf(Effect.provide(embed, layer), "StartFailed")).kind, "contract")
    })
  )

  it.live("warns once where it is to warn, and starts", () =>
    Effect.gen(function* () {
      const { options, write } = yield* temporaryModule
      write(module("int"))
      const messages = yield* logged(Effect.provide(pid, Synapse.layer({ ...options, contract: "warn", workers: 3 })))
      assert.lengthOf(messages, 1)
      assert.include(messages[0], drift)
    })
  )

  it.live("compares nothing where that is off", () =>
    Effect.gen(function* () {
      const { options, write } = yield* temporaryModule
      write(module("int"))
      assert.deepStrictEqual(yield* logged(Effect.provide(pid, Synapse.layer({ ...options, contract: "off" }))), [])
    })
  )

  it.live("goes on with the old workers where a reload brings a drift", () =>
    Effect.gen(function* () {
      const { options, write } = yield* temporaryModule
      write(module("str"))
      yield* Effect.gen(function* () {
        const before = yield* pid
        write(module("int"))
        const reason = yield* reasonOf(Synapse.reload, "StartFailed")
        assert.deepStrictEqual([reason.kind, reason.message.includes(drift)], ["contract", true])
        assert.strictEqual(yield* pid, before)
        write(module("str", "# mended"))
        yield* Synapse.reload
        assert.notStrictEqual(yield* pid, before)
        assert.deepStrictEqual(yield* embed, [3])
      }).pipe(Effect.provide(Synapse.layer(options)))
    })
  )

  it.live("does not restart a worker with a module that drifts meanwhile", () =>
    Effect.gen(function* () {
      const { options, write } = yield* temporaryModule
      write(module("str", "\n@synapse.handler\ndef leave() -> None:\n    os._exit(3)\n"))
      yield* Effect.gen(function* () {
        yield* pid
        write(module("int"))
        yield* reasonOf(Synapse.call(Schema.Void, {}, { method: "leave" }), "WorkerExited")
        const reason = yield* reasonOf(embed, "RestartLimit")
        assert.include(reason.message, drift)
      }).pipe(Effect.provide(Synapse.layer({ ...options, restart: { max: 1, backoff: "10 millis" } })))
    })
  )

  it.live("refuses what is no group, and no way to check", () =>
    Effect.gen(function* () {
      const { options } = yield* temporaryModule
      for (const wrong of [{ group: {} as never }, { contract: "strict" as never }]) {
        const reason = yield* reasonOf(Effect.provide(pid, Synapse.layer({ ...options, ...wrong })), "StartFailed")
        assert.strictEqual(reason.kind, "options")
        assert.include(reason.message, `\`${Object.keys(wrong)[0]}\``)
      }
    })
  )
})

describe("the check of a worker", () => {
  const hello = (contract: unknown) => ({
    protocol: 1,
    runtime: "0.1.0",
    python: "3.12.0",
    implementation: "cpython",
    pid: 1,
    codec: "msgspec",
    methods: [],
    contract
  })

  it.effect("takes a contract that does not decode for a breach of the protocol", () =>
    Effect.gen(function* () {
      const check = makeContractCheck({ group: Embedder })!
      yield* reasonOf(check(hello({ version: 1 })), "ProtocolError")
      assert.strictEqual((yield* reasonOf(check(hello(null)), "StartFailed")).kind, "contract")
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(check(hello(Contract.fromGroup(Embedder))))))
    })
  )

  it.effect("lets a worker that does not describe itself start where it is to warn, and says so once", () =>
    Effect.gen(function* () {
      const check = makeContractCheck({ group: Embedder, contract: "warn" })!
      const messages = yield* logged(Effect.andThen(check(hello(null)), check(hello(null))))
      assert.lengthOf(messages, 1)
      assert.include(messages[0], "does not describe its handlers")
    })
  )

  it.effect("fails every worker that drifts, not only the first", () =>
    Effect.gen(function* () {
      const check = makeContractCheck({ group: Embedder })!
      const drifting = hello({ ...Contract.fromGroup(Embedder), methods: {} })
      for (const _ of [1, 2]) {
        assert.strictEqual((yield* reasonOf(check(drifting), "StartFailed")).kind, "contract")
      }
      yield* check(hello(Contract.fromGroup(Embedder)))
    })
  )
})
