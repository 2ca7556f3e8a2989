/** Messages of a chat request: checked, and their media set apart for the worker. */
import type { Json, JsonObject } from '../ports.ts'
import { invalidField } from './api-error.ts'
import { isJsonList, isJsonObject, shown, type Fields } from './fields.ts'

const roles = ['developer', 'system', 'user', 'assistant', 'tool', 'function'] as const
type Role = (typeof roles)[number]

const mediaTypes = ['image_url', 'video_url', 'audio_url'] as const
type MediaType = (typeof mediaTypes)[number]

export interface Messages {
  /** As they came. */
  readonly list: readonly JsonObject[]
  /** `multi_modal_data`: addresses by kind, in order of appearance; undefined without media. */
  readonly media: JsonObject | undefined
  /** What set the request off, for session-aware workers. */
  readonly inputTrigger: 'user_message' | 'tool_result' | 'other'
}

/** Errors: 400 for the first message that is not of OpenAI's form. */
export function readMessages(body: Fields): Messages {
  const value = body.get('messages')
  if (value === undefined) throw invalidField('messages', '`messages` is missing; send a list such as [{"role":"user","content":"…"}]')
  if (!isJsonList(value)) throw body.wrong('messages', 'must be a list of messages', value)
  if (value.length === 0) throw invalidField('messages', '`messages` cannot be empty; at least one message is required')
  const media = new Map<MediaType, string[]>()
  value.forEach((message, index) => checkMessage(message, `messages[${index}]`, media))
  const list = value as readonly JsonObject[]
  const last = list.at(-1)?.['role']
  return {
    list,
    media: media.size === 0 ? undefined : Object.fromEntries([...media].map(([kind, urls]) => [kind, urls.map((url) => ({ Url: url }))])),
    inputTrigger: last === 'user' ? 'user_message' : last === 'tool' || last === 'function' ? 'tool_result' : 'other',
  }
}

function checkMessage(message: Json, at: string, media: Map<MediaType, string[]>): void {
  if (!isJsonObject(message)) throw invalidField(at, `\`${at}\` must be an object with "role" and "content", got ${shown(message)}`)
  const role = message['role']
  if (typeof role !== 'string' || !(roles as readonly string[]).includes(role)) {
    throw invalidField(`${at}.role`, `\`${at}.role\` must be one of ${roles.join(', ')}, got ${shown(role)}`)
  }
  checkContent(message['content'] ?? null, role as Role, `${at}.content`, media)
  if (role === 'tool' && typeof message['tool_call_id'] !== 'string') {
    throw invalidField(`${at}.tool_call_id`, `\`${at}.tool_call_id\` must be the id of the call that this message answers`)
  }
  const calls = message['tool_calls'] ?? null
  if (role === 'assistant' && calls !== null) checkToolCalls(calls, `${at}.tool_calls`)
}

function checkContent(content: Json, role: Role, at: string, media: Map<MediaType, string[]>): void {
  if (typeof content === 'string') return
  if (content === null) {
    if (role === 'assistant' || role === 'function') return
    throw invalidField(at, `\`${at}\` of a ${role} message must be a string or a list of parts, got null`)
  }
  if (!isJsonList(content)) throw invalidField(at, `\`${at}\` must be a string or a list of parts, got ${shown(content)}`)
  if (content.length === 0) throw invalidField(at, `\`${at}\` must hold at least one part, got an empty list`)
  content.forEach((part, index) => checkPart(part, role, `${at}[${index}]`, media))
}

function checkPart(part: Json, role: Role, at: string, media: Map<MediaType, string[]>): void {
  const type = isJsonObject(part) ? part['type'] : undefined
  if (!isJsonObject(part) || typeof type !== 'string') throw invalidField(at, `\`${at}\` must be an object with a "type"`)
  if (type === 'text' || type === 'refusal') {
    if (typeof part[type] !== 'string') throw invalidField(`${at}.${type}`, `\`${at}.${type}\` must be a string, got ${shown(part[type])}`)
    return
  }
  if (role !== 'user' || !(mediaTypes as readonly string[]).includes(type)) {
    const allowed = role === 'user' ? ['text', ...mediaTypes] : role === 'assistant' ? ['text', 'refusal'] : ['text']
    throw invalidField(`${at}.type`, `\`${at}.type\` of a ${role} message must be one of ${allowed.join(', ')}, got ${shown(type)}`)
  }
  const holder = part[type]
  const url = isJsonObject(holder) ? holder['url'] : undefined
  if (typeof url !== 'string' || url === '') throw invalidField(`${at}.${type}.url`, `\`${at}.${type}.url\` must be an http(s) or data address`)
  const kind = type as MediaType
  media.set(kind, [...(media.get(kind) ?? []), url])
}

function checkToolCalls(calls: Json, at: string): void {
  if (!isJsonList(calls)) throw invalidField(at, `\`${at}\` must be a list, got ${shown(calls)}`)
  calls.forEach((call, index) => {
    const called = isJsonObject(call) ? call['function'] : undefined
    if (isJsonObject(called) && typeof called['name'] === 'string') return
    throw invalidField(`${at}[${index}]`, `\`${at}[${index}]\` must be {"id":…,"type":"function","function":{"name":…,"arguments":"…"}}`)
  })
}

/** The messages for a worker that fetches media itself: inlined data left out, since `multi_modal_data` has it. */
export function withoutInlineMedia(list: readonly JsonObject[]): readonly JsonObject[] {
  return list.map((message) => {
    const content = message['content']
    return isJsonList(content) ? { ...message, content: content.map(withoutInlineData) } : message
  })
}

function withoutInlineData(part: Json): Json {
  if (!isJsonObject(part)) return part
  const kind = mediaTypes.find((type) => part['type'] === type)
  const holder = kind === undefined ? undefined : part[kind]
  if (kind === undefined || !isJsonObject(holder)) return part
  const url = String(holder['url'])
  return { ...part, [kind]: { ...holder, url: url.startsWith('data:') ? '' : url, ...(kind === 'audio_url' ? {} : { detail: holder['detail'] ?? null }) } }
}
