/** The Python modules that are made of contracts: their text, what type checkers say of it, and a worker that implements one. */
import { spawnSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { BigDecimal, DateTime, Duration, Effect, Schema, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Contract, HostFunctions, type NdArray, Synapse } from "effect-synapse"
import { pythonStubs } from "../src/internal/pythonStubs.ts"
import * as Fixture from "./fixtures/contract.ts"
import { Layout } from "./fixtures/contractLayout.ts"
import { reasonOf } from "./fixtures/dialogue.ts"

const directory = fileURLToPath(new URL("./fixtures/contract", import.meta.url))
const file = (name: string): string => `${directory}/${name}`
const command = "npx effect-synapse stubs contract.ts -o contract.py"
const contract = Contract.fromGroup(Fixture.Embedder)
const host = Contract.fromGroup(Fixture.Users)

describe("the module of a contract", () => {
  const layout = Contract.fromGroup(Layout)
  const modules: ReadonlyArray<readonly [name: string, options: Parameters<typeof pythonStubs>[0]]> = [
    ["contract.py", { command, contract, host }],
    ["layout.py", { command, contract: layout, host: layout }]
  ]
  for (const [name, options] of modules) {
    it(`is the same as ever: ${name}`, () => {
      const { source } = pythonStubs(options)
      if (process.env.SYNAPSE_UPDATE_GOLDENS === "1") writeFileSync(file(name), source)
      assert.strictEqual(source, readFileSync(file(name), "utf8"))
    })
  }

  it("says what it cannot express", () => {
    assert.deepStrictEqual(pythonStubs({ command, contract, host }).problems, [
      {
        method: "users.all",
        path: "",
        message: 'its name is none that a method can have: call it with synapse.host.call("users.all", ...)'
      }
    ])
  })

  it("has handlers without a host, and a host without handlers", () => {
    const handlers = pythonStubs({ command, contract }).source
    assert.include(handlers, "class Handlers(abc.ABC):")
    assert.notInclude(handlers, "class Host:")
    const functions = pythonStubs({ command, host }).source
    assert.include(functions, "class Host:")
    assert.notInclude(functions, "class Handlers")
    assert.include(functions, "class Busy(synapse.HostError):")
  })

  it("takes names that mean something else in Python", () => {
    const odd = RpcGroup.make(
      Rpc.make("int", { payload: { str: Schema.Int, self: Schema.Int }, success: Schema.Int }),
      Rpc.make("class"),
      Rpc.make("a-b"),
      Rpc.make("a.b", { success: Schema.Struct({ __x: Schema.Int }).annotate({ identifier: "Any" }) }),
      Rpc.make("1st", { error: Schema.TaggedStruct("class", { args: Schema.Int }) })
    )
    const { problems, source } = pythonStubs({ command, contract: Contract.fromGroup(odd) })
    for (const expected of [
      '@synapse.handler(name="int")\n    @abc.abstractmethod\n    def int_(self, payload: IntPayload, /) -> Result[int]:',
      '@synapse.handler(name="class")\n    @abc.abstractmethod\n    def class_(self)',
      '@synapse.handler(name="a-b")\n    @abc.abstractmethod\n    def a_b(self)',
      '@synapse.handler(name="a.b")\n    @abc.abstractmethod\n    def a_b_(self) -> Result[Any_]:',
      'Any_ = TypedDict(\n    "Any_",\n    {\n        "__x": "int",\n    },\n)',
      'class Class(synapse.Error):\n    """The error `class`."""\n\n\nClass.__name__ = "class"'
    ]) {
      assert.include(source, expected)
    }
    assert.lengthOf(problems, 1)
  })

  it("is clean under pyright, for the oldest and the newest Python", () => {
    for (const version of ["3.10", "3.14"]) {
      const pyright = fileURLToPath(new URL("../node_modules/pyright/index.js", import.meta.url))
      const { status, stdout } = spawnSync(
        process.execPath,
        [pyright, "--pythonversion", version, "--project", file("pyrightconfig.json")],
        { encoding: "utf8" }
      )
      assert.strictEqual(status, 0, stdout)
    }
  }, 120_000)
})

const names: ReadonlyArray<string> = ["", "Ada", "Grace"]
const functions = HostFunctions.make(Fixture.Users, {
  nameOf: ({ formal, id }) =>
    names[id] === undefined
      ? Effect.fail(new Fixture.NoSuchUser({ id }))
      : Effect.succeed(formal === true ? `Ms ${names[id]}` : names[id]!),
  place: () => Effect.succeed(new Fixture.Point({ x: 3, y: 4 })),
  ids: () => Stream.make(1, 2),
  "users.all": () => Effect.succeed(names)
})
const PythonLive = Synapse.layer({ directory, host: functions, group: Fixture.Embedder, logs: "ignore" })

const requests = Fixture.Embedder.requests
/** Calls a function of the group with its own schemas. */
const call = (method: string, input: unknown) => {
  const rpc = requests.get(method as never) as unknown as Rpc.AnyWithProps
  return Synapse.call(rpc.successSchema as Schema.Codec<unknown>, input, {
    method,
    payload: rpc.payloadSchema as Schema.Codec<unknown>
  })
}

describe("a worker that implements the module", () => {
  it.live(
    "keeps the contract, and answers each call",
    () =>
      Effect.gen(function* () {
        const center = new Fixture.Point({ x: 1, y: 2 })
        const circle = { _tag: "Circle", center, radius: 2 }
        const tree = { value: 2, children: [{ value: 3, children: [] }] }
        const job = { id: "0b2e4c5e-1111-4111-8111-0123456789ab", class: "c", l: 1, "it's": "it's" }
        const at = DateTime.makeUnsafe("2026-01-01T00:00:00Z")
        const answers: ReadonlyArray<readonly [method: string, input: unknown, answer: unknown]> = [
          ["ping", undefined, undefined],
          ["embed", { text: "abc" }, [3, 0]],
          ["embed", { text: "abc", model: "large" }, [3, 2]],
          ["paint-shape", { shape: circle, color: "none" }, "red"],
          ["paint-shape", { shape: { _tag: "Square" }, color: 3 }, 3],
          ["area", { shape: circle }, 13],
          ["area", { shape: { _tag: "Square", side: 3 } }, 9],
          ["area", { shape: { _tag: "Square" } }, -1],
          ["grow", { tree, by: 2 }, { value: 4, children: [{ value: 6, children: [] }] }],
          ["run", { job, class: true }, job],
          ["run", { job: { ...job, "max-length": 3 }, class: true }, { ...job, "max-length": 3 }],
          ["run", { job, class: false }, null],
          ["list", { l: 1, rest: { a: [1] } }, [1, { a: [1] }]],
          ["echo", [1, { a: [null] }], [[1, { a: [null] }], 2]],
          [
            "times",
            {
              at,
              lasting: Duration.seconds(90),
              price: BigDecimal.fromStringUnsafe("1.25"),
              raw: Uint8Array.of(1),
              big: 2n ** 60n
            },
            [
              DateTime.add(at, { seconds: 90 }),
              Duration.seconds(180),
              BigDecimal.fromStringUnsafe("2.25"),
              Uint8Array.of(1, 33),
              2n ** 60n + 1n
            ]
          ],
          [
            "collections",
            {
              counts: new Map([[1, { a: null }]]),
              names: new Set(["b", "a"]),
              points: new Set([center]),
              pair: [1, "p"]
            },
            {
              p: [
                ["a", null],
                ["b", null]
              ],
              n: [["1", true]]
            }
          ],
          ["total", { rows: Stream.make(1, 2, 3), factor: 2 }, 15],
          ["rest", { a: 1, b: 2, c: 3 }, 6]
        ]
        for (const [method, input, answer] of answers) {
          assert.deepStrictEqual(yield* call(method, input), answer, method)
        }
        const scaled = (yield* call("scale", { values: Float64Array.of(1, 2), by: 2 })) as NdArray.NdArray
        assert.deepStrictEqual(Array.from(scaled.data as Float64Array), [2, 4])
      }).pipe(Effect.provide(PythonLive)),
    120_000
  )

  it.live(
    "raises its errors, streams, and lets failures of the host through",
    () =>
      Effect.gen(function* () {
        const errorOf = (text: string) =>
          Effect.map(reasonOf(call("embed", { text }), "HandlerFailed"), ({ error }) => error)
        assert.deepInclude(yield* errorOf("long"), { _tag: "TooLong", limit: 3, where: { x: 1, y: 2 } })
        assert.deepInclude(yield* errorOf("busy"), { _tag: "Busy", message: "later" })
        assert.deepInclude(yield* errorOf("odd"), { _tag: "odd-error", n: 1 })
        assert.deepInclude(yield* errorOf("host"), { _tag: "NoSuchUser", id: 7 })
        const items = yield* Synapse.stream(Schema.Int, { upTo: 3 }, { method: "count" }).pipe(
          Stream.catchReason("SynapseError", "HandlerFailed", ({ errorTag }) => Stream.succeed(errorTag)),
          Stream.runCollect
        )
        assert.deepStrictEqual(items, [0, 1, 2, "Busy"])
      }).pipe(Effect.provide(PythonLive)),
    120_000
  )
})
