// Answers that come word by word. Run it with `npm run example streaming-chat`.
import { fileURLToPath } from "node:url"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schema, Stream } from "effect"
import { Synapse } from "effect-synapse"

const PythonLive = Synapse.layer({ directory: fileURLToPath(new URL("./python", import.meta.url)) })

const chat = (prompt: string) => Synapse.stream(Schema.String, { prompt }, { method: "chat", timeout: "30 seconds" })

const write = (text: string) => Effect.sync(() => process.stdout.write(text))

const show = <E, R>(words: Stream.Stream<string, E, R>) =>
  Effect.andThen(
    Stream.runForEach(words, (word) => write(`${word} `)),
    write("\n")
  )

const program = Effect.gen(function* () {
  yield* show(chat("What about the weather?"))

  // Enough after five words: the generator is closed, and its `finally` runs.
  yield* show(Stream.take(chat("Tell me about Python"), 5))

  // A declared error of the generator, by name.
  yield* show(chat("word ".repeat(30))).pipe(
    Effect.catchReason("SynapseError", "HandlerFailed", (reason) => Console.log(`refused: ${reason.message}`))
  )

  // A stream in, a stream out: prompts are read as the answers go.
  const prompts = Stream.make("weather", "python")
  yield* Synapse.stream(Schema.String, { prompts }, { method: "converse" }).pipe(
    Stream.runForEach((word) => write(word.startsWith(">") ? `\n${word}\n` : `${word} `))
  )
  yield* write("\n")
})

program.pipe(Effect.provide(PythonLive), NodeRuntime.runMain)
