/** The stop scanner against an oracle that sees the whole text at once. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { StopScanner } from './stop-scanner.ts'

/** The match that ends first; of several the one that begins first. */
function oracle(text: string, stops: readonly string[], includeStop: boolean): { text: string; stop: string | null } {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => stop !== '' && text.slice(0, end).endsWith(stop)).toSorted((a, b) => b.length - a.length)[0]
    if (found !== undefined) return { text: text.slice(0, includeStop ? end : end - found.length), stop: found }
  }
  return { text, stop: null }
}

const LETTERS = fc.array(fc.constantFrom('a', 'b', 'c', '\n', '😀'), { maxLength: 30 }).map((letters) => letters.join(''))
const STOPS = fc.array(fc.array(fc.constantFrom('a', 'b', '\n', '😀'), { maxLength: 4 }).map((letters) => letters.join('')), { maxLength: 4 })
const CUTS = fc.array(fc.nat({ max: 5 }), { maxLength: 40 })

/** Pieces of whole characters, as a detokenizer gives them; some are empty. */
function cut(text: string, sizes: readonly number[]): string[] {
  const characters = [...text]
  const parts: string[] = []
  for (const size of sizes) parts.push(characters.splice(0, size).join(''))
  parts.push(characters.join(''))
  return parts
}

test('pieces stop where the whole text stops, with the same text', () => {
  fc.assert(
    fc.property(LETTERS, STOPS, CUTS, fc.boolean(), (text, stops, sizes, includeStop) => {
      const scanner = new StopScanner(stops, { includeStop })
      let released = ''
      let stop: string | null = null
      let pushed = ''
      const longest = Math.max(0, ...stops.map((each) => each.length))
      for (const part of cut(text, sizes)) {
        const scan = scanner.push(part)
        pushed += part
        released += scan.text
        if (scan.stopped !== null) {
          assert.equal(stop, null, 'stops once')
          stop = scan.stopped.stop
        }
        if (stop === null) assert.ok(pushed.length - released.length < Math.max(1, longest), 'holds back less than a stop string')
      }
      released += scanner.end()
      assert.deepEqual({ text: released, stop }, oracle(text, stops, includeStop))
    }),
    { numRuns: 2_000 },
  )
})

test('what cannot become a stop string is released at once', () => {
  const scanner = new StopScanner(['</end>'])
  assert.deepEqual(scanner.push('a <'), { text: 'a ', stopped: null })
  assert.deepEqual(scanner.push('b'), { text: '<b', stopped: null })
  assert.deepEqual(scanner.push('</en'), { text: '', stopped: null })
  assert.deepEqual(scanner.push('d>after'), { text: '', stopped: { stop: '</end>' } })
  assert.deepEqual(scanner.push('more'), { text: '', stopped: null })
  assert.equal(scanner.end(), '')
})

test('without stop strings everything passes', () => {
  const scanner = new StopScanner([''])
  assert.deepEqual(scanner.push('text'), { text: 'text', stopped: null })
  assert.equal(scanner.end(), '')
})
