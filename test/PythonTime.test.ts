import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Schema } from "effect"
import { PythonTime, SchemaMsgpack } from "effect-synapse"

const takes = (schema: Schema.String, texts: ReadonlyArray<string>): ReadonlyArray<string> =>
  texts.filter(Schema.is(schema))

describe("PythonTime", () => {
  it("takes the dates that there are", () => {
    const good = ["2024-02-29", "0001-01-01", "9999-12-31", "0099-12-31", "2000-02-29"]
    assert.deepStrictEqual(takes(PythonTime.Date, good), good)
    const bad = [
      "2023-02-29",
      "1900-02-29",
      "2024-04-31",
      "0000-01-01",
      "2024-13-01",
      "2024-1-1",
      "2024-01-01T00:00:00"
    ]
    assert.deepStrictEqual(takes(PythonTime.Date, bad), [])
  })

  it("takes times as isoformat writes them", () => {
    const good = ["00:00:00", "23:59:59.000001", "18:30:00+02:00", "18:30:00.250000-11:30", "18:30:00Z"]
    assert.deepStrictEqual(takes(PythonTime.Time, good), good)
    assert.deepStrictEqual(takes(PythonTime.Time, ["24:00:00", "18:30", "18:30:00.5", "18:30:00.000000"]), [])
  })

  it("takes datetimes without a time zone", () => {
    const good = ["2024-02-29T18:30:00", "0001-01-01T00:00:00.000001"]
    assert.deepStrictEqual(takes(PythonTime.NaiveDateTime, good), good)
    const bad = ["2024-02-29T18:30:00Z", "2024-02-29T18:30:00+00:00", "2023-02-29T18:30:00", "2024-02-29 18:30:00"]
    assert.deepStrictEqual(takes(PythonTime.NaiveDateTime, bad), [])
  })

  it.effect("tells datetimes with a time zone from those without", () =>
    Effect.gen(function* () {
      const decode = SchemaMsgpack.decode(PythonTime.AnyDateTime)
      assert.deepStrictEqual(yield* decode(new Date(0)), DateTime.makeUnsafe(0))
      assert.strictEqual(yield* decode("1970-01-01T00:00:00"), "1970-01-01T00:00:00")
      const encode = SchemaMsgpack.encode(PythonTime.AnyDateTime)
      assert.deepStrictEqual(yield* encode(DateTime.makeUnsafe(0)), new Date(0))
      assert.strictEqual(yield* encode("1970-01-01T00:00:00"), "1970-01-01T00:00:00")
    })
  )
})
