/**
 * The checksum by which Dynamo 1.6 tells model configurations apart (`mdc_sum` of a request), from a card's own fields.
 *
 * The record does not carry it; frontends compute it. Checked against recorded requests of a real frontend.
 */
import { blake3 } from '@noble/hashes/blake3.js'
import { bytesToHex } from '@noble/hashes/utils.js'
import type { JsonObject } from '../ports.ts'
import type { ModelCard } from '../dynamo/cards/model-card.ts'
import { isObject } from '../dynamo/wire/json.ts'
import { cardFiles } from './card-files.ts'

const roleCodes: Readonly<Record<string, number>> = { prefill: 1, decode: 2, encode: 3, aggregated: 4 }

/** 64 hex digits, or null when the card holds what cannot be hashed as Dynamo does (a router config of its own, a prompt context). */
export function cardChecksum(card: ModelCard): string | null {
  const { raw } = card
  if (given(raw, 'router_config') || given(raw, 'prompt_context')) return null
  const parts = new ByteParts()
  parts.text(card.displayName)
  if (typeof raw['source_path'] === 'string') parts.text(raw['source_path'])
  for (const file of cardFiles(raw)) parts.text(file.checksum)
  for (const [name, hash] of extraFiles(raw)) {
    parts.text(name)
    parts.byte(0)
    parts.text(hash)
  }
  parts.u32(effectiveContext(raw))
  parts.u32(card.blockSize ?? 0)
  parts.byte(card.declaresRole ? (roleCodes[card.role] ?? 0) : 0)
  const needs = card.declaresRole ? card.needs : []
  parts.u32(needs.length)
  for (const group of needs) {
    parts.u32(group.length)
    for (const role of group) parts.byte(roleCodes[role] ?? 0)
  }
  if (card.aliases.length > 0) {
    parts.u32(card.aliases.length)
    for (const alias of card.aliases) {
      parts.u32(Buffer.byteLength(alias))
      parts.text(alias)
    }
  }
  return bytesToHex(blake3(parts.bytes()))
}

const given = (raw: JsonObject, name: string): boolean => (raw[name] ?? null) !== null

/** The engine's own limit, else the architecture's; not the card's `context_length`. */
function effectiveContext(raw: JsonObject): number {
  const runtime = raw['runtime_config']
  const own = isObject(runtime) ? (runtime as JsonObject)['context_length'] : null
  const value = own ?? raw['architectural_max_context_length'] ?? 0
  return typeof value === 'number' ? value : 0
}

/** Base name and bare hash, sorted by both. */
function extraFiles(raw: JsonObject): [string, string][] {
  const list = raw['extra_files']
  if (!Array.isArray(list)) return []
  const pairs = list.filter(isObject).map((file): [string, string] => {
    const { path, checksum } = file as JsonObject
    const text = typeof checksum === 'string' ? checksum : ''
    return [typeof path === 'string' ? path.slice(path.lastIndexOf('/') + 1) : '', text.slice(text.indexOf(':') + 1)]
  })
  const order = (left: string, right: string): number => Buffer.compare(Buffer.from(left), Buffer.from(right))
  return pairs.sort(([name, hash], [otherName, otherHash]) => order(name, otherName) || order(hash, otherHash))
}

class ByteParts {
  readonly #parts: Uint8Array[] = []

  text(value: string): void {
    this.#parts.push(Buffer.from(value, 'utf8'))
  }

  byte(value: number): void {
    this.#parts.push(Uint8Array.of(value))
  }

  /** Big endian. */
  u32(value: number): void {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32BE(value >>> 0)
    this.#parts.push(bytes)
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.#parts)
  }
}
