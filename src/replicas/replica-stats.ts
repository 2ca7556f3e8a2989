/** What sharing bookings counts; plain numbers, shown at each scrape. */
export interface ReplicaStats {
  /** Events published, by kind. */
  readonly sent: Record<'add' | 'mark' | 'free', number>
  /** Events of others that changed something. */
  readonly applied: Record<'add' | 'mark' | 'free', number>
  /** Events that changed nothing, by why. */
  readonly ignored: Record<'own' | 'known' | 'unknown_request' | 'other_worker' | 'late', number>
  /** What a bound refused. */
  readonly refused: Record<'peers' | 'bookings' | 'outgoing' | 'kept_blocks', number>
  malformed: number
  /** Times that messages of a peer were found missing. */
  gaps: number
  statesAsked: number
  statesSent: number
  statesApplied: number
  peersGone: number
  /** Bookings that ended with their router. */
  droppedBookings: number
}

export const newReplicaStats = (): ReplicaStats => ({
  sent: { add: 0, mark: 0, free: 0 },
  applied: { add: 0, mark: 0, free: 0 },
  ignored: { own: 0, known: 0, unknown_request: 0, other_worker: 0, late: 0 },
  refused: { peers: 0, bookings: 0, outgoing: 0, kept_blocks: 0 },
  malformed: 0, gaps: 0, statesAsked: 0, statesSent: 0, statesApplied: 0, peersGone: 0, droppedBookings: 0,
})
