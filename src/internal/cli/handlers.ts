/** `effect-synapse call --list`: the handlers of a module, as Python declares them. */
import * as Effect from "effect/Effect"
import type { Contract, Field, Method, Type } from "../../Contract.ts"
import { wordOfConstant, wordsOf } from "../contractWords.ts"
import { describeModule } from "../describeModule.ts"
import { type ModuleFlags, runtimeOptions } from "./module.ts"
import { note, write } from "./terminal.ts"

export const noHandlers =
  "The module has no handlers: write @synapse.handler above the functions that are to be called."

/** Starts the module for what it says of itself, and prints a line for each handler. */
export const listHandlers = Effect.fnUntraced(function* (flags: ModuleFlags) {
  const contract = yield* describeModule(runtimeOptions(flags))
  const lines = Object.entries(contract.methods).map(([name, method]) => signatureOf(name, method, contract))
  yield* lines.length === 0 ? note(noHandlers) : write(`${lines.join("\n")}\n`)
})

/** `embed(text: str, normalize: bool = False) -> list[float]`, with what it raises and the first line of what it says of itself. */
export const signatureOf = (name: string, method: Method, { definitions }: Contract): string => {
  const words = (type: Type): string => wordsOf(type, "Python", definitions)
  const success = method.stream ? `Iterator[${words(method.success)}]` : words(method.success)
  const raises = method.raises.length === 0 ? "" : `, raises ${method.raises.join(", ")}`
  const doc = method.doc?.split("\n", 1)[0]?.trim() ?? ""
  return `${name}(${parametersOf(method.payload, words)}) -> ${success}${raises}${doc === "" ? "" : `  # ${doc}`}`
}

const parametersOf = (payload: Method["payload"], words: (type: Type) => string): string => {
  switch (payload.kind) {
    case "none":
      return ""
    case "whole":
      return `payload: ${words(payload.type)}${payload.required ? "" : " = ..."}`
    case "fields": {
      const rest = payload.rest === undefined ? [] : [`**rest: ${words(payload.rest)}`]
      return [...payload.fields.map((field) => parameterOf(field, words)), ...rest].join(", ")
    }
  }
}

const parameterOf = ({ name, required, type, ...field }: Field, words: (type: Type) => string): string => {
  const value = field.default === undefined ? "..." : wordOfConstant(field.default, true)
  return `${name}: ${words(type)}${required ? "" : ` = ${value}`}`
}
