/** The files of a new app: a Python module, and a program that calls it. */

const pythonMain = `"""What the app calls. Synapse loads this module once and keeps it loaded."""

import time
from collections.abc import Iterator

import synapse


class NameMissing(synapse.Error):
    """There is nobody to greet."""

    hint: str


@synapse.handler(raises=[NameMissing])
def greet(name: str) -> str:
    """A function: one value in, one value out."""
    if not name.strip():
        raise NameMissing(hint="give a name")
    return f"Hello, {name}!"


@synapse.handler
def countdown(start: int) -> Iterator[int]:
    """A generator: its values are a stream."""
    for number in range(start, 0, -1):
        yield number
        time.sleep(0.2)
`

const requirements = `# What the module needs, one package a line, such as numpy>=2. Synapse installs it before the module starts.
`

const app = (file: string): string => `// Calls the functions of python/main.py. Run it with \`node ${file}\`.
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Schema, Stream } from "effect"
import { Synapse } from "effect-synapse"

const PythonLive = Synapse.layer({ directory: "./python" })

const greet = (name: string) => Synapse.call(Schema.String, { name }, { method: "greet", timeout: "5 seconds" })

const program = Effect.gen(function* () {
  yield* Console.log(yield* greet("Ada"))

  yield* Synapse.stream(Schema.Int, { start: 3 }, { method: "countdown" }).pipe(
    Stream.runForEach((number) => Console.log(number))
  )

  // An error that Python declares is handled by name.
  yield* greet("").pipe(
    Effect.catchReason("SynapseError", "HandlerFailed", (reason) => Console.log(\`refused: \${reason.message}\`))
  )
})

program.pipe(Effect.provide(PythonLive), NodeRuntime.runMain)
`

const tsconfig = `{
  "compilerOptions": {
    "target": "ES2024",
    "module": "NodeNext",
    "strict": true,
    "exactOptionalPropertyTypes": true,
    "verbatimModuleSyntax": true,
    "erasableSyntaxOnly": true,
    "allowImportingTsExtensions": true,
    "skipLibCheck": true,
    "noEmit": true
  }
}
`

const gitignore = `node_modules
.venv
__pycache__/
`

/** The versions that a new `package.json` asks for, by package. */
export type Dependencies = Readonly<Record<string, string>>

/** A `package.json` for an app without one. */
export const packageJson = (name: string, script: string, dependencies: Dependencies): string =>
  `${JSON.stringify({ name, private: true, type: "module", scripts: { start: script }, dependencies }, null, 2)}\n`

/** The files by their paths; `appFile` is the name of the program. */
export const filesOf = (appFile: string): Readonly<Record<string, string>> => ({
  "python/main.py": pythonMain,
  "python/requirements.txt": requirements,
  [appFile]: app(appFile),
  "tsconfig.json": tsconfig,
  ".gitignore": gitignore
})
