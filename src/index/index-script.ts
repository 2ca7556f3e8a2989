/** Scripts of index operations, well-formed and hostile, and their execution: what the property tests draw at random. */
import { hashListOf } from '../model/hash-list.ts'
import type { ApplyStatus, KvEventData, StorageTier } from '../model/kv-event.ts'
import type { ApproximatePrefixIndex } from './contract.ts'
import { createOverlapScores } from './overlap-scores.ts'

/** Contents are small integers, so that prompts meet often. */
type Content = readonly number[]

export type IndexOperation =
  | { readonly op: 'chain'; readonly slot: number; readonly tier: StorageTier; readonly content: Content; readonly from: number }
  | { readonly op: 'stored'; readonly slot: number; readonly tier: StorageTier; readonly parent: number | null; readonly blocks: readonly (readonly [number, number])[] }
  | { readonly op: 'evict'; readonly slot: number; readonly tier: StorageTier; readonly content: Content; readonly positions: readonly number[] }
  | { readonly op: 'removed'; readonly slot: number; readonly tier: StorageTier; readonly names: readonly number[] }
  | { readonly op: 'cleared' | 'drop'; readonly slot: number }
  | { readonly op: 'record'; readonly slot: number; readonly content: Content; readonly afterMs: number }
  | { readonly op: 'expire'; readonly afterMs: number }
  | { readonly op: 'prune'; readonly count: number }
  | { readonly op: 'find'; readonly content: Content }

/** Ranks of one engine give the same names to the same content; every third slot is of an engine with another seed. */
const seedOf = (slot: number): bigint => (slot % 3 === 2 ? 0x9_0000_0000n : 0n)

/** A stand-in for a chained block hash: distinct per content prefix and seed, above the names of hostile events. */
function chainName(slot: number, content: Content, position: number): bigint {
  let name = 1000n + seedOf(slot)
  for (let i = 0; i <= position; i += 1) name = BigInt.asUintN(64, (name + 1n + BigInt(content[i]!)) * 0x9e37_79b9_7f4a_7c15n)
  return name
}

const localsOf = (content: Content) => hashListOf(content.map((item) => BigInt(item) << 31n))

function eventOf(operation: IndexOperation): { slot: number; tier: StorageTier; data: KvEventData } | null {
  switch (operation.op) {
    case 'chain': {
      const { slot, tier, content, from } = operation
      const start = Math.min(from, content.length)
      return { slot, tier, data: {
        kind: 'stored', parentHash: start === 0 ? null : chainName(slot, content, start - 1), startPosition: null, mmInfos: null,
        blockHashes: hashListOf(content.map((_, i) => chainName(slot, content, i)).slice(start)), tokensHashes: localsOf(content.slice(start)),
      } }
    }
    case 'stored': {
      const { slot, tier, parent, blocks } = operation
      return { slot, tier, data: {
        kind: 'stored', parentHash: parent === null ? null : BigInt(parent), startPosition: null, mmInfos: null,
        blockHashes: hashListOf(blocks.map(([, name]) => BigInt(name))), tokensHashes: localsOf(blocks.map(([local]) => local)),
      } }
    }
    case 'evict': {
      const { slot, tier, content, positions } = operation
      const names = positions.filter((position) => position < content.length).map((position) => chainName(slot, content, position))
      return { slot, tier, data: { kind: 'removed', blockHashes: hashListOf(names) } }
    }
    case 'removed': return { slot: operation.slot, tier: operation.tier, data: { kind: 'removed', blockHashes: hashListOf(operation.names.map(BigInt)) } }
    case 'cleared': return { slot: operation.slot, tier: 'device', data: { kind: 'cleared' } }
    default: return null
  }
}

/** Runs operations on one index; each answer is comparable text. */
export class ScriptRunner {
  readonly #index: ApproximatePrefixIndex
  readonly #scores = createOverlapScores(0)
  #nowMs = 0

  constructor(index: ApproximatePrefixIndex) {
    this.#index = index
  }

  run(operation: IndexOperation): ApplyStatus | string {
    const event = eventOf(operation)
    if (event !== null) return this.#index.apply(event.slot, event.tier, event.data)
    if (operation.op === 'drop') {
      this.#index.dropRank(operation.slot)
      return 'dropped'
    }
    if (operation.op === 'find') return this.#find(operation.content)
    if (operation.op === 'record') {
      this.#nowMs += operation.afterMs
      const names = hashListOf(operation.content.map((_, i) => chainName(0, operation.content, i)))
      return this.#index.record(operation.slot, localsOf(operation.content), names, this.#nowMs)
    }
    if (operation.op === 'expire') {
      this.#nowMs += operation.afterMs
      return `expired ${this.#index.expire(this.#nowMs)}`
    }
    if (operation.op === 'prune') return `pruned ${this.#index.prune(operation.count)}`
    throw new Error(operation.op)
  }

  #find(content: Content): string {
    this.#index.find(localsOf(content), this.#scores)
    const rows: string[] = []
    for (let slot = 0; slot < this.#scores.slotCount; slot += 1) {
      rows.push(`${this.#scores.device[slot]}+${this.#scores.host[slot]}+${this.#scores.disk[slot]}`)
    }
    return rows.join(' ')
  }

  /** Everything that can be seen from outside, in a fixed order. */
  state(slotCount: number): string {
    const ranks: string[] = []
    for (let slot = 0; slot < slotCount; slot += 1) {
      const counts = (['device', 'host_pinned', 'disk', 'external'] as const).map((tier) => this.#index.blockCount(slot, tier))
      const events = this.#index.dump(slot).map(({ tier, data }) => (data.kind === 'stored' ? `${tier} ${data.parentHash} ${data.blockHashes} ${data.tokensHashes}` : data.kind))
      ranks.push(`${counts} ${events.sort().join('; ')}`)
    }
    return `${this.#index.entryCount} ${this.#index.recordedCount}\n${ranks.join('\n')}`
  }
}
