/** The written page and the table say the same; the table itself holds together. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../test/repo-root.ts'
import { helpText } from './help.ts'
import { flagSpellings } from './option.ts'
import type { OptionTable } from './option.ts'
import { optionsPage } from './options-page.ts'
import { tables } from './table.ts'
import { valueFromText } from './value.ts'

test('docs/options.md is up to date with the option table', () => {
  const written = readFileSync(join(repoRoot, 'docs', 'options.md'), 'utf8')
  assert.ok(written === optionsPage(), 'docs/options.md is stale; run npm run docs')
})

for (const [command, table] of Object.entries(tables) as [keyof typeof tables, OptionTable][]) {
  test(`no two options of ${command} share a name`, () => {
    const spellings = flagSpellings(table).map(({ spelling }) => spelling)
    assert.equal(new Set(spellings).size, spellings.length)
    const names = Object.values(table).map(({ name }) => name)
    assert.equal(new Set(names).size, names.length)
  })

  test(`every default of ${command} is a valid value of its option`, () => {
    for (const option of Object.values(table)) {
      if (option.default !== null) assert.equal(valueFromText(option, String(option.default), option.name), option.default)
    }
  })

  test(`help of ${command} names every flag, and no line is wider than a terminal`, () => {
    const text = helpText(command)
    for (const option of Object.values(table)) if (option.isFlag) assert.ok(text.includes(`--${option.name}`) || text.includes(`--[no-]${option.name}`), option.name)
    for (const line of text.split('\n')) assert.ok(line.length <= 120, line)
  })

  test(`own options of ${command} read WARMPATH_ variables, and Dynamo's read its own`, () => {
    for (const option of Object.values(table)) {
      const [first] = option.env
      // Flags of Dynamo's services have no variables.
      if (first === undefined && option.isFlag && option.origin === 'dynamo' && ['select-service', 'indexer', 'slot-tracker'].includes(command)) continue
      assert.ok(first !== undefined, option.name)
      assert.equal(first.startsWith('WARMPATH_'), option.origin === 'warmpath', option.name)
    }
  })
}
