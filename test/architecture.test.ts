/** Goal: imports run only inwards. Method: every import statement of `src/` is held against a table of rooms. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative, sep } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from './repo-root.ts'

/** What each room may import besides itself. `node`: Node's own modules. Packages are listed by name. */
const rooms: Readonly<Record<string, readonly string[]>> = {
  model: [],
  ports: ['model'],
  msgpack: ['model'],
  hashing: ['model', 'ports', 'router/contract', '@noble/hashes'],
  'kv-events': ['model', 'ports', 'hashing'],
  index: ['model', 'ports'],
  load: ['model', 'ports'],
  scheduling: ['model', 'ports', 'index', 'load', 'hashing', 'router/contract'],
  queue: [],
  policies: ['model', 'ports', 'scheduling'],
  router: ['model', 'ports', 'queue', 'policies', 'index', 'load', 'scheduling', 'hashing', 'kv-events'],
  disagg: ['model', 'ports', 'msgpack'],
  // Hooks of the module loader stand outside the process, too: they name `warmpath` by its built entries.
  'policy-files': ['model', 'ports', 'policies', 'index.ts', 'hashing.ts', 'index', 'hashing', 'node'],
  affinity: ['model'],
  'system-ports': ['ports', 'node'],
  'make-folder': ['node'],
  dynamo: ['model', 'ports', 'make-folder', 'msgpack', 'hashing', 'kv-events', 'index', 'router', 'node', 'lossless-json', 'etcd3', 'zeromq', '@nats-io/transport-node', '@nats-io/jetstream', '@nats-io/obj', '@noble/hashes', 'undici', 'yaml'],
  // The raw engines' codec and the simulated engine; the worker wrapper below composes Dynamo parts.
  engines: ['model', 'ports', 'msgpack', 'hashing', 'kv-events', 'index', 'node', 'dynamo', 'system-ports', 'worker', '@noble/hashes'],
  // The worker SDK: makes its planes as the commands do. Of the engines it knows the codec of their event sockets, no more.
  worker: ['planes', 'model', 'ports', 'system-ports', 'kv-events', 'engines/raw-kv-events', 'dynamo', 'observability', 'config', 'node', 'zeromq', '@noble/hashes'],
  http: ['model', 'ports', 'msgpack', 'node', 'dynamo', 'lossless-json'],
  text: ['model', 'ports', 'node', '@huggingface/jinja', '@huggingface/tokenizers', 'tokenizers'],
  // What models write: text in pieces to content, reasoning and tool calls.
  parsers: [],
  openai: ['model', 'ports', 'parsers', 'text', 'http', 'dynamo/wire/json', 'observability', 'node', 'fastify', 'prom-client', 'lossless-json'],
  admin: ['ports', 'node'],
  observability: ['model', 'ports', 'router', 'node', 'pino', 'prom-client'],
  config: ['model', 'ports', 'affinity', 'disagg', 'queue', 'policies', 'load', 'scheduling', 'router', 'node', 'yaml'],
  // Load and bindings that several routers share.
  replicas: ['model', 'ports', 'hashing', 'affinity', 'router', 'dynamo'],
  state: ['model', 'ports', 'make-folder', 'router', 'dynamo/durable/snapshot-codec', 'node'],
  standalone: ['model', 'ports', 'state', 'msgpack', 'disagg', 'affinity', 'replicas', 'router', 'hashing', 'dynamo', 'observability', 'config', 'http', 'node'],
  'global-router': ['model', 'ports', 'msgpack', 'standalone', 'dynamo'],
  // The services over HTTP: their state, and the sockets around it.
  services: ['model', 'ports', 'msgpack', 'hashing', 'kv-events', 'engines/raw-kv-events', 'index', 'load', 'scheduling', 'queue', 'affinity', 'router', 'dynamo/wire/json', 'dynamo/wire/active-sequences', 'dynamo/event-plane/zmq-library', 'http', 'observability', 'node', 'zeromq'],
  planes: ['ports', 'config', 'dynamo'],
  // Composition: may know everything.
  cli: ['*'],
  frontend: ['*'],
  golden: ['*'],
  'index.ts': ['*'],
  'hashing.ts': ['hashing', 'model'],
  'worker.ts': ['*'],
}

