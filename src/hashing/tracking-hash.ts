/** Identities of active sequences: the public chain, or one keyed by a secret. Source: router-algorithm 1.5. */
import { blake3 } from '@noble/hashes/blake3.js'
import type { HashList } from '../model/hash-list.ts'
import { sharedHasher } from './block-hasher.ts'
import { localBlockHashes, type BlockHashOptions } from './block-hashes.ts'

/** How tracked sequences are named. `key`: 32 bytes. */
export type TrackingHashSettings =
  | { readonly mode: 'public-xxh3-v1' }
  | { readonly mode: 'keyed-xxh3-v1'; readonly key: Uint8Array; readonly keyId: string; readonly routingGroup: string }

export interface TrackingHasher {
  readonly mode: TrackingHashSettings['mode']
  /**
   * Sequence hashes of a prompt's complete blocks. `publicLocalHashes`: the prompt's public local hashes when they are
   * known already, which saves half the work of the public mode. The result is the caller's.
   */
  hash(tokens: Uint32Array, options: BlockHashOptions, publicLocalHashes?: HashList): HashList
}

const domain = 'dynamo.router.tracking-hash/keyed-xxh3-v1'
const utf8 = new TextEncoder()
const seedPairsMax = 1024

function lengthOf(bytes: Uint8Array): Uint8Array {
  const length = new Uint8Array(8)
  new DataView(length.buffer).setUint32(0, bytes.length, true)
  return length
}

const fixed = (tag: number, value: Uint8Array): Uint8Array[] => [Uint8Array.of(tag), lengthOf(value), value]

function optional(tag: number, text: string | null | undefined): Uint8Array[] {
  if (!text) return [Uint8Array.of(tag, 0)]
  const value = utf8.encode(text)
  return [Uint8Array.of(tag, 1), lengthOf(value), value]
}

function littleEndian32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

interface SeedPair {
  readonly block: bigint
  readonly chain: bigint
}

class KeyedTrackingHasher implements TrackingHasher {
  readonly mode = 'keyed-xxh3-v1'
  readonly #settings: Extract<TrackingHashSettings, { mode: 'keyed-xxh3-v1' }>
  readonly #modelName: string
  /** Pairs already derived; forgotten together when there are too many. */
  readonly #seedPairs = new Map<string, SeedPair>()

  constructor(settings: Extract<TrackingHashSettings, { mode: 'keyed-xxh3-v1' }>, modelName: string) {
    this.#settings = settings
    this.#modelName = modelName
  }

  hash(tokens: Uint32Array, options: BlockHashOptions): HashList {
    const seeds = this.#seedsFor(options)
    const hasher = sharedHasher()
    const local = hasher.localHashes(tokens, {
      blockSize: options.blockSize, isEagle: options.isEagle === true, seed: seeds.block, blockMmInfos: options.blockMmInfos,
    })
    return hasher.sequenceHashes(local, seeds.chain)
  }

  #seedsFor(options: BlockHashOptions): SeedPair {
    const name = JSON.stringify([options.blockSize, options.isEagle === true, options.cacheNamespace || null, options.loraName || null])
    const known = this.#seedPairs.get(name)
    if (known !== undefined) return known
    const { key, keyId, routingGroup } = this.#settings
    const message = joined([
      utf8.encode(domain), Uint8Array.of(0),
      ...fixed(1, utf8.encode(keyId)), ...fixed(2, utf8.encode(this.#modelName)), ...fixed(3, utf8.encode(routingGroup)),
      ...fixed(4, littleEndian32(options.blockSize)), ...optional(5, options.cacheNamespace), ...optional(6, options.loraName),
      ...fixed(7, Uint8Array.of(options.isEagle === true ? 1 : 0)),
    ])
    const digest = blake3(message, { key })
    const view = new DataView(digest.buffer, digest.byteOffset)
    const seeds = { block: view.getBigUint64(0, true), chain: view.getBigUint64(8, true) }
    if (this.#seedPairs.size >= seedPairsMax) this.#seedPairs.clear()
    this.#seedPairs.set(name, seeds)
    return seeds
  }
}

/**
 * The hasher for these settings. `modelName` enters keyed identities.
 * Errors: RangeError for a key that is not 32 bytes, or a key id that is empty or has blanks around it.
 */
export function createTrackingHasher(settings: TrackingHashSettings, context: { readonly modelName: string }): TrackingHasher {
  if (settings.mode === 'public-xxh3-v1') {
    return {
      mode: settings.mode,
      hash: (tokens, options, publicLocalHashes) =>
        sharedHasher().sequenceHashes(publicLocalHashes ?? localBlockHashes(tokens, options)),
    }
  }
  if (settings.key.length !== 32) throw new RangeError(`tracking hash key has ${settings.key.length} bytes, not 32`)
  if (settings.keyId === '' || settings.keyId.trim() !== settings.keyId) {
    throw new RangeError(`tracking hash key id ${JSON.stringify(settings.keyId)} is empty or has blanks around it`)
  }
  return new KeyedTrackingHasher(settings, context.modelName)
}
