/** The model files that a card names: `{section: {kind: {path, checksum, size}}}`. */
import type { JsonObject } from '../ports.ts'
import { isObject } from '../dynamo/wire/json.ts'

/** In the order in which Dynamo hashes them. */
export const fileSections = ['model_info', 'tokenizer', 'prompt_formatter', 'chat_template_file', 'gen_config'] as const
export type FileSection = (typeof fileSections)[number]

export interface CardFile {
  readonly section: FileSection
  /** `hf_config_json`, `hf_tokenizer_json` ... */
  readonly kind: string
  /** A path on the worker's machine, or an http(s) URL. */
  readonly path: string
  /** `blake3:` and hex digits; empty when the card has none. */
  readonly checksum: string
  readonly size: number | null
}

/** Files of `card_json`; sections that are absent or shaped otherwise are left out. */
export function cardFiles(raw: JsonObject): CardFile[] {
  return fileSections.flatMap((section) => {
    const value = raw[section]
    if (!isObject(value)) return []
    return Object.entries(value as JsonObject).flatMap(([kind, file]) => {
      if (!isObject(file)) return []
      const { path, checksum, size } = file as JsonObject
      if (typeof path !== 'string') return []
      return [{ section, kind, path, checksum: typeof checksum === 'string' ? checksum : '', size: typeof size === 'number' ? size : null }]
    })
  })
}
