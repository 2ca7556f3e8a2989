/** The small files of a model directory, as far as the text side needs them. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TextError } from './text-error.ts'

/** Where a model's files come from: a folder, or whatever reads them by name. */
export interface ModelFileSource {
  /** Null when there is no such file. */
  readFile(name: string): Promise<Uint8Array | null>
}

export type JsonRecord = { readonly [field: string]: unknown }

/** Files of a folder. */
export function folderSource(folder: string): ModelFileSource {
  return {
    async readFile(name) {
      try {
        return await readFile(join(folder, name))
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return null
        throw new TextError('files', `${name} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
      }
    },
  }
}

export const isRecord = (value: unknown): value is JsonRecord => typeof value === 'object' && value !== null && !Array.isArray(value)

/** Null when there is no such file. Errors: `TextError` when it is not a JSON object. */
export async function readJson(source: ModelFileSource, name: string): Promise<JsonRecord | null> {
  const bytes = await source.readFile(name)
  if (bytes === null) return null
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes))
    if (isRecord(value)) return value
  } catch (cause) {
    throw new TextError('files', `${name} is not valid JSON; fetch the model again`, { cause })
  }
  throw new TextError('files', `${name} is not a JSON object; fetch the model again`)
}

/** Null when there is no such file. */
export async function readText(source: ModelFileSource, name: string): Promise<string | null> {
  const bytes = await source.readFile(name)
  return bytes === null ? null : new TextDecoder().decode(bytes)
}

/** Template names and sources: `default` and, where the model has them, others such as `tool_use`. */
export function namedTemplates(tokenizerConfig: JsonRecord | null, templateFile: string | null): ReadonlyMap<string, string> {
  const templates = new Map<string, string>()
  const given = tokenizerConfig?.['chat_template']
  if (typeof given === 'string') templates.set('default', given)
  else if (Array.isArray(given)) {
    for (const entry of given) {
      if (isRecord(entry) && typeof entry['name'] === 'string' && typeof entry['template'] === 'string') templates.set(entry['name'], entry['template'])
    }
  }
  if (templateFile !== null) templates.set('default', templateFile)
  return templates
}

const TOKEN_NAMES = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'] as const

/** `bos_token` and its like for the template: strings as they stand or as the content of an added token. */
export function specialTokenStrings(tokenizerConfig: JsonRecord | null, specialTokensMap: JsonRecord | null): { readonly [name: string]: string } {
  const strings: { [name: string]: string } = {}
  for (const name of TOKEN_NAMES) {
    const value = tokenizerConfig?.[name] ?? specialTokensMap?.[name]
    if (typeof value === 'string') strings[name] = value
    else if (isRecord(value) && typeof value['content'] === 'string') strings[name] = value['content']
  }
  return strings
}

/** A number or a list of numbers; anything else is none. */
export function idList(value: unknown): readonly number[] {
  const list = Array.isArray(value) ? value : [value]
  return list.filter((id): id is number => typeof id === 'number' && Number.isSafeInteger(id) && id >= 0)
}

const LENGTH_FIELDS = ['max_position_embeddings', 'n_positions', 'max_seq_len', 'seq_length', 'max_sequence_length', 'n_ctx', 'model_max_length'] as const

/** The model's own maximum in tokens; multimodal configs keep it in `text_config`. Null when none names it. */
export function contextLengthOf(config: JsonRecord | null, tokenizerConfig: JsonRecord | null): number | null {
  for (const record of [config, config?.['text_config'], config?.['llm_config']]) {
    if (!isRecord(record)) continue
    for (const field of LENGTH_FIELDS) {
      const value = record[field]
      if (typeof value === 'number' && value > 0 && Number.isSafeInteger(value)) return value
    }
  }
  // Tokenizers without a limit carry 1e30 here.
  const limit = tokenizerConfig?.['model_max_length']
  return typeof limit === 'number' && limit > 0 && limit < 1e9 ? Math.floor(limit) : null
}
