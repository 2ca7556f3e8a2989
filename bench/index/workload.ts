/**
 * Workload files of the index comparison: written once, read by every implementation.
 *
 * Little-endian 32-bit words. Header of 16: magic, ranks, depth, queries; then events, blocks and words of each phase (stores,
 * churn, cuts); three zeros. Then the phases' events and the queries. Event: kind (0 store, 1 remove), rank, blocks, has parent,
 * parent (2 words), names (2 words each), for stores the local hashes. Query: blocks, then local hashes.
 */
import { writeFileSync, readFileSync } from 'node:fs'
import { sequenceHashes } from '../../src/hashing/block-hashes.ts'
import { hashAt, type HashList } from '../../src/model/hash-list.ts'
import type { KvEventData } from '../../src/model/kv-event.ts'
import { wordsFrom } from '../measure.ts'

/** Whether all ranks give a block the same name, or each its own, as engines with other hash seeds do. */
export type BlockNames = 'shared' | 'per rank'

export interface WorkloadShape {
  readonly ranks: number
  /** (rank, block) pairs at least stored. */
  readonly entries: number
  /** Blocks of a conversation. */
  readonly depth: number
  readonly names: BlockNames
}

const magic = 0x31425057
const headerWords = 16
const queryWordsMax = 8_000_000

class WordWriter {
  words = new Uint32Array(1 << 20)
  length = 0

  #reserve(count: number): void {
    if (this.length + count <= this.words.length) return
    const grown = new Uint32Array(2 * Math.max(this.words.length, count))
    grown.set(this.words.subarray(0, this.length))
    this.words = grown
  }

  put(...words: number[]): void {
    this.#reserve(words.length)
    this.words.set(words, this.length)
    this.length += words.length
  }

  list(words: Uint32Array): void {
    this.#reserve(words.length)
    this.words.set(words, this.length)
    this.length += words.length
  }
}

class PhaseWriter {
  readonly out = new WordWriter()
  events = 0
  blocks = 0

  store(rank: number, names: HashList, locals: HashList, from: number, to: number): void {
    this.out.put(0, rank, to - from, from > 0 ? 1 : 0, from > 0 ? names[2 * from - 2]! : 0, from > 0 ? names[2 * from - 1]! : 0)
    this.out.list(names.subarray(2 * from, 2 * to))
    this.out.list(locals.subarray(2 * from, 2 * to))
    this.#count(to - from)
  }

  remove(rank: number, names: HashList): void {
    this.out.put(1, rank, names.length >>> 1, 0, 0, 0)
    this.out.list(names)
    this.#count(names.length >>> 1)
  }

  #count(blocks: number): void {
    this.events += 1
    this.blocks += blocks
  }
}

interface Conversation {
  readonly rank: number
  readonly locals: HashList
  readonly names: HashList
}

/** Block names of one rank: as public sequence hashes, or turned by the rank. */
function namesOf(chain: HashList, rank: number, names: BlockNames): HashList {
  if (names === 'shared') return chain
  const turnLow = Math.imul(rank + 1, 0x9e3779b1)
  const turnHigh = Math.imul(rank + 1, 0x85ebca77)
  return chain.map((half, at) => half ^ (at % 2 === 0 ? turnLow : turnHigh))
}

/** Writes the workload of a shape; equal shapes give equal files. Returns the (rank, block) pairs stored, doubles included. */
export function writeWorkload(path: string, shape: WorkloadShape): number {
  const { ranks, entries, depth, names } = shape
  const word = wordsFrom(ranks * 31 + depth)
  const novel = (blocks: number): HashList => Uint32Array.from({ length: 2 * blocks }, word)
  const turn = Math.max(1, depth >>> 2)
  const prefixes = Array.from({ length: Math.max(4, Math.floor(entries / (32 * depth))) }, () => novel(turn))
  const stores = new PhaseWriter()
  const conversations: Conversation[] = []
  const begun = new Set<number>()
  while (stores.blocks < entries) {
    // Some prefixes are more common than others.
    const prefix = Math.min(word() % prefixes.length, word() % prefixes.length)
    const locals = novel(depth)
    locals.set(prefixes[prefix]!)
    const chain = sequenceHashes(locals)
    const copies = word() % 10 === 0 ? 2 : 1
    for (let copy = 0; copy < copies; copy += 1) {
      const rank = word() % ranks
      const own = namesOf(chain, rank, names)
      if (!begun.has(prefix * ranks + rank)) {
        begun.add(prefix * ranks + rank)
        stores.store(rank, own, locals, 0, turn)
      }
      for (let start = turn; start < depth; start += turn) storeTurn(stores, { rank, locals, names: own }, start, Math.min(depth, start + turn))
      if (copy === copies - 1) conversations.push({ rank, locals, names: own })
    }
  }
  const churn = new PhaseWriter()
  const cuts = new PhaseWriter()
  const stride = Math.max(1, Math.floor(conversations.length / Math.min(20_000, Math.ceil(conversations.length / 4))))
  conversations.forEach((conversation, index) => {
    if (index % stride === 0) evictAndRestore(churn, conversation, depth - Math.max(1, (depth - turn) >>> 1), depth)
    if (index % 8 !== 1) return
    const at = turn + (word() % (depth - turn))
    cuts.remove(conversation.rank, conversation.names.subarray(2 * at, 2 * at + 2))
  })
  const queries = new WordWriter()
  const queryCount = Math.min(20_000, Math.max(1000, Math.floor(queryWordsMax / (2 * depth))))
  for (let query = 0; query < queryCount; query += 1) {
    const locals = novel(depth)
    const known = conversations[word() % conversations.length]!.locals
    locals.set(known.subarray(0, 2 * (1 + (word() % depth))))
    queries.put(depth)
    queries.list(locals)
  }
  const phases = [stores, churn, cuts]
  const header = [magic, ranks, depth, queryCount, ...phases.flatMap(({ events, blocks, out }) => [events, blocks, out.length]), 0, 0, 0]
  const parts = [Uint32Array.from(header), ...[...phases.map(({ out }) => out), queries].map(({ words, length }) => words.subarray(0, length))]
  parts.forEach((part, index) => writeFileSync(path, part, { flag: index === 0 ? 'w' : 'a' }))
  return stores.blocks
}

