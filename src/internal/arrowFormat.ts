/**
 * A look at the messages of a stream of Arrow's IPC format before they are read.
 *
 * Readers follow what the metadata announce: a byte that was changed can make one allocate until the process ends. What
 * is checked here is what they loop over and allocate by; the values of the columns are not looked at.
 */

const maxFieldDepth = 128
const maxRows = 2 ** 31 - 1
const continuation = -1

const messageKinds = { schema: 1, dictionary: 2, batch: 3 } as const
const unionType = 14
const timestampType = 10

const broken = (issue: string): never => {
  throw new Error(issue)
}

/** Where in the metadata a table, a vector or a text begins. */
type Position = number

/**
 * The metadata of one message: flatbuffers. A part that is referred to many times is as many parts for those who read it,
 * which is why all of them together have to fit into what there is.
 */
class Metadata {
  readonly #view: DataView
  /** Bytes that parts may still take. */
  #left: number

  constructor(view: DataView) {
    this.#view = view
    // A writer may share some.
    this.#left = 2 * view.byteLength
  }

  #within(at: Position, n: number): void {
    if (at < 0 || at + n > this.#view.byteLength) broken("metadata that go beyond their end")
  }

  #take(at: Position, n: number): void {
    this.#within(at, n)
    this.#left -= n
    if (this.#left < 0) broken("metadata that refer to the same parts again and again")
  }

  /** Where an offset leads. */
  #follow(at: Position): Position {
    this.#within(at, 4)
    const to = at + this.#view.getUint32(at, true)
    this.#take(to, 4)
    return to
  }

  root(): Position {
    return this.#follow(0)
  }

  /** Where a field of a table is; nothing where it has its default. */
  #field(table: Position, field: number): Position | undefined {
    const layout = table - this.#view.getInt32(table, true)
    this.#within(layout, 4)
    const entry = 4 + 2 * field
    if (entry + 2 > this.#view.getUint16(layout, true)) return undefined
    this.#within(layout + entry, 2)
    const offset = this.#view.getUint16(layout + entry, true)
    return offset === 0 ? undefined : table + offset
  }

  byte(table: Position, field: number): number {
    const at = this.#field(table, field)
    if (at === undefined) return 0
    this.#within(at, 1)
    return this.#view.getUint8(at)
  }

  /** A number of 64 bits, which is the length of something. */
  length(table: Position, field: number): number {
    const at = this.#field(table, field)
    return at === undefined ? 0 : this.longAt(at)
  }

  longAt(at: Position): number {
    this.#within(at, 8)
    return Number(this.#view.getBigInt64(at, true))
  }

  table(table: Position, field: number): Position | undefined {
    const at = this.#field(table, field)
    return at === undefined ? undefined : this.#follow(at)
  }

  /** The places of the items of a vector whose items take so many bytes. A text is one of single bytes. */
  vector(table: Position, field: number, itemSize: number): ReadonlyArray<Position> {
    const vector = this.table(table, field)
    if (vector === undefined) return []
    const count = this.#view.getUint32(vector, true)
    this.#take(vector + 4, count * itemSize)
    return itemSize === 1 ? [] : Array.from({ length: count }, (_, i) => vector + 4 + i * itemSize)
  }

  tables(table: Position, field: number): ReadonlyArray<Position> {
    return this.vector(table, field, 4).map((at) => this.#follow(at))
  }
}

const checkKeyValues = (metadata: Metadata, table: Position, field: number): void => {
  for (const entry of metadata.tables(table, field)) {
    metadata.vector(entry, 0, 1)
    metadata.vector(entry, 1, 1)
  }
}

/** How many nodes the batches have for a field. */
const nodesOf = (metadata: Metadata, field: Position, depth: number): number => {
  if (depth > maxFieldDepth) broken(`fields that are nested deeper than ${maxFieldDepth} levels`)
  metadata.vector(field, 0, 1)
  const type = metadata.table(field, 3)
  const kind = metadata.byte(field, 2)
  if (type !== undefined && kind === unionType) metadata.vector(type, 1, 4)
  if (type !== undefined && kind === timestampType) metadata.vector(type, 1, 1)
  checkKeyValues(metadata, field, 6)
  const children = metadata.tables(field, 5).reduce((sum, child) => sum + nodesOf(metadata, child, depth + 1), 0)
  return metadata.table(field, 4) === undefined ? children + 1 : 1
}

/** How many nodes the batches have for each column. */
const checkSchema = (metadata: Metadata, schema: Position): ReadonlyArray<number> => {
  checkKeyValues(metadata, schema, 2)
  metadata.vector(schema, 3, 8)
  return metadata.tables(schema, 1).map((field) => nodesOf(metadata, field, 0))
}

/** Checks a batch, and gives the lengths of its nodes. */
const checkBatch = (metadata: Metadata, batch: Position, bodyLength: number): ReadonlyArray<number> => {
  const lengths = metadata.vector(batch, 1, 16).map((at) => metadata.longAt(at))
  for (const length of [metadata.length(batch, 0), ...lengths]) {
    if (length < 0 || length > maxRows) broken(`a batch of ${length} rows`)
  }
  for (const at of metadata.vector(batch, 2, 16)) {
    const [offset, length] = [metadata.longAt(at), metadata.longAt(at + 8)]
    if (offset < 0 || length < 0 || offset + length > bodyLength) broken("a column beyond the bytes of its batch")
  }
  metadata.vector(batch, 4, 8)
  return lengths
}

const checkColumns = (columns: ReadonlyArray<number>, rows: number, lengths: ReadonlyArray<number>): void => {
  let next = 0
  for (const nodes of columns) {
    if (lengths[next] !== rows) broken(`a column of ${lengths[next]} rows in a batch of ${rows}`)
    next += nodes
  }
  if (next !== lengths.length) broken("a batch of other columns than its schema has")
}

/**
 * Checks the metadata of a stream; throws an error that says what is wrong.
 *
 * @internal
 */
export const check = (bytes: Uint8Array): void => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  let columns: ReadonlyArray<number> | undefined
  let at = 0
  while (at < bytes.length) {
    if (at + 8 > bytes.length || view.getInt32(at, true) !== continuation) broken(`no message begins at byte ${at}`)
    const size = view.getInt32(at + 4, true)
    if (size === 0) break
    at += 8
    if (size < 0 || at + size > bytes.length) broken("it ends within a message")
    const metadata = new Metadata(new DataView(bytes.buffer, bytes.byteOffset + at, size))
    const message = metadata.root()
    const kind = metadata.byte(message, 1)
    const header = metadata.table(message, 2) ?? broken("a message without a header")
    const bodyLength = metadata.length(message, 3)
    checkKeyValues(metadata, message, 4)
    at += size
    if (bodyLength < 0 || at + bodyLength > bytes.length) broken("it ends within a message")
    at += bodyLength
    if (columns === undefined || kind === messageKinds.schema) {
      if (columns !== undefined || kind !== messageKinds.schema) broken("it does not begin with its only schema")
      columns = checkSchema(metadata, header)
    } else if (kind === messageKinds.batch) {
      checkColumns(columns, metadata.length(header, 0), checkBatch(metadata, header, bodyLength))
    } else if (kind === messageKinds.dictionary) {
      const batch = metadata.table(header, 1) ?? broken("a dictionary without values")
      const [length = 0] = checkBatch(metadata, batch, bodyLength)
      if (length > 8 * bodyLength) broken(`a dictionary of ${length} values in ${bodyLength} bytes`)
    } else broken(`a message of the unknown kind ${kind}`)
  }
  if (columns === undefined) broken("it has no schema")
}
