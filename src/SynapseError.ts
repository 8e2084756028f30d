/**
 * The one error of Synapse.
 *
 * Everything that can go wrong between a TypeScript caller and its Python module is a {@link SynapseError} whose
 * `reason` says what happened. `Effect.catchTag("SynapseError", ...)` handles them all,
 * `Effect.catchReason("SynapseError", "WorkerExited", ...)` handles one. Every reason is a schema, so errors survive a
 * wire, and each says whether the call may have run (`delivery`) and whether trying again can help (`isRetryable`).
 *
 * @since 0.1.0
 */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Traceback from "./internal/traceback.ts"

const id = "effect-synapse/SynapseError"

/**
 * How far a call got before it failed.
 *
 * **Details**
 *
 * - `"notSent"`: it never left this process.
 * - `"rejected"`: the worker refused it before its handler started.
 * - `"unknown"`: the handler may have run, in part or to its end.
 *
 * @category models
 * @since 0.1.0
 */
export const Delivery = Schema.Literals(["notSent", "rejected", "unknown"])

/**
 * The type of the schema {@link Delivery}.
 *
 * @category models
 * @since 0.1.0
 */
export type Delivery = typeof Delivery.Type

/**
 * The side of the boundary that refused a value.
 *
 * @category models
 * @since 0.1.0
 */
export const Side = Schema.Literals(["typescript", "python"])

/**
 * The type of the schema {@link Side}.
 *
 * @category models
 * @since 0.1.0
 */
export type Side = typeof Side.Type

/**
 * One frame of a Python traceback, outermost call first within its list.
 *
 * @category models
 * @since 0.1.0
 */
export const ExceptionFrame = Schema.Struct({
  file: Schema.String,
  line: Schema.Int,
  function: Schema.String,
  /** The source line, without its indentation. */
  code: Schema.optionalKey(Schema.String)
})

/**
 * The type of the schema {@link ExceptionFrame}.
 *
 * @category models
 * @since 0.1.0
 */
export type ExceptionFrame = typeof ExceptionFrame.Type

/**
 * A Python exception as data: what `traceback.print_exception` would show, within limits.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExceptionInfo {
  /** The qualified name of the class, such as `"ValueError"`. */
  readonly type: string
  /** The module that defines the class, such as `"builtins"`. */
  readonly module: string
  readonly message: string
  /** Outermost call first, as Python prints them; frames of Synapse itself are left out. */
  readonly frames: ReadonlyArray<ExceptionFrame>
  readonly framesOmitted?: number
  /** Notes added with `add_note`. */
  readonly notes?: ReadonlyArray<string>
  /** The exception named in `raise ... from cause`. */
  readonly cause?: ExceptionInfo
  /** The exception that was being handled when this one was raised. */
  readonly context?: ExceptionInfo
  /** The members of an exception group. */
  readonly exceptions?: ReadonlyArray<ExceptionInfo>
  readonly exceptionsOmitted?: number
}

const exceptionFields = {
  type: Schema.String,
  module: Schema.String,
  message: Schema.String,
  frames: Schema.Array(ExceptionFrame),
  framesOmitted: Schema.optionalKey(Schema.Int),
  notes: Schema.optionalKey(Schema.Array(Schema.String)),
  cause: Schema.optionalKey(Schema.suspend((): Schema.Codec<ExceptionInfo> => ExceptionInfo)),
  context: Schema.optionalKey(Schema.suspend((): Schema.Codec<ExceptionInfo> => ExceptionInfo)),
  exceptions: Schema.optionalKey(Schema.Array(Schema.suspend((): Schema.Codec<ExceptionInfo> => ExceptionInfo))),
  exceptionsOmitted: Schema.optionalKey(Schema.Int)
}

/**
 * The schema of {@link ExceptionInfo}.
 *
 * @category models
 * @since 0.1.0
 */
export const ExceptionInfo: Schema.Codec<ExceptionInfo> = Schema.Struct(exceptionFields)

/**
 * Renders an exception the way Python prints one: cause first, the exception itself last. Long texts are cut, deep
 * chains and large groups left out.
 *
 * @category formatting
 * @since 0.1.0
 */
export const renderTraceback: (info: ExceptionInfo) => string = Traceback.renderTraceback

