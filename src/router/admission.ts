/**
 * Requests that wait until a rank has room: parks them by policy class and lets them go when loads or workers change.
 *
 * Source: router-algorithm 10. One writer; calls that come from within a delivered answer are served by the outer call.
 */
import { createOverlapScores, growOverlapScores } from '../index/overlap-scores.ts'
import type { OverlapScores } from '../index/contract.ts'
import type { Decision, OnDecided, Parked, Refusal } from '../model/decision.ts'
import { promptTokensOf, type RoutingRequest } from '../model/routing-request.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { Clock } from '../ports.ts'
import { orderScore, type QueueItem } from '../queue/class-queue.ts'
import { Classifier, type PolicyClass, type PolicyProfile } from '../queue/policy-profile.ts'
import { PolicyQueue } from '../queue/policy-queue.ts'
import type { Prompt } from './prompt.ts'
import type { WorkerDirectory } from './worker-directory.ts'
import { queueClosed, queueFull, queueLimitReached, queueTimeout } from './refusals.ts'

/** How requests wait. */
export interface QueueSettings {
  readonly profile: PolicyProfile
  /** A request that waited this long has its overlap looked up again; null: never. */
  readonly overlapRefreshAfterSeconds: number | null
  /** Longest wait; null: no limit. */
  readonly timeoutSeconds: number | null
  /** Most requests that wait at a time; left out: 65,536. */
  readonly parkedMax?: number
}

/** Why a request stopped waiting in its class; `moved`: it waits on in another, since the classes have changed. */
export type QueueOutcome = 'dispatched' | 'refused' | 'timeout' | 'cancelled' | 'closed' | 'moved'

/** What one class holds. */
export interface QueueReport {
  readonly policyClass: string
  readonly requests: number
  readonly promptTokens: number
  readonly cachedTokens: number
  /** Of the request that waited longest; 0 when none waits. */
  readonly oldestSeconds: number
}

/** A request that waits. */
export interface ParkedNote {
  readonly policyClass: string
  readonly request: RoutingRequest
  /** Most prompt tokens that an eligible rank had cached on arrival. */
  readonly cachedTokens: number
}

/** Told of what waits. */
export interface QueueListener {
  onParked?(note: ParkedNote): void
  onUnparked?(note: ParkedNote, outcome: QueueOutcome, waitedSeconds: number): void
  onQueueRejected?(policyClass: string, reason: 'request_limit' | 'raw_isl_token_limit' | 'cached_token_limit' | 'capacity', request: RoutingRequest): void
}

/** What admission asks of its router. Candidates, columns and scores are those of the last `collect` and `measure`. */
export interface AdmissionHost {
  /** What is wrong with the request as such, whoever may take it. */
  invalid(request: RoutingRequest, book: boolean): Refusal | null
  collect(request: RoutingRequest): Refusal | null
  /** The same for the choice itself: where the request belongs, if that may be. */
  collectHeld(request: RoutingRequest): Refusal | null
  readPrompt(request: RoutingRequest): Prompt
  /** `kept`: overlap found before, instead of a look-up. */
  measure(prompt: Prompt, kept: OverlapScores | null): void
  /** Overlap that the last `measure` found, or null when caches are not looked at. */
  overlap(): OverlapScores | null
  /** Most cached prompt tokens of a candidate. */
  bestCachedTokens(): number
  /** Whether every candidate is busy. */
  isBusy(policyClass: PolicyClass): boolean
  /** Chooses among what was measured, and books when asked to. */
  choose(request: RoutingRequest, prompt: Prompt, book: boolean): Decision | Refusal
  /** Tells listeners. */
  refuse(request: RoutingRequest, refused: Refusal): Refusal
  noWorkers(request: RoutingRequest): Refusal
  workerCount(): number
  readonly directory: Pick<WorkerDirectory, 'rankOf' | 'slotOf'>
}

/** Blocks of a prompt that one rank holds, by tier. */
interface RankOverlap {
  readonly rank: WorkerRank
  readonly device: number
  readonly host: number
  readonly disk: number
}

interface Waiting extends QueueItem, ParkedNote {
  readonly prompt: Prompt
  policyClass: string
  score: number
  classIndex: number
  readonly onDecided: OnDecided
  readonly book: boolean
  readonly arrivedMs: number
  /** What was found on arrival; null: nothing was looked up. */
  readonly overlap: readonly RankOverlap[] | null
  answer: Decision | Refusal | null
  /** The caller knows that it waits; before, the answer is returned. */
  isParked: boolean
}

