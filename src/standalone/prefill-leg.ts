/** One try of the prefill stage on one worker: sends the prompt for one token and drives the hand-over with what comes back. */
import type { Decision } from '../model/decision.ts'
import { isRetryableElsewhere, type Failure } from '../model/failure.ts'
import { HandOver, type DecodePayload, type HandOverStep } from '../disagg/hand-over.ts'
import type { CallHandle, InstanceRecord, ResponseListener } from '../ports.ts'
import type { Router } from '../router/contract.ts'
import { EncodedValue, type GenerateRequest, type RequestEdits } from '../dynamo/wire/generate-request.ts'
import { readPrefillOutput } from '../dynamo/wire/prefill-output.ts'
import { peekOutput } from '../dynamo/wire/output-frame.ts'
import { markedAnnotations } from './conditional-bypass.ts'
import { DispatchTimer } from './dispatch-timer.ts'
import { namedForPrefill, type NamedWorker } from './named-rank.ts'
import type { Leg, RoutedGenerate, RoutedGenerateParts } from './routed-generate.ts'
import type { RoutedPool } from './routed-pool.ts'
import type { RoutedRequest } from './routed-request.ts'

/** What the leg tells its request, in this order: at most one of decode or terminal, then one of done or failed. */
export interface PrefillListener {
  onHandOver(payload: DecodePayload<EncodedValue>, cachedTokens: number | null): void
  /** The prefill output is the whole answer; bodies without hand-over data, in the worker's codec. */
  onTerminal(bodies: readonly Uint8Array[]): void
  onDone(): void
  onFailed(failure: Failure, handedOver: boolean): void
}

export interface PrefillLegParts {
  readonly parts: RoutedGenerateParts
  readonly owner: RoutedGenerate
  readonly pool: RoutedPool
  readonly routed: RoutedRequest
  readonly router: Router
  readonly generate: GenerateRequest
  readonly decision: Decision
  readonly instance: InstanceRecord
  readonly bookingId: string
  /** Under which the worker gets it. */
  readonly id: string
  readonly waitsForLink: boolean
  readonly listener: PrefillListener
}

export class PrefillLeg implements ResponseListener, Leg {
  readonly #at: PrefillLegParts
  readonly #handOver: HandOver<EncodedValue>
  /** As it is told to workers and callers. */
  readonly named: NamedWorker
  #call: CallHandle | null = null
  #dispatch: DispatchTimer | null = null
  #sentMs = 0
  #over = false
  #outputs = 0
  #activeMs = 0
  #cachedTokens: number | null = null
  readonly #bodies: Uint8Array[] = []
  #terminal = false

  constructor(at: PrefillLegParts) {
    this.#at = at
    const card = at.pool.card(at.decision.workerId)
    this.named = namedForPrefill(at.router, at.generate, at.decision)
    this.#handOver = new HandOver({ bootstrap: card?.bootstrap ?? null, dpRank: this.named.dpRank, dpSize: card?.dpSize ?? 1, random: at.parts.random })
  }

  get worker(): { readonly workerId: bigint; readonly dpRank: number } {
    return this.#at.decision
  }

  /** Until here the decode leg may not end the answer with success. */
  get isPending(): boolean {
    return !this.#over
  }

  get handedOver(): boolean {
    return this.#handOver.handedOver
  }

