/** Chat templates of one model: which one is rendered, with what, and what becomes of a message to be continued. */
import { strip } from './jinja/string-methods.ts'
import { JinjaTemplate } from './jinja/template.ts'
import { dressMessages, dressTools, needsContentParts, type TemplateTraits } from './message-content.ts'
import { TemplateError } from './template-error.ts'
import type { ChatTemplateInput } from './text-model.ts'

export interface ChatTemplateOptions {
  /** `bos_token` and its like. */
  readonly specialTokens: { readonly [name: string]: string }
  /** Unix milliseconds, for `strftime_now`. */
  readonly nowMs: () => number
}

interface NamedTemplate extends TemplateTraits {
  readonly template: JinjaTemplate
  readonly source: string
}

/** Stands at the end of a message that is to be continued, until it is cut off with all that follows. */
const CONTINUE_MARK = 'CONTINUE_FINAL_MESSAGE_TAG '
const CONTINUE_MARK_BARE = CONTINUE_MARK.trim()

export class ChatTemplate {
  readonly #templates = new Map<string, NamedTemplate>()
  readonly #options: ChatTemplateOptions

  /** Errors: `TemplateError` of kind unsupported, naming template and construct. */
  constructor(sources: ReadonlyMap<string, string>, options: ChatTemplateOptions) {
    this.#options = options
    for (const [name, source] of sources) {
      try {
        const template = new JinjaTemplate(source, options)
        this.#templates.set(name, { template, source, needsParts: needsContentParts(template, { ...options.specialTokens, tools: null }), showsReasoning: source.includes('reasoning_content') })
      } catch (cause) {
        if (!(cause instanceof TemplateError)) throw cause
        throw new TemplateError('unsupported', `the chat template "${name}" is not rendered exactly: it uses ${cause.message}. Give the model another template in chat_template.jinja`, { cause })
      }
    }
  }

  /** Errors: `TemplateError`. */
  render(input: ChatTemplateInput): string {
    const tools = input.tools === undefined || input.tools.length === 0 ? null : dressTools(input.tools)
    const chosen = this.#choose(tools !== null)
    const messages = dressMessages(input.messages, chosen)
    if (input.continueFinalMessage === true && input.addGenerationPrompt) {
      throw new TemplateError('failed', 'continue_final_message and add_generation_prompt exclude each other; set one of them to false')
    }
    const marked = input.continueFinalMessage === true ? markFinalMessage(messages) : null
    const text = chosen.template.render({
      ...this.#options.specialTokens,
      messages: marked?.messages ?? messages,
      tools,
      documents: null,
      add_generation_prompt: input.addGenerationPrompt,
      ...input.variables,
    })
    return marked === null ? text : cutAtMark(text, marked.content)
  }

  #choose(withTools: boolean): NamedTemplate {
    const named = withTools ? this.#templates.get('tool_use') : undefined
    const template = named ?? this.#templates.get('default') ?? this.#templates.values().next().value
    if (template === undefined) throw new TemplateError('failed', 'the model has no chat template')
    return template
  }
}

type Message = { readonly [key: string]: unknown }

function markFinalMessage(messages: readonly Message[]): { messages: readonly Message[]; content: string } {
  const last = messages.at(-1)
  const content = last?.['content']
  if (last !== undefined && typeof content === 'string') return { messages: [...messages.slice(0, -1), { ...last, content: content + CONTINUE_MARK }], content }
  if (last !== undefined && Array.isArray(content)) {
    const index = content.findLastIndex((part: unknown) => typeof (part as { text?: unknown } | null)?.text === 'string')
    if (index >= 0) {
      const part = content[index] as { text: string }
      const parts = content.with(index, { ...part, text: part.text + CONTINUE_MARK })
      return { messages: [...messages.slice(0, -1), { ...last, content: parts }], content: part.text }
    }
  }
  throw new TemplateError('failed', 'continue_final_message needs a last message with text to continue')
}

function cutAtMark(text: string, content: string): string {
  const at = text.lastIndexOf(CONTINUE_MARK_BARE)
  if (at < 0 || !text.includes(strip(content, null, 'both'))) {
    throw new TemplateError('failed', 'continue_final_message: the chat template does not show the last message as it is; send without it')
  }
  const before = text.slice(0, at)
  return text.startsWith(CONTINUE_MARK, at) ? before : strip(before, null, 'right')
}
