/** A chat template that cannot be rendered: its own `raise_exception`, a mistake in it, or a construct that is not rendered exactly. */
export class TemplateError extends Error {
  /** `raised`: the template's own message; `unsupported`: refused when loaded; `failed`: went wrong while rendering. */
  readonly kind: 'raised' | 'unsupported' | 'failed'

  constructor(kind: 'raised' | 'unsupported' | 'failed', message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'TemplateError'
    this.kind = kind
  }
}
