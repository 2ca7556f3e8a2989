/** Goal: the recorded cases of the real software pass, for the kinds of hashing, raw events and event plane. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { isSafeNumber, parse } from 'lossless-json'
import { fixturePath } from '../../test/repo-root.ts'
import { golden as eventPlaneCapture } from './event-plane-capture.ts'
import { golden as hashing } from './hashing.ts'
import type { GoldenDocument } from './kind.ts'
import { golden as trackingHash } from './tracking-hash.ts'
import { golden as zmqKvEvents } from './zmq-kv-events.ts'

const parseNumber = (text: string): number | bigint => (/^-?\d+$/.test(text) && !isSafeNumber(text) ? BigInt(text) : Number(text))

for (const [kind, casesMin] of [[hashing, 200], [trackingHash, 50], [zmqKvEvents, 150], [eventPlaneCapture, 20]] as const) {
  test(`fixtures of kind ${kind.name}`, () => {
    const document = parse(readFileSync(fixturePath('router', `${kind.name}.json`), 'utf8'), undefined, parseNumber) as GoldenDocument
    const outcomes = [...kind.run(document)]
    assert.deepEqual(outcomes.filter(({ outcome }) => outcome.kind !== 'passed'), [])
    assert.ok(outcomes.length >= casesMin, `${outcomes.length} cases`)
  })
}

test('a wrong expectation fails', () => {
  const document = parse(readFileSync(fixturePath('router', 'zmq_kv_events.json'), 'utf8'), undefined, parseNumber) as GoldenDocument & { cases: { expect: { payload_hex: string }[] }[] }
  const first = document.cases[0]?.expect[0]
  assert.ok(first !== undefined)
  first.payload_hex = first.payload_hex.replace('cd1b59', 'cd1b58')
  const outcomes = [...zmqKvEvents.run(document)].map(({ outcome }) => outcome.kind)
  assert.deepEqual([outcomes[0], outcomes.filter((kind) => kind === 'failed').length], ['failed', 1])
})
