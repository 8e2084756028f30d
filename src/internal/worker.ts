/** Starting one worker of a module: its process, the connection to it, and the call that warms it up. */
import { availableParallelism } from "node:os"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Connection from "../Connection.ts"
import * as Envelope from "../Envelope.ts"
import type { PythonEnvironment } from "../PythonEnvironment.ts"
import type { Limits, SynapseOptions, WarmUp } from "../Synapse.ts"
import { StartFailed, SynapseError } from "../SynapseError.ts"
import { failureOfFrame } from "./answer.ts"
import type { Commons } from "./commons.ts"
import { makeContractCheck } from "./contractCheck.ts"
import { workerEnvironment } from "./environmentVariables.ts"
import type { Logs } from "./logs.ts"
import type { Origin } from "./origin.ts"
import * as Serving from "./serving.ts"
import { type Settings, SharedMemory } from "./sharedMemory.ts"

/** A module and what it runs in, as they were found. */
export interface Module {
  /** Its dotted name; of a script with a protocol of its own, its path in the directory. */
  readonly entrypoint: string
  readonly environment: PythonEnvironment
}

const defaultOpenCalls = 1024

/** What the workers of a runtime have in common. */
export interface Shared {
  readonly host: Serving.Host | undefined
  readonly logs: Logs
  /** Memory that all of them have mapped, where that is wanted. */
  readonly commons: Commons | undefined
  readonly origin: Origin
  /** Whether they describe their handlers when they say hello. Default: where that is compared with something. */
  readonly describe?: boolean | undefined
}

/** Makes what starts a worker; the scope owns it. `onChange` is that of the pool. */
export const makeStartWorker = <R>(
  options: SynapseOptions<R>,
  { commons, describe, host, logs, origin }: Shared
): ((module: Module, onChange: () => void) => Effect.Effect<Connection.Connection, SynapseError, Scope.Scope>) => {
  const maxFrameSize = options.maxFrameSize ?? Envelope.defaultMaxFrameSize
  const maxOpenCalls = options.limits?.openCalls ?? defaultOpenCalls
  const startTimeout = Duration.fromInputUnsafe(options.startTimeout ?? "30 seconds")
  const settings: Omit<Connection.Options, "memory" | "serve" | "onLog" | "onChange" | "onBusy"> = {
    maxFrameSize,
    maxOpenCalls,
    concurrency: options.concurrency ?? 1,
    graceMillis: Duration.toMillis(options.disposeTimeout ?? "500 millis"),
    cancelGraceMillis: Duration.toMillis(options.cancelGrace ?? "2 seconds"),
    evaluate: options.evaluate ?? false,
    heartbeat: heartbeatOf(options.heartbeat, origin.sleep),
    pollingMicros: pollingOf(options.polling)
  }

  const sharing = sharedMemoryOf(options.sharedMemory)
  const check = makeContractCheck(options)

  return Effect.fnUntraced(function* ({ entrypoint, environment }, onChange) {
    // Before the process, and so until it is gone.
    const memory = sharing && (yield* openMemory(sharing, commons))
    const worker = yield* origin.spawn({
      ...workerEnvironment(process.env, environment, options.env ?? {}),
      python: environment.python,
      directory: environment.directory,
      entrypoint,
      protocol: options.protocol,
      describe: describe === true || check !== undefined,
      limits: options.limits,
      memory: memory?.descriptors,
      onLine: (line, pid) => logs.line(pid, line)
    })
    let isLoaded = false
    const connection = yield* Connection.make(worker.socket, {
      ...settings,
      memory,
      setup: worker.setup,
      inspect: worker.inspect,
      serve: (post, owner) => Serving.make({ owner, post, host, maxOpen: maxOpenCalls, maxFrameSize }),
      onLog: (log) => {
        if (log.logger === "stderr") worker.noteStderr(log.message)
        logs.record(worker.pid, log)
      },
      onChange,
      onBusy: worker.setKeepAlive
    }).pipe(
      Effect.tap(({ hello }) => (check === undefined ? Effect.void : check(hello))),
      Effect.tap((connection) => {
        if (options.warmUp === undefined) return Effect.void
        isLoaded = true
        return warmUp(connection, options.warmUp)
      }),
      Effect.timeoutOrElse({
        duration: startTimeout,
        orElse: () => Effect.fail(startTimedOut(startTimeout, isLoaded, worker.stderr()))
      }),
      Effect.mapError((error) => withAddressSpace(error, options.limits))
    )
    if (connection.load() === 0) worker.setKeepAlive(false)
    return connection
  })
}

const defaultThreshold = 128 * 1024
const defaultCapacityMiB = 1024
const MiB = 1024 * 1024

/** How memory is shared; nothing where it is not. */
export const sharedMemoryOf = (option: SynapseOptions["sharedMemory"] = {}): Settings | undefined =>
  option === false
    ? undefined
    : {
        threshold: option.threshold ?? defaultThreshold,
        capacity: Math.floor((option.capacityMiB ?? defaultCapacityMiB) * MiB)
      }

const openMemory = (
  settings: Settings,
  commons: Commons | undefined
): Effect.Effect<SharedMemory | undefined, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => SharedMemory.open(settings, commons)),
    (memory) => Effect.sync(() => memory?.close())
  )

const defaultPolling = "50 micros"

/** On one processor a worker that looks keeps this process from sending. */
const pollingOf = (option: SynapseOptions["polling"] = availableParallelism() > 1 ? defaultPolling : false): number =>
  option === false ? 0 : Math.round(Duration.toMillis(option) * 1000)

const heartbeatOf = (
  heartbeat: SynapseOptions["heartbeat"] = {},
  sleep: Origin["sleep"]
): Connection.Options["heartbeat"] =>
  heartbeat === false
    ? undefined
    : {
        sleep,
        intervalMillis: Duration.toMillis(heartbeat.interval ?? "30 seconds"),
        misses: heartbeat.misses ?? 2
      }

const warmUp = (connection: Connection.Connection, { input, method }: WarmUp): Effect.Effect<void, SynapseError> =>
  Effect.flatMap(connection.call({ method, payload: input }), (frame) =>
    frame.kind === Envelope.Kind.Success
      ? Effect.sync(() => Envelope.discard(frame))
      : failureOfFrame(frame, method, undefined)
  ).pipe(
    Effect.mapError(
      (error) =>
        new SynapseError({
          reason: new StartFailed({
            kind: "warmUp",
            detail: `The call of the option \`warmUp\` failed: ${error.message}`
          })
        })
    )
  )

const startTimedOut = (timeout: Duration.Duration, isLoaded: boolean, stderr: string): SynapseError =>
  new SynapseError({
    reason: new StartFailed({
      kind: "timeout",
      detail: isLoaded
        ? `The call of the option \`warmUp\` was not done within ${Duration.format(timeout)} of the worker's start: ` +
          `raise startTimeout if it needs longer`
        : `The Python module was not loaded within ${Duration.format(timeout)}: ` +
          `raise startTimeout if it needs longer to import`,
      stderr
    })
  })

/** Where address space runs out, everything may fail, and nothing says why. */
const withAddressSpace = (error: SynapseError, { memoryBy, memoryMiB }: Limits = {}): SynapseError => {
  const { reason } = error
  if (memoryBy !== "rlimit" || memoryMiB === undefined) return error
  if (reason._tag !== "StartFailed" || (reason.kind !== "exit" && reason.exception?.type !== "MemoryError"))
    return error
  const detail = `${reason.detail}: limits.memoryMiB (${memoryMiB} MiB of address space) may be too little for it`
  return new SynapseError({ reason: new StartFailed({ ...reason, detail }) })
}
