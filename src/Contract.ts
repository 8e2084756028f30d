/**
 * What the handlers of a module take, give and raise, as data that belongs to neither language.
 *
 * Python describes its handlers this way from their annotations (`Hello.contract`), an `RpcGroup` is described this way
 * from its schemas. The two are compared when a layer starts, and each is the source from which code for the other side
 * is generated.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as RpcGroup from "effect/rpc/RpcGroup"
import { protocolError } from "./internal/connectionEnd.ts"
import { decodeContract } from "./internal/contractDecode.ts"
import { driftOf } from "./internal/contractDrift.ts"
import { contractOfGroup } from "./internal/contractOfGroup.ts"
import type { SynapseError } from "./SynapseError.ts"

/**
 * A constant of a type: what a `Literal` or a member of an `Enum` is. Integers past 2^53 are bigints.
 *
 * @category models
 * @since 0.1.0
 */
export type Constant = string | number | bigint | boolean | null

/**
 * The bounds of a number. `multipleOf` is not negative.
 *
 * @category models
 * @since 0.1.0
 */
export interface Bounds {
  readonly minimum?: number | bigint
  readonly exclusiveMinimum?: number | bigint
  readonly maximum?: number | bigint
  readonly exclusiveMaximum?: number | bigint
  readonly multipleOf?: number | bigint
}

/**
 * The bounds of a length: of text in characters, of bytes, of the items of a list, of the entries of a map.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lengths {
  readonly minLength?: number
  readonly maxLength?: number
}

/**
 * The type of a value as it travels, with what Python makes of it where that is more than the wire tells.
 *
 * **Details**
 *
 * - `unknown`: `Any`, `object`, no annotation.
 * - `integer`: an `int` that TypeScript takes as a safe `number`. `int64`: one that may be past 2^53, a `bigint`
 *   (`synapse.Int64`, `numpy.int64`, bounds beyond 2^53).
 * - `number`: a `float`.
 * - `datetime`: `aware` is true where it has a time zone (an instant), false where it has none (ISO 8601 text), null
 *   where it may have one.
 * - `date`, `time`, `decimal`, `uuid`: text. `duration`: ISO 8601 text.
 * - `list`: `list`, `set`, `frozenset`, `Sequence`, `tuple[X, ...]`; `unique` where Python has a set.
 * - `tuple`: of fixed length. `map`: a `dict`.
 * - `ndarray`: `dtype` is the name that numpy gives it (`"float64"`), null where any is taken; `dimensions` is how many
 *   axes it has, null where any number is taken.
 * - `table`: Arrow. `handle`: a `synapse.Handle`. `stream`: an input stream.
 * - `ref`: the definition of that name; `arguments` are the types of its parameters.
 * - `parameter`: inside the definition of a generic, one of its parameters.
 *
 * @category models
 * @since 0.1.0
 */
export type Type =
  | { readonly kind: "unknown" | "null" | "boolean" | "date" | "time" | "duration" | "decimal" | "uuid" }
  | { readonly kind: "table" | "handle" }
  | ({ readonly kind: "integer" | "int64" | "number" } & Bounds)
  | ({ readonly kind: "string"; readonly pattern?: string } & Lengths)
  | ({ readonly kind: "bytes" } & Lengths)
  | { readonly kind: "datetime"; readonly aware: boolean | null }
  | { readonly kind: "literal"; readonly values: ReadonlyArray<Constant> }
  | ({ readonly kind: "list"; readonly items: Type; readonly unique?: boolean } & Lengths)
  | { readonly kind: "tuple"; readonly items: ReadonlyArray<Type> }
  | ({ readonly kind: "map"; readonly keys: Type; readonly values: Type } & Lengths)
  | { readonly kind: "union"; readonly members: ReadonlyArray<Type> }
  | { readonly kind: "ndarray"; readonly dtype: string | null; readonly dimensions: number | null }
  | { readonly kind: "stream"; readonly items: Type }
  | { readonly kind: "ref"; readonly name: string; readonly arguments?: ReadonlyArray<Type> }
  | { readonly kind: "parameter"; readonly name: string }

/**
 * Where something is written: a path relative to the module's directory where it lies in it, and the line, from 1.
 *
 * @category models
 * @since 0.1.0
 */
export interface Place {
  readonly file: string
  readonly line: number
}

/**
 * A parameter of a handler or a field of a structure.
 *
 * **Details**
 *
 * `name` is the key on the wire. A field that is not `required` may be missing; `default` is what Python then takes, and
 * is left out where that is no constant (a factory, a structure). `always` is true where Python nevertheless sends it
 * always: a dataclass has all of its fields, a `TypedDict` may not.
 *
 * @category models
 * @since 0.1.0
 */
export interface Field {
  readonly name: string
  readonly type: Type
  readonly required: boolean
  readonly default?: Constant
  readonly always?: boolean
  readonly doc?: string
}

/**
 * A type with a name.
 *
 * **Details**
 *
 * - `struct`: a dataclass, `TypedDict`, msgspec struct or pydantic model: a map with these keys. `tag` is the key and
 *   the constant that tell it from other members of a union; it is not repeated in `fields`. `parameters` are the names
 *   of a generic's parameters. `open` where further keys are taken.
 * - `record`: a `NamedTuple` or an array-like struct: an array with these items in order.
 * - `error`: a `synapse.Error`; its tag `_tag` is the name. `fields` include `message` only where Python sends one.
 * - `enum`: `members` in their order.
 * - `alias`: a `NewType`, or a type alias with a name of its own.
 *
 * @category models
 * @since 0.1.0
 */
