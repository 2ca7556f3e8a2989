/** A Messages request of Anthropic's form over chat. */
import type { Json, JsonObject } from '../../ports.ts'
import type { GenerationEndpoint } from '../answer-form.ts'
import { invalidField } from '../api-error.ts'
import type { ServedModel } from '../catalog.ts'
import { planChat } from '../chat-request.ts'
import { Fields, isJsonList, isJsonObject, shown } from '../fields.ts'
import { maxTokensRange } from '../parameters.ts'
import { WholeMessage } from './answer.ts'
import { chatMessagesOf } from './content.ts'
import { MessageStream } from './stream.ts'

export interface AnthropicOptions {
  /** The line with which a client bills a system prompt is left out. */
  readonly stripPreamble: boolean
}

export function messagesEndpoint(options: AnthropicOptions): GenerationEndpoint {
  return {
    name: 'anthropic_messages', surface: 'chat',
    prepare: async (body, context) => {
      if (body.get('max_tokens') === undefined) throw invalidField('max_tokens', '`max_tokens` is missing; say how long the answer may be')
      const chat = chatOfMessages(body, context.model, options)
      // Members that only this API knows were taken out before.
      const plan = await planChat(new Fields(chat), { ...context, ignoreUnknown: true })
      return { plan, whole: (identity, times) => new WholeMessage(plan, identity, times), stream: (identity, times) => new MessageStream(plan, identity, times) }
    },
  }
}

const alike = ['model', 'stream', 'temperature', 'top_p', 'top_k', 'cache_salt', 'chat_template_kwargs']

/** The same request for chat. Errors: 400 for what cannot be read. */
export function chatOfMessages(body: Fields, model: ServedModel, options: AnthropicOptions): JsonObject {
  const chat: Record<string, Json> = { messages: chatMessagesOf(body, options) }
  for (const name of alike) {
    const value = body.get(name)
    if (value !== undefined) chat[name] = value
  }
  const maxTokens = body.integer('max_tokens', maxTokensRange)
  if (maxTokens !== undefined) chat['max_tokens'] = maxTokens
  const stops = body.texts('stop_sequences')
  if (stops !== undefined && stops.length > 0) chat['stop'] = stops
  const tools = (body.list('tools') ?? []).map(toolOf)
  if (tools.length > 0) chat['tools'] = tools
  const choice = choiceOf(body)
  if (choice !== undefined) chat['tool_choice'] = choice
  const extension = body.group('nvext')?.object ?? {}
  // The answer names the sequence that ended it.
  const asked = isJsonList(extension['extra_fields']) ? extension['extra_fields'] : []
  chat['nvext'] = { ...extension, extra_fields: asked.includes('stop_reason') ? asked : [...asked, 'stop_reason'] }
  const thinking = thinkingOf(body)
  if ((model.parsers?.reasoning ?? null) !== null) {
    const given = body.group('chat_template_kwargs')?.object ?? {}
    chat['chat_template_kwargs'] = { ...(thinking ? { thinking, enable_thinking: thinking, truncate_history_thinking: false } : { thinking, enable_thinking: thinking }), ...given }
  }
  return chat
}

/** Thinking is on unless the client turns it off: the model decides how long. */
function thinkingOf(body: Fields): boolean {
  const group = body.group('thinking')
  if (group === undefined) return true
  const type = group.text('type')
  if (type !== 'enabled' && type !== 'adaptive' && type !== 'disabled') throw group.wrong('type', 'must be "enabled", "adaptive" or "disabled"', group.get('type'))
  group.integer('budget_tokens', { min: 1 })
  return type !== 'disabled'
}

function toolOf(tool: Json, index: number): JsonObject {
  const at = `tools[${index}]`
  if (!isJsonObject(tool)) throw invalidField(at, `\`${at}\` must be {"name":…,"input_schema":{…}}, got ${shown(tool)}`)
  const { type, name, description, input_schema: schema } = tool
  if (type !== undefined && type !== null && type !== 'custom') throw invalidField(`${at}.type`, `\`${at}.type\` ${shown(type)} is a tool of the server, which has none; give a tool of your own with "input_schema"`)
  if (!isJsonObject(schema)) throw invalidField(`${at}.input_schema`, `\`${at}.input_schema\` must be a JSON schema object, got ${shown(schema)}`)
  return { type: 'function', function: { name: name ?? null, ...(typeof description === 'string' ? { description } : {}), parameters: schema } }
}

function choiceOf(body: Fields): Json | undefined {
  const group = body.group('tool_choice')
  if (group === undefined) return undefined
  group.boolean('disable_parallel_tool_use')
  const type = group.text('type')
  switch (type) {
    case 'auto': case 'none': return type
    case 'any': return 'required'
    case 'tool': return { type: 'function', function: { name: group.text('name') ?? null } }
    default: throw group.wrong('type', 'must be "auto", "any", "tool" or "none"', group.get('type'))
  }
}
