/** Recorded scenarios of Dynamo's frontend played again with ours: clients and workers must have the same, but for what is named in `../captures/improvements.ts`. */
import assert from 'node:assert/strict'
import { differences, unexplained } from '../captures/compare.ts'
import { expand, readCaptures, type Outcome } from '../captures/capture.ts'
import { improvements, playOptions, textCaptures } from '../captures/improvements.ts'
import { Player, type Played } from '../captures/player.ts'
import { freePort, type Deployment } from '../deployment.ts'
import type { Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

/** Improvements of every answer: it names its request, and where waiting helps it says for how long. */
function withoutOwnHeaders(ours: Outcome, recorded: Outcome): Outcome {
  const answer = ours.answer as { readonly status?: number; readonly headers?: Readonly<Record<string, string>> }
  if (answer.headers === undefined) return ours
  const kept = (recorded.answer as { readonly headers?: Readonly<Record<string, string>> }).headers ?? {}
  const headers = Object.fromEntries(Object.entries(answer.headers).filter(([name]) => name in kept || !(name === 'x-request-id' || (name === 'retry-after' && [429, 503, 529].includes(answer.status ?? 0)))))
  const { headers: _all, ...rest } = answer
  return { ...ours, answer: Object.keys(headers).length === 0 ? rest : { ...rest, headers } }
}

/** What the API's own types call absent, and what is worded otherwise on purpose: only that there is a message counts. */
function comparable({ answer, legs }: Outcome): unknown {
  return { answer: withoutNulls(expand(answer)), ...(legs === undefined ? {} : { legs }) }
}

function withoutNulls(value: unknown, name = ''): unknown {
  if (name === 'message' && typeof value === 'string' && value !== '') return '<message>'
  if (name === 'error' && typeof value === 'string' && value !== '') return '<message>'
  if (Array.isArray(value)) return value.map((item) => withoutNulls(item))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== null).map(([key, item]) => [key, withoutNulls(item, key)]))
}

/** A stream as its text, its end and its order: how a text falls into tokens and chunks is the tokenizer's affair, and the recording's is another one. */
function asText(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(asText)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).map(([name, item]) => {
    if (name === 'events' && Array.isArray(item)) return [name, streamText(item as readonly StreamEvent[])] as const
    if (name === 'completion_tokens' || name === 'total_tokens' || name === 'completion_token_ids') return [name, '<tokens>'] as const
    return [name, name === 'id' && typeof item === 'string' ? item.replace(/^call-.*/, 'call-<id>') : asText(item)] as const
  })
  return Object.fromEntries(entries)
}

interface StreamEvent {
  readonly event?: string
  readonly data?: '[DONE]' | { readonly choices?: readonly { readonly index: number; readonly delta: Readonly<Record<string, unknown>>; readonly finish_reason?: string }[]; readonly usage?: unknown; readonly nvext?: unknown }
}

function streamText(events: readonly StreamEvent[]): unknown {
  const choices = new Map<number, Record<string, unknown>>()
  const chunks = events.flatMap(({ data }) => (typeof data === 'object' ? [data] : []))
  for (const { index, delta, finish_reason: finish } of chunks.flatMap((chunk) => chunk.choices ?? [])) {
    const choice = choices.get(index) ?? { content: '' }
    const { content = '', ...rest } = delta
    choices.set(index, { ...choice, ...rest, content: `${choice['content'] as string}${content as string}`, ...(finish === undefined ? {} : { finish }) })
  }
  return {
    annotations: events.flatMap(({ event }) => (event === undefined ? [] : [event])), choices: asText([...choices]), isDone: events.at(-1)?.data === '[DONE]',
    hasUsageInEach: chunks.every(({ usage }) => usage !== undefined), lastUsage: asText(chunks.at(-1)?.usage), lastExtras: asText(chunks.at(-1)?.nvext),
  }
}

/** Fails with all that differs, a line each. */
function compare(name: string, played: readonly Played[]): void {
  const shaped = (outcome: Outcome): unknown => (textCaptures.has(name) ? asText(comparable(outcome)) : comparable(outcome))
  const ours = played.map(({ step: { recorded }, outcome }) => {
    if (recorded === undefined) return {}
    const { answer } = withoutOwnHeaders(outcome, recorded)
    if (recorded.legs === undefined && Object.keys(recorded.answer as object).join() === 'status') return shaped({ answer: { status: (answer as { readonly status: number }).status } })
    return shaped({ answer, ...(recorded.legs === undefined ? {} : { legs: outcome.legs ?? [] }) })
  })
  const found = played.flatMap(({ step: { recorded } }, index) => (recorded === undefined ? [] : differences(`${index}`, shaped(recorded), ours[index])))
  const wrong = unexplained(found, improvements[name] ?? [], ours, (wanted) => shaped(wanted as Outcome))
  if (wrong.length > 0) throw new Error(`${name}: ${wrong.length} differences to the recording (number of the call, field)\n${wrong.join('\n')}`)
}

async function play(deployment: Deployment, name: string): Promise<void> {
  const player = new Player(deployment, playOptions[name])
  try {
    compare(name, await player.play(readCaptures().get(name) ?? []))
  } catch (error) {
    if (error instanceof Error) error.stack = `${error.message}\nend of the frontend's log:\n${player.frontendLog.slice(-2000)}`
    throw error
  }
}

/** `http_busy_rejection`: five long prompts in quick turn for one slow worker that may hold twenty prompt tokens. The first is served, the others are refused. */
async function busyRejection(deployment: Deployment): Promise<void> {
  const worker = await deployment.worker('w0', ['--fail', 'slow:5'])
  const port = await freePort()
  deployment.warmpath('frontend', ['frontend', '--http-port', port, '--http-host', '127.0.0.1', '--dynamo-errors', '--active-prefill-tokens-threshold', 20])
  await until('the model is listed', async () => {
    try {
      return (await (await fetch(`http://127.0.0.1:${port}/v1/models`)).text()).includes('"tiny"')
    } catch {
      return false
    }
  })
  const body = JSON.stringify({ model: 'tiny', messages: [{ role: 'user', content: 'busy '.repeat(30) }], max_tokens: 4 })
  const ask = async (): Promise<{ readonly status: number; readonly type: unknown; readonly retryAfter: boolean }> => {
    const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body, signal: AbortSignal.timeout(20_000) })
    const { type = null } = (await response.json()) as { readonly type?: string }
    return { status: response.status, type, retryAfter: response.headers.has('retry-after') }
  }
  const first = ask()
  await until('the worker has the first', () => worker.events().some(({ ev }) => ev === 'request'))
  const others = await Promise.all([ask(), ask(), ask(), ask()])
  assert.deepEqual(others, others.map(() => ({ status: 529, type: 'Overloaded', retryAfter: true })))
  assert.deepEqual(await first, { status: 200, type: null, retryAfter: false })
}

export const captureScenarios: readonly Scenario[] = [
  ...[...readCaptures().keys()].map((name): Scenario => ({ name: `captures-${name.replaceAll('_', '-')}`, run: (deployment) => play(deployment, name) })),
  { name: 'captures-http-busy-rejection', run: busyRejection },
]
