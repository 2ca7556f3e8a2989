/**
 * The router's three endpoints as JSON over HTTP, for curl and for clients outside Dynamo.
 *
 * Holds no state but its open requests. Everything it knows comes from the `HttpService` behind it.
 */
import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { isIPv6, type AddressInfo } from 'node:net'
import { FailureError, type Failure } from '../model/failure.ts'
import type { Json, JsonObject, Log } from '../ports.ts'
import { readBody } from './body-reader.ts'
import { EventStream } from './event-stream.ts'
import { failureBody, httpStatusByClass } from './http-status.ts'
import { decodeBody, encodeBody, invalidBody } from './lossless-body.ts'
import type { HttpCall, HttpService } from './service.ts'
import { withIntegerIds, withStringIds } from './worker-id-form.ts'

export interface HttpRoutesOptions {
  readonly service: HttpService
  readonly log: Log
  /** Default 32 MiB. */
  readonly bodyLimitBytes?: number
}

export interface HttpMirrorOptions extends HttpRoutesOptions {
  /** Default 127.0.0.1: nobody else can reach it unless told otherwise. */
  readonly host?: string
  /** 0 = any free port. */
  readonly port: number
}

export interface HttpMirror {
  readonly host: string
  readonly port: number
  /** `http://HOST:PORT`. */
  readonly url: string
  /** Requests whose answer has not ended. */
  readonly inflight: number
  /** Takes no new connections; open requests may end within `graceMs`, then they are cut. */
  close(graceMs: number): Promise<void>
}

interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly call: HttpCall
  readonly idsAsStrings: boolean
}

interface Route {
  readonly method: 'GET' | 'POST'
  readonly about: string
  readonly run: (exchange: Exchange) => Promise<void>
}

const bodyLimitDefault = 32 * 1024 * 1024
const connectionsMax = 4096
const idLengthMax = 256

/** Listens; resolves when requests can arrive. Errors: the listener's own (`EADDRINUSE`, `EACCES`). */
export async function createHttpMirror(options: HttpMirrorOptions): Promise<HttpMirror> {
  const mirror = new Mirror(options)
  await mirror.listen()
  return mirror
}

class Mirror implements HttpMirror {
  readonly host: string
  readonly #options: HttpMirrorOptions
  readonly #server: Server
  readonly #routes: Routes

  constructor(options: HttpMirrorOptions) {
    this.host = options.host ?? '127.0.0.1'
    this.#options = options
    this.#routes = new Routes(options)
    this.#server = createServer({ requestTimeout: 60_000, headersTimeout: 20_000, keepAliveTimeout: 5_000 }, (request, response) => this.#routes.take(request, response))
    this.#server.maxConnections = connectionsMax
  }

  get port(): number {
    return (this.#server.address() as AddressInfo | null)?.port ?? 0
  }

  get url(): string {
    return `http://${isIPv6(this.host) ? `[${this.host}]` : this.host}:${this.port}`
  }

  get inflight(): number {
    return this.#routes.inflight
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(this.#options.port, this.host, () => {
        this.#server.off('error', reject)
        this.#server.on('error', (error) => this.#options.log.error({ stage: 'http', reason: error.message }, 'http listener failed'))
        resolve()
      })
    })
  }

  close(graceMs: number): Promise<void> {
    return new Promise((resolve) => {
      const cut = setTimeout(() => {
        this.#routes.abortAll()
        this.#server.closeAllConnections()
      }, graceMs)
      this.#server.close(() => {
        clearTimeout(cut)
        resolve()
      })
      this.#server.closeIdleConnections()
    })
  }
}

/** The routes without a listener, for a server that has others too. */
export interface HttpRoutes {
  /** Requests whose answer has not ended. */
  readonly inflight: number
  /** Whether this path is one of the routes. */
  handles(path: string): boolean
  take(request: IncomingMessage, response: ServerResponse): void
  /** Ends open requests. */
  abortAll(): void
}

export const createHttpRoutes = (options: HttpRoutesOptions): HttpRoutes => new Routes(options)

class Routes implements HttpRoutes {
  readonly #options: HttpRoutesOptions
  readonly #routes: ReadonlyMap<string, Route>
  readonly #open = new Set<AbortController>()

  constructor(options: HttpRoutesOptions) {
    this.#options = options
    this.#routes = new Map(this.#routeList())
  }

  get inflight(): number {
    return this.#open.size
  }

