/** What a peer did wrong, by kind. `oversized`: a length field beyond the bound. `malformed`: bytes that fit no form of the protocol. */
export type WireErrorKind = 'malformed' | 'oversized'

/** Bytes or records of a peer that cannot be understood. Every decoder of this folder throws this and nothing else. */
export class WireError extends Error {
  readonly kind: WireErrorKind
  constructor(kind: WireErrorKind, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'WireError'
    this.kind = kind
  }
}

/** Shorthand for the common kind. */
export function malformed(message: string, cause?: unknown): WireError {
  return new WireError('malformed', message, cause === undefined ? undefined : { cause })
}
