/** DeepSeek's forms: special tokens around JSON (V3, R1, V3.1), and tags of its own (V3.2, V4). */
import { compactJson, isJson } from './json-text.ts'
import type { ToolCall } from './output-parser.ts'
import { objectText } from './schema-values.ts'
import { MarkerEnd, type ToolFormat } from './tool-format.ts'

const blockStart = '<｜tool▁calls▁begin｜>'
const blockEnd = '<｜tool▁calls▁end｜>'
const callStart = '<｜tool▁call▁begin｜>'
const callEnd = '<｜tool▁call▁end｜>'

function special(pattern: RegExp): ToolFormat {
  return {
    starts: [blockStart],
    block: (start) => new MarkerEnd([blockEnd], start.length),
    read: (block) => ({
      calls: block.split(callStart).slice(1).flatMap((piece): ToolCall[] => {
        const end = piece.indexOf(callEnd)
        const parts = end < 0 ? null : pattern.exec(piece.slice(0, end))
        const [, name, given] = parts ?? []
        return name === undefined || given === undefined || !isJson(given) ? [] : [{ name: name.trim(), arguments: compactJson(given) }]
      }),
      content: '',
    }),
  }
}

/** `TYPE<｜tool▁sep｜>NAME`, then the arguments as a fenced block. */
export const deepseekV3: ToolFormat = special(/^.*?<｜tool▁sep｜>(.*?)\n```json\n(.*?)\n```\s*$/s)
/** `NAME<｜tool▁sep｜>ARGUMENTS`. */
export const deepseekV31: ToolFormat = special(/^(.*?)<｜tool▁sep｜>(.*)$/s)

const invokeStart = '<｜DSML｜invoke name='
const invokeEnd = '</｜DSML｜invoke>'
const parameterPattern = /<｜DSML｜parameter name="([^"]*)"(?:\s+string="(true|false)")?\s*>(.*?)<\/｜DSML｜parameter>/gs

function invokes(block: string): ToolCall[] {
  return block.split(invokeStart).slice(1).flatMap((piece) => {
    const end = piece.indexOf(invokeEnd)
    const name = end < 0 ? null : /^"([^"]*)"\s*>/.exec(piece)
    if (name === null) return []
    const members = [...piece.slice(0, end).matchAll(parameterPattern)].map(([, key, mark, raw]): [string, string] => {
      const value = (raw as string).trim()
      return [key as string, mark !== 'true' && isJson(value) ? compactJson(value) : JSON.stringify(value)]
    })
    return [{ name: name[1] as string, arguments: objectText(members), idForm: 'call_hex' }]
  })
}

/** The blank line before a block belongs to it. */
function dsml(kind: string): ToolFormat {
  const start = `<｜DSML｜${kind}>`
  const end = `</｜DSML｜${kind}>`
  return {
    starts: [`\n\n${start}`, start, invokeStart],
    keepsBlanks: true,
    block: (marker) => (marker === invokeStart ? new MarkerEnd([invokeEnd], marker.length) : new MarkerEnd([end], marker.length)),
    read: (block) => ({ calls: invokes(block), content: '' }),
  }
}

export const deepseekV32: ToolFormat = dsml('function_calls')
export const deepseekV4: ToolFormat = dsml('tool_calls')

const spacedStart = '<｜DSML｜ calls>'
const spacedEnd = '</｜DSML｜ calls>'
const spacedInvoke = '<｜DSML｜ invoke name="'
const spacedInvokeEnd = '</｜DSML｜ invoke>'
const spacedParameter = /^\s*<｜DSML｜ parameter name="([^"]*)" string="(true|false)">(.*?)<\/｜DSML｜ parameter>/s

/** Arguments as one JSON object or as parameters with nothing between them; null when they are neither. */
function spacedArguments(body: string): string | null {
  const text = body.trim()
  if (text.startsWith('{')) return isJson(text) ? compactJson(text) : null
  const members = new Map<string, string>()
  let rest = text
  while (rest !== '') {
    const [whole, key, mark, value] = spacedParameter.exec(rest) ?? []
    if (whole === undefined || key === undefined || value === undefined || members.has(key) || (mark === 'false' && !isJson(value))) return null
    members.set(key, mark === 'true' ? JSON.stringify(value) : compactJson(value))
    rest = rest.slice(whole.length).trim()
  }
  return objectText(members)
}

/** The calls of a block; null when one of them cannot be read. */
function spacedCalls(block: string): ToolCall[] | null {
  const calls: ToolCall[] = []
  for (const piece of block.split(spacedInvoke).slice(1)) {
    const end = piece.indexOf(spacedInvokeEnd)
    if (end < 0) break
    const head = piece.indexOf('">')
    const given = head < 0 || head > end ? null : spacedArguments(piece.slice(head + '">'.length, end))
    if (given === null) return null
    calls.push({ name: piece.slice(0, head), arguments: given })
  }
  return calls
}

/** V4.1: `<｜DSML｜ calls>` with blanks in its tags. A block with a call that cannot be read stays as it is. */
export const deepseekV41: ToolFormat = {
  starts: [`\n\n${spacedStart}`, spacedStart, spacedInvoke],
  keepsBlanks: true,
  block: (marker) => new MarkerEnd([marker === spacedInvoke ? spacedInvokeEnd : spacedEnd], marker.length),
  read(block, complete) {
    const calls = spacedCalls(block)
    return calls === null ? { calls: [], content: complete ? block : '' } : { calls, content: '' }
  },
}
