/**
 * Measures a workload: every contender in a process of its own, all of them ready before the first round, and each round
 * through all rows in another order, so that what the machine does meanwhile hits all of them alike.
 */
import type { ContenderDefinition } from "../contenders.ts"
import type { Row, Workload } from "../workloads.ts"
import { Child, NotMeasured } from "./child.ts"
import type { Task } from "./contender.ts"
import type { Request, Sample } from "./protocol.ts"
import type { RowRounds } from "./results.ts"
import { shuffled } from "./statistics.ts"

/** A contender with why it cannot take part, if it cannot. */
export interface Entrant extends ContenderDefinition {
  readonly unavailable?: string | undefined
}

export interface DriverOptions {
  readonly entrants: ReadonlyMap<string, Entrant>
  readonly env: NodeJS.ProcessEnv
}

/** A row whose operation takes longer than this takes part in the first few rounds only. */
const slowMicros = 1_500_000
const roundsOfSlowRows = 3

interface Lane {
  readonly row: Row
  readonly entrant: Entrant
  readonly samples: Array<Sample | undefined>
  failure: string | undefined
  isSlow: boolean
}

export const measure = async (
  workload: Workload,
  { entrants, env }: DriverOptions
): Promise<ReadonlyArray<RowRounds>> => {
  const lanes = workload.rows.flatMap((row): ReadonlyArray<Lane> => {
    const entrant = entrants.get(row.contender)
    if (entrant === undefined) return []
    return [{ row, entrant, samples: [], failure: entrant.unavailable, isSlow: false }]
  })
  await (workload.fresh === true ? freshRounds(workload, lanes, env) : sharedRounds(workload, lanes, env))
  return lanes.map(({ entrant, failure, row, samples }) => ({
    id: row.id,
    label: row.variant === undefined ? entrant.label : `${entrant.label}, ${row.variant}`,
    samples,
    failure
  }))
}

const prepareRequest = ({ entrant, row }: Lane, loadOnly: boolean): Request => ({
  type: "prepare",
  module: new URL(`../${entrant.module}`, import.meta.url).href,
  settings: { ...entrant.settings, ...row.settings },
  loadOnly
})

const keyOf = ({ entrant, row }: Lane): string => JSON.stringify([entrant.name, row.settings])

const fail = (lane: Lane, error: unknown): void => {
  const message = error instanceof Error ? error.message : String(error)
  lane.failure = error instanceof NotMeasured ? message : `failed: ${message}`
}

const sharedRounds = async (workload: Workload, lanes: ReadonlyArray<Lane>, env: NodeJS.ProcessEnv): Promise<void> => {
  const children = new Map<string, Promise<Child>>()
  try {
    await Promise.all(
      lanes
        .filter((lane) => lane.failure === undefined)
        .map(async (lane) => {
          const ready = children.get(keyOf(lane)) ?? prepared(lane, env)
          children.set(keyOf(lane), ready)
          await ready.catch((error: unknown) => fail(lane, error))
        })
    )
    for (let round = -1; round < workload.rounds; round++) {
      for (const lane of shuffled(lanes)) {
        const skip = lane.failure !== undefined || (lane.isSlow && round >= roundsOfSlowRows)
        if (!skip) await oneRound(lane, await children.get(keyOf(lane))!, round, workload)
      }
    }
  } finally {
    await Promise.all(
      [...children.values()].map((child) =>
        child.then(
          (child) => child.stop(),
          () => {}
        )
      )
    )
  }
}

const prepared = async (lane: Lane, env: NodeJS.ProcessEnv): Promise<Child> => {
  const child = new Child(env)
  try {
    await child.ask(prepareRequest(lane, false))
    return child
  } catch (error) {
    await child.stop()
    throw error
  }
}

const longer = (task: Task, millis: number): Task =>
  task.name === "calls" ? { ...task, millis: Math.max(task.millis, millis) } : task

/** The round before the first warms up and does not count. */
const oneRound = async (lane: Lane, child: Child, round: number, { warmUpMillis }: Workload): Promise<void> => {
  try {
    const { task } = lane.row
    const sample = await child.ask({ type: "run", task: round < 0 ? longer(task, warmUpMillis) : task })
    if (round >= 0) lane.samples[round] = sample
    else lane.isSlow = sample !== undefined && sample.micros / sample.operations > slowMicros
  } catch (error) {
    fail(lane, error)
  }
}

const freshRounds = async (workload: Workload, lanes: ReadonlyArray<Lane>, env: NodeJS.ProcessEnv): Promise<void> => {
  for (let round = 0; round < workload.rounds; round++) {
    for (const lane of shuffled(lanes)) {
      if (lane.failure !== undefined) continue
      const child = new Child(env)
      try {
        await child.ask(prepareRequest(lane, lane.row.task.name === "start"))
        lane.samples[round] = await child.ask({ type: "run", task: lane.row.task })
      } catch (error) {
        fail(lane, error)
      } finally {
        await child.stop()
      }
    }
  }
}
