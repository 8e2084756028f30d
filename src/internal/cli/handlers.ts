/** `effect-synapse call --list`: the handlers that a module has. */
import * as Effect from "effect/Effect"
import * as PythonEnvironment from "../../PythonEnvironment.ts"
import * as PythonProcess from "../../PythonProcess.ts"
import { resolveEntrypoint } from "../entrypoint.ts"
import * as Logs from "../logs.ts"
import { makeStartWorker } from "../worker.ts"
import { type ModuleFlags, runtimeOptions } from "./module.ts"
import { write } from "./terminal.ts"

/** Starts the module for what it says of itself. */
export const listHandlers = Effect.fnUntraced(function* (flags: ModuleFlags) {
  yield* PythonProcess.checkPlatform
  const options = runtimeOptions(flags)
  const entrypoint = yield* resolveEntrypoint(options.directory, options.entrypoint ?? "main")
  const environment = yield* PythonEnvironment.make(options)
  const logs = yield* Logs.make(options.logs ?? "effect", environment.directory)
  const start = makeStartWorker(options, { host: undefined, logs, commons: undefined })
  const { hello } = yield* start({ entrypoint, environment }, () => {})
  for (const { async, name, stream } of hello.methods) {
    const kind = stream ? "stream" : async ? "async" : ""
    yield* write(`${kind === "" ? name : `${name}  (${kind})`}\n`)
  }
})
