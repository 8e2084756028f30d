import { assert, describe, it } from "vitest"
import { Pipeline } from "../src/internal/pipeline.ts"

/** Answers that come one by one. */
const oneByOne = (pipeline: Pipeline, count: number, millis: number): void => {
  for (let n = 0; n < count; n++) together(pipeline, 1, millis, pipeline.depth)
}

const together = (pipeline: Pipeline, count: number, millis: number, load: number): void => {
  for (let n = 0; n < count; n++) pipeline.answered(millis)
  pipeline.settled(load)
}

describe("the depth of a worker", () => {
  it("begins with what it runs at once, grows with quick answers up to the limit, and falls back with slow ones", () => {
    const pipeline = new Pipeline(2, 64)
    assert.strictEqual(pipeline.depth, 2)
    oneByOne(pipeline, 1000, 0.1)
    assert.strictEqual(pipeline.depth, 64)
    oneByOne(pipeline, 1, 10)
    assert.strictEqual(pipeline.depth, 64)
    oneByOne(pipeline, 10, 1000)
    assert.strictEqual(pipeline.depth, 2)
  })

  it("stays as it is when late answers come all at once, as those of a worker do that had no processor", () => {
    const pipeline = new Pipeline(1, 64)
    oneByOne(pipeline, 1000, 0.1)
    together(pipeline, 60, 100, 64)
    assert.strictEqual(pipeline.depth, 64)
    // A few of many: the others take as long.
    together(pipeline, 10, 100, 64)
    assert.strictEqual(pipeline.depth, 32)
    // One alone tells nothing of a processor.
    together(pipeline, 1, 100, 1)
    assert.strictEqual(pipeline.depth, 16)
  })

  it("falls back with slow answers that come together because as many handlers run at once", () => {
    const pipeline = new Pipeline(4, 64)
    oneByOne(pipeline, 1000, 0.1)
    pipeline.stalled()
    together(pipeline, 4, 1000, 4)
    assert.strictEqual(pipeline.depth, 4)
  })

  it("falls back when nothing is answered, until most is answered at once", () => {
    const pipeline = new Pipeline(1, 64)
    oneByOne(pipeline, 1000, 0.1)
    pipeline.stalled()
    pipeline.stalled()
    assert.strictEqual(pipeline.depth, 1)
    together(pipeline, 64, 100, 64)
    assert.strictEqual(pipeline.depth, 64)
    pipeline.stalled()
    oneByOne(pipeline, 1, 100)
    together(pipeline, 2, 100, 2)
    assert.strictEqual(pipeline.depth, 1)
  })
})
