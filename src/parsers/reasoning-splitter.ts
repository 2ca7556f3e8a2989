/** Splits thoughts from content in text that comes in pieces. */
import { firstOf, heldLength, mayGrow } from './markers.ts'
import type { ReasoningFormat } from './reasoning-formats.ts'

export interface SplitText {
  content: string
  reasoning: string
}

/** One per answer. Held back: what may become a marker. */
export class ReasoningSplitter {
  readonly #format: ReasoningFormat
  readonly #outside: readonly string[]
  readonly #inside: readonly string[]
  readonly #insideStarted: readonly string[]
  #within: boolean
  /** The marker that opened this thought has been seen, or the prompt held it. */
  #started: boolean
  #held = ''

  /** `within`: the answer begins within a thought. `started`: its start marker stands in the prompt. */
  constructor(format: ReasoningFormat, begin: { readonly within: boolean; readonly started: boolean }) {
    this.#format = format
    const tools = format.toolStarts ?? []
    this.#outside = [...format.starts, ...format.ends]
    this.#insideStarted = [...format.ends, ...tools]
    this.#inside = [...this.#insideStarted, ...format.starts]
    this.#within = begin.within
    this.#started = begin.started
  }

  get within(): boolean {
    return this.#within
  }

  push(text: string): SplitText {
    const out: SplitText = { content: '', reasoning: '' }
    this.#held += text
    while (this.#step(out, false));
    return out
  }

  end(): SplitText {
    const out: SplitText = { content: '', reasoning: '' }
    while (this.#step(out, true));
    this.#give(out, this.#held)
    this.#held = ''
    return out
  }

  #markers(): readonly string[] {
    if (!this.#within) return this.#outside
    return this.#started && this.#format.dropsAllStarts !== true ? this.#insideStarted : this.#inside
  }

  #step(out: SplitText, ended: boolean): boolean {
    const markers = this.#markers()
    const found = firstOf(this.#held, markers)
    if (found === null) {
      const kept = heldLength(this.#held, markers)
      this.#give(out, this.#held.slice(0, this.#held.length - kept))
      this.#held = this.#held.slice(this.#held.length - kept)
      return false
    }
    this.#give(out, this.#held.slice(0, found.at))
    this.#held = this.#held.slice(found.at)
    if (!ended && mayGrow(this.#held, { at: 0, marker: found.marker }, markers)) return false
    if (this.#format.toolStarts?.includes(found.marker) === true) {
      // The marker belongs to the call.
      this.#within = false
      return true
    }
    this.#held = this.#held.slice(found.marker.length)
    const starts = this.#format.starts.includes(found.marker)
    this.#within = starts
    this.#started = starts
    return true
  }

  #give(out: SplitText, text: string): void {
    if (this.#within) out.reasoning += text
    else out.content += text
  }
}
