/** Fixture kind `tracking_hash`: sequence identities of load tracking, public and keyed. Source: router-algorithm 1.5. */
import { createTrackingHasher } from '../hashing/tracking-hash.ts'
import { hashesToBigints } from '../model/hash-list.ts'
import { hashOptionsOf, type PromptFields } from './fixture-fields.ts'
import type { GoldenKind } from './kind.ts'

interface TrackingCase extends PromptFields {
  readonly mode: 'public-xxh3-v1' | 'keyed-xxh3-v1'
  readonly key_hex: string | null
  readonly key_id: string | null
  readonly model_name: string
  readonly routing_group: string
  readonly expect: { readonly sequence_hashes: readonly string[] }
}

function sequenceOf(item: TrackingCase): bigint[] {
  const key = Uint8Array.from(item.key_hex?.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
  const hasher = createTrackingHasher(
    item.mode === 'public-xxh3-v1' ? { mode: item.mode } : { mode: item.mode, key, keyId: item.key_id ?? '', routingGroup: item.routing_group },
    { modelName: item.model_name },
  )
  return hashesToBigints(hasher.hash(Uint32Array.from(item.tokens), hashOptionsOf(item)))
}

export const golden: GoldenKind = {
  name: 'tracking_hash',
  *run(document) {
    for (const item of document['cases'] as readonly TrackingCase[]) {
      const found = `${sequenceOf(item)}`
      const expected = `${item.expect.sequence_hashes}`
      yield {
        id: `${item.id}`,
        outcome: found === expected ? { kind: 'passed' } : { kind: 'failed', message: `sequence_hashes: ${found} instead of ${expected}` },
      }
    }
  },
}
