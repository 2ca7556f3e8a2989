/**
 * XXH3-64 with seed in plain TypeScript, on bigints: the oracle that the WebAssembly kernel is tested against.
 *
 * Slow on purpose (readable, about 1000 times the kernel's time per block); `block-hasher.ts` is what runs.
 * Source: the XXH3 specification.
 */

const mask64 = (1n << 64n) - 1n
const mask32 = 0xffffffffn
const prime32 = [0x9e3779b1n, 0x85ebca77n, 0xc2b2ae3dn] as const
const prime64 = [
  0x9e3779b185ebca87n, 0xc2b2ae3d27d4eb4fn, 0x165667b19e3779f9n, 0x85ebca77c2b2ae63n, 0x27d4eb2f165667c5n,
] as const

const secretHex =
  'b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221' +
  'b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8' +
  'a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb' +
  '170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e'
const secret = new DataView(Uint8Array.from(secretHex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16)).buffer)

const read64 = (view: DataView, at: number): bigint => view.getBigUint64(at, true)
const read32 = (view: DataView, at: number): bigint => BigInt(view.getUint32(at, true))
const wrap = (value: bigint): bigint => value & mask64
const rotateLeft = (value: bigint, bits: bigint): bigint => wrap(value << bits) | (value >> (64n - bits))

function swapBytes(value: bigint, bytes: number): bigint {
  let result = 0n
  for (let index = 0; index < bytes; index += 1) result = (result << 8n) | ((value >> BigInt(8 * index)) & 0xffn)
  return result
}

/** Low half of the 128-bit product, exclusive-or its high half. */
function fold(a: bigint, b: bigint): bigint {
  const product = a * b
  return (product & mask64) ^ (product >> 64n)
}

function avalanche(hash: bigint): bigint {
  const mixed = wrap((hash ^ (hash >> 37n)) * 0x165667919e3779f9n)
  return mixed ^ (mixed >> 32n)
}

function avalanche64(hash: bigint): bigint {
  let mixed = wrap((hash ^ (hash >> 33n)) * prime64[1])
  mixed = wrap((mixed ^ (mixed >> 29n)) * prime64[2])
  return mixed ^ (mixed >> 32n)
}

function hashUpTo16(input: DataView, seed: bigint): bigint {
  const length = input.byteLength
  if (length === 0) return avalanche64(seed ^ read64(secret, 56) ^ read64(secret, 64))
  if (length < 4) {
    const combined =
      (BigInt(input.getUint8(0)) << 16n) | (BigInt(input.getUint8(length >> 1)) << 24n) |
      BigInt(input.getUint8(length - 1)) | (BigInt(length) << 8n)
    return avalanche64(combined ^ wrap((read32(secret, 0) ^ read32(secret, 4)) + seed))
  }
  if (length <= 8) {
    const turned = seed ^ (swapBytes(seed & mask32, 4) << 32n)
    const keyed = (read32(input, length - 4) | (read32(input, 0) << 32n)) ^ wrap((read64(secret, 8) ^ read64(secret, 16)) - turned)
    let hash = wrap((keyed ^ rotateLeft(keyed, 49n) ^ rotateLeft(keyed, 24n)) * 0x9fb21c651e98df25n)
    hash = wrap((hash ^ ((hash >> 35n) + BigInt(length))) * 0x9fb21c651e98df25n)
    return hash ^ (hash >> 28n)
  }
  const low = read64(input, 0) ^ wrap((read64(secret, 24) ^ read64(secret, 32)) + seed)
  const high = read64(input, length - 8) ^ wrap((read64(secret, 40) ^ read64(secret, 48)) - seed)
  return avalanche(wrap(BigInt(length) + swapBytes(low, 8) + high + fold(low, high)))
}

function hashUpTo240(input: DataView, seed: bigint): bigint {
  const length = input.byteLength
  const mix = (at: number, secretAt: number): bigint =>
    fold(read64(input, at) ^ wrap(read64(secret, secretAt) + seed), read64(input, at + 8) ^ wrap(read64(secret, secretAt + 8) - seed))
  let sum = BigInt(length) * prime64[0]
  if (length <= 128) {
    // Pairs of 16 bytes from both ends towards the middle.
    for (let pair = 0; pair <= (length - 1) >> 5; pair += 1) sum += mix(16 * pair, 32 * pair) + mix(length - 16 * (pair + 1), 32 * pair + 16)
    return avalanche(wrap(sum))
  }
  for (let at = 0; at < 128; at += 16) sum += mix(at, at)
  sum = avalanche(wrap(sum))
  for (let at = 128; at + 16 <= length; at += 16) sum += mix(at, at - 125)
  return avalanche(wrap(sum + mix(length - 16, 119)))
}

function hashLong(input: DataView, seed: bigint): bigint {
  const length = input.byteLength
  const seeded = new DataView(new ArrayBuffer(192))
  for (let at = 0; at < 192; at += 16) {
    seeded.setBigUint64(at, wrap(read64(secret, at) + seed), true)
    seeded.setBigUint64(at + 8, wrap(read64(secret, at + 8) - seed), true)
  }
  const sums = [prime32[2], prime64[0], prime64[1], prime64[2], prime64[3], prime32[1], prime64[4], prime32[0]] as bigint[]
  const accumulate = (at: number, secretAt: number): void => {
    for (let lane = 0; lane < 8; lane += 1) {
      const data = read64(input, at + 8 * lane)
      const key = data ^ read64(seeded, secretAt + 8 * lane)
      sums[lane ^ 1] = wrap((sums[lane ^ 1] as bigint) + data)
      sums[lane] = wrap((sums[lane] as bigint) + (key & mask32) * (key >> 32n))
    }
  }
  const stripes = Math.floor((length - 1) / 64)
  for (let stripe = 0; stripe < stripes; stripe += 1) {
    accumulate(64 * stripe, 8 * (stripe % 16))
    if (stripe % 16 !== 15) continue
    for (let lane = 0; lane < 8; lane += 1) {
      const sum = sums[lane] as bigint
      sums[lane] = wrap((sum ^ (sum >> 47n) ^ read64(seeded, 128 + 8 * lane)) * prime32[0])
    }
  }
  accumulate(length - 64, 121)
  let hash = BigInt(length) * prime64[0]
  for (let lane = 0; lane < 8; lane += 2) {
    hash += fold((sums[lane] as bigint) ^ read64(seeded, 11 + 8 * lane), (sums[lane + 1] as bigint) ^ read64(seeded, 19 + 8 * lane))
  }
  return avalanche(wrap(hash))
}

/** XXH3-64 of `bytes` with a u64 seed. */
export function xxh3(bytes: Uint8Array, seed: bigint): bigint {
  const input = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (bytes.length <= 16) return hashUpTo16(input, seed)
  return bytes.length <= 240 ? hashUpTo240(input, seed) : hashLong(input, seed)
}
