/** What the exit codes of the command mean. One that is interrupted exits with 130. */
export const ExitCode = {
  ok: 0,
  /** The call failed, there is a problem, a file is not up to date. */
  failed: 1,
  /** The command line asks for something that cannot be. */
  usage: 2
} as const
