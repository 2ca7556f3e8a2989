/** Loads the text side of one model: tokenizer, chat template, end-of-sequence ids and context length. */
import type { Clock, Log, StopSignal } from '../ports.ts'
import { ChatTemplate } from './chat-template.ts'
import { Detokenizer } from './detokenizer.ts'
import { createNativeEncoder, createPureEncoder, type Encoder } from './encoder.ts'
import { contextLengthOf, folderSource, idList, isRecord, type JsonRecord, type ModelFileSource, namedTemplates, readJson, readText, specialTokenStrings } from './model-files.ts'
import { SegmentCache } from './segment-cache.ts'
import { TextError } from './text-error.ts'
import type { ChatTemplateInput, TextCounters, TextDecoderStream, TextModel } from './text-model.ts'
import { readTokenizerFile, type TokenizerFile } from './tokenizer-file.ts'
import { createWordEncoder, type WordEncoder } from './word-encoder.ts'

export interface LoadTextModelOptions {
  readonly log: Log
  /** For `strftime_now`. */
  readonly clock?: Clock
  /** `auto`: native when it loads. */
  readonly engine?: 'auto' | 'native' | 'pure'
  /** Longest text in UTF-16 units. Default 16 Mi. */
  readonly textLengthMax?: number
  /** Most texts at work at once. Default 1024. */
  readonly encodesMax?: number
  /** Texts from this length on are tokenized in pieces that are remembered. Default 2048. */
  readonly segmentTextLengthMin?: number
}

const TEXT_LENGTH_MAX = 16 * 1024 * 1024
const ENCODES_MAX = 1_024

/**
 * Reads `tokenizer.json` (required), `tokenizer_config.json`, `chat_template.jinja`, `special_tokens_map.json`,
 * `config.json` and `generation_config.json`.
 * Errors: `TextError` for files that cannot be used, `TemplateError` for a template that is not rendered exactly.
 */
export async function loadTextModel(source: ModelFileSource | string, options: LoadTextModelOptions): Promise<TextModel> {
  const files = typeof source === 'string' ? folderSource(source) : source
  const [tokenizerBytes, tokenizerConfig, specialTokensMap, config, generationConfig, templateFile] = await Promise.all([
    files.readFile('tokenizer.json'),
    readJson(files, 'tokenizer_config.json'),
    readJson(files, 'special_tokens_map.json'),
    readJson(files, 'config.json'),
    readJson(files, 'generation_config.json'),
    readText(files, 'chat_template.jinja'),
  ])
  if (tokenizerBytes === null) throw new TextError('files', 'the model has no tokenizer.json; convert its tokenizer to the fast format')
  const specialTokens = specialTokenStrings(tokenizerConfig, specialTokensMap)
  const templates = namedTemplates(tokenizerConfig, templateFile)
  const clock = options.clock
  const template = templates.size === 0 ? null : new ChatTemplate(templates, { specialTokens, nowMs: () => clock?.epochMs() ?? Date.now() })
  const file = readTokenizerFile(tokenizerBytes)
  const detokenizer = new Detokenizer(file.tokens, file.addedTokens, file.decoder)
  const encoder = await createEncoder(file, options)
  return new LoadedTextModel({
    encoder,
    detokenizer,
    template,
    file,
    eosTokenIds: eosIds(generationConfig, config, specialTokens['eos_token'], file),
    contextLength: contextLengthOf(config, tokenizerConfig),
    textLengthMax: options.textLengthMax ?? TEXT_LENGTH_MAX,
    encodesMax: options.encodesMax ?? ENCODES_MAX,
    words: await createWordEncoder(file, encoder),
    segments: file.segmentsAreIndependent
      ? new SegmentCache(encoder, file.addedTokens, options.segmentTextLengthMin === undefined ? {} : { textLengthMin: options.segmentTextLengthMin })
      : null,
  })
}

async function createEncoder(file: TokenizerFile, options: LoadTextModelOptions): Promise<Encoder> {
  if (options.engine !== 'pure') {
    const native = await createNativeEncoder(file)
    if ('engine' in native) return native
    if (options.engine === 'native') throw new TextError('files', `the native tokenizer cannot be used: ${native.unavailable}`)
    options.log.info({ reason: native.unavailable }, 'native tokenizer not in use; long prompts are tokenized in a thread, more slowly')
  }
  return await createPureEncoder(file)
}

/** All that either file names; the tokenizer's own end token when neither does. */
function eosIds(generation: JsonRecord | null, config: JsonRecord | null, eosToken: string | undefined, file: TokenizerFile): readonly number[] {
  const textConfig = config?.['text_config']
  const ids = new Set([
    ...idList(generation?.['eos_token_id']),
    ...idList(config?.['eos_token_id'] ?? (isRecord(textConfig) ? textConfig['eos_token_id'] : undefined)),
  ])
  if (ids.size === 0 && eosToken !== undefined) {
    const id = file.tokens.indexOf(eosToken)
    if (id >= 0) ids.add(id)
  }
  return [...ids]
}

