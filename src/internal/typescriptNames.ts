/** Names in a TypeScript module for definitions that have names in Python. */

// What a declaration of that name would be an error for, or would hide from the rest of the module.
const reserved = [
  ..."break case catch class const continue debugger default delete do else enum export extends false finally for".split(
    " "
  ),
  ..."function if import in instanceof new null return super switch this throw true try typeof var void while".split(
    " "
  ),
  ..."with await yield let static implements interface package private protected public arguments eval".split(" "),
  ..."any unknown never string number boolean bigint symbol object undefined type readonly".split(" "),
  ..."Array ArrayBuffer BigInt Boolean Buffer DataView Date Error Function Infinity Intl Iterator JSON Map Math".split(
    " "
  ),
  ..."NaN Number Object Promise Proxy RangeError ReadonlyArray ReadonlyMap ReadonlySet Record Reflect RegExp".split(
    " "
  ),
  ..."Set String Symbol SyntaxError TypeError Uint8Array URL WeakMap WeakSet globalThis".split(" "),
  ..."Arrow BigDecimal DateTime Duration NdArray PythonTime Recursive Rpc RpcGroup Schema Stream Synapse".split(" ")
]

/** Whether a text can be the name of a declaration. */
export const isName = (text: string): boolean => /^[A-Za-z_$][\w$]*$/.test(text) && !reserved.includes(text)

/** How many underscores tell names apart; of more that are alike, the others are numbered. */
const maxUnderscores = 3

/** A name for each, no two the same and none of `taken`: an underscore is added to what is not free. */
export const assign = (names: Iterable<string>, taken: Iterable<string>): ReadonlyMap<string, string> => {
  const used = new Set([...reserved, ...taken])
  const assigned = new Map<string, string>()
  const tried = new Map<string, number>()
  for (const name of names) {
    const wanted = name.replaceAll(/[^\w$]+/g, "_").replace(/^(?=\d)|^$/, "_")
    let count = tried.get(wanted) ?? 0
    let free = numbered(wanted, count)
    while (used.has(free)) free = numbered(wanted, ++count)
    tried.set(wanted, count)
    used.add(free)
    assigned.set(name, free)
  }
  return assigned
}

const numbered = (name: string, count: number): string =>
  count <= maxUnderscores ? name + "_".repeat(count) : `${name}_${count}`
