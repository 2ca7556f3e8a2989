/** Block and sequence hashing of whole prompts: the WebAssembly kernel beside the plain TypeScript oracle. */
import { localBlockHashes, sequenceHashes } from '../../src/hashing/block-hashes.ts'
import { publicSeed } from '../../src/hashing/block-hasher.ts'
import { xxh3 } from '../../src/hashing/xxh3.ts'
import { hashesToBigints } from '../../src/model/hash-list.ts'
import { nsPerCall, wordsFrom } from '../measure.ts'

export interface HashingRow {
  readonly tokens: number
  readonly blockSize: number
  readonly localNsPerBlock: number
  /** Local and sequence hashes together, as every decision needs them. */
  readonly bothNsPerBlock: number
  readonly bothMtokPerSecond: number
  readonly oracleNsPerBlock: number
}

function oracleHashes(tokens: Uint32Array, blockSize: number): bigint[] {
  const bytes = new Uint8Array(tokens.buffer)
  const chain: bigint[] = []
  const pair = new DataView(new ArrayBuffer(16))
  for (let start = 0; start + blockSize <= tokens.length; start += blockSize) {
    const local = xxh3(bytes.subarray(4 * start, 4 * (start + blockSize)), publicSeed)
    const previous = chain.at(-1)
    if (previous === undefined) {
      chain.push(local)
      continue
    }
    pair.setBigUint64(0, previous, true)
    pair.setBigUint64(8, local, true)
    chain.push(xxh3(new Uint8Array(pair.buffer), publicSeed))
  }
  return chain
}

/** Errors: kernel and oracle disagree. */
export function benchHashing(): HashingRow[] {
  const word = wordsFrom(1)
  const rows: HashingRow[] = []
  for (const blockSize of [16, 64]) {
    for (const count of [512, 2048, 8192, 16384]) {
      const tokens = Uint32Array.from({ length: count }, () => word() % 150_000)
      const both = (): Uint32Array => sequenceHashes(localBlockHashes(tokens, { blockSize }))
      const expected = oracleHashes(tokens, blockSize)
      if (hashesToBigints(both()).some((hash, index) => hash !== expected[index])) throw new Error(`hashes of ${count} tokens differ from the oracle`)
      const blocks = count / blockSize
      const bothNs = nsPerCall(both)
      rows.push({
        tokens: count, blockSize, bothNsPerBlock: bothNs / blocks, bothMtokPerSecond: (1000 * count) / bothNs,
        localNsPerBlock: nsPerCall(() => localBlockHashes(tokens, { blockSize })) / blocks,
        oracleNsPerBlock: nsPerCall(() => oracleHashes(tokens, blockSize), { samples: 3 }) / blocks,
      })
    }
  }
  return rows
}
