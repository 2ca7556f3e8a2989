/** One try of one request on one worker that answers: relays its frames, edits the first and the last, keeps the booking. */
import type { Decision } from '../model/decision.ts'
import { isRetryableElsewhere, type Failure } from '../model/failure.ts'
import type { CallHandle, CancelKind, InstanceRecord, ResponseListener } from '../ports.ts'
import type { Router } from '../router/contract.ts'
import type { GenerateRequest, RequestEdits } from '../dynamo/wire/generate-request.ts'
import type { WireObject } from '../dynamo/wire/body.ts'
import { cachedTokensOf, editOutput, editRead, outputTokenIds, peekOutput, peekRead, readTokenIds, reportedCachedTokens, transcodeFrame, type OutputAdditions, type OutputPeek, type OutputTiming } from '../dynamo/wire/output-frame.ts'
import { plainOutput } from '../dynamo/wire/output-item.ts'
import { DispatchTimer, phaseOf } from './dispatch-timer.ts'
import { valueWriterOf, type ValueWriter } from './in-process-call.ts'
import { namedForDecode, type NamedWorker } from './named-rank.ts'
import type { Leg, RoutedGenerate, RoutedGenerateParts } from './routed-generate.ts'
import type { RoutedRequest } from './routed-request.ts'

export interface DecodeAttemptParts {
  readonly parts: RoutedGenerateParts
  readonly owner: RoutedGenerate
  readonly routed: RoutedRequest
  /** The one that holds the booking: the pool may have made a new one since. */
  readonly router: Router
  readonly generate: GenerateRequest
  readonly decision: Decision
  readonly instance: InstanceRecord
  readonly bookingId: string
  /** Under which the worker gets it. */
  readonly id: string
  readonly waitsForLink: boolean
  /** The worker that computed the prompt, for `routing_data`. */
  readonly prefill: NamedWorker | null
}

/** One output as it came, and, where the answer's reader takes values, as it was read. */
interface Incoming {
  readonly frame: Uint8Array
  readonly body: Uint8Array
  readonly value: WireObject | null
}

/** Frames that wait for a prefill leg before their source is paused. */
const heldMax = 256

export class DecodeAttempt implements ResponseListener, Leg {
  readonly #at: DecodeAttemptParts
  #call: CallHandle | null = null
  #dispatch: DispatchTimer | null = null
  #released = false
  #sentMs = 0
  /** Requests that waited when this one was sent. */
  #queueDepth = 0
  #activeMs = 0
  #firstOutputMs = 0
  /** The prefill had ended when this began: then the first output waits for its blocks alone. */
  #followsPrefill = false
  #reportedTokens = 0
  #paused = false
  #outputs = 0
  /** An application's own error that went to the caller as it came. */
  #relayedFailure: Failure | null = null
  /** Frames that wait for the prefill leg to end well. */
  #held: (() => void)[] | null = null
  /** The reader of the answer takes outputs as values. */
  readonly #values: ValueWriter | null

  constructor(at: DecodeAttemptParts) {
    this.#at = at
    this.#values = at.instance.codec === 'msgpack' && at.routed.request.codec === 'msgpack' ? valueWriterOf(at.routed.response) : null
  }

  get workerId(): bigint {
    return this.#at.decision.workerId
  }

  send(headers: Readonly<Record<string, string>>, edits: RequestEdits): void {
    const { parts, owner, routed, decision, instance, generate } = this.#at
    this.#sentMs = parts.clock.nowMs()
    this.#activeMs = this.#sentMs
    this.#dispatch = new DispatchTimer(parts.observer, parts.clock, phaseOf('decode', parts.pool))
    this.#followsPrefill = this.#at.prefill !== null && !routed.prefillPending
    this.#queueDepth = this.#at.router.parkedCount + (parts.prefillPool()?.router?.parkedCount ?? 0)
    owner.attach(parts.pool, decision.workerId, this)
    const { metadata } = routed.request
    this.#call = parts.client.call(instance, { id: this.#at.id, headers, metadata, codec: instance.codec, body: generate.forWorker(edits, instance.codec), waitsForLink: this.#at.waitsForLink }, this)
  }

  onPrologue(): void {
    this.#dispatch?.begun()
  }

