/** When a model is served and by which pools: the recorded behaviour of Dynamo 1.6.1, and where we answer instead of refusing. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { evaluateModel, historyOf, noHistory, type ModelState } from './model-state.ts'
import { factOf, type CardInput } from '../../test/model-cards.ts'

const strict = { requirePrefill: true }
const usual = { requirePrefill: false }
const decode = (id: number, more: Partial<CardInput> = {}): CardInput => ({ id, role: 'decode', ...more })
const prefill = (id: number, more: Partial<CardInput> = {}): CardInput => ({ id, role: 'prefill', ...more })
const evaluate = (cards: readonly CardInput[], options = usual, before?: ModelState) =>
  evaluateModel('m', cards.map((card) => factOf(card)), before === undefined ? noHistory : historyOf(before), options)

/** `namespace/kind>prefill` of each entry. */
const entriesOf = (state: ModelState): string[] => [...state.namespaces.values()].flatMap(({ namespace, entries }) =>
  entries.map(({ pool, prefill: first }) => `${namespace}/${pool.kind}${first === null ? '' : '>prefill'}`))

const rows: { readonly name: string; readonly cards: readonly CardInput[]; readonly entries: readonly string[]; readonly reason?: RegExp }[] = [
  { name: 'aggregated', cards: [{ id: 1 }], entries: ['dynamo/aggregated'] },
  { name: 'decode and prefill', cards: [decode(1), prefill(2)], entries: ['dynamo/decode>prefill'] },
  { name: 'decode that needs prefill, alone', cards: [decode(1)], entries: [], reason: /decode workers need prefill workers/ },
  { name: 'decode that needs prefill or decode, alone', cards: [decode(1, { needs: [['prefill'], ['decode']] })], entries: ['dynamo/decode'] },
  { name: 'decode that needs an empty group', cards: [decode(1, { needs: [[]] })], entries: ['dynamo/decode'] },
  { name: 'needs that are null', cards: [decode(1, { extra: { needs: null } })], entries: ['dynamo/decode'] },
  { name: 'prefill alone', cards: [prefill(1)], entries: [], reason: /no worker that decodes is registered/ },
  { name: 'prefill that needs encode does not count', cards: [decode(1), prefill(2, { needs: [['encode']] })], entries: [], reason: /need prefill/ },
  { name: 'encode workers meet needs and take no requests', cards: [{ id: 1, needs: [['encode']] }, { id: 2, role: 'encode', needs: [['aggregated']], modelType: '' }], entries: ['dynamo/aggregated'] },
  { name: 'encode alone', cards: [{ id: 1, role: 'encode', needs: [[]] }], entries: [], reason: /no worker that decodes is registered/ },
  { name: 'a card without a worker type', cards: [{ id: 1, role: null }], entries: ['dynamo/legacy'] },
  { name: 'cards without worker types, one prefill', cards: [{ id: 1, role: null }, { id: 2, role: null, modelType: 'Prefill', component: 'prefill' }], entries: ['dynamo/legacy>prefill'] },
  { name: 'an older card with a prefill worker of today', cards: [{ id: 1, role: null }, prefill(2)], entries: ['dynamo/legacy>prefill'] },
  { name: 'aggregated gets no prefill hop', cards: [{ id: 1 }, prefill(2)], entries: ['dynamo/aggregated'] },
  { name: 'aggregated and decode with prefill', cards: [{ id: 1 }, decode(2, { component: 'd' }), prefill(3)], entries: ['dynamo/aggregated', 'dynamo/decode>prefill'] },
  { name: 'two decode components that agree', cards: [decode(1), decode(2, { component: 'other' }), prefill(3)], entries: ['dynamo/decode>prefill'] },
  { name: 'two decode components that differ', cards: [decode(1), decode(2, { component: 'other', blockSize: 32 }), prefill(3)], entries: ['dynamo/decode>prefill'] },
  { name: 'prefill and decode may differ in block size', cards: [decode(1, { blockSize: 16 }), prefill(2, { blockSize: 64 })], entries: ['dynamo/decode>prefill'] },
  { name: 'prefill and decode in two namespaces', cards: [decode(1, { namespace: 'a' }), prefill(2, { namespace: 'b' })], entries: [], reason: /a: its decode workers need prefill/ },
  { name: 'one of two namespaces is ready', cards: [decode(1, { namespace: 'a' }), decode(2, { namespace: 'b' }), prefill(3, { namespace: 'b' })], entries: ['b/decode>prefill'] },
  { name: 'no OpenAI surface', cards: [{ id: 1, modelType: 'Images' }], entries: [], reason: /no worker that decodes/ },
  { name: 'embeddings', cards: [{ id: 1, modelType: 'Embedding' }], entries: ['dynamo/aggregated'] },
  { name: 'embeddings of workers that tokenize', cards: [{ id: 1, modelType: 'Embedding', extra: { model_input: 'Text' } }], entries: ['dynamo/aggregated'] },
  { name: 'text input', cards: [{ id: 1, extra: { model_input: 'Text' } }], entries: [], reason: /want Text input/ },
]

