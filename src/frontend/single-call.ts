/** Requests with one answer and no tokens to route by (embeddings): the worker with the fewest of them, another one when it cannot be reached. */
import { FailureError, isRetryableElsewhere, type Failure } from '../model/failure.ts'
import type { WorkerId } from '../model/worker.ts'
import { encodeBody, type WireValue } from '../dynamo/wire/body.ts'
import { decodeItem, readAnnotated } from '../dynamo/wire/items.ts'
import type { ModelCall } from '../openai/catalog.ts'
import type { CallHandle, Clock, InstanceRecord, JsonObject, Random, RequestPlaneClient } from '../ports.ts'
import type { LivePool } from './live-pool.ts'

export interface SingleCallsOptions {
  readonly retryLimit: number
  /** How long a failed instance is not chosen; 0 = not at all. */
  readonly inhibitedMs: number
  /** 0 = off. From sending to the answer. */
  readonly answerTimeoutMs: number
  /** Requests at once; more are refused. */
  readonly activeRequestsMax: number
}

export interface SingleCallsParts {
  readonly client: RequestPlaneClient
  readonly clock: Clock
  readonly random: Random
  readonly options: SingleCallsOptions
}

export class SingleCalls {
  readonly #parts: SingleCallsParts
  readonly #openByWorker = new Map<WorkerId, number>()
  #open = 0

  constructor(parts: SingleCallsParts) {
    this.#parts = parts
  }

  /** The first value of the answer. Errors: `FailureError`. */
  async ask(pools: readonly LivePool[], request: JsonObject, call: ModelCall): Promise<WireValue> {
    const { options } = this.#parts
    if (this.#open >= options.activeRequestsMax) throw new FailureError({ class: 'CapacityExhausted', reason: 'capacity.exhausted', message: `${this.#open} such requests are open, the limit; try again later` })
    const tried = new Set<WorkerId>()
    this.#open += 1
    try {
      for (;;) {
        const chosen = this.#choose(pools, tried)
        try {
          return await this.#once(chosen.instance, chosen.workerId, request, call)
        } catch (error) {
          if (!(error instanceof FailureError) || call.signal.aborted || !isRetryableElsewhere(error.failure)) throw error
          if (options.inhibitedMs > 0) chosen.pool.routed.setAside(chosen.workerId, options.inhibitedMs, error.failure)
          tried.add(chosen.workerId)
          if (tried.size > options.retryLimit) throw error
        }
      }
    } finally {
      this.#open -= 1
    }
  }

  #choose(pools: readonly LivePool[], tried: ReadonlySet<WorkerId>): { readonly pool: LivePool; readonly workerId: WorkerId; readonly instance: InstanceRecord } {
    const all = pools.flatMap((pool) => [...(pool.routed.router?.workers ?? [])].flatMap(({ workerId }) => {
      const instance = pool.routed.lookup(workerId)
      return instance === undefined ? [] : [{ pool, workerId, instance, rank: (tried.has(workerId) ? 2 : 0) + (pool.routed.setAsideIds().has(workerId) ? 1 : 0), open: this.#openByWorker.get(workerId) ?? 0 }]
    }))
    const best = all.reduce<typeof all>((found, each) => {
      const [first] = found
      if (first === undefined || each.rank < first.rank || (each.rank === first.rank && each.open < first.open)) return [each]
      return each.rank === first.rank && each.open === first.open ? [...found, each] : found
    }, [])
    const chosen = best[Math.floor(this.#parts.random.float() * best.length)]
    if (chosen === undefined) throw new FailureError({ class: 'Unavailable', reason: 'backend.unavailable', message: 'no worker of the model is alive; start one, or retry shortly' })
    return chosen
  }

  async #once(instance: InstanceRecord, workerId: WorkerId, request: JsonObject, call: ModelCall): Promise<WireValue> {
    this.#openByWorker.set(workerId, (this.#openByWorker.get(workerId) ?? 0) + 1)
    try {
      return await this.#send(instance, request, call)
    } finally {
      const left = (this.#openByWorker.get(workerId) ?? 1) - 1
      if (left > 0) this.#openByWorker.set(workerId, left)
      else this.#openByWorker.delete(workerId)
    }
  }

  #send(instance: InstanceRecord, request: JsonObject, call: ModelCall): Promise<WireValue> {
    const { client, clock, options } = this.#parts
    return new Promise((resolve, reject) => {
      let handle: CallHandle | undefined
      const leave = (): void => handle?.kill()
      const timer = options.answerTimeoutMs === 0 ? null : clock.setTimer(options.answerTimeoutMs, () => {
        handle?.fail({ class: 'DeadlineExceeded', reason: 'backend.response_timeout', message: `the worker gave no answer within ${options.answerTimeoutMs / 1000} s` })
      })
      const settle = (finish: () => void): void => {
        timer?.cancel()
        call.signal.removeEventListener('abort', leave)
        finish()
      }
      const fail = (failure: Failure): void => settle(() => reject(new FailureError(failure)))
      handle = client.call(instance, { id: call.id, headers: call.headers, metadata: call.metadata, codec: instance.codec, body: [encodeBody(request, instance.codec)] }, {
        onFrame: (_frame, body) => {
          try {
            const { data, failure } = readAnnotated(decodeItem(body, instance.codec).data ?? {})
            if (failure !== null) fail(failure)
            else if (data !== undefined) settle(() => resolve(data))
          } catch {
            fail({ class: 'BackendProtocol', reason: 'backend.protocol', message: 'the worker sent an answer that cannot be read' })
          }
        },
        onEnd: () => fail({ class: 'BackendProtocol', reason: 'backend.protocol', message: 'the worker ended the request without an answer' }),
        onFail: (failure) => fail(failure),
      })
      call.signal.addEventListener('abort', leave, { once: true })
      if (call.signal.aborted) leave()
    })
  }
}
