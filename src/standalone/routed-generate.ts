/**
 * The `generate` endpoint: choose a worker, book, send, relay, release; retry while nothing was relayed.
 *
 * Frames pass as they came. Only the first output gets `routing_data.worker_id` and the one with a finish reason
 * `routing_data.timing`, as Dynamo's callers expect.
 */
import type { Decision, Refusal } from '../model/decision.ts'
import { FailureError, isRetryableElsewhere, type Failure } from '../model/failure.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { WorkerId } from '../model/worker.ts'
import type { CallHandle, CancelKind, Clock, Codec, IncomingRequest, InstanceRecord, Log, RequestPlaneClient, ResponseListener, ResponseWriter } from '../ports.ts'
import type { Router } from '../router/contract.ts'
import { decodeGenerateRequest, type GenerateRequest } from '../dynamo/wire/generate-request.ts'
import { editOutput, encodeQueryAnswer, peekOutput, reportedCachedTokens, transcodeFrame, type OutputTiming } from '../dynamo/wire/output-frame.ts'
import type { RoutedPool } from './routed-pool.ts'
import { relayedFailure } from './relay-failure.ts'
import { noWorkers, refusalFailure } from './refusal-failure.ts'
import type { RequestObserver } from './request-observer.ts'

export interface RoutedGenerateOptions {
  readonly retryLimit: number
  /** 0 = off. From sending a request to its first output. */
  readonly firstOutputTimeoutMs: number
  /** 0 = off. Between two outputs. */
  readonly outputTimeoutMs: number
  /** How long a failed instance is not chosen; 0 = not at all. */
  readonly inhibitedMs: number
  readonly activeRequestsMax: number
}

export interface RoutedGenerateParts {
  readonly pool: RoutedPool
  readonly client: RequestPlaneClient
  readonly clock: Clock
  readonly log: Log
  readonly observer: RequestObserver
  readonly options: RoutedGenerateOptions
}

/** Headers that travel on to the worker. */
const forwardedHeaders = ['traceparent', 'tracestate', 'x-request-id'] as const

export class RoutedGenerate {
  readonly #parts: RoutedGenerateParts
  readonly #active = new Set<RoutedRequest>()
  readonly #byInstance = new Map<WorkerId, Set<RoutedRequest>>()
  readonly #bookings = new Set<string>()
  #bookingSuffix = 0
  onIdle: (() => void) | null = null

  constructor(parts: RoutedGenerateParts) {
    this.#parts = parts
  }

  /** Requests whose answer has not ended. */
  get activeCount(): number {
    return this.#active.size
  }

