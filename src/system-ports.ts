/** Clock and chance of the machine, for programs that embed the router. */
import { randomFillSync } from 'node:crypto'
import type { Clock, Random } from './ports.ts'

/** Monotonic and Unix time; timers do not keep the process alive. */
export const systemClock = (): Clock => ({
  nowMs: () => performance.now(),
  epochMs: () => Date.now(),
  setTimer(delayMs, callback) {
    const timer = setTimeout(callback, delayMs)
    timer.unref()
    return { cancel: () => clearTimeout(timer) }
  },
})

const pooledWords = 1024

/** Cryptographic chance, drawn in portions, so that a number costs no system call. */
export function systemRandom(): Random {
  const words = new Uint32Array(pooledWords)
  let next = pooledWords
  const word = (): number => {
    if (next === pooledWords) {
      randomFillSync(words)
      next = 0
    }
    const drawn = words[next]!
    next += 1
    return drawn
  }
  return {
    float: () => ((word() >>> 5) * 67_108_864 + (word() >>> 6)) / 9_007_199_254_740_992,
    u64: () => [word(), word()],
  }
}

/** Both, for `new KvRouter(settings, systemPorts())`. */
export const systemPorts = (): { readonly clock: Clock; readonly random: Random } => ({ clock: systemClock(), random: systemRandom() })
