/** Options that cannot work are refused by name, before anything is started with them. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type { EnvironmentSettings } from "../PythonEnvironment.ts"
import type { HeartbeatOptions, SynapseOptions as Options, SharedMemoryOptions, Workers } from "../Synapse.ts"
import { StartFailed, SynapseError } from "../SynapseError.ts"
import type { QueueOptions, RecycleOptions } from "../WorkerPool.ts"

type SynapseOptions = Options<unknown>

const integers: ReadonlyArray<readonly [string, (options: SynapseOptions) => number | undefined, number, number]> = [
  ["concurrency", ({ concurrency }) => concurrency, 1, 256],
  ["maxFrameSize", ({ maxFrameSize }) => maxFrameSize, 4096, 2 ** 31 - 1],
  ["queue.capacity", ({ queue }) => queue?.capacity, 0, Number.MAX_SAFE_INTEGER],
  ["restart.max", ({ restart }) => restart?.max, 0, Number.MAX_SAFE_INTEGER],
  ["heartbeat.misses", ({ heartbeat }) => beating(heartbeat)?.misses, 1, Number.MAX_SAFE_INTEGER],
  ["limits.memoryMiB", ({ limits }) => limits?.memoryMiB, 1, 2 ** 33],
  ["limits.openFiles", ({ limits }) => limits?.openFiles, 16, 2 ** 31 - 1],
  ["limits.openCalls", ({ limits }) => limits?.openCalls, 1, 2 ** 20],
  ["limits.logRecordsPerSecond", ({ limits }) => limits?.logRecordsPerSecond, 1, Number.MAX_SAFE_INTEGER],
  ["sharedMemory.threshold", ({ sharedMemory }) => sharing(sharedMemory)?.threshold, 1024, 2 ** 31 - 1],
  ["sharedMemory.capacityMiB", ({ sharedMemory }) => sharing(sharedMemory)?.capacityMiB, 1, 2 ** 20],
  ["recycle.afterCalls", ({ recycle }) => recycling(recycle)?.afterCalls, 1, Number.MAX_SAFE_INTEGER]
]

/** With the least in milliseconds, where none at all would be of no use. */
const durations: ReadonlyArray<readonly [string, (options: SynapseOptions) => Duration.Input | undefined, number?]> = [
  ["startTimeout", ({ startTimeout }) => startTimeout, 1],
  ["disposeTimeout", ({ disposeTimeout }) => disposeTimeout],
  ["callTimeout", ({ callTimeout }) => callTimeout],
  ["cancelGrace", ({ cancelGrace }) => cancelGrace],
  ["restart.window", ({ restart }) => restart?.window, 1],
  ["restart.backoff", ({ restart }) => restart?.backoff],
  ["restart.resetAfter", ({ restart }) => restart?.resetAfter, 1],
  ["heartbeat.interval", ({ heartbeat }) => beating(heartbeat)?.interval, 1],
  ["recycle.afterAge", ({ recycle }) => recycling(recycle)?.afterAge, 1],
  ["limits.cpuTime", ({ limits }) => limits?.cpuTime],
  ["watch.debounce", ({ watch }) => (typeof watch === "object" ? watch.debounce : undefined)]
]

const choices: ReadonlyArray<readonly [string, (options: SynapseOptions) => unknown, ReadonlyArray<unknown>]> = [
  ["evaluate", ({ evaluate }) => evaluate, [true, false]],
  ["contract", ({ contract }) => contract, ["check", "warn", "off"]],
  ["oneShot", ({ oneShot }) => oneShot, [true, false]],
  ["sharedMemory.inPlace", ({ sharedMemory }) => sharing(sharedMemory)?.inPlace, [true, false]],
  ["limits.memoryBy", ({ limits }) => limits?.memoryBy, ["watch", "rlimit", "cgroup"]],
  ["queue.whenFull", ({ queue }) => queue?.whenFull, ["wait", "reject"]],
  ["environment.mode", ({ environment }) => settings(environment)?.mode, ["venv", "existing", "system"]],
  ["environment.strict", ({ environment }) => settings(environment)?.strict, [true, false]],
  ["environment.installer", ({ environment }) => settings(environment)?.installer, ["auto", "uv", "pip"]]
]

const beating = (heartbeat: SynapseOptions["heartbeat"]): HeartbeatOptions | undefined =>
  typeof heartbeat === "object" ? heartbeat : undefined

const sharing = (sharedMemory: SynapseOptions["sharedMemory"]): SharedMemoryOptions | undefined =>
  typeof sharedMemory === "object" ? sharedMemory : undefined

const recycling = (recycle: SynapseOptions["recycle"]): RecycleOptions | undefined =>
  typeof recycle === "object" ? recycle : undefined

const settings = (environment: SynapseOptions["environment"]): EnvironmentSettings | undefined =>
  typeof environment === "string" ? { mode: environment } : environment

const texts: ReadonlyArray<readonly [string, (options: SynapseOptions) => unknown]> = [
  ["directory", ({ directory }) => directory],
  ["entrypoint", ({ entrypoint }) => entrypoint ?? "main"],
  ["python", ({ python }) => python ?? "python3"],
  ["warmUp.method", ({ warmUp }) => (warmUp === undefined ? "main" : warmUp.method)],
  ["environment.index", ({ environment }) => settings(environment)?.index ?? "default"]
]

const toMillis = (input: Duration.Input): number => {
  try {
    return Duration.toMillis(input)
  } catch {
    return Number.NaN
  }
}

