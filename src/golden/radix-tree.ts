/** Fixture kind `radix_tree`: the device tier step by step. Source: router-algorithm 4. */
import { createPrefixIndex } from '../index/prefix-index.ts'
import type { TieredPrefixIndex } from '../index/prefix-index.ts'
import { createOverlapScores } from '../index/overlap-scores.ts'
import { hashCount, hashListOf } from '../model/hash-list.ts'
import type { ApplyStatus, KvEventData } from '../model/kv-event.ts'
import { canonicalSet } from './json-compare.ts'
import type { GoldenKind } from './kind.ts'

interface RankFields {
  readonly worker_id: number | bigint
  readonly dp_rank: number
}

interface EventStep extends RankFields {
  readonly op: 'event'
  readonly stored?: { readonly parent_hash: string | null; readonly blocks: readonly { readonly tokens_hash: string; readonly block_hash: string }[] }
  readonly removed?: { readonly block_hashes: readonly string[] }
  readonly error?: string | null
}

interface FindStep {
  readonly op: 'find'
  readonly sequence: readonly string[]
  readonly early_exit: boolean
  readonly expect: readonly (RankFields & { readonly score: number })[]
}

interface DropStep {
  readonly op: 'remove_worker' | 'clear_worker'
  readonly worker_id: number | bigint
}

interface RadixCase {
  readonly id: number
  readonly steps: readonly (EventStep | FindStep | DropStep)[]
  readonly expect_dump_block_counts: Readonly<Record<string, number>>
}

const errorKinds: Readonly<Partial<Record<ApplyStatus, string>>> = {
  parent_block_not_found: 'parent_not_found', block_not_found: 'block_not_found', invalid_block: 'invalid_sequence',
}

const listOf = (hashes: readonly string[]) => hashListOf(hashes.map(BigInt))

function eventData(step: EventStep): KvEventData {
  if (step.removed !== undefined) return { kind: 'removed', blockHashes: listOf(step.removed.block_hashes) }
  if (step.stored === undefined) return { kind: 'cleared' }
  const { parent_hash, blocks } = step.stored
  return {
    kind: 'stored', parentHash: parent_hash === null ? null : BigInt(parent_hash), startPosition: null, mmInfos: null,
    blockHashes: listOf(blocks.map((block) => block.block_hash)), tokensHashes: listOf(blocks.map((block) => block.tokens_hash)),
  }
}

class RadixScript {
  readonly #index: TieredPrefixIndex = createPrefixIndex()
  readonly #scores = createOverlapScores(0)
  /** `worker:rank` by slot. */
  readonly #ranks: string[] = []

  #slotOf(rank: RankFields): number {
    const key = `${rank.worker_id}:${rank.dp_rank}`
    const known = this.#ranks.indexOf(key)
    return known >= 0 ? known : this.#ranks.push(key) - 1
  }

  /** What differs, or null. */
  run(step: EventStep | FindStep | DropStep): string | null {
    if (step.op === 'event') {
      const error = errorKinds[this.#index.apply(this.#slotOf(step), 'device', eventData(step))] ?? null
      return error === (step.error ?? null) ? null : `error ${error} instead of ${step.error ?? null}`
    }
    if (step.op === 'find') return this.#find(step)
    this.#ranks.forEach((key, slot) => {
      if (key.startsWith(`${step.worker_id}:`)) this.#index.dropRank(slot)
    })
    return null
  }

  #find(step: FindStep): string | null {
    const query = listOf(step.sequence)
    if (step.early_exit) this.#index.findEarly(query, this.#scores)
    else this.#index.find(query, this.#scores)
    const found = canonicalSet(this.#ranks.map((key, slot) => [key, this.#scores.device[slot] ?? 0]).filter(([, score]) => score !== 0))
    const wanted = canonicalSet(step.expect.map((rank) => [`${rank.worker_id}:${rank.dp_rank}`, rank.score]))
    return found === wanted ? null : `found ${found} instead of ${wanted}`
  }

  checkDump(counts: Readonly<Record<string, number>>): string | null {
    for (const [slot, key] of this.#ranks.entries()) {
      let blocks = 0
      for (const { data } of this.#index.dump(slot)) if (data.kind === 'stored') blocks += hashCount(data.blockHashes)
      if (blocks !== (counts[key] ?? 0)) return `dump of ${key} has ${blocks} blocks instead of ${counts[key] ?? 0}`
    }
    return null
  }
}

function failureOf(item: RadixCase): string | null {
  const script = new RadixScript()
  for (const [at, step] of item.steps.entries()) {
    const message = script.run(step)
    if (message !== null) return `step ${at}: ${message}`
  }
  return script.checkDump(item.expect_dump_block_counts)
}

export const golden: GoldenKind = {
  name: 'radix_tree',
  *run(document) {
    for (const item of document['cases'] as readonly RadixCase[]) {
      const message = failureOf(item)
      yield { id: `${item.id}`, outcome: message === null ? { kind: 'passed' } : { kind: 'failed', message } }
    }
  },
}
