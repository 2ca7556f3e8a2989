/** Goal: the channels of gpt-oss are told apart, wherever the text is cut. Method: messages as its format has them, whole and by characters. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HarmonyParser } from './harmony.ts'
import type { ToolCall } from './output-parser.ts'

const thought = '<|channel|>analysis<|message|>Need the weather. 東京<|end|>'
const call = (name: string, given: string): string => `<|start|>assistant<|channel|>commentary to=functions.${name} <|constrain|>json<|message|>${given}<|call|>`
const final = '<|start|>assistant<|channel|>final<|message|>It is sunny.<|return|>'

interface Read {
  readonly content: string
  readonly reasoning: string
  readonly calls: readonly ToolCall[]
}

const all = { reasoning: true, calls: true, singleCall: false }

function read(text: string, options = all): Read {
  const reads = [[text], [...text]].map((pieces) => {
    const parser = new HarmonyParser(options)
    const deltas = [...pieces.map((piece) => parser.push(piece)), parser.end()]
    return { content: deltas.map(({ content }) => content).join(''), reasoning: deltas.map(({ reasoning }) => reasoning).join(''), calls: deltas.flatMap(({ toolCalls }) => toolCalls) }
  })
  assert.deepEqual(reads[1], reads[0])
  return reads[0] as Read
}

const weather = { name: 'get_weather', arguments: '{"city":"São \\"Paulo\\""}' }
const given = '{"city": "São \\"Paulo\\""}'

test('thoughts, calls and answers', () => {
  assert.deepEqual(read(thought + final), { content: 'It is sunny.', reasoning: 'Need the weather. 東京', calls: [] })
  assert.deepEqual(read(thought + call('get_weather', given)), { content: '', reasoning: 'Need the weather. 東京', calls: [weather] })
  assert.deepEqual(read(thought + call('get_weather', given) + call('ping', '{}')).calls, [weather, { name: 'ping', arguments: '{}' }])
  assert.deepEqual(read(`<|channel|>final<|message|>Hello`), { content: 'Hello', reasoning: '', calls: [] })
  assert.deepEqual(read('No channels at all.'), { content: 'No channels at all.', reasoning: '', calls: [] })
})

test('a remark on a call is content; a call needs its end', () => {
  assert.deepEqual(read(`${thought}<|start|>assistant<|channel|>commentary<|message|>I will look.<|end|>${call('get_weather', given)}`), { content: 'I will look.', reasoning: 'Need the weather. 東京', calls: [weather] })
  assert.deepEqual(read(`<|channel|>commentary to=functions.get_weather<|message|>${given}`).calls, [])
  assert.deepEqual(read(`<|start|>assistant to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>${given}<|call|>`, { ...all, reasoning: false }).calls, [weather], 'the recipient may stand in the role')
})

test('what is not asked for is left out or left as it is', () => {
  assert.deepEqual(read(thought + final, { ...all, reasoning: false }), { content: 'It is sunny.', reasoning: '', calls: [] })
  const raw = call('get_weather', given)
  assert.deepEqual(read(thought + raw, { ...all, calls: false }), { content: raw.replace('<|start|>assistant', ''), reasoning: 'Need the weather. 東京', calls: [] })
  assert.deepEqual(read(call('get_weather', '{oops}')).calls, [{ name: 'get_weather', arguments: '{oops}' }], 'arguments that are no JSON reach the client as they are')
  assert.deepEqual(read(call('get_weather', given) + call('ping', '{}'), { ...all, singleCall: true }).calls, [weather])
})
