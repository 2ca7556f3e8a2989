/** The index of another indexer or selection service, read at start. */
import { parseJson } from '../dynamo/wire/json.ts'
import type { RouterEvent } from '../model/kv-event.ts'
import type { Log } from '../ports.ts'
import { listOf, objectOf, required, u32Of } from './body-fields.ts'
import { readDumpedEvent } from './event-json.ts'
import type { PartitionKey } from './partition-key.ts'

/** Longest wait for one peer. */
const peerDeadlineMs = 10_000
/** Largest dump that is read. */
const dumpBytesMax = 1024 * 1024 * 1024

export interface DumpedPartition {
  readonly key: PartitionKey
  readonly blockSize: number
  readonly events: readonly RouterEvent[]
}

/** The index of the first peer that answers; null: none did. */
export async function readPeerDump(peers: readonly string[], log: Log, signal: AbortSignal): Promise<readonly DumpedPartition[] | null> {
  for (const peer of peers) {
    try {
      const response = await fetch(`${peer.replace(/\/$/, '')}/dump`, { signal: AbortSignal.any([signal, AbortSignal.timeout(peerDeadlineMs)]) })
      if (!response.ok) throw new Error(`status ${response.status}`)
      const length = Number(response.headers.get('content-length') ?? 0)
      if (length > dumpBytesMax) throw new Error(`a dump of ${length} bytes, more than ${dumpBytesMax}`)
      const partitions = partitionsOf(parseJson(await response.text()))
      log.info({ stage: 'start', peer, events: partitions.reduce((sum, { events }) => sum + events.length, 0) }, 'index read from a peer')
      return partitions
    } catch (error) {
      if (signal.aborted) throw error
      log.warn({ stage: 'start', peer, reason: error instanceof Error ? error.message : String(error) }, 'the index of a peer cannot be read')
    }
  }
  return null
}

/** Errors: `BodyError`, or an `Error` for a key without a group. */
export function partitionsOf(dump: unknown): DumpedPartition[] {
  return Object.entries(objectOf(dump, 'the dump')).map(([name, value]) => {
    const split = name.indexOf(':')
    if (split < 0) throw new Error(`the dump's key ${JSON.stringify(name)} is not MODEL:GROUP`)
    const entry = objectOf(value, name)
    const events = required(entry, 'events', listOf).flatMap((event) => readDumpedEvent(event) ?? [])
    return { key: { model: name.slice(0, split), group: name.slice(split + 1) }, blockSize: required(entry, 'block_size', u32Of), events }
  })
}