const indent = (text: string, by: string): string => text.replaceAll(/^/gm, by)

const tail = (title: string, text: string): string =>
  text.trim() === "" ? "" : `\n${title}:\n${indent(text.trimEnd(), "  ")}`

/**
 * No Python interpreter, or none in the wanted range.
 *
 * @category errors
 * @since 0.1.0
 */
export class PythonNotFound extends Schema.TaggedError<PythonNotFound>(`${id}/PythonNotFound`)("PythonNotFound", {
  /** What was asked for: a path, a command, or a version range such as `">=3.10"`. */
  wanted: Schema.String,
  /** Each candidate in the order it was tried, with what was found there. */
  tried: Schema.Array(Schema.Struct({ candidate: Schema.String, found: Schema.String }))
}) {
  override get message(): string {
    const tried = this.tried.map(({ candidate, found }) => `\n  ${candidate}: ${found}`).join("")
    return (
      `No Python interpreter for ${this.wanted}. Tried:${tried === "" ? " nothing" : tried}\n` +
      `Install Python, or name one with the option \`python\` or the variable SYNAPSE_PYTHON.`
    )
  }
  get isRetryable(): boolean {
    return false
  }
  get delivery(): Delivery {
    return "notSent"
  }
}

/**
 * The module's directory, entrypoint or requirements file is missing, or lies outside the directory.
 *
 * @category errors
 * @since 0.1.0
 */
export class ModuleNotFound extends Schema.TaggedError<ModuleNotFound>(`${id}/ModuleNotFound`)("ModuleNotFound", {
  what: Schema.Literals(["directory", "entrypoint", "requirements"]),
  path: Schema.String,
  /** What is wrong with it and what to do. */
  detail: Schema.String
}) {
  override get message(): string {
    return `The ${this.what} "${this.path}" cannot be used: ${this.detail}`
  }
  get isRetryable(): boolean {
    return false
  }
  get delivery(): Delivery {
    return "notSent"
  }
}

/**
 * The virtual environment could not be made, or the dependencies could not be installed.
 *
 * @category errors
 * @since 0.1.0
 */
export class InstallFailed extends Schema.TaggedError<InstallFailed>(`${id}/InstallFailed`)("InstallFailed", {
  command: Schema.String,
  exitCode: Schema.NullOr(Schema.Int),
  /** The last lines that the command printed. */
  output: Schema.String,
  /** What to do about it, where that is known. */
  hint: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    return (
      `The Python environment could not be made: \`${this.command}\` ` +
      (this.exitCode === null ? "failed" : `exited with ${this.exitCode}`) +
      (this.hint === undefined ? "" : `\n${this.hint}`) +
      tail("Its last output", this.output)
    )
  }
  get isRetryable(): boolean {
    return true
  }
  get delivery(): Delivery {
    return "notSent"
  }
}

/**
 * A worker did not come up: an option is wrong, its module does not import or does not keep its contract, the call that
 * warms it up fails, it left or stayed silent before saying hello, it speaks another version of the protocol, or it could not be spawned. Or there is
 * no connection to a server.
 *
 * @category errors
 * @since 0.1.0
 */
export class StartFailed extends Schema.TaggedError<StartFailed>(`${id}/StartFailed`)("StartFailed", {
  /** Of a server: `"connect"`, there is no connection to one; `"token"`, the token is not the right one. */
  kind: Schema.Literals([
    "options",
    "import",
    "contract",
    "warmUp",
    "exit",
    "timeout",
    "protocol",
    "spawn",
    "connect",
    "token"
  ]),
  detail: Schema.String,
  /** What the module raised while it was imported, or one of its `on_start` functions. */
  exception: Schema.optionalKey(ExceptionInfo),
  exitCode: Schema.optionalKey(Schema.NullOr(Schema.Int)),
  signal: Schema.optionalKey(Schema.NullOr(Schema.String)),
  /** The last lines of the worker's stderr. */
  stderr: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    return (
      this.detail +
      (this.exception === undefined ? "" : `\n${renderTraceback(this.exception)}`) +
      (this.exception?.type === "ModuleNotFoundError"
        ? "\nSynapse installs what requirements.txt or pyproject.toml lists; into an environment of your own, install it yourself"
        : "") +
      tail("Its last output on stderr", this.stderr ?? "")
    )
  }
  get isRetryable(): boolean {
    return false
  }
  get delivery(): Delivery {
    return "notSent"
  }
}

