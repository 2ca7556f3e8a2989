/** What a service tells its replicas, as it sees it. The sockets are an adapter (replica-mesh.ts). */
import type { AffinityUpdate } from '../affinity/affinity-table.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { BookingListener } from '../router/bookings.ts'
import type { PartitionKey } from './partition-key.ts'

export interface Replication {
  /** This process, in what it tells. */
  readonly writerId: bigint
  /** Takes what concerns others of one partition. `rankOf`: where a booked request is. */
  listener(key: PartitionKey, blockSize: number, rankOf: (requestId: string) => WorkerRank | null): BookingListener
  tellBinding(key: PartitionKey, update: AffinityUpdate): void
}
