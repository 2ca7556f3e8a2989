/**
 * Bookings of other routers, per publisher of them, and what is known to be missing. Pure: time comes as an argument.
 *
 * A publisher's messages are numbered: a gap, or a first message that is not number 0, means that bookings were missed. Replicas of this
 * router are then asked for what stands; Dynamo's routers cannot be asked, so theirs stay as they are until they end or expire.
 */
import type { ActiveSequenceData, ActiveSequenceEvent } from '../dynamo/wire/active-sequences.ts'
import type { ReplicaBeat, ReplicaState } from '../dynamo/wire/replica-state.ts'
import type { HashList } from '../model/hash-list.ts'
import type { WorkerId, WorkerRank } from '../model/worker.ts'
import type { PeerBooking } from '../router/bookings.ts'
import type { ReplicaStats } from './replica-stats.ts'

/** Where peers' bookings are made. `book` may find the rank unknown; it is tried again when the worker comes. */
export interface PeerHost {
  book(booking: PeerBooking): 'booked' | 'duplicate' | 'full' | 'unknown-rank'
  prefillCompleted(key: string): boolean
  free(key: string): boolean
  touch(key: string): boolean
  /** Asks the replica for what stands. */
  ask(publisherId: bigint): void
}

export interface PeerLimits {
  readonly peersMax: number
  /** Of all peers. */
  readonly bookingsMax: number
  /** A replica that gives no sign of life for this long is taken for dead. */
  readonly silenceMs: number
  readonly askAgainMs: number
  /** How often a live replica's bookings are kept from expiring. */
  readonly touchMs: number
}

export const peerLimits: PeerLimits = { peersMax: 1024, bookingsMax: 131_072, silenceMs: 15_000, askAgainMs: 2000, touchMs: 30_000 }

interface Held {
  readonly rank: WorkerRank
  readonly expectedOutputTokens: number | null
  prefillTokens: number
  /** Kept only until the worker is known. */
  sequence: HashList | null
  isBooked: boolean
  /** The message that told of it. */
  readonly sequenceNumber: bigint
}

interface Peer {
  readonly publisherId: bigint
  readonly routerId: bigint
  /** Heard at the scope of earlier releases, whose messages are not missed by number. */
  readonly isEarlier: boolean
  readonly bookings: Map<string, Held>
  /** Number of the message that comes next; null: none has come. */
  next: bigint | null
  /** Null: never gave a sign of life, so it is not a replica of this router. */
  lastBeatMs: number | null
  /** `next` as the last sign of life told it. */
  told: bigint
  isIncomplete: boolean
  askedMs: number
  touchedMs: number
  /** Ended while an answer is waited for, by the number of the message. */
  readonly ended: Map<string, bigint>
  answer: { round: number; nextPart: number; readonly events: ActiveSequenceEvent[] } | null
}

export class PeerTable {
  readonly #ownRouterId: bigint
  readonly #host: PeerHost
  readonly #stats: ReplicaStats
  readonly #limits: PeerLimits
  readonly #peers = new Map<bigint, Peer>()
  #bookings = 0
  #waiting = 0

  constructor(ownRouterId: bigint, host: PeerHost, stats: ReplicaStats, limits: Partial<PeerLimits> = {}) {
    this.#ownRouterId = ownRouterId
    this.#host = host
    this.#stats = stats
    this.#limits = { ...peerLimits, ...limits }
  }

  get peerCount(): number {
    return this.#peers.size
  }

  get bookingCount(): number {
    return this.#bookings
  }

  /** Bookings whose worker is not known yet. */
  get waitingCount(): number {
    return this.#waiting
  }

  // ---- Events --------------------------------------------------------------------------------------------------------------