  send(headers: Readonly<Record<string, string>>, appendedTokens: readonly number[]): void {
    const { parts, owner, pool, routed, decision, generate, instance } = this.#at
    this.#activeMs = this.#sentMs = parts.clock.nowMs()
    this.#dispatch = new DispatchTimer(parts.observer, parts.clock, 'prefill')
    owner.attach(pool, decision.workerId, this)
    const annotations = markedAnnotations(generate, parts.options.decidesStages, false)
    const { dpRank } = this.named
    const edits: RequestEdits = {
      routing: { prefill_worker_id: decision.workerId, ...(dpRank === null ? {} : { prefill_dp_rank: dpRank, dp_rank: dpRank }) },
      // Without a pin the caller's rank is one of the decode worker's.
      ...(dpRank === null && !decision.pinned ? { routingWithout: ['dp_rank'] } : {}),
      stopConditions: { max_tokens: 1 },
      ...(this.#handOver.bootstrapInfo === null ? {} : { bootstrapInfo: this.#handOver.bootstrapInfo }),
      ...(appendedTokens.length === 0 ? {} : { appendedTokens }),
      ...(annotations === null ? {} : { annotations }),
    }
    const { metadata } = routed.request
    this.#call = parts.client.call(instance, { id: this.#at.id, headers, metadata, codec: instance.codec, body: generate.forWorker(edits, instance.codec), waitsForLink: this.#at.waitsForLink }, this)
    this.#step(this.#handOver.begin())
  }

  onPrologue(): void {
    this.#dispatch?.begun()
  }

  onFrame(_frame: Uint8Array, body: Uint8Array): void {
    if (this.#over) return
    const { parts, router, bookingId, instance } = this.#at
    this.#activeMs = parts.clock.nowMs()
    const peek = peekOutput(body, instance.codec)
    if (peek.failure !== null) {
      this.#call?.kill()
      this.#failed(peek.failure)
      return
    }
    if (!peek.hasData) return
    this.#outputs += 1
    if (this.#outputs === 1) {
      router.prefillCompleted(bookingId)
      parts.observer.onServed?.({ rank: this.worker, phase: 'prefill', promptTokens: this.#at.generate.tokens.length, firstOutputSeconds: (this.#activeMs - this.#sentMs) / 1000, interOutputSeconds: null })
    }
    const output = readPrefillOutput(body, instance.codec)
    if (output.cachedTokens !== null && this.#cachedTokens === null) this.#at.pool.reused(this.#at.decision, output.cachedTokens)
    this.#cachedTokens = output.cachedTokens ?? this.#cachedTokens
    if (!this.handedOver && this.#bodies.length < 16) this.#bodies.push(output.withoutParams)
    this.#step(this.#handOver.output(output))
  }

  onEnd(): void {
    if (this.#over) return
    if (!this.#terminal) {
      const step = this.#handOver.end()
      if (step.kind === 'failed') {
        this.#failed(step.failure)
        return
      }
      this.#release()
      this.#step(step)
    } else {
      this.#release()
      this.#at.listener.onTerminal(this.#bodies)
    }
    this.#at.listener.onDone()
  }

  onFail(failure: Failure): void {
    if (!this.#over) this.#failed(failure)
  }

  #step(step: HandOverStep<EncodedValue>): void {
    if (step.kind === 'decode') this.#at.listener.onHandOver(step.payload, this.#cachedTokens)
    else if (step.kind === 'terminal') this.#terminal = true
    else if (step.kind === 'failed') {
      this.#call?.kill()
      this.#failed(step.failure)
    }
  }

  #failed(failure: Failure): void {
    const { parts, pool, decision, listener } = this.#at
    this.#release()
    if (isRetryableElsewhere(failure) && parts.options.inhibitedMs > 0) pool.setAside(decision.workerId, parts.options.inhibitedMs, failure)
    listener.onFailed(failure, this.handedOver)
  }

  instanceGone(): void {
    if (this.#over || this.#outputs > 0) return
    this.#call?.fail({ class: 'Unavailable', reason: 'backend.disconnected', message: `prefill worker ${this.#at.decision.workerId} left discovery before its output` })
  }

  tick(nowMs: number): void {
    const limitMs = this.#at.parts.options.firstOutputTimeoutMs
    if (this.#call?.isWaiting === true) this.#activeMs = nowMs
    if (this.#over || limitMs === 0 || nowMs - this.#activeMs <= limitMs) return
    const message = `prefill worker ${this.#at.decision.workerId} sent nothing for ${Math.round((nowMs - this.#activeMs) / 1000)} s (--first-output-timeout ${limitMs / 1000})`
    this.#call?.fail({ class: 'DeadlineExceeded', reason: 'backend.response_timeout', message })
  }

  /** Ends the work; nothing more is told. */
  kill(): void {
    if (this.#over) return
    this.#call?.kill()
    this.#release()
  }

  #release(): void {
    if (this.#over) return
    this.#over = true
    this.#dispatch?.over()
    const { owner, pool, router, decision, bookingId } = this.#at
    router.free(bookingId)
    owner.detach(pool, decision.workerId, this)
  }
}
