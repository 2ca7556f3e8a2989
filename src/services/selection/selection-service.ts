/**
 * The selection service: workers are told to it, it says where requests go and keeps account of them. One partition per model and routing
 * group; calls of one partition are served one at a time, choosing and booking in one step. Source: router-algorithm 16.1.
 */
import type { AffinityUpdate } from '../../affinity/affinity-table.ts'
import { hashListOf, noHashes } from '../../model/hash-list.ts'
import type { RouterEvent } from '../../model/kv-event.ts'
import type { JsonObject } from '../../ports.ts'
import type { ActiveSequenceEvent } from '../../dynamo/wire/active-sequences.ts'
import { failure, okAnswer, type Answer } from '../answer.ts'
import { BodyError, maybe, numberOf } from '../body-fields.ts'
import { keyName, passesFilter, type PartitionKey } from '../partition-key.ts'
import type { Reply } from '../routes.ts'
import { Membership, type MembershipOptions } from './membership.ts'
import type { Partition } from './partition.ts'
import { PendingSelections, type PendingLimits, type PendingSelection } from './pending-selections.ts'
import { readPrompt } from './prompt.ts'
import { Reservations } from './reservations.ts'
import { readKey, readOverride, readReservation, readSelectBody, type ReservationBody, type SelectBody } from './select-body.ts'
import { effectiveTokens, refusalAnswer, selectionJson, type BusyShares } from './selection-answers.ts'
import { transferHint } from './transfer-hint.ts'
import { choose, routingRequestOf, type Selected, type SelectionKind } from './selector.ts'
import { boundTarget, commitSession, holdSession, sessionProblem } from './session-steering.ts'
import { newRecord, patchedRecord, recordJson, servesRank, type WorkerRecord } from './worker-record.ts'
import type { AffinityHold, AffinityTarget } from '../../affinity/affinity-table.ts'

export interface SelectionServiceOptions extends Omit<MembershipOptions, 'listener'> {
  readonly pending: PendingLimits
  readonly busy: BusyShares
  readonly listener?: MembershipOptions['listener']
  /** A new id for a booking whose caller gave none. */
  newId(): string
}

/** One call's circumstances. */
export interface CallContext {
  readonly policyClass: string | null
  readonly signal?: AbortSignal | undefined
}

/** What is under way, for metrics. */
export interface ServiceReading {
  readonly workers: number
  readonly schedulableWorkers: number
  readonly partitions: number
  readonly reservations: number
  readonly pendingSelections: number
  readonly pendingBytes: number
  readonly pendingEvictions: number
  readonly parked: number
  readonly sessions: number
}

const closing = 'selection service is shutting down'

/** All methods that take a body throw `BodyError` for one that does not fit. */
export class SelectionService {
  readonly membership: Membership
  readonly #options: SelectionServiceOptions
  readonly #pending: PendingSelections
  readonly #reservations = new Reservations()
  #question = 0
  #isClosed = false

  constructor(options: SelectionServiceOptions) {
    this.#options = options
    this.#pending = new PendingSelections(options.pending)
    this.membership = new Membership({
      ...options,
      listener: {
        ...options.listener,
        onBookingExpired: (requestId, rank) => {
          options.listener?.onBookingExpired?.(requestId, rank)
          this.#reservations.forget(requestId, this.#now())
        },
      },
    })
  }

