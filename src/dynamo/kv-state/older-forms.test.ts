/** Goal: events and recovery answers of Dynamo 1.1.1 and 1.3.1 are read. Method: bytes recorded from real workers. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fixturePath } from '../../../test/repo-root.ts'
import { hashCount } from '../../model/hash-list.ts'
import { decodeEventFrames } from '../event-plane/envelope.ts'
import { decodeKvEvents } from '../wire/kv-events.ts'
import { rankOfQueryEndpoint } from './older-sources.ts'

for (const version of ['1.1.1', '1.3.1']) {
  test(`events of ${version} are one map, of the rank that they name`, () => {
    const messages = JSON.parse(readFileSync(fixturePath('compat', `zmq-events-${version}.json`), 'utf8')) as { frames_hex: string[] }[]
    assert.ok(messages.length > 0)
    for (const { frames_hex: frames } of messages) {
      const envelope = decodeEventFrames(frames.map((frame) => Buffer.from(frame, 'hex')), 'kv-events', null)
      if (typeof envelope === 'string') assert.fail(envelope)
      const [event, ...more] = decodeKvEvents(envelope.payload)
      assert.equal(more.length, 0)
      assert.ok(event !== undefined && event.workerId > 2n ** 53n)
      assert.deepEqual([event.storageTier, event.residencyDomain, event.dpRank], ['device', 'absent', 0])
      assert.ok(event.data.kind === 'stored' && hashCount(event.data.blockHashes) > 0)
      // Only before 1.3 the publisher is the worker itself.
      assert.equal(envelope.publisherId === event.workerId, version === '1.1.1')
    }
  })
}

test('the endpoints that answer for a rank are told by their names', () => {
  assert.deepEqual(['worker_kv_indexer_query_dp0', 'worker_kv_indexer_query_dp12', 'worker_kv_indexer_query_dp', 'worker_kv_query_source_1', 'generate'].map(rankOfQueryEndpoint), [0, 12, null, null, null])
})
