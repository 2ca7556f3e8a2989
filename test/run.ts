/** Runs every compiled test with Node's runner and ends with the line `N passed, N failed`. Arguments filter by path. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { run } from 'node:test'
import { spec } from 'node:test/reporters'
import { repoRoot } from './repo-root.ts'

const filters = process.argv.slice(2)
const files = ['src', 'test', 'interop', 'bench']
  .map((folder) => join(repoRoot, '.build', folder))
  .flatMap((folder) => {
    try {
      return readdirSync(folder, { recursive: true, withFileTypes: true })
    } catch {
      return []
    }
  })
  .filter((entry) => entry.isFile() && entry.name.endsWith('.test.js'))
  .map((entry) => join(entry.parentPath, entry.name))
  .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)))
  .sort()

const counts = { passed: 0, failed: 0, skipped: 0 }
const stream = run({ files, concurrency: 2, timeout: 120_000 })
stream.on('test:pass', (event) => {
  if (event.details.type === 'suite') return
  if (event.skip === undefined || event.skip === false) counts.passed += 1
  else counts.skipped += 1
})
stream.on('test:fail', (event) => { if (event.details.type !== 'suite') counts.failed += 1 })
stream.compose(new spec()).pipe(process.stdout)
stream.on('close', () => finish())
stream.on('end', () => finish())

let finished = false
function finish(): void {
  if (finished) return
  finished = true
  setImmediate(() => {
    if (files.length === 0) counts.failed += 1
    if (counts.skipped > 0) process.stdout.write(`\n${counts.skipped} skipped, with the reason beside each\n`)
    process.stdout.write(`\n${counts.passed} passed, ${counts.failed} failed\n`)
    process.exitCode = counts.failed === 0 ? 0 : 1
  })
}
