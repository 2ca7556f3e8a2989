/** Streams of every API beside the real frontend's over the same worker: events in order, field by field. */
import assert from 'node:assert/strict'
import { type Deployment } from '../deployment.ts'
import { echoWorker, modelNames, ourFrontend, realFrontend } from '../echo-worker.ts'
import type { Scenario } from '../scenario.ts'

type Fields = Readonly<Record<string, unknown>>

const models = ['plain', 'tools,tool=hermes', 'thinks,reasoning=deepseek_r1', 'both,tool=hermes,reasoning=deepseek_r1']
const schema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
const call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
const required = '[{"name": "get_weather", "parameters": {"city": "Rome", "days": [1, {"a": "}"}]}}, {"name": "get_time", "parameters": {"city": "東京 🙂"}}]'
const say = (text: string): Fields[] => [{ role: 'user', content: `SAY:${text}` }]
const chatTools = ['get_weather', 'get_time'].map((name) => ({ type: 'function', function: { name, parameters: schema } }))
const responsesTools = ['get_weather', 'get_time'].map((name) => ({ type: 'function', name, parameters: schema }))
const messagesTools = ['get_weather', 'get_time'].map((name) => ({ name, input_schema: schema }))
const chat = (model: string, text: string, more: Fields = {}): readonly [string, Fields] => ['/v1/chat/completions', { model, messages: say(text), stream: true, stream_options: { include_usage: true }, max_tokens: 400, ...more }]
const responses = (model: string, text: string, more: Fields = {}): readonly [string, Fields] => ['/v1/responses', { model, input: `SAY:${text}`, stream: true, ...more }]
const messages = (model: string, text: string, more: Fields = {}): readonly [string, Fields] => ['/v1/messages', { model, messages: say(text), stream: true, max_tokens: 400, ...more }]

const asked: Readonly<Record<string, readonly [string, Fields]>> = {
  'chat, text': chat('plain', 'hello world'),
  'chat, cut': chat('plain', 'hello world', { max_tokens: 3 }),
  'chat, call': chat('tools', `So. ${call}`, { tools: chatTools }),
  'chat, two calls': chat('tools', call + call, { tools: chatTools }),
  'chat, required': chat('tools', required, { tools: chatTools, tool_choice: 'required' }),
  'chat, required, one': chat('tools', required, { tools: chatTools, tool_choice: 'required', parallel_tool_calls: false }),
  'chat, required, cut': chat('tools', required, { tools: chatTools, tool_choice: 'required', max_tokens: 45 }),
  'chat, named': chat('tools', '{"city": "Rome"}', { tools: chatTools, tool_choice: { type: 'function', function: { name: 'get_weather' } } }),
  'chat, required behind a thought': chat('both', `hm</think>${required}`, { tools: chatTools, tool_choice: 'required' }),
  'chat, thought': chat('thinks', 'hm ok</think>the answer'),
  'chat, thought and call': chat('both', `hm</think>So. ${call}`, { tools: chatTools }),
  'response, text': responses('plain', 'hello world'),
  'response, cut': responses('plain', 'hello world', { max_output_tokens: 3 }),
  'response, call': responses('tools', call, { tools: responsesTools }),
  'response, text and calls': responses('tools', `So. ${call}${call}`, { tools: responsesTools }),
  'response, required': responses('tools', required, { tools: responsesTools, tool_choice: 'required' }),
  'response, thought': responses('thinks', 'hm ok</think>the answer'),
  'message, text': messages('plain', 'hello world'),
  'message, cut': messages('plain', 'hello world', { max_tokens: 2 }),
  'message, stop': messages('plain', 'hello END world', { stop_sequences: ['END'] }),
  'message, calls': messages('tools', `So. ${call}${call}`, { tools: messagesTools }),
  'message, any': messages('tools', required, { tools: messagesTools, tool_choice: { type: 'any' } }),
  'message, thought': messages('thinks', 'hm ok</think>the answer'),
  'message, thought, asked for': messages('thinks', 'hm ok</think>the answer', { thinking: { type: 'enabled', budget_tokens: 1024 } }),
  'message, thought, text and call': messages('both', `hm</think>So ${call}`, { tools: messagesTools }),
}

async function events(port: number, path: string, body: Fields): Promise<Fields[]> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), signal: AbortSignal.timeout(30_000) })
  const text = await response.text()
  assert.equal(response.status, 200, text)
  assert.ok(text.endsWith('data: [DONE]\n\n'), text.slice(-200))
  const blocks = text.split('\n\n').filter((block) => block !== '' && block !== 'data: [DONE]')
  return blocks.map((block) => {
    const [, name, data] = /^(?:event: (.*)\n)?data: (.*)$/s.exec(block) ?? []
    const value = JSON.parse(data ?? 'null') as Fields
    if (name !== undefined) assert.equal(value['type'], name)
    return value
  })
}

