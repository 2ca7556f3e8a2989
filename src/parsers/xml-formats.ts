/** Families that write calls as tags with parameters as plain text. */
import type { ToolCall, ToolDefinition } from './output-parser.ts'
import { objectText, parameterSchema, typedValue } from './schema-values.ts'
import { MarkerEnd, type BlockEnd, type BlockReading, type ToolFormat } from './tool-format.ts'

interface XmlRules {
  readonly start: string
  readonly end: string
  /** The tags of a call and of a parameter, up to the name. */
  readonly call: string
  readonly callEnd: string
  readonly parameter: string
  readonly parameterEnd: string
  /** Calls and parameters without their end are none. */
  readonly strict: boolean
}

const named: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" }

/** With the characters that entities stand for. */
export const withoutEntities = (value: string): string =>
  value.replace(/&(?:#(\d+)|#x([0-9a-fA-F]+)|(lt|gt|amp|quot|apos));/g, (whole, decimal: string | undefined, hex: string | undefined, name: string | undefined) => {
    if (name !== undefined) return named[name] as string
    const point = decimal === undefined ? Number.parseInt(hex as string, 16) : Number(decimal)
    return point <= 0x10ffff ? String.fromCodePoint(point) : whole
  })

/** A name without its quotes. */
export const unquoted = (name: string): string => name.trim().replace(/^(["'])(.*)\1$/s, '$2')

/** `<tag=NAME>BODY</tag>` one behind the other. `rest`: what a body without its end may run into. */
function* elements(text: string, open: string, close: string, strict: boolean): Generator<{ readonly name: string; readonly body: string; readonly closed: boolean; readonly last: boolean }> {
  for (let at = text.indexOf(open); at >= 0;) {
    const nameEnd = text.indexOf('>', at + open.length)
    if (nameEnd < 0) return
    const name = unquoted(text.slice(at + open.length, nameEnd))
    const closeAt = text.indexOf(close, nameEnd + 1)
    const nextAt = text.indexOf(open, nameEnd + 1)
    const closed = closeAt >= 0 && (nextAt < 0 || closeAt < nextAt || strict)
    const end = closed ? closeAt : nextAt < 0 ? text.length : nextAt
    if (closed || !strict) yield { name, body: text.slice(nameEnd + 1, end), closed, last: !closed && nextAt < 0 }
    at = text.indexOf(open, closed ? end + close.length : end)
  }
}

function xmlCalls(block: string, rules: XmlRules, complete: boolean, tools: readonly ToolDefinition[]): readonly ToolCall[] {
  const calls: ToolCall[] = []
  for (const { name, body, closed } of elements(block, rules.call, rules.callEnd, rules.strict)) {
    if (name === '') continue
    const members: [string, string][] = []
    for (const { name: key, body: raw, last } of elements(body, rules.parameter, rules.parameterEnd, rules.strict)) {
      // A value that the end of the output cut is not known.
      if (last && !closed && !complete) continue
      if (key !== '') members.push([key, typedValue(withoutEntities(raw.trim()), parameterSchema(tools, name, key))])
    }
    // A call that was cut before its first parameter is no call.
    if (closed || members.length > 0) calls.push({ name, arguments: objectText(members) })
  }
  return calls
}

/** The end of a call that stands without the outer tags, and of an outer tag that only ends. */
class BareCallEnd implements BlockEnd {
  readonly #outer: string
  readonly #call: MarkerEnd
  #callEnd = 0

  constructor({ end, call, callEnd }: XmlRules) {
    this.#outer = end
    this.#call = new MarkerEnd([callEnd], call.length)
  }

  find(text: string): number | 'more' {
    if (this.#callEnd === 0) {
      const end = this.#call.find(text)
      if (end === 'more') return end
      this.#callEnd = end
    }
    const behind = text.slice(this.#callEnd)
    const tag = behind.trimStart()
    if (tag.startsWith(this.#outer)) return text.length - tag.length + this.#outer.length
    return this.#outer.startsWith(tag) ? 'more' : this.#callEnd
  }
}

function xml(rules: XmlRules): ToolFormat {
  return {
    starts: [rules.start, rules.call],
    block: (start) => (start === rules.start ? new MarkerEnd([rules.end], start.length) : new BareCallEnd(rules)),
    read(block, complete, tools): BlockReading {
      // A tag that never came to a call is text.
      if (!rules.strict && !complete && !block.includes(rules.call)) return { calls: [], content: block }
      const body = block.startsWith(rules.start) && block.endsWith(rules.end) ? block.slice(rules.start.length, -rules.end.length) : block
      return { calls: xmlCalls(body, rules, complete, tools), content: '' }
    },
  }
}

/** `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>`, also without the outer tags. */
export const qwen3Coder: ToolFormat = xml({
  start: '<tool_call>', end: '</tool_call>', call: '<function=', callEnd: '</function>', parameter: '<parameter=', parameterEnd: '</parameter>', strict: false,
})

/** `<minimax:tool_call><invoke name="NAME"><parameter name="KEY">VALUE</parameter></invoke></minimax:tool_call>`. */
export const minimaxM2: ToolFormat = xml({
  start: '<minimax:tool_call>', end: '</minimax:tool_call>', call: '<invoke name=', callEnd: '</invoke>', parameter: '<parameter name=', parameterEnd: '</parameter>', strict: true,
})
