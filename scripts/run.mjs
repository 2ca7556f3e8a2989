#!/usr/bin/env node
// Installs and builds what a command needs, then runs it. Uses nothing that is not in Node.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const [command = 'start', ...rest] = process.argv.slice(2)
const bin = (name) => join(root, 'node_modules', '.bin', name)

function fail(message) {
  process.stderr.write(`${message}\n`)
  process.exit(1)
}

function run(file, args, { quiet = false, env = process.env } = {}) {
  const child = spawnSync(file, args, { cwd: root, env, stdio: quiet ? ['ignore', 'pipe', 'pipe'] : 'inherit', shell: process.platform === 'win32' })
  if (child.error) fail(`cannot run ${file}: ${child.error.message}`)
  if (quiet && child.status !== 0) process.stderr.write(`${child.stdout}${child.stderr}`)
  return child.status ?? 1
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 19)) fail(`warmpath needs Node 20.19 or later; this is ${process.versions.node}`)
}

const lockStamp = () => createHash('sha256').update(readFileSync(join(root, 'package-lock.json'))).digest('hex')

/** Whether npm itself has put there what the lock file says, but for what other platforms need. */
function isInstalledByHand() {
  const there = join(root, 'node_modules', '.package-lock.json')
  if (!existsSync(there)) return false
  const packagesOf = (path) => JSON.parse(readFileSync(path, 'utf8')).packages
  const installed = packagesOf(there)
  return Object.entries(packagesOf(join(root, 'package-lock.json'))).every(([path, { integrity, optional, devOptional }]) =>
    path === '' || optional || devOptional || installed[path]?.integrity === integrity)
}

function install() {
  const stamp = join(root, 'node_modules', '.warmpath-lock')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === lockStamp()) return
  if (isInstalledByHand()) return writeFileSync(stamp, lockStamp())
  process.stderr.write('installing dependencies (npm ci)\n')
  if (run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { quiet: true }) !== 0) fail('npm ci failed')
  writeFileSync(stamp, lockStamp())
}

function newestUnder(folder) {
  let newest = 0
  if (!existsSync(folder)) return newest
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) newest = Math.max(newest, statSync(join(entry.parentPath ?? entry.path, entry.name)).mtimeMs)
  }
  return newest
}

/** Compiles when a source is newer than the last good build. */
function build(project, folder, sources) {
  const stamp = join(root, folder, '.built')
  const newest = Math.max(...sources.map((name) => newestUnder(join(root, name))), statSync(join(root, project)).mtimeMs)
  if (existsSync(stamp) && statSync(stamp).mtimeMs > newest) return
  if (run(bin('tsc'), ['-p', project]) !== 0) fail(`building ${folder} failed`)
  mkdirSync(join(root, folder), { recursive: true })
  writeFileSync(stamp, '')
}

const buildProduct = () => build('tsconfig.json', 'dist', ['src'])
const buildAll = () => build('tsconfig.dev.json', '.build', ['src', 'test', 'bench', 'interop'])

const commands = {
  start: () => { buildProduct(); return run(process.execPath, ['dist/cli/main.js', 'start', ...rest]) },
  build: () => { buildProduct(); buildAll(); return 0 },
  test: () => { buildProduct(); buildAll(); return run(process.execPath, ['.build/test/run.js', ...rest]) },
  'test:long': () => { buildAll(); return run(process.execPath, ['.build/test/long.js', ...rest]) },
  lint: () => { buildAll(); return run(bin('oxlint'), ['--deny-warnings', 'src', 'test', 'bench', 'interop', 'scripts']) },
  golden: () => { buildAll(); return run(process.execPath, ['.build/src/golden/main.js', ...rest]) },
  interop: () => { buildProduct(); buildAll(); return run(process.execPath, ['.build/interop/main.js', ...rest]) },
  bench: () => { buildProduct(); buildAll(); return run(process.execPath, ['--expose-gc', '.build/bench/main.js', ...rest]) },
  'bench:compare': () => {
    const [ref, ...more] = rest
    if (ref === undefined) fail('npm run bench:compare REF [router|frontend] [options]')
    buildProduct()
    buildAll()
    return run(process.execPath, ['--expose-gc', '.build/bench/main.js', ...more, '--against', ref])
  },
  docs: () => { buildAll(); return run(process.execPath, ['.build/src/config/write-docs.js', ...rest]) },
}

checkNode()
const action = commands[command]
if (!action) fail(`unknown command ${command}; one of ${Object.keys(commands).join(', ')}`)
install()
process.exitCode = action()
