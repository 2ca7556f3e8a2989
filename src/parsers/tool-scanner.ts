/** Finds the blocks of tool calls in content that comes in pieces, and lets the rest pass as early as it is certain. */
import { callsOf, jsonCalls } from './json-calls.ts'
import { JsonValueEnd, skipSpace } from './json-text.ts'
import { firstOf, heldLength, isBlank, mayGrow } from './markers.ts'
import type { ToolCall, ToolDefinition } from './output-parser.ts'
import type { BlockEnd, BlockReading, ToolFormat } from './tool-format.ts'

export interface ScannedText {
  content: string
  calls: ToolCall[]
  truncated: boolean
}

/** Most characters of one block that are held back; a longer one is content. */
export const blockLengthMax = 4 * 1024 * 1024

/** Keys with which a call that has no marker may begin. */
const callKeys = ['name', 'arguments', 'parameters', 'id', 'type', 'function']

interface OpenBlock {
  readonly start: string
  readonly end: BlockEnd
}

/** One per answer. Held back: what may become a marker, a block until its end, blanks behind a call. */
export class ToolScanner {
  /** With calls that have no marker. */
  readonly #whole: ToolFormat
  #format: ToolFormat
  readonly #tools: readonly ToolDefinition[]
  #markers: readonly string[]
  #held = ''
  #open: OpenBlock | null = null
  #called = false
  #blank = ''

  /** `bare`: also calls without a marker, from the beginning; otherwise only behind one that has it. */
  constructor(format: ToolFormat, tools: readonly ToolDefinition[], bare = true) {
    this.#whole = format
    this.#format = bare ? format : withoutBare(format)
    this.#tools = tools
    this.#markers = markersOf(this.#format)
  }

  push(text: string): ScannedText {
    const out: ScannedText = { content: '', calls: [], truncated: false }
    this.#held += text
    while (this.#held !== '' && this.#step(out));
    return this.#settled(out)
  }

  end(): ScannedText {
    const out: ScannedText = { content: '', calls: [], truncated: false }
    while (this.#held !== '') {
      while (this.#held !== '' && this.#step(out));
      if (this.#held === '') break
      const open = this.#open
      if (open === null) {
        // What might have become a marker has not: unless it is one that might have become a longer one.
        const found = firstOf(this.#held, this.#markers)
        if (found === null) {
          out.content += this.#held
          this.#held = ''
        } else this.#begin(found.marker)
        continue
      }
      this.#open = null
      this.#take(out, this.#read(open, this.#held, false))
      this.#held = ''
    }
    this.#settled(out)
    if (this.#format.keepsBlanks === true) out.content += this.#blank
    this.#blank = ''
    return out
  }

  /** False when more text is needed. */
  #step(out: ScannedText): boolean {
    if (this.#open !== null) return this.#within(out, this.#open)
    const found = firstOf(this.#held, this.#markers)
    if (found === null) {
      const kept = heldLength(this.#held, this.#markers)
      out.content += this.#held.slice(0, this.#held.length - kept)
      this.#held = this.#held.slice(this.#held.length - kept)
      return false
    }
    // A longer marker may have begun before this one and not be complete yet.
    out.content += this.#held.slice(0, found.at)
    this.#held = this.#held.slice(found.at)
    if (mayGrow(this.#held, { at: 0, marker: found.marker }, this.#markers)) return false
    this.#begin(found.marker)
    return true
  }

  #begin(marker: string): void {
    if (this.#format.strays?.includes(marker) === true) this.#held = this.#held.slice(marker.length)
    else this.#open = { start: marker, end: this.#isBare(marker) ? new BareJsonEnd() : this.#format.block(marker) }
  }

  #within(out: ScannedText, open: OpenBlock): boolean {
    const length = open.end.find(this.#held)
    if (length === 'more' && this.#held.length < blockLengthMax) return false
    this.#open = null
    if (typeof length !== 'number') {
      this.#release(out, open.start.length)
      return true
    }
    const block = this.#held.slice(0, length)
    this.#held = this.#held.slice(length)
    this.#take(out, this.#read(open, block, true))
    return true
  }

  #release(out: ScannedText, length: number): void {
    out.content += this.#held.slice(0, length)
    this.#held = this.#held.slice(length)
  }

  #read(open: OpenBlock, block: string, complete: boolean): BlockReading {
    const { bareJson } = this.#format
    if (bareJson === undefined || !this.#isBare(open.start)) return this.#format.read(block, complete, this.#tools)
    // Without a marker only what is a call beyond doubt is one.
    const calls = complete ? callsOf(block, false) : bareJson.repairs ? jsonCalls(block, { nameOnly: false, repairs: true }, true) : null
    return calls === null ? { calls: [], content: block } : { calls, content: '' }
  }

  #isBare(start: string): boolean {
    return this.#format.bareJson !== undefined && (start === '{' || start === '[')
  }

  #take(out: ScannedText, reading: BlockReading): void {
    out.content += reading.content
    if (reading.truncated === true) out.truncated = true
    if (reading.calls.length === 0) return
    this.#settled(out)
    out.content += this.#blank
    this.#blank = ''
    this.#called = true
    if (this.#format !== this.#whole) {
      this.#format = this.#whole
      this.#markers = markersOf(this.#whole)
    }
    out.calls.push(...reading.calls)
    this.#mark = out.content.length
  }

  /** Where the content begins that came behind the last call of this piece. */
  #mark = 0

  /** Blanks behind a call are held until something follows them. */
  #settled(out: ScannedText): ScannedText {
    if (!this.#called) return out
    const tail = this.#blank + out.content.slice(this.#mark)
    out.content = out.content.slice(0, this.#mark)
    if (isBlank(tail)) this.#blank = tail
    else {
      out.content += tail
      this.#blank = ''
      this.#called = false
    }
    this.#mark = 0
    return out
  }
}

const markersOf = ({ starts, strays, bareJson }: ToolFormat): readonly string[] => [...starts, ...(strays ?? []), ...(bareJson === undefined ? [] : ['{', '['])]

const withoutBare = ({ bareJson: _bare, ...format }: ToolFormat): ToolFormat => ({
  ...format, starts: format.starts, block: (start) => format.block(start), read: (block, complete, tools) => format.read(block, complete, tools),
})

/** A JSON value that may be a call. */
class BareJsonEnd implements BlockEnd {
  readonly #value = new JsonValueEnd(0)
  #plausible = false

  find(text: string): number | 'more' | 'none' {
    if (!this.#plausible) {
      const verdict = beginsLikeCall(text)
      if (verdict !== 'yes') return verdict === 'no' ? 'none' : 'more'
      this.#plausible = true
    }
    const end = this.#value.find(text)
    return end < 0 ? 'more' : end
  }
}

function beginsLikeCall(text: string): 'yes' | 'no' | 'more' {
  let at = 0
  if (text[0] === '[') {
    at = skipSpace(text, 1)
    if (at >= text.length) return 'more'
    if (text[at] !== '{') return 'no'
  }
  at = skipSpace(text, at + 1)
  if (at >= text.length) return 'more'
  if (text[at] !== '"') return 'no'
  const key = text.slice(at + 1)
  const close = key.indexOf('"')
  if (close >= 0) return callKeys.includes(key.slice(0, close)) ? 'yes' : 'no'
  return callKeys.some((each) => each.startsWith(key)) ? 'more' : 'no'
}