const rejectionReasons = { requests: 'request_limit', raw_isl_tokens: 'raw_isl_token_limit', cached_tokens: 'cached_token_limit' } as const

/** Waiting requests of one router. Bounds: `parkedMax`, beyond it requests are refused and `capacityRefusals` counts. */
export class Admission {
  #settings: QueueSettings
  readonly #host: AdmissionHost
  readonly #clock: Clock
  readonly #listener: QueueListener
  #classes: readonly PolicyClass[]
  #classifier: Classifier
  #queue: PolicyQueue<Waiting>
  readonly #kept: OverlapScores = createOverlapScores(16)
  readonly #startMs: number
  readonly #mayGo = (item: Waiting): boolean => this.#host.collect(item.request) !== null || !this.#host.isBusy(this.#classes[item.classIndex]!)
  #sequence = 0
  #draining = false
  #again = false
  #closed = false
  /** Requests refused because `parkedMax` was reached. */
  capacityRefusals = 0

  constructor(settings: QueueSettings, host: AdmissionHost, clock: Clock, listener: QueueListener) {
    this.#settings = settings
    this.#host = host
    this.#clock = clock
    this.#listener = listener
    this.#classes = settings.profile.classes
    this.#classifier = new Classifier(settings.profile)
    this.#queue = new PolicyQueue(settings.profile.classes)
    this.#startMs = clock.nowMs()
  }

  get parkedCount(): number {
    return this.#queue.size
  }

