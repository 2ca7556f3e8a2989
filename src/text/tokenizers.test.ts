/** Tokens against Python's tokenizers: ids and texts of three families, with both engines. See the generator named in the headers. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fixturePath } from '../../test/repo-root.ts'
import type { Log } from '../ports.ts'
import { Detokenizer } from './detokenizer.ts'
import { loadTextModel } from './load-text-model.ts'
import type { ModelFileSource } from './model-files.ts'
import { TextError } from './text-error.ts'
import type { TextModel } from './text-model.ts'
import { readTokenizerFile } from './tokenizer-file.ts'

interface TokensFile {
  readonly vocabulary_size: number
  readonly texts: readonly { readonly text: string; readonly ids: number[]; readonly ids_with_special?: number[]; readonly decoded: string; readonly decoded_skipping?: string }[]
  readonly decodes: readonly { readonly ids: number[]; readonly decoded: string; readonly decoded_skipping: string }[]
  readonly single: readonly string[]
}

const FAMILIES = ['byte-level', 'llama', 'sentencepiece'] as const
const ENGINES = ['native', 'pure'] as const

const golden = (family: string): TokensFile => JSON.parse(readFileSync(fixturePath('text', `tokens-${family}.json`), 'utf8')) as TokensFile

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} }

const source = (family: string, more: { readonly [name: string]: unknown } = {}): ModelFileSource => ({
  readFile(name) {
    if (name === 'tokenizer.json') return Promise.resolve(readFileSync(fixturePath('text', `tokenizer-${family}.json`)))
    const value = more[name]
    return Promise.resolve(value === undefined ? null : new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value)))
  },
})

async function withModel(family: string, engine: 'native' | 'pure', use: (model: TextModel) => Promise<void>): Promise<void> {
  const model = await loadTextModel(source(family), { log: silent, engine })
  try {
    await use(model)
  } finally {
    await model.close()
  }
}

/** The platform may have no native build: then there is nothing to compare. */
async function nativeIsMissing(): Promise<boolean> {
  try {
    await withModel('byte-level', 'native', () => Promise.resolve())
    return false
  } catch (cause) {
    if (cause instanceof TextError) return true
    throw cause
  }
}

for (const family of FAMILIES) {
  for (const engine of ENGINES) {
    test(`${family}, ${engine}: ids equal those of the original`, async (t) => {
      if (engine === 'native' && (await nativeIsMissing())) return t.skip('the optional package tokenizers does not load here')
      await withModel(family, engine, async (model) => {
        const file = golden(family)
        for (const entry of file.texts) {
          assert.deepEqual([...(await model.encode(entry.text, { addSpecialTokens: false }))], entry.ids, entry.text)
          assert.deepEqual([...(await model.encode(entry.text, { addSpecialTokens: true }))], entry.ids_with_special ?? entry.ids, entry.text)
        }
        assert.ok(file.texts.length > 250)
        assert.equal(model.vocabularySize, file.vocabulary_size)
      })
    })

    test(`${family}, ${engine}: a long prompt in pieces has the ids of the whole, also when the pieces are remembered`, async (t) => {
      if (engine === 'native' && (await nativeIsMissing())) return t.skip('the optional package tokenizers does not load here')
      await withModel(family, engine, async (model) => {
        const file = golden(family)
        const marks = ['<|eot_id|>', '<|end|>', '</s>', '[INST]', '<|wide|>', '  ']
        const long = file.texts.map((entry, i) => entry.text + (marks[i % marks.length] as string)).join('')
        const direct = await loadTextModel(source(family), { log: silent, engine, segmentTextLengthMin: Infinity })
        const whole = [...(await direct.encode(long, { addSpecialTokens: true }))]
        await direct.close()
        assert.deepEqual([...(await model.encode(long, { addSpecialTokens: true }))], whole)
        const { segmentMisses } = model.counters()
        assert.ok(segmentMisses > 3)
        assert.deepEqual([...(await model.encode(long, { addSpecialTokens: true }))], whole)
        assert.equal(model.counters().segmentMisses, segmentMisses)
        assert.ok(model.counters().segmentHits >= segmentMisses)
      })
    })
  }
}

function pieces(family: string): ConstructorParameters<typeof Detokenizer> {
  const file = readTokenizerFile(readFileSync(fixturePath('text', `tokenizer-${family}.json`)))
  return [file.tokens, file.addedTokens, file.decoder]
}

