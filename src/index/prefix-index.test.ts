/** The fast index against the plain one: every answer and the whole visible state, on random scripts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import type { StorageTier } from '../model/kv-event.ts'
import { ScriptRunner } from './index-script.ts'
import type { IndexOperation } from './index-script.ts'
import { createPrefixIndex } from './prefix-index.ts'
import { ReferenceIndex } from './reference-index.ts'

interface ScriptShape {
  readonly slots: number
  /** Also events that no correct engine sends: names used twice, unknown parents, contradictions. */
  readonly hostile: boolean
  readonly lowerTiers: boolean
  readonly approximate: boolean
}

/** One operation of a script of this shape. */
function operationOf(shape: ScriptShape): fc.Arbitrary<IndexOperation> {
  const slot = fc.nat(shape.slots - 1)
  const tier: fc.Arbitrary<StorageTier> = shape.lowerTiers
    ? fc.oneof({ weight: 3, arbitrary: fc.constant<StorageTier>('device') }, { weight: 2, arbitrary: fc.constantFrom<StorageTier>('host_pinned', 'disk', 'external') })
    : fc.constant('device')
  const content = fc.array(fc.nat(2), { minLength: 1, maxLength: 7 })
  const name = fc.nat(9)
  const choices: fc.WeightedArbitrary<IndexOperation>[] = [
    { weight: 6, arbitrary: fc.record({ op: fc.constant('chain' as const), slot, tier, content, from: fc.oneof(fc.constant(0), fc.nat(5)) }) },
    { weight: 4, arbitrary: fc.record({ op: fc.constant('evict' as const), slot, tier, content, positions: fc.array(fc.nat(6), { minLength: 1, maxLength: 4 }) }) },
    { weight: 4, arbitrary: fc.record({ op: fc.constant('find' as const), content }) },
    { weight: 1, arbitrary: fc.record({ op: fc.constantFrom('cleared' as const, 'drop' as const), slot }) },
  ]
  if (shape.hostile) {
    const blocks = fc.array(fc.tuple(fc.nat(2), name), { maxLength: 5 })
    choices.push(
      { weight: 6, arbitrary: fc.record({ op: fc.constant('stored' as const), slot, tier, parent: fc.oneof(fc.constant(null), name), blocks }) },
      { weight: 5, arbitrary: fc.record({ op: fc.constant('removed' as const), slot, tier, names: fc.array(name, { maxLength: 4 }) }) },
    )
  }
  if (shape.approximate) {
    choices.push(
      { weight: 3, arbitrary: fc.record({ op: fc.constant('record' as const), slot, content, afterMs: fc.nat(400) }) },
      { weight: 2, arbitrary: fc.record({ op: fc.constant('expire' as const), afterMs: fc.nat(700) }) },
      { weight: 1, arbitrary: fc.record({ op: fc.constant('prune' as const), count: fc.nat(12) }) },
    )
  }
  return fc.oneof(...choices)
}

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
