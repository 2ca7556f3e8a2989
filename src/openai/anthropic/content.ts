/** Messages of Anthropic's form as chat messages: a turn of content blocks becomes one message, tool results become messages of their own. */
import { stringifyJson } from '../../dynamo/wire/json.ts'
import type { Json, JsonObject } from '../../ports.ts'
import { invalidField, type ApiError } from '../api-error.ts'
import { isJsonList, isJsonObject, shown, type Fields } from '../fields.ts'

const billingHeader = 'x-anthropic-billing-header:'

/** Errors: 400 for the first message or block that cannot be read. */
export function chatMessagesOf(body: Fields, options: { readonly stripPreamble: boolean }): readonly JsonObject[] {
  const value = body.get('messages')
  if (value === undefined) throw invalidField('messages', '`messages` is missing; send a list such as [{"role":"user","content":"…"}]')
  if (!isJsonList(value)) throw body.wrong('messages', 'must be a list of messages', value)
  if (value.length === 0) throw invalidField('messages', '`messages` cannot be empty; at least one message is required')
  const system = systemText(body, options.stripPreamble)
  return [...(system === '' ? [] : [{ role: 'system', content: system }]), ...value.flatMap((message, index) => turnOf(message, `messages[${index}]`))]
}

function systemText(body: Fields, stripPreamble: boolean): string {
  const value = body.get('system')
  if (value === undefined) return ''
  if (typeof value !== 'string' && !isJsonList(value)) throw body.wrong('system', 'must be a text or a list of text blocks', value)
  const text = typeof value === 'string' ? value : value.map((block, index) => textOf(block, `system[${index}]`)).join('\n')
  if (!stripPreamble || !text.startsWith(billingHeader)) return text
  // Its value changes with every request, so that no cached prefix would ever match.
  const end = text.indexOf('\n')
  return end === -1 ? '' : text.slice(end + 1)
}

function turnOf(message: Json, at: string): readonly JsonObject[] {
  if (!isJsonObject(message)) throw invalidField(at, `\`${at}\` must be an object with "role" and "content", got ${shown(message)}`)
  const { role, content } = message
  if (role !== 'user' && role !== 'assistant' && role !== 'system') throw invalidField(`${at}.role`, `\`${at}.role\` must be user or assistant, got ${shown(role)}`)
  if (typeof content === 'string') return [{ role, content }]
  if (!isJsonList(content)) throw invalidField(`${at}.content`, `\`${at}.content\` must be a text or a list of blocks, got ${shown(content)}`)
  const blocks = content.map((block, index) => {
    const where = `${at}.content[${index}]`
    if (!isJsonObject(block) || typeof block['type'] !== 'string') throw invalidField(where, `\`${where}\` must be an object with a "type"`)
    return { block, type: block['type'], at: where }
  })
  return role === 'assistant' ? [assistantTurn(blocks)] : userTurn(role, blocks)
}

interface Block {
  readonly block: JsonObject
  readonly type: string
  readonly at: string
}

function assistantTurn(blocks: readonly Block[]): JsonObject {
  let text = ''
  let hasText = false
  const reasoning: string[] = []
  const calls: JsonObject[] = []
  for (const { block, type, at } of blocks) {
    switch (type) {
      case 'text':
        text += textOf(block, at)
        hasText = true
        break
      case 'thinking':
        if (typeof block['thinking'] === 'string' && block['thinking'] !== '') reasoning.push(block['thinking'])
        break
      case 'redacted_thinking':
        break
      case 'tool_use':
        calls.push(callOf(block, at))
        break
      default:
        throw unknownBlock(type, at, 'text, thinking or tool_use')
    }
  }
  return {
    role: 'assistant', content: hasText ? text : null,
    ...(reasoning.length === 0 ? {} : { reasoning_content: reasoning.join('\n') }),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  }
}

function callOf(block: JsonObject, at: string): JsonObject {
  const { id, name, input } = block
  if (typeof id !== 'string' || typeof name !== 'string') throw invalidField(at, `\`${at}\` of type tool_use must have an "id" and a "name"`)
  if (input !== undefined && !isJsonObject(input)) throw invalidField(`${at}.input`, `\`${at}.input\` must be an object, got ${shown(input)}`)
  return { id, type: 'function', function: { name, arguments: stringifyJson(input ?? {}) } }
}

/** Blocks in their order: what stands between two tool results is a message. */
function userTurn(role: string, blocks: readonly Block[]): readonly JsonObject[] {
  const messages: JsonObject[] = []
  let parts: JsonObject[] = []
  const flush = (): void => {
    if (parts.length === 0) return
    const onlyText = parts.every((part) => part['type'] === 'text')
    messages.push({ role, content: onlyText ? parts.map((part) => String(part['text'])).join('') : parts })
    parts = []
  }
  for (const { block, type, at } of blocks) {
    if (type === 'text') parts.push({ type, text: textOf(block, at) })
    else if (type === 'image') parts.push(imageOf(block, at))
    else if (type === 'tool_result') {
      flush()
      messages.push(resultOf(block, at))
    } else throw unknownBlock(type, at, 'text, image or tool_result')
  }
  flush()
  return messages
}

function resultOf(block: JsonObject, at: string): JsonObject {
  const { tool_use_id: id, content } = block
  if (typeof id !== 'string') throw invalidField(`${at}.tool_use_id`, `\`${at}.tool_use_id\` must be the id of the call that this block answers`)
  const text = content === undefined || content === null ? '' : typeof content === 'string' ? content : isJsonList(content) ? content.map((part, index) => textOf(part, `${at}.content[${index}]`)).join('') : undefined
  if (text === undefined) throw invalidField(`${at}.content`, `\`${at}.content\` must be a text or a list of text blocks, got ${shown(content)}`)
  return { role: 'tool', tool_call_id: id, content: text }
}

function imageOf(block: JsonObject, at: string): JsonObject {
  const source = block['source']
  if (isJsonObject(source)) {
    const { type, media_type: media, data, url } = source
    if (type === 'base64' && typeof media === 'string' && typeof data === 'string') return { type: 'image_url', image_url: { url: `data:${media};base64,${data}` } }
    if (type === 'url' && typeof url === 'string') return { type: 'image_url', image_url: { url } }
  }
  throw invalidField(`${at}.source`, `\`${at}.source\` must be {"type":"base64","media_type":…,"data":…} or {"type":"url","url":…}`)
}

function textOf(block: Json, at: string): string {
  if (isJsonObject(block) && block['type'] === 'text' && typeof block['text'] === 'string') return block['text']
  throw invalidField(at, `\`${at}\` must be a block {"type":"text","text":"…"}, got ${shown(isJsonObject(block) ? block['type'] : block)}`)
}

const unknownBlock = (type: string, at: string, allowed: string): ApiError =>
  invalidField(`${at}.type`, `\`${at}.type\` must be ${allowed} here, got ${shown(type)}`)
