/**
 * Runs the examples of the documentation: every `ts` block of the pages and of the doc comments is type-checked and run
 * by Node, in a directory with the Python module that such examples call. A block that names a file is written
 * there first; a `py` block that does not is run by Python. Where a `text` block follows, it is what the program prints.
 */
import { execFile, execFileSync } from "node:child_process"
import { cpSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { Effect, Layer } from "effect"
import { Synapse } from "effect-synapse"
import { assert, beforeAll, describe, it } from "vitest"

const root = fileURLToPath(new URL("../", import.meta.url))
const work = join(root, ".examples")

interface Block {
  readonly language: string
  readonly title: string | undefined
  readonly code: string
}

const blocksOf = (markdown: string): ReadonlyArray<Block> =>
  Array.from(markdown.matchAll(/^```(\w+)(?: title="([^"]+)")?[^\n]*\n(.*?)^```$/gms), ([, language, title, code]) => ({
    language: language!,
    title,
    code: code!
  }))

const commentsOf = (source: string): string =>
  Array.from(source.matchAll(/\/\*\*.*?\*\//gs), ([comment]) => comment.replaceAll(/^\s*\* ?/gm, "")).join("\n")

// Tests are for a runner: of those the types are checked.
const isTest = (code: string): boolean => code.includes('from "@effect/vitest"')

interface Example {
  readonly name: string
  readonly isTest: boolean
  readonly file: string
  readonly output: string | undefined
}

const inPlace = (code: string): boolean => code.includes("Synapse.allocate")

// A program that an example only describes is run against the module of the documents.
const runnable = (code: string): string =>
  /^const program\b/m.test(code) && !code.includes("runMain") && !code.includes("runPromise")
    ? `${code}
import { Effect as Effect_ } from "effect"
import { Synapse as Synapse_ } from "effect-synapse"
const options = { directory: "./python", evaluate: true, logs: "ignore", sharedMemory: { inPlace: ${inPlace(code)} } } as const
await Effect_.runPromise(Effect_.provide(program, Synapse_.layer(options)))
`
    : code

const write = (page: string, blocks: ReadonlyArray<Block>): ReadonlyArray<Example> => {
  const directory = join(work, page.replaceAll(/[^\w]/g, "-"))
  cpSync(join(root, "test/fixtures/documents"), directory, {
    recursive: true,
    filter: (path) => !path.endsWith(".venv")
  })
  const examples: Array<Example> = []
  for (const [index, { code, language, title }] of blocks.entries()) {
    // Also an example with a name: others may import it.
    if (title !== undefined) {
      mkdirSync(dirname(join(directory, title)), { recursive: true })
      writeFileSync(join(directory, title), code)
    }
    if (language !== "ts") continue
    const file = join(directory, `${basename(title ?? "example.ts", ".ts")}-${index}.ts`)
    writeFileSync(file, runnable(code))
    const next = blocks[index + 1]
    examples.push({
      name: `${page} example ${examples.length + 1}`,
      file,
      isTest: isTest(code),
      output: next?.language === "text" ? next.code : undefined
    })
  }
  return examples
}

rmSync(work, { recursive: true, force: true })
const pages = ["README.md", ...globSync("docs/*.md", { cwd: root })]
const sources = globSync("src/*.ts", { cwd: root })
const pythonBlocks = pages.map(
  (page) =>
    [
      page,
      blocksOf(readFileSync(join(root, page), "utf8")).filter(({ language, title }) => language === "py" && !title)
    ] as const
)
const examples = [
  ...pages.map((page) => [page, blocksOf(readFileSync(join(root, page), "utf8"))] as const),
  ...sources.map((source) => [source, blocksOf(commentsOf(readFileSync(join(root, source), "utf8")))] as const)
].flatMap(([page, blocks]) => (blocks.some(({ language }) => language === "ts") ? write(page, blocks) : []))

describe("the documentation", () => {
  beforeAll(async () => {
    // What a first run says while it makes the environment is not part of the examples.
    const directory = join(root, "test/fixtures/documents/python")
    await Effect.runPromise(Effect.scoped(Layer.build(Synapse.layer({ directory, logs: "ignore" }))))
    // The command of README.md, for the example that imports what it writes.
    const command = [join(root, "dist/bin.js"), "generate", "./python", "-o", "python.gen.ts"]
    await promisify(execFile)(process.execPath, command, { cwd: join(work, "README-md") })
  })

  it("has examples", () => {
    assert.isAbove(examples.length, 0)
  })

  it("type-checks", () => {
    const config = {
      extends: "../tsconfig.json",
      compilerOptions: { noUnusedLocals: false },
      include: ["**/*.ts"],
      exclude: []
    }
    writeFileSync(join(work, "tsconfig.json"), JSON.stringify(config))
    try {
      execFileSync("tsc", ["-p", work], { cwd: root, encoding: "utf8" })
    } catch (error) {
      assert.fail((error as { stdout: string }).stdout)
    }
  })

  for (const [page, blocks] of pythonBlocks) {
    for (const [index, { code }] of blocks.entries()) {
      it(`runs: ${page} Python example ${index + 1}`, async () => {
        const env = { ...process.env, PYTHONPATH: join(root, "python/src") }
        await promisify(execFile)("python3", ["-c", code], { env })
      })
    }
  }

  for (const { file, isTest, name, output } of examples) {
    if (isTest) continue
    it(`runs: ${name}`, async () => {
      const { stdout } = await promisify(execFile)(process.execPath, [file], {
        cwd: dirname(file),
        env: { ...process.env, NO_COLOR: "1" }
      })
      if (output !== undefined) assert.strictEqual(stdout, output)
    })
  }
})