/**
 * A handler raised an exception that it did not declare.
 *
 * @category errors
 * @since 0.1.0
 */
export class PythonException extends Schema.TaggedError<PythonException>(`${id}/PythonException`)("PythonException", {
  method: Schema.String,
  exception: ExceptionInfo
}) {
  override get message(): string {
    const last = this.exception.frames.at(-1)
    return (
      `\`${this.method}\` raised ${Traceback.summarize(this.exception)}` +
      (last === undefined ? "" : ` (${last.file}:${last.line})`) +
      (this.exception.notes ?? []).map((note) => `\n${note}`).join("")
    )
  }
  /** The qualified name of the exception's class. */
  get type(): string {
    return this.exception.type
  }
  /** The traceback as Python would print it. */
  get traceback(): string {
    return renderTraceback(this.exception)
  }
  get isRetryable(): boolean {
    return false
  }
  get delivery(): Delivery {
    return "unknown"
  }
}

const textOf = (value: unknown, key: string): string => {
  const text = Predicate.hasProperty(value, key) ? value[key] : undefined
  return typeof text === "string" ? text : ""
}

/**
 * A handler raised a declared `synapse.Error`.
 *
 * @category errors
 * @since 0.1.0
 */
export class HandlerFailed extends Schema.TaggedError<HandlerFailed>(`${id}/HandlerFailed`)("HandlerFailed", {
  method: Schema.String,
  /** The error's encoded value: an object with `_tag`, `message` and the declared fields; of a script, what its reply says. */
  error: Schema.Unknown
}) {
  /** The name of the declared error's class in Python. */
  get errorTag(): string {
    return textOf(this.error, "_tag") || "Error"
  }
  override get message(): string {
    const text = typeof this.error === "string" ? this.error : textOf(this.error, "message")
    return `\`${this.method}\` failed with ${this.errorTag}${text === "" ? "" : `: ${text}`}`
  }
  get isRetryable(): boolean {
    return false
  }
  get delivery(): Delivery {
    return "unknown"
  }
}

/**
 * The module has no handler of that name, or an object no method or attribute.
 *
 * @category errors
 * @since 0.1.0
 */
export class MethodNotFound extends Schema.TaggedError<MethodNotFound>(`${id}/MethodNotFound`)("MethodNotFound", {
  method: Schema.String,
  /** The names that come closest. */
  nearest: Schema.Array(Schema.String),
  /** The class of the object whose method or attribute it was to be, where it was not a handler. */
  type: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    const names = this.nearest.map((name) => `\`${name}\``).join(", ")
    const none = this.type === undefined ? " It declares none: decorate a function with @synapse.handler." : ""
    return (
      (this.type === undefined
        ? `The module has no handler \`${this.method}\`.`
        : `\`${this.type}\` has no method or attribute \`${this.method}\`.`) +
      (names === "" ? none : ` It has ${names}${this.nearest.length < 5 ? "." : ", ..."}`)
    )
  }
  get isRetryable(): boolean {
    return false
  }
  get delivery(): Delivery {
    return "rejected"
  }
}

const codecFields = {
  /** Which side refused the value. */
  side: Side,
  method: Schema.String,
  /** Where in the value, as `$`, `$.items[3].name`. */
  path: Schema.String,
  issue: Schema.String
}

/**
 * A value cannot be carried: the input does not fit its `payload` schema or has no MessagePack form (`typescript`), or
 * the handler returned something that has none (`python`).
 *
 * @category errors
 * @since 0.1.0
 */
export class EncodeFailed extends Schema.TaggedError<EncodeFailed>(`${id}/EncodeFailed`)("EncodeFailed", {
  ...codecFields,
  delivery: Delivery
}) {
  override get message(): string {
    const what = this.side === "typescript" ? "The input of" : "The value returned by"
    return `${what} \`${this.method}\` cannot be carried (at ${this.path}): ${this.issue}`
  }
  get isRetryable(): boolean {
    return false
  }
}

/**
 * A value does not fit: the reply or progress does not match the schema (`typescript`), or the arguments do not match the
 * handler's parameters (`python`). The handler was not entered then, unless it is an item of an input stream.
 *
 * @category errors
 * @since 0.1.0
 */