for (const { name, cards, entries, reason } of rows) {
  test(`readiness: ${name}`, () => {
    const state = evaluate(cards)
    assert.deepEqual(entriesOf(state), entries)
    assert.equal(state.isReady, entries.length > 0)
    assert.match(state.reason ?? '', reason ?? /^$/)
  })
}

/** Rows: `needs` of a decode worker; columns: which others of the model are alive beside it. */
const needsTable: readonly { readonly needs: CardInput['needs']; readonly ready: readonly string[]; readonly reason?: RegExp }[] = [
  { needs: [], ready: ['', 'prefill', 'encode', 'prefill encode'] },
  { needs: [[]], ready: ['', 'prefill', 'encode', 'prefill encode'] },
  { needs: [['decode']], ready: ['', 'prefill', 'encode', 'prefill encode'] },
  { needs: [['prefill']], ready: ['prefill', 'prefill encode'], reason: /decode workers need prefill workers/ },
  { needs: [['prefill'], ['decode']], ready: ['', 'prefill', 'encode', 'prefill encode'] },
  { needs: [['prefill', 'decode']], ready: ['prefill', 'prefill encode'], reason: /decode workers need prefill workers/ },
  { needs: [['prefill', 'encode']], ready: ['prefill encode'], reason: /decode workers need (prefill and encode|encode|prefill) workers/ },
  { needs: [['prefill'], ['encode']], ready: ['prefill', 'encode', 'prefill encode'], reason: /decode workers need prefill, or encode workers/ },
  { needs: [['prefill', 'encode'], ['encode']], ready: ['encode', 'prefill encode'], reason: /decode workers need .*encode workers/ },
  { needs: [['aggregated']], ready: [], reason: /decode workers need aggregated workers/ },
]
const beside: Readonly<Record<string, CardInput>> = { prefill: prefill(2, { needs: [['decode']] }), encode: { id: 3, role: 'encode', needs: [['decode']], modelType: '' } }

for (const { needs, ready, reason } of needsTable) {
  test(`needs ${JSON.stringify(needs)}`, () => {
    for (const others of ['', 'prefill', 'encode', 'prefill encode']) {
      const cards = [decode(1, { needs: needs ?? [] }), ...others.split(' ').flatMap((name) => beside[name] ?? [])]
      const state = evaluate(cards)
      const isReady = ready.includes(others)
      assert.deepEqual(entriesOf(state), isReady ? [`dynamo/decode${others.includes('prefill') ? '>prefill' : ''}`] : [], `beside ${others || 'nobody'}`)
      if (!isReady) assert.match(state.reason ?? '', reason ?? /never/)
    }
  })
}

