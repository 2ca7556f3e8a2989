/** MiniMax M3: a mark before every tag, parameters as tags with their names, lists and objects as tags within. */
import { compactJson, isJson } from './json-text.ts'
import type { ToolCall, ToolDefinition } from './output-parser.ts'
import { objectText, parameterSchema } from './schema-values.ts'
import { MarkerEnd, type ToolFormat } from './tool-format.ts'
import { unquoted, withoutEntities } from './xml-formats.ts'

const mark = ']<]minimax[>['
const start = `${mark}<tool_call>`
const end = `${mark}</tool_call>`
const invoke = `${mark}<invoke`
const invokeEnd = `${mark}</invoke>`

type Schema = { readonly [key: string]: unknown } | undefined

const schemaIn = (value: unknown): Schema => (typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Schema) : undefined)
const hasType = (schema: Schema, type: string): boolean => schema?.['type'] === type || (Array.isArray(schema?.['type']) && schema['type'].includes(type))

/** A tag with what it holds. */
interface Node {
  readonly tag: string
  readonly schema: Schema
  text: string
  readonly children: Node[]
}

/** Schema of a tag within another: of a list's items, of a named property. */
function childSchema(schema: Schema, tag: string): Schema {
  if (tag === 'item' && schemaIn(schema?.['items']) !== undefined) return schemaIn(schema?.['items'])
  return schemaIn(schemaIn(schema?.['properties'])?.[tag]) ?? schemaIn(schema?.['additionalProperties'])
}

function scalar(raw: string, schema: Schema): string {
  const value = withoutEntities(raw)
  const trimmed = value.trim()
  const text = JSON.stringify(value)
  if (hasType(schema, 'string') || schema?.['type'] === undefined) return text
  if (hasType(schema, 'integer')) return /^[+-]?\d+$/.test(trimmed) ? trimmed.replace(/^\+/, '').replace(/^(-?)0+(?=\d)/, '$1') : text
  if (hasType(schema, 'number')) return /^-?\d/.test(trimmed) && isJson(trimmed) ? trimmed : text
  if (hasType(schema, 'boolean')) return /^(?:true|false)$/i.test(trimmed) ? trimmed.toLowerCase() : text
  return isJson(trimmed) ? compactJson(trimmed) : text
}

/** Values of one name together: one as it is, several as a list. */
function merged(children: readonly Node[]): string {
  const members = new Map<string, string[]>()
  for (const child of children) members.set(child.tag, [...(members.get(child.tag) ?? []), valueOf(child)])
  return objectText([...members].map(([tag, values]) => [tag, values.length === 1 ? (values[0] as string) : `[${values.join(',')}]`] as const))
}

function valueOf({ schema, text, children }: Node): string {
  if (children.length === 0) return hasType(schema, 'object') && text.trim() === '' ? '{}' : scalar(text, schema)
  if (hasType(schema, 'array') && children.every(({ tag }) => tag === 'item')) return `[${children.map(valueOf).join(',')}]`
  return merged(children)
}

/** The parameters of a call; one without its end, and what follows it, are left out. */
function parameters(body: string, tool: string, tools: readonly ToolDefinition[]): readonly Node[] {
  const root: Node = { tag: '', schema: undefined, text: '', children: [] }
  const open: Node[] = [root]
  for (const piece of body.split(mark).slice(1)) {
    const [, slash, tag = '', text = ''] = /^<(\/?)([^>]*)>(.*)$/s.exec(piece) ?? []
    const current = open.at(-1) as Node
    if (slash === undefined) {
      if (open.length > 1) current.text += piece
    } else if (slash === '/') {
      if (!open.slice(1).some((each) => each.tag === tag)) continue
      while ((open.at(-1) as Node).tag !== tag) open.pop()
      const closed = open.pop() as Node
      const parent = open.at(-1) as Node
      parent.children.push(closed)
      if (open.length > 1) parent.text += text
    } else if (tag !== '' && !/\s/.test(tag)) {
      open.push({ tag, schema: open.length === 1 ? schemaIn(parameterSchema(tools, tool, tag)) : childSchema(current.schema, tag), text, children: [] })
    }
  }
  return root.children
}

function callsOf(block: string, tools: readonly ToolDefinition[]): ToolCall[] {
  return block.split(invoke).slice(1).flatMap((piece) => {
    const head = piece.indexOf('>')
    const close = piece.indexOf(invokeEnd)
    const name = /^\s*name\s*=\s*(.*)$/s.exec(piece.slice(0, Math.max(head, 0)))?.[1]
    if (close < 0 || head > close || name === undefined || unquoted(name) === '') return []
    return [{ name: unquoted(name), arguments: merged(parameters(piece.slice(head + 1, close), unquoted(name), tools)) }]
  })
}

/** `]<]minimax[>[<tool_call>]<]minimax[>[<invoke name="NAME">]<]minimax[>[<KEY>VALUE]<]minimax[>[</KEY>…`. */
export const minimaxM3: ToolFormat = {
  starts: [start, invoke],
  block: (marker) => new MarkerEnd([marker === start ? end : invokeEnd], marker.length),
  read: (block, _complete, tools) => ({ calls: callsOf(block, tools), content: '' }),
}
