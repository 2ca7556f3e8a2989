/** Runs the recorded cases of load tracking and selection: every answer must equal the original's. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { isSafeNumber, parse } from 'lossless-json'
import { fixturePath } from '../../test/repo-root.ts'
import type { GoldenDocument, GoldenKind } from './kind.ts'
import { golden as queue } from './queue.ts'
import { golden as selection } from './selection.ts'
import { golden as slots } from './slots.ts'

const parseNumber = (text: string): number | bigint => (/^-?\d+$/.test(text) && !isSafeNumber(text) ? BigInt(text) : Number(text))

const documentOf = (kind: GoldenKind): GoldenDocument =>
  parse(readFileSync(fixturePath('router', `${kind.name}.json`), 'utf8'), undefined, parseNumber) as GoldenDocument

function outcomesOf(kind: GoldenKind, document: GoldenDocument): { passed: number; failures: string[]; skipped: Map<string, number> } {
  const outcomes = { passed: 0, failures: [] as string[], skipped: new Map<string, number>() }
  for (const { id, outcome } of kind.run(document)) {
    if (outcome.kind === 'passed') outcomes.passed += 1
    else if (outcome.kind === 'failed') outcomes.failures.push(`${id}: ${outcome.message}`)
    else outcomes.skipped.set(outcome.reason, (outcomes.skipped.get(outcome.reason) ?? 0) + 1)
  }
  return outcomes
}

test('all recorded slots cases agree', () => {
  assert.deepEqual(outcomesOf(slots, documentOf(slots)), { passed: 80, failures: [], skipped: new Map() })
})

test('all recorded queue scripts agree', () => {
  assert.deepEqual(outcomesOf(queue, documentOf(queue)), { passed: 46, failures: [], skipped: new Map() })
})

test('the check of queue scripts sees another order', () => {
  const cases = (documentOf(queue)['cases'] as readonly { readonly config: string; readonly env: object }[])
    .filter(({ config }) => config === 'lcfs')
    .map((item) => ({ ...item, env: { ...item.env, DYN_ROUTER_QUEUE_POLICY: 'fcfs' } }))
  const { passed, failures } = outcomesOf(queue, { kind: 'queue', cases })
  assert.deepEqual([passed + failures.length, failures.length > 0], [6, true])
})

const selectionDocument = documentOf(selection)

test('all recorded selections agree', () => {
  assert.deepEqual(outcomesOf(selection, selectionDocument), { passed: 130, failures: [], skipped: new Map() })
})

test('the check of selections sees a wrong weight: cases of one configuration fail under the settings of another', () => {
  const cases = (selectionDocument['cases'] as readonly { readonly config: string; readonly env: object }[])
    .filter(({ config }) => config === 'weights')
    .map((item) => ({ ...item, env: {} }))
  const { passed, failures } = outcomesOf(selection, { kind: 'selection', cases })
  assert.deepEqual({ passed, failed: failures.length }, { passed: 0, failed: 13 })
})
