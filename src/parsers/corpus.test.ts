/** Goal: text is read as Dynamo reads it, wherever it is cut. Method: the recorded corpus, whole, by characters and cut at random. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { fixturePath } from '../../test/repo-root.ts'
import { needsSpecialTokens, outputParserMaker } from './create-output-parser.ts'
import { nothingParsed, type OutputParser, type ToolCall, type ToolChoice, type ToolDefinition } from './output-parser.ts'

interface Answer {
  readonly content: string | null
  readonly reasoning: string | null
  readonly calls: readonly ToolCall[]
  readonly finish: string
}

interface Case {
  readonly name: string
  readonly tool: string | null
  readonly reasoning: string | null
  readonly text: string
  /** The text without the special tokens of the recorded model's tokenizer, where the text held some. */
  readonly skipped?: string
  readonly finish?: string
  readonly tools?: boolean
  readonly messages?: unknown
  readonly body?: { readonly tool_choice?: unknown; readonly parallel_tool_calls?: boolean; readonly skip_special_tokens?: boolean; readonly response_format?: unknown; readonly reasoning_effort?: string; readonly chat_template_kwargs?: Readonly<Record<string, unknown>> }
  readonly answers: readonly (Answer & { readonly by: readonly string[] })[]
}

interface Family {
  readonly family: string
  readonly tools: readonly { readonly function: { readonly name: string; readonly parameters?: unknown } }[]
  readonly cases: readonly Case[]
}

const families: readonly Family[] = readdirSync(fixturePath('parsers')).sort().map((file) => JSON.parse(readFileSync(fixturePath('parsers', file), 'utf8')) as Family)

function toolChoice(given: unknown): ToolChoice {
  if (given === undefined) return 'auto'
  return typeof given === 'string' ? (given as ToolChoice) : { name: (given as { function: { name: string } }).function.name }
}

function makerOf(family: Family, { tool, reasoning, tools, body = {} }: Case): (() => OutputParser) | undefined {
  const definitions: ToolDefinition[] = tools === false ? [] : family.tools.map(({ function: { name, parameters } }) => ({ name, parameters: parameters ?? { type: 'object' } }))
  const { chat_template_kwargs: template = {}, reasoning_effort: effort } = body
  return outputParserMaker({ toolCall: tool, reasoning }, {
    tools: definitions, toolChoice: toolChoice(body.tool_choice), singleCall: body.parallel_tool_calls === false, guided: body.response_format !== undefined,
    prompt: `[user]hello[assistant]${String(template['tail'] ?? '')}`, templateArguments: { ...(effort === undefined ? {} : { reasoning_effort: effort }), ...template },
  })
}

function answer(maker: (() => OutputParser) | undefined, pieces: readonly string[], finish: string): Answer {
  const parser = maker?.()
  const calls: ToolCall[] = []
  let content = ''
  let reasoning = ''
  let truncated = false
  for (const piece of [...pieces, null]) {
    const delta = parser === undefined ? { ...nothingParsed, content: piece ?? '' } : piece === null ? parser.end() : parser.push(piece)
    content += delta.content
    reasoning += delta.reasoning
    for (const { continues, ...call } of delta.toolCalls) {
      const before = continues === true ? calls.pop() : undefined
      calls.push(before === undefined ? call : { ...before, arguments: before.arguments + call.arguments })
    }
    truncated ||= delta.truncated === true
  }
  const ending = finish === 'stop' && calls.length > 0 ? 'tool_calls' : finish === 'stop' && truncated ? 'length' : finish
  return { content: content === '' ? null : content, reasoning: reasoning === '' ? null : reasoning, calls, finish: ending }
}

