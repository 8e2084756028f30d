/**
 * One Python process, owned by a scope and seen as a `Socket.Socket`.
 *
 * Acquiring it spawns the interpreter with its private descriptors: 3 is the channel, 4 the lifeline that ends the
 * process group when this process is gone, 5 takes crash dumps, 6 to 8 are files of memory where there are any. Output on 1 and 2 is drained line by line. Closing the
 * scope waits for the process to leave, then stops its whole tree, first gently and then by force.
 *
 * @since 0.1.0
 */

// `node:child_process` and not Effect's spawner: telling a segfault from a lack of memory needs the signal as a value, a
// grandchild may hold the streams open long after the exit, and descriptor 3 as one stream saves a queue and a fiber on
// every call.
import * as ChildProcess from "node:child_process"
import { randomUUID } from "node:crypto"
import type * as Net from "node:net"
import { join } from "node:path"
import type { Readable } from "node:stream"
import { isMainThread } from "node:worker_threads"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import * as Channel from "./internal/channel.ts"
import * as Limits from "./internal/limits.ts"
import { nativeSleep } from "./internal/nativeSleep.ts"
import { LineSplitter, Tail } from "./internal/output.ts"
import * as ProcessTree from "./internal/processTree.ts"
import { runtimeDirectory } from "./internal/runtimeDirectory.ts"
import * as ProcessVitals from "./internal/vitals.ts"
import type { ExitKind } from "./SynapseError.ts"
import { StartFailed, SynapseError, WorkerExited } from "./SynapseError.ts"

/**
 * What {@link make} needs to start a process.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The interpreter: an absolute path. */
  readonly python: string
  /** The module's directory, where the process runs. */
  readonly directory: string
  /** The module to serve, as a dotted name such as `"main"`; with `protocol`, the path of a script in the directory. */
  readonly entrypoint: string
  /** The protocol of a script that is run in the place of a module. Default: none. */
  readonly protocol?: string | undefined
  /** Whether the worker describes what its handlers take and give when it says hello. Default: `false`. */
  readonly describe?: boolean | undefined
  /** The environment of the process. Nothing is inherited. */
  readonly env: Readonly<Record<string, string>>
  /**
   * Variables that the process puts into its environment itself, before it imports the module: what the system shows of a
   * process does not have them. They are part of {@link PythonProcess.setup}.
   */
  readonly secrets?: Readonly<Record<string, string>> | undefined
  /** What the process may use. Default: what this one may. `openCalls` and `logRecordsPerSecond` are not looked at here. */
  readonly limits?: Limits.Limits | undefined
  /** Descriptors of files of memory that the process gets as its own from 6 on. Default: none. */
  readonly memory?: ReadonlyArray<number> | undefined
  /**
   * Called with each line the process writes to descriptor 1 or 2, without its end, and with its id: the first ones may come
   * before the process is handed over, or where it never is.
   */
  readonly onLine: (line: OutputLine, pid: number) => void
}

/**
 * A line of raw output. A line over 64 KiB arrives in pieces, all but the last marked as continued.
 *
 * @category models
 * @since 0.1.0
 */
export interface OutputLine {
  /** Where it was written to. */
  readonly source: "stdout" | "stderr"
  readonly text: string
  readonly continued: boolean
}

/**
 * A look at a process.
 *
 * @category models
 * @since 0.1.0
 */
export interface Vitals {
  /** `"stopped"`: by a signal, such as that of a debugger. */
  readonly state: "running" | "sleeping" | "stopped"
  /** The processor time it has used, in milliseconds. */
  readonly cpuMillis: number
  /** Its resident memory. */
  readonly memoryBytes: number
}

/**
 * A running Python process.
 *
 * @category models
 * @since 0.1.0
 */
export interface PythonProcess {
  readonly pid: number
  /**
   * The channel on descriptor 3. Its reader ends, after everything that was sent has been read, with a
   * `SocketReadError` whose cause is the {@link SynapseError} that says how the process ended.
   */
  readonly socket: Socket.Socket
  /** The payload of the `Setup` frame, for which the process waits before it does anything; nothing where it does not. */
  readonly setup: object | undefined
  /** A look at the process; nothing when it is gone. */
  readonly inspect: Effect.Effect<Vitals | undefined>
  /** Adds a line to the tail of stderr that errors carry. */
  readonly noteStderr: (line: string) => void
  /** The tail of stderr so far. */
  readonly stderr: () => string
  /** Whether the process keeps Node's event loop alive. A process starts as one that does. */
  readonly setKeepAlive: (keepAlive: boolean) => void
}

const runtimeMain = join(runtimeDirectory, "__main__.py")

// Isolated from the user's environment and directory, UTF-8 everywhere, unbuffered output, dumps on fatal signals.
const interpreterFlags = ["-I", "-X", "utf8", "-u", "-X", "faulthandler"]

/** The exit code of a worker that finds its channel closed; this side had not closed it. */
const channelLostCode = 75

