/** Inkling marks what each message is: a thought, text, a call as JSON; everything else is left out. */
import { isJson, membersOf } from './json-text.ts'
import { firstOf, heldLength } from './markers.ts'
import type { OutputParser, ParsedDelta } from './output-parser.ts'
import { MarkerEnd, nothingRead, type ToolFormat } from './tool-format.ts'

const model = '<|message_model|>'
const thought = '<|content_thinking|>'
const text = '<|content_text|>'
const call = '<|content_invoke_tool_json|>'
const messageEnd = '<|end_message|>'
const outside = [model, thought, text, call, messageEnd, '<|content_model_end_sampling|>']

/** `<|message_model|><|content_invoke_tool_json|>{"name": NAME, "args": ARGUMENTS}<|end_message|>`. */
export const inklingCalls: ToolFormat = {
  starts: [model + call, call],
  block: (start) => new MarkerEnd([messageEnd], start.length),
  read(block) {
    const body = block.slice(block.indexOf(call) + call.length).replace(messageEnd, '').trim()
    const members = membersOf(body)
    const name = members?.get('name')
    if (name === undefined || !name.startsWith('"')) return nothingRead
    return { calls: [{ name: JSON.parse(name) as string, arguments: members?.get('args') ?? '{}' }], content: '' }
  },
}

/** `model`: a message has begun, and it is not known yet of what kind. */
type Place = 'outside' | 'model' | 'thought' | 'text' | 'call'

/** Tells thoughts from content; calls go on to the next parser as they are written, once they are complete. */
export class InklingParser implements OutputParser {
  readonly #content: OutputParser
  #held = ''
  #place: Place = 'outside'
  #call = ''
  #thinking = false

  /** `content`: reads what is no thought. */
  constructor(content: OutputParser) {
    this.#content = content
  }

  get thinking(): boolean {
    return this.#thinking
  }

  push(given: string): ParsedDelta {
    const out = { content: '', reasoning: '' }
    this.#held += given
    for (;;) {
      const markers = this.#place === 'thought' || this.#place === 'text' || this.#place === 'call' ? [messageEnd] : outside
      const found = firstOf(this.#held, markers)
      if (found === null) {
        const kept = heldLength(this.#held, markers)
        this.#text(out, this.#held.slice(0, this.#held.length - kept))
        this.#held = this.#held.slice(this.#held.length - kept)
        return this.#delta(out, this.#content.push(out.content))
      }
      this.#text(out, this.#held.slice(0, found.at))
      this.#held = this.#held.slice(found.at + found.marker.length)
      this.#marker(out, found.marker)
    }
  }

  end(): ParsedDelta {
    const last = this.#place === 'outside' ? this.#held : ''
    this.#held = ''
    const first = this.#content.push(last)
    const second = this.#content.end()
    return {
      content: first.content + second.content, reasoning: first.reasoning + second.reasoning, toolCalls: [...first.toolCalls, ...second.toolCalls],
      ...(second.truncated === true ? { truncated: true } : {}),
    }
  }

  #marker(out: { content: string }, marker: string): void {
    if (marker === messageEnd && this.#place === 'call' && isJson(this.#call)) out.content += model + call + this.#call + messageEnd
    this.#call = ''
    this.#place = marker === model ? 'model' : marker === thought ? 'thought' : marker === text ? 'text' : marker === call ? 'call' : 'outside'
  }

  #text(out: { content: string; reasoning: string }, given: string): void {
    if (given === '') return
    if (this.#place === 'thought') {
      out.reasoning += given
      this.#thinking = true
    } else if (this.#place === 'call') this.#call += given
    else if (this.#place !== 'model') {
      out.content += given
      this.#thinking = false
    }
  }

  #delta({ reasoning }: { readonly reasoning: string }, content: ParsedDelta): ParsedDelta {
    return reasoning === '' ? content : { ...content, reasoning: reasoning + content.reasoning }
  }
}
