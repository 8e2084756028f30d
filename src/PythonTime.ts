/**
 * The dates and times of Python that are no instants, as text that is checked.
 *
 * Python's `date`, `time` and `datetime` without a time zone travel as the text that their `isoformat` gives. An aware
 * `datetime` is an instant, and needs nothing from here: `Schema.DateTimeUtc` or `Schema.Date` take it.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

const isDay = (text: string): boolean => {
  const [year = 0, month = 0, day = 0] = text.slice(0, 10).split("-").map(Number)
  const date = new globalThis.Date(0)
  date.setUTCFullYear(year, month - 1, day)
  return year > 0 && date.getUTCDate() === day
}

const day = String.raw`\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])`
const time = String.raw`(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{6})?`
const offset = String.raw`(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)?`

// Fractions that are none are not written.
const isShortest = (text: string): boolean => !text.includes(".000000")

const text = (pattern: string, expected: string, format: string, isValid: (text: string) => boolean): Schema.String =>
  Schema.String.check(
    Schema.isPattern(new RegExp(`^${pattern}$`), { expected, format }),
    Schema.makeFilter(isValid, { expected })
  )

/**
 * A `date`: text such as `"2024-02-29"`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Date: Schema.String = text(day, `a date, as "2024-02-29"`, "date", isDay)

/**
 * A `time`: text such as `"18:30:00"` or `"18:30:00.250000+02:00"`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Time: Schema.String = text(time + offset, `a time of day, as "18:30:00"`, "time", isShortest)

/**
 * A `datetime` without a time zone: text such as `"2024-02-29T18:30:00"`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const NaiveDateTime: Schema.String = text(
  `${day}T${time}`,
  `a datetime without a time zone, as "2024-02-29T18:30:00"`,
  "naive-date-time",
  (text) => isDay(text) && isShortest(text)
)

/**
 * A `datetime` that may have a time zone: an instant where it has one, else text as of {@link NaiveDateTime}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const AnyDateTime: Schema.Union<readonly [typeof Schema.DateTimeUtc, Schema.String]> = Schema.Union([
  Schema.DateTimeUtc,
  NaiveDateTime
])
