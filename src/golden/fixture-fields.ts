/** Reading of the fixture fields that several kinds share. */
import type { BlockMmInfo } from '../model/kv-event.ts'

/** `{mm_objects:[{mm_hash, offsets}]}` or null, per block. */
export type MmInfosField = readonly ({ readonly mm_objects: readonly { readonly mm_hash: number | bigint; readonly offsets: readonly (readonly [number, number])[] }[] } | null)[] | null

/** The fields that `hashing` and `tracking_hash` cases share. */
export interface PromptFields {
  readonly id: number
  readonly block_size: number
  readonly tokens: readonly number[]
  readonly lora_name: string | null
  readonly cache_namespace: string | null
  readonly is_eagle: boolean | null
  readonly block_mm_infos: MmInfosField
}

export const mmInfosOf = (field: MmInfosField): readonly (BlockMmInfo | null)[] | null =>
  field === null
    ? null
    : field.map((info) => info === null ? null : { mmObjects: info.mm_objects.map(({ mm_hash, offsets }) => ({ mmHash: BigInt(mm_hash), offsets })) })

/** Options of the hash functions for a case. */
export const hashOptionsOf = (fields: PromptFields) => ({
  blockSize: fields.block_size, isEagle: fields.is_eagle, loraName: fields.lora_name, cacheNamespace: fields.cache_namespace,
  blockMmInfos: mmInfosOf(fields.block_mm_infos),
})

export const bytesOfHex = (hex: string): Uint8Array => Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))

export const hexOfBytes = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
