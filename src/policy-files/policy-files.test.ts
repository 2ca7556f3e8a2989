/** Goal: policy files load from anywhere, fresh each time, and what cannot be used says where and why, and leaves the old policy. Method: files in a folder of their own. */
import assert from 'node:assert/strict'
import { mkdtempSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { Log } from '../ports.ts'
import { loadPolicy, PolicyFileError } from './load-policy.ts'
import { openPolicies, PolicyFiles } from './policy-files.ts'
import { PolicyReports } from './policy-reports.ts'
import { until } from '../../test/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'warmpath-policy-'))
after(() => rmSync(folder, { recursive: true, force: true }))

function file(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

const lines: string[] = []
const write = (level: string) => (_fields: object, message: string): void => { lines.push(`${level} ${message}`) }
const log: Log = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') }
const scoreOf = (policy: object): unknown => (policy as { score(candidate: unknown, request: unknown): unknown }).score({}, {})

async function refusal(path: string): Promise<string> {
  const error: unknown = await loadPolicy(path).then(() => assert.fail('it loaded'), (thrown: unknown) => thrown)
  assert.ok(error instanceof PolicyFileError)
  assert.ok(!error.message.includes('warmpath-policy='), error.message)
  return error.message.replaceAll(`${folder}/`, '')
}

test('a .js file without a package around it finds warmpath', async () => {
  const policy = await loadPolicy(file('plain.js', "import { definePolicy, costPolicy } from 'warmpath'\nexport default definePolicy({ name: 'plain', score: () => (costPolicy().name === 'cost' ? 7 : 0) })\n"))
  assert.deepEqual([policy.name, scoreOf(policy)], ['plain', 7])
})

test('TypeScript loses its types, its neighbours too, and both are read anew', async () => {
  file('weights.ts', 'export const weight: number = 1\n')
  const path = file('typed.ts', "import { definePolicy, type PolicyCandidate } from 'warmpath'\nimport { weight } from './weights.ts'\nexport default definePolicy({ name: 'typed', score(_candidate: PolicyCandidate): number { return weight } })\n")
  const first = await loadPolicy(path)
  file('weights.ts', 'export const weight: number = 2\n')
  const second = await loadPolicy(path)
  assert.deepEqual([scoreOf(first), scoreOf(second)], [1, 2])
})

test('a link counts as the file it names', async () => {
  file('real.js', "export default { name: 'real', score: () => 1 }\n")
  symlinkSync(join(folder, 'real.js'), join(folder, 'link.js'))
  assert.equal((await loadPolicy(join(folder, 'link.js'))).name, 'real')
})

test('what cannot be used names file, line and reason', async () => {
  mkdirSync(join(folder, 'sub'))
  assert.match(await refusal(file('syntax.js', 'export default {\n  name: "x"\n  score() {}\n}\n')), /^syntax\.js:3: SyntaxError: Unexpected identifier/)
  assert.match(await refusal(file('syntax.ts', "const x: number = 1\nexport default { name: 'x', score(c: object): number { return c. } }\n")), /^syntax\.ts:2: Expected ident/)
  assert.match(await refusal(file('enum.ts', 'enum A { B }\nexport default A\n')), /^enum\.ts:1: TypeScript enum is not supported/)
  assert.match(await refusal(file('throws.js', '\nthrow new TypeError("at once")\n')), /^throws\.js:2: TypeError: at once/)
  assert.match(await refusal(file('define.js', "import { definePolicy } from 'warmpath'\n\nexport default definePolicy({ name: 'x' })\n")), /^define\.js:3: TypeError: definePolicy: the policy has neither score nor select; give one/)
  assert.match(await refusal(file('none.js', 'export const policy = 1\n')), /^none\.js: has no default export; write export default definePolicy/)
  assert.match(await refusal(file('number.js', 'export default 3\n')), /^number\.js: the default export is a number/)
  assert.match(await refusal(file('neighbour.js', "import './gone.js'\nexport default {}\n")), /gone\.js: cannot be read \(ENOENT\)/)
  assert.match(await refusal(file('package.js', "import 'no-such-package'\nexport default {}\n")), /^package\.js: Cannot find package 'no-such-package'/)
  assert.match(await refusal(join(folder, 'absent.js')), /^absent\.js: cannot be read \(ENOENT\); check the path/)
  assert.match(await refusal(file('policy.json', '{}')), /^policy\.json: is not a policy file; expected \.js, \.mjs, \.ts or \.mts/)
  assert.match(await refusal(file('large.js', `// ${'x'.repeat(1_100_000)}\n`)), /large\.js: \d+ bytes; at most 1048576 are read/)
})

test('a changed file is in force at once; a broken one leaves the old policy and says why; the next good one mends it', async () => {
  const path = file('live.js', "export default { name: 'first', score: () => 1 }\n")
  const files = new PolicyFiles(log)
  try {
    ;(await files.prepare({ policy: path }, true))()
    const { slot } = files.live
    assert.equal(slot.policy?.name, 'first')
    file('live.js', "export default { name: 'second', score: () => 2 }\n")
    await until('the second is in force', () => slot.policy?.name === 'second')
    file('live.js', "export default { name: 'third',\n score: () => }\n")
    await until('the broken one is refused', () => files.live.status().refused !== null)
    assert.equal(slot.policy?.name, 'second')
    assert.ok(lines.some((line) => /^error --policy .*live\.js has changed and cannot be used: .*live\.js:2: SyntaxError: .*; the policy second stays in force/.test(line)), lines.join('\n'))
    rmSync(path)
    await until('the lost one is refused', () => /cannot be read/.test(files.live.status().refused ?? ''))
    assert.equal(slot.policy?.name, 'second')
    file('live.js', "export default { name: 'fourth', score: () => 4 }\n")
    await until('the fourth is in force', () => slot.policy?.name === 'fourth')
    assert.deepEqual(files.live.status(), { file: path, name: 'fourth', generation: 3, isSetAside: false, refused: null })
  } finally {
    files.close()
  }
})

test('both places change together or not at all', async () => {
  const good = file('good.js', "export default { name: 'good', score: () => 1 }\n")
  const bad = file('bad.js', 'export default 1\n')
  const files = new PolicyFiles(log)
  try {
    await assert.rejects(files.prepare({ policy: good, shadow: bad }, false), /bad\.js: the default export is a number/)
    assert.equal(files.live.status().name, null)
    ;(await files.prepare({ policy: good, shadow: good, budgetUs: 5 }, false))()
    assert.deepEqual([files.live.slot.policy?.name, files.shadow.slot.policy?.name, files.live.slot.budgetUs], ['good', 'good', 5])
    ;(await files.prepare({ policy: null, shadow: good, budgetUs: 5 }, false))()
    assert.deepEqual([files.live.status().name, files.shadow.status().name, files.live.status().file], [null, 'good', null])
  } finally {
    files.close()
  }
})

test('for the library: places with the policy in them; a file that cannot be used at the start is an error', async () => {
  const opened = await openPolicies({ policy: file('library.js', "export default { name: 'library', select: () => 0 }\n") })
  opened.close()
  assert.equal(opened.places.live.policy?.name, 'library')
  await assert.rejects(openPolicies({ policy: join(folder, 'absent.js') }), PolicyFileError)
})

test('one line for the first failure of a kind, one per minute for the rest, one for the shadow', () => {
  lines.length = 0
  const reports = new PolicyReports(log, () => 'shady')
  const slot = { place: 'live', policy: { name: 'p' }, budgetUs: 10 } as never
  for (let call = 0; call < 3; call += 1) reports.onFailure(slot, 'exception', 'Error: broken')
  for (const agrees of [true, false, false]) reports.onCompared({ agrees, regret: agrees ? 0 : 3, costGapBlocks: agrees ? 0 : 1.5 })
  reports.report()
  reports.report()
  reports.onFailure(slot, 'exception', 'Error: again')
  reports.close()
  assert.deepEqual(lines, [
    'warn --policy: the policy p failed (Error: broken); the built-in policy decides',
    'warn --policy: 2 more in the last minute like this: Error: broken',
    'info the shadow policy shady would have chosen otherwise in 2 of 3 decisions of the last minute; mean regret of the live choice by its scores 2.00, mean cost of its choice above the live one 1.00 blocks',
    'warn --policy: the policy p failed (Error: again); the built-in policy decides',
  ])
})
