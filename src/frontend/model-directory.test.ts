/** The directory over memory discovery: what it tells is what an evaluation of the present records gives. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { MemoryDiscovery, MemoryStore } from '../dynamo/discovery/memory-discovery.ts'
import type { Log, LogFields } from '../ports.ts'
import { ModelDirectory, type ModelDirectoryOptions } from './model-directory.ts'
import { evaluateModel, historyOf, noHistory, type ModelState } from './model-state.ts'
import { cardRecordOf, factOf, instanceRecordOf, keyOf, type CardInput } from '../../test/model-cards.ts'

interface Line { readonly level: string; readonly fields: LogFields; readonly message: string }

function collectingLog(): Log & { readonly lines: Line[] } {
  const lines: Line[] = []
  const at = (level: string) => (fields: LogFields, message: string): void => void lines.push({ level, fields, message })
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

/** Records of any owner, put and removed by one handle. */
async function place(options: Partial<ModelDirectoryOptions> = {}) {
  const log = collectingLog()
  const store = new MemoryStore(log)
  const discovery = new MemoryDiscovery(store)
  await discovery.start(AbortSignal.timeout(1000))
  const directory = new ModelDirectory({ discovery, log, namespace: null, namespacePrefix: null, requirePrefill: false, ...options })
  await directory.firstSync
  const put = async (input: CardInput): Promise<void> => {
    await discovery.put('v1/mdc', keyOf(input), cardRecordOf(input))
    await discovery.put('v1/instances', keyOf(input), instanceRecordOf(input))
  }
  const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  return { log, discovery, directory, put, settled, dropInstance: (input: CardInput) => discovery.remove('v1/instances', keyOf(input)), dropCard: (input: CardInput) => discovery.remove('v1/mdc', keyOf(input)) }
}

const shownState = (state: ModelState | undefined) => state === undefined ? null : {
  ready: state.isReady, reason: state.reason, hadSurface: state.hadSurface,
  pools: [...state.namespaces.values()].flatMap(({ pools }) => pools.map(({ key, workers, refused, liveCount }) =>
    [key, workers.map((worker) => worker.key).sort(), refused.map(({ fact }) => fact.key).sort(), liveCount])).sort(),
  entries: [...state.namespaces.values()].flatMap(({ namespace, entries }) => entries.map(({ pool, prefill }) => `${namespace} ${pool.key} ${prefill?.key ?? ''}`)).sort(),
}

test('a prefill worker appears and goes by itself', async () => {
  const { directory, put, settled, dropInstance } = await place()
  const changes: boolean[] = []
  directory.onChange((name) => changes.push(directory.get(name)?.isReady ?? false))
  const [decode, prefill]: CardInput[] = [{ id: 1, role: 'decode' }, { id: 2, role: 'prefill' }]
  assert.ok(decode !== undefined && prefill !== undefined)
  await put(decode)
  await settled()
  assert.equal(directory.get('m')?.isReady, false)
  await put(prefill)
  await settled()
  assert.equal(directory.get('m')?.namespaces.get('dynamo')?.entries[0]?.prefill?.liveCount, 1)
  await dropInstance(prefill)
  await settled()
  assert.equal(directory.get('m')?.namespaces.get('dynamo')?.entries[0]?.prefill, null)
  assert.equal(changes.at(-1), true)
  directory.close()
})

test('scope: one namespace, a prefix, all', async () => {
  const cards: CardInput[] = [{ id: 1, model: 'a', namespace: 'x' }, { id: 2, model: 'b', namespace: 'x-1' }, { id: 3, model: 'c', namespace: 'y' }]
  for (const [options, expected] of [
    [{ namespace: 'x' }, ['a']], [{ namespacePrefix: 'x' }, ['a', 'b']], [{ namespace: 'y', namespacePrefix: 'x' }, ['a', 'b']], [{}, ['a', 'b', 'c']],
  ] as const) {
    const { directory, put, settled } = await place(options)
    for (const card of cards) await put(card)
    await settled()
    assert.deepEqual([...directory.models()].map(({ name }) => name), expected)
    directory.close()
  }
})

