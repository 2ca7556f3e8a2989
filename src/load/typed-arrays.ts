/** Growth of typed arrays: to `count` entries at least, and to twice the old length, so that growing stays cheap. */

/** A longer copy; new entries are 0. */
export function grownInt32(array: Int32Array, count: number): Int32Array<ArrayBuffer> {
  const grown = new Int32Array(Math.max(count, 2 * array.length))
  grown.set(array)
  return grown
}

/** A longer copy; new entries are 0. */
export function grownUint32(array: Uint32Array, count: number): Uint32Array<ArrayBuffer> {
  const grown = new Uint32Array(Math.max(count, 2 * array.length))
  grown.set(array)
  return grown
}

/** A longer copy; new entries are 0. */
export function grownUint8(array: Uint8Array, count: number): Uint8Array<ArrayBuffer> {
  const grown = new Uint8Array(Math.max(count, 2 * array.length))
  grown.set(array)
  return grown
}

/** A longer copy; new entries are 0. */
export function grownFloat64(array: Float64Array, count: number): Float64Array<ArrayBuffer> {
  const grown = new Float64Array(Math.max(count, 2 * array.length))
  grown.set(array)
  return grown
}
