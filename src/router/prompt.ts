/** A request's prompt as decisions see it. */
import type { HashList } from '../model/hash-list.ts'

export interface Prompt {
  /** Public local hashes; empty when nothing asks for them. */
  readonly local: HashList
  /** Identities for load tracking; null: blocks are not tracked, or each is its own. */
  readonly tracking: HashList | null
  /** Tracked blocks: complete blocks, or 0. */
  readonly trackedBlocks: number
  readonly blockCount: number
  readonly trackPrefillTokens: boolean
}
