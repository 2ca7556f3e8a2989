/**
 * One request from its arrival to the end of its answer: rounds of a prefill leg, where there is a prefill pool, and a decode
 * attempt. A round that fails is followed by another while nothing was relayed (retry) or the tokens so far can be put behind the
 * prompt (migration). Every round has bookings, room and hand-over id of its own, and gives them back before the next.
 */
import type { Decision, Parked, Refusal } from '../model/decision.ts'
import { isRetryableElsewhere, type Failure } from '../model/failure.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { WorkerId } from '../model/worker.ts'
import { afterPrefillFailure } from '../disagg/fall-back.ts'
import type { DecodePayload } from '../disagg/hand-over.ts'
import { canContinue, isMigratable } from '../disagg/migration.ts'
import type { CancelKind, IncomingRequest, ResponseWriter } from '../ports.ts'
import { readGenerateRequest, type EncodedValue, type GenerateRequest, type RequestEdits } from '../dynamo/wire/generate-request.ts'
import { encodeItem } from '../dynamo/wire/items.ts'
import { encodeQueryAnswer, transcodeFrame } from '../dynamo/wire/output-frame.ts'
import { policyFields, previewWorker, withPolicyClass } from './choose-worker.ts'
import { bypassMark } from './conditional-bypass.ts'
import { decodeConstraint, isBootstrapPool } from './decode-constraint.ts'
import { DecodeAttempt } from './decode-attempt.ts'
import { namedForDecode, namedForPrefill } from './named-rank.ts'
import { decodeEdits, mapOf, outgoingHeaders, type HandedOver, type ValueMap } from './decode-edits.ts'
import { PrefillLeg, type PrefillListener } from './prefill-leg.ts'
import { failureOf } from './query-endpoints.ts'
import { RequestStages } from './request-stages.ts'
import { isQueueRefusal, refusalFailure } from './refusal-failure.ts'
import { relayedFailure } from './relay-failure.ts'
import { answerFailure, type RouteNote, type RoutedGenerate, type RoutedGenerateParts } from './routed-generate.ts'
import type { RoutedPool } from './routed-pool.ts'

const none: ReadonlySet<WorkerId> = new Set()

export class RoutedRequest {
  readonly #parts: RoutedGenerateParts
  readonly #owner: RoutedGenerate
  readonly #bookingId: string
  readonly #onRouted: ((note: RouteNote) => void) | null
  readonly request: IncomingRequest
  readonly response: ResponseWriter
  #generate: GenerateRequest | null = null
  #stages: RequestStages | null = null
  #attempt: DecodeAttempt | null = null
  #prefill: PrefillLeg | null = null
  /** The round waits in the queue of a pool. */
  #parked: Parked | null = null
  /** What the parked decode stage is to fetch. */
  #parkedHandOver: HandedOver | null = null
  #retries = 0
  #migrations = 0
  #over = false
  /** The answer is over, but a prefill still runs whose staged blocks a decode worker has to fetch. */
  #releasing = false
  #prefillNote = 'none'
  #noted = false
  #migratable = false
  readonly #tokens: number[] = []
  /** Tokens relayed so far. */
  outputTokens = 0
  relayedAny = false
  firstOutputMs = 0
  lastOutputMs = 0
  prefillSentMs: number | null = null
  prefillCachedTokens: number | null = null
  /** What the index expects the prefill worker to have cached. */
  prefillExpectedTokens: number | null = null

  constructor(parts: RoutedGenerateParts, owner: RoutedGenerate, request: IncomingRequest, response: ResponseWriter, onRouted: ((note: RouteNote) => void) | null) {
    this.#parts = parts
    this.#owner = owner
    this.request = request
    this.response = response
    this.#onRouted = onRouted
    this.#bookingId = owner.takeBookingId(request.id)
  }

  /** A prefill leg runs beside the decode leg, and its end decides over success. */
  get prefillPending(): boolean {
    return this.#prefill?.isPending ?? false
  }

  /** Output tokens are kept for going on elsewhere. */
  get keepsTokens(): boolean {
    return this.#migratable
  }

  keepTokens(tokenIds: readonly number[]): void {
    if (this.#stages?.isTooLong(this.#tokens.length + tokenIds.length) === true) {
      this.#migratable = false
      this.#tokens.length = 0
      return
    }
    for (const id of tokenIds) this.#tokens.push(id)
  }

