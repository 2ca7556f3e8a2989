import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import type { JsonObject } from '../../ports.ts'
import { fixturePath } from '../../../test/repo-root.ts'
import { parseJson } from '../wire/json.ts'
import { refusedCardChange } from './card-change.ts'
import { CardError } from './card-error.ts'
import { describeWorker, parseModelCard, slugOf } from './model-card.ts'
import { renamedCard } from './renamed-card.ts'

const object = (value: unknown): JsonObject => value as JsonObject

function recorded(file: 'file-store-snapshot.json' | 'etcd-keys.json'): JsonObject {
  const entries = JSON.parse(readFileSync(fixturePath('wire', file), 'utf8')) as Record<string, string>[]
  const entry = entries.find((entry) => (entry['file'] ?? entry['key'])?.startsWith('v1/mdc/'))
  return object(parseJson(entry?.['content'] ?? entry?.['value_text'] ?? ''))
}

/** A recorded card, with fields of `card_json` and of its `runtime_config` replaced; undefined leaves one out. */
function card(fields: Record<string, unknown> = {}, runtime: Record<string, unknown> = {}): JsonObject {
  const record = recorded('file-store-snapshot.json')
  const json = object(record['card_json'])
  const merged = { ...json, ...fields, runtime_config: { ...object(json['runtime_config']), ...runtime } }
  return { ...record, card_json: Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== undefined)) as JsonObject }
}

test('a recorded card of each store is read', () => {
  const read = parseModelCard(recorded('file-store-snapshot.json'))
  const { raw, ...fields } = read
  assert.deepEqual(fields, {
    namespace: 'dynamo', component: 'backend', endpoint: 'generate', instanceId: 13_428_561_255_892_356_228n,
    displayName: 'tiny', slug: 'tiny', blockSize: 16, modelType: ['Chat', 'Completions'], modelInput: 'Tokens',
    role: 'aggregated', declaresRole: true, needs: [], isEagle: false, totalKvBlocks: 16_384, maxNumSeqs: 256,
    maxNumBatchedTokens: 8_192, contextLength: 32_768, dpStart: 0, dpSize: 1, taints: [], topologyDomains: new Map(), kvTransfer: null,
    publishesKvEvents: true, enableLocalIndexer: true, bootstrap: null, stableRoutingId: null, loraName: null, aliases: [],
  })
  assert.equal(raw['source_path'], '/models/tiny', 'unknown fields are kept')
  assert.equal(parseModelCard(recorded('etcd-keys.json')).instanceId, 2_324_035_503_521_650_723n)
})

test('roles: declared, legacy prefill, and none', () => {
  const role = (fields: Record<string, unknown>): unknown[] => {
    const { role, declaresRole, needs } = parseModelCard(card(fields))
    return [role, declaresRole, needs]
  }
  assert.deepEqual(role({ worker_type: 'decode', needs: [['prefill']] }), ['decode', true, [['prefill']]])
  assert.deepEqual(role({ worker_type: 'prefill', model_type: '', needs: [['decode']] }), ['prefill', true, [['decode']]])
  assert.deepEqual(role({ worker_type: null, model_type: 'Prefill', needs: null }), ['prefill', false, [['decode']]])
  assert.deepEqual(role({ worker_type: undefined, model_type: 'Chat | Prefill', needs: undefined }), ['prefill', false, [['decode']]])
  assert.deepEqual(role({ worker_type: undefined, needs: undefined }), ['aggregated', false, []])
  assert.deepEqual(role({ worker_type: 'encode', model_type: 'Prefill' }), ['encode', true, []])
})

test('capacity, ranks, topology and events reach the worker description', () => {
  const read = parseModelCard(card({}, {
    data_parallel_start_rank: 2, data_parallel_size: 4, total_kv_blocks: 100, max_num_batched_tokens: null, enable_eagle: true,
    taints: ['dynamo.topology/zone=a', 'gpu=h100'], topology_domains: { zone: 'a' }, kv_transfer_domain: 'zone', kv_transfer_enforcement: 'preferred',
    kv_transfer_preferred_weight: 0.5, kv_event_publishing_enabled: undefined, enable_local_indexer: undefined,
    disaggregated_endpoint: { bootstrap_host: '192.0.2.1', bootstrap_port: 8998 },
  }))
  assert.deepEqual(describeWorker(read, ['adapter']), {
    workerId: 13_428_561_255_892_356_228n, dpStart: 2, dpSize: 4, totalKvBlocks: 100, maxNumBatchedTokens: null, taints: ['gpu=h100'],
    topologyDomains: new Map([['zone', 'a']]), loraNames: ['adapter'], publishesKvEvents: null,
  })
  assert.deepEqual(read.kvTransfer, { domain: 'zone', enforcement: 'preferred', preferredWeight: 0.5 })
  assert.deepEqual(read.bootstrap, { host: '192.0.2.1', port: 8_998 })
  assert.equal(read.isEagle, true)
  assert.equal(read.enableLocalIndexer, true)
})

test('a card without runtime_config or block size is read', () => {
  const record = recorded('file-store-snapshot.json')
  const { dpStart, dpSize, blockSize, totalKvBlocks, publishesKvEvents, contextLength } = parseModelCard({ ...record, card_json: { display_name: 'old', context_length: 99, kv_cache_block_size: 0 } })
  assert.deepEqual([dpStart, dpSize, blockSize, totalKvBlocks, publishesKvEvents, contextLength], [0, 1, null, null, null, 99])
})