export class DecodeFailed extends Schema.TaggedError<DecodeFailed>(`${id}/DecodeFailed`)("DecodeFailed", {
  ...codecFields,
  /** What does not fit: the reply, or an item of the stream; a declared error; what was reported as progress; the arguments. */
  what: Schema.Literals(["reply", "error", "progress", "arguments"]),
  delivery: Delivery
}) {
  override get message(): string {
    const fits = this.what === "arguments" ? "do not fit its parameters" : "does not fit its schema"
    return `The ${this.what} of \`${this.method}\` ${fits}: ${this.issue} (at ${this.path})`
  }
  get isRetryable(): boolean {
    return false
  }
}

/**
 * A time-out of a call passed.
 *
 * @category errors
 * @since 0.1.0
 */
export class CallTimeout extends Schema.TaggedError<CallTimeout>(`${id}/CallTimeout`)("CallTimeout", {
  method: Schema.String,
  /** Which option set the time-out that passed. */
  option: Schema.Literals(["timeout", "queueTimeout", "totalTimeout", "maxTimeout"]),
  /** That time-out, in milliseconds. */
  durationMillis: Schema.Number,
  /** Whether the call had been sent: Python may still be working on it, and was told to stop, or its worker is gone. */
  running: Schema.Boolean
}) {
  override get message(): string {
    return (
      `\`${this.method}\` was not done within the ${this.durationMillis} ms of ${this.option}; ` +
      (this.running ? "Python was told to stop it" : "it was still waiting for a worker and was never sent")
    )
  }
  get isRetryable(): boolean {
    return true
  }
  get delivery(): Delivery {
    return this.running ? "unknown" : "notSent"
  }
}

/**
 * What ended a worker's process.
 *
 * @category models
 * @since 0.1.0
 */
export const ExitKind = Schema.Literals([
  /** It left by itself, with an exit code. */
  "exit",
  /** It was killed because memory ran out. */
  "outOfMemory",
  /** It touched memory that is not its own. */
  "segfault",
  /** Another fatal signal from within: abort, bus error, floating point, illegal instruction. */
  "crash",
  /** A limit on CPU time or file size. */
  "resourceLimit",
  /** A signal from outside. */
  "killed",
  /** The process is alive, its channel is not. */
  "channelClosed",
  /** The connection to a server was lost; of the process there nothing is known. */
  "disconnected"
])

/**
 * The type of the schema {@link ExitKind}.
 *
 * @category models
 * @since 0.1.0
 */
export type ExitKind = typeof ExitKind.Type

/**
 * The worker's process ended while the call was open.
 *
 * @category errors
 * @since 0.1.0
 */
export class WorkerExited extends Schema.TaggedError<WorkerExited>(`${id}/WorkerExited`)("WorkerExited", {
  kind: ExitKind,
  pid: Schema.Int,
  exitCode: Schema.NullOr(Schema.Int),
  signal: Schema.NullOr(Schema.String),
  /** The Python frames of every thread at the moment of a fatal signal, where there was one. */
  crashDump: Schema.String,
  /** The last lines of the worker's stderr. */
  stderr: Schema.String,
  /** The option among `limits` that it went over, with its value, such as `"limits.memoryMiB (512 MiB)"`. */
  limit: Schema.optionalKey(Schema.String),
  /** Where the server was that the connection led to, such as `"127.0.0.1:9999"`. Its `pid` is 0 then. */
  address: Schema.optionalKey(Schema.String),
  delivery: Delivery
}) {
  override get message(): string {
    return `${this.summary}${tail("Crash dump", this.crashDump)}${tail("Its last output on stderr", this.stderr)}`
  }
  /** One line: the process, how it ended, and the likely cause. */
  get summary(): string {
    const how = this.signal !== null ? `was ended by ${this.signal}` : `exited with code ${this.exitCode}`
    switch (this.kind) {
      case "outOfMemory":
        return this.limit === undefined
          ? `The Python worker ${this.pid} ran out of memory and was killed: use fewer workers, or allow more memory`
          : `The Python worker ${this.pid} used more memory than ${this.limit} and was killed`
      case "segfault":
        return `The Python worker ${this.pid} crashed with a segmentation fault`
      case "resourceLimit":
        return `The Python worker ${this.pid} reached ${this.limit ?? "a resource limit"} and ${how}`
      case "channelClosed":
        return `The Python worker ${this.pid} closed its channel (descriptor 3) and was stopped`
      case "disconnected":
        return `The connection to the server ${this.address ?? ""} was lost`
      default:
        return `The Python worker ${this.pid} ${how}`
    }
  }
  get isRetryable(): boolean {
    return true
  }
}

