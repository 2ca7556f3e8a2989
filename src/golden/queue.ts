/** Queue cases wait for queueing, which this version does not offer. */
import type { GoldenKind } from './kind.ts'

export const golden: GoldenKind = {
  name: 'queue',
  *run(document) {
    for (const item of document['cases'] as readonly { readonly id: number; readonly config: string }[]) {
      yield { id: `${item.id}`, outcome: { kind: 'skipped', reason: `queueing (${item.config}) is not available in this version` } }
    }
  },
}
