/**
 * One request on its way to a pool: sent to one of the pool's routers, relayed as it comes; before the first output a failure
 * is followed by another replica of that router and, where retries are on, by the faster pools.
 */
import { isRetryableElsewhere, type Failure } from '../model/failure.ts'
import type { CallHandle, CancelKind, IncomingRequest, InstanceRecord, ResponseListener, ResponseWriter } from '../ports.ts'
import type { GenerateRequest } from '../dynamo/wire/generate-request.ts'
import { editOutput, namedWorker, peekOutput, transcodeFrame } from '../dynamo/wire/output-frame.ts'
import { relayedFailure } from '../standalone/relay-failure.ts'
import { innerFailure } from './inner-failure.ts'
import { missingRouter, type PoolRouters } from './pool-routers.ts'
import type { PrefillNote } from './prefill-notes.ts'
import type { StageKind } from './stage.ts'

export interface ForwardingOptions {
  /** Further replicas of one pool's router that are tried. */
  readonly retryLimit: number
  /** 0 = off. */
  readonly firstOutputTimeoutMs: number
  /** 0 = off. */
  readonly outputTimeoutMs: number
  readonly inhibitedMs: number
}

/** What surrounds the request. */
export interface Forwarding {
  readonly kind: StageKind
  readonly options: ForwardingOptions
  /** The pool that was chosen, then those that are tried after it. */
  readonly pools: readonly PoolRouters[]
  /** Who computed the prompt, for the decode stage. */
  readonly prefill: PrefillNote | null
  nowMs(): number
  call(instance: InstanceRecord, body: readonly Uint8Array[], headers: Readonly<Record<string, string>>, listener: ResponseListener): CallHandle
  /** The body for one of the pool's routers. */
  bodyFor(instance: InstanceRecord): readonly Uint8Array[]
  onSent(pool: PoolRouters): void
  onRetry(from: PoolRouters, to: PoolRouters, failure: Failure): void
  /** The worker that the pool's router chose. */
  onWorker(note: PrefillNote): void
  /** Once, when the answer is over; null: it ended well. */
  onOver(failure: Failure | null): void
}

/** Headers that travel on. */
const forwardedHeaders = ['traceparent', 'tracestate', 'x-request-id'] as const

export class ForwardedRequest {
  readonly #at: Forwarding
  readonly request: IncomingRequest
  readonly generate: GenerateRequest
  readonly #response: ResponseWriter
  readonly #failed = new Set<bigint>()
  readonly #headers: Record<string, string> = {}
  #pool = 0
  #replicas = 0
  #instance: InstanceRecord | null = null
  #call: CallHandle | null = null
  /** Who is listened to: a call that was given up still ends, and is no news. */
  #listener: ResponseListener | null = null
  #activeMs = 0
  #paused = false
  #relayed = false
  #over = false

  constructor(at: Forwarding, request: IncomingRequest, generate: GenerateRequest, response: ResponseWriter) {
    this.#at = at
    this.request = request
    this.generate = generate
    this.#response = response
    for (const name of forwardedHeaders) {
      const value = request.headers[name]
      if (value !== undefined) this.#headers[name] = value
    }
  }

  start(): void {
    this.#response.begin()
    this.#response.onCancel = (kind) => this.#cancelled(kind)
    this.#response.onDrain = () => this.#resume()
    if (!this.#over) this.#send(null)
  }

  get #current(): PoolRouters {
    return this.#at.pools[this.#pool] as PoolRouters
  }

