/** The fast index against the plain one: every answer and the whole visible state, on random scripts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { operationOf, ScriptRunner } from './index-script.ts'
import type { ScriptShape } from './index-script.ts'
import { createPrefixIndex } from './prefix-index.ts'
import { ReferenceIndex } from './reference-index.ts'

const shapes: readonly (ScriptShape & { readonly name: string; readonly runs: number; readonly length: number })[] = [
  { name: 'well-formed device events of few ranks', slots: 4, hostile: false, lowerTiers: false, approximate: false, runs: 120, length: 60 },
  { name: 'well-formed events of all tiers', slots: 4, hostile: false, lowerTiers: true, approximate: false, runs: 120, length: 60 },
  { name: 'hostile device events', slots: 3, hostile: true, lowerTiers: false, approximate: false, runs: 200, length: 60 },
  { name: 'hostile events of all tiers with routing decisions', slots: 3, hostile: true, lowerTiers: true, approximate: true, runs: 120, length: 60 },
  { name: 'many ranks', slots: 70, hostile: false, lowerTiers: false, approximate: false, runs: 25, length: 250 },
]

for (const shape of shapes) {
  test(`agrees with the plain index: ${shape.name}`, () => {
    fc.assert(
      fc.property(fc.array(operationOf(shape), { minLength: 1, maxLength: shape.length, size: 'max' }), (operations) => {
        const options = { ttlMs: 500, entriesMax: 1000 }
        const index = createPrefixIndex(options)
        const fast = new ScriptRunner(index)
        const plain = new ScriptRunner(new ReferenceIndex(options))
        for (const operation of operations) assert.equal(fast.run(operation), plain.run(operation))
        assert.equal(fast.state(shape.slots), plain.state(shape.slots))
        for (let slot = 0; slot < shape.slots; slot += 1) index.dropRank(slot)
        assert.deepEqual([index.entryCount, index.recordCount, index.recordedCount], [0, 0, 0])
      }),
      { numRuns: shape.runs },
    )
  })
}
