/**
 * Names instead of ids, times, addresses and prompts, so that a run can be compared with a recording of another run. Workers, rooms and hand-over
 * ids are numbered in the order in which one call meets them: who is the same stays visible. The recordings are in this form already.
 */
import { isDeepStrictEqual } from 'node:util'
import type { WorkerEvent } from '../deployment.ts'
import type { Leg, Outcome } from './capture.ts'

/** A request as a worker logged it. */
export interface LoggedRequest {
  readonly label: string
  readonly t: number
  readonly metadata: Readonly<Record<string, unknown>>
  readonly trace: Readonly<Record<string, unknown>> | null
  readonly request: Readonly<Record<string, unknown>>
  readonly first: Readonly<Record<string, unknown>> | null
  readonly ended: string
}

const uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g
const idFields = new Set(['prefill_worker_id', 'decode_worker_id', 'backend_instance_id', 'instance_id', 'worker_id'])

export const poolOf = (label: string): string => /^(?:prefill|decode)/.exec(label)?.[0] ?? label.replace(/\d+$/, '')

/** Requests by the id of the client's call that caused them. */
export function loggedRequests(workers: ReadonlyMap<string, readonly WorkerEvent[]>): Map<string, LoggedRequest[]> {
  const byCall = new Map<string, LoggedRequest[]>()
  for (const [label, events] of workers) {
    const firsts = new Map<unknown, Readonly<Record<string, unknown>>>()
    const ends = new Map<unknown, string[]>()
    for (const event of events) {
      if (event.ev === 'chunk' && !firsts.has(event['n'])) firsts.set(event['n'], event['output'] as Readonly<Record<string, unknown>>)
      if (['done', 'cancelled', 'fail'].includes(event.ev)) ends.set(event['n'], [...(ends.get(event['n']) ?? []), event.ev])
    }
    for (const event of events) {
      if (event.ev !== 'request') continue
      const logged: LoggedRequest = {
        label, t: event['t'] as number, metadata: event['metadata'] as Readonly<Record<string, unknown>>,
        trace: event['trace_headers'] as Readonly<Record<string, unknown>> | null, request: event['request'] as Readonly<Record<string, unknown>>,
        first: firsts.get(event['n']) ?? null, ended: (ends.get(event['n']) ?? ['open']).join('+'),
      }
      byCall.set(event['ctx_id'] as string, [...(byCall.get(event['ctx_id'] as string) ?? []), logged])
    }
  }
  return byCall
}

/** Round by round, prefill before decode: the two may start at once. */
function inOrder(requests: readonly LoggedRequest[]): LoggedRequest[] {
  const seen = new Map<string, number>()
  const keyed = requests.toSorted((left, right) => left.t - right.t).map((request) => {
    const pool = poolOf(request.label)
    seen.set(pool, (seen.get(pool) ?? 0) + 1)
    return { request, key: (seen.get(pool) as number) * 2 + (pool === 'prefill' ? 0 : 1) }
  })
  return keyed.sort((left, right) => left.key - right.key).map(({ request }) => request)
}

export function normalOutcome(answer: unknown, requests: readonly LoggedRequest[], labelOf: (id: string) => string | undefined): Outcome {
  const ordered = inOrder(requests)
  const namer = new Namer(ordered, labelOf)
  const legs = ordered.map((request): Leg => namer.leg(request))
  return { answer: namer.value('', answer), legs }
}

/** The same where no worker logs: real mockers, and requests that reach none. */
function tokensOfAnswer(name: string, value: unknown): unknown {
  if (name === 'token_ids' && Array.isArray(value)) return '<prompt>'
  if (name !== 'usage' || value === null) return null
  const usage = value as { readonly prompt_tokens: number; readonly total_tokens: number; readonly prompt_tokens_details?: { readonly cached_tokens?: number | null } | null }
  const cached = usage.prompt_tokens_details?.cached_tokens ?? null
  const whole = Math.floor(usage.prompt_tokens / 16) * 16
  return {
    ...usage, prompt_tokens: '<prompt>', total_tokens: `<prompt> + ${usage.total_tokens - usage.prompt_tokens}`,
    ...(cached === null ? {} : { prompt_tokens_details: { cached_tokens: cached > 0 && cached === whole ? '<whole blocks>' : cached } }),
  }
}

class Namer {
  readonly #labelOf: (id: string) => string | undefined
  readonly #workers = new Map<string, string>()
  readonly #names = new Map<string, string>()
  readonly #counts = new Map<string, number>()
  readonly #handed: { readonly by: string; readonly params: unknown }[] = []
  readonly #prompt: readonly unknown[] | null
  /** Of workers in zones (`prefill_a`): the first one's. */
  readonly #zone: string | null