  /** `after`: the failure before, answered when nobody else is left in the last pool. */
  #send(after: Failure | null): void {
    const pool = this.#current
    const known = pool.next(this.#failed)
    if (known === null) {
      this.#nextPool(after ?? { class: 'Unavailable', reason: 'backend.unavailable', message: missingRouter(pool.namespace) })
      return
    }
    this.#instance = known.record
    this.#activeMs = this.#at.nowMs()
    this.#at.onSent(pool)
    const listener: ResponseListener = {
      onFrame: (frame, body) => { if (this.#listener === listener) this.#onFrame(frame, body) },
      onEnd: (finalFrame) => { if (this.#listener === listener) this.#onEnd(finalFrame) },
      onFail: (failure) => { if (this.#listener === listener) this.#attemptFailed(innerFailure(failure)) },
    }
    this.#listener = listener
    this.#call = this.#at.call(known.record, this.#at.bodyFor(known.record), this.#headers, listener)
  }

  #nextPool(failure: Failure): void {
    const from = this.#current
    const next = this.#at.pools[this.#pool + 1]
    // The client's own mistake is one in every pool.
    if (next === undefined || failure.class === 'InvalidRequest' || failure.class === 'Cancelled') {
      this.#fail(failure)
      return
    }
    this.#pool += 1
    this.#replicas = 0
    this.#at.onRetry(from, next, failure)
    this.#send(failure)
  }

  #onFrame(frame: Uint8Array, body: Uint8Array): void {
    const instance = this.#instance
    if (this.#over || instance === null) return
    this.#activeMs = this.#at.nowMs()
    const peek = peekOutput(body, instance.codec)
    if (peek.failure !== null) {
      this.#call?.kill()
      this.#attemptFailed(innerFailure(peek.failure))
      return
    }
    const isFirst = peek.hasData && !this.#relayed
    if (isFirst) {
      this.#relayed = true
      const worker = namedWorker(body, instance.codec)
      if (worker !== null) this.#at.onWorker(worker)
    }
    const { prefill } = this.#at
    const sameCodec = this.request.codec === instance.codec
    let more: boolean
    if (isFirst && prefill !== null) more = this.#response.writeItem(transcodeFrame(editOutput(body, instance.codec, { worker: null, timing: null, prefill }), instance.codec, this.request.codec))
    else more = sameCodec ? this.#response.writeFrame(frame) : this.#response.writeItem(transcodeFrame(body, instance.codec, this.request.codec))
    if (more) return
    this.#paused = true
    this.#call?.pause()
  }

  #onEnd(finalFrame: Uint8Array): void {
    if (this.#over) return
    this.#over = true
    if (this.request.codec === this.#instance?.codec) this.#response.end(finalFrame)
    else this.#response.end()
    this.#at.onOver(null)
  }

  #attemptFailed(failure: Failure): void {
    if (this.#over) return
    const instance = this.#instance
    this.#call = null
    this.#listener = null
    this.#instance = null
    this.#paused = false
    // Only for what lies between this router and that one: a worker's death is no fault of its router.
    if (instance !== null) {
      this.#failed.add(instance.instanceId)
      if (failure.reason.startsWith('transport.') && failure.linkLost !== true) this.#current.setAside(instance.instanceId, this.#at.options.inhibitedMs)
    }
    if (this.#relayed) {
      this.#fail(failure)
      return
    }
    if (isRetryableElsewhere(failure) && this.#replicas < this.#at.options.retryLimit) {
      this.#replicas += 1
      this.#send(failure)
      return
    }
    this.#nextPool(failure)
  }

  #fail(failure: Failure): void {
    if (this.#over) return
    this.#over = true
    this.#response.fail(relayedFailure(failure))
    this.#at.onOver(failure)
  }

  #cancelled(kind: CancelKind): void {
    if (this.#over) return
    if (kind === 'stop') {
      // What the worker still sends is delivered.
      this.#call?.stop()
      return
    }
    this.#over = true
    this.#call?.kill()
    this.#response.abort()
    this.#at.onOver({ class: 'Cancelled', reason: 'request.cancelled', message: 'the caller ended the request' })
  }

  #resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#activeMs = this.#at.nowMs()
    this.#call?.resume()
  }

  /** Checks the limits of silence. */
  tick(nowMs: number): void {
    if (this.#over || this.#paused) return
    const { firstOutputTimeoutMs, outputTimeoutMs } = this.#at.options
    const limitMs = this.#relayed ? outputTimeoutMs : firstOutputTimeoutMs
    if (limitMs === 0 || nowMs - this.#activeMs <= limitMs) return
    const flag = this.#relayed ? '--output-timeout' : '--first-output-timeout'
    const message = `the router of pool ${this.#current.namespace} sent nothing for ${Math.round((nowMs - this.#activeMs) / 1000)} s (${flag} ${limitMs / 1000})`
    this.#call?.fail({ class: 'DeadlineExceeded', reason: 'backend.response_timeout', message })
  }

  /** Ends the answer abruptly; for the end of the drain time. */
  abort(): void {
    if (this.#over) return
    this.#over = true
    this.#call?.kill()
    this.#response.abort()
    this.#at.onOver({ class: 'Cancelled', reason: 'request.cancelled', message: 'the router ended' })
  }
}
