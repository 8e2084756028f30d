/**
 * The memory that this process shares with one worker: where large values lie that messages refer to.
 *
 * Each side owns the regions of a file of its own and counts their references; what a message refers to is held until the
 * receiver says that it needs it no more. `docs/protocol.md` has the rules.
 */
import * as Effect from "effect/Effect"
import type { Commons } from "./commons.ts"
import * as LargePages from "./largePages.ts"
import * as MemoryFile from "./memoryFile.ts"
import { CodecError, fail, littleEndian } from "./msgpack.ts"
import { type Region, Regions } from "./regions.ts"

/** How shared memory is used. */
export interface Settings {
  /** Bytes from which on a value is worth it. */
  readonly threshold: number
  /** Bytes that the values of either side may take, and that those of one message may have. */
  readonly capacity: number
}

/** Where a value of an outgoing message lies. */
export interface Reference {
  readonly serial: number
  readonly region: Region
  readonly offset: number
  readonly length: number
}

/** How an encoder sends values without their bytes. */
export interface Places {
  readonly threshold: number
  /** Writes so many bytes into memory, in one or more pieces; nothing where there is no room. */
  readonly place: (pieces: ReadonlyArray<Uint8Array>, byteLength: number) => Reference | undefined
  /** Refers to memory that the workers have already; nothing where it is other memory. */
  readonly refer: (view: ArrayBufferView) => Reference | undefined
  /** Takes back a reference that is not sent. */
  readonly drop: (reference: Reference) => void
}

/** How a decoder gets at the values that a message refers to. */
export interface Lent {
  /** Reads beside other work what would hold that up in {@link take}; nothing where nothing does. */
  readonly fetch: Effect.Effect<void> | undefined
  /** The bytes: a copy, or the memory itself where both sides have it mapped. Throws a `CodecError`. */
  readonly take: (serial: number) => Uint8Array<ArrayBuffer>
  /** They are not needed any more. */
  readonly free: () => void
}

/** Bytes of a reference, behind the payload of a frame. */
export const referenceSize = 32

/** How long nothing is in use before memory is given back to the system. */
const idleMillis = 5000

/** Copying as many bytes holds up everything else for longer than handing them to other threads takes. */
const largeBytes = 16 * 1024 * 1024

interface Claim {
  readonly region: number
  readonly offset: number
  readonly length: number
  readonly bytes: () => Uint8Array<ArrayBuffer>
  /** Where the bytes are a copy: makes it on other threads. */
  readonly copy: (() => Promise<Uint8Array<ArrayBuffer>>) | undefined
  readonly release: () => void
}

/** Messages that were dropped before anybody decoded them. */
const forgotten = new FinalizationRegistry<Claims>((claims) => claims.release())

/** The references of one message that arrived. */
class Claims {
  readonly bySerial = new Map<number, Claim>()
  /** Copies that are made already, for the first who takes them. */
  readonly fetched = new Map<Claim, Uint8Array<ArrayBuffer>>()
  fault: string | undefined
  readonly #capacity: number
  #copied = 0

  constructor(capacity: number) {
    this.#capacity = capacity
  }