test('a second component with another card is refused once in the log and takes nothing down', async () => {
  const { directory, put, settled, log } = await place()
  await put({ id: 1, role: 'decode' })
  await put({ id: 2, role: 'prefill' })
  await put({ id: 3, role: 'decode', component: 'other', blockSize: 32 })
  await put({ id: 4, role: 'decode' })
  await settled()
  assert.equal(directory.get('m')?.isReady, true)
  const refused = log.lines.filter(({ level }) => level === 'error')
  assert.equal(refused.length, 1)
  assert.match(refused[0]?.message ?? '', /kv_cache_block_size 32 where the others have 16/)
  directory.close()
})

test('a card may change its taints and nothing else; an unreadable one is skipped', async () => {
  const { directory, discovery, put, settled, log } = await place()
  await put({ id: 1 })
  await put({ id: 1, taints: ['slow'] })
  await settled()
  const worker = () => directory.get('m')?.namespaces.get('dynamo')?.pools[0]?.workers[0]?.card
  assert.deepEqual(worker()?.taints, ['slow'])
  await put({ id: 1, blockSize: 32 })
  await settled()
  assert.equal(worker()?.blockSize, 16)
  await discovery.put('v1/mdc', 'dynamo/backend/generate/9', { type: 'Model', card_json: 3 })
  await settled()
  assert.equal(directory.refusedCards, 2)
  assert.equal(log.lines.filter(({ message }) => message === 'model card cannot be used').length, 2)
  directory.close()
})

const inputs: readonly CardInput[] = [
  { id: 1, role: 'decode' }, { id: 2, role: 'decode', component: 'other' }, { id: 3, role: 'decode', blockSize: 32 }, { id: 4, role: 'prefill' },
  { id: 5, role: 'prefill', component: 'p2', bootstrap: true }, { id: 6 }, { id: 7, role: null }, { id: 8, role: 'decode', namespace: 'ns2', needs: [['decode']] },
  { id: 9, role: 'prefill', namespace: 'ns2' }, { id: 10, role: 'decode', blockSize: 32 },
]

test('cards and instances come and go in any order: the state is that of a fresh evaluation', async () => {
  const step = fc.record({ at: fc.nat(inputs.length - 1), what: fc.constantFrom('card', 'instance', 'noCard', 'noInstance') })
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 30 }), fc.boolean(), async (steps, requirePrefill) => {
    const { directory, discovery, settled } = await place({ requirePrefill })
    // The reference: ordered cards, a set of instances, evaluated whole after each step.
    const cards = new Map<number, CardInput>()
    const instances = new Set<number>()
    let reference: ModelState | undefined
    for (const { at, what } of steps) {
      const input = inputs[at]
      if (input === undefined) continue
      const key = keyOf(input)
      if (what === 'card') { await discovery.put('v1/mdc', key, cardRecordOf(input)); cards.set(input.id, input) }
      if (what === 'instance') { await discovery.put('v1/instances', key, instanceRecordOf(input)); instances.add(input.id) }
      if (what === 'noCard') { await discovery.remove('v1/mdc', key); cards.delete(input.id) }
      if (what === 'noInstance') { await discovery.remove('v1/instances', key); instances.delete(input.id) }
      await settled()
      const history = reference === undefined ? noHistory : historyOf(reference)
      reference = cards.size === 0 ? undefined : evaluateModel('m', [...cards.values()].map((card) => factOf(card, instances.has(card.id))), history, { requirePrefill })
      assert.deepEqual(shownState(directory.get('m')), shownState(reference))
    }
    // Invariants that hold whatever came before.
    for (const { entries, pools } of reference?.namespaces.values() ?? []) {
      for (const { pool, prefill } of entries) assert.ok(pool.liveCount > 0 && (prefill === null || prefill.liveCount > 0))
      for (const { workers } of pools) assert.equal(new Set(workers.map(({ card }) => card.blockSize)).size, 1)
    }
    directory.close()
  }), { numRuns: 100 })
})
