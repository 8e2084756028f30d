/** `effect-synapse doctor`: what a module and this machine have and lack, told with what to do about it. */

import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as Effect from "effect/Effect"
import type { EnvironmentMode } from "../../PythonEnvironment.ts"
import { examineMachine } from "./examineMachine.ts"
import { examineModule } from "./examineModule.ts"
import { Failure } from "./failure.ts"
import type { Finding } from "./finding.ts"
import { write } from "./terminal.ts"

/** @internal */
export interface DoctorFlags {
  readonly directory: string | undefined
  readonly json: boolean
  readonly entrypoint: string | undefined
  readonly python: string | undefined
  readonly environment: EnvironmentMode | undefined
}

/** @internal */
export const run = Effect.fnUntraced(function* (flags: DoctorFlags) {
  const machine = yield* examineMachine
  const module = yield* examineModule(flags)
  const findings = [...machine, ...module]
  const problems = findings.filter(({ status }) => status === "problem").length
  const { canColor } = yield* TerminalCapabilities.TerminalCapabilities
  yield* write(flags.json ? `${JSON.stringify({ problems, findings }, null, 2)}\n` : report(findings, canColor))
  if (problems > 0) return yield* Effect.fail(new Failure(problems === 1 ? "1 problem" : `${problems} problems`))
})

const marks = {
  ok: ["ok", "\u001b[32m"],
  warning: ["warning", "\u001b[33m"],
  problem: ["problem", "\u001b[31m"]
} as const

const report = (findings: ReadonlyArray<Finding>, colors: boolean): string => {
  const width = Math.max(...findings.map(({ subject }) => subject.length))
  const margin = " ".repeat("problem  ".length + width + 2)
  const lines = findings.flatMap(({ detail, fix, status, subject }) => {
    const [word, color] = marks[status]
    const mark = colors ? `${color}${word.padEnd(7)}\u001b[39m` : word.padEnd(7)
    const [first = "", ...rest] = detail.split("\n")
    return [
      `${mark}  ${subject.padEnd(width)}  ${first}`,
      ...rest.map((line) => margin + line),
      ...(fix === undefined ? [] : [`${margin}-> ${fix}`])
    ]
  })
  return `${lines.join("\n")}\n`
}
