/** A corpus of annotated Python handlers: what is generated from it, and that it is right for a real worker. */
import { execFile } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { Arbitrary, Effect, Layer, Predicate, Schema, Stream } from "effect"
import type { Rpc, RpcGroup } from "effect/rpc"
import { Synapse, type SynapseError, SynapseRpc } from "effect-synapse"
import type { Contract, Method } from "../src/Contract.ts"
import { describeModule } from "../src/internal/describeModule.ts"
import { generateTypeScript } from "../src/internal/generateTypeScript.ts"
import { directory, modules } from "./corpus/modules.ts"
import { Busy, NotFound, Streams } from "./corpus/streams.gen.ts"
import { carried, isBack } from "./corpus/values.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const tool = (name: string, ...args: ReadonlyArray<string>): Promise<unknown> =>
  promisify(execFile)(`${root}node_modules/.bin/${name}`, args, {
    cwd: root,
    env: { ...process.env, NO_COLOR: "1" }
  }).catch(({ stderr, stdout }) => assert.fail(`${stdout}${stderr}`))

const describeCorpus = (entrypoint: string) =>
  describeModule({ directory, entrypoint, logs: "ignore" }).pipe(Effect.provide(NodeServices.layer))

const samples = 20
type Record_ = Readonly<Record<string, unknown>>

/** What a handler gives back for a payload, where it is not what it took. */
const answers = new Map<string, (payload: Record_) => unknown>(
  Object.entries<(payload: Record_) => unknown>({
    report: (job) => ({ job, ok: true, lines: [] }),
    maybe: (payload) => ({ b: null, c: 1.5, ...payload }),
    everything: (payload) => ({ count: 1, day: null, raw: new Uint8Array(), ...payload }),
    user_id: ({ height, user }) => [user, height],
    priority: ({ priority = 2 }) => priority,
    nothing: () => undefined
  })
)

const answerOf = (name: string, { payload }: Method, sent: unknown): unknown => {
  const answer = answers.get(name)
  if (answer !== undefined) return answer(sent as Record_)
  if (payload.kind !== "fields" || payload.rest !== undefined) return sent
  const [field, ...others] = payload.fields
  if (field === undefined || others.length > 0) return assert.fail(`${name} needs an answer in this test`)
  return (sent as Record_)[field.name]
}

/** Handlers whose payloads or answers are looked at one by one, below. */
const special = ["doubled", "either_error", "failing_stream", "find", "total"]

/** The schemas of maps with fields of their own take the types of both for all keys. */
const narrowed = (name: string, payload: unknown): unknown =>
  name === "some_keywords"
    ? Object.fromEntries(
        Object.entries({ ...(payload as Record_) }).map(([key, value]) => [
          key,
          key === "first" ? value : typeof value === "number" ? value : 1
        ])
      )
    : payload

/** A payload with something in it that only handlers without annotations take. */
const wrong = ({ payload }: Method, { definitions }: Contract): unknown => {
  const nothing = { "": { "": null } }
  const definition =
    payload.kind === "whole" && payload.type.kind === "ref" ? definitions[payload.type.name] : undefined
  const [field] = payload.kind === "fields" ? payload.fields : definition?.kind === "struct" ? definition.fields : []
  return field === undefined ? nothing : { [field.name]: nothing }
}

const takesAnything = ({ payload }: Method): boolean =>
  payload.kind === "whole"
    ? payload.type.kind === "unknown"
    : payload.kind === "fields" && payload.fields[0]?.type.kind === "unknown"

