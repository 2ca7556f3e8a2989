/** How the kernels are timed: medians of samples that are long beside the clock's grain. */

/** The value at `share` of the sorted values, 0.5 the median; no values: NaN. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort()
  const at = (sorted.length - 1) * share
  const low = sorted[Math.floor(at)] ?? Number.NaN
  return low + ((sorted[Math.ceil(at)] ?? Number.NaN) - low) * (at - Math.floor(at))
}

export const median = (values: readonly number[]): number => quantile(values, 0.5)

const nowNs = (): number => Number(process.hrtime.bigint())

/** Nanoseconds that one run of `work` takes on the wall clock. */
export function elapsedNs(work: () => void): number {
  const begin = nowNs()
  work()
  return nowNs() - begin
}

/** Nanoseconds per call: the median of `samples` samples of about `sampleMs` each, after one that is not counted. */
export function nsPerCall(call: () => void, { samples = 9, sampleMs = 20 } = {}): number {
  let calls = 1
  let spentNs = elapsedNs(call)
  while (spentNs < sampleMs * 1e6) {
    calls = spentNs < sampleMs * 1e5 ? calls * 4 : Math.ceil((calls * sampleMs * 1.1e6) / spentNs)
    spentNs = repeat(call, calls)
  }
  return median(Array.from({ length: samples }, () => repeat(call, calls) / calls))
}

function repeat(call: () => void, calls: number): number {
  return elapsedNs(() => {
    for (let index = 0; index < calls; index += 1) call()
  })
}

/** Bytes of the heap and of array buffers in use, after a collection. Needs `--expose-gc`. */
export function liveBytes(): number {
  const collect = (globalThis as { gc?: () => void }).gc
  if (collect === undefined) throw new Error('run with node --expose-gc')
  collect()
  collect()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

/** Even 32-bit words from a seed, for workloads that are the same in every run. */
export function wordsFrom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x9e3779b9) >>> 0
    let word = Math.imul(state ^ (state >>> 16), 0x21f0aaad)
    word = Math.imul(word ^ (word >>> 15), 0x735a2d97)
    return (word ^ (word >>> 15)) >>> 0
  }
}