for (const family of FAMILIES) {
  test(`${family}: decoded texts equal those of the original`, () => {
    const detokenizer = new Detokenizer(...pieces(family))
    const file = golden(family)
    for (const entry of [...file.texts, ...file.decodes]) {
      if (!isSame(family, entry.decoded)) continue
      assert.equal(detokenizer.decode(entry.ids, { skipSpecialTokens: false }), entry.decoded, JSON.stringify(entry.ids))
      assert.equal(detokenizer.decode(entry.ids, { skipSpecialTokens: true }), entry.decoded_skipping ?? entry.decoded, JSON.stringify(entry.ids))
    }
    for (const [id, text] of file.single.entries()) {
      assert.equal(detokenizer.decode([id], { skipSpecialTokens: false }), text, `id ${id}`)
      // Alone, SentencePiece drops the blank that begins a word; in the middle of a text it stays.
      const own = detokenizer.tokenText(id)
      assert.ok(own === text || (family === 'sentencepiece' && own === ` ${text}`), `id ${id}: ${own}`)
    }
  })
}

/** Of a run of byte tokens that is malformed anywhere the original replaces every byte, which no stream can know in advance. */
const isSame = (family: string, decoded: string): boolean => family !== 'sentencepiece' || !decoded.includes('\ufffd')

test('files of a model give ids of the end, context length and special tokens', async () => {
  const files = {
    'tokenizer_config.json': {
      bos_token: { content: '<|begin|>' },
      eos_token: '<|end|>',
      chat_template: [
        { name: 'default', template: '{{ bos_token }}{{ messages[0].content }}{{ eos_token }}' },
        { name: 'tool_use', template: 'tools' },
      ],
    },
    'config.json': { max_position_embeddings: 4096, eos_token_id: 1 },
    'generation_config.json': { eos_token_id: [3, 1] },
  }
  const model = await loadTextModel(source('byte-level', files), { log: silent, engine: 'pure' })
  assert.deepEqual(model.eosTokenIds, [3, 1])
  assert.equal(model.contextLength, 4096)
  assert.equal(model.renderChat({ messages: [{ role: 'user', content: 'x' }], addGenerationPrompt: true }), '<|begin|>x<|end|>')
  assert.equal(model.renderChat({ messages: [], tools: [{}], addGenerationPrompt: true }), 'tools')
  await model.close()
  const bare = await loadTextModel(source('byte-level', { 'tokenizer_config.json': { eos_token: '<|end|>', model_max_length: 1e30 }, 'chat_template.jinja': 'file' }), { log: silent, engine: 'pure' })
  assert.deepEqual(bare.eosTokenIds, [1])
  assert.equal(bare.contextLength, null)
  assert.equal(bare.renderChat({ messages: [], addGenerationPrompt: true }), 'file')
  await bare.close()
})

test('files that cannot be used say which and why', async () => {
  const load = (more: { readonly [name: string]: unknown }, readTokenizer = true): Promise<TextModel> =>
    loadTextModel(readTokenizer ? source('byte-level', more) : { readFile: () => Promise.resolve(null) }, { log: silent, engine: 'pure' })
  await assert.rejects(load({}, false), /no tokenizer\.json/)
  await assert.rejects(load({ 'config.json': '{' }), /config\.json is not valid JSON/)
  await assert.rejects(load({ 'chat_template.jinja': '{% do x %}' }), /\{% do %\}/)
  const model = await load({})
  assert.equal(model.hasChatTemplate, false)
  assert.throws(() => model.renderChat({ messages: [], addGenerationPrompt: true }), /no chat template/)
  await model.close()
})

test('long texts are tokenized in a thread, an abort and the bounds are kept', async () => {
  const model = await loadTextModel(source('sentencepiece'), { log: silent, engine: 'pure', textLengthMax: 20_000, encodesMax: 2 })
  const long = 'blocks move between them '.repeat(400)
  let turns = 0
  const timer = setInterval(() => turns++, 0)
  const ids = await model.encode(long, { addSpecialTokens: true })
  clearInterval(timer)
  assert.ok(ids.length > 1_000)
  assert.ok(turns > 0, 'the event loop went on')
  await assert.rejects(model.encode('x'.repeat(20_001), { addSpecialTokens: true }), /limit is 20000/)
  const both = [model.encode(`${long}a`, { addSpecialTokens: true }), model.encode(`${long}b`, { addSpecialTokens: true })]
  await assert.rejects(model.encode('x', { addSpecialTokens: true }), /being tokenized/)
  await Promise.all(both)
  assert.equal(model.counters().refused, 2)
  const aborted = new AbortController()
  const pending = model.encode(`${long}.`, { addSpecialTokens: true, signal: aborted.signal })
  aborted.abort(new Error('client left'))
  await assert.rejects(pending, /client left/)
  await model.close()
})

test('bytes of tokens are those of the text they make', async () => {
  for (const family of FAMILIES) {
    await withModel(family, 'pure', async (model) => {
      const text = 'a世😀é'
      const ids = await model.encode(text, { addSpecialTokens: false })
      const bytes = Buffer.concat([...ids].map((id) => model.tokenBytes(id)))
      assert.equal(bytes.toString().replace(/^ /, ''), text)
      assert.equal(model.tokenBytes(1_000_000).length, 0)
      assert.equal(model.tokenText(1_000_000), '')
    })
  }
})
