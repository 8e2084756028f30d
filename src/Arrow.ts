/**
 * Tables and record batches of Apache Arrow.
 *
 * They travel as streams of Arrow's IPC format: no loop over the rows on either side, columns keep their types, and what
 * Python receives lies where it arrived. It needs the package `apache-arrow` here and `pyarrow` in the module's
 * requirements, and is imported as `effect-synapse/Arrow`: apps without tables need neither.
 *
 * @since 0.1.0
 */
import * as Apache from "apache-arrow"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import * as ArrowFormat from "./internal/arrowFormat.ts"
import { ArrowStream } from "./internal/arrowStream.ts"
import { contractAnnotation, type Described } from "./internal/contractAnnotation.ts"

/** Smaller pieces are joined: each is written by itself. */
const pieceSize = 32 * 1024

/** Collects what it writes, without a copy of the large buffers. */
class Collector extends Apache.RecordBatchStreamWriter {
  readonly pieces: Array<Uint8Array> = []
  #small: Array<Uint8Array> = []
  #smallSize = 0

  protected override _write(chunk: ArrayBufferView): this {
    if (!this._started || chunk.byteLength === 0) return this
    const bytes = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    if (bytes.length >= pieceSize) {
      this.join()
      this.pieces.push(bytes)
    } else {
      this.#small.push(bytes)
      this.#smallSize += bytes.length
      if (this.#smallSize >= pieceSize) this.join()
    }
    return this
  }

  join(): void {
    if (this.#smallSize > 0) this.pieces.push(Buffer.concat(this.#small, this.#smallSize))
    this.#small = []
    this.#smallSize = 0
  }
}

const write = (schema: Apache.Schema, batches: ReadonlyArray<Apache.RecordBatch>): ArrowStream => {
  const writer = new Collector()
  writer.reset(undefined, schema)
  for (const batch of batches) writer.write(batch)
  writer.finish()
  writer.join()
  return new ArrowStream(writer.pieces)
}

const read = ({ pieces }: ArrowStream): Apache.Table => {
  const [first] = pieces
  const bytes = pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces)
  ArrowFormat.check(bytes)
  return Apache.tableFromIPC(bytes)
}

const toBatch = (table: Apache.Table): Apache.RecordBatch => {
  const [first, ...others] = table.batches
  if (others.length > 0) {
    throw new Error(`${table.batches.length} record batches instead of one: take Arrow.Table, or call combine_chunks()`)
  }
  return first ?? new Apache.RecordBatch(table.schema)
}

const Wire = Schema.declare((u): u is ArrowStream => u instanceof ArrowStream, {
  expected: "an Arrow table (pyarrow.Table or pyarrow.RecordBatch)",
  // What the wire carries as it is: the derivation of a codec finds no link to follow.
  toCodecJson: (): undefined => undefined
})

const attempt = <A>(
  evaluate: () => A,
  expected: string,
  input: unknown,
  options: SchemaAST.ParseOptions
): Effect.Effect<A, SchemaIssue.Issue> =>
  Effect.try({
    try: evaluate,
    catch: (error) => {
      const why = error instanceof Error ? error.message : String(error)
      return new SchemaIssue.InvalidValue({ message: `Expected ${expected}: ${why}` }, input, options)
    }
  })

const tabular = <A>(
  is: (u: unknown) => u is A,
  expected: string,
  fromTable: (table: Apache.Table) => A,
  batchesOf: (value: A) => readonly [schema: Apache.Schema, batches: ReadonlyArray<Apache.RecordBatch>]
): Schema.declare<A> =>
  Schema.declare(is, {
    expected,
    [contractAnnotation]: { type: { kind: "table" } } satisfies Described,
    toCodecJson: () =>
      Schema.link<A>()(
        Wire,
        SchemaTransformation.transformEffect<A, ArrowStream>({
          decode: (stream, options) => attempt(() => fromTable(read(stream)), expected, stream, options),
          encode: (value, options) =>
            attempt(() => write(...batchesOf(value)), `${expected} that can be written`, value, options)
        })
      )
  })

/**
 * The schema of an Arrow table.
 *
 * **When to use**
 *
 * In the `payload` schema of a call and in the schema of its reply, alone or within others. Python receives and returns a
 * `pyarrow.Table`; a reply may be a `pyarrow.RecordBatch` or a `pyarrow.RecordBatchReader` as well.
 *
 * **Details**
 *
 * The record batches stay as they are. The columns of a table that arrives lie in the bytes that arrived.
 *
 * **Gotchas**
 *
 * Encoding takes the buffers of the columns as they are when the call is sent. What `apache-arrow` cannot read (run-end
 * encoded columns, compressed streams without a registered codec) is `DecodeFailed`.
 *
 * **Example** (A table there, another one back)
 *
 * ```ts
 * import { tableFromArrays } from "apache-arrow"
 * import { Schema } from "effect"
 * import { Synapse } from "effect-synapse"
 * import * as Arrow from "effect-synapse/Arrow"
 *
 * const Sales = Schema.Struct({ table: Arrow.Table })
 *
 * export const totals = (year: Int32Array, amount: Float64Array) =>
 *   Synapse.call(Arrow.Table, { table: tableFromArrays({ year, amount }) }, { method: "totals", payload: Sales })
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const Table: Schema.declare<Apache.Table> = tabular(
  (u): u is Apache.Table => u instanceof Apache.Table,
  "an Arrow table",
  (table) => table,
  (table) => [table.schema, table.batches]
)

/**
 * The schema of an Arrow record batch: a table in one piece.
 *
 * **When to use**
 *
 * For streams of batches, which need not be in memory together. A parameter that is annotated `pyarrow.RecordBatch`
 * receives one, whatever was sent.
 *
 * **Details**
 *
 * A reply of several batches is refused: {@link Table} takes any number. One of none is a batch without rows.
 *
 * **Example** (A file, batch by batch)
 *
 * ```ts
 * import { Stream } from "effect"
 * import { Synapse } from "effect-synapse"
 * import * as Arrow from "effect-synapse/Arrow"
 *
 * export const rows = Synapse.stream(Arrow.RecordBatch, { path: "sales.parquet" }, { method: "scan" }).pipe(
 *   Stream.map((batch) => batch.numRows)
 * )
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const RecordBatch: Schema.declare<Apache.RecordBatch> = tabular(
  (u): u is Apache.RecordBatch => u instanceof Apache.RecordBatch,
  "an Arrow record batch",
  toBatch,
  (batch) => [batch.schema, [batch]]
)
