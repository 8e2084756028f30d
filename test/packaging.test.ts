/** The tarball that users get: its shape, and an empty app that installs it and works. */
import { execFile } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { mkdir } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { afterAll, assert, beforeAll, describe, it } from "vitest"

const root = fileURLToPath(new URL("../", import.meta.url))
const directory = mkdtempSync(join(tmpdir(), "synapse-app-"))
const run = (command: string, args: ReadonlyArray<string>, cwd: string) =>
  promisify(execFile)(command, args, { cwd, env: { ...process.env, NO_COLOR: "1" }, maxBuffer: 1 << 24 })

interface Packed {
  readonly filename: string
  readonly files: ReadonlyArray<{ readonly path: string }>
}

let packed: Packed
let tarball: string

beforeAll(async () => {
  // Without `prepack`, which would build anew under the feet of other tests.
  const { stdout } = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", directory], root)
  packed = JSON.parse(stdout)[0] as Packed
  tarball = join(directory, packed.filename)
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** The tarball and the packages that it needs, as they are tested. */
const dependencies = (): Readonly<Record<string, string>> => {
  const { devDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    readonly devDependencies: Readonly<Record<string, string>>
  }
  const names = ["effect", "@effect/platform-node", "@effect/platform-node-shared"]
  return Object.fromEntries([
    ["effect-synapse", `file:${tarball}`],
    ...names.map((name) => [name, devDependencies[name]!] as const)
  ])
}

describe("the package", () => {
  it("holds the build, the sources and the Python runtime, and nothing else", () => {
    const paths = packed.files.map(({ path }) => path)
    for (const path of [
      "dist/index.js",
      "dist/index.d.ts",
      "dist/internal/javascript/main.js",
      "src/Synapse.ts",
      "python/src/synapse/__main__.py",
      "python/src/synapse/javascript/__init__.py"
    ]) {
      assert.include(paths, path)
    }
    const known = /^(dist|src|python\/src\/synapse)\/|^(package\.json|README\.md|LICENSE|CHANGELOG\.md)$/
    assert.deepStrictEqual(
      paths.filter((path) => !known.test(path) || /__pycache__|\.pyc$|\.test\./.test(path)),
      []
    )
  })

  it("needs apache-arrow for nothing but effect-synapse/Arrow", () => {
    const paths = packed.files.map(({ path }) => path).filter((path) => /^dist\/.*\.(js|ts)$/.test(path))
    const using = paths.filter((path) =>
      /from "(apache-arrow|.*\/Arrow\.js)"/.test(readFileSync(join(root, path), "utf8"))
    )
    assert.deepStrictEqual(using, ["dist/Arrow.d.ts", "dist/Arrow.js"])
  })

  it("is what publint and are-the-types-wrong want", async () => {
    const lint = await run("publint", ["run", tarball, "--strict"], root)
    assert.notMatch(lint.stdout, /Warnings|Errors/)
    await run("attw", [tarball, "--profile", "esm-only"], root)
  })

  it("installs into an empty app that then calls Python, and keeps its internals to itself", async () => {
    const app = join(directory, "app")
    await mkdir(join(app, "python"), { recursive: true })
    writeFileSync(join(app, "package.json"), JSON.stringify({ type: "module", dependencies: dependencies() }))
    writeFileSync(
      join(app, "python/main.py"),
      "import synapse\n\n@synapse.handler\ndef greet(name: str) -> str:\n    return f'Hello, {name}!'\n"
    )
    writeFileSync(
      join(app, "app.ts"),
      `import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schema } from "effect"
import { Synapse } from "effect-synapse"
import * as SynapseError from "effect-synapse/SynapseError"

const program = Synapse.call(Schema.String, { name: "app" }, { method: "greet" }).pipe(
  Effect.flatMap(Console.log),
  Effect.andThen(Console.log(typeof SynapseError.isSynapseError)),
  Effect.andThen(Effect.promise(() => import("effect-synapse/internal/logs").then(() => "open", () => "closed"))),
  Effect.flatMap(Console.log)
)

program.pipe(Effect.provide(Synapse.layer({ directory: "./python" })), NodeRuntime.runMain)
`
    )
    await run("npm", ["install", "--no-audit", "--no-fund", "--prefer-offline"], app)
    const { stdout } = await run(process.execPath, ["app.ts"], app)
    assert.deepStrictEqual(stdout.trim().split("\n").slice(-3), ["Hello, app!", "function", "closed"])
  })
  it("brings a command that writes an app which runs at once", async () => {
    const app = join(directory, "new-app")
    await mkdir(app)
    writeFileSync(join(app, "package.json"), JSON.stringify({ dependencies: dependencies() }))
    await run("npm", ["install", "--no-audit", "--no-fund", "--prefer-offline"], app)
    const { stdout: written } = await run("npx", ["effect-synapse", "init"], app)
    assert.include(written, "wrote   app.mts")
    await run(join(root, "node_modules/.bin/tsc"), ["-p", "."], app)
    const { stdout } = await run("npm", ["start", "--silent"], app)
    const printed = [
      "Hello, Ada!",
      "3",
      "2",
      "1",
      "refused: `greet` failed with NameMissing: There is nobody to greet."
    ]
    assert.deepStrictEqual(stdout.trim().split("\n").slice(-5), printed)
    const called = await run("npx", ["effect-synapse", "call", "./python", "greet", "name=Alan"], app)
    assert.strictEqual(called.stdout, '"Hello, Alan!"\n')
  })
})