interface LoadedParts {
  readonly encoder: Encoder
  readonly detokenizer: Detokenizer
  readonly template: ChatTemplate | null
  readonly file: TokenizerFile
  readonly eosTokenIds: readonly number[]
  readonly contextLength: number | null
  readonly textLengthMax: number
  readonly encodesMax: number
  readonly words: WordEncoder | null
  readonly segments: SegmentCache | null
}

class LoadedTextModel implements TextModel {
  readonly eosTokenIds: readonly number[]
  readonly contextLength: number | null
  readonly vocabularySize: number
  readonly hasChatTemplate: boolean
  readonly #parts: LoadedParts
  readonly #segments: SegmentCache | null
  #surrounding: Promise<{ readonly before: Uint32Array; readonly after: Uint32Array } | null> | null = null
  #underWay = 0
  #encodes = 0
  #refused = 0

  constructor(parts: LoadedParts) {
    this.#parts = parts
    this.#segments = parts.segments
    this.eosTokenIds = parts.eosTokenIds
    this.contextLength = parts.contextLength
    this.vocabularySize = parts.file.tokens.length
    this.hasChatTemplate = parts.template !== null
  }

  renderChat(input: ChatTemplateInput): string {
    if (this.#parts.template === null) {
      throw new TextError('files', 'the model has no chat template; use /v1/completions, or add chat_template.jinja to the model')
    }
    return this.#parts.template.render(input)
  }

  async encode(text: string, options: { readonly addSpecialTokens: boolean; readonly signal?: StopSignal }): Promise<Uint32Array> {
    const { signal } = options
    signal?.throwIfAborted()
    this.#refuseExcess(text)
    this.#encodes++
    const ids = options.addSpecialTokens ? null : (this.#parts.words?.encode(text) ?? null)
    if (ids !== null) return ids
    this.#underWay++
    const work = this.#encode(text, options.addSpecialTokens).finally(() => this.#underWay--)
    if (signal === undefined) return await work
    return await new Promise((resolve, reject) => {
      const abort = (): void => reject(signal.reason as Error)
      signal.addEventListener('abort', abort, { once: true })
      work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
    })
  }

  async #encode(text: string, addSpecialTokens: boolean): Promise<Uint32Array> {
    const segments = this.#segments
    if (segments === null) return await this.#parts.encoder.encode(text, addSpecialTokens)
    if (!addSpecialTokens) return await segments.encode(text)
    const surrounding = await (this.#surrounding ??= this.#probeSurrounding())
    if (surrounding === null || text === '') return await this.#parts.encoder.encode(text, true)
    const ids = await segments.encode(text)
    const { before, after } = surrounding
    const whole = new Uint32Array(before.length + ids.length + after.length)
    whole.set(before)
    whole.set(ids, before.length)
    whole.set(after, before.length + ids.length)
    return whole
  }

  /** What the post-processor puts around a text; null when that is not simply before and after. */
  async #probeSurrounding(): Promise<{ before: Uint32Array; after: Uint32Array } | null> {
    const [plain, dressed] = await Promise.all([this.#parts.encoder.encode('a b', false), this.#parts.encoder.encode('a b', true)])
    for (let start = 0; start + plain.length <= dressed.length; start++) {
      if (plain.length > 0 && plain.every((id, i) => dressed[start + i] === id)) return { before: dressed.slice(0, start), after: dressed.slice(start + plain.length) }
    }
    return null
  }

  #refuseExcess(text: string): void {
    const { textLengthMax, encodesMax } = this.#parts
    if (text.length <= textLengthMax && this.#underWay < encodesMax) return
    this.#refused++
    throw new TextError(
      'limit',
      text.length > textLengthMax
        ? `the text has ${text.length} characters, the limit is ${textLengthMax}; send a shorter prompt`
        : `${encodesMax} texts are being tokenized; try again shortly`,
    )
  }

  decoder(options: { readonly skipSpecialTokens: boolean; readonly after?: ArrayLike<number> }): TextDecoderStream {
    return this.#parts.detokenizer.stream(options)
  }

  tokenText(tokenId: number): string {
    return this.#parts.detokenizer.tokenText(tokenId)
  }

  tokenBytes(tokenId: number): Uint8Array {
    return this.#parts.detokenizer.tokenBytes(tokenId)
  }

  counters(): TextCounters {
    const segments = this.#segments
    return {
      engine: this.#parts.encoder.engine,
      encodes: this.#encodes,
      segmentHits: segments?.hits ?? 0,
      segmentMisses: segments?.misses ?? 0,
      segmentEvictions: segments?.evictions ?? 0,
      refused: this.#refused,
    }
  }

  async close(): Promise<void> {
    await this.#parts.encoder.close()
  }
}
