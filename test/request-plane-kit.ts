/** What the tests of the planes share: a clock, a log that says nothing, waiting on conditions. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Clock, Log } from '../src/ports.ts'

/** The process's own time. */
export const systemClock: Clock = {
  nowMs: () => performance.now(),
  epochMs: () => Date.now(),
  setTimer: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs).unref()
    return { cancel: () => clearTimeout(timer) }
  },
}

/** Says nothing. */
export const silentLog: Log = { debug() {}, info() {}, warn() {}, error() {} }

/** Resolves when the condition holds, asked every `everyMs`. Errors: after 5 s. */
export async function until(condition: () => boolean, everyMs = 2): Promise<void> {
  const end = performance.now() + 5000
  while (!condition()) {
    if (performance.now() > end) throw new Error(`not within 5 s: ${condition.toString()}`)
    await sleep(everyMs)
  }
}
