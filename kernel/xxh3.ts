// The block hashing kernel (AssemblyScript): XXH3-64 with seed, over token windows and hash chains in linear memory.
//
// All addresses are bytes in the module's memory; the host writes from `scratchBase()` on and grows the memory itself.
// Source: the XXH3 specification. Little endian throughout, as WebAssembly is.

const P32_1: u64 = 0x9e3779b1
const P32_2: u64 = 0x85ebca77
const P32_3: u64 = 0xc2b2ae3d
const P64_1: u64 = 0x9e3779b185ebca87
const P64_2: u64 = 0xc2b2ae3d27d4eb4f
const P64_3: u64 = 0x165667b19e3779f9
const P64_4: u64 = 0x85ebca77c2b2ae63
const P64_5: u64 = 0x27d4eb2f165667c5

const SECRET: usize = memory.data<u8>([
  0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
  0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
  0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
  0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
  0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
  0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
  0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
  0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
  0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
  0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
  0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
  0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
])
/** The secret for inputs beyond 240 bytes, derived from `seeded`. */
const SEEDED: usize = memory.data(192, 16)
let seeded: u64 = 0
let seededReady: bool = false

/** First free byte of the memory. */
export function scratchBase(): usize {
  return (__heap_base + 15) & ~15
}

// @ts-ignore: decorator
@inline
function fold(a: u64, b: u64): u64 {
  const aLow = a & 0xffffffff
  const aHigh = a >> 32
  const bLow = b & 0xffffffff
  const bHigh = b >> 32
  const middle = aHigh * bLow + ((aLow * bLow) >> 32)
  const middle2 = aLow * bHigh + (middle & 0xffffffff)
  return (a * b) ^ (aHigh * bHigh + (middle >> 32) + (middle2 >> 32))
}

// @ts-ignore: decorator
@inline
function mix(at: usize, secret: usize, seed: u64): u64 {
  return fold(load<u64>(at) ^ (load<u64>(secret) + seed), load<u64>(at, 8) ^ (load<u64>(secret, 8) - seed))
}

// @ts-ignore: decorator
@inline
function avalanche(hash: u64): u64 {
  hash ^= hash >> 37
  hash *= 0x165667919e3779f9
  return hash ^ (hash >> 32)
}

// @ts-ignore: decorator
@inline
function avalanche64(hash: u64): u64 {
  hash ^= hash >> 33
  hash *= P64_2
  hash ^= hash >> 29
  hash *= P64_3
  return hash ^ (hash >> 32)
}

// @ts-ignore: decorator
@inline
function hash9To16(low: u64, high: u64, length: u64, seed: u64): u64 {
  low ^= (load<u64>(SECRET, 24) ^ load<u64>(SECRET, 32)) + seed
  high ^= (load<u64>(SECRET, 40) ^ load<u64>(SECRET, 48)) - seed
  return avalanche(length + bswap<u64>(low) + high + fold(low, high))
}

function hashShort(at: usize, length: usize, seed: u64): u64 {
  if (length > 8) return hash9To16(load<u64>(at), load<u64>(at + length - 8), length, seed)
  if (length >= 4) {
    const turned = seed ^ (<u64>bswap<u32>(<u32>seed) << 32)
    const input = <u64>load<u32>(at + length - 4) + (<u64>load<u32>(at) << 32)
    let hash = input ^ ((load<u64>(SECRET, 8) ^ load<u64>(SECRET, 16)) - turned)
    hash ^= rotl<u64>(hash, 49) ^ rotl<u64>(hash, 24)
    hash *= 0x9fb21c651e98df25
    hash ^= (hash >> 35) + <u64>length
    hash *= 0x9fb21c651e98df25
    return hash ^ (hash >> 28)
  }
  if (length === 0) return avalanche64(seed ^ load<u64>(SECRET, 56) ^ load<u64>(SECRET, 64))
  const combined: u32 =
    (<u32>load<u8>(at) << 16) | (<u32>load<u8>(at + (length >> 1)) << 24) | <u32>load<u8>(at + length - 1) | (<u32>length << 8)
  return avalanche64(<u64>combined ^ (<u64>(load<u32>(SECRET) ^ load<u32>(SECRET, 4)) + seed))
}

