/** Durations as people write them in a shell. */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"

const units: Readonly<Record<string, number>> = { "": 1000, ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000 }

/** `30`, `"30 seconds"`, `1.5s`, `500ms`. A number alone is of seconds. Nothing for what is no duration above zero. */
export const parseDuration = (text: string): Option.Option<Duration.Duration> => {
  const short = /^(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|)$/.exec(text.trim())
  const duration =
    short === null
      ? Duration.fromInput(text.trim() as Duration.Input)
      : Option.some(Duration.millis(Number(short[1]) * units[short[2]!]!))
  return Option.filter(duration, (duration) => Duration.toMillis(duration) > 0)
}
