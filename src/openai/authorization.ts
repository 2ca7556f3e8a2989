/** Who may ask: the key that a request carries, as OpenAI's and Anthropic's clients send it. */
import type { IncomingHttpHeaders } from 'node:http'
import { ApiError } from './api-error.ts'
import type { ApiKeys } from './api-keys.ts'

/** Errors: 401 without a key, and with one that is not known. Gives the key's name. */
export function authorize(headers: IncomingHttpHeaders, keys: ApiKeys): string {
  const key = keyOf(headers)
  const name = key === undefined ? undefined : keys.nameOf(key)
  if (name !== undefined) return name
  throw new ApiError({
    class: 'Unauthenticated', reason: 'request.unauthenticated', code: 'invalid_api_key', headers: { 'www-authenticate': 'Bearer' },
    message: key === undefined
      ? 'an API key is required; send it in the header "authorization: Bearer <key>" or "x-api-key: <key>"'
      : 'the API key is not known here; check it, or ask the operator for one',
  })
}

function keyOf(headers: IncomingHttpHeaders): string | undefined {
  const bearer = /^bearer\s+(\S+)\s*$/i.exec(headers.authorization ?? '')?.[1]
  if (bearer !== undefined) return bearer
  const header = headers['x-api-key']
  return typeof header === 'string' && header !== '' ? header : undefined
}