  handles(path: string): boolean {
    return this.#routes.has(path)
  }

  take(request: IncomingMessage, response: ServerResponse): void {
    void this.#take(request, response)
  }

  abortAll(): void {
    for (const controller of this.#open) controller.abort()
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const controller = new AbortController()
    this.#open.add(controller)
    response.once('close', () => {
      this.#open.delete(controller)
      controller.abort()
    })
    const url = new URL(request.url ?? '/', 'http://mirror')
    const call: HttpCall = { id: requestId(request), headers: traceHeaders(request), signal: controller.signal }
    const exchange: Exchange = { request, response, call, idsAsStrings: url.searchParams.get('ids') === 'string' }
    response.setHeader('x-request-id', call.id)
    try {
      await this.#find(request, response, url.pathname).run(exchange)
    } catch (error) {
      this.#fail(exchange, error)
    }
  }

  #find(request: IncomingMessage, response: ServerResponse, path: string): Route {
    const route = this.#routes.get(path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path)
    if (route === undefined) {
      throw new FailureError({ class: 'NotFound', reason: 'request.not_found', message: `no such route; there are: ${this.#routeNames().join(', ')}` })
    }
    const method = request.method === 'HEAD' ? 'GET' : request.method
    if (method === route.method) return route
    response.setHeader('allow', route.method)
    return { ...route, run: (exchange) => Promise.resolve(sendJson(exchange, 405, { error: { class: 'InvalidRequest', reason: 'request.invalid', message: `use ${route.method} for this route`, code: 405 } })) }
  }

  #routeNames(): string[] {
    return [...this.#routes].map(([path, route]) => `${route.method} ${path}`)
  }

