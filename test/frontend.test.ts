/** Goal: the frontend over loopback serves what simulated workers offer. Method: workers come, go and die; the HTTP API is asked. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { FrontendDeployment, type RunningFrontend } from './frontend-kit.ts'
import { until } from './until.ts'

const open: FrontendDeployment[] = []
const deployment = (): FrontendDeployment => {
  const made = new FrontendDeployment()
  open.push(made)
  return made
}
after(async () => {
  for (const each of open) await each.close()
})

interface Answer {
  readonly choices: readonly { readonly message: { readonly content: string }; readonly finish_reason: string }[]
  readonly usage: { readonly prompt_tokens: number; readonly completion_tokens: number; readonly prompt_tokens_details: { readonly cached_tokens: number } | null }
}

const prompt = 'the river and the bridge and the town behind it and the light of the morning on the water of the river'
const chat = (frontend: RunningFrontend, more: object = {}): Promise<Response> =>
  frontend.post('/v1/chat/completions', { model: 'tiny', messages: [{ role: 'user', content: prompt }], max_tokens: 6, ...more })
const prefillOf = (response: Response): string | null => response.headers.get('x-warmpath-prefill')
const bookings = (frontend: RunningFrontend): number => [...frontend.assembled.service.models.pools].reduce((sum, { routed }) => sum + (routed.router?.bookingCount ?? 0), 0)

test('a chat goes through prefill and decode, and the second time its prompt is cached', async () => {
  const place = deployment()
  const [prefill, decode] = [await place.worker({ role: 'prefill' }), await place.worker({ role: 'decode' })]
  const frontend = await place.frontend()
  await frontend.ready()
  const first = await chat(frontend)
  assert.equal(first.status, 200)
  assert.equal(prefillOf(first), 'remote')
  const answer = await first.json() as Answer
  assert.equal(answer.usage.completion_tokens, 6)
  assert.equal(answer.choices[0]?.finish_reason, 'length')
  assert.match(answer.choices[0]?.message.content ?? '', /^( [a-z]+){6}$/)
  const again = await (await chat(frontend)).json() as Answer
  assert.deepEqual(again.choices, answer.choices)
  assert.ok((again.usage.prompt_tokens_details?.cached_tokens ?? 0) >= 16)
  for (const { worker } of [prefill, decode]) assert.ok(worker.engine.loads.some(({ promptTokens }) => promptTokens > 0))
  await until(() => bookings(frontend) === 0)
})

test('losing the prefill workers leaves decode-only answers; a new one is used again', async () => {
  const place = deployment()
  const prefill = await place.worker({ role: 'prefill' })
  await place.worker({ role: 'decode' })
  const frontend = await place.frontend()
  await frontend.ready()
  assert.equal(prefillOf(await chat(frontend)), 'remote')
  await prefill.leave()
  const alone = await chat(frontend)
  assert.deepEqual([alone.status, prefillOf(alone)], [200, 'none'])
  await place.worker({ role: 'prefill' })
  await until(() => [...frontend.assembled.service.models.pools].filter(({ isUsable }) => isUsable).length === 2)
  assert.equal(prefillOf(await chat(frontend)), 'remote')
})

test('a prefill worker that dies without a word: the decode worker answers', async () => {
  const place = deployment()
  const prefill = await place.worker({ role: 'prefill' })
  await place.worker({ role: 'decode' })
  const frontend = await place.frontend()
  await frontend.ready()
  await prefill.die()
  const response = await chat(frontend)
  assert.equal(response.status, 200)
  assert.match(prefillOf(response) ?? '', /^fallback:/)
})

test('a decode worker that dies mid-stream: the stream goes on elsewhere, with the same text', async () => {
  const place = deployment()
  const workers = [await place.worker({ role: 'aggregated', settings: { stepBaseMs: 10 } }), await place.worker({ role: 'aggregated', settings: { stepBaseMs: 10 } })]
  const frontend = await place.frontend()
  await frontend.ready()
  const response = await chat(frontend, { max_tokens: 40, stream: true })
  const reader = (response.body as ReadableStream<Uint8Array>).getReader()
  let text = ''
  const decoder = new TextDecoder()
  let died = false
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text += decoder.decode(part.value, { stream: true })
    if (died || text.split('data: ').length < 6) continue
    died = true
    await workers.find(({ worker }) => worker.inflight > 0)?.die()
  }
  assert.ok(died)
  assert.match(text, /data: \[DONE\]/)
  assert.doesNotMatch(text, /"error"/)
  const contents = [...text.matchAll(/"content":"([^"]*)"/g)].map((match) => match[1]).join('')
  assert.equal(contents.trim().split(' ').length, 40)
})

test('not ready is 503 with Retry-After and the reason, unknown is 404', async () => {
  const place = deployment()
  const frontend = await place.frontend()
  assert.equal((await chat(frontend)).status, 404)
  await place.worker({ role: 'decode' })
  await until(() => frontend.assembled.service.models.find('tiny') !== undefined)
  const waiting = await chat(frontend)
  assert.equal(waiting.status, 503)
  assert.ok(Number(waiting.headers.get('retry-after')) > 0)
  assert.match(await waiting.text(), /need prefill workers/)
  await place.worker({ role: 'prefill', model: 'other' })
  assert.equal((await frontend.post('/v1/completions', { model: 'other', prompt: 'a' })).status, 404, 'prefill workers alone are no model')
  await place.worker({ role: 'prefill' })
  await frontend.ready()
  assert.equal((await chat(frontend)).status, 200)
})

test('strict: without prefill workers there is no model', async () => {
  const place = deployment()
  const prefill = await place.worker({ role: 'prefill' })
  await place.worker({ role: 'decode' })
  const frontend = await place.frontend(['--require-prefill'])
  await frontend.ready()
  await prefill.leave()
  await until(() => frontend.assembled.service.models.list().length === 0)
  assert.equal((await chat(frontend)).status, 503)
})

test('two components of one model are one pool; one with another card gets nothing and takes nothing down', async () => {
  const place = deployment()
  const workers = [await place.worker({ role: 'decode' }), await place.worker({ role: 'decode', component: 'decode2' })]
  const stranger = await place.worker({ role: 'decode', component: 'decode3', settings: { blockSize: 32 } })
  await place.worker({ role: 'prefill' })
  const frontend = await place.frontend(['--router-mode', 'round-robin'])
  await frontend.ready()
  await until(() => [...frontend.assembled.service.models.pools].some(({ workerCount }) => workerCount === 2))
  for (let count = 0; count < 4; count += 1) assert.equal((await chat(frontend)).status, 200)
  const prompts = ({ worker }: { worker: { engine: { loads: readonly { promptTokens: number }[] } } }): number => worker.engine.loads.reduce((sum, { promptTokens }) => sum + promptTokens, 0)
  for (const worker of workers) assert.ok(prompts(worker) > 0)
  assert.equal(prompts(stranger), 0)
  assert.ok(place.lines.some((line) => /worker refused.*kv_cache_block_size 32 where the others have 16/.test(line)))
  await workers[0]?.leave()
  await until(() => [...frontend.assembled.service.models.pools].every(({ workerCount }) => workerCount === 1))
  assert.equal((await chat(frontend)).status, 200)
})

test('namespaces: prefill is paired inside its own, requests go to those that are ready', async () => {
  const place = deployment()
  await place.worker({ role: 'decode', namespace: 'a' })
  await place.worker({ role: 'prefill', namespace: 'b' })
  const frontend = await place.frontend()
  const scoped = await place.frontend(['--namespace', 'c'])
  await until(() => frontend.assembled.service.models.find('tiny') !== undefined)
  assert.equal((await chat(frontend)).status, 503)
  await place.worker({ role: 'aggregated', namespace: 'c' })
  await frontend.ready()
  await scoped.ready()
  assert.equal(prefillOf(await chat(frontend)), 'none')
  await place.worker({ role: 'prefill', namespace: 'a' })
  await until(() => frontend.assembled.service.models.entry('tiny') !== null)
  assert.equal((await chat(scoped)).status, 200)
  const health = await (await fetch(`${scoped.url}/health`)).json() as { readonly endpoints: readonly string[] }
  assert.deepEqual(health.endpoints, ['dyn://c.aggregated.generate'])
})

test('busy thresholds set while running refuse with the overload status', async () => {
  const place = deployment()
  await place.worker({ role: 'aggregated', settings: { stepBaseMs: 20 } })
  const frontend = await place.frontend(['--overload-status', '503'])
  await frontend.ready()
  assert.equal((await frontend.post('/busy_threshold', { model: 'tiny', active_decode_blocks_threshold: 0 })).status, 200)
  const running = chat(frontend, { max_tokens: 200 })
  await until(() => bookings(frontend) === 1)
  const refused = await chat(frontend)
  assert.equal(refused.status, 503)
  assert.match(await refused.text(), /overloaded/)
  assert.equal((await frontend.post('/busy_threshold', { model: 'tiny', active_decode_blocks_threshold: null })).status, 200)
  await frontend.server.close(0)
  await running.catch(() => {})
})

test('thresholds and policies of all models change over the settings, also for models to come', async () => {
  const place = deployment()
  await place.worker({ role: 'aggregated' })
  const frontend = await place.liveFrontend()
  await frontend.ready()
  const { live, assembled: { service: { models } } } = frontend
  assert.equal((await frontend.post('/busy_threshold', { model: 'tiny', active_decode_blocks_threshold: 0.25 })).status, 200)
  assert.equal((await live.patch({ 'router-temperature': 0.5 })).kind, 'applied')
  assert.equal(models.busyThresholds('tiny')?.activeDecodeBlocks, 0.25, 'what was not changed stays')
  assert.deepEqual([...models.pools].map(({ routed }) => routed.router?.settings.temperature), [0.5])
  assert.equal((await live.patch({ 'active-decode-blocks-threshold': 0.75 })).kind, 'applied')
  assert.equal(models.busyThresholds('tiny')?.activeDecodeBlocks, 0.75)
  await place.worker({ role: 'aggregated', model: 'later', component: 'other' })
  await frontend.ready(2)
  assert.equal(models.busyThresholds('later')?.activeDecodeBlocks, 0.75)
  assert.deepEqual([...models.pools].map(({ routed }) => routed.router?.settings.temperature), [0.5, 0.5])
  assert.equal((await chat(frontend)).status, 200)
})

test('a policy and a router mode that asks for no cost exclude each other', async () => {
  await assert.rejects(deployment().frontend(['--router-mode', 'random', '--policy', 'x.js']), /--policy needs --router-mode kv; --router-mode is random/)
})

test('a client that leaves frees its worker', async () => {
  const place = deployment()
  const { worker } = await place.worker({ role: 'aggregated', settings: { stepBaseMs: 20 } })
  const frontend = await place.frontend()
  await frontend.ready()
  const leaving = new AbortController()
  const response = await frontend.post('/v1/completions', { model: 'tiny', prompt, max_tokens: 4000, stream: true }, { signal: leaving.signal })
  await until(() => worker.inflight === 1)
  leaving.abort()
  await response.text().catch(() => '')
  await until(() => worker.inflight === 0 && bookings(frontend) === 0)
})

test('draining lets an answer finish', async () => {
  const place = deployment()
  await place.worker({ role: 'aggregated', settings: { stepBaseMs: 10 } })
  const frontend = await place.frontend()
  await frontend.ready()
  const answer = chat(frontend, { max_tokens: 20 })
  await until(() => frontend.assembled.service.models.activeCount === 1)
  await Promise.all([frontend.server.close(5000), frontend.assembled.service.drain()])
  assert.equal(((await (await answer).json()) as Answer).usage.completion_tokens, 20)
})

test('metrics tell the two stages apart, and what the card says of the model', async () => {
  const place = deployment()
  const [prefill, decode] = [await place.worker({ role: 'prefill' }), await place.worker({ role: 'decode' })]
  const frontend = await place.frontend()
  await frontend.ready()
  assert.equal(prefillOf(await chat(frontend)), 'remote')
  const lines = (await (await fetch(`${frontend.url}/metrics`)).text()).split('\n')
  const having = (...parts: readonly string[]): string[] => lines.filter((line) => !line.startsWith('#') && parts.every((part) => line.includes(part)))
  for (const [{ worker }, stage] of [[prefill, 'prefill'], [decode, 'decode']] as const) {
    const registered = having('router_worker_registered', `"${worker.instanceId}"`)
    assert.equal(registered.length, 1)
    assert.match(registered[0] ?? '', new RegExp(`worker_type="${stage}"`))
  }
  assert.equal(having('router_input_sequence_tokens_count', 'model="tiny"', 'phase="decode"').length, 1)
  assert.equal(having('phase="aggregated"').filter((line) => line.includes('model=')).length, 0)
  for (const name of ['model_kv_cache_block_size', 'model_total_kv_blocks', 'model_max_num_seqs', 'model_max_num_batched_tokens', 'model_migration_limit']) {
    assert.equal(having(`dynamo_frontend_${name}{model="tiny"}`).length, 1, name)
  }
  assert.equal(having('stage_duration_seconds_count', 'stage="preprocess"').length, 1)
  assert.equal(having('kv_event_source_mismatch_workers', 'model="unknown"').length, 1)
})
