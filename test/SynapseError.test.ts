import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Errors from "../src/SynapseError.ts"

const exception: Errors.ExceptionInfo = {
  type: "RuntimeError",
  module: "builtins",
  message: "outer",
  frames: [{ file: "main.py", line: 3, function: "main", code: "raise RuntimeError('outer') from error" }],
  notes: ["a note"],
  cause: { type: "Odd", module: "app.errors", message: "", frames: [], framesOmitted: 7 },
  exceptions: [{ type: "ValueError", module: "builtins", message: "member", frames: [] }],
  exceptionsOmitted: 2
}

/** One of every reason. */
const reasons: ReadonlyArray<Errors.SynapseErrorReason> = [
  new Errors.PythonNotFound({ wanted: ">=3.10", tried: [{ candidate: "python3", found: "3.8.1" }] }),
  new Errors.ModuleNotFound({ what: "directory", path: "./nope", detail: "it does not exist" }),
  new Errors.InstallFailed({
    command: "pip install x",
    exitCode: 1,
    output: "ERROR: no x",
    hint: "is it spelled right?"
  }),
  new Errors.StartFailed({ kind: "import", detail: "The Python module does not import", exception }),
  new Errors.PythonException({ method: "main", exception }),
  new Errors.HandlerFailed({ method: "main", error: { _tag: "OutOfStock", message: "none left", item: "tea" } }),
  new Errors.MethodNotFound({ method: "mian", nearest: ["main"] }),
  new Errors.EncodeFailed({
    side: "python",
    method: "main",
    path: "$.a",
    issue: "cannot carry a `Foo`",
    delivery: "unknown"
  }),
  new Errors.DecodeFailed({
    side: "typescript",
    what: "reply",
    method: "main",
    path: "$",
    issue: "Expected string",
    delivery: "unknown"
  }),
  new Errors.CallTimeout({ method: "main", option: "timeout", durationMillis: 100, running: true }),
  new Errors.Unsupported({ method: "main", detail: "it is a generator: use Synapse.stream", delivery: "rejected" }),
  new Errors.WorkerExited({
    kind: "segfault",
    pid: 7,
    exitCode: null,
    signal: "SIGSEGV",
    crashDump: "Current thread",
    stderr: "last words",
    delivery: "unknown"
  }),
  new Errors.Unresponsive({ pid: 7, state: "stopped", silentMillis: 60_000, delivery: "unknown" }),
  new Errors.Overloaded({ where: "queue", capacity: 1024 }),
  new Errors.FrameTooLarge({ side: "typescript", method: "main", size: 20, limit: 10 }),
  new Errors.ProtocolError({ detail: "a frame of length 0", delivery: "unknown" }),
  new Errors.RestartLimit({ max: 5, windowMillis: 30_000, exits: ["exited with code 1"] }),
  new Errors.Closed({ delivery: "notSent" })
]

describe("every reason", () => {
  it("is here", () => {
    assert.deepStrictEqual(new Set(reasons.map((reason) => reason._tag)).size, Errors.SynapseErrorReason.members.length)
  })

  for (const reason of reasons) {
    it.effect(`${reason._tag} survives JSON, and says what it is`, () =>
      Effect.gen(function* () {
        const error = new Errors.SynapseError({ reason })
        const codec = Schema.toCodecJson(Errors.SynapseError)
        const back = yield* Schema.decodeUnknownEffect(codec)(
          JSON.parse(JSON.stringify(yield* Schema.encodeEffect(codec)(error)))
        )
        assert.strictEqual(back.message, error.message)
        assert.deepStrictEqual([back.delivery, back.isRetryable], [error.delivery, error.isRetryable])
        assert.strictEqual(back.reason._tag, reason._tag)
        assert.isTrue(Errors.isSynapseError(back))
        assert.isAbove(error.message.length, reason._tag.length + 10)
      })
    )
  }
})

describe("a traceback", () => {
  it("reads like Python's: the cause first, notes and members last", () => {
    assert.strictEqual(
      Errors.renderTraceback(exception),
      `  (7 more frames)
app.errors.Odd

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "main.py", line 3, in main
    raise RuntimeError('outer') from error
RuntimeError: outer
a note
  +- 1 -
  | ValueError: member
  +- 2 more -`
    )
  })
})

describe("an error that is printed", () => {
  it("shows Python's traceback as its cause", () => {
    const { cause } = new Errors.SynapseError({ reason: new Errors.PythonException({ method: "main", exception }) })
    assert(cause instanceof Error)
    assert.strictEqual(cause.name, exception.type)
    assert.include(cause.stack, Errors.renderTraceback(exception))
    assert.isUndefined(new Errors.SynapseError({ reason: new Errors.Closed({ delivery: "notSent" }) }).cause)
  })
})

describe("what a worker sends", () => {
  it("cannot make a traceback without bounds", () => {
    let deep: Errors.ExceptionInfo = { type: "E", module: "m", message: "\n".repeat(1_000_000), frames: [] }
    for (let depth = 0; depth < 100; depth++) {
      deep = { type: "G", module: "m", message: "", frames: [], exceptions: Array.from({ length: 3 }, () => deep) }
    }
    let chain = deep
    for (let length = 0; length < 1000; length++) chain = { ...exception, cause: chain }
    assert.isBelow(Errors.renderTraceback({ ...chain, exceptions: [{ ...deep, exceptions: [] }] }).length, 1_000_000)
  })

  it("cannot pass for an error of ours, or break the message of one", () => {
    assert.isFalse(Errors.isSynapseError({ _tag: "SynapseError" }))
    const reason = new Errors.HandlerFailed({
      method: "main",
      error: { _tag: { toString: 1 }, message: { toString: 1 } }
    })
    assert.deepStrictEqual([reason.errorTag, reason.message], ["Error", "`main` failed with Error"])
  })
})

describe("messages", () => {
  it("say what a failure without a tag is", () => {
    assert.strictEqual(
      new Errors.HandlerFailed({ method: "main", error: "no power" }).message,
      "`main` failed with Error: no power"
    )
  })

  it("say when there are more names", () => {
    assert.include(new Errors.MethodNotFound({ method: "x", nearest: ["a", "b"] }).message, "It has `a`, `b`.")
    const nearest = ["a", "b", "c", "d", "e"]
    assert.include(new Errors.MethodNotFound({ method: "x", nearest }).message, "`e`, ...")
  })

  it("say the last exits that are the same once", () => {
    const of = (...exits: ReadonlyArray<string>) =>
      new Errors.RestartLimit({ max: 5, windowMillis: 30_000, exits }).message.split("\n").slice(2)
    assert.deepStrictEqual(of("a", "a", "b"), ["  2 times: a", "  b"])
    assert.deepStrictEqual(of("a", "b", "a"), ["  a", "  b", "  a"])
  })

  it("say in words what a worker did that did not answer", () => {
    assert.strictEqual(
      new Errors.Unresponsive({ pid: 7, state: "stopped", silentMillis: 600, delivery: "unknown" }).message,
      "The Python worker 7 was ended: it has not answered for 600 ms (a signal has stopped it)"
    )
  })

  it("have the notes of an exception", () => {
    const raised = { type: "ValueError", module: "builtins", message: "no", frames: [], notes: ["try yes"] }
    assert.strictEqual(
      new Errors.PythonException({ method: "main", exception: raised }).message,
      "`main` raised ValueError: no\ntry yes"
    )
  })
})
