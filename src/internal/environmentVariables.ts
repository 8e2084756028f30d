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

export const workerEnvironment = (
  own: Readonly<Record<string, string | undefined>>,
  environment: PythonEnvironment,
  added: Readonly<Record<string, string | Redacted.Redacted<string>>>
): Readonly<Record<string, string>> => {
  const env: Record<string, string> = {}
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
    env[name] = Redacted.isRedacted(value) ? Redacted.value(value) : value
  }
  return env
}
