/** Worker id and dp rank at the edges, dense rank slots inside: the one place that maps between them. */
import { topologyTaint } from '../scheduling/eligibility.ts'
import type { SchedulableWorker } from '../scheduling/eligibility.ts'
import type { RankSlot, WorkerDescription, WorkerId, WorkerRank } from '../model/worker.ts'

/** A registered worker with its slots. */
export interface WorkerRecord extends SchedulableWorker {
  readonly description: WorkerDescription
}

/** Ranks that one worker may have; a description with more counts as having this many. */
export const ranksPerWorkerMax = 4096

/** What an upsert changed: new and dropped ranks with their slots. Dropped slots are to be given back with `reuse`. */
export interface DirectoryChange {
  readonly worker: WorkerRecord
  readonly isNew: boolean
  readonly added: readonly RankSlot[]
  readonly dropped: readonly { readonly slot: RankSlot; readonly dpRank: number }[]
}

const compareIds = (a: WorkerId, b: WorkerId): number => (a < b ? -1 : a > b ? 1 : 0)

/**
 * Registered workers and their slots.
 *
 * Invariants: a slot has one owner; a dropped slot is given out again only after `reuse`. Cost: look-ups are constant;
 * the ordered views are rebuilt after a change of membership.
 */
export class WorkerDirectory {
  readonly #records = new Map<WorkerId, WorkerRecord>()
  readonly #owners: (WorkerRecord | undefined)[] = []
  readonly #freeSlots: RankSlot[] = []
  #ordered: readonly WorkerRecord[] | null = null
  #slots: Int32Array | null = null

  get size(): number {
    return this.#records.size
  }

  /** One more than the largest slot ever given out. */
  get slotEnd(): number {
    return this.#owners.length
  }

  get(workerId: WorkerId): WorkerRecord | undefined {
    return this.#records.get(workerId)
  }

  /** Workers by ascending id. */
  get ordered(): readonly WorkerRecord[] {
    this.#ordered ??= [...this.#records.values()].sort((a, b) => compareIds(a.workerId, b.workerId))
    return this.#ordered
  }

  /** Slots of all ranks by worker id, then rank. Not to be changed. */
  get slots(): Int32Array {
    this.#slots ??= Int32Array.from(this.ordered.flatMap((worker) => worker.slots))
    return this.#slots
  }

  /** The owner of a slot. Errors: slots without an owner. */
  ownerOf(slot: RankSlot): WorkerRecord {
    const owner = this.#owners[slot]
    if (owner === undefined) throw new RangeError(`rank slot ${slot} has no owner`)
    return owner
  }

  rankOf(slot: RankSlot): WorkerRank {
    const owner = this.ownerOf(slot)
    return { workerId: owner.workerId, dpRank: owner.dpStart + owner.slots.indexOf(slot) }
  }

  /** The slot of a rank, or -1. */
  slotOf(workerId: WorkerId, dpRank: number): RankSlot | -1 {
    const record = this.#records.get(workerId)
    return record?.slots[dpRank - record.dpStart] ?? -1
  }

  /** Adds a worker or applies a changed description; ranks that stay keep their slots. */
  upsert(given: WorkerDescription): DirectoryChange {
    const old = this.#records.get(given.workerId)
    const size = Math.min(ranksPerWorkerMax, Math.max(1, Math.trunc(given.dpSize) || 1))
    const description = size === given.dpSize ? given : { ...given, dpSize: size }
    const added: RankSlot[] = []
    const slots: RankSlot[] = []
    for (let rank = description.dpStart; rank < description.dpStart + size; rank++) {
      let slot = old?.slots[rank - old.dpStart]
      if (slot === undefined) added.push((slot = this.#takeSlot()))
      slots.push(slot)
    }
    const dropped = (old?.slots ?? [])
      .map((slot, index) => ({ slot, dpRank: (old?.dpStart ?? 0) + index }))
      .filter(({ slot }) => !slots.includes(slot))
    const taints = new Set(description.taints)
    for (const [domain, value] of description.topologyDomains) taints.add(topologyTaint(domain, value))
    const worker: WorkerRecord = {
      workerId: description.workerId,
      dpStart: description.dpStart,
      slots,
      taints,
      loraNames: new Set(description.loraNames),
      description,
    }
    this.#records.set(description.workerId, worker)
    for (const { slot } of dropped) this.#owners[slot] = undefined
    for (const slot of slots) this.#owners[slot] = worker
    this.#forgetViews()
    return { worker, isNew: old === undefined, added, dropped }
  }

  /** Takes a worker out; its slots are to be given back with `reuse`. */
  remove(workerId: WorkerId): readonly RankSlot[] {
    const record = this.#records.get(workerId)
    if (record === undefined) return []
    this.#records.delete(workerId)
    for (const slot of record.slots) this.#owners[slot] = undefined
    this.#forgetViews()
    return record.slots
  }

  /** Says that index and loads know nothing of a dropped slot any more. */
  reuse(slot: RankSlot): void {
    this.#freeSlots.push(slot)
  }

  #takeSlot(): RankSlot {
    const slot = this.#freeSlots.pop() ?? this.#owners.length
    this.#owners[slot] = undefined
    return slot
  }

  #forgetViews(): void {
    this.#ordered = null
    this.#slots = null
  }
}
