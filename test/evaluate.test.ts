/** The code of a literal and where it stands; what Python makes of it is in `callModel.test.ts`. */
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { runInNewContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import { codeOf, rememberPlace } from "../src/internal/evaluate.ts"

function code(literal: TemplateStringsArray, ...values: ReadonlyArray<unknown>) {
  rememberPlace(literal, code)
  return codeOf(literal, values, { given: 1 })
}

const here = fileURLToPath(import.meta.url)
const lineOf = (text: string) =>
  readFileSync(here, "utf8")
    .split("\n")
    .findIndex((line) => line.includes(text)) + 1

describe("the code of a literal", () => {
  it("knows its file, and the line on which it begins", () => {
    const { file, line } = code`first_literal()`
    assert.deepStrictEqual([file, line], [here, lineOf("code`first_literal()`")])
  })

  it("knows it also where the call begins lines before", () => {
    const at = (_options: object) => code
    const { file, line } = at({
      a: 1,
      b: 2
    })`
      second_literal()
    `
    assert.deepStrictEqual([file, line], [here, lineOf("})`")])
  })

  it("knows it wherever the file is", () => {
    for (const filename of ["/app/(group)/page.js", "file:///app/(group)/page.js", "/a dir/page.js"]) {
      for (const source of [
        "code`1`",
        "(function named() { return code`1` })()",
        "new (class { at = code`1` })().at"
      ]) {
        const { file, line } = runInNewContext(`\n${source}`, { code }, { filename })
        assert.deepStrictEqual([file, line], [filename.replace("file://", ""), 2])
      }
    }
  })

  it("binds the values in it to names, and never splices them", () => {
    const { bindings, source } = code`len(${"'); import os; ('"}) + ${2} + given`
    assert.strictEqual(source, "len(_value_1) + _value_2 + given")
    assert.deepStrictEqual(bindings, { given: 1, _value_1: "'); import os; ('", _value_2: 2 })
  })

  it("does not take the name of a binding for a value", () => {
    const beside = (literal: TemplateStringsArray, ...values: ReadonlyArray<unknown>) =>
      codeOf(literal, values, { _value_1: "mine" })
    const { bindings, source } = beside`${1} + ${2}`
    assert.strictEqual(source, "__value_1 + _value_2")
    assert.deepStrictEqual(bindings, { _value_1: "mine", __value_1: 1, _value_2: 2 })
  })

  it("is what is written: backslashes are Python's", () => {
    assert.strictEqual(code`"a\n" + "\`" + "\${x}"`.source, ['"a\\n" + "`" + "$', '{x}"'].join(""))
  })
})
