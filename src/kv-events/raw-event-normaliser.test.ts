/** Goal: which raw events become router events, with what tier, namespace and hashes. Values of whole scripts: golden kind `zmq_kv_events`. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { localBlockHashes } from '../hashing/block-hashes.ts'
import { padToken } from '../hashing/multimodal.ts'
import { hashListOf } from '../model/hash-list.ts'
import type { BlockMmInfo, RouterEvent } from '../model/kv-event.ts'
import { tierOfMedium } from './event-filter.ts'
import { NamespaceTracker } from './namespace-tracker.ts'
import type { RawEvent, RawRemoved, RawStored } from './raw-event.ts'
import { RawEventNormaliser, type NormaliserSettings } from './raw-event-normaliser.ts'

const placement = { medium: null, locality: null, ownership: null, groupIndex: null, attentionKind: null }
const stored = (fields: Partial<RawStored> = {}): RawStored => ({
  kind: 'stored', ...placement, blockHashes: hashListOf([11n]), parentHash: null, tokens: Uint32Array.of(1, 2), isEagle: false, blockSize: 2,
  loraName: null, cacheNamespace: null, mmInfos: null, sessionId: null, ...fields,
})
const removed = (fields: Partial<RawRemoved> = {}): RawRemoved => ({ kind: 'removed', ...placement, blockHashes: hashListOf([11n]), ...fields })
const normaliserOf = (settings: Partial<NormaliserSettings> = {}): RawEventNormaliser => new RawEventNormaliser({ workerId: 5n, blockSize: 2, ...settings })
const run = (normaliser: RawEventNormaliser, ...events: RawEvent[]): RouterEvent[] => normaliser.normalise({ dpRank: null, events }, { eventId: 9n })
const dropsOf = (...events: RawEvent[]): string[] => {
  const normaliser = normaliserOf()
  run(normaliser, ...events)
  return [...normaliser.dropped.keys()]
}
const tokensHashOf = (event: RouterEvent | undefined) => (event?.data.kind === 'stored' ? event.data.tokensHashes : null)

test('a stored event carries message id, rank, session and the router\'s own hash', () => {
  const normaliser = normaliserOf()
  const batch = { dpRank: null, events: [stored({ sessionId: 's', parentHash: 4n })] }
  assert.deepEqual(normaliser.normalise(batch, { eventId: 9n, defaultDpRank: 3 }), [{
    workerId: 5n, dpRank: 3, storageTier: 'device', residencyDomain: 'worker', eventId: 9n, sessionId: 's',
    data: {
      kind: 'stored', parentHash: 4n, startPosition: null, blockHashes: hashListOf([11n]), mmInfos: null,
      tokensHashes: localBlockHashes(Uint32Array.of(1, 2), { blockSize: 2 }),
    },
  }])
  assert.throws(() => normaliserOf({ blockSize: 0 }), /blockSize 0/)
})

test('media name tiers, exactly as spelled', () => {
  const tiers = ['GPU', 'DEVICE', '', 'CPU', 'CPU_PINNED', 'CPU_TIER1', 'CPU_TIER2', 'DISK', 'NVME', 'STORAGE', 'EXTERNAL', 'NETWORK', 'REMOTE', 'SHARED', 'gpu', 'toString'].map(tierOfMedium)
  const host = 'host_pinned'
  assert.deepEqual(tiers, ['device', 'device', 'device', host, host, host, 'disk', 'disk', 'disk', 'disk', 'external', 'external', 'external', 'external', null, null])
})

test('filters name why an event was dropped', () => {
  assert.deepEqual(dropsOf({ kind: 'ignored' }), ['ignored_event'])
  assert.deepEqual(dropsOf(stored({ ownership: 'kvcr', locality: 'REMOTE' })), ['unsupported_ownership'])
  assert.deepEqual(dropsOf({ kind: 'cleared', ownership: '' }), ['unknown_ownership'])
  assert.deepEqual(dropsOf(stored({ locality: 'REMOTE', medium: 'tape' })), ['non_local_locality'])
  assert.deepEqual(dropsOf(removed({ locality: 'local' })), ['non_local_locality'])
  assert.deepEqual(dropsOf(stored({ medium: 'tape', attentionKind: 'mamba' })), ['unknown_medium'])
  assert.deepEqual(dropsOf(stored({ attentionKind: 'mamba' })), ['non_main_attention_kind'])
  assert.deepEqual(dropsOf(stored({ attentionKind: 'new_kind' })), ['unknown_kind'])
  assert.deepEqual(dropsOf(removed({ groupIndex: 1 })), ['unlearned_group_idx'])
  assert.deepEqual(dropsOf(removed({ groupIndex: 0 }), stored({ attentionKind: 'sink_full_attention' }), stored({ attentionKind: 'mamba', medium: 'DISK' })), [])
})

test('groups are learned from stored events, per rank', () => {
  const normaliser = normaliserOf()
  run(normaliser, stored({ groupIndex: 1, attentionKind: 'mla_attention' }), stored({ groupIndex: 0, attentionKind: 'mamba' }))
  assert.equal(run(normaliser, removed({ groupIndex: 1 })).length, 1)
  assert.equal(run(normaliser, removed({ groupIndex: 0 })).length, 0)
  assert.equal(normaliser.dropped.get('non_main_attention_group'), 1)
  normaliser.normalise({ dpRank: 7, events: [removed({ groupIndex: 1 })] }, { eventId: 1n })
  assert.equal(normaliser.dropped.get('unlearned_group_idx'), 1)
  run(normaliser, removed({ groupIndex: 2, attentionKind: 'mamba' }))
  assert.equal(run(normaliser, removed({ groupIndex: 2 })).length, 0)
})

test('a namespace is inherited along the chain until the hash becomes ambiguous', () => {
  const normaliser = normaliserOf()
  const salted = localBlockHashes(Uint32Array.of(1, 2), { blockSize: 2, cacheNamespace: 't' })
  const plain = localBlockHashes(Uint32Array.of(1, 2), { blockSize: 2 })
  const child = stored({ parentHash: 11n, blockHashes: hashListOf([12n]) })
  run(normaliser, stored({ cacheNamespace: 't' }))
  assert.deepEqual(tokensHashOf(run(normaliser, child)[0]), salted)
  assert.deepEqual(tokensHashOf(run(normaliser, { ...child, cacheNamespace: '', blockHashes: hashListOf([13n]) })[0]), salted)
  run(normaliser, stored())
  assert.deepEqual([run(normaliser, child).length, normaliser.dropped.get('ambiguous_cache_namespace')], [0, 1])
  assert.equal(run(normaliser, { ...child, cacheNamespace: 'u' }).length, 1)
  run(normaliser, removed())
  assert.equal(run(normaliser, child).length, 0, 'a removal keeps the ambiguity')
  run(normaliser, { kind: 'cleared', ownership: null })
  assert.deepEqual(tokensHashOf(run(normaliser, child)[0]), plain)
})

test('lower tiers take no part in namespaces', () => {
  const normaliser = normaliserOf()
  run(normaliser, stored({ cacheNamespace: 't', medium: 'DISK' }))
  assert.deepEqual(tokensHashOf(run(normaliser, stored({ parentHash: 11n, blockHashes: hashListOf([12n]) }))[0]), localBlockHashes(Uint32Array.of(1, 2), { blockSize: 2 }))
})

test('namespace memory is bounded, counted and given back', () => {
  const tracker = new NamespaceTracker(2)
  tracker.stored(0, hashListOf([1n, 2n, 3n]), null, 't')
  assert.deepEqual([tracker.size, tracker.forgotten], [2, 1])
  tracker.removed(0, hashListOf([1n, 3n]))
  assert.equal(tracker.size, 1)
  tracker.cleared(0)
  assert.equal(tracker.size, 0)
})

test('blocks end at a wrong size or missing tokens; a repeated hash publishes nothing', () => {
  const normaliser = normaliserOf()
  const countOf = (fields: Partial<RawStored>): number => {
    const data = run(normaliser, stored(fields))[0]?.data
    assert.ok(data?.kind === 'stored')
    assert.equal(data.blockHashes.length, data.tokensHashes.length)
    return data.blockHashes.length / 2
  }
  assert.equal(countOf({ blockSize: 3 }), 0)
  assert.equal(countOf({ blockHashes: hashListOf([1n, 2n, 3n]), tokens: new Uint32Array(5) }), 2)
  assert.equal(countOf({ blockHashes: hashListOf([1n, 2n, 3n]), tokens: new Uint32Array(6), isEagle: true }), 2)
  assert.equal(normaliser.refusedBlocks, 3)
  const repeated = [stored({ blockHashes: hashListOf([1n, 1n]) }), stored({ parentHash: 11n })]
  for (const event of run(normaliser, ...repeated)) assert.deepEqual(event.data, { kind: 'removed', blockHashes: new Uint32Array(0) })
})

test('placeholders become pads of their objects when they can be told apart', () => {
  const info = (...hashes: bigint[]): BlockMmInfo => ({ mmObjects: hashes.map((mmHash) => ({ mmHash, offsets: [] })) })
  const hashOf = (settings: Partial<NormaliserSettings>, tokens: number[], mmInfo: BlockMmInfo) =>
    tokensHashOf(run(normaliserOf({ blockSize: tokens.length, ...settings }), stored({ blockSize: tokens.length, tokens: Uint32Array.from(tokens), mmInfos: [mmInfo] }))[0])
  const plain = (...tokens: number[]) => localBlockHashes(Uint32Array.from(tokens), { blockSize: tokens.length })
  const native = (tokens: number[], mmInfo: BlockMmInfo) => localBlockHashes(Uint32Array.from(tokens), { blockSize: tokens.length, blockMmInfos: [mmInfo] })
  const [a, b] = [padToken(7n), padToken(9n)]
  const image = { imageTokenId: 100 }
  const both = { imageTokenId: 100, videoTokenId: 200 }
  assert.deepEqual(hashOf({}, [100, 5], info(7n)), native([100, 5], info(7n)))
  assert.deepEqual(hashOf(image, [100, 100, 5, 100, 6, 100], info(7n, 9n)), plain(a, a, 5, b, 6, b))
  assert.deepEqual(hashOf(image, [4, 5], info(7n)), native([4, 5], info(7n)))
  assert.deepEqual(hashOf(both, [100, 200, 5, 200], info(7n, 9n)), plain(a, b, 5, b))
  assert.deepEqual(hashOf(both, [100, 5, 100, 6], info(7n)), native([100, 5, 100, 6], info(7n)))
  assert.deepEqual(hashOf(both, [4, 5], info(7n)), native([4, 5], info(7n)))
  assert.deepEqual(hashOf({ imageTokenId: 100, videoTokenId: 100 }, [100, 5], info(7n)), native([100, 5], info(7n)))
})
