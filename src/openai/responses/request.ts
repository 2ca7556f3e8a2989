/** A Responses request over chat: nothing is stored, every request brings its whole history. */
import type { Json, JsonObject } from '../../ports.ts'
import type { GenerationEndpoint, PreparedAnswer } from '../answer-form.ts'
import { ApiError, invalidField } from '../api-error.ts'
import { planChat, type RequestContext } from '../chat-request.ts'
import { Fields, isJsonList, isJsonObject, shown } from '../fields.ts'
import { engineParameters, maxTokensRange } from '../parameters.ts'
import { ResponseObject, WholeResponse } from './answer.ts'
import { messagesOfInput } from './input.ts'
import { ResponseStream } from './stream.ts'

/** Parameters that need a server with a memory. */
const unsupported: Readonly<Record<string, string>> = {
  previous_response_id: 'send the earlier items in `input`',
  conversation: 'send the earlier items in `input`',
  prompt: 'send the text in `input` and `instructions`',
  max_tool_calls: 'the client calls the tools; count there',
}

/** Passed on to chat under the same name. */
const alike = ['model', 'stream', 'temperature', 'top_p', 'presence_penalty', 'frequency_penalty', 'seed', 'stop', 'parallel_tool_calls', 'nvext', 'chat_template_kwargs', 'chat_template_args', ...engineParameters]

export const responsesEndpoint: GenerationEndpoint = {
  name: 'responses', surface: 'chat',
  prepare: async (body, context): Promise<PreparedAnswer> => {
    const chat = chatOfResponses(body)
    const plan = await planChat(new Fields(chat), asChat(context))
    const object = new ResponseObject(body.object, plan)
    return {
      plan,
      whole: (identity, times) => new WholeResponse(object, identity, times),
      stream: (identity, times) => new ResponseStream(object, identity, times),
    }
  },
}

/** Members that only this API knows were taken out before. */
const asChat = (context: RequestContext): RequestContext => ({ ...context, ignoreUnknown: true })

/** The same request for chat. Errors: 400 for what cannot be read, 501 for what needs a memory. */
export function chatOfResponses(body: Fields): JsonObject {
  for (const [name, mend] of Object.entries(unsupported)) if (body.get(name) !== undefined) throw notSupported(name, mend)
  if (body.boolean('background') === true) throw notSupported('background', 'wait for the answer, or stream it')
  const maxTokens = body.integer('max_output_tokens', maxTokensRange)
  const { tools, choice } = toolsOf(body)
  const format = formatOf(body)
  const effort = body.group('reasoning')?.text('effort')
  const chat: Record<string, Json> = { messages: messagesOfInput(body) }
  for (const name of alike) {
    const value = body.get(name)
    if (value !== undefined) chat[name] = value
  }
  if (maxTokens !== undefined) chat['max_completion_tokens'] = maxTokens
  if (tools.length > 0) chat['tools'] = tools
  if (choice !== undefined) chat['tool_choice'] = choice
  if (format !== undefined) chat['response_format'] = format
  if (effort !== undefined) chat['reasoning_effort'] = effort
  if (wantsLogprobs(body)) {
    chat['logprobs'] = true
    chat['top_logprobs'] = body.integer('top_logprobs', { min: 0, max: 20 }) ?? 0
  }
  return chat
}

const notSupported = (name: string, mend: string): ApiError =>
  new ApiError({ class: 'NotImplemented', reason: 'runtime.not_implemented', param: name, code: 'unsupported_parameter', message: `\`${name}\` is not supported, since nothing is kept between requests; ${mend}` })

const wantsLogprobs = (body: Fields): boolean => body.texts('include')?.includes('message.output_text.logprobs') === true

/** `text.format`, as chat's `response_format`. */
function formatOf(body: Fields): JsonObject | undefined {
  const format = body.group('text')?.group('format')
  if (format === undefined) return undefined
  const type = format.text('type')
  if (type === 'text') return undefined
  if (type === 'json_object') return { type }
  if (type !== 'json_schema') throw format.wrong('type', 'must be "text", "json_object" or "json_schema"', format.get('type'))
  const schema = format.get('schema')
  if (!isJsonObject(schema)) throw format.wrong('schema', 'must be a JSON schema object', schema)
  return { type, json_schema: { name: format.text('name') ?? 'answer', schema } }
}

function toolsOf(body: Fields): { readonly tools: readonly JsonObject[]; readonly choice: Json | undefined } {
  const tools = (body.list('tools') ?? []).map((tool, index): JsonObject => {
    const at = `tools[${index}]`
    if (!isJsonObject(tool) || tool['type'] !== 'function') {
      throw invalidField(`${at}.type`, `\`${at}.type\` must be "function", got ${shown(isJsonObject(tool) ? tool['type'] : tool)}; there are no tools of this server's own`)
    }
    const { name, description, parameters } = tool
    return { type: 'function', function: { name: name ?? null, ...(typeof description === 'string' ? { description } : {}), parameters: parameters ?? { type: 'object', properties: {} } } }
  })
  const choice = body.get('tool_choice')
  if (!isJsonObject(choice)) return { tools, choice }
  if (choice['type'] === 'function') return { tools, choice: { type: 'function', function: { name: choice['name'] ?? null } } }
  if (choice['type'] === 'allowed_tools' && isJsonList(choice['tools'])) {
    const allowed = new Set(choice['tools'].map((tool) => (isJsonObject(tool) ? tool['name'] : undefined)))
    return { tools: tools.filter((tool) => allowed.has((tool['function'] as JsonObject)['name'])), choice: choice['mode'] === 'required' ? 'required' : 'auto' }
  }
  throw body.wrong('tool_choice.type', 'must be "function" or "allowed_tools"', choice['type'])
}
