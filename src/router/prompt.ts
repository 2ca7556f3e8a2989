/** A request's prompt as decisions see it. */
import { hashCount, type HashList } from '../model/hash-list.ts'
import type { HashedPrompt } from '../model/routing-request.ts'
import type { SharedHits } from '../model/shared-cache.ts'

export interface Prompt {
  /** Public local hashes; empty when nothing asks for them. */
  readonly local: HashList
  /** What a cache shared by all workers holds of it; null: there is none, or it is not asked. */
  readonly shared: SharedHits | null
  /** Identities for load tracking; null: blocks are not tracked, or each is its own. */
  readonly tracking: HashList | null
  /** Tracked blocks: complete blocks, or 0. */
  readonly trackedBlocks: number
  readonly blockCount: number
  readonly trackPrefillTokens: boolean
}

/** A prompt that its caller hashed. */
export const hashedPrompt = ({ local, tracking }: HashedPrompt, trackPrefillTokens: boolean): Prompt => ({
  local, shared: null, tracking, trackedBlocks: tracking === null ? 0 : hashCount(tracking), blockCount: hashCount(local), trackPrefillTokens,
})
