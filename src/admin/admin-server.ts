/** The admin API: settings of a running process, to read and to change. Loopback only; writes need the token. */
import { timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Json, JsonObject, Log } from '../ports.ts'

/** Answer to a write. */
export type AdminAnswer =
  | { readonly kind: 'applied'; readonly body: JsonObject }
  | { readonly kind: 'refused'; readonly problems: readonly { readonly field: string; readonly message: string }[] }

/** What stands behind the API. Must not reject. */
export interface AdminTarget {
  report(): JsonObject
  patch(body: unknown): Promise<AdminAnswer>
  reload(): Promise<AdminAnswer>
}

export interface AdminServerOptions {
  readonly port: number
  /** Null: nothing can be written. */
  readonly tokenFile: string | null
  readonly target: AdminTarget
  readonly log: Log
}

export interface AdminServer {
  readonly url: string
  close(): Promise<void>
}

const host = '127.0.0.1'
const bodyBytesMax = 65_536
const tokenBytesMax = 4096
/** Longest time for a request to come in. Units: ms. */
const requestMs = 10_000

class AdminError extends Error {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>

  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message)
    this.status = status
    this.headers = headers
  }
}

/** A token file that cannot be used. */
export class TokenFileError extends Error {}

/** Errors: `TokenFileError`; the listener's own (`EADDRINUSE`, `EACCES`). */
export async function startAdminServer(options: AdminServerOptions): Promise<AdminServer> {
  if (options.tokenFile !== null) readToken(options.tokenFile)
  const server = createServer({ requestTimeout: requestMs, headersTimeout: requestMs, maxHeaderSize: 16_384 }, (request, response) => { void serve(request, response, options) })
  server.maxConnections = 64
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, host, () => { server.off('error', reject); resolve() })
  })
  return { url: `http://${host}:${(server.address() as AddressInfo).port}`, close: () => closed(server) }
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
}

async function serve(request: IncomingMessage, response: ServerResponse, options: AdminServerOptions): Promise<void> {
  try {
    await route(request, response, options)
  } catch (error) {
    if (response.headersSent || response.destroyed) return
    if (!(error instanceof AdminError)) options.log.error({ stage: 'admin', reason: error instanceof Error ? error.message : String(error) }, 'a request to the admin API failed')
    const { status, message, headers } = error instanceof AdminError ? error : { status: 500, message: 'the request failed; the log tells more', headers: {} }
    send(response, status, { error: { message } }, { ...headers, connection: 'close' })
  }
}

async function route(request: IncomingMessage, response: ServerResponse, { target, tokenFile }: AdminServerOptions): Promise<void> {
  // A page in a browser that was led here by a name of its own does not count as local.
  if (!/^(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?$/i.test(request.headers.host ?? '')) throw new AdminError(403, 'the host must be 127.0.0.1 or localhost')
  const path = (request.url ?? '/').split('?')[0]
  if (path === '/settings' && (request.method === 'GET' || request.method === 'HEAD')) return send(response, 200, target.report())
  if (path === '/settings' && request.method === 'PATCH') {
    requireToken(request, tokenFile)
    return answer(response, await target.patch(await readJson(request)))
  }
  if (path === '/reload' && request.method === 'POST') {
    requireToken(request, tokenFile)
    return answer(response, await target.reload())
  }
  const allow = path === '/settings' ? 'GET, HEAD, PATCH' : path === '/reload' ? 'POST' : null
  if (allow !== null) throw new AdminError(405, `${request.method} is not allowed here; use ${allow}`, { allow })
  throw new AdminError(404, 'not found; there are GET and PATCH /settings, and POST /reload')
}

function answer(response: ServerResponse, outcome: AdminAnswer): void {
  if (outcome.kind === 'applied') return send(response, 200, outcome.body)
  send(response, 400, { error: { message: 'nothing was changed', problems: outcome.problems.map(({ field, message }) => ({ field, message })) } })
}

/** Errors: `TokenFileError`: it cannot be read, or is empty. */
function readToken(path: string): string {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw new TokenFileError(`${path}: cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)}); check the path and its permissions`)
  }
  const token = bytes.toString('utf8').trim()
  if (token === '' || bytes.length > tokenBytesMax) throw new TokenFileError(`${path}: expected a token of 1 to ${tokenBytesMax} bytes`)
  return token
}

function requireToken(request: IncomingMessage, tokenFile: string | null): void {
  if (tokenFile === null) throw new AdminError(403, 'this process takes no changes over the admin API; start it with --admin-token-file')
  let token: string
  try {
    token = readToken(tokenFile)
  } catch {
    throw new AdminError(503, 'the token file cannot be read; see --admin-token-file')
  }
  const sent = /^bearer\s+(.+)$/i.exec(request.headers.authorization ?? '')?.[1]?.trim() ?? ''
  const [left, right] = [Buffer.from(sent), Buffer.from(token)]
  if (left.length !== right.length || !timingSafeEqual(left, right)) throw new AdminError(401, 'writing needs the header "authorization: Bearer" with the token of --admin-token-file', { 'www-authenticate': 'Bearer' })
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > bodyBytesMax) throw new AdminError(413, `the body has more than ${bodyBytesMax} bytes`)
    chunks.push(chunk)
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8')) as unknown
  } catch {
    throw new AdminError(400, 'the body is no JSON; send an object with settings, such as {"router-temperature": 0.2}')
  }
}

function send(response: ServerResponse, status: number, body: Json, headers: Readonly<Record<string, string>> = {}): void {
  const text = Buffer.from(`${JSON.stringify(body, (_key, value: unknown) => (typeof value === 'bigint' ? value.toString() : value), 2)}\n`)
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'content-length': text.length, 'cache-control': 'no-store', ...headers })
  response.end(response.req.method === 'HEAD' ? undefined : text)
}
