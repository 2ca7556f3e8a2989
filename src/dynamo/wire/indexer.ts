/**
 * Questions to an index that a router serves for others, at the endpoints `kv_indexer_query` and `kv_indexer_record_routing_decision` of the
 * workers' component. Answers are one item that is not annotated. Source: Dynamo 1.6.1, served indexer.
 */
import { hashCount, hashListOf, hashesToBigints, type HashList } from '../../model/hash-list.ts'
import type { WorkerRank } from '../../model/worker.ts'
import type { Codec } from '../../ports.ts'
import { decodeBody, encodeBody, type WireObject, type WireValue } from './body.ts'
import { decodeItem, encodeItem } from './items.ts'
import { isObject } from './json.ts'
import { malformed } from './wire-error.ts'

export const indexerQueryEndpoint = 'kv_indexer_query'
export const indexerRecordEndpoint = 'kv_indexer_record_routing_decision'

/** Blocks of one question at most. */
const hashesMax = 1_048_576

export interface IndexerQuestion {
  readonly modelName: string
  /** Public local hashes. */
  readonly local: HashList
  /** Only the device tier is of interest. */
  readonly deviceOnly: boolean
}

/** What a rank holds of a prompt, in blocks; lower tiers go on where the one above ends. */
export interface IndexedRank extends WorkerRank {
  readonly deviceBlocks: number
  readonly hostExtensionBlocks: number
  readonly diskExtensionBlocks: number
}

/** A prompt that was routed to a rank whose blocks are assumed. */
export interface IndexerRecord {
  readonly modelName: string
  readonly rank: WorkerRank
  readonly local: HashList
  readonly sequence: HashList
}

export const encodeIndexerQuestion = ({ modelName, local, deviceOnly }: IndexerQuestion, codec: Codec): Uint8Array =>
  encodeBody({ model_name: modelName, block_hashes: hashesToBigints(local), device_only: deviceOnly }, codec)

/** Errors: `WireError` that names the field. */
export function decodeIndexerQuestion(body: Uint8Array, codec: Codec): IndexerQuestion {
  const value = mapOf(decodeBody(body, codec), 'indexer question')
  return { modelName: nameOf(value), local: hashesOf(value, 'block_hashes'), deviceOnly: value['device_only'] === true }
}

/** Ranks without any block are left out. */
export function encodeIndexerAnswer(rows: readonly IndexedRank[], deviceOnly: boolean, codec: Codec): Uint8Array {
  const hits = (count: (row: IndexedRank) => number): WireValue[] =>
    rows.filter((row) => count(row) > 0).map((row) => [{ worker_id: row.workerId, dp_rank: row.dpRank }, count(row)])
  const device = { scores: hits(({ deviceBlocks }) => deviceBlocks), frequencies: [] }
  const lower = deviceOnly ? [] : [
    ['host_pinned', { hits: hits(({ hostExtensionBlocks }) => hostExtensionBlocks) }], ['disk', { hits: hits(({ diskExtensionBlocks }) => diskExtensionBlocks) }],
  ]
  return encodeItem({ TieredScores: { device, lower_tier: lower } }, codec)
}

export const encodeIndexerError = (message: string, codec: Codec): Uint8Array => encodeItem({ Error: message }, codec)

