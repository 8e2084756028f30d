/**
 * The requests that a worker makes: each becomes a fiber, and has exactly one end.
 *
 * They run host functions, or read the input streams of calls that the worker has open. The end of a request is the end of
 * its fiber, however it came to it.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Envelope from "../Envelope.ts"
import * as InputStreams from "./inputStreams.ts"
import { CodecError } from "./msgpack.ts"
import { Encoder } from "./msgpackEncoder.ts"
import { maxDelayMillis } from "./nativeSleep.ts"
import { nearest } from "./nearest.ts"
import { Outlet } from "./outlet.ts"
import {
  closed,
  endOfExit,
  notDecoded,
  overloaded,
  type Post,
  postEnd,
  Refused,
  type RequestEnd,
  unsupported
} from "./requestEnd.ts"

/** What a fiber knows of the worker's request that it serves: its children inherit it. */
export interface Served {
  /** The connection. */
  readonly owner: object
  /** The host's call inside whose handler the request was made. */
  readonly call: number
}

/** The request of a worker that the current fiber serves, where it was made inside a call. */
export const CurrentRequest = Context.Reference<Served | undefined>("effect-synapse/internal/CurrentRequest", {
  defaultValue: () => undefined
})

/** A span of Python's, as a W3C `traceparent` names it. */
export interface Trace {
  readonly traceId: string
  readonly spanId: string
  readonly sampled: boolean
}

/** One call of a host function. */
export interface HostCall {
  readonly method: string
  /** As it came: decoded from MessagePack, and not with a schema. */
  readonly payload: unknown
  readonly trace: Trace | undefined
  readonly headers: Readonly<Record<string, string>>
  /** Sends items of a stream, and waits until there is room for more. */
  readonly send: (items: ReadonlyArray<unknown>) => Effect.Effect<void, Refused>
}

/** Host functions as one connection uses them. */
export interface HostConnection {
  readonly run: (call: HostCall) => Effect.Effect<RequestEnd>
}

/** Host functions with all that they need. */
export interface Host {
  /** By name, whether each gives a stream. */
  readonly functions: ReadonlyMap<string, boolean>
  /** What calls of them run in. */
  readonly context: Context.Context<never>
  readonly connect: Effect.Effect<HostConnection, never, Scope.Scope>
}

export interface Options {
  /** What stands for the connection in {@link CurrentRequest}. */
  readonly owner: object
  readonly post: Post
  readonly host: Host | undefined
  /** How many requests may be open at once. */
  readonly maxOpen: number
  readonly maxFrameSize: number
}

/** All of it is synchronous, and is for the fiber that reads. */
export interface Serving {
  /** Takes a `Request`. Throws when its meta is malformed or its id is that of an open one: the worker is broken. */
  readonly request: (frame: Envelope.Frame) => void
  /** The worker has consumed so many items of a stream, and takes as many more. */
  readonly credit: (id: number, items: number) => void
  /** The worker wants no answer any more; it gets one. */
  readonly cancel: (id: number) => void
  /** Gives the input streams of a call ids of this connection: before the call's payload is encoded. */
  readonly register: (call: number, streams: ReadonlyArray<InputStreams.InputStream>) => void
  /**
   * Nobody reads the input streams of a call any more. What still runs of them is interrupted; the effect, if there is one,
   * waits for it.
   */
  readonly callEnded: (call: number) => Effect.Effect<void> | undefined
  /** Requests that are not answered. */
  readonly open: () => number
  /** Input streams of calls that have not ended. */
  readonly openSources: () => number
}

interface OpenRequest {
  readonly outlet: Outlet | undefined
  fiber: Fiber.Fiber<RequestEnd> | undefined
}

interface Source {
  readonly call: number
  readonly input: InputStreams.InputStream
  /** The request that reads it or has read it. */
  reader: OpenRequest | undefined
}

/** What a request runs, or why it does not. */
type Task =
  | {
      readonly context: Context.Context<never>
      readonly run: (outlet: Outlet | undefined) => Effect.Effect<RequestEnd>
      readonly source?: Source
    }
  | Refused

/**
 * Serves a connection until its scope closes, which interrupts what runs and waits for it. Nothing is taken from the
 * context: host functions bring their own, and input streams that of their caller.
 */
