/** Loads that workers tell of themselves (topic `kv_metrics`): one map per message. Source: router-algorithm 9.6. */
import { KeyTable, MsgpackError, type MsgpackCursor } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import { decodePayload } from './payload.ts'

/** Null: the worker says nothing of it, the old value stays. */
export interface KvMetrics {
  readonly workerId: bigint
  readonly dpRank: number
  readonly activeDecodeBlocks: number | null
  readonly activePrefillTokens: number | null
  readonly kvUsedBlocks: number | null
}

const metricKeys = new KeyTable(['worker_id', 'dp_rank', 'active_decode_blocks', 'active_prefill_tokens', 'kv_used_blocks'])

/** Reads a message. Absent counts are null, an absent rank is 0, unknown keys are passed over. Errors: WireError. */
export const decodeKvMetrics = (payload: Uint8Array): KvMetrics => decodePayload('kv metrics', payload, readKvMetrics)

function readKvMetrics(cursor: MsgpackCursor): KvMetrics {
  const start = cursor.offset
  let workerId: bigint | null = null
  let dpRank = 0
  const counts: [number | null, number | null, number | null] = [null, null, null]
  for (let left = cursor.readMapHeader(), hint = 0; left > 0; left -= 1) {
    const key = cursor.readKey(metricKeys, hint)
    hint = key + 1
    if (key === 0) workerId = cursor.readBigU64()
    else if (key === 1) dpRank = cursor.readU32()
    else if (key >= 2) counts[(key - 2) as 0 | 1 | 2] = cursor.tryNil() ? null : Number(cursor.readBigU64())
    else cursor.skip()
  }
  if (workerId === null) throw new MsgpackError('a load without worker_id', start)
  return { workerId, dpRank, activeDecodeBlocks: counts[0], activePrefillTokens: counts[1], kvUsedBlocks: counts[2] }
}

/** The message of one rank's load. */
export function encodeKvMetrics(metrics: KvMetrics): Uint8Array {
  const writer = new MsgpackWriter(128)
  writer.mapHeader(5).string('worker_id').integer(metrics.workerId).string('dp_rank').integer(metrics.dpRank)
  writeCount(writer, 'active_decode_blocks', metrics.activeDecodeBlocks)
  writeCount(writer, 'active_prefill_tokens', metrics.activePrefillTokens)
  writeCount(writer, 'kv_used_blocks', metrics.kvUsedBlocks)
  return writer.finish()
}

function writeCount(writer: MsgpackWriter, name: string, count: number | null): void {
  writer.string(name)
  if (count === null) writer.nil()
  else writer.integer(count)
}
