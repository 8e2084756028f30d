import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { assert, describe, it } from "vitest"

/** What a process says that has nothing to do but to watch, for some seconds at most: here, something else would wake it. */
const watch = async (hasWaiting: boolean): Promise<string> => {
  const source = `
    import { Stall } from ${JSON.stringify(new URL("../src/internal/stall.ts", import.meta.url).href)}
    const say = (what) => { console.log(what); process.exit() }
    const patience = ${hasWaiting ? 5000 : 100}
    setTimeout(() => say("not noticed"), patience)
    // What is due with that time-out comes before it.
    const until = performance.now() + patience / 2
    new Stall(() => ${hasWaiting}, () => say(performance.now() < until ? "noticed" : "noticed late")).watch()
  `
  const args = ["--disable-warning=ExperimentalWarning", "--input-type=module", "-e", source]
  const { stdout } = await promisify(execFile)(process.execPath, args)
  return stdout.trim()
}

describe("a stall", () => {
  it("is noticed by a process that has nothing else to do", async () => {
    assert.strictEqual(await watch(true), "noticed")
  })

  it("is none where nothing waits", async () => {
    assert.strictEqual(await watch(false), "not noticed")
  })
})
