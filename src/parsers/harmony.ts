/** gpt-oss writes messages on channels: analysis (thoughts), commentary (calls and remarks on them), final (the answer). */
import { compactJson, isJson } from './json-text.ts'
import { firstOf, heldLength } from './markers.ts'
import { nothingParsed, type OutputParser, type ParsedDelta, type ToolCall } from './output-parser.ts'

const markers = ['<|start|>', '<|channel|>', '<|message|>', '<|constrain|>', '<|end|>', '<|call|>', '<|return|>']

export interface HarmonyReads {
  readonly reasoning: boolean
  readonly calls: boolean
}

/** What the text between two markers is. */
type Place = 'outside' | 'role' | 'channel' | 'body'

interface Message {
  channel: string
  recipient: string | null
  /** As it was written, for a message that is passed on as it is. */
  raw: string
  body: string
}

const emptyMessage = (): Message => ({ channel: '', recipient: null, raw: '', body: '' })

/** One per answer. Thoughts and answers pass as they come; a call is held until its end. */
export class HarmonyParser implements OutputParser {
  readonly #reads: HarmonyReads
  #held = ''
  #place: Place = 'outside'
  #header = ''
  #message = emptyMessage()
  #content = ''
  #reasoning = ''
  #calls: ToolCall[] = []
  /** From the first word of a thought to the first of what follows, with all that stands between. */
  #thinking = false

  constructor(reads: HarmonyReads) {
    this.#reads = reads
  }

  get thinking(): boolean {
    return this.#thinking
  }

  push(text: string): ParsedDelta {
    this.#held += text
    for (;;) {
      const found = firstOf(this.#held, markers)
      if (found === null) break
      this.#text(this.#held.slice(0, found.at))
      this.#held = this.#held.slice(found.at + found.marker.length)
      this.#marker(found.marker)
    }
    const kept = heldLength(this.#held, markers)
    this.#text(this.#held.slice(0, this.#held.length - kept))
    this.#held = this.#held.slice(this.#held.length - kept)
    return this.#taken()
  }

  end(): ParsedDelta {
    // A marker that was cut belongs to the form, not to the text, where a message was open.
    if (this.#place === 'outside') this.#content += this.#held
    this.#held = ''
    this.#endMessage()
    return this.#taken()
  }

  #marker(marker: string): void {
    if (this.#place !== 'outside') this.#message.raw += marker
    switch (marker) {
      case '<|start|>':
        this.#endMessage()
        this.#place = 'role'
        this.#header = ''
        this.#message.raw = marker
        return
      case '<|channel|>':
        if (this.#place === 'body') this.#endMessage()
        if (this.#message.raw === '') this.#message.raw = marker
        if (this.#place === 'role') this.#readRecipient()
        this.#place = 'channel'
        this.#header = ''
        return
      case '<|constrain|>':
        if (this.#place !== 'body') this.#header += ' '
        return
      case '<|message|>':
        this.#readRecipient()
        if (this.#place === 'channel') this.#message.channel = /^\s*(\w*)/.exec(this.#header)?.[1] ?? ''
        this.#place = 'body'
        return
      default:
        this.#endMessage()
    }
  }

  #readRecipient(): void {
    this.#message.recipient = /\bto=([^\s<]+)/.exec(this.#header)?.[1] ?? this.#message.recipient
  }

  #text(text: string): void {
    if (text === '') return
    if (this.#place === 'outside') this.#content += text
    else {
      this.#message.raw += text
      if (this.#place === 'body') this.#bodyText(text)
      else this.#header += text
    }
  }

  /** A message to a tool. */
  #isCall(): boolean {
    return this.#message.recipient !== null
  }

  #bodyText(text: string): void {
    const thought = !this.#isCall() && this.#message.channel === 'analysis'
    this.#thinking = thought && this.#reads.reasoning
    if (this.#isCall()) this.#message.body += text
    else if (!thought) this.#content += text
    else if (this.#reads.reasoning) this.#reasoning += text
  }

  #endMessage(): void {
    const { recipient, body, raw } = this.#message
    if (this.#place === 'body' && recipient !== null) {
      if (!this.#reads.calls) this.#content += raw
      else if (recipient.startsWith('functions.') && body.trim() !== '') {
        const given = body.trim()
        this.#calls.push({ name: recipient.slice('functions.'.length), arguments: isJson(given) ? compactJson(given) : given })
      }
    }
    this.#message = emptyMessage()
    this.#place = 'outside'
  }

  #taken(): ParsedDelta {
    if (this.#content === '' && this.#reasoning === '' && this.#calls.length === 0) return nothingParsed
    const delta = { content: this.#content, reasoning: this.#reasoning, toolCalls: this.#calls }
    this.#content = ''
    this.#reasoning = ''
    this.#calls = []
    return delta
  }
}
