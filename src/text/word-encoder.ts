/**
 * Byte-level BPE on the event loop, for the tokenizers that most models have: a text is cut into words as the tokenizer cuts it, and a
 * word that was met before costs one look-up.
 *
 * Exact or not at all: texts with letters on which the two regular expression engines could differ, words without end, and tokens that
 * are found only in normalized text are left to the tokenizer library; and nothing is encoded here before both have agreed on samples.
 */
import type { Encoder } from './encoder.ts'
import type { AddedToken, TokenizerFile } from './tokenizer-file.ts'

/** Longer texts are the library's, off the loop. UTF-16 units. */
const textLengthMax = 32_768
/** Merging costs the square of the length. */
const wordLengthMax = 96
/** Of each of two generations of remembered words. */
const wordsMax = 32_768
/** Parts between added tokens are remembered from this length on: system prompts and the turns before come again and again. UTF-16 units. */
const partLengthMin = 48
/** Of all remembered parts of one generation. UTF-16 units. */
const partLengthsMax = 1_048_576
/** Entries that are read into the tables before the loop gets its turn. */
const sliceEntries = 8_192

const contractions = "'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])"
const gpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
/** Letters of which both engines, and both Unicode tables, think alike, and that no normalization changes. */
const plainText = /^[\t\n\r\x20-\x7e\u00a0-\u017e\u0410-\u044f\u2010-\u2027\u3001\u3002\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5]*$/
const samples = [
  "Hello world, it's 12345 o'clock; I'LL go  there   now.\n\n\tif (x == 1) { return 'y' }\r\n  end ", 'übergroße Häuser — “quoted” … дом 日本語のテキスト 中文12 3', '   leading, trailing   ', "a'b ''c \"d\" #e $1,234.56 %20 http://x.y/z?a=b&c=d ___ --- !!!\n\n\n\nx",
]

type Fields = { readonly [field: string]: unknown }
const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value)

/** The expression that cuts a text into words; null when the steps are others. */
function wordPattern(step: unknown): string | null {
  if (!isFields(step)) return null
  if (step['type'] === 'ByteLevel') return step['add_prefix_space'] === false && step['use_regex'] !== false ? gpt2 : null
  const steps = step['pretokenizers']
  if (step['type'] !== 'Sequence' || !Array.isArray(steps) || steps.length !== 2) return null
  const [split, bytes] = steps as unknown[]
  if (!isFields(split) || split['type'] !== 'Split' || split['behavior'] !== 'Isolated' || split['invert'] === true) return null
  if (!isFields(bytes) || bytes['type'] !== 'ByteLevel' || bytes['add_prefix_space'] !== false || bytes['use_regex'] !== false) return null
  const pattern = split['pattern']
  return isFields(pattern) && typeof pattern['Regex'] === 'string' ? pattern['Regex'].replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", contractions) : null
}

/** GPT-2's letters for bytes. */
const letterByByte: readonly string[] = (() => {
  let next = 0x100
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode((byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae ? byte : next++))
})()

/** Null when the tokenizer is of another kind, or the two do not agree on the samples. */
export async function createWordEncoder(file: TokenizerFile, encoder: Encoder): Promise<WordEncoder | null> {
  const { normalizer, model } = file.json
  const pattern = wordPattern(file.json['pre_tokenizer'])
  if (pattern === null || !isFields(model) || model['type'] !== 'BPE' || !Array.isArray(model['merges'])) return null
  if (normalizer != null && !(isFields(normalizer) && normalizer['type'] === 'NFC')) return null
  if (['dropout', 'unk_token', 'continuing_subword_prefix', 'end_of_word_suffix'].some((name) => model[name] != null && model[name] !== '') || model['byte_fallback'] === true) return null
  let words: RegExp
  try {
    words = new RegExp(pattern, 'gu')
  } catch {
    return null
  }
  const ids = new Map<string, number>()
  for (const [token, id] of Object.entries(isFields(model['vocab']) ? model['vocab'] : {})) {
    ids.set(token, id as number)
    if (ids.size % sliceEntries === 0) await nextTurn()
  }
  const ranks = new Map<string, number>()
  for (const merge of model['merges'] as readonly unknown[]) {
    const pair = Array.isArray(merge) ? merge.join(' ') : merge
    if (typeof pair !== 'string') return null
    ranks.set(pair, ranks.size)
    if (ranks.size % sliceEntries === 0) await nextTurn()
  }
  const made = new WordEncoder({ words, ids, ranks, wholeWords: model['ignore_merges'] === true }, file.addedTokens)
  for (const sample of [...samples, ...file.addedTokens.slice(0, 8).map(({ content }) => `a ${content}b${content} c`)]) {
    const own = made.encode(sample)
    if (own === null) continue
    const theirs = await encoder.encode(sample, false)
    if (own.length !== theirs.length || own.some((id, index) => id !== theirs[index])) return null
  }
  return made
}

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

