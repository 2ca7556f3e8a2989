/** Chat templates of one model. */
import { Template } from '@huggingface/jinja'
import { TemplateError } from './template-error.ts'
import type { ChatTemplateInput } from './text-model.ts'

export interface ChatTemplateOptions {
  readonly specialTokens: { readonly [name: string]: string }
  /** Unix milliseconds, for `strftime_now`. */
  readonly nowMs: () => number
}

export class ChatTemplate {
  readonly #templates = new Map<string, Template>()
  readonly #options: ChatTemplateOptions

  constructor(sources: ReadonlyMap<string, string>, options: ChatTemplateOptions) {
    this.#options = options
    for (const [name, source] of sources) {
      try {
        this.#templates.set(name, new Template(source))
      } catch (cause) {
        throw new TemplateError('unsupported', `chat template "${name}": ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
      }
    }
  }

  render(input: ChatTemplateInput): string {
    const named = input.tools !== undefined && input.tools.length > 0 ? this.#templates.get('tool_use') : undefined
    const template = named ?? this.#templates.get('default') ?? [...this.#templates.values()][0]
    try {
      return (template as Template).render({
        ...this.#options.specialTokens,
        messages: input.messages,
        tools: input.tools ?? null,
        add_generation_prompt: input.addGenerationPrompt,
        ...input.variables,
      })
    } catch (cause) {
      throw new TemplateError('failed', cause instanceof Error ? cause.message : String(cause), { cause })
    }
  }
}
