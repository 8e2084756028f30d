import { assert, describe, it } from "@effect/vitest"
import { Context, Data, Deferred, Effect, Exit, Fiber, Schema, Scope, Stream } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import * as Envelope from "../src/Envelope.ts"
import * as HostFunctions from "../src/HostFunctions.ts"
import { extract, StreamOf } from "../src/internal/inputStreams.ts"
import { nearest } from "../src/internal/nearest.ts"
import { CurrentRequest } from "../src/internal/serving.ts"
import { StreamReference } from "../src/internal/streamReference.ts"
import * as SchemaMsgpack from "../src/SchemaMsgpack.ts"
import * as Asker from "./fixtures/Asker.ts"

const { died, fail, interrupted, refused, rejected, success } = Asker

const forever = HostFunctions.make(RpcGroup.make(Rpc.make("forever")), { forever: () => Effect.never })

/** A worker to which a call with streams as its input was sent. */
const setup = Effect.fnUntraced(function* (
  inputs: Readonly<Record<string, Stream.Stream<unknown, unknown>>>,
  options?: Parameters<typeof Asker.make>[0]
) {
  const asker = yield* Asker.make<never>(options as Parameters<typeof Asker.make<never>>[0])
  const { input, streams } = extract(inputs, yield* Effect.context<never>())
  asker.serving.register(1, streams)
  const sources = input as Readonly<Record<string, StreamReference>>
  return {
    ...asker,
    streams,
    source: (name: string) => sources[name]!.id,
    read: (name: string, granted = 64) => asker.ask({ source: sources[name]!.id, stream: granted, call: 1 })
  }
})

describe("requests", () => {
  it.effect("beyond the limit are turned away, and taken again when one has ended", () =>
    Effect.gen(function* () {
      const { ask, end, ends, serving } = yield* Asker.make({ host: forever, maxOpen: 2 })
      const first = ask({ method: "forever" })
      ask({ method: "forever" })
      const third = ask({ method: "forever" })
      assert.deepStrictEqual(ends(third), [rejected(third, "Overloaded", { capacity: 2 })])
      assert.strictEqual(serving.open(), 2)
      serving.cancel(first)
      yield* end(first)
      const fourth = ask({ method: "forever" })
      assert.deepStrictEqual(ends(fourth), [])
    })
  )

  it.effect("may use an id again when the one before has ended", () =>
    Effect.gen(function* () {
      const { ask, ends } = yield* Asker.make()
      ask({ method: "a" }, null, 5)
      ask({ method: "b" }, null, 5)
      assert.strictEqual(ends(5).length, 2)
    })
  )

  it.effect("with the id of an open one break the protocol", () =>
    Effect.gen(function* () {
      const { ask } = yield* Asker.make({ host: forever })
      const id = ask({ method: "forever" })
      assert.throws(() => ask({ method: "forever" }, null, id), "a Request with the id 1 of one that is open")
    })
  )

  it.effect("whose meta is malformed break the protocol", () =>
    Effect.gen(function* () {
      const { ask, frames } = yield* Asker.make({ host: forever })
      const malformed: ReadonlyArray<readonly [object, string]> = [
        [{}, "a Request that has not one of `method` and `source`"],
        [{ method: "f", source: 1 }, "a Request that has not one of `method` and `source`"],
        [{ method: 1 }, "a Request whose `method` is not text"],
        [{ source: -1 }, "a Request whose `source` is not an id"],
        [{ source: 2 ** 32 }, "a Request whose `source` is not an id"],
        [{ method: "f", deadline: "soon" }, "a Request whose `deadline` is not a number of milliseconds"],
        [{ method: "f", deadline: Number.NaN }, "a Request whose `deadline` is not a number of milliseconds"],
        [{ method: "f", trace: 1 }, "a Request whose `trace` is not text"],
        [{ method: "f", stream: 0 }, "a Request whose `stream` is not a positive integer"],
        [{ method: "f", stream: 1.5 }, "a Request whose `stream` is not a positive integer"],
        [{ method: "f", call: "1" }, "a Request whose `call` is not an id"],
        [{ method: "f", headers: { a: 1 } }, "a Request whose `headers` is not a map of text"],
        [{ method: "f", headers: new Map([[1, "a"]]) }, "a Request whose `headers` is not a map of text"]
      ]
      for (const [meta, message] of malformed) assert.throws(() => ask(meta), message)
      assert.throws(() => ask(new Map([[1, 2]])), "meta is not a map with string keys")
      assert.strictEqual(frames.length, 0)
    })
  )

  it.effect("may say nil for what they do not say", () =>
    Effect.gen(function* () {
      const { ask, ends } = yield* Asker.make({ host: forever })
      const nothing = { source: null, deadline: null, trace: null, stream: null, call: null, headers: null }
      assert.deepStrictEqual(ends(ask({ method: "forever", ...nothing })), [])
    })
  )

  it.effect("whose payload does not decode fail alone", () =>
    Effect.gen(function* () {
      const { ends, serving } = yield* Asker.make({ host: forever })
      const writer = Envelope.makeWriter()
      writer.frame(Envelope.Kind.Request, 3, undefined, { method: "forever" })
      const [frame] = Envelope.makeReader().push(writer.take())
      serving.request({ ...frame!, payload: Uint8Array.of(0x92, 0x01) })
      const [{ meta } = { meta: {} }] = ends(3)
      assert.deepStrictEqual(meta, { reason: "DecodeFailed", delivery: "rejected" })
    })
  )

  it.effect("that are not there take no credit and no Cancel", () =>
    Effect.gen(function* () {
      const { frames, serving } = yield* Asker.make({ host: forever })
      serving.credit(7, 1)
      serving.cancel(7)
      assert.deepStrictEqual(frames, [])
    })
  )
})

