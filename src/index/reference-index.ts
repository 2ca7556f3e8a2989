/** A prefix index of plain objects: slow and obviously right, the oracle of the property tests. Not for production. */
import { hashAt, hashCount, hashListOf, hashesToBigints } from '../model/hash-list.ts'
import type { HashList } from '../model/hash-list.ts'
import type { ApplyStatus, KvEventData, StorageTier, StoredBlocks } from '../model/kv-event.ts'
import type { RankSlot } from '../model/worker.ts'
import type { ApproximatePrefixIndex, OverlapScores, PrefixIndexOptions } from './contract.ts'
import { growOverlapScores } from './overlap-scores.ts'
import { ReferenceTree } from './reference-tree.ts'

type LowerTier = Exclude<StorageTier, 'device'>
const lowerTiers: readonly LowerTier[] = ['host_pinned', 'disk', 'external']

/** What one rank holds in one lower tier: edge `parent|local` to block, and back. */
interface RankChains {
  readonly childByEdge: Map<string, bigint>
  readonly edgeByChild: Map<bigint, { readonly key: string; readonly parent: bigint | null; readonly local: bigint }>
}

const edgeKey = (parent: bigint | null, local: bigint): string => `${parent}|${local}`

export class ReferenceIndex implements ApproximatePrefixIndex {
  readonly #tree = new ReferenceTree()
  readonly #chains = new Map<string, RankChains>()
  /** `slot|hash` to the bucket in which it expires. */
  readonly #expiries = new Map<string, number>()
  readonly #entriesMax: number
  readonly #ttlMs: number
  #slotCount = 0
  capacityRefusals = 0
  /** It knows no byte budget. */
  readonly evictedCount = 0

  constructor(options: PrefixIndexOptions = {}) {
    this.#entriesMax = options.entriesMax ?? 2 ** 26
    this.#ttlMs = options.ttlMs ?? 120_000
  }

  get entryCount(): number {
    let count = 0
    for (let slot = 0; slot < this.#slotCount; slot += 1) {
      for (const tier of ['device', ...lowerTiers] as const) count += this.blockCount(slot, tier)
    }
    return count
  }

  get bytesReserved(): number {
    return 0
  }

  get recordedCount(): number {
    return this.#expiries.size
  }

  apply(slot: RankSlot, tier: StorageTier, data: KvEventData): ApplyStatus {
    this.#slotCount = Math.max(this.#slotCount, slot + 1)
    if (data.kind === 'cleared') {
      this.dropRank(slot)
      return 'ok'
    }
    if (data.kind === 'stored') {
      if (hashCount(data.blockHashes) !== hashCount(data.tokensHashes)) return 'invalid_block'
      if (this.entryCount + hashCount(data.blockHashes) > this.#entriesMax) {
        this.capacityRefusals += 1
        return 'capacity_exhausted'
      }
      const blocks = hashesToBigints(data.blockHashes).map((hash, i) => ({ hash, local: hashAt(data.tokensHashes, i) }))
      return tier === 'device' ? this.#tree.stored(slot, data.parentHash, blocks) : this.#storedBelow(slot, tier, data.parentHash, blocks)
    }
    const hashes = hashesToBigints(data.blockHashes)
    if (tier === 'device') return this.#tree.removed(slot, hashes)
    const chains = this.#chainsOf(slot, tier)
    for (const hash of hashes) {
      const edge = chains.edgeByChild.get(hash)
      if (edge === undefined) continue
      chains.edgeByChild.delete(hash)
      chains.childByEdge.delete(edge.key)
    }
    return 'ok'
  }

