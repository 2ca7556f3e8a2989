/** Goal: every row of the validation table is refused with a message that names the field, and its good neighbour is not. Method: one request per value, through the server. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { TemplateError } from '../src/text/template-error.ts'
import { TextError } from '../src/text/text-error.ts'
import { byteTextModel, FakeCatalog, FakeModel, saying, startOpenAi, type StartedServer } from './openai-kit.ts'

let started: StartedServer
let model: FakeModel
before(async () => {
  model = new FakeModel(saying('a'))
  started = await startOpenAi(new FakeCatalog(model))
})
after(() => started.server.close(0))

const CHAT = '/v1/chat/completions'
const COMPLETIONS = '/v1/completions'
const chat = (more: object = {}): object => ({ model: 'tiny', messages: [{ role: 'user', content: 'hello' }], ...more })
const completion = (more: object = {}): object => ({ model: 'tiny', prompt: 'hello', ...more })
const tool = (name: string): object => ({ type: 'function', function: { name, parameters: { type: 'object' } } })
const user = (content: unknown): object => ({ messages: [{ role: 'user', content }] })

/** Field at fault, what is refused, and its neighbour that is not. */
const chatRows: readonly (readonly [string, object, object?])[] = [
  ['model', { model: '' }],
  ['model', { model: null }],
  ['model', { model: 7 }],
  ['messages', { messages: null }],
  ['messages', { messages: [] }],
  ['messages', { messages: 'x' }],
  ['messages[0]', { messages: ['x'] }],
  ['messages[0].role', { messages: [{ role: 'robot', content: 'x' }] }, { messages: [{ role: 'developer', content: 'x' }] }],
  ['messages[0].content', user(null), { messages: [{ role: 'assistant', content: null }] }],
  ['messages[0].content', user([]), user([{ type: 'text', text: 'a' }])],
  ['messages[0].content[0].type', user([{ type: 'smell' }])],
  ['messages[0].content[0].type', { messages: [{ role: 'system', content: [{ type: 'image_url', image_url: { url: 'http://a' } }] }] }],
  ['messages[0].content[0].image_url.url', user([{ type: 'image_url', image_url: {} }]), user([{ type: 'image_url', image_url: { url: 'http://a/b.png' } }])],
  ['messages[0].tool_call_id', { messages: [{ role: 'tool', content: 'x' }] }, { messages: [{ role: 'tool', content: 'x', tool_call_id: 'c' }] }],
  ['messages[0].tool_calls[0]', { messages: [{ role: 'assistant', content: null, tool_calls: [{}] }] }],
  ['max_tokens', { max_tokens: 0 }, { max_tokens: 1 }],
  ['max_tokens', { max_tokens: -1 }],
  ['max_tokens', { max_tokens: '3' }],
  ['max_tokens', { max_tokens: 2.5 }],
  ['max_completion_tokens', { max_completion_tokens: 0 }, { max_completion_tokens: 2 }],
  ['temperature', { temperature: 2.01 }, { temperature: 2 }],
  ['temperature', { temperature: -0.01 }, { temperature: 0 }],
  ['temperature', { temperature: 'hot' }],
  ['top_p', { top_p: 0 }, { top_p: 0.01 }],
  ['top_p', { top_p: 1.01 }, { top_p: 1 }],
  ['top_k', { top_k: -2 }, { top_k: -1 }],
  ['min_p', { min_p: -0.1 }, { min_p: 0 }],
  ['min_p', { min_p: 1.1 }, { min_p: 1 }],
  ['frequency_penalty', { frequency_penalty: 2.1 }, { frequency_penalty: -2 }],
  ['presence_penalty', { presence_penalty: -2.1 }, { presence_penalty: 2 }],
  ['repetition_penalty', { repetition_penalty: 0 }, { repetition_penalty: 0.1 }],
  ['repetition_penalty', { repetition_penalty: 2.1 }, { repetition_penalty: 2 }],
  ['n', { n: 0 }, { n: 1 }],
  ['n', { n: 129 }],
  ['best_of', { best_of: 21 }, { best_of: 20 }],
  ['best_of', { n: 3, best_of: 2 }],
  ['stop', { stop: '' }, { stop: 'x' }],
  ['stop', { stop: Array.from({ length: 33 }, (_, i) => `${i}`) }, { stop: Array.from({ length: 32 }, (_, i) => `${i}`) }],
  ['stop[1]', { stop: ['a', 3] }],
  ['stop_token_ids[0]', { stop_token_ids: [259] }, { stop_token_ids: [258] }],
  ['top_logprobs', { logprobs: true, top_logprobs: 21 }, { logprobs: true, top_logprobs: 20 }],
  ['logprobs', { logprobs: 3 }],
  ['logit_bias.5', { logit_bias: { 5: 101 } }, { logit_bias: { 5: -100 } }],
  ['logit_bias', { logit_bias: { x: 1 } }],
  ['seed', { seed: 1.5 }, { seed: -7 }],
  ['tools', { tools: Array.from({ length: 1537 }, (_, i) => tool(`f${i}`)) }, { tools: Array.from({ length: 1536 }, (_, i) => tool(`f${i}`)) }],
  ['tools[0].function.name', { tools: [tool('f'.repeat(129))] }, { tools: [tool('f'.repeat(128))] }],
  ['tools[0]', { tools: [{ type: 'magic' }] }],
  ['tool_choice', { tool_choice: 'required' }, { tool_choice: 'required', tools: [tool('f')] }],
  ['tool_choice', { tool_choice: { type: 'function', function: { name: 'g' } }, tools: [tool('f')] }, { tool_choice: { type: 'function', function: { name: 'f' } }, tools: [tool('f')] }],
  ['tool_choice', { tool_choice: 'maybe', tools: [tool('f')] }, { tool_choice: 'none', tools: [tool('f')] }],
  ['stream_options', { stream_options: { include_usage: true } }, { stream: true, stream_options: { include_usage: true } }],
  ['stream', { stream: 'yes' }],
  ['response_format.type', { response_format: { type: 'yaml' } }, { response_format: { type: 'text' } }],
  ['response_format.json_schema.schema', { response_format: { type: 'json_schema', json_schema: { name: 's' } } }],
  ['guided_regex', { guided_json: {}, guided_regex: 'a' }, { guided_regex: 'a' }],
  ['guided_choice', { guided_choice: [] }, { guided_choice: ['a'] }],
  ['continue_final_message', { continue_final_message: true, add_generation_prompt: true }, { continue_final_message: true }],
  ['zzz', { zzz: 1 }],
  ['add_special_tokens', { add_special_tokens: true }],
  ['prompt', { prompt: 'x' }],
  ['nvext.token_data[1]', { nvext: { token_data: [1, 300] } }, { nvext: { token_data: [1, 200] } }],
  ['nvext.dp_rank', { nvext: { dp_rank: -1 } }, { nvext: { dp_rank: 0 } }],
  ['nvext.decode_worker_id', { nvext: { decode_worker_id: 'abc' } }],
  ['nvext.agent_hints.priority', { nvext: { agent_hints: { priority: 1.5 } } }, { nvext: { agent_hints: { priority: -3 } } }],
  ['nvext.routing_constraints.required_taints[0]', { nvext: { routing_constraints: { required_taints: [1] } } }],
]

