/** Properties of the streaming detokenizer over all three families: pieces make up the whole, nothing is broken, nothing is late. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { fixturePath } from '../../test/repo-root.ts'
import { Detokenizer } from './detokenizer.ts'
import { createPureTokenizer } from './encoder.ts'
import { readTokenizerFile, type TokenizerFile } from './tokenizer-file.ts'

const FAMILIES = ['byte-level', 'llama', 'sentencepiece'] as const

const load = (family: string): TokenizerFile => readTokenizerFile(readFileSync(fixturePath('text', `tokenizer-${family}.json`)))
const detokenizerOf = (file: TokenizerFile): Detokenizer => new Detokenizer(file.tokens, file.addedTokens, file.decoder)

const isWellFormed = (text: string): boolean => !/\p{Surrogate}/u.test(text)

const TEXT = fc.array(fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom('👩‍👩‍👧', '🇩🇪', '世界', 'e\u0301', ' ', '\n', 'the router ', '<|eot_id|>', '</s>', '한국어')), { maxLength: 12 }).map((parts) => parts.join(''))

for (const family of FAMILIES) {
  const file = load(family)
  const detokenizer = detokenizerOf(file)

  test(`${family}: the pieces of any text make up the text, no piece is broken`, async () => {
    const tokenizer = await createPureTokenizer(file.json)
    fc.assert(
      fc.property(TEXT, (text) => {
        fc.pre(isWellFormed(text) && !text.includes('\ufffd') && text !== '')
        const ids = tokenizer.encode(text, { add_special_tokens: false }).ids
        const stream = detokenizer.stream({ skipSpecialTokens: false })
        const parts = ids.map((id) => stream.push(id))
        const whole = parts.join('') + stream.end()
        assert.equal(whole, detokenizer.decode(ids, { skipSpecialTokens: false }))
        // The others normalize: a composed letter, a blank after a special token.
        if (family === 'byte-level') assert.equal(whole, text)
        for (const part of parts) assert.ok(isWellFormed(part) && !part.includes('\ufffd'), JSON.stringify(parts))
      }),
      { numRuns: 150 },
    )
  })

  test(`${family}: random ids, cut anywhere, give a beginning of what all of them give`, () => {
    const id = fc.nat({ max: file.tokens.length + 2 })
    fc.assert(
      fc.property(fc.array(id, { maxLength: 40 }), fc.nat({ max: 40 }), fc.boolean(), (ids, cut, skipSpecialTokens) => {
        const whole = detokenizer.decode(ids, { skipSpecialTokens })
        const stream = detokenizer.stream({ skipSpecialTokens })
        let text = ''
        for (const next of ids.slice(0, cut)) text += stream.push(next)
        text += stream.end()
        assert.ok(whole.startsWith(text), JSON.stringify([text, whole]))
        // No more is held back than the bytes of one character.
        const ahead = detokenizer.decode(ids.slice(0, cut), { skipSpecialTokens })
        assert.ok(ahead.length - text.length <= 4)
      }),
      { numRuns: 300 },
    )
  })

  test(`${family}: what is pushed comes out at once when it is complete`, async () => {
    const tokenizer = await createPureTokenizer(file.json)
    const stream = detokenizer.stream({ skipSpecialTokens: true })
    for (const id of tokenizer.encode('plain words', { add_special_tokens: false }).ids.slice(1)) assert.notEqual(stream.push(id), '')
  })
}

test('bytes that can no longer become a character give U+FFFD at once, those left at the end are dropped', () => {
  const file = load('sentencepiece')
  const detokenizer = detokenizerOf(file)
  const byte = (value: number): number => file.tokens.indexOf(`<0x${value.toString(16).toUpperCase().padStart(2, '0')}>`)
  const stream = detokenizer.stream({ skipSpecialTokens: false })
  assert.deepEqual([0xf0, 0x9f, 0x98, 0x80, 0xe4, 0x61, 0xff, 0xe0, 0x80, 0xe4, 0xb8].map((value) => stream.push(byte(value))), ['', '', '', '😀', '', '\ufffda', '\ufffd', '', '\ufffd\ufffd', '', ''])
  assert.equal(stream.end(), '')
})

test('an output that continues a prompt keeps the blank of its first word', async () => {
  const file = load('sentencepiece')
  const detokenizer = detokenizerOf(file)
  const tokenizer = await createPureTokenizer(file.json)
  const [word] = tokenizer.encode('the', { add_special_tokens: false }).ids as [number]
  assert.equal(detokenizer.stream({ skipSpecialTokens: true }).push(word).startsWith(' '), false)
  const prompt = tokenizer.encode('process', { add_special_tokens: true }).ids
  assert.equal(detokenizer.stream({ skipSpecialTokens: true, after: prompt }).push(word).startsWith(' '), true)
})

test('other decoders stream as they decode at once', () => {
  const decode = (decoder: { type: string; [field: string]: unknown } | null, tokens: readonly string[]): string =>
    new Detokenizer(tokens, [], decoder).decode(tokens.map((_token, i) => i), { skipSpecialTokens: false })
  assert.equal(decode({ type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' }, ['▁Hey', '▁you', '!']), 'Hey you!')
  assert.equal(decode({ type: 'Metaspace', replacement: '▁', prepend_scheme: 'never' }, ['▁Hey', '▁you']), ' Hey you')
  assert.equal(decode({ type: 'WordPiece', prefix: '##', cleanup: true }, ['hel', '##lo', ',', 'it', "'s"]), "hello, it's")
  assert.equal(decode({ type: 'BPEDecoder', suffix: '</w>' }, ['he', 'llo</w>', 'you</w>']), 'hello you')
  assert.equal(decode(null, ['a', 'b']), 'a b')
  assert.throws(() => decode({ type: 'CTC' }, ['a']), /"CTC" is not supported/)
})

test('one token costs less than 15 µs', () => {
  for (const family of FAMILIES) {
    const file = load(family)
    const stream = detokenizerOf(file).stream({ skipSpecialTokens: true })
    const count = 20_000
    const before = process.cpuUsage()
    for (let i = 0; i < count; i++) stream.push(i % file.tokens.length)
    const spent = process.cpuUsage(before)
    assert.ok((spent.user + spent.system) / count < 15, `${family}: ${(spent.user + spent.system) / count} µs`)
  }
})