describe("the streams of an input", () => {
  it("are the input itself, or fields of it, and no deeper", () => {
    const context = Context.empty()
    const whole = extract(Stream.make(1), context)
    assert.instanceOf(whole.input, StreamReference)
    assert.strictEqual(whole.streams[0]!.reference, whole.input)

    const rows = Stream.make(1)
    const input = { rows, again: rows, n: 1, deep: { rows } }
    const fields = extract(input, context)
    const found = fields.input as typeof input
    assert.strictEqual(fields.streams.length, 2)
    assert.notStrictEqual(found.rows, found.again)
    assert.strictEqual(found.n, 1)
    assert.strictEqual(found.deep, input.deep)
    assert.strictEqual(input.rows, rows)
  })

  it("leave an input without any as it is", () => {
    for (const input of [
      undefined,
      null,
      1,
      "s",
      { a: 1 },
      [Stream.make(1)],
      new Date(),
      new Map([["a", Stream.make(1)]])
    ]) {
      const { input: same, streams } = extract(input, Context.empty())
      assert.strictEqual(same, input)
      assert.strictEqual(streams.length, 0)
    }
  })

  it("leave as extension 2 with their id", () => {
    const writer = Envelope.makeWriter()
    const reference = new StreamReference()
    reference.id = 0x01020304
    writer.frame(Envelope.Kind.Request, 1, { rows: reference }, undefined)
    assert.strictEqual(Buffer.from(writer.take().subarray(12)).toString("hex"), "81a4726f7773d60204030201")
  })

  it("that lie deeper are refused with what to do", () => {
    const writer = Envelope.makeWriter()
    assert.throws(
      () => writer.frame(Envelope.Kind.Request, 1, { a: [Stream.make(1)] }),
      "a Stream: pass it as the input itself or as one of its fields, no deeper (at $.a[0])"
    )
  })
})

