/** The environment of a worker: what programs need to run, and what the user adds. Everything else stays here. */

import { delimiter, dirname } from "node:path"
import * as Redacted from "effect/Redacted"
import type { PythonEnvironment } from "../PythonEnvironment.ts"

const passedOn = new Set([
  "PATH",
  "HOME",
  "USER",
  "LOGNAME",
  "SHELL",
  "LANG",
  "LANGUAGE",
  "TZ",
  "TMPDIR",
  "TEMP",
  "TMP",
  "LD_LIBRARY_PATH",
  "DYLD_LIBRARY_PATH",
  "SSL_CERT_FILE",
  "SSL_CERT_DIR",
  "REQUESTS_CA_BUNDLE",
  "HTTP_PROXY",
  "HTTPS_PROXY",
  "NO_PROXY",
  "ALL_PROXY",
  "http_proxy",
  "https_proxy",
  "no_proxy",
  "all_proxy"
])
const passedOnPrefixes = ["LC_", "XDG_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_"]

export interface WorkerEnvironment {
  /** What the process is started with, for everybody to see who may look at it. */
  readonly env: Readonly<Record<string, string>>
  /** What it is told in private. */
  readonly secrets: Readonly<Record<string, string>>
}

export const workerEnvironment = (
  own: Readonly<Record<string, string | undefined>>,
  environment: PythonEnvironment,
  added: Readonly<Record<string, string | Redacted.Redacted<string>>>
): WorkerEnvironment => {
  const env: Record<string, string> = {}
  const secrets: Record<string, string> = {}
  for (const [name, value] of Object.entries(own)) {
    if (value === undefined) continue
    if (passedOn.has(name) || passedOnPrefixes.some((prefix) => name.startsWith(prefix))) env[name] = value
  }
  // A `python` that the module starts by name is the one that runs it.
  if (environment.path !== undefined) {
    env.VIRTUAL_ENV = environment.path
    env.PATH = [dirname(environment.python), env.PATH].filter(Boolean).join(delimiter)
  }
  for (const [name, value] of Object.entries(added)) {
    if (Redacted.isRedacted(value)) {
      secrets[name] = Redacted.value(value)
      delete env[name]
    } else env[name] = value
  }
  return { env, secrets }
}
