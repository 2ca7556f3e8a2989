/** What is scraped after what happened: names, labels and buckets as Dynamo has them, and the bounds on label sets. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Decision } from '../model/decision.ts'
import type { WorkerDescription } from '../model/worker.ts'
import { HistogramCell, labelSetLimit } from './metric-families.ts'
import { MetricSet } from './metric-set.ts'
import { createRouterMetrics, decisionReason } from './router-metrics.ts'

const create = () => createRouterMetrics({
  version: '1.2.3', namespace: 'dynamo', component: 'router', workers: { namespace: 'dynamo', component: 'backend', endpoint: 'generate' },
  routerId: 0xb92a1406beba4415n, role: 'aggregated',
})

const decision = (change: Partial<Decision> = {}): Decision => ({
  kind: 'chosen', requestId: 'r', slot: 0, workerId: 7n, dpRank: 0, pinned: false, cost: 1, promptTokens: 64, promptBlocks: 4, deviceBlocks: 2,
  hostExtensionBlocks: 0, diskExtensionBlocks: 0, cachedTokens: 32, bestCachedTokens: 32, bestDeviceBlocks: 2, effectivePrefillTokens: 32,
  trackPrefillTokens: true, activePrefillTokens: 0, potentialDecodeBlocks: 4, booked: true, explain: () => ({ candidates: [], exclusions: [], choice: 'minimum', temperature: 0 }), ...change,
})

const worker = (workerId: bigint, dpSize: number): WorkerDescription =>
  ({ workerId, dpStart: 0, dpSize, totalKvBlocks: null, maxNumBatchedTokens: null, taints: [], topologyDomains: new Map() })

/** Samples by name and labels in alphabetical order. */
async function scrape(metrics: { text(): Promise<string> }): Promise<Map<string, number>> {
  const samples = new Map<string, number>()
  for (const line of (await metrics.text()).split('\n')) {
    const parts = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line)
    if (parts === null) continue
    const labels = [...(parts[2] ?? '').matchAll(/\w+="[^"]*"/g)].map(String).sort().join(',')
    samples.set(`${parts[1]}{${labels}}`, Number(parts[3]))
  }
  return samples
}

const base = 'dynamo_component="backend",dynamo_namespace="dynamo"'
const ids = 'router_id="13342498865240753173",worker_id="b92a1406beba4415"'

test('a routed request shows under the names and labels of Dynamo', async () => {
  const metrics = create()
  metrics.requests.onStarted(64, 'tiny')
  metrics.requests.onRouted('r', decision({ cachedTokens: 16, bestCachedTokens: 48 }), 'tiny')
  metrics.requests.onFirstOutput(0.003)
  metrics.requests.onNextOutput(0.02)
  metrics.requests.onEnded('success', 120, 0.5, null)
  const samples = await scrape(metrics)
  const at = (name: string, labels: string): number | undefined => samples.get(`dynamo_component_router_${name}{${labels}}`)
  assert.equal(at('requests_started_total', `${base},${ids}`), 1)
  assert.equal(at('requests_total', `${base},${ids}`), 1)
  assert.equal(at('time_to_first_token_seconds_bucket', `${base},le="0.0022",${ids}`), 0)
  assert.equal(at('time_to_first_token_seconds_bucket', `${base},le="0.0047",${ids}`), 1)
  assert.equal(at('time_to_first_token_seconds_bucket', `${base},le="+Inf",${ids}`), 1)
  assert.equal(at('inter_token_latency_seconds_sum', `${base},${ids}`), 0.02)
  assert.equal(at('output_sequence_tokens_bucket', `${base},le="210",${ids}`), 1)
  assert.equal(at('kv_hit_rate_bucket', `${base},le="0.2",${ids}`), 0)
  assert.equal(at('kv_hit_rate_bucket', `${base},le="0.25",${ids}`), 1)
  assert.equal(at('kv_hit_rate_bucket', `${base},le="0.15000000000000002",${ids}`), 0)
  const perModel = `${base},model="tiny",phase="aggregated",${ids}`
  assert.equal(at('input_sequence_tokens_sum', perModel), 64)
  assert.equal(at('kv_best_eligible_cached_prefix_tokens_total', perModel), 48)
  assert.equal(at('kv_selected_cached_prefix_tokens_total', perModel), 16)
  const lost = `${base},router_id="13342498865240753173",worker_id="b92a1406beba4415",worker_type="decode"`
  assert.equal(at('non_max_overlap_selections_total', lost), 1)
  assert.equal(at('overlap_blocks_lost_sum', lost), 2)
  assert.equal(samples.get('warmpath_requests_total{outcome="success"}'), 1)
  assert.equal(samples.get('warmpath_build_info{version="1.2.3"}'), 1)
})

