/** The model card of a simulated worker: how routers and frontends learn its capacity, ranks and role. */
import { slugOf } from '../../dynamo/cards/model-card.ts'
import type { EndpointId, JsonObject } from '../../ports.ts'
import type { ModelFiles } from '../../worker/model-files.ts'
import type { EngineSettings } from './settings.ts'

export type SimulatedRole = 'aggregated' | 'prefill' | 'decode'

export interface CardParts {
  readonly modelName: string
  readonly role: SimulatedRole
  readonly settings: EngineSettings
  readonly kvEvents: boolean
  /** Null: the card names no files; routers can use the worker, frontends cannot. */
  readonly files: ModelFiles | null
}

/** A prefill worker serves decode workers that a frontend pairs it with, or such that ask for it themselves and look aggregated. */
const needsByRole: Readonly<Record<SimulatedRole, readonly (readonly string[])[]>> = {
  aggregated: [],
  prefill: [['decode'], ['aggregated']],
  decode: [['prefill']],
}

/** The `card_json` of Dynamo 1.6.1. */
export function simulatedCard(parts: CardParts): JsonObject {
  const { modelName, role, settings, kvEvents, files } = parts
  return {
    display_name: modelName,
    slug: slugOf(modelName),
    source_path: files?.folder ?? modelName,
    ...(files?.sections ?? { model_info: null, tokenizer: null, prompt_formatter: null, gen_config: null }),
    architectural_max_context_length: files?.contextLengthMax ?? settings.contextLength,
    context_length: 0,
    kv_cache_block_size: settings.blockSize,
    migration_limit: 0,
    model_type: role === 'prefill' ? 'Prefill' : 'Chat | Completions',
    model_input: 'Tokens',
    worker_type: role,
    needs: needsByRole[role],
    runtime_config: {
      context_length: 0,
      total_kv_blocks: settings.blocks,
      max_num_seqs: settings.maxSequences,
      max_num_batched_tokens: settings.maxBatchedTokens,
      tool_call_parser: null,
      reasoning_parser: null,
      tool_call_arguments_format: 'json_string',
      structural_tag_mode: 'off',
      structural_tag_scope: 'auto',
      structural_tag_schema: 'auto',
      exclude_tools_when_tool_choice_none: true,
      data_parallel_start_rank: settings.dpStart,
      data_parallel_size: settings.dpSize,
      enable_local_indexer: kvEvents,
      kv_event_publishing_enabled: kvEvents,
      runtime_data: {},
      enable_eagle: false,
    },
    media_decoder: null,
    media_fetcher: null,
  }
}

/** The `v1/mdc` record that carries a card. */
export const cardRecord = (endpoint: EndpointId, instanceId: bigint, card: JsonObject): JsonObject => ({
  type: 'Model',
  namespace: endpoint.namespace,
  component: endpoint.component,
  endpoint: endpoint.endpoint,
  instance_id: instanceId,
  card_json: card,
})
