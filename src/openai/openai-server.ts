/**
 * The OpenAI-compatible HTTP API over a model catalog.
 *
 * Holds no state but its open requests; everything it knows of models comes from the catalog.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Server as SecureServer } from 'node:https'
import { isIPv6, type AddressInfo, type Socket } from 'node:net'
import type { SecureContextOptions } from 'node:tls'
import { fastify, type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { stringifyJson } from '../dynamo/wire/json.ts'
import type { Clock, Json, JsonObject, Log } from '../ports.ts'
import { messagesEndpoint, type AnthropicOptions } from './anthropic/request.ts'
import { chatEndpoint, completionsEndpoint, type GenerationEndpoint } from './answer-form.ts'
import { ApiError, apiErrorOf, errorBody, errorHeaders, statusOf, type ApiErrorDetail, type ErrorForm } from './api-error.ts'
import type { ApiKeys } from './api-keys.ts'
import { authorize } from './authorization.ts'
import { changeBusyThresholds, listBusyThresholds } from './busy-threshold.ts'
import type { ModelCatalog, ServedModel } from './catalog.ts'
import { docsPage, docsPolicy } from './docs-page.ts'
import { stallDefaultMs } from './event-writer.ts'
import { silentMeter, type FrontendMeter } from './frontend-meter.ts'
import { bodyOf, GenerateHandler, sendJson, unknownModel, type SingleAnswer } from './generate-handler.ts'
import { apiDocument } from './openapi.ts'
import { metadataPrefixDefault } from './request-headers.ts'
import { responsesEndpoint } from './responses/request.ts'
import { embeddingsAnswer, messageTokens, responseTokens } from './single-answers.ts'

/** Paths that can be moved, as Dynamo's `DYN_HTTP_SVC_*_PATH` do. */
export interface ApiPaths {
  readonly chat: string
  readonly completions: string
  readonly responses: string
  readonly messages: string
  readonly embeddings: string
  readonly models: string
  readonly health: string
  readonly live: string
  readonly ready: string
  readonly metrics: string
}

const pathsDefault: ApiPaths = {
  chat: '/v1/chat/completions', completions: '/v1/completions', responses: '/v1/responses', messages: '/v1/messages', embeddings: '/v1/embeddings', models: '/v1/models',
  health: '/health', live: '/live', ready: '/ready', metrics: '/metrics',
}

export interface OpenAiServerOptions {
  readonly host: string
  /** 0 = any free port. */
  readonly port: number
  readonly catalog: ModelCatalog
  readonly log: Log
  readonly clock: Clock
  /** Status of a full pool; default 529. */
  readonly overloadStatus?: number
  /** Dynamo's flat error bodies. */
  readonly dynamoErrors?: boolean
  /** Allows writes of `/busy_threshold` from elsewhere than loopback. */
  readonly adminToken?: string
  /** False: `/busy_threshold` is not served. */
  readonly adminRoutes?: boolean
  readonly meter?: FrontendMeter
  /** Text for `/metrics`; without it there is no such route. */
  readonly metrics?: () => Promise<{ readonly contentType: string; readonly text: string }>
  /** Default 45 MiB. */
  readonly bodyLimitBytes?: number
  /** Unknown parameters are passed over. */
  readonly ignoreUnknownParameters?: boolean
  /** `nvext` of requests is passed over. */
  readonly extensionDisabled?: boolean
  readonly metadataPrefix?: string
  /** Serves Anthropic's Messages API; left out: it is no route. */
  readonly anthropic?: AnthropicOptions
  /** The keys of which a request under `/v1` must carry one, asked for each request; left out: none is needed. */
  readonly apiKeys?: () => ApiKeys
  /** Left out: plain HTTP. */
  readonly tls?: TlsMaterial
  /** For `/openapi.json`. */
  readonly version?: string
  readonly paths?: Partial<ApiPaths>
  /** Default 16384. */
  readonly connectionsMax?: number
  /** A client that takes nothing for so long is cut; default 2 minutes. */
  readonly stallMs?: number
  /** Routes of others on the same port; asked for paths that are none of the API's. */
  readonly otherRoutes?: { handles(path: string): boolean; take(request: IncomingMessage, response: ServerResponse): void }
}

