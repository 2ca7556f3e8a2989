/** What a service answers to one call. */

export interface Answer {
  readonly status: number
  /** A value for JSON, integers of any size; with `text`: not used. */
  readonly body: unknown
  /** Instead of JSON. */
  readonly text?: { readonly type: string; readonly content: string }
}

export const okAnswer = (status = 200): Answer => ({ status, body: { status: 'ok' } })
export const failure = (status: number, error: string): Answer => ({ status, body: { error } })

/** One call, its body not yet read. */
export interface ServiceCall {
  readonly method: string
  /** Path without the query, as it came. */
  readonly path: string
  readonly query: ReadonlyMap<string, string>
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, string | undefined>>
  /** Text of the body. */
  readonly body: string
  /** Aborts when the caller has left. */
  readonly signal?: AbortSignal
}