const shown = (value: unknown): string => (typeof value === "string" ? JSON.stringify(value) : String(value))

const wrongDuration = (name: string, value: Duration.Input, least = 0): string | undefined =>
  toMillis(value) >= least
    ? undefined
    : `The option \`${name}\` is ${shown(value)}, not a duration${least > 0 ? " above zero" : ""} such as "5 seconds"`

/** How many workers a runtime may have. */
export const maxWorkers = 256
const isInteger = (value: unknown, least: number, most: number): boolean =>
  Number.isInteger(value) && (value as number) >= least && (value as number) <= most

const wrongWorkers = (workers: Workers = 1, queue: QueueOptions | undefined): string | undefined => {
  const { idleTimeToLive, max, min } = typeof workers === "object" && workers !== null ? workers : { max: workers }
  const name = max === workers ? "workers" : "workers.max"
  if (max !== "cpus" && !isInteger(max, 1, maxWorkers)) {
    return `The option \`${name}\` is ${shown(max)}, not "cpus" or a whole number from 1 to ${maxWorkers}`
  }
  const most = max === "cpus" ? maxWorkers : max
  if (min !== undefined && !isInteger(min, 0, most)) {
    return `The option \`workers.min\` is ${shown(min)}, not a whole number from 0 to ${max === "cpus" ? most : `${most}, the \`max\``}`
  }
  if (queue?.whenFull === "reject" && queue.capacity === 0 && min !== undefined && min < most) {
    return "The option `queue.capacity` is 0: workers beyond `workers.min` are started for calls that wait, and none may"
  }
  return idleTimeToLive === undefined ? undefined : wrongDuration("workers.idleTimeToLive", idleTimeToLive)
}

const wrongRecycling = (recycle: SynapseOptions["recycle"]): string | undefined => {
  if (recycle === undefined || recycle === "auto") return undefined
  if (typeof recycle !== "object" || recycle === null) {
    return `The option \`recycle\` is ${JSON.stringify(recycle)}, not "auto" or an object such as { afterCalls: 1000 }`
  }
  const { afterMemoryMiB: mark } = recycle
  if (mark === undefined || mark === "auto" || (Number.isFinite(mark) && mark > 0)) return undefined
  return `The option \`recycle.afterMemoryMiB\` is ${String(mark)}, not "auto" or a number above 0`
}

const isObject = (value: unknown): boolean => typeof value === "object" && value !== null

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
  const wrong = wrongWorkers(options.workers, options.queue) ?? wrongRecycling(options.recycle)
  if (wrong !== undefined) return wrong
  const { limits, logs, oneShot } = options
  if (limits?.cpuTime !== undefined && oneShot !== true) {
    return "The option `limits.cpuTime` counts a worker's whole life: it is for workers that live for one call, with `oneShot`"
  }
  if (logs !== undefined && logs !== "effect" && logs !== "ignore" && typeof logs !== "function") {
    return `The option \`logs\` is ${JSON.stringify(logs)}, not "effect", "ignore" or a function`
  }
  const { heartbeat, watch } = options
  if (heartbeat !== undefined && heartbeat !== false && !isObject(heartbeat)) {
    return `The option \`heartbeat\` is ${JSON.stringify(heartbeat)}, not false or an object such as { interval: "1 minute" }`
  }
  if (watch !== undefined && typeof watch !== "boolean" && !isObject(watch)) {
    return `The option \`watch\` is ${JSON.stringify(watch)}, not true, false or an object such as { paths: ["prompts"] }`
  }
  const paths = typeof watch === "object" ? watch.paths : undefined
  if (paths !== undefined && !(Array.isArray(paths) && paths.every((path) => typeof path === "string"))) {
    return `The option \`watch.paths\` is ${JSON.stringify(paths)}, not a list of paths`
  }
  const { group, host, polling, sharedMemory } = options
  if (group !== undefined && !(Predicate.hasProperty(group, "requests") && group.requests instanceof Map)) {
    return "The option `group` is not an RpcGroup: give what RpcGroup.make returns"
  }
  if (polling !== undefined && polling !== false && !(toMillis(polling) >= 0 && toMillis(polling) <= 1)) {
    return `The option \`polling\` is ${shown(polling)}, not false or a duration of at most a millisecond, such as "50 micros"`
  }
  if (sharedMemory !== undefined && sharedMemory !== false && !isObject(sharedMemory)) {
    return `The option \`sharedMemory\` is ${JSON.stringify(sharedMemory)}, not false or an object such as { threshold: 65536 }`
  }
  if (host !== undefined && !Effect.isEffect(host?.serve)) {
    return "The option `host` is not what HostFunctions.make returns"
  }
  for (const [name, get, least] of durations) {
    const value = get(options)
    const wrong = value === undefined ? undefined : wrongDuration(name, value, least)
    if (wrong !== undefined) return wrong
  }
  return undefined
}

const check = (wrong: string | undefined): Effect.Effect<void, SynapseError> =>
  wrong === undefined
    ? Effect.void
    : Effect.fail(new SynapseError({ reason: new StartFailed({ kind: "options", detail: wrong }) }))

/** Fails with `StartFailed` when an option has a value that it cannot have. */
export const validateOptions = (options: SynapseOptions): Effect.Effect<void, SynapseError> =>
  Effect.suspend(() => check(wrongOption(options)))

/** The same, for one option that may change. */
export const validateWorkers = (workers: Workers, queue: QueueOptions | undefined): Effect.Effect<void, SynapseError> =>
  Effect.suspend(() => check(wrongWorkers(workers, queue)))
