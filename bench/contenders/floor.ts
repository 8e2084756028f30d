/**
 * The floor: what the machine allows over the kind of descriptor that Synapse uses, with nothing encoded, decoded or
 * awaited beyond it. A call carries 64 bytes, a frame in flight 36.
 */
import type { ChildProcess } from "node:child_process"
import type { Duplex } from "node:stream"
import { fileURLToPath } from "node:url"
import { type Calls, type MakeContender, type Outcome, type Task, Unsupported } from "../harness/contender.ts"
import { type Values, valuesOf } from "../harness/payloads.ts"
import { oneAtATime, wrongReply } from "../harness/promiseContender.ts"
import { basePython, spawnPython, stopChild } from "../harness/pythonChild.ts"

const script = fileURLToPath(new URL("./floor.py", import.meta.url))

/** The bytes of one message, and the call that gives them back. */
interface Whole {
  readonly values: Values
  readonly call: (message: unknown) => Promise<unknown>
}

export const make: MakeContender = async ({ processes = 1 }) => {
  const started: Array<ChildProcess> = []
  const channels = new Map<string, Duplex>()
  const channel = (...args: ReadonlyArray<string>): Duplex => {
    const key = args.join(" ")
    const open = channels.get(key)
    if (open !== undefined) return open
    const child = spawnPython(basePython(), ["-I", "-S", script, ...args], ["ignore", "ignore", "inherit", "pipe"])
    const made = child.stdio[3] as Duplex
    started.push(child)
    channels.set(key, made)
    return made
  }

  const wholeOf = ({ payload }: Calls): Whole => {
    switch (payload.kind) {
      case "small":
        return { values: valuesOf({ kind: "bytes", size: 64 }), call: exchange(channel("echo"), 64, (reply) => reply) }
      case "bytes":
        return {
          values: valuesOf(payload),
          call: exchange(channel("whole", String(payload.size)), payload.size, (reply) => reply)
        }
      case "array":
        return {
          values: valuesOf(payload),
          call: exchange(
            channel("whole", String(payload.size)),
            payload.size,
            (reply) => new Float64Array(reply.buffer, reply.byteOffset, payload.size / 8)
          )
        }
      default:
        throw new Unsupported("has no records")
    }
  }

  const run = async (task: Task): Promise<Outcome> => {
    if (task.name !== "calls") throw new Unsupported("has no such task")
    if (task.inFlight > 1) {
      const channels = Array.from({ length: Number(processes) }, (_, n) => channel("frames", String(n)))
      return together(channels, task)
    }
    const { call, values } = wholeOf(task)
    return oneAtATime({ task, values, call: (n) => call(values.input(n)) })
  }

  return {
    verify: async (task) => {
      if (task.name !== "calls" || task.inFlight > 1) return
      const { call, values } = wholeOf(task)
      if (!values.isSame(await call(values.input(0)), 0)) throw wrongReply(0)
    },
    run,
    stop: async () => {
      await Promise.all(started.map(stopChild))
    }
  }
}

/** Writes a message and collects as many bytes, which are overwritten by the next reply. */
const exchange = (channel: Duplex, size: number, view: (reply: Buffer) => unknown) => {
  const reply = Buffer.from(new ArrayBuffer(size))
  let filled = 0
  let resume: (value: unknown) => void = () => {}
  channel.removeAllListeners("data").on("data", (chunk: Buffer) => {
    filled += chunk.copy(reply, filled)
    if (filled === size) resume(view(reply))
  })
  return (message: unknown): Promise<unknown> =>
    new Promise((resolve) => {
      filled = 0
      resume = resolve
      const { buffer, byteLength, byteOffset } = message as ArrayBufferView
      channel.write(new Uint8Array(buffer, byteOffset, byteLength))
    })
}

const bodySize = 32
const frameSize = 4 + bodySize

/** The frames in flight are shared out evenly. */
const together = async (channels: ReadonlyArray<Duplex>, task: Calls): Promise<Outcome> => {
  const share = { ...task, inFlight: task.inFlight / channels.length }
  const outcomes = await Promise.all(channels.map((channel) => inFlight(channel, share)))
  return {
    operations: outcomes.reduce((sum, { operations }) => sum + operations, 0),
    micros: Math.max(...outcomes.map(({ micros }) => micros))
  }
}

/** Each frame that comes back makes room for the next; what one chunk made room for is one write. */
const inFlight = (channel: Duplex, { inFlight, millis }: Calls): Promise<Outcome> =>
  new Promise((resolve, reject) => {
    const begin = performance.now()
    let sent = 0
    let received = 0
    let rest: Buffer = Buffer.alloc(0)

    const send = (count: number): void => {
      const frames = Buffer.allocUnsafe(count * frameSize)
      for (let i = 0; i < count; i++) {
        frames.writeUInt32LE(bodySize, i * frameSize)
        frames.writeUInt32LE(sent++, i * frameSize + 4)
      }
      channel.write(frames)
    }
    const receive = (chunk: Buffer): number => {
      const data = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
      let at = 0
      let count = 0
      while (at + 4 <= data.length && at + 4 + data.readUInt32LE(at) <= data.length) {
        if (data.readUInt32LE(at + 4) !== received + count) throw wrongReply(received + count)
        at += 4 + data.readUInt32LE(at)
        count += 1
      }
      rest = data.subarray(at)
      return count
    }
    channel.removeAllListeners("data").on("data", (chunk: Buffer) => {
      try {
        const count = receive(chunk)
        received += count
        if (performance.now() - begin < millis) {
          if (count > 0) send(count)
        } else if (received === sent) {
          resolve({ operations: received, micros: (performance.now() - begin) * 1000 })
        }
      } catch (error) {
        reject(error)
      }
    })
    send(inFlight)
  })
