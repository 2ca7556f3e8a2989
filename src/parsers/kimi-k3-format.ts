/** Kimi K3: sections of a message, each opened and closed by name; calls with typed arguments or one JSON text. */
import { compactJson, isJson } from './json-text.ts'
import type { ToolCall } from './output-parser.ts'
import { objectText } from './schema-values.ts'
import { MarkerEnd, type ToolFormat } from './tool-format.ts'
import { withoutEntities } from './xml-formats.ts'

/** A marker may have blanks around its name. */
const both = (kind: 'open' | 'close', name: string): readonly string[] => [`<|${kind}|>${name}<|sep|>`, `<|${kind}|> ${name} <|sep|>`]

export const thinkStarts: readonly string[] = both('open', 'think')
export const thinkEnds: readonly string[] = both('close', 'think')
const toolsStarts = both('open', 'tools')
const toolsEnds = both('close', 'tools')
const callStarts = ['<|open|>call ', '<|open|> call ']
const callEnds = both('close', 'call')
/** With these a thought ends, too. */
export const callSections: readonly string[] = [...toolsStarts, ...callStarts]

const frames = [...both('open', 'response'), ...both('close', 'response'), ...both('open', 'message role="assistant"'), ...both('close', 'message'), '<|end_of_msg|>']

const callPattern = /<\|open\|> ?call (.*?)<\|sep\|>(.*?)<\|close\|> ?call ?<\|sep\|>/gs
const argumentPattern = /^\s*<\|open\|> ?argument (.*?)<\|sep\|>(.*?)<\|close\|> ?argument ?<\|sep\|>/s
const jsonPattern = /^\s*<\|open\|> ?json ?<\|sep\|>(.*?)<\|close\|> ?json ?<\|sep\|>\s*$/s

function attribute(head: string, name: string): string | undefined {
  const found = new RegExp(`(?:^|\\s)${name}="([^"]*)"`).exec(head)?.[1]
  return found === undefined ? undefined : withoutEntities(found)
}

/** The arguments of a call; null when there is anything else in it. */
function argumentsOf(body: string): string | null {
  const json = jsonPattern.exec(body)?.[1]
  if (json !== undefined) return json
  const members: [string, string][] = []
  let rest = body
  while (rest.trim() !== '') {
    const [whole, head, value] = argumentPattern.exec(rest) ?? []
    const key = head === undefined ? undefined : attribute(head, 'key')
    if (whole === undefined || head === undefined || value === undefined || key === undefined) return null
    const isText = (attribute(head, 'type') ?? 'string') === 'string'
    members.push([key, !isText && isJson(value) ? compactJson(value) : JSON.stringify(value)])
    rest = rest.slice(whole.length)
  }
  return objectText(members)
}

const callsOf = (block: string): ToolCall[] => [...block.matchAll(callPattern)].flatMap(([, head, body]): ToolCall[] => {
  const name = attribute(head ?? '', 'tool')
  const given = name === undefined || name === '' ? null : argumentsOf(body ?? '')
  return name === undefined || given === null ? [] : [{ name, arguments: given }]
})

/** `<|open|>tools<|sep|><|open|>call tool="NAME" index="1"<|sep|>…<|close|>call<|sep|><|close|>tools<|sep|>`. */
export const kimiK3: ToolFormat = {
  starts: callSections,
  strays: [...frames, ...toolsEnds, ...thinkEnds],
  block: (start) => new MarkerEnd(toolsStarts.includes(start) ? toolsEnds : callEnds, start.length),
  read: (block) => ({ calls: callsOf(block), content: '' }),
}