  onFrame(frame: Uint8Array, body: Uint8Array): void {
    if (this.#released) return
    try {
      this.#take(frame, body)
    } catch (error) {
      // A fault of ours must not look like one of the worker's.
      this.#call?.kill()
      const message = `the router could not handle an output: ${error instanceof Error ? error.message : String(error)}`
      this.#failed({ class: 'Internal', reason: 'runtime.internal', message })
    }
  }

  #take(frame: Uint8Array, body: Uint8Array): void {
    const { parts, routed, router, bookingId, instance } = this.#at
    const incoming: Incoming = { frame, body, value: this.#values === null ? null : plainOutput(body) }
    const output = incoming.value === null ? peekOutput(body, instance.codec) : peekRead(incoming.value)
    if (output.failure !== null && routed.mayGoOn(output.failure, this.#outputs > 0)) {
      this.#call?.kill()
      this.#failed(output.failure)
      return
    }
    const nowMs = parts.clock.nowMs()
    this.#activeMs = nowMs
    if (output.hasData) {
      this.#outputs += 1
      if (routed.lastOutputMs === 0) {
        routed.firstOutputMs = nowMs
        parts.observer.onFirstOutput((nowMs - routed.request.receivedAtMs) / 1000)
      } else {
        parts.observer.onNextOutput((nowMs - routed.lastOutputMs) / 1000)
      }
      if (this.#outputs === 1) {
        this.#firstOutputMs = nowMs
        router.prefillCompleted(bookingId)
      }
      routed.lastOutputMs = nowMs
    }
    if (output.failure !== null) this.#relayedFailure = output.failure
    if (output.finished) this.#noteReuse(incoming)
    // What ends the answer waits for the prefill leg: a late failure there replaces success.
    if (this.#held === null && output.finished && routed.prefillPending) this.#held = []
    if (this.#held === null) this.#pass(incoming, output, nowMs)
    else this.#hold(() => this.#pass(incoming, output, nowMs))
  }

  #pass(incoming: Incoming, { hasData, tokenCount, finished }: OutputPeek, nowMs: number): void {
    const isFirst = hasData && !this.#at.routed.relayedAny
    if (tokenCount > 0) this.#count(incoming, tokenCount)
    if (isFirst || finished) this.#relayEdited(incoming, isFirst, finished, nowMs)
    else this.#relay(incoming)
  }

  #idsOf({ body, value }: Incoming): readonly number[] {
    return value === null ? outputTokenIds(body, this.#at.instance.codec) : readTokenIds(value)
  }

  /** Tokens that go to the caller: what is held back and dropped must not count as theirs. */
  #count(incoming: Incoming, tokenCount: number): void {
    const { routed, router } = this.#at
    routed.outputTokens += tokenCount
    if (routed.keepsTokens) routed.keepTokens(this.#idsOf(incoming))
    if (router.wantsOutputTokens) this.#reportOutput(this.#idsOf(incoming))
    else if (router.settings.trackOutputBlocks) this.#reportOutput()
  }

  /** Further choices of the request may still stream: beyond the bound their worker is not read. */
  #hold(step: () => void): void {
    this.#held?.push(step)
    if (this.#held?.length === heldMax) this.#pause()
  }

  #noteReuse({ body, value }: Incoming): void {
    const tokens = value === null ? reportedCachedTokens(body, this.#at.instance.codec) : cachedTokensOf(value)
    if (tokens === null) return
    const { parts, generate, prefill, decision } = this.#at
    parts.observer.onWorkerReused(generate.model, tokens)
    // What was fetched from a prefill worker is no matter of its own cache.
    if (prefill === null) parts.pool.reused(decision, tokens)
  }

  #relay({ frame, body, value }: Incoming): void {
    const { routed, instance } = this.#at
    const { request, response } = routed
    routed.relaying()
    const more = value !== null && this.#values !== null ? this.#values.writeValue(value)
      : request.codec === instance.codec ? response.writeFrame(frame, body) : response.writeItem(transcodeFrame(body, instance.codec, request.codec))
    if (!more) this.#pause()
  }

  #relayEdited({ body, value }: Incoming, isFirst: boolean, finished: boolean, nowMs: number): void {
    const { routed, instance, decision, prefill, router, generate } = this.#at
    const { request, response } = routed
    routed.relaying()
    const worker = isFirst ? { ...namedForDecode(router, generate, decision), prefill } : null
    const additions: OutputAdditions = { worker, timing: finished ? this.#timing(nowMs) : null }
    if (value !== null && this.#values !== null) {
      if (!this.#values.writeValue(editRead(value, additions))) this.#pause()
      return
    }
    let edited = editOutput(body, instance.codec, additions)
    if (request.codec !== instance.codec) edited = transcodeFrame(edited, instance.codec, request.codec)
    if (!response.writeItem(edited)) this.#pause()
  }

  #timing(nowMs: number): OutputTiming {
    const { parts, routed, decision } = this.#at
    const { receivedAtMs } = routed.request
    const firstMs = routed.firstOutputMs
    return {
      requestReceivedMs: Math.round(parts.clock.epochMs() - (nowMs - receivedAtMs)),
      prefillWaitTimeMs: (routed.prefillSentMs ?? this.#sentMs) - receivedAtMs,
      prefillTimeMs: firstMs - (routed.prefillSentMs ?? this.#sentMs),
      ttftMs: firstMs - receivedAtMs,
      totalTimeMs: nowMs - receivedAtMs,
      kvTransferMs: this.#followsPrefill ? this.#firstOutputMs - this.#sentMs : null,
      routerQueueDepth: this.#queueDepth,
      kvHitRate: decision.promptTokens === 0 ? 0 : Math.min(1, (routed.prefillCachedTokens ?? routed.prefillExpectedTokens ?? decision.cachedTokens) / decision.promptTokens),
    }
  }

  onEnd(finalFrame: Uint8Array): void {
    if (this.#released) return
    const { routed, instance } = this.#at
    const end = (): void => {
      this.#release()
      routed.attemptEnded(routed.request.codec === instance.codec ? finalFrame : null, this.#relayedFailure)
    }
    if (this.#held === null && routed.prefillPending) this.#held = []
    if (this.#held === null) end()
    else this.#hold(end)
  }

  /** The prefill leg has ended well: what was held back goes out. */
  prefillEnded(): void {
    const held = this.#held
    this.#held = null
    if (held === null) return
    for (const step of held) step()
    if (held.length >= heldMax) this.resume()
  }

  onFail(failure: Failure): void {
    if (!this.#released) this.#failed(failure)
  }

  /** The worker's instance is set aside only for what is its own fault and not the request's. */
  #failed(failure: Failure): void {
    this.#release()
    this.#at.routed.attemptFailed(failure, this.#at.decision.workerId, isRetryableElsewhere(failure))
  }

  instanceGone(): void {
    if (this.#released || this.#outputs > 0) return
    const message = `worker ${this.#at.decision.workerId} left discovery before its first output`
    this.#call?.fail({ class: 'Unavailable', reason: 'backend.disconnected', message })
  }

  tick(nowMs: number): void {
    if (this.#released) return
    const { parts, routed, decision } = this.#at
    // A caller that does not read, a prefill leg that is waited for, or a connection of ours that is lost is no fault of the worker.
    if (this.#paused || this.#held !== null || this.#call?.isWaiting === true) {
      this.#activeMs = nowMs
      return
    }
    if (routed.outputTokens > this.#reportedTokens) this.#reportOutput()
    const isFirst = this.#outputs === 0
    const limitMs = isFirst ? parts.options.firstOutputTimeoutMs : parts.options.outputTimeoutMs
    if (limitMs === 0 || nowMs - this.#activeMs <= limitMs) return
    const flag = isFirst ? '--first-output-timeout' : '--output-timeout'
    const message = `worker ${decision.workerId} sent nothing for ${Math.round((nowMs - this.#activeMs) / 1000)} s (${flag} ${limitMs / 1000})`
    this.#call?.fail({ class: 'DeadlineExceeded', reason: 'backend.response_timeout', message })
  }

  cancel(kind: CancelKind): void {
    if (this.#released) return
    if (kind === 'stop') this.#call?.stop()
    else this.#call?.kill()
    this.#release()
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#activeMs = this.#at.parts.clock.nowMs()
    this.#call?.resume()
  }

  #pause(): void {
    this.#paused = true
    this.#call?.pause()
  }

  #reportOutput(tokens?: readonly number[]): void {
    this.#reportedTokens = this.#at.routed.outputTokens
    this.#at.router.outputTokens(this.#at.bookingId, this.#at.routed.outputTokens, tokens)
  }

  #release(): void {
    if (this.#released) return
    this.#released = true
    this.#dispatch?.over()
    const { parts, owner, router, decision, bookingId } = this.#at
    if (this.#outputs > 0) this.#told()
    router.free(bookingId)
    owner.detach(parts.pool, decision.workerId, this)
  }

  #told(): void {
    const { parts, routed, decision, generate } = this.#at
    parts.observer.onServed?.({
      rank: decision, phase: phaseOf('decode', parts.pool), promptTokens: generate.tokens.length, firstOutputSeconds: (this.#firstOutputMs - this.#sentMs) / 1000,
      interOutputSeconds: this.#outputs < 2 ? null : (routed.lastOutputMs - this.#firstOutputMs) / 1000 / (this.#outputs - 1),
    })
  }
}
