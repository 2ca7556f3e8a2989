/** The port for probes and scrapes: `/health`, `/live`, `/metrics`. Unlike Dynamo's, health is ready exactly while requests are served. */
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Answers `/engine/{name}` with a value for JSON. What it throws is answered as status 500. */
export type EngineRoute = (body: Readonly<Record<string, unknown>>) => Promise<unknown>

export interface SystemServerOptions {
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  readonly healthPath?: string
  readonly livePath?: string
  /** True while requests are served: not before, and not while draining. */
  isReady(): boolean
  /** Names of the served endpoints, each with whether it takes requests. */
  endpoints(): ReadonlyMap<string, boolean>
  readonly metrics: { readonly contentType: string; text(): Promise<string> }
  /** Routes below `/engine/`, by name; may change. */
  readonly engineRoutes?: ReadonlyMap<string, EngineRoute>
}

export interface SystemServer {
  readonly host: string
  readonly port: number
  close(): Promise<void>
}

const textType = 'text/plain; charset=utf-8'
const answerDeadlineMs = 10_000

/** Binds. Errors: an `Error` that names address and mend. */
export async function startSystemServer(options: SystemServerOptions): Promise<SystemServer> {
  const startedMs = performance.now()
  const server = createServer((request, response) => {
    answer(options, startedMs, request, response).catch((error: unknown) => {
      if (response.headersSent) response.destroy()
      else send(response, 500, textType, `${error instanceof Error ? error.message : String(error)}\n`)
    })
  })
  server.requestTimeout = answerDeadlineMs
  server.headersTimeout = answerDeadlineMs
  server.keepAliveTimeout = 5_000
  server.maxConnections = 256
  const address = await listen(server, options)
  // Probes must not keep a drained process alive.
  server.unref()
  return {
    host: options.host,
    port: address.port,
    close: () => new Promise((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    }),
  }
}

function listen(server: Server, { host, port }: SystemServerOptions): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(bindError(error, host, port)))
    server.listen({ host, port }, () => {
      server.removeAllListeners('error')
      // A failed accept (no descriptors left) costs that probe, not the process.
      server.on('error', () => {})
      resolve(server.address() as AddressInfo)
    })
  })
}

function bindError(error: NodeJS.ErrnoException, host: string, port: number): Error {
  const place = `${host}:${port}`
  if (error.code === 'EADDRINUSE') return new Error(`${place} is in use; set DYN_SYSTEM_PORT to another port, 0 for a free one, -1 for none`, { cause: error })
  if (error.code === 'EACCES') return new Error(`${place} may not be bound by this user; set DYN_SYSTEM_PORT to 1024 or more`, { cause: error })
  if (error.code === 'EADDRNOTAVAIL' || error.code === 'ENOTFOUND') return new Error(`${host} is no address of this machine; set DYN_SYSTEM_HOST`, { cause: error })
  return new Error(`cannot serve on ${place}: ${error.message}`, { cause: error })
}

async function answer(options: SystemServerOptions, startedMs: number, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = (request.url ?? '/').split('?', 1)[0] as string
  const route = path.startsWith('/engine/') ? options.engineRoutes?.get(path.slice('/engine/'.length)) : undefined
  if (route !== undefined) return answerEngineRoute(route, request, response)
  if (request.method !== 'GET' && request.method !== 'HEAD') return send(response, 405, textType, 'Method not allowed\n', { allow: 'GET, HEAD' })
  if (path === (options.healthPath ?? '/health')) return sendStatus(options, startedMs, response, options.isReady())
  if (path === (options.livePath ?? '/live')) return sendStatus(options, startedMs, response, true)
  if (path === '/metrics') return send(response, 200, options.metrics.contentType, await options.metrics.text())
  return send(response, 404, textType, 'Route not found')
}

const engineBodyBytesMax = 1_048_576

async function answerEngineRoute(route: EngineRoute, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (!['GET', 'POST', 'PUT', 'DELETE'].includes(request.method ?? '')) return send(response, 405, textType, 'Method not allowed\n', { allow: 'GET, POST, PUT, DELETE' })
  const jsonType = 'application/json'
  const failed = (status: number, message: string): void => send(response, status, jsonType, JSON.stringify({ status: 'error', message }))
  const parts: Buffer[] = []
  let length = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length
    if (length > engineBodyBytesMax) return failed(413, `the body is longer than ${engineBodyBytesMax} bytes`)
    parts.push(part)
  }
  let body: unknown
  try {
    body = length === 0 ? {} : JSON.parse(Buffer.concat(parts).toString('utf8'))
  } catch (error) {
    return failed(400, `the body is not JSON: ${error instanceof Error ? error.message : String(error)}`)
  }
  if (body === null || typeof body !== 'object' || Array.isArray(body)) return failed(400, 'the body must be a JSON object')
  try {
    send(response, 200, jsonType, JSON.stringify(await route(body as Readonly<Record<string, unknown>>) ?? null))
  } catch (error) {
    failed(500, error instanceof Error ? error.message : String(error))
  }
}

function sendStatus(options: SystemServerOptions, startedMs: number, response: ServerResponse, isGood: boolean): void {
  const uptimeMs = performance.now() - startedMs
  const secs = Math.floor(uptimeMs / 1000)
  const endpoints: Record<string, string> = {}
  for (const [name, isServed] of options.endpoints()) endpoints[name] = isServed ? 'ready' : 'notready'
  const body = { status: isGood ? 'ready' : 'notready', uptime: { secs, nanos: Math.floor((uptimeMs - secs * 1000) * 1e6) }, endpoints }
  send(response, isGood ? 200 : 503, textType, JSON.stringify(body))
}

function send(response: ServerResponse, status: number, type: string, body: string, headers: Readonly<Record<string, string>> = {}): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body), ...headers })
  response.end(body)
}
