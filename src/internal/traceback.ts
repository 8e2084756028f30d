/** A Python exception as text, the way Python prints it. */
import type { ExceptionInfo } from "../SynapseError.ts"

/** Bounds of a rendered traceback: what a worker sends is not trusted to be small. */
const maxDepth = 10
const maxMembers = 20
const maxFrames = 200
const maxText = 8192

const clip = (text: string): string => (text.length > maxText ? `${text.slice(0, maxText)}…` : text)

/** Cause first, the exception itself last. Long texts are cut, deep chains and large groups left out. */
export const renderTraceback = (info: ExceptionInfo): string => render(info, 0).join("\n")

const render = (info: ExceptionInfo, depth: number): ReadonlyArray<string> => {
  if (depth >= maxDepth) return ["(…)"]
  const lines: Array<string> = []
  if (info.cause !== undefined) {
    lines.push(
      ...render(info.cause, depth + 1),
      "",
      "The above exception was the direct cause of the following exception:",
      ""
    )
  } else if (info.context !== undefined) {
    lines.push(
      ...render(info.context, depth + 1),
      "",
      "During handling of the above exception, another exception occurred:",
      ""
    )
  }
  if (info.frames.length > 0) lines.push("Traceback (most recent call last):")
  for (const frame of info.frames.slice(0, maxFrames)) {
    lines.push(`  File "${clip(frame.file)}", line ${frame.line}, in ${clip(frame.function)}`)
    if (frame.code !== undefined && frame.code !== "") lines.push(`    ${clip(frame.code)}`)
  }
  const framesOmitted = (info.framesOmitted ?? 0) + Math.max(0, info.frames.length - maxFrames)
  if (framesOmitted > 0) lines.push(`  (${framesOmitted} more frames)`)
  lines.push(clip(summarize(info)))
  for (const note of info.notes?.slice(0, maxMembers) ?? []) lines.push(clip(note))
  const members = info.exceptions ?? []
  for (const [index, member] of members.slice(0, maxMembers).entries()) {
    lines.push(
      `  +- ${index + 1} -`,
      ...render(member, depth + 1).map((line) => `  | ${line.replaceAll("\n", "\n  | ")}`)
    )
  }
  const membersOmitted = (info.exceptionsOmitted ?? 0) + Math.max(0, members.length - maxMembers)
  if (membersOmitted > 0) lines.push(`  +- ${membersOmitted} more -`)
  return lines
}

/** The last line of a traceback: the class and the message. */
export const summarize = (info: ExceptionInfo): string => {
  const name = info.module === "builtins" || info.module === "__main__" ? info.type : `${info.module}.${info.type}`
  return info.message === "" ? name : `${name}: ${info.message}`
}
