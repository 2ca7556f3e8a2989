/** Where a chosen rank can fetch more of a prompt from: the `kv_hint` of a booking. Source: kv_hints of Dynamo 1.6.1. */
import { hashesToBigints } from '../../model/hash-list.ts'
import type { OverlapRow } from '../../router/contract.ts'
import type { Partition } from './partition.ts'
import type { Selected } from './selector.ts'
import type { WorkerRecord } from './worker-record.ts'

/** Blocks from the root that a rank can hand on: on its device, and in its host memory. */
const heldBlocks = ({ deviceBlocks, hostExtensionBlocks }: OverlapRow): number => deviceBlocks + hostExtensionBlocks

const endpointOf = (record: WorkerRecord, dpRank: number): string => record.hintControlEndpoints.get(dpRank) ?? ''

/**
 * The hint, or null: the worker takes none, no worker of its type holds more of the prompt than it, or blocks are assumed and not known.
 * `recordOf`: registered workers. Of equal sources the one with the smallest id and rank is named.
 */
export function transferHint(
  { router, assumesBlocks }: Partition, { decision, prompt }: Selected, recordOf: (workerId: bigint) => WorkerRecord | undefined,
): Readonly<Record<string, unknown>> | null {
  const targetType = recordOf(decision.workerId)?.hintWorkerType ?? ''
  if (targetType === '' || assumesBlocks) return null
  const { rows } = router.overlap({ tokens: new Uint32Array(0), local: prompt.local })
  const target = rows.find((row) => row.workerId === decision.workerId && row.dpRank === decision.dpRank)
  let most = target === undefined ? 0 : heldBlocks(target)
  let source: { readonly row: OverlapRow; readonly endpoint: string } | null = null
  for (const row of rows) {
    const record = recordOf(row.workerId)
    if (row === target || heldBlocks(row) <= most || record === undefined || record.hintWorkerType !== targetType || record.kvEventSourceMode === 'state_agent_v2') continue
    const endpoint = endpointOf(record, row.dpRank)
    if (endpoint === '') continue
    most = heldBlocks(row)
    source = { row, endpoint }
  }
  if (source === null) return null
  const names = router.rankBlocks.prefixNames(source.row, prompt.local)
  return {
    protocol_version: '0.1', message_id: decision.requestId,
    actions: [{
      action_id: 'a1', action_type: 'kv.fetch', action_version: '1.0',
      payload: { block_hashes: hashesToBigints(names), source_control_endpoint: source.endpoint },
    }],
  }
}
