/** Looking for markers in text that comes in pieces. */

/** Length of the longest end of `text` that may still become one of `markers`. */
export function heldLength(text: string, markers: readonly string[]): number {
  let held = 0
  for (const marker of markers) {
    for (let length = Math.min(marker.length - 1, text.length); length > held; length -= 1) {
      if (text.endsWith(marker.slice(0, length))) {
        held = length
        break
      }
    }
  }
  return held
}

export interface Found {
  readonly at: number
  readonly marker: string
}

/** The marker that begins first; of those that begin together the longest. */
export function firstOf(text: string, markers: readonly string[]): Found | null {
  let best: Found | null = null
  for (const marker of markers) {
    const at = text.indexOf(marker)
    if (at >= 0 && (best === null || at < best.at || (at === best.at && marker.length > best.marker.length))) best = { at, marker }
  }
  return best
}

/** A marker that begins at `at` may still grow into a longer one that begins there, too. */
export const mayGrow = (text: string, found: Found, markers: readonly string[]): boolean =>
  markers.some((marker) => marker.length > text.length - found.at && marker.length > found.marker.length && marker.startsWith(text.slice(found.at)))

export const isBlank = (text: string): boolean => text.trim() === ''