/** PEM texts of the listener. */
export interface TlsMaterial {
  readonly cert: string
  readonly key: string
  /** Authority of client certificates; with it, a client must show one. */
  readonly clientCa?: string
}

export interface OpenAiServer {
  /** `http://HOST:PORT`, or https. */
  readonly url: string
  readonly port: number
  /** Requests whose answer has not ended. */
  readonly inflight: number
  /** Takes another certificate for new connections. Errors: PEM texts that do not fit each other, or a plain listener. */
  changeTls(tls: TlsMaterial): void
  /** Takes no new requests; open ones may end within `graceMs`, then they are cut and their clients told. */
  close(graceMs: number): Promise<void>
}

const bodyLimitDefault = 45 * 1024 * 1024
const connectionsDefault = 16_384
const headersMax = 200
/** Metadata alone may take 64 KiB. */
const headerBytesMax = 80 * 1024
const requestTimeoutMs = 120_000
const cutWaitMs = 1000
const wildcardNameMax = 512

/** Listens; resolves when requests can arrive. Errors: the listener's own (`EADDRINUSE`, `EACCES`). */
export async function createOpenAiServer(options: OpenAiServerOptions): Promise<OpenAiServer> {
  const server = new Server(options)
  await server.listen()
  return server
}

type Answer = (request: FastifyRequest, reply: FastifyReply) => void | Promise<void>

interface RouteTraits {
  /** How its errors look. */
  readonly style?: 'anthropic' | 'bare'
  /** Needs no API key. */
  readonly isOpen?: boolean
}

interface KnownRoute extends RouteTraits {
  readonly methods: string[]
}

class Server implements OpenAiServer {
  readonly #options: OpenAiServerOptions
  readonly #form: ErrorForm
  readonly #app: FastifyInstance
  readonly #generate: GenerateHandler
  /** By path, for 405 and the list of routes. */
  readonly #routes = new Map<string, KnownRoute>()
  /** Connections on which nothing was asked yet: Node counts them neither as idle nor as busy, and would wait for them at the end. */
  readonly #unasked = new Set<Socket>()
  #closing = false

