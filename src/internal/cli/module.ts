/** The flags that say which module is meant and how it is run, as the options of a runtime. */
import * as Effect from "effect/Effect"
import type { EnvironmentMode } from "../../PythonEnvironment.ts"
import type { LogRecord, SynapseOptions } from "../../Synapse.ts"
import { note } from "./terminal.ts"

/** @internal */
export interface ModuleFlags {
  readonly directory: string
  readonly entrypoint: string | undefined
  readonly python: string | undefined
  readonly environment: EnvironmentMode | undefined
}

/** What the module prints goes to stderr as it is; what it logs too, with its level and the name of its logger. */
const logs = (record: LogRecord): Effect.Effect<void> => {
  if (record.logger === "stdout" || record.logger === "stderr") return note(record.message)
  const text = `${record.logger}: ${record.message}`
  return Effect.logWithLevel(record.level)(record.exception === undefined ? text : `${text}\n${record.exception}`)
}

/** @internal */
export const runtimeOptions = ({ directory, entrypoint, environment, python }: ModuleFlags): SynapseOptions => ({
  directory,
  entrypoint,
  python,
  environment,
  logs
})
