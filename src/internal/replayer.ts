/** A runtime that answers from a recording: each call with what the same one was answered then, in that order. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Envelope from "../Envelope.ts"
import type { PythonEnvironment } from "../PythonEnvironment.ts"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import type { CallOptions, Runtime } from "../Synapse.ts"
import { EncodeFailed, SynapseError, Unsupported } from "../SynapseError.ts"
import { answerOf } from "./answer.ts"
import { encoded } from "./call.ts"
import { encodeFailure } from "./connectionFrames.ts"
import { rememberPlace } from "./evaluate.ts"
import { nearest } from "./nearest.ts"
import { answerFrame, bytesOf, codePayload, decoded, travelled } from "./recorder.ts"
import { canonical, type Line, toJson } from "./recording.ts"

type AnyOptions = CallOptions<unknown, unknown>

const decodeError = SchemaMsgpack.decode(SynapseError)

const isStream = ({ recorded }: Line): boolean => recorded.items !== undefined

const keyOf = (method: string, payload: unknown, stream: boolean): string =>
  canonical([method, stream, toJson(payload)])

/** The calls of a recording, and which of them have been answered. */
export class Script {
  readonly #file: string
  readonly #lines: ReadonlyArray<Line>
  readonly #byKey = new Map<string, Array<Line>>()
  readonly #used = new Set<Line>()

  constructor(file: string, lines: ReadonlyArray<Line>) {
    this.#file = file
    this.#lines = lines
    for (const line of lines) {
      const key = keyOf(line.recorded.method, line.recorded.payload, isStream(line))
      const same = this.#byKey.get(key)
      if (same === undefined) this.#byKey.set(key, [line])
      else same.push(line)
    }
  }

  get leftovers(): ReadonlyArray<Line> {
    return this.#lines.filter((line) => !this.#used.has(line))
  }

