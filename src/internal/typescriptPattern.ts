/** Regular expressions of Python as those of JavaScript. */

const word = String.raw`\p{L}\p{N}_`
const escapes: Readonly<Record<string, string>> = { A: "^", Z: "$", w: `[${word}]`, W: `[^${word}]`, a: "\\x07" }
const escapesInClass: Readonly<Record<string, string>> = { w: word, a: "\\x07" }
// What means the same in both, with the flag `u`.
const same = new Set([..."nrtfvdDsSpP0123456789^$\\.*+?()[]{}|/xu"])

/**
 * The source of a regular expression for the flag `u`, that matches where Python's `re.search` does; nothing where there
 * is none. Letters are those of Unicode, as in Python; digits are 0 to 9.
 */
export const fromPython = (pattern: string): string | undefined => {
  let out = ""
  let inClass = false
  for (let i = 0; i < pattern.length; i++) {
    const character = pattern[i]!
    if (character === "\\") {
      const next = pattern[++i]
      if (next === undefined) return undefined
      const replaced = (inClass ? escapesInClass : escapes)[next]
      if (replaced !== undefined) out += replaced
      else if (same.has(next)) out += `\\${next}`
      else if (next === "-" && inClass) out += "\\-"
      else if (/[A-Za-z]/.test(next)) return undefined
      // Python takes any other character with a backslash as itself.
      else out += next
    } else if (inClass) {
      inClass = character !== "]"
      // Alone in a class it is a character in Python.
      out += character === "[" ? "\\[" : character
    } else if (character === "[") {
      inClass = true
      out += character
      if (pattern[i + 1] === "^") out += pattern[++i]
      if (pattern[i + 1] === "]") out += `\\${pattern[++i]}`
    } else if (character === "(" && pattern[i + 1] === "?") {
      const opening = /^\(\?(:|=|!|<=|<!|P<|P=)/.exec(pattern.slice(i))?.[0]
      if (opening === undefined || opening === "(?P=") return undefined
      out += opening.replace("P", "")
      i += opening.length - 1
    } else {
      out += character === "/" ? "\\/" : character
    }
  }
  try {
    new RegExp(out, "u")
    return out
      .replaceAll("\n", "\\n")
      .replaceAll("\r", "\\r")
      .replaceAll("\u2028", "\\u2028")
      .replaceAll("\u2029", "\\u2029")
  } catch {
    return undefined
  }
}
