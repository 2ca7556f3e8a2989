/** The parsers of tool calls and reasoning that a card names in its `runtime_config`. */
import { isObject } from '../dynamo/wire/json.ts'
import type { ModelCard } from '../dynamo/cards/model-card.ts'
import { reasoningParserNames, toolParserNames, unknownParsers } from '../parsers/create-output-parser.ts'
import type { ParserNames } from '../parsers/output-parser.ts'
import type { Json, JsonObject, Log } from '../ports.ts'

/** An empty name is none. */
export function parserNames({ raw }: ModelCard): ParserNames {
  const runtime = isObject(raw['runtime_config']) ? (raw['runtime_config'] as JsonObject) : {}
  const name = (value: Json | undefined): string | null => (typeof value === 'string' && value !== '' ? value : null)
  return { toolCall: name(runtime['tool_call_parser']), reasoning: name(runtime['reasoning_parser']) }
}

/** `exclude_tools_when_tool_choice_none: false`. */
export function showsUnusedTools({ raw }: ModelCard): boolean {
  const runtime = raw['runtime_config']
  return isObject(runtime) && (runtime as JsonObject)['exclude_tools_when_tool_choice_none'] === false
}

/** Says so when a card names parsers that nobody here knows: the model is served, its text as it comes. */
export function warnOfParsers(model: string, card: ModelCard, log: Log): void {
  const unknown = unknownParsers(parserNames(card))
  if (unknown.length === 0) return
  log.warn({ model, stage: 'text', reason: unknown.join(', '), tool_call_parsers: toolParserNames.join(' '), reasoning_parsers: reasoningParserNames.join(' ') },
    `the card of ${model} names a parser that is not known: ${unknown.join(', ')}; calls or thoughts stay in the text of its answers`)
}
