/** Families that write calls as JSON behind a marker. */
import { callOf, jsonCalls, type JsonCallRules } from './json-calls.ts'
import { JsonValueEnd, skipSpace } from './json-text.ts'
import { nothingRead, withoutEnd, type BlockEnd, type BlockReading, type ToolFormat } from './tool-format.ts'

interface TaggedRules extends JsonCallRules {
  readonly start: string
  readonly end: string
  /** A block that holds no call goes back into the content, with its markers: where it is complete, or also where it was cut. */
  readonly keepsUnread: 'no' | 'complete' | 'always'
}

/** The end marker; one within a JSON string is part of the string. */
class TaggedJsonEnd implements BlockEnd {
  readonly #start: number
  readonly #marker: string
  #from: number

  constructor(start: number, marker: string) {
    this.#start = start
    this.#marker = marker
    this.#from = start
  }

  find(text: string): number | 'more' {
    for (;;) {
      const at = text.indexOf(this.#marker, this.#from)
      if (at < 0) {
        this.#from = Math.max(this.#from, text.length - this.#marker.length + 1)
        return 'more'
      }
      const value = new JsonValueEnd(skipSpace(text, this.#start))
      if (value.find(text.slice(0, at)) >= 0 || !value.inString) return at + this.#marker.length
      this.#from = at + 1
    }
  }
}

/** `<tool_call>{…}</tool_call>` and the like. */
function tagged(rules: TaggedRules): ToolFormat {
  const { start, end, keepsUnread } = rules
  return {
    starts: [start],
    bareJson: { nameOnly: false, repairs: rules.repairs },
    block: () => new TaggedJsonEnd(start.length, end),
    read(block, complete) {
      const calls = jsonCalls(withoutEnd(block.slice(start.length), [end]), rules, !complete)
      if (calls !== null) return { calls, content: '' }
      // An end marker that seemed to be within a string, and no string that ended.
      const at = complete ? -1 : block.indexOf(end)
      const behind = at < 0 ? '' : block.slice(at + end.length)
      const unread = at < 0 ? block : block.slice(0, at + end.length)
      const keeps = keepsUnread === 'always' || (keepsUnread === 'complete' && complete)
      const isEmpty = /^\s*(?:\[\s*\])?\s*$/.test(withoutEnd(unread.slice(start.length), [end]))
      return { calls: [], content: (keeps && !isEmpty ? unread : '') + behind }
    },
  }
}

interface MarkedRules extends JsonCallRules {
  readonly start: string
  readonly strays?: readonly string[]
  /** Only a list, at once behind the marker, makes it one. */
  readonly listOnly?: boolean
  /** `name{…}` and `name[ARGS]{…}` are calls too. */
  readonly named?: boolean
  readonly bareRepairs: boolean
}

const headerLengthMax = 256
const headerPattern = /^\s*([\w.:-]+)\s*(?:\[CALL_ID\][\w-]*)?\s*(?:\[ARGS\])?\s*$/

/** The end of the JSON value behind the marker. */
class MarkedJsonEnd implements BlockEnd {
  readonly #rules: MarkedRules
  #value: JsonValueEnd | null = null

  constructor(rules: MarkedRules) {
    this.#rules = rules
  }

  find(text: string): number | 'more' | 'none' {
    if (this.#value === null) {
      const at = this.#valueStart(text)
      if (typeof at !== 'number') return at
      this.#value = new JsonValueEnd(at)
    }
    const end = this.#value.find(text)
    return end < 0 ? 'more' : end
  }

  #valueStart(text: string): number | 'more' | 'none' {
    const { start, listOnly, named } = this.#rules
    const at = skipSpace(text, start.length)
    if (at >= text.length) return 'more'
    if (text[at] === '[' || (text[at] === '{' && listOnly !== true)) return at
    if (listOnly === true) return 'none'
    if (named !== true) return 'more'
    const brace = text.indexOf('{', at)
    if (brace < 0) return text.length - at > headerLengthMax ? 'none' : 'more'
    return headerPattern.test(text.slice(start.length, brace)) ? brace : 'none'
  }
}

/** `[TOOL_CALLS][{…}]` and the like: a marker, then a value that ends by itself. */
function marked(rules: MarkedRules): ToolFormat {
  const { start } = rules
  return {
    starts: [start],
    ...(rules.strays === undefined ? {} : { strays: rules.strays }),
    bareJson: { nameOnly: false, repairs: rules.bareRepairs },
    block: () => new MarkedJsonEnd(rules),
    read(block, complete) {
      const body = block.slice(start.length)
      const named = rules.named === true && complete ? namedCall(body) : null
      const calls = named ?? jsonCalls(body, rules, !complete)
      return calls === null ? unreadMark(rules, block, complete) : { calls, content: '' }
    },
  }
}

function namedCall(body: string): BlockReading['calls'] | null {
  const header = headerPattern.exec(body.slice(0, body.indexOf('{')))
  if (header === null) return null
  const call = callOf(`{"name":"","arguments":${body.slice(body.indexOf('{'))}}`, false)
  return call === null ? null : [{ ...call, name: header[1] as string }]
}

/** A word at the very end that might have become a call is a word. */
const unreadMark = ({ listOnly, start }: MarkedRules, block: string, complete: boolean): BlockReading =>
  listOnly === true && !complete && block.slice(start.length).trim() === '' ? { calls: [], content: block } : nothingRead

const hermesTags = { start: '<tool_call>', end: '</tool_call>', keepsUnread: 'no', nameOnly: true } as const

export const hermes: ToolFormat = tagged({ ...hermesTags, repairs: true })
/** As `hermes`, but a call that was cut is no call. */
export const qwen25: ToolFormat = tagged({ ...hermesTags, repairs: false })
const deciTags = { start: '<TOOLCALL>', end: '</TOOLCALL>', nameOnly: false, repairs: true }

export const nemotronDeci: ToolFormat = tagged({ ...deciTags, keepsUnread: 'complete' })
export const jamba: ToolFormat = tagged({ start: '<tool_calls>', end: '</tool_calls>', keepsUnread: 'no', nameOnly: false, repairs: true })
export const llama3Json: ToolFormat = marked({ start: '<|python_tag|>', nameOnly: false, repairs: false, bareRepairs: true })
export const mistral: ToolFormat = marked({ start: '[TOOL_CALLS]', strays: ['[/TOOL_CALLS]'], named: true, nameOnly: false, repairs: false, bareRepairs: true })
export const phi4: ToolFormat = marked({ start: 'functools', listOnly: true, nameOnly: false, repairs: false, bareRepairs: true })

/** What is read when a card names the parser `default`: `<TOOLCALL>` and `<|python_tag|>`. */
const anyTagged = tagged({ ...deciTags, keepsUnread: 'always' })
export const anyJson: ToolFormat = {
  ...anyTagged,
  starts: [...anyTagged.starts, ...llama3Json.starts],
  block: (start) => (start === deciTags.start ? anyTagged : llama3Json).block(start),
  read: (block, complete, tools) => (block.startsWith(deciTags.start) ? anyTagged : llama3Json).read(block, complete, tools),
}