  constructor(requests: readonly LoggedRequest[], labelOf: (id: string) => string | undefined) {
    this.#labelOf = labelOf
    this.#prompt = (requests[0]?.request['token_ids'] as readonly unknown[] | undefined) ?? null
    this.#zone = /_(.)$/.exec(requests[0]?.label ?? '')?.[1] ?? null
    for (const { label } of requests) if (!this.#workers.has(label)) this.#workers.set(label, this.#next(poolOf(label)))
    for (const { label, first } of requests) {
      const params = first?.['disaggregated_params'] ?? null
      if (params !== null) this.#handed.push({ by: this.#workers.get(label) as string, params })
    }
  }

  #next(kind: string): string {
    const count = (this.#counts.get(kind) ?? 0) + 1
    this.#counts.set(kind, count)
    return `<${kind} ${count}>`
  }

  #named(kind: string, value: unknown): string {
    const key = `${kind} ${JSON.stringify(value, (_name, item: unknown) => (typeof item === 'bigint' ? `${item}` : item))}`
    const name = this.#names.get(key) ?? this.#next(kind)
    this.#names.set(key, name)
    return name
  }

  leg(logged: LoggedRequest): Leg {
    const worker = this.#workers.get(logged.label) as string
    const request = this.value('', logged.request)
    const params = logged.first?.['disaggregated_params'] ?? null
    let handed: unknown
    if (params !== null && typeof params === 'object' && 'bootstrap_room' in params) handed = this.value('', params)
    return {
      worker,
      ...(this.#zone === null ? {} : { zone: logged.label.endsWith(`_${this.#zone}`) ? 'own' : 'other' }),
      ...(Object.keys(logged.metadata).length === 0 ? {} : { metadata: this.value('', logged.metadata) }),
      ...(logged.trace === null || Object.keys(logged.trace).length === 0 ? {} : { trace: Object.keys(logged.trace).sort() }),
      request, ...(handed === undefined ? {} : { handed }), ended: logged.ended,
    }
  }

  value(name: string, value: unknown): unknown {
    if (idFields.has(name) && (typeof value === 'bigint' || typeof value === 'number')) {
      const label = this.#labelOf(`${value}`)
      if (label === undefined) return typeof value === 'bigint' ? this.#named('instance', value) : value
      return this.#workers.get(label) ?? `<${poolOf(label)} other>`
    }
    if (name === 'bootstrap_room' && value !== null) return this.#named('room', value)
    if (name === 'handoff_id') return this.#named('handoff', value)
    if (name === 'mdc_sum' && typeof value === 'string') return '<checksum>'
    if (name === 'created' && typeof value === 'number') return '<time>'
    if (name === 'transport') return '<address>'
    if (name === 'timing' && typeof value === 'object' && value !== null) return Object.fromEntries(Object.keys(value).map((key) => [key, '<number>']))
    const counted = this.#tokens(name, value)
    if (counted !== null) return counted
    if (name === 'disaggregated_params' && value !== null) {
      const giver = this.#handed.find(({ params }) => isDeepStrictEqual(params, value))
      if (giver !== undefined) return `<handed over by ${giver.by}>`
    }
    if (typeof value === 'string') return this.#text(value)
    if (Array.isArray(value)) return value.map((item) => this.value(name === 'token_ids' ? '' : name, item))
    if (typeof value !== 'object' || value === null) return value
    const named = Object.entries(value).map(([key, item]) => [this.#own(key), this.value(key, item)] as const)
    return this.#annotation(Object.fromEntries(named), value as Readonly<Record<string, unknown>>)
  }

  /** Token counts relative to the prompt: the recording's tokenizer is another one. */
  #tokens(name: string, value: unknown): unknown {
    const prompt = this.#prompt
    if (prompt === null) return tokensOfAnswer(name, value)
    if ((name === 'token_ids' || name === 'prompt_token_ids') && Array.isArray(value) && isDeepStrictEqual(value.slice(0, prompt.length), prompt)) {
      return value.length > prompt.length ? `<prompt> + [${value.slice(prompt.length).join(', ')}]` : '<prompt>'
    }
    if (typeof value !== 'number') return null
    if (name === 'prompt_tokens') return value === prompt.length ? '<prompt>' : `<prompt> + ${value - prompt.length}`
    return name === 'total_tokens' ? `<prompt> + ${value - prompt.length}` : null
  }

  #text(text: string): string {
    return this.#own(text.replace(uuid, '<id>'))
  }

  #own(text: string): string {
    return this.#zone === null ? text : text.replace(`zone=z${this.#zone}`, 'zone=<own>')
  }

  /** The annotation with the prompt's tokens is a JSON text. */
  #annotation(named: Record<string, unknown>, event: Readonly<Record<string, unknown>>): Record<string, unknown> {
    if (event['event'] !== 'token_ids' || typeof event['comment'] !== 'string') return named
    return isDeepStrictEqual(JSON.parse(event['comment']), this.#prompt) ? { ...named, comment: '<prompt>' } : named
  }
}