  /** Takes one request; everything that goes wrong is answered through `response`. */
  handle(request: IncomingRequest, response: ResponseWriter): void {
    const { options } = this.#parts
    if (this.#active.size >= options.activeRequestsMax) {
      const message = `the router carries ${this.#active.size} requests, its limit; try again later, or raise --active-requests-max`
      answerFailure(response, { class: 'CapacityExhausted', reason: 'capacity.exhausted', message })
      return
    }
    const routed = new RoutedRequest(this.#parts, this, request, response)
    this.#active.add(routed)
    routed.start()
  }

  /** An instance has left discovery: attempts there that have no output yet are failed, established streams go on. */
  instanceGone(workerId: WorkerId): void {
    for (const routed of this.#byInstance.get(workerId) ?? []) routed.instanceGone()
  }

  /** Checks the inactivity limits; call every second or so. */
  tick(): void {
    const nowMs = this.#parts.clock.nowMs()
    for (const routed of this.#active) routed.tick(nowMs)
  }

  /** Ends every open answer abruptly; for the end of the drain time. */
  abortAll(): void {
    for (const routed of this.#active) routed.abort()
  }

  /** A booking name that no other live request has: the request's own id wherever possible. */
  takeBookingId(requestId: string): string {
    let id = requestId
    while (this.#bookings.has(id)) {
      this.#bookingSuffix += 1
      id = `${requestId}#${this.#bookingSuffix}`
    }
    this.#bookings.add(id)
    return id
  }

  attached(workerId: WorkerId, routed: RoutedRequest): void {
    const there = this.#byInstance.get(workerId)
    if (there === undefined) this.#byInstance.set(workerId, new Set([routed]))
    else there.add(routed)
  }

  detached(workerId: WorkerId, routed: RoutedRequest): void {
    const there = this.#byInstance.get(workerId)
    there?.delete(routed)
    if (there?.size === 0) this.#byInstance.delete(workerId)
  }

  ended(routed: RoutedRequest, bookingId: string): void {
    this.#bookings.delete(bookingId)
    this.#active.delete(routed)
    if (this.#active.size === 0) this.onIdle?.()
  }
}

/** An error item after a good prologue: the class survives, and the caller does not blame the router's instance. */
export function answerFailure(response: ResponseWriter, failure: Failure): void {
  response.begin()
  response.fail(failure)
}

class RoutedRequest {
  readonly #parts: RoutedGenerateParts
  readonly #owner: RoutedGenerate
  readonly #request: IncomingRequest
  readonly #response: ResponseWriter
  readonly #bookingId: string
  readonly #failedWorkers = new Set<WorkerId>()
  #generate: GenerateRequest | null = null
  #attempt: Attempt | null = null
  #attemptCount = 0
  #over = false
  /** Tokens relayed so far. */
  outputTokens = 0
  relayedAny = false
  firstOutputMs = 0
  lastOutputMs = 0

  constructor(parts: RoutedGenerateParts, owner: RoutedGenerate, request: IncomingRequest, response: ResponseWriter) {
    this.#parts = parts
    this.#owner = owner
    this.#request = request
    this.#response = response
    this.#bookingId = owner.takeBookingId(request.id)
  }

  get request(): IncomingRequest { return this.#request }
  get response(): ResponseWriter { return this.#response }

  start(): void {
    const { observer } = this.#parts
    let generate: GenerateRequest
    try {
      generate = decodeGenerateRequest(this.#request.body, this.#request.codec)
    } catch (error) {
      observer.onStarted(0, 'unknown')
      this.#finish('error', invalidRequest(error))
      return
    }
    this.#generate = generate
    observer.onStarted(generate.tokens.length, generate.model)
    this.#response.onCancel = (kind) => this.#cancelled(kind)
    this.#response.onDrain = () => this.#attempt?.resume()
    if (this.#over) return
    if (generate.queryOnly) this.#answerQuery(generate)
    else this.#tryNext(null)
  }

  #routingRequest(generate: GenerateRequest, excluded: ReadonlySet<WorkerId>): RoutingRequest {
    return { ...generate.routing, requestId: this.#bookingId, model: generate.model, tokens: generate.tokens, excludedWorkerIds: excluded }
  }

  /** First without the workers that are set aside; when nobody else is left, with them: better a doubtful worker than none. */
  #choose(generate: GenerateRequest, book: boolean): Decision | Refusal {
    const { pool } = this.#parts
    const { router } = pool
    if (router === null) return noWorkers(this.#bookingId)
    const ask = (excluded: ReadonlySet<WorkerId>): Decision | Refusal => {
      const request = this.#routingRequest(generate, excluded)
      return book ? router.route(request) : router.select(request)
    }
    const aside = pool.setAsideIds()
    if (aside.size === 0) return ask(this.#failedWorkers)
    const careful = ask(new Set([...aside, ...this.#failedWorkers]))
    return careful.kind === 'refused' ? ask(this.#failedWorkers) : careful
  }

  #answerQuery(generate: GenerateRequest): void {
    const answer = this.#choose(generate, false)
    if (answer.kind === 'refused') {
      this.#refused(answer)
      return
    }
    this.#response.writeItem(encodeQueryAnswer(this.#request.codec, answer, generate.tokens))
    this.#response.end()
    this.#over = true
    this.#end('success', null)
  }

  /** Routes and sends; `after` is the failure of the attempt before, answered when nobody else is left. */
  #tryNext(after: Failure | null): void {
    const generate = this.#generate
    if (this.#over || generate === null) return
    const { observer, pool, log } = this.#parts
    const decision = this.#choose(generate, true)
    if (decision.kind === 'refused') {
      if (after !== null) this.#finish('error', after)
      else this.#refused(decision)
      return
    }
    const instance = pool.lookup(decision.workerId)
    const { router } = pool
    if (instance === undefined || router === null) {
      // The record left between the directory's event and this call; its removal from the router follows.
      router?.free(this.#bookingId)
      this.#failedWorkers.add(decision.workerId)
      this.#tryNext(after)
      return
    }
    observer.onRouted(this.#request.id, decision, generate.model)
    log.info({
      request_id: this.#request.id, worker_id: decision.workerId.toString(), dp_rank: decision.dpRank, stage: 'route', model: generate.model,
      logit: decision.cost, overlap_blocks: decision.deviceBlocks, attempt: this.#attemptCount,
    }, decision.pinned ? 'Selected pinned worker' : 'Selected worker')
    this.#attemptCount += 1
    this.#attempt = new Attempt(this.#parts, router, this.#owner, this, generate, decision, instance, this.#bookingId)
    this.#attempt.send(this.#outgoingHeaders())
  }

  #outgoingHeaders(): Record<string, string> {
    const headers: Record<string, string> = {}
    for (const name of forwardedHeaders) {
      const value = this.#request.headers[name]
      if (value !== undefined) headers[name] = value
    }
    return headers
  }

  /** An attempt ended without a complete answer. Its booking is already released. */
  attemptFailed(failure: Failure, workerId: WorkerId, instanceAtFault: boolean): void {
    if (this.#over) return
    const { options, pool, log, observer } = this.#parts
    if (instanceAtFault && options.inhibitedMs > 0) pool.setAside(workerId, options.inhibitedMs)
    const mayRetry = !this.relayedAny && isRetryableElsewhere(failure) && this.#attemptCount <= options.retryLimit &&
      this.#generate?.routing.pin === undefined
    if (!mayRetry) {
      this.#finish('error', failure)
      return
    }
    this.#failedWorkers.add(workerId)
    observer.onRetry(failure)
    log.warn({ request_id: this.#request.id, worker_id: workerId.toString(), stage: 'retry', reason: failure.reason }, `retrying on another worker: ${failure.message}`)
    this.#tryNext(failure)
  }

  attemptEnded(finalFrame: Uint8Array | null, relayed: Failure | null): void {
    if (this.#over) return
    this.#over = true
    if (finalFrame === null) this.#response.end()
    else this.#response.end(finalFrame)
    this.#end(relayed === null ? 'success' : 'error', relayed)
  }

  instanceGone(): void {
    if (!this.relayedAny) this.#attempt?.instanceGone()
  }

  tick(nowMs: number): void {
    this.#attempt?.tick(nowMs)
  }

  abort(): void {
    if (this.#over) return
    this.#over = true
    this.#attempt?.cancel('kill')
    this.#response.abort()
    this.#end('cancelled', null)
  }

  #cancelled(kind: CancelKind): void {
    if (this.#over) return
    this.#over = true
    this.#attempt?.cancel(kind)
    this.#response.abort()
    this.#end('cancelled', null)
  }

  #refused(refusal: Refusal): void {
    this.#parts.observer.onRefused(refusal)
    this.#finish('error', refusalFailure(refusal))
  }

  #finish(outcome: 'error', failure: Failure): void {
    if (this.#over) return
    this.#over = true
    answerFailure(this.#response, relayedFailure(failure))
    this.#end(outcome, failure)
  }

  #end(outcome: 'success' | 'error' | 'cancelled', failure: Failure | null): void {
    this.#response.onCancel = null
    this.#response.onDrain = null
    const { clock, observer, log } = this.#parts
    const durationMs = clock.nowMs() - this.#request.receivedAtMs
    observer.onEnded(outcome, this.outputTokens, durationMs / 1000, failure)
    const fields = { request_id: this.#request.id, stage: 'end', outcome, duration_ms: Math.round(durationMs * 1000) / 1000, output_tokens: this.outputTokens }
    if (failure === null) log.info(fields, 'route request completed')
    else log.warn({ ...fields, reason: failure.reason }, `request failed: ${failure.message}`)
    this.#owner.ended(this, this.#bookingId)
  }
}

/** One try of one request on one worker. */
class Attempt implements ResponseListener {
  readonly #parts: RoutedGenerateParts
  /** The one that holds the booking: the pool may have made a new one since. */
  readonly #router: Router
  readonly #owner: RoutedGenerate
  readonly #routed: RoutedRequest
  readonly #generate: GenerateRequest
  readonly #decision: Decision
  readonly #instance: InstanceRecord
  readonly #bookingId: string
  #call: CallHandle | null = null
  #released = false
  #sentMs = 0
  #activeMs = 0
  #reportedTokens = 0
  /** An application's own error that went to the caller as it came. */
  #relayedFailure: Failure | null = null
  #paused = false

  constructor(
    parts: RoutedGenerateParts, router: Router, owner: RoutedGenerate, routed: RoutedRequest, generate: GenerateRequest, decision: Decision,
    instance: InstanceRecord, bookingId: string,
  ) {
    this.#parts = parts
    this.#router = router
    this.#owner = owner
    this.#routed = routed
    this.#generate = generate
    this.#decision = decision
    this.#instance = instance
    this.#bookingId = bookingId
  }

  send(headers: Record<string, string>): void {
    const { client, clock } = this.#parts
    this.#sentMs = clock.nowMs()
    this.#activeMs = this.#sentMs
    this.#owner.attached(this.#decision.workerId, this.#routed)
    const { id, metadata } = this.#routed.request
    const codec = this.#instance.codec
    this.#call = client.call(this.#instance, { id, headers, metadata, codec, body: this.#generate.forWorker(this.#decision.dpRank, codec) }, this)
  }

  onFrame(frame: Uint8Array, body: Uint8Array): void {
    if (this.#released) return
    const codec = this.#instance.codec
    const output = peekOutput(body, codec)
    const routed = this.#routed
    if (output.failure !== null && !routed.relayedAny && isRetryableElsewhere(output.failure)) {
      this.#call?.kill()
      this.#failed(output.failure)
      return
    }
    const { clock, observer } = this.#parts
    const router = this.#router
    const nowMs = clock.nowMs()
    this.#activeMs = nowMs
    if (output.hasData) {
      if (routed.lastOutputMs === 0) {
        routed.firstOutputMs = nowMs
        observer.onFirstOutput((nowMs - routed.request.receivedAtMs) / 1000)
        router.prefillCompleted(this.#bookingId)
      } else {
        observer.onNextOutput((nowMs - routed.lastOutputMs) / 1000)
      }
      routed.lastOutputMs = nowMs
      routed.outputTokens += output.tokenCount
      if (router.settings.trackOutputBlocks && output.tokenCount > 0) this.#reportOutput()
    }
    if (output.failure !== null) this.#relayedFailure = output.failure
    const isFirst = output.hasData && !routed.relayedAny
    if (output.finished) this.#noteReuse(body, codec)
    if (isFirst || output.finished) this.#relayEdited(body, isFirst, output.finished, nowMs)
    else this.#relay(frame, body)
  }

  #noteReuse(body: Uint8Array, codec: Codec): void {
    const tokens = reportedCachedTokens(body, codec)
    if (tokens !== null) this.#parts.observer.onWorkerReused(this.#generate.model, tokens)
  }

  #relay(frame: Uint8Array, body: Uint8Array): void {
    const { request, response } = this.#routed
    this.#routed.relayedAny = true
    const more = request.codec === this.#instance.codec
      ? response.writeFrame(frame)
      : response.writeItem(transcodeFrame(body, this.#instance.codec, request.codec))
    if (!more) this.#pause()
  }

  #relayEdited(body: Uint8Array, isFirst: boolean, finished: boolean, nowMs: number): void {
    const { request, response } = this.#routed
    const codec = this.#instance.codec
    this.#routed.relayedAny = true
    let edited = editOutput(body, codec, { worker: isFirst ? this.#decision : null, timing: finished ? this.#timing(nowMs) : null })
    if (request.codec !== codec) edited = transcodeFrame(edited, codec, request.codec)
    if (!response.writeItem(edited)) this.#pause()
  }

  #timing(nowMs: number): OutputTiming {
    const { clock } = this.#parts
    const { receivedAtMs } = this.#routed.request
    const firstMs = this.#routed.firstOutputMs
    return {
      requestReceivedMs: Math.round(clock.epochMs() - (nowMs - receivedAtMs)),
      prefillWaitTimeMs: this.#sentMs - receivedAtMs,
      prefillTimeMs: firstMs - this.#sentMs,
      ttftMs: firstMs - receivedAtMs,
      totalTimeMs: nowMs - receivedAtMs,
      kvHitRate: this.#decision.promptTokens === 0 ? 0 : Math.min(1, this.#decision.cachedTokens / this.#decision.promptTokens),
    }
  }

  onEnd(finalFrame: Uint8Array): void {
    if (this.#released) return
    this.#release()
    this.#routed.attemptEnded(this.#routed.request.codec === this.#instance.codec ? finalFrame : null, this.#relayedFailure)
  }

  onFail(failure: Failure): void {
    if (!this.#released) this.#failed(failure)
  }

  /** Sets the instance aside only for what is its own fault and not the request's. */
  #failed(failure: Failure): void {
    this.#release()
    this.#routed.attemptFailed(failure, this.#decision.workerId, isRetryableElsewhere(failure))
  }

  instanceGone(): void {
    if (this.#released) return
    const message = `worker ${this.#decision.workerId} left discovery before its first output`
    this.#call?.fail({ class: 'Unavailable', reason: 'backend.disconnected', message })
  }

  tick(nowMs: number): void {
    if (this.#released) return
    // A caller that does not read is no fault of the worker.
    if (this.#paused) {
      this.#activeMs = nowMs
      return
    }
    if (this.#routed.outputTokens > this.#reportedTokens) this.#reportOutput()
    const { firstOutputTimeoutMs, outputTimeoutMs } = this.#parts.options
    const limitMs = this.#routed.lastOutputMs === 0 ? firstOutputTimeoutMs : outputTimeoutMs
    if (limitMs === 0 || nowMs - this.#activeMs <= limitMs) return
    const flag = this.#routed.lastOutputMs === 0 ? '--first-output-timeout' : '--output-timeout'
    const message = `worker ${this.#decision.workerId} sent nothing for ${Math.round((nowMs - this.#activeMs) / 1000)} s (${flag} ${limitMs / 1000})`
    this.#call?.fail({ class: 'DeadlineExceeded', reason: 'backend.response_timeout', message })
  }

  cancel(kind: CancelKind): void {
    if (kind === 'stop') this.#call?.stop()
    else this.#call?.kill()
    this.#release()
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#activeMs = this.#parts.clock.nowMs()
    this.#call?.resume()
  }

  #pause(): void {
    this.#paused = true
    this.#call?.pause()
  }

  #reportOutput(): void {
    this.#reportedTokens = this.#routed.outputTokens
    this.#router.outputTokens(this.#bookingId, this.#routed.outputTokens)
  }

  #release(): void {
    if (this.#released) return
    this.#released = true
    this.#router.free(this.#bookingId)
    this.#owner.detached(this.#decision.workerId, this.#routed)
  }
}

function invalidRequest(error: unknown): Failure {
  if (error instanceof FailureError) return error.failure
  const message = error instanceof Error ? error.message : String(error)
  return { class: 'InvalidRequest', reason: 'request.invalid_argument', message }
}