  #chainsOf(slot: number, tier: LowerTier): RankChains {
    const key = `${slot}|${tier}`
    let chains = this.#chains.get(key)
    if (chains === undefined) this.#chains.set(key, (chains = { childByEdge: new Map(), edgeByChild: new Map() }))
    return chains
  }

  #storedBelow(slot: number, tier: LowerTier, parentHash: bigint | null, blocks: readonly { readonly local: bigint; readonly hash: bigint }[]): ApplyStatus {
    const { childByEdge, edgeByChild } = this.#chainsOf(slot, tier)
    let parent = parentHash
    for (const { local, hash } of blocks) {
      const key = edgeKey(parent, local)
      const known = edgeByChild.get(hash)
      if (known !== undefined && known.key !== key) return 'invalid_block'
      const child = childByEdge.get(key)
      if (child !== undefined && child !== hash) return 'invalid_block'
      edgeByChild.set(hash, { key, parent, local })
      childByEdge.set(key, hash)
      parent = hash
    }
    return 'ok'
  }

  prefixNames(slot: RankSlot, localHashes: HashList): HashList {
    const locals = hashesToBigints(localHashes)
    const { scores, path } = this.#tree.find(locals)
    const names = path.slice(0, scores.get(slot) ?? 0).map((block) => this.#tree.nameOf(slot, block))
    const { childByEdge } = this.#chainsOf(slot, 'host_pinned')
    for (;;) {
      const local = locals[names.length]
      const child: bigint | undefined = local === undefined ? undefined : childByEdge.get(edgeKey(names.at(-1) ?? null, local))
      if (child === undefined) return hashListOf(names)
      names.push(child)
    }
  }

  find(localHashes: HashList, scores: OverlapScores): void {
    growOverlapScores(scores, this.#slotCount)
    scores.slotCount = this.#slotCount
    for (const array of [scores.device, scores.host, scores.disk]) array.fill(0)
    const locals = hashesToBigints(localHashes)
    const { scores: device, path } = this.#tree.find(locals)
    for (let slot = 0; slot < this.#slotCount; slot += 1) {
      const depth = device.get(slot) ?? 0
      let position = depth
      let last = depth === 0 ? null : this.#tree.nameOf(slot, path[depth - 1]!)
      const hits = { host_pinned: 0, disk: 0, external: 0 }
      for (const tier of lowerTiers) {
        const { childByEdge } = this.#chainsOf(slot, tier)
        for (;;) {
          const local = locals[position]
          const child: bigint | undefined = local === undefined ? undefined : childByEdge.get(edgeKey(last, local))
          if (child === undefined) break
          last = child
          position += 1
          hits[tier] += 1
        }
      }
      scores.device[slot] = depth
      scores.host[slot] = hits.host_pinned
      scores.disk[slot] = hits.disk + hits.external
    }
  }

  /** Device blocks per slot, ending early when one rank is left, as the original's test interface can. */
  findDevice(locals: readonly bigint[], earlyExit: boolean): Map<number, number> {
    return this.#tree.find(locals, earlyExit).scores
  }

  dropRank(slot: RankSlot): void {
    this.#tree.drop(slot)
    for (const tier of lowerTiers) this.#chains.delete(`${slot}|${tier}`)
    for (const key of this.#expiries.keys()) if (key.startsWith(`${slot}|`)) this.#expiries.delete(key)
  }

  blockCount(slot: RankSlot, tier: StorageTier): number {
    return tier === 'device' ? this.#tree.coveredCount(slot) : this.#chainsOf(slot, tier).edgeByChild.size
  }

  dump(slot: RankSlot): { readonly tier: StorageTier; readonly data: StoredBlocks }[] {
    const events: { tier: StorageTier; data: StoredBlocks }[] = []
    for (const { parent, blocks } of this.#tree.runs(slot)) {
      const parentHash = parent === null ? null : this.#tree.nameOf(slot, parent)
      events.push({ tier: 'device', data: storedOf(parentHash, blocks.map((block) => ({ local: block.local, hash: this.#tree.nameOf(slot, block) }))) })
    }
    for (const tier of lowerTiers) {
      for (const [hash, { parent, local }] of this.#chainsOf(slot, tier).edgeByChild) {
        events.push({ tier, data: storedOf(parent, [{ local, hash }]) })
      }
    }
    return events
  }

  record(slot: RankSlot, localHashes: HashList, sequenceHashes: HashList, nowMs: number): ApplyStatus {
    const status = this.apply(slot, 'device', {
      kind: 'stored', parentHash: null, startPosition: null, blockHashes: sequenceHashes, tokensHashes: localHashes, mmInfos: null,
    })
    if (status !== 'ok') return status
    for (const hash of hashesToBigints(sequenceHashes)) this.#expireAt(`${slot}|${hash}`, Math.ceil((nowMs + this.#ttlMs) / 100))
    return status
  }

  #expireAt(key: string, bucket: number): void {
    this.#expiries.delete(key)
    this.#expiries.set(key, bucket)
  }

  recordedEnds(slot: RankSlot, lists: readonly HashList[]): Float64Array[] {
    return lists.map((list) => Float64Array.from(hashesToBigints(list), (hash) => 100 * (this.#expiries.get(`${slot}|${hash}`) ?? 0)))
  }

  prune(count: number): number {
    const entries = [...this.#expiries].map(([key, bucket], order) => ({ key, bucket, order }))
    const leaving = entries.sort((a, b) => a.bucket - b.bucket || b.order - a.order).slice(0, Math.max(0, entries.length - count))
    for (const { key } of leaving) {
      const [slot, hash] = key.split('|') as [string, string]
      this.#expiries.delete(key)
      this.#tree.removed(Number(slot), [BigInt(hash)])
    }
    return leaving.length
  }

  expire(nowMs: number): number {
    let count = 0
    for (const [key, bucket] of this.#expiries) {
      if (bucket * 100 > nowMs) continue
      const [slot, hash] = key.split('|') as [string, string]
      this.#expiries.delete(key)
      this.#tree.removed(Number(slot), [BigInt(hash)])
      count += 1
    }
    return count
  }
}

function storedOf(parentHash: bigint | null, blocks: readonly { readonly local: bigint; readonly hash: bigint }[]): StoredBlocks {
  return {
    kind: 'stored', parentHash, startPosition: null, mmInfos: null,
    blockHashes: hashListOf(blocks.map((block) => block.hash)),
    tokensHashes: hashListOf(blocks.map((block) => block.local)),
  }
}
