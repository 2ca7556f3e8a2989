/** Goal: the kernel and the plain oracle agree on every length, seed and window, and both on values of the real software. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import fc from 'fast-check'
import { repoRoot } from '../../test/repo-root.ts'
import { hashesToBigints, hashListOf } from '../model/hash-list.ts'
import type { BlockMmInfo } from '../model/kv-event.ts'
import { BlockHasher, blockCountOf, publicSeed, sharedHasher } from './block-hasher.ts'
import { localBlockHashes, saltSeed, sequenceHashes } from './block-hashes.ts'
import { xxh3 } from './xxh3.ts'

const u64 = fc.bigInt(0n, (1n << 64n) - 1n)
const bytesOf = (length: number): Uint8Array => Uint8Array.from({ length }, (_, index) => (index * 2654435761) >>> 13)
const counting = (length: number): Uint32Array => Uint32Array.from({ length }, (_, index) => index + 1)

/** Local hashes by their definition, with the oracle. */
function expectedLocal(tokens: Uint32Array, blockSize: number, isEagle: boolean, seed: bigint, infos: readonly (BlockMmInfo | null)[]): bigint[] {
  const hashes: bigint[] = []
  const window = isEagle ? blockSize + 1 : blockSize
  for (let start = 0; blockSize > 0 && start + window <= tokens.length; start += blockSize) {
    const objects = (infos[hashes.length]?.mmObjects ?? []).map((object) => object.mmHash).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
    const bytes = new DataView(new ArrayBuffer(4 * window + 8 * objects.length))
    tokens.subarray(start, start + window).forEach((token, index) => bytes.setUint32(4 * index, token, true))
    objects.forEach((hash, index) => bytes.setBigUint64(4 * window + 8 * index, hash, true))
    hashes.push(xxh3(new Uint8Array(bytes.buffer), seed))
  }
  return hashes
}

function expectedChain(local: readonly bigint[], seed: bigint): bigint[] {
  const chain: bigint[] = []
  for (const hash of local) {
    const previous = chain.at(-1)
    if (previous === undefined) { chain.push(hash); continue }
    const pair = new DataView(new ArrayBuffer(16))
    pair.setBigUint64(0, previous, true)
    pair.setBigUint64(8, hash, true)
    chain.push(xxh3(new Uint8Array(pair.buffer), seed))
  }
  return chain
}

test('the worked example of the real software', () => {
  const options = { blockSize: 4 }
  const local = localBlockHashes(counting(16), options)
  assert.deepEqual(hashesToBigints(local), [14643705804678351452n, 16777012769546811212n, 483935686894639516n, 135165725823939817n])
  assert.deepEqual(hashesToBigints(sequenceHashes(local)), [14643705804678351452n, 4945711292740353085n, 12583592247330656132n, 1921452330601040443n])
  assert.equal(saltSeed({ loraName: 'adapter-a', cacheNamespace: 'tenant-b' }), 6947401687307629528n)
  assert.equal(saltSeed({ loraName: '', cacheNamespace: null }), publicSeed)
  const withObjects = localBlockHashes(counting(16), { ...options, blockMmInfos: [null, { mmObjects: [{ mmHash: 7n, offsets: [] }, { mmHash: 3n, offsets: [] }] }] })
  assert.equal(hashesToBigints(withObjects)[1], 1165643180200632221n)
})

test('kernel and oracle agree on all lengths to 1100 and around the block borders of long inputs', () => {
  const hasher = new BlockHasher()
  const lengths = [...Array.from({ length: 300 }, (_, index) => index), ...Array.from({ length: 40 }, (_, index) => 300 + 21 * index), 1023, 1024, 1025, 1087, 1088, 1089, 2048, 2049, 3000, 4097]
  for (const length of lengths) {
    for (const seed of [0n, publicSeed, 0x9e3779b185ebca87n]) {
      assert.equal(hasher.hashBytes(bytesOf(length), seed), xxh3(bytesOf(length), seed), `length ${length}, seed ${seed}`)
    }
  }
})

