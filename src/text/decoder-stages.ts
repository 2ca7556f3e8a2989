/** The steps of a `tokenizer.json` decoder as stages of a stream: each takes pieces in order and holds back no more than it must. */
import { TextError } from './text-error.ts'
import type { DecoderConfig } from './tokenizer-file.ts'

/** State of one stream; `emit` is called in order, any number of times. */
export interface DecoderStage {
  push(piece: string, emit: (piece: string) => void): void
  /** The end of the text: `lossy` turns what is incomplete into U+FFFD, else it is dropped. */
  end(lossy: boolean, emit: (piece: string) => void): void
}

const utf8 = new TextEncoder()
const REPLACEMENT = '\ufffd'
const nothing = (): void => undefined

/** The steps of a decoder, sequences dissolved; a missing decoder joins tokens with blanks, as the tokenizer library does. */
export function decoderSteps(decoder: DecoderConfig | null): readonly DecoderConfig[] {
  if (decoder === null) return [{ type: 'Blanks' }]
  if (decoder.type !== 'Sequence') return [decoder]
  const steps = decoder['decoders']
  return Array.isArray(steps) ? steps.flatMap((step: DecoderConfig) => decoderSteps(step)) : []
}

/** Makes stages for one step, given those before it. Errors: `TextError` naming a step that cannot be streamed exactly. */
export function stageFactory(step: DecoderConfig, before: readonly DecoderConfig[]): () => DecoderStage {
  const fused = before.some((earlier) => earlier.type === 'Fuse' || earlier.type === 'ByteLevel')
  switch (step.type) {
    case 'ByteLevel':
      return () => new ByteLevelStage()
    case 'ByteFallback':
      return () => new ByteFallbackStage()
    case 'Fuse':
      return () => mapping((piece) => piece)
    case 'Blanks':
      return () => numbered((piece, index) => (index === 0 ? piece : ` ${piece}`))
    case 'Replace': {
      const replace = replacement(step)
      if (fused && step['pattern'] !== undefined && !singleCharacter(step['pattern'])) throw unsupported('Replace after Fuse')
      return () => mapping(replace)
    }
    case 'Strip':
      return stripFactory(step, fused)
    case 'Metaspace': {
      const mark = typeof step['replacement'] === 'string' ? step['replacement'] : '\u2581'
      const keepFirst = step['prepend_scheme'] === 'never'
      return () => numbered((piece, index) => piece.replaceAll(mark, index === 0 && !keepFirst ? '' : ' '))
    }
    case 'WordPiece': {
      const prefix = typeof step['prefix'] === 'string' ? step['prefix'] : '##'
      const clean = step['cleanup'] !== false
      return () =>
        numbered((piece, index) => {
          const joined = index === 0 ? piece : prefix !== '' && piece.startsWith(prefix) ? piece.slice(prefix.length) : ` ${piece}`
          return clean ? cleanUp(joined) : joined
        })
    }
    case 'BPEDecoder': {
      const suffix = typeof step['suffix'] === 'string' ? step['suffix'] : '</w>'
      return () => new SuffixStage(suffix)
    }
    default:
      throw unsupported(step.type)
  }
}

const unsupported = (step: string): TextError =>
  new TextError('files', `tokenizer.json: the decoder step "${step}" is not supported; serve this model through its engine's own API`)

function mapping(map: (piece: string) => string): DecoderStage {
  return { push: (piece, emit) => emit(map(piece)), end: nothing }
}

function numbered(map: (piece: string, index: number) => string): DecoderStage {
  let index = 0
  return { push: (piece, emit) => emit(map(piece, index++)), end: nothing }
}

const singleCharacter = (pattern: unknown): boolean => {
  const text = (pattern as { String?: unknown } | null)?.String
  return typeof text === 'string' && [...text].length === 1
}

function replacement(step: DecoderConfig): (piece: string) => string {
  const pattern = step['pattern'] as { String?: unknown; Regex?: unknown } | undefined
  const content = typeof step['content'] === 'string' ? step['content'] : ''
  if (typeof pattern?.String === 'string') {
    const text = pattern.String
    return (piece) => piece.split(text).join(content)
  }
  if (typeof pattern?.Regex !== 'string') throw unsupported('Replace without a pattern')
  const expression = new RegExp(pattern.Regex, 'gu')
  return (piece) => piece.replace(expression, () => content)
}

function stripFactory(step: DecoderConfig, fused: boolean): () => DecoderStage {
  const content = typeof step['content'] === 'string' ? step['content'] : ' '
  const start = typeof step['start'] === 'number' ? step['start'] : 0
  const stop = typeof step['stop'] === 'number' ? step['stop'] : 0
  if (fused) {
    if (stop > 0) throw unsupported('Strip at the end, after Fuse')
    return () => new LeadingStripStage(content, start)
  }
  return () =>
    mapping((piece) => {
      const characters = [...piece]
      let from = 0
      while (from < start && characters[from] === content) from++
      let to = characters.length
      while (characters.length - to < stop && to > from && characters[to - 1] === content) to--
      return characters.slice(from, to).join('')
    })
}

