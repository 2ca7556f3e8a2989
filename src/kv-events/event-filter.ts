/** Which raw events concern the router, and what tier they speak of. Source: router-algorithm 3.2, steps 1 to 6. */
import type { StorageTier } from '../model/kv-event.ts'
import type { RawEvent, RawPlacement } from './raw-event.ts'

/** Why an event was dropped before it got an id. The words are Dynamo's metric labels. */
export type DropReason =
  | 'unsupported_ownership'
  | 'unknown_ownership'
  | 'ignored_event'
  | 'non_local_locality'
  | 'unknown_medium'
  | 'non_main_attention_kind'
  | 'unknown_kind'
  | 'non_main_attention_group'
  | 'unlearned_group_idx'
  | 'ambiguous_cache_namespace'

const tierByMedium: Readonly<Record<string, StorageTier>> = {
  GPU: 'device', DEVICE: 'device',
  CPU: 'host_pinned', CPU_PINNED: 'host_pinned', CPU_TIER1: 'host_pinned',
  CPU_TIER2: 'disk', DISK: 'disk', NVME: 'disk', STORAGE: 'disk',
  EXTERNAL: 'external', NETWORK: 'external', REMOTE: 'external', SHARED: 'external',
}

const mainKinds: ReadonlySet<string> = new Set(['full_attention', 'mla_attention', 'sink_full_attention'])
const otherKinds: ReadonlySet<string> = new Set([
  'sliding_window', 'sliding_window_mla', 'mamba', 'chunked_local_attention', 'encoder_only_attention', 'cross_attention',
])

/** The tier of a medium, or null for one that is not known. Absent and empty mean the device. Case-sensitive. */
export function tierOfMedium(medium: string | null): StorageTier | null {
  if (medium === null || medium === '') return 'device'
  return Object.hasOwn(tierByMedium, medium) ? (tierByMedium[medium] ?? null) : null
}

export type FilterOutcome = { readonly tier: StorageTier } | { readonly dropped: DropReason }

/** Groups remembered at most; further ones stay unlearned. */
const groupsMax = 65_536

/** Judges events one after the other and learns the attention kinds of cache groups on the way. One per listener. */
export class EventFilter {
  /** Kind by `rank:group`. */
  readonly #kindByGroup = new Map<string, string>()

  /** The tier of an event that stays, or why it does not. */
  judge(event: RawEvent, dpRank: number): FilterOutcome {
    if (event.kind === 'ignored') return { dropped: 'ignored_event' }
    if (event.ownership !== null) return { dropped: event.ownership === 'kvcr' ? 'unsupported_ownership' : 'unknown_ownership' }
    if (event.kind === 'cleared') return { tier: 'device' }
    if (event.locality !== null && event.locality !== 'LOCAL') return { dropped: 'non_local_locality' }
    const tier = tierOfMedium(event.medium)
    if (tier === null) return { dropped: 'unknown_medium' }
    if (tier === 'disk' || tier === 'external') return { tier }
    if (event.kind === 'stored') this.#learn(event, dpRank)
    const dropped = this.#judgeKind(event, dpRank)
    return dropped === null ? { tier } : { dropped }
  }

  #learn({ groupIndex, attentionKind }: RawPlacement, dpRank: number): void {
    if (groupIndex === null || attentionKind === null) return
    const group = `${dpRank}:${groupIndex}`
    if (this.#kindByGroup.size < groupsMax || this.#kindByGroup.has(group)) this.#kindByGroup.set(group, attentionKind)
  }

  #judgeKind({ groupIndex, attentionKind }: RawPlacement, dpRank: number): DropReason | null {
    if (attentionKind !== null) {
      if (mainKinds.has(attentionKind)) return null
      return otherKinds.has(attentionKind) ? 'non_main_attention_kind' : 'unknown_kind'
    }
    if (groupIndex === null) return null
    const learned = this.#kindByGroup.get(`${dpRank}:${groupIndex}`)
    if (learned === undefined) return groupIndex === 0 ? null : 'unlearned_group_idx'
    if (mainKinds.has(learned)) return null
    return otherKinds.has(learned) ? 'non_main_attention_group' : 'unknown_kind'
  }
}