/** Rooms of the pure core: no Node, no clock, no chance of their own. */
const core = ['model', 'ports', 'msgpack', 'hashing', 'kv-events', 'index', 'load', 'scheduling', 'queue', 'policies', 'router', 'disagg', 'parsers']

const sourceRoot = join(repoRoot, 'src')
const sources = readdirSync(sourceRoot, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts'))
  .map((entry) => join(entry.parentPath, entry.name))

function roomOf(path: string): string {
  const parts = relative(sourceRoot, path).split(sep)
  if (parts.length > 1) return parts[0] as string
  const file = parts[0] as string
  const bare = file.replace(/\.ts$/, '')
  return rooms[file] !== undefined ? file : bare
}

function importsOf(text: string): string[] {
  const found: string[] = []
  for (const match of text.matchAll(/(?:^|\n)\s*(?:import|export)\s[^'"]*?from\s+['"]([^'"]+)['"]/g)) found.push(match[1] as string)
  for (const match of text.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)) found.push(match[1] as string)
  for (const match of text.matchAll(/(?:^|\n)\s*import\s+['"]([^'"]+)['"]/g)) found.push(match[1] as string)
  // Files that run in threads of their own.
  for (const match of text.matchAll(/new URL\(['"](\.[^'"]+)\.js['"]/g)) found.push(`${match[1] as string}.ts`)
  return found
}

test('imports run only inwards', () => {
  const wrong: string[] = []
  for (const file of sources) {
    const room = roomOf(file)
    const allowed = rooms[room]
    if (allowed === undefined) {
      wrong.push(`${relative(repoRoot, file)}: the room ${room} is not in the table`)
      continue
    }
    if (allowed.includes('*')) continue
    for (const target of importsOf(readFileSync(file, 'utf8'))) {
      if (target.startsWith('.')) {
        const path = normalize(join(dirname(file), target))
        const targetRoom = roomOf(path)
        const name = relative(sourceRoot, path).replace(/\.ts$/, '')
        if (targetRoom !== room && !allowed.includes(targetRoom) && !allowed.includes(name)) wrong.push(`${relative(repoRoot, file)} imports ${name}`)
      } else if (target.startsWith('node:')) {
        if (!allowed.includes('node')) wrong.push(`${relative(repoRoot, file)} imports ${target}`)
      } else {
        const name = target.split('/').slice(0, target.startsWith('@') ? 2 : 1).join('/')
        if (!allowed.includes(name)) wrong.push(`${relative(repoRoot, file)} imports the package ${target}`)
      }
    }
  }
  assert.deepEqual(wrong, [])
})

test('the core has no clock, no chance and no globals of Node', () => {
  const banned = /\b(Math\.random|Date\.now|new Date\b|performance\.now|process\.|setTimeout|setInterval|setImmediate|Buffer\.)/
  const wrong: string[] = []
  for (const file of sources) {
    if (!core.includes(roomOf(file)) || file.endsWith('contract-suite.ts')) continue
    readFileSync(file, 'utf8').split('\n').forEach((line, index) => {
      const code = line.replace(/\/\/.*$/, '').replace(/^\s*\*.*$/, '').replace(/\/\*.*?\*\//g, '')
      if (banned.test(code)) wrong.push(`${relative(repoRoot, file)}:${index + 1}: ${line.trim()}`)
    })
  }
  assert.deepEqual(wrong, [])
})

test('every source file belongs to somebody: imported, an entry, a command or a golden kind', () => {
  const imported = new Set<string>()
  for (const file of [...sources, ...readdirSync(sourceRoot, { recursive: true, withFileTypes: true }).filter((entry) => entry.name.endsWith('.test.ts')).map((entry) => join(entry.parentPath, entry.name))]) {
    for (const target of importsOf(readFileSync(file, 'utf8'))) if (target.startsWith('.')) imported.add(normalize(join(dirname(file), target)))
  }
  const entries = ['index.ts', 'hashing.ts', 'worker.ts', join('cli', 'main.ts'), join('golden', 'main.ts'), join('config', 'write-docs.ts'), join('text', 'encoder-thread.ts')].map((name) => join(sourceRoot, name))
  const orphans = sources.filter((file) => !imported.has(file) && !entries.includes(file)).map((file) => relative(repoRoot, file))
  assert.deepEqual(orphans, [])
})