/** `store` and the number of events follow from what is told on purpose. */
const volatile = new Set(['id', 'item_id', 'call_id', 'created', 'created_at', 'completed_at', 'store', 'sequence_number'])

/** Without ids, times, and what is null. */
function comparable(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(comparable)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).filter(([name, item]) => item !== null && !volatile.has(name)).map(([name, item]) => [name, comparable(item)]))
}

type Chunk = { readonly choices: readonly { readonly delta: Fields; readonly finish_reason?: string }[] }

const byText = (value: unknown): string => JSON.stringify(value, (_name, item: unknown) => (typeof item === 'object' && item !== null && !Array.isArray(item) ? Object.fromEntries(Object.entries(item).sort()) : item))
const sorted = (list: readonly unknown[]): unknown[] => [...list].sort((left, right) => (byText(left) < byText(right) ? -1 : 1))

/** Ours tells the role with the first token, theirs with the first thing to be shown. */
function chatEvents(all: readonly Fields[]): unknown[] {
  const bare = all.map((event) => comparable({ ...event, choices: (event as unknown as Chunk).choices.map(({ delta, ...choice }) => ({ ...choice, delta: { ...delta, role: undefined } })) })) as Fields[]
  const says = (event: Fields): boolean => {
    const [choice] = (event as unknown as Chunk).choices
    return choice === undefined || choice.finish_reason !== undefined || Object.values(choice.delta).some((item) => item !== undefined && item !== '')
  }
  // A cut answer ends twice there: for its calls, and for its length.
  const ends = bare.filter((event) => (event as unknown as Chunk).choices[0]?.finish_reason !== undefined)
  const superseded = ends.length > 1 ? ends[0] : undefined
  const blank = (event: Fields): unknown => JSON.parse(JSON.stringify(event).replace('"content":"",', '').replace('{"content":""}', '{}'))
  // Why it ended may stand in a chunk of its own.
  const apart = (event: Fields): Fields[] => {
    const [choice] = (event as unknown as Chunk).choices
    if (choice?.finish_reason === undefined || !('tool_calls' in choice.delta)) return [event]
    const { finish_reason: _, ...call } = choice
    return [{ ...event, choices: [call] }, { ...event, choices: [{ ...choice, delta: {} }] }]
  }
  return bare.filter((event) => event !== superseded && says(event)).flatMap(apart).map(blank)
}

/** Ours ends each item before the next, and tells reasoning: the same events in another order, beside some more. */
function responseEvents(all: readonly Fields[]): unknown[] {
  const isReasoning = (event: Fields): boolean => String(event['type']).includes('reasoning') || (event['item'] as Fields | undefined)?.['type'] === 'reasoning' || (event['part'] as Fields | undefined)?.['type'] === 'reasoning_text'
  return all.filter((event) => !isReasoning(event)).map((event) => {
    const { response, ...rest } = event as { response?: { output: readonly Fields[] } & Fields }
    const output = sorted((response?.output ?? []).filter(({ type }) => type !== 'reasoning').map(comparable))
    return comparable({ ...rest, output_index: undefined, ...(response === undefined ? {} : { response: { ...response, output } }) })
  })
}

/** The original guesses how long the prompt is, tells cached tokens when there are some, and leaves out an end without a stop string. */
function messageEvents(all: readonly Fields[]): unknown[] {
  return all.map((event) => {
    const bare = comparable(event) as { message?: { usage?: Fields }; usage?: { cache_read_input_tokens?: number } }
    delete bare.message?.usage
    if (bare.usage?.cache_read_input_tokens === 0) delete bare.usage.cache_read_input_tokens
    return bare
  })
}

const inAnyOrder = new Set(['response, text and calls', 'response, required', 'response, thought'])

async function streamsBesideTheReal(deployment: Deployment): Promise<void> {
  await echoWorker(deployment, models)
  const [{ port: ours }, theirs] = await Promise.all([ourFrontend(deployment, modelNames(models)), realFrontend(deployment, modelNames(models))])
  const differences: string[] = []
  for (const [name, [path, body]] of Object.entries(asked)) {
    const read = path.endsWith('responses') ? responseEvents : path.endsWith('messages') ? messageEvents : chatEvents
    const [real, mine] = await Promise.all([theirs, ours].map(async (port) => read(await events(port, path, body)))) as [unknown[], unknown[]]
    try {
      assert.deepEqual(inAnyOrder.has(name) ? sorted(mine) : mine, inAnyOrder.has(name) ? sorted(real) : real)
    } catch (error) {
      differences.push(`${name}: ${(error as Error).message.split('\n').slice(0, 60).join('\n')}`)
    }
  }
  assert.equal(differences.length, 0, differences.join('\n\n'))
}

export const apiStreamScenarios: readonly Scenario[] = [
  { name: 'api-streams-beside-the-real', timeoutSeconds: 150, run: streamsBesideTheReal },
]
