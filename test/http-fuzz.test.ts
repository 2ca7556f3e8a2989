/**
 * Goal: no body, however broken, ends in a 5xx, a hanging request or a line of error in the log; a refusal is JSON and says something.
 * Method: valid bodies of every route with one place changed for a hostile value, and bytes that are no JSON, sent to servers on loopback.
 */
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { FakeCatalog, FakeModel, saying, startOpenAi, type StartedServer } from './openai-kit.ts'

type Value = unknown
const model = new FakeModel(saying('hello'), { changes: { parsers: { toolCall: 'hermes', reasoning: 'deepseek_r1' } } })
const embedder = new FakeModel(saying(''), { name: 'embedder', changes: { supportsChat: false, supportsCompletions: false, supportsEmbeddings: true, ask: async () => ({ embeddings: [[0.25]], prompt_tokens: 3, total_tokens: 3 }) } })
let started: StartedServer
before(async () => { started = await startOpenAi(new FakeCatalog(model, embedder), { anthropic: { stripPreamble: true }, bodyLimitBytes: 200_000 }) })
after(() => started.server.close(0))

const tool = { name: 'look', description: 'd', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } }
/** A valid body of every route that takes one. */
const bodies: readonly [string, Value][] = [
  ['/v1/chat/completions', {
    model: 'tiny', stream: false, stream_options: null, max_tokens: 3, max_completion_tokens: 3, temperature: 0.5, top_p: 0.9, n: 1, stop: ['x'], seed: 1, logprobs: false, top_logprobs: 0,
    logit_bias: { 5: 1 }, user: 'u', metadata: { a: 'b' }, response_format: { type: 'json_schema', json_schema: { name: 's', schema: { type: 'object' } } },
    messages: [
      { role: 'system', content: 'x' }, { role: 'user', content: [{ type: 'text', text: 'x' }] },
      { role: 'assistant', content: null, tool_calls: [{ id: 'c', type: 'function', function: { name: 'look', arguments: '{"city":"a"}' } }] }, { role: 'tool', tool_call_id: 'c', content: 'y' },
    ],
    tools: [{ type: 'function', function: tool }], tool_choice: 'auto', parallel_tool_calls: true, chat_template_kwargs: { a: 1 },
    nvext: { annotations: ['x'], router: { ttft_target: 1 }, backend_instance_id: 1, agent_hints: { priority: 1, osl: 3 } },
  }],
  ['/v1/completions', { model: 'tiny', prompt: ['a', 'b'], max_tokens: 3, stream: false, echo: false, suffix: null, logprobs: 1, best_of: 1, n: 1, stop: 'x', nvext: { ignore_eos: true } }],
  ['/v1/completions', { model: 'tiny', prompt: [1, 2, 3], max_tokens: 1 }],
  ['/v1/responses', {
    model: 'tiny', input: [{ type: 'message', role: 'user', content: [{ type: 'input_text', text: 'x' }] }, { type: 'function_call', call_id: 'c', name: 'look', arguments: '{}' }, { type: 'function_call_output', call_id: 'c', output: 'y' }],
    instructions: 'i', max_output_tokens: 3, tools: [{ type: 'function', ...tool }], tool_choice: 'auto', text: { format: { type: 'text' } }, reasoning: { effort: 'low' }, metadata: {}, stream: false, store: false,
  }],
  ['/v1/responses/input_tokens', { model: 'tiny', input: 'x' }],
  ['/v1/messages', {
    model: 'tiny', max_tokens: 3, system: [{ type: 'text', text: 's' }], stop_sequences: ['x'], thinking: { type: 'enabled', budget_tokens: 1024 }, tool_choice: { type: 'auto' }, tools: [{ name: 'look', input_schema: tool.parameters }],
    messages: [{ role: 'user', content: 'x' }, { role: 'assistant', content: [{ type: 'tool_use', id: 'c', name: 'look', input: {} }] }, { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'c', content: 'y' }] }],
  }],
  ['/v1/messages/count_tokens', { model: 'tiny', messages: [{ role: 'user', content: 'x' }] }],
  ['/v1/embeddings', { model: 'embedder', input: ['a', 'b'], encoding_format: 'float', dimensions: 1, user: 'u' }],
  ['/busy_threshold', { model: 'tiny', active_decode_blocks_threshold: 0.5, active_prefill_tokens_threshold: 10 }],
]

/** Text of JSON, so that what JSON.stringify cannot write is written, too. */
class Raw {
  readonly text: string
  constructor(text: string) { this.text = text }
}

