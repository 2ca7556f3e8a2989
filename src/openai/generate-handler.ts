/** The endpoints that generate: from the body to the last byte of the answer. */
import { randomUUID } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { stringifyJson } from '../dynamo/wire/json.ts'
import { decodeBody } from '../http/lossless-body.ts'
import { FailureError } from '../model/failure.ts'
import type { Clock, Json, JsonObject, Log } from '../ports.ts'
import type { AnswerTimes } from './answer-extras.ts'
import type { GenerationEndpoint, PreparedAnswer, StreamForm } from './answer-form.ts'
import type { AnswerIdentity } from './answer-shape.ts'
import { ApiError, apiErrorOf, errorTypeLabel, invalidField, statusOf, type ErrorForm } from './api-error.ts'
import type { ModelCall, ModelCatalog, RoutingNote, ServedModel } from './catalog.ts'
import type { RequestContext } from './chat-request.ts'
import { Cut } from './cut.ts'
import { annotationEvent, EventWriter } from './event-writer.ts'
import { Fields, isJsonObject } from './fields.ts'
import { silentMeter, type Endpoint, type FrontendMeter, type RequestMeter } from './frontend-meter.ts'
import { runGeneration, type GenerationStep, type Usage } from './generation.ts'
import type { GenerationPlan } from './generation-plan.ts'
import { nearestName } from './nearest-name.ts'
import { readHeaders, type HeaderHints } from './request-headers.ts'

export interface GenerateSettings {
  readonly catalog: ModelCatalog
  readonly log: Log
  readonly clock: Clock
  readonly meter: FrontendMeter
  readonly form: ErrorForm
  readonly ignoreUnknownParameters: boolean
  /** `nvext` is passed over. */
  readonly extensionDisabled: boolean
  readonly metadataPrefix: string
  readonly stallMs: number
}

/** Why a request is cut from outside. */
export type CutReason = 'client-left' | 'shutdown'

/** One request on its way. */
interface Exchange {
  readonly reply: FastifyReply
  readonly hints: HeaderHints
  readonly requestId: string
  readonly cut: Cut
  readonly startMs: number
  readonly receivedAtMs: number
}

/** A request with one answer that is no generation. */
export interface SingleAnswer {
  /** Its label in metrics; null: it is not counted. */
  readonly name: Endpoint | null
  readonly surface: Surface
  answer(body: Fields, model: ServedModel, call: ModelCall, meter: RequestMeter): Promise<JsonObject>
}

const shuttingDown = (): ApiError =>
  new ApiError({ class: 'Unavailable', reason: 'backend.engine_shutdown', message: 'this server is shutting down; send the request again' })

const hasLeft = (cut: Cut): boolean => cut.signal.aborted && cut.signal.reason === 'client-left'

export class GenerateHandler {
  readonly #settings: GenerateSettings
  readonly #open = new Set<Cut>()

  constructor(settings: GenerateSettings) {
    this.#settings = settings
  }

  get inflight(): number {
    return this.#open.size
  }

