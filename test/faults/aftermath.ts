/**
 * The fault suite: what a row is, and what has to be so after every fault.
 *
 * While the runtime lives: the next call works and nothing is open on either side. Afterwards: no process is left, zombies
 * included, descriptors, timers and other resources of Node are as before, memory is given back, no promise was rejected
 * unnoticed, and no temporary file remains.
 *
 * `npm test` runs the quick rows, `npm run test:faults` all of them.
 */
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { isDeepStrictEqual } from "node:util"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, beforeAll, it } from "@effect/vitest"
import { Effect, Layer, Logger, Schedule, Schema, type Scope } from "effect"
import { Synapse } from "effect-synapse"
import type { SynapseError } from "../../src/SynapseError.ts"
import { pythonStats } from "../fixtures/dialogue.ts"
import * as processes from "./processes.ts"

/** A row may serve functions that call the runtime back. */
export type Options = Partial<Synapse.SynapseOptions<Synapse.Synapse>>

const all = process.env.SYNAPSE_FAULTS === "all"

/** What a row is given. */
export interface World {
  /** Options of a runtime whose processes are known to belong to this row. */
  readonly options: (options?: Options) => Options & Synapse.SynapseOptions<Synapse.Synapse>
  /** Runs an effect with a runtime of its own, then checks that the runtime is as good as new, and closes it. */
  readonly run: <A, E>(
    options: Options,
    effect: Effect.Effect<A, E, Synapse.Synapse | Scope.Scope>
  ) => Effect.Effect<A, E | SynapseError>
  /** A path for a file of the test. */
  readonly path: (name: string) => string
  /** Remembers the processes that there are now: none of them may be there in the end. */
  readonly see: () => ReadonlyArray<processes.Seen>
}

export interface RowOptions {
  /** Whether the row is part of `npm test`. */
  readonly quick?: boolean
  /** Why it cannot run here, if it cannot. */
  readonly unless?: string | false
  readonly timeoutMillis?: number
  /**
   * How much more memory Node may have taken afterwards: more than 20 MiB only where a row allocates much at once. Where it is
   * more, the row runs again: what Node keeps for later it takes once, and what leaks is taken by every run.
   */
  readonly memoryMiB?: number
}

/** How long things may take to be as before: a bound for what never is, not for how fast a machine is. */
const settleMillis = 60_000

/** How long Node may take to give memory back to the system before the row runs again. */
const giveBackMillis = 3000

/** How often a row runs, at most, until Node has not taken more memory. */
const maxRuns = 4

/** Objects of tests and their runner, and code that was compiled meanwhile. */
const maxHeldMiB = 8

export const call = (method: string, input: unknown = {}, options: Synapse.CallOptions = {}) =>
  Synapse.call(Schema.Unknown, input, { ...options, method })

export const pid = Synapse.call(Schema.Int, {}, { method: "pid" })

/** That the next call works, and that nothing is open on either side. */
const working = Effect.gen(function* () {
  assert.strictEqual(yield* call("echo", "still there"), "still there")
  const open = Effect.map(Effect.all([pythonStats, Synapse.stats]), ([{ tasks, ...python }, host]) => ({
    // The call that asks is one itself.
    python: { ...python, calls: python.calls - 1 },
    host
  }))
  const nothing = {
    python: { calls: 0, streams: 0, host_calls: 0, handles: 0 },
    host: { calls: 0, streams: 0, hostCalls: 0, handles: 0 }
  }
  const until = performance.now() + settleMillis
  const isQuiet = (now: typeof nothing) => isDeepStrictEqual(now, nothing) || performance.now() > until
  assert.deepStrictEqual(yield* Effect.repeat(open, { schedule: Schedule.spaced(5), until: isQuiet }), nothing)
})

setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

interface Holdings {
  readonly descriptors: ReadonlyArray<string>
  readonly resources: ReadonlyArray<string>
}

