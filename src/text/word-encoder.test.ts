/** Goal: ids as of the tokenizer library. Method: random texts of awkward letters through both, for the two cuts that most models use. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { fixturePath } from '../../test/repo-root.ts'
import { createNativeEncoder, createPureEncoder, type Encoder } from './encoder.ts'
import { readTokenizerFile, type TokenizerFile } from './tokenizer-file.ts'
import { createWordEncoder } from './word-encoder.ts'

const llama3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
const bytes = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
const split = { type: 'Sequence', pretokenizers: [{ type: 'Split', pattern: { Regex: llama3 }, behavior: 'Isolated', invert: false }, { ...bytes, use_regex: false }] }

function fileWith(changes: { readonly [field: string]: unknown }, model: { readonly [field: string]: unknown } = {}): TokenizerFile {
  const json = JSON.parse(readFileSync(fixturePath('text', 'tokenizer-byte-level.json'), 'utf8')) as { model: object }
  return readTokenizerFile(new TextEncoder().encode(JSON.stringify({ ...json, normalizer: null, post_processor: null, ...changes, model: { ...json.model, ...model } })))
}

async function libraryOf(file: TokenizerFile): Promise<Encoder> {
  const native = await createNativeEncoder(file)
  return 'engine' in native ? native : await createPureEncoder(file)
}

const pieces = ['a', 'The', 'there', 'ing', ' ', '  ', '\n', '\n\n', '\t', '\r\n', "'s", "'T", "'LL", "'", '1', '12345', 'ü', 'ß', 'дом', '日本', '。', '—', '“', '!', '#{', '}', '_', '-', '.', ',', '\u00a0', '²', 'ª', '½', '😀', 'e\u0301']

for (const [name, changes] of [['GPT-2', { pre_tokenizer: bytes }], ['Llama 3', { pre_tokenizer: split }], ['Qwen', { pre_tokenizer: split, normalizer: { type: 'NFC' } }]] as const) {
  test(`${name}: the ids of the library, or none`, async () => {
    const file = fileWith(changes)
    const library = await libraryOf(file)
    const words = await createWordEncoder(file, library)
    assert.ok(words !== null)
    const marks = file.addedTokens.map(({ content }) => content)
    let own = 0
    await fc.assert(fc.asyncProperty(fc.array(fc.constantFrom(...pieces, ...marks), { maxLength: 16 }), async (parts) => {
      const text = parts.join('')
      const ids = words.encode(text)
      if (ids === null) return
      own += 1
      assert.deepEqual(Array.from(ids), Array.from(await library.encode(text, false)), JSON.stringify(text))
    }), { numRuns: 1000 })
    assert.ok(own > 300, `${own} texts were encoded here`)
    await library.close()
  })
}

test('left to the library: other kinds of tokenizers, strange letters, endless words, long texts', async () => {
  for (const file of [fileWith({ pre_tokenizer: { ...bytes, add_prefix_space: true } }), fileWith({ pre_tokenizer: bytes, normalizer: { type: 'Lowercase' } }), fileWith({ pre_tokenizer: bytes }, { dropout: 0.1 }), fileWith({ pre_tokenizer: { type: 'Whitespace' } })]) {
    assert.equal(await createWordEncoder(file, { engine: 'pure', encode: () => assert.fail('not asked'), close: () => Promise.resolve() }), null)
  }
  const file = fileWith({ pre_tokenizer: bytes })
  const library = await libraryOf(file)
  const words = await createWordEncoder(file, library)
  for (const text of ['\u0085', '\u017f', 'e\u0301', '\ud800', 'x'.repeat(200), 'word '.repeat(10_000)]) assert.equal(words?.encode(text) ?? null, null)
  await library.close()
})

test('a tokenizer that does not agree with the library on the samples is left to it', async () => {
  const file = fileWith({ pre_tokenizer: bytes })
  assert.equal(await createWordEncoder(file, { engine: 'pure', encode: () => Promise.resolve(Uint32Array.of(1, 2, 3)), close: () => Promise.resolve() }), null)
})

test('prompt parts that come again keep their ids, also when others have come in between', async () => {
  const file = fileWith({ pre_tokenizer: bytes })
  const library = await libraryOf(file)
  const words = await createWordEncoder(file, library)
  assert.ok(words !== null)
  const mark = file.addedTokens[0]?.content ?? ''
  const prompt = `You are a helpful assistant; answer in one word, please.${mark}And what is 12345 plus 67890, in the end? Say it twice.`
  const expected = Array.from(await library.encode(prompt, false))
  for (let round = 0; round < 3; round += 1) {
    assert.deepEqual(Array.from(words.encode(prompt) ?? []), expected)
    assert.deepEqual(Array.from(words.encode(prompt) ?? []), expected)
    // More than is remembered.
    for (let other = 0; other < 40; other += 1) words.encode(`${round} ${other} `.repeat(4000))
  }
  await library.close()
})
