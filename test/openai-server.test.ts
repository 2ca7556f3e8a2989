/** Goal: the HTTP API answers as OpenAI's does. Method: a real server over fake workers, asked over loopback. */
import assert from 'node:assert/strict'
import { request as httpRequest } from 'node:http'
import { after, test } from 'node:test'
import { FailureError } from '../src/model/failure.ts'
import { eosId, eventsOf, failing, FakeCatalog, FakeModel, saying, saysNothing, sayingAndWaiting, startOpenAi, tokensOf, type Script, type StartedServer } from './openai-kit.ts'
import type { OpenAiServerOptions } from '../src/openai/openai-server.ts'
import { until } from './until.ts'

const servers: StartedServer[] = []
after(async () => {
  for (const { server } of servers) await server.close(0)
})

async function start(script: Script, options: Partial<OpenAiServerOptions> = {}): Promise<StartedServer & { model: FakeModel; catalog: FakeCatalog }> {
  const model = new FakeModel(script)
  const catalog = new FakeCatalog(model)
  const started = await startOpenAi(catalog, options)
  servers.push(started)
  return { ...started, model, catalog }
}

const chat = (more: object = {}): object => ({ model: 'tiny', messages: [{ role: 'user', content: 'hello' }], ...more })
const promptTokens = tokensOf('<user>hello<assistant>').length
const CHAT = '/v1/chat/completions'

interface Chunk {
  readonly id: string
  readonly choices: readonly { readonly index: number; readonly delta: { content?: string; role?: string }; readonly text?: string; readonly finish_reason: string | null }[]
  readonly usage?: object | null
  readonly nvext?: Record<string, unknown>
}
const chunksOf = (text: string): Chunk[] => eventsOf(text).filter((event) => event !== '[DONE]') as Chunk[]
const textOf = (chunks: readonly Chunk[], index = 0): string =>
  chunks.flatMap(({ choices }) => choices.filter((choice) => choice.index === index)).map((choice) => choice.delta?.content ?? choice.text ?? '').join('')

test('a whole chat answer', async () => {
  const usage = { completion_usage: { prompt_tokens: 9, completion_tokens: 9, total_tokens: 18, prompt_tokens_details: { cached_tokens: 16 } } }
  const { post, model } = await start(saying('Hi wörld', 'stop', usage))
  const response = await post(CHAT, chat({ max_tokens: 20 }), { 'x-request-id': 'req-1' })
  assert.equal(response.status, 200)
  assert.equal(response.headers.get('x-request-id'), 'req-1')
  assert.equal(response.headers.get('x-warmpath-prefill'), 'none')
  const { id, created, ...body } = (await response.json()) as { id: string; created: number }
  assert.match(id, /^chatcmpl-[0-9a-f-]{36}$/)
  assert.equal(typeof created, 'number')
  assert.deepEqual(body, {
    choices: [{ index: 0, message: { content: 'Hi wörld', refusal: null, role: 'assistant' }, finish_reason: 'stop', logprobs: null }],
    model: 'tiny', object: 'chat.completion',
    usage: { prompt_tokens: promptTokens, completion_tokens: 9, total_tokens: promptTokens + 9, prompt_tokens_details: { cached_tokens: 16 } },
  })
  assert.equal(model.calls[0]?.id, id.slice('chatcmpl-'.length))
})

test('a streamed chat answer: role once, no broken character, finish on the last content, usage when asked', async () => {
  const { post } = await start(saying('a😀b', 'length'))
  const response = await post(CHAT, chat({ stream: true, stream_options: { include_usage: true } }))
  assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/)
  const text = await response.text()
  assert.ok(text.endsWith('data: [DONE]\n\n'))
  const chunks = chunksOf(text)
  assert.deepEqual(chunks.slice(0, 3).map(({ choices }) => choices[0]?.delta), [{ content: 'a', role: 'assistant' }, { content: '😀' }, { content: 'b' }])
  assert.deepEqual(chunks.map(({ choices }) => choices[0]?.finish_reason), [null, null, 'length', undefined])
  assert.deepEqual(chunks.at(-1)?.usage, { prompt_tokens: promptTokens, completion_tokens: 6, total_tokens: promptTokens + 6 })
  assert.equal('usage' in (chunks[0] ?? {}), false)
})

