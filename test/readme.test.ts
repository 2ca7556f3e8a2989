/** Goal: no example of the README, or of its page on deployments, stands untried. Method: every block is claimed by the test or scenario that runs it. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { readmeBlock, readmeBlocks } from './readme-blocks.ts'
import { repoRoot } from './repo-root.ts'

/** A piece of each block and the file that names it; `itself`: the commands that run the tests. */
const claimed: readonly (readonly [string, string])[] = [
  ['npm test\n', 'itself'],
  ['ready: http://', 'interop/scenarios/readme.ts'], ['import OpenAI', 'interop/scenarios/readme.ts'], ['--router-reset-states --no-router', 'interop/scenarios/readme.ts'], ['INFO Selected worker', 'interop/scenarios/readme.ts'],
  ['DistributedRuntime', 'interop/scenarios/readme.ts'], ['warmpath frontend', 'interop/scenarios/readme.ts'], ['--register-model', 'interop/scenarios/readme.ts'], ['--prefill-endpoint', 'interop/scenarios/readme.ts'],
  ['warmpath worker', 'interop/scenarios/readme.ts'], ['/get_overlap_scores', 'interop/scenarios/readme.ts'], ['"candidates"', 'interop/scenarios/readme.ts'],
  ['new KvRouter', 'test/package.test.ts'], ['costPolicy', 'test/package.test.ts'], ['registerModel', 'test/package.test.ts'],
]

test('every block is run as it is written', () => {
  const blocks = claimed.map(([piece, file]) => {
    if (file !== 'itself') readFileSync(join(repoRoot, file), 'utf8')
    return readmeBlock(piece)
  })
  assert.deepEqual(readmeBlocks().filter((block) => !blocks.includes(block)), [])
  assert.equal(new Set(blocks).size, claimed.length)
})