/** Also in the form of earlier releases, without tiers. Errors: `WireError`, and for an answer that is an error its text. */
export function decodeIndexerAnswer(body: Uint8Array, codec: Codec): IndexedRank[] {
  const answer = mapOf(decodeItem(body, codec).data ?? null, 'indexer answer')
  if (typeof answer['Error'] === 'string') throw malformed(`the index says: ${answer['Error'].slice(0, 200)}`)
  const tiered = answer['TieredScores']
  const device = mapOf(tiered === undefined ? (answer['Scores'] ?? null) : (mapOf(tiered, 'TieredScores')['device'] ?? null), 'scores')
  const rows = new Map<string, { -readonly [Key in keyof IndexedRank]: IndexedRank[Key] }>()
  const add = (pairs: WireValue | undefined, key: 'deviceBlocks' | 'hostExtensionBlocks' | 'diskExtensionBlocks'): void => {
    for (const pair of arrayOf(pairs ?? [], 'scores')) {
      const [worker, count] = arrayOf(pair, 'a score')
      const rank = mapOf(worker ?? null, 'worker')
      const workerId = integerOf(rank['worker_id'], 'worker_id')
      const dpRank = Number(integerOf(rank['dp_rank'] ?? 0, 'dp_rank'))
      const id = `${workerId}/${dpRank}`
      let row = rows.get(id)
      if (row === undefined) rows.set(id, (row = { workerId, dpRank, deviceBlocks: 0, hostExtensionBlocks: 0, diskExtensionBlocks: 0 }))
      row[key] += Number(integerOf(count, 'score'))
    }
  }
  add(device['scores'], 'deviceBlocks')
  for (const pair of arrayOf(isObject(tiered) ? ((tiered as WireObject)['lower_tier'] ?? []) : [], 'lower_tier')) {
    const [tier, found] = arrayOf(pair, 'lower_tier')
    const key = tier === 'host_pinned' ? 'hostExtensionBlocks' : 'diskExtensionBlocks'
    add(mapOf(found ?? null, 'lower_tier')['hits'], key)
  }
  return [...rows.values()]
}

export const encodeIndexerRecord = ({ modelName, rank, local, sequence }: IndexerRecord, codec: Codec): Uint8Array => encodeBody({
  model_name: modelName, worker: { worker_id: rank.workerId, dp_rank: rank.dpRank }, local_hashes: hashesToBigints(local), sequence_hashes: hashesToBigints(sequence),
}, codec)

/** Errors: `WireError` that names the field. */
export function decodeIndexerRecord(body: Uint8Array, codec: Codec): IndexerRecord {
  const value = mapOf(decodeBody(body, codec), 'indexer record')
  const worker = mapOf(value['worker'] ?? null, 'worker')
  const local = hashesOf(value, 'local_hashes')
  const sequence = hashesOf(value, 'sequence_hashes')
  if (hashCount(local) !== hashCount(sequence)) throw malformed(`indexer record: ${hashCount(local)} local_hashes and ${hashCount(sequence)} sequence_hashes`)
  return { modelName: nameOf(value), rank: { workerId: integerOf(worker['worker_id'], 'worker_id'), dpRank: Number(integerOf(worker['dp_rank'] ?? 0, 'dp_rank')) }, local, sequence }
}

export const encodeIndexerRecorded = (codec: Codec): Uint8Array => encodeItem('Recorded', codec)

/** Null: recorded. */
export function decodeIndexerRecorded(body: Uint8Array, codec: Codec): string | null {
  const { data } = decodeItem(body, codec)
  if (data === 'Recorded') return null
  return isObject(data) ? String((data as WireObject)['Error'] ?? 'an answer of an unknown kind') : 'an answer of an unknown kind'
}

function mapOf(value: WireValue, subject: string): WireObject {
  if (!isObject(value)) throw malformed(`${subject}: expected a map`)
  return value as WireObject
}

function arrayOf(value: WireValue, subject: string): readonly WireValue[] {
  if (!Array.isArray(value)) throw malformed(`indexer: ${subject} is not an array`)
  return value
}

function integerOf(value: WireValue | undefined, field: string): bigint {
  if (typeof value === 'bigint') return value
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw malformed(`indexer: ${field} is not an integer`)
  return BigInt(value)
}

function nameOf(value: WireObject): string {
  const name = value['model_name']
  if (typeof name !== 'string') throw malformed('indexer: model_name is not a string')
  return name
}

function hashesOf(value: WireObject, field: string): HashList {
  const hashes = arrayOf(value[field] ?? null, field)
  if (hashes.length > hashesMax) throw malformed(`indexer: ${field} has ${hashes.length} entries, at most ${hashesMax} are taken`)
  return hashListOf(hashes.map((hash) => integerOf(hash, field)))
}
