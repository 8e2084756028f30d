/** The names that somebody may have meant. */
const maxNearest = 3
const maxNames = 5
/** Of more names than this, only the first are looked at. */
const maxCompared = 1000
const minSimilarity = 0.6
/** Names longer than this are not compared. */
const maxLength = 200

/** The names closest to one that does not exist; where none is close, the first ones. */
export const nearest = (name: string, names: ReadonlyArray<string>): ReadonlyArray<string> => {
  const sorted = names.toSorted().slice(0, maxCompared)
  const close = sorted
    .map((candidate) => ({ candidate, similarity: similarityOf(name, candidate) }))
    .filter(({ similarity }) => similarity >= minSimilarity)
    .sort((a, b) => b.similarity - a.similarity)
  return close.length === 0 ? sorted.slice(0, maxNames) : close.slice(0, maxNearest).map(({ candidate }) => candidate)
}

/** The name that is close to one that does not exist; nothing where none is. */
export const closest = (name: string, names: ReadonlyArray<string>): string | undefined => {
  const [near] = nearest(name, names)
  return near !== undefined && similarityOf(name, near) >= minSimilarity ? near : undefined
}

/** From 0, nothing in common, to 1, the same. */
const similarityOf = (a: string, b: string): number =>
  a.length > maxLength || b.length > maxLength ? 0 : 1 - distance(a, b) / Math.max(a.length, b.length, 1)

/** How many characters have to be added, removed or changed. */
const distance = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(change, row[j]! + 1, next[j - 1]! + 1))
    }
    row = next
  }
  return row[b.length]!
}
