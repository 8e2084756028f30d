/**
 * The process of one contender: it waits for the driver to say what to do, and does nothing in between. It ends with
 * the driver, and what it started ends with it.
 */
import { type Contender, type MakeContender, type Outcome, type Task, Unsupported } from "./contender.ts"
import { cpuMicrosBelow } from "./processes.ts"
import type { Prepare, Request, Response, Sample } from "./protocol.ts"
import { quantile } from "./statistics.ts"

let make: (() => Promise<Contender>) | undefined
let contender: Contender | undefined

const prepare = async ({ loadOnly, module, settings }: Prepare): Promise<void> => {
  const loaded = (await import(module)) as { readonly make: MakeContender }
  make = () => loaded.make(settings)
  if (!loadOnly) contender = await make()
}

/** Starting includes the first call. */
const start = async (): Promise<Sample> => {
  const cpu = process.cpuUsage()
  const begin = performance.now()
  contender = await make!()
  await contender.run({ name: "start" })
  const micros = (performance.now() - begin) * 1000
  const { system, user } = process.cpuUsage(cpu)
  return { operations: 1, micros, nodeCpuMicros: user + system, pythonCpuMicros: cpuMicrosBelow(process.pid) }
}

const verified = new Set<string>()

const verifyOnce = async (task: Task): Promise<void> => {
  const key = JSON.stringify(task.name === "calls" ? { ...task, millis: undefined } : task)
  if (verified.has(key)) return
  await contender!.verify(task)
  verified.add(key)
}

const run = async (task: Task): Promise<Sample> => {
  if (task.name === "start") return start()
  await verifyOnce(task)
  const below = cpuMicrosBelow(process.pid)
  const cpu = process.cpuUsage()
  const outcome = await contender!.run(task)
  const { system, user } = process.cpuUsage(cpu)
  return {
    ...summarise(outcome),
    nodeCpuMicros: user + system,
    pythonCpuMicros: Math.max(0, cpuMicrosBelow(process.pid) - below)
  }
}

const summarise = ({ latencies, micros, operations, values }: Outcome) => ({
  operations,
  micros,
  values,
  ...(latencies === undefined ? {} : { p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) })
})

const answer = async (request: Request): Promise<Response> => {
  switch (request.type) {
    case "prepare":
      await prepare(request)
      return { type: "done" }
    case "run":
      return { type: "done", sample: await run(request.task) }
    case "stop":
      await contender?.stop()
      return { type: "done" }
  }
}

const failure = (error: unknown): Response => ({
  type: "failed",
  message: error instanceof Error ? error.message : String(error),
  unsupported: error instanceof Unsupported
})

process.on("message", (request: Request) => {
  void answer(request)
    .catch(failure)
    .then((response) => {
      const sent = request.type === "stop" ? () => process.exit(0) : undefined
      process.send?.(response, undefined, undefined, sent)
    })
})

// The driver decides what an interrupt means; when it is gone, so is this.
process.on("SIGINT", () => {})
process.on("disconnect", () => {
  const end = (): never => process.exit(1)
  setTimeout(end, 2000).unref()
  void Promise.resolve(contender?.stop()).then(end, end)
})
