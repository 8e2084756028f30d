/**
 * Memory that this process and all workers of a runtime have mapped: nobody copies what lies in it.
 *
 * It needs an FFI package, since Node cannot map memory; what the operating system is asked for is here alone.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { StartFailed, SynapseError } from "../SynapseError.ts"
import * as MemoryFile from "./memoryFile.ts"
import { type Region, Regions } from "./regions.ts"

/** Memory, and where it lies. */
export interface Place {
  readonly region: Region
  readonly offset: number
}

export interface Commons {
  /** The file's. */
  readonly descriptor: number
  /** Memory of so many bytes, all zero, for a scope; nothing where there is no room. Its buffer is detached at the end. */
  readonly allocate: (bytes: number) => Effect.Effect<ArrayBuffer | undefined, never, Scope.Scope>
  /** Where a view lies; nothing where it is of other memory. */
  readonly find: (view: ArrayBufferView) => Place | undefined
  readonly get: (number: number) => Region | undefined
  readonly use: (region: Region) => void
  readonly free: (region: Region) => void
  /** A view of what was allocated; throws when it is not any more. */
  readonly view: (region: Region, offset: number, length: number) => Uint8Array<ArrayBuffer>
}

const commonFile = 2

/** The part of the FFI package that is used. */
interface Library {
  readonly func: <A>(prototype: string) => (...args: ReadonlyArray<unknown>) => A
}
interface Koffi {
  readonly load: (library: string | null) => Library
  readonly view: (pointer: unknown, length: number) => ArrayBuffer
}

interface System {
  /** Makes a file that cannot become smaller, which nothing that is mapped survives. */
  readonly open: () => MemoryFile.MemoryFile
  /** Makes the file larger, by memory that is there and zero. */
  readonly reserve: (fd: number, offset: number, length: number) => boolean
  /** Gives memory back to the system: where it was, there are zeros. */
  readonly discard: (fd: number, offset: number, length: number) => boolean
  readonly map: (fd: number, offset: number, length: number) => unknown
  readonly unmap: (pointer: unknown, length: number) => void
  readonly buffer: (pointer: unknown, length: number) => ArrayBuffer
}

// memfd_create: MFD_CLOEXEC, MFD_ALLOW_SEALING
const closeOnExec = 1
const allowSealing = 2
// fcntl: F_ADD_SEALS, F_SEAL_SHRINK
const addSeals = 1033
const sealShrink = 2
// mmap: PROT_READ | PROT_WRITE, MAP_SHARED
const readWrite = 3
const shared = 1
// fallocate: FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
const keepSize = 1
const punchHole = 2

const makeSystem = (koffi: Koffi): System => {
  const libc = koffi.load(null)
  const memfdCreate = libc.func<number>("int memfd_create(const char *name, unsigned int flags)")
  const fcntl = libc.func<number>("int fcntl(int fd, int command, int argument)")
  const posixFallocate = libc.func<number>("int posix_fallocate(int fd, int64_t offset, int64_t length)")
  const fallocate = libc.func<number>("int fallocate(int fd, int mode, int64_t offset, int64_t length)")
  const mmap = libc.func<unknown>(
    "void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)"
  )
  const munmap = libc.func<number>("int munmap(void *address, size_t length)")
  return {
    open: () => {
      const fd = memfdCreate("synapse", closeOnExec | allowSealing)
      if (fd < 0) throw new Error("the system gives no file of memory")
      if (fcntl(fd, addSeals, sealShrink) !== 0)
        throw new Error("the system cannot keep a file of memory from becoming smaller")
      return MemoryFile.fromDescriptor(fd)
    },
    reserve: (fd, offset, length) => posixFallocate(fd, offset, length) === 0,
    discard: (fd, offset, length) => fallocate(fd, keepSize | punchHole, offset, length) === 0,
    map: (fd, offset, length) => mmap(null, length, readWrite, shared, fd, offset),
    unmap: (pointer, length) => munmap(pointer, length),
    buffer: (pointer, length) => koffi.view(pointer, length)
  }
}

const unavailable = (detail: string): SynapseError =>
  new SynapseError({
    reason: new StartFailed({ kind: "options", detail: `The option \`sharedMemory.inPlace\` ${detail}` })
  })

const loadKoffi = Effect.tryPromise({
  try: async (): Promise<Koffi> => {
    // Not known to the compiler: it is there only where somebody wants it.
    const name = "koffi"
    const module = await import(name)
    return module.default
  },
  catch: (cause) => unavailable(`needs the package koffi: npm install koffi (${String(cause)})`)
})

