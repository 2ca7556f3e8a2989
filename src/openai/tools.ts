/** Tools of a chat request: checked, and turned into a schema where the client demands a call. */
import type { ToolChoice } from '../parsers/output-parser.ts'
import type { Json, JsonObject } from '../ports.ts'
import { invalidField } from './api-error.ts'
import { isJsonObject, type Fields } from './fields.ts'

export const toolsMax = 1536
export const toolNameLengthMax = 128

/** A tool as the request gives it. */
export interface Tool {
  readonly name: string
  readonly parameters: Json
}

export interface ToolUse {
  /** As they were given; undefined when there are none. */
  readonly tools: readonly Json[] | undefined
  readonly definitions: readonly Tool[]
  readonly choice: ToolChoice
  /** Schema of the answer when a call is demanded. */
  readonly schema: JsonObject | undefined
}

/** Errors: 400 for malformed or too many tools, and for a choice that no tool meets. */
export function readTools(body: Fields): ToolUse {
  const list = body.list('tools') ?? []
  if (list.length > toolsMax) throw invalidField('tools', `\`tools\` may hold at most ${toolsMax} tools, got ${list.length}`)
  const tools = list.map((item, index) => toolOf(item, index))
  const given = list.length === 0 ? undefined : list
  const choice = body.get('tool_choice')
  if (choice === undefined || choice === 'auto' || choice === 'none') return { tools: given, definitions: tools, choice: choice ?? 'auto', schema: undefined }
  if (choice === 'required') {
    if (tools.length === 0) throw invalidField('tool_choice', '`tool_choice` is "required" but `tools` is empty; give at least one tool')
    return { tools: given, definitions: tools, choice: 'required', schema: anyCallSchema(tools) }
  }
  const name = chosenName(body)
  const tool = tools.find((candidate) => candidate.name === name)
  if (tool === undefined) throw invalidField('tool_choice', `the tool ${JSON.stringify(name)} of \`tool_choice\` is not among \`tools\`; name one of: ${tools.map((each) => each.name).slice(0, 20).join(', ') || '(none given)'}`)
  return { tools: given, definitions: tools, choice: { name }, schema: isJsonObject(tool.parameters) ? tool.parameters : { type: 'object' } }
}

function toolOf(item: Json, index: number): Tool {
  const at = `tools[${index}]`
  if (!isJsonObject(item) || item['type'] !== 'function' || !isJsonObject(item['function'])) {
    throw invalidField(at, `\`${at}\` must be {"type":"function","function":{"name":…,"parameters":{…}}}`)
  }
  const { name, parameters } = item['function'] as { name?: Json; parameters?: Json }
  if (typeof name !== 'string' || name === '') throw invalidField(`${at}.function.name`, `\`${at}.function.name\` must be a name`)
  if (name.length > toolNameLengthMax) throw invalidField(`${at}.function.name`, `\`${at}.function.name\` may have at most ${toolNameLengthMax} characters, got ${name.length}`)
  return { name, parameters: parameters ?? { type: 'object', properties: {} } }
}

function chosenName(body: Fields): string {
  const choice = body.get('tool_choice')
  if (isJsonObject(choice) && choice['type'] === 'function' && isJsonObject(choice['function']) && typeof choice['function']['name'] === 'string') {
    return choice['function']['name']
  }
  throw body.wrong('tool_choice', 'must be "none", "auto", "required" or {"type":"function","function":{"name":…}}', choice)
}

/** A list of at least one call of any of the tools. */
const anyCallSchema = (tools: readonly Tool[]): JsonObject => ({
  type: 'array',
  minItems: 1,
  items: {
    type: 'object',
    anyOf: tools.map(({ name, parameters }) => ({
      properties: { name: { type: 'string', enum: [name] }, parameters },
      required: ['name', 'parameters'],
    })),
  },
})
