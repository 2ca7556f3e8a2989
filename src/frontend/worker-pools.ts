/**
 * Which workers of a model are served together: cards in, pools out.
 *
 * A pool is all workers of one model, namespace and kind whose cards agree, whatever their component. Pure: who was accepted before is
 * handed in, so that a newcomer with another card never displaces those that serve.
 */
import type { EndpointId } from '../ports.ts'
import type { ModelCard } from '../dynamo/cards/model-card.ts'
import { endpointPrefix } from '../dynamo/discovery/store-key.ts'
import { cardFiles } from './card-files.ts'

/** `legacy`: a card without `worker_type` (before Dynamo 1.3) that is no prefill worker; it may be aggregated or decode. */
export type PoolKind = 'aggregated' | 'legacy' | 'decode' | 'prefill' | 'encode'

/** One `v1/mdc` record as known now. */
export interface WorkerFact {
  /** Its key in the bucket. */
  readonly key: string
  readonly card: ModelCard
  /** Its endpoint's record is there. */
  readonly isLive: boolean
}

export interface RefusedWorker {
  readonly fact: WorkerFact
  /** Card fields that differ, each with both values. */
  readonly differences: readonly string[]
}

/** What must be equal within a pool, by card field. */
export type CardTraits = ReadonlyMap<string, string>

export interface WorkerPoolState {
  /** Unique; stays the same while workers come and go. */
  readonly key: string
  readonly model: string
  readonly namespace: string
  readonly kind: PoolKind
  /** The adapter that the model is, or null. */
  readonly loraName: string | null
  readonly traits: CardTraits
  /** The first accepted worker's. */
  readonly card: ModelCard
  /** In order of appearance; more than one when several components serve the model. */
  readonly endpoints: readonly EndpointId[]
  /** Accepted workers, in order of appearance. */
  readonly workers: readonly WorkerFact[]
  readonly liveCount: number
  readonly refused: readonly RefusedWorker[]
}

export const kindOf = (card: ModelCard): PoolKind => (card.declaresRole || card.role === 'prefill' ? card.role : 'legacy')

export const poolKeyOf = (card: ModelCard): string => `${card.namespace}/${kindOf(card)}/${card.loraName === null ? '' : 'lora:'}${card.displayName}`

/** What the workers of one pool must have in common: all that Dynamo's checksum covers but `needs`, names and paths, and what routing depends on. */
export function traitsOf(card: ModelCard): CardTraits {
  const traits = new Map<string, string>()
  for (const file of cardFiles(card.raw)) traits.set(file.section, file.checksum === '' ? file.path : file.checksum)
  // `Prefill` is the older way to say what `worker_type` says.
  traits.set('model_type', card.modelType.filter((type) => type !== 'Prefill').join(' | '))
  traits.set('model_input', card.modelInput ?? 'Tokens')
  traits.set('context_length', String(card.contextLength ?? 0))
  traits.set('kv_cache_block_size', String(card.blockSize ?? 0))
  traits.set('enable_eagle', String(card.isEagle))
  return traits
}

/** Empty when they agree. */
export function differences(own: CardTraits, others: CardTraits): string[] {
  const names = new Set([...others.keys(), ...own.keys()])
  return [...names].filter((name) => own.get(name) !== others.get(name))
    .map((name) => `${name} ${shown(own.get(name))} where the others have ${shown(others.get(name))}`)
}

const shown = (value: string | undefined): string => (value === undefined || value === '' ? 'none' : value)

/**
 * Pools of the facts of one model. `held`: traits by which a pool was formed last, by pool key.
 * They stay while a live worker has them; then those of the first live worker count.
 */
export function groupWorkers(facts: Iterable<WorkerFact>, held: ReadonlyMap<string, CardTraits>): WorkerPoolState[] {
  const byPool = new Map<string, WorkerFact[]>()
  for (const fact of facts) {
    const key = poolKeyOf(fact.card)
    const there = byPool.get(key)
    if (there === undefined) byPool.set(key, [fact])
    else there.push(fact)
  }
  return [...byPool].map(([key, members]) => formPool(key, members, held.get(key)))
}

function formPool(key: string, facts: readonly WorkerFact[], held: CardTraits | undefined): WorkerPoolState {
  const known = facts.map((fact) => ({ fact, traits: traitsOf(fact.card) }))
  const keepers = held === undefined ? [] : known.filter(({ traits }) => differences(traits, held).length === 0)
  const leader = keepers.find(({ fact }) => fact.isLive) ?? known.find(({ fact }) => fact.isLive) ?? keepers[0] ?? known[0]
  if (leader === undefined) throw new Error(`pool ${key} has no worker`)
  const workers: WorkerFact[] = []
  const refused: RefusedWorker[] = []
  for (const { fact, traits } of known) {
    const differing = differences(traits, leader.traits)
    if (differing.length === 0) workers.push(fact)
    else refused.push({ fact, differences: differing })
  }
  const { card } = workers[0] ?? leader.fact
  const endpoints = new Map(workers.map(({ card: { namespace, component, endpoint } }) => {
    const id = { namespace, component, endpoint }
    return [endpointPrefix(id), id]
  }))
  return {
    key, model: card.displayName, namespace: card.namespace, kind: kindOf(card), loraName: card.loraName, traits: leader.traits, card,
    endpoints: [...endpoints.values()], workers, liveCount: workers.filter(({ isLive }) => isLive).length, refused,
  }
}