test('each family has one help and one type line, and no sample stands twice', async () => {
  const metrics = create()
  metrics.endpoint('generate').started(1)
  const lines = (await metrics.text()).split('\n').filter((line) => line !== '')
  const types = lines.filter((line) => line.startsWith('# TYPE')).map((line) => line.split(' ')[2])
  assert.equal(new Set(types).size, types.length)
  const names = lines.filter((line) => !line.startsWith('#')).map((line) => line.slice(0, line.lastIndexOf(' ')))
  assert.equal(new Set(names).size, names.length)
  for (const name of names) assert.ok(types.some((type) => name.startsWith(type ?? '?')), name)
})

test('the phase follows the role that the cards tell', async () => {
  const metrics = create()
  metrics.requests.onStarted(1, 'tiny')
  metrics.setRole('prefill')
  metrics.requests.onStarted(1, 'tiny')
  const samples = await scrape(metrics)
  for (const phase of ['aggregated', 'prefill']) {
    assert.equal(samples.get(`dynamo_component_router_input_sequence_tokens_count{${base},model="tiny",phase="${phase}",${ids}}`), 1)
  }
})

test('a shared cache shows from the first request on for which it was looked at', async () => {
  const metrics = create()
  const prefix = 'dynamo_component_router_shared_cache_'
  metrics.requests.onRouted('r', decision(), 'm')
  assert.ok(!(await metrics.text()).includes(prefix))
  metrics.requests.onRouted('r', decision({ shared: { blocks: 3, beyondDevice: 1 } }), 'm')
  metrics.requests.onRouted('r', decision({ shared: { blocks: 0, beyondDevice: 0 }, promptBlocks: 0 }), 'm')
  const samples = await scrape(metrics)
  assert.deepEqual([`${prefix}hit_rate_sum{${base},${ids}}`, `${prefix}beyond_blocks_sum{${base},${ids}}`, `${prefix}hit_rate_count{${base},${ids}}`].map((name) => samples.get(name)), [0.75, 1, 2])
  assert.equal(samples.get(`${prefix}beyond_blocks_bucket{${base},le="2048",${ids}}`), 2)
})

test('decisions and refusals are counted by reason', async () => {
  const metrics = create()
  const { listener } = metrics
  const request = { requestId: 'r' } as unknown as Parameters<typeof listener.onDecision>[1]
  listener.onDecision(decision(), request)
  listener.onDecision(decision({ cachedTokens: 0 }), request)
  listener.onDecision(decision({ cachedTokens: 0, bestCachedTokens: 0, booked: false }), request)
  listener.onDecision(decision({ pinned: true }), request)
  listener.onRefusal({ kind: 'refused', requestId: 'r', reason: 'no-workers', message: '', exclusions: [] }, request)
  metrics.requests.onRetry({ class: 'Unavailable', reason: 'transport.disconnected', message: '' })
  const samples = await scrape(metrics)
  assert.equal(samples.get('warmpath_decisions_total{kind="route",reason="warmest"}'), 1)
  assert.equal(samples.get('warmpath_decisions_total{kind="route",reason="less-loaded"}'), 1)
  assert.equal(samples.get('warmpath_decisions_total{kind="query",reason="cold"}'), 1)
  assert.equal(samples.get('warmpath_decisions_total{kind="route",reason="pinned"}'), 1)
  assert.equal(samples.get('warmpath_refusals_total{reason="no-workers"}'), 1)
  assert.equal(samples.get('warmpath_retries_total{class="Unavailable",reason="transport.disconnected"}'), 1)
  assert.equal(decisionReason(decision({ bestCachedTokens: 64 })), 'less-loaded')
})

test('ranks show while their worker is there, approximate ones are counted', async () => {
  const metrics = create()
  const rank = (workerId: string, dpRank: number) => `dynamo_component_router_worker_registered{dp_rank="${dpRank}",${base},router_worker_id="${workerId}",worker_id="b92a1406beba4415",worker_type="decode"}`
  metrics.listener.onWorkerAdded(worker(18446744073709551615n, 2))
  metrics.listener.onWorkerAdded(worker(7n, 1))
  metrics.listener.onWorkerAdded(worker(18446744073709551615n, 1))
  metrics.listener.onIndexMode({ workerId: 7n, dpRank: 0 }, 'approximate')
  const before = await scrape(metrics)
  assert.equal(before.get(rank('18446744073709551615', 0)), 1)
  assert.equal(before.get(rank('18446744073709551615', 1)), undefined)
  assert.equal(before.get('warmpath_approximate_ranks{}'), 1)
  metrics.listener.onWorkerRemoved(7n)
  const after = await scrape(metrics)
  assert.equal(after.get(rank('7', 0)), undefined)
  assert.equal(after.get('warmpath_approximate_ranks{}'), 0)
})

test('events are counted by kind and by what became of them', async () => {
  const metrics = create()
  metrics.listener.onEventApplied('stored', 'device', 'ok')
  metrics.listener.onEventApplied('stored', 'device', 'parent_block_not_found')
  metrics.kvEvents.setBatches(1)
  metrics.kvEvents.setSources(3)
  const samples = await scrape(metrics)
  const id = 'worker_id="b92a1406beba4415"'
  assert.equal(samples.get(`dynamo_component_kv_cache_events_applied{${base},event_type="stored",status="ok",${id}}`), 1)
  assert.equal(samples.get(`dynamo_component_kv_cache_events_applied{${base},event_type="stored",status="parent_block_not_found",${id}}`), 1)
  assert.equal(samples.get(`dynamo_component_router_kv_zmq_ingress_batches_total{${base},${id}}`), 1)
  assert.equal(samples.get(`dynamo_component_router_kv_zmq_ingress_sources{${base},state="active",${id}}`), 3)
})

