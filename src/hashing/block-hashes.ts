/** Local and sequence hashes of prompts, with the salts of Dynamo. Source: router-algorithm 1.1 to 1.3. */
import type { HashList } from '../model/hash-list.ts'
import type { BlockMmInfo } from '../model/kv-event.ts'
import { publicSeed, sharedHasher, type PromptHashes } from './block-hasher.ts'

/** What a prompt's hashes depend on besides its tokens. Empty strings are as absent. */
export interface Salt {
  readonly loraName?: string | null | undefined
  /** Wire name `cache_salt`. */
  readonly cacheNamespace?: string | null | undefined
}

export interface BlockHashOptions extends Salt {
  readonly blockSize: number
  readonly isEagle?: boolean | null | undefined
  readonly blockMmInfos?: readonly (BlockMmInfo | null)[] | null | undefined
}

const nameHashesMax = 1024
/** Names already hashed: seeds are asked for with every request and event. */
const nameHashes = new Map<string, bigint>()

function nameHash(name: string, seed: 0n | 1n): bigint {
  const key = seed === 0n ? `l${name}` : `n${name}`
  const known = nameHashes.get(key)
  if (known !== undefined) return known
  const hash = sharedHasher().hashText(name, seed)
  if (nameHashes.size >= nameHashesMax) nameHashes.clear()
  nameHashes.set(key, hash)
  return hash
}

/** Seed of local block hashes: 1337 plus the hashes of adapter name and cache namespace, as u64. */
export function saltSeed(salt: Salt): bigint {
  let seed = publicSeed
  if (salt.loraName) seed += nameHash(salt.loraName, 0n)
  if (salt.cacheNamespace) seed += nameHash(salt.cacheNamespace, 1n)
  return BigInt.asUintN(64, seed)
}

/** Local block hashes of a prompt's complete blocks. The result is the caller's. */
export const localBlockHashes = (tokens: Uint32Array, options: BlockHashOptions): HashList =>
  sharedHasher().localHashes(tokens, {
    blockSize: options.blockSize, isEagle: options.isEagle === true, seed: saltSeed(options), blockMmInfos: options.blockMmInfos,
  })

/** Local and public sequence hashes of a prompt's complete blocks, in one pass. */
export const promptHashes = (tokens: Uint32Array, options: BlockHashOptions): PromptHashes =>
  sharedHasher().promptHashes(tokens, {
    blockSize: options.blockSize, isEagle: options.isEagle === true, seed: saltSeed(options), blockMmInfos: options.blockMmInfos,
  })

/** Public sequence hashes (chain) of local hashes. The result is the caller's. */
export const sequenceHashes = (local: HashList): HashList => sharedHasher().sequenceHashes(local)
