/** Bookings by selection id. An id is taken before its booking is made, and given back when that fails. */
import type { AffinityHold } from '../../affinity/affinity-table.ts'
import { failure, type Answer } from '../answer.ts'
import type { Partition } from './partition.ts'

interface Reservation {
  readonly partition: Partition
  /** False: the booking is being made; nobody but its maker may touch it. */
  isBooked: boolean
  hold: AffinityHold | null
}

/** Most selection ids at a time; a further booking is refused. */
export const reservationsMax = 262_144

export class Reservations {
  readonly #byId = new Map<string, Reservation>()

  get size(): number {
    return this.#byId.size
  }

  /** Null: taken. */
  claim(selectionId: string, partition: Partition): Answer | null {
    if (this.#byId.has(selectionId)) return failure(409, `selection ${selectionId} is already reserved or being reserved`)
    if (this.#byId.size >= reservationsMax) return failure(503, `${reservationsMax} selections are reserved, the limit; delete those that have ended`)
    this.#byId.set(selectionId, { partition, isBooked: false, hold: null })
    return null
  }

  /** Gives an id back whose booking was not made. */
  abandon(selectionId: string): void {
    if (this.#byId.get(selectionId)?.isBooked === false) this.#byId.delete(selectionId)
  }

  install(selectionId: string, hold: AffinityHold | null): void {
    const reservation = this.#byId.get(selectionId)
    if (reservation !== undefined) Object.assign(reservation, { isBooked: true, hold })
  }

  /** A booking that a replica made. */
  mirror(selectionId: string, partition: Partition): void {
    if (!this.#byId.has(selectionId) && this.#byId.size < reservationsMax) this.#byId.set(selectionId, { partition, isBooked: true, hold: null })
  }

  /** The partition of a booking; null: unknown, or not yet made. */
  partitionOf(selectionId: string): Partition | null {
    const reservation = this.#byId.get(selectionId)
    return reservation?.isBooked === true ? reservation.partition : null
  }

  /** The booking is over. */
  forget(selectionId: string, nowMs: number): void {
    const reservation = this.#byId.get(selectionId)
    if (reservation === undefined) return
    this.#byId.delete(selectionId)
    reservation.hold?.release(nowMs)
  }

  /** Forgets ids whose booking has gone with its worker. */
  sweep(nowMs: number): void {
    for (const [selectionId, { partition, isBooked }] of this.#byId) {
      if (isBooked && partition.router.bookings.rankOf(selectionId) === null) this.forget(selectionId, nowMs)
    }
  }
}
