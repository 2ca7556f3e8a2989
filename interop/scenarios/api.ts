/** The rest of the HTTP API: beside the real frontend on the same workers, and under the official clients. */
import assert from 'node:assert/strict'
import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import { type Deployment } from '../deployment.ts'
import { echoWorker, modelNames, ourFrontend, realFrontend, type EchoWorker } from '../echo-worker.ts'
import type { Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

type Fields = Readonly<Record<string, unknown>>

async function post(port: number, path: string, body: unknown): Promise<{ readonly status: number; readonly body: string }> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), signal: AbortSignal.timeout(30_000) })
  return { status: response.status, body: await response.text() }
}

const callText = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
const weather = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
const responsesTool = { type: 'function', name: 'get_weather', description: 'w', parameters: weather }
const messagesTool = { name: 'get_weather', description: 'w', input_schema: weather }
const say = (text: string): Fields[] => [{ role: 'user', content: `SAY:${text}` }]
const responses = (body: Fields): readonly [string, Fields] => ['/v1/responses', { model: 'plain', ...body }]
const messages = (body: Fields): readonly [string, Fields] => ['/v1/messages', { model: 'plain', max_tokens: 50, ...body }]
const chat = (body: Fields): readonly [string, Fields] => ['/v1/chat/completions', { model: 'plain', max_tokens: 4, ...body }]
const embeddings = (body: Fields): readonly [string, Fields] => ['/v1/embeddings', { model: 'vectors', ...body }]
const image = { type: 'image_url', image_url: { url: 'https://x.test/1.png' } }
const inline = { type: 'image_url', image_url: { url: 'data:image/png;base64,aGk=' } }
const text = (value: string): Fields => ({ type: 'text', text: value })

/** Requests that a worker must receive alike from both frontends, and whose answers must say the same. */
const alike: Readonly<Record<string, readonly [string, Fields]>> = {
  'response, text': responses({ input: 'SAY:hello world' }),
  'response, cut': responses({ input: 'SAY:hello world', instructions: 'be kind', max_output_tokens: 3, temperature: 0.5 }),
  'response, history': responses({
    input: [
      { role: 'user', content: 'q' }, { type: 'reasoning', id: 'r1', summary: [{ type: 'summary_text', text: 'I thought' }] },
      { type: 'message', role: 'assistant', id: 'm1', status: 'completed', content: [{ type: 'output_text', text: 'prev', annotations: [] }, { type: 'output_text', text: 'more', annotations: [] }] },
      { type: 'function_call', call_id: 'c1', name: 'f', arguments: '{"a":1}' }, { type: 'function_call', call_id: 'c2', name: 'f', arguments: '{}' },
      { type: 'function_call_output', call_id: 'c1', output: 'one' }, { type: 'function_call_output', call_id: 'c2', output: 'two' },
      { role: 'user', content: [{ type: 'input_text', text: 'a' }, { type: 'input_text', text: 'SAY:b' }] },
    ],
  }),
  'response, image': responses({ input: [{ role: 'developer', content: [{ type: 'input_text', text: 'dev' }] }, { role: 'user', content: [{ type: 'input_text', text: 'what' }, { type: 'input_image', image_url: 'https://x.test/a.png', detail: 'auto' }, { type: 'input_text', text: 'SAY:img' }] }] }),
  'response, schema': responses({ input: 'SAY:{}', text: { format: { type: 'json_schema', name: 's', schema: { type: 'object', properties: { a: { type: 'integer' } } } } } }),
  'response, required': responses({ input: 'SAY:x', tools: [responsesTool], tool_choice: 'required', model: 'plain' }),
  'response, allowed tools': responses({ input: 'SAY:x', tools: [{ type: 'function', name: 'f' }, { type: 'function', name: 'g' }], tool_choice: { type: 'allowed_tools', mode: 'required', tools: [{ type: 'function', name: 'g' }] } }),
  'response, tool': responses({ model: 'tools', input: `SAY:${callText}`, tools: [responsesTool] }),
  'response, hints': responses({ input: 'SAY:x', nvext: { agent_hints: { priority: 2 } } }),
  'message, text': messages({ messages: say('hello world') }),
  'message, cut': messages({ messages: say('hello world'), max_tokens: 2 }),
  'message, stop': messages({ messages: say('hello END world'), stop_sequences: ['END'] }),
  'message, system': messages({ messages: say('x'), system: [text('one'), text('two')], temperature: 0.5, top_k: 5 }),
  'message, billing': messages({ messages: say('x'), system: [text('x-anthropic-billing-header: v=1;'), text('two')] }),
  'message, image': messages({ messages: [{ role: 'user', content: [text('look'), { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'aGk=' } }, text('SAY:img')] }] }),
  'message, history': messages({
    messages: [
      { role: 'user', content: [text('a'), text('b')] },
      { role: 'assistant', content: [{ type: 'thinking', thinking: 'hm', signature: 's' }, text('I look'), text('more'), { type: 'tool_use', id: 'toolu_1', name: 'get_weather', input: { city: 'X' } }] },
      { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'toolu_1', content: [text('sunny'), text('warm')] }, text('SAY:ok')] },
    ],
    tools: [messagesTool],
  }),
  'message, any': messages({ messages: say('x'), tools: [messagesTool], tool_choice: { type: 'any' } }),
  'message, named': messages({ messages: say('x'), tools: [messagesTool], tool_choice: { type: 'tool', name: 'get_weather' } }),
  'message, tools': messages({ model: 'tools', max_tokens: 300, messages: say(callText + callText), tools: [messagesTool] }),
  'message, thinking': messages({ model: 'thinks', messages: say('hm ok</think>the answer'), thinking: { type: 'enabled', budget_tokens: 1024 } }),
  'chat, images': chat({ messages: [{ role: 'user', content: [text('a'), text('b'), image, text('c'), inline] }, { role: 'assistant', content: 'ok' }, { role: 'user', content: [image, text('SAY:m')] }] }),
  'chat, other media': chat({ messages: [{ role: 'user', content: [text('a'), { type: 'video_url', video_url: { url: 'https://x.test/v.mp4' } }, { type: 'audio_url', audio_url: { url: 'https://x.test/a.wav' } }] }] }),
  'chat, reasoning of before': chat({ messages: [{ role: 'user', content: 'q' }, { role: 'assistant', content: 'prev', reasoning_content: 'thought' }, { role: 'user', content: 'SAY:n' }] }),
  'chat, thinking off': chat({ model: 'thinks', messages: say('x'), chat_template_kwargs: { enable_thinking: false } }),
  'chat, effort': chat({ model: 'thinks', messages: say('x'), reasoning_effort: 'low' }),
  'chat, schema': chat({ messages: say('{}'), response_format: { type: 'json_schema', json_schema: { name: 's', schema: { type: 'object', properties: {} } } } }),
  'vectors, text': embeddings({ input: 'hello world' }),
  'vectors, several': embeddings({ input: ['hello world', 'the'], dimensions: 8 }),
  'vectors, base64': embeddings({ input: ['hello world', 'the'], encoding_format: 'base64' }),
  'vectors, ids': embeddings({ input: [[5, 6, 7], [8]] }),
  'vectors, raw': embeddings({ model: 'raw', input: ['x', 'abcd'], user: 'me', dimensions: 3 }),
  'vectors, raw base64': embeddings({ model: 'raw', input: 'x', encoding_format: 'base64' }),
}

