/** Queue cases: requests against one busy worker; who is granted, refused and released, in which order. */
import { parse } from 'yaml'
import { readPolicyProfiles } from '../config/policy-profiles.ts'
import { singleClassProfile, type PolicyProfile, type QueuePolicy } from '../queue/policy-profile.ts'
import type { Refusal } from '../model/decision.ts'
import type { Clock } from '../ports.ts'
import { KvRouter } from '../router/kv-router.ts'
import { defaultRouterSettings } from '../router/settings.ts'
import { difference } from './json-compare.ts'
import type { GoldenKind, GoldenOutcome } from './kind.ts'

interface QueueRequest {
  readonly label: string
  readonly isl: number
  readonly priority_jump: number | null
  readonly strict_priority: number | null
  readonly policy_class: string | null
}

interface QueueCase {
  readonly id: number
  readonly config: string
  readonly env: Readonly<Record<string, string>>
  readonly max_num_batched_tokens: number
  readonly workers: number
  readonly fill_isl: number
  readonly requests: readonly QueueRequest[]
  readonly after_submit: unknown
  readonly releases: readonly { readonly free: string; readonly granted: readonly string[] }[]
}

function profileOf(env: QueueCase['env']): PolicyProfile {
  const document = env['DYN_ROUTER_POLICY_CONFIG']
  if (document !== undefined) return readPolicyProfiles('policy', parse(document) as Record<string, unknown>).root ?? singleClassProfile(null)
  const threshold = env['DYN_ROUTER_QUEUE_THRESHOLD']
  return singleClassProfile(threshold === undefined ? null : Number(threshold), (env['DYN_ROUTER_QUEUE_POLICY'] ?? 'fcfs') as QueuePolicy)
}

/** The service's answer to a refusal. */
function rejection(label: string, { message, queueLimit, reason }: Refusal): unknown {
  if (queueLimit === undefined) return { label, status: 503, response: { error: reason } }
  const { policyClass, kind, current, limit } = queueLimit
  return { label, status: 429, response: { error: message, details: { policy_class: policyClass, limit_kind: kind, current, limit } } }
}

function runCase(item: QueueCase): GoldenOutcome {
  let nowMs = 0
  const clock: Clock = { nowMs: () => nowMs, epochMs: () => nowMs, setTimer: () => ({ cancel: () => undefined }) }
  const router = new KvRouter({
    ...defaultRouterSettings, blockSize: 4, useKvEvents: false,
    queue: { profile: profileOf(item.env), overlapRefreshAfterSeconds: 10, timeoutSeconds: null },
  }, { clock, random: { float: () => 0.5, u64: () => [1, 2] } })
  for (let worker = 1; worker <= item.workers; worker++) {
    router.upsertWorker({ workerId: BigInt(worker), dpStart: 0, dpSize: 1, totalKvBlocks: null, maxNumBatchedTokens: item.max_num_batched_tokens, taints: [], topologyDomains: new Map() })
  }
  let nextToken = 1
  let granted: string[] = []
  const rejected: unknown[] = []
  const submit = (request: QueueRequest): void => {
    const settle = (answer: ReturnType<typeof router.route>): void => {
      if (answer.kind === 'chosen') granted.push(request.label)
      else rejected.push(rejection(request.label, answer))
    }
    const answer = router.submit({
      requestId: request.label, model: 'm', tokens: Uint32Array.from({ length: request.isl }, () => nextToken++),
      ...(request.priority_jump === null ? {} : { priorityJumpSeconds: request.priority_jump }),
      ...(request.strict_priority === null ? {} : { strictPriority: request.strict_priority }),
      ...(request.policy_class === null ? {} : { policyClass: request.policy_class }),
    }, settle)
    if (answer.kind !== 'parked') settle(answer)
  }
  submit({ label: 'fill', isl: item.fill_isl, priority_jump: null, strict_priority: null, policy_class: null })
  granted = []
  for (const request of item.requests) {
    nowMs += 20
    submit(request)
  }
  const rows = router.queueReport()
  const after = {
    pending_count: rows.reduce((sum, row) => sum + row.requests, 0), pending_isl_tokens: rows.reduce((sum, row) => sum + row.promptTokens, 0),
    granted_immediately: granted, rejected,
  }
  const differs = difference(item.after_submit, after)
  if (differs !== null) return { kind: 'failed', message: `${item.config}, after the requests: ${differs}` }
  for (const release of item.releases) {
    granted = []
    nowMs += 20
    router.free(release.free)
    const wrong = difference(release.granted, granted)
    if (wrong !== null) return { kind: 'failed', message: `${item.config}, after ${release.free} was freed: ${wrong}` }
  }
  return { kind: 'passed' }
}

export const golden: GoldenKind = {
  name: 'queue',
  *run(document) {
    for (const item of document['cases'] as readonly QueueCase[]) yield { id: `${item.id}`, outcome: runCase(item) }
  },
}
