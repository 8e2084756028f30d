/**
 * Exceptions as data: the stack where V8 saw it, and where the source maps say that it was written.
 *
 * @internal
 */
import { findSourceMap, SourceMap } from "node:module"
import { fileURLToPath } from "node:url"
import { inspect } from "node:util"

/**
 * What a client is told of an exception; the first four fields are those of JSockD. Lines and columns start at 1.
 *
 * @internal
 */
export interface ExceptionInfo {
  readonly errorMessage: string
  readonly trace: ReadonlyArray<TraceItem>
  /** The stack as text, where V8 saw it. */
  readonly raw: string
  /** The stack as text, where it was written. */
  readonly pretty: string
  readonly kind: ExceptionKind
  readonly name: string
  readonly message: string
  /** What else the error has, where it can be written as JSON. */
  readonly properties?: unknown
}

/**
 * Who is to blame: `threw` the command; `compile` its source; `param` its parameter; `unserializable` and `serialize` its
 * value; `limit` it was stopped; `cancelled` its client; `answer` the client's answer to a message; `memory` and `exit` the
 * runtime, which ended; `start` the module.
 *
 * @internal
 */
export type ExceptionKind =
  | "threw"
  | "compile"
  | "param"
  | "unserializable"
  | "serialize"
  | "limit"
  | "cancelled"
  | "answer"
  | "memory"
  | "exit"
  | "start"

interface Place {
  readonly source: string
  readonly line: string
  readonly column: string
}

/** @internal */
export interface TraceItem extends Place {
  readonly functionName: string
  readonly mapped?: Place & { readonly functionName: string }
}

/**
 * What the runtime itself says.
 *
 * @internal
 */
export const ownException = (kind: ExceptionKind, name: string, message: string): ExceptionInfo => {
  const errorMessage = `${name}: ${message}`
  return { errorMessage, trace: [], raw: errorMessage, pretty: errorMessage, kind, name, message }
}

const maxFrames = 50
const runtimeDirectory = new URL(".", import.meta.url).href
const traces = new WeakMap<object, ReadonlyArray<TraceItem>>()
const givenMaps = new Map<string, SourceMap>()

/**
 * The source map of a module that does not name its own.
 *
 * @internal
 */
export const useSourceMap = (moduleUrl: string, json: string): void => {
  givenMaps.set(moduleUrl, new SourceMap(JSON.parse(json)))
}

/**
 * From now on the stacks of this thread are kept as data too.
 *
 * @internal
 */
export const keepTraces = (): void => {
  process.setSourceMapsEnabled(true)
  Error.prepareStackTrace = (error, sites) => {
    const trace = sites.filter(isOfTheUser).slice(0, maxFrames).map(toItem)
    traces.set(error, trace)
    return stackText(headOf(error), trace, true)
  }
}

const isOfTheUser = (site: NodeJS.CallSite): boolean => {
  const file = site.getFileName() ?? ""
  return !file.startsWith("node:") && !file.startsWith(runtimeDirectory)
}

const toItem = (site: NodeJS.CallSite): TraceItem => {
  const file = site.getFileName() ?? ""
  const line = site.getLineNumber() ?? 0
  const column = site.getColumnNumber() ?? 0
  const functionName = site.getFunctionName() ?? "<anonymous>"
  const origin = (givenMaps.get(file) ?? findSourceMap(file))?.findOrigin(line, column)
  const place = { functionName, source: pathOf(file), line: String(line), column: String(column) }
  if (origin === undefined || !("fileName" in origin)) return place
  return {
    ...place,
    mapped: {
      functionName: origin.name ?? functionName,
      source: pathOf(origin.fileName),
      line: String(origin.lineNumber),
      column: String(origin.columnNumber)
    }
  }
}

const pathOf = (file: string): string => {
  if (!file.startsWith("file:")) return file === "" ? "unknown location" : file
  try {
    return fileURLToPath(file)
  } catch {
    return file
  }
}

const stackText = (head: string, trace: ReadonlyArray<TraceItem>, mapped: boolean): string =>
  [
    head,
    ...trace.map((item) => {
      const { functionName, source, line, column } = (mapped ? item.mapped : undefined) ?? item
      return `    at ${functionName} (${source}:${line}:${column})`
    })
  ].join("\n")

/** An error may do anything when it is looked at. */
const attempt = <A>(look: () => A, otherwise: A): A => {
  try {
    return look()
  } catch {
    return otherwise
  }
}

const headOf = (error: unknown): string =>
  attempt(
    () => (error instanceof Error ? String(error) : inspect(error, { depth: 3 })),
    "an error that cannot be shown"
  )

/** @internal */
export const describe = (error: unknown, kind: ExceptionKind = "threw"): ExceptionInfo => {
  const isObject = typeof error === "object" && error !== null
  // Looking at the stack makes the trace.
  if (isObject) attempt(() => (error as { readonly stack?: unknown }).stack, undefined)
  const trace = (isObject && traces.get(error)) || []
  const errorMessage = headOf(error)
  const properties = isObject ? attempt(() => propertiesOf(error), undefined) : undefined
  return {
    errorMessage,
    trace,
    raw: stackText(errorMessage, trace, false),
    pretty: stackText(errorMessage, trace, true),
    kind,
    name: attempt(() => (error instanceof Error ? String(error.name) : "Error"), "Error"),
    message: attempt(() => (error instanceof Error ? String(error.message) : errorMessage), errorMessage),
    ...(properties === undefined ? {} : { properties })
  }
}

const propertiesOf = (error: object): unknown => {
  const json = JSON.stringify(error)
  return json === undefined || json === "{}" ? undefined : JSON.parse(json)
}
