/** The router against its oracle: ten thousand random operations; `npm run test:long` runs a million. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runRandomOperations } from './random-operations.ts'

test('ten thousand random operations give the answers of the plain router', () => {
  const counts = runRandomOperations(20_260_101, 10_000)
  // The run means something only if much of it was decided, warm, tied and refused.
  assert.equal(counts.operations, 10_000)
  assert.ok(counts.decisions > 2_500 && counts.warm > 300 && counts.ties > 300 && counts.refusals > 50, JSON.stringify(counts))
})
