/** What a declared schema of ours is in a contract: no codec tells it from its encoded form. */
import type * as Schema from "effect/Schema"
import type { Type } from "../Contract.ts"

/** The key of the annotation, whose value is {@link Described}. */
export const contractAnnotation = "effect-synapse/contract"

/** A type, or a stream whose items have this schema. */
export type Described = { readonly type: Type } | { readonly streamOf: Schema.Top }
