/** Calls as `<tool_call>{"name": …, "arguments": …}</tool_call>`. */
import { nothingParsed, type OutputParser, type ParsedDelta, type ToolCall } from './output-parser.ts'

const open = '<tool_call>'
const close = '</tool_call>'

export class HermesParser implements OutputParser {
  #held = ''

  push(text: string): ParsedDelta {
    this.#held += text
    let content = ''
    const toolCalls: ToolCall[] = []
    for (;;) {
      const start = this.#held.indexOf(open)
      if (start < 0) {
        const kept = tailLength(this.#held, open)
        content += this.#held.slice(0, this.#held.length - kept)
        this.#held = this.#held.slice(this.#held.length - kept)
        break
      }
      const stop = this.#held.indexOf(close, start)
      content += this.#held.slice(0, start)
      if (stop < 0) {
        this.#held = this.#held.slice(start)
        break
      }
      const call = callOf(this.#held.slice(start + open.length, stop))
      if (call === null) content += this.#held.slice(start, stop + close.length)
      else toolCalls.push(call)
      this.#held = this.#held.slice(stop + close.length)
    }
    return content === '' && toolCalls.length === 0 ? nothingParsed : { content, reasoning: '', toolCalls }
  }

  end(): ParsedDelta {
    const content = this.#held
    this.#held = ''
    return content === '' ? nothingParsed : { content, reasoning: '', toolCalls: [] }
  }
}

function tailLength(text: string, marker: string): number {
  for (let length = Math.min(marker.length - 1, text.length); length > 0; length--) if (text.endsWith(marker.slice(0, length))) return length
  return 0
}

function callOf(text: string): ToolCall | null {
  try {
    const { name, arguments: given } = JSON.parse(text) as { name?: unknown; arguments?: unknown }
    return typeof name === 'string' ? { name, arguments: JSON.stringify(given ?? {}) } : null
  } catch {
    return null
  }
}