test('local and sequence hashes equal their definition for any prompt', () => {
  const info = fc.option(fc.array(u64, { maxLength: 4 }).map((hashes): BlockMmInfo => ({ mmObjects: hashes.map((mmHash) => ({ mmHash, offsets: [] })) })))
  fc.assert(fc.property(
    fc.uint32Array({ maxLength: 400 }), fc.integer({ min: 0, max: 90 }), fc.boolean(), u64, u64, fc.array(info, { maxLength: 6 }),
    (tokens, blockSize, isEagle, seed, chainSeed, blockMmInfos) => {
      const hasher = sharedHasher()
      const local = hasher.localHashes(tokens, { blockSize, isEagle, seed, blockMmInfos })
      const expected = expectedLocal(tokens, blockSize, isEagle, seed, blockMmInfos)
      assert.deepEqual(hashesToBigints(local), expected)
      assert.equal(blockCountOf(tokens.length, { blockSize, isEagle }), expected.length)
      assert.deepEqual(hashesToBigints(hasher.sequenceHashes(local, chainSeed)), expectedChain(expected, chainSeed))
    },
  ), { numRuns: 150 })
})

test('prompts longer than a portion hash as their pieces do', () => {
  const hasher = new BlockHasher()
  const tokens = counting(300_001)
  for (const [blockSize, isEagle] of [[1, false], [3, true], [64, false], [200_000, true]] as const) {
    const options = { blockSize, isEagle, seed: publicSeed }
    const local = hasher.localHashes(tokens, options)
    const count = blockCountOf(tokens.length, options)
    assert.equal(local.length, 2 * count)
    for (const block of [0, Math.floor(count / 2), Math.floor(131072 / blockSize), count - 1]) {
      if (block >= count) continue
      const window = tokens.subarray(block * blockSize, block * blockSize + blockSize + (isEagle ? 1 : 0))
      assert.deepEqual(hasher.localHashes(window, options), local.slice(2 * block, 2 * block + 2))
    }
    const chain = hasher.sequenceHashes(local)
    for (let block = Math.max(1, count - 3); block < count; block += 1) {
      const pair = hashListOf([...hashesToBigints(chain.subarray(2 * block - 2, 2 * block)), ...hashesToBigints(local.subarray(2 * block, 2 * block + 2))])
      assert.deepEqual(hasher.sequenceHashes(pair).subarray(2), chain.subarray(2 * block, 2 * block + 2))
    }
    const middle = 2 * 65536
    if (chain.length > middle + 2) {
      const pair = Uint32Array.of(...chain.subarray(middle - 2, middle), ...local.subarray(middle, middle + 2))
      assert.deepEqual(hasher.sequenceHashes(pair).subarray(2), chain.subarray(middle, middle + 2))
    }
  }
  assert.throws(() => hasher.localHashes(tokens, { blockSize: 1.5, seed: 0n }), /blockSize 1.5/)
  assert.throws(() => hasher.localHashes(tokens, { blockSize: -1, seed: 0n }), RangeError)
})

test('one pass over a prompt gives the hashes of two', () => {
  fc.assert(fc.property(fc.uint32Array({ maxLength: 500 }), fc.integer({ min: 0, max: 40 }), fc.boolean(), u64, u64, (tokens, blockSize, isEagle, seed, chainSeed) => {
    const hasher = sharedHasher()
    const local = hasher.localHashes(tokens, { blockSize, isEagle, seed })
    assert.deepEqual(hasher.promptHashes(tokens, { blockSize, isEagle, seed }, chainSeed), { local, sequence: hasher.sequenceHashes(local, chainSeed) })
  }))
  const long = Uint32Array.from({ length: 300_001 }, (_, index) => index)
  const local = localBlockHashes(long, { blockSize: 16 })
  assert.deepEqual(sharedHasher().promptHashes(long, { blockSize: 16, seed: publicSeed }), { local, sequence: sequenceHashes(local) })
})

test('the committed kernel bytes are what the source compiles to', async (t) => {
  if (!existsSync(join(repoRoot, 'kernel', 'node_modules', 'assemblyscript'))) {
    t.diagnostic('not compared: the compiler is not installed (npm ci in kernel/)')
    return
  }
  interface Kernel { readonly source: string; readonly target: string }
  const build = (await import(pathToFileURL(join(repoRoot, 'kernel', 'build.mjs')).href)) as {
    readonly kernels: readonly Kernel[]
    compile(kernel: Kernel): Promise<Uint8Array>
    moduleText(binary: Uint8Array, kernel: Kernel): string
  }
  for (const kernel of build.kernels) {
    assert.equal(build.moduleText(await build.compile(kernel), kernel), readFileSync(kernel.target, 'utf8'), kernel.source)
  }
})
