import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ServiceInProcess } from '../../golden/selection-service.ts'
import { hashListOf } from '../../model/hash-list.ts'
import { PromptHasher } from '../../router/prompt-hasher.ts'
import { defaultRouterSettings } from '../../router/settings.ts'
import type { Answer } from '../answer.ts'

const settings = { ...defaultRouterSettings, blockSize: 2 }
const tokens = [1, 2, 3, 4, 5, 6]
/** Local hashes of the prompt, two words per block. */
const local = new PromptHasher(settings).local({ tokens: Uint32Array.from(tokens) })

interface Held { readonly workerId: bigint; readonly dpRank?: number; readonly names: readonly bigint[]; readonly onHost?: number }

/** Workers 1 to 3 with what they hold of the prompt; `more`: fields of each registration. */
function serviceOf(held: readonly Held[], more: Readonly<Record<number, Record<string, unknown>>> = {}): ServiceInProcess {
  const inProcess = new ServiceInProcess(() => settings, true)
  for (const id of [1, 2, 3]) {
    const body = {
      worker_id: id, endpoint: `http://w${id}`, block_size: 2, kv_events_endpoint: 'tcp://127.0.0.1:1', router_hint_worker_type: 'decode',
      router_hint_source_control_endpoints: { 0: `tcp://w${id}:9000` }, ...more[id],
    }
    assert.equal((inProcess.call('POST', '/workers', body) as Answer).status, 201)
  }
  const { router } = inProcess.service.membership.partitions[0]!
  for (const { workerId, dpRank = 0, names, onHost = 0 } of held) {
    const device = names.length - onHost
    const stored = (storageTier: 'device' | 'host_pinned', from: number, to: number) => router.applyEvent({
      workerId, storageTier, residencyDomain: 'worker', dpRank, eventId: 1n,
      data: {
        kind: 'stored', parentHash: from === 0 ? null : names[from - 1]!, startPosition: null, mmInfos: null,
        blockHashes: hashListOf(names.slice(from, to)), tokensHashes: local.subarray(2 * from, 2 * to),
      },
    })
    if (device > 0) assert.equal(stored('device', 0, device), 'ok')
    if (onHost > 0) assert.equal(stored('host_pinned', device, names.length), 'ok')
  }
  return inProcess
}

function hintFor(inProcess: ServiceInProcess, path = '/select_and_reserve', workerId = 2): unknown {
  const { status, body } = inProcess.call('POST', path, { selection_id: 'r', token_ids: tokens, pinned_worker: { worker_id: workerId, dp_rank: 0 } }) as Answer
  assert.equal(status, 200)
  return (body as Record<string, unknown>)['kv_hint']
}

test('a booking names a worker of the same type that holds more of the prompt, and its names of the blocks', () => {
  const held = [{ workerId: 1n, names: [11n, 12n] }, { workerId: 3n, names: [2n ** 64n - 1n, 22n, 23n], onHost: 1 }, { workerId: 2n, names: [31n] }]
  assert.deepEqual(hintFor(serviceOf(held)), {
    protocol_version: '0.1', message_id: 'r',
    actions: [{ action_id: 'a1', action_type: 'kv.fetch', action_version: '1.0', payload: { block_hashes: [2n ** 64n - 1n, 22n, 23n], source_control_endpoint: 'tcp://w3:9000' } }],
  })
  assert.equal(hintFor(serviceOf(held), '/select'), undefined, 'a mere question gets none')
  assert.equal(hintFor(serviceOf(held), '/select_and_reserve', 3), undefined, 'nobody holds more')
})

test('no hint: equal holdings, another type, no type, no endpoint, a state agent', () => {
  const held = [{ workerId: 1n, names: [11n, 12n] }]
  assert.equal(hintFor(serviceOf([...held, { workerId: 2n, names: [11n, 12n] }])), undefined)
  for (const fields of [{ router_hint_worker_type: 'prefill' }, { router_hint_worker_type: '' }, { router_hint_source_control_endpoints: { 0: '' } }, { kv_event_source_mode: 'state_agent_v2' }]) {
    assert.equal(hintFor(serviceOf(held, { 1: fields })), undefined, JSON.stringify(fields))
  }
  assert.equal(hintFor(serviceOf(held, { 2: { router_hint_worker_type: null } })), undefined, 'the chosen worker takes none')
  assert.notEqual(hintFor(serviceOf(held, { 2: { router_hint_source_control_endpoints: {} } })), undefined, 'the chosen worker needs no endpoint')
})

test('of equal sources the smallest id is named', () => {
  const hint = hintFor(serviceOf([{ workerId: 3n, names: [11n] }, { workerId: 1n, names: [11n] }])) as { actions: { payload: unknown }[] }
  assert.deepEqual(hint.actions[0]?.payload, { block_hashes: [11n], source_control_endpoint: 'tcp://w1:9000' })
})