/** How long the last output of an ended process is waited for; a grandchild may hold the pipes open for ever. */
const lastOutputMillis = 200
/** How long a process may live on after closing its channel. */
const channelClosedMillis = 500
/** How long a process may take to leave by itself once its channel has nothing more to say. */
const leaveMillis = 200
/** How long a process group may take to follow SIGTERM. */
const terminateMillis = 300
/** How long a killed process may take to be gone. Only a process stuck in the kernel needs it. */
const killMillis = 2000

/**
 * Spawns Python. The scope owns the process: closing it returns when the process and what it started are gone.
 *
 * **Details**
 *
 * Fails with `StartFailed` when the process cannot be spawned, or a limit is not possible on this system. Closing the scope waits a moment for a process that is
 * leaving, then sends SIGTERM to its group, then SIGKILL. A grace for open calls is the connection's to give.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Effect.Effect<PythonProcess, SynapseError, Scope.Scope> =>
  checkPlatform.pipe(
    // Acquired first, so that it is there until the process is gone.
    Effect.andThen(Limits.make(options.limits, options.secrets)),
    Effect.flatMap((limits) => Effect.acquireRelease(spawn(options, limits), (worker) => worker.stop)),
    Effect.map((worker) => worker.handle)
  )

/**
 * Fails with `StartFailed` on a platform that has no way yet to give a process its channel.
 *
 * @category guards
 * @since 0.1.0
 */
export const checkPlatform: Effect.Effect<void, SynapseError> = Effect.suspend(() =>
  process.platform === "win32"
    ? startFailed("Windows is not supported yet: a worker's channel is a Unix socket on descriptor 3")
    : Effect.void
)

interface Worker {
  readonly handle: PythonProcess
  readonly stop: Effect.Effect<void>
}

const spawn = (options: Options, limits: Limits.Enforced): Effect.Effect<Worker, SynapseError> =>
  Effect.callback((resume) => {
    const workerId = randomUUID()
    const memory = options.memory ?? []
    let child: ChildProcess.ChildProcess
    try {
      child = ChildProcess.spawn(
        options.python,
        [
          ...interpreterFlags,
          runtimeMain,
          options.entrypoint,
          ...(options.protocol === undefined ? [] : ["--protocol", options.protocol]),
          ...(options.describe === true ? ["--contract"] : [])
        ],
        {
          cwd: options.directory,
          // Its own session and process group: the tree can be signalled as one, and Ctrl-C reaches this process alone.
          detached: true,
          stdio: ["ignore", "pipe", "pipe", "pipe", "pipe", "pipe", ...memory],
          env: {
            ...options.env,
            SYNAPSE_PPID: String(process.pid),
            SYNAPSE_WORKER_ID: workerId,
            SYNAPSE_SETUP: limits.setup && "1",
            SYNAPSE_MEMORY: memory.length === 0 ? undefined : String(memory.length),
            // The parent-death signal follows the thread that spawned, and this one may end before the process does.
            ...(isMainThread ? {} : { SYNAPSE_PDEATHSIG: "0" })
          }
        }
      )
    } catch (cause) {
      return resume(startFailed(`\`${options.python}\` cannot be started: ${String(cause)}`))
    }
    child.once("error", (cause: NodeJS.ErrnoException) => {
      resume(startFailed(`\`${options.python}\` cannot be started: ${describeSpawnError(cause)}`))
    })
    child.once("spawn", () => resume(Effect.succeed(supervise(child, workerId, options, limits))))
  })

const startFailed = (detail: string): Effect.Effect<never, SynapseError> =>
  Effect.fail(new SynapseError({ reason: new StartFailed({ kind: "spawn", detail }) }))

const describeSpawnError = (cause: NodeJS.ErrnoException): string => {
  switch (cause.code) {
    case "ENOENT":
      return "it does not exist, its directory does not, or its first line names a missing interpreter"
    case "EACCES":
      return "it is not executable"
    case "ENOEXEC":
      return "it is not a program for this machine"
    case "EMFILE":
    case "ENFILE":
      return "too many files are open; raise the limit (ulimit -n) or use fewer workers"
    case "EAGAIN":
      return "too many processes are running"
    default:
      return cause.message
  }
}