  /** Ends every request that is still open; their clients are told. */
  cutAll(): void {
    for (const cut of this.#open) cut.abort('shutdown' satisfies CutReason)
  }

  /** Answers; what it throws is to be answered as an error with its status. */
  handle(endpoint: GenerationEndpoint, request: FastifyRequest, reply: FastifyReply): Promise<void> {
    return this.#exchange(request, reply, (exchange, body) => this.#serve(exchange, body, endpoint, async (model, meter) => {
      const answer = await this.#prepare(exchange, endpoint, body, model, meter)
      const { warnings } = answer.plan.extension
      if (warnings.length > 0) reply.header('x-warmpath-warning', warnings.join(', '))
      await (answer.plan.stream ? this.#stream(exchange, answer, meter) : this.#whole(exchange, answer, meter))
    }))
  }

  /** The same for one answer of another kind. */
  handleSingle(single: SingleAnswer, request: FastifyRequest, reply: FastifyReply): Promise<void> {
    return this.#exchange(request, reply, (exchange, body) => this.#serve(exchange, body, single, async (model, meter) => {
      const { cut, hints, requestId } = exchange
      const answer = await single.answer(body, model, { id: requestId, headers: hints.relayed, metadata: hints.metadata, signal: cut.signal }, meter)
      if (cut.signal.aborted) throw shuttingDown()
      sendJson(reply, 200, answer)
    }))
  }

  async #exchange(request: FastifyRequest, reply: FastifyReply, serve: (exchange: Exchange, body: Fields) => Promise<void>): Promise<void> {
    const { clock, metadataPrefix } = this.#settings
    const hints = readHeaders(request.headers, metadataPrefix)
    const exchange: Exchange = {
      reply, hints, requestId: hints.requestId ?? randomUUID(), cut: new Cut(), startMs: clock.nowMs(), receivedAtMs: clock.epochMs(),
    }
    // Anthropic's clients read their own name of it.
    reply.header('request-id', exchange.requestId)
    if (hints.relayed['x-request-id'] === undefined) reply.header('x-request-id', exchange.requestId)
    this.#open.add(exchange.cut)
    reply.raw.once('close', () => {
      this.#open.delete(exchange.cut)
      if (!reply.raw.writableFinished) exchange.cut.abort('client-left' satisfies CutReason)
    })
    try {
      const body = bodyOf(request)
      await serve(exchange, this.#settings.extensionDisabled ? without(body, 'nvext') : body)
    } finally {
      // A response that is still to be sent keeps its request open until then.
      if (reply.raw.writableFinished || exchange.cut.signal.aborted) this.#open.delete(exchange.cut)
    }
  }

  async #serve(exchange: Exchange, body: Fields, { name: endpoint, surface }: Pick<SingleAnswer, 'name' | 'surface'>, answer: (model: ServedModel, meter: RequestMeter) => Promise<void>): Promise<void> {
    const { catalog, meter: all } = this.#settings
    const name = body.text('model')
    const stream = body.object['stream'] === true
    const served = name === undefined ? undefined : catalog.find(name)
    const label = served === undefined ? 'unknown_model' : (name ?? '')
    const meter = endpoint === null ? silentMeter.begin(label, 'completions', 'unary') : all.begin(label, endpoint, stream ? 'stream' : 'unary')
    try {
      await answer(modelFor(catalog, name, surface), meter)
    } catch (error) {
      const failure = this.#failed(exchange, name, error, meter)
      if (failure !== null) throw failure
      return
    }
    if (exchange.cut.signal.aborted) this.#failed(exchange, name, new FailureError({ class: 'Cancelled', reason: 'request.cancelled', message: 'the client left' }), meter)
    else meter.end({ status: 'success', seconds: this.#secondsSince(exchange) })
  }

  #prepare(exchange: Exchange, endpoint: GenerationEndpoint, body: Fields, model: ServedModel, meter: RequestMeter): Promise<PreparedAnswer> {
    const { clock, ignoreUnknownParameters } = this.#settings
    const context: RequestContext = {
      model, hints: exchange.hints, ignoreUnknown: ignoreUnknownParameters, signal: exchange.cut.signal, nowMs: () => clock.nowMs(),
      onPrepared: (templateMs, tokenizeMs) => meter.prepared(templateMs / 1000, tokenizeMs / 1000),
    }
    return endpoint.prepare(body, context)
  }

  async #whole(exchange: Exchange, answer: PreparedAnswer, meter: RequestMeter): Promise<void> {
    const { reply } = exchange
    const times = this.#timesOf(exchange)
    const whole = answer.whole(this.#identityOf(exchange), times)
    await this.#run(exchange, answer.plan, meter, times, (step) => {
      whole.add(step)
      return undefined
    })
    if (exchange.cut.signal.aborted) throw shuttingDown()
    sendJson(reply, 200, whole.body())
  }

  async #stream(exchange: Exchange, answer: PreparedAnswer, meter: RequestMeter): Promise<void> {
    const { reply, cut } = exchange
    const times = this.#timesOf(exchange)
    const stream = answer.stream(this.#identityOf(exchange), times)
    const writer = new EventWriter({ response: reply.raw, signal: cut.signal, clock: this.#settings.clock, stallMs: this.#settings.stallMs })
    let usage: Usage | undefined
    try {
      await this.#run(exchange, answer.plan, meter, times, (step) => {
        if (!writer.open) begin(exchange, stream, writer)
        usage = step.usage
        return writer.write(stream.step(step))
      })
      if (cut.signal.aborted) throw shuttingDown()
    } catch (error) {
      // Once the status is out, the failure goes into the stream.
      if (writer.open && !hasLeft(cut)) writer.end(stream.failed(apiErrorOf(cut.signal.aborted ? shuttingDown() : error, exchange.requestId), this.#settings.form))
      throw error
    }
    writer.end(stream.end(usage))
  }

  /** Tells the steps of the answer, counted as they pass. */
  async #run(exchange: Exchange, plan: GenerationPlan, meter: RequestMeter, times: AnswerTimes, take: (step: GenerationStep) => Promise<void> | undefined): Promise<void> {
    const { clock } = this.#settings
    const { hints, requestId, cut: { signal }, reply, startMs } = exchange
    let noted = false
    let lastMs: number | null = null
    let usage: Usage | undefined
    meter.inputTokens(plan.prompts.reduce((sum, prompt) => sum + prompt.tokenIds.length, 0))
    const onRouted = (note: RoutingNote): void => {
      if (!noted) reply.header('x-warmpath-prefill', note.prefill)
      noted = true
    }
    const onStep = (step: GenerationStep): Promise<void> | undefined => {
      if (signal.aborted) return undefined
      const count = step.delta.tokenIds.length
      if (count > 0) {
        const nowMs = clock.nowMs()
        if (lastMs === null) {
          times.firstTokenMs = nowMs - startMs
          meter.firstToken(times.firstTokenMs / 1000)
        } else meter.nextTokens(count, (nowMs - lastMs) / 1000)
        lastMs = nowMs
        meter.outputTokens(count)
      }
      usage = step.usage
      return take(step)
    }
    await runGeneration(plan, { call: { id: requestId, headers: hints.relayed, metadata: hints.metadata }, signal, onRouted, onStep })
    if (usage !== undefined && (usage as Usage).cachedTokens !== null) meter.cachedTokens((usage as Usage).cachedTokens as number)
  }

  /** Counts and logs a failed request; null when its client has been told already, or has left. */
  #failed(exchange: Exchange, model: string | undefined, error: unknown, meter: RequestMeter): unknown {
    const { log, form } = this.#settings
    const { requestId, reply, cut } = exchange
    const left = hasLeft(cut)
    const told: unknown = !left && cut.signal.aborted ? shuttingDown() : error
    const detail = left ? { class: 'Cancelled', reason: 'request.cancelled', message: 'the client left' } as const : apiErrorOf(told, requestId)
    const seconds = this.#secondsSince(exchange)
    if (left) meter.disconnected()
    meter.end({ status: 'error', seconds, errorType: errorTypeLabel(detail), class: detail.class, reason: detail.reason })
    const status = statusOf(detail, form)
    const text = error instanceof FailureError ? error.failure.message : error instanceof Error ? error.message : String(error)
    const fields = { request_id: requestId, model: model ?? null, stage: 'http', reason: detail.reason, status, duration_ms: Math.round(seconds * 1000), error: text.slice(0, 2000) }
    if (left || status < 500) log.debug(fields, left ? 'client left' : 'request refused')
    else log.warn(fields, 'request failed')
    // Nobody is there to be answered.
    if (left && !reply.sent) reply.hijack()
    return reply.sent ? null : new ApiError(detail, { cause: error })
  }

  #identityOf(exchange: Exchange): AnswerIdentity {
    return { requestId: exchange.requestId, createdSeconds: Math.floor(exchange.receivedAtMs / 1000) }
  }

  #timesOf(exchange: Exchange): AnswerTimes {
    const { clock } = this.#settings
    return { receivedAtMs: exchange.receivedAtMs, firstTokenMs: null, elapsedMs: () => clock.nowMs() - exchange.startMs }
  }

  #secondsSince(exchange: Exchange): number {
    return (this.#settings.clock.nowMs() - exchange.startMs) / 1000
  }
}