test('needs of the others count too: a prefill worker that lacks its encode worker is none, and a circle that is complete serves', () => {
  const waiting = prefill(2, { needs: [['encode']] })
  const encode: CardInput = { id: 3, role: 'encode', needs: [['decode']], modelType: '' }
  assert.deepEqual(entriesOf(evaluate([decode(1), waiting])), [])
  assert.deepEqual(entriesOf(evaluate([decode(1), waiting, encode])), ['dynamo/decode>prefill'])
  const dead = evaluateModel('m', [factOf(decode(1)), factOf(waiting), factOf(encode, false)], noHistory, usual)
  assert.deepEqual(entriesOf(dead), [], 'an encode worker that is gone meets nothing')
  // Once ready, an encode worker that leaves takes the model nowhere, but for the strict.
  const before = evaluate([{ id: 1, needs: [['encode']] }, { ...encode, needs: [['aggregated']] }])
  assert.deepEqual(entriesOf(evaluate([{ id: 1, needs: [['encode']] }], usual, before)), ['dynamo/aggregated'])
  assert.deepEqual(entriesOf(evaluate([{ id: 1, needs: [['encode']] }], strict, before)), [])
})

test('a card whose endpoint record is gone does not count', () => {
  const state = evaluateModel('m', [factOf(decode(1)), factOf(prefill(2), false)], noHistory, usual)
  assert.equal(state.isReady, false)
  assert.match(evaluateModel('m', [factOf({ id: 1 }, false)], noHistory, usual).reason ?? '', /alive/)
})

test('once ready, losing every prefill worker leaves decode-only, unless that is forbidden', () => {
  const before = evaluate([decode(1), prefill(2)])
  assert.deepEqual(entriesOf(evaluate([decode(1)], usual, before)), ['dynamo/decode'])
  assert.deepEqual(entriesOf(evaluate([decode(1)], strict, before)), [])
  const later = evaluate([decode(1)], usual, before)
  assert.deepEqual(entriesOf(evaluate([decode(1), prefill(3)], usual, later)), ['dynamo/decode>prefill'])
})

test('decode workers with a bootstrap hand-over cannot do without prefill', () => {
  const before = evaluate([decode(1), prefill(2, { bootstrap: true })])
  const alone = evaluate([decode(1)], usual, before)
  assert.equal(alone.isReady, false)
  assert.match(alone.reason ?? '', /bootstrap \(SGLang\)/)
  const named = { runtime: { runtime_data: { engine: 'SGLang' } } }
  assert.equal(evaluate([decode(1, named)], usual, evaluate([decode(1, named), prefill(2, named)])).isReady, false)
  assert.deepEqual(entriesOf(evaluate([decode(1), prefill(3)], usual, alone)), ['dynamo/decode>prefill'])
})

test('a worker with another card is refused by name of what differs, and the first ones stay', () => {
  const first = evaluate([{ id: 1 }, { id: 2, blockSize: 32 }])
  const pool = first.namespaces.get('dynamo')?.pools[0]
  assert.deepEqual(pool?.workers.map(({ card }) => card.instanceId), [1n])
  assert.deepEqual(pool?.refused.map(({ fact, differences }) => [fact.card.instanceId, differences]), [[2n, ['kv_cache_block_size 32 where the others have 16']]])
  const after = evaluate([{ id: 2, blockSize: 32 }, { id: 3 }], usual, first).namespaces.get('dynamo')?.pools[0]
  assert.deepEqual(after?.workers.map(({ card }) => card.instanceId), [3n], 'those with the card that was accepted stay')
  const last = evaluate([{ id: 2, blockSize: 32 }], usual, first).namespaces.get('dynamo')?.pools[0]
  assert.deepEqual(last?.workers.map(({ card }) => card.instanceId), [2n], 'when they are gone the others serve')
  const dead = evaluateModel('m', [factOf({ id: 1 }, false), factOf({ id: 2, blockSize: 32 })], historyOf(first), usual)
  assert.deepEqual(entriesOf(dead), ['dynamo/aggregated'], 'a dead one holds no place')
})

test('prefill workers with and without the older mark of their role are one pool', () => {
  const [pool] = evaluate([decode(1), prefill(2), prefill(3, { modelType: 'Prefill' })]).namespaces.get('dynamo')?.pools.filter(({ kind }) => kind === 'prefill') ?? []
  assert.deepEqual([pool?.workers.length, pool?.refused], [2, []])
})

test('a model of prefill workers only is unknown to clients; one that had decode workers is not', () => {
  assert.equal(evaluate([prefill(1)]).hadSurface, false)
  assert.equal(evaluate([prefill(1)], usual, evaluate([decode(2), prefill(1)])).hadSurface, true)
})
