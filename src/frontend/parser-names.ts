/** The parsers of tool calls and reasoning that a card names in its `runtime_config`. */
import { isObject } from '../dynamo/wire/json.ts'
import type { ModelCard } from '../dynamo/cards/model-card.ts'
import type { ParserNames } from '../parsers/output-parser.ts'
import type { Json, JsonObject } from '../ports.ts'

/** An empty name is none. */
export function parserNames({ raw }: ModelCard): ParserNames {
  const runtime = isObject(raw['runtime_config']) ? (raw['runtime_config'] as JsonObject) : {}
  const name = (value: Json | undefined): string | null => (typeof value === 'string' && value !== '' ? value : null)
  return { toolCall: name(runtime['tool_call_parser']), reasoning: name(runtime['reasoning_parser']) }
}
