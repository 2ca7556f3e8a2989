/** Goal: calls and thoughts reach the client in OpenAI's shapes. Method: whole flows with a worker that writes them, against the shapes recorded from Dynamo. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { byteTextModel, FakeCatalog, FakeModel, saying, startOpenAi } from './openai-kit.ts'
import type { ParserNames } from '../src/parsers/output-parser.ts'

const tools = [{ type: 'function', function: { name: 'get_w', parameters: { type: 'object', properties: { city: { type: 'string' } } } } }]
const spoken = '<think>Hm.</think>Sure <tool_call>{"name": "get_w", "arguments": {"city": "Rome"}}</tool_call>'
const parsers: ParserNames = { toolCall: 'hermes', reasoning: 'qwen3' }
const body = { model: 'tiny', messages: [{ role: 'user', content: 'hello' }], max_tokens: 200, tools }

interface Chunk {
  readonly choices: readonly { readonly delta: Readonly<Record<string, unknown>>; readonly finish_reason: string | null }[]
  readonly usage?: { readonly completion_tokens_details?: unknown }
}

type Message = Readonly<Record<string, unknown>> & { readonly tool_calls?: readonly { readonly id: string }[] }

const withoutIds = (value: unknown): unknown => JSON.parse(JSON.stringify(value).replace(/call-[0-9a-f-]{36}/g, 'call-UUID'))

test('a whole answer: content, reasoning, calls, tokens of the thought', async () => {
  const model = new FakeModel(saying(spoken), { changes: { parsers } })
  const server = await startOpenAi(new FakeCatalog(model))
  try {
    const answer = (await (await server.post('/v1/chat/completions', body)).json()) as { choices: readonly { message: Message; finish_reason: string }[]; usage: unknown }
    assert.deepEqual(withoutIds(answer.choices[0]), {
      index: 0,
      message: { content: 'Sure ', refusal: null, tool_calls: [{ id: 'call-UUID', type: 'function', function: { name: 'get_w', arguments: '{"city": "Rome"}' } }], role: 'assistant', reasoning_content: 'Hm.' },
      finish_reason: 'tool_calls', logprobs: null,
    })
    assert.deepEqual((answer.usage as Record<string, unknown>)['completion_tokens_details'], { reasoning_tokens: 11 })
    const onlyCalls = new FakeModel(saying(spoken.slice(spoken.indexOf('<tool_call>'))), { changes: { parsers } })
    model.script = onlyCalls.script
    const bare = (await (await server.post('/v1/chat/completions', body)).json()) as typeof answer
    assert.equal(bare.choices[0]?.message['content'], null)
    const plain = (await (await server.post('/v1/chat/completions', { ...body, tool_choice: 'none' })).json()) as typeof answer
    assert.equal(plain.choices[0]?.message['content'], spoken.slice(spoken.indexOf('<tool_call>')))
    assert.equal(plain.choices[0]?.finish_reason, 'stop')
  } finally {
    await server.server.close(1000)
  }
})

test('a streamed answer: text as it comes, the call in one chunk, the reason with the last', async () => {
  const server = await startOpenAi(new FakeCatalog(new FakeModel(saying(spoken), { changes: { parsers } })))
  try {
    const text = await (await server.post('/v1/chat/completions', { ...body, stream: true, stream_options: { include_usage: true } })).text()
    const chunks = text.split('\n').filter((line) => line.startsWith('data: {')).map((line) => JSON.parse(line.slice(6)) as Chunk)
    const deltas = chunks.flatMap(({ choices }) => choices.map(({ delta }) => delta))
    assert.equal(deltas.map((delta) => delta['reasoning_content'] ?? '').join(''), 'Hm.')
    assert.equal(deltas.map((delta) => delta['content'] ?? '').join(''), 'Sure ')
    assert.equal(deltas.filter((delta) => 'role' in delta).length, 1)
    assert.deepEqual(withoutIds(deltas.filter((delta) => 'tool_calls' in delta)), [{ content: '', tool_calls: [{ index: 0, id: 'call-UUID', type: 'function', function: { name: 'get_w', arguments: '{"city": "Rome"}' } }] }])
    assert.deepEqual(chunks.flatMap(({ choices }) => choices.map((choice) => choice.finish_reason)).filter((reason) => reason !== null), ['tool_calls'])
    assert.deepEqual(chunks.at(-1)?.usage?.completion_tokens_details, { reasoning_tokens: 11 })
  } finally {
    await server.server.close(1000)
  }
})

test('a model without parsers gives its text, and a demanded call is read all the same', async () => {
  const model = new FakeModel(saying(spoken))
  const server = await startOpenAi(new FakeCatalog(model))
  try {
    const plain = (await (await server.post('/v1/chat/completions', body)).json()) as { choices: readonly { message: Message; finish_reason: string }[] }
    assert.equal(plain.choices[0]?.message['content'], spoken)
    model.script = saying('[{"name": "get_w", "parameters": {"city": "Rome"}}]')
    const demanded = (await (await server.post('/v1/chat/completions', { ...body, tool_choice: 'required' })).json()) as typeof plain
    assert.equal(demanded.choices[0]?.message.tool_calls?.length, 1)
    assert.equal(demanded.choices[0]?.finish_reason, 'tool_calls')
  } finally {
    await server.server.close(1000)
  }
})

test('where markers are special tokens they stay in the text, unless the client says otherwise', async () => {
  const model = new FakeModel(saying('x'), { changes: { parsers: { toolCall: 'kimi_k2', reasoning: null } } })
  const server = await startOpenAi(new FakeCatalog(model))
  try {
    for (const given of [{}, { skip_special_tokens: true }]) await (await server.post('/v1/chat/completions', { ...body, ...given })).text()
    assert.deepEqual(model.requests.map((request) => (request['output_options'] as Record<string, unknown>)['skip_special_tokens']), [false, true])
  } finally {
    await server.server.close(1000)
  }
})

test('tools that must not be called are not shown to the model, unless its card says so', async () => {
  const shown: boolean[] = []
  const text = byteTextModel({ renderChat: (input) => { shown.push(input.tools !== undefined); return 'prompt' } })
  for (const changes of [{}, { showsUnusedTools: true }]) {
    const server = await startOpenAi(new FakeCatalog(new FakeModel(saying('x'), { text, changes })))
    for (const choice of ['auto', 'none']) await (await server.post('/v1/chat/completions', { ...body, tool_choice: choice })).text()
    await server.server.close(1000)
  }
  assert.deepEqual(shown, [true, false, true, true])
})
