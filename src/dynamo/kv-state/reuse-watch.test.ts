/** Goal: a shortfall leads to a question at once, false alarms to ever fewer, and a rank that cannot be asked loses its blocks only for misses in a row. */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { test } from 'node:test'
import { ReuseWatch } from './reuse-watch.ts'

const report = (expectedTokens: number, reportedTokens: number) => ({ expectedTokens, reportedTokens, blockSize: 16 })

test('the first shortfall asks for the tail, the next for all, ever more rarely', () => {
  const watch = new ReuseWatch()
  const steps: [number, string][] = []
  for (let nowMs = 0; nowMs <= 80_000; nowMs += 1000) {
    const step = watch.take(report(64, 0), nowMs, true)
    if (step !== 'none') steps.push([nowMs, step])
  }
  assert.deepEqual(steps, [[0, 'tail'], [5000, 'dump'], [15_000, 'tail'], [35_000, 'dump'], [75_000, 'tail']])
})

test('less than a block is no shortfall, and an answer as expected ends the row', () => {
  const watch = new ReuseWatch()
  assert.equal(watch.take(report(64, 48), 0, true), 'none')
  assert.equal(watch.take(report(64, 47), 0, true), 'tail')
  assert.equal(watch.take(report(64, 64), 1000, true), 'none')
  assert.equal(watch.take(report(64, 0), 5000, true), 'tail')
})

test('what a question finds lets the next sign count soon', () => {
  const watch = new ReuseWatch()
  assert.equal(watch.take(report(64, 0), 0, true), 'tail')
  assert.equal(watch.take(report(64, 0), 1, true), 'none')
  watch.found()
  assert.equal(watch.take(report(64, 0), 999, true), 'none')
  assert.equal(watch.take(report(64, 0), 1000, true), 'tail')
})

test('who cannot be asked loses its blocks for three misses in a row, if it has ever told of a hit', () => {
  const silent = new ReuseWatch()
  for (let count = 0; count < 20; count += 1) assert.equal(silent.take(report(64, 0), count, false), 'none', 'an engine that never reports')
  const watch = new ReuseWatch()
  const steps = [report(64, 64), report(64, 0), report(64, 0), report(64, 16), report(64, 0), report(64, 0), report(64, 0), report(64, 0)].map((each) => watch.take(each, 0, false))
  assert.deepEqual(steps, ['none', 'none', 'none', 'none', 'none', 'none', 'lose', 'none'])
})

test('whatever is reported, questions stay rare', () => {
  fc.assert(fc.property(fc.array(fc.tuple(fc.nat(2000), fc.nat(2000), fc.nat(500)), { maxLength: 300 }), (answers) => {
    const watch = new ReuseWatch()
    let [nowMs, asked] = [0, 0]
    for (const [expected, reported, afterMs] of answers) {
      nowMs += afterMs
      const step = watch.take(report(expected, reported), nowMs, true)
      assert.notEqual(step, 'lose')
      if (step !== 'none') asked += 1
    }
    assert.ok(asked <= 1 + nowMs / 5000)
  }))
})
