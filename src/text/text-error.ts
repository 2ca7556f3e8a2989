/** A model's text files that cannot be used, or a text past the bounds; the message names file, field and mend. */
export class TextError extends Error {
  readonly kind: 'files' | 'limit'

  constructor(kind: 'files' | 'limit', message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'TextError'
    this.kind = kind
  }
}
