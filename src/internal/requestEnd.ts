/** How a request of the worker ends, and the one frame that says so. */
import { inspect } from "node:util"
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import type * as SchemaIssue from "effect/SchemaIssue"
import * as Envelope from "../Envelope.ts"
import * as SchemaMsgpack from "../SchemaMsgpack.ts"
import type { ExceptionInfo } from "../SynapseError.ts"
import { CodecError } from "./msgpack.ts"

/** A frame for the writer, which encodes it when it writes it. */
export interface Outgoing {
  readonly kind: number
  readonly id: number
  /** None when it is `undefined`. */
  readonly payload?: unknown
  /** The payload, encoded already. */
  readonly payloadBytes?: Uint8Array | undefined
  readonly meta?: object | undefined
  /** Called in place of writing the frame: with a `CodecError`, or with `Envelope.FrameTooLarge`. */
  readonly onError?: ((error: unknown) => void) | undefined
}

/** Queues a frame. Frames leave in the order in which they were queued. */
export type Post = (frame: Outgoing) => void

/** Synapse itself has a reason for which there is no answer. */
export class Refused {
  readonly _tag = "Refused"
  readonly reason: string
  readonly details: object | null
  /** Whether whoever was asked knows nothing of the request. */
  readonly rejected: boolean

  constructor(reason: string, details: object | null, rejected: boolean) {
    this.reason = reason
    this.details = details
    this.rejected = rejected
  }
}

export type RequestEnd =
  | { readonly _tag: "Success"; readonly value: unknown }
  | { readonly _tag: "Fail"; readonly error: unknown }
  | { readonly _tag: "Exception"; readonly exception: ExceptionInfo }
  | { readonly _tag: "Interrupted" }
  | Refused

export const succeeded = (value: unknown): RequestEnd => ({ _tag: "Success", value })

export const failed = (error: unknown): RequestEnd => ({ _tag: "Fail", error })

export const died = (defect: unknown): RequestEnd => ({ _tag: "Exception", exception: exceptionOf(defect) })

export const interrupted: RequestEnd = { _tag: "Interrupted" }

export const unsupported = (detail: string): Refused => new Refused("Unsupported", { detail }, true)

export const overloaded = (capacity: number): Refused => new Refused("Overloaded", { capacity }, true)

export const closed = new Refused("Closed", null, true)

export const notDecoded = (at: { readonly path: string; readonly issue: string }): Refused =>
  new Refused("DecodeFailed", issueOf(at), true)

export const notEncoded = (at: { readonly path: string; readonly issue: string }): Refused =>
  new Refused("EncodeFailed", issueOf(at), false)

export const tooLarge = ({ limit, size }: { readonly size: number; readonly limit: number }): Refused =>
  new Refused("FrameTooLarge", { size, limit }, false)

/** What an encoder says of a value that it cannot carry, which is at `place` of a larger one. */
export const notCarried = (error: unknown, place = "$"): Refused => {
  const [path, issue] = error instanceof CodecError ? [error.path, error.issue] : ["$", textOf(error)]
  return notEncoded({ path: `${place}${path.slice(1)}`, issue })
}

/** What a schema says of a value that does not fit it, which is at `place` of a larger one. */
export const notFitting = (error: SchemaIssue.Issue, place = "$"): Refused => {
  const { issue, path } = SchemaMsgpack.describeIssue(error)
  return notEncoded({ path: `${place}${path.slice(1)}`, issue })
}

const endOfCause = (cause: Cause.Cause<never>): RequestEnd => {
  const defect = Cause.findDefect(cause)
  return Result.isSuccess(defect) ? died(defect.success) : interrupted
}

/** However a fiber came to its end, the request has one. */
export const endOfExit = (exit: Exit.Exit<RequestEnd>): RequestEnd =>
  Exit.isSuccess(exit) ? exit.value : endOfCause(exit.cause)

const { Kind } = Envelope

/**
 * Queues the frame that ends a request. What cannot be carried ends it too: with what is wrong with it, and where even that
 * cannot be carried, with nothing but the end.
 */
export const postEnd = (post: Post, id: number, end: RequestEnd): void => {
  const instead = (error: unknown): void =>
    postFrame(post, id, unsendable(error), () => postFrame(post, id, interrupted, undefined))
  postFrame(post, id, end, instead)
}

const postFrame = (post: Post, id: number, end: RequestEnd, onError: ((error: unknown) => void) | undefined): void => {
  switch (end._tag) {
    case "Success":
      return post({ kind: Kind.Success, id, payload: end.value ?? null, onError })
    case "Fail":
      return post({ kind: Kind.Fail, id, payload: end.error ?? null, onError })
    case "Exception":
      return post({ kind: Kind.Die, id, payload: end.exception, onError })
    case "Interrupted":
      return post({ kind: Kind.Interrupted, id })
    case "Refused": {
      const meta = end.rejected ? { reason: end.reason, delivery: "rejected" } : { reason: end.reason }
      return post({ kind: Kind.Die, id, payload: end.details, meta, onError })
    }
  }
}

const unsendable = (error: unknown): RequestEnd =>
  error instanceof Envelope.FrameTooLarge ? tooLarge(error) : notCarried(error)

/** A defect as Python shows an exception. Its stack belongs to this side and stays there. */
const exceptionOf = (defect: unknown): ExceptionInfo => ({
  type: carried(nameOf(defect), maxNameLength),
  module: "",
  message: carried(textOf(defect), maxTextLength),
  frames: []
})

const nameOf = (defect: unknown): string => {
  if (typeof defect !== "object" || defect === null) return "Error"
  if (defect instanceof Error && defect.name !== "") return defect.name
  return "_tag" in defect && typeof defect._tag === "string" ? defect._tag : "Error"
}

/** What there is to say of a failure, whatever was thrown. */
export const textOf = (failure: unknown): string => {
  if (failure instanceof Error) return failure.message
  return typeof failure === "string" ? failure : inspect(failure, { breakLength: Number.POSITIVE_INFINITY })
}

const maxTextLength = 16_384
const maxNameLength = 256

const issueOf = ({ issue, path }: { readonly path: string; readonly issue: string }) => ({
  path: carried(path, maxTextLength),
  issue: carried(issue, maxTextLength)
})

/** What is said of a failure can be carried always. */
const carried = (text: string, length: number): string =>
  (text.length > length ? `${text.slice(0, length)}…` : text).toWellFormed()
