import { assert, describe, it } from "vitest"
import { Pipeline } from "../src/internal/pipeline.ts"

describe("the depth of a worker", () => {
  it("begins with what it runs at once, grows with quick answers up to the limit, and falls back with slow ones", () => {
    const pipeline = new Pipeline(2, 64)
    assert.strictEqual(pipeline.depth, 2)
    for (let n = 0; n < 1000; n++) pipeline.answered(0.1)
    assert.strictEqual(pipeline.depth, 64)
    pipeline.answered(10)
    assert.strictEqual(pipeline.depth, 64)
    for (let n = 0; n < 10; n++) pipeline.answered(1000)
    assert.strictEqual(pipeline.depth, 2)
  })
})
