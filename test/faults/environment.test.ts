/** What lies around a module and must not get into it. The environments themselves: test/PythonEnvironment.test.ts. */
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs"
import { assert, describe } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Synapse } from "effect-synapse"
import { row } from "./aftermath.ts"

const setVariables = (variables: Record<string, string>) =>
  Effect.acquireRelease(
    Effect.sync(() => Object.assign(process.env, variables)),
    () =>
      Effect.sync(() => {
        for (const name of Object.keys(variables)) delete process.env[name]
      })
  )

describe("the surroundings", () => {
  row("module-hijack", { quick: true }, ({ options, path }) =>
    Effect.gen(function* () {
      for (const name of ["module", "elsewhere"]) mkdirSync(path(name))
      writeFileSync(
        path("module/main.py"),
        "import importlib, synapse\n@synapse.handler\ndef origin_of(module: str):\n    return importlib.import_module(module).__file__\n"
      )
      const hijack = ["json", "struct", "socket", "selectors", "synapse", "msgspec", "msgpack"]
      for (const name of hijack) {
        writeFileSync(path(`elsewhere/${name}.py`), "raise SystemExit('hijacked')\n")
        if (name !== "msgspec" && name !== "msgpack") {
          writeFileSync(path(`module/${name}.py`), "raise SystemExit('hijacked')\n")
        }
      }
      writeFileSync(path("elsewhere/sitecustomize.py"), "raise SystemExit('hijacked')\n")
      const variables = {
        PYTHONPATH: path("elsewhere"),
        PYTHONHOME: "/nowhere",
        PYTHONSTARTUP: path("elsewhere/json.py")
      }
      yield* setVariables(variables)
      const origin = (module: string) => Synapse.call(Schema.String, { module }, { method: "origin_of" })
      const origins = yield* Effect.forEach(["json", "struct", "synapse"], origin).pipe(
        Effect.provide(Synapse.layer(options({ directory: path("module"), env: variables })))
      )
      for (const origin of origins) assert.isFalse(origin.startsWith(path("")), origin)
    })
  )

  row("entrypoint-escape", { quick: true }, ({ options, path, see }) =>
    Effect.gen(function* () {
      mkdirSync(path("module"))
      writeFileSync(path("outside.py"), "")
      symlinkSync(path("outside.py"), path("module/link.py"))
      for (const entrypoint of ["../outside.py", "..outside", path("outside.py"), "link", "a\0b", "-c", "main; x"]) {
        const { reason } = yield* Effect.flip(
          Effect.provide(Effect.void, Synapse.layer(options({ directory: path("module"), entrypoint })))
        )
        assert(reason._tag === "ModuleNotFound", `${entrypoint}: ${reason.message}`)
        assert.strictEqual(reason.what, "entrypoint")
      }
      assert.deepStrictEqual(see(), [])
    })
  )

  row("env-leak", { quick: true }, ({ run }) =>
    Effect.gen(function* () {
      const secret = "not for everybody"
      yield* setVariables({ FAULT_SECRET: secret, AWS_SECRET_ACCESS_KEY: secret })
      const environment = yield* run({}, Synapse.call(Schema.Unknown, {}, { method: "environment" }))
      assert.notInclude(JSON.stringify(environment), secret)
      assert.notProperty(environment, "FAULT_SECRET")
    })
  )
})
