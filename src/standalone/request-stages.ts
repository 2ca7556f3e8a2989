/** The two stages of one request: who may be chosen in each, the session's part in it, and whether the prefill stage is skipped. */
import type { Decision } from '../model/decision.ts'
import type { Failure } from '../model/failure.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { WorkerId } from '../model/worker.ts'
import type { GenerateRequest } from '../dynamo/wire/generate-request.ts'
import type { IncomingRequest } from '../ports.ts'
import type { Choice } from './choose-worker.ts'
import { decodeWorkerForBypass, markedAnnotations } from './conditional-bypass.ts'
import { prefillHints, unreachablePrefillWorkers } from './decode-constraint.ts'
import type { DecodeEditsInput } from './decode-edits.ts'
import type { RoutedGenerateParts } from './routed-generate.ts'
import type { RoutedPool } from './routed-pool.ts'
import { sessionKey } from './session.ts'
import { StageChoice } from './stage-choice.ts'

/** A choice, and the worker that the caller named for it. */
export interface StageRequest extends Choice {
  readonly requested: NonNullable<RoutingRequest['pin']> | null
}

export class RequestStages {
  readonly prefill: StageChoice
  readonly decode: StageChoice
  /** Workers that failed this request. */
  readonly failedPrefill = new Set<WorkerId>()
  readonly failedDecode = new Set<WorkerId>()
  /** False once a leg has waited in vain for a connection of ours: the next one does not. */
  waitsForLink = true
  readonly #cutOff = new Set<WorkerId>()
  readonly #id: string
  /** The decode worker computes the prompt of this round by rule. */
  isBypassed = false
  readonly #parts: RoutedGenerateParts
  readonly #generate: GenerateRequest
  readonly #bookingId: string

  /** Errors: `FailureError` of class InvalidRequest for a session or rank that cannot be. */
  constructor(parts: RoutedGenerateParts, request: IncomingRequest, generate: GenerateRequest, bookingId: string) {
    this.#parts = parts
    this.#generate = generate
    this.#bookingId = bookingId
    this.#id = request.id
    const isBinding = parts.pool.affinity !== null || (parts.prefillPool()?.affinity ?? null) !== null
    const key = isBinding ? sessionKey(request, generate) : null
    const { clock, observer } = parts
    this.prefill = new StageChoice({ stage: 'prefill', sessionKey: key, clock, observer })
    this.decode = new StageChoice({ stage: 'decode', sessionKey: key, clock, observer })
  }

  /** The caller's own hints for the stage that answers. */
  decodeRequest(): StageRequest {
    const { routing, model, tokens } = this.#generate
    return { request: { ...routing, requestId: this.#bookingId, model, tokens }, excluded: this.failedDecode, requested: routing.pin ?? null }
  }

  prefillRequest(pool: RoutedPool): StageRequest {
    const { model, tokens } = this.#generate
    const hints = prefillHints(this.#generate)
    const excluded = new Set([...this.failedPrefill, ...unreachablePrefillWorkers(pool, this.#parts.pool, this.failedDecode)])
    return { request: { ...hints, requestId: this.#bookingId, model, tokens }, excluded, requested: hints.pin ?? null }
  }

  /** A prefill worker is left that has not failed this request. */
  hasOtherPrefill(pool: RoutedPool): boolean {
    for (const worker of pool.router?.workers ?? []) if (!this.failedPrefill.has(worker.workerId)) return true
    return false
  }

  prefillFailed(workerId: WorkerId, failure: Failure): void {
    this.failedPrefill.add(workerId)
    if (failure.linkLost === true) this.waitsForLink = false
  }

  decodeFailed(workerId: WorkerId, failure: Failure): void {
    this.failedDecode.add(workerId)
    if (failure.linkLost === true) this.waitsForLink = false
  }

  /** A leg on this worker was ended before it was done. */
  cutOff(workerId: WorkerId): void {
    this.#cutOff.add(workerId)
  }

  /**
   * The request's id for a leg on this worker: the caller's own, but where an earlier leg may still be ending. Engines know their work by
   * its id: they refuse one that runs, and an abort that comes late would hit the newcomer. `attempt`: differs in each round.
   */
  legId(workerId: WorkerId, attempt: number): string {
    return this.#cutOff.has(workerId) ? `${this.#id}-${attempt}` : this.#id
  }

  /** Beyond this the request does not go on elsewhere. */
  isTooLong(outputTokens: number): boolean {
    const max = this.#parts.options.migrationLengthMax
    return max !== null && this.#generate.tokens.length + outputTokens > max
  }

  /** The decode worker that is to compute the prompt of this round itself, or null. */
  bypass(prefillPool: RoutedPool | null): Decision | null {
    this.isBypassed = false
    if (prefillPool === null || this.#parts.options.conditional === null) return null
    const decision = decodeWorkerForBypass({
      parts: this.#parts, requestId: this.#bookingId, generate: this.#generate, prefillPool, prefillStage: this.prefill, decodeStage: this.decode,
      prefillChoice: this.prefillRequest(prefillPool), decodeChoice: this.decodeRequest(),
    })
    this.isBypassed = decision !== null
    return decision
  }

  get editOptions(): Pick<DecodeEditsInput, 'decodeKvReuse' | 'keepsOverlapCredit' | 'annotations'> {
    const { decodeKvReuse, conditional, decidesStages } = this.#parts.options
    return { decodeKvReuse, keepsOverlapCredit: conditional !== null, annotations: markedAnnotations(this.#generate, decidesStages, this.isBypassed) }
  }

  /** The request has ended. */
  release(): void {
    this.prefill.release()
    this.decode.release()
  }
}
