/** The modules of the corpus, and what was generated from them. */
import { fileURLToPath } from "node:url"
import type { RpcGroup } from "effect/rpc"
import { Arrays } from "./arrays.gen.ts"
import { Models } from "./models.gen.ts"
import { Streams } from "./streams.gen.ts"
import { Structures } from "./structures.gen.ts"
import { Values } from "./values.gen.ts"

export interface Module {
  readonly entrypoint: string
  readonly groupName: string
  readonly group: RpcGroup.Any
  /** The file of its golden. */
  readonly golden: string
}

export const directory = fileURLToPath(new URL("./python", import.meta.url))

const module = (entrypoint: string, groupName: string, group: RpcGroup.Any): Module => ({
  entrypoint,
  groupName,
  group,
  golden: fileURLToPath(new URL(`./${entrypoint}.gen.ts`, import.meta.url))
})

export const modules: ReadonlyArray<Module> = [
  module("arrays", "Arrays", Arrays),
  module("models", "Models", Models),
  module("streams", "Streams", Streams),
  module("structures", "Structures", Structures),
  module("values", "Values", Values)
]
