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

/**
 * Content made of text parts alone becomes one text, its parts on lines of their own; for a template that needs parts, a
 * text becomes one part. Content with other parts is left to the template.
 */
export function dressMessages(messages: readonly Message[], needsParts: boolean): readonly Message[] {
  return messages.map((message) => {
    const content = message['content']
    if (needsParts) return typeof content === 'string' ? { ...message, content: [{ type: 'text', text: content }] } : message
    if (!Array.isArray(content) || content.length === 0 || !content.every(isTextPart)) return message
    return { ...message, content: content.map((part: { text?: unknown }) => part.text).filter((text) => typeof text === 'string').join('\n') }
  })
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