const nested = (depth: number, open: string, close: string): Raw => new Raw(open.repeat(depth) + '1' + close.repeat(depth))
const hostile = fc.oneof(
  fc.constantFrom<Value>(
    null, true, false, 0, -1, 1.5, 1e308, -1e308, 2 ** 53, new Raw('18446744073709551616'), new Raw('1e999'), new Raw('-0'), new Raw(`1${'0'.repeat(400)}`),
    '', ' ', '\u0000', new Raw('"\\ud800"'), new Raw('"\\udc00\\ud800"'), '\u{10ffff}', 'x'.repeat(20_000), '__proto__', '{{', '{% for %}', [], {}, [[]], [null], [{}], { type: null }, { type: 'text' }, { type: 'image_url', image_url: { url: 'data:,' } },
    new Raw('{"__proto__":{"a":1}}'), new Raw('{"constructor":{"prototype":1}}'), new Raw('{"a":1,"a":2}'), nested(40, '[', ']'), nested(3000, '[', ']'), nested(3000, '{"a":', '}'),
  ),
  fc.anything({ maxDepth: 2, withNullPrototype: false }).map((value) => new Raw(JSON.stringify(value) ?? 'null')),
  fc.integer(), fc.double(), fc.string({ unit: 'binary', maxLength: 20 }),
)

const textOf = (value: Value): string => {
  if (value instanceof Raw) return value.text
  if (Array.isArray(value)) return `[${value.map(textOf).join(',')}]`
  if (typeof value === 'object' && value !== null) return `{${Object.entries(value).map(([key, member]) => `${JSON.stringify(key)}:${textOf(member)}`).join(',')}}`
  return JSON.stringify(value) ?? 'null'
}

type Path = readonly (string | number)[]
function pathsOf(value: Value, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [path]
  return [path, ...Object.entries(value).flatMap(([key, member]) => pathsOf(member, [...path, Array.isArray(value) ? Number(key) : key]))]
}
function replaced(value: Value, [head, ...rest]: Path, by: Value): Value {
  if (head === undefined) return by
  const member = replaced((value as Record<string | number, Value>)[head], rest, by)
  return Array.isArray(value) ? value.map((each: Value, index) => (index === head ? member : each)) : { ...(value as object), [head]: member }
}

