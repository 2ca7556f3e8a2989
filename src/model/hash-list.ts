/**
 * Lists of 64-bit hashes as interleaved 32-bit halves.
 *
 * Every list of block or sequence hashes in the project has this one shape, so that no bigint or object is made per block.
 */

/**
 * `n` 64-bit hashes in a `Uint32Array` of `2 n` words: word `2 i` is the low half of hash `i`, word `2 i + 1` the high half.
 *
 * Shape: on little-endian machines the same bytes are a `BigUint64Array`.
 */
export type HashList = Uint32Array

/** The number of hashes in a list. */
export const hashCount = (hashes: HashList): number => hashes.length >>> 1

/** Hash `index` as a bigint; for edges and tests, not for hot code. */
export function hashAt(hashes: HashList, index: number): bigint {
  const low = hashes[2 * index]
  const high = hashes[2 * index + 1]
  if (low === undefined || high === undefined) throw new RangeError(`hash ${index} of ${hashCount(hashes)}`)
  return (BigInt(high) << 32n) | BigInt(low)
}

/** A list of the given u64 values; negative values are taken as two's complement. */
export function hashListOf(values: Iterable<bigint>): HashList {
  const words: number[] = []
  for (const value of values) words.push(Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn))
  return Uint32Array.from(words)
}

/** All hashes of a list as bigints; for edges and tests. */
export const hashesToBigints = (hashes: HashList): bigint[] =>
  Array.from({ length: hashCount(hashes) }, (_, index) => hashAt(hashes, index))

/** The empty list. */
export const noHashes: HashList = new Uint32Array(0)
