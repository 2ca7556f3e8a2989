/** Goal: the budget of `--index-memory` reaches the index, and what it costs is counted. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemPorts } from '../system-ports.ts'
import { KvRouter } from './kv-router.ts'
import { defaultRouterSettings } from './settings.ts'

test('a router with a memory budget for its index forgets blocks and says how many', () => {
  const bytesMax = 8 * 1024 * 1024
  const router = new KvRouter({ ...defaultRouterSettings, indexMemoryBytes: bytesMax }, systemPorts())
  router.upsertWorker({ workerId: 1n, dpStart: 0, dpSize: 1, totalKvBlocks: null, maxNumBatchedTokens: null, taints: [], topologyDomains: new Map() })
  for (let event = 0; event < 4000; event += 1) {
    const hashes = Uint32Array.from({ length: 128 }, (_, word) => event * 128 + word + 1)
    const status = router.applyEvent({
      workerId: 1n, dpRank: 0, storageTier: 'device', residencyDomain: 'worker', eventId: BigInt(event),
      data: { kind: 'stored', parentHash: null, startPosition: null, blockHashes: hashes, tokensHashes: hashes, mmInfos: null },
    })
    assert.equal(status, 'ok')
  }
  assert.ok(router.indexBytes <= bytesMax, `${router.indexBytes} bytes`)
  assert.equal(router.indexEntryCount + router.boundCounts.memoryEvictions, 256_000)
})
