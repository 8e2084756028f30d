import { assert, describe, it } from "@effect/vitest"
import * as Apache from "apache-arrow"
import { Effect, Schema } from "effect"
import * as Arrow from "effect-synapse/Arrow"
import * as Envelope from "../src/Envelope.ts"
import { ArrowStream } from "../src/internal/arrowStream.ts"
import { SharedMemory } from "../src/internal/sharedMemory.ts"
import * as SchemaMsgpack from "../src/SchemaMsgpack.ts"

const overTheWire = (value: unknown): unknown => {
  const writer = Envelope.makeWriter()
  writer.frame(Envelope.Kind.Success, 1, value)
  const [frame] = Envelope.makeReader().push(writer.take())
  return frame === undefined ? assert.fail("no frame") : Envelope.decodePayload(frame.payload)
}

const roundTrip = <A>(schema: Schema.Codec<A>, value: A) =>
  Effect.flatMap(SchemaMsgpack.encode(schema)(value), (wire) => SchemaMsgpack.decode(schema)(overTheWire(wire)))

const issueOf = (schema: Schema.Decoder<unknown>, value: unknown) =>
  SchemaMsgpack.decode(schema)(value).pipe(Effect.flip, Effect.map(SchemaMsgpack.describeIssue))

const numbers = (n: number): Apache.Table =>
  Apache.tableFromArrays({ n: Float64Array.from({ length: n }, (_, i) => i) })

const words = new Apache.Dictionary(new Apache.Utf8(), new Apache.Int32())

const several: Apache.Table = new Apache.Table({
  integer: Apache.vectorFromArray([1n, null, 2n ** 62n], new Apache.Int64()),
  text: Apache.vectorFromArray(["naïve", null, ""], new Apache.Utf8()),
  word: Apache.vectorFromArray(["a", "b", "a"], words),
  list: Apache.vectorFromArray([[1, 2], [], null], new Apache.List(Apache.Field.new("item", new Apache.Int32(), true))),
  when: Apache.vectorFromArray([new Date(0), null, new Date(1)], new Apache.TimestampMillisecond("UTC"))
})

const rowsOf = (table: Apache.Table): string =>
  JSON.stringify(table.toArray(), (_, value) => (typeof value === "bigint" ? String(value) : value))

