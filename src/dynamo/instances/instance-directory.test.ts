import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import type { JsonObject } from '../../ports.ts'
import { FakeClock, rememberingLog } from '../../../test/discovery-kit.ts'
import { fixturePath } from '../../../test/repo-root.ts'
import { MemoryDiscovery, MemoryStore } from '../discovery/memory-discovery.ts'
import { instanceKey } from '../discovery/store-key.ts'
import { parseJson } from '../wire/json.ts'
import { InstanceDirectory } from './instance-directory.ts'
import type { InstanceEvent } from './instance-directory.ts'
import { SetAside } from './set-aside.ts'

const endpoint = { namespace: 'dynamo', component: 'backend', endpoint: 'generate' }
const id = 13_428_561_255_892_356_228n

const fixtures = JSON.parse(readFileSync(fixturePath('wire', 'file-store-snapshot.json'), 'utf8')) as { file: string; content: string }[]
const fixture = (start: string): JsonObject => parseJson(fixtures.find(({ file }) => file.startsWith(start))?.content ?? '') as JsonObject
const recordedCard = fixture('v1/mdc/')
const recordOf = (instanceId: bigint, address = '192.0.2.2:1/x'): JsonObject =>
  ({ ...fixture('v1/instances/dynamo%2Fbackend%2Fgenerate'), instance_id: instanceId, transport: { tcp: address } })

function cardOf(instanceId: bigint, fields: JsonObject = {}, runtime: JsonObject = {}): JsonObject {
  const json = recordedCard['card_json'] as JsonObject
  return { ...recordedCard, instance_id: instanceId, card_json: { ...json, ...fields, runtime_config: { ...(json['runtime_config'] as JsonObject), ...runtime } } }
}

async function bench(limit?: number) {
  const [log, clock] = [rememberingLog(), new FakeClock()]
  const discovery = new MemoryDiscovery(new MemoryStore(log))
  await discovery.start(new AbortController().signal)
  const directory = new InstanceDirectory({ discovery, endpoint, clock, log, ...(limit === undefined ? {} : { limit }) })
  const events: InstanceEvent[] = []
  directory.onEvent((event) => events.push(event))
  const lines = (): string[] => events.map((event) => `${event.kind} ${event.instance.record.instanceId}${event.instance.card === null ? '' : ' card'}`)
  const put = (value: JsonObject): Promise<void> => discovery.put('v1/instances', instanceKey(endpoint, value['instance_id'] as bigint), value)
  const putCard = (value: JsonObject, suffix?: string): Promise<void> => discovery.put('v1/mdc', instanceKey(endpoint, value['instance_id'] as bigint, suffix), value)
  return { log, clock, discovery, directory, events, lines, put, putCard }
}

test('instances and cards are joined, whichever comes first', async () => {
  const { discovery, directory, lines, put, putCard } = await bench()
  await directory.firstSync
  assert.equal(directory.synced, true)
  await putCard(cardOf(id))
  assert.equal(directory.size, 0, 'a card alone is no instance')
  await put(recordOf(id))
  await put(recordOf(2n))
  await putCard(cardOf(2n))
  assert.deepEqual(lines(), [`added ${id} card`, 'added 2', 'cardChanged 2 card'])
  assert.equal(directory.get(id)?.card?.blockSize, 16)
  await put(recordOf(2n, '192.0.2.9:1/y'))
  await discovery.remove('v1/mdc', instanceKey(endpoint, 2n))
  await discovery.remove('v1/instances', instanceKey(endpoint, 2n))
  await discovery.remove('v1/instances', instanceKey(endpoint, id))
  assert.deepEqual(lines().slice(3), ['changed 2 card', 'cardChanged 2', 'removed 2', `removed ${id} card`])
  assert.equal(directory.get(id), undefined)
})

test('what stood before is there after the first sync; other endpoints are not', async () => {
  const log = rememberingLog()
  const discovery = new MemoryDiscovery(new MemoryStore(log))
  await discovery.start(new AbortController().signal)
  await discovery.put('v1/instances', instanceKey(endpoint, id), recordOf(id))
  await discovery.put('v1/mdc', instanceKey(endpoint, id), cardOf(id))
  const other = { ...endpoint, endpoint: 'generate2' }
  await discovery.put('v1/instances', instanceKey(other, 3n), { ...recordOf(3n), endpoint: 'generate2' })
  const directory = new InstanceDirectory({ discovery, endpoint, clock: new FakeClock(), log })
  assert.equal(directory.synced, false)
  await directory.firstSync
  assert.deepEqual([...directory.instances()].map(({ record, card }) => [record.instanceId, card?.displayName]), [[id, 'tiny']])
  assert.deepEqual(directory.counts(), { instances: 1, withCard: 1, setAside: 0, refusedRecords: 0, refusedCards: 0, setAsideEvictions: 0 })
})