describe("an input stream", () => {
  it.effect("is read by the worker", () =>
    Effect.gen(function* () {
      const { end, items, read } = yield* setup({ a: Stream.range(1, 3), b: Stream.make("x") })
      const [a, b] = [read("a"), read("b")]
      assert.deepStrictEqual(yield* end(a), success(a, null))
      assert.deepStrictEqual(yield* end(b), success(b, null))
      assert.deepStrictEqual([items(a), items(b)], [[1, 2, 3], ["x"]])
    })
  )

  it.effect("is pulled only while the worker has room", () =>
    Effect.gen(function* () {
      let pulled = 0
      const rows = Stream.fromEffectRepeat(Effect.sync(() => ++pulled))
      const { items, read, serving } = yield* setup({ rows })
      assert.strictEqual(pulled, 0)
      const id = read("rows", 3)
      yield* Effect.yieldNow
      assert.deepStrictEqual([items(id), pulled], [[1, 2, 3], 3])
      serving.credit(id, 1)
      yield* Effect.yieldNow
      assert.deepStrictEqual([items(id), pulled], [[1, 2, 3, 4], 4])
    })
  )

  it.effect("that ends its call as it begins is interrupted", () =>
    Effect.gen(function* () {
      let asker: Asker.Asker | undefined
      const rows = Stream.fromEffect(
        Effect.suspend(() => {
          asker!.serving.callEnded(1)
          return Effect.never
        })
      )
      const { end, read, ...rest } = yield* setup({ rows })
      asker = { end, ...rest }
      const id = read("rows")
      assert.deepStrictEqual(yield* end(id), interrupted(id))
    })
  )

  it.effect("runs in the context of its caller, and knows which call it serves", () =>
    Effect.gen(function* () {
      class Rows extends Context.Service<Rows, ReadonlyArray<number>>()("test/Rows") {}
      const seen: Array<unknown> = []
      const rows = Stream.unwrap(
        Effect.gen(function* () {
          seen.push(yield* CurrentRequest)
          return Stream.fromIterable(yield* Rows)
        })
      )
      const { end, items, owner, read } = yield* Effect.provideService(setup({ rows: rows as never }), Rows, [7, 8])
      const id = read("rows")
      yield* end(id)
      assert.deepStrictEqual(items(id), [7, 8])
      assert.deepStrictEqual(seen, [{ owner, call: 1 }])
    })
  )

  it.effect("can be read once", () =>
    Effect.gen(function* () {
      const { end, ends, read } = yield* setup({ rows: Stream.make(1) })
      yield* end(read("rows"))
      const second = read("rows")
      assert.deepStrictEqual(ends(second), [
        rejected(second, "Unsupported", { detail: "an input stream can be read once, and this one was read" })
      ])
    })
  )

  it.effect("is gone with its call: what runs is stopped, what does not is not read", () =>
    Effect.gen(function* () {
      const stopped = yield* Deferred.make<void>()
      const running = Stream.ensuring(Stream.never, Deferred.succeed(stopped, undefined))
      const { ends, read, serving } = yield* setup({ running, unread: Stream.make(1) })
      const id = read("running")
      assert.strictEqual(serving.openSources(), 2)
      assert.isUndefined(serving.callEnded(1))
      yield* Deferred.await(stopped)
      assert.deepStrictEqual(ends(id), [interrupted(id)])
      const late = read("unread")
      assert.deepStrictEqual(ends(late), [
        rejected(late, "Unsupported", { detail: "the call that this input stream belongs to has ended" })
      ])
      assert.deepStrictEqual([serving.open(), serving.openSources()], [0, 0])
      assert.isUndefined(serving.callEnded(1))
    })
  )

  it.effect("that takes its time to stop can be waited for", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const rows = Stream.ensuring(Stream.never, Deferred.await(gate))
      const { ends, read, serving } = yield* setup({ rows })
      const id = read("rows")
      const waiting = yield* Effect.forkChild(serving.callEnded(1)!, { startImmediately: true })
      assert.deepStrictEqual(ends(id), [])
      assert.isUndefined(waiting.pollUnsafe())
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(ends(id), [interrupted(id)])
    })
  )

  it.effect("that was read to its end does not end again with its call", () =>
    Effect.gen(function* () {
      const { end, ends, read, serving } = yield* setup({ rows: Stream.make(1) })
      const id = read("rows")
      yield* end(id)
      serving.callEnded(1)
      assert.strictEqual(ends(id).length, 1)
    })
  )

  it.effect("runs from its start again where its call is sent again", () =>
    Effect.gen(function* () {
      const { end, items, read, serving, source, streams } = yield* setup({ rows: Stream.range(1, 3) })
      const first = read("rows", 1)
      const before = source("rows")
      serving.callEnded(1)
      yield* end(first)
      serving.register(2, streams)
      assert.notStrictEqual(source("rows"), before)
      const second = read("rows")
      assert.deepStrictEqual(yield* end(second), success(second, null))
      assert.deepStrictEqual(items(second), [1, 2, 3])
    })
  )

  it.effect("is stopped by Cancel and by the close of the connection", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      let stopped = 0
      const rows = Stream.ensuring(
        Stream.never,
        Effect.sync(() => stopped++)
      )
      const { ask, end, ends, read, serving } = yield* setup({ a: rows, b: rows }).pipe(Scope.provide(scope))
      const [a, b] = [read("a"), read("b")]
      serving.cancel(a)
      assert.deepStrictEqual(yield* end(a), interrupted(a))
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(ends(b), [interrupted(b)])
      assert.strictEqual(stopped, 2)
      const late = ask({ source: 1, stream: 1 })
      assert.deepStrictEqual(ends(late), [rejected(late, "Closed", null)])
    })
  )

  it.effect("is read as a stream or not at all", () =>
    Effect.gen(function* () {
      const { ask, ends, source } = yield* setup({ rows: Stream.make(1) })
      const id = ask({ source: source("rows") })
      assert.deepStrictEqual(ends(id), [rejected(id, "Unsupported", { detail: "an input stream is read as a stream" })])
    })
  )

  it.effect("that dies ends its own request", () =>
    Effect.gen(function* () {
      const { end, items, read } = yield* setup({
        rows: Stream.concat(Stream.make(1), Stream.die(new TypeError("boom")))
      })
      const id = read("rows")
      assert.deepStrictEqual(yield* end(id), died(id, "TypeError", "boom"))
      assert.deepStrictEqual(items(id), [1])
    })
  )

  it.effect("with an item that cannot be carried ends there", () =>
    Effect.gen(function* () {
      const { end, items, read } = yield* setup({ rows: Stream.make(1, { f: [() => {}] }, 3) })
      const id = read("rows")
      const at = { path: "$[1].f[0]", issue: "a function: pass what it returns" }
      assert.deepStrictEqual(yield* end(id), refused(id, "EncodeFailed", at))
      assert.deepStrictEqual(items(id), [1])
    })
  )

  describe("fails with", () => {
    class Plain extends Data.TaggedError("Plain")<{
      readonly message: string
      readonly n: number
      readonly f: unknown
    }> {}
    class Typed extends Schema.TaggedError<Typed>()("Typed", { since: Schema.DateFromMillis, n: Schema.Int }) {
      override get message() {
        return `since ${this.n}`
      }
    }
    class Tagged extends Data.TaggedClass("Tagged")<{ readonly n: number }> {}

    const failures: ReadonlyArray<readonly [string, unknown, unknown]> = [
      [
        "the fields of a tagged error that can be carried",
        new Plain({ message: "no", n: 1, f: () => {} }),
        { _tag: "Plain", message: "no", n: 1 }
      ],
      [
        "a tagged error as its schema encodes it",
        new Typed({ since: new Date(5), n: 2 }),
        { _tag: "Typed", message: "since 2", since: 5, n: 2 }
      ],
      ["the name of any other error", new RangeError("far"), { _tag: "RangeError", message: "far" }],
      ["a tagged value of a class", new Tagged({ n: 1 }), { _tag: "Tagged", message: "", n: 1 }],
      ["a value as it is", { _tag: "Anything", n: [1] }, { _tag: "Anything", n: [1] }],
      ["text as it is", "text", "text"],
      ["nothing", undefined, null],
      ["text of what cannot be carried", Symbol("s"), { _tag: "Error", message: "Symbol(s)" }],
      [
        "an error whose message cannot be carried",
        new Error("\ud800", { cause: 1 }),
        { _tag: "Error", message: "\ufffd" }
      ]
    ]
    for (const [what, failure, expected] of failures) {
      it.effect(what, () =>
        Effect.gen(function* () {
          const { end, items, read } = yield* setup({ rows: Stream.concat(Stream.make(1), Stream.fail(failure)) })
          const id = read("rows")
          assert.deepStrictEqual(yield* end(id), fail(id, expected))
          assert.deepStrictEqual(items(id), [1])
        })
      )
    }
  })
})

