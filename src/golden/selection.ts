/** Selection cases: the recorded calls of a selection service, answered by the service's own routes; a tied choice follows the recording. */
import type { Candidate } from '../model/decision.ts'
import { bytesOfHex } from './fixture-fields.ts'
import { difference } from './json-compare.ts'
import type { GoldenKind, GoldenOutcome } from './kind.ts'
import { rankKey, ServiceInProcess, type RankField } from './selection-service.ts'
import type { Answer } from '../services/answer.ts'
import type { JsonObject } from '../ports.ts'
import { settingsOf } from './selection-settings.ts'

interface EventStep {
  readonly event: { readonly worker_id: number | bigint; readonly dp_rank: number; readonly seq: number; readonly payload_hex: string }
}

interface CallStep {
  readonly method: string
  readonly path: string
  readonly request?: unknown
  readonly status: number
  readonly response: unknown
  readonly acceptable?: readonly RankField[]
  readonly costs?: readonly (RankField & { readonly cost: number })[]
}

interface SelectionCase {
  readonly id: number
  readonly config: string
  readonly env: Readonly<Record<string, string>>
  readonly model: string
  readonly block_size: number
  readonly steps: readonly (EventStep | CallStep)[]
}

/** Compares scores with the recording; the candidate that the recording chose, or what is wrong. */
function recordedChoice(step: CallStep, candidates: readonly Candidate[]): Candidate | string {
  const costs = new Map(candidates.map((candidate) => [rankKey(candidate), candidate.cost]))
  const recorded = step.costs ?? []
  if (recorded.length !== candidates.length) return `${candidates.length} candidates instead of ${recorded.length}: ${[...costs.keys()].join()}`
  for (const row of recorded) {
    const cost = costs.get(rankKey(row))
    if (cost === undefined || Math.abs(cost - row.cost) > 1e-9) return `cost of ${rankKey(row)} is ${cost} instead of ${row.cost}`
  }
  const least = Math.min(...costs.values())
  const tied = candidates.filter(({ cost }) => cost === least).map(rankKey)
  const differs = difference(step.acceptable?.map(rankKey), tied, true)
  if (differs !== null) return `acceptable ranks: ${differs}`
  const key = rankKey(step.response as RankField)
  return candidates.find((candidate) => rankKey(candidate) === key) ?? `the recorded choice ${key} is no candidate`
}

/** The answer to a selection, checked against the recording up to the choice; a tied choice follows the recording. */
function select(service: ServiceInProcess, step: CallStep): Answer | Promise<Answer> | string {
  const body = step.request as JsonObject
  const preview = service.preview(body)
  if ('refused' in preview) return service.call(step.method, step.path, body)
  if (step.status !== 200) return `chosen instead of status ${step.status}`
  const { decision, candidates } = preview
  if (!step.acceptable?.some((rank) => rankKey(rank) === rankKey(decision))) return `chose ${rankKey(decision)}, which is not acceptable`
  const chosen = recordedChoice(step, candidates)
  if (typeof chosen === 'string') return chosen
  const pinned = rankKey(chosen) === rankKey(decision) && candidates.length === 1 ? body : { ...body, pinned_worker: { worker_id: chosen.workerId, dp_rank: chosen.dpRank } }
  return service.call(step.method, step.path, pinned)
}

const answerOf = (service: ServiceInProcess, step: CallStep): Answer | Promise<Answer> | string =>
  step.path.startsWith('/select') ? select(service, step) : service.call(step.method, step.path, step.request)

/** The parts of an answer that must agree, lists without order sorted. */
function comparable(path: string, body: unknown): unknown {
  if (path === '/workers') {
    const { kv_events_endpoints: _address, ...rest } = body as { kv_events_endpoints?: unknown; taints: readonly string[] }
    return { ...rest, taints: [...rest.taints].sort() }
  }
  if (path === '/potential_loads') return sorted(body as readonly RankField[])
  if (path.startsWith('/loads')) {
    return (body as readonly { readonly loads: readonly RankField[] }[]).map((model) => ({ ...model, loads: sorted(model.loads) }))
  }
  return body
}

const sorted = (rows: readonly RankField[]): RankField[] => [...rows].sort((a, b) => (rankKey(a) < rankKey(b) ? -1 : 1))

function runCase(item: SelectionCase): GoldenOutcome {
  const settings = settingsOf(item.env, item.block_size)
  if ('missing' in settings) return { kind: 'skipped', reason: `${item.config}: ${settings.missing} is not available in this version` }
  const service = new ServiceInProcess((blockSize) => ({ ...settings, blockSize }), settings.useKvEvents)
  for (const [index, step] of item.steps.entries()) {
    if ('event' in step) {
      service.feeds.feed(step.event, step.event.seq, bytesOfHex(step.event.payload_hex))
      continue
    }
    const answer = answerOf(service, step)
    if (typeof answer === 'string') return failedAt(item, index, step, answer)
    if (answer instanceof Promise) return failedAt(item, index, step, 'the request waits')
    if (answer.status !== step.status) return failedAt(item, index, step, `status ${answer.status} instead of ${step.status}`)
    const differs = difference(comparable(step.path, step.response), comparable(step.path, answer.body))
    if (differs !== null) return failedAt(item, index, step, differs)
  }
  return { kind: 'passed' }
}

const failedAt = (item: SelectionCase, index: number, step: CallStep, message: string): GoldenOutcome =>
  ({ kind: 'failed', message: `${item.config}, step ${index} ${step.method} ${step.path}: ${message}` })

export const golden: GoldenKind = {
  name: 'selection',
  *run(document) {
    for (const item of document['cases'] as readonly SelectionCase[]) yield { id: `${item.id}`, outcome: runCase(item) }
  },
}