const alikeModels = ['plain', 'tools,tool=hermes', 'thinks,reasoning=deepseek_r1', 'vectors,embed=tokens', 'raw,embed=text']

const volatile = new Set(['id', 'call_id', 'created', 'created_at', 'completed_at', 'mdc_sum', 'request_timestamp_ms', 'dp_rank', 'store', 'sequence_number'])

/** Without ids, times and what is null; an empty map counts as absent. */
function comparable(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(comparable)
  if (typeof value !== 'object' || value === null) return value
  const kept = Object.entries(value).filter(([name, item]) => item !== null && !volatile.has(name)).map(([name, item]) => [name, comparable(item)] as const)
  return Object.fromEntries(kept.filter(([, item]) => !(typeof item === 'object' && item !== null && !Array.isArray(item) && Object.keys(item).length === 0)))
}

/** `thinking_mode` follows from the two other words; the original leaves it out for Messages. */
function requestOf(request: Fields): unknown {
  const { extra_args: extra, ...rest } = comparable(request) as { extra_args?: { reasoning_parser_kwargs?: { chat_template_kwargs: Record<string, unknown> } } }
  delete extra?.reasoning_parser_kwargs?.chat_template_kwargs['thinking_mode']
  return { ...rest, ...(extra === undefined ? {} : { extra_args: extra }) }
}

/** What the answer says whose form the two frontends may differ in: order of blocks, a count of cached tokens that nobody gave. */
function told(body: string): unknown {
  const answer = JSON.parse(body) as Record<string, unknown>
  const sorted = (list: unknown): unknown => (Array.isArray(list) ? [...list].sort((a: { type?: string }, b: { type?: string }) => String(a.type).localeCompare(String(b.type))) : list)
  const usage = { ...(answer['usage'] as Fields | undefined) }
  if (usage['cache_read_input_tokens'] === 0) delete (usage as Record<string, unknown>)['cache_read_input_tokens']
  return comparable({ ...answer, content: sorted(answer['content']) ?? null, usage })
}