describe("Arrow", () => {
  it.effect("carries tables as they are, alone and within others", () =>
    Effect.gen(function* () {
      const Report = Schema.Struct({ table: Arrow.Table, rest: Schema.Array(Arrow.Table) })
      const batches = several.concat(several)
      for (const table of [several, batches, numbers(0), numbers(3).slice(1), new Apache.Table()]) {
        const back = yield* roundTrip(Report, { table, rest: [table] })
        for (const each of [back.table, ...back.rest]) {
          assert.instanceOf(each, Apache.Table)
          assert.strictEqual(rowsOf(each), rowsOf(table))
          assert.strictEqual(String(each.schema), String(table.schema))
        }
      }
      assert.strictEqual((yield* roundTrip(Arrow.Table, batches)).batches.length, 2)
    })
  )

  it.effect("carries record batches, and takes one of a table that has no more", () =>
    Effect.gen(function* () {
      const [batch] = several.batches
      const back = yield* roundTrip(Arrow.RecordBatch, batch!)
      assert.instanceOf(back, Apache.RecordBatch)
      assert.strictEqual(back.numRows, 3)
      const wire = yield* SchemaMsgpack.encode(Arrow.Table)(numbers(0))
      assert.strictEqual((yield* SchemaMsgpack.decode(Arrow.RecordBatch)(wire)).numRows, 0)
      const two = yield* SchemaMsgpack.encode(Arrow.Table)(several.concat(several))
      assert.deepStrictEqual(yield* issueOf(Schema.Struct({ a: Arrow.RecordBatch }), { a: two }), {
        path: "$.a",
        issue:
          "Expected an Arrow record batch: 2 record batches instead of one: take Arrow.Table, or call combine_chunks()" +
          `, got an Arrow table of ${(two as ArrowStream).byteLength} bytes`
      })
    })
  )

  it.effect("leaves columns where their bytes arrived, and large ones uncopied until they are sent", () =>
    Effect.gen(function* () {
      const table = numbers(100_000)
      const wire = (yield* SchemaMsgpack.encode(Arrow.Table)(table)) as ArrowStream
      const column = table.getChild("n")!.data[0]!.values as Float64Array
      assert.isTrue(wire.pieces.some((piece) => piece.buffer === column.buffer))
      const arrived = overTheWire([1, wire]) as [number, ArrowStream]
      assert.strictEqual(arrived[1].pieces.length, 1)
      const back = yield* SchemaMsgpack.decode(Arrow.Table)(arrived[1])
      assert.strictEqual((back.getChild("n")!.data[0]!.values as Float64Array).buffer, arrived[1].pieces[0]!.buffer)
    })
  )

  it.effect("puts large tables into shared memory", () =>
    Effect.gen(function* () {
      const memory = SharedMemory.open({ threshold: 1024, capacity: 1 << 24 }, undefined)
      if (memory === undefined) return assert.fail("no shared memory")
      const wire = yield* SchemaMsgpack.encode(Arrow.Table)(numbers(100_000))
      const writer = Envelope.makeWriter({ places: memory })
      writer.frame(Envelope.Kind.Success, 1, { table: wire, small: 1 })
      const bytes = writer.take()
      assert.isBelow(bytes.length, 200)
      const reader = Envelope.makeReader({ claim: (table) => memory.claim(table) })
      const [frame] = reader.push(bytes)
      const decoded = Envelope.decodeFrame(frame!) as { readonly table: unknown }
      const back = yield* SchemaMsgpack.decode(Arrow.Table)(decoded.table)
      assert.strictEqual(back.get(99_999)!.n, 99_999)
      memory.close()
    })
  )

  it.effect("says what was wrong and where, if a value is no table", () =>
    Effect.gen(function* () {
      const Report = Schema.Struct({ table: Arrow.Table })
      const expected = "Expected an Arrow table (pyarrow.Table or pyarrow.RecordBatch)"
      assert.deepStrictEqual(yield* issueOf(Report, { table: [1] }), {
        path: "$.table",
        issue: `${expected}, got a list of 1`
      })
      const wire = overTheWire(yield* SchemaMsgpack.encode(Arrow.Table)(several))
      const { byteLength } = wire as ArrowStream
      assert.deepStrictEqual(yield* issueOf(Report, wire), {
        path: "$",
        issue: `Expected a map with string keys, got an Arrow table of ${byteLength} bytes`
      })
      assert.match(
        (yield* issueOf(Report, { table: new ArrowStream([Uint8Array.of(1, 2, 3)]) })).issue,
        /begins at byte 0/
      )
      const encodeIssue = yield* Effect.flip(SchemaMsgpack.encode(Report)({ table: several.batches[0] }))
      assert.strictEqual(SchemaMsgpack.describeIssue(encodeIssue).path, "$.table")
    })
  )

  it("tells who passes a table without a schema to give one", () => {
    const table = { deep: [several] }
    assert.throws(
      () => overTheWire(table),
      /a Table of Arrow: give the call a `payload` schema with Arrow.Table of effect-synapse\/Arrow \(at \$\.deep\[0\]\)/
    )
  })

  it.effect("takes what no schema has described back as it came", () =>
    Effect.gen(function* () {
      const wire = yield* SchemaMsgpack.encode(Arrow.Table)(several)
      const opaque = yield* SchemaMsgpack.decode(Schema.Unknown)(overTheWire({ wire }))
      const again = overTheWire(yield* SchemaMsgpack.encode(Schema.Unknown)(opaque)) as { readonly wire: unknown }
      assert.strictEqual(rowsOf(yield* SchemaMsgpack.decode(Arrow.Table)(again.wire)), rowsOf(several))
    })
  )

  const streamOf = (table: Apache.Table): Uint8Array => Apache.tableToIPC(table, "stream")

  it.effect("refuses bytes that are no stream of Arrow", () =>
    Effect.gen(function* () {
      const good = streamOf(several.concat(several))
      const cases = [
        new Uint8Array(0),
        new Uint8Array(8),
        new TextEncoder().encode("no arrow at all, but long enough to be some"),
        Apache.tableToIPC(several, "file"),
        good.slice(0, 100),
        good.slice(0, good.length - 100),
        Buffer.concat([good.subarray(0, good.length - 8), good])
      ]
      for (const bytes of cases) {
        const { issue } = yield* issueOf(Arrow.Table, new ArrowStream([bytes]))
        assert.match(issue, /^Expected an Arrow table: /)
      }
      yield* SchemaMsgpack.decode(Arrow.Table)(new ArrowStream([good]))
    })
  )

  it.effect("decodes a stream with any byte changed, or refuses it, in time and memory", () =>
    Effect.gen(function* () {
      const good = streamOf(several)
      const decode = SchemaMsgpack.decode(Arrow.Table)
      const began = performance.now()
      let refused = 0
      for (let at = 0; at < good.length; at++) {
        for (const value of [0x00, 0x7f, 0x80, 0xff]) {
          const bytes = new Uint8Array(good)
          bytes[at] = value
          refused += yield* decode(new ArrowStream([bytes])).pipe(
            Effect.match({ onFailure: () => 1, onSuccess: () => 0 })
          )
        }
      }
      assert.isAbove(refused, 100)
      assert.isBelow(performance.now() - began, 30_000)
    })
  )
})
