/** Hashes of one request's prompt: for the overlap look-up, for load tracking and for the approximate index. */
import { blockCountOf } from '../hashing/block-hasher.ts'
import { localBlockHashes, promptHashes, sequenceHashes } from '../hashing/block-hashes.ts'
import { createTrackingHasher } from '../hashing/tracking-hash.ts'
import type { TrackingHasher } from '../hashing/tracking-hash.ts'
import type { HashList } from '../model/hash-list.ts'
import type { Random } from '../ports.ts'
import type { OverlapQuery, RouterSettings } from './contract.ts'

const modelsMax = 256

/** Hashes prompts by a router's settings. Bounds: keyed seeds of 256 models are kept, then forgotten together. */
export class PromptHasher {
  readonly #settings: RouterSettings
  readonly #byModel = new Map<string, TrackingHasher>()
  /** The chain of the prompt hashed last, and the local hashes that it belongs to. */
  #chained: { readonly local: HashList; readonly sequence: HashList } | null = null

  constructor(settings: RouterSettings) {
    this.#settings = settings
    // A key that does not fit is an error of the settings: said here, not at the first request.
    if (settings.tracking.mode !== 'public-xxh3-v1') createTrackingHasher(settings.tracking, { modelName: '' })
  }

  /** Complete blocks of a prompt. */
  blockCount(tokenCount: number): number {
    return blockCountOf(tokenCount, this.#settings)
  }

  /** Public local hashes, by which the index is asked. `isTracked`: `tracking` is asked next. */
  local(prompt: OverlapQuery, isTracked = false): HashList {
    if (!isTracked || this.#settings.tracking.mode !== 'public-xxh3-v1') return localBlockHashes(prompt.tokens, this.#options(prompt))
    this.#chained = promptHashes(prompt.tokens, this.#options(prompt))
    return this.#chained.local
  }

  /** Identities of the prompt's blocks for load tracking. `local`: its public local hashes. */
  tracking(prompt: OverlapQuery, model: string, local: HashList): HashList {
    const { tracking } = this.#settings
    if (tracking.mode === 'public-xxh3-v1') return this.#takeChain(local) ?? sequenceHashes(local)
    let hasher = this.#byModel.get(model)
    if (hasher === undefined) {
      if (this.#byModel.size >= modelsMax) this.#byModel.clear()
      hasher = createTrackingHasher(tracking, { modelName: model })
      this.#byModel.set(model, hasher)
    }
    return hasher.hash(prompt.tokens, this.#options(prompt), local)
  }

  #takeChain(local: HashList): HashList | null {
    const chained = this.#chained
    this.#chained = null
    return chained !== null && chained.local === local ? chained.sequence : null
  }

  /** Public sequence hashes: the block names of the approximate index. */
  sequence(local: HashList): HashList {
    return sequenceHashes(local)
  }

  /** Identities that no other request has: prompts do not share blocks. */
  unshared(blocks: number, random: Random): HashList {
    const hashes = new Uint32Array(2 * blocks)
    for (let word = 0; word < hashes.length; word += 2) {
      const [low, high] = random.u64()
      hashes[word] = low
      hashes[word + 1] = high
    }
    return hashes
  }

  #options(prompt: OverlapQuery) {
    const { blockSize, isEagle } = this.#settings
    const { loraName, cacheNamespace, blockMmInfos } = prompt
    return { blockSize, isEagle, loraName, cacheNamespace, blockMmInfos }
  }
}
