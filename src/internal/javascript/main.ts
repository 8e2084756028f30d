/**
 * What the Python module `synapse.javascript` starts: `main.js serve OPTIONS`, `main.js keys PREFIX`,
 * `main.js sign MODULE OUT KEY-FILE`.
 *
 * @internal
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs"

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
if (major < 22 || (major === 22 && minor < 19)) {
  process.stderr.write(
    `Node ${process.versions.node} at ${process.execPath} is too old: 22.19 or later is needed. ` +
      "`npm install node` beside the program has one, and SYNAPSE_NODE may name one\n"
  )
  process.exit(1)
}

const { version } = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as {
  readonly version: string
}
const { isExpected, serve } = await import("./serve.ts")
const { generateKeys, sign } = await import("./signature.ts")

const makeKeys = (prefix: string): void => {
  const { publicKey, privateKey } = generateKeys()
  // One that is there keeps its mode.
  rmSync(`${prefix}.privkey`, { force: true })
  writeFileSync(`${prefix}.privkey`, `${privateKey}\n`, { mode: 0o600 })
  writeFileSync(`${prefix}.pubkey`, `${publicKey}\n`)
}

const signModule = (module: string, out: string, keyFile: string): void =>
  writeFileSync(out, sign(readFileSync(module), readFileSync(keyFile, "utf8")))

const [command, ...args] = process.argv.slice(2)
try {
  if (command === "serve" && args.length === 1) await serve(JSON.parse(args[0]!), version)
  else if (command === "keys" && args.length === 1) makeKeys(args[0]!)
  else if (command === "sign" && args.length === 3) signModule(args[0]!, args[1]!, args[2]!)
  else {
    process.stderr.write("usage: main.js serve OPTIONS | keys PREFIX | sign MODULE OUT KEY-FILE\n")
    process.exit(1)
  }
} catch (error) {
  const { code, message, stack } = error as NodeJS.ErrnoException
  process.stderr.write(`${isExpected(error) || code !== undefined ? message : stack}\n`)
  process.exit(1)
}
