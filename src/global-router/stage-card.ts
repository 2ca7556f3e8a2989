/** The model card of one stage: a worker's or a model folder's, with the role of the stage and without what is one worker's own. */
import type { EndpointId, Json, JsonObject } from '../ports.ts'
import { slugOf } from '../dynamo/cards/model-card.ts'
import type { Stage } from './stage.ts'

/** Members of `runtime_config` that stay true for all workers behind the pools. */
const sharedSettings = [
  'tool_call_parser', 'reasoning_parser', 'tool_call_arguments_format', 'structural_tag_mode', 'structural_tag_scope', 'structural_tag_schema',
  'exclude_tools_when_tool_choice_none', 'context_length',
] as const

/** The `v1/mdc` record. `card`: a `card_json`. */
export function stageCard(card: JsonObject, stage: Stage, modelName: string, endpoint: EndpointId, instanceId: bigint): JsonObject {
  const { aliases: _aliases, lora: _lora, router_config: _config, user_data: _data, ...rest } = card
  const runtime = (rest['runtime_config'] ?? {}) as JsonObject
  const kept: Record<string, Json> = {}
  for (const name of sharedSettings) if (runtime[name] !== undefined) kept[name] = runtime[name] as Json
  return {
    type: 'Model', ...endpoint, instance_id: instanceId,
    card_json: {
      ...rest, display_name: modelName, slug: slugOf(modelName), model_type: stage.modelType, model_input: 'Tokens', worker_type: stage.workerType, needs: stage.needs,
      runtime_config: {
        ...kept, total_kv_blocks: null, max_num_seqs: null, max_num_batched_tokens: null, data_parallel_start_rank: 0, data_parallel_size: 1,
        enable_local_indexer: false, kv_event_publishing_enabled: false, enable_eagle: false,
      },
    },
  }
}
