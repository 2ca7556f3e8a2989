/** What a simulated engine is like: capacity, batching and speed. */

export interface EngineSettings {
  /** Tokens per block. */
  readonly blockSize: number
  /** KV blocks per dp rank. */
  readonly blocks: number
  readonly dpStart: number
  readonly dpSize: number
  /** Sequences that run at once, per rank. */
  readonly maxSequences: number
  /** Tokens computed in one step, per rank. */
  readonly maxBatchedTokens: number
  /** Prompt and output together; also bounded by `blocks * blockSize`. */
  readonly contextLength: number
  /** Output tokens when a request sets no limit. */
  readonly outputTokensDefault: number
  /** The model ends by itself (an end-of-sequence token) after so many tokens; null: never. */
  readonly naturalOutputTokens: number | null
  /** Output token ids are below it. */
  readonly vocabularySize: number
  /** Engines with different seeds give the same content different block hashes. u32. */
  readonly hashSeed: number
  /** Time runs so many times faster. */
  readonly speedup: number
  /** Every step takes this long, ... */
  readonly stepBaseMs: number
  /** ... this for each prompt token computed in it, ... */
  readonly prefillTokenMs: number
  /** ... and this for each sequence that decodes in it. */
  readonly decodeSequenceMs: number
}

/** A small machine: about 20,000 prompt tokens/s, and 5 to 12 ms between output tokens. */
export const engineDefaults: EngineSettings = {
  blockSize: 16,
  blocks: 4096,
  dpStart: 0,
  dpSize: 1,
  maxSequences: 64,
  maxBatchedTokens: 8192,
  contextLength: 131072,
  outputTokensDefault: 64,
  naturalOutputTokens: null,
  vocabularySize: 32000,
  hashSeed: 0,
  speedup: 1,
  stepBaseMs: 5,
  prefillTokenMs: 0.05,
  decodeSequenceMs: 0.1,
}

type NumberField = { [K in keyof EngineSettings]: EngineSettings[K] extends number ? K : never }[keyof EngineSettings]

const wholeFields: readonly (readonly [NumberField, number, number])[] = [
  ['blockSize', 1, 65536], ['blocks', 1, 2 ** 27], ['dpStart', 0, 65535], ['dpSize', 1, 1024], ['maxSequences', 1, 65536],
  ['maxBatchedTokens', 1, 2 ** 24], ['contextLength', 1, 2 ** 24], ['outputTokensDefault', 1, 2 ** 20], ['vocabularySize', 2, 2 ** 31], ['hashSeed', 0, 0xffffffff],
]
const timeFields: readonly NumberField[] = ['stepBaseMs', 'prefillTokenMs', 'decodeSequenceMs']

/** Defaults completed by what is given. Errors: RangeError with field, value and range. */
export function engineSettings(given: Partial<EngineSettings>): EngineSettings {
  const settings = { ...engineDefaults, ...given }
  for (const [field, least, most] of wholeFields) {
    const value = settings[field]
    if (!Number.isInteger(value) || value < least || value > most) throw new RangeError(`${field} is ${value}; it must be a whole number from ${least} to ${most}`)
  }
  for (const field of timeFields) {
    if (!(settings[field] >= 0 && settings[field] < 1e9)) throw new RangeError(`${field} is ${settings[field]}; it must be a time in ms, 0 or more`)
  }
  if (!(settings.speedup > 0 && settings.speedup <= 1e9)) throw new RangeError(`speedup is ${settings.speedup}; it must be more than 0 and at most 1e9`)
  const natural = settings.naturalOutputTokens
  if (natural !== null && (!Number.isInteger(natural) || natural < 1)) throw new RangeError(`naturalOutputTokens is ${natural}; it must be a whole number from 1, or null`)
  return Object.freeze(settings)
}