test('only taints of a card change; another change is refused and said once', async () => {
  const { directory, log, lines, put, putCard, discovery } = await bench()
  await put(recordOf(id))
  await putCard(cardOf(id))
  await putCard(cardOf(id, {}, { taints: ['drain'] }))
  assert.deepEqual(directory.get(id)?.card?.taints, ['drain'])
  await putCard(cardOf(id, { kv_cache_block_size: 32 }, { taints: ['drain'] }))
  await putCard(cardOf(id, { kv_cache_block_size: 64 }, { taints: ['drain'] }))
  await putCard(cardOf(id, { display_name: 7 }))
  assert.equal(directory.get(id)?.card?.blockSize, 16)
  const warnings = log.lines.filter((line) => line.message.includes('model card'))
  assert.equal(warnings.length, 1)
  assert.match(String(warnings[0]?.fields['reason']), /kv_cache_block_size/)
  assert.equal(directory.counts().refusedCards, 3)
  assert.deepEqual(lines(), [`added ${id}`, `cardChanged ${id} card`, `cardChanged ${id} card`])
  await discovery.remove('v1/mdc', instanceKey(endpoint, id))
  await putCard(cardOf(id, { kv_cache_block_size: 32 }))
  assert.equal(directory.get(id)?.card?.blockSize, 32, 'a card that went may come back different')
})

test('LoRA cards stand beside the card', async () => {
  const { directory, put, putCard, discovery } = await bench()
  await put(recordOf(id))
  await putCard(cardOf(id, { display_name: 'adapter' }), 'adapter')
  await putCard(cardOf(id))
  assert.equal(directory.get(id)?.card?.displayName, 'tiny')
  assert.deepEqual([...(directory.get(id)?.loraCards ?? [])].map(([suffix, card]) => [suffix, card.loraName]), [['adapter', 'adapter']])
  await discovery.remove('v1/mdc', instanceKey(endpoint, id, 'adapter'))
  assert.equal(directory.get(id)?.loraCards.size, 0)
})

test('records that cannot be used are counted, and the instance stands without a bad card', async () => {
  const { directory, discovery, log, put, putCard } = await bench()
  await put({ ...recordOf(id), transport: {} })
  await discovery.put('v1/instances', instanceKey(endpoint, 5n), recordOf(6n))
  await put(recordOf(7n))
  await putCard(cardOf(7n, { kv_cache_block_size: 'x' }))
  assert.deepEqual([...directory.instances()].map(({ record, card }) => [record.instanceId, card]), [[7n, null]])
  const { refusedRecords, refusedCards } = directory.counts()
  assert.deepEqual([refusedRecords, refusedCards], [2, 1])
  assert.ok(log.lines.some((line) => String(line.fields['reason']).includes('kv_cache_block_size is "x"')))
})

test('instances beyond the bound are refused', async () => {
  const { directory, put } = await bench(2)
  for (const instance of [1n, 2n, 3n]) await put(recordOf(instance))
  assert.deepEqual([...directory.instances()].map(({ record }) => record.instanceId), [1n, 2n])
  assert.equal(directory.counts().refusedRecords, 1)
})

test('a set-aside instance is not callable for its time, unless nothing else is', async () => {
  const { directory, clock, put } = await bench()
  await put(recordOf(1n))
  await put(recordOf(2n))
  const callable = (): bigint[] => directory.callable().map(({ record }) => record.instanceId)
  directory.setAside(1n, 5_000)
  assert.deepEqual([directory.isSetAside(1n), callable(), directory.counts().setAside], [true, [2n], 1])
  directory.setAside(2n, 1_000)
  assert.deepEqual(callable(), [1n, 2n])
  clock.advance(1_000)
  assert.deepEqual(callable(), [2n])
  directory.setAside(1n, 10)
  clock.advance(3_999)
  assert.equal(directory.isSetAside(1n), true, 'a shorter time does not shorten')
  clock.advance(1)
  assert.deepEqual([directory.isSetAside(1n), directory.counts().setAside], [false, 0])
  directory.setAside(1n, 0)
  assert.equal(directory.isSetAside(1n), false)
})

test('the set-aside list keeps its bound and lets the nearest end go', () => {
  const clock = new FakeClock()
  const list = new SetAside(clock, 2)
  list.add(1n, 100)
  list.add(2n, 50)
  list.add(3n, 200)
  assert.deepEqual([list.has(1n), list.has(2n), list.has(3n), list.size, list.evictions], [true, false, true, 2, 1])
})

test('a closed directory hears nothing', async () => {
  const { directory, lines, put } = await bench()
  directory.close()
  await put(recordOf(id))
  assert.deepEqual([lines(), directory.size], [[], 0])
})

test('whatever the order of puts and removals, the directory equals the store', async () => {
  const step = fc.record({ what: fc.constantFrom('put', 'putCard', 'remove', 'removeCard'), instance: fc.bigInt(1n, 4n) })
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
    const { discovery, directory, events, put, putCard } = await bench()
    const live = new Set<bigint>()
    for (const { what, instance } of steps) {
      if (what === 'put') await put(recordOf(instance))
      else if (what === 'putCard') await putCard(cardOf(instance))
      else await discovery.remove(what === 'remove' ? 'v1/instances' : 'v1/mdc', instanceKey(endpoint, instance))
    }
    await directory.firstSync
    const keys = [...(await discovery.list('v1/instances', '')).keys()]
    const cards = await discovery.list('v1/mdc', '')
    assert.deepEqual([...directory.instances()].map(({ record }) => instanceKey(endpoint, record.instanceId)).sort(), keys.sort())
    for (const { record, card } of directory.instances()) assert.equal(card !== null, cards.has(instanceKey(endpoint, record.instanceId)))
    for (const { kind, instance } of events) {
      if (kind === 'added') live.add(instance.record.instanceId)
      if (kind === 'removed') live.delete(instance.record.instanceId)
    }
    assert.equal(live.size, directory.size, 'the events add up to the state')
  }), { numRuns: 60 })
})
