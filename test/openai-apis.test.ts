/** Goal: the Responses, Messages and Embeddings APIs under the official clients. Method: their calls over loopback onto fake workers; what workers are sent. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import Anthropic from '@anthropic-ai/sdk'
import fc from 'fast-check'
import OpenAI from 'openai'
import { FailureError } from '../src/model/failure.ts'
import { shortest } from '../src/openai/embeddings.ts'
import type { JsonObject } from '../src/ports.ts'
import { failing, FakeCatalog, FakeModel, saying, startOpenAi, tokensOf, type StartedServer } from './openai-kit.ts'
import { until } from './until.ts'

const call = '<tool_call>\n{"name": "look", "arguments": {"city": "Paris"}}\n</tool_call>'
const asked: JsonObject[] = []
const vectors = (embedding: readonly number[] | string): JsonObject => ({ embeddings: [embedding as never], prompt_tokens: 3, total_tokens: 3 })
const model = new FakeModel(saying('hello'), { changes: { parsers: { toolCall: 'hermes', reasoning: 'deepseek_r1' } } })
const plain = new FakeModel(saying('hello'), { name: 'plain', changes: { parsers: { toolCall: 'hermes', reasoning: null } } })
const embedder = new FakeModel(saying(''), {
  name: 'embedder', changes: { supportsChat: false, supportsCompletions: false, supportsEmbeddings: true, ask: async (request) => { asked.push(request); return vectors([0.25, 1.5]) } },
})
let started: StartedServer
let openai: OpenAI
let anthropic: Anthropic
before(async () => {
  started = await startOpenAi(new FakeCatalog(model, plain, embedder), { anthropic: { stripPreamble: true } })
  openai = new OpenAI({ baseURL: `${started.server.url}/v1`, apiKey: 'unused', maxRetries: 0 })
  anthropic = new Anthropic({ baseURL: started.server.url, apiKey: 'unused', maxRetries: 0 })
})
after(() => started.server.close(0))

test('a response with thoughts, text and calls: the stream ends as the whole', async () => {
  model.script = saying(`hm</think>I look ${call}${call}`)
  const body = { model: 'tiny', input: 'x', tools: [{ type: 'function' as const, name: 'look', parameters: { type: 'object' }, strict: false }] }
  const whole = await openai.responses.create(body)
  const kinds = whole.output.map((item) => item.type)
  assert.deepEqual(kinds.filter((kind) => kind !== 'message'), ['reasoning', 'function_call', 'function_call'])
  const streamed = await openai.responses.stream(body).finalResponse()
  const bare = (output: typeof whole.output): unknown => JSON.parse(JSON.stringify(output, (name, value: unknown) => (['id', 'call_id', 'parsed_arguments', 'parsed'].includes(name) ? undefined : value)))
  assert.deepEqual(bare(streamed.output), bare(whole.output))
  assert.deepEqual([streamed.status, streamed.usage?.output_tokens], ['completed', whole.usage?.output_tokens])
})

test('events of a response: numbered without a gap, every item opened and closed, one at a time', async () => {
  model.script = saying(`hm</think>text ${call}`)
  const text = await (await started.post('/v1/responses', { model: 'tiny', input: 'x', stream: true, tools: [{ type: 'function', name: 'look' }] })).text()
  const events = text.split('\n\n').filter((block) => block.startsWith('event: ')).map((block) => JSON.parse(block.slice(block.indexOf('data: ') + 6)) as { type: string; sequence_number: number; output_index?: number })
  assert.deepEqual(events.map(({ sequence_number: number }) => number), events.map((_, index) => index))
  assert.deepEqual([events[0]?.type, events[1]?.type, events.at(-1)?.type], ['response.created', 'response.in_progress', 'response.completed'])
  let open: number | undefined
  for (const { type, output_index: index } of events) {
    if (type === 'response.output_item.added') {
      assert.equal(open, undefined)
      open = index
    } else if (type === 'response.output_item.done') {
      assert.equal(open, index)
      open = undefined
    } else if (index !== undefined) assert.equal(open, index, type)
  }
  assert.ok(text.endsWith('data: [DONE]\n\n'))
})

test('a response that is cut, fails before or in the middle, or asks for a memory', async () => {
  plain.script = saying('hello', 'length')
  const cut = await openai.responses.create({ model: 'plain', input: 'x', max_output_tokens: 5 })
  assert.deepEqual([cut.status, cut.incomplete_details?.reason, cut.output_text], ['incomplete', 'max_output_tokens', 'hello'])
  plain.script = failing(new FailureError({ class: 'Unavailable', reason: 'backend.unavailable', message: 'no worker' }))
  await assert.rejects(openai.responses.create({ model: 'plain', input: 'x', stream: true }), OpenAI.InternalServerError)
  plain.script = async function* () {
    yield { token_ids: tokensOf('ab') }
    throw new FailureError({ class: 'Unavailable', reason: 'backend.disconnected', message: 'the worker left' })
  }
  const text = await (await started.post('/v1/responses', { model: 'plain', input: 'x', stream: true })).text()
  assert.match(text, /event: response\.failed\ndata: .*"status":"failed".*"message":"the worker left"/)
  for (const [field, value, status] of [['previous_response_id', 'r', 501], ['background', true, 501], ['max_output_tokens', 0, 400], ['tools', [{ type: 'web_search' }], 400], ['input', [], 400], ['input', [{ role: 'alien', content: '' }], 400], ['input', [{ type: 'item_reference', id: 'x' }], 400]] as const) {
    const refused = await started.post('/v1/responses', { model: 'plain', input: 'x', [field]: value })
    assert.equal(refused.status, status, field)
    assert.match(((await refused.json()) as { error: { message: string } }).error.message, new RegExp(field))
  }
})

test('a message with thinking, text and tool use: the stream ends as the whole', async () => {
  model.script = saying(`hm</think>I look ${call}`)
  const body = { model: 'tiny', max_tokens: 200, messages: [{ role: 'user' as const, content: 'x' }], tools: [{ name: 'look', input_schema: { type: 'object' as const } }] }
  const whole = await anthropic.messages.create(body)
  assert.deepEqual(whole.content.map((block) => block.type).filter((type) => type !== 'text'), ['thinking', 'tool_use'])
  assert.equal(whole.stop_reason, 'tool_use')
  const streamed = await anthropic.messages.stream(body).finalMessage()
  // A stream tells a signature, as the original's, so that clients see the end of the thought.
  const bare = (content: typeof whole.content): unknown => content.map((block) => ({ ...block, id: undefined, signature: undefined }))
  assert.deepEqual(bare(streamed.content), bare(whole.content))
  assert.deepEqual(streamed.usage.output_tokens, whole.usage.output_tokens)
})

test('demanded calls come in pieces on every API, and put together they are the call', async () => {
  const list = '[{"name": "look", "parameters": {"city": "Par\\"is }"}}, {"name": "look", "arguments": {}}]'
  model.script = saying(`hm</think>${list}`)
  const expected = [['look', '{"city": "Par\\"is }"}'], ['look', '{}']]
  const stream = openai.chat.completions.stream({ model: 'tiny', messages: [{ role: 'user', content: 'x' }], tools: [{ type: 'function', function: { name: 'look' } }], tool_choice: 'required' })
  let pieces = 0
  for await (const chunk of stream) pieces += chunk.choices[0]?.delta.tool_calls?.length ?? 0
  assert.ok(pieces > 2, `${pieces} pieces`)
  const calls = (await stream.finalChatCompletion()).choices[0]?.message.tool_calls ?? []
  assert.deepEqual(calls.map((each) => each.type === 'function' && [each.function.name, each.function.arguments]), expected)
  const response = await openai.responses.stream({ model: 'tiny', input: 'x', tools: [{ type: 'function', name: 'look', parameters: null, strict: false }], tool_choice: 'required' }).finalResponse()
  assert.deepEqual(response.output.flatMap((item) => (item.type === 'function_call' ? [[item.name, item.arguments]] : [])), expected)
  const message = await anthropic.messages.stream({ model: 'tiny', max_tokens: 200, messages: [{ role: 'user', content: 'x' }], tools: [{ name: 'look', input_schema: { type: 'object' } }], tool_choice: { type: 'any' } }).finalMessage()
  assert.deepEqual(message.content.flatMap((block) => (block.type === 'tool_use' ? [block.input] : [])), [{ city: 'Par"is }' }, {}])
})

test('why a message ended, its cached tokens, and its errors in their own form', async () => {
  const say = { model: 'plain', max_tokens: 50, messages: [{ role: 'user' as const, content: 'x' }] }
  plain.script = saying('hello END', 'stop', { completion_usage: { prompt_tokens_details: { cached_tokens: 4 } } })
  const stopped = await anthropic.messages.create({ ...say, stop_sequences: ['END'] })
  assert.deepEqual([stopped.content, stopped.stop_reason, stopped.stop_sequence], [[{ type: 'text', text: 'hello ' }], 'stop_sequence', 'END'])
  const whole = await anthropic.messages.create(say)
  const prompt = ((plain.requests.at(-1) ?? {})['token_ids'] as readonly number[]).length
  assert.deepEqual([whole.stop_reason, whole.usage.input_tokens, whole.usage.cache_read_input_tokens], ['end_turn', prompt - 4, 4])
  assert.equal((await anthropic.messages.countTokens({ model: 'plain', messages: say.messages })).input_tokens, prompt)
  for (const [error, status, type] of [['CapacityExhausted', 529, 'overloaded_error'], ['Internal', 500, 'api_error'], ['DeadlineExceeded', 504, 'timeout_error']] as const) {
    plain.script = failing(new FailureError({ class: error, reason: error === 'Internal' ? 'backend.unknown' : error === 'DeadlineExceeded' ? 'backend.response_timeout' : 'capacity.pool_exhausted', message: 'm' }))
    await assert.rejects(anthropic.messages.create(say), (thrown) => thrown instanceof Anthropic.APIError && thrown.status === status && (thrown.error as { error: { type: string } }).error.type === type)
  }
  for (const [field, value] of [['max_tokens', undefined], ['max_tokens', 0], ['messages', []], ['tools', [{ type: 'web_search_20250305', name: 'w' }]], ['tool_choice', { type: 'x' }], ['thinking', { type: 'x' }], ['messages', [{ role: 'user', content: [{ type: 'document' }] }]]] as const) {
    const refused = await started.post('/v1/messages', { ...say, [field]: value })
    assert.equal(refused.status, 400, field)
    const { type, error } = (await refused.json()) as { type: string; error: { type: string; message: string } }
    assert.deepEqual([type, error.type], ['error', 'invalid_request_error'])
    assert.match(error.message, new RegExp(field))
  }
})

test('a client of either API that leaves ends the worker\'s request', async () => {
  for (const path of ['/v1/responses', '/v1/messages']) {
    const before = plain.ended
    plain.script = async function* (_request, { signal }) {
      yield { token_ids: tokensOf('a') }
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
    }
    const leaving = new AbortController()
    const response = await fetch(`${started.server.url}${path}`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, signal: leaving.signal,
      body: JSON.stringify({ model: 'plain', stream: true, max_tokens: 9, input: 'x', messages: [{ role: 'user', content: 'x' }] }),
    })
    await response.body?.getReader().read()
    leaving.abort()
    await until(`the end of ${path}`, () => plain.ended === before + 1)
  }
})

test('embeddings: what a worker is sent and what comes of its answer, in either form', async () => {
  const given = await openai.embeddings.create({ model: 'embedder', input: 'abc', dimensions: 2, user: 'me' })
  assert.deepEqual([given.data, given.usage], [[{ object: 'embedding', index: 0, embedding: [0.25, 1.5] }], { prompt_tokens: 3, total_tokens: 3 }])
  assert.deepEqual(asked.at(-1), { token_ids: [tokensOf('abc')], model: 'embedder', dimensions: 2, mdc_sum: 'card-sum', annotations: [], encoding_format: 'base64', user: 'me' })
  const floats = await started.post('/v1/embeddings', { model: 'embedder', input: [[5, 6], [7]] })
  assert.deepEqual(((await floats.json()) as { data: unknown[] }).data[0], { object: 'embedding', index: 0, embedding: [0.25, 1.5] })
  assert.deepEqual(asked.at(-1)?.['token_ids'], [[5, 6], [7]])
  for (const [field, value] of [['input', undefined], ['input', ''], ['input', []], ['input', [[]]], ['input', ['a', '']], ['input', [300]], ['encoding_format', 'hex'], ['dimensions', 0]] as const) {
    const refused = await started.post('/v1/embeddings', { model: 'embedder', input: 'x', [field]: value })
    assert.equal(refused.status, 400, `${field} ${JSON.stringify(value)}`)
    assert.match(await refused.text(), new RegExp(field))
  }
  assert.equal((await started.post('/v1/embeddings', { model: 'plain', input: 'x' })).status, 404)
  assert.equal((await started.post('/v1/chat/completions', { model: 'embedder', messages: [{ role: 'user', content: 'x' }] })).status, 404)
})

test('32-bit numbers are shown with as few digits as tell them apart', () => {
  assert.deepEqual([shortest(Math.fround(0.1)), shortest(Math.fround(1 / 3)), shortest(0), shortest(-2)], [0.1, 0.33333334, 0, -2])
  fc.assert(fc.property(fc.float({ noNaN: true }), (value) => Math.fround(shortest(value)) === value))
})
