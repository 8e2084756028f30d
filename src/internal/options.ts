/** Options that cannot work are refused by name, before anything is started with them. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { EnvironmentSettings } from "../PythonEnvironment.ts"
import type { SynapseOptions as Options } from "../Synapse.ts"
import { StartFailed, SynapseError } from "../SynapseError.ts"

type SynapseOptions = Options<unknown>

const integers: ReadonlyArray<readonly [string, (options: SynapseOptions) => number | undefined, number, number]> = [
  ["workers", ({ workers }) => workers, 1, 256],
  ["concurrency", ({ concurrency }) => concurrency, 1, 256],
  ["maxFrameSize", ({ maxFrameSize }) => maxFrameSize, 4096, 2 ** 31 - 1],
  ["queue.capacity", ({ queue }) => queue?.capacity, 0, Number.MAX_SAFE_INTEGER],
  ["restart.max", ({ restart }) => restart?.max, 0, Number.MAX_SAFE_INTEGER]
]

const durations: ReadonlyArray<readonly [string, (options: SynapseOptions) => Duration.Input | undefined]> = [
  ["startTimeout", ({ startTimeout }) => startTimeout],
  ["disposeTimeout", ({ disposeTimeout }) => disposeTimeout],
  ["callTimeout", ({ callTimeout }) => callTimeout],
  ["cancelGrace", ({ cancelGrace }) => cancelGrace],
  ["restart.window", ({ restart }) => restart?.window],
  ["restart.backoff", ({ restart }) => restart?.backoff]
]

const choices: ReadonlyArray<readonly [string, (options: SynapseOptions) => unknown, ReadonlyArray<unknown>]> = [
  ["evaluate", ({ evaluate }) => evaluate, [true, false]],
  ["queue.whenFull", ({ queue }) => queue?.whenFull, ["wait", "reject"]],
  ["environment.mode", ({ environment }) => settings(environment)?.mode, ["venv", "existing", "system"]],
  ["environment.installer", ({ environment }) => settings(environment)?.installer, ["auto", "uv", "pip"]]
]

const settings = (environment: SynapseOptions["environment"]): EnvironmentSettings | undefined =>
  typeof environment === "string" ? { mode: environment } : environment

const texts: ReadonlyArray<readonly [string, (options: SynapseOptions) => unknown]> = [
  ["directory", ({ directory }) => directory],
  ["entrypoint", ({ entrypoint }) => entrypoint ?? "main"],
  ["python", ({ python }) => python ?? "python3"]
]

const isDuration = (input: Duration.Input): boolean => {
  try {
    return Duration.toMillis(input) >= 0
  } catch {
    return false
  }
}

const wrongOption = (options: SynapseOptions): string | undefined => {
  for (const [name, get] of texts) {
    const value = get(options)
    if (typeof value === "string" && value.trim() !== "") continue
    return `The option \`${name}\` is ${value === "" ? "empty" : `${JSON.stringify(value)}, not a text`}`
  }
  for (const [name, get, least, most] of integers) {
    const value = get(options)
    if (value === undefined || (Number.isInteger(value) && value >= least && value <= most)) continue
    return `The option \`${name}\` is ${value}, not a whole number from ${least} to ${most}`
  }
  for (const [name, get, allowed] of choices) {
    const value = get(options)
    if (value === undefined || allowed.includes(value)) continue
    return `The option \`${name}\` is ${JSON.stringify(value)}, not one of ${allowed.join(", ")}`
  }
  const { logs } = options
  if (logs !== undefined && logs !== "effect" && logs !== "ignore" && typeof logs !== "function") {
    return `The option \`logs\` is ${JSON.stringify(logs)}, not "effect", "ignore" or a function`
  }
  const { host } = options
  if (host !== undefined && !Effect.isEffect(host?.serve)) {
    return "The option `host` is not what HostFunctions.make returns"
  }
  for (const [name, get] of durations) {
    const value = get(options)
    if (value === undefined || isDuration(value)) continue
    return `The option \`${name}\` is ${String(value)}, not a duration such as "5 seconds"`
  }
  return undefined
}

/** Fails with `StartFailed` when an option has a value that it cannot have. */
export const validateOptions = (options: SynapseOptions): Effect.Effect<void, SynapseError> =>
  Effect.suspend(() => {
    const detail = wrongOption(options)
    return detail === undefined
      ? Effect.void
      : Effect.fail(new SynapseError({ reason: new StartFailed({ kind: "options", detail }) }))
  })
