/** What a module's handlers take and give, as one of its workers describes them. */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import type * as Path from "effect/Path"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Contract from "../Contract.ts"
import type { SynapseOptions } from "../Synapse.ts"
import type { SynapseError } from "../SynapseError.ts"
import * as Logs from "./logs.ts"
import { validateOptions } from "./options.ts"
import * as Origin from "./origin.ts"
import { makeStartWorker } from "./worker.ts"

/** Those of a layer that say which module it is, what it runs in, and how its start is seen. */
export type Options = Pick<
  SynapseOptions,
  "directory" | "entrypoint" | "python" | "environment" | "env" | "startTimeout" | "limits" | "logs"
>

/**
 * Makes the environment of a module, starts one worker, and gives the contract that it describes itself with. The worker is
 * gone when this returns.
 *
 * It fails as a layer with these options would: an exception while the module is imported is `StartFailed`.
 */
export const describeModule = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<
  Contract.Contract,
  SynapseError,
  ChildProcessSpawner.ChildProcessSpawner | FileSystem.FileSystem | Path.Path
> {
  yield* Origin.python.check
  yield* validateOptions(options)
  const module = yield* Origin.python.find(options)
  const described = Effect.gen(function* () {
    const logs = yield* Logs.make(
      options.logs ?? "effect",
      module.environment.directory,
      options.limits?.logRecordsPerSecond
    )
    // Nothing is called: it shares no memory, and nobody asks whether it is alive.
    const startWorker = makeStartWorker(
      { ...options, sharedMemory: false, heartbeat: false },
      { logs, host: undefined, commons: undefined, describe: true, origin: Origin.python }
    )
    const { hello } = yield* startWorker(module, () => {})
    return hello.contract
  })
  return yield* Contract.decode(yield* Effect.scoped(described))
})
