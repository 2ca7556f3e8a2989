/** Goal: text passes as early as it is certain, and what is held back is bounded. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hermes } from './json-formats.ts'
import { outputParserMaker, reasoningParserNames, toolParserNames, unknownParsers } from './create-output-parser.ts'
import type { ParseRequest } from './output-parser.ts'
import { blockLengthMax, ToolScanner } from './tool-scanner.ts'

const request: ParseRequest = { tools: [{ name: 'f', parameters: {} }], toolChoice: 'auto', singleCall: false, guided: false, prompt: '', templateArguments: {} }

test('text is held no longer than it may become a marker', () => {
  const scanner = new ToolScanner(hermes, [])
  const given = ['Hello', ' <', 'b>', ' <tool', '_x', ' {"ans', 'wer": 1}', ' {"na', 'tive": 1}'].map((piece) => scanner.push(piece).content)
  assert.deepEqual(given, ['Hello', ' ', '<b>', ' ', '<tool_x', ' {"ans', 'wer": 1}', ' ', '{"native": 1}'])
})

test('a call is given with the piece that ends it', () => {
  const scanner = new ToolScanner(hermes, [])
  assert.deepEqual(scanner.push('<tool_call>{"name": "f", "arguments": {}}</tool_call').calls, [])
  assert.deepEqual(scanner.push('>').calls, [{ name: 'f', arguments: '{}' }])
})

test('a block that does not end is content once it is too long', () => {
  const scanner = new ToolScanner(hermes, [])
  const piece = 'x'.repeat(blockLengthMax / 4)
  let content = scanner.push('<tool_call>').content
  for (let i = 0; i < 3; i += 1) content += scanner.push(piece).content
  assert.equal(content, '')
  content += scanner.push(piece).content
  assert.equal(content.length, '<tool_call>'.length + blockLengthMax)
})

test('a long call by characters takes no more than a look at each', () => {
  const scanner = new ToolScanner(hermes, [])
  const text = `<tool_call>{"name": "f", "arguments": {"x": "${'y'.repeat(20_000)}"}}</tool_call>`
  // Of this process alone, however busy the machine is.
  const before = process.cpuUsage()
  const calls = [...text].flatMap((char) => scanner.push(char).calls)
  assert.equal(calls.length, 1)
  const { user, system } = process.cpuUsage(before)
  assert.ok(user + system < 2_000_000, `${(user + system) / 1e6} s`)
})

test('no parser where nothing is to be read', () => {
  assert.equal(outputParserMaker({ toolCall: null, reasoning: null }, request), undefined)
  assert.equal(outputParserMaker({ toolCall: 'hermes', reasoning: null }, { ...request, tools: [] }), undefined)
  assert.equal(outputParserMaker({ toolCall: 'hermes', reasoning: null }, { ...request, toolChoice: 'none' }), undefined)
  assert.equal(outputParserMaker({ toolCall: 'unheard_of', reasoning: 'unheard_of' }, request), undefined)
})

test('unknown names are named', () => {
  assert.deepEqual(unknownParsers({ toolCall: 'hermes', reasoning: 'qwen3' }), [])
  assert.deepEqual(unknownParsers({ toolCall: 'unheard_of', reasoning: 'nobody' }), ['tool_call_parser "unheard_of"', 'reasoning_parser "nobody"'])
  assert.ok(toolParserNames.length > 20 && reasoningParserNames.length > 25)
})
