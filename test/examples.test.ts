/** Runs the examples as a user does, and looks at what they print. Those with large dependencies are left to their users. */
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "vitest"

const root = fileURLToPath(new URL("..", import.meta.url))

const run = (name: string): Promise<{ readonly code: number | null; readonly output: string }> =>
  new Promise((resolve) => {
    let output = ""
    const child = spawn(process.execPath, [`examples/${name}/app.ts`], { cwd: root, stdio: ["ignore", "pipe", "pipe"] })
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += String(data)))
    child.on("close", (code) => resolve({ code, output }))
  })

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
  "inline-python": [
    "deviation 2\n",
    "ZeroDivisionError in app.ts, line",
    "heights: mean 1.70, deviation 0.10\n3 values\n",
    "heights is gone",
    "0 objects are held"
  ]
}

describe.concurrent("examples", () => {
  for (const [name, texts] of Object.entries(printed)) {
    it(`${name} prints what it says`, async () => {
      const { code, output } = await run(name)
      assert.strictEqual(code, 0, output)
      for (const text of texts) {
        if (typeof text === "string") assert.include(output, text)
        else assert.match(output, text)
      }
    })
  }
})
