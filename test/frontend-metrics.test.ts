/** Goal: dashboards made for Dynamo's frontend find here what they ask for. Method: names, types and labels against a recorded scrape. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, test } from 'node:test'
import { FrontendDeployment } from './frontend-kit.ts'
import { fixturePath } from './repo-root.ts'
import { until } from './until.ts'

interface Recorded {
  readonly type: string
  readonly labels: readonly string[]
  readonly values?: Readonly<Record<string, readonly string[]>>
}

/** What is not shown here, and why. */
const leftOut: readonly (readonly [RegExp, string])[] = [
  [/_frontend_(audio|image|images)_(per_request|tokens_per_request)$/, 'nothing but text is taken'],
  [/_frontend_detokenize_/, 'tokens become text within the answer, not in a step of its own; so the operation is missing, too'],
  [/_frontend_event_loop_/, 'of its own runtime'],
  [/_frontend_router_admission_/, 'requests have no due times here'],
  [/_frontend_tokenizer_cache_(un)?cached_tokens_total$/, 'counted in pieces, see hits and misses'],
  [/_router_shared_cache_/, 'no shared cache in this deployment'],
]
/** Shown once it happens. */
const occasional: ReadonlySet<string> = new Set([
  'dynamo_frontend_router_queue_backpressure_total', 'dynamo_frontend_router_queue_pending_cached_tokens', 'dynamo_frontend_router_queue_pending_isl_tokens',
  'dynamo_frontend_router_queue_pending_requests', 'dynamo_component_router_overlap_blocks_lost',
])

const place = new FrontendDeployment()
after(() => place.close())

interface Family {
  type: string
  readonly labels: Set<string>
  readonly samples: string[]
}

function familiesOf(text: string): Map<string, Family> {
  const families = new Map<string, Family>()
  for (const line of text.split('\n')) {
    const [, name, type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? []
    if (name !== undefined && type !== undefined) {
      assert.ok(!families.has(name), `${name} is there twice`)
      families.set(name, { type, labels: new Set(), samples: [] })
    }
    const sample = /^([a-z_]+)(?:\{(.*)\})? \S+$/.exec(line)
    if (sample === null) continue
    const [, full = '', labels = ''] = sample
    const family = families.get(full) ?? families.get(full.replace(/_(bucket|sum|count)$/, ''))
    assert.ok(family !== undefined, line)
    family.samples.push(line)
    for (const [, label = ''] of labels.matchAll(/([a-z_]+)="/g)) if (label !== 'le') family.labels.add(label)
  }
  return families
}

test('families, types, labels and their fixed values are those of a recorded frontend', async () => {
  const recorded = (JSON.parse(await readFile(fixturePath('behaviour', 'metrics.json'), 'utf8')) as { families: Readonly<Record<string, Recorded>> }).families
  for (const role of ['prefill', 'decode'] as const) for (let count = 0; count < 2; count += 1) await place.worker({ role })
  const frontend = await place.frontend()
  await frontend.ready()
  const ask = (body: object): Promise<Response> => frontend.post('/v1/chat/completions', { model: 'tiny', messages: [{ role: 'user', content: 'the river' }], max_tokens: 4, ...body })
  for (const body of [{}, { stream: true }, { model: 'nobody' }, { temperature: 9 }]) await (await ask(body)).text()
  await until(() => frontend.assembled.service.models.activeCount === 0)
  const shown = familiesOf(await (await fetch(`${frontend.url}/metrics`)).text())
  const faults: string[] = []
  for (const [name, { type, labels, values = {} }] of Object.entries(recorded)) {
    const family = shown.get(name)
    if (family === undefined || (family.samples.length === 0 && occasional.has(name))) {
      if (!occasional.has(name) && !leftOut.some(([pattern]) => pattern.test(name))) faults.push(`${name} is missing`)
      continue
    }
    if (family.type !== type) faults.push(`${name} is a ${family.type}, not a ${type}`)
    if ([...family.labels].toSorted().join() !== labels.join()) faults.push(`${name} has the labels ${[...family.labels].toSorted().join()}, not ${labels.join()}`)
    for (const [label, all] of Object.entries(values)) {
      for (const value of all) if (value !== 'detokenize' && !family.samples.some((line) => line.includes(`${label}="${value}"`))) faults.push(`${name} has no ${label}="${value}"`)
    }
  }
  assert.deepEqual(faults, [])
})

test('both stages are counted, no stage holds a request afterwards, and ranks show what they gave last', async () => {
  const frontend = await place.frontend()
  await frontend.ready()
  await (await frontend.post('/v1/chat/completions', { model: 'tiny', messages: [{ role: 'user', content: 'the river' }], max_tokens: 4 })).text()
  const { samples: stages } = familiesOf(await (await fetch(`${frontend.url}/metrics`)).text()).get('dynamo_frontend_stage_requests') ?? { samples: [] }
  assert.equal(stages.length, 5)
  assert.ok(stages.every((line) => line.endsWith(' 0')), stages.join('\n'))
  const lines = (await (await fetch(`${frontend.url}/metrics`)).text()).split('\n')
  const valueOf = (...parts: readonly string[]): number[] => lines.filter((line) => !line.startsWith('#') && parts.every((part) => line.includes(part))).map((line) => Number(line.slice(line.lastIndexOf(' ') + 1)))
  for (const phase of ['prefill', 'decode']) {
    assert.deepEqual(valueOf('router_input_sequence_tokens_count', `phase="${phase}"`), [1], phase)
    assert.equal(valueOf('worker_active_decode_blocks', `worker_type="${phase}"`).length, 2)
    assert.equal(valueOf('worker_last_input_sequence_tokens', `worker_type="${phase}"`).length, 1)
    const [first = -1] = valueOf('worker_last_time_to_first_token_seconds', `worker_type="${phase}"`)
    assert.ok(first >= 0 && first < 10)
  }
  assert.equal(valueOf('worker_last_inter_token_latency_seconds', 'worker_type="decode"').length, 1)
  assert.deepEqual(valueOf('stage_duration_seconds_count', 'stage="route"'), [2])
  assert.deepEqual(valueOf('stage_duration_seconds_count', 'stage="transport_roundtrip"'), [2])
})
