/**
 * Which worker computed the prompt of a request: kept from its prefill to its decode, so that the decode worker and the client
 * see it, where a frontend knows only this router.
 */
export interface PrefillNote {
  readonly workerId: bigint
  readonly dpRank: number
}

/** Requests at most; beyond, the oldest note goes. */
export const prefillNotesMax = 65_536

export class PrefillNotes {
  readonly #notes = new Map<string, PrefillNote>()
  readonly #max: number
  /** How often the bound has let one go early. */
  evictions = 0

  constructor(max: number = prefillNotesMax) {
    this.#max = max
  }

  get size(): number {
    return this.#notes.size
  }

  keep(requestId: string, note: PrefillNote): void {
    this.#notes.delete(requestId)
    this.#notes.set(requestId, note)
    if (this.#notes.size <= this.#max) return
    const oldest = this.#notes.keys().next()
    if (oldest.done !== true) this.#notes.delete(oldest.value)
    this.evictions += 1
  }

  /** The note of a request, which stays for another decode of it; null when there is none. */
  of(requestId: string): PrefillNote | null {
    return this.#notes.get(requestId) ?? null
  }

  /** The request has been answered. */
  drop(requestId: string): void {
    this.#notes.delete(requestId)
  }
}
