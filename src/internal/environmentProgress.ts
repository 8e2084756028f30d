/**
 * What a person sees while an environment is made: log lines, or a progress bar when stderr is a terminal.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Host, withoutCredentials } from "./environmentHost.ts"

/** What the provisioning script reports. */
export const Event = Schema.Union([
  Schema.Struct({ event: Schema.Literal("waiting") }),
  Schema.Struct({ event: Schema.Literal("step"), step: Schema.Literals(["create", "install", "codec", "verify"]) }),
  Schema.Struct({
    event: Schema.Literal("package"),
    kind: Schema.Literals(["collect", "download", "build", "install"]),
    name: Schema.String
  }),
  Schema.Struct({ event: Schema.Literal("bytes"), done: Schema.Number, total: Schema.Number }),
  Schema.Struct({ event: Schema.Literal("warning"), message: Schema.String }),
  Schema.Struct({ event: Schema.Literal("collected"), name: Schema.String }),
  Schema.Struct({
    event: Schema.Literal("ready"),
    name: Schema.String,
    codec: Schema.Boolean,
    built: Schema.Boolean
  }),
  Schema.Struct({
    event: Schema.Literal("failed"),
    command: Schema.Array(Schema.String),
    exitCode: Schema.NullOr(Schema.Int),
    output: Schema.String
  })
])

/** @internal */
export type Event = typeof Event.Type

/** @internal */
export interface Progress {
  readonly on: (event: Event) => Effect.Effect<void>
}

const shownNames = 5

const list = (names: ReadonlyArray<string>): string =>
  names.length === 0
    ? "the requirements"
    : names.slice(0, shownNames).join(", ") +
      (names.length > shownNames ? ` and ${names.length - shownNames} more` : "")

const stepText = (step: "create" | "install" | "codec" | "verify", names: ReadonlyArray<string>): string => {
  switch (step) {
    case "create":
      return "Creating the Python environment"
    case "install":
      return `Installing ${list(names)}`
    case "codec":
      return "Installing msgspec"
    case "verify":
      return "Checking the Python environment"
  }
}

const waitingText = "Waiting for another process that is building the same Python environment"

const seconds = (millis: number): string => `${(millis / 1000).toFixed(1)} s`

/** Shows what is going on until the scope closes. */
export const makeProgress: (names: ReadonlyArray<string>) => Effect.Effect<Progress, never, Scope.Scope> =
  Effect.fnUntraced(function* (names) {
    const host = yield* Host
    const start = yield* Clock.currentTimeMillis
    const done = Effect.gen(function* () {
      const elapsed = seconds((yield* Clock.currentTimeMillis) - start)
      yield* Effect.logInfo("The Python environment is ready").pipe(Effect.annotateLogs({ elapsed }))
    })
    const show = host.terminal === undefined ? yield* makeLines(names) : yield* makeBar(host.terminal, names)
    return {
      on: (event) => (event.event === "ready" ? Effect.andThen(show(event), done) : show(event))
    }
  })

/** Log lines, and one every ten seconds about what takes so long. */
const makeLines = Effect.fnUntraced(function* (names: ReadonlyArray<string>) {
  const current = yield* Ref.make("")
  const beat = (elapsed: number): Effect.Effect<void> =>
    Effect.sleep("10 seconds").pipe(
      Effect.andThen(Ref.get(current)),
      Effect.flatMap((text) =>
        text === ""
          ? Effect.void
          : Effect.logInfo(`Still at it: ${text}`).pipe(Effect.annotateLogs({ elapsed: `${elapsed + 10} s` }))
      ),
      Effect.andThen(Effect.suspend(() => beat(elapsed + 10)))
    )
  yield* Effect.forkScoped(beat(0))
  const say = (text: string) => Effect.andThen(Ref.set(current, text), Effect.logInfo(text))
  return (event: Event): Effect.Effect<void> => {
    switch (event.event) {
      case "waiting":
        return say(waitingText)
      case "step":
        return event.step === "verify"
          ? Ref.set(current, stepText(event.step, names))
          : say(stepText(event.step, names))
      case "package":
        return Effect.andThen(Ref.set(current, packageText(event)), Effect.logDebug(packageText(event)))
      case "bytes":
      case "ready":
      case "failed":
        return Effect.void
      case "warning":
        return Effect.logWarning(withoutCredentials(event.message))
      case "collected":
        return Effect.logDebug(`Removed the unfinished environment ${event.name}`)
    }
  }
})

const packageText = (event: Extract<Event, { event: "package" }>): string => {
  const verbs = { collect: "Collecting", download: "Downloading", build: "Building", install: "Installing" }
  return withoutCredentials(`${verbs[event.kind]} ${event.name}`)
}

interface Bar {
  readonly update: (value: number, total: number, text: string) => void
  readonly stop: () => void
}

const bytesText = (done: number, total: number): string => `${(done / 1e6).toFixed(1)}/${(total / 1e6).toFixed(1)} MB`

/** Loaded only when a bar is drawn. */
const loadBar = (stream: NodeJS.WritableStream) =>
  Effect.tryPromise(() => import("cli-progress")).pipe(
    Effect.map(({ default: cliProgress }): Bar => {
      const bar = new cliProgress.SingleBar(
        {
          format: "{bar} {duration_formatted} {text}",
          stream,
          hideCursor: true,
          clearOnComplete: true,
          barsize: 24,
          fps: 8,
          gracefulExit: false
        },
        cliProgress.Presets.shades_classic
      )
      bar.start(1, 0, { text: "" })
      return {
        update: (value, total, text) => {
          bar.setTotal(total)
          bar.update(value, { text })
        },
        stop: () => bar.stop()
      }
    })
  )

/**
 * A bar. Warnings wait until it is gone, so that they are not drawn over; the scope takes the bar away,
 * however it closes.
 */
const makeBar = Effect.fnUntraced(function* (stream: NodeJS.WritableStream, names: ReadonlyArray<string>) {
  const loaded = yield* Effect.option(Effect.acquireRelease(loadBar(stream), (bar) => Effect.sync(bar.stop)))
  if (loaded._tag === "None") return yield* makeLines(names)
  const bar = loaded.value
  const warnings: Array<string> = []
  let text = ""
  let packages = 0
  let total = 4
  const draw = (fraction: number, detail: string) => bar.update(Math.min(packages + fraction, total), total, detail)
  const settle = Effect.suspend(() => {
    bar.stop()
    return Effect.forEach(warnings.splice(0), (warning) => Effect.logWarning(warning), { discard: true })
  })
  return (event: Event): Effect.Effect<void> => {
    switch (event.event) {
      case "waiting":
        return Effect.sync(() => draw(0, waitingText))
      case "step":
        return Effect.sync(() => {
          text = stepText(event.step, names)
          draw(0, text)
        })
      case "package":
        return Effect.sync(() => {
          packages += 1
          // How many packages there will be is known only at the end: the bar always leaves room for more.
          total = Math.max(total, packages + 2)
          text = packageText(event)
          draw(0, text)
        })
      case "bytes":
        return Effect.sync(() =>
          draw(event.done / Math.max(event.total, 1), `${text} ${bytesText(event.done, event.total)}`)
        )
      case "warning":
        return Effect.sync(() => {
          warnings.push(withoutCredentials(event.message))
        })
      case "collected":
        return Effect.void
      case "ready":
      case "failed":
        return settle
    }
  }
})
