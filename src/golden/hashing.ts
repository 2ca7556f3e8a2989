/** Fixture kind `hashing`: seed, local block hashes and sequence hashes. Source: router-algorithm 1.1 to 1.3. */
import { localBlockHashes, saltSeed, sequenceHashes } from '../hashing/block-hashes.ts'
import { hashesToBigints } from '../model/hash-list.ts'
import { hashOptionsOf, type PromptFields } from './fixture-fields.ts'
import type { GoldenKind } from './kind.ts'

interface HashingCase extends PromptFields {
  /** What was not recorded is left out. */
  readonly expect: { readonly seed?: string; readonly local_block_hashes: readonly string[]; readonly sequence_hashes?: readonly string[] }
}

function firstDifference(item: HashingCase): string | null {
  const options = hashOptionsOf(item)
  const local = localBlockHashes(Uint32Array.from(item.tokens), options)
  const found = {
    seed: `${saltSeed(options)}`, local_block_hashes: `${hashesToBigints(local)}`, sequence_hashes: `${hashesToBigints(sequenceHashes(local))}`,
  }
  for (const name of ['seed', 'local_block_hashes', 'sequence_hashes'] as const) {
    if (item.expect[name] !== undefined && found[name] !== `${item.expect[name]}`) return `${name}: ${found[name]} instead of ${item.expect[name]}`
  }
  return null
}

export const golden: GoldenKind = {
  name: 'hashing',
  *run(document) {
    for (const item of document['cases'] as readonly HashingCase[]) {
      const message = firstDifference(item)
      yield { id: `${item.id}`, outcome: message === null ? { kind: 'passed' } : { kind: 'failed', message } }
    }
  },
}
