/**
 * The instances of one endpoint, joined with their model cards: who can be called, where, and what it says of itself.
 *
 * Follows `v1/instances` and `v1/mdc` of exactly that endpoint. Instances without a card are listed too.
 */
import type { Clock, Discovery, DiscoveryEvent, EndpointId, InstanceRecord, JsonObject, Log, Watch } from '../../ports.ts'
import { refusedCardChange } from '../cards/card-change.ts'
import { type ModelCard, parseModelCard } from '../cards/model-card.ts'
import { endpointPrefix, type ParsedInstanceKey, parseInstanceKey } from '../discovery/store-key.ts'
import { decodeInstanceRecord } from '../wire/instance-record.ts'
import { SetAside } from './set-aside.ts'

/** Instances, and cards, at most; further ones are refused with a warning. */
export const maxInstances = 16_384
/** LoRA cards of one instance at most. */
export const maxLoraCards = 1_024

/** One instance as known now. A change makes a new object. */
export interface KnownInstance {
  readonly record: InstanceRecord
  /** Null: it published none, or none that can be read. */
  readonly card: ModelCard | null
  /** Cards of its LoRA adapters, by the suffix of their key. */
  readonly loraCards: ReadonlyMap<string, ModelCard>
}

/** `changed`: the record (address, codec). `cardChanged`: the card or a LoRA card came, changed its taints or went. */
export type InstanceEvent =
  | { readonly kind: 'added'; readonly instance: KnownInstance }
  | { readonly kind: 'changed'; readonly instance: KnownInstance; readonly previous: KnownInstance }
  | { readonly kind: 'cardChanged'; readonly instance: KnownInstance; readonly previous: KnownInstance }
  | { readonly kind: 'removed'; readonly instance: KnownInstance }

export interface InstanceCounts {
  readonly instances: number
  readonly withCard: number
  readonly setAside: number
  /** Records that could not be used: unreadable, not matching their key, or beyond the bound. */
  readonly refusedRecords: number
  /** Cards that could not be used, and changes of cards that were refused. */
  readonly refusedCards: number
  readonly setAsideEvictions: number
}

export interface InstanceDirectoryOptions {
  readonly discovery: Discovery
  readonly endpoint: EndpointId
  readonly clock: Clock
  readonly log: Log
  /** Default `maxInstances`. */
  readonly limit?: number
}

interface CardSlot {
  card: ModelCard | null
  readonly loraCards: Map<string, ModelCard>
  /** Suffixes ('' for the worker's own) whose refused change was said in the log. */
  readonly warned: Set<string>
}

const noCards: ReadonlyMap<string, ModelCard> = new Map()

export class InstanceDirectory {
  readonly endpoint: EndpointId
  /** Resolves when the instances and cards that stood at the beginning are known. */
  readonly firstSync: Promise<void>
  readonly #log: Log
  readonly #limit: number
  readonly #instances = new Map<bigint, KnownInstance>()
  readonly #cards = new Map<bigint, CardSlot>()
  readonly #setAside: SetAside
  readonly #listeners = new Set<(event: InstanceEvent) => void>()
  readonly #watches: readonly Watch[]
  #synced = false
  #refusedRecords = 0
  #refusedCards = 0