export const make = Effect.fnUntraced(function* (options: Options): Effect.fn.Return<Serving, never, Scope.Scope> {
  const { host, maxFrameSize, maxOpen, owner, post } = options
  const requests = new Map<number, OpenRequest>()
  const sources = new Map<number, Source>()
  const sourcesByCall = new Map<number, Array<number>>()
  let encoder: Encoder | undefined
  let lastSource = 0
  let closing = false
  const connection = host === undefined ? undefined : yield* host.connect

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      closing = true
      sources.clear()
      sourcesByCall.clear()
      return Fiber.interruptAll(fibersOf(requests.values()))
    })
  )

  const served = (context: Context.Context<never>, call: number | undefined): Context.Context<never> =>
    Context.add(context, CurrentRequest, call === undefined ? undefined : { owner, call })

  // Of calls that one handler makes, the last context serves the next: what is derived from it is kept with it.
  let last: { readonly call: number | undefined; readonly context: Context.Context<never> } | undefined
  const hostContext = (host: Host, call: number | undefined): Context.Context<never> => {
    if (last === undefined || last.call !== call) last = { call, context: served(host.context, call) }
    return last.context
  }

  const taskOf = (meta: Meta, frame: Envelope.Frame): Task => {
    if (closing) return closed
    if (requests.size >= maxOpen) return overloaded(maxOpen)
    return meta.source === undefined ? hostFunction(meta, meta.method, frame) : inputStream(meta, meta.source)
  }

  const hostFunction = (meta: Meta, method: string, frame: Envelope.Frame): Task => {
    const isStream = host?.functions.get(method)
    if (host === undefined || connection === undefined || isStream === undefined) {
      const names = nearest(method, Array.from(host?.functions.keys() ?? []))
      return new Refused("MethodNotFound", { method, nearest: names }, true)
    }
    if (isStream && meta.stream === undefined) return unsupported(`\`${method}\` gives a stream: use host.stream`)
    if (!isStream && meta.stream !== undefined) return unsupported(`\`${method}\` gives one value: use host.call`)
    const payload = payloadOf(frame)
    if (payload instanceof Refused) return payload
    const { headers, trace } = meta
    return {
      context: hostContext(host, meta.call),
      run: (outlet) =>
        connection.run({ method, payload: payload.value, trace, headers, send: outlet?.send ?? (() => Effect.void) })
    }
  }

  const inputStream = (meta: Meta, id: number): Task => {
    const source = sources.get(id)
    if (source === undefined) return unsupported("the call that this input stream belongs to has ended")
    if (source.reader !== undefined) return unsupported("an input stream can be read once, and this one was read")
    if (meta.stream === undefined) return unsupported("an input stream is read as a stream")
    return {
      context: served(source.input.context, source.call),
      run: (outlet) => InputStreams.send(source.input.stream, outlet!),
      source
    }
  }

  const outletOf = (id: number, granted: number): Outlet => {
    encoder ??= new Encoder()
    return new Outlet({ id, granted, post, encoder, maxFrameSize })
  }

  const start = (id: number, meta: Meta, { context, run, source }: Exclude<Task, Refused>): void => {
    const outlet = meta.stream === undefined ? undefined : outletOf(id, meta.stream)
    const request: OpenRequest = { outlet, fiber: undefined }
    requests.set(id, request)
    if (source !== undefined) source.reader = request
    const fiber = Effect.runForkWith(context)(withDeadline(run(outlet), meta.deadline))
    request.fiber = fiber
    // It has begun to run: what it did may have ended the call whose stream it reads.
    if (source !== undefined && sources.get(source.input.reference.id) !== source) fiber.interruptUnsafe()
    // Not a finalizer within the fiber: one that is interrupted before it began has none.
    fiber.addObserver((exit) => {
      requests.delete(id)
      postEnd(post, id, endOfExit(exit))
    })
  }

  return {
    request: (frame) => {
      const meta = metaOf(frame)
      if (requests.has(frame.id)) throw new Error(`a Request with the id ${frame.id} of one that is open`)
      const task = taskOf(meta, frame)
      if (task instanceof Refused) postEnd(post, frame.id, task)
      else start(frame.id, meta, task)
    },
    credit: (id, items) => requests.get(id)?.outlet?.credit(items),
    cancel: (id) => requests.get(id)?.fiber?.interruptUnsafe(),
    register: (call, streams) => {
      if (closing || streams.length === 0) return
      const ids = sourcesByCall.get(call) ?? []
      sourcesByCall.set(call, ids)
      for (const input of streams) {
        do lastSource = (lastSource + 1) >>> 0
        while (lastSource === 0 || sources.has(lastSource))
        input.reference.id = lastSource
        ids.push(lastSource)
        sources.set(lastSource, { call, input, reader: undefined })
      }
    },
    callEnded: (call) => {
      const ids = sourcesByCall.get(call)
      if (ids === undefined) return undefined
      sourcesByCall.delete(call)
      const readers: Array<OpenRequest> = []
      for (const id of ids) {
        const reader = sources.get(id)?.reader
        sources.delete(id)
        if (reader !== undefined) readers.push(reader)
      }
      const fibers = fibersOf(readers)
      for (const fiber of fibers) fiber.interruptUnsafe()
      const running = fibers.filter((fiber) => fiber.pollUnsafe() === undefined)
      return running.length === 0 ? undefined : Effect.asVoid(Fiber.awaitAll(running))
    },
    open: () => requests.size,
    openSources: () => sources.size
  }
})

