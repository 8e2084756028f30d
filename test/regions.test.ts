import { assert, describe, it } from "@effect/vitest"
import { type Region, Regions } from "../src/internal/regions.ts"

const KiB = 1024
const MiB = KiB * KiB

const take = (regions: Regions, size: number): Region => {
  const region = regions.allocate(size)
  return region ?? assert.fail(`no room for ${size} bytes`)
}

describe("the regions of a file", () => {
  it("have numbers whose upper bits are the file", () => {
    for (const file of [0, 1, 2, 3]) {
      const regions = new Regions(file, MiB)
      const [first, second] = [take(regions, 1), take(regions, 1)]
      assert.deepStrictEqual([first.number, second.number], [file * 2 ** 30, file * 2 ** 30 + 1])
      assert.strictEqual(regions.get(second.number), second)
    }
  })

  it("begin at multiples of 65,536 bytes and do not overlap", () => {
    const regions = new Regions(0, 64 * MiB)
    const taken = [1, 65_536, 65_537, 3 * MiB, 100, MiB, MiB + 1].map((size) => ({ size, region: take(regions, size) }))
    let end = 0
    for (const { region, size } of taken) {
      assert.strictEqual(region.start % 65_536, 0)
      assert.isAtLeast(region.start, end)
      assert.isAtLeast(region.capacity, size)
      end = region.start + region.capacity
    }
  })

  it("that were once too many make room for others, and no number means another place", () => {
    const dropped: Array<number> = []
    const regions = new Regions(2, 64 * MiB, ({ number }) => dropped.push(number))
    const many: Array<Region> = []
    for (let region = regions.allocate(1); region !== undefined; region = regions.allocate(1)) many.push(region)
    assert.isAbove(many.length, 1000)
    for (const region of many) {
      regions.free(region)
      regions.forget(region)
    }
    const large = take(regions, MiB)
    assert.isFalse(many.some(({ number, start }) => number === large.number || start === large.start))
    assert.lengthOf(dropped, 1)
    assert.isUndefined(regions.get(dropped[0]!))
    regions.free(large)
    regions.emptied()
    const next = take(regions, 1)
    assert.isFalse([...many, large].some(({ number, start }) => number === next.number || start === next.start))
  })

  it("of which there are none are not found", () => {
    const regions = new Regions(1, MiB)
    const { number } = take(regions, 1)
    for (const other of [number + 1, 0, 2 ** 31, 2 ** 32 - 1]) assert.isUndefined(regions.get(other))
  })

  it("are used again, with the same number, place and capacity", () => {
    const regions = new Regions(0, 2 * MiB)
    const { capacity, number, start } = take(regions, 70_000)
    for (let n = 0; n < 100; n++) {
      const region = regions.get(number)!
      assert.isTrue(regions.free(region))
      const again = take(regions, 66_000 + n)
      assert.deepStrictEqual([again.number, again.start, again.capacity], [number, start, capacity])
    }
  })

  it("are in use for as long as there is a reference", () => {
    const regions = new Regions(0, MiB)
    const region = take(regions, 10)
    regions.use(region)
    assert.isTrue(regions.free(region))
    assert.strictEqual(regions.used, 1)
    assert.notStrictEqual(take(regions, 10), region)
    assert.isTrue(regions.free(region))
    assert.strictEqual(regions.used, 1)
    assert.strictEqual(take(regions, 10), region)
  })

  it("that are not in use cannot be given back", () => {
    const regions = new Regions(0, MiB)
    const region = take(regions, 10)
    assert.isTrue(regions.free(region))
    assert.isFalse(regions.free(region))
    assert.deepStrictEqual([region.uses, regions.used], [0, 0])
  })

  it("are taken where the least is left over", () => {
    const regions = new Regions(0, 64 * MiB)
    const sizes = [4 * MiB, 100 * KiB, MiB]
    const [, small, middle] = sizes.map((size) => take(regions, size))
    for (const number of [0, 1, 2]) regions.free(regions.get(number)!)
    assert.strictEqual(take(regions, 90 * KiB), small)
    assert.strictEqual(take(regions, 90 * KiB), middle)
  })

  it("take no more memory than they may, whatever their capacity", () => {
    const regions = new Regions(0, MiB)
    const region = take(regions, 600 * KiB)
    assert.strictEqual(regions.touched, 600 * KiB)
    assert.isUndefined(regions.allocate(500 * KiB))
    take(regions, 424 * KiB)
    assert.strictEqual(regions.touched, MiB)
    assert.isUndefined(regions.allocate(1))
    regions.free(region)
    assert.strictEqual(take(regions, 600 * KiB), region)
    assert.strictEqual(regions.touched, MiB)
  })

  it("have the memory of the largest value that was in them", () => {
    const regions = new Regions(0, MiB)
    for (const [size, touched] of [
      [70_000, 70_000],
      [66_000, 70_000],
      [80_000, 80_000]
    ] as const) {
      const region = take(regions, size)
      assert.strictEqual(regions.touched, touched)
      regions.free(region)
    }
  })

  it("that have memory are taken where there is no more of it", () => {
    const regions = new Regions(0, 1100 * KiB)
    const [large, small] = [take(regions, MiB), take(regions, 70 * KiB)]
    regions.free(large)
    regions.free(small)
    // The smaller one would fit, but only with memory that there is not.
    assert.strictEqual(take(regions, 128 * KiB), large)
    assert.isUndefined(regions.allocate(128 * KiB))
  })

  it("that are refused leave no trace", () => {
    const regions = new Regions(0, MiB)
    for (let n = 0; n < 10_000; n++) assert.isUndefined(regions.allocate(2 * MiB))
    assert.deepStrictEqual([regions.used, regions.touched, regions.get(0)], [0, 0, undefined])
  })

  it("are no more than 4096", () => {
    const regions = new Regions(0, 2 ** 40)
    for (let n = 0; n < 4096; n++) take(regions, 1)
    assert.isUndefined(regions.allocate(1))
    regions.free(regions.get(2000)!)
    assert.strictEqual(take(regions, 1).number, 2000)
  })

  it("whose memory was given back have none, and others have theirs", () => {
    const regions = new Regions(2, MiB)
    const [first, second] = [take(regions, 500 * KiB), take(regions, 100 * KiB)]
    regions.free(first)
    regions.forget(first)
    regions.forget(first)
    assert.deepStrictEqual([regions.touched, first.touched, second.touched], [100 * KiB, 0, 100 * KiB])
    take(regions, 924 * KiB)
    assert.isUndefined(regions.allocate(1))
  })

  it("of a file that was emptied have no memory, and their places still", () => {
    const regions = new Regions(0, MiB)
    const region = take(regions, 900 * KiB)
    regions.free(region)
    regions.emptied()
    assert.strictEqual(regions.touched, 0)
    assert.notStrictEqual(take(regions, 100 * KiB).start, undefined)
    assert.strictEqual(regions.touched, 100 * KiB)
  })
})
