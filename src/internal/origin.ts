/** Where a runtime has its module and its workers from: Python on this machine, or what stands in for it. */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import type * as Path from "effect/Path"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as PythonEnvironment from "../PythonEnvironment.ts"
import * as PythonProcess from "../PythonProcess.ts"
import type { SynapseOptions } from "../Synapse.ts"
import type { SynapseError } from "../SynapseError.ts"
import { resolveEntrypoint } from "./entrypoint.ts"
import { nativeSleepUnref } from "./nativeSleep.ts"
import type { Module } from "./worker.ts"

export interface Origin {
  /** Fails where there cannot be any. */
  readonly check: Effect.Effect<void, SynapseError>
  /** Finds the module and what it runs in, and again at each reload. */
  readonly find: <R>(
    options: SynapseOptions<R>
  ) => Effect.Effect<Module, SynapseError, ChildProcessSpawner.ChildProcessSpawner | FileSystem.FileSystem | Path.Path>
  /** Starts a worker; the scope owns it. */
  readonly spawn: typeof PythonProcess.make
  /** The time by which a worker is silent: of the world it lives in. */
  readonly sleep: (millis: number) => Effect.Effect<void>
}

export const python: Origin = {
  check: PythonProcess.checkPlatform,
  find: (options) =>
    Effect.all({
      entrypoint: resolveEntrypoint(options.directory, options.entrypoint ?? "main"),
      environment: PythonEnvironment.make(options)
    }),
  spawn: PythonProcess.make,
  // Processes know nothing of a `TestClock`.
  sleep: nativeSleepUnref
}
