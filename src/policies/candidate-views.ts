/** Views of the candidate table as policies see it: made once per row, used again for every decision. */
import type { WorkerDescription, WorkerId, WorkerRole } from '../model/worker.ts'
import { promptTokensOf, type RoutingRequest } from '../model/routing-request.ts'
import { CandidateTable } from '../scheduling/candidate-table.ts'
import type { CostInput } from '../scheduling/cost.ts'
import type { SchedulableWorker } from '../scheduling/eligibility.ts'
import type { PolicyCandidate, PolicyRequest } from './contract.ts'

/** Who has a rank slot. */
export interface SlotOwners {
  ownerOf(slot: number): SchedulableWorker & { readonly description: WorkerDescription }
}

/** What all views of a router read from. */
export class ViewSource {
  table = new CandidateTable(1)
  readonly owners: SlotOwners

  constructor(owners: SlotOwners) {
    this.owners = owners
  }
}

/** One row. Getters only: a policy that writes to it fails, and harms nothing. */
export class CandidateView implements PolicyCandidate {
  readonly #source: ViewSource
  readonly #row: number

  constructor(source: ViewSource, row: number) {
    this.#source = source
    this.#row = row
  }

  get worker(): WorkerDescription { return this.#owner.description }
  get workerId(): WorkerId { return this.#owner.workerId }
  get dpRank(): number { return this.#owner.dpStart + this.#owner.slots.indexOf(this.#slot) }
  get deviceBlocks(): number { return this.#source.table.deviceBlocks[this.#row]! }
  get hostBlocks(): number { return this.#source.table.hostBlocks[this.#row]! }
  get diskBlocks(): number { return this.#source.table.diskBlocks[this.#row]! }
  get sharedBlocks(): number { return this.#source.table.sharedBlocks[this.#row]! }
  get cachedTokens(): number { return this.#source.table.cachedTokens[this.#row]! }
  get activePrefillTokens(): number { return this.#source.table.activePrefillTokens[this.#row]! }
  get activeRequests(): number { return this.#source.table.activeRequests[this.#row]! }
  get potentialDecodeBlocks(): number { return this.#source.table.potentialDecodeBlocks[this.#row]! }
  get taintFactor(): number { return this.#source.table.taintFactor[this.#row]! }
  get builtinCost(): number { return this.#source.table.cost[this.#row]! }

  get #slot(): number {
    return this.#source.table.slot[this.#row]!
  }

  get #owner(): ReturnType<SlotOwners['ownerOf']> {
    return this.#source.owners.ownerOf(this.#slot)
  }
}

const nothing = { requestId: '', model: '', tokens: new Uint32Array(0) } as const satisfies RoutingRequest

/** The request of the decision in progress. */
export class RequestView implements PolicyRequest {
  readonly #source: ViewSource
  readonly #role: WorkerRole
  #request: RoutingRequest = nothing
  #blockSize = 1
  #trackPrefillTokens = true
  #isPreview = false
  #leastPrefill = -1

  constructor(source: ViewSource, role: WorkerRole) {
    this.#source = source
    this.#role = role
  }

  show(request: RoutingRequest, { blockSize, trackPrefillTokens }: Pick<CostInput, 'blockSize' | 'trackPrefillTokens'>, isPreview: boolean): void {
    this.#request = request
    this.#blockSize = blockSize
    this.#trackPrefillTokens = trackPrefillTokens
    this.#isPreview = isPreview
    this.#leastPrefill = -1
  }

  get requestId(): string { return this.#request.requestId }
  get model(): string { return this.#request.model }
  get role(): WorkerRole { return this.#role }
  get blockSize(): number { return this.#blockSize }
  get promptTokens(): number { return promptTokensOf(this.#request) }
  get promptBlocks(): number { return Math.max(1, Math.ceil(this.promptTokens / this.#blockSize)) }
  get trackPrefillTokens(): boolean { return this.#trackPrefillTokens }
  get expectedOutputTokens(): number | null { return this.#request.expectedOutputTokens ?? null }
  get loraName(): string | null { return this.#request.loraName ?? null }
  get policyClass(): string | null { return this.#request.policyClass ?? null }
  get strictPriority(): number { return this.#request.strictPriority ?? 0 }
  get priorityJumpSeconds(): number { return this.#request.priorityJumpSeconds ?? 0 }
  get isPreview(): boolean { return this.#isPreview }

  get leastActivePrefillTokens(): number {
    if (this.#leastPrefill < 0) {
      const { activePrefillTokens, count } = this.#source.table
      let least = Infinity
      for (let row = 0; row < count; row++) least = Math.min(least, activePrefillTokens[row]!)
      this.#leastPrefill = least
    }
    return this.#leastPrefill
  }
}