  start(): void {
    const { observer, options } = this.#parts
    // At once: callers give up a request without a prologue when the router's record goes, as it does for a drain.
    this.response.begin()
    let generate: GenerateRequest
    let stages: RequestStages
    try {
      generate = withPolicyClass(readGenerateRequest(this.request), this.request.metadata)
      stages = new RequestStages(this.#parts, this.request, generate, this.#bookingId)
    } catch (error) {
      observer.onStarted(0, 'unknown')
      this.#fail(failureOf(error))
      return
    }
    this.#generate = generate
    this.#stages = stages
    observer.onStarted(generate.tokens.length, generate.model)
    this.response.onCancel = (kind) => this.#cancelled(kind)
    this.response.onDrain = () => this.#attempt?.resume()
    if (this.#over) return
    if (generate.queryOnly) {
      this.#answerQuery(generate, stages)
      return
    }
    this.#migratable = options.migrationLimit > 0 && generate.routing.pin === undefined && canContinue(mapOf(generate.field('sampling_options'))) && !stages.isTooLong(0)
    this.#round(null)
  }

  // ---- One round ----

  /** `after`: the failure of the round before, answered when nobody else is left. */
  #round(after: Failure | null): void {
    const pool = this.#parts.prefillPool()
    if (this.#prefillNote === 'bypass') this.#prefillNote = 'none'
    const preview = this.#stages?.bypass(pool) ?? null
    if (preview !== null) this.#prefillNote = 'bypass'
    if (pool === null || preview !== null) this.#decode(after, null, preview)
    else this.#startPrefill(pool, after)
  }

  #startPrefill(pool: RoutedPool, after: Failure | null): void {
    const generate = this.#generate
    const stages = this.#stages
    if (this.#over || generate === null || stages === null) return
    const choice = stages.prefillRequest(pool)
    const isPinned = choice.requested !== null
    const answer = stages.prefill.choose(pool, choice, choice.requested, (late) => this.#unparked(() => this.#prefillChosen(generate, pool, after, isPinned, late)))
    if (answer.kind === 'parked') this.#parked = answer
    else this.#prefillChosen(generate, pool, after, isPinned, answer)
  }

  /** The answer that a parked round waited for. */
  #unparked(next: () => void): void {
    this.#parked = null
    this.#parkedHandOver = null
    next()
  }

  #prefillChosen(generate: GenerateRequest, pool: RoutedPool, after: Failure | null, isPinned: boolean, decision: Decision | Refusal): void {
    const { observer, log } = this.#parts
    if (decision.kind === 'refused') {
      // What the queue refuses is refused: no other stage makes room for it.
      if (isQueueRefusal(decision)) return this.#refused(decision)
      observer.onRefused(decision)
      this.#prefillFailed(pool, after ?? refusalFailure(decision), false, isPinned)
      return
    }
    const instance = pool.lookup(decision.workerId)
    const { router } = pool
    if (instance === undefined || router === null) {
      router?.free(this.#bookingId)
      this.#stages?.failedPrefill.add(decision.workerId)
      this.#startPrefill(pool, after)
      return
    }
    this.#logChoice('prefill', decision)
    this.prefillExpectedTokens = decision.cachedTokens
    this.prefillSentMs ??= this.#parts.clock.nowMs()
    const listener: PrefillListener = {
      onHandOver: (payload, cachedTokens) => this.#handedOver(leg, payload, cachedTokens),
      onTerminal: (bodies) => this.#answerWithPrefill(bodies, instance.codec, decision),
      onDone: () => this.#prefillDone(leg),
      onFailed: (failure, handedOver) => {
        if (this.#prefill !== leg) return
        this.#stages?.prefillFailed(decision.workerId, failure)
        log.warn({ request_id: this.request.id, worker_id: decision.workerId.toString(), stage: 'prefill', reason: failure.reason }, `prefill failed: ${failure.message}`)
        this.#prefillFailed(pool, failure, handedOver, isPinned)
      },
    }
    const leg = new PrefillLeg({ parts: this.#parts, owner: this.#owner, pool, routed: this, router, generate, decision, instance, bookingId: this.#bookingId, id: this.#legId(decision), waitsForLink: this.#stages?.waitsForLink ?? true, listener })
    this.#prefill = leg
    leg.send(outgoingHeaders(this.request.headers), this.#tokens)
  }

  #prefillFailed(pool: RoutedPool, failure: Failure, handedOver: boolean, pinned: boolean): void {
    this.#prefill = null
    if (this.#releasing) return this.#released()
    if (this.#over) return
    const { options, observer, log } = this.#parts
    const decodeOnlyPossible = !isBootstrapPool(pool) && this.#parts.needsBootstrap?.() !== true
    const step = afterPrefillFailure({ policy: options.onPrefillError, failure, handedOver, retriesLeft: options.retryLimit - this.#retries, decodeOnlyPossible, pinned })
    const isRetried = step === 'retry' && this.#stages?.hasOtherPrefill(pool) === true
    if (handedOver) {
      if (this.#attempt !== null) this.#stages?.cutOff(this.#attempt.workerId)
      this.#attempt?.cancel('kill')
      this.#attempt = null
      if (!isRetried || this.relayedAny) return this.#again(failure, isRetried)
    }
    if (isRetried) {
      this.#retries += 1
      observer.onRetry(failure)
      this.#startPrefill(pool, failure)
    } else if (step !== 'fail' && options.onPrefillError.decodeOnly && decodeOnlyPossible) {
      this.#prefillNote = `fallback:${failure.reason}`
      observer.onPrefillFallback(failure.reason)
      log.warn({ request_id: this.request.id, stage: 'prefill', reason: failure.reason }, 'the decode worker computes the prompt itself')
      this.#decode(failure, null)
    } else {
      this.#fail(failure)
    }
  }

  #handedOver(leg: PrefillLeg, payload: DecodePayload<EncodedValue>, cachedTokens: number | null): void {
    // The leg is not stored yet when the hand-over is made at once.
    this.#prefill ??= leg
    this.#prefillNote = 'remote'
    this.#parts.onHandOver?.(payload.kind)
    this.prefillCachedTokens = cachedTokens
    if (this.#releasing) this.#fetchAndDrop(leg, payload)
    else this.#decode(null, { leg, payload })
  }

  #prefillDone(leg: PrefillLeg): void {
    if (this.#prefill !== leg) return
    if (this.#releasing) {
      if (this.#attempt === null) this.#released()
      return
    }
    this.#attempt?.prefillEnded()
  }

  /** The prefill's only output was the last one: it is the answer. */
  #answerWithPrefill(bodies: readonly Uint8Array[], codec: IncomingRequest['codec'], decision: Decision): void {
    if (this.#over) return
    this.#prefillNote = 'remote'
    this.#logChoice('terminal', decision)
    this.relaying()
    for (const body of bodies) this.response.writeItem(transcodeFrame(body, codec, this.request.codec))
    this.#over = true
    this.response.end()
    this.#end('success', null)
  }

  /** `preview`: the worker that is to compute the prompt itself. */
  #decode(after: Failure | null, handOver: HandedOver | null, preview: Decision | null = null): void {
    const generate = this.#generate
    const stages = this.#stages
    if (this.#over || generate === null || stages === null) return
    const { pool, options } = this.#parts
    const constraint = handOver === null ? null : decodeConstraint(this.#parts, generate, handOver.leg.worker.workerId)
    const choice = stages.decodeRequest()
    const request: Omit<RoutingRequest, 'excludedWorkerIds'> = {
      ...choice.request, ...constraint?.routing,
      ...(preview === null ? {} : { pin: { workerId: preview.workerId, dpRank: preview.dpRank } }),
      ...(handOver === null ? {} : { override: { ...generate.routing.override, trackPrefillTokens: false, ...(options.decodeKvReuse ? {} : { assumeKvReuse: false }) } }),
    }
    const taints = constraint?.taints ?? null
    const answer = stages.decode.choose(pool, { ...choice, request }, choice.requested, (late) => this.#unparked(() => this.#decodeChosen(generate, after, handOver, taints, late)))
    if (answer.kind === 'parked') {
      this.#parked = answer
      this.#parkedHandOver = handOver
    } else this.#decodeChosen(generate, after, handOver, taints, answer)
  }

  #decodeChosen(generate: GenerateRequest, after: Failure | null, handOver: HandedOver | null, taints: ValueMap | null, decision: Decision | Refusal): void {
    const { observer, pool } = this.#parts
    if (decision.kind === 'refused') {
      this.#endRound()
      const prefill = this.#stages?.isBypassed === true ? this.#parts.prefillPool() : null
      if (prefill !== null && this.#stages !== null) {
        // The previewed worker cannot take it after all.
        this.#stages.isBypassed = false
        this.#prefillNote = 'none'
        this.#startPrefill(prefill, after)
      } else if (after !== null) this.#fail(after)
      else this.#refused(decision)
      return
    }
    const instance = pool.lookup(decision.workerId)
    const { router } = pool
    if (instance === undefined || router === null) {
      // The record left between the directory's event and this call; its removal from the router follows.
      router?.free(this.#bookingId)
      this.#stages?.failedDecode.add(decision.workerId)
      this.#decode(after, handOver)
      return
    }
    observer.onRouted(this.request.id, decision, generate.model)
    this.#logChoice('route', decision)
    this.#attempt = new DecodeAttempt({ parts: this.#parts, owner: this.#owner, routed: this, router, generate, decision, instance, bookingId: this.#bookingId, id: this.#legId(decision), waitsForLink: this.#stages?.waitsForLink ?? true, prefill: handOver?.leg.named ?? null })
    this.#attempt.send(outgoingHeaders(this.request.headers), this.#decodeEdits(generate, decision, handOver, taints))
  }

  readonly #legId = ({ workerId }: Decision): string => this.#stages?.legId(workerId, this.#retries + this.#migrations) ?? this.request.id

  #decodeEdits(generate: GenerateRequest, decision: Decision, handOver: HandedOver | null, taints: ValueMap | null): RequestEdits {
    const options = this.#stages?.editOptions ?? { decodeKvReuse: false, keepsOverlapCredit: false, annotations: null }
    return decodeEdits({ generate, dpRank: namedForDecode(this.#parts.pool.router, generate, decision).dpRank, tokens: this.#tokens, handOver, taints, ...options })
  }

  // ---- What legs tell ----

  /** True when this failure will be followed by another round: it is then not relayed. */
  mayGoOn(failure: Failure, hasOutputs: boolean): boolean {
    if (!this.relayedAny && !hasOutputs) return isRetryableElsewhere(failure)
    return this.#mayMigrate(failure)
  }

  #mayMigrate(failure: Failure, isMendable = false): boolean {
    return this.#migratable && this.#migrations < this.#parts.options.migrationLimit && (isMendable || isMigratable(failure))
  }

  /** Called before anything of an output is written. */
  relaying(): void {
    this.relayedAny = true
    if (this.#noted) return
    this.#noted = true
    this.#onRouted?.({ prefill: this.#prefillNote, prefillCachedTokens: this.prefillCachedTokens })
    if (this.#stages?.isBypassed === true) this.response.writeItem(encodeItem({ event: bypassMark, comment: ['true'] }, this.request.codec))
  }

  /** An attempt ended without a complete answer. Its booking is already released. */
  attemptFailed(failure: Failure, workerId: WorkerId, instanceAtFault: boolean): void {
    this.#attempt = null
    if (this.#releasing) return this.#released()
    if (this.#over) return
    const { options, pool } = this.#parts
    if (instanceAtFault && options.inhibitedMs > 0) pool.setAside(workerId, options.inhibitedMs, failure)
    this.#stages?.decodeFailed(workerId, failure)
    this.#again(failure)
  }

  /** Another round when the failure allows it, else the failure is the answer. `isMendable`: another prefill worker may do better. */
  #again(failure: Failure, isMendable = false): void {
    this.#endRound()
    const { options, observer, log } = this.#parts
    const fields = { request_id: this.request.id, reason: failure.reason }
    if (!this.relayedAny && isRetryableElsewhere(failure) && this.#retries < options.retryLimit && this.#generate?.routing.pin === undefined) {
      this.#retries += 1
      observer.onRetry(failure)
      log.warn({ ...fields, stage: 'retry' }, `retrying on another worker: ${failure.message}`)
      this.#round(failure)
    } else if (this.relayedAny && this.#mayMigrate(failure, isMendable)) {
      this.#migrations += 1
      observer.onMigration(failure)
      log.warn({ ...fields, stage: 'migrate', output_tokens: this.#tokens.length }, `going on elsewhere: ${failure.message}`)
      this.#round(failure)
    } else {
      this.#fail(failure)
    }
  }

  attemptEnded(finalFrame: Uint8Array | null, relayed: Failure | null): void {
    this.#attempt = null
    if (this.#releasing) return this.#released()
    if (this.#over) return
    this.#over = true
    if (finalFrame === null) this.response.end()
    else this.response.end(finalFrame)
    this.#end(relayed === null ? 'success' : 'error', relayed)
  }

  tick(nowMs: number): void {
    this.#prefill?.tick(nowMs)
    this.#attempt?.tick(nowMs)
  }

  abort(): void {
    this.#cancelled('kill')
  }

  #cancelled(kind: CancelKind): void {
    if (this.#over) return
    this.#over = true
    this.response.abort()
    const prefill = this.#prefill
    // Blocks that a pull engine stages are freed when a decode worker has fetched them: that is still to be done.
    if (prefill !== null && prefill.isPending && !prefill.handedOver && this.#attempt === null) {
      this.#releasing = true
      this.#note('cancelled', null)
      return
    }
    const staged = this.#parkedHandOver
    if (staged?.payload.kind === 'params') {
      this.#releasing = true
      this.#note('cancelled', null)
      this.#parked?.cancel()
      this.#unparked(() => this.#fetchAndDrop(staged.leg, staged.payload))
      return
    }
    this.#attempt?.cancel(kind)
    this.#endRound()
    this.#end('cancelled', null)
  }

  /** Sends the decode request and kills it as soon as its worker has it. */
  #fetchAndDrop(leg: PrefillLeg, payload: DecodePayload<EncodedValue>): void {
    const generate = this.#generate
    const { pool, client } = this.#parts
    const decision = generate === null ? null : previewWorker(pool, { request: { ...generate.routing, requestId: this.#bookingId, model: generate.model, tokens: generate.tokens }, excluded: none })
    const instance = decision === null || decision.kind === 'refused' ? undefined : pool.lookup(decision.workerId)
    if (generate === null || decision === null || decision.kind === 'refused' || instance === undefined) return this.#released()
    let sawEnd = false
    const end = (): void => {
      if (sawEnd) return
      sawEnd = true
      this.#released()
    }
    const edits = this.#decodeEdits(generate, decision, { leg, payload }, null)
    const call = client.call(instance, { id: this.#legId(decision), headers: outgoingHeaders(this.request.headers), metadata: this.request.metadata, codec: instance.codec, body: generate.forWorker(edits, instance.codec) }, {
      onPrologue: () => call.kill(), onFrame: () => call.kill(), onEnd: end, onFail: end,
    })
  }

  #released(): void {
    if (!this.#releasing) return
    this.#releasing = false
    this.#endRound()
    this.#ended()
  }

  /** Gives back what the round holds. */
  #endRound(): void {
    this.#parked?.cancel()
    this.#parked = null
    this.#parkedHandOver = null
    const prefill = this.#prefill
    this.#prefill = null
    if (prefill?.isPending === true) this.#stages?.cutOff(prefill.worker.workerId)
    prefill?.kill()
  }

  // ---- Answers ----

  #answerQuery(generate: GenerateRequest, stages: RequestStages): void {
    const { pool } = this.#parts
    const choice = stages.decodeRequest()
    const answer = stages.decode.preview(pool, choice, choice.requested)
    if (answer.kind === 'refused') {
      this.#refused(answer)
      return
    }
    const prefillPool = this.#parts.prefillPool()
    const wanted = prefillPool === null ? null : stages.prefillRequest(prefillPool)
    const prefill = prefillPool === null || wanted === null ? null : stages.prefill.preview(prefillPool, wanted, wanted.requested)
    this.relaying()
    this.response.writeItem(encodeQueryAnswer(this.request.codec, {
      ...namedForDecode(pool.router, generate, answer), prefill: prefillPool === null || prefill === null || prefill.kind === 'refused' ? null : namedForPrefill(prefillPool.router, generate, prefill),
    }, generate.tokens))
    this.response.end()
    this.#over = true
    this.#end('success', null)
  }

  #refused(refusal: Refusal): void {
    this.#parts.observer.onRefused(refusal)
    this.#fail(refusalFailure(refusal))
  }

  #fail(failure: Failure): void {
    if (this.#over) return
    this.#over = true
    this.#endRound()
    this.#noted = true
    answerFailure(this.response, relayedFailure(failure))
    this.#end('error', failure)
  }

  #end(outcome: 'success' | 'error' | 'cancelled', failure: Failure | null): void {
    this.#note(outcome, failure)
    this.#ended()
  }

  #ended(): void {
    this.#stages?.release()
    this.#owner.ended(this, this.#bookingId)
  }

  #note(outcome: 'success' | 'error' | 'cancelled', failure: Failure | null): void {
    this.response.onCancel = null
    this.response.onDrain = null
    const { clock, observer, log } = this.#parts
    const durationMs = clock.nowMs() - this.request.receivedAtMs
    observer.onEnded(outcome, this.outputTokens, durationMs / 1000, failure)
    const fields = { request_id: this.request.id, stage: 'end', outcome, duration_ms: Math.round(durationMs * 1000) / 1000, output_tokens: this.outputTokens, prefill: this.#prefillNote }
    if (failure === null) log.info(fields, 'route request completed')
    else log.warn({ ...fields, reason: failure.reason }, `request failed: ${failure.message}`)
  }

  #logChoice(stage: string, decision: Decision): void {
    this.#parts.log.info({
      request_id: this.request.id, worker_id: decision.workerId.toString(), dp_rank: decision.dpRank, stage, model: this.#generate?.model ?? 'unknown',
      logit: decision.cost, overlap_blocks: decision.deviceBlocks, attempt: this.#retries + this.#migrations, ...policyFields(decision),
    }, decision.pinned ? 'Selected pinned worker' : 'Selected worker')
  }
}
