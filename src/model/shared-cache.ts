/** A cache that all workers of a pool share: how they lay it out, and what of a prompt it holds. */

/** How SGLang workers lay out their pages in a Mooncake store (HiCache), as their cards say. */
export interface HicacheLayout {
  readonly backend: string
  /** Tokens per page. */
  readonly pageSize: number
  readonly tpSize: number
  readonly ppSize: number
  readonly isMla: boolean
  readonly isEagle: boolean
  readonly tpLcmSize: number | null
  readonly splitsHeads: boolean
  /** Stands before every key; empty: none. */
  readonly keyPrefix: string
  /** Where the store publishes its events, a ZeroMQ address; null: another worker tells. */
  readonly eventsEndpoint: string | null
}

/** Block positions of a prompt that a shared cache holds. */
export interface SharedHits {
  /** `[start, end)`, ascending, not touching each other. */
  readonly ranges: readonly (readonly [number, number])[]
  readonly total: number
  /** Why nothing could be looked up; null: it was. */
  readonly error: string | null
}

/** Nothing found. */
export const noSharedHits: SharedHits = { ranges: [], total: 0, error: null }

/** Positions held at or behind `position`. */
export function sharedBlocksBeyond(hits: SharedHits, position: number): number {
  let count = 0
  for (const [start, end] of hits.ranges) if (end > position) count += end - Math.max(start, position)
  return count
}

/** The ranges of the positions that are held. */
export function sharedHitsOf(held: readonly boolean[]): SharedHits {
  const ranges: [number, number][] = []
  let total = 0
  held.forEach((isHeld, position) => {
    if (!isHeld) return
    total += 1
    const last = ranges.at(-1)
    if (last !== undefined && last[1] === position) last[1] += 1
    else ranges.push([position, position + 1])
  })
  return { ranges, total, error: null }
}
