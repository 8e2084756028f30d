/**
 * What the handlers of a module take, give and raise, as data that belongs to neither language.
 *
 * Python describes its handlers this way from their annotations (`Hello.contract`), an `RpcGroup` is described this way
 * from its schemas. The two are compared when a layer starts, and each is the source from which code for the other side
 * is generated.
 *
 * @since 0.1.0
 */

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
 * is left out where that is no constant (a factory, a structure).
 *
 * @category models
 * @since 0.1.0
 */
export interface Field {
  readonly name: string
  readonly type: Type
  readonly required: boolean
  readonly default?: Constant
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
