/**
 * Whether a model can be served in a namespace, by which pools, and if not, why. Pure.
 *
 * Until the model was once ready, `needs` decides: a pool counts when one of its groups is fully there, in pools that count themselves.
 * Afterwards a live pool with an OpenAI surface is enough, because its workers can run the whole request; not so where the hand-over needs
 * a prefill worker (SGLang's kind), nor with `requirePrefill`.
 */
import type { PoolKind, WorkerPoolState } from './worker-pools.ts'

export interface ReadinessInput {
  readonly pools: readonly WorkerPoolState[]
  /** The model was ready in this namespace before. */
  readonly wasReady: boolean
  /** A prefill worker of this model handed over by bootstrap, or says that it will. */
  readonly needsBootstrap: boolean
  /** `needs` decides afterwards too. */
  readonly requirePrefill: boolean
}

/** A pool that takes requests, with the one that computes prompts for it. */
export interface EntryPool {
  readonly pool: WorkerPoolState
  readonly prefill: WorkerPoolState | null
}

export interface Readiness {
  /** Empty: not ready. */
  readonly entries: readonly EntryPool[]
  /** Null when ready. */
  readonly reason: string | null
}

/** Roles that a pool stands for in the `needs` of others. */
const rolesOf: Readonly<Record<PoolKind, readonly string[]>> = {
  aggregated: ['aggregated'], legacy: ['aggregated', 'decode'], decode: ['decode'], prefill: ['prefill'], encode: ['encode'],
}

/** Chat, completions or embeddings, on workers that run whole requests. */
export const hasSurface = ({ kind, card }: WorkerPoolState): boolean =>
  kind !== 'prefill' && kind !== 'encode' && ['Chat', 'Completions', 'Embedding'].some((type) => card.modelType.includes(type))

/** Embeddings go to workers that tokenize themselves, too. */
const canBeFed = ({ card }: WorkerPoolState): boolean =>
  card.modelInput === null || card.modelInput === 'Tokens' || (card.modelInput === 'Text' && isEmbeddingOnly(card))

/** Routed by load alone: nothing that is generated, no cache of prefixes. */
export const isEmbeddingOnly = ({ modelType }: Pick<WorkerPoolState['card'], 'modelType'>): boolean =>
  modelType.includes('Embedding') && !modelType.includes('Chat') && !modelType.includes('Completions')

/** Evaluates the pools of one model in one namespace. */
export function evaluateReadiness(input: ReadinessInput): Readiness {
  const live = input.pools.filter(({ liveCount }) => liveCount > 0)
  const withSurface = input.pools.filter(hasSurface)
  if (withSurface.length === 0) return notReady('no worker that decodes is registered')
  const candidates = withSurface.filter(({ liveCount }) => liveCount > 0)
  if (candidates.length === 0) return notReady('no worker that decodes is alive')
  const usable = candidates.filter(canBeFed)
  if (usable.length === 0) return notReady(`the workers want ${candidates[0]?.card.modelInput ?? 'no'} input, only Tokens is served (Text for embeddings)`)
  const satisfied = satisfiedPools(live)
  const prefill = live.find(({ kind }) => kind === 'prefill') ?? null
  const mustSatisfy = !input.wasReady || input.requirePrefill
  const entries: EntryPool[] = []
  let reason = ''
  for (const pool of usable) {
    const pairs = pool.kind === 'decode' || pool.kind === 'legacy'
    if (mustSatisfy && !satisfied.has(pool)) reason = `its ${pool.kind} workers need ${missingText(pool, satisfied)}`
    else if (pairs && prefill === null && input.needsBootstrap) {
      reason = 'no prefill worker is alive, and decode workers that take their hand-over by bootstrap (SGLang) cannot run a prompt themselves'
    } else entries.push({ pool, prefill: pairs ? prefill : null })
  }
  return entries.length > 0 ? { entries, reason: null } : notReady(reason)
}

const notReady = (reason: string): Readiness => ({ entries: [], reason })

/** The largest set of live pools whose needs are met within it. Cost: pools squared, of which there are five kinds. */
function satisfiedPools(live: readonly WorkerPoolState[]): Set<WorkerPoolState> {
  const satisfied = new Set(live)
  for (let changed = true; changed;) {
    changed = false
    const roles = rolesIn(satisfied)
    for (const pool of satisfied) {
      if (needsMet(pool, roles)) continue
      satisfied.delete(pool)
      changed = true
    }
  }
  return satisfied
}

const rolesIn = (pools: Iterable<WorkerPoolState>): Set<string> => new Set([...pools].flatMap(({ kind }) => rolesOf[kind]))

const needsMet = ({ kind, card }: WorkerPoolState, roles: ReadonlySet<string>): boolean =>
  kind === 'legacy' || card.needs.length === 0 || card.needs.some((group) => group.every((role) => roles.has(role)))

function missingText(pool: WorkerPoolState, satisfied: ReadonlySet<WorkerPoolState>): string {
  const roles = rolesIn([...satisfied, pool])
  return pool.card.needs.map((group) => group.filter((role) => !roles.has(role)).join(' and ') || 'what these lack').join(', or ') + ' workers'
}