/** Errors: what a client must never see. */
async function holds(path: string, body: string | Uint8Array, what: string): Promise<void> {
  const response = await fetch(`${started.server.url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body, signal: AbortSignal.timeout(10_000) })
  const text = await response.text()
  // What is asked for and not there is refused as such.
  assert.ok(response.status < 500 || response.status === 501, `${what}: ${response.status} ${text.slice(0, 300)}`)
  if (response.status === 200) return
  const refusal = JSON.parse(text) as { error?: { message?: unknown } | string; message?: unknown; detail?: unknown }
  const message = typeof refusal.error === 'object' ? refusal.error.message : refusal.error ?? refusal.message ?? refusal.detail
  assert.ok(typeof message === 'string' && message.length > 5, `${what}: ${text.slice(0, 300)}`)
  assert.doesNotMatch(message, /\bat .*\.js:\d|undefined|\[object Object\]|Cannot read prop|is not a function|is not iterable/, what)
}

const noErrors = (): void => assert.deepEqual(started.log.lines.filter(({ level }) => level === 'error'), [])

test('the bodies that are changed below are valid', async () => {
  for (const [path, body] of bodies) {
    const response = await started.post(path, textOf(body))
    assert.equal(response.status, 200, `${path}: ${await response.text()}`)
  }
})

const place = fc.constantFrom(...bodies).chain(([path, body]) => fc.record({ path: fc.constant(path), body: fc.constant(body), at: fc.constantFrom(...pathsOf(body)), by: hostile }))

test('one hostile value anywhere in a body: answered or refused, never failed', async () => {
  await fc.assert(fc.asyncProperty(place, async ({ path, body, at, by }) => {
    const text = textOf(replaced(body, at, by))
    await holds(path, text, `${path} ${at.join('.')} = ${textOf(by).slice(0, 80)}`)
  }), { numRuns: 500 })
  noErrors()
})

test('members that nobody knows, in any object', async () => {
  await fc.assert(fc.asyncProperty(place, fc.string({ maxLength: 12 }), async ({ path, body, at, by }, name) => {
    const parent = at.slice(0, -1)
    await holds(path, textOf(replaced(body, [...parent, name], by)), `${path} ${[...parent, name].join('.')}`)
  }), { numRuns: 200 })
  noErrors()
})

test('bytes that are no JSON: cut, flipped, not UTF-8, with a mark in front, empty', async () => {
  const cut = fc.constantFrom(...bodies).chain(([path, body]) => {
    const whole = Buffer.from(textOf(body))
    return fc.record({ path: fc.constant(path), bytes: fc.oneof(
      fc.nat(whole.length - 1).map((end) => whole.subarray(0, end)),
      fc.tuple(fc.nat(whole.length - 1), fc.nat(255)).map(([at, byte]) => { const copy = Buffer.from(whole); copy[at] = byte; return copy }),
      fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
      fc.constantFrom(Buffer.from([0xef, 0xbb, 0xbf, ...whole]), Buffer.from([0xff, 0xfe]), Buffer.from('NaN'), Buffer.from('Infinity'), Buffer.from('{"model":NaN}'), Buffer.from('""')),
    ) })
  })
  await fc.assert(fc.asyncProperty(cut, ({ path, bytes }) => holds(path, bytes, `${path} ${bytes.toString('latin1').slice(-60)}`)), { numRuns: 200 })
  noErrors()
})

/** The status lines that a raw request is answered with, until the server closes or `enough` of them are there. */
function raw(text: string, enough = 1): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(started.server.port, '127.0.0.1', () => socket.write(text, 'latin1'))
    let answer = ''
    socket.setTimeout(10_000, () => { socket.destroy(); reject(new Error(`no answer to ${text.slice(0, 80)}`)) })
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1')
      if ((answer.match(/HTTP\/1\.1 \d{3}/g) ?? []).length >= enough) socket.destroy()
    })
    socket.on('error', reject)
    socket.on('close', () => resolve(answer))
  })
}

test('methods, routes, content types and framing: refused in words, and the server goes on', async () => {
  const { url } = started.server
  const asked = async (path: string, init: RequestInit): Promise<[number, string]> => {
    const response = await fetch(`${url}${path}`, { signal: AbortSignal.timeout(10_000), ...init })
    return [response.status, await response.text()]
  }
  const chat = textOf(bodies[0]?.[1])
  for (const method of ['GET', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
    const [status, text] = await asked('/v1/chat/completions', { method })
    assert.equal(status, 405, `${method}: ${text}`)
    assert.match(text, /POST/)
  }
  assert.deepEqual(await asked('/v1/chat/completions', { method: 'HEAD' }), [405, ''])
  assert.deepEqual(await asked('/health', { method: 'HEAD' }), [200, ''])
  for (const path of ['/v1/chat/completionz', '/%', '/%00', '/..%2f..%2fetc/passwd', '/v1/models/%E0%A4%A', `/${'x'.repeat(3000)}`]) {
    const [status, text] = await asked(path, { method: 'GET' })
    assert.ok(status === 404 || status === 400 || status === 414, `${path.slice(0, 40)}: ${status} ${text}`)
    assert.ok(JSON.parse(text))
  }
  for (const type of ['text/plain', 'application/xml', 'application/json; charset=utf-16', 'multipart/form-data; boundary=x', ';;', 'application/JSON']) {
    const [status, text] = await asked('/v1/chat/completions', { method: 'POST', body: chat, headers: { 'content-type': type } })
    assert.ok([200, 400, 415].includes(status), `${type}: ${status} ${text}`)
  }
  const [large, words] = await asked('/v1/chat/completions', { method: 'POST', body: `{"model":"${'x'.repeat(200_001)}"}`, headers: { 'content-type': 'application/json' } })
  assert.equal(large, 413)
  assert.match(words, /200000|200,000/)
  const head = 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n'
  assert.match(await raw(`${head}transfer-encoding: chunked\r\n\r\n${chat.length.toString(16)}\r\n${chat}\r\n0\r\n\r\n`), /^HTTP\/1\.1 200/)
  assert.match(await raw(`${head}transfer-encoding: chunked\r\n\r\nzz\r\nxx`), /^HTTP\/1\.1 400/)
  assert.match(await raw(`${head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`), /^HTTP\/1\.1 400/)
  assert.match(await raw(`${head}content-length: x\r\n\r\n`), /^HTTP\/1\.1 400/)
  assert.match(await raw('NONSENSE\r\n\r\n'), /^HTTP\/1\.1 400/)
  assert.match(await raw(`GET /health HTTP/1.1\r\nhost: x\r\nx-big: ${'y'.repeat(100_000)}\r\n\r\n`), /^HTTP\/1\.1 431/)
  assert.equal((await asked('/v1/chat/completions', { method: 'POST', body: chat, headers: { 'content-type': 'application/json' } }))[0], 200)
  noErrors()
})
