import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { bypassVerdict, conditionalPolicies, netNewTokens, parseConditionalDisagg, type BypassFacts, type ConditionalDisagg } from './conditional.ts'

const rulesOf = (text: string | null, queueThreshold: number | null = null): ConditionalDisagg => {
  const parsed = parseConditionalDisagg(text, queueThreshold)
  assert.ok(parsed.kind === 'rules', parsed.kind === 'problem' ? parsed.problem : '')
  return parsed.rules
}
const problemOf = (text: string, queueThreshold: number | null = null): string => {
  const parsed = parseConditionalDisagg(text, queueThreshold)
  return parsed.kind === 'problem' ? parsed.problem : 'accepted'
}
const facts = (more: Partial<BypassFacts> = {}): BypassFacts =>
  ({ promptTokens: 1404, cachedTokens: 1392, decodeBlocks: 88, decodeTotalBlocks: 1000, prefillLoad: () => null, ...more })

test('defaults and what may be given', () => {
  assert.deepEqual(rulesOf(null), { policy: 'isl_bounding', effIslThreshold: 2048, effIslRatioThreshold: 0.7, prefillBusyThreshold: null, decodeBusyThreshold: null })
  assert.deepEqual(rulesOf('{"policy":"isl_or_load","eff_isl_threshold":64,"eff_isl_ratio_threshold":0.5,"prefill_busy_threshold":0,"decode_busy_threshold":2}'), {
    policy: 'isl_or_load', effIslThreshold: 64, effIslRatioThreshold: 0.5, prefillBusyThreshold: 0, decodeBusyThreshold: 2,
  })
  assert.equal(rulesOf('{"policy":"prefill_load"}', 1.5).prefillBusyThreshold, 1.5)
  assert.equal(rulesOf('{"policy":"prefill_load","prefill_busy_threshold":0.5}', 1.5).prefillBusyThreshold, 0.5)
})

test('a mistake is named with its field, value and mend', () => {
  assert.match(problemOf('{"bogus":1}'), /unknown field "bogus"; the fields are policy, /)
  assert.match(problemOf('x'), /not JSON/)
  for (const text of ['[1]', '1', 'null']) assert.match(problemOf(text), /JSON object/)
  assert.match(problemOf('{"policy":"foo"}'), /policy is "foo"; expected one of isl_bounding, prefill_load, isl_or_load/)
  for (const text of ['"x"', '1.5', '-1', 'null']) assert.match(problemOf(`{"eff_isl_threshold":${text}}`), /eff_isl_threshold is .*; expected a whole number of 0 or more/)
  assert.match(problemOf('{"eff_isl_ratio_threshold":2}'), /eff_isl_ratio_threshold is 2; expected a number from 0 to 1/)
  assert.match(problemOf('{"decode_busy_threshold":-1}'), /decode_busy_threshold is -1; expected a number of 0 or more, or null/)
  for (const policy of ['prefill_load', 'isl_or_load']) assert.match(problemOf(`{"policy":"${policy}"}`), /needs prefill_busy_threshold/)
})

test('isl_bounding: few uncached tokens and a small share of them', () => {
  const rules = rulesOf('{"eff_isl_threshold":64}')
  assert.deepEqual(bypassVerdict(rules, facts()), { bypass: true, reason: 'cached' })
  assert.deepEqual(bypassVerdict(rules, facts({ promptTokens: 8, cachedTokens: 0 })), { bypass: false, reason: 'policy' })
  assert.equal(bypassVerdict(rules, facts({ promptTokens: 1000, cachedTokens: 936 })).bypass, false)
  assert.equal(bypassVerdict(rules, facts({ promptTokens: 1000, cachedTokens: 937 })).bypass, true)
  assert.equal(bypassVerdict(rules, facts({ promptTokens: 10, cachedTokens: 400 })).bypass, true)
})

test('prefill_load and isl_or_load: the prefill worker has more than its share of work', () => {
  const busy = { prefillLoad: () => ({ activeTokens: 101, maxBatchTokens: 100 }) }
  const cold = facts({ cachedTokens: 0, ...busy })
  const load = rulesOf('{"policy":"prefill_load","prefill_busy_threshold":1}')
  assert.deepEqual(bypassVerdict(load, cold), { bypass: true, reason: 'prefill_busy' })
  assert.equal(bypassVerdict(load, facts({ prefillLoad: () => ({ activeTokens: 100, maxBatchTokens: 100 }) })).bypass, false)
  assert.equal(bypassVerdict(load, facts({ prefillLoad: () => ({ activeTokens: 9_999_999, maxBatchTokens: null }) })).bypass, false)
  assert.equal(bypassVerdict(load, facts()).bypass, false, 'no prefill worker would be chosen')
  const either = rulesOf('{"policy":"isl_or_load","prefill_busy_threshold":1}')
  assert.deepEqual(bypassVerdict(either, cold), { bypass: true, reason: 'prefill_busy' })
  assert.deepEqual(bypassVerdict(either, facts()), { bypass: true, reason: 'cached' })
  assert.equal(bypassVerdict(either, facts({ cachedTokens: 0 })).bypass, false)
})

test('a decode worker that is busy, or of which too little is known, takes no prompts', () => {
  const rules = rulesOf('{"decode_busy_threshold":0.1}')
  assert.equal(bypassVerdict(rules, facts({ decodeBlocks: 100 })).bypass, true)
  assert.deepEqual(bypassVerdict(rules, facts({ decodeBlocks: 101 })), { bypass: false, reason: 'decode_busy' })
  assert.deepEqual(bypassVerdict(rules, facts({ decodeTotalBlocks: null })), { bypass: false, reason: 'decode_unknown' })
  assert.deepEqual(bypassVerdict(rules, facts({ cachedTokens: 0, decodeBlocks: 101 })), { bypass: false, reason: 'policy' })
})

test('laws: more cached never stops a bypass, and a threshold of 0 lets nothing pass by cache', () => {
  const count = fc.nat(5000)
  fc.assert(fc.property(fc.constantFrom(...conditionalPolicies), count, count, count, count, fc.double({ min: 0, max: 1, noNaN: true }), (policy, promptTokens, cached, more, threshold, ratio) => {
    const rules: ConditionalDisagg = { policy, effIslThreshold: threshold, effIslRatioThreshold: ratio, prefillBusyThreshold: 1, decodeBusyThreshold: null }
    const at = (cachedTokens: number): boolean => bypassVerdict(rules, facts({ promptTokens, cachedTokens })).bypass
    if (at(cached)) assert.ok(at(cached + more))
    assert.ok(netNewTokens({ promptTokens, cachedTokens: cached }) <= promptTokens)
    assert.equal(bypassVerdict({ ...rules, effIslThreshold: 0 }, facts({ promptTokens, cachedTokens: cached })).bypass, false)
  }))
})
