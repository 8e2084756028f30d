/** Runs the examples as a user does, and looks at what they print. Those with large dependencies are left to their users. */
import { spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { NodeServices } from "@effect/platform-node"
import { Effect } from "effect"
import { Contract } from "effect-synapse"
import { assert, describe, it } from "vitest"
import { Bank } from "../examples/typed-contract/host.ts"
import { describeModule } from "../src/internal/describeModule.ts"
import { generateTypeScript } from "../src/internal/generateTypeScript.ts"
import { pythonStubs } from "../src/internal/pythonStubs.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

const run = (...args: ReadonlyArray<string>): Promise<{ readonly code: number | null; readonly output: string }> =>
  new Promise((resolve) => {
    let output = ""
    const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"] })
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += String(data)))
    child.on("close", (code) => resolve({ code, output }))
  })

// The first of the two programs ends while the second one begins.
const chatModel = [
  "{ model: 'something' }\n{ tokenizer: 123 }\n",
  "Incremented counter: 5\n",
  /\n{ data: 'partial' }\n(.*\n)*{ data: 'results' }\n/,
  "{ model: 'gpt' }\n",
  /Streamed partial data: { data: 'partial' }\n(.*\n)*Streamed partial data: { data: 'results' }\n/,
  "the counter is 5\n"
]

const printed: Readonly<Record<string, ReadonlyArray<string | RegExp>>> = {
  hello: ["mean 2.5 of 4 values", "Ada"],
  "streaming-chat": [
    "It will rain in the morning",
    "Python and TypeScript get along \n",
    // A few more than were taken may be on their way.
    /said \d+ words/,
    "refused: `chat` failed with PromptTooLong",
    "> weather\nIt will rain",
    "Python and TypeScript get along well as long as somebody"
  ],
  "host-functions": [
    "hello Ada\nhello Alan\nnobody has the number 7\n",
    "all of them: Ada, Alan, Grace",
    "initials: GAA",
    'came back as it went: {"_tag":"NoSuchUser","id":9}'
  ],
  "from-jsockd": ["Hello World\n100\n", "all of it"],
  progress: [
    "#####............... loss 0.607\n",
    "#################### loss 0.135\nthe loss is 0.135",
    "that took too long\n",
    "stopped after",
    "and it was stopped",
    "saved after"
  ],
  "from-synapse-p2p": [
    "Publishing endpoints to namespace cryptocurrencies.bitcoin\n\nListening on 127.0.0.1:",
    "Registered Endpoints:\n- get_nodes\n- broadcast_message\n\nBackground Tasks:\n- do_stuff (5s)\n",
    "Here are the nodes I know about...\n",
    "Received: Sending your message to known nodes: hello everyone\n"
  ],
  "from-chat-model": chatModel,
  "from-chat-model-native": chatModel,
  "inline-python": [
    "deviation 2\n",
    "ZeroDivisionError in app.ts, line",
    "heights: mean 1.70, deviation 0.10\n3 values\n",
    "heights is gone",
    "0 objects are held"
  ],
  "from-hq-synapse": ["🟢 Python response: {", "Processing result from py of payload: {'foo': 'bar'}"],
  "typed-contract": [
    "26 EUR, sent to Storgatan 1\n50.62 SEK\nonly 2 of cup left\n",
    "(at $.lines[0].count)",
    "the order is packed\nthe order is sent\nthe order is there\n",
    "`track.order`: TypeScript says string, Python says int (main.py:71)"
  ]
}

describe.concurrent("examples", () => {
  for (const [name, texts] of Object.entries(printed)) {
    it(`${name} prints what it says`, async () => {
      const { code, output } = await run(`examples/${name}/app.ts`)
      assert.strictEqual(code, 0, output)
      for (const text of texts) {
        if (typeof text === "string") assert.include(output, text)
        else assert.match(output, text)
      }
    })
  }

  it("typed-contract has generated files that are up to date", async () => {
    const directory = "examples/typed-contract"
    const contract = await Effect.runPromise(
      describeModule({ directory: `${root}${directory}/python`, logs: "ignore" }).pipe(
        Effect.provide(NodeServices.layer)
      )
    )
    const command = `npx effect-synapse generate ${directory}/python -o ${directory}/python.gen.ts`
    const { source } = generateTypeScript(contract, { command })
    assert.strictEqual(source, readFileSync(`${root}${directory}/python.gen.ts`, "utf8"))
    const stubs = pythonStubs({
      command: `npx effect-synapse stubs ${directory}/host.ts -o ${directory}/python/host.py --host Bank`,
      host: Contract.fromGroup(Bank)
    }).source
    assert.strictEqual(stubs, readFileSync(`${root}${directory}/python/host.py`, "utf8"))
  })
})