interface Tables {
  readonly words: RegExp
  readonly ids: ReadonlyMap<string, number>
  readonly ranks: ReadonlyMap<string, number>
  /** A word that is a token is that token, whatever the merges say. */
  readonly wholeWords: boolean
}

/** One per model. Memory: two generations of `wordsMax` words and of `partLengthsMax` units, and the tables. Cost: about 0.1 us per known word. */
export class WordEncoder {
  readonly #tables: Tables
  readonly #addedPattern: RegExp | null
  readonly #added: ReadonlyMap<string, AddedToken>
  #parts = new Map<string, readonly number[]>()
  #olderParts = new Map<string, readonly number[]>()
  #partLengths = 0
  #known = new Map<string, readonly number[]>()
  #older = new Map<string, readonly number[]>()

  constructor(tables: Tables, added: readonly AddedToken[]) {
    this.#tables = tables
    this.#added = new Map(added.map((token) => [token.content, token]))
    const contents = [...this.#added.keys()].filter((content) => content !== '').sort((a, b) => b.length - a.length)
    this.#addedPattern = contents.length === 0 ? null : new RegExp(contents.map((text) => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')).join('|'), 'gu')
  }

  /** Ids without those that a post-processor adds; null: not a text for this encoder. */
  encode(text: string): Uint32Array | null {
    if (text.length > textLengthMax) return null
    const ids: number[] = []
    let start = 0
    if (this.#addedPattern !== null) {
      for (const match of text.matchAll(this.#addedPattern)) {
        const token = this.#added.get(match[0])
        if (token?.clean !== true || !this.#add(text.slice(start, match.index), ids)) return null
        ids.push(token.id)
        start = match.index + match[0].length
      }
    }
    return this.#add(start === 0 ? text : text.slice(start), ids) ? new Uint32Array(ids) : null
  }

  #add(part: string, ids: number[]): boolean {
    if (part.length < partLengthMin) return part === '' || this.#addWords(part, ids)
    const known = this.#parts.get(part) ?? this.#olderParts.get(part)
    if (known !== undefined) {
      for (let index = 0; index < known.length; index += 1) ids.push(known[index] as number)
      return true
    }
    const start = ids.length
    if (!this.#addWords(part, ids)) return false
    this.#remember(part, ids.slice(start))
    return true
  }

  #remember(part: string, ids: readonly number[]): void {
    if (this.#partLengths + part.length > partLengthsMax) {
      this.#olderParts = this.#parts
      this.#parts = new Map()
      this.#partLengths = 0
    }
    this.#partLengths += part.length
    // A copy: what was cut out of a text holds the whole text.
    this.#parts.set(Buffer.from(part, 'utf8').toString('utf8'), ids)
  }

  #addWords(part: string, ids: number[]): boolean {
    if (!plainText.test(part)) return false
    let length = 0
    for (const word of part.match(this.#tables.words) ?? []) {
      const found = this.#wordIds(word)
      if (found === null) return false
      for (let index = 0; index < found.length; index += 1) ids.push(found[index] as number)
      length += word.length
    }
    // What no alternative matches would be a word of its own in the library.
    return length === part.length
  }

  #wordIds(word: string): readonly number[] | null {
    const known = this.#known.get(word)
    if (known !== undefined) return known
    const made = this.#older.get(word) ?? (word.length > wordLengthMax ? null : this.#merged(word))
    if (made === null) return null
    if (this.#known.size >= wordsMax) {
      this.#older = this.#known
      this.#known = new Map()
    }
    this.#known.set(word, made)
    return made
  }

  /** Null: a letter without a token. */
  #merged(word: string): readonly number[] | null {
    const { ids, ranks, wholeWords } = this.#tables
    const letters = Array.from(Buffer.from(word, 'utf8'), (byte) => letterByByte[byte] as string)
    const whole = wholeWords ? ids.get(letters.join('')) : undefined
    if (whole !== undefined) return [whole]
    for (;;) {
      let best = Infinity
      let at = -1
      for (let index = 0; index + 1 < letters.length; index += 1) {
        const rank = ranks.get(`${letters[index]} ${letters[index + 1]}`)
        if (rank !== undefined && rank < best) {
          best = rank
          at = index
        }
      }
      if (at < 0) break
      letters.splice(at, 2, `${letters[at]}${letters[at + 1]}`)
    }
    const made: number[] = []
    for (const letter of letters) {
      const id = ids.get(letter)
      if (id === undefined) return null
      made.push(id)
    }
    return made
  }
}
