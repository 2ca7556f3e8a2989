/**
 * Block hashing through the WebAssembly kernel: one call hashes a whole token array.
 *
 * The host copies tokens into the kernel's memory, the kernel writes u64 hashes, and the host copies them out as a `HashList`.
 * Memory stays at about 2 MiB however long the prompt is: longer ones go through in portions.
 */
import type { HashList } from '../model/hash-list.ts'
import type { BlockMmInfo } from '../model/kv-event.ts'
import { kernelBase64 } from './kernel-bytes.ts'

/** Seed of unsalted local hashes and of the public chain. */
export const publicSeed = 1337n

export interface WindowOptions {
  /** Tokens per block, also the stride of windows. 0 gives no blocks. */
  readonly blockSize: number
  /** Windows of one token more than a block. */
  readonly isEagle?: boolean | undefined
  /** u64. */
  readonly seed: bigint
  /** Multimodal objects per block; missing entries are none, entries beyond the last block are ignored. */
  readonly blockMmInfos?: readonly (BlockMmInfo | null)[] | null | undefined
}

/** Both are the caller's. */
export interface PromptHashes {
  readonly local: HashList
  readonly sequence: HashList
}

interface Kernel {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number }
  scratchBase(): number
  hashWindows(input: number, count: number, stride: number, length: number, seedLow: number, seedHigh: number, out: number): void
  hashAndChain(
    input: number, count: number, stride: number, length: number, seedLow: number, seedHigh: number, out: number,
    chainLow: number, chainHigh: number, chain: number, resume: number,
  ): void
  chainHashes(local: number, count: number, seedLow: number, seedHigh: number, out: number, resume: number): void
}

// The DOM library declares WebAssembly; Node's types do not.
interface WebAssemblyGlobal {
  readonly WebAssembly: {
    readonly Module: new (bytes: Uint8Array) => object
    readonly Instance: new (module: object) => { readonly exports: unknown }
  }
}

const pageBytes = 65536
/** Tokens (and hashes) that go through the kernel at once, unless one window is longer. */
const portionWords = 1 << 17

const low32 = (value: bigint): number => Number(value & 0xffffffffn)
const high32 = (value: bigint): number => Number((value >> 32n) & 0xffffffffn)

const utf8 = new TextEncoder()

let compiled: object | null = null

function instantiate(): Kernel {
  const { WebAssembly } = globalThis as unknown as WebAssemblyGlobal
  compiled ??= new WebAssembly.Module(Uint8Array.from(atob(kernelBase64), (unit) => unit.charCodeAt(0)))
  return new WebAssembly.Instance(compiled).exports as Kernel
}

/** The number of hashed blocks of `tokenCount` tokens: complete windows only. */
export function blockCountOf(tokenCount: number, options: { readonly blockSize: number; readonly isEagle?: boolean | undefined }): number {
  const window = options.blockSize + (options.isEagle === true ? 1 : 0)
  if (options.blockSize === 0 || tokenCount < window) return 0
  return Math.floor((tokenCount - window) / options.blockSize) + 1
}

/**
 * One kernel with its memory. Synchronous; results are fresh arrays owned by the caller.
 * Cost: about 20 ns per block of 16 tokens and 45 ns per block of 64; no allocation per block.
 */
export class BlockHasher {
  readonly #kernel: Kernel
  readonly #base: number
  #bytes: Uint8Array
  #words: Uint32Array

  constructor() {
    this.#kernel = instantiate()
    this.#base = this.#kernel.scratchBase()
    this.#bytes = new Uint8Array(this.#kernel.memory.buffer)
    this.#words = new Uint32Array(this.#kernel.memory.buffer)
  }