  /** A value may be there as often as a message likes, and each time is a copy. */
  bytesOf(claim: Claim): Uint8Array<ArrayBuffer> {
    if (claim.copy !== undefined) this.#copied += claim.length
    if (this.#copied > this.#capacity) return tooMuch(this.#copied, this.#capacity)
    const fetched = this.fetched.get(claim)
    this.fetched.delete(claim)
    return fetched ?? claim.bytes()
  }

  get large(): ReadonlyArray<Claim> {
    const large: Array<Claim> = []
    let bytes = 0
    for (const claim of this.bySerial.values()) {
      bytes += claim.length
      if (claim.copy !== undefined && claim.length >= largeBytes && bytes <= this.#capacity) large.push(claim)
    }
    return large
  }

  /** What cannot be read says so when it is taken. */
  async fetch(large: ReadonlyArray<Claim>): Promise<void> {
    for (const claim of large) {
      const bytes = await claim.copy!().catch(() => undefined)
      if (bytes !== undefined) this.fetched.set(claim, bytes)
    }
  }

  release(): void {
    for (const { release } of this.bySerial.values()) release()
    this.bySerial.clear()
    this.fetched.clear()
  }
}

const tooMuch = (bytes: number, capacity: number): never =>
  fail("InvalidReference", `a message with ${bytes} bytes in shared memory, more than the ${capacity} of its capacity`)

class LentClaims implements Lent {
  readonly #claims: Claims

  constructor(claims: Claims) {
    this.#claims = claims
    forgotten.register(this, claims, claims)
  }

  get fetch(): Effect.Effect<void> | undefined {
    if (this.#claims.fault !== undefined) return undefined
    const { large } = this.#claims
    // Until they are read, the memory is held, whoever waits for it.
    return large.length === 0 ? undefined : Effect.uninterruptible(Effect.promise(() => this.#claims.fetch(large)))
  }

  take(serial: number): Uint8Array<ArrayBuffer> {
    const { bySerial, fault } = this.#claims
    const claim = bySerial.get(serial)
    if (fault !== undefined || claim === undefined) {
      return fail(
        "InvalidReference",
        fault ?? `a reference to shared memory with the serial ${serial}, which is not there`
      )
    }
    try {
      return this.#claims.bytesOf(claim)
    } catch (error) {
      if (error instanceof CodecError) throw error
      return fail("InvalidReference", `${claim.length} bytes of shared memory cannot be read: ${String(error)}`)
    }
  }

  free(): void {
    forgotten.unregister(this.#claims)
    this.#claims.release()
  }
}

const hostFile = 0
const workerFile = 1

/** The shared memory of one worker, for as long as its process lives. */
export class SharedMemory implements Places {
  readonly settings: Settings
  readonly #host: MemoryFile.MemoryFile
  readonly #worker: MemoryFile.MemoryFile
  readonly #commons: Commons | undefined
  readonly #regions: Regions
  /** Regions of the commons that this worker has, and how often. */
  readonly #common = new Map<Region, number>()
  /** Tells the worker that its region has a reference less. */
  onFree: (region: number) => void = () => {}
  #lastSerial = 0
  /** References of the worker's that are held here. */
  #held = 0
  #closed = false
  #idle: NodeJS.Timeout | undefined

  private constructor(
    settings: Settings,
    commons: Commons | undefined,
    host: MemoryFile.MemoryFile,
    worker: MemoryFile.MemoryFile
  ) {
    this.settings = settings
    this.#commons = commons
    this.#host = host
    this.#worker = worker
    this.#regions = new Regions(hostFile, settings.capacity)
  }

  /** Opens the files; nothing where there can be none, and messages carry their values. */
  static open(settings: Settings, commons: Commons | undefined): SharedMemory | undefined {
    if (!littleEndian) return undefined
    const host = MemoryFile.open()
    if (host === undefined) return undefined
    const worker = MemoryFile.open()
    if (worker !== undefined) return new SharedMemory(settings, commons, host, worker)
    host.close()
    return undefined
  }

  get threshold(): number {
    return this.settings.threshold
  }

  /** What the worker's process has to inherit, in the order of the files. */
  get descriptors(): ReadonlyArray<number> {
    const common = this.#commons === undefined ? [] : [this.#commons.descriptor]
    return [this.#host.fd, this.#worker.fd, ...common]
  }

  /** The process is gone. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#idle)
    for (const [region, uses] of this.#common) {
      for (let i = 0; i < uses; i++) this.#commons?.free(region)
    }
    this.#common.clear()
    this.#closeFiles()
  }

  // An answer that came before the end may be decoded after it.
  #closeFiles(): void {
    if (!this.#closed || this.#held > 0) return
    this.#host.close()
    this.#worker.close()
  }

  place(pieces: ReadonlyArray<Uint8Array>, byteLength: number): Reference | undefined {
    if (this.#closed) return undefined
    const region = this.#regions.allocate(byteLength) ?? this.#allocateAnew(byteLength)
    if (region === undefined) return undefined
    try {
      let at = region.start
      for (const piece of pieces) {
        this.#host.write(piece, at)
        at += piece.length
      }
    } catch {
      // Full: the message carries the value, and what was written of it is not in the way of others.
      this.#free(region)
      this.#empty()
      return undefined
    }
    return this.#reference(region, region.start, byteLength)
  }

  #allocateAnew(size: number): Region | undefined {
    return this.#empty() ? this.#regions.allocate(size) : undefined
  }

  refer(view: ArrayBufferView): Reference | undefined {
    const place = this.#commons?.find(view)
    if (place === undefined || this.#closed) return undefined
    this.#commons!.use(place.region)
    this.#common.set(place.region, (this.#common.get(place.region) ?? 0) + 1)
    return this.#reference(place.region, place.offset, view.byteLength)
  }

  #reference(region: Region, offset: number, length: number): Reference {
    this.#lastSerial = (this.#lastSerial + 1) >>> 0
    return { serial: this.#lastSerial, region, offset, length }
  }

  drop({ region }: Reference): void {
    this.freed(region.number)
  }

  /** The worker has a reference less to a region of this side. */
  freed(number: number): void {
    const region = this.#regions.get(number)
    if (region !== undefined) return this.#free(region)
    const common = this.#commons?.get(number)
    const uses = common === undefined ? 0 : (this.#common.get(common) ?? 0)
    if (common === undefined || uses === 0) return
    if (uses === 1) this.#common.delete(common)
    else this.#common.set(common, uses - 1)
    this.#commons!.free(common)
  }

  #free(region: Region): void {
    this.#regions.free(region)
    if (this.#regions.used > 0 || this.#closed) return
    if (this.#idle === undefined) {
      this.#idle = setTimeout(() => {
        this.#idle = undefined
        this.#empty()
      }, idleMillis).unref()
    } else this.#idle.refresh()
  }

  /** Gives all memory of this side's file back, unless some of it is in use. */
  #empty(): boolean {
    if (this.#closed || this.#regions.used > 0 || this.#regions.touched === 0) return false
    this.#host.empty()
    this.#regions.emptied()
    return true
  }

  /** Takes what a frame that arrived refers to: `table` is a list of references. */
  claim(table: Uint8Array): Lent {
    const claims = new Claims(this.settings.capacity)
    const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
    for (let at = 0; at + referenceSize <= table.length; at += referenceSize) {
      const serial = view.getUint32(at, true)
      const number = view.getUint32(at + 4, true)
      const offset = Number(view.getBigUint64(at + 16, true))
      const length = Number(view.getBigUint64(at + 24, true))
      const claim = this.#claim(number, offset, length)
      if (claim === undefined) claims.fault = `a reference to shared memory that is not there (region ${number})`
      else if (claims.bySerial.has(serial)) {
        claim.release()
        claims.fault = `two references with the serial ${serial}`
      } else claims.bySerial.set(serial, claim)
    }
    return new LentClaims(claims)
  }

  #claim(region: number, offset: number, length: number): Claim | undefined {
    if (this.#closed) return undefined
    if (Math.floor(region / 2 ** 30) === workerFile) {
      this.#held++
      return this.#copied(this.#worker, region, offset, length, () => this.onFree(region))
    }
    const own = this.#regions.get(region)
    if (own !== undefined) {
      if (own.uses === 0 || !isWithin(own, offset, length)) return undefined
      this.#held++
      this.#regions.use(own)
      return this.#copied(this.#host, region, offset, length, () => this.#free(own))
    }
    const commons = this.#commons
    const common = commons?.get(region)
    if (commons === undefined || common === undefined || common.uses === 0 || !isWithin(common, offset, length)) {
      return undefined
    }
    commons.use(common)
    const bytes = () => commons.view(common, offset, length)
    return { region, offset, length, copy: undefined, bytes, release: () => commons.free(common) }
  }

  #copied(file: MemoryFile.MemoryFile, region: number, offset: number, length: number, free: () => void): Claim {
    return {
      region,
      offset,
      length,
      bytes: () => {
        const bytes = this.#room(file, offset, length)
        file.read(bytes, offset)
        return bytes
      },
      copy: async () => {
        const bytes = this.#room(file, offset, length)
        await LargePages.ask(bytes)
        await file.readAside(bytes, offset)
        return bytes
      },
      release: () => this.#release(free)
    }
  }

  #release(then: () => void): void {
    this.#held--
    if (!this.#closed) then()
    this.#closeFiles()
  }

  /** Memory for a copy. None is asked for before it is known that there is so much to read. */
  #room(file: MemoryFile.MemoryFile, offset: number, length: number): Uint8Array<ArrayBuffer> {
    if (offset + length > file.size()) throw new RangeError("beyond the end of the file")
    const { buffer, byteOffset } = Buffer.allocUnsafeSlow(length)
    return new Uint8Array(buffer, byteOffset, length)
  }
}

const isWithin = ({ capacity, start }: Region, offset: number, length: number): boolean =>
  offset >= start && length <= capacity && offset + length <= start + capacity
