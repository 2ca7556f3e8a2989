/** Chat templates against Python's jinja2: every case of the golden files, byte by byte. See the generator named in their headers. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { parse } from 'lossless-json'
import { repoRoot } from '../../test/repo-root.ts'
import { ChatTemplate } from './chat-template.ts'
import { JinjaTemplate } from './jinja/template.ts'
import { TemplateError } from './template-error.ts'

process.env['TZ'] = 'UTC'

interface Outcome {
  readonly output?: string
  readonly raised?: string
  readonly error?: string
  readonly syntax_error?: string
}

interface ProbeFile {
  readonly now: string
  readonly variables: { readonly [name: string]: unknown }
  readonly cases: readonly (Outcome & { readonly source: string })[]
}

interface TemplateFile {
  readonly now: string
  readonly templates: { readonly [name: string]: string }
  readonly conversations: { readonly [name: string]: readonly { readonly [key: string]: unknown }[] }
  readonly settings: readonly { readonly [name: string]: unknown }[]
  readonly special_tokens: { readonly [name: string]: string }
  readonly cases: readonly (Outcome & { readonly template: string; readonly conversation: string; readonly setting: { valueOf(): number } })[]
  readonly continuations: readonly (Outcome & { readonly template: string; readonly messages: readonly { readonly role: string; readonly content: string }[] })[]
}

/** Numbers keep their form, so that 1.0 is not 1. */
const golden = <File>(name: string): File => parse(readFileSync(join(repoRoot, 'fixtures/text', name), 'utf8')) as File

function outcomeOf(render: () => string): Outcome {
  try {
    return { output: render() }
  } catch (cause) {
    if (!(cause instanceof TemplateError)) throw cause
    return cause.kind === 'raised' ? { raised: cause.message } : { error: cause.message }
  }
}

/** Failures need not be told in Python's words; what `raise_exception` says must be the same. */
function assertSame(actual: Outcome, expected: Outcome, what: string): void {
  if (expected.output !== undefined) assert.equal(actual.output, expected.output, `${what}: ${actual.error ?? actual.raised ?? ''}`)
  else if (expected.raised !== undefined) assert.equal(actual.raised, expected.raised, what)
  else assert.notEqual(actual.error, undefined, `${what} should fail with ${expected.error ?? expected.syntax_error ?? ''}`)
}

for (const name of ['template-probes.json', 'template-random.json']) test(`${name}: small templates render as Python renders them`, () => {
  const file = golden<ProbeFile>(name)
  const nowMs = (): number => Date.parse(`${file.now}Z`)
  const failures: string[] = []
  for (const probe of file.cases) {
    try {
      assertSame(outcomeOf(() => new JinjaTemplate(probe.source, { nowMs }).render(file.variables)), probe, probe.source)
    } catch (cause) {
      failures.push(cause instanceof Error ? cause.message : String(cause))
    }
  }
  assert.deepEqual(failures, [])
  assert.ok(file.cases.length > 300)
})

test('templates of the public families render as Python renders them', () => {
  const file = golden<TemplateFile>('templates.json')
  const nowMs = (): number => Date.parse(`${file.now}Z`)
  const templates = new Map(Object.entries(file.templates).map(([name, source]) => [name, new JinjaTemplate(source, { nowMs })]))
  for (const entry of file.cases) {
    const setting = file.settings[entry.setting.valueOf()]
    const variables = { ...file.special_tokens, messages: file.conversations[entry.conversation], tools: null, documents: null, ...setting }
    const template = templates.get(entry.template) as JinjaTemplate
    assertSame(outcomeOf(() => template.render(variables)), entry, `${entry.template} ${entry.conversation} ${String(entry.setting)}`)
  }
  assert.ok(file.cases.length > 500)
})

test('a final message is continued as transformers continues it', () => {
  const file = golden<TemplateFile>('templates.json')
  const nowMs = (): number => Date.parse(`${file.now}Z`)
  for (const entry of file.continuations) {
    const template = new ChatTemplate(new Map([['default', file.templates[entry.template] as string]]), { specialTokens: file.special_tokens, nowMs })
    const input = { messages: entry.messages, addGenerationPrompt: false, continueFinalMessage: true, variables: { date_string: '1 Jan 2030' } }
    assertSame(outcomeOf(() => template.render(input)), entry, `${entry.template} ${JSON.stringify(entry.messages.at(-1)?.content)}`)
  }
  assert.ok(file.continuations.length >= 30)
})

