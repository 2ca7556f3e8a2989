/** The files of a model folder that a card names, with size and checksum. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { blake3 } from '@noble/hashes/blake3.js'
import { bytesToHex } from '@noble/hashes/utils.js'
import type { JsonObject } from '../ports.ts'

export interface ModelFiles {
  readonly folder: string
  /** Card sections: model_info, tokenizer, prompt_formatter, gen_config, null where the folder has no such file; chat_template_file where it has one. */
  readonly sections: JsonObject
  /** Null: not stated by the folder. */
  readonly contextLengthMax: number | null
  /** Ids below it have a token. */
  readonly vocabularySize: number | null
}

const sectionFiles = [
  { section: 'model_info', kind: 'hf_config_json', file: 'config.json', required: true },
  { section: 'tokenizer', kind: 'hf_tokenizer_json', file: 'tokenizer.json', required: true },
  { section: 'prompt_formatter', kind: 'hf_tokenizer_config_json', file: 'tokenizer_config.json', required: false },
  { section: 'gen_config', kind: 'hf_generation_config_json', file: 'generation_config.json', required: false },
] as const

/** Reads a model folder. Errors: one that names folder and file when a needed file is missing or not JSON. */
export async function readModelFiles(folder: string): Promise<ModelFiles> {
  const sections: Record<string, JsonObject | null> = {}
  const contents = new Map<string, unknown>()
  for (const { section, kind, file, required } of sectionFiles) {
    const path = join(folder, file)
    const bytes = await readFile(path).catch((cause: unknown) => {
      if (required) throw new Error(`${folder} is no model folder: ${file} cannot be read; it needs config.json and tokenizer.json`, { cause })
      return null
    })
    sections[section] = bytes === null ? null : { [kind]: fileEntry(path, bytes) }
    if (bytes !== null && required) contents.set(file, parsed(bytes, path))
  }
  const template = await checkedFile(join(folder, 'chat_template.jinja'))
  if (template !== null) sections['chat_template_file'] = { hf_chat_template: { is_custom: false, file: template } }
  return {
    folder,
    sections,
    contextLengthMax: wholeAt(contents.get('config.json'), ['max_position_embeddings']),
    vocabularySize: smaller(wholeAt(contents.get('config.json'), ['vocab_size']), entryCount(contents.get('tokenizer.json'))),
  }
}

const fileEntry = (path: string, bytes: Uint8Array): JsonObject => ({ path, checksum: `blake3:${bytesToHex(blake3(bytes))}`, size: bytes.length })

/** How a card names one file; null when it cannot be read. */
export async function checkedFile(path: string): Promise<JsonObject | null> {
  const bytes = await readFile(path).catch(() => null)
  return bytes === null ? null : fileEntry(path, bytes)
}

function parsed(bytes: Buffer, path: string): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch (cause) {
    throw new Error(`${path} is not valid JSON`, { cause })
  }
}

function memberAt(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((at, name) => (at !== null && typeof at === 'object' ? (at as Record<string, unknown>)[name] : undefined), value)
}

function wholeAt(value: unknown, path: readonly string[]): number | null {
  const found = memberAt(value, path)
  return typeof found === 'number' && Number.isInteger(found) && found > 0 ? found : null
}

function entryCount(tokenizer: unknown): number | null {
  const vocabulary = memberAt(tokenizer, ['model', 'vocab'])
  if (vocabulary === null || typeof vocabulary !== 'object') return null
  return Array.isArray(vocabulary) ? vocabulary.length : Object.keys(vocabulary).length
}

const smaller = (a: number | null, b: number | null): number | null => (a === null ? b : b === null ? a : Math.min(a, b))