test('usage on every chunk when asked, also where no text came', async () => {
  const { post } = await start(saying('é', 'stop'))
  const chunks = chunksOf(await (await post(CHAT, chat({ stream: true, stream_options: { include_usage: true, continuous_usage_stats: true } }))).text())
  assert.deepEqual(chunks.map((chunk) => (chunk.usage as { completion_tokens: number }).completion_tokens), [1, 2, 2])
})

test('end-of-sequence tokens end the answer unseen and counted, not before min_tokens', async () => {
  const script: Script = async function* () {
    for (const token of [...tokensOf('ab'), eosId, ...tokensOf('cd'), eosId, ...tokensOf('e')]) yield { token_ids: [token] }
  }
  const { post, model } = await start(script)
  const first = (await (await post(CHAT, chat())).json()) as { choices: [{ message: { content: string }; finish_reason: string }]; usage: { completion_tokens: number } }
  assert.deepEqual([first.choices[0].message.content, first.choices[0].finish_reason, first.usage.completion_tokens], ['ab', 'stop', 3])
  assert.equal(model.ended, 1)
  const later = (await (await post(CHAT, chat({ min_tokens: 4 }))).json()) as typeof first
  assert.equal(later.choices[0].message.content, 'abcd')
})

test('stop strings across tokens: text before them only, the worker is told to end', async () => {
  const { post, model } = await start(sayingAndWaiting('alpha beta STOP gamma'))
  const whole = (await (await post(CHAT, chat({ stop: ['a STO'], nvext: { extra_fields: ['stop_reason'] } }))).json()) as { choices: [{ message: { content: string }; finish_reason: string }]; nvext: object }
  assert.deepEqual([whole.choices[0].message.content, whole.choices[0].finish_reason, whole.nvext], ['alpha bet', 'stop', { stop_reason: 'a STO' }])
  await until('the end of the first request', () => model.ended === 1)
  const chunks = chunksOf(await (await post(CHAT, chat({ stop: 'STOP', stream: true }))).text())
  assert.equal(textOf(chunks), 'alpha beta ')
  assert.deepEqual(chunks.at(-1)?.choices[0], { index: 0, delta: {}, finish_reason: 'stop', logprobs: null })
  const included = (await (await post(CHAT, chat({ stop: 'STOP', include_stop_str_in_output: true }))).json()) as typeof whole
  assert.equal(included.choices[0].message.content, 'alpha beta STOP')
  await until('the end of all requests', () => model.ended === 3)
})

test('n answers by the index of the outputs', async () => {
  const script: Script = async function* () {
    for (const [index, letter] of [[0, 'a'], [1, 'x'], [1, 'y'], [0, 'b']] as const) yield { token_ids: tokensOf(letter), index, finish_reason: letter === 'y' || letter === 'b' ? 'stop' : null }
  }
  const { post } = await start(script)
  const body = (await (await post(CHAT, chat({ n: 2 }))).json()) as { choices: { index: number; message: { content: string } }[]; usage: { completion_tokens: number } }
  assert.deepEqual(body.choices.map(({ index, message }) => [index, message.content]), [[0, 'ab'], [1, 'xy']])
  assert.equal(body.usage.completion_tokens, 4)
  const chunks = chunksOf(await (await post(CHAT, chat({ n: 2, stream: true }))).text())
  assert.deepEqual([textOf(chunks, 0), textOf(chunks, 1)], ['ab', 'xy'])
  assert.equal(chunks.filter(({ choices }) => choices[0]?.delta.role === 'assistant').length, 2)
})

