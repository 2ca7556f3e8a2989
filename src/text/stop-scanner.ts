/**
 * Finds stop strings in a text that comes in pieces, also when one spans several pieces.
 *
 * The match that ends first wins; of those that end together the one that begins first. Text that could still become
 * a stop string is held back, never more than the longest stop string less one unit.
 */

export interface StopMatch {
  readonly stop: string
}

export interface StopScan {
  /** Text that is free to go, without the matched text unless it is included. */
  readonly text: string
  readonly stopped: StopMatch | null
}

export interface StopScannerOptions {
  /** Gives the matched text too, as `include_stop_str_in_output` asks. */
  readonly includeStop?: boolean
}

const NOTHING: StopScan = { text: '', stopped: null }

/** One per output. Cost: every piece is looked at once, together with what is held back. */
export class StopScanner {
  readonly #stops: readonly string[]
  readonly #includeStop: boolean
  #held = ''
  #done = false

  constructor(stops: readonly string[], options: StopScannerOptions = {}) {
    this.#stops = stops.filter((stop) => stop !== '')
    this.#includeStop = options.includeStop === true
  }

  /** After a match everything further is dropped. */
  push(text: string): StopScan {
    if (this.#done || text === '') return NOTHING
    if (this.#stops.length === 0) return { text, stopped: null }
    const whole = this.#held + text
    const match = this.#firstMatch(whole)
    if (match !== null) {
      this.#done = true
      this.#held = ''
      return { text: whole.slice(0, this.#includeStop ? match.end : match.end - match.stop.length), stopped: { stop: match.stop } }
    }
    const kept = this.#heldLength(whole)
    this.#held = whole.slice(whole.length - kept)
    return { text: whole.slice(0, whole.length - kept), stopped: null }
  }

  /** Releases what was held back: no stop string can complete any more. */
  end(): string {
    const held = this.#done ? '' : this.#held
    this.#held = ''
    this.#done = true
    return held
  }

  #firstMatch(whole: string): { end: number; stop: string } | null {
    let best: { end: number; stop: string } | null = null
    for (const stop of this.#stops) {
      const start = whole.indexOf(stop)
      if (start < 0) continue
      const end = start + stop.length
      if (best === null || end < best.end || (end === best.end && stop.length > best.stop.length)) best = { end, stop }
    }
    return best
  }

  #heldLength(whole: string): number {
    let held = 0
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, whole.length); length > held; length--) {
        if (whole.endsWith(stop.slice(0, length))) {
          held = length
          break
        }
      }
    }
    return held
  }
}
