/** From contracts to Python: names that are not those of Python. */
import { execFileSync } from "node:child_process"
import { assert, describe, it } from "vitest"
import type { Contract, Type } from "../src/Contract.ts"
import { pythonStubs } from "../src/internal/pythonStubs.ts"

const int: Type = { kind: "integer" }

const contract = (methods: Contract["methods"], definitions: Contract["definitions"] = {}): Contract => ({
  version: 1,
  problems: [],
  definitions,
  methods
})

const method = { payload: { kind: "none" }, success: int, stream: false, raises: [] } as const

const command = "npx effect-synapse stubs"

/** Whether Python takes the text for a module. */
const parse = (source: string): void =>
  void execFileSync("python3", ["-c", "import ast, sys; ast.parse(sys.stdin.read())"], { input: source })

describe("pythonStubs", () => {
  it("takes a field of an error that is called as methods call their instance", () => {
    const { problems, source } = pythonStubs({
      contract: contract(
        { embed: { ...method, raises: ["Busy"] } },
        { Busy: { kind: "error", fields: [{ name: "self", type: int, required: true }] } }
      ),
      command
    })
    assert.deepStrictEqual(problems, [])
    assert.include(source, "self_,")
    parse(source)
  })

  it("leaves out what cannot be the name of a handler, and says so", () => {
    for (const name of ["two words", "line\nbreak", "$own", "\u00ad", "x".repeat(201), ""]) {
      const { problems, source } = pythonStubs({ contract: contract({ [name]: method, embed: method }), command })
      assert.deepStrictEqual(
        problems.map(({ method }) => method),
        [name]
      )
      assert.include(source, "def embed(self)")
      assert.notInclude(source, "name=")
      parse(source)
    }
    assert.deepStrictEqual(pythonStubs({ contract: contract({ "a-b.ünï": method }), command }).problems, [])
  })
})