test('several prompts: one request each, indexes in order, usage summed', async () => {
  const script: Script = async function* (request) {
    const prompt = request['token_ids'] as number[]
    yield { token_ids: prompt.slice(0, 1), finish_reason: 'stop' }
  }
  const { post, model } = await start(script)
  const body = (await (await post('/v1/completions', { model: 'tiny', prompt: ['ab', 'xyz'], echo: true })).json()) as { choices: { index: number; text: string }[]; usage: object }
  assert.deepEqual(body.choices.map(({ index, text }) => [index, text]), [[0, 'aba'], [1, 'xyzx']])
  assert.deepEqual(body.usage, { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 })
  assert.equal(new Set(model.calls.map(({ id }) => id)).size, 2)
  const tokens = (await (await post('/v1/completions', { model: 'tiny', prompt: [tokensOf('q')[0]] })).json()) as { choices: { text: string }[]; object: string }
  assert.deepEqual([tokens.object, tokens.choices[0]?.text], ['text_completion', 'q'])
  const chunks = chunksOf(await (await post('/v1/completions', { model: 'tiny', prompt: ['ab', 'xyz'], stream: true })).text())
  assert.deepEqual(chunks.map(({ choices }) => choices[0]?.index).sort(), [0, 1])
  assert.ok(chunks.every(({ id, choices }) => id.endsWith(`-${choices[0]?.index}`)))
})

test('log probabilities of tokens in both shapes', async () => {
  const [a, b] = tokensOf('ab') as [number, number]
  const script: Script = async function* () {
    yield { token_ids: [a, b], finish_reason: 'stop', log_probs: [-0.5, -1], top_logprobs: [[{ token_id: b, logprob: -2 }, { token_id: a, logprob: -0.5 }], [{ token_id: b, logprob: -1 }]] }
  }
  const { post, model } = await start(script)
  const body = (await (await post(CHAT, chat({ logprobs: true, top_logprobs: 1 }))).json()) as { choices: [{ logprobs: object }] }
  const entry = (token: string, logprob: number): object => ({ token, logprob, bytes: [token.charCodeAt(0)] })
  assert.deepEqual(body.choices[0].logprobs, {
    content: [{ ...entry('a', -0.5), top_logprobs: [entry('a', -0.5)] }, { ...entry('b', -1), top_logprobs: [entry('b', -1)] }], refusal: null,
  })
  assert.equal((model.requests[0] as { output_options: { logprobs: number } }).output_options.logprobs, 1)
  const completion = (await (await post('/v1/completions', { model: 'tiny', prompt: 'q', logprobs: 2 })).json()) as typeof body
  assert.deepEqual(completion.choices[0].logprobs, { tokens: ['a', 'b'], token_logprobs: [-0.5, -1], top_logprobs: [{ a: -0.5, b: -2 }, { b: -1 }], text_offset: [0, 1] })
})

