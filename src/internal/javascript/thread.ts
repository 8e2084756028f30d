/**
 * A thread as a client sees it: it runs one command at a time, within limits, whatever becomes of the runtimes below it.
 *
 * @internal
 */
import { makeLeakGuard } from "./leakGuard.ts"
import type { Log } from "./log.ts"
import * as Runtime from "./runtime.ts"
import { type ExceptionInfo, ownException } from "./stack.ts"

/** @internal */
export interface ThreadOptions extends Runtime.ModuleOptions {
  readonly index: number
  /** Milliseconds without a command after which the runtime is given up; 0 for never. */
  readonly idle: number
  /** Commands after which the runtime is replaced; 0 for never. */
  readonly recycleAfter: number
  /** Milliseconds that a runtime may take to load the module. */
  readonly startTimeout: number
  readonly log: (record: Log) => void
}

/** @internal */
export interface Command {
  readonly id: number
  readonly source: string
  readonly param: string
  readonly format: "json" | "values"
  readonly limit: number
  readonly messageLimit: number
}

/**
 * How a command goes on: any number of messages, then one of the two ends.
 *
 * @internal
 */
export interface CommandEvents {
  readonly onMessage: (number: number, text: string) => void
  readonly onOk: (text: string) => void
  readonly onException: (info: ExceptionInfo) => void
}

/** @internal */
export interface Stats {
  readonly thread: number
  /** Whether it has a runtime; one that is idle may have none. */
  readonly running: boolean
  readonly commands: number
  /** Runtimes that were started in the place of another. */
  readonly replaced: number
  /** Nanoseconds that the last command took. */
  readonly lastRunNanos: number
  /** Bytes that JavaScript's values take. */
  readonly heapBytes: number
  /** Functions that are kept compiled. */
  readonly functions: number
}

/** @internal */
export interface Thread {
  /** Starts a runtime where there is none; the end is that of its start. */
  readonly start: (onReady: () => void, onFailed: (info: ExceptionInfo) => void) => void
  readonly run: (command: Command, events: CommandEvents) => void
  /** Gives the running command an answer. What nobody waits for is dropped. */
  readonly answer: (answer: Runtime.WorkerAnswer) => void
  /** Stops the running command. */
  readonly stop: (info: ExceptionInfo) => void
  /** From now on commands meet a runtime that has run none. */
  readonly reset: () => void
  readonly stats: (onStats: (stats: Stats) => void) => void
}

interface Seat {
  readonly runtime: Runtime.Runtime
  readonly isLeaking: ReturnType<typeof makeLeakGuard>
  ready: boolean
  commands: number
  starting: NodeJS.Timeout | undefined
}

interface Running {
  readonly command: Command
  readonly events: CommandEvents
  /** Milliseconds that are left to run. */
  left: number
  since: number
  timer: NodeJS.Timeout | undefined
  /** The message that is waited for. */
  asked: number | undefined
}

