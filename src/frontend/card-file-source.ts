/**
 * The text files of a model as its card names them: paths on this machine, or http(s) URLs that workers serve.
 *
 * What is read must have the checksum that the card states, so that a frontend never tokenizes with other files than the workers.
 */
import { readFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { blake3 } from '@noble/hashes/blake3.js'
import { bytesToHex } from '@noble/hashes/utils.js'
import type { ModelCard } from '../dynamo/cards/model-card.ts'
import { isObject } from '../dynamo/wire/json.ts'
import type { Json, JsonObject } from '../ports.ts'
import type { ModelFileSource } from '../text/model-files.ts'
import { cardFiles, type CardFile, type FileSection } from './card-files.ts'

/** Largest file that is fetched. Units: bytes. */
export const fileBytesMax = 256 * 1024 * 1024
const fetchDeadlineMs = 30_000

const sectionByName: Readonly<Record<string, FileSection>> = {
  'tokenizer.json': 'tokenizer', 'tokenizer_config.json': 'prompt_formatter', 'config.json': 'model_info', 'generation_config.json': 'gen_config',
  'chat_template.jinja': 'chat_template_file',
}

export interface CardFileSourceOptions {
  readonly signal: AbortSignal
  readonly fetchDeadlineMs?: number
}

/** Files by the names that they have in a model folder. Errors name the card's field, the path and the mend. */
export function cardFileSource(card: ModelCard, options: CardFileSourceOptions): ModelFileSource {
  const files = [...cardFiles(card.raw), ...extraFiles(card.raw['extra_files'] ?? null)]
  return {
    async readFile(name) {
      const section = sectionByName[name]
      const file = files.find((each) => (section === undefined ? basename(each.path) === name : each.section === section))
      if (file !== undefined) return contentOf(file, name, await readCardFile(file, options))
      return readBeside(files, name)
    },
  }
}

type NamedFile = Omit<CardFile, 'section'> & { readonly section: FileSection | 'extra_files' }

/** A template may come inside a JSON file. */
function contentOf(file: NamedFile, name: string, bytes: Uint8Array): Uint8Array {
  if (name === 'tokenizer.json' && !file.kind.includes('json')) throw new Error(`the card's tokenizer is of the kind ${file.kind}, which is not available; give the model a tokenizer.json`)
  if (name !== 'chat_template.jinja' || !file.path.endsWith('.json')) return bytes
  const value = JSON.parse(new TextDecoder().decode(bytes)) as { readonly chat_template?: unknown }
  if (typeof value.chat_template !== 'string') throw new Error(`${file.path} has no chat_template`)
  return new TextEncoder().encode(value.chat_template)
}

async function readCardFile(file: NamedFile, options: CardFileSourceOptions): Promise<Uint8Array> {
  const bytes = /^https?:\/\//.test(file.path) ? await fetchFile(file, options) : await readLocal(file)
  const [algorithm, expected] = file.checksum.split(':', 2)
  if (algorithm === 'blake3' && expected !== undefined && bytesToHex(blake3(bytes)) !== expected) {
    throw new Error(`${file.section} ${file.path} is not the file that the worker has (its checksum differs from the card's); give this machine the worker's model folder`)
  }
  return bytes
}

async function readLocal({ section, path }: NamedFile): Promise<Uint8Array> {
  try {
    return await readFile(path)
  } catch (cause) {
    throw new Error(`${section} ${path} cannot be read here (${(cause as NodeJS.ErrnoException).code ?? String(cause)}); mount the model at the same path as on the workers, or set DYN_SYSTEM_PORT on them so that they serve their files`, { cause })
  }
}

async function fetchFile({ section, path }: NamedFile, options: CardFileSourceOptions): Promise<Uint8Array> {
  const deadlineMs = options.fetchDeadlineMs ?? fetchDeadlineMs
  try {
    const response = await fetch(path, { signal: AbortSignal.any([options.signal, AbortSignal.timeout(deadlineMs)]) })
    if (!response.ok || response.body === null) throw new Error(`answered with status ${response.status}`)
    const parts: Uint8Array[] = []
    let length = 0
    for await (const part of response.body as unknown as AsyncIterable<Uint8Array>) {
      length += part.length
      if (length > fileBytesMax) throw new Error(`longer than ${fileBytesMax} bytes`)
      parts.push(part)
    }
    return Buffer.concat(parts)
  } catch (cause) {
    options.signal.throwIfAborted()
    const reason = (cause as Error).name === 'TimeoutError' ? `no answer within ${deadlineMs / 1000} s` : (cause as Error).message
    throw new Error(`${section} ${path} could not be fetched: ${reason}; the worker's system server must be reachable from here`, { cause })
  }
}

/** What a card does not name but lies beside its tokenizer: files that older cards leave out. */
async function readBeside(files: readonly NamedFile[], name: string): Promise<Uint8Array | null> {
  const tokenizer = files.find(({ section }) => section === 'tokenizer')
  if (tokenizer === undefined || /^https?:\/\//.test(tokenizer.path)) return null
  return readFile(join(dirname(tokenizer.path), name)).catch(() => null)
}

function extraFiles(value: Json): NamedFile[] {
  if (!Array.isArray(value)) return []
  return value.filter(isObject).flatMap((file) => {
    const { path, checksum } = file as JsonObject
    return typeof path === 'string' ? [{ section: 'extra_files' as const, kind: 'file', path, checksum: typeof checksum === 'string' ? checksum : '', size: null }] : []
  })
}