// @ts-ignore: decorator
@inline
function hash17To128(at: usize, length: usize, seed: u64): u64 {
  const end = at + length
  let sum: u64 = <u64>length * P64_1 + mix(at, SECRET, seed) + mix(end - 16, SECRET + 16, seed)
  if (length > 32) {
    sum += mix(at + 16, SECRET + 32, seed) + mix(end - 32, SECRET + 48, seed)
    if (length > 64) {
      sum += mix(at + 32, SECRET + 64, seed) + mix(end - 48, SECRET + 80, seed)
      if (length > 96) sum += mix(at + 48, SECRET + 96, seed) + mix(end - 64, SECRET + 112, seed)
    }
  }
  return avalanche(sum)
}

function hash129To240(at: usize, length: usize, seed: u64): u64 {
  let sum: u64 = <u64>length * P64_1
  for (let offset: usize = 0; offset < 128; offset += 16) sum += mix(at + offset, SECRET + offset, seed)
  sum = avalanche(sum)
  for (let offset: usize = 128; offset + 16 <= length; offset += 16) sum += mix(at + offset, SECRET + offset - 125, seed)
  return avalanche(sum + mix(at + length - 16, SECRET + 119, seed))
}

function prepareSecret(seed: u64): void {
  if (seededReady && seeded === seed) return
  for (let offset: usize = 0; offset < 192; offset += 16) {
    store<u64>(SEEDED + offset, load<u64>(SECRET + offset) + seed)
    store<u64>(SEEDED + offset, load<u64>(SECRET + offset, 8) - seed, 8)
  }
  seeded = seed
  seededReady = true
}

/** Two lanes: the data swapped, plus the product of the halves of each keyed lane. */
// @ts-ignore: decorator
@inline
function lanes(sums: v128, data: v128, secret: v128): v128 {
  const key = v128.xor(data, secret)
  const product = i64x2.extmul_low_i32x4_u(v128.shuffle<i32>(key, key, 0, 2, 0, 2), v128.shuffle<i32>(key, key, 1, 3, 1, 3))
  return i64x2.add(i64x2.add(sums, v128.shuffle<i64>(data, data, 1, 0)), product)
}

// @ts-ignore: decorator
@inline
function scramble(sums: v128, secret: v128): v128 {
  return i64x2.mul(v128.xor(v128.xor(sums, i64x2.shr_u(sums, 47)), secret), i64x2.splat(P32_1))
}

// @ts-ignore: decorator
@inline
function merged(sums: v128, secret: usize): u64 {
  return fold(i64x2.extract_lane(sums, 0) ^ load<u64>(secret), i64x2.extract_lane(sums, 1) ^ load<u64>(secret, 8))
}

function hashLong(at: usize, length: usize): u64 {
  let s0 = i64x2.replace_lane(i64x2.splat(P32_3), 1, P64_1)
  let s1 = i64x2.replace_lane(i64x2.splat(P64_2), 1, P64_3)
  let s2 = i64x2.replace_lane(i64x2.splat(P64_4), 1, P32_2)
  let s3 = i64x2.replace_lane(i64x2.splat(P64_5), 1, P32_1)
  // The last stripe is always read from the end of the input.
  const stripes: usize = (length - 1) >> 6
  let position = at
  let secret: usize = SEEDED
  for (let stripe: usize = 0; stripe <= stripes; stripe++) {
    if (stripe === stripes) {
      position = at + length - 64
      secret = SEEDED + 121
    }
    s0 = lanes(s0, v128.load(position), v128.load(secret))
    s1 = lanes(s1, v128.load(position, 16), v128.load(secret, 16))
    s2 = lanes(s2, v128.load(position, 32), v128.load(secret, 32))
    s3 = lanes(s3, v128.load(position, 48), v128.load(secret, 48))
    position += 64
    secret += 8
    if ((stripe & 15) === 15 && stripe !== stripes) {
      s0 = scramble(s0, v128.load(SEEDED, 128))
      s1 = scramble(s1, v128.load(SEEDED, 144))
      s2 = scramble(s2, v128.load(SEEDED, 160))
      s3 = scramble(s3, v128.load(SEEDED, 176))
      secret = SEEDED
    }
  }
  return avalanche(
    <u64>length * P64_1 + merged(s0, SEEDED + 11) + merged(s1, SEEDED + 27) + merged(s2, SEEDED + 43) + merged(s3, SEEDED + 59),
  )
}

