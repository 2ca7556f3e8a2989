/** Families with a form of their own: GLM, Kimi, Gemma, Python lists. */
import { compactJson, isJson } from './json-text.ts'
import type { ToolCall } from './output-parser.ts'
import { pythonCalls } from './python-literal.ts'
import { objectText, parameterSchema, typedValue } from './schema-values.ts'
import { MarkerEnd, nothingRead, type BlockEnd, type ToolFormat } from './tool-format.ts'

const glmArgument = /<arg_key>(.*?)<\/arg_key>\s*<arg_value>(.*?)<\/arg_value>/gs

/** `<tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value></tool_call>`. */
export const glm47: ToolFormat = {
  starts: ['<tool_call>'],
  block: (start) => new MarkerEnd(['</tool_call>'], start.length),
  read(block, complete, tools) {
    if (!complete) return { ...nothingRead, truncated: true }
    const body = block.slice('<tool_call>'.length, -'</tool_call>'.length)
    const name = (body.split('<arg_key>', 1)[0] as string).trim()
    if (name === '' || /[\s<{]/.test(name)) return nothingRead
    const members = [...body.matchAll(glmArgument)].map(([, rawKey, value]): [string, string] => {
      const key = (rawKey as string).trim()
      return [key, typedValue((value as string).trim(), parameterSchema(tools, name, key), true)]
    })
    return { calls: [{ name, arguments: objectText(members), idForm: 'uuid' }], content: '' }
  },
}

const kimiCall = /<\|tool_call_begin\|>\s*([^<]*?)\s*<\|tool_call_argument_begin\|>(.*?)<\|tool_call_end\|>/gs

/** `<|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>{…}<|tool_call_end|>` in a section. */
export const kimiK2: ToolFormat = {
  starts: ['<|tool_calls_section_begin|>', '<|tool_call_section_begin|>', '<|tool_call_begin|>'],
  block: (start) => new MarkerEnd(start === '<|tool_call_begin|>' ? ['<|tool_call_end|>'] : ['<|tool_calls_section_end|>', '<|tool_call_section_end|>'], start.length),
  read: (block) => ({
    calls: [...block.matchAll(kimiCall)].flatMap(([, id, raw]): ToolCall[] => {
      const name = /^(?:functions\.)?(.+):\d+$/.exec(id as string)?.[1]
      const given = (raw as string).trim()
      return name === undefined ? [] : [{ id: id as string, name, arguments: isJson(given) ? compactJson(given) : given }]
    }),
    content: '',
  }),
}

const gemmaQuote = '<|"|>'

/** `<|tool_call>call:NAME{key:<|"|>text<|"|>,other:1}<tool_call|>`. */
export const gemma4: ToolFormat = {
  starts: ['<|tool_call>'],
  block: (start) => new MarkerEnd(['<tool_call|>'], start.length),
  read(block, complete) {
    if (!complete) return nothingRead
    const body = block.slice('<|tool_call>'.length, -'<tool_call|>'.length).trim()
    const open = body.indexOf('{')
    if (!body.startsWith('call:') || open < 0) return nothingRead
    const read = gemmaValue(body, open, 0)
    return { calls: [{ name: body.slice('call:'.length, open).trim(), arguments: read === null ? '{}' : read.json }], content: '' }
  },
}

interface GemmaValue {
  readonly json: string
  readonly end: number
}

const depthMax = 64

/** A value of Gemma's notation: keys without quotes, texts between `<|"|>`. */
function gemmaValue(text: string, at: number, depth: number): GemmaValue | null {
  if (depth > depthMax) return null
  if (text.startsWith(gemmaQuote, at)) {
    const end = text.indexOf(gemmaQuote, at + gemmaQuote.length)
    return end < 0 ? null : { json: JSON.stringify(text.slice(at + gemmaQuote.length, end)), end: end + gemmaQuote.length }
  }
  const open = text[at]
  if (open === '{' || open === '[') return gemmaGroup(text, at, open === '{', depth)
  const word = /[^,\]}]*/y
  word.lastIndex = at
  const raw = (word.exec(text)?.[0] ?? '').trim()
  return isJson(raw) && !raw.startsWith('"') ? { json: raw, end: word.lastIndex } : null
}

function gemmaGroup(text: string, from: number, keyed: boolean, depth: number): GemmaValue | null {
  const close = keyed ? '}' : ']'
  const parts: string[] = []
  const spaces = (start: number): number => start + (/^\s*/.exec(text.slice(start))?.[0].length ?? 0)
  let at = spaces(from + 1)
  while (text[at] !== close) {
    let key = ''
    if (keyed) {
      const colon = text.indexOf(':', at)
      if (colon < 0) return null
      key = `${JSON.stringify(text.slice(at, colon).trim().replaceAll(gemmaQuote, ''))}:`
      at = spaces(colon + 1)
    }
    const value = gemmaValue(text, at, depth + 1)
    if (value === null) return null
    parts.push(key + value.json)
    at = spaces(value.end)
    if (text[at] === ',') at = spaces(at + 1)
    else if (text[at] !== close) return null
  }
  return { json: keyed ? `{${parts.join(',')}}` : `[${parts.join(',')}]`, end: at + 1 }
}

/** The bracket that closes a list of calls; anything that cannot begin one is text. */
class PythonListEnd implements BlockEnd {
  #at = 0
  #depth = 0
  #quote = ''
  #plausible = false

  find(text: string): number | 'more' | 'none' {
    if (!this.#plausible) {
      const begin = /^\[\s*(?:$|[A-Za-z_]\w*\s*(?:$|\())/.exec(text)
      if (begin === null) return 'none'
      if (!begin[0].endsWith('(')) return 'more'
      this.#plausible = true
    }
    for (; this.#at < text.length; this.#at += 1) {
      const char = text[this.#at] as string
      if (this.#quote !== '') {
        if (char === '\\') this.#at += 1
        else if (char === this.#quote) this.#quote = ''
      } else if (char === '"' || char === "'") this.#quote = char
      else if ('([{'.includes(char)) this.#depth += 1
      else if (')]}'.includes(char)) {
        this.#depth -= 1
        if (this.#depth === 0) return this.#at + 1
      }
    }
    return 'more'
  }
}

/** `[NAME(key=value), …]`. */
export const pythonic: ToolFormat = {
  starts: ['['],
  strays: ['<|python_start|>', '<|python_end|>'],
  block: () => new PythonListEnd(),
  read(block, complete) {
    const calls = complete ? pythonCalls(block) : null
    return calls === null ? { calls: [], content: block } : { calls: calls.map(({ name, arguments: given }) => ({ name, arguments: objectText(given) })), content: '' }
  },
}
