/** Arrow tables through a real worker with pyarrow, and one without. */
import { fileURLToPath } from "node:url"
import { assert, describe, layer } from "@effect/vitest"
import * as Apache from "apache-arrow"
import { Effect, Schema, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { HostFunctions, Synapse } from "effect-synapse"
import * as Arrow from "effect-synapse/Arrow"
import * as modules from "./fixtures/modules.ts"

const Doubles = RpcGroup.make(Rpc.make("double", { payload: { table: Arrow.Table }, success: Arrow.Table }))
const host = HostFunctions.make(Doubles, { double: ({ table }) => Effect.succeed(table.concat(table)) })

const options = {
  directory: fileURLToPath(new URL("fixtures/arrow", import.meta.url)),
  logs: "ignore",
  host
} as const

const plain = (table: Apache.Table): unknown =>
  JSON.parse(JSON.stringify(table.toArray(), (_, value) => (typeof value === "bigint" ? String(value) : value)))

const numbers = (n: number): Apache.Table =>
  Apache.tableFromArrays({ n: Float64Array.from({ length: n }, (_, i) => i) })

const Tables = Schema.Struct({ table: Arrow.Table })
const inOneMessage = 100
const inSharedMemory = 500_000
const sum = (n: number): number => (n * (n - 1)) / 2

const ways = [
  ["in shared memory", {}],
  ["in messages", { sharedMemory: false }]
] as const

for (const [way, sharing] of ways) {
  layer(Synapse.layer({ ...options, ...sharing }), { timeout: "5 minutes" })(`tables, the large ones ${way}`, (it) => {
    it.effect("keep the types, nulls and batches of their columns", () =>
      Effect.gen(function* () {
        const table = yield* Synapse.call(Arrow.Table, {}, { method: "everything" })
        assert.strictEqual(table.batches.length, 2)
        assert.deepStrictEqual(
          table.schema.fields.map(({ name, type }) => `${name}: ${type}`),
          [
            "integer: Int64",
            "float: Float32",
            "text: Utf8",
            "word: Dictionary<Int32, Utf8>",
            "list: List<Int32>",
            "struct: Struct<{a:Int64, b:List<Utf8>}>",
            "when: Timestamp<MICROSECOND, UTC>",
            "null: Null"
          ]
        )
        const rows = table.toArray().map((row) => row?.toJSON())
        assert.deepStrictEqual(
          rows.map((row) => row?.word),
          ["a", "b", "a", "c", "c", "a"]
        )
        assert.deepStrictEqual(
          rows.slice(0, 3).map((row) => [row?.integer, row?.float, row?.text, row?.null]),
          [
            [1n, 0.5, "naïve", null],
            [null, null, null, null],
            [2n ** 62n, -0, "", null]
          ]
        )
        const Description = Schema.Struct({
          rows: Schema.Array(Schema.Unknown),
          types: Schema.Array(Schema.String),
          batches: Schema.Int
        })
        const seen = yield* Synapse.call(Description, { table }, { method: "describe", payload: Tables })
        assert.strictEqual(seen.batches, 2)
        assert.include(seen.types, "dictionary<values=string, indices=int32, ordered=0>")
        assert.include(seen.types, "timestamp[us, tz=UTC]")
        assert.include(seen.rows[0], { integer: 1, text: "naïve", word: "a" })
      })
    )

    it.effect("may have columns of any kind that apache-arrow knows", () =>
      Effect.gen(function* () {
        const Kinds = Schema.Record(Schema.String, Arrow.Table)
        const kinds = yield* Synapse.call(Kinds, {}, { method: "kinds" })
        assert.isAbove(Object.keys(kinds).length, 10)
        const back = yield* Synapse.call(Kinds, kinds, { method: "echo", payload: Kinds })
        for (const [name, table] of Object.entries(kinds)) {
          assert.isAbove(table.numRows, 0)
          assert.deepStrictEqual(plain(back[name]!), plain(table), name)
          assert.strictEqual(String(back[name]!.schema), String(table.schema))
        }
        assert.strictEqual(kinds.wide?.numCols, 500)
        assert.strictEqual(back.wide?.schema.metadata.get("from")?.length, 6000)
      })
    )

    for (const rows of [1, inOneMessage, inSharedMemory]) {
      it.effect(`come and go, with ${rows} rows`, () =>
        Effect.gen(function* () {
          const Nested = Schema.Struct({ deep: Schema.Array(Schema.Struct({ table: Arrow.Table })), n: Schema.Int })
          const sent = { deep: [{ table: numbers(rows) }, { table: numbers(2) }], n: 1 }
          const back = yield* Synapse.call(Nested, sent, { method: "echo", payload: Nested })
          assert.strictEqual(back.deep[0]?.table.numRows, rows)
          assert.strictEqual(back.deep[0]?.table.get(rows - 1)?.n, rows - 1)
          assert.deepStrictEqual(plain(back.deep[1]!.table), plain(numbers(2)))
          const made = yield* Synapse.call(Arrow.Table, { rows, batches: 3 }, { method: "numbers" })
          assert.strictEqual(made.numRows, 3 * rows)
          assert.strictEqual(made.get(3 * rows - 1)?.n, rows - 1)
        })
      )

      it.effect(`are one record batch where Python asks for one, with ${rows} rows`, () =>
        Effect.gen(function* () {
          const table = numbers(rows).concat(numbers(rows))
          const payload = Schema.Struct({ batch: Arrow.Table, column: Schema.String })
          const input = { batch: table, column: "n" }
          assert.strictEqual(yield* Synapse.call(Schema.Finite, input, { method: "total", payload }), 2 * sum(rows))
        })
      )

      it.effect(`are streams of batches, with ${rows} rows each`, () =>
        Effect.gen(function* () {
          const batches = yield* Synapse.stream(Arrow.RecordBatch, { rows, count: 5 }, { method: "scan" }).pipe(
            Stream.runCollect
          )
          assert.deepStrictEqual(
            batches.map((batch) => [batch.numRows, batch.get(rows - 1)?.n]),
            [0, 1, 2, 3, 4].map((index) => [rows, index])
          )
          const payload = Schema.Struct({ batches: Synapse.StreamOf(Arrow.RecordBatch) })
          const input = { batches: Stream.fromIterable(batches) }
          assert.strictEqual(yield* Synapse.call(Schema.Int, input, { method: "gather", payload }), 5 * rows)
        })
      )
    }

    it.effect("may be empty", () =>
      Effect.gen(function* () {
        const [nothing, noRows] = yield* Synapse.call(Schema.Tuple([Arrow.Table, Arrow.Table]), {}, { method: "empty" })
        assert.deepStrictEqual([nothing.numCols, nothing.numRows], [0, 0])
        assert.deepStrictEqual([noRows.numCols, noRows.numRows], [1, 0])
        const back = yield* Synapse.call(Arrow.RecordBatch, noRows, { method: "echo", payload: Arrow.Table })
        assert.deepStrictEqual([back.numCols, back.numRows], [1, 0])
      })
    )

    it.effect("stay what they are for as long as Python keeps them", () =>
      Effect.gen(function* () {
        const rows = [inSharedMemory, inOneMessage, inSharedMemory / 2]
        for (const n of rows) {
          yield* Synapse.call(Schema.Void, { table: numbers(n) }, { method: "keep", payload: Tables })
        }
        for (let i = 0; i < 5; i++) {
          const other = Apache.tableFromArrays({ n: new Float64Array(inSharedMemory).fill(-1) })
          yield* Synapse.call(Arrow.Table, other, { method: "echo", payload: Arrow.Table })
        }
        const kept = yield* Synapse.call(Schema.Finite, {}, { method: "kept_total" })
        assert.strictEqual(
          kept,
          rows.reduce((total, n) => total + sum(n), 0)
        )
      })
    )

    it.effect("go to host functions and back", () =>
      Effect.gen(function* () {
        for (const rows of [inOneMessage, inSharedMemory]) {
          const back = yield* Synapse.call(Arrow.Table, numbers(rows), { method: "ask", payload: Arrow.Table })
          assert.strictEqual(back.numRows, 2 * rows)
        }
      })
    )

    it.effect("that cannot be read here are DecodeFailed, with their place", () =>
      Effect.gen(function* () {
        const { reason } = yield* Effect.flip(Synapse.call(Arrow.Table, {}, { method: "run_ends" }))
        assert.strictEqual(reason._tag, "DecodeFailed")
        assert.include(reason, { side: "typescript", path: "$" })
        const other = yield* Effect.flip(Synapse.call(Tables, { table: 1 }, { method: "echo" }))
        assert.include(other.reason, { _tag: "DecodeFailed", path: "$.table" })
      })
    )

    it.effect("without a schema are EncodeFailed, and the message names it", () =>
      Effect.gen(function* () {
        const { message, reason } = yield* Effect.flip(Synapse.call(Schema.Void, { table: numbers(1) }))
        assert.include(reason, { _tag: "EncodeFailed", path: "$.table" })
        assert.include(message, "Arrow.Table")
      })
    )
  })
}

describe("without pyarrow", () => {
  layer(Synapse.layer(modules.python), { timeout: "2 minutes" })("a table", (it) => {
    it.effect("is DecodeFailed in Python, and the message says what to install", () =>
      Effect.gen(function* () {
        for (const rows of [inOneMessage, inSharedMemory]) {
          const { message, reason } = yield* Effect.flip(
            Synapse.call(Schema.Unknown, { table: numbers(rows) }, { payload: Tables })
          )
          assert.include(reason, { _tag: "DecodeFailed", side: "python" })
          assert.include(message, "add `pyarrow` to requirements.txt")
        }
      })
    )
  })
})