  /** The events of one message. Marks of own requests are the caller's. */
  apply(publisherId: bigint, sequence: bigint, events: readonly ActiveSequenceEvent[], blockSize: number, nowMs: number): void {
    const known = this.#peers.get(publisherId)
    if (known !== undefined) this.#count(known, sequence, nowMs)
    for (const event of events) {
      if (event.routerId === this.#ownRouterId) this.#stats.ignored.own += 1
      else if (event.data.kind === 'add_request') this.#add(publisherId, sequence, event, blockSize, nowMs)
      else if (event.data.kind === 'mark_prefill_completed') this.#mark(event)
      else this.#free(publisherId, sequence, event)
    }
  }

  /**
   * The events of one message at the scope that releases before 1.6 use. A router that is heard at the scope of 1.6, too, says nothing new here.
   * True: a router spoke that is heard here only.
   */
  applyEarlier(publisherId: bigint, sequence: bigint, events: readonly ActiveSequenceEvent[], blockSize: number, nowMs: number): boolean {
    const news = events.filter(({ routerId }) => routerId !== this.#ownRouterId && !this.#isHeard(routerId))
    for (const { routerId, data } of news) if (data.kind === 'add_request') this.#peer(publisherId, routerId, true)
    if (news.length > 0) this.apply(publisherId, sequence, news, blockSize, nowMs)
    return news.some(({ data }) => data.kind === 'add_request')
  }

  #isHeard(routerId: bigint): boolean {
    for (const peer of this.#peers.values()) if (peer.routerId === routerId && !peer.isEarlier) return true
    return false
  }

  #count(peer: Peer, sequence: bigint, nowMs: number): void {
    if (peer.isEarlier || (peer.next !== null && sequence < peer.next)) return
    const isGap = peer.next === null ? sequence > 0n && peer.told === 0n : sequence > peer.next
    peer.next = sequence + 1n
    if (isGap) this.#missed(peer, nowMs)
  }

  #missed(peer: Peer, nowMs: number): void {
    this.#stats.gaps += 1
    peer.isIncomplete = true
    this.#ask(peer, nowMs)
  }

  #ask(peer: Peer, nowMs: number): void {
    if (peer.lastBeatMs === null || nowMs - peer.askedMs < this.#limits.askAgainMs) return
    peer.askedMs = nowMs
    peer.answer = null
    peer.ended.clear()
    this.#stats.statesAsked += 1
    this.#host.ask(peer.publisherId)
  }

  #add(publisherId: bigint, sequence: bigint, event: ActiveSequenceEvent, blockSize: number, nowMs: number): void {
    let peer = this.#peers.get(publisherId)
    if (peer === undefined) {
      peer = this.#peer(publisherId, event.routerId)
      if (peer === undefined) return
      this.#count(peer, sequence, nowMs)
    }
    if (peer.bookings.has(event.requestId)) this.#stats.ignored.known += 1
    else if (this.#book(peer, event, sequence, blockSize)) this.#stats.applied.add += 1
  }