  constructor(options: OpenAiServerOptions) {
    this.#options = options
    this.#form = { overloadStatus: options.overloadStatus ?? 529, dynamoErrors: options.dynamoErrors ?? false }
    this.#generate = new GenerateHandler({
      catalog: options.catalog, log: options.log, clock: options.clock, meter: options.meter ?? silentMeter, form: this.#form,
      ignoreUnknownParameters: options.ignoreUnknownParameters ?? false, extensionDisabled: options.extensionDisabled ?? false, metadataPrefix: options.metadataPrefix ?? metadataPrefixDefault,
      stallMs: options.stallMs ?? stallDefaultMs,
    })
    const { tls } = options
    this.#app = fastify({
      // The framework has a type of its own for each kind of listener; nothing here depends on it.
      ...(tls === undefined ? {} : { https: secureOptions(tls) } as object),
      bodyLimit: options.bodyLimitBytes ?? bodyLimitDefault,
      requestTimeout: requestTimeoutMs,
      forceCloseConnections: 'idle',
      return503OnClosing: false,
      routerOptions: { ignoreTrailingSlash: true, maxParamLength: wildcardNameMax },
      http: { maxHeaderSize: headerBytesMax, noDelay: true },
      clientErrorHandler: (error, socket) => this.#refuseConnection(error.code, socket),
      frameworkErrors: (error, request, reply) => this.#fail(error, request, reply),
    })
    this.#app.server.maxConnections = options.connectionsMax ?? connectionsDefault
    this.#app.server.maxHeadersCount = headersMax
    this.#app.server.on(tls === undefined ? 'connection' : 'secureConnection', (socket: Socket) => {
      this.#unasked.add(socket)
      socket.once('close', () => this.#unasked.delete(socket))
    })
    this.#prepare()
    this.#addRoutes({ ...pathsDefault, ...options.paths })
  }

  get port(): number {
    return (this.#app.server.address() as AddressInfo | null)?.port ?? 0
  }

  get url(): string {
    const { host } = this.#options
    return `${this.#options.tls === undefined ? 'http' : 'https'}://${isIPv6(host) ? `[${host}]` : host}:${this.port}`
  }

  get inflight(): number {
    return this.#generate.inflight
  }

  async listen(): Promise<void> {
    await this.#app.listen({ host: this.#options.host, port: this.#options.port })
    this.#app.server.on('error', (error) => this.#options.log.error({ stage: 'http', reason: error.message }, 'http listener failed'))
  }

  changeTls(tls: TlsMaterial): void {
    const { server } = this.#app
    if (!(server instanceof SecureServer)) throw new Error('the listener is plain; TLS begins with a restart')
    server.setSecureContext(secureOptions(tls))
  }

  async close(graceMs: number): Promise<void> {
    this.#closing = true
    const { clock } = this.#options
    const cut = clock.setTimer(graceMs, () => {
      this.#generate.cutAll()
      last = clock.setTimer(cutWaitMs, () => this.#app.server.closeAllConnections())
    })
    let last = cut
    const closed = this.#app.close()
    for (const socket of this.#unasked) socket.destroy()
    await closed
    cut.cancel()
    last.cancel()
  }

  #prepare(): void {
    const app = this.#app
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => done(null, body))
    app.addHook('onRequest', (request, reply, done) => {
      this.#unasked.delete(request.raw.socket)
      const id = request.headers['x-request-id']
      if (typeof id === 'string' && id !== '') reply.header('x-request-id', id)
      if (this.#closing) reply.header('connection', 'close')
      // A connection whose last answer has ended does not hold up the end.
      reply.raw.once('close', () => setImmediate(() => this.#closing && this.#app.server.closeIdleConnections()))
      const path = request.url.split('?')[0] ?? ''
      const isOther = this.#options.otherRoutes?.handles(path) === true && !this.#routes.has(path)
      const keys = this.#options.apiKeys?.()
      const needsKey = keys !== undefined && (isOther || (!traitsOf(request).isOpen && !request.is404))
      if (needsKey) authorize(request.headers, keys)
      if (isOther) {
        reply.hijack()
        this.#options.otherRoutes?.take(request.raw, reply.raw)
      }
      done()
    })
    app.setErrorHandler((error, request, reply) => this.#fail(error as FastifyError, request, reply))
    app.setNotFoundHandler((request, reply) => this.#noRoute(request, reply))
  }

  #addRoutes(paths: ApiPaths): void {
    const { catalog, adminToken, metrics } = this.#options
    this.#addGeneration(paths)
    this.#route('GET', paths.models, (_request, reply) => sendJson(reply, 200, { object: 'list', data: catalog.list().map(modelObject) }))
    this.#route('GET', `${paths.models}/*`, (request, reply) => this.#aboutModel((request.params as { '*': string })['*'], reply))
    const open = { isOpen: true }
    this.#route('GET', paths.health, (_request, reply) => this.#health(reply), open)
    this.#route('GET', paths.live, (_request, reply) => sendJson(reply, 200, { status: 'live', message: 'Service is live' }), open)
    this.#route('GET', paths.ready, (_request, reply) => this.#ready(reply), open)
    if (metrics !== undefined) {
      this.#route('GET', paths.metrics, async (_request, reply) => {
        const { contentType, text } = await metrics()
        await reply.header('content-type', contentType).send(text)
      }, open)
    }
    if (this.#options.adminRoutes !== false) {
      // Writes have a rule of their own: loopback, or the admin token.
      this.#route('GET', '/busy_threshold', (_request, reply) => sendJson(reply, 200, listBusyThresholds(catalog)), open)
      this.#route('POST', '/busy_threshold', (request, reply) => sendJson(reply, 200, changeBusyThresholds(catalog, bodyOf(request), request, adminToken)), { ...open, style: 'bare' })
    }
    this.#route('GET', '/docs', async (_request, reply) => { await reply.header('content-type', 'text/html; charset=utf-8').header('content-security-policy', docsPolicy).send(docsPage) }, open)
    this.#route('GET', '/openapi.json', (_request, reply) => sendJson(reply, 200, this.#document(paths)), open)
  }

  #addGeneration(paths: ApiPaths): void {
    const { anthropic } = this.#options
    const generate = (path: string, endpoint: GenerationEndpoint, traits?: RouteTraits): void => this.#route('POST', path, (request, reply) => this.#taking(() => this.#generate.handle(endpoint, request, reply)), traits)
    const single = (path: string, answer: SingleAnswer, traits?: RouteTraits): void => this.#route('POST', path, (request, reply) => this.#taking(() => this.#generate.handleSingle(answer, request, reply)), traits)
    generate(paths.chat, chatEndpoint)
    generate(paths.completions, completionsEndpoint)
    generate(paths.responses, responsesEndpoint)
    single(`${paths.responses}/input_tokens`, responseTokens)
    single(paths.embeddings, embeddingsAnswer)
    if (anthropic === undefined) return
    generate(paths.messages, messagesEndpoint(anthropic), { style: 'anthropic' })
    single(`${paths.messages}/count_tokens`, messageTokens(anthropic), { style: 'anthropic' })
  }

  #route(method: 'GET' | 'POST', path: string, answer: Answer, traits: RouteTraits = {}): void {
    const known = this.#routes.get(path)
    this.#routes.set(path, { ...traits, methods: [...(known?.methods ?? []), ...(method === 'GET' ? ['GET', 'HEAD'] : [method])] })
    this.#app.route({
      method, url: path, exposeHeadRoute: method === 'GET', config: traits,
      handler: async (request, reply) => {
        if (method === 'POST') requireJson(request)
        await answer(request, reply)
        return reply
      },
    })
  }

  #document(paths: ApiPaths): JsonObject {
    const routes = [...this.#routes].map(([path, { methods }]) => ({ path, methods: methods.filter((method) => method !== 'HEAD') }))
    return apiDocument({ routes, paths, version: this.#options.version ?? '0', needsKey: this.#options.apiKeys !== undefined })
  }

  #taking(serve: () => Promise<void>): Promise<void> {
    if (this.#closing) throw new ApiError({ class: 'Unavailable', reason: 'backend.engine_shutdown', message: 'this server is shutting down; send the request to another one' })
    return serve()
  }

  /** A model by its name, which may have slashes, or whether it is ready. */
  #aboutModel(rest: string, reply: FastifyReply): void {
    const name = rest.endsWith('/ready') ? rest.slice(0, -'/ready'.length) : undefined
    const isModel = name === undefined || this.#options.catalog.find(rest) !== undefined
    if (isModel) return sendJson(reply, 200, this.#model(rest))
    const report = this.#options.catalog.readiness?.(name)
    if (report === undefined) throw unknownModel(name, this.#options.catalog)
    if (report['ready'] !== true) reply.header('retry-after', '5')
    sendJson(reply, report['ready'] === true ? 200 : 503, report)
  }

  #model(name: string): JsonObject {
    const found = this.#options.catalog.find(name)
    if (found === undefined) throw unknownModel(name, this.#options.catalog)
    if ('notReady' in found) {
      throw new ApiError({ class: 'Unavailable', reason: 'backend.unavailable', message: found.notReady, code: 'model_not_ready', retryAfterSeconds: found.retryAfterSeconds })
    }
    return modelObject(found)
  }

  #health(reply: FastifyReply): void {
    const { ready, endpoints, instances } = this.#options.catalog.health()
    sendJson(reply, ready ? 200 : 503, { status: ready ? 'healthy' : 'not ready', endpoints, instances })
  }

  #ready(reply: FastifyReply): void {
    const ready = !this.#closing && this.#options.catalog.health().ready
    if (!ready) reply.header('retry-after', '1')
    const models = this.#options.catalog.list().map((model) => model.name)
    sendJson(reply, ready ? 200 : 503, { status: ready ? 'ready' : this.#closing ? 'shutting down' : 'no model can serve yet', models })
  }

  #noRoute(request: FastifyRequest, reply: FastifyReply): void {
    const path = (request.url.split('?')[0] ?? '').replace(/(.)\/$/, '$1')
    const methods = (this.#routes.get(path) ?? [...this.#routes].find(([known]) => known.endsWith('/*') && path.startsWith(known.slice(0, -1)))?.[1])?.methods
    if (methods !== undefined) {
      this.#answerError(request, reply, {
        class: 'InvalidRequest', reason: 'request.invalid', status: 405, code: 'method_not_allowed', headers: { allow: methods.join(', ') },
        message: `${request.method} is not allowed for ${path}; use ${methods.join(' or ')}`,
      })
      return
    }
    this.#answerError(request, reply, {
      class: 'NotFound', reason: 'request.not_found', code: 'route_not_found',
      message: `Route not found: ${request.method} ${path.slice(0, 200)}; there are: ${[...this.#routes.keys()].join(', ')}`,
    })
  }

  #fail(error: FastifyError | Error, request: FastifyRequest, reply: FastifyReply): void {
    const id = String(reply.getHeader('x-request-id') ?? '')
    const known = frameworkDetail(error, request, this.#options.bodyLimitBytes ?? bodyLimitDefault)
    const detail = known ?? apiErrorOf(error, id)
    if (known === undefined && detail.reason === 'runtime.unclassified') {
      this.#options.log.error({ stage: 'http', request_id: id, reason: error.message, path: request.url.slice(0, 200) }, 'request handler failed')
    }
    this.#answerError(request, reply, detail)
  }

  #answerError(request: FastifyRequest, reply: FastifyReply, detail: ApiErrorDetail): void {
    if (reply.sent) return
    const { style } = traitsOf(request)
    const status = statusOf(detail, this.#form)
    for (const [name, value] of Object.entries(errorHeaders(detail, status))) reply.header(name, value)
    sendJson(reply, status, errorBody(detail, style === undefined ? this.#form : { ...this.#form, style }))
  }

  /** What is not HTTP, or too much of it, before there is a request. */
  #refuseConnection(code: string, socket: Socket): void {
    if (code === 'ECONNRESET' || !socket.writable) {
      socket.destroy()
      return
    }
    const tooLarge = code === 'HPE_HEADER_OVERFLOW'
    const late = code === 'ERR_HTTP_REQUEST_TIMEOUT'
    const [status, phrase] = tooLarge ? [431, 'Request Header Fields Too Large'] : late ? [408, 'Request Timeout'] : [400, 'Bad Request']
    const message = tooLarge ? `the headers have more than ${headerBytesMax} bytes; send less` : late ? 'the request did not arrive in time' : 'this is not a HTTP request'
    const body = stringifyJson(errorBody({ class: 'InvalidRequest', reason: 'request.invalid', status, message }, this.#form))
    socket.end(`HTTP/1.1 ${status} ${phrase}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`)
  }
}

const modelObject = ({ name, createdSeconds, contextLength }: ServedModel): { readonly [key: string]: Json } => ({
  id: name, object: 'model', created: createdSeconds, owned_by: 'warmpath', context_window: contextLength,
})

/** Errors: 415. An empty body has no type and is refused as empty where it matters. */
function requireJson(request: FastifyRequest): void {
  const type = contentTypeOf(request)
  if (type !== 'application/json') throw unsupportedType(type)
}

const traitsOf = (request: FastifyRequest): RouteTraits => (request.routeOptions?.config ?? {}) as RouteTraits

const secureOptions = ({ cert, key, clientCa }: TlsMaterial): SecureContextOptions & { requestCert?: boolean; rejectUnauthorized?: boolean } => ({
  cert, key, minVersion: 'TLSv1.2', ...(clientCa === undefined ? {} : { ca: clientCa, requestCert: true, rejectUnauthorized: true }),
})

const contentTypeOf = (request: FastifyRequest): string => request.headers['content-type']?.split(';')[0]?.trim().toLowerCase() ?? ''

const unsupportedType = (type: string): ApiError =>
  new ApiError({ class: 'UnsupportedMedia', reason: 'request.unsupported_media', message: `the content type must be application/json, got ${type === '' ? 'none' : JSON.stringify(type.slice(0, 100))}` })

/** The framework's own refusals as ours. */
function frameworkDetail(error: FastifyError | Error, request: FastifyRequest, bodyLimitBytes: number): ApiErrorDetail | undefined {
  if (error instanceof ApiError || !('code' in error)) return undefined
  switch (error.code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return { class: 'PayloadTooLarge', reason: 'request.payload_too_large', message: `the body has more than ${bodyLimitBytes} bytes; send a shorter prompt` }
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return unsupportedType(contentTypeOf(request)).detail
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
      return { class: 'InvalidRequest', reason: 'request.invalid', message: 'the body is shorter or longer than its content-length says' }
    default:
      break
  }
  const status = (error as FastifyError).statusCode
  return status !== undefined && status >= 400 && status < 500 ? { class: 'InvalidRequest', reason: 'request.invalid', status, message: error.message } : undefined
}
