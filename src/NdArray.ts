/**
 * Arrays of numbers with a shape, as numpy knows them.
 *
 * Typed arrays and {@link NdArray} values travel as raw elements: no loop over the numbers on either side, no loss of
 * precision, and the element type arrives as it left. A one-dimensional array comes back from Python as the typed array
 * of its element type, any other as an {@link NdArray}.
 *
 * The schemas of this module decode both: {@link Float64Array} and its siblings for one dimension, {@link schema} for
 * any number of them.
 *
 * @since 0.1.0
 */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { contractAnnotation, type Described } from "./internal/contractAnnotation.ts"
import { elementsOf, type Random, randomOf, Seeds } from "./internal/randomArrays.ts"

const TypeId = "~effect-synapse/NdArray"

/**
 * The element types, by numpy's names. `int64` and `uint64` hold bigints.
 *
 * @category models
 * @since 0.1.0
 */
export type DType =
  | "bool"
  | "int8"
  | "uint8"
  | "int16"
  | "uint16"
  | "int32"
  | "uint32"
  | "int64"
  | "uint64"
  | "float32"
  | "float64"

/**
 * The typed array that holds the elements of each {@link DType}. A `bool` is a byte that is 0 or 1.
 *
 * @category models
 * @since 0.1.0
 */
export interface DataOf {
  readonly bool: globalThis.Uint8Array
  readonly int8: globalThis.Int8Array
  readonly uint8: globalThis.Uint8Array
  readonly int16: globalThis.Int16Array
  readonly uint16: globalThis.Uint16Array
  readonly int32: globalThis.Int32Array
  readonly uint32: globalThis.Uint32Array
  readonly int64: globalThis.BigInt64Array
  readonly uint64: globalThis.BigUint64Array
  readonly float32: globalThis.Float32Array
  readonly float64: globalThis.Float64Array
}

/**
 * A typed array that an {@link NdArray} can hold.
 *
 * @category models
 * @since 0.1.0
 */
export type TypedArray = DataOf[DType]

/**
 * An n-dimensional array.
 *
 * **Details**
 *
 * `data` holds the elements in C order: the last index moves fastest. `shape` is empty for a scalar.
 *
 * @category models
 * @since 0.1.0
 */
export interface NdArray<out D extends DType = DType> {
  readonly [TypeId]: typeof TypeId
  readonly dtype: D
  readonly shape: ReadonlyArray<number>
  readonly data: DataOf[D]
}

interface DTypes {
  readonly Int8Array: "int8"
  readonly Uint8Array: "uint8"
  readonly Int16Array: "int16"
  readonly Uint16Array: "uint16"
  readonly Int32Array: "int32"
  readonly Uint32Array: "uint32"
  readonly BigInt64Array: "int64"
  readonly BigUint64Array: "uint64"
  readonly Float32Array: "float32"
  readonly Float64Array: "float64"
}

const dtypes: DTypes = {
  Int8Array: "int8",
  Uint8Array: "uint8",
  Int16Array: "int16",
  Uint16Array: "uint16",
  Int32Array: "int32",
  Uint32Array: "uint32",
  BigInt64Array: "int64",
  BigUint64Array: "uint64",
  Float32Array: "float32",
  Float64Array: "float64"
}

/**
 * The element type of a typed array.
 *
 * @category models
 * @since 0.1.0
 */
export type DTypeOf<A extends TypedArray> = DTypes[A[typeof Symbol.toStringTag]]

/**
 * Returns `true` for the typed arrays that travel as they are: all but `Uint8ClampedArray` and `Float16Array`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isTypedArray = (u: unknown): u is TypedArray =>
  ArrayBuffer.isView(u) && Object.hasOwn(dtypes, Object.prototype.toString.call(u).slice(8, -1))

/**
 * The element type of a typed array.
 *
 * @category accessors
 * @since 0.1.0
 */
export const dtypeOf = <A extends TypedArray>(data: A): DTypeOf<A> => {
  const name: A[typeof Symbol.toStringTag] = data[Symbol.toStringTag]
  return dtypes[name]
}

class NdArrayImpl implements NdArray {
  readonly dtype: DType
  readonly shape: ReadonlyArray<number>
  readonly data: TypedArray
  constructor(dtype: DType, shape: ReadonlyArray<number>, data: TypedArray) {
    this.dtype = dtype
    this.shape = shape
    this.data = data
  }
  get [TypeId](): typeof TypeId {
    return TypeId
  }
}

const lengthOf = (shape: ReadonlyArray<number>): number => shape.reduce((product, n) => product * n, 1)

