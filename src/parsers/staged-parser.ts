/** Thoughts first, then calls in what is left. */
import { nothingParsed, type OutputParser, type ParsedDelta, type ToolCall } from './output-parser.ts'
import type { ReasoningFormat } from './reasoning-formats.ts'
import { ReasoningSplitter, type SplitText } from './reasoning-splitter.ts'
import type { ScannedText } from './tool-scanner.ts'

export interface TextStage {
  push(text: string): ScannedText
  end(): ScannedText
}

/** Text as it is. */
export const plainStage: TextStage = {
  push: (text) => ({ content: text, calls: [], truncated: false }),
  end: () => ({ content: '', calls: [], truncated: false }),
}

export interface StagedOptions {
  /** Null: everything is content. */
  readonly splitter: SplitterChoice | null
  readonly stage: TextStage
  /** Further calls are left out. */
  readonly callsMax: number
  /** Put before the content. */
  readonly prefix?: string
}

export interface SplitterChoice {
  readonly format: ReasoningFormat
  readonly within: boolean
  readonly started: boolean
  /** JSON at the very beginning is the answer, although it begins within a thought. */
  readonly jsonIsAnswer: boolean
}

export class StagedParser implements OutputParser {
  readonly #options: StagedOptions
  #splitter: ReasoningSplitter | null = null
  /** The beginning, while it is not known what it is. */
  #begin: string | null
  #calls = 0
  /** Some reasoning has been given. */
  #begun = false
  #prefix: string

  constructor(options: StagedOptions) {
    this.#options = options
    this.#prefix = options.prefix ?? ''
    this.#begin = options.splitter !== null && options.splitter.within && options.splitter.jsonIsAnswer ? '' : null
    if (options.splitter !== null) this.#splitter = new ReasoningSplitter(options.splitter.format, options.splitter)
  }

  get thinking(): boolean {
    return this.#begun && this.#splitter?.within === true
  }

  push(text: string): ParsedDelta {
    let given = text
    if (this.#begin !== null) {
      this.#begin += text
      const first = this.#begin.trimStart()
      if (first === '') return nothingParsed
      if (first.startsWith('{') || first.startsWith('[')) this.#splitter = null
      given = this.#begin
      this.#begin = null
    }
    const split = this.#splitter?.push(given) ?? { content: given, reasoning: '' }
    return this.#delta(split, split.content === '' ? null : this.#options.stage.push(split.content), null)
  }

  end(): ParsedDelta {
    const begin: SplitText | null = this.#begin === null || this.#begin === '' ? null : (this.#splitter?.push(this.#begin) ?? null)
    const last = this.#splitter?.end() ?? { content: '', reasoning: '' }
    const split = { content: (begin?.content ?? '') + last.content, reasoning: (begin?.reasoning ?? '') + last.reasoning }
    return this.#delta(split, split.content === '' ? null : this.#options.stage.push(split.content), this.#options.stage.end())
  }

  #delta(split: SplitText, first: ScannedText | null, second: ScannedText | null): ParsedDelta {
    if (split.reasoning !== '') this.#begun = true
    const plain = (first?.content ?? '') + (second?.content ?? '')
    const content = plain === '' ? '' : this.#prefix + plain
    if (plain !== '') this.#prefix = ''
    const calls = this.#wanted([...(first?.calls ?? []), ...(second?.calls ?? [])])
    const truncated = second?.truncated === true
    if (content === '' && split.reasoning === '' && calls.length === 0 && !truncated) return nothingParsed
    return { content, reasoning: split.reasoning, toolCalls: calls, ...(truncated ? { truncated } : {}) }
  }

  #wanted(calls: readonly ToolCall[]): readonly ToolCall[] {
    if (this.#options.callsMax === Infinity || calls.length === 0) return calls
    return calls.filter(({ continues }) => {
      if (continues !== true) this.#calls += 1
      return this.#calls <= this.#options.callsMax
    })
  }
}
