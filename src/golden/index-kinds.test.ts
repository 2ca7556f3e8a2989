/** Runs the recorded cases of the prefix index: every answer must equal the original's. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { isSafeNumber, parse } from 'lossless-json'
import { fixturePath } from '../../test/repo-root.ts'
import type { GoldenDocument, GoldenKind } from './kind.ts'
import { golden as radixTree } from './radix-tree.ts'
import { golden as tieredIndex } from './tiered-index.ts'

const parseNumber = (text: string): number | bigint => (/^-?\d+$/.test(text) && !isSafeNumber(text) ? BigInt(text) : Number(text))

function failuresOf(kind: GoldenKind): { failures: string[]; passed: number } {
  const text = readFileSync(fixturePath('router', `${kind.name}.json`), 'utf8')
  const failures: string[] = []
  let passed = 0
  for (const { id, outcome } of kind.run(parse(text, undefined, parseNumber) as GoldenDocument)) {
    if (outcome.kind === 'passed') passed += 1
    else failures.push(`${id}: ${outcome.kind === 'failed' ? outcome.message : outcome.reason}`)
  }
  return { failures, passed }
}

for (const [kind, cases] of [[radixTree, 160], [tieredIndex, 70]] as const) {
  test(`all recorded ${kind.name} cases agree`, () => {
    assert.deepEqual(failuresOf(kind), { failures: [], passed: cases })
  })
}