  report(): QueueReport[] {
    const nowMs = this.#clock.nowMs()
    return this.#classes.map(({ name }, index) => {
      const { size, promptTokens, cachedTokens, items } = this.#queue.queueOf(index)
      const oldestMs = items.reduce((oldest, { arrivedMs }) => Math.min(oldest, arrivedMs), nowMs)
      return { policyClass: name, requests: size, promptTokens, cachedTokens, oldestSeconds: (nowMs - oldestMs) / 1000 }
    })
  }

  /** `book` false: the answer waits its turn and changes nothing. A request that nobody may take waits in its class, too. */
  submit(request: RoutingRequest, onDecided: OnDecided, book: boolean): Decision | Refusal | Parked {
    const host = this.#host
    const refused = host.invalid(request, book) ?? (host.workerCount() === 0 ? host.noWorkers(request) : null)
    if (refused !== null) return host.refuse(request, refused)
    const noneMay = host.collect(request)
    if (this.#classes.length === 1 && this.#queue.size === 0 && (noneMay !== null || !host.isBusy(this.#classes[0]!))) return this.#atOnce(request, noneMay, book)
    const prompt = host.readPrompt(request)
    host.measure(prompt, null)
    const classOf = this.#classOf(request, host.bestCachedTokens())
    const policyClass = this.#classes[classOf.index]!
    const isFree = this.#queue.queueOf(classOf.index).size === 0 && (noneMay !== null || !host.isBusy(policyClass))
    // A class in which nothing waits takes no turns.
    if (isFree && neverQueues(policyClass)) return this.#atOnce(request, noneMay, book)
    const item = this.#enter({ request, prompt, onDecided, book, ...classOf }, isFree)
    if ('kind' in item) return host.refuse(request, item)
    this.#drain()
    if (item.answer !== null) return item.answer
    item.isParked = true
    this.#listener.onParked?.(item)
    return { kind: 'parked', requestId: request.requestId, cancel: () => this.#cancel(item) }
  }

  /** Chooses outside the classes. `noneMay`: what the candidates were collected with. */
  #atOnce(request: RoutingRequest, noneMay: Refusal | null, book: boolean): Decision | Refusal {
    const host = this.#host
    const refused = noneMay ?? (request.affinity === undefined ? null : host.collectHeld(request))
    if (refused !== null) return host.refuse(request, refused)
    const prompt = host.readPrompt(request)
    host.measure(prompt, null)
    return host.choose(request, prompt, book)
  }

  #classOf(request: RoutingRequest, cached: number): { readonly index: number; readonly promptTokens: number; readonly cachedTokens: number } {
    const promptTokens = promptTokensOf(request)
    const cachedTokens = Math.min(cached, promptTokens)
    return { index: this.#classifier.classOf(request.policyClass, promptTokens - cachedTokens), promptTokens, cachedTokens }
  }

  /** Puts a measured request into its class, or says why it may not wait. `isFree`: it is the only one of its class, and may go. */
  #enter(
    { request, prompt, onDecided, book, index, promptTokens, cachedTokens }: Pick<Waiting, 'request' | 'prompt' | 'onDecided' | 'book' | 'promptTokens' | 'cachedTokens'> & { readonly index: number },
    isFree: boolean,
  ): Waiting | Refusal {
    const policyClass = this.#classes[index]!
    const refused = isFree ? null : this.#waitRefusal(request, index)
    if (refused !== null) return refused
    const arrivedMs = this.#clock.nowMs()
    const cost = Math.max(1, promptTokens - cachedTokens)
    this.#sequence += 1
    const item: Waiting = {
      request, prompt, classIndex: index, policyClass: policyClass.name, onDecided, book, arrivedMs, promptTokens, cachedTokens, cost,
      strictPriority: request.strictPriority ?? 0,
      deadlineMs: request.queueDeadlineMs ?? Infinity,
      score: orderScore(policyClass.policy, request.priorityJumpSeconds ?? 0, (arrivedMs - this.#startMs) / 1000, cost),
      sequence: this.#sequence,
      lane: request.pin === undefined ? null : `${request.pin.workerId}:${request.pin.dpRank ?? ''}`,
      position: -1,
      overlap: isFree ? null : this.#found(),
      answer: null,
      isParked: false,
    }
    this.#queue.push(item, index)
    return item
  }

  #waitRefusal(request: RoutingRequest, classIndex: number): Refusal | null {
    const { name } = this.#classes[classIndex]!
    if (this.#closed) return queueClosed(request)
    const limit = this.#queue.limitReached(classIndex, this.#host.workerCount())
    if (limit !== null) {
      this.#listener.onQueueRejected?.(name, rejectionReasons[limit.kind], request)
      return queueLimitReached(request, name, limit)
    }
    const parkedMax = this.#settings.parkedMax ?? 65_536
    if (this.#queue.size < parkedMax) return null
    this.capacityRefusals += 1
    this.#listener.onQueueRejected?.(name, 'capacity', request)
    return queueFull(request, parkedMax)
  }

  /**
   * Other classes and limits: what waits is sorted anew into them, by its old arrival, and nothing is refused for it. Turns begin anew.
   * Cost: linear in what waits.
   */
  change(settings: QueueSettings): void {
    const waiting = this.#waiting()
    for (const item of waiting) this.#queue.remove(item, item.classIndex)
    this.#settings = settings
    this.#classes = settings.profile.classes
    this.#classifier = new Classifier(settings.profile)
    this.#queue = new PolicyQueue(settings.profile.classes)
    for (const item of waiting) {
      const classIndex = this.#classifier.classOf(item.request.policyClass, item.promptTokens - item.cachedTokens)
      const { name, policy } = this.#classes[classIndex]!
      if (name !== item.policyClass && item.isParked) this.#left(item, 'moved')
      const isMoved = name !== item.policyClass
      item.classIndex = classIndex
      item.policyClass = name
      item.score = orderScore(policy, item.request.priorityJumpSeconds ?? 0, (item.arrivedMs - this.#startMs) / 1000, item.cost)
      this.#queue.push(item, classIndex)
      if (isMoved && item.isParked) this.#listener.onParked?.(item)
    }
    this.recheck()
  }

  /** Lets go who may: call after every change of loads or workers. Cost: one test per class when nobody may. */
  recheck(): void {
    if (this.#queue.size === 0) return
    this.#queue.recheck()
    this.#drain()
  }

  /** Ends waits that are too long, then `recheck`. Cost: linear in what waits. */
  tick(): void {
    if (this.#queue.size === 0) return
    const nowMs = this.#clock.nowMs()
    const limitMs = this.#settings.timeoutSeconds === null ? Infinity : 1000 * this.#settings.timeoutSeconds
    for (const item of this.#waiting()) {
      const waitedMs = nowMs - item.arrivedMs
      if (waitedMs > limitMs || nowMs > item.deadlineMs) this.#end(item, 'timeout', queueTimeout(item.request, waitedMs, waitedMs > limitMs ? limitMs : null))
    }
    this.recheck()
  }

  /** Refuses all that wait, and from now on all that would have to. */
  close(): void {
    this.#closed = true
    for (const item of this.#waiting()) this.#end(item, 'closed', queueClosed(item.request))
  }

  #waiting(): Waiting[] {
    return this.#classes.flatMap((_, index) => [...this.#queue.queueOf(index).items]).sort((a, b) => a.sequence - b.sequence)
  }

  #drain(): void {
    if (this.#draining) {
      this.#again = true
      return
    }
    this.#draining = true
    try {
      do {
        this.#again = false
        if (this.#host.workerCount() === 0) for (const item of this.#waiting()) this.#end(item, 'refused', this.#host.noWorkers(item.request))
        for (let item = this.#queue.pop(this.#mayGo); item !== null; item = this.#queue.pop(this.#mayGo)) this.#dispatch(item)
      } while (this.#again)
    } finally {
      this.#draining = false
    }
  }

  #dispatch(item: Waiting): void {
    const { request, prompt, book } = item
    const host = this.#host
    const refused = host.invalid(request, book) ?? host.collectHeld(request)
    if (refused !== null) {
      this.#answer(item, 'refused', host.refuse(request, refused))
      return
    }
    const kept = this.#keptOverlap(item)
    host.measure(prompt, kept)
    const answer = host.choose(request, prompt, book)
    this.#answer(item, answer.kind === 'chosen' ? 'dispatched' : 'refused', answer, kept !== null)
  }

  /** What was found on arrival, unless that is too old. */
  #keptOverlap({ overlap, arrivedMs }: Waiting): OverlapScores | null {
    const { overlapRefreshAfterSeconds } = this.#settings
    if (overlap === null) return null
    if (overlapRefreshAfterSeconds !== null && this.#clock.nowMs() - arrivedMs >= 1000 * overlapRefreshAfterSeconds) return null
    return restored(overlap, this.#kept, this.#host.directory)
  }

  /** Overlap of the last `measure`, of the ranks that have any. */
  #found(): RankOverlap[] | null {
    const scores = this.#host.overlap()
    if (scores === null) return null
    const { device, host, disk, slotCount } = scores
    const found: RankOverlap[] = []
    for (let slot = 0; slot < Math.min(slotCount, device.length); slot++) {
      if (device[slot]! + host[slot]! + disk[slot]! > 0) found.push({ rank: this.#host.directory.rankOf(slot), device: device[slot]!, host: host[slot]!, disk: disk[slot]! })
    }
    return found
  }

  #end(item: Waiting, outcome: QueueOutcome, refused: Refusal): void {
    // An answer given meanwhile may have ended this wait, too.
    if (item.position < 0) return
    this.#queue.remove(item, item.classIndex)
    this.#answer(item, outcome, this.#host.refuse(item.request, refused))
  }

  #answer(item: Waiting, outcome: QueueOutcome, answer: Decision | Refusal, keepsOverlap = false): void {
    item.answer = answer
    if (!item.isParked) return
    this.#left(item, outcome)
    item.onDecided(answer, keepsOverlap)
  }

  #left(item: Waiting, outcome: QueueOutcome): void {
    this.#listener.onUnparked?.(item, outcome, (this.#clock.nowMs() - item.arrivedMs) / 1000)
  }

  #cancel(item: Waiting): void {
    if (item.position < 0) return
    this.#queue.remove(item, item.classIndex)
    this.#left(item, 'cancelled')
    // A head that is gone may have been all that held its class back.
    this.recheck()
  }
}

/** Whether a class refuses what cannot go at once. */
const neverQueues = ({ limits }: PolicyClass): boolean => limits.requests === 0 || limits.promptTokens === 0 || limits.cachedTokens === 0

/** Fills `scores` with what was found for the ranks that are still there. */
function restored(overlap: readonly RankOverlap[], scores: OverlapScores, directory: Pick<WorkerDirectory, 'slotOf'>): OverlapScores {
  const slots = overlap.map(({ rank }) => directory.slotOf(rank.workerId, rank.dpRank))
  const slotCount = 1 + Math.max(0, ...slots)
  growOverlapScores(scores, slotCount)
  scores.device.fill(0)
  scores.host.fill(0)
  scores.disk.fill(0)
  scores.slotCount = slotCount
  for (const [index, { device, host, disk }] of overlap.entries()) {
    const slot = slots[index]!
    if (slot < 0) continue
    scores.device[slot] = device
    scores.host[slot] = host
    scores.disk[slot] = disk
  }
  return scores
}
