/**
 * Encodes long prompts piece by piece and remembers the pieces, so that a conversation that grows is not tokenized anew.
 *
 * A text is cut at clean added tokens only (those that split a text wherever they stand), which is where the tokenizer
 * itself cuts before anything else: the ids are the same as of the whole text.
 */
import type { Encoder } from './encoder.ts'
import type { AddedToken } from './tokenizer-file.ts'

export interface SegmentCacheOptions {
  /** Shorter texts go to the encoder as they are. */
  readonly textLengthMin?: number
  /** Bound of all remembered pieces together, in UTF-16 units. */
  readonly lengthMax?: number
}

/** Pieces shorter than this are not worth an entry; they are encoded with their neighbours. */
const SEGMENT_LENGTH_MIN = 256

/** One per model. Cost: one scan of the text per encode; memory `lengthMax` * 2 bytes of text and 4 bytes per token. */
export class SegmentCache {
  readonly #encoder: Encoder
  readonly #textLengthMin: number
  readonly #lengthMax: number
  readonly #pattern: RegExp | null
  readonly #clean: ReadonlyMap<string, number>
  readonly #idsByText = new Map<string, Uint32Array>()
  #length = 0
  hits = 0
  misses = 0
  evictions = 0

  constructor(encoder: Encoder, added: readonly AddedToken[], options: SegmentCacheOptions = {}) {
    this.#encoder = encoder
    this.#textLengthMin = options.textLengthMin ?? 2_048
    this.#lengthMax = options.lengthMax ?? 4 * 1024 * 1024
    this.#clean = new Map(added.filter((token) => token.clean).map((token) => [token.content, token.id]))
    // The tokenizer takes the leftmost, then the longest of all tokens that it looks for before normalization.
    const contents = added.filter((token) => !token.normalized && token.content !== '').map((token) => token.content)
    contents.sort((a, b) => b.length - a.length)
    this.#pattern = contents.length === 0 ? null : new RegExp(contents.map(escapeRegExp).join('|'), 'gu')
  }

  /** Ids without those that a post-processor adds. */
  async encode(text: string): Promise<Uint32Array> {
    if (text.length < this.#textLengthMin || this.#pattern === null) return await this.#encoder.encode(text, false)
    return concatenate(await Promise.all(this.#cut(text).map((piece) => this.#encodePiece(piece))))
  }

  async #encodePiece(piece: string): Promise<Uint32Array> {
    const known = this.#idsByText.get(piece)
    if (known !== undefined) {
      this.hits++
      this.#idsByText.delete(piece)
      this.#idsByText.set(piece, known)
      return known
    }
    const ids = await this.#encoder.encode(piece, false, true)
    if (piece.length >= SEGMENT_LENGTH_MIN && piece.length * 4 <= this.#lengthMax) {
      this.misses++
      this.#remember(piece, ids)
    }
    return ids
  }

  #remember(piece: string, ids: Uint32Array): void {
    if (this.#idsByText.has(piece)) return
    this.#idsByText.set(piece, ids)
    this.#length += piece.length
    for (const oldest of this.#idsByText.keys()) {
      if (this.#length <= this.#lengthMax) break
      this.#idsByText.delete(oldest)
      this.#length -= oldest.length
      this.evictions++
    }
  }

  /** Pieces end after a clean token and are at least `SEGMENT_LENGTH_MIN` long, but for the last. */
  #cut(text: string): string[] {
    const pieces: string[] = []
    let start = 0
    for (const match of text.matchAll(this.#pattern as RegExp)) {
      const end = match.index + match[0].length
      if (end - start < SEGMENT_LENGTH_MIN || !this.#clean.has(match[0])) continue
      pieces.push(text.slice(start, end))
      start = end
    }
    if (start < text.length) pieces.push(text.slice(start))
    return pieces
  }
}

const escapeRegExp = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')

function concatenate(parts: readonly Uint32Array[]): Uint32Array {
  if (parts.length === 1) return parts[0] as Uint32Array
  let length = 0
  for (const part of parts) length += part.length
  const whole = new Uint32Array(length)
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
  }
  return whole
}
