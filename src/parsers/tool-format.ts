/** How a family of models writes tool calls: blocks in the text, each from a marker to its end. */
import type { ToolCall, ToolDefinition } from './output-parser.ts'

/** Looks for the end of one block in text that grows. */
export interface BlockEnd {
  /** `text` begins with the block. Length of the block; `more` while it is open; `none` when this is no block after all. */
  find(text: string): number | 'more' | 'none'
}

/** What a block held. */
export interface BlockReading {
  readonly calls: readonly ToolCall[]
  /** Text that goes back into the content. */
  readonly content: string
  /** A call was lost because the output ended within it: the answer counts as cut. */
  readonly truncated?: boolean
}

export interface ToolFormat {
  /** Markers with which a block begins. */
  readonly starts: readonly string[]
  /** Markers that are dropped where they stand outside of a block. */
  readonly strays?: readonly string[]
  /** JSON objects and lists that look like calls are calls without a marker. */
  readonly bareJson?: { readonly nameOnly: boolean; readonly repairs: boolean }
  /** Blanks behind the last call stay. */
  readonly keepsBlanks?: boolean
  block(start: string): BlockEnd
  /** `complete`: the end of the block was found. */
  read(block: string, complete: boolean, tools: readonly ToolDefinition[]): BlockReading
}

export const nothingRead: BlockReading = { calls: [], content: '' }

/** The end is a marker. */
export class MarkerEnd implements BlockEnd {
  readonly #markers: readonly string[]
  readonly #longest: number
  #from: number

  constructor(markers: readonly string[], from: number) {
    this.#markers = markers
    this.#longest = Math.max(...markers.map((marker) => marker.length))
    this.#from = from
  }

  find(text: string): number | 'more' {
    let best = -1
    for (const marker of this.#markers) {
      const at = text.indexOf(marker, this.#from)
      if (at >= 0 && (best < 0 || at + marker.length < best)) best = at + marker.length
    }
    if (best >= 0) return best
    this.#from = Math.max(this.#from, text.length - this.#longest + 1)
    return 'more'
  }
}

/** Without the end marker, and without the beginning of one when the text was cut there. */
export function withoutEnd(text: string, markers: readonly string[]): string {
  for (const marker of markers) if (text.endsWith(marker)) return text.slice(0, -marker.length)
  for (const marker of markers) {
    for (let length = marker.length - 1; length > 1; length -= 1) if (text.endsWith(marker.slice(0, length))) return text.slice(0, -length)
  }
  return text
}
