/** Workers of one model and routing group, with the router that chooses among them. */
import { AffinityTable } from '../../affinity/affinity-table.ts'
import type { Clock, Random } from '../../ports.ts'
import type { RouterListener, RouterSettings } from '../../router/contract.ts'
import { KvRouter } from '../../router/kv-router.ts'
import type { PartitionKey } from '../partition-key.ts'
import type { Replication } from '../replication.ts'
import { PartitionHasher } from './prompt.ts'

export interface PartitionParts {
  readonly clock: Clock
  readonly random: Random
  readonly listener: RouterListener
  /** Null: sessions are not bound. */
  readonly affinityTtlMs: number | null
  /** Null: no replicas are told. */
  readonly replication: Replication | null
}

export class Partition {
  readonly key: PartitionKey
  readonly router: KvRouter
  readonly hasher: PartitionHasher
  /** Null: sessions are not bound. */
  readonly affinity: AffinityTable | null

  constructor(key: PartitionKey, settings: RouterSettings, { clock, random, listener, affinityTtlMs, replication }: PartitionParts) {
    this.key = key
    this.router = new KvRouter(settings, { clock, random, listener })
    this.hasher = new PartitionHasher(settings, key.model, random)
    if (replication !== null) this.router.bookings.listener = replication.listener(key, settings.blockSize, (id) => this.router.bookings.rankOf(id))
    this.affinity = affinityTtlMs === null ? null : new AffinityTable({
      ttlMs: affinityTtlMs, writerId: replication?.writerId ?? 0n,
      ...(replication === null ? {} : { publish: (update) => replication.tellBinding(key, update) }),
    })
  }

  get blockSize(): number {
    return this.router.settings.blockSize
  }

  get isEagle(): boolean {
    return this.router.settings.isEagle
  }

  /** Whether blocks are assumed from what is routed, be it for all ranks or until their event comes. */
  get assumesBlocks(): boolean {
    const { useKvEvents, predictedTtlSeconds } = this.router.settings
    return !useKvEvents || predictedTtlSeconds !== null
  }

  /** Runs `action` without telling replicas: what they said themselves. */
  quietly(action: () => void): void {
    const { bookings } = this.router
    const { listener } = bookings
    bookings.listener = null
    try {
      action()
    } finally {
      bookings.listener = listener
    }
  }
}