const isDimension = (n: number): boolean => Number.isInteger(n) && n >= 0 && n < 2 ** 32

/**
 * Makes an array of a shape from its elements, which are not copied.
 *
 * **Details**
 *
 * The element type is that of the typed array; a `Uint8Array` holds booleans when `dtype` says `"bool"`. Throws a
 * `RangeError` when the shape does not hold exactly these elements.
 *
 * **Example** (A matrix of two rows)
 *
 * ```ts
 * import { NdArray } from "effect-synapse"
 *
 * const matrix = NdArray.make(Float64Array.of(1, 2, 3, 4, 5, 6), [2, 3])
 *
 * console.log(matrix.dtype, NdArray.toNested(matrix)) // float64 [ [ 1, 2, 3 ], [ 4, 5, 6 ] ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  (data: globalThis.Uint8Array, shape: ReadonlyArray<number>, dtype: "bool"): NdArray<"bool">
  <A extends TypedArray>(data: A, shape: ReadonlyArray<number>): NdArray<DTypeOf<A>>
  (data: TypedArray, shape: ReadonlyArray<number>, dtype: DType): NdArray
} = (data: TypedArray, shape: ReadonlyArray<number>, dtype: DType = dtypeOf(data)): NdArray<never> => {
  const found: DType = dtypeOf(data)
  if (dtype !== found && !(dtype === "bool" && found === "uint8")) {
    throw new RangeError(`an array of ${dtype} cannot hold the elements of a ${data[Symbol.toStringTag]}`)
  }
  if (shape.length > 32 || !shape.every(isDimension) || lengthOf(shape) !== data.length) {
    throw new RangeError(`${data.length} elements do not fill the shape [${shape.join(", ")}]`)
  }
  return new NdArrayImpl(dtype, shape, data) as NdArray<never>
}

/**
 * Makes a one-dimensional array of a typed array's elements, which are not copied.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromTypedArray = <A extends TypedArray>(data: A): NdArray<DTypeOf<A>> => make(data, [data.length])

/**
 * Returns `true` for an {@link NdArray}.
 *
 * @category guards
 * @since 0.1.0
 */
export const isNdArray = (u: unknown): u is NdArray => Predicate.hasProperty(u, TypeId)

/**
 * The elements as plain nested arrays of one level per dimension: numbers, bigints or booleans by the element type.
 * A scalar (no dimensions) is the element itself.
 *
 * @category converting
 * @since 0.1.0
 */
export const toNested = (self: NdArray): unknown => {
  let next = 0
  const level = (dimension: number): unknown => {
    const length = self.shape[dimension]
    if (length === undefined) {
      const element = self.data[next++]
      return self.dtype === "bool" ? element !== 0 : element
    }
    return Array.from({ length }, () => level(dimension + 1))
  }
  return level(0)
}

// What the wire carries as it is: the derivation of a codec finds no link to follow.
const native = { toCodecJson: (): undefined => undefined }

/**
 * What {@link schema} asks of an array.
 *
 * @category models
 * @since 0.1.0
 */
export interface SchemaOptions<D extends DType = DType> {
  /** The element type; any when absent. */
  readonly dtype?: D | undefined
  /** The number of dimensions; any when absent. */
  readonly ndim?: number | undefined
  /** The length of each dimension, `null` where it may be any. */
  readonly shape?: ReadonlyArray<number | null> | undefined
}

const fits = (array: NdArray, { dtype, ndim, shape }: SchemaOptions): boolean =>
  (dtype === undefined || array.dtype === dtype) &&
  (ndim === undefined || array.shape.length === ndim) &&
  (shape === undefined ||
    (array.shape.length === shape.length && shape.every((n, i) => n === null || n === array.shape[i])))

const expected = ({ dtype, ndim, shape }: SchemaOptions): string =>
  `an array of ${dtype ?? "any element type"}` +
  (shape !== undefined
    ? ` with shape [${shape.map((n) => n ?? "any").join(", ")}]`
    : ndim !== undefined
      ? ` with ${ndim} dimension${ndim === 1 ? "" : "s"}`
      : "")

const numbersOf = (data: TypedArray): ReadonlyArray<number> => Array.from<number | bigint, number>(data, Number)

const describe = (dtype: DType | undefined, dimensions: number | undefined): Described => ({
  type: { kind: "ndarray", dtype: dtype ?? null, dimensions: dimensions ?? null }
})

const Wire = Schema.declare((u): u is NdArray | TypedArray => isNdArray(u) || isTypedArray(u), {
  expected: "an array (numpy.ndarray or array.array)",
  ...native
})

