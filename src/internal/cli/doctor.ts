import * as Effect from "effect/Effect"
import type { EnvironmentMode } from "../../PythonEnvironment.ts"
export const run = (_flags: {
  directory: string | undefined
  json: boolean
  entrypoint: string | undefined
  python: string | undefined
  environment: EnvironmentMode | undefined
}) => Effect.void
