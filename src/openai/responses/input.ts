/** `input` of a Responses request as chat messages. */
import type { Json, JsonObject } from '../../ports.ts'
import { ApiError, invalidField } from '../api-error.ts'
import { isJsonList, isJsonObject, shown, type Fields } from '../fields.ts'

const roles = ['user', 'assistant', 'system', 'developer']

/** An answer of before that is still being put together: its reasoning, text and calls are items of their own. */
interface Turn {
  reasoning: string[]
  content: string | null
  calls: JsonObject[]
}

/** Errors: 400 for the first item that cannot be read, and for kinds of items that only a server with tools and files of its own knows. */
export function messagesOfInput(body: Fields): readonly JsonObject[] {
  const input = body.get('input')
  const instructions = body.text('instructions')
  const reader = new InputReader()
  if (instructions !== undefined) reader.messages.push({ role: 'system', content: instructions })
  if (typeof input === 'string') reader.messages.push({ role: 'user', content: input })
  else if (input === undefined) throw invalidField('input', '`input` is missing; send a text or a list of items')
  else if (!isJsonList(input)) throw body.wrong('input', 'must be a text or a list of items', input)
  else {
    if (input.length === 0) throw invalidField('input', '`input` cannot be empty; at least one item is required')
    input.forEach((item, index) => reader.read(item, `input[${index}]`))
  }
  reader.closeTurn()
  return reader.messages
}

class InputReader {
  readonly messages: JsonObject[] = []
  #turn: Turn | undefined

  read(item: Json, at: string): void {
    if (!isJsonObject(item)) throw invalidField(at, `\`${at}\` must be an object, got ${shown(item)}`)
    const type = item['type'] ?? 'message'
    switch (type) {
      case 'message': return this.#message(item, at)
      case 'function_call': return this.#call(item, at)
      case 'function_call_output': return this.#output(item, at)
      case 'reasoning': return this.#reasoning(item)
      default:
        throw invalidField(`${at}.type`, `\`${at}.type\` must be message, function_call, function_call_output or reasoning, got ${shown(type)}; nothing is kept from earlier requests, and there are no tools of this server's own`)
    }
  }

  closeTurn(): void {
    const turn = this.#turn
    this.#turn = undefined
    if (turn === undefined) return
    this.messages.push({
      role: 'assistant', content: turn.content,
      ...(turn.reasoning.length === 0 ? {} : { reasoning_content: turn.reasoning.join('\n') }),
      ...(turn.calls.length === 0 ? {} : { tool_calls: turn.calls }),
    })
  }

  #message(item: JsonObject, at: string): void {
    const role = item['role']
    if (typeof role !== 'string' || !roles.includes(role)) throw invalidField(`${at}.role`, `\`${at}.role\` must be one of ${roles.join(', ')}, got ${shown(role)}`)
    const content = item['content'] ?? null
    if (typeof content !== 'string' && !isJsonList(content)) throw invalidField(`${at}.content`, `\`${at}.content\` must be a text or a list of parts, got ${shown(content)}`)
    if (role === 'assistant') {
      const turn = this.#openTurn((open) => open.content === null && open.calls.length === 0)
      turn.content = typeof content === 'string' ? content : content.map((part, index) => textOf(part, `${at}.content[${index}]`)).join('')
      return
    }
    this.closeTurn()
    const parts = typeof content === 'string' ? content : content.map((part, index) => chatPart(part, `${at}.content[${index}]`))
    // What the system says is one text.
    const isText = role !== 'user' && typeof parts !== 'string' && parts.every(({ type }) => type === 'text')
    this.messages.push({ role: role === 'developer' ? 'system' : role, content: isText ? parts.map(({ text }) => String(text)).join('') : parts })
  }

  #call(item: JsonObject, at: string): void {
    const { call_id: id, name, arguments: text } = item
    for (const [field, value] of [['call_id', id], ['name', name], ['arguments', text]] as const) {
      if (typeof value !== 'string') throw invalidField(`${at}.${field}`, `\`${at}.${field}\` must be a string, got ${shown(value)}`)
    }
    this.#openTurn().calls.push({ id: id as Json, type: 'function', function: { name: name as Json, arguments: text as Json } })
  }

  #output(item: JsonObject, at: string): void {
    const { call_id: id, output } = item
    if (typeof id !== 'string') throw invalidField(`${at}.call_id`, `\`${at}.call_id\` must be the id of the call that this item answers`)
    if (typeof output !== 'string' && !isJsonList(output)) throw invalidField(`${at}.output`, `\`${at}.output\` must be a text or a list of parts, got ${shown(output)}`)
    this.closeTurn()
    const content = typeof output === 'string' ? output : output.map((part, index) => textOf(part, `${at}.output[${index}]`)).join('')
    this.messages.push({ role: 'tool', tool_call_id: id, content })
  }

  /** What a model said to itself: the text where there is one, else its summary. */
  #reasoning(item: JsonObject): void {
    const texts = (list: Json | undefined): string[] => (isJsonList(list) ? list.flatMap((part) => (isJsonObject(part) && typeof part['text'] === 'string' ? [part['text']] : [])) : [])
    const found = texts(item['content'])
    this.#openTurn((open) => open.content === null && open.calls.length === 0).reasoning.push(...(found.length > 0 ? found : texts(item['summary'])))
  }

  #openTurn(fits: (open: Turn) => boolean = () => true): Turn {
    if (this.#turn !== undefined && !fits(this.#turn)) this.closeTurn()
    return (this.#turn ??= { reasoning: [], content: null, calls: [] })
  }
}

function textOf(part: Json, at: string): string {
  const type = isJsonObject(part) ? part['type'] : undefined
  const text = isJsonObject(part) ? part[type === 'refusal' ? 'refusal' : 'text'] : undefined
  if (typeof text === 'string') return text
  throw invalidField(at, `\`${at}\` must be a part with text, got ${shown(type)}`)
}

function chatPart(part: Json, at: string): JsonObject {
  if (!isJsonObject(part)) throw invalidField(at, `\`${at}\` must be an object with a "type", got ${shown(part)}`)
  switch (part['type']) {
    case 'input_text': case 'output_text': case 'text':
      return { type: 'text', text: textOf(part, at) }
    case 'input_image': {
      const url = part['image_url']
      if (typeof url !== 'string') throw invalidField(`${at}.image_url`, `\`${at}.image_url\` must be an http(s) or data address; there is no store of files`)
      return { type: 'image_url', image_url: { url, ...(typeof part['detail'] === 'string' ? { detail: part['detail'] } : {}) } }
    }
    default:
      throw new ApiError({ class: 'InvalidRequest', reason: 'request.invalid', param: `${at}.type`, message: `\`${at}.type\` must be input_text or input_image, got ${shown(part['type'])}` })
  }
}