export type Definition = { readonly doc?: string; readonly place?: Place } & (
  | {
      readonly kind: "struct"
      readonly fields: ReadonlyArray<Field>
      readonly tag?: { readonly field: string; readonly value: Constant }
      readonly parameters?: ReadonlyArray<string>
      readonly open?: boolean
    }
  | { readonly kind: "record"; readonly fields: ReadonlyArray<Field>; readonly parameters?: ReadonlyArray<string> }
  | { readonly kind: "error"; readonly fields: ReadonlyArray<Field> }
  | { readonly kind: "enum"; readonly members: ReadonlyArray<{ readonly name: string; readonly value: Constant }> }
  | { readonly kind: "alias"; readonly type: Type; readonly parameters?: ReadonlyArray<string> }
)

/**
 * What a handler takes: nothing, one value as the whole payload (`required` is false where it has a default), or a map
 * whose keys are its parameters; `rest` is the type of `**kwargs`.
 *
 * @category models
 * @since 0.1.0
 */
export type Payload =
  | { readonly kind: "none" }
  | { readonly kind: "whole"; readonly type: Type; readonly required: boolean }
  | { readonly kind: "fields"; readonly fields: ReadonlyArray<Field>; readonly rest?: Type }

/**
 * One handler. `success` is what it returns, for a stream the type of an item; `raises` names definitions of errors.
 *
 * @category models
 * @since 0.1.0
 */
export interface Method {
  readonly doc?: string
  readonly place?: Place
  readonly payload: Payload
  readonly success: Type
  readonly stream: boolean
  readonly raises: ReadonlyArray<string>
}

/**
 * A type that could not be described. It stands as `unknown` in the contract; `method` and `path` say where
 * (`"embed"`, `"parameter text"`; `"return"`; `"Job.options"`).
 *
 * @category models
 * @since 0.1.0
 */
export interface Problem {
  readonly method: string
  readonly path: string
  readonly message: string
  readonly place?: Place
}

/**
 * All handlers of a module, and the definitions they use.
 *
 * @category models
 * @since 0.1.0
 */
export interface Contract {
  readonly version: 1
  readonly methods: { readonly [name: string]: Method }
  readonly definitions: { readonly [name: string]: Definition }
  readonly problems: ReadonlyArray<Problem>
}

/**
 * Something that the two sides of a contract do not agree on.
 *
 * @category models
 * @since 0.1.0
 */
export interface Drift {
  readonly method: string
  /**
   * Where: `""` for the handler as a whole, `".text"` for a parameter and `".options.mode"` for what lies in it,
   * `"return"`, `"return[].id"`, `"raises NotFound.id"`.
   */
  readonly path: string
  /** What does not fit, with the names of both and the place. */
  readonly message: string
  /** Where Python says it. */
  readonly place?: Place
}

/**
 * Reads the contract that a worker describes itself with.
 *
 * **Details**
 *
 * It comes from another process: how deep types nest, how many there are and how long texts are is bounded, keys that are
 * not known are left out, and records have no prototype. Fails with `ProtocolError`, which says where it is wrong.
 *
 * @category decoding
 * @since 0.1.0
 */
export const decode = (input: unknown): Effect.Effect<Contract, SynapseError> =>
  Effect.try({ try: () => decodeContract(input), catch: protocolError })

/**
 * The contract of an `RpcGroup`: what its schemas make travel.
 *
 * **Details**
 *
 * Types are those of the encoded form (`SchemaMsgpack`). A schema with an `identifier` is a definition of that name, without
 * what stands before the last slash; a structure without one is called by its tag, or by where it stands. An error is
 * called by its `_tag`. What has no form in Python stands as `unknown`, with a problem that says why.
 *
 * **Example** (The contract of one function)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Rpc, RpcGroup } from "effect/rpc"
 * import { Contract } from "effect-synapse"
 *
 * const Embedder = RpcGroup.make(
 *   Rpc.make("embed", { payload: { text: Schema.String }, success: Schema.Array(Schema.Finite) })
 * )
 *
 * console.log(Contract.fromGroup(Embedder).methods.embed?.success) // { kind: 'list', items: { kind: 'number' } }
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromGroup: (group: RpcGroup.Any) => Contract = contractOfGroup

/**
 * What of the handlers of `python` does not fit the functions of `typescript`; nothing where they fit.
 *
 * **Details**
 *
 * Python has to take whatever TypeScript may send, and TypeScript whatever Python may return, stream or raise. A receiver
 * may take more than is sent: `number` for an `int`, a wider union, fields and handlers that nobody asks for. A structure of
 * Python that is not `open` refuses keys that it does not have. `unknown` fits everything. Bounds, lengths and patterns are not compared, nor is a text with what is made of it (a UUID, a date): each
 * value meets them anyway.
 *
 * **Example** (A drift)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Rpc, RpcGroup } from "effect/rpc"
 * import { Contract } from "effect-synapse"
 *
 * const wanted = Contract.fromGroup(RpcGroup.make(Rpc.make("embed", { payload: { text: Schema.String } })))
 * const found = Contract.fromGroup(RpcGroup.make(Rpc.make("embed", { payload: { text: Schema.Int } })))
 *
 * console.log(Contract.compare(wanted, found)[0]?.message) // `embed.text`: TypeScript says string, Python says int
 * ```
 *
 * @category comparing
 * @since 0.1.0
 */
export const compare: (typescript: Contract, python: Contract) => ReadonlyArray<Drift> = driftOf
