/** The candidates of one selection as columns; filled, scored and read again without an object per candidate. */

/** Shape: columns of one length, of which the first `count` entries are in use. Reused from selection to selection. */
export class CandidateTable {
  count = 0
  /** Rank slot. */
  slot: Int32Array
  deviceBlocks: Float64Array
  hostBlocks: Float64Array
  diskBlocks: Float64Array
  /** Blocks of the prompt that a cache shared by all ranks holds beyond the rank's device; 0 without one. */
  sharedBlocks: Float64Array
  activePrefillTokens: Float64Array
  activeRequests: Float64Array
  /** Blocks on the rank once the request runs there, without its partial block. */
  potentialDecodeBlocks: Float64Array
  taintFactor: Float64Array
  // Written by `scoreCandidates`.
  cachedTokens: Float64Array
  credit: Float64Array
  prefillTerm: Float64Array
  decodeTerm: Float64Array
  requestTerm: Float64Array
  cost: Float64Array

  constructor(capacity = 16) {
    this.slot = new Int32Array(capacity)
    this.deviceBlocks = new Float64Array(capacity)
    this.hostBlocks = new Float64Array(capacity)
    this.diskBlocks = new Float64Array(capacity)
    this.sharedBlocks = new Float64Array(capacity)
    this.activePrefillTokens = new Float64Array(capacity)
    this.activeRequests = new Float64Array(capacity)
    this.potentialDecodeBlocks = new Float64Array(capacity)
    this.taintFactor = new Float64Array(capacity)
    this.cachedTokens = new Float64Array(capacity)
    this.credit = new Float64Array(capacity)
    this.prefillTerm = new Float64Array(capacity)
    this.decodeTerm = new Float64Array(capacity)
    this.requestTerm = new Float64Array(capacity)
    this.cost = new Float64Array(capacity)
  }

  /** A table with room for `count` candidates: this one, or a new one. Nothing is copied. */
  withRoom(count: number): CandidateTable {
    return count <= this.slot.length ? this : new CandidateTable(Math.max(count, 2 * this.slot.length))
  }
}