test('an endpoint counts requests, bytes, errors and cancellations', async () => {
  const metrics = create()
  const meter = metrics.endpoint('generate')
  assert.equal(metrics.endpoint('generate'), meter)
  meter.started(100)
  meter.started(20)
  meter.started(1)
  meter.responseBytes(7)
  meter.ended(0.02, {})
  meter.ended(0.02, { errorType: 'Unavailable' })
  const labels = 'dynamo_component="router",dynamo_endpoint="generate",dynamo_namespace="dynamo"'
  const tail = 'service="router",worker_id="b92a1406beba4415"'
  const samples = await scrape(metrics)
  const at = (name: string, extra = ''): number | undefined => samples.get(`dynamo_component_${name}{${labels}${extra},${tail}}`)
  assert.equal(at('requests_total'), 3)
  assert.equal(at('inflight_requests'), 1)
  assert.equal(at('request_bytes_total'), 121)
  assert.equal(at('response_bytes_total'), 7)
  assert.equal(at('errors_total', ',error_type="Unavailable"'), 1)
  assert.equal(at('request_duration_seconds_bucket', ',le="0.025"'), 2)
  meter.ended(1, { cancelled: true })
  assert.equal((await scrape(metrics)).get(`dynamo_component_cancellation_total{${labels},${tail}}`), 1)
})

test('gauges are set when scraped, and a source that fails does not hide the rest', async () => {
  const metrics = create()
  metrics.onScrape(() => { throw new Error('broken') })
  let entries = 1
  metrics.onScrape(() => metrics.gauges.indexEntries.set(entries))
  assert.equal((await scrape(metrics)).get('warmpath_index_entries{}'), 1)
  entries = 5
  assert.equal((await scrape(metrics)).get('warmpath_index_entries{}'), 5)
})

test('names that callers choose are bounded', async () => {
  const metrics = create()
  for (let index = 0; index < 200; index += 1) metrics.requests.onStarted(1, `model-${index}`)
  const samples = [...await scrape(metrics)].filter(([name]) => name.startsWith('dynamo_component_router_input_sequence_tokens_count'))
  assert.equal(samples.length, 65)
  assert.equal(samples.reduce((sum, [, value]) => sum + value, 0), 200)

  const set = new MetricSet()
  const family = set.counter('many', 'many', {}, ['id'])
  for (let index = 0; index < labelSetLimit + 10; index += 1) family.with(String(index)).inc()
  assert.match(await set.text(), /^many\{id="other"\} 10$/m)
})

test('a histogram puts a value that equals a bound below it, and ignores what is no number', () => {
  const cell = new HistogramCell([1, 2])
  for (const value of [0, 1, 1.5, 2, 3, Number.NaN]) cell.observe(value)
  assert.deepEqual([...cell.counts], [2, 2, 1])
  assert.equal(cell.sum, 7.5)
})

test('label values with quotes, feeds and backslashes are escaped', async () => {
  const metrics = create()
  metrics.requests.onStarted(1, 'a"b\\c\nd')
  assert.match(await metrics.text(), /model="a\\"b\\\\c\\nd"/)
})

test('what waits, what is refused and what each class gets shows per policy class', async () => {
  const metrics = create()
  const { listener } = metrics
  const note = (policyClass: string, tokens: number, cachedTokens: number) =>
    ({ policyClass, cachedTokens, request: { requestId: 'r', model: 'tiny', tokens: new Uint32Array(tokens) } })
  const [first, second] = [note('std', 64, 16), note('vip', 32, 0)]
  listener.onParked(first)
  listener.onParked(second)
  listener.onQueueRejected('std', 'request_limit', first.request)
  listener.onUnparked(second, 'dispatched', 0.75)
  const samples = await scrape(metrics)
  const of = (family: string, policyClass: string, more = ''): number | undefined =>
    samples.get(`${family}{model="tiny",policy_class="${policyClass}"${more},worker_type="decode"}`)
  const pending = ['requests', 'isl_tokens', 'cached_tokens'].map((unit) => `dynamo_frontend_router_queue_pending_${unit}`)
  assert.deepEqual([pending.map((name) => of(name, 'std')), pending.map((name) => of(name, 'vip'))], [[1, 64, 16], [0, 0, 0]])
  assert.equal(of('dynamo_frontend_router_queue_backpressure_total', 'std', ',reason="request_limit"'), 1)
  assert.equal(of('warmpath_queue_dispatched_prompt_tokens_total', 'vip'), 32)
  assert.equal(samples.get('warmpath_queue_wait_seconds_sum{model="tiny",outcome="dispatched",policy_class="vip",worker_type="decode"}'), 0.75)
})
