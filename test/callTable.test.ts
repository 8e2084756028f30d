import { assert, describe, it } from "@effect/vitest"
import { CallTable } from "../src/internal/callTable.ts"

interface Call {
  readonly id: number
}

const add = (table: CallTable<Call>): Call => {
  const call = { id: table.nextId() }
  table.add(call)
  return call
}

const addMany = (table: CallTable<Call>, n: number): ReadonlyArray<Call> => Array.from({ length: n }, () => add(table))

/** The next number after one that was given is that of a call which was given up by now. */
const skipTo = (table: CallTable<Call>, id: number): void => {
  const call = { id }
  table.add(call)
  table.delete(call)
}

describe("the table of calls", () => {
  it("gives numbers that follow each other, from 1 on", () => {
    const table = new CallTable<Call>()
    assert.deepStrictEqual(
      addMany(table, 5).map(({ id }) => id),
      [1, 2, 3, 4, 5]
    )
  })

  it("shows its calls in the order in which they came", () => {
    const table = new CallTable<Call>()
    for (let n = 0; n < 58; n++) table.delete(add(table))
    const calls = addMany(table, 20)
    assert.deepStrictEqual(table.values(), calls)
  })

  it("does not give the number of a call that has ended until all others had their turn", () => {
    const table = new CallTable<Call>()
    for (let n = 1; n <= 1000; n++) {
      const call = add(table)
      assert.strictEqual(call.id, n)
      assert.isTrue(table.delete(call))
    }
  })

  it("asked twice, gives the same number until it is taken", () => {
    const table = new CallTable<Call>()
    assert.strictEqual(table.nextId(), table.nextId())
    add(table)
    assert.strictEqual(table.nextId(), 2)
  })

  it("finds each of many calls, whatever has ended between them", () => {
    const table = new CallTable<Call>()
    const calls = addMany(table, 5000)
    const ended = calls.filter(({ id }) => id % 3 === 0)
    for (const call of ended) assert.isTrue(table.delete(call))
    for (const call of calls) assert.strictEqual(table.get(call.id), call.id % 3 === 0 ? undefined : call)
    assert.strictEqual(table.size, 5000 - ended.length)
    assert.deepStrictEqual(
      table.values().map(({ id }) => id),
      calls.flatMap(({ id }) => (id % 3 === 0 ? [] : [id]))
    )
  })

  it("never gives the number of a call that is open, however many come and go beside it", () => {
    const table = new CallTable<Call>()
    const [first, second] = [add(table), add(table)]
    const seen = new Set<number>()
    for (let n = 0; n < 10_000; n++) {
      const call = add(table)
      assert.isFalse(call.id === first.id || call.id === second.id || seen.has(call.id))
      seen.add(call.id)
      table.delete(call)
    }
    assert.deepStrictEqual(table.values(), [first, second])
  })

  it("finds nothing for an answer that comes too late, and for one to a number that nobody had", () => {
    const table = new CallTable<Call>()
    const call = add(table)
    table.delete(call)
    assert.isUndefined(table.get(call.id))
    for (const id of [0, 64, 65, 2 ** 32 - 1]) assert.isUndefined(table.get(id))
    // A call in the same place has another number.
    const others = addMany(table, 70)
    assert.isUndefined(table.get(call.id))
    assert.isTrue(others.every((other) => table.get(other.id) === other))
  })

  it("takes a call out once, and does not take another one in its place", () => {
    const table = new CallTable<Call>()
    const call = add(table)
    assert.isTrue(table.delete(call))
    assert.isFalse(table.delete(call))
    assert.isFalse(table.delete({ id: call.id }))
    assert.strictEqual(table.size, 0)
  })

  it("goes on with 1 after 2^32 - 1: 0 is no number of a call", () => {
    const table = new CallTable<Call>()
    skipTo(table, 2 ** 32 - 3)
    assert.deepStrictEqual(
      addMany(table, 4).map(({ id }) => id),
      [2 ** 32 - 2, 2 ** 32 - 1, 1, 2]
    )
  })

  it("passes over calls that are open still when all numbers were given", () => {
    const table = new CallTable<Call>()
    const [first, second, third] = addMany(table, 3)
    table.delete(second!)
    skipTo(table, 2 ** 32 - 2)
    const after = addMany(table, 3).map(({ id }) => id)
    assert.deepStrictEqual(after, [2 ** 32 - 1, 2, 4])
    assert.strictEqual(table.get(1), first)
    assert.strictEqual(table.get(3), third)
  })

  it("grows across the end of the numbers and loses none", () => {
    const table = new CallTable<Call>()
    skipTo(table, 2 ** 32 - 500)
    const calls = addMany(table, 2000)
    assert.strictEqual(new Set(calls.map(({ id }) => id)).size, 2000)
    assert.isTrue(calls.every((call) => call.id > 0 && call.id < 2 ** 32 && table.get(call.id) === call))
    for (const call of calls) assert.isTrue(table.delete(call))
    assert.deepStrictEqual([table.size, table.values()], [0, []])
  })
})
