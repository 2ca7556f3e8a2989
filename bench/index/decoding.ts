/** KV events from MessagePack to word arrays and on into an index: our cursor beside a general decoder, in turns in one process. */
import { Decoder } from '@msgpack/msgpack'
import { KvEventDecoder } from '../../src/dynamo/wire/kv-event-batch.ts'
import { decodeKvEvents, encodeKvEvents } from '../../src/dynamo/wire/kv-events.ts'
import { sequenceHashes } from '../../src/hashing/block-hashes.ts'
import { createPrefixIndex } from '../../src/index/prefix-index.ts'
import { hashAt, hashListOf, type HashList } from '../../src/model/hash-list.ts'
import type { KvEventData, RouterEvent } from '../../src/model/kv-event.ts'
import { median, wordsFrom } from '../measure.ts'

export interface DecodingRow {
  readonly events: number
  readonly blocksPerEvent: number
  readonly bytes: number
  /** CPU microseconds per message, medians of the rounds: decoded only, and decoded and applied (stored and removed again, per message). */
  readonly ours: DecodingTimes
  readonly library: DecodingTimes
  /** The same message with every event made an object, as the router does one by one; and as it is read when it holds anything else than plain events. Left out in older results. */
  readonly objectsUs?: number
  readonly generalUs?: number
}

export interface DecodingTimes {
  readonly decodeUs: number
  readonly applyUs: number
}

interface PlainEvent {
  readonly worker_id: bigint
  readonly event: { readonly event_id: bigint | number; readonly dp_rank: number; readonly data: PlainData }
}

interface PlainData {
  readonly stored?: { readonly parent_hash: bigint | null; readonly blocks: readonly { readonly block_hash: bigint; readonly tokens_hash: bigint }[] }
  readonly removed?: { readonly block_hashes: readonly bigint[] }
}

/** As the index takes them; what any user of the library has to do. */
function dataOf({ stored, removed }: PlainData): KvEventData {
  if (removed !== undefined) return { kind: 'removed', blockHashes: hashListOf(removed.block_hashes) }
  if (stored === undefined) return { kind: 'cleared' }
  return {
    kind: 'stored', parentHash: stored.parent_hash, startPosition: null, mmInfos: null,
    blockHashes: hashListOf(stored.blocks.map(({ block_hash }) => block_hash)), tokensHashes: hashListOf(stored.blocks.map(({ tokens_hash }) => tokens_hash)),
  }
}

function messages(count: number, blocks: number): { readonly stored: Uint8Array; readonly removed: Uint8Array } {
  const word = wordsFrom(blocks)
  const locals: HashList = Uint32Array.from({ length: 2 * count * blocks }, word)
  const names = sequenceHashes(locals)
  const event = (index: number, data: KvEventData): RouterEvent =>
    ({ workerId: 0x1234_5678_9abc_def0n, dpRank: 0, storageTier: 'device', residencyDomain: 'worker', eventId: BigInt(index), data })
  const part = (list: HashList, index: number): HashList => list.slice(2 * index * blocks, 2 * (index + 1) * blocks)
  const indices = Array.from({ length: count }, (_, index) => index)
  return {
    stored: encodeKvEvents(indices.map((index) => event(index, {
      kind: 'stored', parentHash: index === 0 ? null : hashAt(names, index * blocks - 1), startPosition: null, mmInfos: null,
      blockHashes: part(names, index), tokensHashes: part(locals, index),
    }))),
    removed: encodeKvEvents(indices.toReversed().map((index) => event(count + index, { kind: 'removed', blockHashes: part(names, index) }))),
  }
}

const cpuUs = (): number => {
  const { user, system } = process.cpuUsage()
  return user + system
}

function perCall(calls: number, work: () => void): number {
  const begin = cpuUs()
  for (let call = 0; call < calls; call += 1) work()
  return (cpuUs() - begin) / calls
}

function measure(events: number, blocks: number, rounds: number): DecodingRow {
  const { stored, removed } = messages(events, blocks)
  const index = createPrefixIndex()
  const apply = (data: KvEventData): void => {
    if (index.apply(0, 'device', data) !== 'ok') throw new Error('an event was refused')
  }
  const ourDecoder = new KvEventDecoder()
  const theirDecoder = new Decoder({ useBigInt64: true })
  const library = (bytes: Uint8Array): readonly PlainEvent[] => theirDecoder.decode(bytes) as PlainEvent[]
  const objects = (bytes: Uint8Array, take: (event: RouterEvent) => void): void => {
    const batch = ourDecoder.decode(bytes)
    for (let at = 0; at < batch.length; at += 1) take(batch.event(at))
  }
  let taken = 0
  const works = {
    ours: { decodeUs: () => { ourDecoder.decode(stored) }, applyUs: () => { for (const bytes of [stored, removed]) objects(bytes, (event) => apply(event.data)) } },
    library: { decodeUs: () => { library(stored) }, applyUs: () => { for (const bytes of [stored, removed]) for (const { event } of library(bytes)) apply(dataOf(event.data)) } },
  }
  const others = { objectsUs: () => objects(stored, ({ dpRank }) => { taken += dpRank }), generalUs: () => { taken += decodeKvEvents(stored).length } }
  const otherTimes = { objectsUs: [] as number[], generalUs: [] as number[] }
  const times = { ours: { decodeUs: [] as number[], applyUs: [] as number[] }, library: { decodeUs: [] as number[], applyUs: [] as number[] } }
  const calls = Math.ceil(100_000 / (events * (blocks + 4)))
  for (let round = -2; round < rounds; round += 1) {
    for (const what of ['decodeUs', 'applyUs'] as const) {
      for (const whose of ['ours', 'library'] as const) {
        const spent = perCall(calls, works[whose][what])
        if (round >= 0) times[whose][what].push(spent)
      }
    }
    for (const what of ['objectsUs', 'generalUs'] as const) {
      const spent = perCall(calls, others[what])
      if (round >= 0) otherTimes[what].push(spent)
    }
  }
  if (index.entryCount !== 0 || taken === 0) throw new Error('blocks are left in the index, or no event was decoded')
  const middle = (whose: 'ours' | 'library'): DecodingTimes => ({ decodeUs: median(times[whose].decodeUs), applyUs: median(times[whose].applyUs) })
  return { events, blocksPerEvent: blocks, bytes: stored.length, ours: middle('ours'), library: middle('library'), objectsUs: median(otherTimes.objectsUs), generalUs: median(otherTimes.generalUs) }
}

process.stdout.write(`${JSON.stringify([measure(1, 64, 15), measure(16, 64, 15), measure(32, 1, 15), measure(1, 1, 15)])}\n`)
