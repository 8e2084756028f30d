/** Random arrays, which the schemas of arrays give to those who test properties with them. */
import * as Schema from "effect/Schema"
import type { DType, SchemaOptions, TypedArray } from "../NdArray.ts"

const dtypes: ReadonlyArray<DType> = [
  "bool",
  "int8",
  "uint8",
  "int16",
  "uint16",
  "int32",
  "uint32",
  "int64",
  "uint64",
  "float32",
  "float64"
]

// Fewer numbers than elements are repeated.
export const Seeds = Schema.Array(Schema.Number).check(Schema.isMinLength(1), Schema.isMaxLength(16))

const Length = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 4 }))

/** What an array with these options can be made of. */
export interface Random {
  readonly dtype: DType
  readonly shape: ReadonlyArray<number>
  readonly seeds: ReadonlyArray<number>
}

export const randomOf = ({ dtype, ndim, shape }: SchemaOptions): Schema.Codec<Random> => {
  const lengths = shape ?? (ndim === undefined ? undefined : Array.from({ length: ndim }, () => null))
  return Schema.Struct({
    dtype: Schema.Literals(dtype === undefined ? dtypes : [dtype]),
    shape:
      lengths === undefined
        ? Schema.Array(Length).check(Schema.isMaxLength(3))
        : (Schema.Tuple(lengths.map((n) => (n === null ? Length : Schema.Literal(n)))) as Schema.Codec<
            ReadonlyArray<number>
          >),
    seeds: Seeds
  })
}

const constructors = {
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  float32: Float32Array,
  float64: Float64Array
}

export const elementsOf = (dtype: DType, length: number, seeds: ReadonlyArray<number>): TypedArray => {
  const seed = (i: number): number => seeds[i % seeds.length] ?? 0
  const integer = (i: number): bigint => BigInt(Math.trunc(Number.isFinite(seed(i)) ? seed(i) : i))
  switch (dtype) {
    case "bool":
      return Uint8Array.from({ length }, (_, i) => (seed(i) > 0 ? 1 : 0))
    case "int64":
      return BigInt64Array.from({ length }, (_, i) => BigInt.asIntN(64, integer(i)))
    case "uint64":
      return BigUint64Array.from({ length }, (_, i) => BigInt.asUintN(64, integer(i)))
    default:
      return new constructors[dtype](Array.from({ length }, (_, i) => seed(i)))
  }
}
