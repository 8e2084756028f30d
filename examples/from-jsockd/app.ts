// A Python program that calls JavaScript. `npm run example from-jsockd` is `PYTHONPATH=python/src python3 examples/from-jsockd/app.py`.
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

const pathOf = (path: string) => fileURLToPath(new URL(path, import.meta.url))

const env = { ...process.env, PYTHONPATH: pathOf("../../python/src"), SYNAPSE_NODE: process.execPath }

spawn("python3", [pathOf("./app.py")], { env, stdio: "inherit" }).on("exit", (code) => {
  process.exitCode = code ?? 1
})
