/** What can go wrong, or be done, while calls run: to a worker from outside and from inside, and to the runtime by its program. */
import { Effect, Schema } from "effect"
import * as Synapse from "../../src/Synapse.ts"
import type { SynapseError } from "../../src/SynapseError.ts"
import type { Random } from "../fuzz/random.ts"
import type { Ledger } from "./ledger.ts"
import { type Draft, failing, type Operation } from "./operations.ts"

/** What a fault works on. */
export interface World {
  readonly random: Random
  readonly ledger: Ledger
  /** How many workers there are meant to be. */
  readonly workers: number
  readonly runtime: Synapse.Runtime
  /** Every process of the current runtime, those included that have not said hello. */
  readonly processes: () => ReadonlyArray<number>
  /** Makes a call in the background that is in the ledger as any other. */
  readonly make: (name: string, make: (draft: Draft) => Operation) => Effect.Effect<void>
  /** How many calls that end their worker have been made and not ended. */
  readonly pending: () => number
  /** Closes the runtime while calls run on it, and makes another one: before or after. */
  readonly remake: (before: boolean) => Effect.Effect<void>
}

/** Whether there was somebody to do it to. */
type Fault = (world: World) => Effect.Effect<boolean>

const pickPid = ({ random, runtime }: World): Effect.Effect<number | undefined> =>
  Effect.map(runtime.status, ({ workers }) => {
    const at = random.next()
    const pids = workers.flatMap(({ pid, state }) => (pid !== undefined && state !== "starting" ? [pid] : []))
    return pids[Math.floor(at * pids.length)]
  })

const kill = (world: World, pid: number | undefined, signal: NodeJS.Signals): boolean => {
  if (pid === undefined) return false
  world.ledger.doom(pid, signal)
  try {
    return process.kill(pid, signal)
  } catch {
    return false
  }
}

const signalled =
  (signal: NodeJS.Signals): Fault =>
  (world) =>
    Effect.map(pickPid(world), (pid) => kill(world, pid, signal))

/** Also one that is still starting, and one that a worker has started. */
const killedAny: Fault = (world) =>
  Effect.sync(() => {
    const at = world.random.next()
    const pids = world.processes()
    return kill(world, pids[Math.floor(at * pids.length)], "SIGKILL")
  })

const dies =
  (kind: string): Fault =>
  (world) =>
    Effect.suspend(() => {
      // Each waits for a worker and takes it along: with more of them than workers, nothing else would run.
      if (world.pending() >= world.workers) return Effect.succeed(false)
      const die = ({ ledger, token: next }: Draft): Operation => {
        const token = next()
        const call = Synapse.call(Schema.Unknown, { token, kind }, { method: "die" })
        return { token, run: Effect.as(ledger.track(token, call), `the worker lives on after ${kind}`) }
      }
      return Effect.as(world.make(`die: ${kind}`, die), true)
    })

const misbehaves =
  (kind: string): Fault =>
  (world) => {
    const misbehave = ({ ledger, token: next }: Draft): Operation => {
      const token = next()
      const call = Synapse.call(Schema.Int, { token, kind }, { method: "misbehave" })
      return {
        token,
        run: Effect.map(ledger.track(token, call), (found) => (found === token ? undefined : `${found}`))
      }
    }
    return Effect.as(world.make(`misbehave: ${kind}`, misbehave), true)
  }

/** A handler that cannot be stopped, given up. */
const replaced: Fault = (world) => {
  const timeouts = { timeout: world.random.below(50) }
  const wait = ({ ledger, token: next }: Draft): Operation => {
    const token = next()
    const call = Synapse.call(Schema.Unknown, { token }, { method: "wait_for_ever", ...timeouts })
    return { token, timeouts, run: Effect.as(ledger.track(token, call), "a value of a handler that never ends") }
  }
  return Effect.as(world.make("replaced handler", wait), true)
}

const storm: Fault = (world) => Effect.as(Effect.repeat(world.make("exception storm", failing), { times: 199 }), true)

/** Replacements fail where a new worker is killed. */
const startFails = (error: SynapseError): boolean =>
  error.reason._tag === "StartFailed" || error.reason._tag === "Closed"

const reload: Fault = ({ ledger, runtime }) =>
  Effect.as(
    Effect.catch(runtime.reload, (error) =>
      Effect.sync(() => {
        if (!startFails(error)) ledger.isWrong(`reload: ${error.message}`)
      })
    ),
    true
  )

const resize: Fault = ({ ledger, random, runtime, workers }) => {
  const max = 1 + random.below(workers + 2)
  const size = random.chance(0.5) ? max : { min: random.below(max + 1), max }
  return Effect.as(
    Effect.catch(runtime.resize(size), (error) => Effect.sync(() => ledger.isWrong(`resize: ${error.message}`))),
    true
  )
}

/** Names, how often each is drawn, and what it does. */
const table: ReadonlyArray<readonly [name: string, weight: number, fault: Fault]> = [
  ["SIGKILL", 3, signalled("SIGKILL")],
  ["SIGSEGV", 2, signalled("SIGSEGV")],
  ["SIGABRT", 2, signalled("SIGABRT")],
  ["SIGTERM", 3, signalled("SIGTERM")],
  ["SIGSTOP", 2, signalled("SIGSTOP")],
  ["SIGKILL of any process", 3, killedAny],
  ["exit", 1, dies("exit")],
  ["segfault", 1, dies("segfault")],
  ["segfault in a thread", 1, dies("segfault-in-thread")],
  ["abort", 1, dies("abort")],
  ["channel closed", 1, dies("close-channel")],
  ["garbage on the channel", 1, dies("garbage")],
  ["print on the channel", 1, dies("print-on-channel")],
  ["interpreter held, waiting", 1, dies("jam-sleep")],
  ["interpreter held, computing", 1, dies("jam-regex")],
  ["memory beyond the limit", 1, dies("hoard")],
  ["handler replaced", 2, replaced],
  ["sys.exit in a thread", 1, misbehaves("sys-exit-in-thread")],
  ["fork that outlives", 1, misbehaves("fork")],
  ["fork in a session of its own", 1, misbehaves("fork-own-session")],
  ["program that outlives", 1, misbehaves("program")],
  ["replace_me", 3, misbehaves("replace-me")],
  ["exception storm", 1, storm],
  ["reload", 3, reload],
  ["resize", 3, resize],
  ["runtime made again, then closed", 1, ({ remake }) => Effect.as(remake(true), true)],
  ["runtime closed, then made again", 1, ({ remake }) => Effect.as(remake(false), true)]
]

const drawn = table.flatMap(([name, weight, fault]) => Array.from({ length: weight }, () => ({ name, fault })))

/** What happens next. */
export const draw = (random: Random): { readonly name: string; readonly fault: Fault } => random.pick(drawn)
