/** Goal: OpenAI's own client works against the API. Method: the client's calls over loopback, its types and its errors. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import OpenAI, { APIError, BadRequestError, InternalServerError, NotFoundError, RateLimitError } from 'openai'
import { FailureError } from '../src/model/failure.ts'
import { FrontendMetrics } from '../src/openai/frontend-metrics.ts'
import { failing, FakeCatalog, FakeModel, saying, sayingAndWaiting, startOpenAi, tokensOf, type StartedServer } from './openai-kit.ts'
import { until } from './until.ts'

let started: StartedServer
let client: OpenAI
const model = new FakeModel(saying('Hello wörld 😀', 'stop'), { name: 'org/tiny' })
const metrics = new FrontendMetrics()
before(async () => {
  started = await startOpenAi(new FakeCatalog(model), { meter: metrics, overloadStatus: 429 })
  client = new OpenAI({ baseURL: `${started.server.url}/v1`, apiKey: 'unused', maxRetries: 0 })
})
after(() => started.server.close(0))

const messages = [{ role: 'user' as const, content: 'hello' }]

test('chat, whole', async () => {
  const answer = await client.chat.completions.create({ model: 'org/tiny', messages, max_tokens: 20 })
  assert.equal(answer.choices[0]?.message.content, 'Hello wörld 😀')
  assert.equal(answer.choices[0]?.finish_reason, 'stop')
  assert.equal(answer.usage?.total_tokens, (answer.usage?.prompt_tokens ?? 0) + (answer.usage?.completion_tokens ?? 0))
})

test('chat, streamed', async () => {
  const stream = await client.chat.completions.create({ model: 'org/tiny', messages, stream: true, stream_options: { include_usage: true } })
  let text = ''
  let usage: number | undefined
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? ''
    usage = chunk.usage?.completion_tokens ?? usage
  }
  assert.deepEqual([text, usage], ['Hello wörld 😀', tokensOf('Hello wörld 😀').length])
})

test('the client\'s own stream runner ends with the whole message', async () => {
  const runner = client.chat.completions.stream({ model: 'org/tiny', messages })
  assert.equal(await runner.finalContent(), 'Hello wörld 😀')
})

test('completions, whole and streamed, several prompts', async () => {
  const answer = await client.completions.create({ model: 'org/tiny', prompt: ['a', 'b'] })
  assert.deepEqual(answer.choices.map(({ index, text }) => [index, text]), [[0, 'Hello wörld 😀'], [1, 'Hello wörld 😀']])
  let text = ''
  for await (const chunk of await client.completions.create({ model: 'org/tiny', prompt: 'a', stream: true })) text += chunk.choices[0]?.text ?? ''
  assert.equal(text, 'Hello wörld 😀')
})

test('models', async () => {
  const names: string[] = []
  for await (const each of client.models.list()) names.push(each.id)
  assert.deepEqual(names, ['org/tiny'])
  assert.equal((await client.models.retrieve('org/tiny')).id, 'org/tiny')
})

test('errors arrive as the client\'s classes, with message, param and code', async () => {
  await assert.rejects(client.chat.completions.create({ model: 'org/tiny', messages, temperature: 3 }), (error) => {
    assert.ok(error instanceof BadRequestError)
    assert.deepEqual([error.param, error.code], ['temperature', 'request.invalid'])
    assert.match(error.message, /`temperature` must be between 0 and 2, got 3/)
    return true
  })
  await assert.rejects(client.chat.completions.create({ model: 'tiny', messages }), (error) => error instanceof NotFoundError && error.code === 'model_not_found')
  model.script = failing(new FailureError({ class: 'CapacityExhausted', reason: 'capacity.pool_exhausted', message: 'all workers are busy' }))
  await assert.rejects(client.chat.completions.create({ model: 'org/tiny', messages }), (error) => error instanceof RateLimitError && error.headers?.get('retry-after') === '1')
  await assert.rejects(client.chat.completions.create({ model: 'org/tiny', messages, stream: true }), RateLimitError)
  model.script = failing(new FailureError({ class: 'Unavailable', reason: 'backend.unavailable', message: 'no worker' }))
  await assert.rejects(client.completions.create({ model: 'org/tiny', prompt: 'a' }), InternalServerError)
})

test('an error in the middle of a stream reaches the reader', async () => {
  model.script = async function* () {
    yield { token_ids: tokensOf('ab') }
    throw new FailureError({ class: 'Unavailable', reason: 'backend.disconnected', message: 'the worker left' })
  }
  const stream = await client.chat.completions.create({ model: 'org/tiny', messages, stream: true })
  let text = ''
  await assert.rejects(async () => {
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
  }, (error) => error instanceof APIError && /the worker left/.test(error.message) && error.code === 'backend.disconnected')
  assert.equal(text, 'ab')
})

test('a client that aborts ends the worker\'s request', async () => {
  model.script = sayingAndWaiting('abc')
  const before = model.ended
  const stream = await client.chat.completions.create({ model: 'org/tiny', messages, stream: true })
  for await (const chunk of stream) {
    assert.equal(chunk.choices[0]?.delta.content, 'a')
    break
  }
  await until('the end of the request', () => model.ended === before + 1)
  const whole = new AbortController()
  const pending = client.chat.completions.create({ model: 'org/tiny', messages }, { signal: whole.signal })
  await until('the call', () => model.calls.at(-1)?.signal.aborted === false)
  whole.abort()
  await assert.rejects(pending)
  await until('the end of both', () => model.ended === before + 2 && started.server.inflight === 0)
})

test('metrics tell of all of it', async () => {
  const text = await metrics.text()
  const value = (name: string): number => Number(new RegExp(`^${name.replace(/[{}"]/g, '\\$&')} (\\S+)$`, 'm').exec(text)?.[1])
  assert.equal(value('dynamo_frontend_inflight_requests{model="org/tiny"}'), 0)
  assert.equal(value('dynamo_frontend_queued_requests{model="org/tiny"}'), 0)
  assert.equal(value('dynamo_frontend_disconnected_clients'), 2)
  assert.equal(value('dynamo_frontend_requests_total{endpoint="chat_completions",error_type="not_found",model="unknown_model",request_type="unary",status="error"}'), 1)
  assert.equal(value('dynamo_frontend_requests_total{endpoint="completions",error_type="",model="org/tiny",request_type="unary",status="success"}'), 1)
  assert.equal(value('dynamo_frontend_failures_total{class="CapacityExhausted",reason="capacity.pool_exhausted"}'), 2)
  assert.ok(value('dynamo_frontend_output_tokens_total{model="org/tiny"}') > 50)
  assert.ok(value('dynamo_frontend_time_to_first_token_seconds_count{model="org/tiny"}') >= 6)
  const started_ = [...text.matchAll(/^dynamo_frontend_requests_started_total\{.*\} (\d+)$/gm)].reduce((sum, match) => sum + Number(match[1]), 0)
  const ended = [...text.matchAll(/^dynamo_frontend_requests_total\{.*\} (\d+)$/gm)].reduce((sum, match) => sum + Number(match[1]), 0)
  assert.equal(started_, ended)
})