test('extra fields, annotations and query-only requests', async () => {
  const workerId = { prefill_worker_id: 1, prefill_dp_rank: 0, decode_worker_id: 2, decode_dp_rank: 0 }
  const script: Script = async function* (request) {
    if ((request['annotations'] as string[]).includes('query_instance_id:')) {
      yield { token_ids: [], routing_data: { worker_id: workerId, token_ids: request['token_ids'] as number[] } }
      return
    }
    yield { token_ids: tokensOf('a'), routing_data: { worker_id: workerId } }
    yield { token_ids: tokensOf('b'), finish_reason: 'length', routing_data: { timing: { kv_hit_rate: 0.5 } } }
  }
  const { post } = await start(script)
  const nvext = { extra_fields: ['worker_id', 'timing', 'completion_token_ids', 'prompt_token_ids', 'detailed_finish_reason'], annotations: ['request_id', 'formatted_prompt', 'token_ids'] }
  const text = await (await post(CHAT, chat({ stream: true, nvext }))).text()
  const chunks = chunksOf(text)
  const requestId = chunks[0]?.id.slice('chatcmpl-'.length)
  assert.ok(text.startsWith(`event: request_id\n: "${requestId}"\n\nevent: formatted_prompt\n: "<user>hello<assistant>"\n\nevent: token_ids\n: "[`))
  assert.deepEqual(chunks[0]?.nvext, { worker_id: workerId, completion_token_ids: tokensOf('a') })
  const { timing, ...last } = (chunks[1] as unknown as { nvext: { timing: { kv_hit_rate: number; total_time_ms: number } } }).nvext
  assert.deepEqual(last, { worker_id: workerId, completion_token_ids: tokensOf('b'), prompt_token_ids: tokensOf('<user>hello<assistant>'), detailed_finish_reason: 'length' })
  assert.equal(timing.kv_hit_rate, 0.5)
  assert.ok(timing.total_time_ms >= 0)
  const whole = (await (await post(CHAT, chat({ nvext }))).json()) as { nvext: { completion_token_ids: number[] } }
  assert.deepEqual(whole.nvext.completion_token_ids, tokensOf('ab'))
  const query = (await (await post(CHAT, chat({ nvext: { annotations: ['query_instance_id:'] } }))).json()) as object
  assert.deepEqual({ ...query, id: '', created: 0 }, {
    id: '', created: 0, model: 'tiny', object: 'chat.completion',
    choices: [{ index: 0, message: { content: null, refusal: null, role: 'assistant' }, finish_reason: null, logprobs: null }],
    nvext: { worker_id: workerId, token_ids: tokensOf('<user>hello<assistant>') },
  })
})

test('failures before the first output have a status, later ones stand in the stream', async () => {
  const unavailable = new FailureError({ class: 'Unavailable', reason: 'backend.unavailable', message: 'no worker of the target endpoint is known' })
  const { post, model, log } = await start(failing(unavailable))
  for (const stream of [false, true]) {
    const response = await post(CHAT, chat({ stream }))
    assert.equal(response.status, 503)
    assert.ok(Number(response.headers.get('retry-after')) >= 1)
    assert.deepEqual(await response.json(), { error: { message: 'no worker of the target endpoint is known', type: 'service_unavailable', param: null, code: 'backend.unavailable' } })
  }
  model.script = async function* () {
    yield { token_ids: tokensOf('a') }
    throw new FailureError({ class: 'Internal', reason: 'backend.unknown', message: 'secret of a worker' })
  }
  const text = await (await post(CHAT, chat({ stream: true }))).text()
  const events = eventsOf(text) as [Chunk, { error: { message: string; status: number } }, string]
  assert.deepEqual([events[0].choices[0]?.delta.content, events[1].error.status, events[2]], ['a', 500, '[DONE]'])
  assert.doesNotMatch(text, /secret/)
  assert.ok(log.lines.some(({ level, fields }) => level === 'warn' && String(fields['error']).includes('secret')))
})

test('a worker that reports an error or ends without output is no empty answer', async () => {
  const { post, model } = await start(async function* () { yield { token_ids: [], finish_reason: { error: 'boom' } } })
  assert.equal((await post(CHAT, chat())).status, 500)
  model.script = saysNothing
  assert.equal((await post(CHAT, chat())).status, 502)
  model.script = failing(new Error('unforeseen'))
  assert.equal((await post(CHAT, chat())).status, 500)
})

test('overload: 529 or what the operator says, with Retry-After, nested or flat', async () => {
  const full = failing(new FailureError({ class: 'CapacityExhausted', reason: 'capacity.pool_exhausted', message: 'all workers are busy' }))
  const plain = await (await start(full)).post(CHAT, chat())
  assert.deepEqual([plain.status, plain.headers.get('retry-after') !== null], [529, true])
  const other = await (await start(full, { overloadStatus: 429, dynamoErrors: true })).post(CHAT, chat())
  assert.equal(other.status, 429)
  assert.deepEqual(await other.json(), { message: 'all workers are busy', type: 'Overloaded', code: 429 })
  const late = failing(new FailureError({ class: 'DeadlineExceeded', reason: 'router.queue_deadline_exceeded', message: 'waited too long' }))
  assert.equal((await (await start(late)).post(CHAT, chat())).status, 429)
})