const fibersOf = (requests: Iterable<OpenRequest>): ReadonlyArray<Fiber.Fiber<RequestEnd>> =>
  Array.from(requests, ({ fiber }) => fiber).filter((fiber) => fiber !== undefined)

const withDeadline = (self: Effect.Effect<RequestEnd>, millis: number | undefined): Effect.Effect<RequestEnd> => {
  if (millis === undefined || millis > maxDelayMillis) return self
  if (millis <= 0) return Effect.interrupt
  return Effect.timeoutOrElse(self, { duration: millis, orElse: () => Effect.interrupt })
}

const payloadOf = (frame: Envelope.Frame): { readonly value: unknown } | Refused => {
  try {
    return { value: Envelope.decodeFrame(frame) }
  } catch (error) {
    if (error instanceof CodecError) return notDecoded(error)
    throw error
  }
}

interface MetaFields {
  readonly deadline: number | undefined
  readonly trace: Trace | undefined
  readonly headers: Readonly<Record<string, string>>
  readonly stream: number | undefined
  readonly call: number | undefined
}

/** What a request says beside its payload. */
export type Meta = MetaFields &
  ({ readonly method: string; readonly source?: undefined } | { readonly source: number; readonly method?: undefined })

export const metaOf = (frame: Envelope.Frame): Meta => {
  const meta = Envelope.decodeMeta(frame.meta)
  const read = <A>(key: string, is: (u: unknown) => u is A, expected: string): A | undefined => {
    const value = meta[key] ?? undefined
    if (value === undefined || is(value)) return value
    throw new Error(`a Request whose \`${key}\` is not ${expected}`)
  }
  const method = read("method", Predicate.isString, "text")
  const source = read("source", isId, "an id")
  const trace = read("trace", Predicate.isString, "text")
  const fields = {
    deadline: read("deadline", isMillis, "a number of milliseconds"),
    trace: trace === undefined ? undefined : traceOf(trace),
    headers: read("headers", isHeaders, "a map of text") ?? {},
    stream: read("stream", isCount, "a positive integer"),
    call: read("call", isId, "an id")
  }
  if (source === undefined && method !== undefined) return { ...fields, method }
  if (source !== undefined && method === undefined) return { ...fields, source }
  throw new Error("a Request that has not one of `method` and `source`")
}

const isCount = (u: unknown): u is number => Number.isSafeInteger(u) && (u as number) > 0

const isId = (u: unknown): u is number => isCount(u) && u <= 0xffff_ffff

const isMillis = (u: unknown): u is number => typeof u === "number" && !Number.isNaN(u)

const isHeaders = (u: unknown): u is Readonly<Record<string, string>> =>
  Predicate.isObject(u) && !(u instanceof Map) && Object.values(u).every(Predicate.isString)

const traceparent = /^[\da-f]{2}-([\da-f]{32})-([\da-f]{16})-([\da-f]{2})(?:-|$)/i

/** A `traceparent` that names no span is as none. */
const traceOf = (text: string): Trace | undefined => {
  const [, traceId, spanId, flags] = traceparent.exec(text) ?? []
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 }
}
