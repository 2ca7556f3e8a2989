/** The prompt of a chat: messages, tools and template options as the model's template is given them. */
import { parseJson } from '../dynamo/wire/json.ts'
import type { Json, JsonObject } from '../ports.ts'
import { TemplateError } from '../text/template-error.ts'
import type { JsonValue } from '../text/text-model.ts'
import { invalidField } from './api-error.ts'
import type { ServedModel } from './catalog.ts'
import { isJsonList, isJsonObject, type Fields } from './fields.ts'
import { thinkingVariables } from './thinking.ts'

export interface TemplateOptions {
  readonly addGenerationPrompt: boolean
  readonly continueFinalMessage: boolean
  /** `chat_template_kwargs` and what the request says of thinking. */
  readonly variables: JsonObject
}

/** Errors: 400 for options that exclude each other. */
export function readTemplateOptions(body: Fields): TemplateOptions {
  const continueFinalMessage = body.boolean('continue_final_message') ?? false
  const addGenerationPrompt = body.boolean('add_generation_prompt') ?? !continueFinalMessage
  if (continueFinalMessage && addGenerationPrompt) {
    throw invalidField('continue_final_message', '`continue_final_message` and `add_generation_prompt` cannot both be true; set one of them to false')
  }
  const variables = { ...body.group('chat_template_args')?.object, ...body.group('chat_template_kwargs')?.object }
  return { addGenerationPrompt, continueFinalMessage, variables: thinkingVariables(variables, body.text('reasoning_effort')) }
}

/** Errors: 400 for a model without a template, and for what the template refuses. */
export function renderPrompt(model: ServedModel, messages: readonly JsonObject[], tools: readonly Json[] | undefined, template: TemplateOptions): string {
  if (!model.text.hasChatTemplate) throw invalidField('messages', `the model ${JSON.stringify(model.name)} has no chat template; use /v1/completions`)
  try {
    return model.text.renderChat({
      messages: messages.map((message, index) => templateMessage(message, `messages[${index}]`)),
      ...(tools === undefined ? {} : { tools: tools.map(templateValue) }),
      addGenerationPrompt: template.addGenerationPrompt,
      continueFinalMessage: template.continueFinalMessage,
      variables: templateValue(template.variables) as { readonly [key: string]: JsonValue },
    })
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error
    throw invalidField('messages', `the model's chat template refuses these messages: ${error.message}`, 'template_error')
  }
}

/** Content that is null is absent; `reasoning` is another name; calls have their arguments as an object, as templates print them. */
function templateMessage(message: JsonObject, at: string): { readonly [key: string]: JsonValue } {
  const { content, reasoning, tool_calls: calls, ...rest } = message
  const dressed: Record<string, Json> = { ...rest }
  if (content !== null && content !== undefined) dressed['content'] = content
  if (reasoning !== null && reasoning !== undefined && !('reasoning_content' in rest)) dressed['reasoning_content'] = reasoning
  if (isJsonList(calls) && calls.length > 0) dressed['tool_calls'] = calls.map((call, index) => templateCall(call, `${at}.tool_calls[${index}]`))
  return templateValue(dressed) as { readonly [key: string]: JsonValue }
}

function templateCall(call: Json, at: string): Json {
  const called = isJsonObject(call) ? call['function'] : undefined
  if (!isJsonObject(call) || !isJsonObject(called) || typeof called['arguments'] !== 'string') return call
  return { ...call, function: { ...called, arguments: argumentsOf(called['arguments'], `${at}.function.arguments`) } }
}

function argumentsOf(text: string, at: string): JsonObject {
  if (text.trim() === '') return {}
  let value: Json | undefined
  try {
    value = parseJson(text)
  } catch {
    value = undefined
  }
  if (!isJsonObject(value)) throw invalidField(at, `\`${at}\` must be a string that holds a JSON object, such as "{\\"city\\":\\"Paris\\"}"`)
  return value
}

/** Templates know numbers, not wide integers: those become the nearest number. */
function templateValue(value: Json): JsonValue {
  if (typeof value === 'bigint') return Number(value)
  if (isJsonList(value)) return value.map(templateValue)
  if (isJsonObject(value)) return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, templateValue(item)]))
  return value as JsonValue
}
