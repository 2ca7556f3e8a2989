/** How messages and tools are dressed before a template sees them, as Dynamo does it. */
import type { JinjaTemplate } from './jinja/template.ts'
import type { TemplateError } from './template-error.ts'

type Message = { readonly [key: string]: unknown }

const PROBE = 'template_probe'

/** Whether a template shows the content of messages only when it is a list of parts. */
export function needsContentParts(template: JinjaTemplate, variables: { readonly [name: string]: unknown }): boolean {
  const shows = (content: unknown): boolean => {
    try {
      return template.render({ ...variables, messages: [{ role: 'user', content }], add_generation_prompt: false }).includes(PROBE)
    } catch (cause) {
      const error = cause as TemplateError
      return error.kind === 'raised' && error.message.includes(PROBE)
    }
  }
  return shows([{ type: 'text', text: PROBE }]) && !shows(PROBE)
}

export interface TemplateTraits {
  /** Content is shown only when it is a list of parts. */
  readonly needsParts: boolean
  /** The template shows `reasoning_content` of earlier answers itself. */
  readonly showsReasoning: boolean
}

/**
 * Content made of text parts alone becomes one text, its parts on lines of their own. Among other parts texts are joined as they are, and
 * each other part becomes a mark that is numbered within its message; for a template that needs parts, a text becomes one part and media
 * get the names that templates know.
 * Reasoning that the template does not show goes before the content.
 */
export function dressMessages(messages: readonly Message[], { needsParts, showsReasoning }: TemplateTraits): readonly Message[] {
  return messages.map((message) => {
    const dressed = withContent(message, needsParts)
    return showsReasoning ? withJoinedReasoning(dressed) : withReasoningInContent(dressed)
  })
}

function withContent(message: Message, needsParts: boolean): Message {
  const content = message['content']
  if (needsParts) return typeof content === 'string' ? { ...message, content: [{ type: 'text', text: content }] } : Array.isArray(content) ? { ...message, content: content.map(mediaPart) } : message
  if (!Array.isArray(content) || content.length === 0) return message
  if (content.every(isTextPart)) return { ...message, content: content.map((part: { text?: unknown }) => part.text).filter((text) => typeof text === 'string').join('\n') }
  let marks = 0
  const texts = content.map((part: unknown) => {
    if (!isTextPart(part)) return `<|image_${marks += 1}|>`
    const { text } = part as { text?: unknown }
    return typeof text === 'string' ? text : ''
  })
  return { ...message, content: texts.join('') }
}

/** Templates know `image`, `video` and `audio`, not the names of OpenAI's parts. */
function mediaPart(part: unknown): unknown {
  const kind = isRecord(part) && typeof part['type'] === 'string' ? /^(image|video|audio)_url$/.exec(part['type'])?.[1] : undefined
  return kind === undefined ? part : { ...(part as Message), type: kind }
}

function reasoningOf(message: Message): readonly string[] {
  const reasoning = message['reasoning_content']
  if (message['role'] !== 'assistant') return []
  return (Array.isArray(reasoning) ? reasoning : [reasoning]).filter((text): text is string => typeof text === 'string' && text !== '')
}

const withJoinedReasoning = (message: Message): Message => (Array.isArray(message['reasoning_content']) ? { ...message, reasoning_content: reasoningOf(message).join('\n') } : message)

function withReasoningInContent(message: Message): Message {
  const thoughts = reasoningOf(message).map((text) => `<think>${text}</think>`).join('')
  if (thoughts === '') return message
  const { content, reasoning_content: _reasoning, ...rest } = message
  return { ...rest, content: Array.isArray(content) ? [{ type: 'text', text: thoughts }, ...(content as unknown[])] : thoughts + (typeof content === 'string' ? content : '') }
}

const isTextPart = (part: unknown): boolean => typeof part === 'object' && part !== null && (part as { type?: unknown }).type === 'text'

/** Parameters of a function without `type` or `properties` get them: templates count on both. */
export function dressTools(tools: readonly unknown[]): readonly unknown[] {
  return tools.map((tool) => {
    const call = isRecord(tool) ? tool['function'] : undefined
    const parameters = isRecord(call) ? call['parameters'] : undefined
    if (!isRecord(tool) || !isRecord(call) || !isRecord(parameters)) return tool
    if ('type' in parameters && 'properties' in parameters) return tool
    const whole = { ...parameters, ...('type' in parameters ? {} : { type: 'object' }), ...('properties' in parameters ? {} : { properties: {} }) }
    return { ...tool, function: { ...call, parameters: whole } }
  })
}

const isRecord = (value: unknown): value is { readonly [key: string]: unknown } => typeof value === 'object' && value !== null && !Array.isArray(value)
