/** One chat template: parsed and looked through once, rendered many times. */
import { TemplateError } from '../template-error.ts'
import { type OwnNames, ownNames } from './frames.ts'
import { globalFunctions } from './globals.ts'
import { Renderer } from './renderer.ts'
import { type Node, parseTemplate } from './syntax.ts'
import { fromJson, type PyValue } from './values.ts'

export interface TemplateOptions {
  /** Unix milliseconds, for `strftime_now`. */
  readonly nowMs: () => number
}

export class JinjaTemplate {
  readonly #body: readonly Node[]
  readonly #ownNames: OwnNames
  readonly #globals: ReadonlyMap<string, PyValue>

  /** Errors: `TemplateError` of kind unsupported, naming the construct that would not be rendered exactly. */
  constructor(source: string, options: TemplateOptions) {
    this.#body = parseTemplate(source)
    this.#ownNames = ownNames(this.#body)
    this.#globals = globalFunctions(options.nowMs)
  }

  /** Variables are JSON values; numbers of a lossless parser keep their form. Errors: `TemplateError`. */
  render(variables: { readonly [name: string]: unknown }): string {
    const values = new Map<string, PyValue>(this.#globals)
    for (const [name, value] of Object.entries(variables)) if (value !== undefined) values.set(name, fromJson(value))
    try {
      return new Renderer(this.#ownNames).render(this.#body, values)
    } catch (cause) {
      if (cause instanceof TemplateError) throw cause
      throw new TemplateError('failed', `the chat template failed: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
    }
  }
}