  /** The recording of a call, or why there is none. */
  take(method: string, payload: unknown, stream: boolean): Line | string {
    const same = this.#byKey.get(keyOf(method, payload, stream)) ?? []
    const line = same.find((line) => !this.#used.has(line))
    if (line === undefined) return this.#missing(method, payload, stream, same)
    this.#used.add(line)
    return line
  }

  #missing(method: string, payload: unknown, stream: boolean, same: ReadonlyArray<Line>): string {
    if (same.length > 0) {
      return `${this.#file} has this call ${times(same.length)} (${placesOf(same)}), and answered as often: record the session anew`
    }
    const ofMethod = this.#lines.filter(({ recorded }) => recorded.method === method)
    if (ofMethod.length === 0) {
      const names = nearest(method, Array.from(new Set(this.#lines.map(({ recorded }) => recorded.method))))
      const near = names.map((name) => `\`${name}\``).join(", ")
      return `${this.#file} has no call of it${near === "" ? "" : `; it has calls of ${near}`}`
    }
    const alike = ofMethod.filter((line) => isStream(line) === stream)
    if (alike.length === 0) {
      return `${this.#file} has it ${stream ? "as calls of one value" : "as streams"} only (${placesOf(ofMethod)})`
    }
    const [line, differences] = nearestOf(alike, payload)
    const [first, ...others] = differences
    const more = others.length === 0 ? "" : `, and in ${others.length} more ${others.length === 1 ? "place" : "places"}`
    return `${this.#file} has no call of it with this payload. The nearest is that of line ${line.line}, which differs ${first}${more}`
  }
}

const times = (count: number): string => (count === 1 ? "once" : `${count} times`)

const placesOf = (lines: ReadonlyArray<Line>): string =>
  `${lines.length === 1 ? "line" : "lines"} ${lines.map(({ line }) => line).join(", ")}`

const nearestOf = (lines: ReadonlyArray<Line>, payload: unknown): readonly [Line, ReadonlyArray<string>] => {
  const wanted = toJson(payload)
  let best: readonly [Line, ReadonlyArray<string>] | undefined
  for (const line of lines) {
    const differences = differencesOf(toJson(line.recorded.payload), wanted, "$")
    if (best === undefined || differences.length < best[1].length) best = [line, differences]
  }
  return best!
}

const shownLength = 60

const shown = (json: unknown): string => {
  if (json === undefined) return "nothing"
  const text = JSON.stringify(json)
  return text.length > shownLength ? `${text.slice(0, shownLength)}…` : text
}

const differencesOf = (recorded: unknown, wanted: unknown, path: string): ReadonlyArray<string> => {
  if (
    canonical(recorded ?? null) === canonical(wanted ?? null) &&
    (recorded === undefined) === (wanted === undefined)
  ) {
    return []
  }
  if (Array.isArray(recorded) && Array.isArray(wanted)) {
    const length = Math.max(recorded.length, wanted.length)
    return Array.from({ length }, (_, i) => differencesOf(recorded[i], wanted[i], `${path}[${i}]`)).flat()
  }
  if (isMap(recorded) && isMap(wanted)) {
    const keys = new Set([...Object.keys(recorded), ...Object.keys(wanted)])
    return Array.from(keys, (key) => differencesOf(recorded[key], wanted[key], `${path}.${key}`)).flat()
  }
  return [`at ${path}: it has ${shown(recorded)}, and this call ${shown(wanted)}`]
}

const isMap = (json: unknown): json is Readonly<Record<string, unknown>> =>
  Predicate.isObject(json) && !Array.isArray(json) && !Object.keys(json).some((key) => key.startsWith("$"))

const unmatched = (method: string, detail: string): SynapseError =>
  new SynapseError({ reason: new Unsupported({ method, detail, delivery: "notSent" }) })

/** What the caller of a recorded call gets after its items, or in place of a value. */
const endOf = ({ recorded }: Line): Effect.Effect<unknown, SynapseError> => {
  if (recorded.interrupted) return Effect.never
  if (recorded.error === undefined) return Effect.succeed(recorded.value)
  return Effect.flatMap(Effect.orDie(decodeError(recorded.error)), Effect.fail)
}

const report = ({ recorded }: Line, options: AnyOptions | undefined): Effect.Effect<void, SynapseError, unknown> => {
  const { method = "main", progress } = options ?? {}
  return progress === undefined || recorded.progress === undefined
    ? Effect.void
    : Effect.forEach(recorded.progress, (value) => progress.listener(bytesOf(value), method), { discard: true })
}

const noObjects = (method: string): Effect.Effect<never, SynapseError> =>
  Effect.fail(unmatched(method, "recordings have calls, streams and pieces of Python, and no objects or shared arrays"))

export const replayed = (script: Script, environment: PythonEnvironment): Runtime => {
  const find = (method: string, input: unknown, stream: boolean): Effect.Effect<Line, SynapseError> =>
    Effect.suspend(() => {
      const sent = travelled(input)
      if (sent === undefined) return notCarried(method, input)
      const line = script.take(method, sent.payload, stream)
      return typeof line === "string" ? Effect.fail(unmatched(method, line)) : Effect.succeed(line)
    })
  const answer = (
    schema: Schema.Decoder<unknown, unknown>,
    method: string,
    input: unknown,
    options: AnyOptions | undefined
  ): Effect.Effect<unknown, SynapseError, unknown> =>
    Effect.flatMap(find(method, input, false), (line) => {
      options?.onSent?.()
      return Effect.andThen(report(line, options), endOf(line)).pipe(
        Effect.flatMap((value) => answerOf(schema, method, options?.parseJson ?? false)(answerFrame(value)))
      )
    })
  return {
    environment,
    call: (schema, input, options) =>
      Effect.flatMap(encoded(input, options), (value) =>
        answer(schema, options?.method ?? "main", value, options as AnyOptions)
      ) as never,
    stream: (schema, input, options) => {
      const { method = "main", parseJson = false } = options ?? {}
      const items = Stream.unwrap(
        Effect.gen(function* () {
          const line = yield* find(method, yield* encoded(input, options), true)
          yield* report(line, options as AnyOptions)
          return Stream.concat(
            Stream.fromIterable(line.recorded.items ?? []),
            Stream.drain(Stream.fromEffect(endOf(line)))
          )
        })
      )
      return decoded(items, schema, method, parseJson) as never
    },
    evaluate: (schema, bindings, options) =>
      function evaluate(literal, ...values) {
        rememberPlace(literal, evaluate)
        const payload = codePayload(literal, values, bindings)
        return answer(schema, Envelope.evaluateMethod, payload, options as AnyOptions) as never
      },
    acquire: (_, options) => noObjects(options?.method ?? "main"),
    allocate: () => noObjects("allocate"),
    stats: Effect.succeed({ calls: 0, streams: 0, hostCalls: 0, handles: 0 }),
    status: Effect.succeed(status),
    statusChanges: Stream.concat(Stream.succeed(status), Stream.never),
    reload: Effect.void,
    resize: () => Effect.void
  }
}

const status = { state: "running", workers: [], waiting: 0, restarts: 0, lastExit: undefined } as const

/** Fails as a runtime does that cannot send an input. */
const notCarried = (method: string, input: unknown): Effect.Effect<never, SynapseError> => {
  try {
    bytesOf(input)
  } catch (error) {
    return Effect.fail(encodeFailure(error, method))
  }
  const reason = new EncodeFailed({
    side: "typescript",
    method,
    path: "$",
    issue: "it cannot be carried",
    delivery: "notSent"
  })
  return Effect.fail(new SynapseError({ reason }))
}