test('a client that leaves aborts the call and is counted, streaming or not', async () => {
  const { model, server } = await start(sayingAndWaiting('abc'))
  for (const stream of [true, false]) {
    const { port } = server
    const before = model.ended
    const body = JSON.stringify(chat({ stream }))
    const client = httpRequest({ port, host: '127.0.0.1', method: 'POST', path: CHAT, headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) } })
    client.on('error', () => {})
    client.on('response', (response) => {
      response.on('error', () => {})
      response.once('data', () => client.destroy())
    })
    client.end(body)
    await until('the call', () => model.calls.length === before + 1)
    if (!stream) client.destroy()
    await until('the end of the call', () => model.ended === before + 1)
    assert.equal(model.calls.at(-1)?.signal.aborted, true)
    await until('no open request', () => server.inflight === 0)
  }
})

test('a reader that takes nothing holds the worker back', async () => {
  let made = 0
  const { server } = await start(async function* (_request, call) {
    while (made < 20_000 && !call.signal.aborted) {
      made += 1
      yield { token_ids: tokensOf('x'.repeat(1024)) }
    }
  })
  const body = JSON.stringify(chat({ stream: true }))
  const client = httpRequest({ port: server.port, host: '127.0.0.1', method: 'POST', path: CHAT, headers: { 'content-type': 'application/json' } })
  client.on('error', () => {})
  const response = await new Promise<import('node:http').IncomingMessage>((resolve) => {
    client.on('response', resolve)
    client.end(body)
  })
  response.pause()
  let seen = -1
  await until('a pause', () => {
    const still = made > 0 && made === seen
    seen = made
    return still
  })
  for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve))
  assert.ok(made < 20_000, `stopped after ${made}`)
  response.on('error', () => {})
  client.destroy()
  await until('no open request', () => server.inflight === 0)
})

test('models: list, one with a slash in its name, unknown with the nearest name, not ready', async () => {
  const model = new FakeModel(saying('a'), { name: 'org/tiny-model' })
  const catalog = new FakeCatalog(model)
  catalog.notReady.set('later', { notReady: 'the model "later" waits for a prefill worker; start one', retryAfterSeconds: 7 })
  const started = await startOpenAi(catalog)
  servers.push(started)
  const shape = { id: 'org/tiny-model', object: 'model', created: model.createdSeconds, owned_by: 'warmpath', context_window: null }
  assert.deepEqual(await (await started.get('/v1/models')).json(), { object: 'list', data: [shape] })
  assert.deepEqual(await (await started.get('/v1/models/org/tiny-model')).json(), shape)
  assert.deepEqual(await (await started.get('/v1/models/org%2Ftiny-model')).json(), shape)
  assert.equal((await started.get('/v1/models/none')).status, 404)
  const unknown = await started.post(CHAT, chat({ model: 'tiny-modle' }))
  assert.equal(unknown.status, 404)
  assert.match(((await unknown.json()) as { error: { message: string; code: string } }).error.message, /did you mean "org\/tiny-model"/)
  const later = await started.post(CHAT, chat({ model: 'later' }))
  assert.deepEqual([later.status, later.headers.get('retry-after')], [503, '7'])
})

