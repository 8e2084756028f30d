/** Which names of an object stand for methods in Python, where any may. */

/** Names that are looked for in objects to see what they are. */
const probed = new Set(["then", "toJSON", ...Object.getOwnPropertyNames(Object.prototype)])

/** What could be a public name in Python, and is not looked for in objects that have nothing to do with it. */
export const isMethod = (name: string | symbol): name is string =>
  typeof name === "string" && /^\p{ID_Start}\p{ID_Continue}*$/u.test(name) && !probed.has(name)
