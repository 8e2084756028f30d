/** A runtime that notes down each call of another one. */
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Pull from "effect/Pull"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Envelope from "../Envelope.ts"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import type { CallOptions, Runtime } from "../Synapse.ts"
import { SynapseError } from "../SynapseError.ts"
import { answerOf } from "./answer.ts"
import { encoded } from "./call.ts"
import { codeOf, rememberPlace } from "./evaluate.ts"
import * as InputStreams from "./inputStreams.ts"
import { Decoder } from "./msgpackDecoder.ts"
import { Encoder } from "./msgpackEncoder.ts"
import type { Progress } from "./progress.ts"
import { headerLine, InputMark, lineOf, type Recorded } from "./recording.ts"
import { itemsOf } from "./streaming.ts"

/** Bytes of MessagePack. */
export const bytesOf = (value: unknown): Uint8Array => {
  const encoder = new Encoder()
  encoder.begin(Number.POSITIVE_INFINITY)
  encoder.encode(value)
  return encoder.take()
}

const frameOf = (kind: number, value: unknown): Envelope.Frame => ({
  kind,
  id: 0,
  meta: new Uint8Array(0),
  payload: bytesOf(value),
  lent: undefined
})

/** An answer with this value. */
export const answerFrame = (value: unknown): Envelope.Frame => frameOf(Envelope.Kind.Success, value ?? null)

/** An input as it travels, with a mark in the place of each stream. `undefined` where it cannot. */
export const travelled = (input: unknown): { readonly payload: unknown } | undefined => {
  try {
    const { input: plain } = InputStreams.extract(input, undefined as never)
    return { payload: new Decoder(() => new InputMark()).decode(bytesOf(plain)) }
  } catch {
    return undefined
  }
}

const encodeError = SchemaMsgpack.encode(SynapseError)

type AnyOptions = CallOptions<unknown, unknown>

const durations = ["timeout", "queueTimeout", "totalTimeout", "maxTimeout"] as const
const flags = ["affinity", "idempotent", "onCancel", "parseJson"] as const

/** Durations in milliseconds. What callers send along may be secret, and is left out. */
const notedOptions = (options: AnyOptions | undefined): Recorded["options"] => {
  const noted: Record<string, unknown> = {}
  for (const key of durations) {
    const value = options?.[key]
    if (value !== undefined) noted[key] = Duration.toMillis(value)
  }
  for (const key of flags) if (options?.[key] !== undefined) noted[key] = options[key]
  return Object.keys(noted).length === 0 ? undefined : noted
}

/** The file of a session. */
class Session {
  readonly #file: string
  readonly #lines: Array<string | undefined> = []
  #isSorted = true
  #count = 0
  failure: unknown

  constructor(file: string) {
    this.#file = file
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, `${headerLine}\n`)
  }

  begin(): number {
    return ++this.#count
  }

  end(recorded: Recorded): void {
    const line = lineOf(recorded)
    for (let i = recorded.call; i < this.#lines.length; i++) if (this.#lines[i] !== undefined) this.#isSorted = false
    this.#lines[recorded.call - 1] = line
    this.#write(() => appendFileSync(this.#file, `${line}\n`))
  }

  /** Calls that ran side by side ended in any order: the file has them as they began. */
  close(): void {
    if (this.#isSorted) return
    const lines = [headerLine, ...this.#lines.filter((line) => line !== undefined)]
    this.#write(() => writeFileSync(this.#file, `${lines.join("\n")}\n`))
  }

  #write(write: () => void): void {
    try {
      write()
    } catch (error) {
      this.failure ??= error
    }
  }
}

/** Opens the file of a session, which is written as calls end. Throws when it cannot be. */
export const open = (file: string): Effect.Effect<Session, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new Session(file)),
    (session) =>
      Effect.suspend(() => {
        session.close()
        return session.failure === undefined
          ? Effect.void
          : Effect.logError(`The recording ${file} is not complete: ${String(session.failure)}`)
      })
  )

/** One call that is noted down. */
interface Noting {
  readonly progress: <R>(progress: Progress<R> | undefined) => Progress<R> | undefined
  readonly items: (items: ReadonlyArray<unknown>) => void
  readonly end: (exit: Exit.Exit<unknown, SynapseError>) => Effect.Effect<void>
}

const noting = (
  session: Session,
  method: string,
  input: unknown,
  options: AnyOptions | undefined,
  isStream: boolean
): Noting | undefined => {
  const sent = travelled(input)
  // It fails before it is sent, and does so without a recording too.
  if (sent === undefined) return undefined
  const items: Array<unknown> = []
  const reported: Array<unknown> = []
  const head = { call: session.begin(), method, payload: sent.payload, options: notedOptions(options) }
  let isOver = false
  const end = (how: Partial<Recorded>): void => {
    if (isOver) return
    isOver = true
    session.end({
      ...head,
      progress: reported.length === 0 ? undefined : reported,
      items: isStream ? items : undefined,
      ...how
    })
  }
  return {
    progress: (progress) =>
      progress && {
        listener: (payload, method) => {
          reported.push(Envelope.decodePayload(payload))
          return progress.listener(payload, method)
        }
      },
    items: (more) => void items.push(...more),
    end: (exit) =>
      Effect.suspend(() => {
        if (Exit.isSuccess(exit)) return Effect.sync(() => end(isStream ? {} : { value: exit.value ?? null }))
        const error = Cause.findErrorOption(exit.cause)
        if (Option.isNone(error)) return Effect.sync(() => end({ interrupted: true }))
        return Effect.orDie(encodeError(error.value)).pipe(Effect.map((encoded) => end({ error: encoded })))
      })
  }
}

