/**
 * The `generate` endpoint: choose a worker, book, send, relay, release; retry while nothing was relayed. With a prefill pool, the
 * prompt is computed there first and handed over.
 *
 * Frames pass as they came. Only the first output gets `routing_data.worker_id` and the one with a finish reason
 * `routing_data.timing`, as Dynamo's callers expect.
 */
import type { Failure } from '../model/failure.ts'
import type { WorkerId } from '../model/worker.ts'
import type { ConditionalDisagg } from '../disagg/conditional.ts'
import type { PrefillErrorPolicy } from '../disagg/fall-back.ts'
import type { Clock, IncomingRequest, Log, Random, RequestPlaneClient, ResponseWriter } from '../ports.ts'
import type { RequestObserver } from '../model/request-observer.ts'
import type { RoutedPool } from './routed-pool.ts'
import { RoutedRequest } from './routed-request.ts'

export interface RoutedGenerateOptions {
  readonly retryLimit: number
  /** 0 = off. From sending a request to its first output. */
  readonly firstOutputTimeoutMs: number
  /** 0 = off. Between two outputs. */
  readonly outputTimeoutMs: number
  /** How long a failed instance is not chosen; 0 = not at all. */
  readonly inhibitedMs: number
  readonly activeRequestsMax: number
  /** How often a request whose worker is lost in the middle goes on elsewhere. */
  readonly migrationLimit: number
  /** Prompt and answer together beyond which a request does not go on elsewhere, and its tokens are not kept; null: no bound. */
  readonly migrationLengthMax: number | null
  readonly onPrefillError: PrefillErrorPolicy
  /** Count the prompt's blocks on the decode worker as shared with other requests. */
  readonly decodeKvReuse: boolean
  /** When a request skips the prefill workers; null: never. */
  readonly conditional: ConditionalDisagg | null
  /** Two stages are this router's business, so a caller's own mark of a skipped prefill stage is taken away. */
  readonly decidesStages: boolean
}

export interface RoutedGenerateParts {
  /** Workers that answer. */
  readonly pool: RoutedPool
  /** Workers that compute prompts first; null while there are none. */
  prefillPool(): RoutedPool | null
  /** True when decode workers are known to take hand-overs by bootstrap and cannot compute a prompt; left out: cards tell. */
  needsBootstrap?(): boolean
  /** A prefill worker handed over in this form. */
  onHandOver?(kind: 'params' | 'bootstrap'): void
  readonly client: RequestPlaneClient
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly observer: RequestObserver
  readonly options: RoutedGenerateOptions
}

/** How the prompt was computed, known before the first output. */
export interface RouteNote {
  /** `none`: no prefill stage. `remote`: handed over. `bypass`: skipped. `fallback:<reason>`: the decode worker computes it. */
  readonly prefill: string
  /** Prompt tokens that the prefill worker took from its cache, when it says so. */
  readonly prefillCachedTokens: number | null
}

/** One try of one stage on one worker. */
export interface Leg {
  /** The worker's record left discovery. */
  instanceGone(): void
}

export class RoutedGenerate {
  readonly #parts: RoutedGenerateParts
  readonly #active = new Set<RoutedRequest>()
  readonly #legs = new Map<RoutedPool, Map<WorkerId, Set<Leg>>>()
  readonly #bookings = new Set<string>()
  #bookingSuffix = 0
  onIdle: (() => void) | null = null

  constructor(parts: RoutedGenerateParts) {
    this.#parts = parts
  }

  /** Requests whose answer has not ended, and prefills whose staged blocks are still to be released. */
  get activeCount(): number {
    return this.#active.size
  }

  /** Takes one request; everything that goes wrong is answered through `response`. `onRouted` is called once, before the first output. */
  handle(request: IncomingRequest, response: ResponseWriter, onRouted?: (note: RouteNote) => void): void {
    const { options } = this.#parts
    if (this.#active.size >= options.activeRequestsMax) {
      const message = `the router carries ${this.#active.size} requests, its limit; try again later, or raise --active-requests-max`
      answerFailure(response, { class: 'CapacityExhausted', reason: 'capacity.exhausted', message })
      return
    }
    const routed = new RoutedRequest(this.#parts, this, request, response, onRouted ?? null)
    this.#active.add(routed)
    routed.start()
  }

  /** An instance has left discovery: attempts there that have no output yet are failed, established streams go on. */
  instanceGone(pool: RoutedPool, workerId: WorkerId): void {
    for (const leg of this.#legs.get(pool)?.get(workerId) ?? []) leg.instanceGone()
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

  attach(pool: RoutedPool, workerId: WorkerId, leg: Leg): void {
    let workers = this.#legs.get(pool)
    if (workers === undefined) this.#legs.set(pool, (workers = new Map()))
    const legs = workers.get(workerId)
    if (legs === undefined) workers.set(workerId, new Set([leg]))
    else legs.add(leg)
  }

  detach(pool: RoutedPool, workerId: WorkerId, leg: Leg): void {
    const workers = this.#legs.get(pool)
    const legs = workers?.get(workerId)
    legs?.delete(leg)
    if (legs?.size === 0) workers?.delete(workerId)
    if (workers?.size === 0) this.#legs.delete(pool)
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