const completionRows: readonly (readonly [string, object, object?])[] = [
  ['prompt', { prompt: null }],
  ['prompt', { prompt: '' }, { prompt: 'x' }],
  ['prompt', { prompt: [] }, { prompt: ['a', 'b'] }],
  ['prompt[1]', { prompt: ['a', ''] }],
  ['prompt[0]', { prompt: [[]] }, { prompt: [[3], [4]] }],
  ['prompt', { prompt: { a: 1 } }],
  ['prompt[1]', { prompt: [3, 259] }, { prompt: [3, 258] }],
  ['prompt[1][0]', { prompt: [[3], [999]] }],
  ['prompt', { prompt: Array.from({ length: 513 }, () => 'a') }],
  ['logprobs', { logprobs: 6 }, { logprobs: 5 }],
  ['max_tokens', { max_tokens: 0 }, { max_tokens: 1 }],
  ['suffix', { suffix: 'end' }, { suffix: '' }],
  ['echo', { echo: 'yes' }, { echo: true }],
  ['messages', { messages: [] }],
]

for (const [path, base, rows] of [[CHAT, chat, chatRows], [COMPLETIONS, completion, completionRows]] as const) {
  test(`${path}: every row is refused by name, and its neighbour is not`, async () => {
    for (const [field, bad, good] of rows) {
      const response = await started.post(path, base(bad))
      const { error } = (await response.json()) as { error: { param: string; message: string; type: string } }
      const what = JSON.stringify(bad).slice(0, 100)
      assert.equal(response.status, 400, `${what} is refused`)
      assert.deepEqual([error.param, error.type], [field, 'invalid_request_error'], `${what}: ${error.message}`)
      assert.ok(error.message.includes(field.split(/[.[]/)[0] as string) || field.startsWith('stop'), `${what}: ${error.message}`)
      if (good !== undefined) {
        const allowed = await started.post(path, base(good))
        assert.equal(allowed.status, 200, `${JSON.stringify(good).slice(0, 100)}: ${await allowed.text()}`)
      }
    }
  })
}

test('unknown parameters pass when told so', async () => {
  const lenient = await startOpenAi(new FakeCatalog(new FakeModel(saying('a'))), { ignoreUnknownParameters: true })
  assert.equal((await lenient.post(CHAT, chat({ zzz: 1 }))).status, 200)
  await lenient.server.close(0)
})

test('a prompt that fills the context is refused with both numbers', async () => {
  const small = await startOpenAi(new FakeCatalog(new FakeModel(saying('a'), { text: byteTextModel({ contextLength: 24 }) })))
  const response = await small.post(CHAT, chat({ messages: [{ role: 'user', content: 'hello there' }] }))
  const { error } = (await response.json()) as { error: { code: string; message: string } }
  assert.deepEqual([response.status, error.code], [400, 'context_length_exceeded'])
  assert.match(error.message, /holds 24 tokens.*has 28/)
  assert.equal((await small.post(COMPLETIONS, completion({ prompt: 'a'.repeat(23) }))).status, 200)
  assert.equal((await small.post(COMPLETIONS, completion({ prompt: 'a'.repeat(24) }))).status, 400)
  await small.server.close(0)
})

test('a template that refuses is the client\'s error, a busy tokenizer is not', async () => {
  const text = byteTextModel({
    renderChat: () => {
      throw new TemplateError('raised', 'roles must alternate')
    },
    encode: () => Promise.reject(new TextError('limit', '1024 texts are being tokenized; try again shortly')),
  })
  const other = await startOpenAi(new FakeCatalog(new FakeModel(saying('a'), { text })))
  const refused = await other.post(CHAT, chat())
  assert.equal(refused.status, 400)
  assert.match(await refused.text(), /roles must alternate/)
  const busy = await other.post(COMPLETIONS, completion())
  assert.deepEqual([busy.status, busy.headers.has('retry-after')], [503, true])
  await other.server.close(0)
})

test('headers: pins, ranks, priorities, tenant, metadata, session, identity', async () => {
  const id = '11111111-2222-3333-4444-555555555556'
  await started.post(CHAT, chat({ cache_salt: 'body', nvext: { dp_rank: 5, decode_worker_id: 1 } }), {
    'x-worker-instance-id': '13428561255892356228', 'x-prefill-instance-id': '7', 'x-data-parallel-rank': '2', 'x-prefill-dp-rank': '4294967295',
    'x-dynamo-request-priority': '-4', 'x-dynamo-request-strict-priority': '9', 'x-tenant-id': 'a, b', 'x-dynamo-request-id': id,
    'x-dynamo-meta-policy-class': 'gold', 'x-dynamo-meta-authorization': 'secret', 'x-dynamo-meta-key': 'Bearer abc', traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    'x-claude-code-session-id': 'session', 'x-claude-code-agent-id': 'agent', 'x-dynamo-session-final': 'true',
  })
  const request = model.requests.at(-1)
  const call = model.calls.at(-1)
  assert.deepEqual(request?.['routing'], {
    dp_rank: 2, decode_worker_id: 13_428_561_255_892_356_228n, backend_instance_id: 13_428_561_255_892_356_228n, prefill_worker_id: 7,
    priority: -4, priority_jump: -4, strict_priority: 9, cache_salt: 'b',
  })
  assert.deepEqual(request?.['agent_context'], {
    session_id: 'agent', parent_session_id: 'session', session_final: true, input_trigger: 'user_message',
    agent_headers: { 'x-claude-code-session-id': ['session'], 'x-claude-code-agent-id': ['agent'] },
  })
  assert.equal(call?.id, id)
  assert.deepEqual(call?.metadata, { 'policy-class': 'gold' })
  assert.deepEqual(Object.keys(call?.headers ?? {}), ['traceparent'])
  assert.equal((await started.post(CHAT, chat(), { 'x-dynamo-session-id': 's'.repeat(257) })).status, 400)
  await started.post(CHAT, chat(), { 'x-dynamo-worker-instance-id': 'abc', 'x-dynamo-dp-rank': '-1', 'x-dynamo-request-id': 'no-uuid' })
  assert.equal(model.requests.at(-1)?.['routing'], undefined)
  assert.notEqual(model.calls.at(-1)?.id, 'no-uuid')
})

test('unknown members of nvext are passed over, with a warning', async () => {
  const started = await startOpenAi(new FakeCatalog(new FakeModel(saying('a'))))
  const answer = await started.post(CHAT, chat({ nvext: { 'zzz\n': 1, session_control: {}, annotations: [] } }))
  assert.equal(answer.status, 200)
  assert.equal(answer.headers.get('x-warmpath-warning'), 'nvext.zzz? is not known and passed over, nvext.session_control is not known and passed over; send the header x-dynamo-session-id')
  assert.equal((await started.post(CHAT, chat({ nvext: { annotations: [] } }))).headers.get('x-warmpath-warning'), null)
  await started.server.close(0)
  const model = new FakeModel(saying('a'))
  const without = await startOpenAi(new FakeCatalog(model), { extensionDisabled: true })
  assert.equal((await without.post(CHAT, chat({ nvext: { agent_hints: { priority: 'x' } } }))).status, 200)
  assert.equal(model.requests[0]?.['routing'], undefined)
  await without.server.close(0)
})