test('LoRA cards are known by suffix or by content', () => {
  assert.equal(parseModelCard(card({ display_name: 'my-adapter' }), 'my-adapter').loraName, 'my-adapter')
  assert.equal(parseModelCard(card({ lora: { name: 'adapter', max_gpu_lora_count: 4 } }), 'x').loraName, 'adapter')
  assert.equal(parseModelCard(card()).loraName, null)
})

test('bad fields are named with their value', () => {
  const cases: [JsonObject, string, string][] = [
    [{}, 'card_json', 'missing'],
    [{ ...card(), type: 'Endpoint' }, 'type', '"Endpoint"'],
    [{ ...card(), instance_id: -1 }, 'instance_id', '-1'],
    [card({ display_name: '' }), 'card_json.display_name', '""'],
    [card({ kv_cache_block_size: '16' }), 'card_json.kv_cache_block_size', '"16"'],
    [card({ kv_cache_block_size: 1.5 }), 'card_json.kv_cache_block_size', '1.5'],
    [card({ worker_type: 'Decode' }), 'card_json.worker_type', '"Decode"'],
    [card({ needs: ['prefill'] }), 'card_json.needs', '["prefill"]'],
    [card({ runtime_config: undefined }, { data_parallel_size: 0 }), 'card_json.runtime_config.data_parallel_size', '0'],
    [card({}, { data_parallel_size: 5_000 }), 'card_json.runtime_config.data_parallel_size', '5000'],
    [card({}, { total_kv_blocks: 18_446_744_073_709_551_615n }), 'card_json.runtime_config.total_kv_blocks', '"18446744073709551615"'],
    [card({}, { topology_domains: { zone: 1 } }), 'card_json.runtime_config.topology_domains.zone', '1'],
    [card({}, { topology_domains: {}, kv_transfer_domain: 'zone' }), 'card_json.runtime_config.kv_transfer_domain', '"zone"'],
    [card({}, { topology_domains: { z: 'a' }, kv_transfer_domain: 'z', kv_transfer_enforcement: 'preferred' }), 'card_json.runtime_config.kv_transfer_preferred_weight', 'missing'],
  ]
  for (const [record, field, value] of cases) {
    assert.throws(() => parseModelCard(record), (error) => error instanceof CardError && error.field === field && error.value === value && error.message.includes(field), field)
  }
})

test('any JSON gives a card or a CardError', () => {
  fc.assert(fc.property(fc.dictionary(fc.constantFrom('display_name', 'needs', 'runtime_config', 'lora', 'model_type', 'x'), fc.jsonValue()), (fields) => {
    try {
      parseModelCard(card(fields))
    } catch (error) {
      assert.ok(error instanceof CardError, String(error))
    }
  }))
})

test('only taints may change', () => {
  const before = parseModelCard(card())
  assert.equal(refusedCardChange(before, parseModelCard(card({}, { taints: ['drain'] }))), null)
  const reordered = Object.fromEntries(Object.entries(object(card()['card_json'])).reverse())
  assert.equal(refusedCardChange(before, parseModelCard({ ...card(), card_json: reordered })), null, 'the order of fields is no change')
  assert.match(refusedCardChange(before, parseModelCard(card({ kv_cache_block_size: 32 }))) ?? '', /kv_cache_block_size/)
  assert.match(refusedCardChange(before, parseModelCard(card({}, { total_kv_blocks: 1 }))) ?? '', /runtime_config/)
  assert.match(refusedCardChange(before, parseModelCard(card({}, { taints: ['dynamo.topology/zone=b'] }))) ?? '', /topology_domains/)
})

test('a renamed card keeps what it does not know and speaks for its new owner', () => {
  const source = parseModelCard(card({ aliases: ['other'], novel: { a: 1 } }, { data_parallel_size: 4 }))
  const record = renamedCard(source, { name: 'My Model/v1.0', instanceId: 2n ** 63n, endpoint: { namespace: 'front', component: 'router', endpoint: 'generate' } })
  const renamed = parseModelCard(record)
  assert.equal(renamed.displayName, 'My Model/v1.0')
  assert.equal(renamed.slug, 'my_model_v1_0')
  assert.equal(renamed.instanceId, 2n ** 63n)
  assert.deepEqual([renamed.namespace, renamed.component, renamed.endpoint], ['front', 'router', 'generate'])
  assert.deepEqual([renamed.publishesKvEvents, renamed.enableLocalIndexer, renamed.dpSize, renamed.aliases], [false, false, 1, []])
  assert.deepEqual(renamed.raw['novel'], { a: 1 })
  assert.equal(renamed.blockSize, 16)
  assert.equal(renamed.raw['source_path'], '/models/tiny', 'where the files are looked for stays')
  assert.equal(source.displayName, 'tiny', 'the source is as before')
})

test('slugs', () => {
  assert.equal(slugOf('Qwen/Qwen3-0.6B'), 'qwen_qwen3-0_6b')
  assert.equal(slugOf('a_b-c'), 'a_b-c')
})
