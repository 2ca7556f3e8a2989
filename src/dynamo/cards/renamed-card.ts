/** A worker's card under another name and process: how a router offers its workers' model to a frontend as its own. */
import type { EndpointId, JsonObject } from '../../ports.ts'
import { isObject } from '../wire/json.ts'
import { type ModelCard, slugOf } from './model-card.ts'

export interface CardOwner {
  /** Model name that clients ask for. */
  readonly name: string
  /** The process that publishes it: its `generate` endpoint and instance id, equal to those of its endpoint record. */
  readonly endpoint: EndpointId
  readonly instanceId: bigint
  /** It runs both stages itself: to its callers it is an aggregated worker, whatever its own workers need. */
  readonly runsBothStages?: boolean
}

/**
 * The `v1/mdc` record. The new owner answers for all workers behind it, so it has one rank, publishes no KV events and offers no
 * recovery; aliases stay with the workers.
 */
export function renamedCard(card: ModelCard, owner: CardOwner): JsonObject {
  const { aliases: _aliases, lora: _lora, ...raw } = card.raw
  const { kv_state_endpoint: _endpoint, kv_event_source_mode: _mode, stable_routing_id: _stable, ...runtime } = isObject(raw['runtime_config']) ? (raw['runtime_config'] as JsonObject) : {}
  return {
    type: 'Model',
    namespace: owner.endpoint.namespace,
    component: owner.endpoint.component,
    endpoint: owner.endpoint.endpoint,
    instance_id: owner.instanceId,
    card_json: {
      ...raw,
      // Without it, frontends of 1.1 look for the model's files under the name on the card.
      source_path: typeof raw['source_path'] === 'string' ? raw['source_path'] : card.displayName,
      display_name: owner.name,
      slug: slugOf(owner.name),
      ...(owner.runsBothStages === true ? { worker_type: 'aggregated', needs: [] } : {}),
      runtime_config: {
        ...runtime,
        data_parallel_start_rank: 0,
        data_parallel_size: 1,
        enable_local_indexer: false,
        kv_event_publishing_enabled: false,
      },
    },
  }
}