async function besideTheReal(deployment: Deployment): Promise<void> {
  const worker = await echoWorker(deployment, alikeModels)
  const [{ port: ours }, theirs] = await Promise.all([ourFrontend(deployment, modelNames(alikeModels)), realFrontend(deployment, modelNames(alikeModels))])
  const differences: string[] = []
  for (const [name, [path, body]] of Object.entries(alike)) {
    const seen: unknown[] = []
    const answers: unknown[] = []
    for (const port of [theirs, ours]) {
      const before = worker.requests().length
      const answer = await until(`${name} is answered`, async () => {
        const got = await post(port, path, body)
        if (got.status === 503) return false
        return got
      }, 20_000)
      assert.equal(answer.status, 200, `${name}: ${answer.body}`)
      await until('the worker has it', () => worker.requests().length > before, 5000)
      seen.push(requestOf(worker.requests().at(-1)?.request ?? {}))
      answers.push(told(answer.body))
    }
    for (const [what, [real, mine]] of [['request', seen], ['answer', answers]] as const) {
      try {
        assert.deepEqual(mine, real)
      } catch (error) {
        differences.push(`${name}, ${what}: ${(error as Error).message.split('\n').slice(0, 40).join('\n')}`)
      }
    }
  }
  assert.deepEqual(differences, [])
}

async function chatClient(openai: OpenAI): Promise<void> {
  const say = (content: string) => [{ role: 'user' as const, content }]
  const whole = await openai.chat.completions.create({ model: 'plain', messages: say('SAY:hello world') })
  assert.deepEqual([whole.choices[0]?.message.content, whole.choices[0]?.finish_reason], ['hello world', 'stop'])
  const tools = [{ type: 'function' as const, function: { name: 'get_weather', parameters: weather } }]
  const called = await openai.chat.completions.stream({ model: 'tools', messages: say(`SAY:${callText}`), tools }).finalChatCompletion()
  const [call] = called.choices[0]?.message.tool_calls ?? []
  assert.deepEqual([called.choices[0]?.finish_reason, call?.type === 'function' && call.function.name, call?.type === 'function' && call.function.arguments], ['tool_calls', 'get_weather', '{"city": "Paris"}'])
  const completion = await openai.completions.create({ model: 'plain', prompt: 'SAY:hello world' })
  assert.equal(completion.choices[0]?.text, 'hello world')
  await assert.rejects(openai.chat.completions.create({ model: 'nobody', messages: say('x') }), (error) => error instanceof OpenAI.NotFoundError)
  await assert.rejects(openai.chat.completions.create({ model: 'plain', messages: [], max_tokens: -1 }), (error) => error instanceof OpenAI.BadRequestError)
  await assert.rejects(openai.chat.completions.create({ model: 'plain', messages: say('SAY:HANG on') }, { timeout: 500 }), (error) => error instanceof OpenAI.APIConnectionTimeoutError)
  await assert.rejects(openai.responses.create({ model: 'plain', input: 'SAY:HANG on' }, { timeout: 500 }), (error) => error instanceof OpenAI.APIConnectionTimeoutError)
}

/** Both clients leave on every route that generates: streams closed after the first part, whole answers given up. */
async function leave(openai: OpenAI, anthropic: Anthropic, worker: EchoWorker): Promise<void> {
  const long = `SAY:${'word '.repeat(800)}`
  const messages = [{ role: 'user' as const, content: long }]
  const streams: readonly (() => Promise<{ readonly stream: AsyncIterable<unknown>; abort(): void }>)[] = [
    async () => closable(await openai.chat.completions.create({ model: 'plain', stream: true, max_tokens: 4000, messages })),
    async () => closable(await openai.completions.create({ model: 'plain', stream: true, max_tokens: 4000, prompt: long })),
    async () => closable(await openai.responses.create({ model: 'plain', stream: true, max_output_tokens: 4000, input: long })),
    () => { const stream = anthropic.messages.stream({ model: 'plain', max_tokens: 4000, messages }); return Promise.resolve({ stream, abort: () => stream.abort() }) },
  ]
  for (const open of streams) {
    const before = worker.cancelled(100)
    const { stream, abort } = await open()
    for await (const _part of stream) break
    abort()
    await until('the worker is told that a stream was closed', () => worker.cancelled(100) > before, 20_000)
  }
  const wholes: readonly ((signal: AbortSignal) => Promise<unknown>)[] = [
    (signal) => openai.chat.completions.create({ model: 'plain', max_tokens: 4000, messages }, { signal }),
    (signal) => openai.completions.create({ model: 'plain', max_tokens: 4000, prompt: long }, { signal }),
    (signal) => openai.responses.create({ model: 'plain', max_output_tokens: 4000, input: long }, { signal }),
    (signal) => anthropic.messages.create({ model: 'plain', max_tokens: 4000, messages }, { signal }),
  ]
  for (const ask of wholes) {
    const [asked, before] = [worker.requests().length, worker.cancelled(100)]
    const control = new AbortController()
    const answer = assert.rejects(ask(control.signal), (error) => error instanceof OpenAI.APIUserAbortError || error instanceof Anthropic.APIUserAbortError)
    await until('the worker has it', () => worker.requests().length > asked, 20_000)
    control.abort()
    await answer
    await until('the worker is told that an answer was given up', () => worker.cancelled(100) > before, 20_000)
  }
}

