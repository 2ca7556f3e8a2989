import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hashListOf, hashesToBigints } from '../../model/hash-list.ts'
import { KvEventLog } from './kv-event-log.ts'
import type { KvChange } from './kv-event-log.ts'

const rank = { workerId: 2n ** 64n - 3n, dpRank: 2 }

function stored(parent: bigint | null, ...blocks: bigint[]): KvChange {
  const hashes = hashListOf(blocks)
  return { storageTier: 'device', data: { kind: 'stored', parentHash: parent, startPosition: null, blockHashes: hashes, tokensHashes: hashes, mmInfos: null } }
}
const removed = (...blocks: bigint[]): KvChange => ({ storageTier: 'device', data: { kind: 'removed', blockHashes: hashListOf(blocks) } })
const ask = (startEventId: bigint | null, endEventId: bigint | null = null) => ({ ...rank, startEventId, endEventId })

test('ids run from 1; a replay begins where it was asked to', () => {
  const log = new KvEventLog(rank, 4)
  const events = [1n, 2n, 3n].map((block) => log.append(stored(null, block)))
  assert.deepEqual(events.map((event) => event.eventId), [1n, 2n, 3n])
  assert.deepEqual(log.answer(ask(2n)), { Events: { events: events.slice(1), lastEventId: 3n } })
  assert.deepEqual(log.answer(ask(2n, 2n)), { Events: { events: events.slice(1), lastEventId: 3n } }, 'the end does not cut')
  assert.deepEqual(log.answer(ask(4n)), { TooNew: { requestedStart: 4n, requestedEnd: 3n, newestAvailable: 3n } })
  assert.deepEqual(log.answer(ask(3n, 2n)), { InvalidRange: { startId: 3n, endId: 2n } })
  assert.match(String(Object.values(log.answer({ ...ask(1n), workerId: 1n }))), /worker_id 1 asked/)
  assert.match(String(Object.values(log.answer({ ...ask(1n), dpRank: 0 }))), /dp_rank 0 asked/)
})

test('what is older than the ring is answered with a dump of what is held, parents first', () => {
  const log = new KvEventLog(rank, 2)
  assert.deepEqual(log.answer(ask(null)), { TreeDump: { events: [], lastEventId: 0n } })
  log.append(stored(null, 1n, 2n))
  log.append(stored(2n, 3n))
  log.append(stored(null, 9n))
  log.append(removed(9n))
  assert.deepEqual(Object.keys(log.answer(ask(3n))), ['Events'])
  const reply = log.answer(ask(2n))
  if (!('TreeDump' in reply)) assert.fail(Object.keys(reply).join())
  const { events, lastEventId } = reply.TreeDump
  assert.equal(lastEventId, 4n)
  const seen = new Set<bigint>()
  for (const { data, eventId } of events) {
    if (data.kind !== 'stored') assert.fail(data.kind)
    assert.ok(data.parentHash === null || seen.has(data.parentHash), `parent of event ${eventId}`)
    for (const hash of hashesToBigints(data.blockHashes)) seen.add(hash)
  }
  assert.deepEqual([...seen].sort(), [1n, 2n, 3n])
  log.append({ storageTier: 'device', data: { kind: 'cleared' } })
  assert.deepEqual(log.answer(ask(null)), { TreeDump: { events: [], lastEventId: 5n } })
})
