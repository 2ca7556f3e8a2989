/** Calls that the engine was made to write as JSON: `tool_choice` "required" (a list of calls) or a named tool (its arguments). */
import { callOf } from './json-calls.ts'
import { JsonValueEnd, skipSpace } from './json-text.ts'
import type { ToolCall, ToolChoice } from './output-parser.ts'
import type { ScannedText } from './tool-scanner.ts'

/** What stands before the arguments where the name comes first. Bounded, so that it is found at the same place however the text is cut. */
const headForm = /^\{\s{0,64}"name"\s{0,64}:\s{0,64}("(?:[^"\\]|\\.){0,256}")\s{0,64},\s{0,64}"(?:parameters|arguments)"\s{0,64}:\s{0,64}(?=\{)/s
const headLengthMax = 1024

const nothing = (): ScannedText => ({ content: '', calls: [], truncated: false })

type Mode = 'unknown' | 'list' | 'arguments' | 'other'

/** Reads text as the schema had it; text that does not begin like it is read whole by `otherwise` when it has ended. Bounds: holds one answer. */
export class GuidedCalls {
  readonly #tool: string | null
  readonly #otherwise: { push(text: string): ScannedText; end(): ScannedText }
  #held = ''
  #mode: Mode = 'unknown'
  /** Of the call that is being written: its end, and its arguments once they have begun. */
  #value: JsonValueEnd | null = null
  #given: GivenArguments | null = null
  #headOver = false
  #called = 0

  constructor(choice: ToolChoice, otherwise: { push(text: string): ScannedText; end(): ScannedText }) {
    this.#tool = typeof choice === 'object' ? choice.name : null
    this.#otherwise = otherwise
  }

  push(text: string): ScannedText {
    this.#held += text
    if (this.#mode === 'unknown') this.#mode = this.#decided()
    return this.#mode === 'list' || this.#mode === 'arguments' ? { content: '', calls: this.#calls(), truncated: false } : nothing()
  }

  end(): ScannedText {
    if (this.#mode === 'other' || this.#mode === 'unknown') return this.#inFamilyForm()
    const calls = this.#cutCall()
    // Nothing that is a call: the client sees what there was.
    return { content: this.#called + calls.length === 0 ? this.#held : '', calls, truncated: false }
  }

  /** A call was asked for: text beside one is dropped, and without one all of it is the answer, as it came. Source: Dynamo 1.6.1. */
  #inFamilyForm(): ScannedText {
    const first = this.#otherwise.push(this.#held)
    const last = this.#otherwise.end()
    const calls = [...first.calls, ...last.calls]
    return { content: calls.length === 0 ? this.#held : '', calls, truncated: first.truncated || last.truncated }
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
        this.#given = this.#mode === 'arguments' ? new GivenArguments(this.#tool as string, 0) : null
        this.#headOver = false
      }
      if (this.#given === null && !this.#headOver) this.#given = this.#readHead()
      const streamed = this.#given?.piece(this.#held) ?? null
      if (streamed !== null) {
        if (streamed.continues !== true) this.#called += 1
        calls.push(streamed)
      }
      const end = this.#value.find(this.#held)
      if (end < 0) return calls
      const call = this.#given === null ? callOf(this.#held.slice(0, end), false) : null
      this.#held = this.#held.slice(end)
      this.#value = null
      if (call !== null) {
        this.#called += 1
        calls.push(call)
      }
    }
  }

  /** A call whose name comes first shows its arguments as they come; in another form it shows when it is complete. */
  #readHead(): GivenArguments | null {
    const head = headForm.exec(this.#held)
    if (head !== null) return new GivenArguments(JSON.parse(head[1] as string) as string, head[0].length)
    this.#headOver = this.#held.length > headLengthMax
    return null
  }

  /** What there is of a call's arguments when the output ended within them. */
  #cutCall(): ToolCall[] {
    if (this.#value === null || this.#given !== null) return []
    const begin = /^\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:parameters|arguments)"\s*:\s*(?=[{["\w-])/s.exec(this.#held)
    return begin === null ? [] : [{ name: JSON.parse(begin[1] as string) as string, arguments: this.#held.slice(begin[0].length) }]
  }
}

/** Arguments as they come. */
class GivenArguments {
  readonly #name: string
  readonly #end: JsonValueEnd
  readonly #from: number
  #sent: number
  #ended = false

  constructor(name: string, from: number) {
    this.#name = name
    this.#from = from
    this.#sent = from
    this.#end = new JsonValueEnd(from)
  }

  /** What they have got since; null when that is nothing. */
  piece(text: string): ToolCall | null {
    if (this.#ended) return null
    const end = this.#end.find(text)
    this.#ended = end >= 0
    const given = text.slice(this.#sent, this.#ended ? end : text.length)
    if (given === '') return null
    const first = this.#sent === this.#from
    this.#sent += given.length
    return first ? { name: this.#name, arguments: given } : { name: this.#name, arguments: given, continues: true }
  }
}
