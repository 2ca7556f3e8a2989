/**
 * The workers that can be routed to, from what discovery tells, and the router over them.
 *
 * Block size, Eagle mode and role come from the workers' cards; the router is made when the first worker that can be used is
 * there, and made anew only when no worker is left and the next ones differ.
 */
import type { WorkerDescription, WorkerId, WorkerRole } from '../model/worker.ts'
import { describeUnknownWorker, describeWorker, type ModelCard } from '../dynamo/cards/model-card.ts'
import type { KnownInstance } from '../dynamo/instances/instance-directory.ts'
import type { JsonObject, Log } from '../ports.ts'
import { isObject } from '../dynamo/wire/json.ts'
import type { Router } from '../router/contract.ts'
import type { RemoteOverlap } from '../router/remote-overlap.ts'

/** What the cards of a pool have in common. */
export interface PoolFacts {
  readonly blockSize: number
  readonly isEagle: boolean
  readonly role: WorkerRole
  readonly modelName: string
  /** `router_config` of the first card; null: it has none. */
  readonly routerConfig: JsonObject | null
  /** Where overlap is read from instead of an own index. */
  readonly remoteOverlap?: RemoteOverlap
}

export interface WorkerPoolOptions {
  /** `--router-block-size`; null: from the cards. */
  readonly blockSize: number | null
  /** Exclude workers whose card differs from `blockSize`, instead of using theirs. */
  readonly strictBlockSize: boolean
  /** How long a worker may take to publish its card before the log says that it is waited for. */
  readonly cardGraceMs: number
}

export interface WorkerPoolParts {
  readonly options: WorkerPoolOptions
  readonly log: Log
  createRouter(facts: PoolFacts): Router
  /** Called after a worker can be routed to, or its ranks changed. */
  onWorker(worker: WorkerDescription): void
  onWorkerGone(workerId: WorkerId): void
}

export class WorkerPool {
  readonly #parts: WorkerPoolParts
  readonly #cardless = new Map<WorkerId, { readonly sinceMs: number; warned: boolean }>()
  readonly #mismatched = new Map<WorkerId, number>()
  #facts: PoolFacts | null = null
  #router: Router | null = null

  constructor(parts: WorkerPoolParts) {
    this.#parts = parts
  }

  /** Null until the first worker that can be used. */
  get router(): Router | null {
    return this.#router
  }

  get facts(): PoolFacts | null {
    return this.#facts
  }

  /** Workers whose card names another block size than `--router-block-size` or the pool. */
  get mismatchedCount(): number {
    return this.#mismatched.size
  }

  /** Workers that cannot be used because neither a card nor an option tells their block size. */
  get unusableCount(): number {
    return this.#cardless.size
  }

