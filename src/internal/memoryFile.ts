/** Files of memory without a name: nothing of them is left when nobody has them open any more, however that came about. */
import { randomUUID } from "node:crypto"
import * as Fs from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"

/** A file that is open to read and write. */
export interface MemoryFile {
  readonly fd: number
  /** Writes all of the bytes; throws the system's error when there is no room. */
  readonly write: (bytes: Uint8Array, offset: number) => void
  /** Fills all of the bytes from the file; throws when the file ends before. */
  readonly read: (into: Uint8Array, offset: number) => void
  /** The same on other threads, in pieces at once: where memory is new, most of the time goes to the system's pages. */
  readonly readAside: (into: Uint8Array, offset: number) => Promise<void>
  readonly size: () => number
  /** Gives all of its memory back to the system. */
  readonly empty: () => void
  readonly close: () => void
}

/** Memory, where the system has a file system of it, or else whatever temporary files are made of. */
const directories = process.platform === "linux" ? ["/dev/shm", tmpdir()] : [tmpdir()]

/** Opens a file that has no name and never had one: Linux knows how, but Node does not tell all of it. */
const withoutName = 0o20000000 | Fs.constants.O_DIRECTORY

/** Node takes less than 2 GiB at a time. */
const largestStep = 2 ** 30

/** More of Node's threads at once than the machine has processors get in each other's way. */
const readers = Math.min(availableParallelism(), 4)
const pageSize = 4096

/** Makes a file; nothing where none can be made. */
export const open = (): MemoryFile | undefined => {
  for (const directory of directories) {
    const fd = openNameless(directory) ?? openUnlinked(directory)
    if (fd !== undefined) return fromDescriptor(fd)
  }
  return undefined
}

const openNameless = (directory: string): number | undefined => {
  if (process.platform !== "linux") return undefined
  try {
    return Fs.openSync(directory, Fs.constants.O_RDWR | withoutName, 0o600)
  } catch {
    return undefined
  }
}

const openUnlinked = (directory: string): number | undefined => {
  const path = join(directory, `synapse-${randomUUID()}`)
  try {
    const fd = Fs.openSync(path, Fs.constants.O_RDWR | Fs.constants.O_CREAT | Fs.constants.O_EXCL, 0o600)
    Fs.unlinkSync(path)
    return fd
  } catch {
    return undefined
  }
}

/** The file of a descriptor, which it owns. */
export const fromDescriptor = (fd: number): MemoryFile => ({
  fd,
  write: (bytes, offset) => {
    for (let at = 0; at < bytes.length; )
      at += Fs.writeSync(fd, bytes, at, Math.min(bytes.length - at, largestStep), offset + at)
  },
  read: (into, offset) => {
    for (let at = 0; at < into.length; ) {
      const n = Fs.readSync(fd, into, at, Math.min(into.length - at, largestStep), offset + at)
      if (n === 0) throw endsBefore(offset + into.length)
      at += n
    }
  },
  readAside: async (into, offset) => {
    const size = Math.min(Math.ceil(into.length / readers / pageSize) * pageSize, largestStep)
    const pieces: Array<Promise<void>> = []
    for (let at = 0; at < into.length; at += size) {
      pieces.push(readPiece(fd, into.subarray(at, at + size), offset + at))
    }
    // None of them goes on when this is over.
    const ends = await Promise.allSettled(pieces)
    for (const end of ends) if (end.status === "rejected") throw end.reason
  },
  size: () => Fs.fstatSync(fd).size,
  empty: () => Fs.ftruncateSync(fd, 0),
  close: () => Fs.closeSync(fd)
})

const readAt = promisify(Fs.read) as (
  fd: number,
  into: Uint8Array,
  at: number,
  length: number,
  position: number
) => Promise<{ readonly bytesRead: number }>

const readPiece = async (fd: number, into: Uint8Array, offset: number): Promise<void> => {
  for (let at = 0; at < into.length; ) {
    const { bytesRead } = await readAt(fd, into, at, into.length - at, offset + at)
    if (bytesRead === 0) throw endsBefore(offset + into.length)
    at += bytesRead
  }
}

const endsBefore = (byte: number): RangeError => new RangeError(`the file ends before byte ${byte}`)