test('health, live, ready, metrics, wrong routes, methods, types and bodies', async () => {
  const { get, post, catalog, server } = await start(saying('a'), { metrics: () => Promise.resolve({ contentType: 'text/plain', text: 'x 1\n' }), bodyLimitBytes: 2000 })
  assert.match(await (await get('/health')).text(), /"status":"healthy".*"instance_id":8892272219485335855/)
  assert.deepEqual(await (await get('/live')).json(), { status: 'live', message: 'Service is live' })
  assert.deepEqual(await (await get('/ready')).json(), { status: 'ready', models: ['tiny'] })
  assert.equal(await (await get('/metrics')).text(), 'x 1\n')
  assert.equal((await get('/nope')).status, 404)
  const wrong = await get(CHAT)
  assert.deepEqual([wrong.status, wrong.headers.get('allow')], [405, 'POST'])
  assert.deepEqual([(await get('/v1/models', { method: 'DELETE' })).status, (await get('/live', { method: 'HEAD' })).status], [405, 200])
  assert.equal((await post(CHAT, JSON.stringify(chat()), { 'content-type': 'text/plain' })).status, 415)
  assert.equal((await get(CHAT, { method: 'POST' })).status, 415)
  assert.equal((await post(CHAT, chat({ messages: [{ role: 'user', content: 'x'.repeat(3000) }] }))).status, 413)
  const broken = (await (await post(CHAT, '{"model": "tiny", ')).json()) as { error: { message: string } }
  assert.match(broken.error.message, /position 18/)
  assert.equal((await post(CHAT, '')).status, 400)
  assert.equal((await post(CHAT, '[]')).status, 400)
  catalog.models.length = 0
  assert.deepEqual([(await get('/health')).status, (await get('/ready')).status, server.inflight], [503, 503, 0])
})

test("busy thresholds: errors in Dynamo's form are the message alone", async () => {
  const { post } = await start(saying('a'), { dynamoErrors: true })
  for (const [body, status, message] of [
    [{ model: 'none', active_decode_blocks_threshold: 0.5 }, 404, /none.*not found/], [{ model: 'tiny', active_decode_blocks_threshold: 2 }, 400, /active_decode_blocks_threshold/],
  ] as const) {
    const answer = await post('/busy_threshold', body)
    const { error, ...others } = (await answer.json()) as { error: string }
    assert.deepEqual([answer.status, others], [status, {}])
    assert.match(error, message)
  }
})

test('busy thresholds: read, set, refuse; writes through a forwarder need the token', async () => {
  const { get, post } = await start(saying('a'), { adminToken: 'hush' })
  const off = { model: 'tiny', active_decode_blocks_threshold: null, active_prefill_tokens_threshold: null, active_prefill_tokens_threshold_frac: null }
  assert.deepEqual(await (await get('/busy_threshold')).json(), { thresholds: [off] })
  assert.deepEqual(await (await post('/busy_threshold', { model: 'tiny' })).json(), off)
  const set = { ...off, active_decode_blocks_threshold: 0.85, active_prefill_tokens_threshold: 1000 }
  assert.deepEqual(await (await post('/busy_threshold', set)).json(), set)
  assert.equal((await post('/busy_threshold', { model: 'none', active_decode_blocks_threshold: 0.5 })).status, 404)
  assert.equal((await post('/busy_threshold', { model: 'tiny', active_decode_blocks_threshold: 2 })).status, 400)
  const forwarded = { 'x-forwarded-for': '192.0.2.7' }
  assert.equal((await post('/busy_threshold', set, forwarded)).status, 401)
  assert.equal((await post('/busy_threshold', set, { ...forwarded, authorization: 'Bearer nope' })).status, 401)
  assert.equal((await post('/busy_threshold', set, { ...forwarded, authorization: 'Bearer hush' })).status, 200)
  assert.equal((await post('/busy_threshold', { model: 'tiny' }, forwarded)).status, 200)
})

test('closing: open streams are told, nothing is left', async () => {
  const { post, server, model } = await start(sayingAndWaiting('ab'))
  const response = await post(CHAT, chat({ stream: true }))
  assert.equal(server.inflight, 1)
  const closed = server.close(0)
  const events = eventsOf(await response.text()) as [...Chunk[], { error: { status: number } }, string]
  assert.deepEqual([(events.at(-2) as { error: { status: number } }).error.status, events.at(-1)], [503, '[DONE]'])
  await closed
  assert.deepEqual([server.inflight, model.ended], [0, 1])
})
