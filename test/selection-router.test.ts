/** What options of selection change from end to end: assumed blocks of outputs, predicted blocks, policies, a shared cache. Scripted workers on loopback. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { encode } from '@msgpack/msgpack'
import * as zmq from 'zeromq'
import { pageHashes } from '../src/dynamo/shared-cache/hicache-keys.ts'
import type { WireValue } from '../src/dynamo/wire/body.ts'
import { encodeData } from '../src/dynamo/wire/items.ts'
import type { RequestHandler } from '../src/ports.ts'
import { SmallDeployment, plainCard } from './standalone-kit.ts'

let small: SmallDeployment
beforeEach(() => { small = new SmallDeployment() })
afterEach(() => small.close())

const generate = 'dynamo.router.generate'
const count = (from: number, length: number): number[] => Array.from({ length }, (_, index) => from + index)

/** Sends tokens 1000, 1001, … one an output. */
const answers = (length: number): RequestHandler => (request, response) => {
  for (let index = 0; index < length; index += 1) {
    response.writeItem(encodeData({ token_ids: [1000 + index], ...(index === length - 1 ? { finish_reason: 'length' } : {}) }, request.codec))
  }
  response.end()
}

interface Overlap {
  readonly workers: readonly { readonly worker_id: bigint; readonly device_blocks: number; readonly shared_beyond_device_blocks: number | null }[]
  readonly shared_cache: { readonly enabled: boolean; readonly total_hit_blocks: number; readonly ranges: unknown; readonly error: string | null }
}
const overlapOf = async (request: WireValue): Promise<Overlap> => (await small.call('dynamo.router.get_overlap_scores', request))[0] as never

test('lru: the answer belongs to what the worker holds, for the next turn of a chat', async () => {
  await small.worker(answers(10))
  await small.router(['--no-router-kv-events', '--router-approximate-cache-policy', 'lru'])
  await small.call(generate, { token_ids: count(0, 24), stop_conditions: { max_tokens: 10 } })
  const next = [...count(0, 24), ...count(1000, 10), 5, 6, 7]
  assert.deepEqual((await overlapOf({ token_ids: next })).workers.map(({ device_blocks }) => device_blocks), [2], '34 tokens are two blocks of 16')
})

test('ttl: only prompts are assumed, as in the original', async () => {
  await small.worker(answers(10))
  await small.router(['--no-router-kv-events'])
  await small.call(generate, { token_ids: count(0, 24), stop_conditions: { max_tokens: 10 } })
  assert.deepEqual((await overlapOf({ token_ids: [...count(0, 24), ...count(1000, 10)] })).workers.map(({ device_blocks }) => device_blocks), [1])
})

test('predicted: a second request meets the first one\'s blocks before any event', async () => {
  for (let index = 0; index < 2; index += 1) await small.worker(answers(1), { card: plainCard({}, { kv_event_publishing_enabled: true }) })
  await small.router(['--router-predicted-ttl-secs', '60', '--kv-event-grace', '1000'])
  const prompt = { token_ids: count(0, 40), stop_conditions: { max_tokens: 1 } }
  await small.call(generate, prompt)
  assert.deepEqual((await overlapOf(prompt)).workers.map(({ device_blocks }) => device_blocks).sort(), [0, 2])
})

test('hicache: pages of the shared store count, as its master says', async () => {
  const master = new zmq.Publisher({ linger: 0 })
  await master.bind('tcp://127.0.0.1:0')
  const entry = {
    backend: 'mooncake', page_size: 16, tp_size: 1, pp_size: 1, is_mla_model: true, is_eagle: false, tp_lcm_size: null, should_split_heads: false,
    extra_backend_tag: null, key_prefix: 'tiny', kv_events_endpoint: master.lastEndpoint,
  }
  await small.worker(answers(1), { card: plainCard({}, { runtime_data: { sglang_hicache_mooncake: entry } }) })
  const { close } = await small.router(['--shared-cache-type', 'hicache'])
  try {
    const prompt = { token_ids: count(0, 50) }
    const events = pageHashes(Uint32Array.from(prompt.token_ids), { pageSize: 16, isEagle: false }).slice(0, 2)
      .map((hash) => ({ event_type: 'stored', object_key: `tiny_${hash}__k`, tenant_id: 'default', group_id: null }))
    let overlap = await overlapOf(prompt)
    assert.deepEqual([overlap.shared_cache, overlap.workers[0]?.shared_beyond_device_blocks], [{ enabled: true, total_hit_blocks: 0, ranges: [], error: null }, 0])
    // A subscription takes a moment; a later message says the same again.
    for (let sequence = 1n; overlap.shared_cache.total_hit_blocks === 0; sequence += 1n) {
      const frame = Buffer.alloc(8)
      frame.writeBigUInt64BE(sequence)
      await master.send(['', frame, Buffer.from(encode([0, events, 0]))])
      await new Promise((resolve) => setImmediate(resolve))
      overlap = await overlapOf(prompt)
    }
    assert.deepEqual(overlap.shared_cache, { enabled: true, total_hit_blocks: 2, ranges: [[0, 2]], error: null })
    assert.equal(overlap.workers[0]?.shared_beyond_device_blocks, 2)
    const without = await overlapOf({ ...prompt, include_shared: false })
    assert.deepEqual([without.shared_cache.enabled, without.workers[0]?.shared_beyond_device_blocks], [false, null])
  } finally {
    close()
    master.close()
  }
})