  #routeList(): (readonly [string, Route])[] {
    const { service } = this.#options
    const metrics = service.metrics?.bind(service)
    const explain = service.explain?.bind(service)
    return [
      ['/', { method: 'GET', about: 'this text', run: (exchange) => Promise.resolve(sendText(exchange, 200, 'text/plain; charset=utf-8', this.#overview())) }],
      ['/generate', { method: 'POST', about: 'route a request and stream its outputs (server-sent events); {"token_ids":[...],"stop_conditions":{"max_tokens":8}}', run: (exchange) => this.#generate(exchange) }],
      ['/best_worker_id', { method: 'POST', about: 'the worker that would be chosen, nothing is booked; [1,2,3] or {"token_ids":[...]}', run: (exchange) => this.#bestWorkerId(exchange) }],
      ...(explain === undefined ? [] : [['/explain', {
        method: 'POST' as const,
        about: 'as /best_worker_id, with every candidate, its cost terms and why others were left out',
        run: async (exchange: Exchange): Promise<void> => {
          const request = await this.#prompt(exchange)
          sendJson(exchange, 200, await explain(request, exchange.call))
        },
      }] as const]),
      ['/get_overlap_scores', { method: 'POST', about: 'cached prefix blocks per worker and dp rank; {"token_ids":[...]}', run: (exchange) => this.#overlapScores(exchange) }],
      ['/health', { method: 'GET', about: '200 when requests can be served, else 503', run: (exchange) => Promise.resolve(this.#health(exchange)) }],
      ...(metrics === undefined ? [] : [['/metrics', {
        method: 'GET' as const,
        about: 'Prometheus text',
        run: async (exchange: Exchange): Promise<void> => {
          const { contentType, text } = await metrics()
          sendText(exchange, 200, contentType, text)
        },
      }] as const]),
    ]
  }

  #overview(): string {
    const rows = [...this.#routes].map(([path, route]) => `${route.method.padEnd(4)} ${path.padEnd(20)} ${route.about}`)
    return `Warmpath: a router that knows what each worker has cached.\n\n${rows.join('\n')}\n\nWorker ids are 64-bit integers; add ?ids=string to get them as strings.\n`
  }

  async #generate(exchange: Exchange): Promise<void> {
    const request = withIntegerIds(objectOf(await this.#body(exchange)))
    requireTokens(request)
    const stream = new EventStream(exchange.response, exchange.call.signal)
    try {
      for await (const value of this.#options.service.generate(request, exchange.call)) {
        if (exchange.call.signal.aborted) return
        await stream.send(exchange.idsAsStrings ? withStringIds(value) : value)
      }
    } catch (error) {
      if (!stream.started) throw error
      if (exchange.call.signal.aborted) return
      const failure = this.#failureOf(exchange, error)
      await stream.send(failureBody(failure))
    }
    stream.end()
  }

  async #bestWorkerId(exchange: Exchange): Promise<void> {
    const request = await this.#prompt(exchange)
    const workerId = await this.#options.service.bestWorkerId(request, exchange.call)
    sendJson(exchange, 200, exchange.idsAsStrings ? String(workerId) : workerId)
  }

  /** A prompt as an array of token ids or a map with them. */
  async #prompt(exchange: Exchange): Promise<JsonObject> {
    const body = await this.#body(exchange)
    const request = withIntegerIds(Array.isArray(body) ? { token_ids: body as readonly Json[] } : objectOf(body))
    requireTokens(request)
    return request
  }

  async #overlapScores(exchange: Exchange): Promise<void> {
    const request = objectOf(await this.#body(exchange))
    requireTokens(request)
    sendJson(exchange, 200, await this.#options.service.overlapScores(request, exchange.call))
  }

  #health(exchange: Exchange): void {
    const health = this.#options.service.health()
    sendJson(exchange, health.ready ? 200 : 503, { status: health.ready ? 'ready' : 'notready', ...health.detail })
  }

  async #body(exchange: Exchange): Promise<Json> {
    return decodeBody(await readBody(exchange.request, this.#options.bodyLimitBytes ?? bodyLimitDefault))
  }

  #failureOf(exchange: Exchange, error: unknown): Failure {
    if (error instanceof FailureError) return error.failure
    this.#options.log.error({ request_id: exchange.call.id, stage: 'http', reason: error instanceof Error ? error.message : 'unknown' }, 'request failed inside the router')
    return { class: 'Internal', reason: 'runtime.internal', message: 'the router failed on this request; its log tells more' }
  }

  #fail(exchange: Exchange, error: unknown): void {
    const { response } = exchange
    if (response.destroyed || response.writableEnded) return
    const failure = this.#failureOf(exchange, error)
    if (response.headersSent) {
      response.destroy()
      return
    }
    if (!exchange.request.complete) response.setHeader('connection', 'close')
    sendJson(exchange, httpStatusByClass[failure.class], failureBody(failure))
  }
}

function requestId(request: IncomingMessage): string {
  const given = request.headers['x-request-id']
  return typeof given === 'string' && given !== '' && given.length <= idLengthMax && /^[\x21-\x7e]+$/.test(given) ? given : randomUUID()
}

function traceHeaders(request: IncomingMessage): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const name of ['traceparent', 'tracestate', 'x-request-id']) {
    const value = request.headers[name]
    if (typeof value === 'string' && value.length <= 512) headers[name] = value
  }
  return headers
}

function objectOf(body: Json): JsonObject {
  if (body !== null && typeof body === 'object' && !Array.isArray(body)) return body as JsonObject
  throw invalidBody(`the body is ${body === null ? 'null' : Array.isArray(body) ? 'an array' : `a ${typeof body}`}; send a JSON object with token_ids`)
}

function requireTokens(request: JsonObject): void {
  const tokens = request['token_ids']
  if (tokens === undefined) throw invalidBody('missing field token_ids: an array of token ids')
  if (!Array.isArray(tokens)) throw invalidBody(`token_ids must be an array of token ids, not ${shown(tokens)}`)
  const index = tokens.findIndex((token: Json) => typeof token !== 'number' || !Number.isInteger(token) || token < 0 || token > 0xffffffff)
  if (index >= 0) throw invalidBody(`token_ids[${index}] must be an integer from 0 to 4294967295, not ${shown(tokens[index] as Json)}`)
}

/** A value in an error: short, on one line. */
function shown(value: Json): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value)
  return typeof value === 'object' && value !== null ? (Array.isArray(value) ? 'an array' : 'an object') : String(value)
}

function sendText(exchange: Exchange, status: number, contentType: string, text: string): void {
  const body = Buffer.from(text)
  exchange.response.writeHead(status, { 'content-type': contentType, 'content-length': body.length, 'cache-control': 'no-store' })
  exchange.response.end(exchange.request.method === 'HEAD' ? undefined : body)
}

const sendJson = (exchange: Exchange, status: number, value: Json): void => {
  const body = exchange.idsAsStrings ? withStringIds(value) : value
  sendText(exchange, status, 'application/json; charset=utf-8', `${encodeBody(body)}\n`)
}