/** The items of a stream of plain values, decoded as those of a worker are. */
export const decoded = <A, R, RD>(
  items: Stream.Stream<unknown, SynapseError, R>,
  schema: Schema.Decoder<A, RD>,
  method: string,
  parseJson: boolean
): Stream.Stream<A, SynapseError, R | RD> => {
  const decode = itemsOf(schema, method, parseJson)
  return Stream.transformPull(items, (pull) =>
    Effect.sync(() => {
      let before = 0
      let failure: SynapseError | undefined
      const next: Pull.Pull<readonly [A, ...Array<A>], SynapseError, void, RD> = Effect.suspend(() => {
        if (failure !== undefined) return Effect.fail(failure)
        return Effect.flatMap(pull, (items) =>
          Effect.flatMap(decode(frameOf(Envelope.Kind.Chunk, items), before), (chunk) => {
            failure = chunk.failure
            before += chunk.items.length
            return chunk.items.length > 0 ? Effect.succeed(chunk.items as readonly [A, ...Array<A>]) : next
          })
        )
      })
      return next
    })
  )
}

/** The same stream, with each of its items and its end noted down. */
const noted = <R>(
  items: Stream.Stream<unknown, SynapseError, R>,
  note: Noting
): Stream.Stream<unknown, SynapseError, R> =>
  Stream.transformPull(items, (pull, scope) =>
    Effect.as(
      // Where its reader goes away before its end.
      Scope.addFinalizer(scope, note.end(Exit.interrupt())),
      pull.pipe(
        Effect.tap((items) => Effect.sync(() => note.items(items))),
        Effect.tapCause((cause) => {
          if (Cause.hasInterruptsOnly(cause)) return Effect.void
          const error = Cause.findErrorOption(cause)
          const isDone = Option.isNone(error) || Cause.isDone(error.value)
          return note.end(isDone ? Exit.void : Exit.failCause(cause as Cause.Cause<SynapseError>))
        })
      )
    )
  )

/** A runtime that does what another one does, and notes it down. */
export const recorded = (inner: Runtime, session: Session): Runtime => ({
  ...inner,
  get environment() {
    return inner.environment
  },
  call: (schema, input, options) =>
    Effect.flatMap(encoded(input, options), (value) => {
      const { parseJson = false, payload: _, ...others } = options ?? {}
      const { method = "main", progress } = others
      const note = noting(session, method, value, options as AnyOptions, false)
      const call = inner.call(Schema.Unknown, value, { ...others, progress: note?.progress(progress) ?? progress })
      return Effect.flatMap(note === undefined ? call : Effect.onExit(call, note.end), (value) =>
        answerOf(schema, method, parseJson)(answerFrame(value))
      )
    }) as never,
  stream: (schema, input, options) =>
    Stream.unwrap(
      Effect.map(encoded(input, options), (value) => {
        const { parseJson = false, payload: _, ...others } = options ?? {}
        const { method = "main", progress } = others
        const note = noting(session, method, value, options as AnyOptions, true)
        const items = inner.stream(Schema.Unknown, value, { ...others, progress: note?.progress(progress) ?? progress })
        return decoded(note === undefined ? items : noted(items, note), schema, method, parseJson)
      })
    ) as never,
  evaluate: (schema, bindings, options) =>
    function evaluate(literal, ...values) {
      rememberPlace(literal, evaluate)
      const { parseJson = false, progress, ...others } = options ?? {}
      const method = Envelope.evaluateMethod
      return Effect.suspend(() => {
        const note = noting(session, method, codePayload(literal, values, bindings), options as AnyOptions, false)
        const call = inner.evaluate(Schema.Unknown, bindings, {
          ...others,
          progress: note?.progress(progress) ?? progress
        })(literal, ...values)
        return Effect.flatMap(note === undefined ? call : Effect.onExit(call, note.end), (value) =>
          answerOf(schema, method, parseJson)(answerFrame(value))
        )
      }) as never
    }
})

/** A piece of Python as a payload: where it stands in a file is not part of it. */
export const codePayload = (
  literal: TemplateStringsArray,
  values: ReadonlyArray<unknown>,
  bindings: Readonly<Record<string, unknown>> | undefined
): unknown => {
  const { bindings: bound, source } = codeOf(literal, values, bindings ?? {})
  return { source, bindings: bound }
}
