/** gpt-oss writes messages on channels: analysis (thoughts), commentary (calls and remarks on them), final (the answer). */
import { compactJson, isJson } from './json-text.ts'
import { firstOf, heldLength } from './markers.ts'
import { nothingParsed, type OutputParser, type ParsedDelta, type ToolCall } from './output-parser.ts'
import type { TextStage } from './staged-parser.ts'

const ends = ['<|end|>', '<|call|>', '<|return|>']
const markers = ['<|start|>', '<|channel|>', '<|message|>', '<|constrain|>', ...ends]
const functions = 'functions.'

export interface HarmonyReads {
  /** Thoughts are told apart: then nothing counts but messages, each with a header as the form has it. Else thoughts are left out, and text between messages is content. */
  readonly reasoning: boolean
  /** Calls are given. Else they stay as they are written beside thoughts, and are left out without. */
  readonly calls: boolean
  readonly singleCall: boolean
  /** Reads the content, for calls that were demanded. */
  readonly stage?: TextStage
}

/** What the text between two markers is: `begin` is behind the prompt, `between` behind a message, `lost` behind a header that cannot be read. */
type Place = 'begin' | 'role' | 'channel' | 'body' | 'between' | 'lost'

interface Message {
  channel: string
  /** To whom: a tool, for a call. */
  recipient: string | null
  /** As it was written, for a call that is passed on as it is. */
  raw: string
  body: string
}

const emptyMessage = (): Message => ({ channel: '', recipient: null, raw: '', body: '' })

/** One per answer. Thoughts and answers pass as they come; a call is held until its end. */
export class HarmonyParser implements OutputParser {
  readonly #reads: HarmonyReads
  #held = ''
  #place: Place = 'begin'
  #header = ''
  #message = emptyMessage()
  /** Blanks between messages, which count when something follows; those behind a message that is no call do not. */
  #blanks = ''
  #trims = false
  /** What the last message gave: a line ends where one of the same kind follows. */
  #before: 'content' | 'reasoning' | null = null
  #shown: 'content' | 'reasoning' | null = null
  #content = ''
  #reasoning = ''
  #calls: ToolCall[] = []
  #called = 0
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
      const looked = this.#looksFor()
      const found = firstOf(this.#held, looked)
      if (found === null) {
        const kept = heldLength(this.#held, looked)
        this.#text(this.#held.slice(0, this.#held.length - kept))
        this.#held = this.#held.slice(this.#held.length - kept)
        return this.#taken(false)
      }
      this.#text(this.#held.slice(0, found.at))
      this.#held = this.#held.slice(found.at + found.marker.length)
      this.#marker(found.marker)
    }
  }

  end(): ParsedDelta {
    const { reasoning } = this.#reads
    // Text without a single marker is what there is.
    if (reasoning && this.#place === 'begin') this.#content += this.#header + this.#held
    // A marker that was cut belongs to the form where only messages count.
    if (!reasoning) this.#text(this.#held)
    this.#held = ''
    return this.#taken(true)
  }

  /** Within a message only its end is looked for. */
  #looksFor(): readonly string[] {
    return this.#place === 'body' ? ends : markers
  }

  #marker(marker: string): void {
    if (this.#place === 'begin' || this.#place === 'between') this.#flushBlanks()
    switch (marker) {
      case '<|start|>':
        this.#open('role')
        return
      case '<|channel|>':
        this.#channel()
        return
      case '<|constrain|>':
        if (this.#place !== 'channel') return
        this.#header += ' '
        this.#message.raw += marker
        return
      case '<|message|>':
        this.#beginBody()
        return
      default:
        if (this.#place === 'body') this.#endMessage(marker)
        this.#place = 'between'
    }
  }

  #open(place: 'role' | 'channel'): void {
    this.#message = emptyMessage()
    this.#header = ''
    this.#place = place
  }

  #channel(): void {
    const { reasoning } = this.#reads
    const place = this.#place
    const head = this.#header.trim()
    const isBad = reasoning ? place === 'between' || (place === 'begin' && head !== '') || (place === 'role' && !/^assistant\b/.test(head)) : false
    if (isBad || place === 'channel' || place === 'lost') {
      this.#place = 'lost'
      return
    }
    this.#open('channel')
    this.#message.raw = '<|channel|>'
    // Whom it is for may stand in the role. Where thoughts are read the original does not take it for the name of a tool.
    const recipient = place === 'role' ? recipientOf(head) : null
    this.#message.recipient = reasoning && recipient !== null ? '' : recipient
  }

