/** The few calls to a Kubernetes API server that discovery makes, with deadlines, over one pool of connections. */
import { readFileSync } from 'node:fs'
import { Pool, type Dispatcher } from 'undici'
import { parseJson, stringifyJson } from '../wire/json.ts'
import type { Clock, JsonObject } from '../../ports.ts'
import type { KubeAccess } from './kube-access.ts'
import { KubeError } from './kube-error.ts'

const callTimeoutMs = 10_000
const tokenReadEveryMs = 60_000
const bodyBytesMax = 256 * 1024 * 1024

export class KubeClient {
  readonly #options: KubeAccess
  readonly #clock: Clock
  readonly #pool: Pool
  #token: string | null = null
  #tokenReadMs = -Infinity

  constructor(options: KubeAccess, clock: Clock) {
    this.#options = options
    this.#clock = clock
    const { ca, clientCert, clientKey, insecure } = options
    this.#pool = new Pool(options.server, {
      connections: 8, bodyTimeout: 0, headersTimeout: callTimeoutMs, connectTimeout: 5_000, keepAliveTimeout: 30_000,
      connect: { ...(ca === undefined ? {} : { ca }), ...(clientCert === undefined ? {} : { cert: clientCert }), ...(clientKey === undefined ? {} : { key: clientKey }), rejectUnauthorized: insecure !== true },
    })
  }

  /** One call. Errors: `KubeError` for another status than 2xx, what the connection rejects with otherwise. */
  async call(method: 'GET' | 'PATCH' | 'DELETE', path: string, body?: JsonObject): Promise<JsonObject> {
    const signal = AbortSignal.timeout(callTimeoutMs)
    const reply = await this.#pool.request({
      method, path, signal, headers: this.#headers(body === undefined ? null : 'application/apply-patch+yaml'), ...(body === undefined ? {} : { body: stringifyJson(body) }),
    })
    const text = await readText(reply.body)
    if (reply.statusCode >= 300) throw new KubeError(reply.statusCode, statusMessage(reply.statusCode, text))
    return parseJson(text) as JsonObject
  }

  /** Events of a watch, one JSON object each, until the server ends it or the signal aborts. Errors: as `call`. */
  async *watch(path: string, signal: AbortSignal): AsyncGenerator<JsonObject, void, void> {
    const reply = await this.#pool.request({ method: 'GET', path, signal, headers: this.#headers(null) })
    if (reply.statusCode >= 300) throw new KubeError(reply.statusCode, statusMessage(reply.statusCode, await readText(reply.body)))
    reply.body.setEncoding('utf8')
    let rest = ''
    for await (const chunk of reply.body as AsyncIterable<string>) {
      rest += chunk
      if (rest.length > bodyBytesMax) throw new Error('an event of the API server is too long')
      for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
        const line = rest.slice(0, end)
        rest = rest.slice(end + 1)
        if (line.trim() !== '') yield parseJson(line) as JsonObject
      }
    }
  }

  close(): Promise<void> {
    return this.#pool.destroy()
  }

  #headers(contentType: string | null): Record<string, string> {
    const token = this.#tokenNow()
    return { accept: 'application/json', ...(contentType === null ? {} : { 'content-type': contentType }), ...(token === null ? {} : { authorization: `Bearer ${token}` }) }
  }

  #tokenNow(): string | null {
    const { token } = this.#options
    if (token === undefined) return null
    if ('text' in token) return token.text
    const nowMs = this.#clock.nowMs()
    if (nowMs - this.#tokenReadMs < tokenReadEveryMs) return this.#token
    this.#tokenReadMs = nowMs
    try {
      this.#token = readFileSync(token.file, 'utf8').trim()
    } catch {
      // The old one may still hold; the server says when it does not.
    }
    return this.#token
  }
}

async function readText(body: Dispatcher.ResponseData['body']): Promise<string> {
  body.setEncoding('utf8')
  let text = ''
  for await (const chunk of body as AsyncIterable<string>) {
    text += chunk
    if (text.length > bodyBytesMax) throw new Error('an answer of the API server is too long')
  }
  return text
}

function statusMessage(status: number, text: string): string {
  try {
    const { message } = parseJson(text) as { readonly message?: unknown }
    if (typeof message === 'string') return `${status}: ${message.slice(0, 500)}`
  } catch {
    // Not one of the API server's own answers.
  }
  return `${status}: ${text.slice(0, 200)}`
}
