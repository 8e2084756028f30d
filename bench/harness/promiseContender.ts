/** A contender from functions that return promises, which is what every peer offers. */
import { type Calls, type Contender, type Outcome, type Task, Unsupported } from "./contender.ts"
import { type Values, valuesOf } from "./payloads.ts"

export interface Echoes {
  /** Gives back what JSON carries. */
  readonly value?: ((value: unknown) => Promise<unknown>) | undefined
  readonly bytes?: ((data: Uint8Array) => Promise<Uint8Array>) | undefined
  readonly array?: ((data: Float64Array) => Promise<Float64Array>) | undefined
  /** Why what is missing above is missing. */
  readonly because?: string | undefined
}

type Echo = (value: unknown) => Promise<unknown>

const echoFor = (echoes: Echoes, { handler = "sync", payload }: Calls): Echo => {
  const kind = payload.kind === "bytes" || payload.kind === "array" ? payload.kind : "value"
  const echo = handler === "sync" ? echoes[kind] : undefined
  if (echo === undefined) throw new Unsupported(echoes.because ?? "has no such call")
  return echo as Echo
}

export const makeContender = (echoes: Echoes, stop: () => Promise<void> | void): Contender => ({
  verify: async (task) => {
    if (task.name === "start") return
    const { call, values } = open(echoes, task)
    if (!values.isSame(await call(0), 0)) throw new Error("the reply is not what was sent")
  },
  run: async (task) => {
    if (task.name === "start") return once(echoes)
    const calls = open(echoes, task)
    return calls.task.inFlight === 1 ? oneAtATime(calls) : manyAtOnce(calls)
  },
  stop: async () => stop()
})

export interface OpenCalls {
  readonly task: Calls
  readonly values: Values
  readonly call: (n: number) => Promise<unknown>
}

const open = (echoes: Echoes, task: Task): OpenCalls => {
  if (task.name !== "calls") throw new Unsupported("not measured")
  const echo = echoFor(echoes, task)
  const values = valuesOf(task.payload)
  return { task, values, call: (n) => echo(values.input(n)) }
}

const once = async (echoes: Echoes): Promise<Outcome> => {
  await manyAtOnce(open(echoes, { name: "calls", payload: { kind: "small" }, inFlight: 1, millis: 0 }))
  return { operations: 1, micros: 0 }
}

export const wrongReply = (n: number): Error => new Error(`the reply of call ${n} is not what was sent`)

export const oneAtATime = async ({ call, task, values }: OpenCalls): Promise<Outcome> => {
  const latencies: Array<number> = []
  const deadline = performance.now() + task.millis
  let micros = 0
  for (let n = 1, now = 0; n === 1 || now < deadline; n++) {
    const begin = performance.now()
    const reply = await call(n)
    now = performance.now()
    latencies.push((now - begin) * 1000)
    micros += (now - begin) * 1000
    if (!values.isReply(reply, n)) throw wrongReply(n)
  }
  return { operations: latencies.length, micros, latencies }
}

const manyAtOnce = async ({ call, task, values }: OpenCalls): Promise<Outcome> => {
  const begin = performance.now()
  const deadline = begin + task.millis
  let next = 0
  const caller = async (): Promise<void> => {
    do {
      const n = next++
      if (!values.isReply(await call(n), n)) throw wrongReply(n)
    } while (performance.now() < deadline)
  }
  await Promise.all(Array.from({ length: task.inFlight }, caller))
  return { operations: next, micros: (performance.now() - begin) * 1000 }
}
