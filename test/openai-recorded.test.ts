/** Goal: workers are sent what Dynamo's frontend sends them, and clients get what it answers. Method: recorded requests and outputs are replayed through the server. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, test } from 'node:test'
import { parseJson, stringifyJson } from '../src/dynamo/wire/json.ts'
import type { Json, JsonObject } from '../src/ports.ts'
import type { TextDecoderStream, TextModel } from '../src/text/text-model.ts'
import { byteTextModel, eventsOf, FakeCatalog, FakeModel, saying, startOpenAi, type Script, type StartedServer } from './openai-kit.ts'
import { fixturePath } from './repo-root.ts'

interface RecordedCase {
  readonly scenario: string
  readonly name: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Json
  readonly response: { readonly status: number; readonly json?: JsonObject; readonly sse?: string }
  readonly worker_request?: JsonObject
  readonly worker_outputs?: readonly JsonObject[]
}

const recorded = parseJson(readFileSync(fixturePath('behaviour', 'openai_requests.json'), 'utf8')) as unknown as {
  readonly vocabulary_hex: readonly string[]
  readonly merged_tokens: Readonly<Record<string, string>>
  readonly cases: readonly RecordedCase[]
}

const bytesOf = (id: number): Uint8Array => {
  const merged = recorded.merged_tokens[String(id)]
  return merged === undefined ? Buffer.from(recorded.vocabulary_hex[id] ?? '', 'hex') : new TextEncoder().encode(merged)
}

function recordedDecoder(): TextDecoderStream {
  const decoder = new TextDecoder()
  return { push: (id) => decoder.decode(bytesOf(id), { stream: true }), end: () => '' }
}

/** The recorded deployment's text side: the prompt's tokens are those of the recording. */
function recordedText({ worker_request: request }: RecordedCase): TextModel {
  const formatted = (request?.['extra_args'] as { formatted_prompt?: string } | undefined)?.formatted_prompt
  return byteTextModel({
    vocabularySize: 600,
    renderChat: () => formatted ?? 'prompt',
    encode: () => Promise.resolve(Uint32Array.from((request?.['token_ids'] as number[] | undefined) ?? [5])),
    decoder: recordedDecoder,
    tokenText: (id) => new TextDecoder().decode(bytesOf(id)),
    tokenBytes: bytesOf,
  })
}

/** The recorded request without what routing added to it: only what the client asked for is left of its hints. */
function asAsked({ worker_request: request, headers, body }: RecordedCase): JsonObject {
  const { routing, prefill_result: _prefill, router_config_override: _override, ...rest } = request as JsonObject
  const extension = ((body as JsonObject)['nvext'] ?? {}) as JsonObject
  const addedByRouting = [
    ['dp_rank', 'x-dynamo-dp-rank'], ['prefill_worker_id', 'x-dynamo-prefill-instance-id'], ['prefill_dp_rank', 'x-dynamo-prefill-dp-rank'],
  ].filter(([name, header]) => extension[name as string] === undefined && headers[header as string] === undefined).map(([name]) => name)
  const kept = Object.entries((routing ?? {}) as JsonObject).filter(([name]) => !addedByRouting.includes(name))
  return { ...rest, router_config_override: null, ...(kept.length === 0 ? {} : { routing: Object.fromEntries(kept) }) }
}

const replay = (outputs: readonly JsonObject[]): Script => async function* () {
  yield* outputs
}

const servers: StartedServer[] = []
after(async () => {
  for (const { server } of servers) await server.close(0)
})

async function send(recordedCase: RecordedCase): Promise<{ response: Response; model: FakeModel }> {
  const script = recordedCase.worker_outputs === undefined ? saying('a', 'length') : replay(recordedCase.worker_outputs)
  const checksum = recordedCase.worker_request?.['mdc_sum'] ?? null
  const model = new FakeModel(script, { text: recordedText(recordedCase), changes: { cardChecksum: checksum as string | null } })
  const started = await startOpenAi(new FakeCatalog(model))
  servers.push(started)
  const headers = Object.fromEntries(Object.entries(recordedCase.headers).map(([name, value]) => [name.toLowerCase(), value]))
  const body = typeof recordedCase.body === 'string' ? recordedCase.body : stringifyJson(recordedCase.body)
  return { response: await started.post(recordedCase.path, body, headers), model }
}

const sent = recorded.cases.filter((each) => each.worker_request !== undefined)

test('every recorded request reaches the worker as recorded', async () => {
  assert.ok(sent.length > 70, `${sent.length} recorded requests`)
  for (const each of sent) {
    const { response, model } = await send(each)
    const text = await response.text()
    assert.equal(response.status, 200, `${each.scenario} / ${each.name}: ${text}`)
    assert.deepEqual(model.requests[0], asAsked(each), `${each.scenario} / ${each.name}`)
  }
})

test('every recorded refusal is refused with the same status', async () => {
  // Unknown members of nvext are passed over here.
  const refused = recorded.cases.filter(({ response, body }) => response.status >= 400 && !hasUnknownExtension(body))
  assert.ok(refused.length > 25, `${refused.length} recorded refusals`)
  for (const each of refused) {
    const { response, model } = await send(each)
    const body = (await response.json()) as { error: { message: string; type: string } }
    assert.equal(response.status, each.response.status, `${each.name}: ${body.error.message}`)
    assert.equal(body.error.type, 'invalid_request_error')
    assert.ok(body.error.message.length > 20, `${each.name} says what to do: ${body.error.message}`)
    assert.equal(model.requests.length, 0)
  }
})

const hasUnknownExtension = (body: unknown): boolean =>
  Object.keys((body as { nvext?: object } | null)?.nvext ?? {}).some((name) => ['zzz', 'unknown', 'session_control', 'cache_control'].includes(name) || name.startsWith('guided_'))

/** Ids, times and what only routing knows left out; nulls count as absent. */
function comparable(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(comparable)
  if (value === null || typeof value !== 'object') return value
  const entries = Object.entries(value).filter(([name, item]) => item !== null && !['id', 'created', 'timing', 'worker_id'].includes(name))
  return Object.fromEntries(entries.map(([name, item]) => [name, comparable(item)]))
}

test('every recorded answer is given again from the recorded outputs', async () => {
  const answered = sent.filter((each) => each.worker_outputs !== undefined)
  assert.ok(answered.length >= 18)
  for (const each of answered) {
    const { response } = await send(each)
    const text = await response.text()
    if (each.response.sse === undefined) assert.deepEqual(comparable(JSON.parse(text)), comparable(each.response.json), each.name)
    else assert.deepEqual(comparable(eventsOf(text)), comparable(eventsOf(each.response.sse)), each.name)
  }
})