// @ts-ignore: decorator
@inline
function join(low: u32, high: u32): u64 {
  return (<u64>high << 32) | <u64>low
}

/** Hashes of `count` windows of `length` bytes, `stride` bytes apart, written as u64 from `out` on. */
export function hashWindows(
  input: usize, count: u32, stride: usize, length: usize, seedLow: u32, seedHigh: u32, out: usize,
): void {
  const seed = join(seedLow, seedHigh)
  const end = out + (<usize>count << 3)
  if (length <= 16) {
    for (; out < end; out += 8, input += stride) store<u64>(out, hashShort(input, length, seed))
  } else if (length <= 128) {
    for (; out < end; out += 8, input += stride) store<u64>(out, hash17To128(input, length, seed))
  } else if (length <= 240) {
    for (; out < end; out += 8, input += stride) store<u64>(out, hash129To240(input, length, seed))
  } else {
    prepareSecret(seed)
    for (; out < end; out += 8, input += stride) store<u64>(out, hashLong(input, length))
  }
}

/**
 * Chains `count` local hashes from `local` on: `S[i] = XXH3(S[i-1] || local[i], seed)`, written from `out` on, which may be `local`.
 * `resume` 0: `S[0] = local[0]`; else the hash before the first one is read at `out - 8`.
 */
export function chainHashes(local: usize, count: u32, seedLow: u32, seedHigh: u32, out: usize, resume: u32): void {
  if (count === 0) return
  const seed = join(seedLow, seedHigh)
  const end = local + (<usize>count << 3)
  let previous: u64
  if (resume !== 0) previous = load<u64>(out - 8)
  else {
    previous = load<u64>(local)
    store<u64>(out, previous)
    local += 8
    out += 8
  }
  for (; local < end; local += 8, out += 8) {
    previous = hash9To16(previous, load<u64>(local), 16, seed)
    store<u64>(out, previous)
  }
}

/**
 * `hashWindows` of windows of 17 to 128 bytes and `chainHashes` in one pass, written from `out` and from `chain` on. A link of
 * the chain waits for the one before; hashing the next window meanwhile costs next to nothing.
 * `resume` 0: the chain begins with the first window's hash; else it goes on from the hash at `chain - 8`.
 */
export function hashAndChain(
  input: usize, count: u32, stride: usize, length: usize, seedLow: u32, seedHigh: u32, out: usize, chainLow: u32, chainHigh: u32, chain: usize, resume: u32,
): void {
  if (count === 0) return
  const seed = join(seedLow, seedHigh)
  const chainSeed = join(chainLow, chainHigh)
  const end = out + (<usize>count << 3)
  let previous: u64
  if (resume !== 0) previous = load<u64>(chain - 8)
  else {
    previous = hash17To128(input, length, seed)
    store<u64>(out, previous)
    store<u64>(chain, previous)
    out += 8
    chain += 8
    input += stride
  }
  if (length === 64) {
    // Blocks of 16 tokens: the seeded secrets stay in registers.
    const k0 = load<u64>(SECRET) + seed, k1 = load<u64>(SECRET, 8) - seed
    const k2 = load<u64>(SECRET, 16) + seed, k3 = load<u64>(SECRET, 24) - seed
    const k4 = load<u64>(SECRET, 32) + seed, k5 = load<u64>(SECRET, 40) - seed
    const k6 = load<u64>(SECRET, 48) + seed, k7 = load<u64>(SECRET, 56) - seed
    for (; out < end; out += 8, chain += 8, input += stride) {
      const local = avalanche(
        64 * P64_1 + fold(load<u64>(input) ^ k0, load<u64>(input, 8) ^ k1) + fold(load<u64>(input, 48) ^ k2, load<u64>(input, 56) ^ k3) +
        fold(load<u64>(input, 16) ^ k4, load<u64>(input, 24) ^ k5) + fold(load<u64>(input, 32) ^ k6, load<u64>(input, 40) ^ k7),
      )
      store<u64>(out, local)
      previous = hash9To16(previous, local, 16, chainSeed)
      store<u64>(chain, previous)
    }
    return
  }
  for (; out < end; out += 8, chain += 8, input += stride) {
    const local = hash17To128(input, length, seed)
    store<u64>(out, local)
    previous = hash9To16(previous, local, 16, chainSeed)
    store<u64>(chain, previous)
  }
}
