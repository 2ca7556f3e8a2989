/** The recorded option list of the real router passes, and a list that differs does not. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fixturePath } from '../../test/repo-root.ts'
import { golden } from './cli-options.ts'
import type { GoldenDocument } from './kind.ts'

const recorded = JSON.parse(readFileSync(fixturePath('router', 'cli_options.json'), 'utf8')) as GoldenDocument & { readonly options: readonly object[] }
const failures = (document: GoldenDocument) => [...golden.run(document)].filter(({ outcome }) => outcome.kind !== 'passed')

test('every recorded option is taken with its variable, default, choices and standing', () => {
  assert.ok(recorded.options.length > 40)
  assert.deepEqual(failures(recorded), [])
})

test('a name, variable, default or standing that differs is told', () => {
  const option = { names: ['--router-temperature'], takes_value: true, choices: null, env: 'DYN_ROUTER_TEMPERATURE', default: '0.0', legacy_alias: null, deprecated: true }
  const changed = [
    {}, { names: ['--router-heat'] }, { takes_value: false }, { env: 'DYN_HEAT' }, { default: '1.0' }, { default: 'None' }, { choices: ['x'] },
    { legacy_alias: '--heat' }, { deprecated: false },
  ].map((change) => ({ ...option, ...change }))
  assert.equal(failures({ kind: 'cli_options', options: changed }).length, changed.length - 1)
})