const activities = {
  stopped: "a signal has stopped it",
  busy: "it is busy on the processor",
  blocked: "it waits for something"
}

/**
 * The worker was ended because it gave no sign of life, or because a handler that may not go on did so after its call was
 * given up.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unresponsive extends Schema.TaggedError<Unresponsive>(`${id}/Unresponsive`)("Unresponsive", {
  pid: Schema.Int,
  /** What the process was doing: stopped by a signal, using the CPU, or waiting. */
  state: Schema.Literals(["stopped", "busy", "blocked"]),
  silentMillis: Schema.Finite,
  delivery: Delivery
}) {
  override get message(): string {
    return `The Python worker ${this.pid} was ended: it has not answered for ${this.silentMillis} ms (${activities[this.state]})`
  }
  get isRetryable(): boolean {
    return true
  }
}

/**
 * There is no room for the call.
 *
 * @category errors
 * @since 0.1.0
 */
export class Overloaded extends Schema.TaggedError<Overloaded>(`${id}/Overloaded`)("Overloaded", {
  /** What is full: the queue of waiting calls here, or the worker's table of open calls. */
  where: Schema.Literals(["queue", "worker"]),
  capacity: Schema.Int
}) {
  override get message(): string {
    return this.where === "queue"
      ? `${this.capacity} calls are waiting already: call less often, add workers, or set queue.whenFull to "wait"`
      : `The worker has ${this.capacity} open calls already`
  }
  get isRetryable(): boolean {
    return true
  }
  get delivery(): Delivery {
    return this.where === "queue" ? "notSent" : "rejected"
  }
}

/**
 * A message is larger than `maxFrameSize`. It was not sent; only its own call fails.
 *
 * @category errors
 * @since 0.1.0
 */
export class FrameTooLarge extends Schema.TaggedError<FrameTooLarge>(`${id}/FrameTooLarge`)("FrameTooLarge", {
  /** The side whose message was too large. */
  side: Side,
  method: Schema.String,
  /** Bytes. */
  size: Schema.Int,
  /** Bytes. */
  limit: Schema.Int
}) {
  override get message(): string {
    const what = this.side === "typescript" ? "The input of" : "The value returned by"
    return (
      `${what} \`${this.method}\` takes ${this.size} bytes, more than the ${this.limit} of maxFrameSize: ` +
      `send it in parts, or raise maxFrameSize. Byte strings and arrays travel beside messages while shared memory has room for ` +
      `them: see sharedMemory.capacityMiB, and the size of /dev/shm`
    )
  }
  get isRetryable(): boolean {
    return false
  }
  get delivery(): Delivery {
    return this.side === "typescript" ? "notSent" : "unknown"
  }
}

/**
 * The two sides do not fit: a stream is asked of a handler that returns one value, or one value of a generator; an object
 * was released; code is to be run where that is not allowed.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unsupported extends Schema.TaggedError<Unsupported>(`${id}/Unsupported`)("Unsupported", {
  method: Schema.String,
  /** What does not fit, and what to do instead. */
  detail: Schema.String,
  delivery: Delivery
}) {
  override get message(): string {
    return this.method === "allocate"
      ? `No array was allocated: ${this.detail}`
      : `\`${this.method}\` cannot be called like this: ${this.detail}`
  }
  get isRetryable(): boolean {
    return false
  }
}

/**
 * The peer broke the protocol; the connection was given up.
 *
 * @category errors
 * @since 0.1.0
 */
export class ProtocolError extends Schema.TaggedError<ProtocolError>(`${id}/ProtocolError`)("ProtocolError", {
  /** What was wrong and where in the stream of frames. */
  detail: Schema.String,
  delivery: Delivery
}) {
  override get message(): string {
    return `The worker broke the protocol: ${this.detail}`
  }
  get isRetryable(): boolean {
    return true
  }
}

