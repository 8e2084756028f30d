/** Medians and quartiles. */

/** Between the two nearest values where none stands at the place. */
export const quantile = (values: ReadonlyArray<number>, p: number): number => {
  const sorted = [...values].sort((a, b) => a - b)
  if (sorted.length === 0) return Number.NaN
  const place = (sorted.length - 1) * p
  const below = sorted[Math.floor(place)]!
  return below + (sorted[Math.ceil(place)]! - below) * (place - Math.floor(place))
}

export const median = (values: ReadonlyArray<number>): number => quantile(values, 0.5)

export interface Spread {
  readonly median: number
  readonly low: number
  readonly high: number
}

/** The median between the quartiles. */
export const spreadOf = (values: ReadonlyArray<number>): Spread => ({
  median: median(values),
  low: quantile(values, 0.25),
  high: quantile(values, 0.75)
})

/** In an order that nobody chose. */
export const shuffled = <A>(values: ReadonlyArray<A>): ReadonlyArray<A> => {
  const result = [...values]
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1))
    ;[result[i], result[j]] = [result[j]!, result[i]!]
  }
  return result
}
