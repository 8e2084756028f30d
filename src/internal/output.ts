/**
 * Turning the bytes of a process's output into lines, and keeping the last of them. Memory stays bounded whatever the
 * process writes.
 */
import { StringDecoder } from "node:string_decoder"

const maxLineLength = 65_536

/** Splits UTF-8 bytes into lines; a line over 64 KiB is passed on in pieces marked as continued. */
export class LineSplitter {
  private readonly decoder = new StringDecoder("utf8")
  private readonly onLine: (text: string, continued: boolean) => void
  private rest = ""

  constructor(onLine: (text: string, continued: boolean) => void) {
    this.onLine = onLine
  }

  push(chunk: Buffer): void {
    const text = this.rest + this.decoder.write(chunk)
    let start = 0
    for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n", start)) {
      this.emit(text.slice(start, end))
      start = end + 1
    }
    this.rest = text.slice(start)
    while (this.rest.length > maxLineLength) {
      this.onLine(this.rest.slice(0, maxLineLength), true)
      this.rest = this.rest.slice(maxLineLength)
    }
  }

  flush(): void {
    const text = this.rest + this.decoder.end()
    this.rest = ""
    if (text !== "") this.emit(text)
  }

  private emit(line: string): void {
    let text = line.endsWith("\r") ? line.slice(0, -1) : line
    while (text.length > maxLineLength) {
      this.onLine(text.slice(0, maxLineLength), true)
      text = text.slice(maxLineLength)
    }
    this.onLine(text, false)
  }
}

/** The last lines of an output. */
export class Tail {
  private readonly maxLines: number
  private readonly maxCharacters: number
  private lines: Array<string> = []

  constructor(maxLines: number, maxCharacters: number) {
    this.maxLines = maxLines
    this.maxCharacters = maxCharacters
  }

  push(line: string): void {
    this.lines.push(line.length > 1024 ? `${line.slice(0, 1024)}…` : line)
    if (this.lines.length > this.maxLines * 2) this.lines = this.lines.slice(-this.maxLines)
  }

  text(): string {
    const text = this.lines.slice(-this.maxLines).join("\n")
    return text.length > this.maxCharacters ? text.slice(-this.maxCharacters) : text
  }
}
