/** Fixture kind `tiered_index`: raw engine batches into all tiers, answers of `/query`. Source: router-algorithm 3.6, 4, 5 and 16.2. */
import { decodeRawBatch } from '../engines/raw-kv-events.ts'
import { localBlockHashes } from '../hashing/block-hashes.ts'
import { createOverlapScores } from '../index/overlap-scores.ts'
import { createPrefixIndex } from '../index/prefix-index.ts'
import { RawEventNormaliser } from '../kv-events/raw-event-normaliser.ts'
import { difference } from './json-compare.ts'
import type { GoldenKind } from './kind.ts'

interface RankFields {
  readonly worker_id: number | bigint
  readonly dp_rank: number
}

interface BatchStep {
  readonly batch: RankFields & { readonly payload_hex: string }
}

interface QueryStep {
  readonly path: '/query'
  readonly request: { readonly token_ids: readonly number[]; readonly lora_name?: string | null; readonly cache_salt?: string | null }
  readonly response: unknown
}

interface TieredCase {
  readonly id: number
  readonly block_size: number
  readonly ranks: readonly RankFields[]
  readonly steps: readonly (BatchStep | QueryStep)[]
}

/** Tokens per tier of one worker, as in the answers of the services: largest over its ranks, tiers cumulative. */
interface InstanceOverlap {
  longest_matched: number
  gpu: number
  dp: Record<string, number>
  cpu: number
  disk: number
}

class TieredScript {
  readonly #index = createPrefixIndex()
  readonly #scores = createOverlapScores(0)
  readonly #blockSize: number
  readonly #ranks: RankFields[] = []
  /** One per listener: what it learns of groups and namespaces is its own. */
  readonly #normalisers: RawEventNormaliser[] = []

  constructor(item: TieredCase) {
    this.#blockSize = item.block_size
    for (const rank of item.ranks) this.#slotOf(rank)
  }

  #slotOf(rank: RankFields): number {
    const known = this.#ranks.findIndex((other) => `${other.worker_id}` === `${rank.worker_id}` && other.dp_rank === rank.dp_rank)
    if (known >= 0) return known
    this.#normalisers.push(new RawEventNormaliser({ workerId: BigInt(rank.worker_id), blockSize: this.#blockSize }))
    return this.#ranks.push(rank) - 1
  }

  /** What differs, or null. */
  run(step: BatchStep | QueryStep): string | null {
    if ('path' in step) return difference(step.response, this.#answer(step.request))
    const { batch } = step
    const outcome = decodeRawBatch(Buffer.from(batch.payload_hex, 'hex'))
    if (outcome.kind === 'refused') return null
    const normaliser = this.#normalisers[this.#slotOf(batch)]!
    for (const event of normaliser.normalise(outcome.batch, { eventId: 0n, defaultDpRank: batch.dp_rank })) {
      this.#index.apply(this.#slotOf({ worker_id: batch.worker_id, dp_rank: event.dpRank }), event.storageTier, event.data)
    }
    return null
  }

  #answer(request: QueryStep['request']): unknown {
    const hashes = localBlockHashes(Uint32Array.from(request.token_ids), {
      blockSize: this.#blockSize, loraName: request.lora_name, cacheNamespace: request.cache_salt,
    })
    this.#index.find(hashes, this.#scores)
    const scores: Record<string, Record<string, number>> = {}
    const instances: Record<string, InstanceOverlap> = {}
    this.#ranks.forEach(({ worker_id, dp_rank }, slot) => {
      const device = (this.#scores.device[slot] ?? 0) * this.#blockSize
      const host = device + (this.#scores.host[slot] ?? 0) * this.#blockSize
      const disk = host + (this.#scores.disk[slot] ?? 0) * this.#blockSize
      if (disk === 0) return
      if (device > 0) (scores[`${worker_id}`] ??= {})[dp_rank] = device
      const overlap = (instances[`${worker_id}`] ??= { longest_matched: 0, gpu: 0, dp: {}, cpu: 0, disk: 0 })
      overlap.dp[dp_rank] = device
      overlap.gpu = Math.max(overlap.gpu, device)
      overlap.cpu = Math.max(overlap.cpu, host)
      overlap.disk = Math.max(overlap.disk, disk)
      overlap.longest_matched = overlap.disk
    })
    return { scores, frequencies: [], instances }
  }
}

function failureOf(item: TieredCase): string | null {
  const script = new TieredScript(item)
  for (const [at, step] of item.steps.entries()) {
    const message = script.run(step)
    if (message !== null) return `step ${at}: ${message}`
  }
  return null
}

export const golden: GoldenKind = {
  name: 'tiered_index',
  *run(document) {
    for (const item of document['cases'] as readonly TieredCase[]) {
      const message = failureOf(item)
      yield { id: `${item.id}`, outcome: message === null ? { kind: 'passed' } : { kind: 'failed', message } }
    }
  },
}