/** Exits in a row that are the same, such as those of a module that does not import, are said once. */
const counted = (exits: ReadonlyArray<string>): ReadonlyArray<string> => {
  const lines: Array<string> = []
  for (let from = 0, to = 0; from < exits.length; from = to) {
    const exit = exits[from] ?? ""
    while (exits[to] === exit) to++
    lines.push(to - from === 1 ? exit : `${to - from} times: ${exit}`)
  }
  return lines
}

/**
 * Workers kept ending: the restart budget is used up and the runtime takes no more calls.
 *
 * @category errors
 * @since 0.1.0
 */
export class RestartLimit extends Schema.TaggedError<RestartLimit>(`${id}/RestartLimit`)("RestartLimit", {
  max: Schema.Int,
  windowMillis: Schema.Number,
  /** The messages of the last exits, oldest first. */
  exits: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return (
      `Python workers ended too often: more than restart.max (${this.max}) allows within ${this.windowMillis / 1000} s. ` +
      `No other is started, and calls fail. Mend what ends them; then run Synapse.reload (with the option \`watch\`, a saved ` +
      `file does) or build the layer again` +
      tail("The last exits", counted(this.exits).join("\n"))
    )
  }
  get isRetryable(): boolean {
    return false
  }
  get delivery(): Delivery {
    return "notSent"
  }
}

/**
 * The runtime was used after its scope closed, or was shut down while the call was waiting or running.
 *
 * @category errors
 * @since 0.1.0
 */
export class Closed extends Schema.TaggedError<Closed>(`${id}/Closed`)("Closed", {
  delivery: Delivery
}) {
  override get message(): string {
    switch (this.delivery) {
      case "notSent":
        return "The Synapse runtime is closed: make calls inside the scope of its layer"
      case "rejected":
        return "The Python worker was leaving and did not start the call: it was replaced, or the Synapse runtime was closed"
      default:
        return "The Synapse runtime was closed while the call was running"
    }
  }
  get isRetryable(): boolean {
    return false
  }
}

/**
 * Every reason of a {@link SynapseError}.
 *
 * @category errors
 * @since 0.1.0
 */
export const SynapseErrorReason = Schema.Union([
  PythonNotFound,
  ModuleNotFound,
  InstallFailed,
  StartFailed,
  PythonException,
  HandlerFailed,
  MethodNotFound,
  EncodeFailed,
  DecodeFailed,
  CallTimeout,
  WorkerExited,
  Unresponsive,
  Overloaded,
  FrameTooLarge,
  Unsupported,
  ProtocolError,
  RestartLimit,
  Closed
])

/**
 * The type of the schema {@link SynapseErrorReason}.
 *
 * @category errors
 * @since 0.1.0
 */
export type SynapseErrorReason = typeof SynapseErrorReason.Type

/**
 * The error of every operation of Synapse. Look at `reason` for what happened.
 *
 * **Example** (Handling one reason)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Synapse } from "effect-synapse"
 *
 * const program = Synapse.call(Schema.Number, { x: 1 }).pipe(
 *   Effect.catchReason("SynapseError", "PythonException", (reason) => Effect.succeed(reason.traceback.length))
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class SynapseError extends Schema.TaggedError<SynapseError>(id)("SynapseError", {
  reason: SynapseErrorReason
}) {
  override get message(): string {
    return `${this.reason._tag}: ${this.reason.message}`
  }
  /** The exception of Python, where there is one: its stack is Python's traceback. */
  override get cause(): unknown {
    return this.reason._tag === "PythonException" ? pythonError(this.reason) : undefined
  }
  /** Whether the same call can succeed when it is tried again. */
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }
  /** How far the call got. */
  get delivery(): Delivery {
    return this.reason.delivery
  }
}

const pythonError = ({ exception, traceback }: PythonException): Error => {
  const error = new Error(exception.message)
  error.name = exception.type
  // As stacks begin in JavaScript: who prints one may replace its first line.
  error.stack = `${exception.type}: ${exception.message}\n${traceback}`
  return error
}

/**
 * Returns `true` for a {@link SynapseError}.
 *
 * @category guards
 * @since 0.1.0
 */
export const isSynapseError = (u: unknown): u is SynapseError => u instanceof SynapseError
