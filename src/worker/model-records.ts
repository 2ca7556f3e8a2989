/** The cards of one endpoint: its model's and its LoRA adapters'. The one writer of this process's `v1/mdc` records there. */
import { topologyTaintPrefix } from '../dynamo/cards/model-card.ts'
import { endpointPrefix, instanceKey } from '../dynamo/discovery/store-key.ts'
import { isObject, stringifyJson } from '../dynamo/wire/json.ts'
import type { Discovery, EndpointId, JsonObject } from '../ports.ts'
import { ArgumentError } from './errors.ts'
import { modelSlug } from './model-card.ts'
import { checkedTaints } from './runtime-config.ts'

/** LoRA cards of one endpoint at most: readers take no more. */
const loraCardsMax = 1024

export class ModelRecords {
  readonly #discovery: Discovery
  readonly #endpoint: EndpointId
  /** By suffix; '' for the model's own. */
  readonly #cards = new Map<string, JsonObject>()

  constructor(discovery: Discovery, endpoint: EndpointId) {
    this.#discovery = discovery
    this.#endpoint = endpoint
  }

  /** Publishes a card. Errors: another card is published there already, which may change in its taints only. */
  async register(card: JsonObject, loraName: string | null): Promise<void> {
    const suffix = loraName === null ? '' : modelSlug(loraName)
    const old = this.#cards.get(suffix)
    if (old !== undefined && stringifyJson(old) !== stringifyJson(card)) {
      throw new ArgumentError('registerModel', loraName === null ? 'endpoint' : 'loraName', loraName ?? endpointPrefix(this.#endpoint), 'it has another card already; unregisterModel first, or updateModelTaints for taints')
    }
    if (old === undefined && suffix !== '' && this.#cards.size > loraCardsMax) throw new ArgumentError('registerModel', 'loraName', loraName, `an endpoint has at most ${loraCardsMax} adapters; unregister one`)
    await this.#put(suffix, card)
  }

  /** Takes a card back. Errors: there is none. */
  async unregister(loraName: string | null): Promise<void> {
    const suffix = loraName === null ? '' : modelSlug(loraName)
    if (!this.#cards.has(suffix)) {
      throw new ArgumentError('unregisterModel', loraName === null ? 'endpoint' : 'loraName', loraName ?? endpointPrefix(this.#endpoint), 'nothing is registered under it')
    }
    await this.#discovery.remove('v1/mdc', this.#key(suffix))
    this.#cards.delete(suffix)
  }

  /** Replaces the worker's own taints; those of the topology stay. Errors: no model is registered; a reserved taint. */
  async updateTaints(taints: Iterable<string>): Promise<void> {
    const card = this.#cards.get('')
    if (card === undefined) throw new ArgumentError('updateModelTaints', 'endpoint', endpointPrefix(this.#endpoint), 'it has no model yet; registerModel first')
    const own = checkedTaints(taints, 'updateModelTaints')
    const { taints: old, ...section } = isObject(card['runtime_config']) ? (card['runtime_config'] as JsonObject) : {}
    const reserved = Array.isArray(old) ? (old as readonly string[]).filter((taint) => taint.startsWith(topologyTaintPrefix)) : []
    const all = [...own, ...reserved]
    await this.#put('', { ...card, runtime_config: all.length === 0 ? section : { ...section, taints: all } })
  }

  /** Takes all cards back. */
  async clear(): Promise<void> {
    const suffixes = [...this.#cards.keys()]
    this.#cards.clear()
    await Promise.all(suffixes.map((suffix) => this.#discovery.remove('v1/mdc', this.#key(suffix))))
  }

  async #put(suffix: string, card: JsonObject): Promise<void> {
    const { namespace, component, endpoint } = this.#endpoint
    await this.#discovery.put('v1/mdc', this.#key(suffix), {
      type: 'Model', namespace, component, endpoint, instance_id: this.#discovery.instanceId, card_json: card, ...(suffix === '' ? {} : { model_suffix: suffix }),
    })
    this.#cards.set(suffix, card)
  }

  #key(suffix: string): string {
    return instanceKey(this.#endpoint, this.#discovery.instanceId, suffix === '' ? undefined : suffix)
  }
}
