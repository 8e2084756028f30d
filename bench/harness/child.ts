/** The driver's end of a contender's process. */
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { descendants } from "./processes.ts"
import type { Request, Response, Sample } from "./protocol.ts"

/** What a contender cannot do, as opposed to what it failed at. */
export class NotMeasured extends Error {}

const main = fileURLToPath(new URL("./contenderProcess.ts", import.meta.url))
/** Making an environment is the longest that anything takes. */
const answerMillis = 120_000
const keptOutput = 4000

const alive = new Set<ChildProcess>()

export class Child {
  readonly #process: ChildProcess
  /** The end of what it wrote on standard error: why it died, if it does. */
  #said = ""

  constructor(env: NodeJS.ProcessEnv) {
    this.#process = fork(main, {
      env,
      execArgv: [],
      stdio: ["ignore", "ignore", "pipe", "ipc"]
    })
    alive.add(this.#process)
    this.#process.once("exit", () => alive.delete(this.#process))
    this.#process.stderr?.on("data", (chunk: Buffer) => {
      this.#said = (this.#said + chunk.toString()).slice(-keptOutput)
    })
  }

  /** One request at a time; what does not answer is ended. */
  async ask(request: Request): Promise<Sample | undefined> {
    const gone = new AbortController()
    const { signal } = gone
    const timer = setTimeout(() => gone.abort(), answerMillis)
    try {
      const answered = once(this.#process, "message", { signal })
      const ended = once(this.#process, "exit", { signal }).then(([code, by]) => {
        throw new Error(`its process ended (${by ?? `code ${code}`})${this.#lastWords()}`)
      })
      this.#process.send(request)
      const [response] = (await Promise.race([answered, ended])) as [Response]
      if (response.type === "done") return response.sample
      throw new (response.unsupported ? NotMeasured : Error)(response.message)
    } catch (error) {
      if (signal.aborted) {
        killTree(this.#process)
        throw new Error(`no answer within ${answerMillis / 1000} seconds`)
      }
      throw error
    } finally {
      clearTimeout(timer)
      gone.abort()
    }
  }

  #lastWords(): string {
    const line = this.#said.trim().split("\n").at(-1)
    return line === undefined || line === "" ? "" : `: ${line}`
  }

  async stop(): Promise<void> {
    if (!alive.has(this.#process)) return
    const exited = once(this.#process, "exit")
    const timer = setTimeout(() => killTree(this.#process), 5000)
    this.#process.send({ type: "stop" } satisfies Request, () => {})
    await exited
    clearTimeout(timer)
  }
}

const killTree = ({ pid }: ChildProcess): void => {
  if (pid === undefined) return
  for (const each of [...descendants(pid), pid]) {
    try {
      process.kill(each, "SIGKILL")
    } catch {
      // It ended by itself.
    }
  }
}

/** For when the run is broken off. */
export const killAll = (): void => {
  for (const child of alive) killTree(child)
}