  constructor(options: InstanceDirectoryOptions) {
    this.endpoint = options.endpoint
    this.#log = options.log
    this.#limit = options.limit ?? maxInstances
    this.#setAside = new SetAside(options.clock)
    const prefix = endpointPrefix(options.endpoint)
    let recordsSynced = (): void => {}
    let cardsSynced = (): void => {}
    this.firstSync = Promise.all([
      new Promise<void>((resolve) => { recordsSynced = resolve }),
      new Promise<void>((resolve) => { cardsSynced = resolve }),
    ]).then(() => { this.#synced = true })
    // Cards first: an instance that stands already is then mostly added with its card.
    this.#watches = [
      options.discovery.watch('v1/mdc', prefix, (event) => this.#onCard(event, cardsSynced)),
      options.discovery.watch('v1/instances', prefix, (event) => this.#onRecord(event, recordsSynced)),
    ]
  }

  get synced(): boolean {
    return this.#synced
  }

  get size(): number {
    return this.#instances.size
  }

  get(id: bigint): KnownInstance | undefined {
    return this.#instances.get(id)
  }

  /** All instances, in the order in which they came. */
  instances(): IterableIterator<KnownInstance> {
    return this.#instances.values()
  }

  /** Those that are not set aside; all of them when all are. */
  callable(): KnownInstance[] {
    const all = [...this.#instances.values()]
    const free = all.filter((instance) => !this.#setAside.has(instance.record.instanceId))
    return free.length > 0 ? free : all
  }

  /** Not to be chosen for `forMs`, after it failed. */
  setAside(id: bigint, forMs: number): void {
    this.#setAside.add(id, forMs)
  }

  isSetAside(id: bigint): boolean {
    return this.#setAside.has(id)
  }

  counts(): InstanceCounts {
    let withCard = 0
    for (const instance of this.#instances.values()) if (instance.card !== null) withCard += 1
    return {
      instances: this.#instances.size,
      withCard,
      setAside: this.#setAside.size,
      refusedRecords: this.#refusedRecords,
      refusedCards: this.#refusedCards,
      setAsideEvictions: this.#setAside.evictions,
    }
  }

  /** Tells of changes from now on; what is known already is in `instances()`. */
  onEvent(listener: (event: InstanceEvent) => void): Watch {
    this.#listeners.add(listener)
    return { close: () => void this.#listeners.delete(listener) }
  }

  close(): void {
    for (const watch of this.#watches) watch.close()
    this.#listeners.clear()
  }

  #onRecord(event: DiscoveryEvent, synced: () => void): void {
    if (event.kind === 'synced') return synced()
    const key = this.#keyOf(event.key)
    if (key === null || key.suffix !== null) return
    if (event.kind === 'delete') return this.#removeInstance(key.instanceId)
    const record = this.#readRecord(event.key, key, event.value)
    if (record === null) return
    const previous = this.#instances.get(key.instanceId)
    if (previous === undefined && this.#instances.size >= this.#limit) return this.#refuseRecord(event.key, `more than ${this.#limit} instances`)
    const cards = this.#cards.get(key.instanceId)
    const instance: KnownInstance = { record, card: cards?.card ?? null, loraCards: new Map(cards?.loraCards ?? noCards) }
    this.#instances.set(key.instanceId, instance)
    this.#tell(previous === undefined ? { kind: 'added', instance } : { kind: 'changed', instance, previous })
  }

  #removeInstance(id: bigint): void {
    const instance = this.#instances.get(id)
    if (instance === undefined) return
    this.#instances.delete(id)
    this.#tell({ kind: 'removed', instance })
  }

  #readRecord(key: string, parsed: ParsedInstanceKey, value: JsonObject): InstanceRecord | null {
    try {
      const record = decodeInstanceRecord(value)
      const matches = record.instanceId === parsed.instanceId && endpointPrefix(record) === endpointPrefix(parsed)
      if (!matches) throw new Error(`it speaks of ${endpointPrefix(record)}/${record.instanceId.toString(16)}`)
      return record
    } catch (error) {
      this.#refuseRecord(key, (error as Error).message)
      return null
    }
  }

  #refuseRecord(key: string, reason: string): void {
    this.#refusedRecords += 1
    this.#log.warn({ key, reason }, 'instance record cannot be used')
  }

  #onCard(event: DiscoveryEvent, synced: () => void): void {
    if (event.kind === 'synced') return synced()
    const key = this.#keyOf(event.key)
    if (key === null) return
    const changed = event.kind === 'put' ? this.#takeCard(event.key, key, event.value) : this.#dropCard(key)
    if (!changed) return
    const previous = this.#instances.get(key.instanceId)
    if (previous === undefined) return
    const cards = this.#cards.get(key.instanceId)
    const instance: KnownInstance = { record: previous.record, card: cards?.card ?? null, loraCards: new Map(cards?.loraCards ?? noCards) }
    this.#instances.set(key.instanceId, instance)
    this.#tell({ kind: 'cardChanged', instance, previous })
  }

  #takeCard(storeKey: string, key: ParsedInstanceKey, value: JsonObject): boolean {
    const suffix = key.suffix ?? ''
    const slot = this.#cards.get(key.instanceId) ?? { card: null, loraCards: new Map<string, ModelCard>(), warned: new Set<string>() }
    const old = key.suffix === null ? slot.card : (slot.loraCards.get(key.suffix) ?? null)
    const full = this.#cards.has(key.instanceId)
      ? old === null && key.suffix !== null && slot.loraCards.size >= maxLoraCards
      : this.#cards.size >= this.#limit
    if (full) return this.#refuseCard(storeKey, null, 'too many cards')
    try {
      const card = parseModelCard(value, key.suffix)
      if (card.instanceId !== key.instanceId) throw new Error(`it speaks of instance ${card.instanceId.toString(16)}`)
      const refused = old === null ? null : refusedCardChange(old, card)
      if (refused !== null) return this.#refuseChange(storeKey, slot, suffix, refused)
      if (key.suffix === null) slot.card = card
      else slot.loraCards.set(key.suffix, card)
    } catch (error) {
      const reason = (error as Error).message
      return old === null ? this.#refuseCard(storeKey, null, reason) : this.#refuseChange(storeKey, slot, suffix, reason)
    }
    this.#cards.set(key.instanceId, slot)
    return true
  }

  #dropCard(key: ParsedInstanceKey): boolean {
    const slot = this.#cards.get(key.instanceId)
    if (slot === undefined) return false
    slot.warned.delete(key.suffix ?? '')
    const had = key.suffix === null ? slot.card !== null : slot.loraCards.has(key.suffix)
    if (key.suffix === null) slot.card = null
    else slot.loraCards.delete(key.suffix)
    if (slot.card === null && slot.loraCards.size === 0) this.#cards.delete(key.instanceId)
    return had
  }

  #refuseChange(storeKey: string, slot: CardSlot, suffix: string, reason: string): false {
    const said = slot.warned.has(suffix)
    slot.warned.add(suffix)
    return this.#refuseCard(storeKey, said ? 'said' : null, `${reason}; the first card is kept`)
  }

  #refuseCard(storeKey: string, said: 'said' | null, reason: string): false {
    this.#refusedCards += 1
    if (said === null) this.#log.warn({ key: storeKey, reason }, 'model card cannot be used')
    return false
  }

  #keyOf(key: string): ParsedInstanceKey | null {
    const parsed = parseInstanceKey(key)
    if (parsed === null) this.#log.warn({ key }, 'discovery key has no instance id; it is skipped')
    return parsed
  }

  #tell(event: InstanceEvent): void {
    for (const listener of this.#listeners) {
      try {
        listener(event)
      } catch (error) {
        this.#log.error({ worker_id: String(event.instance.record.instanceId), reason: String(error) }, 'a listener of instances threw')
      }
    }
  }
}
