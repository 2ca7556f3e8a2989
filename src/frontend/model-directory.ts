/**
 * The models of a deployment: follows cards and instances of the namespaces in scope and tells which models are ready, through which pools.
 *
 * Source of truth is discovery; what is remembered beyond it (once ready, hand-over by bootstrap, accepted cards) lives as long as the model
 * has a card. Changes are evaluated together, once per turn of the event loop.
 */
import type { Discovery, DiscoveryEvent, JsonObject, Log, Watch } from '../ports.ts'
import { refusedCardChange } from '../dynamo/cards/card-change.ts'
import { parseModelCard, type ModelCard } from '../dynamo/cards/model-card.ts'
import { endpointPrefix, instanceKey, parseInstanceKey } from '../dynamo/discovery/store-key.ts'
import { evaluateModel, historyOf, noHistory, type ModelHistory, type ModelState } from './model-state.ts'
import type { WorkerFact, WorkerPoolState } from './worker-pools.ts'

/** Models at most; cards of further ones are refused with a warning. */
export const maxModels = 4_096

export interface ModelDirectoryOptions {
  readonly discovery: Discovery
  readonly log: Log
  /** Exactly this namespace; null: see `namespacePrefix`. */
  readonly namespace: string | null
  /** Namespaces that begin so; goes before `namespace`. Both null: all. */
  readonly namespacePrefix: string | null
  readonly requirePrefill: boolean
}

interface CardSlot {
  readonly card: ModelCard
  /** Key of the instance record that makes it live. */
  readonly instance: string
  /** A refused change was said in the log. */
  warned: boolean
}

export class ModelDirectory {
  /** Resolves when what stood in discovery at the beginning is evaluated. */
  readonly firstSync: Promise<void>
  readonly #options: ModelDirectoryOptions
  readonly #log: Log
  readonly #cards = new Map<string, CardSlot>()
  readonly #keysByModel = new Map<string, Set<string>>()
  readonly #instances = new Map<string, JsonObject>()
  /** Card keys by the instance key they wait for. */
  readonly #cardsByInstance = new Map<string, Set<string>>()
  readonly #models = new Map<string, ModelState>()
  readonly #history = new Map<string, ModelHistory>()
  readonly #dirty = new Set<string>()
  readonly #refusedSaid = new Map<string, string>()
  readonly #listeners = new Set<(name: string) => void>()
  readonly #watches: readonly Watch[]
  #scheduled = false
  #isSynced = false
  #closed = false
  #refusedCards = 0

