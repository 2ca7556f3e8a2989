import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ModelCard } from '../dynamo/cards/model-card.ts'
import type { Log, LogFields } from '../ports.ts'
import { parserNames, warnOfParsers } from './parser-names.ts'

const card = (runtime: unknown): ModelCard => ({ raw: { runtime_config: runtime } }) as unknown as ModelCard

test('names of parsers: given, empty, missing', () => {
  assert.deepEqual(parserNames(card({ tool_call_parser: 'hermes', reasoning_parser: null })), { toolCall: 'hermes', reasoning: null })
  assert.deepEqual(parserNames(card({ tool_call_parser: '' })), { toolCall: null, reasoning: null })
  assert.deepEqual(parserNames(card(null)), { toolCall: null, reasoning: null })
})

test('a parser that nobody knows is warned of, by name', () => {
  const warned: [LogFields, string][] = []
  const silent = (): void => {}
  const log: Log = { debug: silent, info: silent, error: silent, warn: (fields, message) => warned.push([fields, message]) }
  warnOfParsers('tiny', card({ tool_call_parser: 'hermes', reasoning_parser: 'qwen3' }), log)
  assert.deepEqual(warned, [])
  warnOfParsers('tiny', card({ tool_call_parser: 'unheard_of' }), log)
  assert.equal(warned.length, 1)
  assert.match(warned[0]?.[1] ?? '', /tiny.*tool_call_parser "unheard_of"/)
})
