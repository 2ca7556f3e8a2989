/** Policy classes: which requests wait together, in what order, how much each class may hold. Source: router-algorithm 10, 10.1. */

export const queuePolicies = ['fcfs', 'lcfs', 'wspt'] as const
/** Order inside a class: first come, last come, or weighted shortest prompt first. */
export type QueuePolicy = (typeof queuePolicies)[number]

export interface PolicyClass {
  readonly name: string
  /** Both null: an explicit class, taken by its own name only. */
  readonly family: string | null
  readonly bucket: string | null
  readonly policy: QueuePolicy
  /** Prompt tokens per turn of the deficit round robin; 1 or more. */
  readonly quantum: number
  /** A rank with more active prefill tokens is busy; null: not by this measure. */
  readonly busyTokens: number | null
  /** The same as a part of the worker's `max_num_batched_tokens`. */
  readonly busyFraction: number | null
  /** What may wait, per worker; null: no limit, 0: nothing waits. */
  readonly limits: QueueLimits
}

export interface QueueLimits {
  readonly requests: number | null
  readonly promptTokens: number | null
  readonly cachedTokens: number | null
}

/** Requests of at least this many uncached prompt tokens, up to the next bucket. */
export interface UncachedBucket {
  readonly minTokens: number
  readonly bucket: string
}

/** Shape: `classes` in the order of their turns; `buckets` ascending from 0. `defaultFamily` is null when every request shares one class. */
export interface PolicyProfile {
  readonly classes: readonly PolicyClass[]
  readonly defaultFamily: string | null
  readonly buckets: readonly UncachedBucket[]
}

const noLimits: QueueLimits = { requests: null, promptTokens: null, cachedTokens: null }

/** The profile without a policy file: one class for all requests. `busyFraction` null: nothing waits. */
export const singleClassProfile = (busyFraction: number | null, policy: QueuePolicy = 'fcfs'): PolicyProfile => ({
  classes: [{ name: 'default', family: null, bucket: null, policy, quantum: 1, busyTokens: null, busyFraction, limits: noLimits }],
  defaultFamily: null,
  buckets: [],
})

/** Whether any class can make requests wait. */
export const parksRequests = (profile: PolicyProfile): boolean =>
  profile.classes.some(({ busyTokens, busyFraction }) => busyTokens !== null || busyFraction !== null)

/** Active prefill tokens above which a rank is busy for a class. Infinity: never. */
export function busyLimit(policyClass: PolicyClass, maxNumBatchedTokens: number): number {
  const { busyTokens, busyFraction } = policyClass
  return Math.min(busyTokens ?? Infinity, busyFraction === null ? Infinity : busyFraction * maxNumBatchedTokens)
}

/**
 * Finds the class of a request.
 *
 * Invariant: every family has one class per bucket. Cost: two map look-ups and a walk over the buckets.
 */
export class Classifier {
  readonly #profile: PolicyProfile
  readonly #explicit = new Map<string, number>()
  /** Family to class index per bucket. */
  readonly #families = new Map<string, number[]>()

  /** Errors: RangeError when the default family lacks a bucket. */
  constructor(profile: PolicyProfile) {
    this.#profile = profile
    for (const [index, { name, family, bucket }] of profile.classes.entries()) {
      if (family === null) {
        this.#explicit.set(name, index)
        continue
      }
      const classes = this.#families.get(family) ?? []
      classes[profile.buckets.findIndex((each) => each.bucket === bucket)] = index
      this.#families.set(family, classes)
    }
    for (const [family, classes] of this.#families) {
      if (profile.buckets.some((_, bucket) => classes[bucket] === undefined)) throw new RangeError(`policy family ${family} lacks a bucket`)
    }
    if (profile.defaultFamily !== null && !this.#families.has(profile.defaultFamily)) throw new RangeError(`there is no policy family ${profile.defaultFamily}`)
  }

  /** Whether the class depends on the prompt's uncached tokens. */
  get countsUncached(): boolean {
    return this.#profile.buckets.length > 1
  }

  /** Index of the class. `name`: of an explicit class or a family; unknown and missing ones mean the default family. */
  classOf(name: string | undefined, uncachedTokens: number): number {
    const explicit = name === undefined ? undefined : this.#explicit.get(name)
    if (explicit !== undefined) return explicit
    const { defaultFamily, buckets } = this.#profile
    if (defaultFamily === null) return 0
    const classes = (name === undefined ? undefined : this.#families.get(name)) ?? this.#families.get(defaultFamily)!
    let bucket = 0
    while (bucket + 1 < buckets.length && buckets[bucket + 1]!.minTokens <= uncachedTokens) bucket += 1
    return classes[bucket]!
  }
}
