/** Sets of slots in all their forms, against JavaScript's sets. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { OwnerSets } from './owner-sets.ts'

test('behaves as sets do while sets grow, shrink, are copied and released', () => {
  const operation = fc.record({ kind: fc.constantFrom('add', 'add', 'add', 'remove', 'copy', 'release'), set: fc.nat(3), slot: fc.oneof(fc.nat(12), fc.nat(300)) })
  fc.assert(
    fc.property(fc.array(operation, { minLength: 50, maxLength: 400, size: 'max' }), (operations) => {
      const sets = new OwnerSets()
      const handles = [0, 0, 0, 0]
      const expected = Array.from({ length: 4 }, () => new Set<number>())
      const out = new Uint32Array(400)
      for (const { kind, set, slot } of operations) {
        const handle = handles[set]!
        if (kind === 'add') {
          handles[set] = sets.add(handle, slot)
          expected[set]!.add(slot)
        } else if (kind === 'remove') {
          handles[set] = sets.remove(handle, slot)
          expected[set]!.delete(slot)
        } else {
          sets.release(handle)
          const source = (set + 1) % 4
          handles[set] = kind === 'copy' ? sets.copy(handles[source]!) : 0
          expected[set] = kind === 'copy' ? new Set(expected[source]) : new Set()
        }
        for (const [i, members] of expected.entries()) {
          const count = sets.collect(handles[i]!, out)
          assert.deepEqual([...out.subarray(0, count)].sort((x, y) => x - y), [...members].sort((x, y) => x - y))
          assert.equal(sets.size(handles[i]!), members.size)
          assert.equal(sets.has(handles[i]!, slot), members.has(slot))
          assert.equal(handles[i] === 0, members.size === 0)
        }
      }
    }),
    { numRuns: 30 },
  )
})