  #book(peer: Peer, event: ActiveSequenceEvent, sequenceNumber: bigint, blockSize: number): boolean {
    if (event.data.kind !== 'add_request') return false
    if (this.#bookings >= this.#limits.bookingsMax) {
      this.#stats.refused.bookings += 1
      return false
    }
    const { data, requestId, workerId, dpRank } = event
    const held: Held = {
      rank: { workerId, dpRank }, expectedOutputTokens: data.expectedOutputTokens, prefillTokens: prefillTokensOf(data, blockSize),
      sequence: data.tokenSequence, isBooked: false, sequenceNumber,
    }
    peer.bookings.set(requestId, held)
    this.#bookings += 1
    this.#waiting += 1
    this.#tryBook(peer, requestId, held)
    return true
  }

  #tryBook(peer: Peer, requestId: string, held: Held): void {
    const { rank, sequence, prefillTokens, expectedOutputTokens } = held
    const outcome = this.#host.book({ key: keyOf(peer, requestId), rank, sequence, prefillTokens, expectedOutputTokens })
    if (outcome === 'unknown-rank') return
    if (outcome === 'full') this.#stats.refused.bookings += 1
    held.isBooked = true
    held.sequence = null
    this.#waiting -= 1
  }

  /** Of whom the mark is does not matter: workers send marks for the requests of every router. */
  #mark({ requestId, workerId }: ActiveSequenceEvent): void {
    for (const peer of this.#peers.values()) {
      const held = peer.bookings.get(requestId)
      if (held === undefined) continue
      if (held.rank.workerId !== workerId) {
        this.#stats.ignored.other_worker += 1
        continue
      }
      held.prefillTokens = 0
      if (held.isBooked) this.#host.prefillCompleted(keyOf(peer, requestId))
      this.#stats.applied.mark += 1
    }
  }

  #free(publisherId: bigint, sequence: bigint, { requestId, workerId }: ActiveSequenceEvent): void {
    const peer = this.#peers.get(publisherId)
    // What ended before the question is not part of the answer.
    if (peer?.isIncomplete === true && peer.lastBeatMs !== null) peer.ended.set(requestId, sequence)
    const held = peer?.bookings.get(requestId)
    if (peer === undefined || held === undefined) this.#stats.ignored.unknown_request += 1
    else if (held.rank.workerId !== workerId) this.#stats.ignored.other_worker += 1
    else {
      this.#end(peer, requestId, held)
      this.#stats.applied.free += 1
    }
  }

  #end(peer: Peer, requestId: string, held: Held): void {
    peer.bookings.delete(requestId)
    this.#bookings -= 1
    if (held.isBooked) this.#host.free(keyOf(peer, requestId))
    else this.#waiting -= 1
  }

  // ---- Replicas of this router ---------------------------------------------------------------------------------------------

  /** A sign of life. True: of a replica that was not known. */
  beat({ publisherId, routerId, sequence, bookings }: ReplicaBeat, nowMs: number): boolean {
    if (routerId === this.#ownRouterId) return false
    const peer = this.#peer(publisherId, routerId)
    if (peer === undefined) return false
    const isFirst = peer.lastBeatMs === null
    peer.lastBeatMs = nowMs
    const next = peer.next ?? 0n
    // What was told with the last sign of life has had its time to arrive.
    const isBehind = isFirst ? next < sequence && next === 0n : next < peer.told
    if (isFirst && peer.next === null) peer.next = sequence
    if (isBehind || (isFirst && (bookings > peer.bookings.size || peer.isIncomplete))) {
      if (peer.next !== null && peer.next < peer.told) peer.next = peer.told
      if (isFirst) {
        peer.isIncomplete = true
        this.#ask(peer, nowMs)
      } else this.#missed(peer, nowMs)
    } else if (peer.isIncomplete) this.#ask(peer, nowMs)
    peer.told = sequence
    if (nowMs - peer.touchedMs >= this.#limits.touchMs) this.#touch(peer, nowMs)
    return isFirst
  }

  #touch(peer: Peer, nowMs: number): void {
    peer.touchedMs = nowMs
    for (const [requestId, held] of peer.bookings) if (held.isBooked) this.#host.touch(keyOf(peer, requestId))
  }

  /** One part of what a replica says that stands; the parts of an answer come in order, or the answer is passed over. */
  state(message: ReplicaState, blockSize: number, nowMs: number): void {
    const peer = this.#peers.get(message.publisherId)
    if (peer === undefined || !peer.isIncomplete) return
    if (message.part === 0) peer.answer = { round: message.round, nextPart: 0, events: [] }
    const { answer } = peer
    if (answer === null || answer.round !== message.round || answer.nextPart !== message.part) {
      peer.answer = null
      this.#stats.ignored.late += 1
      return
    }
    answer.nextPart += 1
    for (const event of message.events) if (answer.events.length < this.#limits.bookingsMax) answer.events.push(event)
    if (answer.nextPart < message.parts) return
    this.#replace(peer, message.sequence, answer.events, blockSize)
    peer.answer = null
    peer.isIncomplete = false
    peer.ended.clear()
    peer.touchedMs = nowMs
    this.#stats.statesApplied += 1
  }

  /** What stood before message `sequence`: newer bookings, and ends that came since, count more. */
  #replace(peer: Peer, sequence: bigint, events: readonly ActiveSequenceEvent[], blockSize: number): void {
    const standing = new Set(events.map(({ requestId }) => requestId))
    for (const [requestId, held] of peer.bookings) {
      if (!standing.has(requestId) && held.sequenceNumber < sequence) this.#end(peer, requestId, held)
    }
    for (const event of events) {
      let held = peer.bookings.get(event.requestId)
      if (held !== undefined && held.sequenceNumber < sequence && !isAt(held.rank, event)) {
        this.#end(peer, event.requestId, held)
        held = undefined
      }
      if (held === undefined) {
        const ended = peer.ended.get(event.requestId)
        if (ended === undefined || ended < sequence) this.#book(peer, event, sequence - 1n, blockSize)
      } else if (held.prefillTokens > 0 && event.data.kind === 'add_request' && prefillTokensOf(event.data, blockSize) === 0) {
        held.prefillTokens = 0
        if (held.isBooked) this.#host.prefillCompleted(keyOf(peer, event.requestId))
      }
    }
    if (peer.next === null || peer.next < sequence) peer.next = sequence
  }

  // ---- Coming and going ----------------------------------------------------------------------------------------------------

  /** The publisher is gone from discovery: so are its bookings. */
  gone(publisherId: bigint): boolean {
    const peer = this.#peers.get(publisherId)
    if (peer === undefined) return false
    this.#stats.peersGone += 1
    this.#stats.droppedBookings += peer.bookings.size
    for (const [requestId, held] of peer.bookings) this.#end(peer, requestId, held)
    this.#peers.delete(publisherId)
    return true
  }

  /** Silent replicas end; who owes an answer is asked again. Gives the routers that ended. */
  tick(nowMs: number): bigint[] {
    const ended: bigint[] = []
    for (const peer of this.#peers.values()) {
      if (peer.lastBeatMs !== null && nowMs - peer.lastBeatMs > this.#limits.silenceMs) {
        this.gone(peer.publisherId)
        ended.push(peer.routerId)
      } else if (peer.isIncomplete) this.#ask(peer, nowMs)
    }
    return ended
  }

  /** A worker is known from now on: what waited for it is booked. Cost: all waiting bookings. */
  workerAdded(workerId: WorkerId): void {
    if (this.#waiting === 0) return
    for (const peer of this.#peers.values()) {
      for (const [requestId, held] of peer.bookings) if (!held.isBooked && held.rank.workerId === workerId) this.#tryBook(peer, requestId, held)
    }
  }

  /** Its bookings went with it. */
  workerGone(workerId: WorkerId): void {
    for (const peer of this.#peers.values()) {
      for (const [requestId, held] of peer.bookings) if (held.rank.workerId === workerId) this.#end(peer, requestId, held)
    }
  }

  /** The router began anew, without bookings: replicas are asked for theirs. */
  reset(nowMs: number): void {
    for (const peer of this.#peers.values()) {
      for (const [requestId, held] of peer.bookings) this.#end(peer, requestId, held)
      peer.isIncomplete = true
      this.#ask(peer, nowMs)
    }
  }

  #peer(publisherId: bigint, routerId: bigint, isEarlier = false): Peer | undefined {
    const known = this.#peers.get(publisherId)
    if (known !== undefined) return known
    // What it said at the scope of earlier releases is said again.
    if (!isEarlier) for (const peer of this.#peers.values()) if (peer.isEarlier && peer.routerId === routerId) this.gone(peer.publisherId)
    if (this.#peers.size >= this.#limits.peersMax) {
      this.#stats.refused.peers += 1
      return undefined
    }
    const peer: Peer = {
      publisherId, routerId, isEarlier, bookings: new Map(), next: null, lastBeatMs: null, told: 0n, isIncomplete: false, askedMs: -Infinity, touchedMs: -Infinity,
      ended: new Map(), answer: null,
    }
    this.#peers.set(publisherId, peer)
    return peer
  }
}

const isAt = (rank: WorkerRank, { workerId, dpRank }: ActiveSequenceEvent): boolean => rank.workerId === workerId && rank.dpRank === dpRank

const keyOf = (peer: Peer, requestId: string): string => `${peer.publisherId.toString(16)}/${requestId}`

/** Prompt work that a booking brings: the hint, or from the fields of earlier releases. */
function prefillTokensOf(data: Extract<ActiveSequenceData, { kind: 'add_request' }>, blockSize: number): number {
  if (!data.trackPrefillTokens) return 0
  if (data.prefillLoadHint !== null) return data.prefillLoadHint.initialEffectivePrefillTokens
  return data.promptLoad === undefined ? 0 : Math.max(0, data.promptLoad.promptTokens - data.promptLoad.overlapBlocks * blockSize)
}
