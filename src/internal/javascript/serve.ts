/**
 * The server: a thread and a socket for each endpoint, until any client or the process that started it goes away.
 *
 * @internal
 */
import { timingSafeEqual } from "node:crypto"
import { chmodSync, readFileSync, rmSync } from "node:fs"
import { type AddressInfo, createServer } from "node:net"
import { pathToFileURL } from "node:url"
import { type Log, log as writeLog } from "./log.ts"
import { serve as serveSession } from "./session.ts"
import { isSigned, SignatureError, verify } from "./signature.ts"
import { makeThread, type Thread } from "./thread.ts"

/**
 * What a client asks of the server, as the JSON of its argument. Times are in milliseconds.
 *
 * @internal
 */
export interface ServeOptions {
  /** A path for each thread, or how many ports of the loopback interface there should be. */
  readonly endpoints: ReadonlyArray<string> | number
  /** The directory of the paths, which ends with the server: nobody else may be left to remove it. */
  readonly directory?: string
  /** Path of the module that functions get as their first parameter. */
  readonly module?: string
  /** The key of a signed module, in hexadecimal. */
  readonly publicKey?: string
  readonly sourceMap?: string
  readonly idle: number
  readonly recycleAfter: number
  readonly memoryLimit: number
  readonly startTimeout: number
  readonly maxFrameSize: number
  readonly logPrefix: string
}

/** @internal */
export class ServeError extends Error {}

const readModule = (path: string, publicKey: string | undefined): Uint8Array | undefined => {
  let file: Buffer
  try {
    file = readFileSync(path)
  } catch (error) {
    throw new ServeError(`cannot read the module: ${(error as Error).message}`)
  }
  if (publicKey !== undefined) return verify(file, publicKey)
  if (isSigned(file)) throw new ServeError(`the module ${path} is signed: give the public key of its signer too`)
  if (path.endsWith(".qjsbc")) {
    throw new ServeError(`${path} is bytecode of QuickJS: give the JavaScript module that it was made from`)
  }
  return undefined
}

const makeThreads = (options: ServeOptions, log: (record: Log) => void): ReadonlyArray<Thread> => {
  const { endpoints, module, publicKey, sourceMap } = options
  const signedSource = module === undefined ? undefined : readModule(module, publicKey)
  const count = typeof endpoints === "number" ? endpoints : endpoints.length
  return Array.from({ length: count }, (_, index) =>
    makeThread({
      ...options,
      index,
      log,
      module: module === undefined ? undefined : pathToFileURL(module).href,
      signedSource,
      sourceMap
    })
  )
}

const isEqual = (left: string, right: string): boolean => {
  const [a, b] = [Buffer.from(left), Buffer.from(right)]
  return a.length === b.length && timingSafeEqual(a, b)
}

/** Who started this one is told apart by its id from whoever adopts orphans. */
const watchParent = (): void => {
  const parent = process.ppid
  setInterval(() => {
    if (process.ppid !== parent) process.exit(0)
  }, 1000).unref()
  process.stdin.on("end", () => process.exit(0)).on("error", () => process.exit(0))
  process.stdin.resume()
}

/** Listens at one endpoint, whose first client that has the token gets the thread; resolves with the port, or 0. */
const listen = (
  path: string | undefined,
  thread: Thread,
  token: string,
  options: ServeOptions,
  log: (record: Log) => void
) =>
  new Promise<number>((resolve, reject) => {
    let isTaken = false
    const admit = (given: string): Thread | undefined => {
      if (isTaken || !isEqual(given, token)) return undefined
      isTaken = true
      return thread
    }
    const server = createServer((socket) => serveSession(socket, { admit, log, maxFrameSize: options.maxFrameSize }))
    server.on("error", (error) => reject(new ServeError(`cannot listen: ${error.message}`)))
    if (path === undefined) {
      server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port))
      return
    }
    server.listen(path, () => {
      chmodSync(path, 0o600)
      resolve(0)
    })
  })

/** @internal */
export const serve = async (options: ServeOptions, version: string): Promise<void> => {
  const token = process.env.SYNAPSE_JAVASCRIPT_TOKEN ?? ""
  delete process.env.SYNAPSE_JAVASCRIPT_TOKEN
  if (token === "")
    throw new ServeError("SYNAPSE_JAVASCRIPT_TOKEN is not set: this program is started by synapse.javascript")
  process.on("SIGTERM", () => process.exit(0))
  process.on("SIGINT", () => process.exit(1))
  watchParent()
  const log = (record: Log): void => {
    // What JavaScript prints is left as it is.
    const prefix = record.source === "server" ? options.logPrefix : ""
    writeLog({ ...record, message: prefix + record.message })
  }
  const threads = makeThreads(options, log)
  // One shows whether the module loads; the others start when they are needed.
  await new Promise<void>((resolve, reject) =>
    threads[0]!.start(resolve, ({ pretty }) => reject(new ServeError(`the module did not load: ${pretty}`)))
  )
  const paths = typeof options.endpoints === "number" ? threads.map(() => undefined) : options.endpoints
  process.on("exit", () => {
    for (const path of paths) if (path !== undefined) rmSync(path, { force: true })
    if (options.directory !== undefined) rmSync(options.directory, { recursive: true, force: true })
  })
  const ports = await Promise.all(threads.map((thread, i) => listen(paths[i], thread, token, options, log)))
  const shown = ports.filter((port) => port !== 0)
  process.stdout.write(`${["READY", threads.length, version, ...shown].join(" ")}\n`)
}

/**
 * Whether an error is told by its message alone.
 *
 * @internal
 */
export const isExpected = (error: unknown): error is Error =>
  error instanceof ServeError || error instanceof SignatureError
