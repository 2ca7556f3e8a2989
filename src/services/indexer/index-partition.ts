/** The prefix index of one model and routing group, by worker and rank. */
import { createOverlapScores } from '../../index/overlap-scores.ts'
import { createPrefixIndex } from '../../index/prefix-index.ts'
import { growOverlapScores } from '../../index/overlap-scores.ts'
import type { ApplyStatus, RouterEvent } from '../../model/kv-event.ts'
import type { HashList } from '../../model/hash-list.ts'
import type { WorkerRank } from '../../model/worker.ts'

/** Most ranks of a partition; events of a further one are refused. */
const ranksMax = 262_144

/** Tokens per tier of one worker: largest over its ranks, tiers cumulative. */
interface InstanceOverlap {
  longest_matched: number
  gpu: number
  dp: Record<string, number>
  cpu: number
  disk: number
}

export class IndexPartition {
  readonly blockSize: number
  readonly #index = createPrefixIndex()
  readonly #scores = createOverlapScores(16)
  readonly #ranks: (WorkerRank | null)[] = []
  readonly #slots = new Map<bigint, Map<number, number>>()
  readonly #free: number[] = []

  constructor(blockSize: number) {
    this.blockSize = blockSize
    growOverlapScores(this.#scores, 16)
  }

  get entryCount(): number {
    return this.#index.entryCount
  }

  get bytes(): number {
    return this.#index.bytesReserved
  }

  apply({ workerId, dpRank, storageTier, data }: RouterEvent): ApplyStatus {
    const slot = this.#slotOf(workerId, dpRank)
    if (slot < 0) return 'capacity_exhausted'
    if (data.kind !== 'cleared') return this.#index.apply(slot, storageTier, data)
    this.#index.dropRank(slot)
    return 'ok'
  }

  /** Forgets all ranks of a worker. */
  dropWorker(workerId: bigint): void {
    for (const dpRank of this.#slots.get(workerId)?.keys() ?? []) this.dropRank({ workerId, dpRank })
  }

  dropRank({ workerId, dpRank }: WorkerRank): void {
    const ranks = this.#slots.get(workerId)
    const slot = ranks?.get(dpRank)
    if (ranks === undefined || slot === undefined) return
    this.#index.dropRank(slot)
    ranks.delete(dpRank)
    if (ranks.size === 0) this.#slots.delete(workerId)
    this.#ranks[slot] = null
    this.#free.push(slot)
  }

  #slotOf(workerId: bigint, dpRank: number): number {
    const ranks = this.#slots.get(workerId) ?? new Map<number, number>()
    const known = ranks.get(dpRank)
    if (known !== undefined) return known
    const slot = this.#free.pop() ?? this.#ranks.length
    if (slot >= ranksMax) return -1
    this.#ranks[slot] = { workerId, dpRank }
    this.#slots.set(workerId, ranks.set(dpRank, slot))
    return slot
  }

  /** What is held of a prompt: `scores` by rank with a hit on the device, `instances` every worker with any hit; in tokens. */
  query(local: HashList): unknown {
    this.#index.find(local, this.#scores)
    const { device, host, disk, slotCount } = this.#scores
    const scores: Record<string, Record<string, number>> = {}
    const instances: Record<string, InstanceOverlap> = {}
    for (let slot = 0; slot < Math.min(slotCount, device.length, this.#ranks.length); slot++) {
      const rank = this.#ranks[slot]
      const onDevice = device[slot]! * this.blockSize
      const onHost = onDevice + host[slot]! * this.blockSize
      const onDisk = onHost + disk[slot]! * this.blockSize
      if (onDisk === 0 || rank === null || rank === undefined) continue
      const name = `${rank.workerId}`
      if (onDevice > 0) (scores[name] ??= {})[rank.dpRank] = onDevice
      const overlap = (instances[name] ??= { longest_matched: 0, gpu: 0, dp: {}, cpu: 0, disk: 0 })
      overlap.dp[rank.dpRank] = onDevice
      overlap.gpu = Math.max(overlap.gpu, onDevice)
      overlap.cpu = Math.max(overlap.cpu, onHost)
      overlap.disk = Math.max(overlap.disk, onDisk)
      overlap.longest_matched = overlap.disk
    }
    return { scores, frequencies: [], instances }
  }

  /** Everything that is known, as events that would make it. */
  *dump(): Iterable<RouterEvent> {
    let eventId = 0n
    for (const [slot, rank] of this.#ranks.entries()) {
      if (rank === null) continue
      for (const { tier, data } of this.#index.dump(slot)) {
        yield { ...rank, storageTier: tier, residencyDomain: 'worker', eventId, data }
        eventId += 1n
      }
    }
  }
}