describe("a stream of a schema's items", () => {
  const Rows = Schema.Struct({
    rows: StreamOf(Schema.Struct({ at: Schema.DateFromMillis, n: Schema.optionalKey(Schema.Int) })),
    more: Schema.optionalKey(StreamOf(Schema.Int))
  })
  const encode = SchemaMsgpack.encode(Rows)

  it.effect("sends each as the schema encodes it", () =>
    Effect.gen(function* () {
      const encoded = yield* encode({ rows: Stream.make({ at: new Date(1), n: 1 }, { at: new Date(2) }) })
      const { end, items, read } = yield* setup(encoded as never)
      const id = read("rows")
      assert.deepStrictEqual(yield* end(id), success(id, null))
      assert.deepStrictEqual(items(id), [{ at: 1, n: 1 }, { at: 2 }])
    })
  )

  it.effect("ends with the first that does not fit, after those before it, and says which", () =>
    Effect.gen(function* () {
      const rows = Stream.concat(
        Stream.make({ at: new Date(1) }, { at: new Date(2) }),
        Stream.make({ at: new Date(3) }, { at: new Date(4), n: 0.5 }, { at: new Date(5) })
      )
      const encoded = yield* encode({ rows, more: Stream.make(1) })
      const { end, items, read } = yield* setup(encoded as never)
      const id = read("rows")
      const { meta, payload } = yield* end(id)
      assert.deepStrictEqual(meta, { reason: "EncodeFailed" })
      assert.strictEqual((payload as { readonly path: string }).path, "$[3].n")
      assert.deepStrictEqual(items(id), [{ at: 1 }, { at: 2 }, { at: 3 }])
      const more = read("more")
      assert.deepStrictEqual(yield* end(more), success(more, null))
    })
  )

  it.effect("keeps its own failures", () =>
    Effect.gen(function* () {
      const encoded = yield* encode({ rows: Stream.fail("why") })
      const { end, read } = yield* setup(encoded as never)
      const id = read("rows")
      assert.deepStrictEqual(yield* end(id), fail(id, "why"))
    })
  )

  it.effect("is no list", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(encode({ rows: [1] }))
      assert.deepStrictEqual(SchemaMsgpack.describeIssue(error), {
        path: "$.rows",
        issue: "Expected a Stream, got a list of 1"
      })
    })
  )

  it.effect("may be the whole input", () =>
    Effect.gen(function* () {
      const encoded = yield* SchemaMsgpack.encode(StreamOf(Schema.BigIntFromString))(Stream.make(1n, 2n))
      const { streams } = extract(encoded, Context.empty())
      const { ask, end, items, serving } = yield* Asker.make()
      serving.register(4, streams)
      const id = ask({ source: streams[0]!.reference.id, stream: 64, call: 4 })
      assert.deepStrictEqual(yield* end(id), success(id, null))
      assert.deepStrictEqual(items(id), ["1", "2"])
    })
  )
})

describe("names", () => {
  it("that are close are suggested, the closest first", () => {
    const names = ["greet", "greets", "great", "divide", "x".repeat(10_000)]
    assert.deepStrictEqual(nearest("greet2", names), ["greet", "greets", "great"])
    assert.deepStrictEqual(nearest("Divide", names), ["divide"])
    assert.deepStrictEqual(nearest("zzz", ["b", "a"]), ["a", "b"])
    assert.deepStrictEqual(nearest("x".repeat(10_000), ["a"]), ["a"])
  })
})