/** Characters at the very beginning of the text, at most `start` of them. */
class LeadingStripStage implements DecoderStage {
  readonly #content: string
  #left: number

  constructor(content: string, start: number) {
    this.#content = content
    this.#left = start
  }

  push(piece: string, emit: (piece: string) => void): void {
    let text = piece
    while (this.#left > 0 && text !== '') {
      if (!text.startsWith(this.#content)) this.#left = 0
      else {
        text = text.slice(this.#content.length)
        this.#left--
      }
    }
    if (text !== '') emit(text)
  }

  end(): void {}
}

/** A suffix that marks the end of a word becomes a blank, unless the text ends there. */
class SuffixStage implements DecoderStage {
  readonly #suffix: string
  #blanks = ''

  constructor(suffix: string) {
    this.#suffix = suffix
  }

  push(piece: string, emit: (piece: string) => void): void {
    let text = this.#blanks + piece
    this.#blanks = ''
    while (this.#suffix !== '' && text.endsWith(this.#suffix)) {
      text = text.slice(0, -this.#suffix.length)
      this.#blanks += ' '
    }
    emit(this.#suffix === '' ? text : text.replaceAll(this.#suffix, ' '))
  }

  end(): void {}
}

/** Tokens spell bytes in the letters of GPT-2's table; a token with any other letter stands for itself. */
class ByteLevelStage implements DecoderStage {
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })

  push(piece: string, emit: (piece: string) => void): void {
    const text = this.#decoder.decode(byteLevelBytes(piece), { stream: true })
    if (text !== '') emit(text)
  }

  end(lossy: boolean, emit: (piece: string) => void): void {
    const rest = this.#decoder.decode()
    if (lossy && rest !== '') emit(rest)
  }
}

/** Tokens `<0xE2>` are bytes; all others are text. */
class ByteFallbackStage implements DecoderStage {
  #pending: number[] = []

  push(piece: string, emit: (piece: string) => void): void {
    const byte = fallbackByte(piece)
    if (byte === null) {
      this.#giveUp(emit)
      emit(piece)
      return
    }
    if (this.#pending.length > 0 && !continues(this.#pending, byte)) this.#giveUp(emit)
    this.#pending.push(byte)
    const length = sequenceLength(this.#pending[0] as number)
    if (length === 0) this.#giveUp(emit)
    else if (this.#pending.length === length) {
      emit(new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(this.#pending)))
      this.#pending = []
    }
  }

  end(lossy: boolean, emit: (piece: string) => void): void {
    if (lossy) this.#giveUp(emit)
    this.#pending = []
  }

  /** The tokenizer library gives one U+FFFD for each byte, not for each malformed sequence. */
  #giveUp(emit: (piece: string) => void): void {
    if (this.#pending.length > 0) emit(REPLACEMENT.repeat(this.#pending.length))
    this.#pending = []
  }
}

/** Bytes of the character that begins with this byte; 0 when none does. */
function sequenceLength(first: number): number {
  if (first < 0x80) return 1
  if (first >= 0xc2 && first <= 0xdf) return 2
  if (first >= 0xe0 && first <= 0xef) return 3
  return first >= 0xf0 && first <= 0xf4 ? 4 : 0
}

/** RFC 3629: the second byte is narrower after E0, ED, F0 and F4. */
function continues(pending: readonly number[], byte: number): boolean {
  if (byte < 0x80 || byte > 0xbf) return false
  if (pending.length > 1) return true
  const first = pending[0]
  if (first === 0xe0) return byte >= 0xa0
  if (first === 0xed) return byte <= 0x9f
  if (first === 0xf0) return byte >= 0x90
  return first !== 0xf4 || byte <= 0x8f
}

/** The byte of a token such as `<0xE2>`, or null. */
export function fallbackByte(token: string): number | null {
  return token.length === 6 && /^<0x[0-9A-Fa-f]{2}>$/.test(token) ? Number.parseInt(token.slice(3, 5), 16) : null
}

/** Bytes that a byte-level token spells; the UTF-8 of the token itself when it has a letter outside of the table. */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length)
  for (let i = 0; i < token.length; i++) {
    const byte = BYTE_BY_LETTER[token.charCodeAt(i)]
    if (byte === undefined || byte < 0) return utf8.encode(token)
    bytes[i] = byte
  }
  return bytes
}

/** GPT-2's table: printable Latin-1 letters are themselves, the other bytes follow from U+0100 on. */
const BYTE_BY_LETTER: Int16Array = (() => {
  const table = new Int16Array(0x200).fill(-1)
  let next = 0x100
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
    table[printable ? byte : next++] = byte
  }
  return table
})()

/** WordPiece's tidying of blanks before punctuation. */
const cleanUp = (text: string): string =>
  text
    .replaceAll(' .', '.')
    .replaceAll(' ?', '?')
    .replaceAll(' !', '!')
    .replaceAll(' ,', ',')
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(' do not', " don't")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re")