  /** A worker appeared, or its card did, or the card changed. */
  upsert({ record, card, loraCards }: KnownInstance, nowMs: number): void {
    const { options } = this.#parts
    const workerId = record.instanceId
    const cardSize = card?.blockSize ?? null
    if (cardSize === null && options.blockSize === null) {
      if (!this.#cardless.has(workerId)) this.#cardless.set(workerId, { sinceMs: nowMs, warned: false })
      return
    }
    this.#cardless.delete(workerId)
    const blockSize = cardSize ?? (options.blockSize as number)
    if (!this.#sizeAccepted(workerId, blockSize, cardSize)) return
    this.#settle({ blockSize, isEagle: card?.isEagle ?? false, role: card?.role ?? 'aggregated', modelName: card?.displayName ?? 'unknown', routerConfig: routerConfigOf(card) }, card !== null)
    const described = card === null ? describeUnknownWorker(workerId) : describeWorker(card, loraNamesOf(loraCards.values()))
    const worker = record.deviceType === 'cpu' ? { ...described, isCpu: true } : described
    this.#router?.upsertWorker(worker)
    this.#parts.onWorker(worker)
  }

  remove(workerId: WorkerId): void {
    this.#cardless.delete(workerId)
    this.#mismatched.delete(workerId)
    if (this.#router?.worker(workerId) === undefined) return
    this.#router.removeWorker(workerId)
    this.#parts.onWorkerGone(workerId)
  }

  /** Says once of each worker that it is refused for want of a block size. */
  tick(nowMs: number): void {
    for (const [workerId, waiting] of this.#cardless) {
      if (waiting.warned || nowMs - waiting.sinceMs < this.#parts.options.cardGraceMs) continue
      waiting.warned = true
      this.#parts.log.warn({ worker_id: workerId.toString(), stage: 'discovery', reason: 'no-block-size' },
        'worker refused: it has no model card that tells its block size; set --router-block-size to use it')
    }
  }

  /** The workers' size counts; what was asked for is only a check on it. */
  #sizeAccepted(workerId: WorkerId, blockSize: number, cardSize: number | null): boolean {
    const { log, options } = this.#parts
    const known = this.#mismatched.get(workerId) === blockSize
    const others = this.#facts !== null && (this.#router?.workerCount ?? 0) > 0 && this.#facts.blockSize !== blockSize &&
      !(this.#router?.workerCount === 1 && this.#router.worker(workerId) !== undefined)
    const fields = { worker_id: workerId.toString(), stage: 'discovery', reason: 'block-size', worker_block_size: blockSize, router_block_size: options.blockSize }
    if (cardSize !== null && options.blockSize !== null && cardSize !== options.blockSize) {
      this.#mismatched.set(workerId, blockSize)
      if (options.strictBlockSize) {
        if (!known) log.error(fields, `worker excluded: its block size is ${cardSize}, --router-block-size is ${options.blockSize} and --strict-block-size is set`)
        return false
      }
      if (!known) log.warn(fields, `BLOCK SIZE MISMATCH: the worker's card says ${cardSize}, --router-block-size says ${options.blockSize}; using ${cardSize}. Set --router-block-size ${cardSize} or leave it out`)
    }
    if (others) {
      this.#mismatched.set(workerId, blockSize)
      if (!known) log.error({ ...fields, router_block_size: this.#facts?.blockSize ?? null }, `worker excluded: its block size is ${blockSize}, the pool's other workers use ${this.#facts?.blockSize}; give it an endpoint of its own`)
      return false
    }
    if (cardSize === null || options.blockSize === null || cardSize === options.blockSize) this.#mismatched.delete(workerId)
    return true
  }

  /** Makes the router when there is none, or when nobody uses it and the facts have changed. */
  #settle(facts: PoolFacts, fromCard: boolean): void {
    const old = this.#facts
    const inUse = this.#router !== null && this.#router.workerCount > 0
    const onlyGuessed = inUse && fromCard && old !== null && this.#cardlessOnly(old)
    if (old !== null && sameFacts(old, facts)) {
      if (fromCard) this.#facts = facts
      return
    }
    if (old !== null && inUse && !onlyGuessed) return
    const workers = onlyGuessed && this.#router !== null ? [...this.#router.workers] : []
    this.#facts = facts
    this.#router?.closeQueue()
    this.#router = this.#parts.createRouter(facts)
    for (const worker of workers) {
      this.#router.upsertWorker(worker)
      this.#parts.onWorker(worker)
    }
  }

  /** True when the present facts came from no card at all. */
  #cardlessOnly(facts: PoolFacts): boolean {
    return facts.modelName === 'unknown'
  }
}

/** The part of a router's ports that its pool brings along. */
export const remoteOf = ({ remoteOverlap }: PoolFacts): { readonly remoteOverlap?: RemoteOverlap } => (remoteOverlap === undefined ? {} : { remoteOverlap })

/** What a card says of the router over its workers. */
export function routerConfigOf(card: ModelCard | null): JsonObject | null {
  const own = card?.raw['router_config']
  return isObject(own) ? (own as JsonObject) : null
}

const sameFacts = (left: PoolFacts, right: PoolFacts): boolean =>
  left.blockSize === right.blockSize && left.isEagle === right.isEagle && left.role === right.role

const loraNamesOf = (cards: Iterable<ModelCard>): string[] => [...cards].flatMap(({ loraName }) => (loraName === null ? [] : [loraName]))
