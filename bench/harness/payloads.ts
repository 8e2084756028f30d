/**
 * The values that calls carry, the same for every contender, and what makes a reply a right one.
 *
 * No two calls in a row carry the same value: a number in it counts, so that a reply that was meant for another call is
 * noticed. Every reply is checked by that number and by its ends, and before the first round all of it is compared.
 */
import { isDeepStrictEqual } from "node:util"
import type { Payload } from "./contender.ts"

export interface Values<A = unknown> {
  /** The value of call `n`. Large ones share one buffer: there is one such call at a time. */
  input(n: number): A
  isReply(reply: A, n: number): boolean
  isSame(reply: A, n: number): boolean
}

export interface Small {
  readonly n: number
  readonly name: string
}

const small: Values<Small> = {
  input: (n) => ({ n, name: "hello" }),
  isReply: (reply, n) => reply.n === n && reply.name === "hello",
  // Some libraries make objects of a class of their own.
  isSame: (reply, n) => isDeepStrictEqual({ ...reply }, small.input(n))
}

export interface Profile {
  readonly id: number
  readonly name: string
  readonly email: string
  readonly roles: ReadonlyArray<string>
  readonly address: { readonly street: string; readonly city: string; readonly zip: string; readonly country: string }
  readonly scores: ReadonlyArray<number>
  readonly about: string
  readonly flags: { readonly beta: boolean; readonly newsletter: boolean; readonly verified: boolean }
}

const profile: Omit<Profile, "id"> = {
  name: "Ada Lovelace",
  email: "ada@example.org",
  roles: ["admin", "author", "reviewer"],
  address: { street: "12 St James's Square", city: "London", zip: "SW1Y 4JH", country: "GB" },
  scores: Array.from({ length: 24 }, (_, i) => i * 1.5),
  about: "Wrote the first program for a machine that was never built. ".repeat(8),
  flags: { beta: true, newsletter: false, verified: true }
}

const record: Values<Profile> = {
  input: (id) => ({ id, ...profile }),
  isReply: (reply, id) => reply.id === id && reply.flags.verified,
  isSame: (reply, id) => isDeepStrictEqual(reply, record.input(id))
}

export interface Row {
  readonly id: number
  readonly name: string
  readonly active: boolean
  readonly score: number
  readonly tags: ReadonlyArray<string>
}

const table: ReadonlyArray<Row> = Array.from({ length: 1700 }, (_, i) => ({
  id: i,
  name: `user-${i}`,
  active: i % 3 === 0,
  score: i * 1.25,
  tags: ["a", "b"]
}))

const rows: Values<ReadonlyArray<Row>> = {
  input: (n) => [{ ...table[0]!, id: n }, ...table.slice(1)],
  isReply: (reply, n) =>
    reply.length === table.length && reply[0]?.id === n && reply.at(-1)?.score === table.at(-1)!.score,
  isSame: (reply, n) => isDeepStrictEqual(reply, rows.input(n))
}

const bytes = (size: number): Values<Uint8Array> => {
  const buffer = Buffer.alloc(size)
  for (let i = 0; i < size; i += 4) buffer.writeUInt32LE((i * 2654435761) >>> 0, i)
  const input = (n: number): Uint8Array => {
    buffer.writeUInt32LE(n, 0)
    return buffer
  }
  return {
    input,
    isReply: (reply, n) =>
      reply.length === size &&
      new DataView(reply.buffer, reply.byteOffset).getUint32(0, true) === n &&
      reply[size - 1] === buffer[size - 1],
    isSame: (reply, n) => Buffer.compare(reply, input(n)) === 0
  }
}

/** Arrays in the memory that `numbers` has. */
export const array = (numbers: Float64Array): Values<Float64Array> => {
  for (let i = 0; i < numbers.length; i++) numbers[i] = i / 3
  const input = (n: number): Float64Array => {
    numbers[0] = n
    return numbers
  }
  const last = numbers.length - 1
  return {
    input,
    isReply: (reply, n) => reply.length === numbers.length && reply[0] === n && reply[last] === numbers[last],
    isSame: (reply, n) => {
      const sent = input(n)
      return reply instanceof Float64Array && reply.length === sent.length && reply.every((x, i) => x === sent[i])
    }
  }
}

export const valuesOf = (payload: Payload): Values => {
  switch (payload.kind) {
    case "small":
      return small
    case "record":
      return record
    case "rows":
      return rows
    case "bytes":
      return bytes(payload.size)
    case "array":
      return array(new Float64Array(payload.size / 8))
  }
}
