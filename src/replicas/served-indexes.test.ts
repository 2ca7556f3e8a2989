/** Goal: one record per component whatever models are behind it, gone with the last pool; each model's own index answers. Method: memory discovery and a server that keeps its handlers. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog, systemClock } from '../../test/request-plane-kit.ts'
import { until } from '../../test/until.ts'
import { MemoryDiscovery, MemoryStore } from '../dynamo/discovery/memory-discovery.ts'
import { decodeIndexerAnswer, encodeIndexerQuestion, indexerQueryEndpoint } from '../dynamo/wire/indexer.ts'
import { localBlockHashes, sequenceHashes } from '../hashing/block-hashes.ts'
import type { IncomingRequest, RequestHandler, RequestPlaneServer, ResponseWriter } from '../ports.ts'
import { KvRouter } from '../router/kv-router.ts'
import { defaultRouterSettings } from '../router/settings.ts'
import { ServedIndexes, type IndexSource } from './served-indexes.ts'

const blockSize = 4
const local = localBlockHashes(Uint32Array.from([1, 2, 3, 4, 5, 6, 7, 8]), { blockSize })

/** A router whose one worker holds so many blocks of the prompt. */
function routerWith(workerId: bigint, blocks: number): KvRouter {
  const router = new KvRouter({ ...defaultRouterSettings, blockSize }, { clock: systemClock, random: { float: () => 0, u64: () => [0, 0] } })
  router.upsertWorker({ workerId, dpStart: 0, dpSize: 1, totalKvBlocks: 100, maxNumBatchedTokens: null, taints: [], topologyDomains: new Map() })
  const tokensHashes = local.subarray(0, 2 * blocks)
  router.applyEvent({ workerId, dpRank: 0, storageTier: 'device', residencyDomain: 'absent', eventId: 1n, data: { kind: 'stored', parentHash: null, startPosition: null, blockHashes: sequenceHashes(tokensHashes), tokensHashes, mmInfos: null } })
  return router
}

test('pools of two models share the endpoint of their component, which goes with the last of them', async () => {
  const discovery = new MemoryDiscovery(new MemoryStore(silentLog))
  await discovery.start(AbortSignal.timeout(5000))
  const handlers = new Map<string, RequestHandler>()
  const server: RequestPlaneServer = {
    start: async () => {}, close: async () => {},
    serve: ({ component, endpoint }, _id, handler) => {
      const key = `${component}.${endpoint}`
      assert.ok(!handlers.has(key), `${key} is served once`)
      handlers.set(key, handler)
      return { transport: { tcp: '127.0.0.1:1/x' }, inflight: 0, ready: Promise.resolve(), close: () => void handlers.delete(key) }
    },
  }
  const records = new Set<string>()
  discovery.watch('v1/instances', 'ns/', (event) => {
    if (event.kind === 'put') records.add(event.key)
    else if (event.kind === 'delete') records.delete(event.key)
  })
  let sources: IndexSource[] = []
  const indexes = new ServedIndexes({ discovery, server, clock: systemClock, log: silentLog, codec: 'msgpack', isApproximate: false, measured: (_name, handler) => handler, sources: () => sources })
  const at = (component: string) => ({ namespace: 'ns', component, endpoint: 'generate' })
  const set = (...next: IndexSource[]): void => {
    sources = next
    indexes.changed()
    indexes.changed()
  }
  const ask = (component: string, modelName: string): string => {
    const written: Uint8Array[] = []
    const request = { codec: 'msgpack', body: encodeIndexerQuestion({ modelName, local, deviceOnly: false }, 'msgpack') } as unknown as IncomingRequest
    const response = { writeItem: (body: Uint8Array) => written.push(body), end() {} } as unknown as ResponseWriter
    void handlers.get(`${component}.${indexerQueryEndpoint}`)?.(request, response)
    try {
      return decodeIndexerAnswer(written[0] as Uint8Array, 'msgpack').map(({ workerId, deviceBlocks }) => `${workerId}:${deviceBlocks}`).join()
    } catch (error) {
      return (error as Error).message
    }
  }
  const one: IndexSource = { endpoints: [at('a')], modelName: 'one', router: routerWith(1n, 1) }
  const two: IndexSource = { endpoints: [at('a'), at('b')], modelName: 'two', router: routerWith(2n, 2) }
  set(one, two)
  await until('both components have a record', () => records.size === 2)
  assert.deepEqual([ask('a', 'one'), ask('a', 'two'), ask('b', 'two')], ['1:1', '2:2', '2:2'])
  assert.match(ask('b', 'one'), /no index of model one is served here/)
  set(one)
  await until('one component is left', () => records.size === 1 && !handlers.has(`b.${indexerQueryEndpoint}`))
  assert.match(ask('a', 'two'), /no index of model two/)
  set({ ...one, router: null }, two)
  await until('both again', () => records.size === 2)
  assert.match(ask('a', 'one'), /no index of model one/)
  await indexes.unregister()
  await until('no record is left', () => records.size === 0)
  set(one)
  indexes.close()
  assert.equal(handlers.size, 0)
  await discovery.close()
})
