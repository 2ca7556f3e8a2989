/** JSON schemas of the request bodies, as `/openapi.json` shows them: what is checked here; engines take more. */
import type { JsonObject } from '../ports.ts'
import { embeddingInputsMax } from './embeddings.ts'
import { promptsMax } from './completion-request.ts'
import { choicesMax, stopStringsMax } from './parameters.ts'
import { toolsMax } from './tools.ts'

const text = { type: 'string' } as const
const flag = { type: 'boolean' } as const
const count = { type: 'integer', minimum: 1, maximum: 4_294_967_295 } as const
const list = (items: JsonObject, more: JsonObject = {}): JsonObject => ({ type: 'array', items, ...more })
const open = (properties: JsonObject, required: readonly string[] = []): JsonObject => ({ type: 'object', properties, ...(required.length === 0 ? {} : { required }) })
const either = (...choices: readonly JsonObject[]): JsonObject => ({ anyOf: choices })
const tokenIds = list({ type: 'integer', minimum: 0 })
const extension: JsonObject = { $ref: '#/components/schemas/Extension' }

const sampling: JsonObject = {
  temperature: { type: 'number', minimum: 0, maximum: 2 },
  top_p: { type: 'number', exclusiveMinimum: 0, maximum: 1 },
  top_k: { type: 'integer', minimum: -1 },
  min_p: { type: 'number', minimum: 0, maximum: 1 },
  frequency_penalty: { type: 'number', minimum: -2, maximum: 2 },
  presence_penalty: { type: 'number', minimum: -2, maximum: 2 },
  repetition_penalty: { type: 'number', exclusiveMinimum: 0, maximum: 2 },
  seed: { type: 'integer' },
  n: { type: 'integer', minimum: 1, maximum: choicesMax },
  stop: either(text, list(text, { maxItems: stopStringsMax })),
  stop_token_ids: tokenIds,
  min_tokens: { type: 'integer', minimum: 0 },
  ignore_eos: flag,
  guided_json: {}, guided_regex: text, guided_choice: list(text), guided_grammar: text, structural_tag: {},
  response_format: open({ type: { enum: ['text', 'json_object', 'json_schema'] }, json_schema: open({ name: text, schema: { type: 'object' } }) }, ['type']),
  stream: flag,
  stream_options: open({ include_usage: flag, continuous_usage_stats: flag }),
  cache_salt: text,
  nvext: extension,
}

const chatTool = open({ type: { const: 'function' }, function: open({ name: text, description: text, parameters: { type: 'object' } }, ['name']) }, ['type', 'function'])

export const schemas: Readonly<Record<string, JsonObject>> = {
  Extension: {
    ...open({
      annotations: list(text), token_data: tokenIds, cache_salt: text, extra_fields: list(text), max_thinking_tokens: { type: 'integer', minimum: 0 },
      backend_instance_id: { type: 'integer' }, prefill_worker_id: { type: 'integer' }, decode_worker_id: { type: 'integer' }, dp_rank: { type: 'integer' }, prefill_dp_rank: { type: 'integer' },
      agent_hints: open({ priority: { type: 'integer' }, strict_priority: { type: 'integer' }, osl: { type: 'integer' } }),
      routing_constraints: open({ required_taints: list(text), preferred_taints: { type: 'object', additionalProperties: { type: 'number' } } }),
      router: open({ ttft_target: { type: 'number' }, itl_target: { type: 'number' } }),
    }),
    description: "Dynamo's extension. Members that are not known are passed over; the header x-warmpath-warning names them.",
  },
  ChatRequest: open({
    ...sampling, model: text, messages: list(open({ role: { enum: ['developer', 'system', 'user', 'assistant', 'tool', 'function'] }, content: either(text, list({ type: 'object' })) }, ['role']), { minItems: 1 }),
    max_tokens: count, max_completion_tokens: count, logprobs: flag, top_logprobs: { type: 'integer', minimum: 0, maximum: 20 },
    tools: list(chatTool, { maxItems: toolsMax }), tool_choice: either({ enum: ['none', 'auto', 'required'] }, { type: 'object' }),
    reasoning_effort: text, chat_template_kwargs: { type: 'object' }, add_generation_prompt: flag, continue_final_message: flag,
  }, ['model', 'messages']),
  CompletionRequest: open({
    ...sampling, model: text, prompt: either(text, list(text, { maxItems: promptsMax }), tokenIds, list(tokenIds, { maxItems: promptsMax })),
    max_tokens: count, echo: flag, logprobs: { type: 'integer', minimum: 0, maximum: 5 },
  }, ['model', 'prompt']),
  ResponseRequest: open({
    model: text, input: either(text, list({ type: 'object' }, { minItems: 1 })), instructions: text, max_output_tokens: count,
    temperature: sampling['temperature'] as JsonObject, top_p: sampling['top_p'] as JsonObject, stream: flag,
    tools: list(open({ type: { const: 'function' }, name: text, description: text, parameters: { type: 'object' } }, ['type', 'name'])), tool_choice: either({ enum: ['none', 'auto', 'required'] }, { type: 'object' }),
    text: open({ format: open({ type: { enum: ['text', 'json_object', 'json_schema'] } }) }), reasoning: open({ effort: text }), include: list(text), nvext: extension,
  }, ['model', 'input']),
  MessageRequest: open({
    model: text, max_tokens: count, messages: list(open({ role: { enum: ['user', 'assistant'] }, content: either(text, list({ type: 'object' })) }, ['role', 'content']), { minItems: 1 }),
    system: either(text, list({ type: 'object' })), stop_sequences: list(text, { maxItems: stopStringsMax }), stream: flag,
    temperature: sampling['temperature'] as JsonObject, top_p: sampling['top_p'] as JsonObject, top_k: sampling['top_k'] as JsonObject,
    tools: list(open({ name: text, description: text, input_schema: { type: 'object' } }, ['name', 'input_schema'])), tool_choice: open({ type: { enum: ['auto', 'any', 'tool', 'none'] }, name: text }, ['type']),
    thinking: open({ type: { enum: ['enabled', 'adaptive', 'disabled'] } }, ['type']), nvext: extension,
  }, ['model', 'messages']),
  EmbeddingRequest: open({
    model: text, input: either(text, list(text, { minItems: 1, maxItems: embeddingInputsMax }), tokenIds, list(tokenIds, { minItems: 1, maxItems: embeddingInputsMax })),
    encoding_format: { enum: ['float', 'base64'] }, dimensions: { type: 'integer', minimum: 1 }, user: text,
  }, ['model', 'input']),
  BusyThresholds: open({ model: text, active_decode_blocks_threshold: { type: ['number', 'null'] }, active_prefill_tokens_threshold: { type: ['integer', 'null'] }, active_prefill_tokens_threshold_frac: { type: ['number', 'null'] } }, ['model']),
  Error: open({ error: open({ message: text, type: text, param: { type: ['string', 'null'] }, code: { type: ['string', 'null'] } }, ['message', 'type']) }, ['error']),
  AnthropicError: open({ type: { const: 'error' }, error: open({ type: text, message: text }, ['type', 'message']) }, ['type', 'error']),
}
