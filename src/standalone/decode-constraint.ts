/** What one stage means for the choice in the other: pins, and the reach of KV transfers. */
import type { RoutingRequest } from '../model/routing-request.ts'
import type { WorkerId } from '../model/worker.ts'
import { canReachDecode, topologyTaint, transferConstraint, type TransferSource } from '../disagg/topology.ts'
import type { MsgpackValue } from '../msgpack/cursor.ts'
import type { GenerateRequest, RoutingHints } from '../dynamo/wire/generate-request.ts'
import type { RoutedGenerateParts } from './routed-generate.ts'
import type { RoutedPool } from './routed-pool.ts'

type ValueMap = { readonly [key: string]: MsgpackValue }
const mapOf = (value: MsgpackValue | undefined): ValueMap =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array) ? (value as ValueMap) : {}
const idOf = (value: MsgpackValue | undefined): WorkerId | null => (typeof value === 'number' || typeof value === 'bigint' ? BigInt(value) : null)

/** Hints for the prefill stage: its own pin; the decode worker's pin and rank are not its business. */
export function prefillHints(generate: GenerateRequest): RoutingHints {
  const { pin: _pin, dpRank: _dpRank, ...hints } = generate.routing
  const routing = mapOf(generate.field('routing'))
  const workerId = idOf(routing['prefill_worker_id']) ?? idOf(routing['backend_instance_id'])
  const rank = routing['prefill_dp_rank']
  const dpRank = typeof rank === 'number' && rank !== 0xffffffff ? rank : null
  if (workerId !== null) return { ...hints, pin: { workerId, dpRank } }
  return dpRank === null ? hints : { ...hints, dpRank }
}

const sourceOf = (pool: RoutedPool, workerId: WorkerId): TransferSource => {
  const card = pool.card(workerId)
  return { rule: card?.kvTransfer ?? null, domains: card?.topologyDomains ?? new Map() }
}

/** Prefill workers whose blocks no decode worker could fetch: none that works, or, where that leaves nobody, none at all. `failed`: decode workers that failed this request. */
export function unreachablePrefillWorkers(prefill: RoutedPool, decode: RoutedPool, failed: ReadonlySet<WorkerId>): readonly WorkerId[] {
  const workers = [...(prefill.router?.workers ?? [])]
  if (workers.every(({ workerId }) => prefill.card(workerId)?.kvTransfer == null)) return []
  const left = [...(decode.router?.workers ?? [])].filter(({ workerId }) => !failed.has(workerId))
  const beyond = (decoders: typeof left): WorkerId[] => {
    const taints = decoders.map((worker) => new Set([...worker.taints, ...[...worker.topologyDomains].map(([domain, value]) => topologyTaint(domain, value))]))
    return workers.filter(({ workerId }) => !canReachDecode(sourceOf(prefill, workerId), taints)).map(({ workerId }) => workerId)
  }
  const aside = decode.setAsideIds()
  const unreachable = beyond(left.filter(({ workerId }) => !aside.has(workerId)))
  return unreachable.length < workers.length ? unreachable : beyond(left)
}

export interface DecodeConstraint {
  readonly routing: Pick<RoutingRequest, 'requiredTaints' | 'preferredTaints'>
  /** `routing.routing_constraints` of the decode request. */
  readonly taints: ValueMap
}

/** The client's constraints and those of the prefill worker together; null when the prefill worker lays none. */
export function decodeConstraint({ prefillPool, log, observer }: RoutedGenerateParts, generate: GenerateRequest, prefillWorker: WorkerId): DecodeConstraint | null {
  const pool = prefillPool()
  if (pool === null) return null
  const constraint = transferConstraint(sourceOf(pool, prefillWorker))
  if (constraint.kind === 'none') return null
  if (constraint.kind === 'unusable') {
    observer.onUnconstrained()
    log.warn({ worker_id: prefillWorker.toString(), stage: 'prefill', reason: 'topology' }, `KV transfer goes unconstrained: ${constraint.problem}`)
    return null
  }
  const { requiredTaints = [], preferredTaints = new Map<string, number>() } = generate.routing
  const required = constraint.kind === 'required' ? [...new Set([...requiredTaints, constraint.taint])] : requiredTaints
  const preferred = constraint.kind === 'preferred' ? new Map([...preferredTaints, [constraint.taint, constraint.weight]]) : preferredTaints
  return {
    routing: { ...(required.length === 0 ? {} : { requiredTaints: required }), ...(preferred.size === 0 ? {} : { preferredTaints: preferred }) },
    taints: { ...(required.length === 0 ? {} : { required_taints: required }), ...(preferred.size === 0 ? {} : { preferred_taints: Object.fromEntries(preferred) }) },
  }
}

/** SGLang's decode workers wait for blocks and cannot compute a prompt themselves. */
export function isBootstrapPool(pool: RoutedPool): boolean {
  for (const worker of pool.router?.workers ?? []) if (pool.card(worker.workerId)?.bootstrap != null) return true
  return false
}
