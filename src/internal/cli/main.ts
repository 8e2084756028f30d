/** The command line as a program of Node. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import { run } from "./command.ts"

/** Runs the command with the arguments of this process. Ctrl-C ends it with all that it started, and the exit code 130. */
export const main = (): void => {
  // Who closes it does not want to read what is said there, and may still want the result.
  process.stderr.on("error", () => {})
  run(process.argv.slice(2)).pipe(
    Effect.flatMap((exitCode) =>
      Effect.sync(() => {
        process.exitCode = exitCode
      })
    ),
    Effect.provide(NodeServices.layer),
    NodeRuntime.runMain
  )
}