/** @internal */
export const makeThread = (options: ThreadOptions): Thread => {
  const { index, idle, recycleAfter, startTimeout } = options
  let seat: Seat | undefined
  /** Comes in the place of the one in the seat as soon as it is ready. */
  let spare: Seat | undefined
  let running: Running | undefined
  let idling: NodeJS.Timeout | undefined
  let onStarted: { readonly onReady: () => void; readonly onFailed: (info: ExceptionInfo) => void } | undefined
  let onStats: ((stats: Stats) => void) | undefined
  let lastRunNanos = 0
  let heapBytes = 0
  let functions = 0
  let commands = 0
  let replaced = 0

  const log = (level: Log["level"], source: string, message: string): void =>
    options.log({ level, source, message, thread: index })

  const makeSeat = (): Seat => {
    const made: Seat = {
      runtime: Runtime.start(options, {
        onMessage: (message) => onMessage(made, message),
        onExit: (info) => onExit(made, info),
        onOutput: (source, text) => log("info", source, text.replace(/\n$/, ""))
      }),
      isLeaking: makeLeakGuard(),
      ready: false,
      commands: 0,
      starting: setTimeout(() => {
        made.runtime.end()
        onExit(made, ownException("start", "Error", `the module did not load within ${startTimeout} ms`))
      }, startTimeout)
    }
    return made
  }

  const leave = (left: Seat): void => {
    clearTimeout(left.starting)
    left.runtime.end()
    // It answers no more: the last figures are told.
    if (left === seat) tell()
  }

  const replace = (): void => {
    replaced++
    if (seat !== undefined) leave(seat)
    seat = spare ?? makeSeat()
    spare = undefined
  }

  const end = (): Running | undefined => {
    const ended = running
    clearTimeout(ended?.timer)
    running = undefined
    if (ended !== undefined && idle > 0 && index > 0) idling = setTimeout(sleep, idle)
    return ended
  }

  const sleep = (): void => {
    const gone = [seat, spare]
    seat = spare = undefined
    for (const left of gone) if (left !== undefined) leave(left)
    tell()
    log("debug", "server", "the runtime was idle and is given up")
  }

  const stop = (info: ExceptionInfo): void => {
    const stopped = end()
    if (stopped === undefined) return
    replace()
    stopped.events.onException(info)
  }

  /** The limit counts while JavaScript runs: from when its runtime is ready, and not while the client has the word. */
  const resume = (current: Running): void => {
    current.asked = undefined
    clearTimeout(current.timer)
    current.since = performance.now()
    if (current.command.limit === 0) return
    // Where this thread was late itself, its end may have arrived already: that is dealt with first.
    current.timer = setTimeout(() => setImmediate(interrupt, current), current.left)
  }

  const interrupt = (current: Running): void => {
    if (running === current && current.asked === undefined) stop(ownException("limit", "InternalError", "interrupted"))
  }

  const ask = (current: Running, number: number, text: string): void => {
    clearTimeout(current.timer)
    current.left = Math.max(1, current.left - (performance.now() - current.since))
    current.asked = number
    const { id, messageLimit } = current.command
    if (messageLimit > 0) {
      current.timer = setTimeout(() => {
        answer({ id, number, text: "", failure: `no answer to a message within ${messageLimit} ms` })
      }, messageLimit)
    }
    current.events.onMessage(number, text)
  }

  const answer = (given: Runtime.WorkerAnswer): void => {
    if (running === undefined || running.asked === undefined) return
    if (given.id === running.command.id && given.number !== running.asked) return
    const mismatched = given.id !== running.command.id
    const failure = mismatched ? "Internal protocol error (no command id or mismatched command id)" : given.failure
    const { id } = running.command
    const number = running.asked
    resume(running)
    seat?.runtime.answer({ ...given, id, number, failure })
  }

  const recycle = (why: string): void => {
    if (spare !== undefined) return
    log("info", "server", `the runtime is replaced: ${why}`)
    spare = makeSeat()
  }

  /** At rest, a replacement that is ready takes the seat. */
  const settle = (): void => {
    if (running === undefined && spare?.ready === true) replace()
  }

  const onEnd = (from: Seat, id: number, nanos: number): Running | undefined => {
    if (running?.command.id !== id) return undefined
    lastRunNanos = nanos
    commands++
    from.commands++
    return end()
  }

  const onMessage = (from: Seat, message: Runtime.FromWorker): void => {
    switch (message.type) {
      case "log":
        return log(message.level, message.source, message.message)
      case "ready":
        clearTimeout(from.starting)
        from.ready = true
        if (from === spare) return settle()
        if (running !== undefined) resume(running)
        onStarted?.onReady()
        onStarted = undefined
        return
      case "failed":
        from.runtime.end()
        return onExit(from, message.info)
      case "message":
        if (running?.command.id === message.id) ask(running, message.number, message.text)
        return
      case "ok":
        onEnd(from, message.id, message.nanos)?.events.onOk(message.text)
        if (recycleAfter > 0 && from === seat && from.commands >= recycleAfter) {
          recycle(`it has run ${from.commands} commands`)
        }
        return settle()
      case "exception":
        onEnd(from, message.id, message.nanos)?.events.onException(message.info)
        return settle()
      case "sample":
      case "stats":
        if (from !== seat) return
        heapBytes = message.heap
        functions = message.functions
        if (message.type === "stats") return tell()
        if (from.isLeaking(message)) recycle("its memory keeps rising")
        return
    }
  }

  const onExit = (from: Seat, info: ExceptionInfo): void => {
    clearTimeout(from.starting)
    if (from === spare) {
      spare = undefined
      return log("error", "server", `a replacement did not start: ${info.pretty}`)
    }
    if (from !== seat) return
    seat = undefined
    log("error", "server", info.pretty)
    onStarted?.onFailed(info)
    onStarted = undefined
    tell()
    const ended = end()
    // One that cannot start is tried again when there is something to run.
    if (from.ready) replace()
    ended?.events.onException(info)
  }

  const tell = (): void => {
    const told = onStats
    onStats = undefined
    told?.({ thread: index, running: seat !== undefined, commands, replaced, lastRunNanos, heapBytes, functions })
  }

  return {
    start: (onReady, onFailed) => {
      onStarted = { onReady, onFailed }
      seat = makeSeat()
    },
    run: (command, events) => {
      clearTimeout(idling)
      running = { command, events, left: command.limit, since: 0, timer: undefined, asked: undefined }
      seat ??= makeSeat()
      if (seat.ready) resume(running)
      const { id, source, param, format } = command
      seat.runtime.send({ type: "run", id, source, param, format })
    },
    answer,
    stop,
    reset: () => {
      if (seat === undefined) return
      if (spare !== undefined) leave(spare)
      spare = undefined
      replace()
    },
    stats: (told) => {
      onStats = told
      if (seat?.ready === true && running === undefined) seat.runtime.send({ type: "stats" })
      else tell()
    }
  }
}