/** What is not rendered exactly, and what the refusal names. */
const REFUSED: readonly (readonly [string, string])[] = [
  ['{{ 1 < 2 < 3 }}', 'chained comparison'],
  ['{% with a = 1 %}{{ a }}{% endwith %}', '{% with %}'],
  ['{% do l.append(1) %}', '{% do %}'],
  ["{% include 'x' %}", '{% include %}'],
  ['{% for x in l recursive %}{% endfor %}', 'recursive'],
  ['{{ lipsum() }}', 'lipsum()'],
  ['{{ cycler(1, 2) }}', 'cycler()'],
  ["{% if false %}{{ s.encode('utf-8') }}{% endif %}", '.encode()'],
  ['{{ "x".nosuch() }}', '.nosuch()'],
  ['{{ s | e }}', 'filter "e"'],
  ["{{ (s | safe) + '<' }}", 'filter "safe"'],
  ['{{ s | urlize }}', 'filter "urlize"'],
  ["{{ l | map('nosuch') | list }}", 'filter "nosuch"'],
  ["{{ l | select('nosuch') | list }}", 'test "nosuch"'],
  ["{{ l | selectattr('a', 'nosuch') | list }}", 'test "nosuch"'],
  ['{{ s is nosuch }}', 'test "nosuch"'],
  ['{{ s is nosuch(1) }}', 'test "nosuch"'],
  ["{{ strftime_now('%c') }}", 'time directive "%c"'],
  ['{{ "\\N{DASH}" }}', 'escape'],
  ['{{ a.b = 1 }}', 'parser'],
  ['{% if x %}', 'parser'],
  ['{{ x', 'tag that does not end'],
  ['{# x', 'comment that does not end'],
  ['{{ wp__float("1") }}', 'wp__float'],
]

test('a template that is not rendered exactly is refused when loaded, by the construct', () => {
  for (const [source, construct] of REFUSED) {
    const load = (): ChatTemplate => new ChatTemplate(new Map([['default', source]]), { specialTokens: {}, nowMs: () => 0 })
    assert.throws(load, (error: TemplateError) => error instanceof TemplateError && error.kind === 'unsupported' && error.message.includes(construct), source)
  }
})

const chat = (source: string, more: Iterable<readonly [string, string]> = []): ChatTemplate =>
  new ChatTemplate(new Map([['default', source], ...more]), { specialTokens: { bos_token: '<s>' }, nowMs: () => 0 })

test('text parts become one text, unless the template needs parts', () => {
  const parts = [{ role: 'user', content: [{ type: 'text', text: 'a' }, { type: 'text', text: 'b' }] }]
  const texts = [{ role: 'user', content: 'a' }]
  const plain = chat('{% for m in messages %}{{ m.content }}{% endfor %}')
  assert.equal(plain.render({ messages: parts, addGenerationPrompt: false }), 'a\nb')
  const needy = chat("{% for m in messages %}{% for p in m.content %}{{ '<' + p.text + '>' }}{% endfor %}{% endfor %}")
  assert.equal(needy.render({ messages: parts, addGenerationPrompt: false }), '<a><b>')
  assert.equal(needy.render({ messages: texts, addGenerationPrompt: false }), '<a>')
  const image = { type: 'image_url', image_url: { url: 'https://x.test/1.png' } }
  const text = (value: string): object => ({ type: 'text', text: value })
  const mixed = [{ role: 'user', content: [text('a'), text('b'), image, text('c'), image] }, { role: 'user', content: [image, { type: 'video_url', video_url: {} }] }]
  assert.equal(plain.render({ messages: mixed as never, addGenerationPrompt: false }), 'ab<|image_1|>c<|image_2|><|image_1|><|image_2|>')
  const named = chat("{% for m in messages %}{% for p in m.content %}{{ p.text if p.type == 'text' else p.type }},{% endfor %}{% endfor %}")
  assert.equal(named.render({ messages: mixed as never, addGenerationPrompt: false }), 'a,b,image,c,image,image,video,')
})

test('reasoning of earlier answers stands before the content, unless the template shows it', () => {
  const messages = [{ role: 'assistant', content: 'a', reasoning_content: 'r' }, { role: 'assistant', reasoning_content: ['p', 'q'] }, { role: 'user', content: 'u', reasoning_content: 'r' }]
  const plain = chat('{% for m in messages %}{{ m.content }}{{ m.other }};{% endfor %}')
  assert.equal(plain.render({ messages, addGenerationPrompt: false }), '<think>r</think>a;<think>p</think><think>q</think>;u;')
  const showing = chat('{% for m in messages %}{{ m.reasoning_content }}|{{ m.content }};{% endfor %}')
  assert.equal(showing.render({ messages: messages.slice(0, 2), addGenerationPrompt: false }), 'r|a;p\nq|;')
})

test('tools choose the template of their own name, and get parameters that templates count on', () => {
  const template = chat('default {{ bos_token }}', [['tool_use', '{{ tools[0].function.parameters | tojson }} {{ enable }}']])
  const tools = [{ type: 'function', function: { name: 'f', parameters: {} } }]
  assert.equal(template.render({ messages: [], tools, addGenerationPrompt: false, variables: { enable: true } }), '{"type": "object", "properties": {}} True')
  assert.equal(template.render({ messages: [], tools: [], addGenerationPrompt: false }), 'default <s>')
})

test('an endless template fails in bounded time', () => {
  const endless = new JinjaTemplate('{% for a in range(99999) %}{% for b in range(99999) %}{% if a %}{% endif %}{% endfor %}{% endfor %}', { nowMs: () => 0 })
  assert.throws(() => endless.render({}), /steps/)
  const recursive = new JinjaTemplate('{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}', { nowMs: () => 0 })
  assert.throws(() => recursive.render({}), /recursion/)
})