/** Three quarters of a turn, the prompt, come in one event; the rest, the answer, block by block. */
function storeTurn(stores: PhaseWriter, { rank, names, locals }: Conversation, start: number, end: number): void {
  const bulk = start + Math.ceil((3 * (end - start)) / 4)
  stores.store(rank, names, locals, start, bulk)
  for (let block = bulk; block < end; block += 1) stores.store(rank, names, locals, block, block + 1)
}

/** The end of a conversation goes, its last block first, and comes back in one event. */
function evictAndRestore(churn: PhaseWriter, { rank, names, locals }: Conversation, from: number, to: number): void {
  const reversed = new Uint32Array(2 * (to - from))
  for (let block = from; block < to; block += 1) {
    reversed[2 * (to - 1 - block)] = names[2 * block]!
    reversed[2 * (to - 1 - block) + 1] = names[2 * block + 1]!
  }
  churn.remove(rank, reversed)
  churn.store(rank, names, locals, from, to)
}

// ---- Reading ---------------------------------------------------------------------------------------------------------------

export interface TimedEvent {
  readonly rank: number
  readonly data: KvEventData
}

/** One phase of a workload; its events are made in batches, so that a large file costs little memory. */
export class WorkloadPhase {
  readonly events: number
  readonly blocks: number
  readonly #words: Uint32Array

  constructor(events: number, blocks: number, words: Uint32Array) {
    this.events = events
    this.blocks = blocks
    this.#words = words
  }

  *batches(size = 4096): Generator<readonly TimedEvent[]> {
    const words = this.#words
    let batch: TimedEvent[] = []
    for (let at = 0; at < words.length;) {
      const count = words[at + 2]!
      const names = at + 6
      const locals = names + 2 * count
      const blockHashes = words.slice(names, locals)
      const isStore = words[at] === 0
      const data: KvEventData = isStore
        ? { kind: 'stored', parentHash: words[at + 3] === 1 ? hashAt(words.subarray(at + 4, at + 6), 0) : null, startPosition: null, blockHashes, tokensHashes: words.slice(locals, locals + 2 * count), mmInfos: null }
        : { kind: 'removed', blockHashes }
      batch.push({ rank: words[at + 1]!, data })
      at = isStore ? locals + 2 * count : locals
      if (batch.length < size) continue
      yield batch
      batch = []
    }
    if (batch.length > 0) yield batch
  }
}

export interface Workload {
  readonly ranks: number
  readonly depth: number
  readonly stores: WorkloadPhase
  readonly churn: WorkloadPhase
  /** Single blocks out of the middle. */
  readonly cuts: WorkloadPhase
  readonly queries: readonly HashList[]
}

/** Errors: the file is no workload. */
export function readWorkload(path: string): Workload {
  const bytes = readFileSync(path)
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2)
  if (words[0] !== magic) throw new Error(`${path} is not a workload file`)
  let at = headerWords
  const phase = (header: number): WorkloadPhase => {
    at += words[header + 2]!
    return new WorkloadPhase(words[header]!, words[header + 1]!, words.subarray(at - words[header + 2]!, at))
  }
  const [stores, churn, cuts] = [phase(4), phase(7), phase(10)]
  const queries: HashList[] = []
  for (let query = 0; query < words[3]!; query += 1) {
    const count = words[at]!
    queries.push(words.slice(at + 1, at + 1 + 2 * count))
    at += 1 + 2 * count
  }
  return { ranks: words[1]!, depth: words[2]!, stores, churn, cuts, queries }
}