const closable = (stream: AsyncIterable<unknown> & { readonly controller: AbortController }): { readonly stream: AsyncIterable<unknown>; abort(): void } =>
  ({ stream, abort: () => stream.controller.abort() })

async function nodeClients(deployment: Deployment): Promise<void> {
  const worker = await echoWorker(deployment, alikeModels)
  const { port, process: frontend } = await ourFrontend(deployment, modelNames(alikeModels))
  const openai = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: 'unused', maxRetries: 0 })
  const anthropic = new Anthropic({ baseURL: `http://127.0.0.1:${port}`, apiKey: 'unused', maxRetries: 0 })

  const response = await openai.responses.create({ model: 'plain', input: 'SAY:hello world' })
  assert.deepEqual([response.output_text, response.status], ['hello world', 'completed'])
  const runner = openai.responses.stream({ model: 'tools', input: `SAY:${callText}`, tools: [{ ...responsesTool, type: 'function', strict: false }] })
  const called = (await runner.finalResponse()).output.find((item) => item.type === 'function_call')
  assert.deepEqual([called?.name, called?.arguments], ['get_weather', '{"city": "Paris"}'])
  const thought = await openai.responses.stream({ model: 'thinks', input: 'SAY:hm ok</think>the answer' }).finalResponse()
  assert.deepEqual(thought.output.map((item) => item.type), ['reasoning', 'message'])
  assert.equal(thought.output_text, 'the answer')
  await assert.rejects(openai.responses.create({ model: 'plain', input: 'SAY:RAISE' }), (error) => error instanceof OpenAI.InternalServerError)
  await assert.rejects(openai.responses.create({ model: 'plain', input: 'x', previous_response_id: 'resp_1' }), (error) => error instanceof OpenAI.APIError && error.status === 501)
  const vectors = await openai.embeddings.create({ model: 'vectors', input: ['hello world', 'the'] })
  assert.deepEqual(vectors.data.map(({ embedding }) => embedding.slice(0, 2)), [[1.5, 2.5], [0.25, 1.25]])

  const message = await anthropic.messages.create({ model: 'plain', max_tokens: 50, messages: [{ role: 'user', content: 'SAY:hello world' }] })
  assert.deepEqual([message.content[0], message.stop_reason], [{ type: 'text', text: 'hello world' }, 'end_turn'])
  const streamed = await anthropic.messages.stream({ model: 'thinks', max_tokens: 90, messages: [{ role: 'user', content: 'SAY:hm ok</think>the answer' }] }).finalMessage()
  assert.deepEqual(streamed.content.map((block) => block.type), ['thinking', 'text'])
  const used = await anthropic.messages.stream({ model: 'tools', max_tokens: 300, messages: [{ role: 'user', content: `SAY:${callText}` }], tools: [{ ...messagesTool, input_schema: { ...weather, type: 'object' } }] }).finalMessage()
  const block = used.content.find((each) => each.type === 'tool_use')
  assert.deepEqual([used.stop_reason, block?.name, block?.input], ['tool_use', 'get_weather', { city: 'Paris' }])
  assert.equal((await anthropic.messages.countTokens({ model: 'plain', messages: [{ role: 'user', content: 'SAY:hello world' }] })).input_tokens, message.usage.input_tokens + (message.usage.cache_read_input_tokens ?? 0))
  await assert.rejects(anthropic.messages.create({ model: 'nobody', max_tokens: 5, messages: [{ role: 'user', content: 'x' }] }), (error) => error instanceof Anthropic.NotFoundError)
  await assert.rejects(anthropic.messages.create({ model: 'plain', max_tokens: 50, messages: [{ role: 'user', content: 'SAY:HANG on' }] }, { timeout: 500 }), (error) => error instanceof Anthropic.APIConnectionTimeoutError)

  await chatClient(openai)
  await leave(openai, anthropic, worker)
  await until('nothing is left of them', async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
    return /^warmpath_active_requests 0$/m.test(metrics) && /^warmpath_bookings_entries 0$/m.test(metrics)
  })
  assert.equal(await deployment.stop(frontend, 'SIGTERM', 30_000), 0)
}

export const apiScenarios: readonly Scenario[] = [
  { name: 'api-beside-the-real', timeoutSeconds: 150, run: besideTheReal },
  { name: 'api-node-clients', timeoutSeconds: 120, run: nodeClients },
]
