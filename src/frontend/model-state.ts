/** What the directory knows of one model. A change makes a new object. */
import { evaluateReadiness, hasSurface, type EntryPool } from './readiness.ts'
import { groupWorkers, type CardTraits, type WorkerFact, type WorkerPoolState } from './worker-pools.ts'

export interface NamespaceState {
  readonly namespace: string
  readonly pools: readonly WorkerPoolState[]
  /** Where requests may go; empty when the model is not ready here. */
  readonly entries: readonly EntryPool[]
  readonly reason: string | null
  readonly wasReady: boolean
  readonly needsBootstrap: boolean
}

export interface ModelState {
  readonly name: string
  readonly namespaces: ReadonlyMap<string, NamespaceState>
  readonly isReady: boolean
  /** Why not; null when ready. */
  readonly reason: string | null
  /** A worker with chat or completions was there once; without, the model is unknown to clients. */
  readonly hadSurface: boolean
  readonly aliases: readonly string[]
}

/** What outlives a single evaluation. */
export interface ModelHistory {
  readonly wasReady: ReadonlySet<string>
  readonly needsBootstrap: ReadonlySet<string>
  readonly hadSurface: boolean
  readonly held: ReadonlyMap<string, CardTraits>
}

export const noHistory: ModelHistory = { wasReady: new Set(), needsBootstrap: new Set(), hadSurface: false, held: new Map() }

/** Evaluates a model whole. `facts`: in order of appearance, not empty. */
export function evaluateModel(name: string, facts: Iterable<WorkerFact>, history: ModelHistory, options: { readonly requirePrefill: boolean }): ModelState {
  const pools = groupWorkers(facts, history.held)
  const byNamespace = new Map<string, WorkerPoolState[]>()
  for (const pool of pools) {
    const there = byNamespace.get(pool.namespace)
    if (there === undefined) byNamespace.set(pool.namespace, [pool])
    else there.push(pool)
  }
  const namespaces = new Map<string, NamespaceState>()
  for (const [namespace, members] of byNamespace) {
    const needsBootstrap = history.needsBootstrap.has(namespace) || members.some(advertisesBootstrap)
    const wasReady = history.wasReady.has(namespace)
    const { entries, reason } = evaluateReadiness({ pools: members, wasReady, needsBootstrap, requirePrefill: options.requirePrefill })
    namespaces.set(namespace, { namespace, pools: members, entries, reason, wasReady: wasReady || entries.length > 0, needsBootstrap })
  }
  const all = [...namespaces.values()]
  const isReady = all.some(({ entries }) => entries.length > 0)
  return {
    name, namespaces, isReady, reason: isReady ? null : reasonOf(all), hadSurface: history.hadSurface || pools.some(hasSurface),
    aliases: [...new Set(pools.filter(hasSurface).flatMap(({ card }) => card.aliases))],
  }
}

/** What the next evaluation must know of this one. */
export function historyOf(state: ModelState): ModelHistory {
  const all = [...state.namespaces.values()]
  return {
    wasReady: new Set(all.filter(({ wasReady }) => wasReady).map(({ namespace }) => namespace)),
    needsBootstrap: new Set(all.filter(({ needsBootstrap }) => needsBootstrap).map(({ namespace }) => namespace)),
    hadSurface: state.hadSurface,
    held: new Map(all.flatMap(({ pools }) => pools.map((pool) => [pool.key, pool.traits] as const))),
  }
}

/**
 * Workers of SGLang's kind: a prefill worker's card tells where its hand-over is taken, or a card names the engine in
 * `runtime_data`. Decode cards of such workers say nothing of it, so that what a prefill worker once said is remembered.
 */
const advertisesBootstrap = ({ workers }: WorkerPoolState): boolean => workers.some(({ card }) => {
  if (card.role === 'prefill' && card.bootstrap !== null) return true
  const runtime = card.raw['runtime_config']
  const data = runtime !== null && typeof runtime === 'object' && !Array.isArray(runtime) ? (runtime as { readonly [key: string]: unknown })['runtime_data'] : null
  if (data === null || typeof data !== 'object') return false
  const { engine, backend } = data as { readonly engine?: unknown; readonly backend?: unknown }
  return card.role !== 'aggregated' && [engine, backend].some((value) => typeof value === 'string' && value.toLowerCase() === 'sglang')
})

const reasonOf = (all: readonly NamespaceState[]): string =>
  all.length === 1 ? (all[0]?.reason ?? '') : all.map(({ namespace, reason }) => `${namespace}: ${reason ?? ''}`).join('; ')
