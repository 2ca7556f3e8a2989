/**
 * The router's heart: prefix index, loads and scheduling behind one synchronous interface.
 *
 * Choosing and booking are one step, so two requests never see the same load. Nothing here waits, logs or reads a clock
 * but through its ports.
 */
import type { OverlapScores } from '../index/contract.ts'
import { createOverlapScores } from '../index/overlap-scores.ts'
import { ActiveSequences } from '../load/active-sequences.ts'
import type { OverloadThresholds } from '../load/overload-monitor.ts'
import type { Decision, DecisionExplanation, OnDecided, Parked, Refusal } from '../model/decision.ts'
import { noHashes, type HashList } from '../model/hash-list.ts'
import type { ApplyStatus, RouterEvent } from '../model/kv-event.ts'
import { promptTokensOf, type HashedPrompt, type RoutingRequest } from '../model/routing-request.ts'
import type { RankSlot, WorkerDescription, WorkerId, WorkerRank } from '../model/worker.ts'
import { isAvoiding, listExclusions, preferringOthers } from '../scheduling/eligibility.ts'
import { ModeChoice } from '../scheduling/mode-choice.ts'
import { overrideError } from '../scheduling/override.ts'
import { Selection } from '../scheduling/selection.ts'
import type { CostInput } from '../scheduling/cost.ts'
import { PolicyChooser } from '../policies/policy-chooser.ts'
import { Admission, type QueueReport } from './admission.ts'
import { Bookings } from './bookings.ts'
import { decisionOf, effectivePrefillTokens } from './decision-of.ts'
import { hashedPrompt, type Prompt } from './prompt.ts'
import { affinitySlots, pinnedAgainstAffinity } from './affinity.ts'
import { areAllBusy, bestCachedTokens } from './waiting-test.ts'
import type { BoundCounts, ChangeableSettings, LoadRow, KvRouterPorts, OverlapQuery, OverlapReport, Router, RouterSettings } from './contract.ts'
import { explainSelection } from './explanation.ts'
import { durationsOf, scoringOf, type ScoringSettings } from './from-settings.ts'
import { measureCandidates } from './measure.ts'
import { OverloadWatch, type ReportedLoad } from './overload-watch.ts'
import { collectPinned, pinNotAllowed } from './pin.ts'
import { PoolIndex, type IndexMode } from './pool-index.ts'
import { parksRequests } from '../queue/policy-profile.ts'
import { PromptHasher } from './prompt-hasher.ts'
import { RankBlocks } from './rank-blocks.ts'
import { RankReports, type ProjectedLoad } from './rank-reports.ts'
import { allOverloaded, duplicateRequest, nonFiniteCost, noneEligible, noWorkers, pinMissing, refusal } from './refusals.ts'
import { WorkerDirectory } from './worker-directory.ts'

/**
 * Routes requests to workers by cached prefix and load; implements `Router`.
 *
 * Errors: the constructor throws RangeError for a tracking key that does not fit. Bounds: see the README of this folder.
 */
export class KvRouter implements Router {
  #settings: RouterSettings
  readonly #ports: KvRouterPorts
  readonly #directory = new WorkerDirectory()
  readonly #index: PoolIndex
  readonly #loads: ActiveSequences
  readonly #overload: OverloadWatch
  readonly bookings: Bookings
  readonly rankBlocks: RankBlocks
  readonly #hasher: PromptHasher
  readonly #selection = new Selection()
  readonly #scores: OverlapScores = createOverlapScores(16)
  readonly #reports: RankReports
  #scoring: ScoringSettings
  /** Null: the built-in policy decides. */
  readonly #policies: PolicyChooser | null
  /** Null: workers are chosen by cost. */
  readonly #mode: ModeChoice | null
  #generation = 0
  /** The request of the last selection, as its candidates were collected. */
  #asked: RoutingRequest | null = null
  /** Whether the last `measure` found overlap. */
  #lookedUp = false
  /** Null: nothing ever waits. */
  #admission: Admission | null