describe("what is generated from the corpus", () => {
  for (const { entrypoint, golden, group, groupName } of modules) {
    it.effect(`is the golden of ${entrypoint}, byte for byte`, () =>
      Effect.gen(function* () {
        const contract = yield* describeCorpus(entrypoint)
        const command = `npx effect-synapse generate test/corpus/python --entrypoint ${entrypoint}`
        const { findings, source } = generateTypeScript(contract, { groupName, command })
        assert.deepStrictEqual(findings, [])
        if (process.env.UPDATE_GOLDENS !== undefined) writeFileSync(golden, source)
        assert.strictEqual(source, readFileSync(golden, "utf8"))
        const again = generateTypeScript(yield* describeCorpus(entrypoint), { groupName, command })
        assert.strictEqual(again.source, source)
        const names = Object.keys(contract.methods).filter((name) => contract.methods[name]?.success.kind !== "handle")
        assert.sameMembers(names, Array.from(requestsOf(group).keys()))
      })
    )
  }

  it.effect("is what the documentation shows", () =>
    Effect.gen(function* () {
      const page = readFileSync(`${root}docs/contract.md`, "utf8")
      const block = (title: string): string => page.split(`title="${title}"\n`)[1]!.split("```")[0]!
      const module = mkdtempSync(join(tmpdir(), "synapse-words-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(module, { recursive: true })))
      writeFileSync(join(module, "words.py"), block("python/words.py"))
      const contract = yield* describeModule({ directory: module, entrypoint: "words", logs: "ignore" })
      const command = "npx effect-synapse generate ./python --entrypoint words -o words.gen.ts"
      assert.strictEqual(generateTypeScript(contract, { command }).source, block("words.gen.ts"))
    }).pipe(Effect.provide(NodeServices.layer))
  )

  it("is from more than forty handlers", () => {
    const handlers = modules.reduce((count, { group }) => count + requestsOf(group).size, 0)
    assert.isAtLeast(handlers, 80)
  })

  it("compiles under the strictest options", () => tool("tsc", "-p", "test/corpus"))

  it("is formatted and clean", () => tool("biome", "check", "--error-on-warnings", "test/corpus"))
})

const requestsOf = (group: RpcGroup.Any): ReadonlyMap<string, Rpc.AnyWithProps> =>
  (group as RpcGroup.RpcGroup<Rpc.Any>).requests as never

type Client = (tag: string, payload: unknown) => unknown

const call = (client: Client, name: string, rpc: Rpc.AnyWithProps, payload: unknown) => {
  const made = client(name, payload)
  return isStreaming(rpc)
    ? Stream.runCollect(made as Stream.Stream<unknown, SynapseError.SynapseError>)
    : (made as Effect.Effect<unknown, SynapseError.SynapseError>)
}

const isStreaming = ({ successSchema }: Rpc.AnyWithProps): boolean => Predicate.hasProperty(successSchema, "success")

for (const { entrypoint, group } of modules) {
  // The group is compared with the module at the start: it has to fit.
  const live = Layer.merge(Synapse.layer({ directory, entrypoint, group, logs: "ignore" }), NodeServices.layer)
  layer(live, { timeout: "4 minutes" })(`the handlers of ${entrypoint}`, (it) => {
    it.effect("give back random values of the generated schemas", () =>
      Effect.gen(function* () {
        const { methods } = yield* describeCorpus(entrypoint)
        const client = (yield* SynapseRpc.client(group as never, { flatten: true })) as unknown as Client
        const failures: Array<string> = []
        for (const [name, rpc] of requestsOf(group)) {
          if (special.includes(name)) continue
          const arbitrary = Arbitrary.schema(rpc.payloadSchema as Schema.Codec<unknown>)
          for (const value of yield* Arbitrary.sampleEffect(arbitrary, { count: samples, seed: "corpus" })) {
            const payload = narrowed(name, carried(value))
            const answer = yield* Effect.result(call(client, name, rpc, payload))
            const came = answer._tag === "Success" ? answer.success : answer.failure
            if (answer._tag === "Success" && isBack(came, answerOf(name, methods[name]!, payload))) continue
            failures.push(`${name}: sent ${show(payload)}, got ${show(came)}`)
            break
          }
        }
        assert.deepStrictEqual(failures, [])
      })
    )

    it.effect("refuse wrong values on both sides, with a path", () =>
      Effect.gen(function* () {
        const contract = yield* describeCorpus(entrypoint)
        for (const [name, rpc] of requestsOf(group)) {
          const method = contract.methods[name]!
          if (method.payload.kind === "none" || takesAnything(method)) continue
          const payload = wrong(method, contract)
          const here = yield* Effect.flip(send(name, rpc, payload, rpc.payloadSchema as Schema.Codec<unknown>))
          assert.include(here.reason, { _tag: "EncodeFailed", side: "typescript" }, name)
          assert.match(pathOf(here), /^\$/, `${name}: ${here.message}`)
          const there = yield* Effect.flip(send(name, rpc, payload, undefined))
          assert.include(there.reason, { _tag: "DecodeFailed", side: "python" }, name)
          assert.match(pathOf(there), /^\$/, `${name}: ${there.message}`)
        }
      })
    )

    if (entrypoint !== "streams") return

    it.effect("fail with the classes of declared errors", () =>
      Effect.gen(function* () {
        const python = yield* SynapseRpc.client(Streams)
        const missing = yield* Effect.flip(python.find({ name: "Ada" }))
        assert.deepStrictEqual(missing, new NotFound({ message: "Nothing of that name.", name: "Ada" }))
        const sent = { seconds: 1.5, reasons: ["a", "b"] }
        const busy = new Busy({ message: "Busy", ...sent })
        assert.deepStrictEqual(yield* Effect.flip(python.either_error(sent)), busy)
        const items: Array<number> = []
        const failing = python.failing_stream(sent).pipe(
          Stream.runForEach((item) => Effect.sync(() => items.push(item))),
          Effect.flip
        )
        assert.deepStrictEqual(yield* failing, busy)
        assert.deepStrictEqual(items, [1])
      })
    )

    it.effect("read streams", () =>
      Effect.gen(function* () {
        const python = yield* SynapseRpc.client(Streams)
        assert.strictEqual(yield* python.total({ values: Stream.range(1, 4) }), 10)
        assert.strictEqual(yield* python.total({ values: Stream.range(1, 4), factor: 3 }), 30)
        const doubled = python.doubled({ values: Stream.make(1, 2, 3) })
        assert.deepStrictEqual(yield* Stream.runCollect(doubled), [2, 4, 6])
      })
    )
  })
}

const send = (
  method: string,
  rpc: Rpc.AnyWithProps,
  input: unknown,
  payload: Schema.Codec<unknown> | undefined
): Effect.Effect<unknown, SynapseError.SynapseError, Synapse.Synapse> => {
  const options = { method, ...(payload !== undefined && { payload }) }
  return isStreaming(rpc)
    ? Stream.runCollect(Synapse.stream(Schema.Unknown, input, options))
    : Synapse.call(Schema.Unknown, input, options)
}

const pathOf = ({ reason }: SynapseError.SynapseError): string => ("path" in reason ? String(reason.path) : "")

const show = (value: unknown): string =>
  Predicate.hasProperty(value, "message")
    ? String(value.message)
    : JSON.stringify(value, (_, each) => (typeof each === "bigint" ? `${each}n` : each))