  /** XXH3-64 of any bytes. */
  hashBytes(bytes: Uint8Array, seed: bigint): bigint {
    const out = this.#outAfter(bytes.length, 8)
    this.#bytes.set(bytes, this.#base)
    this.#kernel.hashWindows(this.#base, 1, 0, bytes.length, low32(seed), high32(seed), out)
    return (BigInt(this.#words[(out >>> 2) + 1] as number) << 32n) | BigInt(this.#words[out >>> 2] as number)
  }

  /** XXH3-64 of a text's UTF-8 bytes. */
  hashText(text: string, seed: bigint): bigint {
    return this.hashBytes(utf8.encode(text), seed)
  }

  /**
   * Local block hashes of the complete blocks of a prompt. Errors: a block size that is not a whole number from 0 on.
   * Source: router-algorithm 1.2.
   */
  localHashes(tokens: Uint32Array, options: WindowOptions): HashList {
    const { blockSize, seed } = options
    if (!Number.isInteger(blockSize) || blockSize < 0) throw new RangeError(`blockSize ${blockSize} is not a whole number from 0 on`)
    const window = blockSize + (options.isEagle === true ? 1 : 0)
    const count = blockCountOf(tokens.length, options)
    const hashes = new Uint32Array(2 * count)
    if (count === 0) return hashes
    const seedLow = low32(seed)
    const seedHigh = high32(seed)
    const portion = Math.max(1, Math.floor(portionWords / blockSize))
    for (let done = 0; done < count; done += portion) {
      const blocks = Math.min(portion, count - done)
      const words = (blocks - 1) * blockSize + window
      const out = this.#outAfter(4 * words, 8 * blocks)
      const first = done * blockSize
      this.#words.set(first === 0 && words === tokens.length ? tokens : tokens.subarray(first, first + words), this.#base >>> 2)
      this.#kernel.hashWindows(this.#base, blocks, 4 * blockSize, 4 * window, seedLow, seedHigh, out)
      hashes.set(this.#words.subarray(out >>> 2, (out >>> 2) + 2 * blocks), 2 * done)
    }
    const infos = options.blockMmInfos
    if (infos !== undefined && infos !== null) {
      for (let block = 0; block < Math.min(count, infos.length); block += 1) {
        const objects = infos[block]?.mmObjects
        if (objects === undefined || objects.length === 0) continue
        const start = block * blockSize
        this.#hashWithObjects(tokens.subarray(start, start + window), objects.map((object) => object.mmHash), seed, hashes, block)
      }
    }
    return hashes
  }

  /** Chained sequence hashes of local hashes. The public chain has the seed 1337. Source: router-algorithm 1.3. */
  sequenceHashes(local: HashList, chainSeed: bigint = publicSeed): HashList {
    const words = local.length & ~1
    const hashes = new Uint32Array(words)
    const base = this.#base >>> 2
    const seedLow = low32(chainSeed)
    const seedHigh = high32(chainSeed)
    for (let done = 0; done < words; done += portionWords) {
      const size = Math.min(portionWords, words - done)
      this.#outAfter(8, 4 * size)
      const at = base + 2
      if (done > 0) this.#words.set(hashes.subarray(done - 2, done), base)
      this.#words.set(size === local.length ? local : local.subarray(done, done + size), at)
      this.#kernel.chainHashes(4 * at, size >>> 1, seedLow, seedHigh, 4 * at, done > 0 ? 1 : 0)
      hashes.set(this.#words.subarray(at, at + size), done)
    }
    return hashes
  }

  /**
   * Local hashes of a prompt and, from them, the chain with `chainSeed`: the same as `localHashes` and then `sequenceHashes`,
   * at little more than the cost of the first. Errors: as `localHashes`.
   */
  promptHashes(tokens: Uint32Array, options: WindowOptions, chainSeed: bigint = publicSeed): PromptHashes {
    const { blockSize, seed, blockMmInfos } = options
    const window = blockSize + (options.isEagle === true ? 1 : 0)
    const count = blockCountOf(tokens.length, options)
    if (count === 0 || window < 5 || window > 32 || (blockMmInfos !== undefined && blockMmInfos !== null) || blockSize * count > portionWords) {
      const local = this.localHashes(tokens, options)
      return { local, sequence: this.sequenceHashes(local, chainSeed) }
    }
    const words = (count - 1) * blockSize + window
    const out = this.#outAfter(4 * words, 16 * count)
    this.#words.set(words === tokens.length ? tokens : tokens.subarray(0, words), this.#base >>> 2)
    const chain = out + 8 * count
    this.#kernel.hashAndChain(
      this.#base, count, 4 * blockSize, 4 * window, low32(seed), high32(seed), out, low32(chainSeed), high32(chainSeed), chain, 0,
    )
    return { local: this.#words.slice(out >>> 2, chain >>> 2), sequence: this.#words.slice(chain >>> 2, (chain >>> 2) + 2 * count) }
  }

  /** A block's window followed by its objects' hashes, ascending, duplicates kept. */
  #hashWithObjects(window: Uint32Array, mmHashes: bigint[], seed: bigint, hashes: HashList, block: number): void {
    mmHashes.sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
    const length = 4 * window.length + 8 * mmHashes.length
    const out = this.#outAfter(length, 8)
    const base = this.#base >>> 2
    this.#words.set(window, base)
    mmHashes.forEach((hash, index) => {
      this.#words[base + window.length + 2 * index] = low32(hash)
      this.#words[base + window.length + 2 * index + 1] = high32(hash)
    })
    this.#kernel.hashWindows(this.#base, 1, 0, length, low32(seed), high32(seed), out)
    hashes[2 * block] = this.#words[out >>> 2] as number
    hashes[2 * block + 1] = this.#words[(out >>> 2) + 1] as number
  }

  /** Makes room for input and output bytes; returns where the output begins. */
  #outAfter(inputBytes: number, outputBytes: number): number {
    const out = (this.#base + inputBytes + 7) & ~7
    const missing = out + outputBytes - this.#bytes.length
    if (missing > 0) {
      this.#kernel.memory.grow(Math.ceil(missing / pageBytes))
      this.#bytes = new Uint8Array(this.#kernel.memory.buffer)
      this.#words = new Uint32Array(this.#kernel.memory.buffer)
    }
    return out
  }
}

let shared: BlockHasher | null = null

/** The hasher of this thread, made when first asked for. */
export function sharedHasher(): BlockHasher {
  shared ??= new BlockHasher()
  return shared
}