function begin({ reply }: Exchange, stream: StreamForm, writer: EventWriter): void {
  const headers = Object.fromEntries(Object.entries(reply.getHeaders()).map(([name, value]) => [name, String(value)]))
  reply.hijack()
  writer.begin(headers)
  // The event by which Dynamo tells that the decode worker computes the prompt itself.
  void writer.write(stream.begin() + (headers['x-warmpath-prefill'] === 'bypass' ? annotationEvent('x-bypass-remote-prefill', true) : ''))
}

/** JSON with exact integers of any width. */
export function sendJson(reply: FastifyReply, status: number, value: Json): void {
  void reply.code(status).header('content-type', 'application/json').send(stringifyJson(value))
}

/** The body as an object. Errors: 400 with the place of the mistake. */
export function bodyOf(request: FastifyRequest): Fields {
  const text = typeof request.body === 'string' ? request.body : ''
  if (text.trim() === '') throw invalidField('body', 'the body is empty; send a JSON object', 'invalid_json')
  const value = decodeBody(text)
  if (!isJsonObject(value)) throw invalidField('body', 'the body must be a JSON object', 'invalid_json')
  return new Fields(value)
}

function without(body: Fields, name: string): Fields {
  const { [name]: _left, ...rest } = body.object
  return new Fields(rest)
}