  constructor(settings: RouterSettings, ports: KvRouterPorts) {
    this.#settings = settings
    this.#ports = ports
    this.#index = new PoolIndex(settings, ports.remoteOverlap === undefined ? null : { overlap: ports.remoteOverlap, directory: this.#directory })
    this.rankBlocks = new RankBlocks(this.#index, this.#directory)
    this.#loads = new ActiveSequences({ expiryMs: 1000 * settings.activeRequestExpirySeconds, ...durationsOf(settings) })
    this.#overload = new OverloadWatch(this.#loads, {
      decodeBlocks: settings.activeDecodeBlocksThreshold,
      prefillTokens: settings.activePrefillTokensThreshold,
      prefillTokensFraction: settings.activePrefillTokensThresholdFraction,
    })
    this.bookings = new Bookings({
      loads: this.#loads, index: this.#index, overload: this.#overload, directory: this.#directory, blockSize: settings.blockSize,
      refreshLoads: () => this.#refreshLoads(), recheck: () => this.#admission?.recheck(),
    })
    this.#hasher = new PromptHasher(settings)
    this.#reports = new RankReports({
      settings: () => this.#settings, directory: this.#directory, index: this.#index, loads: this.#loads, sharedCache: ports.sharedCache, hash: (query) => this.#hasher.local(query),
    })
    this.#mode = settings.selectionMode === undefined ? null : new ModeChoice(settings.selectionMode)
    this.#policies = ports.policies === undefined || this.#mode !== null ? null
      : new PolicyChooser(ports.policies, { owners: this.#directory, role: settings.role, clock: ports.clock, random: ports.random })
    this.#scoring = this.#scoringOf(settings)
    this.#admission = this.#createAdmission()
  }

  get settings(): RouterSettings {
    return this.#settings
  }

  changeSettings(changes: ChangeableSettings): void {
    this.#generation += 1
    this.#settings = Object.freeze({ ...this.#settings, ...changes })
    this.#scoring = this.#scoringOf(this.#settings)
    if (changes.queue === undefined) return
    if (this.#admission === null) this.#admission = this.#createAdmission()
    else this.#admission.change(changes.queue)
  }

  #scoringOf(settings: RouterSettings): ScoringSettings {
    return scoringOf(settings, this.#ports.sharedCache !== undefined, this.#policies !== null && (this.#ports.policies?.live.policy ?? null) !== null)
  }

  // ---- Workers -------------------------------------------------------------------------------------------------------------

  get workers(): Iterable<WorkerDescription> {
    return this.#directory.ordered.map((worker) => worker.description)
  }

  get workerCount(): number {
    return this.#directory.size
  }

  worker(workerId: WorkerId): WorkerDescription | undefined {
    return this.#directory.get(workerId)?.description
  }

  upsertWorker(description: WorkerDescription): void {
    const before = this.#directory.get(description.workerId)?.description
    const { worker, isNew, added, dropped } = this.#directory.upsert(description)
    this.#generation += 1
    for (const { slot, dpRank } of dropped) {
      if (this.#index.isApproximate(slot)) this.#ports.listener?.onIndexMode?.({ workerId: worker.workerId, dpRank }, 'events')
      this.#dropSlot(slot)
    }
    this.#loads.ensureSlots(this.#directory.slotEnd)
    for (const slot of worker.slots) this.#overload.setRank(slot, description, added.includes(slot))
    this.#ports.sharedCache?.setWorker(worker.workerId, description.hicache ?? null)
    for (const slot of worker.slots) this.#index.setCapacity(slot, description.totalKvBlocks)
    if (isNew || added.length > 0 || dropped.length > 0) this.#ports.listener?.onWorkerAdded?.(worker.description)
    const wantsEvents = this.settings.useKvEvents && description.publishesKvEvents !== false
    const modeChanged = before !== undefined && (before.publishesKvEvents === false) !== (description.publishesKvEvents === false)
    for (const slot of modeChanged ? worker.slots : added) this.#setMode(slot, wantsEvents ? 'events' : 'approximate')
    this.#admission?.recheck()
  }

  removeWorker(workerId: WorkerId): void {
    if (this.#directory.get(workerId) === undefined) return
    this.#generation += 1
    for (const slot of this.#directory.remove(workerId)) this.#dropSlot(slot)
    this.#ports.sharedCache?.setWorker(workerId, null)
    this.#ports.listener?.onWorkerRemoved?.(workerId)
    this.#admission?.recheck()
  }

  #dropSlot(slot: RankSlot): void {
    this.#index.drop(slot)
    this.#loads.dropSlot(slot)
    this.#directory.reuse(slot)
  }

  // ---- Index ---------------------------------------------------------------------------------------------------------------

  applyEvent(event: RouterEvent): ApplyStatus {
    const status = this.#applyEvent(event)
    this.#ports.listener?.onEventApplied?.(event.data.kind, event.storageTier, status)
    return status
  }

  #applyEvent(event: RouterEvent): ApplyStatus {
    const { residencyDomain, data } = event
    if (residencyDomain === 'cache_owner' || residencyDomain === 'unsupported') return 'unsupported_residency_domain'
    const slot = this.#directory.slotOf(event.workerId, event.dpRank)
    if (slot < 0 || !this.settings.useKvEvents) return 'invalid_block'
    if (this.#index.isApproximate(slot)) this.#setMode(slot, 'events') // Who sends events needs no guesses.
    return this.#index.apply(slot, event.storageTier, data)
  }

  resetRank(rank: WorkerRank): void {
    this.rankBlocks.reset(rank)
  }

  setIndexMode(rank: WorkerRank, mode: IndexMode): void {
    const slot = this.#directory.slotOf(rank.workerId, rank.dpRank)
    if (slot >= 0 && (mode === 'approximate' || this.settings.useKvEvents)) this.#setMode(slot, mode)
  }

  #setMode(slot: RankSlot, mode: IndexMode): void {
    if (this.#index.setMode(slot, mode)) this.#ports.listener?.onIndexMode?.(this.#directory.rankOf(slot), mode)
  }

  // ---- Decisions -----------------------------------------------------------------------------------------------------------

  select(request: RoutingRequest): Decision | Refusal {
    return this.#decide(request, false)
  }

  route(request: RoutingRequest): Decision | Refusal {
    return this.#decide(request, true)
  }

  submit(request: RoutingRequest, onDecided: OnDecided, book = true): Decision | Refusal | Parked {
    return this.#admission?.submit(request, onDecided, book) ?? this.#decide(request, book)
  }

  get parkedCount(): number {
    return this.#admission?.parkedCount ?? 0
  }

  queueReport(): readonly QueueReport[] {
    return this.#admission?.report() ?? []
  }

  closeQueue(): void {
    this.#admission?.close()
  }

  #createAdmission(): Admission | null {
    const { queue } = this.settings
    if (queue === undefined || !parksRequests(queue.profile)) return null
    return new Admission(queue, {
      invalid: (request, book) => this.#invalid(request, book) ?? (request.pin === undefined ? null : pinNotAllowed(request)),
      collect: (request) => this.#collect(request),
      collectHeld: (request) => this.#collectHeld(request),
      readPrompt: (request) => this.#readPrompt(request),
      measure: (prompt, kept) => this.#measure(prompt, kept),
      overlap: () => this.#lookedUp ? this.#scores : null,
      bestCachedTokens: () => bestCachedTokens(this.#selection.table, this.settings, this.settings.blockSize),
      isBusy: (policyClass) => areAllBusy(this.#selection.table, policyClass, this.#directory, this.#loads.prefillTokens),
      choose: (request, prompt, book) => this.#choose(request, prompt, book),
      refuse: (request, refused) => this.#refuse(request, refused),
      noWorkers,
      workerCount: () => this.#directory.size,
      directory: this.#directory,
    }, this.#ports.clock, this.#ports.listener ?? {})
  }

  #decide(request: RoutingRequest, book: boolean): Decision | Refusal {
    const refused = this.#invalid(request, book) ?? this.#collectHeld(request)
    if (refused !== null) return this.#refuse(request, refused)
    const prompt = this.#readPrompt(request)
    this.#measure(prompt, null)
    return this.#choose(request, prompt, book)
  }

  /** What is wrong with a request, whoever the workers are. */
  #invalid(request: RoutingRequest, book: boolean): Refusal | null {
    const slot = book ? this.#loads.slotOf(request.requestId) : -1
    if (slot >= 0) return duplicateRequest(request, this.#directory.rankOf(slot))
    const invalid = request.override === undefined ? null : overrideError(request.override)
    return invalid === null ? null : refusal(request, 'invalid-override', invalid)
  }

  /** One of the measured candidates. */
  #choose(request: RoutingRequest, prompt: Prompt, book: boolean): Decision | Refusal {
    const { settings } = this
    const input: CostInput = {
      weights: this.#scoring.weights,
      hitWeights: settings,
      blockSize: settings.blockSize,
      promptTokens: promptTokensOf(request),
      trackPrefillTokens: prompt.trackPrefillTokens,
      poolLabel: settings.role === 'prefill' ? 'prefill' : 'decode',
      loadOnly: this.#scoring.isLoadOnly,
    }
    const row = this.#selection.choose(input, this.#scoring.temperature, this.#ports.random, this.#scoring.twoTier)
    if (row < 0) return this.#refuse(request, this.#nonFinite(request))
    const decision = this.#decision(request, prompt, this.#byPolicy(request.pin === undefined ? this.#byMode(row, book) : row, input, request, book), book)
    this.#ports.listener?.onDecision?.(decision, request)
    return decision
  }

  /** Prompt work as of now, where it decays. */
  #refreshLoads(): void {
    if (this.#loads.decaysPrefill) this.#loads.refresh(this.#ports.clock.nowMs())
  }

  #byMode(row: number, book: boolean): number {
    return this.#mode?.choose(this.#selection.table, this.#ports.random, (slot) => this.#directory.ownerOf(slot).description.isCpu === true, book) ?? row
  }

  /** A policy of one's own over the built-in choice, unless the request names its worker. */
  #byPolicy(row: number, input: CostInput, request: RoutingRequest, book: boolean): number {
    const policies = this.#policies
    if (policies === null) return row
    if (request.pin === undefined && !policies.isIdle) {
      return policies.choose({ table: this.#selection.table, input, request, temperature: this.#scoring.temperature, row, isPreview: !book })
    }
    policies.skip()
    return row
  }

  /** The candidates of a choice: where the request belongs, if that may be. */
  #collectHeld(request: RoutingRequest): Refusal | null {
    const affinity = this.#scoring.twoTier === null ? request.affinity : undefined
    const refused = this.#collect(affinity === undefined ? request : pinnedAgainstAffinity(this.#directory, request))
    if (refused === null && affinity !== undefined && request.pin === undefined) this.#selection.keep(affinitySlots(this.#directory, affinity))
    return refused
  }

  #collect(request: RoutingRequest): Refusal | null {
    this.#generation += 1
    this.#refreshLoads()
    if (request.pin !== undefined) return collectPinned(this.#selection, this.#directory, request, this.#overload.test, this.#mode !== null)
    const refused = this.#collectFrom(preferringOthers(request))
    return refused !== null && isAvoiding(request) ? this.#collectFrom(request) : refused
  }

  #collectFrom(request: RoutingRequest): Refusal | null {
    const directory = this.#directory
    this.#asked = request
    if (directory.size === 0) return noWorkers(request)
    if (this.#mode?.mode === 'direct') return pinMissing(request)
    this.#selection.collect(directory.ordered, directory.slots, request, this.#overload.test)
    if (this.#selection.table.count > 0) return null
    const exclusions = listExclusions(directory.ordered, request, this.#overload.test)
    if (this.#overload.test === null) return noneEligible(request, exclusions)
    this.#selection.collect(directory.ordered, directory.slots, request, null)
    return this.#selection.table.count > 0 ? allOverloaded(request, exclusions) : noneEligible(request, exclusions)
  }

  #readPrompt(request: RoutingRequest): Prompt {
    const { settings } = this
    const trackPrefillTokens = request.override?.trackPrefillTokens ?? settings.trackPrefillTokens
    if (request.hashed !== undefined) return hashedPrompt(request.hashed, trackPrefillTokens)
    const blockCount = this.#hasher.blockCount(request.tokens.length)
    const trackedBlocks = settings.trackActiveBlocks ? blockCount : 0
    const shares = trackedBlocks > 0 && (request.override?.assumeKvReuse ?? settings.assumeKvReuse)
    const looksUp = this.#mode === null && (this.#scoring.readsCaches || this.#index.approximateCount > 0)
    const local = blockCount > 0 && (looksUp || shares) ? this.#hasher.local(request, shares) : noHashes
    const { sharedCache } = this.#ports
    return {
      local,
      shared: sharedCache === undefined || !looksUp ? null : sharedCache.hits({ ...request, blockSize: settings.blockSize }),
      tracking: shares ? this.#hasher.tracking(request, request.model, local) : null,
      trackedBlocks,
      blockCount,
      trackPrefillTokens,
    }
  }

  /** Fills overlap and load of every candidate. */
  #measure(prompt: Prompt, kept: OverlapScores | null): void {
    const looksUp = this.#mode === null && this.#scoring.readsCaches && prompt.local.length > 0
    this.#lookedUp = looksUp
    if (looksUp && kept === null) this.#index.find(prompt.local, this.#scores)
    measureCandidates(this.#selection.table, prompt, this.#loads, looksUp ? (kept ?? this.#scores) : null)
  }

  #decision(request: RoutingRequest, prompt: Prompt, row: number, book: boolean): Decision {
    const { table, kind } = this.#selection
    const generation = this.#generation
    const slot = table.slot[row]!
    const rank = this.#directory.rankOf(slot)
    const policies = this.#policies
    const verdict = policies?.verdict ?? null
    const explain = (): DecisionExplanation => {
      if (generation !== this.#generation) throw new Error('a decision can be explained until the next decision or change of workers')
      return explainSelection(this.#directory, table, request.pin === undefined ? this.#asked! : request, this.#overload.test, {
        choice: request.pin !== undefined ? 'pinned' : verdict?.decided === true ? 'policy' : kind, temperature: this.#scoring.temperature,
        ...(verdict === null ? {} : { policy: verdict }),
      }, policies === null ? undefined : (at) => policies.scoreOf(at))
    }
    const booked = book && this.#book(request, prompt, slot, effectivePrefillTokens(request, prompt, table, row))
    return decisionOf({ request, prompt, table, row, rank, verdict, explain }, booked)
  }

  #book(request: RoutingRequest, prompt: Prompt, slot: RankSlot, prefillTokens: number): boolean {
    const nowMs = this.#ports.clock.nowMs()
    const sequence = prompt.tracking ?? (prompt.trackedBlocks > 0 ? this.#hasher.unshared(prompt.trackedBlocks, this.#ports.random) : null)
    const outcome = this.#loads.add({
      requestId: request.requestId,
      slot,
      sequence,
      prefillTokens,
      promptTokens: promptTokensOf(request),
      expectedOutputTokens: request.expectedOutputTokens ?? null,
    }, this.settings.blockSize, nowMs)
    if (prompt.local.length > 0 && request.hashed?.assumesLater !== true && this.#index.wantsRecord(slot)) {
      const { requestId } = request
      const isTracked = outcome === 'booked'
      this.#index.record({ requestId, slot, query: request, local: prompt.local, sequence: this.#hasher.sequence(prompt.local), isTracked }, nowMs)
    }
    this.#overload.observe(slot)
    if (outcome === 'booked' && this.bookings.listener !== null) this.#tell(request, prompt, this.#directory.rankOf(slot), sequence, prefillTokens)
    return outcome === 'booked'
  }

  #tell(request: RoutingRequest, { trackPrefillTokens }: Prompt, rank: WorkerRank, sequence: HashList | null, prefillTokens: number): void {
    this.bookings.listener?.onBooked({
      requestId: request.requestId, rank, sequence, prefillTokens, trackPrefillTokens, promptTokens: promptTokensOf(request),
      expectedOutputTokens: request.expectedOutputTokens ?? null, loraName: request.loraName ?? null,
    })
  }

  #nonFinite(request: RoutingRequest): Refusal {
    const { table } = this.#selection
    const row = table.cost.subarray(0, table.count).findIndex((cost) => !Number.isFinite(cost))
    return nonFiniteCost(request, this.#directory.rankOf(table.slot[row]!), table.cost[row]!)
  }

  #refuse(request: RoutingRequest, refused: Refusal): Refusal {
    this.#ports.listener?.onRefusal?.(refused, request)
    return refused
  }

  // ---- Bookings ------------------------------------------------------------------------------------------------------------

  prefillCompleted(requestId: string): boolean {
    return this.bookings.prefillCompleted(requestId)
  }

  get wantsOutputTokens(): boolean {
    return this.#index.wantsOutputTokens
  }

  outputTokens(requestId: string, totalOutputTokens: number, tokens?: readonly number[]): void {
    if (tokens !== undefined) this.#index.grow(requestId, tokens)
    if (!this.settings.trackOutputBlocks || !this.settings.trackActiveBlocks) {
      this.#loads.touch(requestId)
      return
    }
    if (this.#loads.outputTokens(requestId, totalOutputTokens, this.settings.blockSize) && this.#overload.test !== null) {
      this.#overload.observe(this.#loads.slotOf(requestId))
    }
  }

  /** Books one output block whatever `trackOutputBlocks` says; `decayFraction`: new weight of what is the request's alone. */
  outputBlock(requestId: string, decayFraction: number | null): boolean {
    const slot = this.#loads.slotOf(requestId)
    if (slot < 0) return false
    this.#loads.outputBlock(requestId, decayFraction)
    this.#overload.observe(slot)
    return true
  }

  free(requestId: string): boolean {
    return this.bookings.free(requestId)
  }

  tick(): void {
    const nowMs = this.#ports.clock.nowMs()
    this.#index.expire(nowMs)
    this.bookings.expire(nowMs, (requestId, slot) => this.#ports.listener?.onBookingExpired?.(requestId, this.#directory.rankOf(slot)))
    this.#admission?.tick()
  }

  // ---- Reports -------------------------------------------------------------------------------------------------------------

  overlap(query: OverlapQuery): OverlapReport {
    return this.#reports.overlap(query)
  }

  loads(): readonly LoadRow[] {
    this.#refreshLoads()
    return this.#reports.loads()
  }

  /** Loads of all ranks as they would be with this prompt; changes nothing. */
  project(prompt: HashedPrompt): readonly ProjectedLoad[] {
    this.#refreshLoads()
    return this.#reports.project(prompt)
  }

  /** What the index knows, as events that would make it. */
  dump(): Iterable<RouterEvent> {
    return this.#reports.dump()
  }

  reportLoad(rank: WorkerRank, load: ReportedLoad): void {
    const slot = this.#directory.slotOf(rank.workerId, rank.dpRank)
    if (slot < 0) return
    this.#overload.report(slot, load)
    this.#admission?.recheck()
  }

  setBusyThresholds(thresholds: OverloadThresholds): void {
    this.#generation += 1
    this.#overload.setThresholds(thresholds, this.#directory)
    this.#admission?.recheck()
  }

  get bookingCount(): number {
    return this.#loads.bookingCount
  }

  get indexEntryCount(): number {
    return this.#index.entryCount
  }

  get indexBytes(): number {
    return this.#index.bytesReserved
  }

  get boundCounts(): BoundCounts {
    return this.#reports.boundCounts
  }
}
