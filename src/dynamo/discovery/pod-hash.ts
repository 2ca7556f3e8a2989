/** Instance ids in Kubernetes: a hash of the resource's name, so that everybody finds the same. */

const mask = 0xffff_ffff_ffff_ffffn
const rotate = (value: bigint, bits: bigint): bigint => ((value << bits) | (value >> (64n - bits))) & mask

/** SipHash-1-3 with key 0. Source: Rust's default hasher. */
function sipHash13(bytes: Uint8Array): bigint {
  let v0 = 0x736f6d6570736575n
  let v1 = 0x646f72616e646f6dn
  let v2 = 0x6c7967656e657261n
  let v3 = 0x7465646279746573n
  const round = (): void => {
    v0 = (v0 + v1) & mask
    v1 = rotate(v1, 13n) ^ v0
    v0 = rotate(v0, 32n)
    v2 = (v2 + v3) & mask
    v3 = rotate(v3, 16n) ^ v2
    v0 = (v0 + v3) & mask
    v3 = rotate(v3, 21n) ^ v0
    v2 = (v2 + v1) & mask
    v1 = rotate(v1, 17n) ^ v2
    v2 = rotate(v2, 32n)
  }
  const padded = new Uint8Array((bytes.length & ~7) + 8)
  padded.set(bytes)
  padded[padded.length - 1] = bytes.length & 0xff
  const view = new DataView(padded.buffer)
  for (let offset = 0; offset < padded.length; offset += 8) {
    const word = view.getBigUint64(offset, true)
    v3 ^= word
    round()
    v0 ^= word
  }
  v2 ^= 0xffn
  for (let last = 0; last < 3; last += 1) round()
  return v0 ^ v1 ^ v2 ^ v3
}

/** 53 bits, so that it is exact in any JSON. `name`: of the custom resource. */
export const instanceIdOfName = (name: string): bigint => sipHash13(Uint8Array.of(...new TextEncoder().encode(name), 0xff)) & 0x1f_ffff_ffff_ffffn
