import { readFileSync } from "node:fs"
import { assert, describe, it } from "vitest"
import * as LargePages from "../src/internal/largePages.ts"

/** How many bytes of this process may be in large pages, because that was asked for. */
const advised = (): number => {
  let bytes = 0
  for (const area of readFileSync("/proc/self/smaps", "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    if (/^VmFlags:.* hg\b/m.test(area)) bytes += Number(/^Size: +(\d+) kB/m.exec(area)?.[1]) * 1024
  }
  return bytes
}

const knows = process.platform === "linux" && readFileSync("/proc/self/smaps", "utf8").includes("VmFlags:")

describe("large pages", () => {
  it.skipIf(!knows)("are asked for, for all of the memory and no other", async () => {
    const before = advised()
    const bytes = Buffer.allocUnsafeSlow(64 * 1024 * 1024)
    await LargePages.ask(bytes)
    const asked = advised() - before
    assert.isAtLeast(asked, bytes.length - 2 * 4096)
    assert.isAtMost(asked, bytes.length + 2 * 4096)
    bytes.fill(1)
    assert.strictEqual(bytes[bytes.length - 1], 1)
  })

  it("are not asked for where there is no whole page", async () => {
    await LargePages.ask(new Uint8Array(0))
    await LargePages.ask(new Uint8Array(100))
  })
})
