/** Goal: what is published works in an empty project. Method: pack, install, run the README's program, check its types, ask for help. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { repoRoot } from './repo-root.ts'

const project = mkdtempSync(join(tmpdir(), 'warmpath-package-'))

function run(command: string, args: readonly string[], cwd: string): string {
  const child = spawnSync(command, args, { cwd, encoding: 'utf8', timeout: 110_000 })
  assert.equal(child.status, 0, `${command} ${args.join(' ')}\n${child.stdout}${child.stderr}`)
  return child.stdout
}

before(() => {
  run('npm', ['pack', '--silent', '--pack-destination', project], repoRoot)
  const tarball = readdirSync(project).find((name) => name.endsWith('.tgz')) as string
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'embedder', private: true, type: 'module' }))
  run('npm', ['install', '--silent', '--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error', `./${tarball}`], project)
})

after(() => rmSync(project, { recursive: true, force: true }))

test('the program of the README embeds the router', () => {
  copyFileSync(join(repoRoot, 'examples', 'embed.mjs'), join(project, 'embed.mjs'))
  const output = run(process.execPath, ['embed.mjs'], project)
  assert.match(output, /^second -> worker \d/m)
  assert.match(output, /16 blocks cached/)
  assert.ok(readFileSync(join(repoRoot, 'README.md'), 'utf8').includes(readFileSync(join(repoRoot, 'examples', 'embed.mjs'), 'utf8').trim()), 'the README shows this program')
})

test('the types hold for a TypeScript project', () => {
  copyFileSync(join(repoRoot, 'examples', 'embed.mjs'), join(project, 'typed.mts'))
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions: { module: 'nodenext', target: 'es2023', lib: ['es2023', 'dom'], strict: true, noEmit: true, types: [] }, files: ['typed.mts', 'paths.mts'] }))
  writeFileSync(join(project, 'paths.mts'), "import { localBlockHashes } from 'warmpath/hashing'\nimport * as worker from 'warmpath/worker'\nexport const count: number = localBlockHashes(new Uint32Array(32), { blockSize: 16 }).length\nexport { worker }\n")
  const child = spawnSync(join(repoRoot, 'node_modules', '.bin', 'tsc'), ['-p', project, '--skipLibCheck', 'true'], { cwd: project, encoding: 'utf8' })
  assert.equal(child.status, 0, child.stdout)
})

test('the command is there', () => {
  assert.match(run('npx', ['--no-install', 'warmpath', '--help'], project), /Usage: warmpath COMMAND/)
  assert.match(run('npx', ['--no-install', 'warmpath', '--version'], project), /^warmpath \d+\.\d+\.\d+/)
})

test('the tarball holds no tests and no sources', () => {
  const folder = join(project, 'node_modules', 'warmpath')
  const names = readdirSync(folder, { recursive: true }).map(String)
  assert.deepEqual(names.filter((name) => /\.test\.|golden-|^src/.test(name)), [])
  assert.ok(names.includes(join('dist', 'cli', 'main.js')))
})