/**
 * The schema of an n-dimensional array, of any element type and shape or of those given.
 *
 * **Details**
 *
 * One-dimensional arrays become an {@link NdArray} too, where {@link Float64Array} and its siblings give a typed array.
 *
 * **Example** (A handler that returns an image)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { NdArray, SchemaMsgpack } from "effect-synapse"
 *
 * const Image = NdArray.schema({ dtype: "uint8", shape: [null, null, 3] })
 * const pixels = NdArray.make(new Uint8Array(2 * 2 * 3), [2, 2, 3])
 *
 * const decoded = Schema.decodeUnknownSync(SchemaMsgpack.toCodecMsgpack(Image))(pixels)
 *
 * console.log(decoded.shape) // [ 2, 2, 3 ]
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const schema = <D extends DType = DType>(options: SchemaOptions<D> = {}): Schema.declare<NdArray<D>> =>
  Schema.declare((u): u is NdArray<D> => isNdArray(u) && fits(u, options), {
    expected: expected(options),
    [contractAnnotation]: describe(options.dtype, options.shape?.length ?? options.ndim),
    toCodecArbitrary: () =>
      Schema.link<NdArray<D>>()(
        randomOf(options),
        SchemaTransformation.transform({
          decode: ({ dtype, seeds, shape }: Random) =>
            make(elementsOf(dtype, lengthOf(shape), seeds), shape, dtype) as NdArray as NdArray<D>,
          encode: ({ data, dtype, shape }: NdArray<D>): Random => ({ dtype, shape, seeds: numbersOf(data) })
        })
      ),
    toCodecJson: () =>
      Schema.link<NdArray>()(
        Wire,
        SchemaTransformation.transform({
          decode: (wire: NdArray | TypedArray): NdArray => (isNdArray(wire) ? wire : fromTypedArray(wire)),
          encode: (array: NdArray): NdArray | TypedArray => array
        })
      )
  })

const typedArray = <A extends TypedArray>(name: A[typeof Symbol.toStringTag]): Schema.declare<A> =>
  Schema.declare((u): u is A => isTypedArray(u) && u[Symbol.toStringTag] === name, {
    expected: `a ${name} (a one-dimensional array of ${dtypes[name]})`,
    [contractAnnotation]: describe(dtypes[name], 1),
    toCodecArbitrary: () =>
      Schema.link<A>()(
        Seeds,
        SchemaTransformation.transform({
          decode: (seeds: ReadonlyArray<number>) => elementsOf(dtypes[name], seeds.length, seeds) as TypedArray as A,
          encode: (data: A) => numbersOf(data)
        })
      ),
    ...native
  })

/**
 * The schema of a one-dimensional array of `int8`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Int8Array: Schema.declare<globalThis.Int8Array> = typedArray("Int8Array")

/**
 * The schema of a one-dimensional array of `uint8`, and of bytes.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Uint8Array: Schema.declare<globalThis.Uint8Array> = typedArray("Uint8Array")

/**
 * The schema of a one-dimensional array of `int16`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Int16Array: Schema.declare<globalThis.Int16Array> = typedArray("Int16Array")

/**
 * The schema of a one-dimensional array of `uint16`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Uint16Array: Schema.declare<globalThis.Uint16Array> = typedArray("Uint16Array")

/**
 * The schema of a one-dimensional array of `int32`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Int32Array: Schema.declare<globalThis.Int32Array> = typedArray("Int32Array")

/**
 * The schema of a one-dimensional array of `uint32`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Uint32Array: Schema.declare<globalThis.Uint32Array> = typedArray("Uint32Array")

/**
 * The schema of a one-dimensional array of `int64`, which is what numpy makes of Python's integers.
 *
 * @category schemas
 * @since 0.1.0
 */
export const BigInt64Array: Schema.declare<globalThis.BigInt64Array> = typedArray("BigInt64Array")

/**
 * The schema of a one-dimensional array of `uint64`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const BigUint64Array: Schema.declare<globalThis.BigUint64Array> = typedArray("BigUint64Array")

/**
 * The schema of a one-dimensional array of `float32`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Float32Array: Schema.declare<globalThis.Float32Array> = typedArray("Float32Array")

/**
 * The schema of a one-dimensional array of `float64`.
 *
 * **Example** (A reply without a loop over its numbers)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { NdArray, Synapse } from "effect-synapse"
 *
 * const Embedding = Schema.Struct({ model: Schema.String, vector: NdArray.Float64Array })
 *
 * const program = Synapse.call(Embedding, { text: "hello" }, { method: "embed" })
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const Float64Array: Schema.declare<globalThis.Float64Array> = typedArray("Float64Array")
