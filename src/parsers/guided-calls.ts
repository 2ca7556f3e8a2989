/** Calls that the engine was made to write as JSON: `tool_choice` "required" (a list of calls) or a named tool (its arguments). */
import { callOf } from './json-calls.ts'
import { JsonValueEnd, skipSpace } from './json-text.ts'
import type { ToolCall, ToolChoice } from './output-parser.ts'
import type { ScannedText } from './tool-scanner.ts'

type Mode = 'unknown' | 'list' | 'arguments' | 'other'

/** Reads text as the schema had it; text that does not begin like it goes to `otherwise`. */
export class GuidedCalls {
  readonly #tool: string | null
  readonly #otherwise: { push(text: string): ScannedText; end(): ScannedText }
  #held = ''
  #mode: Mode = 'unknown'
  #value: JsonValueEnd | null = null
  #called = 0

  constructor(choice: ToolChoice, otherwise: { push(text: string): ScannedText; end(): ScannedText }) {
    this.#tool = typeof choice === 'object' ? choice.name : null
    this.#otherwise = otherwise
  }

  push(text: string): ScannedText {
    if (this.#mode === 'other') return this.#otherwise.push(text)
    this.#held += text
    const mode = this.#mode === 'unknown' ? this.#decided() : this.#mode
    this.#mode = mode
    if (mode === 'unknown') return { content: '', calls: [], truncated: false }
    if (mode === 'other') return this.#handOver()
    return { content: '', calls: this.#calls(), truncated: false }
  }

  end(): ScannedText {
    if (this.#mode === 'other') return this.#otherwise.end()
    if (this.#mode === 'unknown') {
      const given = this.#handOver()
      const last = this.#otherwise.end()
      return { content: given.content + last.content, calls: [...given.calls, ...last.calls], truncated: false }
    }
    const calls = this.#cutCall()
    // Nothing that is a call: the client sees what there was.
    return { content: this.#called + calls.length === 0 ? this.#held : '', calls, truncated: false }
  }

  #handOver(): ScannedText {
    this.#mode = 'other'
    const text = this.#held
    this.#held = ''
    return this.#otherwise.push(text)
  }

  #decided(): Mode {
    const at = skipSpace(this.#held, 0)
    const first = this.#held[at]
    if (first === undefined) return 'unknown'
    if (first === '{') return this.#tool === null ? 'list' : 'arguments'
    if (first !== '[') return 'other'
    // A bracket of another form than JSON's is a marker of the model's family.
    const second = this.#held[skipSpace(this.#held, at + 1)]
    return second === undefined ? 'unknown' : second === '{' || second === ']' ? 'list' : 'other'
  }

  #calls(): ToolCall[] {
    const calls: ToolCall[] = []
    for (;;) {
      if (this.#value === null) {
        const at = this.#held.indexOf('{')
        if (at < 0 || (this.#mode === 'arguments' && this.#called > 0)) return calls
        // What stands between the calls is punctuation; the first bracket stays for the case that no call follows.
        this.#held = this.#held.slice(at)
        this.#value = new JsonValueEnd(0)
      }
      const end = this.#value.find(this.#held)
      if (end < 0) return calls
      const object = this.#held.slice(0, end)
      const call = this.#mode === 'arguments' ? { name: this.#tool as string, arguments: object } : callOf(object, false)
      this.#held = this.#held.slice(end)
      this.#value = null
      if (call !== null) {
        this.#called += 1
        calls.push(call)
      }
    }
  }

  /** What there is of a call's arguments when the output ended within them. */
  #cutCall(): ToolCall[] {
    if (this.#value === null) return []
    if (this.#mode === 'arguments') return [{ name: this.#tool as string, arguments: this.#held }]
    const begin = /^\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:parameters|arguments)"\s*:\s*(?=[{["\w-])/s.exec(this.#held)
    return begin === null ? [] : [{ name: JSON.parse(begin[1] as string) as string, arguments: this.#held.slice(begin[0].length) }]
  }
}
