/** Starts the program of `host.ts` for a row. */
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { Effect, type Scope } from "effect"

export interface Program {
  readonly child: ChildProcess
  /** The next line it prints. */
  readonly line: Effect.Effect<string>
  /** All it printed, on both outputs. */
  readonly output: () => string
  /** Its exit code, or the signal that ended it. */
  readonly end: Effect.Effect<number | string | null>
  /** Tells it to go on. */
  readonly go: Effect.Effect<void>
}

export const start = (
  mark: string,
  args: ReadonlyArray<string>,
  prefix: ReadonlyArray<string> = []
): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const [command, ...rest] = [
          ...prefix,
          process.execPath,
          fileURLToPath(new URL("./host.ts", import.meta.url)),
          ...args
        ]
        return spawn(command!, rest, {
          stdio: ["pipe", "pipe", "pipe"],
          env: { ...process.env, SYNAPSE_FAULT: mark }
        })
      }),
      (child) =>
        Effect.callback<void>((resume) => {
          if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
          child.once("exit", () => resume(Effect.void))
          child.kill("SIGKILL")
        }).pipe(Effect.andThen(Effect.sync(() => child.stdin!.destroy())))
    ),
    (child) => {
      let output = ""
      let taken = 0
      const lines = () => output.split("\n").slice(0, -1)
      for (const stream of [child.stdout!, child.stderr!]) {
        stream.on("data", (chunk: Buffer) => {
          output += chunk.toString()
        })
      }
      child.stdin!.on("error", () => {})
      return {
        child,
        output: () => output,
        line: Effect.callback<string>((resume) => {
          const look = (): void => {
            const line = lines()[taken]
            if (line === undefined) return
            taken++
            child.stdout!.off("data", look)
            resume(Effect.succeed(line))
          }
          child.stdout!.on("data", look)
          child.once("close", () => resume(Effect.die(new Error(`the program ended and said only: ${output}`))))
          look()
        }),
        end: Effect.callback((resume) => {
          const done = () => resume(Effect.succeed(child.exitCode ?? child.signalCode))
          if (child.exitCode !== null || child.signalCode !== null) done()
          else child.once("close", done)
        }),
        go: Effect.sync(() => void child.stdin!.write("\n"))
      }
    }
  )
