/** The seam between the two tokenizer libraries: text to ids, off the event loop when the text is long. */
import { Worker } from 'node:worker_threads'
import type { TokenizerFile } from './tokenizer-file.ts'
import { TextError } from './text-error.ts'

export interface Encoder {
  readonly engine: 'native' | 'pure'
  /** `background`: part of a long text; never on the event loop, however short. */
  encode(text: string, addSpecialTokens: boolean, background?: boolean): Promise<Uint32Array>
  close(): Promise<void>
}

interface NativeTokenizer {
  encode(text: string, pair: null, options: { addSpecialTokens: boolean }): Promise<{ getIds(): number[] }>
}

interface NativeModule {
  readonly Tokenizer: { fromString(json: string): NativeTokenizer }
}

interface PureTokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] }
}

const isNativeModule = (module: unknown): module is NativeModule =>
  typeof (module as { Tokenizer?: { fromString?: unknown } } | null)?.Tokenizer?.fromString === 'function'

/** The native binding, or null with the reason when it is not installed or does not load here. */
export async function createNativeEncoder(file: TokenizerFile): Promise<Encoder | { readonly unavailable: string }> {
  let native: NativeTokenizer
  try {
    const name: string = 'tokenizers'
    const loaded = (await import(name)) as { default?: unknown }
    const module = isNativeModule(loaded) ? loaded : loaded.default
    if (!isNativeModule(module)) return { unavailable: 'the package `tokenizers` has no Tokenizer.fromString' }
    native = module.Tokenizer.fromString(file.text)
  } catch (cause) {
    return { unavailable: cause instanceof Error ? cause.message : String(cause) }
  }
  return {
    engine: 'native',
    async encode(text, addSpecialTokens) {
      return Uint32Array.from((await native.encode(text, null, { addSpecialTokens })).getIds())
    },
    close: () => Promise.resolve(),
  }
}

/** Texts up to this many UTF-16 units are encoded at once: 4 KB take about 2 ms. */
const INLINE_LENGTH_MAX = 4_096

/** The library in plain JavaScript; long texts go to one worker thread, which starts with the first of them. */
export async function createPureEncoder(file: TokenizerFile): Promise<Encoder> {
  const tokenizer = await createPureTokenizer(file.json)
  let thread: EncoderThread | null = null
  return {
    engine: 'pure',
    async encode(text, addSpecialTokens, background = false) {
      if (!background && text.length <= INLINE_LENGTH_MAX) return Uint32Array.from(tokenizer.encode(text, { add_special_tokens: addSpecialTokens }).ids)
      thread = thread?.usable === true ? thread : new EncoderThread(file.text)
      return await thread.encode(text, addSpecialTokens)
    },
    async close() {
      await thread?.close()
    },
  }
}

/** Shared with the thread. Errors: `TextError` when the library does not know a part of the pipeline. */
export async function createPureTokenizer(json: object): Promise<PureTokenizer> {
  const { Tokenizer } = await import('@huggingface/tokenizers')
  try {
    return new Tokenizer(json, {})
  } catch (cause) {
    throw new TextError('files', `tokenizer.json cannot be used: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
  }
}

interface Job {
  resolve(ids: Uint32Array): void
  reject(error: Error): void
}

class EncoderThread {
  readonly #worker: Worker
  readonly #jobs = new Map<number, Job>()
  #nextId = 0
  usable = true

  constructor(json: string) {
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
    this.#worker = new Worker(new URL(`./encoder-thread.${extension}`, import.meta.url), { workerData: json })
    this.#worker.unref()
    this.#worker.on('message', (answer: { id: number; ids?: Uint32Array; error?: string }) => {
      const job = this.#jobs.get(answer.id)
      this.#jobs.delete(answer.id)
      if (this.#jobs.size === 0) this.#worker.unref()
      if (answer.ids !== undefined) job?.resolve(answer.ids)
      else job?.reject(new TextError('limit', `the text could not be tokenized: ${answer.error ?? 'unknown cause'}`))
    })
    this.#worker.on('error', (cause) => this.#fail(new TextError('limit', 'the tokenizer thread failed; the next long text starts another', { cause })))
    this.#worker.on('exit', () => this.#fail(new TextError('limit', 'the tokenizer thread has ended')))
  }

  encode(text: string, addSpecialTokens: boolean): Promise<Uint32Array> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++
      this.#jobs.set(id, { resolve, reject })
      this.#worker.ref()
      this.#worker.postMessage({ id, text, addSpecialTokens })
    })
  }

  async close(): Promise<void> {
    await this.#worker.terminate()
  }

  #fail(error: Error): void {
    this.usable = false
    for (const job of this.#jobs.values()) job.reject(error)
    this.#jobs.clear()
  }
}