  #beginBody(): void {
    if (this.#place !== 'channel') {
      if (this.#place !== 'between' || !this.#reads.reasoning) this.#place = 'lost'
      return
    }
    const message = this.#message
    message.raw += '<|message|>'
    message.channel = /^\s*(\w*)/.exec(this.#header)?.[1] ?? ''
    if (message.channel === 'final') message.recipient = null
    else message.recipient = recipientOf(this.#header) ?? message.recipient
    this.#shown = null
    this.#place = 'body'
  }

  #text(text: string): void {
    if (text === '') return
    switch (this.#place) {
      case 'body':
        this.#bodyText(text)
        return
      case 'channel':
        this.#message.raw += text
        this.#header += text
        return
      case 'role':
        this.#header += text
        return
      case 'lost':
        return
      default:
        if (!this.#reads.reasoning) this.#outside(text)
        else if (this.#place === 'begin') this.#header += text
    }
  }

  #outside(text: string): void {
    const given = this.#trims ? text.trimStart() : this.#blanks + text
    if (this.#trims && given === '') return
    this.#trims = false
    const kept = given.trimEnd()
    this.#content += kept
    this.#blanks = given.slice(kept.length)
  }

  #flushBlanks(): void {
    this.#content += this.#blanks
    this.#blanks = ''
  }

  #bodyText(text: string): void {
    const { channel, recipient } = this.#message
    const { reasoning } = this.#reads
    if (recipient !== null) {
      this.#message.raw += text
      this.#message.body += text
      this.#thinking = false
    } else if (channel === 'analysis') {
      if (reasoning) this.#reasoning += this.#lineBreak('reasoning') + text
      this.#thinking = reasoning
    } else if (channel === 'final' || channel === 'commentary') {
      this.#content += this.#lineBreak('content') + text
      this.#thinking = false
    }
  }

  /** At the first text of a message. */
  #lineBreak(kind: 'content' | 'reasoning'): string {
    const isFirst = this.#shown === null
    this.#shown = kind
    return isFirst && this.#reads.reasoning && this.#before === kind ? '\n' : ''
  }

  #endMessage(marker: string): void {
    const { recipient, body, raw } = this.#message
    this.#before = this.#shown
    this.#trims = recipient === null
    if (recipient === null) return
    if (this.#reads.calls) {
      if (marker === '<|call|>' && recipient.startsWith(functions)) this.#call(recipient.slice(functions.length), body.trim())
    } else if (this.#reads.reasoning) this.#content += raw + marker
  }

  #call(name: string, given: string): void {
    this.#called += 1
    if (this.#called > 1 && this.#reads.singleCall) return
    this.#calls.push({ name, arguments: isJson(given) ? compactJson(given) : given })
  }

  #taken(ended: boolean): ParsedDelta {
    const { stage } = this.#reads
    let content = this.#content
    const calls = this.#calls
    if (stage !== undefined) {
      const staged = [...(content === '' ? [] : [stage.push(content)]), ...(ended ? [stage.end()] : [])]
      content = staged.map((each) => each.content).join('')
      calls.push(...staged.flatMap((each) => each.calls))
    }
    if (content === '' && this.#reasoning === '' && calls.length === 0) {
      this.#content = ''
      return nothingParsed
    }
    const delta = { content, reasoning: this.#reasoning, toolCalls: calls }
    this.#content = ''
    this.#reasoning = ''
    this.#calls = []
    return delta
  }
}

const recipientOf = (header: string): string | null => /\bto=([^\s<]+)/.exec(header)?.[1] ?? null