/** What a model can be asked for. */
export type Surface = 'chat' | 'completions' | 'embeddings'

const pathBySurface: Readonly<Record<Surface, string>> = { chat: '/v1/chat/completions', completions: '/v1/completions', embeddings: '/v1/embeddings' }

export const surfacesOf = (model: ServedModel): Surface[] => [
  ...(model.supportsChat ? ['chat' as const] : []), ...(model.supportsCompletions ? ['completions' as const] : []), ...(model.supportsEmbeddings === true ? ['embeddings' as const] : []),
]

/** Errors: 404 for an unknown name or kind, 503 for a model that cannot serve now. */
export function modelFor(catalog: ModelCatalog, name: string | undefined, surface: Surface): ServedModel {
  if (name === undefined) throw invalidField('model', '`model` is missing; name one of those that GET /v1/models lists')
  if (name === '') throw invalidField('model', '`model` cannot be empty; name one of those that GET /v1/models lists')
  const found = catalog.find(name)
  if (found === undefined) throw unknownModel(name, catalog)
  if ('notReady' in found) {
    throw new ApiError({ class: 'Unavailable', reason: 'backend.unavailable', message: found.notReady, param: 'model', code: 'model_not_ready', retryAfterSeconds: found.retryAfterSeconds })
  }
  const surfaces = surfacesOf(found)
  if (surfaces.includes(surface)) return found
  const mend = surfaces.map((each) => pathBySurface[each]).join(' or ')
  throw new ApiError({ class: 'NotFound', reason: 'request.not_found', param: 'model', code: 'model_not_found', message: `the model ${JSON.stringify(name)} does not serve this endpoint; use ${mend}` })
}

export function unknownModel(name: string, catalog: ModelCatalog): ApiError {
  const names = catalog.list().map((model) => model.name)
  const near = nearestName(name, names)
  const mend = names.length === 0 ? 'no model is served yet' : near === undefined ? 'GET /v1/models lists those that are served' : `did you mean ${JSON.stringify(near)}?`
  return new ApiError({ class: 'NotFound', reason: 'request.not_found', param: 'model', code: 'model_not_found', message: `the model ${JSON.stringify(name.slice(0, 200))} does not exist; ${mend}` })
}
