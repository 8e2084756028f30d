import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const src = fileURLToPath(new URL("./src/", import.meta.url))

export default defineConfig({
  resolve: {
    alias: [
      { find: /^effect-synapse$/, replacement: `${src}index.ts` },
      { find: /^effect-synapse\/(.*)$/, replacement: `${src}$1.ts` }
    ]
  },
  test: {
    include: ["test/**/*.test.ts"],
    // Python processes are spawned from the main thread of each test process: a parent-death signal follows the thread.
    pool: "forks",
    // At least two: the tests wait for processes more than they compute.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    globalSetup: ["test/globalSetup.ts"],
    // Bounds for what never ends, not for how fast a machine is.
    testTimeout: 240_000,
    hookTimeout: 240_000
  }
})