const supervise = (
  child: ChildProcess.ChildProcess,
  workerId: string,
  options: Options,
  limits: Limits.Enforced
): Worker => {
  const pid = child.pid!
  // Every piped descriptor of a child is a socket, which Node's types do not say.
  const [, stdout, stderr, channelStream, lifeline, crashDumps] = child.stdio as unknown as ReadonlyArray<Net.Socket>
  const streams = [stdout!, stderr!, channelStream!, lifeline!, crashDumps!]
  const stderrTail = new Tail(64, 8192)
  const crashDump = new Tail(200, 16_384)
  const oomKillsBefore = ProcessTree.outOfMemoryKills()
  const exited = Latch.makeUnsafe(false)
  const ended = Latch.makeUnsafe(false)
  let channelLost = false
  let outlivedChannel = false
  let overMemory = false

  drain(stdout!, "stdout", (line) => options.onLine(line, pid))
  drain(stderr!, "stderr", (line) => {
    stderrTail.push(line.text)
    options.onLine(line, pid)
  })
  drain(crashDumps!, "stderr", (line) => crashDump.push(line.text))
  lifeline!.on("error", () => {})

  const channel = Channel.make(channelStream!)

  const conclude = ({ kind, limit }: End): void => {
    channel.end(
      new SynapseError({
        reason: new WorkerExited({
          kind,
          pid,
          exitCode: child.exitCode,
          signal: child.signalCode,
          crashDump: crashDump.text(),
          stderr: stderrTail.text(),
          ...(limit !== undefined && { limit }),
          delivery: "unknown"
        })
      })
    )
    ended.openUnsafe()
  }

  // Both events can come in one tick, `exit` first: the listener of `close` has to be there before either. Only `exit` is
  // sure to come, since a grandchild that left the group may hold the pipes open.
  let lastOutput: NodeJS.Timeout | undefined
  const finish = (): void => {
    clearTimeout(lastOutput)
    if (overMemory) conclude({ kind: "outOfMemory", limit: limits.memory })
    else if (outlivedChannel || child.exitCode === channelLostCode) conclude({ kind: "channelClosed" })
    else conclude(classify(child.signalCode, limits, oomKillsBefore))
  }
  child.once("exit", () => {
    unwatch()
    ProcessTree.kill(pid, "SIGKILL")
    exited.openUnsafe()
    lastOutput = setTimeout(finish, lastOutputMillis)
  })
  child.once("close", finish)

  const unwatch = limits.watch(pid, () => {
    overMemory = true
    ProcessTree.kill(pid, "SIGKILL")
  })

  // A channel that breaks does not end, it closes.
  const onChannelLost = (): void => {
    if (channelLost) return
    channelLost = true
    setTimeout(() => {
      if (child.exitCode !== null || child.signalCode !== null) return
      outlivedChannel = true
      ProcessTree.kill(pid, "SIGKILL")
    }, channelClosedMillis).unref()
  }
  channelStream!.once("end", onChannelLost)
  channelStream!.once("close", onChannelLost)

  const within = (latch: Latch.Latch, millis: number): Effect.Effect<boolean> =>
    Effect.raceFirst(Effect.as(latch.await, true), Effect.as(nativeSleep(millis), false))

  const stop = Effect.gen(function* () {
    setKeepAlive(true)
    if (!(yield* within(exited, leaveMillis))) {
      ProcessTree.kill(pid, "SIGTERM")
      if (!(yield* within(exited, terminateMillis))) ProcessTree.kill(pid, "SIGKILL")
    }
    yield* within(ended, killMillis)
    yield* Effect.promise(() => ProcessTree.sweep(pid, workerId))
    for (const stream of streams) stream.destroy()
  })

  const setKeepAlive = (keepAlive: boolean): void => {
    const method = keepAlive ? "ref" : "unref"
    child[method]()
    for (const stream of streams) stream[method]()
  }

  return {
    handle: {
      pid,
      socket: channel.socket,
      setup: limits.setup,
      inspect: Effect.suspend(() =>
        child.exitCode === null && child.signalCode === null ? ProcessVitals.inspect(pid) : Effect.succeed(undefined)
      ),
      noteStderr: (line) => stderrTail.push(line),
      stderr: () => stderrTail.text(),
      setKeepAlive
    },
    stop
  }
}

interface End {
  readonly kind: ExitKind
  /** The limit that it went over. */
  readonly limit?: string | undefined
}

const classify = (signal: NodeJS.Signals | null, limits: Limits.Enforced, oomKillsBefore: number): End => {
  switch (signal) {
    case null:
      return { kind: "exit" }
    case "SIGSEGV":
      return { kind: "segfault" }
    case "SIGABRT":
    case "SIGBUS":
    case "SIGFPE":
    case "SIGILL":
      return { kind: "crash" }
    case "SIGXCPU":
      return { kind: "resourceLimit", limit: limits.cpuTime }
    case "SIGXFSZ":
      return { kind: "resourceLimit" }
    case "SIGKILL":
      // A group of its own tells which worker it was.
      if (limits.hasRunOut !== undefined) {
        return limits.hasRunOut() ? { kind: "outOfMemory", limit: limits.memory } : { kind: "killed" }
      }
      return { kind: ProcessTree.outOfMemoryKills() > oomKillsBefore ? "outOfMemory" : "killed" }
    default:
      return { kind: "killed" }
  }
}

const drain = (stream: Readable, source: OutputLine["source"], onLine: (line: OutputLine) => void): void => {
  const splitter = new LineSplitter((text, continued) => onLine({ source, text, continued }))
  stream.on("data", (chunk: Buffer) => splitter.push(chunk))
  stream.once("end", () => splitter.flush())
  stream.on("error", () => {})
}
