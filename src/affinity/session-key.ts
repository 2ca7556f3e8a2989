/** The name under which a request's session is bound. */

/** Bytes of a session id at most. Source: Dynamo 1.6.1. */
export const sessionIdBytesMax = 256

/**
 * The key of a request's binding. A session with a parent is bound with its siblings under a key of the parent's group, which no session
 * can have as its own id; the parent keeps its own binding.
 */
export const sessionKeyOf = (sessionId: string, parentSessionId: string | null): string =>
  parentSessionId === null ? `s:${sessionId}` : `g:${parentSessionId}`

/** Length in UTF-8. */
export function utf8Length(text: string): number {
  let bytes = 0
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4
  }
  return bytes
}