  constructor(options: ModelDirectoryOptions) {
    this.#options = options
    this.#log = options.log
    const scope = options.namespacePrefix === null ? (options.namespace ?? '') : ''
    let cardsSynced = (): void => {}
    let instancesSynced = (): void => {}
    this.firstSync = Promise.all([
      new Promise<void>((resolve) => { cardsSynced = resolve }), new Promise<void>((resolve) => { instancesSynced = resolve }),
    ]).then(() => {
      this.#isSynced = true
      this.#evaluate()
    })
    this.#watches = [
      options.discovery.watch('v1/mdc', scope, (event) => this.#onCard(event, cardsSynced)),
      options.discovery.watch('v1/instances', scope, (event) => this.#onInstance(event, instancesSynced)),
    ]
  }

  get(name: string): ModelState | undefined {
    return this.#models.get(name)
  }

  /** In order of appearance. */
  models(): IterableIterator<ModelState> {
    return this.#models.values()
  }

  /** Cards, and changes of cards, that could not be used. */
  get refusedCards(): number {
    return this.#refusedCards
  }

  /** Endpoint records of workers with cards, as they stand in discovery. */
  instanceRecords(): JsonObject[] {
    return [...this.#instances].flatMap(([key, record]) => (this.#cardsByInstance.has(key) ? [record] : []))
  }

  /** Called after a model has changed, appeared or gone (`get` then gives undefined). */
  onChange(listener: (name: string) => void): Watch {
    this.#listeners.add(listener)
    return { close: () => void this.#listeners.delete(listener) }
  }

  /** A prefill worker of this model handed over by bootstrap although its card does not say so. */
  noteBootstrap(name: string, namespace: string): void {
    const history = this.#history.get(name)
    if (history === undefined || history.needsBootstrap.has(namespace)) return
    this.#history.set(name, { ...history, needsBootstrap: new Set([...history.needsBootstrap, namespace]) })
    this.#touch(name)
  }

  close(): void {
    this.#closed = true
    for (const watch of this.#watches) watch.close()
    this.#listeners.clear()
  }

  #onInstance(event: DiscoveryEvent, synced: () => void): void {
    if (event.kind === 'synced') return synced()
    if (!this.#inScope(event.key)) return
    if (event.kind === 'put') this.#instances.set(event.key, event.value)
    else this.#instances.delete(event.key)
    for (const key of this.#cardsByInstance.get(event.key) ?? []) {
      const slot = this.#cards.get(key)
      if (slot !== undefined) this.#touch(slot.card.displayName)
    }
  }

  #onCard(event: DiscoveryEvent, synced: () => void): void {
    if (event.kind === 'synced') return synced()
    if (!this.#inScope(event.key)) return
    if (event.kind === 'put') this.#takeCard(event.key, event.value)
    else this.#dropCard(event.key)
  }

  #inScope(key: string): boolean {
    const { namespacePrefix } = this.#options
    return namespacePrefix === null || key.startsWith(namespacePrefix)
  }

  #takeCard(key: string, value: JsonObject): void {
    const parsed = parseInstanceKey(key)
    const old = this.#cards.get(key)
    let card: ModelCard
    try {
      if (parsed === null) throw new Error('its key has no instance id')
      card = parseModelCard(value, parsed.suffix)
      if (card.instanceId !== parsed.instanceId || endpointPrefix(card) !== endpointPrefix(parsed)) throw new Error('it speaks of another instance than its key')
      const refused = old === undefined ? null : refusedCardChange(old.card, card)
      if (refused !== null) throw new Error(`${refused}; the first card is kept`)
      if (!this.#keysByModel.has(card.displayName) && this.#keysByModel.size >= maxModels) throw new Error(`more than ${maxModels} models`)
    } catch (error) {
      this.#refusedCards += 1
      if (old?.warned !== true) this.#log.warn({ key, stage: 'discovery', reason: (error as Error).message }, 'model card cannot be used')
      if (old !== undefined) old.warned = true
      return
    }
    const instance = instanceKey(card, card.instanceId)
    this.#cards.set(key, { card, instance, warned: old?.warned ?? false })
    addTo(this.#keysByModel, card.displayName, key)
    addTo(this.#cardsByInstance, instance, key)
    this.#touch(card.displayName)
  }

  #dropCard(key: string): void {
    const slot = this.#cards.get(key)
    if (slot === undefined) return
    this.#cards.delete(key)
    this.#refusedSaid.delete(key)
    removeFrom(this.#keysByModel, slot.card.displayName, key)
    removeFrom(this.#cardsByInstance, slot.instance, key)
    this.#touch(slot.card.displayName)
  }

  #touch(name: string): void {
    this.#dirty.add(name)
    if (this.#scheduled) return
    this.#scheduled = true
    queueMicrotask(() => this.#evaluate())
  }

  #evaluate(): void {
    this.#scheduled = false
    // Half of what stands would look like workers that are missing.
    if (this.#closed || !this.#isSynced) return
    const names = [...this.#dirty]
    this.#dirty.clear()
    for (const name of names) {
      this.#evaluateOne(name)
      for (const listener of this.#listeners) listener(name)
    }
  }

  #evaluateOne(name: string): void {
    const keys = this.#keysByModel.get(name)
    const before = this.#models.get(name)
    if (keys === undefined) {
      this.#models.delete(name)
      this.#history.delete(name)
      if (before !== undefined) this.#log.info({ stage: 'discovery', model: name }, 'model gone: its last worker has left')
      return
    }
    const facts: WorkerFact[] = []
    for (const key of keys) {
      const slot = this.#cards.get(key)
      if (slot !== undefined) facts.push({ key, card: slot.card, isLive: this.#instances.has(slot.instance) })
    }
    const state = evaluateModel(name, facts, this.#history.get(name) ?? noHistory, this.#options)
    this.#models.set(name, state)
    this.#history.set(name, historyOf(state))
    for (const { pools } of state.namespaces.values()) for (const pool of pools) this.#sayRefused(pool)
    this.#sayChange(name, before, state)
  }

  #sayRefused(pool: WorkerPoolState): void {
    for (const { fact: { key, card }, differences } of pool.refused) {
      const reason = differences.join('; ')
      if (this.#refusedSaid.get(key) === reason) continue
      this.#refusedSaid.set(key, reason)
      this.#log.error({ worker_id: card.instanceId.toString(), stage: 'discovery', model: pool.model, reason }, `worker refused: the ${pool.kind} workers of model ${pool.model} in namespace ${pool.namespace} have another card (${reason}); start it with their settings, or under a model name or namespace of its own`)
    }
    for (const { key } of pool.workers) this.#refusedSaid.delete(key)
  }

  #sayChange(name: string, before: ModelState | undefined, state: ModelState): void {
    if (before?.isReady === state.isReady && before.reason === state.reason) return
    const fields = { stage: 'discovery', model: name }
    if (state.isReady) this.#log.info(fields, `model ${name} is ready`)
    else if (before?.isReady === true) this.#log.warn({ ...fields, reason: state.reason }, `model ${name} is no longer ready: ${state.reason ?? ''}`)
    else this.#log.info({ ...fields, reason: state.reason }, `model ${name} is not ready yet: ${state.reason ?? ''}`)
  }
}

function addTo(sets: Map<string, Set<string>>, name: string, key: string): void {
  const there = sets.get(name)
  if (there === undefined) sets.set(name, new Set([key]))
  else there.add(key)
}

function removeFrom(sets: Map<string, Set<string>>, name: string, key: string): void {
  const there = sets.get(name)
  there?.delete(key)
  if (there?.size === 0) sets.delete(name)
}