const holdings = (): Holdings => ({
  descriptors: readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`).replace(/\d+/g, "")]
    } catch {
      return []
    }
  }),
  resources: process.getActiveResourcesInfo()
})

const namesOfMemory = () => readdirSync("/dev/shm").filter((name) => name.startsWith("synapse"))

/** What there is now and was not before. */
const surplus = (now: ReadonlyArray<string>, before: ReadonlyArray<string>): ReadonlyArray<string> => {
  const known = [...before]
  return now.filter((item) => {
    const at = known.indexOf(item)
    if (at >= 0) known.splice(at, 1)
    return at < 0
  })
}

/** What objects and buffers take, and what the process has taken, which keeps some of what was freed for later. */
export const memory = () => {
  collectGarbage()
  return memoryNow()
}

const memoryNow = () => {
  const { arrayBuffers, external, heapUsed, rss } = process.memoryUsage()
  return {
    buffersMiB: arrayBuffers / 2 ** 20,
    heldMiB: (heapUsed + external + arrayBuffers) / 2 ** 20,
    residentMiB: rss / 2 ** 20
  }
}

const tick = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

/** Waits until a list is empty, and tells what is still in it after a long time. */
export const becomesEmpty = async (
  what: string,
  list: () => ReadonlyArray<string>,
  millis = settleMillis
): Promise<void> => {
  const until = performance.now() + millis
  while (list().length > 0 && performance.now() < until) await tick(10)
  assert.deepStrictEqual(list(), [], what)
}

const pythonDirectory = fileURLToPath(new URL("./python", import.meta.url))

// Everything is loaded and compiled once before anything is measured.
beforeAll(async () => {
  const layer = Synapse.layer({ directory: pythonDirectory, logs: "ignore" })
  for (let n = 0; n < 2; n++) await Effect.runPromise(Effect.provide(call("echo", "warm"), layer))
})

/** One row of the catalogue. */
export const row = (
  name: string,
  { memoryMiB = 20, quick = false, timeoutMillis = 240_000, unless = false }: RowOptions,
  body: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>
): void => {
  const reason = quick || all ? unless : "by npm run test:faults"
  const register = reason === false ? it.live : it.live.skip
  register(
    reason === false ? name : `${name} (${reason})`,
    () =>
      Effect.gen(function* () {
        for (let runs = 1; ; runs++) {
          let takenMiB = 0
          const onTaken = (mebibytes: number): void => {
            takenMiB = mebibytes
          }
          yield* Effect.scoped(Effect.flatMap(enter(memoryMiB, onTaken), body))
          if (takenMiB <= memoryMiB) return
          assert.isBelow(runs, maxRuns, `MiB that Node has taken with every run, the last time ${takenMiB}`)
        }
      }).pipe(Effect.provide(Logger.layer([]))),
    timeoutMillis
  )
}

// Its finalizer, which runs when the row's own things are gone, checks what is left.
const enter = (memoryMiB: number, onTaken: (mebibytes: number) => void): Effect.Effect<World, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const files = mkdtempSync(join(tmpdir(), "synapse-faults-"))
        const temporary = join(files, "tmp")
        mkdirSync(temporary)
        const mark = `SYNAPSE_FAULT=${files}/`
        const { TMPDIR } = process.env
        process.env.TMPDIR = temporary
        const rejections: Array<string> = []
        const onRejection = (reason: unknown): void => void rejections.push(String(reason))
        process.on("unhandledRejection", onRejection)
        const seen = new Map<number, processes.Seen>()
        return {
          files,
          temporary,
          mark,
          rejections,
          seen,
          held: holdings(),
          ours: processes.ofTest(mark),
          memory: memory(),
          restore: () => {
            if (TMPDIR === undefined) delete process.env.TMPDIR
            else process.env.TMPDIR = TMPDIR
            process.off("unhandledRejection", onRejection)
            for (const process_ of seen.values()) if (processes.exists(process_)) kill(process_.pid)
            rmSync(files, { recursive: true, force: true })
          }
        }
      }),
      (before) =>
        Effect.promise(async () => {
          const left = () => [
            ...new Set(
              [...processes.ofTest(before.mark), ...before.seen.values()]
                .filter(
                  (process_) => !before.ours.some(({ pid }) => pid === process_.pid) && processes.exists(process_)
                )
                .map(processes.describe)
            )
          ]
          await becomesEmpty("processes that are left", left)
          await becomesEmpty("descriptors that are left", () =>
            surplus(holdings().descriptors, before.held.descriptors)
          )
          await becomesEmpty("resources of Node that are left", () =>
            surplus(holdings().resources, before.held.resources)
          )
          assert.deepStrictEqual(before.rejections, [], "promises that were rejected unnoticed")
          assert.deepStrictEqual(readdirSync(before.temporary), [], "temporary files that are left")
          assert.deepStrictEqual(namesOfMemory(), [], "files of memory that are left")
          onTaken(await givesBack(before.memory, memoryMiB))
        }).pipe(Effect.ensuring(Effect.sync(before.restore)))
    ),
    ({ files, mark, ours, seen }): World => {
      const see = () => {
        const now = processes.ofTest(mark).filter(({ pid }) => !ours.some((known) => known.pid === pid))
        for (const process_ of now) seen.set(process_.pid, process_)
        return now
      }
      const options: World["options"] = (overrides) => ({
        directory: pythonDirectory,
        logs: "ignore",
        ...overrides,
        env: { ...overrides?.env, SYNAPSE_FAULT: `${files}/` }
      })
      return {
        see,
        options,
        path: (name) => `${files}/${name}`,
        run: (overrides, effect) =>
          Effect.scoped(effect).pipe(
            Effect.tap(() => working),
            Effect.ensuring(Effect.sync(see)),
            Effect.provide(Layer.tap(Synapse.layer(options(overrides)), () => Effect.sync(see)))
          ) as never
      }
    }
  )

const kill = (pid: number): void => {
  try {
    process.kill(pid, "SIGKILL")
  } catch {}
}

/** Checks that what objects and buffers take is given back, and tells how much more the process has taken. */
const givesBack = async (before: ReturnType<typeof memory>, moreMiB: number): Promise<number> => {
  const isHeld = ({ heldMiB }: typeof before): boolean => heldMiB > before.heldMiB + maxHeldMiB
  const takenOf = ({ residentMiB }: typeof before): number => residentMiB - before.residentMiB
  const begun = performance.now()
  // Mostly it is without being collected, which takes longer than many a row.
  for (let now = memoryNow(); ; now = memory()) {
    const millis = performance.now() - begun
    if (!isHeld(now) && (takenOf(now) <= moreMiB || millis > giveBackMillis)) return takenOf(now)
    assert(millis < settleMillis, `MiB that are held: ${now.heldMiB}, and before ${before.heldMiB}`)
    await tick(100)
  }
}
