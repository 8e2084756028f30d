/**
 * A stream of Arrow's IPC format, which the codec carries without a look inside: extension 4.
 *
 * It consists of one piece or of several, so that nobody has to join what a writer gives one after the other.
 */
export class ArrowStream {
  readonly pieces: ReadonlyArray<Uint8Array>
  readonly byteLength: number

  constructor(pieces: ReadonlyArray<Uint8Array>) {
    this.pieces = pieces
    this.byteLength = pieces.reduce((sum, piece) => sum + piece.length, 0)
  }
}

/** In the head of a value in shared memory, where that of an array has its element type. */
export const arrowElement = 0x80
