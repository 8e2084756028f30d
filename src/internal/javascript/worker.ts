/**
 * Inside a worker thread: loads the module, and runs one command after the other.
 *
 * @internal
 */
import { readFileSync } from "node:fs"
import { isBuiltin, registerHooks } from "node:module"
import { format as formatText } from "node:util"
import { constants, Script } from "node:vm"
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads"
import { sampleInterval } from "./leakGuard.ts"
import type { FromWorker, ToWorker, WorkerAnswer, WorkerData } from "./runtime.ts"
import { describe, type ExceptionInfo, keepTraces, ownException, useSourceMap } from "./stack.ts"
import { fromText, toText } from "./values.ts"

const { answers, module, signal, signedSource, sourceMap } = workerData as WorkerData
const port: MessagePort = parentPort as unknown as MessagePort
const post = (message: FromWorker): void => port.postMessage(message)

/** What a command is told when it sends a message without being the command that runs. */
const noCommand = "Internal protocol error (no command id or mismatched command id)"

type Command = Extract<ToWorker, { readonly type: "run" }>

let running: { readonly command: Command; failed: ExceptionInfo | undefined; messages: number } | undefined
let commands = 0
let loaded: unknown

// A function is compiled once; those that were not used for the longest time are forgotten.
const maxFunctions = 512
const functions = new Map<string, Function>()

const compile = (source: string): Function => {
  const known = functions.get(source)
  if (known !== undefined) {
    functions.delete(source)
    functions.set(source, known)
    return known
  }
  const script = new Script(`(${source}\n)`, {
    filename: "<command>",
    columnOffset: -1,
    importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER
  })
  const made: unknown = script.runInThisContext()
  if (typeof made !== "function") throw new SyntaxError("the source is not a function such as (m, p) => p")
  if (functions.size >= maxFunctions) functions.delete(functions.keys().next().value!)
  functions.set(source, made)
  return made
}

/** Blocks the thread until the client has answered. */
const sendMessage = (value: unknown, replacer?: never, space?: string | number): unknown => {
  const mine = running
  if (mine === undefined) throw new Error(noCommand)
  const { format } = mine.command
  const text =
    replacer === undefined && space === undefined ? toText(value, format) : JSON.stringify(value, replacer, space)
  if (text === undefined) throw new TypeError("a message must be a value that JSON can carry")
  const number = ++mine.messages
  post({ type: "message", id: mine.command.id, number, text })
  for (;;) {
    const before = Atomics.load(signal, 0)
    const received = receiveMessageOnPort(answers) as { readonly message: WorkerAnswer } | undefined
    if (received === undefined) {
      Atomics.wait(signal, 0, before)
      continue
    }
    const answer = received.message
    if (answer.id !== mine.command.id || answer.number !== number) continue
    if (answer.failure === undefined) return fromText(answer.text, format)
    const error = new Error(answer.failure)
    mine.failed = describe(error, "answer")
    throw error
  }
}

const attempt = async <A>(run: () => A, otherwise: (error: unknown) => ExceptionInfo): Promise<Awaited<A>> => {
  try {
    return await run()
  } catch (error) {
    throw new Described(otherwise(error))
  }
}

class Described {
  readonly info: ExceptionInfo
  constructor(info: ExceptionInfo) {
    this.info = info
  }
}

const own = (kind: Parameters<typeof ownException>[0], name: string) => (error: unknown) =>
  ownException(kind, name, describe(error).message)

const evaluate = async (command: Command): Promise<string> => {
  const { format, param, source } = command
  const run = await attempt(() => compile(source), own("compile", "SyntaxError"))
  const input = await attempt(() => fromText(param, format), own("param", "SyntaxError"))
  const value: unknown = await attempt(
    () => run(loaded, input),
    (error) => {
      const info = describe(error)
      // An error that is thrown on is that of the answer still.
      return running?.failed?.errorMessage === info.errorMessage ? { ...info, kind: "answer" } : info
    }
  )
  const text = await attempt(() => toText(value, format), own("serialize", "TypeError"))
  if (text === undefined) {
    throw new Described(ownException("unserializable", "TypeError", `a ${typeof value} cannot be returned`))
  }
  return text
}

const run = async (command: Command): Promise<void> => {
  const started = process.hrtime.bigint()
  const nanos = () => Number(process.hrtime.bigint() - started)
  running = { command, failed: undefined, messages: 0 }
  try {
    const text = await evaluate(command)
    running = undefined
    post({ type: "ok", id: command.id, text, nanos: nanos() })
  } catch (error) {
    running = undefined
    const info = error instanceof Described ? error.info : describe(error)
    post({ type: "exception", id: command.id, info, nanos: nanos() })
  }
  commands++
  if (commands % sampleInterval === 0) sample("sample")
}

const collect = (globalThis as { gc?: () => void }).gc

const sample = (type: "sample" | "stats"): void => {
  if (type === "sample") collect?.()
  post({ type, heap: process.memoryUsage().heapUsed, functions: functions.size })
}

const levels = { debug: "debug", trace: "debug", log: "info", info: "info", warn: "warn", error: "error" } as const

const redirectConsole = (): void => {
  for (const [method, level] of Object.entries(levels)) {
    const print = (...args: ReadonlyArray<unknown>) =>
      post({ type: "log", level, source: `console.${method}`, message: formatText(...args) })
    Object.assign(console, { [method]: print })
  }
}

/** A signed module runs from the bytes that were verified, and brings all its code with it. */
const serveSigned = (url: string, source: Uint8Array): void => {
  registerHooks({
    resolve: (specifier, context, next) => {
      // As it is: where its path leads to by then, nobody has verified.
      if (specifier === url) return { url, format: "module", shortCircuit: true }
      if (context.parentURL === url && !isBuiltin(specifier)) {
        throw new Error(`a signed module imports ${JSON.stringify(specifier)}, which is not signed: bundle it`)
      }
      return next(specifier, context)
    },
    load: (loading, context, next) =>
      loading === url ? { format: "module", source, shortCircuit: true } : next(loading, context)
  })
}

const load = async (): Promise<void> => {
  if (module === undefined) return
  if (signedSource !== undefined) serveSigned(module, signedSource)
  if (sourceMap !== undefined) useSourceMap(module, readFileSync(sourceMap, "utf8"))
  loaded = await import(module)
}

redirectConsole()
keepTraces()
Reflect.deleteProperty(globalThis, "gc")
const shared = Object.freeze({ sendMessage })
Object.assign(globalThis, { JSockD: shared, synapse: shared })
// What a command left behind may fail when it is long over; it takes nobody with it.
const logStray = (error: unknown): void =>
  post({ type: "log", level: "error", source: "uncaught", message: describe(error).pretty })
process.on("uncaughtException", logStray)
process.on("unhandledRejection", logStray)

try {
  await load()
  port.on("message", (message: ToWorker) => {
    if (message.type === "run") void run(message)
    else sample("stats")
  })
  post({ type: "ready" })
} catch (error) {
  post({ type: "failed", info: describe(error, "start") })
}