  #now(): number {
    return this.#options.clock.nowMs()
  }

  get reading(): ServiceReading {
    const { partitions } = this.membership
    return {
      workers: this.membership.workerCount, schedulableWorkers: this.membership.schedulableCount, partitions: partitions.length,
      reservations: this.#reservations.size, pendingSelections: this.#pending.size, pendingBytes: this.#pending.bytes, pendingEvictions: this.#pending.evictions,
      parked: partitions.reduce((sum, { router }) => sum + router.parkedCount, 0), sessions: partitions.reduce((sum, { affinity }) => sum + (affinity?.size ?? 0), 0),
    }
  }

  // ---- Workers -------------------------------------------------------------------------------------------------------------

  registerWorker(body: JsonObject): Answer {
    return this.#recordAnswer(this.membership.set(newRecord(body)), 201)
  }

  patchWorker(workerId: bigint, body: JsonObject): Answer {
    const record = this.membership.record(workerId)
    if (record === undefined) return failure(404, `worker ${workerId} not found`)
    return this.#recordAnswer(this.membership.set(patchedRecord(record, body)), 200)
  }

  deleteWorker(workerId: bigint): Answer {
    const record = this.membership.delete(workerId)
    return record === null ? failure(404, `worker ${workerId} not found`) : this.#recordAnswer(record, 200)
  }

  #recordAnswer(result: WorkerRecord | Answer, status: number): Answer {
    return 'status' in result ? result : { status, body: recordJson(result) }
  }

  workers(query: ReadonlyMap<string, string>): Answer {
    return { status: 200, body: this.membership.records.filter(({ key }) => passesFilter(key, query)).map(recordJson) }
  }

  ready(): Answer {
    const count = this.membership.schedulableCount
    const isReady = !this.#isClosed && count > 0
    return { status: isReady ? 200 : 503, body: { ready: isReady, schedulable_workers: count, workers: this.membership.records.map(recordJson) } }
  }

  // ---- Selections ----------------------------------------------------------------------------------------------------------

  select(body: JsonObject, call: CallContext): Reply {
    const read = readSelectBody(body)
    const partition = this.#partition(read.key)
    if ('status' in partition) return partition
    const problem = sessionProblem(partition, sessionOf(read))
    if (problem !== null) return problem
    const session = sessionOf(read)
    const target = session !== null && partition.affinity !== null ? boundTarget(partition, session, this.#now()) : read.affinityTarget
    this.#question += 1
    return this.#run(partition, read, target, read.advisory ? 'advise' : 'select', `\u0000question\u0000${this.#question}`, call, (selected) => {
      if (read.selectionId !== null) this.#remember(read.selectionId, read, partition, selected)
      return null
    })
  }

  #remember(selectionId: string, read: SelectBody, partition: Partition, selected: Selected): void {
    const { decision, prompt } = selected
    this.#pending.insert(selectionId, {
      key: read.key, rank: { workerId: decision.workerId, dpRank: decision.dpRank }, tracking: prompt.tracking ?? noHashes,
      local: partition.assumesBlocks ? prompt.local : null, promptTokens: prompt.promptTokens, effectivePrefillTokens: effectiveTokens(selected),
      expectedOutputTokens: read.expectedOutputTokens, trackPrefillTokens: decision.trackPrefillTokens, loraName: read.prompt.loraName, sessionId: sessionOf(read),
    }, this.#now())
  }

  selectAndReserve(body: JsonObject, call: CallContext): Reply {
    const read = readSelectBody(body)
    const partition = this.#partition(read.key)
    if ('status' in partition) return partition
    const selectionId = read.selectionId ?? this.#options.newId()
    const taken = this.#reservations.claim(selectionId, partition) ?? this.#orAbandon(selectionId, sessionProblem(partition, sessionOf(read)))
    if (taken !== null) return taken
    const session = sessionOf(read)
    const held = session === null ? null : this.#hold(partition, session, selectionId, call)
    return after(held, (hold) => {
      const target = hold?.target ?? (session === null ? read.affinityTarget : null)
      const end = (): void => {
        hold?.release(this.#now())
        this.#reservations.abandon(selectionId)
      }
      try {
        const reply = this.#run(partition, { ...read, selectionId }, target, 'book', selectionId, call, (selected) => this.#install(partition, selectionId, session, hold, selected), end)
        return reply instanceof Promise ? reply.catch((error: unknown) => { end(); throw error }) : reply
      } catch (error) {
        end()
        throw error
      }
    })
  }

  #install(partition: Partition, selectionId: string, session: string | null, hold: AffinityHold | null, { decision, prompt }: Selected): Answer | null {
    const problem = session === null ? null : commitSession(partition, hold, session, decision, this.#now())
    if (problem !== null) {
      partition.router.free(selectionId)
      return problem
    }
    if (!decision.booked) return failure(503, 'too many requests are booked, the limit; delete those that have ended')
    if (prompt.assumesLater === true) partition.router.bookings.assume(selectionId, prompt.local, this.#now())
    this.#reservations.install(selectionId, hold)
    return null
  }

  #hold(partition: Partition, session: string, selectionId: string, { signal }: CallContext): AffinityHold | null | Promise<AffinityHold | null> {
    const held = holdSession(partition, session, () => this.#now(), signal)
    return held instanceof Promise ? held.catch((error: unknown) => { this.#reservations.abandon(selectionId); throw error }) : held
  }

  #orAbandon(selectionId: string, problem: Answer | null): Answer | null {
    if (problem !== null) this.#reservations.abandon(selectionId)
    return problem
  }

  /** Hashes, chooses and answers. `accept`: what is wrong after all; `end`: the request came to nothing. */
  #run(
    partition: Partition, read: SelectBody, target: AffinityTarget | null, kind: SelectionKind, requestId: string, call: CallContext,
    accept: (selected: Selected) => Answer | null, end: () => void = () => undefined,
  ): Reply {
    const hashed = partition.hasher.forSelection(read.prompt, read.override?.assumeKvReuse)
    // The answer tells what was cached before, and a session may yet refuse the rank.
    const prompt = kind === 'book' && partition.assumesBlocks ? { ...hashed, assumesLater: true } : hashed
    return after(choose(partition, routingRequestOf(read, prompt, requestId, call.policyClass, target), kind, call.signal), (outcome) => {
      if ('kind' in outcome) {
        end()
        return refusalAnswer(outcome)
      }
      const record = this.membership.record(outcome.decision.workerId)
      const problem = record === undefined ? failure(500, `selected worker ${outcome.decision.workerId} is no longer schedulable`) : accept(outcome)
      if (problem !== null || record === undefined) {
        end()
        return problem!
      }
      const hint = kind === 'book' ? transferHint(partition, outcome, (workerId) => this.membership.record(workerId)) : null
      return { status: 200, body: selectionJson(outcome, { kind, selectionId: read.selectionId, record, blockSize: partition.blockSize, busy: this.#options.busy, hint }) }
    })
  }

  #partition(key: PartitionKey): Partition | Answer {
    return this.#isClosed ? failure(503, closing) : this.membership.ready(key)
  }

  // ---- Reservations --------------------------------------------------------------------------------------------------------

  reserve(body: JsonObject, call: CallContext): Reply {
    const read = readReservation(body)
    const { key, selectionId } = read
    if (this.#isClosed) return failure(503, closing)
    if (read.workerId !== null) {
      this.#pending.remove(key, selectionId)
      return this.#reserveExplicit(read, { workerId: read.workerId, dpRank: read.dpRank ?? 0 }, call)
    }
    const pending = this.#pending.peek(key, selectionId, this.#now())
    if (pending === null) {
      return failure(404, `no pending selection ${selectionId} for ${keyName(key)} (expired, already used, or never selected)`)
    }
    const partition = this.membership.ready(key)
    if ('status' in partition) return partition
    const { rank } = pending
    if (!servesRank(this.membership.record(rank.workerId), key, rank.dpRank)) {
      return failure(404, `schedulable worker ${rank.workerId} (dp_rank ${rank.dpRank}) not found for ${keyName(key)}`)
    }
    return after(this.#book(partition, selectionId, pending, call), (answer) => {
      // After a success it is used; after a move of its session it never can be.
      if (answer.status < 300 || answer.status === 400) this.#pending.remove(key, selectionId, pending)
      return answer
    })
  }

  #reserveExplicit(read: ReservationBody, rank: PendingSelection['rank'], call: CallContext): Reply {
    const { key, selectionId, fields, override, effective, tracks, expectedOutputTokens } = read
    const partition = this.membership.ready(key)
    if ('status' in partition) return partition
    const { prompt, hasLocal } = partition.hasher.forReservation(fields, override?.assumeKvReuse)
    if (effective !== null && effective > prompt.promptTokens) {
      throw new BodyError(400, `effective_prefill_tokens (${effective}) must not exceed isl_tokens (${prompt.promptTokens})`)
    }
    if (!servesRank(this.membership.record(rank.workerId), key, null)) return failure(404, `schedulable worker ${rank.workerId} not found for ${keyName(key)}`)
    const { settings } = partition.router
    return this.#book(partition, selectionId, {
      key, rank, tracking: prompt.tracking ?? noHashes, local: hasLocal && partition.assumesBlocks ? prompt.local : null, promptTokens: prompt.promptTokens,
      // Without a number, prompt work is not counted.
      effectivePrefillTokens: effective ?? 0, expectedOutputTokens,
      trackPrefillTokens: tracks ?? (effective !== null || (override?.trackPrefillTokens ?? settings.trackPrefillTokens)), loraName: fields.loraName, sessionId: null,
    }, call)
  }

  #book(partition: Partition, selectionId: string, booking: PendingSelection, call: CallContext): Reply {
    const { key, rank, sessionId } = booking
    const taken = this.#reservations.claim(selectionId, partition)
    if (taken !== null) return taken
    return after(sessionId === null ? null : this.#hold(partition, sessionId, selectionId, call), (hold) => {
      const fail = (answer: Answer): Answer => {
        hold?.release(this.#now())
        this.#reservations.abandon(selectionId)
        return answer
      }
      const outcome = partition.router.bookings.book({
        requestId: selectionId, rank, sequence: booking.tracking, local: sessionId === null ? booking.local : null, promptTokens: booking.promptTokens,
        prefillTokens: booking.trackPrefillTokens ? booking.effectivePrefillTokens : 0, trackPrefillTokens: booking.trackPrefillTokens,
        expectedOutputTokens: booking.expectedOutputTokens, loraName: booking.loraName,
      }, this.#now())
      if (outcome === 'unknown-rank') return fail(failure(404, `Worker WorkerWithDpRank { worker_id: ${rank.workerId}, dp_rank: ${rank.dpRank} } not found`))
      if (outcome === 'duplicate') return fail(failure(409, `selection ${selectionId} is already reserved or being reserved`))
      if (outcome === 'full') return fail(failure(503, 'too many requests are booked, the limit; delete those that have ended'))
      const problem = sessionId === null ? null : commitSession(partition, hold, sessionId, rank, this.#now())
      if (problem !== null) {
        partition.router.free(selectionId)
        return fail(problem)
      }
      if (sessionId !== null && booking.local !== null) partition.router.bookings.assume(selectionId, booking.local, this.#now())
      this.#reservations.install(selectionId, hold)
      return {
        status: 201,
        body: {
          selection_id: selectionId, model_name: key.model, routing_group: key.group, worker_id: rank.workerId, dp_rank: rank.dpRank,
          endpoint: this.membership.record(rank.workerId)?.endpoint,
        },
      }
    })
  }

  prefillComplete(selectionId: string): Answer {
    return this.#touch(selectionId, (partition) => partition.router.prefillCompleted(selectionId))
  }

  outputBlock(selectionId: string, body: JsonObject): Answer {
    const fraction = maybe(body, 'decay_fraction', numberOf)
    if (fraction !== null && !(fraction >= 0 && fraction <= 1)) return failure(400, 'decay_fraction must be between 0.0 and 1.0')
    return this.#touch(selectionId, (partition) => partition.router.outputBlock(selectionId, fraction))
  }

  free(selectionId: string): Answer {
    const answer = this.#touch(selectionId, (partition) => partition.router.free(selectionId))
    if (answer.status === 200) this.#reservations.forget(selectionId, this.#now())
    return answer
  }

  #touch(selectionId: string, change: (partition: Partition) => boolean): Answer {
    const partition = this.#reservations.partitionOf(selectionId)
    if (partition !== null && change(partition)) return okAnswer()
    if (partition !== null) this.#reservations.forget(selectionId, this.#now())
    return failure(404, `reservation ${selectionId} not found`)
  }

  // ---- Reports -------------------------------------------------------------------------------------------------------------

  loads(query: ReadonlyMap<string, string>): Answer {
    const body = this.membership.partitions.filter(({ key }) => passesFilter(key, query)).map(({ key, router }) => {
      const waiting = router.queueReport()
      return {
        model_name: key.model, routing_group: key.group,
        loads: router.loads().map((row) => ({
          worker_id: row.workerId, dp_rank: row.dpRank, potential_prefill_tokens: row.activePrefillTokens,
          potential_decode_blocks: row.activeDecodeBlocks, active_requests: row.activeRequests,
        })),
        pending_count: waiting.reduce((sum, row) => sum + row.requests, 0), pending_isl_tokens: waiting.reduce((sum, row) => sum + row.promptTokens, 0),
      }
    })
    return { status: 200, body }
  }

  potentialLoads(body: JsonObject): Answer {
    const fields = readPrompt(body)
    const override = readOverride(body)
    const partition = this.membership.ready(readKey(body))
    if ('status' in partition) return partition
    const prompt = partition.hasher.forSelection(fields, override?.assumeKvReuse)
    const tracks = override?.trackPrefillTokens ?? partition.router.settings.trackPrefillTokens
    return {
      status: 200,
      body: partition.router.project(prompt).map((row) => ({
        worker_id: row.workerId, dp_rank: row.dpRank,
        potential_prefill_tokens: row.activePrefillTokens + (tracks ? prompt.promptTokens - Math.min(row.cachedTokens, prompt.promptTokens) : 0),
        potential_decode_blocks: row.potentialDecodeBlocks, active_requests: row.activeRequests,
      })),
    }
  }

  overlapScores(body: JsonObject): Answer {
    const fields = readPrompt(body)
    readOverride(body)
    const partition = this.membership.ready(readKey(body))
    if ('status' in partition) return partition
    const report = partition.router.overlap({ tokens: new Uint32Array(0), local: partition.hasher.local(fields) })
    const workers = report.rows.map((row) => ({
      worker_id: row.workerId, dp_rank: row.dpRank, device_blocks: row.deviceBlocks, host_pinned_blocks: row.deviceBlocks + row.hostExtensionBlocks,
      disk_blocks: row.deviceBlocks + row.hostExtensionBlocks + row.diskExtensionBlocks,
      host_pinned_extension_blocks: row.hostExtensionBlocks, disk_extension_blocks: row.diskExtensionBlocks, shared_beyond_device_blocks: null,
    }))
    return {
      status: 200,
      body: { block_size: report.blockSize, num_blocks: report.blockCount, workers, shared_cache: { enabled: false, total_hit_blocks: 0, ranges: [], error: null } },
    }
  }

  /** Everything that the indexes know, by partition. `encode`: one event for JSON. */
  dump(encode: (event: RouterEvent) => unknown): Answer {
    const entries = this.membership.partitions.map(({ key, blockSize, router }) =>
      [`${key.model}:${key.group}`, { block_size: blockSize, events: Array.from(router.dump(), encode) }] as const)
    return { status: 200, body: Object.fromEntries(entries) }
  }

  // ---- Replicas ------------------------------------------------------------------------------------------------------------

  /** What a replica booked, or ended. Unknown partitions, workers and other block sizes are passed over. */
  applyReplicaEvent(key: PartitionKey, blockSize: number, event: ActiveSequenceEvent): boolean {
    const partition = this.membership.partition(key)
    if (partition === undefined || partition.blockSize !== blockSize) return false
    const { requestId, workerId, dpRank, data } = event
    const { bookings } = partition.router
    if (data.kind === 'add_request') {
      let isBooked = false
      partition.quietly(() => {
        isBooked = bookings.book({
          requestId, rank: { workerId, dpRank }, sequence: data.tokenSequence ?? hashListOf([]), local: null, loraName: event.loraName,
          promptTokens: data.prefillLoadHint?.initialEffectivePrefillTokens ?? 0, trackPrefillTokens: data.trackPrefillTokens,
          prefillTokens: data.trackPrefillTokens ? data.prefillLoadHint?.initialEffectivePrefillTokens ?? 0 : 0, expectedOutputTokens: data.expectedOutputTokens,
        }, this.#now()) === 'booked'
      })
      if (isBooked) this.#reservations.mirror(requestId, partition)
      return isBooked
    }
    const rank = bookings.rankOf(requestId)
    if (rank === null || rank.workerId !== workerId || rank.dpRank !== dpRank) return false
    partition.quietly(() => void (data.kind === 'free' ? bookings.free(requestId) : bookings.prefillCompleted(requestId)))
    if (data.kind === 'free') this.#reservations.forget(requestId, this.#now())
    return true
  }

  applyReplicaBinding(key: PartitionKey, update: AffinityUpdate): boolean {
    const partition = this.membership.partition(key)
    if (partition?.affinity === null || partition === undefined || partition.router.worker(update.target.workerId) === undefined) return false
    const outcome = partition.affinity.apply(update, this.#now())
    return outcome === 'inserted' || outcome === 'refreshed' || outcome === 'replaced'
  }

  // ---- Life ----------------------------------------------------------------------------------------------------------------

  /** Drops what is too old; call every second or so. */
  tick(): void {
    const nowMs = this.#now()
    this.#pending.expire(nowMs)
    for (const { router, affinity } of this.membership.partitions) {
      router.tick()
      affinity?.tick(nowMs)
    }
  }

  /** Forgets bookings whose workers have gone; call every few minutes. */
  sweep(): void {
    this.#reservations.sweep(this.#now())
  }

  /** No more selections; those that wait are refused. */
  close(): void {
    this.#isClosed = true
    for (const { router } of this.membership.partitions) router.closeQueue()
  }
}

/** A session steers only where the caller did not. */
const sessionOf = ({ sessionId, affinityTarget, pinned }: SelectBody): string | null => (affinityTarget === null && pinned === null ? sessionId : null)

const after = <Value, Result>(value: Value | Promise<Value>, next: (value: Value) => Result | Promise<Result>): Result | Promise<Result> =>
  value instanceof Promise ? value.then(next) : next(value)