/** Makes the commons of a runtime, of `capacity` bytes at most; the scope owns them. */
export const make = Effect.fnUntraced(function* (
  capacity: number
): Effect.fn.Return<Commons, SynapseError, Scope.Scope> {
  if (process.platform !== "linux")
    return yield* Effect.fail(unavailable("works on Linux only: without it, values are copied"))
  const koffi = yield* loadKoffi
  return yield* Effect.acquireRelease(
    Effect.try({
      try: () => {
        const system = makeSystem(koffi)
        return new MappedCommons(system, system.open(), capacity)
      },
      catch: (cause) => unavailable(`cannot be had here (${String(cause)}): without it, values are copied`)
    }),
    (commons) => Effect.sync(() => commons.close())
  )
})

class MappedCommons implements Commons {
  readonly #system: System
  readonly #file: MemoryFile.MemoryFile
  readonly #regions: Regions
  readonly #pointers = new Map<Region, unknown>()
  /** What is allocated. */
  readonly #buffers = new Map<Region, ArrayBuffer>()
  readonly #placeOf = new WeakMap<ArrayBufferLike, Region>()
  /** Regions whose memory could not be given back, and is not zero. */
  readonly #used = new Set<Region>()
  #closed = false

  constructor(system: System, file: MemoryFile.MemoryFile, capacity: number) {
    this.#system = system
    this.#file = file
    this.#regions = new Regions(commonFile, capacity, (region) => this.#unmap(region))
  }

  get descriptor(): number {
    return this.#file.fd
  }

  readonly allocate = (bytes: number): Effect.Effect<ArrayBuffer | undefined, never, Scope.Scope> =>
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => this.#allocate(bytes)),
        (region) => Effect.sync(() => region && this.#release(region))
      ),
      (region) => region && this.#buffers.get(region)
    )

  #allocate(bytes: number): Region | undefined {
    const size = Math.max(bytes, 1)
    const region = this.#regions.allocate(size)
    if (region === undefined) return undefined
    const pointer = this.#pointers.get(region) ?? this.#map(region)
    if (pointer === undefined || !this.#system.reserve(this.#file.fd, region.start, size)) {
      this.free(region)
      return undefined
    }
    const buffer = this.#system.buffer(pointer, bytes)
    if (this.#used.delete(region)) new Uint8Array(buffer).fill(0)
    keepHere(buffer)
    this.#buffers.set(region, buffer)
    this.#placeOf.set(buffer, region)
    return region
  }

  // For its capacity: the memory comes when it is reserved.
  #map(region: Region): unknown {
    const pointer = this.#system.map(this.#file.fd, region.start, region.capacity)
    if (pointer === null || pointer === mapFailed) return undefined
    this.#pointers.set(region, pointer)
    return pointer
  }

  #unmap(region: Region): void {
    const pointer = this.#pointers.get(region)
    if (pointer !== undefined) this.#system.unmap(pointer, region.capacity)
    this.#pointers.delete(region)
  }

  #release(region: Region): void {
    const buffer = this.#buffers.get(region)
    this.#buffers.delete(region)
    if (buffer !== undefined && !detach(buffer)) this.#pointers.delete(region)
    else this.free(region)
  }

  find(view: ArrayBufferView): Place | undefined {
    const region = this.#placeOf.get(view.buffer)
    return region && { region, offset: region.start + view.byteOffset }
  }

  get(number: number): Region | undefined {
    return this.#regions.get(number)
  }

  use(region: Region): void {
    this.#regions.use(region)
  }

  free(region: Region): void {
    if (!this.#regions.free(region) || region.uses > 0 || this.#closed) return
    if (this.#system.discard(this.#file.fd, region.start, region.capacity)) this.#regions.forget(region)
    else this.#used.add(region)
  }

  view(region: Region, offset: number, length: number): Uint8Array<ArrayBuffer> {
    const buffer = this.#buffers.get(region)
    if (buffer === undefined) throw new RangeError("the array that it is of was let go of")
    return new Uint8Array(buffer, offset - region.start, length)
  }

  close(): void {
    if (this.#closed) return
    for (const region of Array.from(this.#buffers.keys())) this.#release(region)
    for (const region of Array.from(this.#pointers.keys())) this.#unmap(region)
    this.#closed = true
    this.#file.close()
  }
}

const mapFailed = 2n ** 64n - 1n

const { transfer } = ArrayBuffer.prototype

/** Nothing should take the memory out of the buffer, which is what is known here of who uses it. */
const keepHere = (buffer: ArrayBuffer): void => {
  const refuse = (): never => {
    throw new TypeError("memory shared with Python cannot be transferred: copy it with slice()")
  }
  Object.defineProperties(buffer, { transfer: { value: refuse }, transferToFixedLength: { value: refuse } })
}

/** Leaves nothing in the buffer; `false` where its memory was taken to another thread, and stays for as long as that likes. */
const detach = (buffer: ArrayBuffer): boolean => {
  if (buffer.detached) return false
  transfer.call(buffer, 0)
  return true
}
