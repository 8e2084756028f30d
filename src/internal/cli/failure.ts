/** What a command fails with, how it is told to a person, and the exit code that it means. */
import { isSynapseError, type SynapseError } from "../../SynapseError.ts"
import { ExitCode } from "./exitCode.ts"
import { toJson } from "./json.ts"

/** A failure that a command explains itself. */
export class Failure extends Error {
  readonly _tag = "Failure"
  readonly exitCode: number

  constructor(message: string, exitCode: number = ExitCode.failed) {
    super(message)
    this.exitCode = exitCode
  }
}

/** The command line asks for something that cannot be. */
export const badUsage = (message: string): Failure => new Failure(message, ExitCode.usage)

/** What a person reads about a failure, without a stack of ours. */
export const describeFailure = (error: unknown): string => {
  if (isSynapseError(error)) return describeSynapseError(error)
  if (error instanceof Failure) return error.message
  return error instanceof Error ? error.message : String(error)
}

const describeSynapseError = ({ reason }: SynapseError): string => {
  switch (reason._tag) {
    case "PythonException":
      return `${reason.message}\n\n${reason.traceback}`
    case "HandlerFailed":
      return `${reason.message}\n${toJson(reason.error)}`
    default:
      return reason.message
  }
}

/** The exit code that a failure stands for. */
export const exitCodeOf = (error: unknown): number => (error instanceof Failure ? error.exitCode : ExitCode.failed)