/** Ids that are numbered by the original where ours are unique. */
const plainCall = ({ id, ...call }: ToolCall): ToolCall => (id === undefined || /^call-\d+$/.test(id) ? call : { ...call, id })
const plain = ({ content, reasoning, calls, finish }: Answer): Answer => ({ content: content === '' ? null : content, reasoning: reasoning === '' ? null : reasoning, calls: calls.map(plainCall), finish })
const same = (left: Answer, right: Answer): boolean => JSON.stringify(sorted(left)) === JSON.stringify(sorted(right))
const sorted = (value: Answer): unknown => ({ ...value, calls: value.calls.map((call) => Object.fromEntries(Object.entries(call).sort())) })

/** Special tokens that are not kept never reach the parser. */
function textOf({ text, skipped, body, tool, reasoning }: Case): string {
  if (skipped === undefined) return text
  const skips = body?.skip_special_tokens ?? !needsSpecialTokens({ toolCall: tool, reasoning })
  return skips ? skipped : text
}

/** What is read otherwise, on purpose; `docs/compatibility.md` tells why. */
const differences = new Map((JSON.parse(readFileSync(fixturePath('parser-differences.json'), 'utf8')) as readonly { readonly cases: Readonly<Record<string, Answer>> }[]).flatMap(({ cases }) => Object.entries(cases)))

for (const family of families) {
  test(`${family.family}: as recorded`, () => {
    const wrong: string[] = []
    for (const each of family.cases) {
      const ours = answer(makerOf(family, each), [textOf(each)], each.finish ?? 'stop')
      const known = differences.get(`${family.family}/${each.name}`)
      const matches = each.answers.some((recorded) => same(plain(recorded), ours))
      if (known === undefined ? matches : !matches && same(known, ours)) continue
      wrong.push(`${each.name}: ${JSON.stringify(textOf(each))}\n     ours ${JSON.stringify(ours)}\n ${each.answers.map((recorded) => `    theirs ${recorded.by.join()} ${JSON.stringify(plain(recorded))}`).join('\n ')}`)
    }
    assert.deepEqual(wrong, [])
  })
}

/** What a piece adds is joined: the same however the text was cut. */
const joined = (maker: (() => OutputParser) | undefined, pieces: readonly string[]): Answer => answer(maker, pieces, 'stop')

test('the same wherever the text is cut', () => {
  const wrong: string[] = []
  for (const family of families) {
    for (const [at, each] of family.cases.entries()) {
      const maker = makerOf(family, each)
      const text = textOf(each)
      const whole = joined(maker, [text])
      const random = at % 3 === 0 ? fc.sample(fc.array(fc.integer({ min: 0, max: text.length }), { maxLength: 12 }), { numRuns: 4, seed: at }) : []
      const cuts = [[...text], ...random.map((places) => pieces(text, places)), text.split(/(?<=[<>{}[\]"\n ])/)]
      if (cuts.some((cut) => !same(joined(maker, cut), whole))) wrong.push(`${family.family}/${each.name}`)
    }
  }
  assert.deepEqual(wrong, [])
})

test('no text is lost: what is neither call nor thought is content', () => {
  fc.assert(fc.property(fc.constantFrom('hermes', 'mistral', 'llama3_json', 'qwen3_coder', 'pythonic', 'deepseek_v3', 'kimi_k2', 'gemma4'), fc.array(fc.constantFrom('a', ' ', '\n', '<', '<to', '[', '[1', '{', '{"a"', '}', '"', '[T', '<|', 'é', '🙂'), { maxLength: 30 }), (tool, parts) => {
    const maker = outputParserMaker({ toolCall: tool, reasoning: null }, { tools: [{ name: 'f', parameters: {} }], toolChoice: 'auto', singleCall: false, guided: false, prompt: '', templateArguments: {} })
    const read = joined(maker, parts)
    assert.deepEqual([read.content ?? '', read.calls], [parts.join(''), []])
  }))
})

function pieces(text: string, places: readonly number[]): string[] {
  const cuts = [0, ...[...places].sort((a, b) => a - b), text.length]
  return cuts.slice(1).map((end, index) => text.slice(cuts[index] as number, end))
}
