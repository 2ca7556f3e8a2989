/** Muse writes messages to somebody: to itself (thoughts), to the user or to nobody (the answer), to anything else (calls as tags). */
import { compactJson, isJson } from './json-text.ts'
import { firstOf, heldLength } from './markers.ts'
import { nothingParsed, type OutputParser, type ParsedDelta, type ToolCall } from './output-parser.ts'
import { objectText } from './schema-values.ts'
import type { TextStage } from './staged-parser.ts'

const start = '<|start|>'
const message = '<|message|>'
const markers = [start, message, '<|eom|>', '<|eot|>']
const invokePattern = /<atem:invoke name="([^"]*)">(.*?)<\/atem:invoke>/gs
const parameterPattern = /<atem:parameter name="([^"]*)">(.*?)<\/atem:parameter>/gs
/** What may become a header behind the prompt. */
const headerBegin = /^\s*(?:t|to|to=.*)?$/s

export interface MuseReads {
  readonly callsMax: number
  /** Reads the content, for calls that were demanded. */
  readonly stage?: TextStage
}

type Place = 'begin' | 'header' | 'thought' | 'answer' | 'call' | 'between'

/** The calls in a message; one without all of its ends is none. */
const callsOf = (body: string): ToolCall[] => [...body.matchAll(invokePattern)].flatMap(([, name = '', inner = '']): ToolCall[] => {
  const members = [...inner.matchAll(parameterPattern)].map(([, key = '', value = '']) => [key, isJson(value) ? compactJson(value) : JSON.stringify(value)] as const)
  return inner.includes('<atem:parameter') && members.length === 0 ? [] : [{ name, arguments: objectText(members) }]
})

/** One per answer. Thoughts and answers pass as they come; a message with calls is held until its end. */
export class MuseParser implements OutputParser {
  readonly #reads: MuseReads
  #held = ''
  #place: Place = 'begin'
  /** Text of a header, or of a message with calls. */
  #kept = ''
  #thoughts = 0
  #called = 0
  #thinking = false
  #content = ''
  #reasoning = ''
  #calls: ToolCall[] = []

  constructor(reads: MuseReads) {
    this.#reads = reads
  }

  get thinking(): boolean {
    return this.#thinking
  }

  push(text: string): ParsedDelta {
    this.#held += text
    for (let found = firstOf(this.#held, markers); found !== null; found = firstOf(this.#held, markers)) {
      this.#text(this.#held.slice(0, found.at))
      this.#held = this.#held.slice(found.at + found.marker.length)
      this.#marker(found.marker)
    }
    const kept = heldLength(this.#held, markers)
    this.#text(this.#held.slice(0, this.#held.length - kept))
    this.#held = this.#held.slice(this.#held.length - kept)
    return this.#taken(false)
  }

  end(): ParsedDelta {
    // The beginning of a marker belongs to the form where a message was open.
    if (this.#place === 'begin' || this.#place === 'between') this.#text(this.#held)
    this.#held = ''
    this.#close()
    return this.#taken(true)
  }

  #marker(marker: string): void {
    if (marker === message) {
      const recipient = /\bto=(\S+)/.exec(this.#place === 'begin' || this.#place === 'header' ? this.#kept : '')?.[1] ?? 'user'
      this.#kept = ''
      this.#place = recipient === 'self' ? 'thought' : recipient === 'user' ? 'answer' : 'call'
      if (this.#place === 'thought' && this.#thoughts++ > 0) this.#reasoning += '\n'
      return
    }
    this.#close()
    this.#place = marker === start ? 'header' : 'between'
  }

  #text(text: string): void {
    if (text === '') return
    if (this.#place === 'thought') {
      this.#reasoning += text
      this.#thinking = true
      return
    }
    if (this.#place === 'begin') {
      if (headerBegin.test(this.#kept + text)) {
        this.#kept += text
        return
      }
      this.#close()
      this.#place = 'between'
    }
    if (this.#place === 'header' || this.#place === 'call') this.#kept += text
    else {
      this.#content += text
      this.#thinking = false
    }
  }

  /** Ends what is open; a header that came to no message is text. */
  #close(): void {
    const kept = this.#kept
    this.#kept = ''
    if (this.#place !== 'call') {
      this.#content += kept
      return
    }
    this.#thinking = false
    for (const call of callsOf(kept)) {
      this.#called += 1
      if (this.#called <= this.#reads.callsMax) this.#calls.push(call)
    }
  }

  #taken(ended: boolean): ParsedDelta {
    const { stage } = this.#reads
    let content = this.#content
    const toolCalls = this.#calls
    if (stage !== undefined) {
      const staged = [...(content === '' ? [] : [stage.push(content)]), ...(ended ? [stage.end()] : [])]
      content = staged.map((each) => each.content).join('')
      toolCalls.push(...staged.flatMap((each) => each.calls))
    }
    const reasoning = this.#reasoning
    this.#content = ''
    if (content === '' && reasoning === '' && toolCalls.length === 0) return nothingParsed
    this.#reasoning = ''
    this.#calls = []
    return { content, reasoning, toolCalls }
  }
}
