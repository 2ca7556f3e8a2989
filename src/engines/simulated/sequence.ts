/** One request inside a rank: its tokens, what of them is computed, the blocks it holds. */
import { blockHash, drawAt, rootHash } from './block-hash.ts'
import type { EngineSettings } from './settings.ts'

/** What the engine needs of a request. Token ids are u32. */
export interface EngineRequest {
  readonly id: string
  readonly tokens: Uint32Array
  /** Null: the engine takes its least loaded rank. */
  readonly dpRank: number | null
  /** Null: `EngineSettings.outputTokensDefault`. */
  readonly maxTokens: number | null
  readonly minTokens: number
  readonly ignoreEos: boolean
  readonly eosTokenIds: readonly number[]
  readonly stopTokenIds: ReadonlySet<number>
  readonly loraName: string | null
  readonly cacheSalt: string | null
  /** The prompt's KV was computed elsewhere and is brought here: no prefill time. */
  readonly prefilled: boolean
}

export type FinishReason = 'length' | 'stop'

/** What a sequence tells its owner; `finish` at most once, then nothing more. */
export interface SequenceListener {
  onToken(token: number): void
  onFinish(reason: FinishReason): void
}

/** Mutable state of one request; written by its rank alone. */
export class Sequence {
  readonly request: EngineRequest
  readonly listener: SequenceListener
  readonly promptLength: number
  readonly maxOutputTokens: number
  /** Prompt and output so far. */
  readonly tokens: number[]
  /** Hashes of the complete blocks of `tokens`. */
  readonly hashes: bigint[] = []
  /** Leading tokens whose KV is in blocks. */
  computed = 0
  /** Leading named blocks held; after them come `anonymousBlocks`. */
  namedBlocks = 0
  anonymousBlocks = 0
  /** Prompt tokens found in the cache when it was first admitted. */
  cachedTokens: number | null = null
  finished = false
  /** Tokens that the running step computes. */
  scheduled = 0
  readonly #blockSize: number
  readonly #root: bigint
  readonly #outputSeed: bigint
  readonly #settings: EngineSettings

  constructor(request: EngineRequest, settings: EngineSettings, listener: SequenceListener) {
    this.request = request
    this.listener = listener
    this.#settings = settings
    this.#blockSize = settings.blockSize
    this.promptLength = request.tokens.length
    this.tokens = Array.from(request.tokens)
    this.#root = rootHash(settings.hashSeed, [request.loraName ?? '', request.cacheSalt ?? ''])
    const room = Math.min(settings.contextLength, settings.blocks * settings.blockSize) - this.promptLength
    this.maxOutputTokens = Math.min(request.maxTokens ?? settings.outputTokensDefault, Math.max(room, 1))
    this.#outputSeed = blockHash(0n, request.tokens, 0, this.promptLength)
    this.#hashBlocks()
  }

  get outputLength(): number {
    return this.tokens.length - this.promptLength
  }

  /** Blocks that hold its first `tokenCount` tokens and are not yet its own. */
  blocksMissing(tokenCount: number): number {
    return Math.max(0, Math.ceil(tokenCount / this.#blockSize) - this.namedBlocks - this.anonymousBlocks)
  }

  parentHash(block: number): bigint | null {
    return block === 0 ? null : (this.hashes[block - 1] ?? null)
  }

  /** The next output token, the same for the same prompt on every engine. */
  nextToken(): number {
    const { naturalOutputTokens, vocabularySize } = this.#settings
    const { eosTokenIds, ignoreEos } = this.request
    const index = this.outputLength
    const eos = eosTokenIds[0]
    if (eos !== undefined && !ignoreEos && naturalOutputTokens !== null && index + 1 >= Math.max(naturalOutputTokens, this.request.minTokens)) return eos
    let token = drawAt(this.#outputSeed, index) % vocabularySize
    for (let tries = 0; eosTokenIds.includes(token) && tries < eosTokenIds.length; tries += 1) token = (token + 1) % vocabularySize
    return token
  }

  /** Adds an output token; the reason when it was the last. */
  append(token: number): FinishReason | null {
    this.tokens.push(token)
    this.#hashBlocks()
    const { request } = this
    const length = this.outputLength
    const stops = request.stopTokenIds.has(token) || (!request.ignoreEos && request.eosTokenIds.includes(token))
    if (stops && length >= request.minTokens) return 'stop'
    const natural = this.#settings.naturalOutputTokens
    if (natural !== null && !request.ignoreEos && length >= Math.max(natural, request.minTokens)) return 'stop'
    return length >= this.maxOutputTokens ? 'length' : null
  }

  #hashBlocks(): void {
    while ((this.hashes.length + 1) * this.#blockSize <= this.tokens.length) {
      const parent = this.hashes.at(-1) ?? this.#root
      this.hashes.push(blockHash(parent, this.tokens, this.hashes.length * this.#blockSize, this.#blockSize))
    }
  }
}
