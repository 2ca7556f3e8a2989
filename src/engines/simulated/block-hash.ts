/**
 * The simulated engine's own block hashes: opaque to everybody else, as those of real engines are.
 *
 * Routers learn content from the tokens in the events; these only name blocks.
 */

const rotate = (value: number, bits: number): number => (value << bits) | (value >>> (32 - bits))

function mix(state: number, word: number): number {
  const scrambled = Math.imul(rotate(Math.imul(word, 0xcc9e2d51), 15), 0x1b873593)
  return (Math.imul(rotate(state ^ scrambled, 13), 5) + 0xe6546b64) | 0
}

function finish(state: number): number {
  let value = state ^ (state >>> 16)
  value = Math.imul(value, 0x85ebca6b)
  value ^= value >>> 13
  value = Math.imul(value, 0xc2b2ae35)
  return (value ^ (value >>> 16)) >>> 0
}

/** Hash of the root of a chain: depends on the engine's seed and on what separates caches (LoRA name, cache salt). */
export function rootHash(seed: number, separators: readonly string[]): bigint {
  const words = separators.flatMap((text) => [text.length, ...Array.from(text, (character) => character.codePointAt(0) ?? 0)])
  return chain(words, 0, words.length, BigInt(seed))
}

/** Hash of the block `tokens[start, start + length)` below `parent`. u64. */
export const blockHash = (parent: bigint, tokens: ArrayLike<number>, start: number, length: number): bigint => chain(tokens, start, length, parent)

function chain(words: ArrayLike<number>, start: number, length: number, parent: bigint): bigint {
  const low = Number(parent & 0xffffffffn)
  const high = Number(parent >> 32n)
  let first = mix(mix(0x9747b28c, low), high)
  let second = mix(mix(0x3c074a61, high), low)
  for (let index = start; index < start + length; index += 1) {
    const word = words[index] ?? 0
    first = mix(first, word)
    second = mix(second, word ^ first)
  }
  return (BigInt(finish(first ^ length)) << 32n) | BigInt(finish(second ^ length))
}

/** One reproducible u32 of a sequence hash and an index: the source of output tokens. */
export function drawAt(hash: bigint, index: number): number {
  return finish(mix(mix(mix(0x2545f491, Number(hash & 0xffffffffn)), Number(hash >> 32n)), index))
}
