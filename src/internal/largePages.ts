/**
 * Large pages for memory that is about to be filled: of a large copy, most of the time goes to the pages that it needs.
 *
 * Node cannot ask for them. Where the FFI package is installed that other parts use too, it does.
 */

const adviseHugePage = 14
const pageSize = 4096

type Ask = (bytes: Uint8Array) => void

/** Asks the system, which may have none; without the package, nothing happens. */
export const ask = async (bytes: Uint8Array): Promise<void> => {
  loading ??= load()
  ;(await loading)(bytes)
}

let loading: Promise<Ask> | undefined

const load = async (): Promise<Ask> => {
  if (process.platform !== "linux") return () => {}
  try {
    // Not known to the compiler: it is there only where somebody wants it.
    const name = "koffi"
    const libc = (await import(name)).default.load(null)
    // Returns where the memory is, which nothing else tells.
    const memset = libc.func("uint64_t memset(void *memory, int value, size_t length)")
    const madvise = libc.func("int madvise(uint64_t address, size_t length, int advice)")
    return (bytes) => {
      const address = Number(memset(bytes, 0, 0))
      const start = Math.ceil(address / pageSize) * pageSize
      const end = Math.floor((address + bytes.length) / pageSize) * pageSize
      if (end > start) madvise(start, end - start, adviseHugePage)
    }
  } catch {
    return () => {}
  }
}
