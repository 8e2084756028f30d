import { relative, sep } from "node:path"

/** A text as one word of a shell's command line. */
export const shellWord = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`

/** A path as one is named from the current directory, which reads the same on every machine. */
export const shownPath = (path: string): string => {
  const shown = relative(process.cwd(), path).replaceAll(sep, "/")
  return shown === "" ? "." : shown
}
