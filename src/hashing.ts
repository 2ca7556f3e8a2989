/** Library entry `warmpath/hashing`: block, sequence and tracking hashes as Dynamo computes them. */
export { BlockHasher, blockCountOf, publicSeed, type WindowOptions } from './hashing/block-hasher.ts'
export { localBlockHashes, saltSeed, sequenceHashes, type BlockHashOptions, type Salt } from './hashing/block-hashes.ts'
export { blockMmInfosOf, mmIdentifierHash, padToken } from './hashing/multimodal.ts'
export { createTrackingHasher, type TrackingHasher, type TrackingHashSettings } from './hashing/tracking-hash.ts'
export { xxh3 } from './hashing/xxh3.ts'
export { hashAt, hashCount, hashesToBigints, hashListOf, noHashes, type HashList } from './model/hash-list.ts'
export type { BlockMmInfo, MmObject } from './model/kv-event.ts'
